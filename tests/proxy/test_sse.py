"""Server-Sent Events, both ways: however a stream is cut its events are the same, and nothing grows."""

from __future__ import annotations

import itertools
import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.proxy.sse import KEEP_ALIVE, Events, TooLarge, event

BOM = b"\xef\xbb\xbf"
MESSAGE = b'{"jsonrpc":"2.0"}'
LINES = st.sampled_from(
    [
        *(b"data: a", b"data:b", b"data:  c", b"data", b"data:", b"data: d: e", b"datax: no", b" data: no"),
        *(b"event: message", b"event: other", b"event:", b"event", b"id: 7", b"retry: 10", b": a comment"),
        *(b":", b"", b"", b"\xef\xbb\xbfdata: no", "data: ü\u2028".encode(), b"data: \xff\x00", b"\x85"),
    ]
)
STREAMS = st.tuples(
    st.sampled_from([b"", BOM, BOM[:1], BOM[:2], BOM + BOM]),
    st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=24),
    st.binary(max_size=4),
).map(lambda parts: parts[0] + b"".join(line + end for line, end in parts[1]) + parts[2])


def expected(stream: bytes) -> list[bytes]:
    """WHATWG HTML, section 9.2.6, over a whole stream: data of events that are `message` and not empty."""
    found, data, kind = [], [], b""
    *lines, _ = re.split(rb"\r\n|\n|\r", stream.removeprefix(BOM))
    for line in lines:
        name, _, value = line.partition(b":")
        if not line:
            if b"\n".join(data) and kind in {b"", b"message"}:
                found.append(b"\n".join(data))
            data, kind = [], b""
        elif name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            kind = value.removeprefix(b" ")
    return found


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """A stream in pieces, some of them empty."""
    at = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(at)]


def fed(pieces: list[bytes], limit: int = 1024) -> list[bytes]:
    events = Events(limit)
    return [data for piece in pieces for data in events.feed(piece)]


@given(STREAMS, st.lists(st.integers(0, 1000), max_size=12))
def test_any_cutting_of_a_stream_gives_the_same_events(stream: bytes, places: list[int]) -> None:
    """However the bytes arrive, the events are those that the standard sees in the whole stream."""
    assert fed(cut(stream, places)) == expected(stream)


@given(STREAMS)
def test_a_stream_may_come_byte_by_byte(stream: bytes) -> None:
    """One byte at a time is as good as all at once."""
    assert fed([bytes([byte]) for byte in stream]) == expected(stream)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_is_given_as_soon_as_it_is_whole(end: bytes) -> None:
    """Nobody waits for a next byte, which a server that answered has no reason to send."""
    assert fed([b"data: " + MESSAGE + end + end]) == [MESSAGE]


def test_a_byte_order_mark_counts_at_the_very_start_only() -> None:
    """After an empty line it is part of a field's name, and that field means nothing."""
    assert fed([b"\n", BOM + b"data: x\n\n"]) == []
    assert fed([BOM[:1], BOM[1:2], BOM[2:] + b"data: x\n\n"]) == [b"x"]


@given(st.lists(st.binary().map(lambda data: re.sub(rb"[\r\n]", b"", data)).filter(bool), max_size=8))
def test_what_is_written_is_read(lines: list[bytes]) -> None:
    """Each message that Guard writes on one line is one event, and comes out as it went in."""
    spaced = [b"{" + line for line in lines]
    assert fed([event(line + b"\n") for line in spaced]) == spaced
    assert fed([KEEP_ALIVE.join(event(line) for line in spaced)]) == spaced


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("line", [b"data: aaaaaaaa\n", b"data:\n", b"data\r", b"data: a", b": a comment "])
def test_an_event_without_end_is_refused(line: bytes, size: int) -> None:
    """One long line, many lines and many empty lines are the same to the limit: none is held for ever."""
    stream = line * 4096
    with pytest.raises(TooLarge):
        fed([stream[at : at + size] for at in range(0, len(stream), size)], limit=1024)


def test_many_events_are_no_large_event() -> None:
    """The limit is for one event, and a stream of small ones goes on for ever."""
    assert fed([event(b"x" * 100)] * 1000) == [b"x" * 100] * 1000
    assert fed([KEEP_ALIVE] * 10_000) == []


@pytest.mark.parametrize("size", [99, 100])
def test_the_limit_is_met_by_what_may_just_pass(size: int) -> None:
    """An event below the limit passes in any pieces; one byte of data over it does not."""
    stream = event(b"x" * size)
    for step in (1, 13, len(stream)):
        assert fed([stream[at : at + step] for at in range(0, len(stream), step)], limit=110) == [b"x" * size]
    with pytest.raises(TooLarge):
        fed([event(b"x" * 111)], limit=110)


def test_a_large_event_costs_its_size_however_small_its_pieces_are() -> None:
    """Twelve million bytes that come a few at a time are read once, and held about once."""
    text, step = b"x" * 12_000_000, 100
    events = Events()
    tracemalloc.start()
    try:
        assert events.feed(b"data: ") == []
        for _ in range(len(text) // step):
            assert events.feed(b"x" * step) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert events.feed(b"\n\n") == [text]
    assert peak < 3 * len(text)


def test_ids_and_retry_times_are_read_as_the_standard_says() -> None:
    """WHATWG HTML, section 9.2.6: an id counts once its event is whole, and none has a NUL."""
    events = Events()
    events.feed(b"id: 1\nretry: 250\n")
    assert (events.last_id, events.retry) == (b"", 250)
    events.feed(b"data: x\n\n")
    assert events.last_id == b"1"
    events.feed(b"id: a\0b\nretry: soon\nretry: -1\ndata: y\n\n")
    assert (events.last_id, events.retry) == (b"1", 250)
    events.feed(b"id\n\n")
    assert events.last_id == b""
    events.feed(b"id: " + b"x" * 100_000 + b"\n\n")
    assert events.last_id == b""

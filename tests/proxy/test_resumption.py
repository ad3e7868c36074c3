"""Streams that a client takes up again: what was missed comes once, in order, and only so much is kept."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from guard.proxy.exchange import Exchange
from guard.proxy.resumption import KEPT_BYTES, KEPT_EVENTS, KEPT_SECONDS, KEPT_STREAMS, Stream, Streams
from guard.proxy.sse import Events


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Wire:
    """A connection that keeps what is written, as its carrier and its transport."""

    def __init__(self) -> None:
        self.transport: Any = self
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def answered(self, exchange: Exchange) -> None:
        """Nothing follows."""

    @property
    def messages(self) -> list[bytes]:
        """The data of its events."""
        return Events().feed(self.written.partition(b"\r\n\r\n")[2])

    @property
    def ids(self) -> list[str]:
        return [each.decode() for each in re.findall(rb"id: (\S+)\r\n", self.written)]


def asked() -> tuple[Wire, Exchange]:
    """A request of an HTTP/1.0 client: what it is sent has no chunks around it."""
    wire = Wire()
    return wire, Exchange(cast("Any", wire), "POST", "/mcp", "", {}, twice="", chunks=False, last=True)


def begun(streams: Streams, *, primes: bool = True) -> tuple[Wire, Exchange, Stream]:
    wire, exchange = asked()
    stream = Stream(streams, exchange, primes=primes)
    stream.begin()
    return wire, exchange, stream


async def test_what_was_missed_comes_once_and_in_order() -> None:
    """Between the loss and the return messages are kept; what was read is not told again."""
    streams = Streams(Clock())
    wire, exchange, stream = begun(streams)
    stream.tell(b'{"n":1}\n')
    assert (wire.ids, wire.messages) == (["1-0", "1-1"], [b'{"n":1}'])
    exchange.lost()
    stream.tell(b'{"n":2}\n')
    found = streams.find("1-1")
    assert found == (stream, 1)
    again, other = asked()
    stream.resume(other, 1)
    stream.tell(b'{"n":3}\n')
    stream.finish(b'{"n":4}\n')
    assert again.messages == [b'{"n":2}', b'{"n":3}', b'{"n":4}']
    assert again.ids == ["1-2", "1-3", "1-4"]
    assert other.finished
    assert len(wire.messages) == 1
    late, third = asked()
    stream.resume(third, 3)
    assert (late.messages, third.finished) == ([b'{"n":4}'], True)


async def test_whoever_comes_back_takes_the_place_of_who_was_there() -> None:
    """One connection carries a stream: nothing is told on two."""
    streams = Streams(Clock())
    wire, exchange, stream = begun(streams)
    again, other = asked()
    stream.resume(other, 0)
    stream.tell(b"{}\n")
    assert exchange.finished
    assert (wire.messages, again.messages) == ([], [b"{}"])


async def test_a_server_that_is_away_sends_the_client_away_as_well() -> None:
    """It is told when to come back, its connection ends, and the answer waits."""
    streams = Streams(Clock())
    wire, exchange, stream = begun(streams)
    stream.away(250)
    assert exchange.finished
    assert b"retry: 250\r\n" in wire.written
    stream.finish(b'{"answer":1}\n')
    again, other = asked()
    stream.resume(other, 0)
    assert again.messages == [b'{"answer":1}']


async def test_a_client_that_cannot_be_primed_is_not_sent_away() -> None:
    """Before 2025-11-25 no event is empty, and no server closes a stream that has more to say."""
    wire, exchange, stream = begun(Streams(Clock()), primes=False)
    stream.away(250)
    assert not exchange.finished
    stream.tell(b"{}\n")
    assert (wire.ids, wire.messages) == (["1-0"], [b"{}"])


async def test_nothing_is_kept_for_a_client_that_left_before_anything_was_told() -> None:
    """It has no id to come back with."""
    streams = Streams(Clock())
    _, exchange = asked()
    exchange.lost()
    stream = Stream(streams, exchange, primes=True)
    stream.tell(b"{}\n")
    assert (stream.begun, streams.bytes) == (False, 0)


async def test_a_stream_that_is_no_longer_allowed_is_told_nothing() -> None:
    """Asked before each event: what the credential would not be given now is not sent."""
    wire, exchange, stream = begun(Streams(Clock()))
    stream.allowed = lambda: False
    stream.tell(b'{"secret":1}\n')
    assert (wire.messages, exchange.finished) == ([], True)


@pytest.mark.parametrize("size", [10, 1000, KEPT_BYTES // 3, 2 * KEPT_BYTES])
async def test_so_much_is_kept_and_no_more(size: int) -> None:
    """However many events and however large: the oldest go, and a stream in use goes last."""
    streams = Streams(Clock())
    _, exchange, stream = begun(streams)
    exchange.lost()
    for _ in range(min(2 * KEPT_EVENTS, 3 * KEPT_BYTES // size + 2)):
        stream.tell(b"x" * size)
        assert streams.bytes <= KEPT_BYTES
    assert len(stream._kept) <= KEPT_EVENTS
    streams.drop(stream)
    assert streams.bytes == 0
    stream.tell(b"later")
    assert streams.bytes == 0


async def test_so_many_streams_are_kept_and_no_more() -> None:
    """Those that ended go first, then the oldest."""
    streams = Streams(Clock())
    _, _, first = begun(streams)
    _, _, second = begun(streams)
    second.finish(None)
    for _ in range(KEPT_STREAMS - 1):
        begun(streams)
    assert streams.find("2-0") is None
    assert streams.find("1-0") == (first, 0)
    begun(streams)
    assert streams.find("1-0") is None


async def test_a_stream_is_kept_for_a_while_after_its_end() -> None:
    """Then it is gone; one without an end stays."""
    clock = Clock()
    streams = Streams(clock)
    _, _, ended = begun(streams)
    begun(streams)
    ended.finish(b"{}\n")
    clock.now = KEPT_SECONDS - 1
    streams.sweep()
    assert streams.find("1-0") is not None
    clock.now = KEPT_SECONDS
    streams.sweep()
    assert (streams.find("1-0"), streams.find("2-0") is None) == (None, False)


@pytest.mark.parametrize(
    "id_", ["", "1", "1-", "1-1", "2-0", "0-0", "01-0", "1-00", "1-0 ", "1--0", "\u0661-0", "1-0\n"]
)
async def test_an_event_that_never_was_is_not_found(id_: str) -> None:
    """Only an id that was given out names an event."""
    streams = Streams(Clock())
    begun(streams)
    assert streams.find("1-0") is not None
    assert streams.find(id_) is None

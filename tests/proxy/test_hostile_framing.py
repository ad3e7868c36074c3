"""Framing that two readers could read differently: 4xx or closed, and never two calls of one request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.proxy.outsider import LIMITS, Outsider, call, outsider
from tests.proxy.raw_http import RawHttp

pytestmark = pytest.mark.asyncio(loop_scope="module")
BODY = call(True)  # noqa: FBT003 - an era
SIZE = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
SMUGGLED = b"@SMUGGLED@"
"""Stands for a whole request with a valid key."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def at(tmp_path_factory: Any) -> AsyncIterator[Outsider]:
    async with outsider(tmp_path_factory.mktemp("hostile"), limits=LIMITS) as found:
        yield found


def chunks(*pieces: bytes, trailer: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailer + b"\r\n"


GAMES: dict[str, tuple[list[str], bytes]] = {
    "a chunk size that is none": ([CHUNKED], b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a negative chunk size": ([CHUNKED], b"-5\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a signed chunk size": ([CHUNKED], b"+%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    "a chunk size with 0x": ([CHUNKED], b"0x%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    "a chunk size beyond 64 bits": ([CHUNKED], b"1%032x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    "an empty chunk size": ([CHUNKED], b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk longer than it says": ([CHUNKED], b"5\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunks with bare line feeds": ([CHUNKED], chunks(BODY).replace(b"\r\n", b"\n")),
    "a chunk that ends in a line feed": ([CHUNKED], b"%x\r\n%b\n0\r\n\r\n" % (len(BODY), BODY)),
    "a chunk extension with a bare line feed": ([CHUNKED], b"0;x\n" + SMUGGLED + b"\r\n\r\n"),
    "another transfer coding": (["Transfer-Encoding: xchunked"], chunks(BODY)),
    "chunked is not the last": (["Transfer-Encoding: chunked, gzip"], chunks(BODY)),
    "chunked in quotes": (['Transfer-Encoding: "chunked"'], chunks(BODY)),
    "chunked with a tab": (["Transfer-Encoding: \x0bchunked"], chunks(BODY)),
    "two codings": ([CHUNKED, "Transfer-Encoding: identity"], chunks(BODY)),
    "chunked twice": ([CHUNKED, CHUNKED], chunks(BODY)),
    "both framings": ([CHUNKED, SIZE], chunks(BODY) + SMUGGLED),
    "both framings, the other way": (["Content-Length: 6", CHUNKED], b"0\r\n\r\n" + SMUGGLED),
    "an odd coding beside a length": (["Transfer-Encoding: xchunked", SIZE], BODY + SMUGGLED),
    "two lengths": (["Content-Length: 5", SIZE], BODY),
    "two lengths that agree": ([SIZE, SIZE], BODY),
    "two lengths in one": ([f"{SIZE}, {len(BODY)}"], BODY),
    "a negative length": (["Content-Length: -5"], BODY),
    "a signed length": ([f"Content-Length: +{len(BODY)}"], BODY),
    "a hexadecimal length": ([f"Content-Length: {len(BODY):#x}"], BODY),
    "a length with an underscore": ([f"Content-Length: {len(BODY):_}_0"], BODY),
    "a length beyond 64 bits": (["Content-Length: 1" + "0" * 25], BODY),
    "an empty length": (["Content-Length: "], BODY),
    "a space before the colon": ([f"Content-Length : {len(BODY)}"], BODY),
    "a space before the name": ([f" {SIZE}"], BODY),
    "a NUL in a field": (["X: a\0b", SIZE], BODY),
    "a NUL in a name": (["X\0: a", SIZE], BODY),
    "a folded field": (["X: a\r\n b", SIZE], BODY),
    "a folded field with a tab": (["X: a\r\n\tTransfer-Encoding: chunked", SIZE], BODY),
    "a bare line feed": ([f"X: a\n{SIZE}"], BODY),
    "a bare carriage return": ([f"X: a\r{SIZE}"], BODY),
    "a field without a colon": (["X", SIZE], BODY),
    "a field without a name": ([": x", SIZE], BODY),
    "a name with a blank": (["X Y: z", SIZE], BODY),
    "a name beyond ASCII": (["X\xe9: z", SIZE], BODY),
    "an upgrade": (["Connection: upgrade", "Upgrade: h2c", SIZE], BODY + SMUGGLED),
    "an upgrade to websocket": (["Connection: Upgrade", "Upgrade: websocket", SIZE], BODY),
}  # fmt: skip
HEADS = {
    "bare line feeds": lambda head: head.replace(b"\r\n", b"\n"),
    "a line feed before": lambda head: b"\n\n" + head.replace(b"HTTP/1.1", b"HTTP/1.1\0", 1),
    "a tab": lambda head: head.replace(b" ", b"\t", 1),
    "HTTP/0.9": lambda head: head.replace(b" HTTP/1.1", b"", 1),
    "HTTP/2.0": lambda head: head.replace(b"HTTP/1.1", b"HTTP/2.0", 1),
    "HTTP/1.9": lambda head: head.replace(b"HTTP/1.1", b"HTTP/1.9", 1),
    "HTTP/11.1": lambda head: head.replace(b"HTTP/1.1", b"HTTP/11.1", 1),
    "no HTTP": lambda head: head.replace(b"HTTP/1.1", b"ICE/1.1", 1),
    "small letters": lambda head: head.replace(b"POST", b"post", 1),
    "an unknown method": lambda head: head.replace(b"POST", b"JEFF", 1),
    "the preface of HTTP/2": lambda head: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + head,
    "the hello of TLS": lambda head: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + head,
    "no Host": lambda head: head.replace(b"\r\nHost:", b"\r\nX-Host:", 1),
}


async def told(at: Outsider, data: bytes) -> None:
    """Every answer that comes is 4xx, and at the end the connection can be closed."""
    async with at.client.connected() as line:
        line.write(data)
        try:
            answer = await line.answer()
        except (EOFError, ConnectionError):
            return
        assert 400 <= answer.status < 500, answer
        assert at.key.encode() not in answer.body


@pytest.mark.parametrize("game", GAMES)
async def test_framing_that_two_readers_could_read_differently(at: Outsider, game: str) -> None:
    """Refused or closed, no call is made of it, and none of what stands inside."""
    lines, body = GAMES[game]
    await told(at, at.head(*lines) + body.replace(SMUGGLED, at.head(SIZE) + BODY))
    await at.honest()


@pytest.mark.parametrize("head", HEADS)
async def test_a_head_that_is_no_head(at: Outsider, head: str) -> None:
    """Refused or closed."""
    await told(at, HEADS[head](at.head(SIZE)) + BODY)
    await at.honest()


@pytest.mark.parametrize(
    "cut", ["in the head", "in a body", "in a chunk size", "in a chunk", "before the last chunk"]
)
async def test_a_request_that_is_cut_off_is_none(at: Outsider, cut: str) -> None:
    """The client closes in the midst of it: no call."""
    whole = chunks(BODY)
    data = {
        "in the head": at.head(SIZE)[:-30],
        "in a body": at.head(SIZE) + BODY[:-1],
        "in a chunk size": at.head(CHUNKED) + whole[:1],
        "in a chunk": at.head(CHUNKED) + whole[: len(BODY) // 2],
        "before the last chunk": at.head(CHUNKED) + whole[: -len(b"0\r\n\r\n")],
    }[cut]
    _, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(data)
    writer.write_eof()
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await at.honest()


async def test_chunks_of_one_byte_are_one_call(at: Outsider) -> None:
    """However a body is cut, it is read once."""
    answer = await at.client.exchange(at.head(CHUNKED) + chunks(*(bytes([each]) for each in BODY)))
    assert "isError" not in answer.message()["result"]
    at.reached += 1
    await at.honest()


async def test_a_chunk_extension_of_a_megabyte_is_at_most_one_call(at: Outsider) -> None:
    """It says nothing, and nothing of it is a request; it may be refused."""
    inside = at.head(SIZE).replace(b"\r\n", b" ")
    extension = b"%x;%b%b\r\n" % (len(BODY), b"x" * 1_000_000, inside)
    answer = await at.tried(at.head(CHUNKED) + extension + BODY + b"\r\n0\r\n\r\n")
    assert answer is None or answer.status in {400, 413, 431}
    await at.honest()


@pytest.mark.parametrize("split", [False, True], ids=["at once", "in two pieces"])
async def test_a_trailer_is_no_header(at: Outsider, split: bool) -> None:  # noqa: FBT001 - a case
    """RFC 9110 section 6.5.1: what stands behind the body says nothing about who calls or what it is."""
    trailer = f"Authorization: Bearer {at.key}\r\n".encode()
    head = at.head(CHUNKED, key=False)
    body = chunks(BODY, trailer=trailer)
    async with at.client.connected() as line:
        line.write(head if split else head + body)
        if split:
            await asyncio.sleep(0)
            line.write(body)
        assert (await line.answer()).status == 401
    await at.honest()


async def test_a_trailer_changes_no_field(at: Outsider) -> None:
    """A second `Host`, `Mcp-Name` or `Origin` behind the body is passed over."""
    trailer = b"Mcp-Name: slow\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n"
    answer = await at.client.exchange(at.head(CHUNKED) + chunks(BODY, trailer=trailer))
    assert "isError" not in answer.message()["result"]
    at.reached += 1
    await at.honest()


@pytest.mark.parametrize(
    "trailer", [b"X: y\r\n" * 200_000, b"X: " + b"y" * 1_000_000 + b"\r\n"], ids=["many", "long"]
)
async def test_a_trailer_without_end_is_not_kept(at: Outsider, trailer: bytes) -> None:
    """Whoever sends a megabyte of trailers is turned away."""
    answer = await at.tried(at.head(CHUNKED) + chunks(BODY, trailer=trailer))
    assert answer is None or answer.status in {400, 413, 431}
    await at.honest()


async def test_what_follows_a_body_is_a_request_of_its_own(at: Outsider) -> None:
    """A body that is longer than declared: the rest must be a request, and show a key of its own."""
    for rest, status in ((b"garbage\r\n\r\n", 400), (at.head(SIZE, key=False) + BODY, 401)):
        async with at.client.connected() as line:
            line.write(at.head(SIZE) + BODY)
            assert (await line.answer()).status == 200
            line.write(rest)
            assert (await line.answer()).status == status
        at.reached += 1
        await at.honest()


async def test_nothing_is_read_behind_a_request_that_was_turned_away(at: Outsider) -> None:
    """A body that nobody read is no request, whatever it looks like."""
    inside = at.head(SIZE) + BODY
    for lines, body in (([f"Content-Length: {len(inside)}"], inside), ([CHUNKED], chunks(inside))):
        async with at.client.connected() as line:
            line.write(at.head(*lines, "Content-Encoding: gzip") + body)
            assert (await line.answer()).status == 415
            line.write(b"")
            line.close()
        await at.honest()


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
async def test_nothing_is_read_behind_the_last_request(at: Outsider, version: str) -> None:
    """After `Connection: close`, or in HTTP/1.0, another request on the same connection is not answered."""
    data = at.head("Connection: close", SIZE).replace(b"HTTP/1.1", version.encode(), 1) + BODY
    async with at.client.connected() as line:
        line.write(data + data)
        assert (await line.answer()).status == 200
        assert await line.closed() == b""
    at.reached += 1
    await at.honest()


async def test_pipelined_requests_are_answered_in_order(at: Outsider) -> None:
    """Good and bad ones, each with its own answer; a broken one ends the connection."""
    bodies = [call(True, id=str(n), jsonrpc='"1.0"' if n == 2 else '"2.0"') for n in range(1, 6)]  # noqa: FBT003
    assert isinstance(at.client, RawHttp)
    async with at.client.connected() as line:
        requests = [at.head(f"Content-Length: {len(body)}") + body for body in bodies]
        line.write(b"".join(requests))
        answers = [await line.answer() for _ in bodies]
        line.write(b"garbage\r\n\r\n" + requests[0])
        assert (await line.answer()).status == 400
        assert await line.closed() == b""
    assert [answer.message()["id"] for answer in answers] == [1, 2, 3, 4, 5]
    assert [answer.status for answer in answers] == [200, 400, 200, 200, 200]
    at.reached += 4
    assert len(at.estate.received()) == at.reached
    await at.honest()
    assert json.dumps(answers[1].message()).isprintable()

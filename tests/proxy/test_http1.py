"""The HTTP/1.1 client for tool servers: what was sent is known, and nothing is sent twice."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.core.errors import GuardError
from guard.proxy.connection import MAX_FIELDS, MAX_INTERIM, Connection
from guard.proxy.http1 import Broken, Client, NotSent, Response, TooLarge
from guard.proxy.response import MAX_WAITING

PATIENCE: Final = 20.0
LIMIT: Final = 1 << 20
ONE_READ: Final = 256 * 1024  # what asyncio takes from a socket at once
OK: Final = b"HTTP/1.1 200 OK\r\n"
HELLO: Final = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Peer:
    """One accepted connection, as the server's script sees it."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer

    async def request(self) -> bytes:
        """The next request, whole."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        found = head + await self.reader.readexactly(int(length or b"0"))
        self.server.requests.append(found)
        self.server.arrivals.release()
        return found

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def send_behind_the_loop(self, data: bytes) -> None:
        """The bytes are there at once, without a turn of the loop."""
        assert os.write(self.fileno, data) == len(data)

    def close_behind_the_loop(self) -> None:
        with socket.socket(fileno=os.dup(self.fileno)) as raw:
            raw.shutdown(socket.SHUT_RDWR)

    @property
    def fileno(self) -> int:
        found = self.writer.get_extra_info("socket").fileno()
        assert isinstance(found, int)
        return found

    async def gone(self) -> bool:
        """Wait until the client closes the connection; whether it said nothing more before."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


Script = Callable[[Peer], Awaitable[Any]]


class Server:
    """A server that does what the script says, and counts."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.requests: list[bytes] = []
        self.arrivals = asyncio.Semaphore(0)
        self.port = 0
        self.url = ""

    @property
    def connections(self) -> int:
        return len(self.peers)


@asynccontextmanager
async def serving(
    script: Script, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, name: str = ""
) -> AsyncIterator[Server]:
    found = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        peer = Peer(found, reader, writer)
        found.peers.append(peer)
        try:
            await script(peer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, host, 0, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    where = name or (f"[{host}]" if ":" in host else host)
    found.url = f"{'https' if tls else 'http'}://{where}:{found.port}/mcp"
    try:
        async with asyncio.timeout(PATIENCE):
            yield found
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in found.peers:
            peer.writer.transport.abort()
            with suppress(ConnectionError, ssl.SSLError):
                await peer.writer.wait_closed()
        await server.wait_closed()


@asynccontextmanager
async def client_of(url: str, **more: Any) -> AsyncIterator[Client]:
    client = Client(url, **more)
    try:
        yield client
    finally:
        await client.close()


async def ask(client: Client, method: str = "POST", body: bytes = b"{}") -> tuple[int, bytes]:
    response = await client.request(method, [], body)
    try:
        return response.status, await response.read(LIMIT)
    finally:
        response.close()


def always(answer: bytes) -> Script:
    """Answer each request with the same bytes."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.send(answer)

    return script


def once(answer: bytes) -> Script:
    """Answer one request, and close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(answer)
        await peer.writer.drain()

    return script


def silent(heard: asyncio.Event, gone: asyncio.Event) -> Script:
    """Take a request and never answer."""

    async def script(peer: Peer) -> None:
        await peer.request()
        heard.set()
        await peer.gone()
        gone.set()

    return script


# -- what is sent ----------------------------------------------------------------------------------


async def test_a_request_is_exactly_what_was_asked() -> None:
    """Host, encoding and length are added, and nothing else."""
    async with serving(always(HELLO)) as server, client_of(server.url + "?a=b") as client:
        response = await client.request("POST", [("X-One", "a\tb"), ("x-two", "")], b"{}")
        assert await response.read(5) == b"hello"
        await ask(client, "GET", b"")
        await ask(client, "POST", b"")
    line = f"/mcp?a=b HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAccept-Encoding: identity\r\n".encode()
    assert server.requests == [
        b"POST " + line + b"X-One: a\tb\r\nx-two: \r\nContent-Length: 2\r\n\r\n{}",
        b"GET " + line + b"\r\n",
        b"POST " + line + b"Content-Length: 0\r\n\r\n",
    ]


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("POST", "x", "a\r\nEvil: b"),
        ("POST", "x", "a\nb"),
        ("POST", "x", "a\rb"),
        ("POST", "x", "a\n"),
        ("POST", "x", "\x00"),
        ("POST", "x", "a\x7f"),
        ("POST", "x", " a"),
        ("POST", "x", "a "),
        ("POST", "x", "\u2028"),
        ("POST", "x", "\u010a"),
        ("POST", "x:", "a"),
        ("POST", "x\r\ny", "a"),
        ("POST", "", "a"),
        ("POST", "ä", "a"),
        ("POST", "Content-Length", "1"),
        ("POST", "transfer-encoding", "chunked"),
        ("POST", "Host", "elsewhere"),
        ("GET / HTTP/1.1\r\nX:", "x", "a"),
        ("CONNECT", "x", "a"),
    ],
)
async def test_nothing_can_be_smuggled_into_a_request(method: str, name: str, value: str) -> None:
    """What is not a token or a field value is refused, and no connection is made."""
    async with serving(always(HELLO)) as server, client_of(server.url) as client:
        with pytest.raises(ValueError, match=r"header|method"):
            await client.request(method, [("good", "x"), (name, value)])
        assert server.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "http://",
        "http:///path",
        "host/path",
        "http://user:word@host/",
        "http://host/#part",
        "http://host/a b",
        "http://host/\r\nX: y",
        "http://host:0/",
        "http://host:99999/",
        "http://host:x/",
        "http://höst/",
        "http://[fe80::1%25eth0]/",
        "http://[::1/",
        "http://ho\tst/",
    ],
)
def test_only_plain_urls_are_taken(url: str) -> None:
    """Another scheme, a password, a fragment or a raw character is refused before anything is done."""
    with pytest.raises(GuardError, match="url: "):
        Client(url)


def test_authorities_that_cannot_be_read_are_no_authorities(tmp_path: Path) -> None:
    """A missing or empty `ca` is refused; it never falls back to the system's."""
    (tmp_path / "empty.pem").write_bytes(b"")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(GuardError, match="ca: "):
            Client("https://localhost/", ca=str(tmp_path / name))


# -- answers ---------------------------------------------------------------------------------------

WHOLE: Final[Sequence[tuple[str, bytes, int, bytes]]] = [
    ("length", HELLO, 200, b"hello"),
    ("length-zero", OK + b"Content-Length: 0\r\n\r\n", 200, b""),
    ("no-reason", b"HTTP/1.1 404\r\nContent-Length: 1\r\n\r\nx", 404, b"x"),
    ("chunked", CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", 200, b"abcde"),
    (
        "chunked-loud",
        OK + b"TRANSFER-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        200,
        b"0123456789",
    ),
    ("trailers", CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\nConnection: close\r\n\r\n", 200, b"abc"),
    ("until-close", OK + b"\r\nall of it", 200, b"all of it"),
    ("until-close-1.0", b"HTTP/1.0 200 OK\r\n\r\nall of it", 200, b"all of it"),
    ("length-1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi"),
    ("no-content", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    ("not-modified", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304, b""),
    ("accepted", b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", 202, b""),
    ("redirect", b"HTTP/1.1 307 T\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", 307, b""),
    ("interim", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n" + HELLO, 200, b"hello"),
    ("rest", HELLO + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 200, b"hello"),
    ("rest-newline", HELLO + b"\r\n", 200, b"hello"),
    ("rest-after-chunks", CHUNKED + b"1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nevil", 200, b"a"),
    ("newline-after-chunks", CHUNKED + b"1\r\na\r\n0\r\n\r\n\r\n", 200, b"a"),
    ("much-after-chunks", CHUNKED + b"0\r\n\r\n" + b"z" * 100_000, 200, b""),
    ("length-of-204", b"HTTP/1.1 204 N\r\nContent-Length: 4\r\n\r\n", 204, b""),
    ("body-of-204", b"HTTP/1.1 204 N\r\nContent-Length: 4\r\n\r\nevil", 204, b""),
]
REUSED: Final = frozenset(
    {
        "length",
        "length-zero",
        "no-reason",
        "chunked",
        "chunked-loud",
        "trailers",
        "no-content",
        "not-modified",
    }
    | {"accepted", "redirect", "interim"}
)
BROKEN: Final[Sequence[tuple[str, bytes]]] = [
    ("nothing", b""),
    ("half-a-head", b"HTTP/1.1 200 OK\r\nContent-Le"),
    ("half-an-end", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r"),
    ("only-interim", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ("half-a-body", OK + b"Content-Length: 5\r\n\r\nhel"),
    ("no-last-chunk", CHUNKED + b"3\r\nabc\r\n"),
    ("half-a-chunk", CHUNKED + b"3\r\nab"),
    ("half-a-trailer", CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n"),
    ("trailer-that-frames", CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n"),
    ("garbage", b"SSH-2.0-OpenSSH_9.7\r\n\r\n"),
    ("another-protocol", b"RTSP/1.0 200 OK\r\n\r\n"),
    ("another-version", b"HTTP/2.0 200 OK\r\n\r\n"),
    ("blank-line-first", b"\r\n\r\n" + HELLO),
    ("status-0", b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n"),
    ("status-600", b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n"),
    ("switching", b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    ("switching-mute", b"HTTP/1.1 101 S\r\n\r\n"),
    ("many-interims", b"HTTP/1.1 102 P\r\n\r\n" * (MAX_INTERIM + 1) + HELLO),
    ("interim-with-body", b"HTTP/1.1 103 E\r\nContent-Length: 3\r\n\r\nabc" + HELLO),
    ("interim-with-length", b"HTTP/1.1 103 E\r\nContent-Length: 0\r\n\r\n" + HELLO),
    ("interims-with-many-fields", (b"HTTP/1.1 103 E\r\n" + b"A:\r\n" * 100 + b"\r\n") * 3 + HELLO),
    ("interim-with-chunks", b"HTTP/1.1 103 E\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HELLO),
    ("two-lengths", OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    ("list-of-lengths", OK + b"Content-Length: 5, 6\r\n\r\nhello!"),
    ("length-and-chunks", OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunks-and-length", OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    ("negative-length", OK + b"Content-Length: -5\r\n\r\nhello"),
    ("huge-length", OK + b"Content-Length: 9999999999999999999999\r\n\r\nhello"),
    ("long-length", OK + b"Content-Length: " + b"0" * 5000 + b"5\r\n\r\nhello"),
    ("gzip", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("identity", OK + b"Transfer-Encoding: identity\r\n\r\nhello"),
    ("chunked-twice", OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunks-in-1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("folded", OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n"),
    ("bare-newlines", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    ("nul", OK + b"A: b\x00\r\nContent-Length: 0\r\n\r\n"),
    ("space-before-colon", OK + b"Content-Length : 0\r\n\r\n"),
    ("no-colon", OK + b"Content-Length\r\n\r\n"),
    ("many-fields", OK + b"A:\r\n" * (MAX_FIELDS + 1) + b"\r\n"),
    ("chunk-garbage", CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n"),
    ("chunk-negative", CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n"),
    ("chunk-huge", CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    ("chunk-too-short", CHUNKED + b"2\r\nabc\r\n0\r\n\r\n"),
    ("chunk-newlines", CHUNKED + b"3\nabc\n0\n\n"),
    ("endless-extension", CHUNKED + b"3;" + b"x" * (1 << 20) + b"\r\nabc\r\n0\r\n\r\n"),
    ("endless-trailers", CHUNKED + b"0\r\n" + b"X: y\r\n" * 40_000 + b"\r\n"),
]


@pytest.mark.parametrize(("name", "answer", "status", "body"), WHOLE, ids=[each[0] for each in WHOLE])
async def test_every_framing_is_read_to_its_end(name: str, answer: bytes, status: int, body: bytes) -> None:
    """Length, chunks, or until the close; and what follows the end is no part of it."""
    async with serving(once(answer)) as server, client_of(server.url) as client:
        assert await ask(client) == (status, body)
        assert len(server.requests) == 1


@pytest.mark.parametrize(("name", "answer"), BROKEN, ids=[each[0] for each in BROKEN])
async def test_what_is_not_a_whole_answer_is_broken_and_not_asked_again(name: str, answer: bytes) -> None:
    """The request was sent, so it is never sent again, and no part of an answer passes for the whole."""
    async with serving(once(answer)) as server, client_of(server.url) as client:
        with pytest.raises(Broken):
            await ask(client)
        assert len(server.requests) == 1
        assert server.connections == 1
    pieces = cut(answer, range(0, len(answer), ONE_READ))
    assert await heard(pieces) == ("broken",)  # and nothing is raised into the loop


async def test_an_answer_to_head_has_no_body() -> None:
    """The length is what a GET would have; the next answer is read from its own beginning."""
    async with serving(always(OK + b"Content-Length: 5\r\n\r\n")) as server, client_of(server.url) as client:
        assert [await ask(client, "HEAD", b"") for _ in range(2)] == [(200, b"")] * 2
        assert server.connections == 1


async def test_headers_are_lower_case_and_joined() -> None:
    """RFC 9110, 5.3; values keep their inner spaces and lose the outer ones."""
    answer = OK + b"X-A:  one \t\r\nx-a: two\r\nX-B:\r\nX-C: \xe4  b\r\nContent-Length: 0\r\n\r\n"
    async with serving(always(answer)) as server, client_of(server.url) as client:
        response = await client.request("GET", [])
        assert response.headers == {"x-a": "one, two", "x-b": "", "x-c": "ä  b", "content-length": "0"}


async def test_an_endless_head_is_cut_off() -> None:
    """Beyond `max_head` the connection is closed, however the head goes on."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(OK)
        while True:
            peer.send(b"A: " + b"b" * 1000 + b"\r\n")
            await peer.writer.drain()

    async with serving(script) as server, client_of(server.url) as client:
        with pytest.raises(Broken, match="more than 65536 bytes"):
            await ask(client)


# -- any way of cutting ----------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """A transport that takes everything and says nothing by itself."""

    def __init__(self, descriptor: int) -> None:
        super().__init__({"socket": self})
        self._descriptor = descriptor
        self.closing = False

    def fileno(self) -> int:
        return self._descriptor

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: Any) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        self.closing = True


async def heard(pieces: Sequence[bytes]) -> tuple[Any, ...]:
    """What comes of these pieces, and whether the connection could be used again."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(max_head=64 * 1024, on_free=lambda _: None, on_lost=lambda _: None)
        wire = Wire(ours.fileno())
        connection.connection_made(wire)
        exchange = asyncio.ensure_future(connection.exchange(b"request", head_only=False))
        await asyncio.sleep(0)
        for piece in pieces:
            if not wire.closing:
                connection.data_received(piece)
        closed = wire.closing
        if not closed:
            connection.eof_received()
        connection.connection_lost(None)
        try:
            response = await exchange
            found = response.status, response.headers, await response.read(LIMIT)
        except Broken:
            return ("broken",)
        return *found, closed


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(data), *(each for each in at if each < len(data))})
    return [data[start:end] for start, end in pairwise(places)]


ANSWERS: Final = [*((name, answer) for name, answer, _, _ in WHOLE), *BROKEN]
SHORT: Final = [(name, answer) for name, answer in ANSWERS if len(answer) < 4096]


@pytest.mark.parametrize(("name", "answer"), SHORT, ids=[each[0] for each in SHORT])
async def test_an_answer_means_the_same_wherever_it_is_cut(name: str, answer: bytes) -> None:
    """Cut once at every byte, and cut into single bytes."""
    whole = await heard([answer] if answer else [])
    expected = {each[0]: (*each[2:], each[0] not in REUSED) for each in WHOLE}
    if name in expected and not name.startswith("until-close"):
        assert (whole[0], whole[2], whole[3]) == expected[name]
    for at in range(1, len(answer)):
        assert await heard([answer[:at], answer[at:]]) == whole, at
    assert await heard([answer[at : at + 1] for at in range(len(answer))]) == whole


@given(data=st.data(), case=st.sampled_from(SHORT))
@settings(max_examples=300, deadline=None)
async def test_an_answer_means_the_same_however_it_is_cut(
    data: st.DataObject, case: tuple[str, bytes]
) -> None:
    """Cut anywhere, any number of times."""
    answer = case[1]
    at = data.draw(st.lists(st.integers(0, max(len(answer), 1)), max_size=12))
    assert await heard(cut(answer, at)) == await heard([answer] if answer else [])


@given(bodies=st.lists(st.binary(min_size=1, max_size=40), max_size=6), at=st.lists(st.integers(0, 400)))
@settings(max_examples=200, deadline=None)
async def test_chunks_give_the_bytes_that_were_put_in(bodies: list[bytes], at: list[int]) -> None:
    """Any content, newlines and whole answers among it, in any chunks, cut anywhere."""
    answer = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in bodies) + b"0\r\n\r\n"
    found = await heard(cut(answer, at))
    assert (found[0], found[2], found[3]) == (200, b"".join(bodies), False)


# -- connections -----------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [HELLO, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"], ids=["length", "chunked"])
async def test_a_connection_is_used_again(answer: bytes) -> None:
    """One connection carries one request after the other."""
    async with serving(always(answer)) as server, client_of(server.url) as client:
        for _ in range(5):
            assert await ask(client) == (200, b"hello")
        assert (server.connections, len(server.requests)) == (1, 5)


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"Connection: x, Close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        HELLO + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        HELLO + b"\n",
    ],
)
async def test_a_connection_that_ends_or_says_more_is_not_used_again(answer: bytes) -> None:
    """What follows an answer never becomes the answer to another request."""
    async with serving(always(answer)) as server, client_of(server.url) as client:
        for _ in range(2):
            assert await ask(client) == (200, b"hello")
        assert (server.connections, len(server.requests)) == (2, 2)


async def test_bytes_on_an_idle_connection_close_it() -> None:
    """An answer to a question that was not asked is nobody's."""
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.server.connections > 1:
            await always(HELLO)(peer)
        await peer.request()
        peer.send(HELLO)
        await asked.wait()
        peer.send(OK + b"Content-Length: 4\r\n\r\nevil")
        await peer.gone()
        gone.set()

    asked = asyncio.Event()
    async with serving(script) as server, client_of(server.url) as client:
        assert await ask(client) == (200, b"hello")
        asked.set()
        await gone.wait()
        assert await ask(client) == (200, b"hello")
        assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.parametrize("closing", [True, False], ids=["closed", "more-bytes"])
async def test_what_waits_on_an_idle_connection_is_seen_before_it_is_used(closing: bool) -> None:  # noqa: FBT001
    """Though the loop has not heard of it yet, a closed or speaking connection gets no request."""
    async with serving(always(HELLO)) as server, client_of(server.url) as client:
        assert await ask(client) == (200, b"hello")
        if closing:
            server.peers[0].close_behind_the_loop()
        else:
            server.peers[0].send_behind_the_loop(OK + b"Content-Length: 4\r\n\r\nevil")
        assert await ask(client) == (200, b"hello")
        assert (server.connections, len(server.requests)) == (2, 2)


async def test_a_connection_that_was_idle_for_too_long_is_not_used() -> None:
    """With no idle time at all, each request has its own connection."""
    async with serving(always(HELLO)) as server, client_of(server.url, idle_seconds=0.0) as client:
        for _ in range(2):
            assert await ask(client) == (200, b"hello")
        assert server.connections == 2


async def test_idle_connections_are_closed_by_themselves() -> None:
    """Nobody has to ask for the server to be rid of it."""
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(HELLO)
        await peer.gone()
        gone.set()

    async with serving(script) as server, client_of(server.url, idle_seconds=0.01) as client:
        assert await ask(client) == (200, b"hello")
        await gone.wait()


async def test_an_old_answer_does_not_touch_the_connection_any_more() -> None:
    """An answer that was whole can be read and closed while another request uses its connection."""
    async with serving(always(HELLO)) as server, client_of(server.url, max_connections=1) as client:
        first, third = [await client.request("POST", []) for _ in range(2)]
        second = asyncio.ensure_future(client.request("POST", []))
        await asyncio.sleep(0)
        third.close()
        assert await first.read(5) == b"hello"
        first.close()
        assert await (await second).read(5) == b"hello"
        with pytest.raises(Broken):  # an answer that was let go of unread is not an empty one
            await third.read(5)
        assert server.connections == 1


async def test_an_answer_before_the_request_is_through_ends_the_connection() -> None:
    """The answer counts; what is left of the request is never followed by another one."""
    done = asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.server.connections > 1:
            await always(HELLO)(peer)
        await peer.reader.readexactly(1)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await done.wait()

    async with serving(script) as server, client_of(server.url) as client:
        assert await ask(client, body=bytes(32 << 20)) == (413, b"")
        assert await ask(client) == (200, b"hello")
        assert server.connections == 2
        done.set()


async def test_connections_are_bounded_and_requests_wait_in_order() -> None:
    """Never more than two at once, and first come, first served."""
    together: list[int] = []
    busy = 0

    async def script(peer: Peer) -> None:
        nonlocal busy
        while True:
            await peer.request()
            busy += 1
            together.append(busy)
            for _ in range(5):  # the others get their turns
                await asyncio.sleep(0)
            busy -= 1
            peer.send(HELLO)

    async def numbered(number: int) -> None:
        response = await client.request("POST", [("n", str(number))])
        assert await response.read(5) == b"hello"
        ended.append(number)

    ended: list[int] = []
    async with serving(script) as server, client_of(server.url, max_connections=2) as client:
        await asyncio.gather(*map(numbered, range(20)))
        order = [int(each.partition(b"n: ")[2].partition(b"\r\n")[0]) for each in server.requests]
        assert max(together) == 2
        assert server.connections == 2
        assert sorted(ended) == list(range(20))
        assert all(abs(place - number) <= 1 for place, number in enumerate(order)), order


async def test_who_waits_too_long_for_a_connection_has_sent_nothing() -> None:
    """Waiting is bounded, and the one that waited left nothing behind."""
    heard_, gone = asyncio.Event(), asyncio.Event()
    async with (
        serving(silent(heard_, gone)) as server,
        client_of(server.url, max_connections=1, connect_seconds=0.05) as client,
    ):
        first = asyncio.ensure_future(client.request("POST", []))
        await server.arrivals.acquire()
        with pytest.raises(NotSent):
            await client.request("POST", [])
        assert len(server.requests) == 1
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await gone.wait()
        second = asyncio.ensure_future(client.request("POST", []))
        await server.arrivals.acquire()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)


async def test_a_cancelled_request_closes_its_connection() -> None:
    """The server hears of it at once, and the place is free again."""
    heard_, gone = asyncio.Event(), asyncio.Event()
    async with serving(silent(heard_, gone)) as server, client_of(server.url, max_connections=1) as client:
        for _ in range(3):
            heard_.clear()
            gone.clear()
            request = asyncio.ensure_future(client.request("POST", []))
            await heard_.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            await gone.wait()
        assert (server.connections, len(server.requests)) == (3, 3)


async def test_cancelling_whoever_waits_gives_the_turn_to_the_next() -> None:
    """A request that is cancelled in the queue takes no place with it."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await go.wait()
            peer.send(HELLO)

    async with serving(script) as server, client_of(server.url, max_connections=1) as client:
        first, second, third = [asyncio.ensure_future(ask(client)) for _ in range(3)]
        await server.arrivals.acquire()
        second.cancel()
        go.set()
        assert list(await asyncio.gather(first, third)) == [(200, b"hello")] * 2
        assert second.cancelled()
        assert len(server.requests) == 2


async def test_closing_the_client_breaks_what_is_under_way() -> None:
    """What was sent is unknown, what comes later is not sent."""
    heard_, gone = asyncio.Event(), asyncio.Event()
    async with serving(silent(heard_, gone)) as server, client_of(server.url) as client:
        request = asyncio.ensure_future(client.request("POST", []))
        await heard_.wait()
        await client.close()
        with pytest.raises(Broken):
            await request
        with pytest.raises(NotSent):
            await client.request("POST", [])
        await gone.wait()
        assert (server.connections, len(server.requests)) == (1, 1)


# -- streams ---------------------------------------------------------------------------------------


async def endless(peer: Peer) -> None:
    await peer.request()
    peer.send(CHUNKED)
    piece = b"x" * 65536
    while True:
        peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await peer.writer.drain()


async def test_a_stream_is_read_as_it_comes() -> None:
    """Each piece is there before the next is sent."""
    read = asyncio.Semaphore(0)

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(CHUNKED)
        for number in range(3):
            peer.send(b"7\r\ndata: %d\r\n" % number)
            await read.acquire()
        peer.send(b"0\r\n\r\n")
        await peer.gone()

    async with serving(script) as server, client_of(server.url) as client:
        response = await client.request("GET", [("accept", "text/event-stream")])
        pieces = []
        async for piece in response:
            pieces.append(piece)
            read.release()
        assert pieces == [b"data: 0", b"data: 1", b"data: 2"]


async def test_a_stream_that_nobody_reads_does_not_grow() -> None:
    """The connection is paused, and goes on when it is read."""
    async with serving(endless) as server, client_of(server.url) as client:
        response = await client.request("GET", [])
        (connection,) = client._open
        while not connection._paused:  # noqa: ASYNC110 - what it waits for is not ours to announce
            await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)
        assert MAX_WAITING < response.waiting <= MAX_WAITING + ONE_READ
        size = 0
        async for piece in response:
            assert len(piece) <= MAX_WAITING + ONE_READ
            size += len(piece)
            if size > 20 * MAX_WAITING:
                break
        response.close()


@pytest.mark.parametrize("answer", [CHUNKED, OK + b"Content-Length: 99999999\r\n\r\n", OK + b"\r\n"])
async def test_a_body_that_is_too_large_is_not_read_on(answer: bytes) -> None:
    """It ends as too large, and the server finds the connection closed."""
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(answer)
        try:
            while True:
                peer.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
                await peer.writer.drain()
        finally:
            gone.set()

    async with serving(script) as server, client_of(server.url) as client:
        response = await client.request("POST", [])
        with pytest.raises(TooLarge):
            await response.read(1000)
        with pytest.raises(Broken):
            await response.read(1000)
        await gone.wait()


async def test_a_body_that_says_that_it_is_too_large_is_not_waited_for() -> None:
    """The length is enough to refuse it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(OK + b"Content-Length: 1001\r\n\r\n")
        await peer.gone()

    async with serving(script) as server, client_of(server.url) as client:
        with pytest.raises(TooLarge):
            await (await client.request("POST", [])).read(1000)


async def test_a_body_as_large_as_the_limit_is_read() -> None:
    """The limit itself is still fine; one byte more is not."""
    async with serving(always(HELLO)) as server, client_of(server.url) as client:
        assert await (await client.request("POST", [])).read(5) == b"hello"
        with pytest.raises(TooLarge):
            await (await client.request("POST", [])).read(4)


async def test_letting_go_of_a_stream_closes_its_connection() -> None:
    """The server finds it closed, and a cancelled reader lets go as well."""
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(CHUNKED)
        await peer.gone()
        gone.set()

    async with serving(script) as server, client_of(server.url, max_connections=1) as client:
        response = await client.request("GET", [])
        response.close()
        await gone.wait()
        gone.clear()
        response = await client.request("GET", [])
        reader = asyncio.ensure_future(response.read(5))
        await asyncio.sleep(0)
        reader.cancel()
        await gone.wait()
        with pytest.raises(Broken):
            await anext(response.__aiter__())
        assert reader.cancelled()


# -- not sent --------------------------------------------------------------------------------------


async def test_a_refused_connection_sent_nothing() -> None:
    """Nobody listens: the request is known not to have run."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can take it
        async with client_of(f"http://127.0.0.1:{held.getsockname()[1]}/", max_connections=1) as client:
            for _ in range(2):  # and a failure takes no place
                with pytest.raises(NotSent, match="cannot be reached"):
                    await client.request("POST", [], b"{}")


async def test_a_name_without_address_sent_nothing() -> None:
    """A host that does not resolve is not reached (RFC 6761: `.invalid` never does)."""
    async with client_of("http://nowhere.invalid/") as client:
        with pytest.raises(NotSent):
            await client.request("POST", [], b"{}")


async def test_an_address_of_version_6_is_reached() -> None:
    """Host has the brackets."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    async with serving(always(HELLO), host="::1") as server, client_of(server.url) as client:
        assert await ask(client) == (200, b"hello")
        assert f"Host: [::1]:{server.port}\r\n".encode() in server.requests[0]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost and 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    no_password = serialization.NoEncryption()
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
    )
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_tls_works_with_the_authority_that_was_named(
    certificate: Path, tls: ssl.SSLContext, name: str
) -> None:
    """The connection is used again under TLS, too."""
    async with (
        serving(always(HELLO), tls=tls, name=name) as server,
        client_of(server.url, ca=str(certificate)) as client,
    ):
        for _ in range(3):
            assert await ask(client, body=bytes(1 << 20)) == (200, b"hello")
        assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize("trusted", [True, False], ids=["another-name", "another-authority"])
async def test_nothing_is_sent_to_whoever_cannot_prove_its_name(
    certificate: Path,
    tls: ssl.SSLContext,
    trusted: bool,  # noqa: FBT001
) -> None:
    """A certificate of another authority or for another host ends it before the request."""
    name = "127.0.0.2" if trusted else "localhost"
    more = {"ca": str(certificate)} if trusted else {}
    async with (
        serving(always(HELLO), host="0.0.0.0", tls=tls, name=name) as server,  # noqa: S104
        client_of(server.url, **more) as client,
    ):
        with pytest.raises(NotSent, match="certificate"):
            await client.request("POST", [("authorization", "secret")], b"{}")
        assert server.requests == []


async def test_a_server_without_tls_gets_nothing_in_the_clear(certificate: Path) -> None:
    """`https` never falls back to plain text."""
    said = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        said.set_result(await peer.reader.read(65536))
        peer.send(HELLO)

    async with serving(script) as server:
        url = server.url.replace("http:", "https:")
        async with client_of(url, ca=str(certificate)) as client:
            with pytest.raises(NotSent):
                await client.request("POST", [("authorization", "secret")], b"{}")
            assert b"secret" not in await said


@pytest.mark.parametrize("honest", [True, False], ids=["close-notify", "cut"])
async def test_a_tls_stream_that_is_cut_is_not_whole(
    certificate: Path,
    tls: ssl.SSLContext,
    honest: bool,  # noqa: FBT001
) -> None:
    """Until-close bodies end with close_notify; whoever cuts the wire cannot shorten them (RFC 9112, 9.8)."""
    cuts = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(OK + b"\r\nall")
        await peer.writer.drain()
        await cuts.wait()
        if not honest:
            peer.writer.transport.abort()

    async with (
        serving(script, tls=tls, name="localhost") as server,
        client_of(server.url, ca=str(certificate)) as client,
    ):
        response: Response = await client.request("POST", [])
        cuts.set()
        if honest:
            assert await response.read(LIMIT) == b"all"
        else:
            with pytest.raises(Broken):
                await response.read(LIMIT)

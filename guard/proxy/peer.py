"""One connection of a client: HTTP/1.1 read by llhttp in its strict mode, and bounded.

Requests are answered one at a time and in order. A trailer is no header field, nothing broken is
answered before what stands in front of it, and whoever is slow is let go of: see `Peer.look`.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import inf
from typing import Final, cast
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url

from guard.proxy.exchange import SEND_SECONDS, SINGLE, Exchange
from guard.proxy.refusals import Turned

_CHUNK_OF_ONE: Final = 6
"""Bytes of the shortest chunk that carries one (RFC 9112 section 7.1)."""
_LINGER_SECONDS: Final = 10.0
"""How long somebody who was turned away may take to read it: who is overloaded, too, reads late."""
_LINGERERS: Final = 4
"""How many times as many as are served may be there only to read that they are not."""
_LINGER_BYTES: Final = 256 * 1024
"""What is read of them meanwhile, and thrown away."""
_HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)
_BAD_HEAD: Final = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_HEAD_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)
_NAMES: Final = {
    each: name
    for name in (*SINGLE, "accept", "mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id")
    for each in (name.encode(), name.title().encode())
}
"""Names as they mostly come: what they are in lower case need not be asked each time."""
_VERSIONS: Final = frozenset({"1.0", "1.1"})

App = Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one connection, and all of them, may take.

    Attributes:
        connections: at once; one more is turned away.
        header_bytes: of a request's line and header fields.
        head_seconds: from the first byte, or the connection, to the end of the head.
        keep_alive_seconds: between two requests.
    """

    connections: int = 1024
    header_bytes: int = 32 * 1024
    head_seconds: float = 10.0
    keep_alive_seconds: float = 75.0


@dataclass(slots=True)
class Shared:
    """What all connections of one listener share.

    Attributes:
        app: answers a request.
        bounds: what a connection may take.
        loop: the event loop.
        peers: every connection.
        tasks: every request that is worked on; one outlives its connection.
        refusing: whether no further request is taken.
        lingering: how many of them were turned away and only have to read that yet.
    """

    app: App
    bounds: Bounds
    loop: asyncio.AbstractEventLoop
    peers: set[Peer] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    refusing: bool = False
    lingering: int = 0


class Peer(asyncio.Protocol):
    """One connection. What is not answered yet is `_current`, what waits for its turn stands in `_queue`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._bounds = shared.bounds
        self._parser = HttpRequestParser(self)
        self._queue: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._reading: Exchange | None = None  # whose body comes
        self._client = ""
        self._head = self._framing = self._size = 0
        self._begun = False  # a head, or the connection, and no end of the head yet
        self._turned_away = self._paused = self._lingers = False
        self._discarded = 0
        self._deadline = inf
        self._stuck = 0.0
        self._url = b""
        self._fields: dict[str, str] = {}
        self._twice = ""

    # -- its life ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self.transport = cast("asyncio.Transport", transport)  # a socket's is nothing else
        name = transport.get_extra_info("peername")
        self._client = str(name[0]) if isinstance(name, tuple) else ""
        shared = self._shared
        shared.peers.add(self)
        if len(shared.peers) - shared.lingering > self._bounds.connections:
            self._turn_away(_FULL)
        else:
            self._begun = True
            self._deadline = shared.loop.time() + self._bounds.head_seconds

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it was lost
        """The client is gone."""
        self._shared.peers.discard(self)
        self._shared.lingering -= self._lingers
        self._turned_away, self._lingers = True, False
        current, self._current = self._current, None
        self._queue.clear()
        for exchange in {current, self._reading} - {None}:
            exchange.lost()  # type: ignore[union-attr]
        self._reading = None

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        self._stuck = self._shared.loop.time()

    def resume_writing(self) -> None:
        """It reads again."""
        self._stuck = 0.0

    def look(self, now: float) -> None:
        """Let go of whoever takes too long: looked at several times within each bound."""
        if now >= self._deadline:
            self._expire()
        if self._stuck and now - self._stuck >= SEND_SECONDS:
            self.transport.abort()
        elif self._current is not None:
            self._current.look(now)

    def _expire(self) -> None:
        self._deadline = inf
        if self._turned_away:
            self.transport.abort()
        elif self._begun:
            self._turn_away(_HEAD_TOO_SLOW)
        elif self._current is not None and self._current.wants:
            self._current.too_slow()
        else:  # nothing came, or what came was not read, for too long
            self.transport.abort()

    def shutdown(self) -> None:
        """Close it: at once where it is idle, else after the answer."""
        if self._current is None:
            self._turned_away = True
            self.transport.close()
        else:
            self._current.last = True

    def _turn_away(self, answer: bytes) -> None:
        """Answer and close. Only close where it would be taken for the answer to a call under way."""
        if self._turned_away:
            return
        self._turned_away = True
        if not self.transport.is_closing():
            if self._current is None:
                self.transport.write(answer)
                self._linger()
            else:
                self.transport.close()
        self._deadline = self._shared.loop.time() + _LINGER_SECONDS

    def _linger(self) -> None:
        """Close the writing half only, and read on for a while (RFC 9112 section 9.6).

        Closed with input unread, TCP says so with a reset, which may overtake the answer.
        """
        if (
            not self.transport.can_write_eof()
            or self._shared.lingering >= _LINGERERS * self._bounds.connections
        ):
            self.transport.close()
            return
        self._lingers = True
        self._shared.lingering += 1
        self.transport.write_eof()
        self._resume()

    # -- reading -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._turned_away:
            self._discarded += len(data)
            if self._lingers and self._discarded > _LINGER_BYTES:
                self.transport.abort()
            return
        if self._reading is None:
            self._head += len(data)
        else:
            self._framing += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._broken()
            return
        if self._turned_away:
            return
        if (self._head if self._reading is None else self._framing) > self._bounds.header_bytes:
            self._turn_away(_HEAD_TOO_LARGE)

    def _broken(self) -> None:
        """What came is no HTTP. What stood in front of it on a connection that ends is answered yet."""
        last = self._current
        if last is not None and last.last and self._reading is None and not self._queue:
            self._turned_away = True  # nothing is read behind the last request
        else:
            self._turn_away(_BAD_HEAD)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._url, self._fields, self._twice = b"", {}, ""
        self._head = self._size = 0
        self._begun = True
        self._deadline = self._shared.loop.time() + self._bounds.head_seconds

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field. A trailer says nothing about who calls, or what (RFC 9110 section 6.5.1)."""
        if not self._begun:
            return
        self._size += len(name) + len(value) + 4
        if self._size > self._bounds.header_bytes:
            return
        # RFC 9110 section 5.5: blanks at its ends are no part of a value; the parser leaves some
        key = _NAMES.get(name) or name.decode("latin-1").lower()
        text = value.decode("latin-1").strip(" \t")
        if key not in self._fields:
            self._fields[key] = text
        else:
            self._twice = self._twice or key if key in SINGLE or key.startswith("mcp-") else self._twice
            self._fields[key] += f", {text}"

    def on_headers_complete(self) -> None:
        """A whole head."""
        if self._turned_away:
            return
        parser = self._parser
        self._begun = False
        self._deadline = inf
        version = parser.get_http_version()
        if self._size + len(self._url) > self._bounds.header_bytes:
            self._turn_away(_HEAD_TOO_LARGE)
        elif version not in _VERSIONS or parser.should_upgrade() or not self._agrees():
            self._turn_away(_BAD_HEAD)
        else:
            exchange = Exchange(
                self,
                parser.get_method().decode("ascii"),
                self._url.decode("ascii", "replace") if self._url == b"/mcp" else _path(self._url),
                self._client,
                self._fields,
                twice=self._twice,
                chunks=version == "1.1",
                last=version == "1.0" or self._shared.refusing or not parser.should_keep_alive(),
            )
            self._reading, self._framing = exchange, 0
            if self._current is None:
                self._answer(exchange)
            else:
                self._queue.append(exchange)
                self._pause()

    def _agrees(self) -> bool:
        """Whether the target is a path, or names the very `Host` (RFC 9112 section 3.2)."""
        if self._url.startswith(b"/"):
            return True
        authority = self._url.partition(b"://")[2].partition(b"/")[0]
        return authority.decode("latin-1") == self._fields.get("host")

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._framing -= _CHUNK_OF_ONE * len(body)
        exchange = self._reading
        if exchange is not None and not self._turned_away and exchange.arrived(body):
            self._pause()

    def on_message_complete(self) -> None:
        """A whole request."""
        exchange, self._reading = self._reading, None
        self._head = 0
        if exchange is not None and not self._turned_away:
            exchange.whole()
            if exchange.finished:
                self._rest()

    # -- answering ---------------------------------------------------------------------------------

    def _answer(self, exchange: Exchange) -> None:
        self._current = exchange
        task = self._shared.loop.create_task(self._run(exchange))
        self._shared.tasks.add(task)
        exchange.task = task

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._shared.app(exchange)
        except Exception:  # noqa: BLE001 - a surprise is an answer too, and never a permit
            traceback.print_exc(file=sys.stderr)
            exchange.last = True
            exchange.turn_away(Turned(500, "Guard failed; see its standard error"))
        finally:
            self._shared.tasks.discard(exchange.task)
            if not exchange.finished and not exchange.gone:
                self.transport.abort()  # a stream that broke off must not look whole

    def expect_body(self, seconds: float) -> None:
        """The current request waits for its body now, at most so long."""
        self._deadline = self._shared.loop.time() + seconds
        self._resume()

    def body_came(self) -> None:
        """It waits no longer. What stands behind its body may have begun already."""
        if not self._begun:
            self._deadline = inf

    def answered(self, exchange: Exchange) -> None:
        """The last byte of an answer was written."""
        if self._current is not exchange:
            return
        self._current = None
        if exchange.last or self._shared.refusing:
            self._queue.clear()
            self._turned_away = True
            self._deadline = self._shared.loop.time() + self._bounds.keep_alive_seconds
            self.transport.close()
        elif self._queue:
            self._answer(self._queue.popleft())
            if not self._queue:
                self._resume()
        elif self._reading is exchange:  # a body that nobody reads holds no connection
            self._deadline = self._shared.loop.time() + self._bounds.head_seconds
            self._resume()
        elif not self._begun:
            self._rest()

    def _rest(self) -> None:
        """Until the next request."""
        self._deadline = self._shared.loop.time() + self._bounds.keep_alive_seconds

    def _pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()


def _path(url: bytes) -> str:
    """The path of a target, decoded; "" where it has none."""
    try:
        return unquote((parse_url(url).path or b"").decode("ascii", "replace"))
    except HttpParserError:
        return ""

"""The HTTP transport: uvicorn's protocol on `httptools`, bounded where uvicorn is not.

uvicorn bounds neither the size of a request's head nor the time that a client takes to send it, and
it waits without end for a client that does not read. It takes trailers for header fields, and answers
what is broken before what stands in front of it. `Bounded` does not, and adds nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

BACKLOG: Final = 512
_CHUNK_OF_ONE: Final = 6
"""Bytes of the shortest chunk that carries one (RFC 9112 section 7.1)."""
_HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)
_BAD_HEAD: Final = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_HEAD_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)

App = Callable[[Any, Any, Any], Awaitable[None]]


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


class Bounded(HttpToolsProtocol):
    """One connection."""

    def __init__(self, config: Config, state: ServerState, bounds: Bounds) -> None:
        super().__init__(config, state, {})
        self._bounds = bounds
        self._head = 0
        self._framing = 0
        self._in_head = True
        self._turned_away = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        if len(self.connections) > self._bounds.connections:
            self._turn_away(_FULL)
        else:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._turned_away:
            return
        if self._in_head:
            self._head += len(data)
        else:
            self._framing += len(data)
        super().data_received(data)
        if self._turned_away or self.transport.is_closing():
            return
        if (self._head if self._in_head else self._framing) > self._bounds.header_bytes:
            self._turn_away(_HEAD_TOO_LARGE)
        elif self._timer is None and (self.cycle is None or self.cycle.response_complete):
            # Neither blank lines before a request nor a body that nobody reads hold it for ever.
            self._arm()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._head = True, 0
        self._arm()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field. A trailer says nothing about who calls, or what (RFC 9110 section 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A whole head."""
        self._disarm()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._bounds.header_bytes:
            self._turn_away(_HEAD_TOO_LARGE)
        elif self.parser.get_http_version() not in {"1.0", "1.1"} or not self._agrees():
            self._turn_away(_BAD_HEAD)
        if not self._turned_away:
            self._in_head, self._framing = False, 0
            super().on_headers_complete()

    def _agrees(self) -> bool:
        """Whether the target is a path, or names the very `Host` (RFC 9112 section 3.2)."""
        authority = self.url.partition(b"://")[2].partition(b"/")[0]
        return self.url.startswith(b"/") or (b"host", authority) in self.headers

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._framing -= _CHUNK_OF_ONE * len(body)
        if not self._turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A whole request."""
        self._in_head, self._head = True, 0
        if not self._turned_away:
            super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came, or nothing was read, for too long: what is still unread is thrown away."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - what it says is uvicorn's own
        """What came is no HTTP."""
        if not self._turned_away:
            self._turn_away(_BAD_HEAD)

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._bounds.head_seconds, self._turn_away, _HEAD_TOO_SLOW)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn_away(self, answer: bytes) -> None:
        """Answer and close. Only close where it would be taken for the answer to a call under way."""
        self._disarm()
        self._turned_away = True
        under_way = self._in_head and self.cycle is not None and not self.cycle.response_complete
        if not self.transport.is_closing():
            if not (under_way or self.pipeline):
                self.transport.write(answer)
            self.transport.close()
            self.loop.call_later(1.0, self.transport.abort)  # whether or not it is read


class Listener:
    """A bound address.

    Attributes:
        port: the port, chosen by the system where 0 was asked for.
    """

    def __init__(self, server: asyncio.Server, state: ServerState) -> None:
        self._server = server
        self._state = state
        self.port: int = server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Take no more connections; those that are idle are closed, the others after their answer."""
        self._server.close()
        for connection in [*self._state.connections]:
            connection.shutdown()

    async def drain(self, seconds: float) -> None:
        """Take no more, and let what is under way end, at most so long."""
        self.refuse()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=seconds)

    async def close(self) -> None:
        """Let go of every connection."""
        self.refuse()
        for connection in [*self._state.connections]:
            transport = connection.transport
            if transport is not None:
                transport.abort()
        for task in [*self._state.tasks]:
            task.cancel()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)


async def listen(
    app: App, host: str, port: int, bounds: Bounds, context: ssl.SSLContext | None = None
) -> Listener:
    """Serve an ASGI application on an address. Raises OSError."""
    config = Config(
        app,
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        date_header=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=bounds.keep_alive_seconds,  # type: ignore[arg-type]  # seconds, whole or not
    )
    config.load()
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # a line for each bad request is a flood
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Bounded(config, state, bounds),
        host,
        port,
        ssl=context,
        ssl_handshake_timeout=bounds.head_seconds if context else None,
        backlog=BACKLOG,
    )
    return Listener(server, state)

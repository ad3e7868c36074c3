"""One HTTP request and its answer: read with bounds, answered as JSON or as an event stream.

Nothing is waited for when something is sent: whoever does not read what it was sent is let go of.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from math import inf
from typing import Final, Protocol

from guard.proxy import sse, wire
from guard.proxy.eras import HEADER_MISMATCH
from guard.proxy.lines import MAX_MESSAGE
from guard.proxy.refusals import Headers, Turned
from guard.proxy.sse import KEEP_ALIVE

JSON: Final = "application/json"
KEEP_ALIVE_SECONDS: Final = 15.0
SEND_SECONDS: Final = 60.0
"""How long a client may take to read what it is sent."""
MAX_LEFT: Final = 64 * 1024
"""Bytes of a body that nobody read, and that are still worth reading for the next request's sake."""
MAX_UNASKED: Final = 64 * 1024
"""Bytes of a body that are held before anybody asks for it."""
SINGLE: Final = frozenset(
    {
        "host",
        "origin",
        "authorization",
        "content-type",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "last-event-id",
    }
)
"""Header fields that may stand once."""
_UTF8: Final = frozenset({"utf-8", "utf8"})
_PLAIN: Final = frozenset({"application/json", "application/json; charset=utf-8"})
_ZERO: Final = frozenset({"q=0", "q=0.0", "q=0.00", "q=0.000"})


class Carrier(Protocol):
    """The connection, as its request sees it."""

    transport: asyncio.Transport

    def expect_body(self, seconds: float) -> None:
        """The body is waited for now, at most so long."""

    def body_came(self) -> None:
        """It is waited for no longer."""

    def answered(self, exchange: Exchange) -> None:
        """The last byte of the answer was written."""


class Exchange:
    """One request and its answer.

    Args:
        carrier: the connection.
        method: of HTTP.
        path: decoded.
        client: the address that it came from.
        fields: the header fields, names in lower case; what stands twice is joined with ", ".
        twice: a field that stands twice and may not.
        chunks: whether the client reads chunks (HTTP/1.1).
        last: whether the connection ends with this answer.

    Attributes:
        finished: whether the last byte of the answer was written.
        gone: whether the client left before that.
        on_gone: called once when it leaves.
        on_quiet: called when nothing was sent for a while; None where nothing can be.
        over: what works on it; it may outlive the connection.
    """

    __slots__ = (
        "_carrier", "_chunks", "_complete", "_limit", "_over", "_parts", "_quiet_at", "_size", "_streaming",
        "_twice", "_waiter", "client", "fields", "finished", "gone", "last", "method", "on_gone", "on_quiet",
        "path", "task",
    )  # fmt: skip

    def __init__(
        self,
        carrier: Carrier,
        method: str,
        path: str,
        client: str,
        fields: Mapping[str, str],
        *,
        twice: str,
        chunks: bool,
        last: bool,
    ) -> None:
        self.method = method
        self.path = path
        self.client = client
        self.fields = fields
        self.finished = self.gone = False
        self.last = last
        self.on_gone: Callable[[], None] | None = None
        self.on_quiet: Callable[[], None] | None = None
        self.task: asyncio.Task[None] | None = None
        self._carrier = carrier
        self._twice = twice
        self._chunks = chunks
        self._parts: list[bytes] = []
        self._size = 0
        self._limit: int | None = None  # once somebody asked for the body
        self._complete = self._streaming = False
        self._waiter: asyncio.Future[None] | None = None
        self._over: asyncio.Future[None] | None = None
        self._quiet_at = inf

    # -- what it says ------------------------------------------------------------------------------

    def check_fields(self) -> None:
        """Raises Turned: a header field stands twice that may stand once."""
        if self._twice:
            code = HEADER_MISMATCH if self._twice.startswith("mcp-") else wire.INVALID_REQUEST
            raise Turned(400, f"the header field {self._twice} stands twice", code=code)

    @property
    def streams(self) -> bool:
        """Whether the client takes event streams."""
        return _accepted(self.fields.get("accept", ""))[1] > 0

    @property
    def prefers_streams(self) -> bool:
        """Whether it names them before JSON: then it gets one, though nothing comes before the answer."""
        whole, events = _accepted(self.fields.get("accept", ""))
        return 0 < events < whole

    def check_content(self) -> None:
        """The body is plain JSON, and JSON may be answered. Raises Turned."""
        given = self.fields.get("content-type", "").lower()
        if given not in _PLAIN:
            kind, *params = (part.strip() for part in given.split(";"))
            charsets = [
                value.strip('"') for name, _, value in (p.partition("=") for p in params) if name == "charset"
            ]
            if kind != JSON or not _UTF8.issuperset(charsets):
                raise Turned(415, "Content-Type is not application/json")
        if self.fields.get("content-encoding", "identity").strip().lower() != "identity":
            raise Turned(415, "a compressed body is not read", headers=[("accept-encoding", "identity")])
        if not _accepted(self.fields.get("accept", ""))[0]:
            raise Turned(406, "Accept lacks application/json")

    async def body(self, limit: int, seconds: float) -> bytes:
        """The whole body. Raises Turned: too large, too slow, or cut off."""
        declared = self.fields.get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()) or int(declared[:19]) > limit:
            raise Turned(413, f"the body is larger than {limit} bytes")
        self._limit = limit
        if not self._complete and self._size <= limit and not self.gone:
            if self.fields.get("expect", "").lower() == "100-continue" and self._chunks and not self._size:
                self._carrier.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._waiter = asyncio.get_running_loop().create_future()
            self._carrier.expect_body(seconds)
            try:
                await self._waiter
            except TimeoutError:
                raise Turned(408, f"the body did not come within {seconds:g} seconds") from None
            finally:
                self._waiter = None
                self._carrier.body_came()
        if self._size > limit:
            raise Turned(413, f"the body is larger than {limit} bytes")
        if not self._complete:
            raise Turned(400, "the request was cut off")
        parts, self._parts = self._parts, []
        return b"".join(parts)

    # -- what the connection says --------------------------------------------------------------------

    @property
    def wants(self) -> bool:
        """Whether the body is waited for."""
        return self._waiter is not None

    def arrived(self, body: bytes) -> bool:
        """A piece of the body. Returns whether no more is wanted for now."""
        if self.finished:
            return False
        self._parts.append(body)
        self._size += len(body)
        if self._limit is None:
            return self._size > MAX_UNASKED
        if self._size > self._limit:
            self._parts.clear()
            self._wake()
        return False

    def whole(self) -> None:
        """The body is whole."""
        self._complete = True
        self._wake()

    def too_slow(self) -> None:
        """It did not come in time."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(TimeoutError())

    def lost(self) -> None:
        """The client left."""
        self.gone = True
        self._quiet_at = inf
        self._wake()
        on_gone, self.on_gone = self.on_gone, None
        if on_gone is not None and not self.finished:
            on_gone()
        self._end()

    def look(self, now: float) -> None:
        """Show a sign of life where nothing was sent for a while."""
        if now >= self._quiet_at and self.on_quiet is not None:
            self._quiet_at = now + KEEP_ALIVE_SECONDS
            self.on_quiet()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- answering -----------------------------------------------------------------------------------

    def respond(self, status: int, body: bytes = b"", kind: str = "", headers: Headers = ()) -> None:
        """Answer whole."""
        if self.gone or self.finished:
            return
        lines = [_opening(status)]
        if headers or self.last:
            lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in headers]
            if self.last:
                lines.append(b"connection: close\r\n")
        if kind:
            lines.append(_JSON_LINE if kind == JSON else f"content-type: {kind}\r\n".encode())
        lines.append(b"content-length: %d\r\n\r\n" % len(body))
        if self.method != "HEAD":
            lines.append(body)
        self._carrier.transport.write(b"".join(lines))
        self._finish()

    def turn_away(self, turned: Turned) -> None:
        """Answer a request that is turned away."""
        left = self.fields.get("content-length", "0")
        unread = "transfer-encoding" in self.fields or not left.isdigit() or int(left[:19]) > MAX_LEFT
        self.last |= turned.status == HTTPStatus.REQUEST_TIMEOUT or (unread and not self._complete)
        body = wire.error(turned.id, turned.code, turned.message, turned.data)
        if not self._streaming:
            self.respond(turned.status, body, JSON, turned.headers)

    def watch(self, on_quiet: Callable[[], None] | None, on_gone: Callable[[], None] | None) -> None:
        """Show signs of life from now on, and hear of the client's leaving; None for neither."""
        if self.gone:
            if on_gone is not None:
                on_gone()
            return
        self.on_quiet, self.on_gone = on_quiet, on_gone
        self._quiet_at = asyncio.get_running_loop().time() + KEEP_ALIVE_SECONDS

    def send(self, events: bytes) -> None:
        """Send events, beginning a stream where there is none. A reader that is too slow misses them."""
        transport = self._carrier.transport
        if (
            self.gone
            or self.finished
            or (self._streaming and transport.get_write_buffer_size() > MAX_MESSAGE)
        ):
            return
        self._quiet_at = asyncio.get_running_loop().time() + KEEP_ALIVE_SECONDS
        transport.write(self._head() + self._chunk(events))

    def tell(self, line: bytes) -> None:
        """Send one message as an event."""
        self.send(sse.event(line))

    def live(self) -> None:
        """Send a sign of life."""
        self.send(KEEP_ALIVE)

    def finish(self, line: bytes | None = None, status: int = 200, headers: Headers = ()) -> None:
        """The last of an answer: an event where a stream was begun, else JSON; None ends it with nothing."""
        if line is not None and not self._streaming:
            self.respond(status, line, JSON, headers)
        else:
            self.end(sse.event(line) if line else b"")

    def end(self, events: bytes = b"") -> None:
        """The last of a stream."""
        if self.gone or self.finished:
            return
        head = self._head()
        self._carrier.transport.write(head + self._chunk(events) + (b"0\r\n\r\n" if self._chunks else b""))
        self._finish()

    async def ended(self) -> None:
        """Until its stream has ended, or its client is gone."""
        if not (self.finished or self.gone):
            self._over = asyncio.get_running_loop().create_future()
            await self._over

    def _head(self) -> bytes:
        if self._streaming:
            return b""
        self._streaming = True
        self.last |= not self._chunks
        close = b"connection: close\r\n" if self.last else b""
        return _opening(200) + close + (_STREAM_LINES if self._chunks else _STREAM_LINES_TO_CLOSE)

    def _chunk(self, events: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(events), events) if events and self._chunks else events

    def _finish(self) -> None:
        self.finished = True
        self._quiet_at = inf
        self._parts.clear()
        self._carrier.answered(self)
        self._end()

    def _end(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


@lru_cache(maxsize=256)
def _accepted(accept: str) -> tuple[int, int]:
    """Where JSON and event streams stand in `Accept`, from 1; 0 for what is not taken.

    RFC 9110 section 12.5.1, without weights but q=0.
    """
    places = []
    for kind in (JSON, sse.CONTENT_TYPE):
        wanted, found = {kind, "*/*", f"{kind.partition('/')[0]}/*"}, 0
        for place, item in enumerate(accept.lower().split(","), 1):
            media, *params = item.split(";")
            refused = any(part.replace(" ", "").strip() in _ZERO for part in params)
            if not found and media.strip() in wanted and not refused:
                found = place
        places.append(found)
    return places[0], places[1]


_JSON_LINE: Final = b"content-type: application/json\r\n"
_STREAM_LINES_TO_CLOSE: Final = (
    f"content-type: {sse.CONTENT_TYPE}\r\n".encode()
    + b"cache-control: no-cache, no-transform\r\nx-accel-buffering: no\r\n\r\n"
)
_STREAM_LINES: Final = b"transfer-encoding: chunked\r\n" + _STREAM_LINES_TO_CLOSE
_openings: dict[int, bytes] = {}
_made_at = 0


def _opening(status: int) -> bytes:
    """The status line and what every answer has; `Date` (RFC 9110 section 6.6.1) is made once a second."""
    global _made_at  # noqa: PLW0603 - a cache of one second
    now = int(time.time())
    if now != _made_at:
        _openings.clear()
        _made_at = now
    found = _openings.get(status)
    if found is None:
        phrase = HTTPStatus(status).phrase
        date = formatdate(now, usegmt=True)
        text = f"HTTP/1.1 {status} {phrase}\r\ndate: {date}\r\nx-content-type-options: nosniff\r\n"
        found = _openings[status] = text.encode("ascii")
    return found

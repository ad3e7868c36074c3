"""One HTTP request and its answer: read with bounds, answered as JSON or as an event stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

from guard.proxy import sse, wire
from guard.proxy.eras import HEADER_MISMATCH
from guard.proxy.sse import KEEP_ALIVE, Outbox

JSON: Final = "application/json"
KEEP_ALIVE_SECONDS: Final = 15.0
SEND_SECONDS: Final = 60.0
"""How long a client may take to read what it is sent."""
MAX_LEFT: Final = 64 * 1024
"""Bytes of a body that nobody read, and that are still worth reading for the next request's sake."""
_SINGLE: Final = frozenset(
    {
        "host",
        "origin",
        "authorization",
        "content-type",
        "content-length",
        "content-encoding",
        "transfer-encoding",
    }
)
_UTF8: Final = frozenset({"utf-8", "utf8"})

Work = asyncio.Task[tuple[bytes | None, int]]
Headers = Sequence[tuple[str, str]]


class Turned(Exception):
    """A request that is turned away at the door, before any message of it is answered.

    Attributes:
        status: of the HTTP answer.
        message: what is wrong, one sentence.
        code: of the JSON-RPC error in the body.
        data: more for programs.
        id: of the JSON-RPC request, None where it is not known.
        headers: of the HTTP answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: int = wire.INVALID_REQUEST,
        data: Any = None,
        id_: wire.Id | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.data = data
        self.id = id_
        self.headers = headers


class Exchange:
    """One request and its answer (ASGI 3).

    Attributes:
        method: of HTTP.
        path: decoded.
        client: the address that it came from.
        fields: the header fields, names in lower case.
    """

    def __init__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.client: str = scope["client"][0] if scope.get("client") else ""
        self.fields: dict[str, str] = {}
        self._raw: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self._receive = receive
        self._send = send
        self._read = False
        self._streaming = False
        self._gone: asyncio.Task[None] | None = None

    def read_fields(self) -> None:
        """Read the header fields. Raises Turned: one stands twice that may stand once."""
        for raw_name, raw_value in self._raw:
            # RFC 9110 section 5.5: blanks at its ends are no part of a value; the parser leaves some
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1").strip(" \t")
            if name not in self.fields:
                self.fields[name] = value
            elif name.startswith("mcp-"):
                raise Turned(400, f"the header field {name} stands twice", code=HEADER_MISMATCH)
            elif name in _SINGLE:
                raise Turned(400, f"the header field {name} stands twice")
            else:
                self.fields[name] += f", {value}"

    def accepts(self, kind: str) -> bool:
        """Whether the client takes this media type (RFC 9110 section 12.5.1, without weights but q=0)."""
        for item in self.fields.get("accept", "").lower().split(","):
            media, *params = (part.strip() for part in item.split(";"))
            refused = any(part.replace(" ", "") in {"q=0", "q=0.0", "q=0.00", "q=0.000"} for part in params)
            if media in {kind, "*/*", f"{kind.partition('/')[0]}/*"} and not refused:
                return True
        return False

    def check_content(self) -> None:
        """The body is plain JSON, and JSON may be answered. Raises Turned."""
        kind, *params = (part.strip().lower() for part in self.fields.get("content-type", "").split(";"))
        charsets = [
            value.strip('"') for name, _, value in (p.partition("=") for p in params) if name == "charset"
        ]
        if kind != JSON or not _UTF8.issuperset(charsets):
            raise Turned(415, "Content-Type is not application/json")
        if self.fields.get("content-encoding", "identity").strip().lower() != "identity":
            raise Turned(415, "a compressed body is not read", headers=[("accept-encoding", "identity")])
        if not self.accepts(JSON):
            raise Turned(406, "Accept lacks application/json")

    # -- reading -------------------------------------------------------------------------------

    async def body(self, limit: int, seconds: float) -> bytes:
        """The whole body. Raises Turned: too large, too slow, or cut off."""
        declared = self.fields.get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()) or int(declared[:19]) > limit:
            raise Turned(413, f"the body is larger than {limit} bytes")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(seconds):
                while True:
                    event = await self._receive()
                    if event["type"] != "http.request":
                        raise Turned(400, "the request was cut off")
                    size += len(event.get("body", b""))
                    if size > limit:
                        raise Turned(413, f"the body is larger than {limit} bytes")
                    parts.append(event.get("body", b""))
                    if not event.get("more_body"):
                        self._read = True
                        return b"".join(parts)
        except TimeoutError:
            raise Turned(408, f"the body did not come within {seconds:g} seconds") from None

    def _watch(self) -> asyncio.Task[None]:
        if self._gone is None:
            self._gone = asyncio.ensure_future(self._until_gone())
        return self._gone

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    @property
    def streams(self) -> bool:
        """Whether the client takes event streams."""
        return self.accepts(sse.CONTENT_TYPE)

    @property
    def gone(self) -> bool:
        """Whether the client is known to have left."""
        return self._gone is not None and self._gone.done()

    # -- answering -----------------------------------------------------------------------------

    async def respond(self, status: int, body: bytes = b"", kind: str = "", headers: Headers = ()) -> None:
        """Answer whole."""
        fields = [*headers, ("content-length", str(len(body)))]
        if kind:
            fields.append(("content-type", kind))
        await self._begin(status, fields)
        await self._put({"type": "http.response.body", "body": body})
        self._leave()

    async def turn_away(self, turned: Turned) -> None:
        """Answer a request that is turned away."""
        headers = [*turned.headers]
        left = self.fields.get("content-length", "0")
        unread = "transfer-encoding" in self.fields or not left.isdigit() or int(left[:19]) > MAX_LEFT
        if turned.status == HTTPStatus.REQUEST_TIMEOUT or (unread and not self._read):
            headers.append(("connection", "close"))
        body = wire.error(turned.id, turned.code, turned.message, turned.data)
        await self.respond(turned.status, body, JSON, headers)

    async def stream(
        self, work: Work, outbox: Outbox | None, on_gone: Callable[[], None] | None
    ) -> tuple[bytes | None, int]:
        """Wait for an answer; send what is told meanwhile, and signs of life.

        Args:
            work: makes the answer.
            outbox: what is told meanwhile; None where the client takes no streams.
            on_gone: called when the client leaves; None where leaving does not call off.
        """
        gone = self._watch()
        try:
            while not work.done():
                waits: set[asyncio.Future[Any]] = {work} if gone.done() else {work, gone}
                more = asyncio.ensure_future(outbox.wait()) if outbox and not gone.done() else None
                try:
                    await asyncio.wait(
                        waits | ({more} if more else set()),
                        timeout=KEEP_ALIVE_SECONDS,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    if more is not None:
                        more.cancel()
                if gone.done() and not work.done():
                    if on_gone is not None:
                        on_gone()
                        on_gone = None
                elif outbox is not None and not work.done():
                    await self.send_events(outbox.take() or KEEP_ALIVE)
            if outbox is not None and (rest := outbox.take()):
                await self.send_events(rest)
            return work.result()
        finally:
            if not work.done():
                work.cancel()

    async def start_stream(self) -> None:
        """Begin an event stream."""
        self._streaming = True
        fields = [("content-type", sse.CONTENT_TYPE), ("cache-control", "no-cache, no-transform")]
        await self._begin(200, [*fields, ("x-accel-buffering", "no")])

    async def send_events(self, events: bytes) -> None:
        """Send events, on a stream that is begun where there is none."""
        if not self._streaming:
            await self.start_stream()
        await self._put({"type": "http.response.body", "body": events, "more_body": True})

    async def wait(self, outbox: Outbox, seconds: float) -> bool:
        """Until there is something to send, at most so long. Returns whether the client is gone."""
        gone, more = self._watch(), asyncio.ensure_future(outbox.wait())
        try:
            await asyncio.wait({gone, more}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            more.cancel()
        return gone.done()

    async def finish(self, line: bytes | None = None, status: int = 200, headers: Headers = ()) -> None:
        """The last of an answer: an event where a stream was begun, else JSON; None ends it with nothing."""
        if line is not None and not self._streaming:
            await self.respond(status, line, JSON, headers)
            return
        if not self._streaming:
            await self.start_stream()
        await self._put({"type": "http.response.body", "body": sse.event(line) if line else b""})
        self._leave()

    async def _begin(self, status: int, fields: Headers) -> None:
        if self.gone:
            return
        common = [("date", _date(int(time.time()))), ("x-content-type-options", "nosniff")]
        headers = [(name.encode(), value.encode("latin-1")) for name, value in [*common, *fields]]
        await self._put({"type": "http.response.start", "status": status, "headers": headers})

    async def _put(self, event: Mapping[str, Any]) -> None:
        if self.gone:
            return
        async with asyncio.timeout(SEND_SECONDS):
            await self._send(event)

    def _leave(self) -> None:
        if self._gone is not None:
            self._gone.cancel()


_last_date: tuple[int, str] = (0, "")


def _date(now: int) -> str:
    """`Date` (RFC 9110 section 6.6.1), made once a second."""
    global _last_date  # noqa: PLW0603 - a cache of one
    if _last_date[0] != now:
        _last_date = (now, formatdate(now, usegmt=True))
    return _last_date[1]

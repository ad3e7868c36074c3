"""One HTTP/1.1 connection to a tool server, and one answer at a time (RFC 9112).

The head of an answer and chunked bodies are read by llhttp in its strict mode; where a head ends, and
bodies of a known length, are counted here, so that no byte after an answer goes unnoticed.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import Callable
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from guard.proxy.response import MAX_WAITING, Broken, Response

MAX_FIELDS: Final = 256
"""Header fields that one answer may have, interim answers included."""
MAX_INTERIM: Final = 16
"""Interim answers (1xx) that may come before the answer."""
MAX_DIGITS: Final = 18
"""Digits of a Content-Length."""
_START: Final = b"HTTP/"  # llhttp reads RTSP as well, and skips blank lines
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_END_OF_HEAD: Final = b"\r\n\r\n"
_BODILESS: Final = frozenset({204, 304})


class Connection(asyncio.Protocol):
    """A connection, idle or with one request on it.

    Args:
        max_head: bytes that the head of an answer may have, interim answers included.
        on_free: called once after each request, when the next one may be made or it is closed.
        on_lost: called once when the transport is gone.
    """

    def __init__(
        self,
        *,
        max_head: int,
        on_free: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self.idle_since = 0.0
        self._max_head, self._on_free, self._on_lost = max_head, on_free, on_lost
        self._raw: asyncio.Transport | None = None  # the socket, below TLS
        self._transport: asyncio.Transport | None = None
        self._readable = select.poll()
        self._closed = False
        self._paused = False
        self._response: Response | None = None

    # -- its life ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._raw = self._transport = cast("asyncio.Transport", transport)  # a socket's is nothing else
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    async def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Speak TLS from now on. Raises OSError: no handshake, or the certificate is not the host's."""
        raw = self._raw
        if raw is None or self.closed:
            raise ConnectionResetError("it was closed before the TLS handshake")
        loop = asyncio.get_running_loop()
        # Not create_connection(ssl=...): what the socket has not taken yet is only known below TLS.
        self._transport = await loop.start_tls(raw, self, context, server_hostname=host)
        if self._transport is None:
            raise ConnectionResetError("it was closed during the TLS handshake")

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent on it."""
        return self._closed or self._transport is None or self._transport.is_closing()

    def reusable(self, since: float) -> bool:
        """Whether it is open, became idle after `since`, and neither bytes nor the end wait on it."""
        return not self.closed and self.idle_since > since and not self._readable.poll(0)

    def abort(self) -> None:
        """Close it at once."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()
        elif self._raw is not None:
            self._raw.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._closed = True
        if not self.lost.done():
            self.lost.set_result(None)
            self.fail("the server closed the connection" if exc is None else f"the connection broke: {exc}")
            self._on_lost(self)

    def eof_received(self) -> None:
        """End a body that lasts until the close. Under TLS only a close_notify does it (RFC 9112, 9.8)."""
        response = self._response
        if response is not None and response.status and self._until_close and not self._cut():
            self._end(response, clean=False)
        else:
            self.fail("the server closed the connection before its answer was whole")
        self.abort()

    def _cut(self) -> bool:
        """Whether the stream ended below TLS: anybody on the way can do that."""
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        try:
            return tls is not None and tls.read(1) != b""  # b"" comes of a close_notify only
        except ssl.SSLError:
            return True

    # -- one request -------------------------------------------------------------------------------

    async def exchange(self, data: bytes, *, head_only: bool) -> Response:
        """Send a request and wait for the head of its answer: see `begin`. Raises Broken: none came."""
        response = self.begin(data, head_only=head_only)
        await response.head()
        return response

    def begin(self, data: bytes, *, head_only: bool) -> Response:
        """Send a request. Its answer has no head yet. The connection frees itself.

        Args:
            data: the whole request.
            head_only: it is a HEAD request, whose answer has no body.
        """
        assert self._transport is not None and self._response is None  # noqa: S101, PT018
        self._response = response = Response(self.resume, self.fail)
        self._head_only = head_only
        self._head_bytes = self._interims = self._overhead = 0
        self._next_head()
        self._transport.write(data)
        return response

    def fail(self, why: str) -> None:
        """Close it; the answer that it was about is broken."""
        response, self._response = self._response, None
        self.abort()
        if response is not None:
            response.ended(Broken(why))
            response.wake()
            self._on_free(self)

    def resume(self) -> None:
        """What waited has been read."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _end(self, response: Response, *, clean: bool) -> None:
        """The answer is whole. `clean` says that nothing after it was seen."""
        self._response = None
        response.ended(None)
        self.resume()
        unsent = self._raw is None or self._raw.get_write_buffer_size()
        unsent = unsent or self._transport is None or self._transport.get_write_buffer_size()
        if not clean or not self._keep_alive or unsent:
            self.abort()
        self.idle_since = asyncio.get_running_loop().time()
        response.wake()
        self._on_free(self)

    # -- reading -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes. Bytes that nobody asked for close the connection."""
        response = self._response
        if response is None:
            self.abort()
            return
        try:
            while data and not response.status:
                data = self._take_head(response, data)
            if response.status and self._take_body(response, data):
                return
        except (HttpParserError, HttpParserUpgrade, Broken) as failure:
            ours = failure.__context__ if isinstance(failure.__context__, Broken) else failure
            self.fail(f"the answer is not HTTP/1.1: {ours}")
            return
        if response.waiting > MAX_WAITING and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if response.status:
            response.wake()

    def _next_head(self) -> None:
        self._parser = HttpResponseParser(self)
        self._fields: dict[str, str] = {}
        self._count = 0
        self._start = self._tail = b""
        self._head_done = self._chunked = self._chunks_done = self._until_close = False
        self._left = 0

    def _take_head(self, response: Response, data: bytes) -> bytes:
        """Take what belongs to the head; what is left of the data."""
        if len(self._start) < len(_START):
            self._start += data[: len(_START) - len(self._start)]
        joined = self._tail + data
        end = joined.find(_END_OF_HEAD)
        cut = len(data) if end < 0 else end + len(_END_OF_HEAD) - len(self._tail)
        self._head_bytes += cut
        if self._head_bytes > self._max_head:
            raise Broken(f"its head has more than {self._max_head} bytes")
        self._parser.feed_data(data[:cut] if cut < len(data) else data)
        if self._head_done != (end >= 0):
            raise Broken("its head does not end with its first empty line")
        if end < 0:
            self._tail = joined[1 - len(_END_OF_HEAD) :]
        else:
            self._take_status(response)
        return data[cut:]

    def _take_status(self, response: Response) -> None:
        """The head is whole: how the body is framed (RFC 9112, section 6.3)."""
        status, version, fields = (
            self._parser.get_status_code(),
            self._parser.get_http_version(),
            self._fields,
        )
        length, coding = fields.get("content-length"), fields.get("transfer-encoding")
        if length is not None and len(length) > MAX_DIGITS:
            raise Broken("its length is no number of bytes")
        if self._start != _START or version not in _VERSIONS or not 100 <= status <= 599:  # noqa: PLR2004 - RFC 9110, section 15
            raise Broken("its version or status is none")
        if coding is not None and (length is not None or version == "1.0" or coding.lower() != "chunked"):
            raise Broken("its transfer coding is not just chunked")
        if status < 200:  # noqa: PLR2004 - RFC 9110, section 15.2
            self._interims += 1
            if status == 101 or self._interims > MAX_INTERIM or length is not None or coding is not None:  # noqa: PLR2004
                raise Broken("it switches protocols, or its interim answers are too many or have bodies")
            fields_so_far = self._count
            self._next_head()
            self._count = fields_so_far
            return
        if self._head_only or status in _BODILESS:
            # What a 204 says about a body would be false; such a server is not asked again this way.
            self._keep_alive &= status != 204 or (coding is None and length in (None, "0"))  # noqa: PLR2004
        elif coding is not None:
            self._chunked = True
        elif length is not None:
            self._left = int(length)
        else:
            self._until_close = True
        response.headers, response.status = fields, status

    def _take_body(self, response: Response, data: bytes) -> bool:
        """Take what belongs to the body. Whether the answer is whole, and the connection free."""
        if self._chunked:
            # The last byte goes alone: an end before it means that bytes follow the answer.
            extra = self._take_chunks(data[:-1])
            if extra or self._take_chunks(data[-1:]):
                self._end(response, clean=not extra)
                return True
        elif self._until_close:
            response.arrived(data)
        else:
            response.arrived(data[: self._left] if len(data) > self._left else data)
            self._left -= len(data)
            if self._left <= 0:
                self._end(response, clean=self._left == 0)
                return True
        return False

    def _take_chunks(self, data: bytes) -> bool:
        """Whether the last chunk and the trailers are through."""
        self._overhead += len(data)
        try:
            if data:
                self._parser.feed_data(data)
        except HttpParserError:
            if not self._chunks_done:
                raise
        if not self._chunks_done and self._overhead > self._max_head:
            raise Broken("its chunk extensions or trailers are too long")
        return self._chunks_done

    # -- what the parser says ----------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field. Trailers are dropped (RFC 9112, section 7.1.2)."""
        if self._head_done:
            return
        self._count += 1
        if self._count > MAX_FIELDS:
            raise Broken("it has too many header fields")
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        self._fields[key] = f"{self._fields[key]}, {text}" if key in self._fields else text

    def on_headers_complete(self) -> None:
        """The head is whole; of a second answer nothing is taken."""
        if self._head_done:
            raise Broken("a second answer follows")
        self._head_done = True
        self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Bytes of a chunk."""
        if not self._chunked:
            raise Broken("a body begins inside the head")
        if not self._chunks_done and self._response is not None:
            self._overhead = 0
            self._response.arrived(body)

    def on_message_complete(self) -> None:
        """The end, if it is a chunked body's; any other end is counted here."""
        self._chunks_done = self._chunked

"""A small HTTP/1.1 client for tool servers, which says exactly whether anything was sent.

It keeps connections and reuses them. It never sends anything twice, follows no redirect, keeps no
cookie, decompresses nothing, and heeds no proxy of the environment.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import deque
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from itertools import zip_longest
from typing import Any, Final
from urllib.parse import urlsplit

from guard.core.errors import GuardError, printable
from guard.proxy.connection import Connection
from guard.proxy.response import Broken, Response, TooLarge

__all__ = ["Broken", "Client", "NotSent", "Response", "TooLarge"]

HAPPY_EYEBALLS_SECONDS: Final = 0.25
"""How long one address of a host may take before the next is tried as well (RFC 8305, section 5)."""
_PORTS: Final = {"http": 80, "https": 443}
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?")
_URL: Final = re.compile(r"[!-~]+")
_HOST: Final = re.compile(r"[0-9A-Za-z_.\-]+|[0-9A-Fa-f:.]+")
_OURS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that frame a message or belong to the connection: only the client itself sets them."""


_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


class NotSent(Exception):
    """No byte of the request left this process: it could not connect, or no connection became free."""


class Client:
    """Requests to one URL, on a bounded number of connections. It belongs to one event loop.

    Args:
        url: `http(s)://host[:port][/path][?query]`.
        connect_seconds: how long a request may wait for a connection, all steps together.
        idle_seconds: how long a connection may be idle and still be used again.
        max_connections: connections at the same time; further requests wait, first come first served.
        max_head: bytes that the head of an answer may have.
        ca: a PEM file with the authorities to trust instead of the system's, None for those.

    Raises:
        GuardError: the URL is none of that kind, or `ca` cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_seconds: float = 10.0,
        idle_seconds: float = 3.0,
        max_connections: int = 256,
        max_head: int = 64 * 1024,
        ca: str | None = None,
    ) -> None:
        scheme, self._host, self._port, authority, self._target = _parts(url)
        self._tls = _context(ca) if scheme == "https" else None
        self._fixed = f" HTTP/1.1\r\nHost: {authority}\r\nAccept-Encoding: identity\r\n"
        self._connect_seconds, self._idle_seconds, self._max_head = connect_seconds, idle_seconds, max_head
        self._left = max_connections
        self._waiting: deque[asyncio.Future[None]] = deque()  # for a turn, first come first served
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def request(self, method: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> Response:
        """Send one request, once; the answer when its head is there. Cancelling closes the connection.

        Args:
            method: a token; POST always has a Content-Length.
            headers: what is sent beside Host, Accept-Encoding and Content-Length.
            body: the content, b"" for none.

        Raises:
            ValueError: method or headers are not HTTP, or not the caller's to set. Nothing was sent.
            NotSent: nothing was sent.
            Broken: it was or may have been sent, and no answer came.
        """
        return await self.send(self.prepare(method, headers), body, head_only=method == "HEAD")

    async def send(self, head: bytes, body: bytes, *, head_only: bool = False) -> Response:
        """As `request`, with a head that `prepare` made."""
        data = _framed(head, body)
        connection = self._at_once() or await self._turn()
        return await connection.exchange(data, head_only=head_only)

    def begin(self, head: bytes, body: bytes) -> Response | None:
        """Send one request, once, if that can be done without waiting; None where nothing was sent.

        Args:
            head: what `prepare` made.
            body: the content.

        Returns: an answer that has no head yet. Whoever has it sets `on_wake` before anything is awaited.
        """
        connection = self._at_once()
        return None if connection is None else connection.begin(_framed(head, body), head_only=False)

    def prepare(self, method: str, headers: Iterable[tuple[str, str]]) -> bytes:
        """The head of a request, for any number of requests, without the length of its body.

        Raises:
            ValueError: method or headers are not HTTP, or not the caller's to set.
        """
        if not _TOKEN.fullmatch(method) or method == "CONNECT":
            raise ValueError("the method is not an HTTP method that can be sent here")
        lines = [method, " ", self._target, self._fixed]
        for name, value in headers:
            if not _TOKEN.fullmatch(name) or name.lower() in _OURS:
                raise ValueError(f"the header name {printable(repr(name))} cannot be set")
            if not _VALUE.fullmatch(value):  # which may be a secret
                raise ValueError(f"the value of the header {name} is not an HTTP field value")
            lines += (name, ": ", value, "\r\n")
        return "".join(lines).encode("latin-1")

    async def close(self) -> None:
        """Close every connection. Answers that are under way are broken; later requests are not sent."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._idle.clear()
        lost = [connection.lost for connection in self._open]
        for connection in list(self._open):
            connection.fail("Guard closed the connection")
        if lost:
            await asyncio.wait(lost, timeout=self._connect_seconds)

    # -- connections -----------------------------------------------------------------------------------

    def _at_once(self) -> Connection | None:
        """A connection that can be used now, with a turn taken; None where one would have to wait."""
        if not self._left or self._waiting or (connection := self._reusable()) is None:
            return None
        self._left -= 1
        return connection

    async def _take(self) -> None:
        """Take a turn, when it comes."""
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if not turn.cancelled():  # it came in the same moment
                self._give()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _give(self) -> None:
        """Give a turn back: to whoever waits longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._left += 1

    async def _turn(self) -> Connection:
        """Wait for a turn, and for a connection. Raises NotSent."""
        try:
            async with asyncio.timeout(self._connect_seconds):
                await self._take()
                try:
                    return self._reusable() or await self._connect()
                except BaseException:
                    self._give()
                    raise
        except TimeoutError:
            raise NotSent(f"no connection within {self._connect_seconds:g} seconds") from None

    async def _connect(self) -> Connection:
        if self._closed:
            raise NotSent("the client is closed")
        loop = asyncio.get_running_loop()
        connection = Connection(max_head=self._max_head, on_free=self._freed, on_lost=self._open.discard)
        try:
            reached = await _reach(self._host, self._port)
            try:
                await loop.create_connection(lambda: connection, sock=reached)
            except BaseException:
                reached.close()
                raise
            if self._tls is not None:
                await connection.secure(self._tls, self._host)
        except BaseException as failure:
            connection.abort()
            if isinstance(failure, Exception):  # whatever it is: nothing was sent
                raise NotSent(printable(f"it cannot be reached: {failure}")) from failure
            raise
        if self._closed or connection.closed:
            connection.abort()
            raise NotSent("it was closed before anything was sent")
        self._open.add(connection)
        return connection

    def _reusable(self) -> Connection | None:
        """The connection that was used last, if it can be used; any other that is found is closed."""
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable(asyncio.get_running_loop().time() - self._idle_seconds):
                return connection
            connection.abort()
        return None

    def _freed(self, connection: Connection) -> None:
        self._give()
        if not self._closed and not connection.closed:
            self._idle.append(connection)
            if self._sweeper is None:
                self._sweep_later()

    def _sweep_later(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(self._idle_seconds, self._sweep)

    def _sweep(self) -> None:
        """Close what was idle for too long, which stands at the left."""
        self._sweeper = None
        since = asyncio.get_running_loop().time() - self._idle_seconds
        while self._idle and not self._idle[0].reusable(since):
            self._idle.popleft().abort()
        if self._idle:
            self._sweep_later()


async def _reach(host: str, port: int) -> socket.socket:
    """A connected socket: the next address is tried as well where one is slow (RFC 8305). Raises OSError."""
    loop = asyncio.get_running_loop()
    try:
        version = ip_address(host).version
    except ValueError:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    else:  # nobody needs to be asked
        family = socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
        return await _connected(family, socket.SOCK_STREAM, 0, "", (host, port))
    if len(found) == 1:
        return await _connected(*found[0])
    tries: set[asyncio.Task[socket.socket]] = set()
    failure: BaseException = OSError("the host has no address")
    waiting = deque(_interleaved(found))
    try:
        while waiting or tries:
            if waiting:
                tries.add(loop.create_task(_connected(*waiting.popleft())))
            done, tries = await asyncio.wait(
                tries,
                timeout=HAPPY_EYEBALLS_SECONDS if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            good = [each for each in done if each.exception() is None]
            for late in good[1:]:
                late.result().close()
            if good:
                return good[0].result()
            failure = next((each.exception() or failure for each in done), failure)
        raise failure
    finally:
        for each in tries:
            each.add_done_callback(_close)
            each.cancel()


def _close(late: asyncio.Task[socket.socket]) -> None:
    if not late.cancelled() and late.exception() is None:
        late.result().close()


def _interleaved(found: Sequence[_Address]) -> list[_Address]:
    """The families by turns, the first one first (RFC 8305 section 4)."""
    first = [each for each in found if each[0] == found[0][0]] if found else []
    others = [each for each in found if each[0] != found[0][0]] if found else []
    pairs = zip_longest(first, others)
    return [each for pair in pairs for each in pair if each is not None]


async def _connected(
    family: socket.AddressFamily, kind: socket.SocketKind, protocol: int, _name: str, address: Any
) -> socket.socket:
    found = socket.socket(family, kind, protocol)
    try:
        found.settimeout(0)
        await asyncio.get_running_loop().sock_connect(found, address)
    except BaseException:
        found.close()
        raise
    return found


def _framed(head: bytes, body: bytes) -> bytes:
    """A whole request: a POST always has a length."""
    if body or head.startswith(b"POST "):
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
    return head + b"\r\n"


def _parts(url: str) -> tuple[str, str, int, str, str]:
    """Scheme, host, port, what stands in Host, and the request target. Raises GuardError."""
    remedy = "write http(s)://host[:port]/path, and the rest in percent-encoding"
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise GuardError("is not a URL", where="url", remedy=remedy) from None
    good = _URL.fullmatch(url) and parts.scheme in _PORTS and _HOST.fullmatch(host) and port != 0
    if not good or "@" in parts.netloc or "#" in url:  # neither passwords nor fragments
        raise GuardError("is not the URL of a tool server", where="url", remedy=remedy)
    authority = f"[{host}]" if ":" in host else host
    if port not in (None, _PORTS[parts.scheme]):
        authority = f"{authority}:{port}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, host, port or _PORTS[parts.scheme], authority, target


def _context(ca: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ValueError):
        remedy = "name a file with certificates in PEM form"
        raise GuardError("holds no certificates that can be read", where="ca", remedy=remedy) from None
    context.set_alpn_protocols(["http/1.1"])
    return context

"""A client over HTTP/1.1 that says exactly what it is told, and reads what comes, raw.

Nothing here is taken from the package or from an HTTP library. Whatever does not come within
PATIENCE seconds is a TimeoutError; whatever ends too early is an EOFError or a ConnectionError.
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, cast

from tests.proxy.scene import ENVELOPE, MODERN, PATIENCE

MAX_BODY: Final = 256 * 1024 * 1024
CHUNKED: Final = -1
SSE: Final = "text/event-stream"
NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
CLIENT: Final = {"name": "tests", "version": "1"}
Params = Mapping[str, Any]
Headers = Mapping[str, str | None]
NONE: Final[Mapping[str, Any]] = {}
_END_OF_EVENT: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_PLAIN: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
_SENTINEL: Final = re.compile(r"=\?base64\?.*\?=")


def header_value(text: str) -> str:
    """A value as a header carries it (2026-07-28, Streamable HTTP, value encoding)."""
    if _PLAIN.fullmatch(text) and not _SENTINEL.fullmatch(text):
        return text
    return f"=?base64?{b64encode(text.encode()).decode()}?="


def take_events(held: bytearray) -> list[dict[str, Any]]:
    """Take the whole events out of an SSE stream's bytes; what is not whole stays."""
    found = []
    while end := _END_OF_EVENT.search(held):
        lines = _LINE_END.split(bytes(held[: end.start()]))
        del held[: end.end()]
        data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        if any(data):  # an event with an id alone only primes a reconnection
            message = json.loads(b"\n".join(data))
            assert isinstance(message, dict), message
            found.append(message)
    return found


@dataclass(frozen=True)
class Head:
    """Where an answer begins.

    Attributes:
        status: the HTTP status.
        headers: lower-case names; values that came twice are joined with ", ".
    """

    status: int
    headers: dict[str, str]

    @property
    def kind(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class Answer(Head):
    """A whole answer, its framing taken off."""

    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[dict[str, Any]]:
        """Every whole event of an SSE stream."""
        assert self.kind == SSE, self
        return take_events(bytearray(self.body))

    def message(self) -> dict[str, Any]:
        """The one JSON-RPC response, whichever way it came; in a stream it is the last event."""
        if self.kind == SSE:
            *before, found = self.events()
            assert all("method" in each for each in before), "more than one response"
        else:
            assert self.kind == "application/json", self
            found = self.json()
        assert isinstance(found, dict), found
        assert "method" not in found, found
        return found


class Connection(asyncio.Protocol):
    """One TCP connection. Bytes that came before it was reset are still read."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._news = asyncio.Event()
        self._over: Exception | None = None
        self._transport: asyncio.Transport | None = None
        self._left: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # whatever loop it is of

    def data_received(self, data: bytes) -> None:
        self._held += data
        self._news.set()

    def eof_received(self) -> bool:
        self._over = self._over or EOFError("the connection was closed")
        self._news.set()
        return True  # what is still to be said can be said

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = self._over or exc or EOFError("the connection was closed")
        self._news.set()

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        """Close at once; nothing is waited for."""
        if self._transport is not None:
            self._transport.abort()

    async def closed(self) -> bytes:
        """Wait until the other side closes; what it still said."""
        async with asyncio.timeout(PATIENCE):
            while self._over is None:
                await self._more()
        return bytes(self._held)

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The next whole answer; `to_head` where the request was HEAD, which is answered without a body."""
        async with asyncio.timeout(PATIENCE):
            head = await self.head()
            body = bytearray()
            while not to_head and (piece := await self.piece()):
                body += piece
                assert len(body) <= MAX_BODY
            return Answer(head.status, head.headers, bytes(body))

    async def head(self) -> Head:
        """The next answer's head; interim ones (1xx) are passed over."""
        status = 100
        while status < 200:
            data = self._take(await self._found(b"\r\n\r\n") + 4)
            start, *fields = data.decode("latin-1").split("\r\n")[:-2]
            protocol, code, *_ = start.split(" ", 2)
            assert protocol == "HTTP/1.1", start
            status = int(code)
        headers: dict[str, str] = {}
        for each in fields:
            name, colon, value = each.partition(":")
            assert colon, each
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        assert {"transfer-encoding", "content-length"} - headers.keys(), "framed in two ways"
        assert headers.get("transfer-encoding", "chunked") == "chunked"
        length = CHUNKED if "transfer-encoding" in headers else headers.get("content-length")
        self._left = 0 if status in {204, 304} else None if length is None else int(length)
        return Head(status, headers)

    async def piece(self) -> bytes:
        """Some more of the body, empty at its end; raises EOFError where it is cut off.

        A chunk is taken whole or not at all, so whoever gives up waiting misses nothing.
        """
        if self._left == CHUNKED:
            return await self._chunk()
        if self._left is None:
            while not self._held and self._over is None:
                await self._more()
            if not self._held and not isinstance(self._over, EOFError):
                await self._more()  # raises: it was reset
            return self._take(len(self._held))
        while self._left and not self._held:
            await self._more()
        found = self._take(min(self._left, len(self._held)))
        self._left -= len(found)
        return found

    async def _chunk(self) -> bytes:
        start = await self._found(b"\r\n") + 2
        size = int(self._held[:start].partition(b";")[0], 16)
        if size == 0:
            self._take(await self._found(b"\r\n\r\n") + 4)  # with its trailers
            self._left = 0
            return b""
        assert size <= MAX_BODY
        while len(self._held) < start + size + 2:
            await self._more()
        found = self._take(start + size + 2)
        assert found.endswith(b"\r\n"), "a chunk is longer than it says"
        return found[start:-2]

    async def _found(self, what: bytes) -> int:
        """Wait until it has come; where."""
        start = 0
        while (found := self._held.find(what, start)) < 0:
            start = max(0, len(self._held) - len(what) + 1)
            await self._more()
        return found

    def _take(self, size: int) -> bytes:
        found = bytes(self._held[:size])
        del self._held[:size]
        return found

    async def _more(self) -> None:
        if self._over is not None:
            raise self._over
        self._news.clear()
        await self._news.wait()


class Stream:
    """An answer that is an SSE stream and stays open; `head` is where it began."""

    def __init__(self, connection: Connection, head: Head) -> None:
        self.head = head
        self._connection = connection
        self._held = bytearray()
        self._events: list[dict[str, Any]] = []

    async def next(self) -> dict[str, Any]:
        """The next event; comments are skipped. Raises EOFError when the stream has ended.

        "the stream ended" where its last chunk came; any other EOFError or ConnectionError where not.
        """
        async with asyncio.timeout(PATIENCE):
            while not self._events:
                piece = await self._connection.piece()
                if not piece:
                    raise EOFError("the stream ended")
                self._held += piece
                self._events = take_events(self._held)
        return self._events.pop(0)

    def close(self) -> None:
        self._connection.close()


class RawHttp:
    """A client of one server; each request has a connection of its own.

    Args:
        port: where the server is.
        host: its address.
        version: the revision of MCP that is spoken: MODERN or one of the handshake era.
        key: the API key that is sent as a bearer token.

    Attributes:
        session: the session id, once `greet` was given one.
        notifications: those that came in the streams that `request` and `call` read.
    """

    def __init__(
        self, port: int, *, host: str = "127.0.0.1", version: str = MODERN, key: str | None = None
    ) -> None:
        self.host, self.port, self.version, self.key = host, port, version, key
        self.session: str | None = None
        self.notifications: list[dict[str, Any]] = []
        self._ids = count(1)

    @property
    def modern(self) -> bool:
        return self.version == MODERN

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        """A connection under the test's control; it is closed at the end."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            _, connection = await loop.create_connection(Connection, self.host, self.port)
        with closing(connection):
            yield connection

    async def exchange(self, data: bytes) -> Answer:
        """On a fresh connection: write these bytes, read one whole answer."""
        async with self.connected() as connection:
            connection.write(data)
            return await connection.answer(to_head=data.startswith(b"HEAD "))

    def written(
        self, verb: str, message: bytes | Params = b"", *, headers: Headers = NONE, path: str = "/mcp"
    ) -> bytes:
        """A request's bytes; the headers given stand in place of the usual ones, None leaves one out."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        fields = self._usual(body) if verb == "POST" else {"Accept": SSE, **self._state()}
        fields = {"Host": f"{self.host}:{self.port}", **fields}
        for name, value in headers.items():
            fields = {old: kept for old, kept in fields.items() if old.lower() != name.lower()}
            if value is not None:
                fields[name] = value
        lines = [f"{verb} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1") + body

    def _state(self) -> dict[str, str]:
        """What every request of a client says."""
        found = {"MCP-Protocol-Version": self.version}
        if self.key is not None:
            found["Authorization"] = f"Bearer {self.key}"
        if self.session is not None:
            found["Mcp-Session-Id"] = self.session
        return found

    def _usual(self, body: bytes) -> dict[str, str]:
        kinds = {"Content-Type": "application/json", "Accept": f"application/json, {SSE}"}
        found = {**kinds, "Content-Length": str(len(body)), **self._state()}
        try:
            message = json.loads(body)
            method = str(message["method"])
        except (ValueError, LookupError, TypeError, RecursionError):
            return found  # bytes that are no message have no names to mirror
        if method == "initialize":
            del found["MCP-Protocol-Version"]
            found.pop("Mcp-Session-Id", None)
        if self.modern:
            found["Mcp-Method"] = header_value(method)
            params = message.get("params")
            name = params.get(NAMED.get(method)) if isinstance(params, dict) else None
            if isinstance(name, str):
                found["Mcp-Name"] = header_value(name)
        return found

    def message(self, method: str, params: Params = NONE) -> dict[str, Any]:
        """A request of this client's era, with an id of its own."""
        params = dict(params)
        if self.modern:
            params["_meta"] = {**ENVELOPE, **params.get("_meta", {})}
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}

    async def send(self, verb: str, *, headers: Headers = NONE, path: str = "/mcp") -> Answer:
        """A request without a body; its whole answer."""
        return await self.exchange(self.written(verb, headers=headers, path=path))

    async def post(self, message: bytes | Params, *, headers: Headers = NONE, path: str = "/mcp") -> Answer:
        """One message, or any bytes; the whole answer."""
        return await self.exchange(self.written("POST", message, headers=headers, path=path))

    async def request(self, method: str, params: Params = NONE, *, headers: Headers = NONE) -> Answer:
        """One request; notifications that came before its response are kept."""
        answer = await self.post(self.message(method, params), headers=headers)
        if answer.kind == SSE:
            self.notifications += [each for each in answer.events() if "method" in each]
        return answer

    async def call(self, name: str = "echo", /, **arguments: Any) -> dict[str, Any]:
        """Call a tool; the whole response."""
        return (await self.request("tools/call", {"name": name, "arguments": arguments})).message()

    async def greet(self) -> Answer:
        """The handshake, for a client of that era; the answer to `initialize`."""
        self.session = None
        params = {"protocolVersion": self.version, "capabilities": {}, "clientInfo": CLIENT}
        answer = await self.request("initialize", params)
        if answer.status == 200 and "result" in answer.message():
            self.session = answer.headers.get("mcp-session-id")
            accepted = await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
            assert (accepted.status, accepted.body) == (202, b""), accepted
        return answer

    async def delete(self) -> Answer:
        """End the session; its id is still sent afterwards."""
        return await self.send("DELETE")

    @asynccontextmanager
    async def stream(
        self, method: str, params: Params = NONE, *, headers: Headers = NONE
    ) -> AsyncIterator[Stream]:
        """A request whose answer stays open."""
        async with self._streaming(self.written("POST", self.message(method, params), headers=headers)) as it:
            yield it

    @asynccontextmanager
    async def listen(self, *, headers: Headers = NONE) -> AsyncIterator[Stream]:
        """The stream of the session, for a client of the handshake era."""
        async with self._streaming(self.written("GET", headers=headers)) as it:
            yield it

    @asynccontextmanager
    async def _streaming(self, data: bytes) -> AsyncIterator[Stream]:
        async with self.connected() as connection:
            connection.write(data)
            async with asyncio.timeout(PATIENCE):
                head = await connection.head()
            assert (head.status, head.kind) == (200, SSE), head
            yield Stream(connection, head)

"""The load: raw clients on asyncio's protocols, one call in flight for each conversation.

Little is parsed, and every answer is checked. What a client takes itself is in the direct figures too.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import httptools

from bench_parts import messages
from bench_parts.messages import WrongAnswer

PATIENCE: Final = 120.0
"""Seconds for one round: far more than the slowest needs."""
STOPPING: Final = 15.0
IDLE: Final = 2.0
"""Seconds after which a connection is not used again: servers close what is idle, uvicorn after five."""


@dataclass
class Round:
    """One measurement: `calls` calls over `conversations`.

    Attributes:
        send: sends a body, given its slot: one call is in flight in each.
        names: a call's conversation, given its slot and its number.
        seconds: latencies so far.
        wall: seconds from the first call to the last answer.
    """

    send: Callable[[int, bytes], None]
    tool: str
    era: str
    conversations: int
    calls: int
    first: int
    names: Callable[[int, int], str]
    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0

    def __post_init__(self) -> None:
        self._sent = 0
        self._open: dict[int, tuple[int, str, float]] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> Round:
        """Raises WrongAnswer, ConnectionError, TimeoutError."""
        began = perf_counter()
        for slot in range(self.conversations):
            self._next(slot)
        async with asyncio.timeout(PATIENCE + self.calls / 20):
            await self.done
        self.wall = perf_counter() - began
        return self

    def _next(self, slot: int) -> None:
        if self._sent == self.calls:
            return
        number = self._sent
        self._sent += 1
        id_, text = self.first + number, f"hello {self.first + number}"
        body = messages.call(id_, self.tool, text, self.era, self.names(slot, number))
        self._open[id_] = slot, text, perf_counter()
        self.send(slot, body)

    def take(self, body: bytes) -> None:
        """What came back. A wrong answer ends the round."""
        now = perf_counter()
        try:
            if (found := messages.answer(body)) is None:
                return
            slot, text, began = self._open.pop(found["id"])
            messages.check(found, text)
        except WrongAnswer as error:
            self.fail(error)
            return
        except KeyError:
            self.fail(WrongAnswer(f"nobody asked: {body[:200]!r}"))
            return
        self.seconds.append(now - began)
        self._next(slot)
        if not self._open and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the round."""
        if not self.done.done():
            self.done.set_exception(error)


class Link:
    """A client of one variant. `pid` is the middle's, 0 where there is none of ours."""

    def __init__(self, *, tool: str, era: str) -> None:
        self.tool, self.era, self.pid = tool, era, 0
        self._round: Round | None = None
        self._ids = 1

    def _send(self, slot: int, body: bytes) -> None:
        raise NotImplementedError

    async def _ready(self, conversations: int) -> None:
        """Whatever has to be before the first call of that many conversations."""

    async def round(
        self, conversations: int, calls: int, names: Callable[[int, int], str] = "talk-{}".format
    ) -> Round:
        """Measure one. A call's conversation is `names(slot, number of the call)`. Raises as Round.run."""
        await self._ready(conversations)
        first, self._ids = self._ids, self._ids + calls
        self._round = Round(self._send, self.tool, self.era, conversations, calls, first, names)
        try:
            return await self._round.run()
        finally:
            self._round = None

    def _lost(self, error: Exception) -> None:
        if self._round is not None:
            self._round.fail(error)


class StdioLink(Link, asyncio.SubprocessProtocol):
    """A client at the pipes of a process that it starts."""

    def __init__(
        self,
        command: list[str],
        *,
        env: Mapping[str, str],
        cores: set[int],
        log: Path,
        tool: str,
        era: str,
    ) -> None:
        super().__init__(tool=tool, era=era)
        self._command, self._env, self._cores, self._log = command, env, cores, log
        self._held = b""
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._over = asyncio.Event()

    async def open(self) -> None:
        """Start the process, and shake hands where the era does."""
        with self._log.open("ab") as log:
            self._transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: self,
                *self._command,
                env={**self._env},
                stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, self._cores),
            )
        self.pid = self._transport.get_pid()
        pipe = self._transport.get_pipe_transport(0)
        assert isinstance(pipe, asyncio.WriteTransport)
        self._pipe = pipe
        if self.era == "handshake":
            await self.ask(messages.initialize(0))
            self._pipe.write(messages.INITIALIZED + b"\n")

    async def ask(self, request: bytes) -> dict[str, Any]:
        """One request outside of any round. Raises WrongAnswer, TimeoutError."""
        self._pipe.write(request + b"\n")
        while True:
            async with asyncio.timeout(PATIENCE):
                line = await self._answers.get()
            if not line:
                raise ConnectionError(f"{self._command[:4]} ended: {self._log.read_text()[-2000:]}")
            if (found := messages.answer(line)) is not None:
                return found

    async def close(self) -> None:
        """Close its input and wait; then kill."""
        self._pipe.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOPPING):
                await self._over.wait()
        self._transport.close()

    def _send(self, slot: int, body: bytes) -> None:  # noqa: ARG002 - one pipe carries all
        self._pipe.write(body + b"\n")

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - only one is read
        *lines, self._held = (self._held + data).split(b"\n") if self._held else data.split(b"\n")
        for line in lines:
            if self._round is not None:
                self._round.take(line)
            elif line:
                self._answers.put_nowait(line)

    def process_exited(self) -> None:
        self._over.set()
        self._answers.put_nowait(b"")
        self._lost(ConnectionError(f"{self._command[:4]} ended: {self._log.read_text()[-2000:]}"))


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection of one conversation."""

    def __init__(self, session: bytes = b"") -> None:
        self.session = session
        self.closed = False
        self.waiting = False
        self.used = perf_counter()
        self.on_message: Callable[[bytes], None] = lambda _: None
        self.on_loss: Callable[[Exception], None] = lambda _: None
        self._parser = httptools.HttpResponseParser(self)
        self._events = False
        self._parts: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, head: bytes, body: bytes) -> None:
        """One request; its answer goes to `on_message`."""
        self.waiting = True
        self.transport.write(b"%bcontent-length: %d\r\n\r\n" % (head, len(body)) + body)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.on_loss(WrongAnswer(f"no HTTP: {error}: {data[:200]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.waiting:  # an idle one may go
            self.on_loss(exc or ConnectionError("the connection was closed"))

    def on_message_begin(self) -> None:
        self._events, self._parts, self.used = False, [], perf_counter()

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-type":
                self._events = value.startswith(b"text/event-stream")
            case b"mcp-session-id":
                self.session = value

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self.waiting = False
        body, status = b"".join(self._parts), self._parser.get_status_code()
        if status not in {200, 202}:
            self.on_loss(WrongAnswer(f"status {status}: {body[:400]!r}"))
            return
        try:
            found = messages.last_event(body) if self._events else body
        except WrongAnswer as error:
            self.on_loss(error)
            return
        self.on_message(found)


class HttpLink(Link):
    """A client with one connection for each conversation; in the handshake era a session each as well."""

    def __init__(
        self, host: str, port: int, path: str = "/mcp", *, key: str = "", tool: str, era: str, pid: int = 0
    ) -> None:
        super().__init__(tool=tool, era=era)
        self.pid = pid
        self._host, self._port = host, port
        self._connections: list[_Connection | None] = []
        named = b"" if era == "handshake" else b"mcp-method: tools/call\r\nmcp-name: %b\r\n" % tool.encode()
        self._common = (
            b"POST %b HTTP/1.1\r\nhost: %b:%d\r\ncontent-type: application/json\r\n"
            b"accept: application/json, text/event-stream\r\n" % (path.encode(), host.encode(), port)
        ) + (b"authorization: Bearer %b\r\n" % key.encode() if key else b"")
        self._call = b"mcp-protocol-version: %b\r\n" % messages.ERAS[era].encode() + named

    async def open(self) -> None:
        """Nothing is connected before it is used."""

    async def close(self) -> None:
        """Let go of every connection."""
        for one in filter(None, self._connections):
            one.on_loss = lambda _: None
            one.transport.abort()

    async def _ready(self, conversations: int) -> None:
        """As many connections; what was idle while others were measured is opened anew, in its session."""
        self._connections += [None] * (conversations - len(self._connections))
        for slot, one in enumerate(self._connections[:conversations]):
            if one is not None and perf_counter() - one.used > IDLE:
                one.on_loss = lambda _: None
                one.transport.abort()
                one.closed = True
            if one is None or one.closed:
                self._connections[slot] = await self._connected(one.session if one else b"")

    async def _connected(self, session: bytes) -> _Connection:
        loop = asyncio.get_running_loop()
        _, one = await loop.create_connection(lambda: _Connection(session), self._host, self._port)
        if self.era == "handshake" and not session:
            await self._ask(one, self._common, messages.initialize(0))
            await self._ask(one, self._common + self._call + self._session(one), messages.INITIALIZED)
        one.on_message, one.on_loss = self._take, self._lost
        return one

    @staticmethod
    def _session(one: _Connection) -> bytes:
        return b"mcp-session-id: %b\r\n" % one.session if one.session else b""

    @staticmethod
    async def _ask(one: _Connection, head: bytes, body: bytes) -> bytes:
        came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        one.on_message, one.on_loss = came.set_result, came.set_exception
        one.send(head, body)
        async with asyncio.timeout(PATIENCE):
            return await came

    def _take(self, body: bytes) -> None:
        if self._round is not None:
            self._round.take(body)

    def _send(self, slot: int, body: bytes) -> None:
        one = self._connections[slot]
        assert one is not None
        head = self._common + self._call + self._session(one)
        one.send(head, body)

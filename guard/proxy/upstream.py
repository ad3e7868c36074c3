"""One tool server behind Guard: a process on pipes, spoken to in the era that it speaks.

Dispatch takes a VerifiedGrant and nothing else. What is sent is the params that were verified,
with `_meta` built anew: the era's envelope, progress, trace context, and the artifact.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from guard import __version__
from guard.artifact.verify import VerifiedGrant
from guard.core.errors import GuardError, Reason, Refused, printable
from guard.core.model import ARTIFACT_META
from guard.proxy import eras, wire
from guard.proxy.endings import Ending, Failed, Flight, Returned, Unknown
from guard.proxy.lines import LineBuffer
from guard.proxy.replies import Garbage, Line, read_line, read_object, value_of, without_own_meta

CLIENT_INFO: Final = {"name": "guard-mcp", "version": __version__}
EXTENSION: Final = "dev.guard-mcp/authorization"
PROBE_SECONDS: Final = 10.0
STOP_SECONDS: Final = 2.0
LAST_WORDS_SECONDS: Final = 0.2
MAX_PAGES: Final = 100
MAX_TOOLS: Final = 10_000
_CAPABILITIES: Final[Mapping[str, Any]] = {"extensions": {EXTENSION: {}}}
_COMPLETE: Final = b'"complete"'


class ServerError(GuardError):
    """The tool server cannot be started, or does not speak MCP."""


class Upstream(asyncio.SubprocessProtocol):
    """A tool server's process.

    Args:
        command: program and arguments.
        env: its whole environment; never Guard's own.
        timeout: seconds that a request may take.
        on_list_changed: called when the server says that its tools changed.
        on_gone: called once when the process has ended.
        on_pressure: told True when the server reads too slowly, False when it caught up.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | None = None,
        timeout: float = 300.0,
        on_list_changed: Callable[[], None] = lambda: None,
        on_gone: Callable[[], None] = lambda: None,
        on_pressure: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.command = tuple(command)
        self.info: dict[str, Any] = {}
        self.instructions: str | None = None
        self.version = ""
        self._env = dict(env)
        self._cwd = cwd
        self._timeout = timeout
        self._on_list_changed = on_list_changed
        self._on_gone = on_gone
        self._on_pressure = on_pressure
        self._lines = LineBuffer()
        self._flights: dict[int, Flight] = {}
        self._next = 0
        self._stdin: asyncio.WriteTransport | None = None
        self._process: asyncio.SubprocessTransport | None = None
        self._silent = False
        self._dead = asyncio.Event()

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the process and agree on an era.

        Raises:
            ServerError: it cannot be started, or speaks no version that Guard speaks.
        """
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.subprocess_exec(
                lambda: self,
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=None,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise ServerError(
                f"the tool server does not start: {error.strerror}",
                where=printable(self.command[0]),
                remedy="run the command by itself to see why",
            ) from None
        self._process = transport
        await self._agree()

    @property
    def alive(self) -> bool:
        """Whether the process runs and an era is agreed on."""
        return self.version != "" and not self._silent

    @property
    def modern(self) -> bool:
        """Whether the server speaks 2026-07-28."""
        return self.version in eras.MODERN

    async def stop(self) -> None:
        """Close its input, wait, then terminate, then kill: the process group, nothing stays behind."""
        if self._process is None:
            return
        if self._stdin is not None:
            self._stdin.close()
        for signum in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._dead.wait(), STOP_SECONDS)
                break
            self._signal(signum)
        self._signal(signal.SIGKILL)
        self._process.close()

    def _signal(self, signum: signal.Signals) -> None:
        pid = self._process.get_pid() if self._process else None
        if pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signum)

    async def _agree(self) -> None:
        """Probe with `server/discover`; whatever is no modern answer falls back to the handshake."""
        version = eras.MODERN[-1]
        ending = await self._ask("server/discover", {}, version=version, timeout=PROBE_SECONDS)
        found = _object(ending)
        if isinstance(ending, Returned) and ending.is_error:
            data = found.get("data")
            offered = _strings(data.get("supported") if isinstance(data, dict) else None)
            modern_only = offered and not set(offered) & set(eras.HANDSHAKE)
            if found.get("code") == eras.UNSUPPORTED_VERSION and modern_only:
                raise ServerError(f"the tool server speaks only {', '.join(map(printable, offered))}")
        elif version in _strings(found.get("supportedVersions")):
            self._adopt(version, found, found.get("_meta"))
            return
        await self._handshake()

    async def _handshake(self) -> None:
        offer = {
            "protocolVersion": eras.HANDSHAKE[0],
            "capabilities": {},
            "clientInfo": CLIENT_INFO,
        }
        ending = await self._ask("initialize", offer, version="", timeout=self._timeout)
        found = _object(ending)
        version = found.get("protocolVersion")
        if version not in eras.HANDSHAKE:
            ended = self._process.get_returncode() if self._process else None
            raise ServerError(
                "the tool server did not complete the MCP handshake"
                if ended is None
                else f"the tool server ended before it answered, exit code {ended}",
                where=printable(" ".join(self.command)),
                remedy="run the command by itself: does it speak MCP on its standard output?",
            )
        self._adopt(version, found, {eras.SERVER_INFO: found.get("serverInfo")})
        self._write(wire.notification("notifications/initialized", {}))

    def _adopt(self, version: str, found: Mapping[str, Any], meta: Any) -> None:
        info = meta.get(eras.SERVER_INFO) if isinstance(meta, dict) else None
        instructions = found.get("instructions")
        self.info = info if isinstance(info, dict) else {}
        self.instructions = instructions if isinstance(instructions, str) else None
        self.version = version

    # -- asking --------------------------------------------------------------------------------

    async def dispatch(
        self, grant: VerifiedGrant, method: str, meta: Mapping[str, Any], flight: Flight
    ) -> Ending:
        """Send one call, once, with its artifact.

        Args:
            grant: what the verifier returned for this very call.
            meta: the client's `_meta`; only its trace context goes on.
            flight: how the client cancels, and hears of progress.

        Without a VerifiedGrant nothing is sent.
        """
        if type(grant) is not VerifiedGrant:
            return Failed(Reason.ARTIFACT_MISSING, integrity=True)
        own = {name: meta[name] for name in wire.TRACE_KEYS if isinstance(meta.get(name), str)}
        own[ARTIFACT_META] = grant.token.decode()
        return await self._ask(
            method, grant.params, version=self.version, timeout=self._timeout, meta=own, flight=flight
        )

    async def _ask(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        version: str,
        timeout: float,  # noqa: ASYNC109 - a timeout here is an ending, not an exception
        meta: Mapping[str, Any] | None = None,
        flight: Flight | None = None,
    ) -> Ending:
        flight = flight or Flight()
        if flight.cancelled:
            return Failed(Reason.CANCELLED)
        if self._stdin is None or self._stdin.is_closing() or self._silent:
            return Failed(Reason.UPSTREAM_UNAVAILABLE)
        self._next += 1
        id_, loop = self._next, asyncio.get_running_loop()
        flight.ending = loop.create_future()
        own = {**(meta or {}), **_envelope(version)}
        if flight.on_progress is not None:
            own["progressToken"] = id_
        line = wire.request(id_, method, {**params, "_meta": own} if own else params)
        self._flights[id_] = flight
        timer = loop.call_later(timeout, flight.end, Unknown(Reason.TIMED_OUT))
        try:
            self._stdin.write(line)
            ending = await flight.ending
        finally:
            timer.cancel()
            self._flights.pop(id_, None)
        if isinstance(ending, Unknown) and not self._silent and method != "initialize":
            self._write(wire.notification("notifications/cancelled", {"requestId": id_}))
        return ending

    async def list_tools(self) -> list[dict[str, Any]]:
        """Every tool that the server has now, all pages.

        Raises:
            Refused: UPSTREAM_UNAVAILABLE; it does not answer, or not with tools.
        """
        tools: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            params = {} if cursor is None else {"cursor": cursor}
            ending = await self._ask("tools/list", params, version=self.version, timeout=self._timeout)
            page = _object(ending)
            found = page.get("tools")
            if not isinstance(found, list):
                raise Refused(Reason.UPSTREAM_UNAVAILABLE, "the tool server does not list its tools")
            tools += [tool for tool in found if isinstance(tool, dict)]
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or len(tools) > MAX_TOOLS:
                return tools
        return tools

    def _write(self, line: bytes) -> None:
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(line)

    # -- what the server says ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipes are there."""
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101 - asyncio's contract
        pipe = transport.get_pipe_transport(0)
        assert isinstance(pipe, asyncio.WriteTransport)  # noqa: S101 - stdin was asked for
        self._stdin = pipe

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:  # noqa: ARG002 - only stdout is piped
        """Bytes from the server's standard output."""
        lines, too_long = self._lines.feed(data if isinstance(data, bytes) else data.encode())
        if too_long:
            # Whose answer it was cannot be known: nobody's wait may be ended by a guess.
            self._end_all(Unknown(Reason.UPSTREAM_UNAVAILABLE))
        for line in lines:
            try:
                self._hear(read_line(line))
            except (Garbage, TypeError, ValueError) as garbage:
                print(f"guard: the tool server wrote no message: {printable(str(garbage))}", file=sys.stderr)  # noqa: T201

    def _hear(self, line: Line) -> None:
        if line.method is not msgspec.UNSET:
            self._hear_method(line, line.method)
            return
        flight = self._flights.get(line.id) if isinstance(line.id, int) else None
        if flight is None or flight.ending is None or flight.ending.done():
            return  # an answer to nothing: late, repeated, or made up
        try:
            flight.end(_ending(bytes(line.result), bytes(line.error)))
        except Garbage:
            flight.end(Unknown(Reason.UNEXPECTED, executed=True))
            raise

    def _hear_method(self, line: Line, method: str) -> None:
        if line.id is not msgspec.UNSET and line.id is not None:
            # The one request of a server that this Guard serves is ping; the rest comes later.
            answer = (
                wire.result(line.id, {})
                if method == "ping"
                else wire.error(line.id, wire.METHOD_NOT_FOUND, "Guard does not pass this on yet")
            )
            self._write(answer)
        elif method == "notifications/progress":
            self._hear_progress(read_object(without_own_meta(bytes(line.params))))
        elif method == "notifications/tools/list_changed":
            self._on_list_changed()

    def _hear_progress(self, params: Mapping[str, msgspec.Raw]) -> None:
        token = value_of(params.get("progressToken", b"null"))
        flight = self._flights.get(token) if type(token) is int else None
        if flight is not None and flight.on_progress is not None and not flight.cancelled:
            # As bytes: a number too large to be read must not break the pipe that it came by.
            flight.on_progress({name: orjson.Fragment(bytes(value)) for name, value in params.items()})

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        """A server that closes its output answers nothing any more."""
        if fd == 1:
            self._gone()

    def process_exited(self) -> None:
        """The process ended: once its last words are read, what it did not answer is unknown."""
        self._dead.set()
        asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._gone)

    def _gone(self) -> None:
        if self._silent:
            return
        self._silent = True
        self._end_all(Unknown(Reason.UPSTREAM_UNAVAILABLE))
        self._on_gone()

    def _end_all(self, ending: Ending) -> None:
        for flight in self._flights.values():
            flight.end(ending)

    def pause_writing(self) -> None:
        """The server reads slower than it is asked."""
        self._on_pressure(True)  # noqa: FBT003 - the one thing it tells

    def resume_writing(self) -> None:
        """The server caught up."""
        self._on_pressure(False)  # noqa: FBT003 - the one thing it tells


def _ending(result: bytes, failure: bytes) -> Ending:
    """What the server answered with. Raises Garbage."""
    if bool(result) == bool(failure):
        raise Garbage("neither a result nor an error, or both")
    part = without_own_meta(result or failure)
    members = read_object(part)
    if result and bytes(members.get("resultType", _COMPLETE)) != _COMPLETE:
        # What asks for input, or is of a kind that Guard does not know, is not passed on yet.
        return Unknown(Reason.UNEXPECTED, executed=True)
    return Returned(part, is_error=bool(failure))


def _envelope(version: str) -> dict[str, Any]:
    """The 2026-07-28 per-request fields; a handshake-era request has none."""
    if version not in eras.MODERN:
        return {}
    return {
        eras.PROTOCOL_VERSION: version,
        eras.CLIENT_INFO: CLIENT_INFO,
        eras.CLIENT_CAPABILITIES: _CAPABILITIES,
    }


def _object(ending: Ending) -> dict[str, Any]:
    """The object that the server answered with, {} where it answered with none."""
    if not isinstance(ending, Returned):
        return {}
    try:
        found = value_of(ending.raw)
    except Garbage:
        return {}
    return found if isinstance(found, dict) else {}


def _strings(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

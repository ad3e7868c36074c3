"""A tool server that is a process, spoken to over its pipes (MCP, transports, stdio)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from guard.core.errors import Reason, printable
from guard.proxy import wire
from guard.proxy.endings import Ending, Failed, Flight, Unknown
from guard.proxy.lines import LineBuffer
from guard.proxy.upstream import ServerError, Upstream

STOP_SECONDS: Final = 2.0
LAST_WORDS_SECONDS: Final = 0.2


class Process(Upstream, asyncio.SubprocessProtocol):
    """A tool server's process.

    Args:
        command: program and arguments.
        env: its whole environment; never Guard's own.
        cwd: the folder that it starts in, None for Guard's own.
        more: as Upstream.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: str | None = None, **more: Any
    ) -> None:
        super().__init__(printable(" ".join(command)), **more)
        self._command = tuple(command)
        self._env = dict(env)
        self._cwd = cwd
        self._lines = LineBuffer()
        self._lines_out: list[bytes] = []
        self._stdin: asyncio.WriteTransport | None = None
        self._process: asyncio.SubprocessTransport | None = None
        self._dead = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def open(self) -> None:
        """Start the process. Raises ServerError."""
        loop = asyncio.get_running_loop()
        try:
            self._process, _ = await loop.subprocess_exec(
                lambda: self,
                *self._command,
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
                where=printable(self._command[0]),
                remedy="run the command by itself to see why",
            ) from None

    async def start(self) -> None:
        """Start the process where it does not run, and agree on an era. Raises ServerError."""
        if self._process is None:
            await self.open()
        try:
            await self._agree()
        except ServerError:
            if not self._silent and self._stdin is not None and not self._stdin.is_closing():
                raise
            with contextlib.suppress(TimeoutError):  # a pipe is closed: how it ended is about to be known
                await asyncio.wait_for(self._dead.wait(), STOP_SECONDS)
            raise self._no_handshake() from None
        if self.modern:
            self._attend()
        else:
            self.attentive = self._announces

    async def stop(self) -> None:
        """Close its input, wait, then terminate, then kill: the process group, nothing stays behind."""
        if self._process is None:
            return
        self._deaf()
        self._silent = True
        self._end_all(Unknown(Reason.UPSTREAM_UNAVAILABLE))
        self._flush()
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

    def _no_handshake(self) -> ServerError:
        ended = self._process.get_returncode() if self._process else None
        return ServerError(
            "the tool server did not complete the MCP handshake"
            if ended is None
            else f"the tool server ended before it answered, exit code {ended}",
            where=self.where,
            remedy="run the command by itself: does it speak MCP on its standard output?",
        )

    # -- sending -------------------------------------------------------------------------------

    async def _send(self, id_: int, method: str, params: Mapping[str, Any], version: str) -> Failed | None:  # noqa: ARG002
        if not self._room.is_set() and (ended := await self._wait_for_room(self._flights[id_])) is not None:
            return Failed(ended.reason if isinstance(ended, Unknown) else Reason.UNEXPECTED)
        if self._stdin is None or self._stdin.is_closing():
            return Failed(Reason.UPSTREAM_UNAVAILABLE)
        self._put(wire.request(id_, method, params))
        return None

    def _put(self, line: bytes) -> None:
        """Send it with whatever else comes in this turn of the loop: one write is dearer than many lines."""
        if not self._lines_out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._lines_out.append(line)

    def _flush(self) -> None:
        lines, self._lines_out = self._lines_out, []
        if lines and self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(b"".join(lines))

    async def _wait_for_room(self, flight: Flight) -> Ending | None:
        """Wait until the server reads on; what ended the request meanwhile, None if nothing did."""
        assert flight.ending is not None  # noqa: S101 - made before anything is sent
        while not self._room.is_set():
            room: asyncio.Future[Any] = asyncio.ensure_future(self._room.wait())
            await asyncio.wait({room, flight.ending}, return_when=asyncio.FIRST_COMPLETED)
            room.cancel()
            if flight.ending.done():
                return flight.ending.result()
        return None

    def _notify(self, method: str, params: Mapping[str, Any]) -> None:
        self._answer(wire.notification(method, params))

    def _answer(self, line: bytes) -> None:
        # What nobody waits for must not pile up before a server that does not read.
        if self._stdin is not None and not self._stdin.is_closing() and self._room.is_set():
            self._put(line)

    def _abandon(self, id_: int, method: str) -> None:
        if method != "initialize":
            self._notify("notifications/cancelled", {"requestId": id_})

    # -- what the process does ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipes are there."""
        # uvloop's transports are asyncio's in all but name
        self._stdin = cast(
            "asyncio.WriteTransport", cast("asyncio.SubprocessTransport", transport).get_pipe_transport(0)
        )

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:  # noqa: ARG002 - only stdout is piped
        """Bytes from the server's standard output."""
        lines, too_long = self._lines.feed(data if isinstance(data, bytes) else data.encode())
        if too_long:
            # Whose answer it was cannot be known: nobody's wait may be ended by a guess.
            self._end_all(Unknown(Reason.UPSTREAM_UNAVAILABLE))
        for line in lines:
            self._hear_bytes(line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        """A server that closes its output answers nothing any more."""
        if fd == 1:
            self._gone()

    def process_exited(self) -> None:
        """The process ended: once its last words are read, what it did not answer is unknown."""
        self._dead.set()
        asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._gone)

    def pause_writing(self) -> None:
        """The server reads slower than it is asked."""
        self._room.clear()

    def resume_writing(self) -> None:
        """The server caught up."""
        self._room.set()

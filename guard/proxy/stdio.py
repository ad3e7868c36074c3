"""The stdio transport on plain asyncio protocols: a client's pipes in, a session behind them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from threading import Thread
from typing import Any, Final, cast

from guard.proxy import wire
from guard.proxy.lines import MAX_MESSAGE, LineBuffer
from guard.proxy.server import Handler, Session
from guard.proxy.wire import Malformed, Request
from guard.proxy.world import Gate

CHUNK: Final = 65536
FLUSH_SECONDS: Final = 5.0
CALLED_OFF_SECONDS: Final = 2.0
MAX_IN_FLIGHT: Final = 1024
"""Requests of one client at once; while there are so many, no more is read from it."""


class Pipes(asyncio.Protocol):
    """A client's two pipes.

    Args:
        gate: the world of its calls.

    Attributes:
        closed: done when the client has closed its end.
        session: what its messages are answered by.
    """

    def __init__(self, gate: Gate) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.session = Session(gate, self._tell)
        self._lines = LineBuffer()
        self._lines_out: list[bytes] = []
        self._size = 0  # of those lines
        self._reader: asyncio.ReadTransport | None = None
        self._writer: asyncio.WriteTransport | None = None
        self._flushed = asyncio.Event()
        self._holds = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, read_fd: int, write_fd: int) -> None:
        """Attach the pipes. What cannot be polled, a file or /dev/null, is pumped through one."""
        loop = asyncio.get_running_loop()
        source = os.fdopen(_pollable(read_fd, reading=True), "rb", 0)
        sink = os.fdopen(_pollable(write_fd, reading=False), "wb", 0)
        writer, _ = await loop.connect_write_pipe(lambda: _Sink(self), sink)
        self._writer = writer
        await loop.connect_read_pipe(lambda: self, source)

    def hold(self, on: bool) -> None:  # noqa: FBT001 - called by those who have one thing to tell
        """Stop reading from the client while anyone asks for it."""
        self._holds += 1 if on else -1
        if self._reader is None:
            return
        if self._holds > 0:
            self._reader.pause_reading()
        else:
            self._reader.resume_reading()

    async def drain(self, seconds: float) -> None:
        """Let what is in flight come home, at most so long; then call it off."""
        self.session.finish()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        self.session.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CALLED_OFF_SECONDS)
        for task in self._tasks:  # still asking the server something; an open grant ends at the next start
            task.cancel()

    async def close(self) -> None:
        """Write what is left, then let go."""
        if self._reader is not None:
            self._reader.close()
        self._flush()
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._flushed.wait(), FLUSH_SECONDS)

    def no_reader(self) -> None:
        """Everything is written, or the client reads no more."""
        self._flushed.set()
        if not self.closed.done():
            self.closed.set_result(None)

    def _write(self, line: bytes) -> None:
        """Send it with whatever else comes in this turn of the loop: one write is dearer than many lines."""
        if not self._lines_out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._lines_out.append(line)
        self._size += len(line)

    def _tell(self, line: bytes) -> bool:
        """Send what is no answer. A client that does not read misses it, so that nothing grows."""
        waits = self._writer.get_write_buffer_size() if self._writer is not None else 0
        if waits + self._size > MAX_MESSAGE:
            return False
        self._write(line)
        return True

    def _flush(self) -> None:
        lines, self._lines_out, self._size = self._lines_out, [], 0
        if lines and self._writer is not None and not self._writer.is_closing():
            self._writer.write(b"".join(lines))

    # -- messages ------------------------------------------------------------------------------

    def _receive(self, line: bytes) -> None:
        try:
            message = wire.read_message(line)
            if isinstance(message, Request):
                message.flight.tell = self._tell
                handler = self.session.admit(message)
                if len(self.session.in_flight) == MAX_IN_FLIGHT:
                    self.hold(True)  # noqa: FBT003 - the one thing it tells
                task = asyncio.ensure_future(self._answer(message, handler))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif message is not None:
                self.session.hear(message)
        except Malformed as fault:
            self._write(wire.error(fault.id, fault.code, fault.message, fault.data))

    async def _answer(self, message: Request, handler: Handler) -> None:
        try:
            line, _ = await self.session.answer(message, handler)
        finally:
            if len(self.session.in_flight) == MAX_IN_FLIGHT - 1:
                self.hold(False)  # noqa: FBT003 - the one thing it tells
        if line is not None:
            self._write(line)

    # -- the transport's side ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client's end is there."""
        self._reader = cast("asyncio.ReadTransport", transport)  # uvloop's is one in all but name
        if self._holds > 0:
            self._reader.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        lines, too_long = self._lines.feed(data)
        for _ in range(too_long):
            self._write(wire.error(None, wire.INVALID_REQUEST, "the message is too large"))
        for line in lines:
            self._receive(line)

    def eof_received(self) -> None:
        """The client closed its end."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The client is gone, or has said its last."""
        if rest := self._lines.rest():
            self._receive(rest)
        if not self.closed.done():
            self.closed.set_result(None)


class _Sink(asyncio.BaseProtocol):
    """The client's reading end: when it is slow, Guard reads no more from it."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes

    def pause_writing(self) -> None:
        self._pipes.hold(True)  # noqa: FBT003

    def resume_writing(self) -> None:
        self._pipes.hold(False)  # noqa: FBT003

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._pipes.no_reader()


def _pollable(fd: int, *, reading: bool) -> int:
    """The descriptor itself, or a pipe to a thread that copies: no loop polls files, few poll terminals."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return fd
    out, into = os.pipe()
    ends: tuple[Any, ...] = (fd, into) if reading else (out, fd)
    Thread(target=_pump, args=ends, daemon=reading).start()
    return out if reading else into


def _pump(source: int, sink: int) -> None:
    with open(source, "rb", 0, closefd=False) as reader, open(sink, "wb", 0) as writer:
        while chunk := reader.read(CHUNK):
            writer.write(chunk)

"""Ways through the network that a test can cut: a port in front of one or of several addresses.

With several addresses each connection goes to the next one, as a round-robin in front of replicas does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count

Address = str | tuple[str, int]
"""The path of a socket, or host and port."""


async def opened(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to an address. Raises OSError."""
    if isinstance(address, str):
        return await asyncio.open_unix_connection(address)
    return await asyncio.open_connection(*address)


class Way:
    """A port of this machine that leads on.

    Args:
        targets: where to, asked at each connection; none at all is a refusal.

    Attributes:
        port: where it begins.
    """

    def __init__(self, targets: Callable[[], Sequence[Address]]) -> None:
        self.port = 0
        self._targets = targets
        self._turns = count()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._cut = False

    def stall(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        self._flows.clear()

    def cut(self) -> None:
        """Every connection ends, and each new one too."""
        self._cut = True
        for writer in [*self._open]:
            writer.transport.abort()

    def mend(self) -> None:
        """All is well again; what stalled goes on."""
        self._cut = False
        self._flows.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Way]:
        """It takes connections."""
        self.mend()
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.mend()
            self.cut()
            for task in [*self._tasks]:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        try:
            targets = self._targets()
            if self._cut or not targets:
                return
            await self._flows.wait()
            with suppress(OSError):
                there, onward = await opened(targets[next(self._turns) % len(targets)])
                self._open.add(onward)
                try:
                    await asyncio.gather(self._pump(reader, onward), self._pump(there, writer))
                finally:
                    self._open.discard(onward)
                    onward.transport.abort()
        except asyncio.CancelledError:  # the end of the test; asyncio would print it
            pass
        finally:
            self._open.discard(writer)
            writer.transport.abort() if self._cut else writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()

"""The HTTP transport towards clients: an address, its connections, and who looks after them."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from guard.proxy import exchange
from guard.proxy.peer import App, Bounds, Peer, Shared

__all__ = ["Bounds", "Listener", "listen"]

BACKLOG: Final = 4096
_LOOKS: Final = 4
"""How often a connection is looked at within the shortest of its bounds."""
_LOOK_SECONDS: Final = 1.0


class Listener:
    """A bound address.

    Attributes:
        port: the port, chosen by the system where 0 was asked for.
    """

    def __init__(self, server: asyncio.Server, shared: Shared) -> None:
        self._server = server
        self._shared = shared
        self.port: int = server.sockets[0].getsockname()[1]
        bounds = shared.bounds
        shortest = min(bounds.head_seconds, bounds.keep_alive_seconds, exchange.KEEP_ALIVE_SECONDS)
        self._pause = min(_LOOK_SECONDS, shortest / _LOOKS)
        self._timer = shared.loop.call_later(self._pause, self._look)

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._shared.peers)

    def _look(self) -> None:
        """One timer for all of them: a timer for each request would cost more than the rest of it."""
        self._timer = self._shared.loop.call_later(self._pause, self._look)
        now = self._shared.loop.time()
        for peer in [*self._shared.peers]:
            peer.look(now)

    def refuse(self) -> None:
        """Take no more connections; those that are idle are closed, the others after their answer."""
        self._server.close()
        self._shared.refusing = True
        for peer in [*self._shared.peers]:
            peer.shutdown()

    async def drain(self, seconds: float) -> None:
        """Take no more, and let what is under way end, at most so long."""
        self.refuse()
        if self._shared.tasks:
            await asyncio.wait(self._shared.tasks, timeout=seconds)

    async def close(self) -> None:
        """Let go of every connection."""
        self.refuse()
        self._timer.cancel()
        for peer in [*self._shared.peers]:
            peer.transport.abort()
        tasks = [*self._shared.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def listen(
    app: App, host: str, port: int, bounds: Bounds, context: ssl.SSLContext | None = None
) -> Listener:
    """Serve an application on an address. Raises OSError."""
    loop = asyncio.get_running_loop()
    shared = Shared(app, bounds, loop)
    server = await loop.create_server(
        lambda: Peer(shared),
        host,
        port,
        ssl=context,
        ssl_handshake_timeout=bounds.head_seconds if context else None,
        backlog=BACKLOG,
    )
    return Listener(server, shared)

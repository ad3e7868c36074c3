"""The HTTP transport towards clients: an address, its connections, and who looks after them."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from guard.proxy import exchange
from guard.proxy.peer import App, Bounds, Peer, Shared

__all__ = ["Bounds", "Listener", "listen", "listen_on"]

BACKLOG: Final = 4096
DOORS: Final = 16
"""How often an address is listened to: uvloop accepts one connection a turn on each, and a turn under load is
long, so that clients would wait for minutes only to be turned away."""
_LOOKS: Final = 4
"""How often a connection is looked at within the shortest of its bounds."""
_LOOK_SECONDS: Final = 1.0


class Listener:
    """A bound address.

    Args:
        servers: what listens to it; all to the same sockets.
        shared: what its connections share.

    Attributes:
        port: the port, chosen by the system where 0 was asked for.
    """

    def __init__(self, servers: Sequence[asyncio.Server], shared: Shared) -> None:
        self._servers = servers
        self._shared = shared
        self.port: int = servers[0].sockets[0].getsockname()[1]
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
        for server in self._servers:
            server.close()
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
    return await _served(app, bounds, context, host=host, port=port)


async def listen_on(
    app: App, sock: socket.socket, bounds: Bounds, context: ssl.SSLContext | None = None
) -> Listener:
    """Take clients from a socket that listens already."""
    return await _served(app, bounds, context, sock=sock)


async def _served(app: App, bounds: Bounds, context: ssl.SSLContext | None, **where: object) -> Listener:
    loop = asyncio.get_running_loop()
    shared = Shared(app, bounds, loop)

    async def server(**where: object) -> asyncio.Server:
        return await loop.create_server(  # type: ignore[no-any-return, call-overload]
            lambda: Peer(shared),
            ssl=context,
            ssl_handshake_timeout=bounds.head_seconds if context else None,
            backlog=BACKLOG,
            **where,
        )

    return Listener(await doors(await server(**where), lambda sock: server(sock=sock)), shared)


async def doors(
    first: asyncio.Server, again: Callable[[socket.socket], Awaitable[asyncio.Server]]
) -> list[asyncio.Server]:
    """The server, and as many more on copies of its sockets as make DOORS of each."""
    copies = [each.fileno() for each in first.sockets for _ in range(DOORS - 1)]
    return [first, *[await again(socket.socket(fileno=os.dup(each))) for each in copies]]

"""How a configured tool server is started, or reached."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from guard.config.settings import ServerSettings
from guard.core.errors import Refused
from guard.proxy.about import Make
from guard.proxy.asker import EVERYTHING
from guard.proxy.http1 import Client
from guard.proxy.process import Process
from guard.proxy.remote import Remote
from guard.proxy.upstream import ServerError, Upstream

LetGo = Callable[[], Awaitable[None]]
SETTLE_SECONDS: Final = 0.5
"""How long a server may take to show its last tool to a client that it has just met."""
CONNECTIONS: Final = 256
"""To one server behind a URL, for calls."""


def reached(one: ServerSettings) -> tuple[Make, LetGo | None]:
    """What makes its upstreams; and what is let go of when none is wanted any more."""
    if one.command is not None:
        cwd = str(one.cwd) if one.cwd else None
        return partial(Process, one.command, env=one.environment(), cwd=cwd, timeout=one.timeout), None
    assert one.url is not None  # noqa: S101 - a server has one of the two
    most = CONNECTIONS + one.processes  # each link may hold one open to hear of changes
    client = Client(one.url, ca=str(one.ca) if one.ca else None, max_connections=most)
    return partial(Remote, one.url, client=client, headers=one.headers, timeout=one.timeout), client.close


async def look(make: Make, let_go: LetGo | None = None) -> tuple[Upstream, list[dict[str, object]]]:
    """Start a server, ask for its tools, stop it. Raises GuardError."""
    upstream = make(on_list_changed=_nobody, on_gone=_nobody)
    upstream.offers = EVERYTHING  # so that it shows what it would show to any client
    try:
        await upstream.start()
        tools = await upstream.list_tools()
        if upstream.can("tools", "listChanged"):  # some show more once they know the client
            await asyncio.sleep(SETTLE_SECONDS)
            tools = await upstream.list_tools()
    except Refused as refusal:
        raise ServerError(refusal.what, where=upstream.where) from None
    finally:
        await upstream.stop()
        if let_go is not None:
            await let_go()
    return upstream, tools


def _nobody() -> None:
    """Nobody is told."""

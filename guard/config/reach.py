"""How a configured tool server is started, or reached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from guard.config.settings import ServerSettings
from guard.core.errors import Refused
from guard.proxy.http1 import Client
from guard.proxy.links import Make
from guard.proxy.process import Process
from guard.proxy.remote import Remote
from guard.proxy.upstream import ServerError, Upstream

LetGo = Callable[[], Awaitable[None]]
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
    try:
        await upstream.start()
        return upstream, await upstream.list_tools()
    except Refused as refusal:
        raise ServerError(refusal.what, where=upstream.where) from None
    finally:
        await upstream.stop()
        if let_go is not None:
            await let_go()


def _nobody() -> None:
    """Nobody is told."""

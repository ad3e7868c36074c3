"""What a principal sees: by credential and policy only, in a fixed order, over every server."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson

from guard import __version__
from guard.core.errors import Refused
from guard.core.model import Principal, Tool
from guard.policy.decide import visible
from guard.policy.rules import Policy
from guard.proxy.asker import Asker
from guard.proxy.house import Generation, House
from guard.proxy.links import Link, ToolServer
from guard.proxy.upstream import Upstream

OWN_INFO: Final = {"name": "guard-mcp", "version": __version__}
T = TypeVar("T")
LIST_SECONDS: Final = 10.0
"""How long a list waits for one of several servers."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a principal may see now.

    Attributes:
        tools: the pinned definitions by the client's name for the tool, in order.
        digests: name and pinned digest of each, to see whether anything changed.
    """

    tools: Mapping[str, orjson.Fragment]
    digests: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Behind:
    """Who is behind Guard for a principal.

    Attributes:
        upstreams: the servers that answer.
        said: their instructions as far as they are pinned, as the member of a result; {} for none.
    """

    upstreams: tuple[Upstream, ...]
    said: Mapping[str, str]


def served_by(house: House) -> Mapping[str, Any]:
    """Who serves: the one server behind; Guard where there are more, or the one is not known yet."""
    only = house.generation.only
    return (only.info if only else None) or OWN_INFO


async def behind(house: House, principal: Principal, asker: Asker | None) -> Behind:
    """The servers of which the principal may see anything, started where they are not."""
    generation = house.generation
    versions = house.log.store.versions(principal.tenant)
    servers = [
        server for server in generation.servers.values() if _shows(server, principal, generation, versions)
    ]
    links = [server.link(principal, asker) for server in servers]
    upstreams: list[Upstream] = []
    texts: list[str] = []
    seconds = None if generation.only else LIST_SECONDS
    for link, upstream in zip(links, await in_time([link.ready() for link in links], seconds), strict=True):
        if upstream is None:
            continue
        upstreams.append(upstream)
        link.catalog.at(versions)
        if (text := link.catalog.instructions(upstream.instructions)) is not None:
            texts.append(text if generation.only else f"{link.catalog.server}:\n{text}")
    said = "\n\n".join(texts)
    return Behind(tuple(upstreams), {"instructions": said} if said else {})


async def listing(house: House, principal: Principal, asker: Asker | None, *, anew: bool) -> Listing:
    """The tools that are pinned, live and visible.

    Of several servers, one that does not answer in time shows nothing, and costs nobody else.
    Nobody starts a server of whose pinned tools they may see none.

    Args:
        house: where the servers are.
        principal: whom it is for.
        asker: the handshake-era client that asks, None for 2026-07-28.
        anew: whether to ask the servers again where they would not tell of a change.

    Raises:
        Refused: there is but one server, and it cannot be asked.
    """
    generation = house.generation
    versions = house.log.store.versions(principal.tenant)
    links: list[Link] = []
    for server in generation.servers.values():
        pinned = server.pinned(principal.tenant, versions)
        if any(_visible(principal, tool, generation.policy) for tool in pinned):
            links.append(link := server.link(principal, asker))
            link.catalog.at(versions)
            if anew and not link.attentive:
                link.catalog.again()
    found: dict[str, orjson.Fragment] = {}
    digests: list[tuple[str, str]] = []
    for link, upstream in zip(links, await _asked(links, generation), strict=True):
        if upstream is None:
            continue
        shown = _shown(link, principal, generation)
        found |= shown.tools
        digests += shown.digests
    return Listing(found, tuple(digests))


def _shown(link: Link, principal: Principal, generation: Generation) -> Listing:
    """What one server shows: worked out once, until its tools, the pins, the policy or the scopes move."""
    key = (generation, principal.role, principal.scopes, link.catalog.edition)
    if link.shown is None or link.shown[0] != key:
        found: dict[str, orjson.Fragment] = {}
        digests: list[tuple[str, str]] = []
        for tool in link.catalog.tools():
            if _visible(principal, tool, generation.policy):
                name = generation.exposed(tool.server, tool.name)
                digests.append((name, tool.sha256))
                found[name] = link.catalog.definition(tool.name, name)
        link.shown = (key, Listing(found, tuple(digests)))
    listed: Listing = link.shown[1]
    return listed


def _shows(
    server: ToolServer, principal: Principal, generation: Generation, versions: Mapping[str, int]
) -> bool:
    """Whether the principal may see any pinned tool of it, or the policy could show anything else of it."""
    pinned = server.pinned(principal.tenant, versions)
    return any(_visible(principal, tool, generation.policy) for tool in pinned) or any(
        generation.may_show(principal, server.about.name, kind) for kind in ("prompt", "resource")
    )


async def _asked(links: list[Link], generation: Generation) -> list[Upstream | None]:
    """Each server with a fresh catalog, all asked at once; None where one does not answer."""
    if generation.only is not None:
        return [await link.fresh() for link in links]
    return await in_time([link.fresh() for link in links], LIST_SECONDS)


async def in_time(asked: Sequence[Coroutine[Any, Any, T]], seconds: float | None) -> list[T | None]:
    """What came in time, in the order asked; None for what did not, or was refused."""
    waits = [asyncio.ensure_future(one) for one in asked]
    try:
        if waits:
            await asyncio.wait(waits, timeout=seconds)
        return [_result(wait) for wait in waits]
    finally:
        for wait in waits:
            wait.cancel()


def _result(wait: asyncio.Future[T]) -> T | None:
    if not wait.done() or wait.cancelled():
        return None
    error = wait.exception()
    if error is None:
        return wait.result()
    if isinstance(error, Refused):
        return None
    raise error


def _visible(principal: Principal, tool: Tool, policy: Policy) -> bool:
    return visible(principal, tool.server, tool.name, tool.declared, policy)

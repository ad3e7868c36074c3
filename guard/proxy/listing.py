"""What a principal sees: by credential and policy only, in a fixed order, over every server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from guard import __version__
from guard.core.errors import Refused
from guard.core.model import Principal, Tool
from guard.policy.decide import visible
from guard.policy.rules import Policy
from guard.proxy.house import Generation, House
from guard.proxy.links import Link
from guard.proxy.upstream import Upstream

OWN_INFO: Final = {"name": "guard-mcp", "version": __version__}
LIST_SECONDS: Final = 10.0
"""How long a list waits for one of several servers."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a principal may see now.

    Attributes:
        tools: the pinned definitions by the client's name for the tool, in order.
        digests: name and pinned digest of each, to see whether anything changed.
        instructions: the servers' instructions as far as they are pinned, None for none.
    """

    tools: Mapping[str, orjson.Fragment]
    digests: tuple[tuple[str, str], ...]
    instructions: str | None


def served_by(house: House) -> Mapping[str, Any]:
    """Who serves: the one server behind; Guard where there are more, or the one is not known yet."""
    only = house.generation.only
    return (only.info if only else None) or OWN_INFO


async def listing(house: House, principal: Principal, *, anew: bool) -> Listing:
    """The tools that are pinned, live and visible.

    Of several servers, one that does not answer in time shows nothing, and costs nobody else.
    Nobody starts a server of whose pinned tools they may see none.

    Args:
        house: where the servers are.
        principal: whom it is for.
        anew: whether to ask the servers again, whatever is known.

    Raises:
        Refused: there is but one server, and it cannot be asked.
    """
    generation = house.generation
    versions = house.log.store.versions(principal.tenant)
    links: list[Link] = []
    for server in generation.servers.values():
        pinned = server.pinned(principal.tenant, versions)
        if any(_visible(principal, tool, generation.policy) for tool in pinned):
            links.append(link := server.link(principal))
            link.catalog.at(versions)
            if anew:
                link.catalog.again()
    found: dict[str, orjson.Fragment] = {}
    digests: list[tuple[str, str]] = []
    texts: list[str] = []
    for link, upstream in zip(links, await _asked(links, generation), strict=True):
        if upstream is None:
            continue
        for tool in link.catalog.tools():
            if _visible(principal, tool, generation.policy):
                name = generation.exposed(tool.server, tool.name)
                digests.append((name, tool.sha256))
                found[name] = link.catalog.definition(tool.name, name)
        if (text := link.catalog.instructions(upstream.instructions)) is not None:
            texts.append(text if generation.only else f"{link.catalog.server}:\n{text}")
    return Listing(found, tuple(digests), "\n\n".join(texts) or None)


async def _asked(links: list[Link], generation: Generation) -> list[Upstream | None]:
    """Each server with a fresh catalog, all asked at once; None where one does not answer."""
    if generation.only is not None:
        return [await link.fresh() for link in links]
    waits = [asyncio.ensure_future(link.fresh()) for link in links]
    try:
        if waits:
            await asyncio.wait(waits, timeout=LIST_SECONDS)
        return [_result(wait) for wait in waits]
    finally:
        for wait in waits:
            wait.cancel()


def _result(wait: asyncio.Future[Upstream]) -> Upstream | None:
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

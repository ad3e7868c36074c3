"""Prompts, resources and templates: what a principal sees of them, and whose a URI is.

They are asked for anew every time and never pinned: no agent is given them unasked. What is shown is
a matter of credential and policy only; what is read goes the way of every call.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from guard.core.errors import Refused
from guard.core.model import Principal
from guard.policy.decide import visible
from guard.policy.globs import fits
from guard.proxy.asker import Asker
from guard.proxy.house import Generation
from guard.proxy.links import ToolServer
from guard.proxy.listing import LIST_SECONDS, in_time
from guard.proxy.replies import Garbage, fragments, read_object, value_of, writable
from guard.proxy.upstream import Upstream

KEEPS_MS: Final = 1000
"""How long a client may keep a list: what is revoked is out of sight by then."""
OWNER_SECONDS: Final = 2.0
"""How long a read waits for a server that runs to say whether it has a URI, where others may have it."""
_EXPRESSION: Final = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True, slots=True)
class Shelf:
    """One kind of list.

    Attributes:
        method: that asks for it.
        member: of the result that holds it, and of an item that names it.
        kind: for the policy, and the capability that a server needs.
    """

    method: str
    member: str
    named: str
    kind: str
    capability: str


PROMPTS: Final = Shelf("prompts/list", "prompts", "name", "prompt", "prompts")
RESOURCES: Final = Shelf("resources/list", "resources", "uri", "resource", "resources")
TEMPLATES: Final = Shelf(
    "resources/templates/list", "resourceTemplates", "uriTemplate", "resource", "resources"
)
SHELVES: Final[Mapping[str, Shelf]] = {one.method: one for one in (PROMPTS, RESOURCES, TEMPLATES)}


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a list: the server's own name of it, and the bytes that it wrote."""

    server: ToolServer
    name: str
    raw: bytes


class Shelves:
    """The lists as one client sees them.

    Args:
        generation: which servers and which policy.
        principal: who asks.
        asker: the handshake-era client, None for 2026-07-28.

    Attributes:
        told: the items of the list that was shown last.
    """

    def __init__(self, generation: Generation, principal: Principal, asker: Asker | None) -> None:
        self._generation = generation
        self._principal = principal
        self._asker = asker
        self.told: list[Item] = []

    async def shown(
        self, shelf: Shelf, meta: Mapping[str, Any] | None = None
    ) -> tuple[list[Any], int] | None:
        """What the principal sees, as JSON to be written; and how long it keeps, in milliseconds.

        None where no server has such things at all.

        Of several servers, one that does not answer in time shows nothing, and costs nobody else.

        Raises:
            Refused: there is but one server, and it cannot be asked.
        """
        found = await self._all(shelf, meta)
        if not found:
            return None
        self.told = [item for items, _ in found for item in items]
        items = [self._exposed(shelf, item) for item in self.told]
        return items, min(KEEPS_MS, *(ttl for _, ttl in found))

    async def owner(self, uri: str) -> ToolServer | None:
        """The server that a URI is asked of: of those where the policy shows it, the first that has it.

        One that does not answer in time has nothing.
        """
        candidates = [
            server for server in self._generation.servers.values() if self._visible(server, uri, "resource")
        ]
        if len(candidates) <= 1:
            return candidates[0] if candidates else None
        for shelf in (RESOURCES, TEMPLATES):
            waits = {server: asyncio.ensure_future(self._has(server, shelf, uri)) for server in candidates}
            try:
                if (found := await self._first(waits)) is not None:
                    return found
            finally:
                for wait in waits.values():
                    wait.cancel()
            candidates = [server for server, wait in waits.items() if wait.done()]
        return None

    async def _first(self, waits: Mapping[ToolServer, asyncio.Task[bool]]) -> ToolServer | None:
        """The first in order that has it. One that is late is waited for only if it is still starting."""
        loop, starting = asyncio.get_running_loop(), [server for server in waits if not self._runs(server)]
        begun = loop.time()
        for seconds, servers in ((OWNER_SECONDS, [*waits]), (LIST_SECONDS, starting)):
            for server in servers:
                await asyncio.wait([waits[server]], timeout=max(0.0, begun + seconds - loop.time()))
                if waits[server].done() and waits[server].result():
                    return server
        return None

    async def _has(self, server: ToolServer, shelf: Shelf, uri: str) -> bool:
        try:
            found = await self._of(server, shelf, None)
        except Refused:
            return False
        return found is not None and any(
            item.name == uri or (shelf is TEMPLATES and fits(_EXPRESSION.sub("*", item.name), uri))
            for item in found[0]
        )

    def _runs(self, server: ToolServer) -> bool:
        return server.link(self._principal, self._asker).up

    async def ready(self, server: ToolServer) -> Upstream:
        """The server as this client speaks to it. Raises Refused."""
        return await server.link(self._principal, self._asker).ready()

    def _visible(self, server: ToolServer, name: str, kind: str) -> bool:
        policy = self._generation.policy
        return visible(self._principal, server.about.name, name, frozenset(), policy, kind=kind)

    def may_show(self, server: ToolServer, kind: str) -> bool:
        """Whether the policy could show anything of the kind; else the server is not asked."""
        return self._generation.may_show(self._principal, server.about.name, kind)

    async def _all(self, shelf: Shelf, meta: Mapping[str, Any] | None) -> list[tuple[list[Item], int]]:
        """What each server that has such things shows, and how long it keeps."""
        servers = self._generation.servers.values()
        asked = [server for server in servers if self.may_show(server, shelf.kind)]
        found: Sequence[tuple[list[Item], int] | None]
        if self._generation.only is not None:
            found = [await self._of(server, shelf, meta) for server in asked]
        else:
            found = await in_time([self._of(server, shelf, meta) for server in asked], LIST_SECONDS)
        return [answer for answer in found if answer is not None]

    async def _of(
        self, server: ToolServer, shelf: Shelf, meta: Mapping[str, Any] | None
    ) -> tuple[list[Item], int] | None:
        upstream = await self.ready(server)
        if not upstream.can(shelf.capability):
            return None
        raws, ttl = await upstream.list_all(shelf.method, shelf.member, meta)
        items = []
        for raw in raws:
            name = _name(raw, shelf.named)
            if name is not None and self._visible(server, name, shelf.kind):
                items.append(Item(server, name, raw))
        return items, ttl

    def _exposed(self, shelf: Shelf, item: Item) -> Any:
        shown = item.name
        if shelf is PROMPTS:
            shown = self._generation.exposed(item.server.about.name, item.name)
        if shown == item.name:
            return orjson.Fragment(item.raw)
        return {**fragments(item.raw), shelf.named: shown}


def _name(raw: bytes, member: str) -> str | None:
    try:
        found = value_of(read_object(raw).get(member, b"null"))
        found = writable(found) if isinstance(found, str) else None
    except Garbage:
        return None
    return found if isinstance(found, str) and found else None

"""Which tools there are: what an operator accepted, beside what the server shows now.

An agent only ever sees pinned definitions. A tool whose live definition is not the pinned one is
not shown in its new form and cannot be called until an operator pins it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from guard.core.canonical import NotIJson, canonical, sha256, write
from guard.core.errors import Reason, Refused
from guard.core.model import SCOPES_META, Pin, Tool
from guard.lineage.store import PinRow, pins_version
from guard.proxy.replies import read_object

INSTRUCTIONS: Final = ""
"""The pin under the empty name is the server's `instructions`: they reach the model as well."""
UNPINNABLE: Final = ""
MAX_REFRESHES: Final = 3


@dataclass(frozen=True, slots=True)
class Listed:
    """A live definition: its digest, UNPINNABLE if it has none or stands twice."""

    name: str
    sha256: str
    definition: Mapping[str, Any]


def listed(tools: Iterable[Mapping[str, Any]]) -> dict[str, Listed]:
    """Live definitions by name, in the server's order. A name that stands twice is nobody's."""
    found: dict[str, Listed] = {}
    for tool in tools:
        name = tool.get("name")
        if not isinstance(name, str) or not name:
            continue
        digest = UNPINNABLE if name in found else _digest(tool)
        found[name] = Listed(name, digest, tool)
    return found


def _digest(definition: Any) -> str:
    try:
        return sha256(canonical(definition))
    except NotIJson:
        return UNPINNABLE


def rows(tools: Iterable[Listed], instructions: str | None) -> tuple[tuple[str, str, bytes], ...]:
    """What to pin: name, digest, JSON in the server's own key order. Unpinnable definitions are left out."""
    pins = [(tool.name, tool.sha256, write(tool.definition)) for tool in tools if tool.sha256]
    if instructions is not None and (digest := _digest(instructions)):
        pins.append((INSTRUCTIONS, digest, write(instructions)))
    return tuple(pins)


async def no_tools() -> list[dict[str, Any]]:
    """What is live where no server is asked."""
    return []


class Catalog:
    """The tools of one server.

    Args:
        server: the operator's id of the server.
        read_pins: reads the server's pins from the store.
        list_tools: asks the server for its tools; none where only the pins matter.
    """

    def __init__(
        self,
        server: str,
        *,
        read_pins: Callable[[], list[PinRow]],
        list_tools: Callable[[], Awaitable[list[dict[str, Any]]]] = no_tools,
    ) -> None:
        self.server = server
        self._read_pins = read_pins
        self._list_tools = list_tools
        self._pins: dict[str, PinRow] = {}
        self._declared: dict[str, frozenset[str]] = {}
        self._renamed: dict[str, bytes] = {}
        self._mirroring: dict[str, Any] = {}
        self._pinned: list[Tool] = []
        self._pinned_at = -1
        self._live: dict[str, Listed] = {}
        self._wanted, self._told, self._seen = 1, 1, 0
        self._refreshing = asyncio.Lock()

    def forget(self) -> None:
        """The server says that its tools changed: ask again before the next call is bound."""
        self._wanted += 1
        self._told = self._wanted

    def again(self) -> None:
        """Somebody wants to know anew: whoever does not, need not wait for that."""
        self._wanted += 1

    async def fresh(self) -> None:
        """Ask the server for its tools, if what is known is stale.

        Whoever comes while the server is being asked waits: the old answer is not good any more.

        Raises:
            Refused: as `list_tools`; or the tools change faster than they can be listed.
        """
        wanted = self._wanted
        for _ in range(MAX_REFRESHES):
            if self._seen >= max(wanted, self._told):
                return
            async with self._refreshing:
                if self._seen < max(wanted, self._told):
                    asked = self._wanted
                    self._live = listed(await self._list_tools())
                    self._seen = asked
        if self._seen < max(wanted, self._told):
            raise Refused(Reason.UPSTREAM_UNAVAILABLE, "the tool server's tools do not stand still")

    def at(self, versions: Mapping[str, int]) -> None:
        """Read the pins again if the store's version of them moved."""
        version = versions.get(pins_version(self.server), 0)
        if version != self._pinned_at:
            self._pins = {pin.name: pin for pin in self._read_pins()}
            self._declared = {name: _declared(pin) for name, pin in self._pins.items()}
            self._renamed, self._mirroring = {}, {}
            self._pinned = [
                Tool(self.server, name, pin.sha256, declared=self._declared[name])
                for name, pin in self._pins.items()
                if name != INSTRUCTIONS
            ]
            self._pinned_at = version

    def tool(self, name: str) -> Tool:
        """Bind a name to its pinned definition."""
        pin, live = self._pins.get(name), self._live.get(name)
        if live is None or name == INSTRUCTIONS:
            return Tool(self.server, name)
        if pin is None:
            return Tool(self.server, name, live.sha256, Pin.UNPINNED)
        how = Pin.MATCHES if live.sha256 == pin.sha256 else Pin.CHANGED
        return Tool(self.server, name, pin.sha256, how, self._declared[name])

    def tools(self) -> list[Tool]:
        """Every tool that is both pinned and live, in the order of the pins."""
        return [self.tool(name) for name in self._pins if name in self._live]

    def unpinned(self) -> list[Tool]:
        """Every live tool that cannot be called for want of a pin, or because it changed."""
        return [tool for name in self._live if (tool := self.tool(name)).pin is not Pin.MATCHES]

    def pinned(self) -> list[Tool]:
        """Every pinned tool, whether or not it is live."""
        return self._pinned

    @property
    def edition(self) -> tuple[int, int]:
        """What `tools` and `definition` follow from: it moves when they may have."""
        return self._pinned_at, self._seen

    def definition(self, name: str, shown: str = "") -> orjson.Fragment:
        """The pinned definition, as bytes to be shown; under another name where one is given."""
        data = self._pins[name].definition
        if shown in {"", name}:
            return orjson.Fragment(data)
        if (renamed := self._renamed.get(shown)) is None:
            members = {member: orjson.Fragment(bytes(raw)) for member, raw in read_object(data).items()}
            renamed = self._renamed[shown] = orjson.dumps({**members, "name": shown})
        return orjson.Fragment(renamed)

    def mirroring(self, name: str) -> Any:
        """The pinned `inputSchema` if arguments are mirrored in header fields, else None."""
        if name not in self._mirroring:
            pin, value = self._pins.get(name), None
            if pin is not None and b"x-mcp-header" in pin.definition:
                value = orjson.loads(pin.definition)
            self._mirroring[name] = value.get("inputSchema") if isinstance(value, dict) else None
        return self._mirroring[name]

    def definitions(self) -> dict[tuple[str, str], Any]:
        """Every pinned definition by (server, name), read."""
        return {
            (self.server, name): orjson.loads(pin.definition)
            for name, pin in self._pins.items()
            if name != INSTRUCTIONS
        }

    def instructions(self, live: str | None) -> str | None:
        """The server's instructions, if they are the ones that were pinned."""
        pin = self._pins.get(INSTRUCTIONS)
        return live if live is not None and pin is not None and _digest(live) == pin.sha256 else None


def _declared(pin: PinRow) -> frozenset[str]:
    """The scopes that the tool's author declared; an unreadable declaration is one that nobody holds."""
    value = orjson.loads(pin.definition)
    meta = value.get("_meta") if isinstance(value, dict) else None
    scopes = meta.get(SCOPES_META, []) if isinstance(meta, dict) else []
    if isinstance(scopes, list) and all(isinstance(scope, str) for scope in scopes):
        return frozenset(scopes)
    return frozenset({"(unreadable)"})

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


class Catalog:
    """The tools of one server.

    Args:
        server: the operator's id of the server.
        read_pins: reads the server's pins from the store.
        list_tools: asks the server for its tools.
    """

    def __init__(
        self,
        server: str,
        *,
        read_pins: Callable[[], list[PinRow]],
        list_tools: Callable[[], Awaitable[list[dict[str, Any]]]],
    ) -> None:
        self.server = server
        self._read_pins = read_pins
        self._list_tools = list_tools
        self._pins: dict[str, PinRow] = {}
        self._declared: dict[str, frozenset[str]] = {}
        self._pinned_at = -1
        self._live: dict[str, Listed] = {}
        self._wanted, self._seen = 1, 0
        self._refreshing = asyncio.Lock()

    def forget(self) -> None:
        """The server says that its tools changed: ask again before the next call is bound."""
        self._wanted += 1

    async def fresh(self) -> None:
        """Ask the server for its tools, if what is known is stale.

        Whoever comes while the server is being asked waits: the old answer is not good any more.

        Raises:
            Refused: as `list_tools`; or the tools change faster than they can be listed.
        """
        for _ in range(MAX_REFRESHES):
            if self._seen == self._wanted:
                return
            async with self._refreshing:
                if self._seen != self._wanted:
                    asked = self._wanted
                    self._live = listed(await self._list_tools())
                    self._seen = asked
        if self._seen != self._wanted:
            raise Refused(Reason.UPSTREAM_UNAVAILABLE, "the tool server's tools do not stand still")

    def at(self, versions: Mapping[str, int]) -> None:
        """Read the pins again if the store's version of them moved."""
        version = versions.get(pins_version(self.server), 0)
        if version != self._pinned_at:
            self._pins = {pin.name: pin for pin in self._read_pins()}
            self._declared = {name: _declared(pin) for name, pin in self._pins.items()}
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

    def definition(self, name: str) -> orjson.Fragment:
        """The pinned definition, as bytes to be shown."""
        return orjson.Fragment(self._pins[name].definition)

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

"""The client on whose behalf a tool server is spoken to, and what of it the server gets to know."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol

from guard.core.model import OWN_META_PREFIX
from guard.proxy import eras, wire
from guard.proxy.endings import Flight, Tells

EXTENSION: Final = "dev.guard-mcp/authorization"
TASKS: Final = "io.modelcontextprotocol/tasks"
"""An extension with methods of its own: it is negotiated only where the operator lets them through."""
TASK_METHODS: Final = frozenset({"tasks/get", "tasks/cancel"})
ASKED: Final[Mapping[str, str]] = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
"""What a server may ask of a handshake-era client, and the capability that the client needs for it."""
SAID: Final = frozenset(
    {
        "notifications/message",
        "notifications/resources/updated",
        "notifications/resources/list_changed",
        "notifications/prompts/list_changed",
        "notifications/elicitation/complete",
    }
)
"""What a server may tell a client, beside progress and changed tools."""
EVERYTHING: Final[Mapping[str, Any]] = {
    **{name: {} for name in ASKED.values()},
    "extensions": {EXTENSION: {}},
}
"""The capabilities of a client that can do whatever Guard passes on."""
_NOTHING: Final[Mapping[str, Any]] = {"extensions": {EXTENSION: {}}}


class Asker(Protocol):
    """A handshake-era client, for as long as its session lasts.

    Attributes:
        version: the revision that it agreed on with Guard.
        client: its `clientInfo`.
        capabilities: as it declared them.
        telling: tells it what servers say, once that is remembered.
    """

    version: str
    client: Mapping[str, Any]
    capabilities: Mapping[str, Any]
    telling: Tells

    def told(self, method: str, params: bytes, flight: Flight | None) -> None:
        """A server tells it something. `flight` is the request that it belongs to, None where unknown."""
        ...

    def asked(self, method: str, params: bytes, answer: Answer, tell: Tell, flight: Flight | None) -> None:
        """A server asks it something; `answer` is called at most once, `tell` with its progress."""
        ...


Answer = Callable[[Any, bool], None]
"""Takes the client's result, or its error object and True."""
Tell = Callable[[str, Mapping[str, Any]], None]
"""Takes a notification for the server, method and params."""


def abilities(declared: Any, methods: frozenset[str] = frozenset()) -> Mapping[str, Any]:
    """The client's capabilities as a server gets them: what Guard passes on, and Guard's own extension.

    Args:
        declared: what the client declared.
        methods: what the operator lets through to that server beside the methods of MCP.
    """
    if not isinstance(declared, dict) or not declared:
        return _NOTHING
    found = {name: declared[name] for name in ASKED.values() if isinstance(declared.get(name), dict)}
    return {**found, "extensions": {**extensions(declared, methods), EXTENSION: {}}}


def extensions(declared: Mapping[str, Any], methods: frozenset[str]) -> dict[str, Any]:
    """The extensions among capabilities that may be negotiated end to end."""
    found = declared.get("extensions")
    return {
        name: value
        for name, value in (found.items() if isinstance(found, dict) else ())
        if not name.startswith(OWN_META_PREFIX) and (name != TASKS or methods >= TASK_METHODS)
    }


def passed(
    meta: Mapping[str, Any],
    *,
    version: str,
    theirs: Mapping[str, Any],
    methods: frozenset[str] = frozenset(),
    keys: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """What of a client's `_meta` goes on to a server: trace context, what was agreed on, configured keys.

    Args:
        meta: the client's.
        version: the revision that the server speaks.
        theirs: the extensions that the server has.
        methods: what the operator lets through to it.
        keys: the further keys of `_meta` that the operator lets through to it.
    """
    own = {name: meta[name] for name in wire.TRACE_KEYS if isinstance(meta.get(name), str)}
    if keys:
        own |= {name: meta[name] for name in keys & meta.keys()}
    declared = meta.get(eras.CLIENT_CAPABILITIES)
    if theirs and isinstance(declared, dict):
        agreed = extensions(declared, methods).keys() & theirs.keys()
        own |= {name: value for name, value in meta.items() if _of(name, agreed)}
    if version in eras.MODERN:
        own[eras.PROTOCOL_VERSION] = version
        own[eras.CLIENT_CAPABILITIES] = abilities(declared, methods)
        if isinstance(info := meta.get(eras.CLIENT_INFO), dict):
            own[eras.CLIENT_INFO] = info
        if isinstance(level := meta.get(eras.LOG_LEVEL), str):
            own[eras.LOG_LEVEL] = level
    return own


def _of(name: str, agreed: Collection[str]) -> bool:
    """Whether a key of `_meta` is one of these extensions', and none of Guard's."""
    return not name.startswith(OWN_META_PREFIX) and any(
        name == extension or name.startswith(f"{extension}/") for extension in agreed
    )

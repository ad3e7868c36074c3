"""The methods of MCP that neither read nor act: lists, completions, subscriptions, log levels.

They are governed by what the caller may see, and get no artifact: a list is filtered, and what is out
of sight is answered as what does not exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from guard.core.errors import Reason, Refused, printable
from guard.policy.decide import visible
from guard.proxy import wire
from guard.proxy.asker import Asker
from guard.proxy.endings import Ending, Failed, Returned
from guard.proxy.links import ToolServer
from guard.proxy.listing import behind, served_by
from guard.proxy.replies import Garbage, completed, read_object, value_of
from guard.proxy.shelves import SHELVES, Shelves
from guard.proxy.telling import Shown, shown
from guard.proxy.upstream import Upstream
from guard.proxy.warden import NOBODY as NOBODIES
from guard.proxy.wire import Malformed, Request
from guard.proxy.world import Gate

NOBODY: Final[Mapping[str, Any]] = {"name": "unknown", "version": "0"}
"""`clientInfo` of a client that gave none."""
OLD_ONLY: Final = frozenset({"resources/subscribe", "resources/unsubscribe", "logging/setLevel"})
UPDATED: Final = "notifications/resources/updated"
_ABOUT: Final[Mapping[str, str]] = {
    UPDATED: "resource",
    "notifications/resources/list_changed": "resource",
    "notifications/prompts/list_changed": "prompt",
}
"""Of which kind the things are that a notification is about."""
_NOT_FOUND: Final = -32002
"""A resource that is not there, before 2026-07-28 (2025-11-25, Resources, "Error Handling")."""
_COMPLETION: Final = frozenset({"ref", "argument", "context"})


def one_page(message: Request) -> None:
    """A list has one page. Raises Malformed: the params ask for another."""
    if unknown := message.params.keys() - {"cursor"}:
        name = printable(min(unknown))[: wire.MAX_NAME]
        raise Malformed(wire.INVALID_PARAMS, f"params.{name} is not part of {message.method}", message.id)
    if message.params.get("cursor") is not None:
        raise Malformed(wire.INVALID_PARAMS, "the list has one page: no such cursor", message.id)


def may_hear(gate: Gate, method: str, params: bytes) -> bool:
    """Whether the client may see what a notification is about: asked anew each time."""
    if method not in _ABOUT:
        return True
    generation, kind = gate.house.generation, _ABOUT[method]
    try:
        principal = gate.identify()
        uri = value_of(read_object(params).get("uri", b"null")) if method == UPDATED else None
    except (Refused, Garbage):
        return False
    if method != UPDATED:
        return any(generation.may_show(principal, name, kind) for name in generation.servers)
    return isinstance(uri, str) and any(
        visible(principal, name, uri, frozenset(), generation.policy, kind="resource")
        for name in generation.servers
    )


def review(gate: Gate, asker: Asker) -> None:
    """Let go of a handshake-era client's subscriptions to what is out of sight; take up the others again."""
    generation, principal = gate.house.generation, gate.identify()
    for name, server in generation.servers.items():

        def sees(uri: str, name: str = name) -> bool:
            return visible(principal, name, uri, frozenset(), generation.policy, kind="resource")

        server.review(asker, sees)


def admit(gate: Gate, message: Request) -> None:
    """What lasts begins only where the client may have it now. Raises Malformed, or Refused for nobody."""
    try:
        gate.house.warden.admit(gate)
    except Refused as refusal:
        if refusal.reason in NOBODIES:
            raise
        data = {"reason": refusal.reason}
        raise Malformed(wire.DENIED, "this is not permitted now", message.id, data) from None


async def _list(gate: Gate, message: Request) -> bytes:
    shelf = SHELVES[message.method]
    shelves = _shelves(gate)
    found = await shelves.shown(shelf, message.meta if message.modern else None)
    if found is None:
        raise Malformed(wire.METHOD_NOT_FOUND, f"no tool server has {shelf.capability}", message.id)
    one_page(message)
    told = (Shown(item.server.about.name, item.name, shelf.kind, item.raw) for item in shelves.told)
    await shown(gate, told, pinned=False)
    items, ttl = found
    caching = {"ttlMs": ttl, "cacheScope": "private"} if message.modern else {}
    value = {shelf.member: items, **caching}
    return wire.result(message.id, wire.stamped(value, served_by(gate.house), modern=message.modern))


async def _complete(gate: Gate, message: Request) -> bytes:
    """Completions for a prompt or a resource template that the caller may see."""
    ref = message.params.get("ref")
    if not isinstance(ref, dict) or (unknown := message.params.keys() - _COMPLETION):
        what = (
            "ref is not an object"
            if not isinstance(ref, dict)
            else f"params.{printable(min(unknown))} is unknown"
        )
        raise Malformed(wire.INVALID_PARAMS, what, message.id)
    kinds = {"ref/prompt": ("name", "prompt"), "ref/resource": ("uri", "resource")}
    member, kind = kinds.get(str(ref.get("type")), ("", ""))
    name = ref.get(member)
    if not member or not isinstance(name, str) or ref.keys() - {"type", member, "title"}:
        what = "ref names neither a prompt (ref/prompt, name) nor a resource (ref/resource, uri), and no more"
        raise Malformed(wire.INVALID_PARAMS, what, message.id)
    admit(gate, message)  # what is typed goes to the server
    server, own = await _found(gate, message, kind, name)
    upstream = await _shelves(gate).ready(server)
    params = {**message.params, "ref": {**ref, member: own}}
    ending = await upstream.ask(message.method, params, message.meta, message.flight)
    return await _told(gate, message, ending, upstream, (own, kind))


async def _subscribe(gate: Gate, message: Request) -> bytes:
    """Before 2026-07-28: hear of a resource that the caller may see, or no more."""
    uri = message.params.get("uri")
    if not isinstance(uri, str) or message.params.keys() != {"uri"}:
        raise Malformed(wire.INVALID_PARAMS, "params has `uri`, a string, and no more", message.id)
    admit(gate, message)
    server, _ = await _found(gate, message, "resource", uri)
    upstream = await _shelves(gate).ready(server)
    ending = await upstream.ask(message.method, message.params, message.meta, message.flight)
    if _done(ending) and not upstream.modern:
        server.remember(gate.asker, message.method, message.params)
    return await _told(gate, message, ending, upstream, (uri, "resource"))


async def _set_level(gate: Gate, message: Request) -> bytes:
    """Before 2026-07-28: what every server logs to this client, of which it may see anything."""
    admit(gate, message)
    found = await behind(gate.house, gate.identify(), gate.asker)
    upstreams = [one for one in found.upstreams if one.can("logging") and not one.modern]
    if not upstreams:
        raise Malformed(wire.METHOD_NOT_FOUND, "no tool server logs to its client", message.id)
    # Each has a flight of its own: one flight has one ending.
    endings = await asyncio.gather(
        *(one.ask(message.method, message.params, message.meta) for one in upstreams)
    )
    if any(map(_done, endings)):
        for server in gate.house.generation.servers.values():
            server.remember(gate.asker, message.method, message.params)
    refused = (pair for pair in zip(endings, upstreams, strict=True) if not _done(pair[0]))
    return await _told(gate, message, *next(refused, (endings[0], upstreams[0])))


def _done(ending: Ending) -> bool:
    return isinstance(ending, Returned) and not ending.is_error


def _shelves(gate: Gate) -> Shelves:
    return Shelves(gate.house.generation, gate.identify(), gate.asker)


async def _found(gate: Gate, message: Request, kind: str, name: str) -> tuple[ToolServer, str]:
    """The server of a prompt or resource that the caller may see, and the server's own name for it."""
    generation, principal = gate.house.generation, gate.identify()
    if kind == "resource":
        owner = await _shelves(gate).owner(name)
        found = None if owner is None else (owner, name)
    else:
        found = generation.find(name)
    if found is None or not visible(
        principal, found[0].about.name, found[1], frozenset(), generation.policy, kind=kind
    ):
        code = _NOT_FOUND if kind == "resource" and not message.modern else wire.INVALID_PARAMS
        reason = Reason.UNKNOWN_RESOURCE if kind == "resource" else Reason.UNKNOWN_PROMPT
        raise Malformed(code, f"there is no such {kind}", message.id, {"reason": reason})
    return found


async def _told(
    gate: Gate, message: Request, ending: Ending, upstream: Upstream, about: tuple[str, str] = ("", "server")
) -> bytes:
    """A server's answer as it is, a result or an error, remembered first. `about`: name and kind."""
    if isinstance(ending, Returned):
        await shown(gate, [Shown(upstream.name, *about, ending.raw)], pinned=False)
    match ending:
        case Returned(raw, is_error=True):
            return wire.error_of(message.id, raw)
        case Returned(raw):
            try:
                told = completed(raw) if message.modern and not upstream.modern else raw
            except Garbage:
                raise Refused(Reason.UNEXPECTED) from None
            return wire.result(message.id, orjson.Fragment(told))
        case Failed(reason):
            raise Refused(reason)
        case unknown:
            raise Refused(unknown.reason)


METHODS: Final[Mapping[str, Callable[[Gate, Request], Awaitable[bytes]]]] = {
    "completion/complete": _complete,
    "logging/setLevel": _set_level,
    "resources/subscribe": _subscribe,
    "resources/unsubscribe": _subscribe,
    **dict.fromkeys(SHELVES, _list),
}
"""What answers them, by method."""

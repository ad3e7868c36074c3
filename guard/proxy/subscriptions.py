"""What one client hears of without asking: changed tools, prompts and resources.

Changed tools are Guard's own to tell: what a client may see changes with pins, policy and credential.
The rest is the servers', passed on as far as the client may see what it is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from guard.core.errors import Reason, Refused
from guard.policy.decide import visible
from guard.proxy import eras, wire
from guard.proxy.endings import Flight, Returned, Unknown
from guard.proxy.features import admit
from guard.proxy.hearing import ACKNOWLEDGED
from guard.proxy.lines import MAX_MESSAGE
from guard.proxy.links import ToolServer
from guard.proxy.listing import listing
from guard.proxy.replies import Garbage, fragments, read_object, value_of
from guard.proxy.shelves import Shelves
from guard.proxy.telling import Telling
from guard.proxy.upstream import LISTEN_AGAIN_SECONDS, LISTEN_SECONDS
from guard.proxy.wire import Malformed, Request
from guard.proxy.world import Gate

TOOLS_CHANGED: Final = "notifications/tools/list_changed"
UPDATED: Final = "notifications/resources/updated"
ACKNOWLEDGE_SECONDS: Final = 10.0
"""How long a client waits for the servers to agree to what it wants to hear."""
MAX_URIS: Final = 1000
_CHANGED: Final[Mapping[str, tuple[str, str, str]]] = {
    "promptsListChanged": ("notifications/prompts/list_changed", "prompts", "prompt"),
    "resourcesListChanged": ("notifications/resources/list_changed", "resources", "resource"),
}
"""What a client may want to hear of: the notification, the capability, the kind."""
_GRACEFULLY: Final = Returned(b"{}")


class Subscriptions:
    """The subscriptions of one client.

    Args:
        gate: the world of its calls.
        notify: sends it what belongs to no subscription, in the handshake era.
    """

    def __init__(self, gate: Gate, notify: Callable[[bytes], object]) -> None:
        self._gate = gate
        self._notify = notify
        self._shown: tuple[tuple[str, str], ...] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = self._ended = False
        self._open: list[Request] = []
        self._relays: set[_Relay] = set()
        self._tools: dict[wire.Id, Request] = {}

    def showed(self, digests: tuple[tuple[str, str], ...]) -> None:
        """The client was shown these tools."""
        self._shown = digests

    # -- 2026-07-28 ------------------------------------------------------------------------------

    async def listen(self, message: Request) -> bytes | None:
        """One subscription, until the client or Guard ends it (2026-07-28, Subscriptions).

        Raises:
            Malformed: it is not understood.
        """
        wanted, tell = message.params.get("notifications"), message.flight.tell
        if not isinstance(wanted, dict) or message.params.keys() - {"notifications"}:
            raise Malformed(
                wire.INVALID_PARAMS, "params has `notifications`, an object, and no more", message.id
            )
        if tell is None:
            raise Malformed(wire.INVALID_REQUEST, "a subscription needs a stream to answer on", message.id)
        admit(self._gate, message)
        self._shown = await self._visible()
        about = {"_meta": {eras.SUBSCRIPTION: message.id}}
        relay = _Relay(self._gate, message, about["_meta"])
        honoured = {"toolsListChanged": True} if wanted.get("toolsListChanged") is True else {}
        try:
            honoured |= await relay.open(wanted)
            tell(wire.notification(ACKNOWLEDGED, {**about, "notifications": honoured}))
            relay.begin()
            message.flight.ending = asyncio.get_running_loop().create_future()
            if message.flight.cancelled or self._ended:
                message.flight.end(_GRACEFULLY)
            self._open.append(message)
            self._relays.add(relay)
            relay.follow()  # a reload may have come before anybody was told of it
            if "toolsListChanged" in honoured:
                self._tools[message.id] = message
            self._gate.house.watch(self)
            await message.flight.ending
        finally:
            relay.close()
            self._relays.discard(relay)
            if message in self._open:
                self._open.remove(message)
            self._tools.pop(message.id, None)
        return wire.result(message.id, {"resultType": "complete", **about})

    def finish(self) -> None:
        """Let them end gracefully: each is answered."""
        self._ended = True
        for message in self._open:
            message.flight.end(_GRACEFULLY)

    def review(self) -> None:
        """What the client sees may have changed."""
        for relay in self._relays:
            relay.follow()

    def close(self) -> None:
        """Nobody is told any more."""
        self._gate.house.unwatch(self)
        for task in self._tasks:
            task.cancel()

    # -- changed tools ---------------------------------------------------------------------------

    def tools_changed(self) -> None:
        """They may have: tell the client, if what it may see did."""
        self.review()
        if self._shown is not None and (self._tools or self._gate.asker is not None):
            self._changed = True
            if all(task.done() for task in self._tasks):
                task = asyncio.ensure_future(self._tell_of_change())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _tell_of_change(self) -> None:
        """However often a server says so, one look at a time; and one more where it said so meanwhile."""
        while self._changed:
            self._changed = False
            await self._tell_if_changed()

    async def _tell_if_changed(self) -> None:
        try:
            found = await self._visible()
        except Refused:
            return
        if self._shown == found:  # another link of the same server may have told it first
            return
        self._shown = found
        if self._gate.asker is not None:
            self._notify(wire.notification(TOOLS_CHANGED, {}))
        for message in self._tools.values():
            if message.flight.tell is not None:
                about = {"_meta": {eras.SUBSCRIPTION: message.id}}
                message.flight.tell(wire.notification(TOOLS_CHANGED, about))

    async def _visible(self) -> tuple[tuple[str, str], ...]:
        found = await listing(self._gate.house, self._gate.identify(), self._gate.asker, anew=False)
        return found.digests


class _Relay:
    """What the servers tell of prompts and resources, for one subscription."""

    def __init__(self, gate: Gate, message: Request, meta: Mapping[str, Any]) -> None:
        self._gate = gate
        self._message = message
        self._meta = meta
        self._held: list[bytes] | None = []  # what comes before the acknowledgment
        self._flights: list[tuple[ToolServer, dict[str, Any], Flight]] = []
        self._wishes: dict[str, dict[str, Any]] = {}  # of each server, by its name
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._honoured: dict[str, Any] = {}
        self._moved: set[ToolServer] = set()

    async def open(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Subscribe at the servers. Returns what they agreed to. Raises Malformed."""
        uris = wanted.get("resourceSubscriptions", [])
        if (
            not isinstance(uris, list)
            or not all(isinstance(uri, str) for uri in uris)
            or len(uris) > MAX_URIS
        ):
            what = f"resourceSubscriptions is not a list of at most {MAX_URIS} URIs"
            raise Malformed(wire.INVALID_PARAMS, what, self._message.id)
        kinds = {name for name in _CHANGED if wanted.get(name) is True}
        if not kinds and not uris:
            return {}
        house = self._gate.house
        shelves = Shelves(house.generation, self._gate.identify(), None)
        owners = [(uri, await shelves.owner(uri)) for uri in dict.fromkeys(uris)]
        acks: list[asyncio.Future[None]] = []
        for server in house.generation.servers.values():
            filters: dict[str, Any] = {
                name: True for name in kinds if shelves.may_show(server, _CHANGED[name][2])
            }
            if own := [uri for uri, owner in owners if owner is server]:
                filters["resourceSubscriptions"] = own
            if filters:
                self._wishes[server.about.name] = filters
                acks.append(ack := asyncio.get_running_loop().create_future())
                self._tasks.append(asyncio.ensure_future(self._listen(server, ack)))
        if acks:
            await asyncio.wait(acks, timeout=ACKNOWLEDGE_SECONDS)
        return self._honoured

    def begin(self) -> None:
        """The client was told what it will hear: it hears what came meanwhile."""
        held, self._held = self._held, None
        for line in held or ():
            self._tell(line)

    def follow(self) -> None:
        """Let go of a server that is none any more, or that tells what is out of sight; ask it anew."""
        self._news.set()
        servers = self._gate.house.generation.servers.values()
        for server, asked, flight in [*self._flights]:
            if server not in servers or asked != self._in_sight(server):
                self._moved.add(server)
                flight.end(Unknown(Reason.CANCELLED))

    def close(self) -> None:
        """End it at the servers."""
        for *_, flight in self._flights:
            flight.cancel()
        for task in self._tasks:
            asyncio.get_running_loop().call_soon(task.cancel)  # a flight that was called off says so first

    def _in_sight(self, server: ToolServer) -> dict[str, Any]:
        """What of the client's wishes to a server it may see now."""
        wishes, name = self._wishes[server.about.name], server.about.name
        generation = self._gate.house.generation
        try:
            principal = self._gate.identify()
        except Refused:
            return {}
        found: dict[str, Any] = {
            wish: True
            for wish, (_, _, kind) in _CHANGED.items()
            if wish in wishes and generation.may_show(principal, name, kind)
        }
        seen = [
            uri
            for uri in wishes.get("resourceSubscriptions", ())
            if visible(principal, name, uri, frozenset(), generation.policy, kind="resource")
        ]
        return {**found, "resourceSubscriptions": seen} if seen else found

    async def _listen(self, server: ToolServer, ack: asyncio.Future[None]) -> None:
        """Listen at one server, again where that ends, as long as there is one of that name."""
        pause, again = LISTEN_AGAIN_SECONDS, False
        try:
            while found := self._gate.house.generation.servers.get(server.about.name):
                server = found
                if not (asked := self._in_sight(server)):
                    self._news.clear()
                    await self._news.wait()
                    continue
                try:
                    if not await self._once(server, asked, ack, again=again):
                        return
                except Refused:
                    if not again:
                        return
                again = True
                if server in self._moved:
                    self._moved.discard(server)
                    pause = LISTEN_AGAIN_SECONDS
                    continue
                await asyncio.sleep(pause)
                pause = min(2 * pause, LISTEN_SECONDS)
        finally:
            _settle(ack)

    async def _once(
        self, server: ToolServer, wanted: dict[str, Any], ack: asyncio.Future[None], *, again: bool
    ) -> bool:
        """Whether it is worth another try."""
        upstream = await server.link(self._gate.identify(), None).ready()
        if not upstream.modern:
            return False
        flight = Flight(telling=Telling(self._gate))

        def hear(method: str, params: bytes) -> None:
            if method == ACKNOWLEDGED:
                self._acknowledged(server, params, wanted, again=again)
                _settle(ack)
            elif self._concerns(server, method, params, wanted):
                self._tell(wire.notification(method, {**fragments(params), "_meta": self._meta}))

        flight.on_note = hear
        self._flights.append(mine := (server, wanted, flight))
        try:
            ending = await upstream.ask(
                "subscriptions/listen", {"notifications": wanted}, flight=flight, seconds=LISTEN_SECONDS
            )
        finally:
            self._flights.remove(mine)
        return not flight.cancelled and not (isinstance(ending, Returned) and ending.is_error)

    def _acknowledged(
        self, server: ToolServer, params: bytes, wanted: Mapping[str, Any], *, again: bool
    ) -> None:
        found = value_of(read_object(params).get("notifications", b"{}"))
        agreed = found if isinstance(found, dict) else {}
        for name in _CHANGED:
            if name in wanted and agreed.get(name) is True:
                self._honoured[name] = True
                method = _CHANGED[name][0]  # which may have come while nobody listened
                if again and self._concerns(server, method, b"{}", wanted):
                    self._tell(wire.notification(method, {"_meta": self._meta}))
        uris = agreed.get("resourceSubscriptions")
        own = [
            uri for uri in wanted.get("resourceSubscriptions", ()) if isinstance(uris, list) and uri in uris
        ]
        if own and not again:
            self._honoured["resourceSubscriptions"] = [*self._honoured.get("resourceSubscriptions", ()), *own]

    def _concerns(self, server: ToolServer, method: str, params: bytes, wanted: Mapping[str, Any]) -> bool:
        """Whether the client asked for it, and may still see what it is about: asked anew each time."""
        try:
            principal = self._gate.identify()
            uri = value_of(read_object(params).get("uri", b"null")) if method == UPDATED else None
        except (Refused, Garbage):
            return False
        if method == UPDATED:
            policy, name = self._gate.house.generation.policy, server.about.name
            return uri in wanted.get("resourceSubscriptions", ()) and visible(
                principal, name, str(uri), frozenset(), policy, kind="resource"
            )
        generation = self._gate.house.generation
        return any(
            method == note and generation.may_show(principal, server.about.name, kind)
            for note, _, kind in (_CHANGED[name] for name in wanted.keys() & _CHANGED.keys())
        )

    def _tell(self, line: bytes) -> None:
        if self._held is not None:
            if len(self._held) < MAX_URIS and sum(map(len, self._held)) < MAX_MESSAGE:
                self._held.append(line)
        elif self._message.flight.tell is not None and not self._message.flight.cancelled:
            self._message.flight.tell(line)


def _settle(ack: asyncio.Future[None]) -> None:
    if not ack.done():
        ack.set_result(None)

"""What a client talks to, whatever carries it: every method that Guard answers.

A method that is not in the table is not understood, and what is not understood does not pass.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from guard.core.errors import Reason, Refused, printable
from guard.policy.decide import visible
from guard.proxy import eras, wire
from guard.proxy.endings import Returned
from guard.proxy.flow import authorize
from guard.proxy.listing import listing, served_by
from guard.proxy.upstream import EXTENSION
from guard.proxy.wire import Malformed, Notification, Request, Response
from guard.proxy.world import Gate

_EXTENSIONS: Final[dict[str, Any]] = {EXTENSION: {}}
_NOBODY: Final = frozenset({Reason.NO_CREDENTIAL, Reason.INVALID_KEY, Reason.EXPIRED_KEY, Reason.REVOKED_KEY})
_MODERN_ONLY: Final = frozenset({"server/discover", "subscriptions/listen"})
_OLD_ONLY: Final = frozenset({"initialize", "ping"})
LISTEN: Final = "subscriptions/listen"
_CHANGED: Final = "notifications/tools/list_changed"
_GRACEFULLY: Final = Returned(b"{}")
_SUBSCRIPTION: Final = f"{eras.META}subscriptionId"

Handler = Callable[[Request], Awaitable[bytes | None]]


class Session:
    """One client: a connection on stdio, a handshake-era session, or one modern request over HTTP.

    Args:
        gate: the world of this client's calls.
        notify: sends the client a notification that belongs to no request; None where there is no way.

    Attributes:
        version: the handshake-era revision that was agreed on, "" before and without a handshake.
        in_flight: the requests on their way, by id.
    """

    def __init__(self, gate: Gate, notify: Callable[[bytes], None] | None = None) -> None:
        self.gate = gate
        self.version = ""
        self.in_flight: dict[wire.Id, Request] = {}
        self.notify: Callable[[bytes], None] | None = None
        self._shown: tuple[tuple[str, str], ...] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False
        self._subscribed: list[Request] = []
        self._listening: dict[wire.Id, Request] = {}
        self._methods: dict[str, Handler] = {
            "initialize": self._initialize,
            "ping": self._ping,
            "server/discover": self._discover,
            LISTEN: self._listen,
            "tools/list": self._list,
            wire.CALL: self._call,
        }
        if notify is not None:
            self.attach(notify)

    def attach(self, notify: Callable[[bytes], None]) -> None:
        """From now on notifications that belong to no request go there."""
        self.notify = notify
        self.gate.house.watch(self)

    # -- messages ------------------------------------------------------------------------------

    def admit(self, message: Request) -> Handler:
        """Take a request in: what answers it.

        Raises:
            Malformed: it is answered with an error and goes no further.
        """
        if message.id in self.in_flight:
            raise Malformed(wire.INVALID_REQUEST, "this id is in flight already", message.id)
        handler = self._methods.get(message.method)
        opened = message.modern or self.version or message.method in _OLD_ONLY
        if not opened:
            params = {**message.params, "_meta": dict(message.meta)}
            wire.require_envelope({"method": message.method, "params": params, "id": message.id})
        wrong_era = message.method in (_OLD_ONLY if message.modern else _MODERN_ONLY)
        if handler is None or wrong_era:
            name = printable(message.method)
            raise Malformed(wire.METHOD_NOT_FOUND, f"method not found: {name}", message.id)
        if message.progress_token is not None and message.flight.tell is not None:
            message.flight.on_progress = _progress_to(message.flight.tell, message.progress_token)
        self.in_flight[message.id] = message
        return handler

    async def answer(self, message: Request, handler: Handler) -> tuple[bytes | None, int]:
        """Answer a request that was admitted.

        Returns: the line, None where the client called it off; and the code of Guard's own error, 0
            for none.
        """
        code = 0
        try:
            line = await handler(message)
        except Malformed as fault:
            code, line = fault.code, wire.error(message.id, fault.code, fault.message, fault.data)
        except Refused as refusal:
            unknown = refusal.reason in _NOBODY
            code = wire.NOT_AUTHENTICATED if unknown else wire.INTERNAL_ERROR
            text = "not authenticated" if unknown else "the tool server cannot be asked"
            line = wire.error(message.id, code, text, {"reason": refusal.reason})
        except Exception:  # noqa: BLE001 - a surprise is an answer too, and never a permit
            traceback.print_exc(file=sys.stderr)
            # A call may have been sent by then: a lost answer must not become a second execution.
            data = {"outcome": "unknown", "retryable": False} if message.method == wire.CALL else None
            code = wire.INTERNAL_ERROR
            line = wire.error(message.id, code, "Guard failed; see its standard error", data)
        finally:
            self.in_flight.pop(message.id, None)
        return (None if message.flight.cancelled else line), code

    def hear(self, message: Notification | Response) -> None:
        """Take a notification, or the answer to a server's request."""
        if isinstance(message, Response):
            return
        if message.method == "notifications/cancelled":
            target = message.params.get("requestId")
            waiting = self.in_flight.get(target) if isinstance(target, str | int) else None
            # `True == 1`: a boolean must not call off request 1.
            if waiting is not None and type(waiting.id) is type(target):
                waiting.flight.cancel()

    def finish(self) -> None:
        """Let subscriptions end gracefully: each is answered."""
        self._ended = True
        for message in self._subscribed:
            message.flight.end(_GRACEFULLY)

    def close(self) -> None:
        """Call off whatever is under way."""
        self.gate.house.unwatch(self)
        for message in list(self.in_flight.values()):
            message.flight.cancel()
        for task in self._tasks:
            task.cancel()

    # -- methods -------------------------------------------------------------------------------

    async def _call(self, message: Request) -> bytes | None:
        if message.modern and message.flight.headers is not None:
            self._check_mirrored(message, message.flight.headers)
        return await authorize(message, self.gate)

    def _check_mirrored(self, message: Request, headers: Mapping[str, str]) -> None:
        """`Mcp-Param-*` headers agree with the arguments, as far as the caller may know the tool."""
        principal, house = self.gate.identify(), self.gate.house
        found = house.generation.find(message.params["name"])
        if found is None or message.fault is not None:
            return
        server, name = found
        if not visible(principal, server.about.name, name, frozenset(), house.generation.policy):
            return
        catalog = server.link(principal).catalog
        catalog.at(house.log.store.versions(principal.tenant))
        if (schema := catalog.mirroring(name)) is not None:
            wrong = eras.param_mismatch(schema, message.params.get("arguments", {}), headers)
            if wrong is not None:
                raise Malformed(eras.HEADER_MISMATCH, printable(wrong), message.id)

    async def _ping(self, message: Request) -> bytes:
        return wire.result(message.id, {})

    async def _initialize(self, message: Request) -> bytes:
        self.gate.identify()
        asked = message.params.get("protocolVersion")
        if not isinstance(asked, str):
            raise Malformed(wire.INVALID_PARAMS, "protocolVersion is not a string", message.id)
        instructions = await self._instructions()
        self.version = asked if asked in eras.HANDSHAKE else eras.HANDSHAKE[0]
        about = {
            "protocolVersion": self.version,
            "capabilities": {"tools": {"listChanged": True}, "extensions": _EXTENSIONS},
            "serverInfo": served_by(self.gate.house),
        }
        return wire.result(message.id, about | instructions)

    async def _discover(self, message: Request) -> bytes:
        self.gate.identify()
        instructions = await self._instructions()
        about = {
            "supportedVersions": [*eras.MODERN, *eras.HANDSHAKE],
            "capabilities": {"tools": {"listChanged": True}, "extensions": _EXTENSIONS},
            "ttlMs": 0,
            "cacheScope": "private",
        }
        info = served_by(self.gate.house)
        return wire.result(message.id, wire.stamped(about | instructions, info, modern=True))

    async def _instructions(self) -> dict[str, str]:
        try:
            found = await listing(self.gate.house, self.gate.identify(), anew=False)
        except Refused:
            return {}
        return {} if found.instructions is None else {"instructions": found.instructions}

    async def _list(self, message: Request) -> bytes:
        """The pinned tools that the caller may see; by credential and policy only, in a fixed order."""
        if unknown := message.params.keys() - {"cursor"}:
            name = printable(min(unknown))
            raise Malformed(wire.INVALID_PARAMS, f"params.{name} is not part of tools/list", message.id)
        if message.params.get("cursor") is not None:
            raise Malformed(wire.INVALID_PARAMS, "the list has one page: no such cursor", message.id)
        principal = self.gate.identify()
        found = await listing(self.gate.house, principal, anew=True)
        self._shown = found.digests
        caching = {"ttlMs": 0, "cacheScope": "private"} if message.modern else {}
        value = {"tools": list(found.tools.values()), **caching}
        info = served_by(self.gate.house)
        return wire.result(message.id, wire.stamped(value, info, modern=message.modern))

    # -- what changes --------------------------------------------------------------------------

    async def _listen(self, message: Request) -> bytes | None:
        """A subscription: Guard tells of changed tools, and of nothing else (2026-07-28, Subscriptions)."""
        wanted, tell = message.params.get("notifications"), message.flight.tell
        if not isinstance(wanted, dict) or message.params.keys() - {"notifications"}:
            raise Malformed(
                wire.INVALID_PARAMS, "params has `notifications`, an object, and no more", message.id
            )
        if tell is None:
            raise Malformed(wire.INVALID_REQUEST, "a subscription needs a stream to answer on", message.id)
        self._shown = await self._visible()
        about = {"_meta": {_SUBSCRIPTION: message.id}}
        honoured = {"toolsListChanged": True} if wanted.get("toolsListChanged") is True else {}
        tell(
            wire.notification(
                "notifications/subscriptions/acknowledged", {**about, "notifications": honoured}
            )
        )
        message.flight.ending = asyncio.get_running_loop().create_future()
        if message.flight.cancelled or self._ended:
            message.flight.end(_GRACEFULLY)
        self._subscribed.append(message)
        if honoured:
            self._listening[message.id] = message
            self.gate.house.watch(self)
        try:
            await message.flight.ending
        finally:
            self._subscribed.remove(message)
            self._listening.pop(message.id, None)
        return wire.result(message.id, {"resultType": "complete", **about})

    def tools_changed(self) -> None:
        """They may have: tell the client, if what it may see did."""
        if self._shown is not None and (self._listening or (self.version and self.notify is not None)):
            task = asyncio.ensure_future(self._tell_if_changed())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell_if_changed(self) -> None:
        before = self._shown
        try:
            self._shown = await self._visible()
        except Refused:
            return
        if self._shown == before:
            return
        if self.version and self.notify is not None:
            self.notify(wire.notification(_CHANGED, {}))
        for message in self._listening.values():
            if message.flight.tell is not None:
                message.flight.tell(wire.notification(_CHANGED, {"_meta": {_SUBSCRIPTION: message.id}}))

    async def _visible(self) -> tuple[tuple[str, str], ...]:
        return (await listing(self.gate.house, self.gate.identify(), anew=False)).digests


def _progress_to(tell: Callable[[bytes], None], token: wire.Id) -> Callable[[dict[str, Any]], None]:
    def on_progress(params: dict[str, Any]) -> None:
        tell(wire.notification("notifications/progress", {**params, "progressToken": token}))

    return on_progress

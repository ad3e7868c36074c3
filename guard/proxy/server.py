"""What a client talks to, whatever carries it: every method that Guard answers.

A method that is not in the table is not understood, and what is not understood does not pass.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import orjson

from guard.core.errors import Reason, Refused
from guard.core.model import SUBJECTS, Call
from guard.proxy import answers, eras, features, offers, wire
from guard.proxy.asker import Answer, Tell
from guard.proxy.callbacks import Callbacks
from guard.proxy.endings import Flight, Tells
from guard.proxy.flow import authorize
from guard.proxy.lines import MAX_MESSAGE
from guard.proxy.listing import behind, listing, served_by
from guard.proxy.subscriptions import Subscriptions
from guard.proxy.telling import Telling, definitions, instructions, shown
from guard.proxy.warden import NOBODY, PASSING
from guard.proxy.wire import Malformed, Notification, Request, Response
from guard.proxy.world import Gate

_OLD_ONLY: Final = frozenset({"initialize", "ping", *features.OLD_ONLY})
_MODERN_ONLY: Final = frozenset({"server/discover", "subscriptions/listen"})
MAX_EARLY: Final = 256
"""Messages of servers that wait for the end of a handshake, MAX_MESSAGE bytes in all."""
LISTEN: Final = "subscriptions/listen"
_LOG: Final = "notifications/message"
ELICITED: Final = "notifications/elicitation/complete"

Handler = Callable[[Request], Awaitable[bytes | None]]


class Holding(Protocol):
    """Whoever holds a session between its requests, and its streams."""

    def bar(self, *, for_good: bool) -> None:
        """Nobody hears anything there any more."""
        ...

    def review(self, judge: Callable[[Call], Reason | None]) -> None:
        """Keep nothing of a call that may be no more."""
        ...


class Session:
    """One client: a connection on stdio, a handshake-era session, or one modern request over HTTP.

    In the handshake era it is also whom a tool server may ask: see `Asker`.

    Args:
        gate: the world of this client's calls.
        notify: sends the client a message that belongs to no request, and says False where nothing
            listens; None where there is no way.

    Attributes:
        version: the handshake-era revision that was agreed on, "" before and without a handshake.
        client: its `clientInfo`, from the handshake.
        capabilities: as it declared them there.
        in_flight: the requests on their way, by id.
        owner: the principal that it belongs to; None where that is whoever the launch says.
        held: who holds it between its requests; None where nobody does.
        barred: why nothing is told or asked out of the blue, None where it is. See `Warden`.
    """

    def __init__(self, gate: Gate, notify: Callable[[bytes], object] | None = None) -> None:
        self.gate = gate
        self.version = ""
        self.client: Mapping[str, Any] = {}
        self.capabilities: Mapping[str, Any] = {}
        self.in_flight: dict[wire.Id, Request] = {}
        self.notify: Callable[[bytes], object] | None = None
        self.owner: tuple[str, str, str] | None = None
        self.held: Holding | None = None
        self.barred: Reason | None = None
        self.telling: Tells = Telling(gate)
        self._callbacks: Callbacks | None = None
        self._early: list[tuple[bytes, Flight | None, bool]] | None = None
        self._subscriptions: Subscriptions | None = None
        if notify is not None:
            self.attach(notify)

    def attach(self, notify: Callable[[bytes], object]) -> None:
        """From now on messages that belong to no request go there."""
        self.notify = notify
        self.gate.house.watch(self.subscriptions)
        self.gate.house.warden.enter(self)

    @property
    def subscriptions(self) -> Subscriptions:
        """What this client hears of without asking."""
        if self._subscriptions is None:
            self._subscriptions = Subscriptions(self.gate, lambda line: self._send(line, None))
        return self._subscriptions

    # -- messages ------------------------------------------------------------------------------

    def admit(self, message: Request) -> Handler:
        """Take a request in: what answers it.

        Raises:
            Malformed: it is answered with an error and goes no further.
        """
        if message.id in self.in_flight:
            raise Malformed(wire.INVALID_REQUEST, "this id is in flight already", message.id)
        handler = self._handler(message)
        opened = message.modern or self.version or message.method in {"initialize", "ping"}
        if not opened:
            params = {**message.params, "_meta": dict(message.meta)}
            wire.require_envelope({"method": message.method, "params": params, "id": message.id})
        if message.method in (_OLD_ONLY if message.modern else _MODERN_ONLY):
            raise answers.no_method(message)
        if self._early is not None and message.method not in {"initialize", "ping"}:
            self._settle()
        flight = message.flight
        if flight.tell is not None and message.meta:
            if message.progress_token is not None:
                flight.on_progress = _progress_to(flight.tell, message.progress_token)
            if message.modern and eras.LOG_LEVEL in message.meta:
                flight.on_note = _log_to(flight.tell)
        flight.telling = self.telling
        flight.rounds = message.modern and message.method in SUBJECTS
        self.in_flight[message.id] = message
        return handler

    def _handler(self, message: Request) -> Handler:
        if message.method in SUBJECTS:
            return self._call
        if (own := _METHODS.get(message.method)) is not None:
            return own.__get__(self)  # type: ignore[no-any-return]
        if (feature := features.METHODS.get(message.method)) is not None:
            return lambda request: feature(self.gate, request)
        servers = self.gate.house.generation.servers.values()
        passed = any(message.method in server.about.methods for server in servers)
        return self._call if passed else self._unknown

    async def answer(self, message: Request, handler: Handler) -> tuple[bytes | None, int]:
        """Answer a request that was admitted.

        Returns: the line, None where the client called it off; and the code of Guard's own error, 0
            for none.
        """
        code, called, flight = 0, handler == self._call, message.flight
        if not called:
            flight.parked = asyncio.current_task()  # a call says for itself where it can be let go of
        line: bytes | None = None
        try:
            line = await handler(message)
        except asyncio.CancelledError:
            if not flight.was_barred():
                raise
        except Malformed as fault:
            code, line = fault.code, wire.error(message.id, fault.code, fault.message, fault.data)
        except Refused as refusal:
            unknown = refusal.reason in NOBODY
            code = wire.NOT_AUTHENTICATED if unknown else wire.INTERNAL_ERROR
            text = "not authenticated" if unknown else "the tool server cannot be asked"
            line = wire.error(message.id, code, text, {"reason": refusal.reason})
        except Exception:  # noqa: BLE001 - a surprise is an answer too, and never a permit
            traceback.print_exc(file=sys.stderr)
            # A call may have been sent by then: a lost answer must not become a second execution.
            data = {"outcome": "unknown", "retryable": False} if called else None
            code = wire.INTERNAL_ERROR
            line = wire.error(message.id, code, "Guard failed; see its standard error", data)
        finally:
            flight.parked = None
            self.in_flight.pop(message.id, None)
        if flight.barred is not None and not called:
            line, code = _barred(message, flight.barred)
        return (None if flight.cancelled else line), code

    def hear(self, message: Notification | Response) -> None:
        """Take a notification, or the answer to a server's request."""
        if isinstance(message, Response):
            if self._callbacks is not None:
                self._callbacks.hear(message)
        elif message.method == "notifications/initialized":
            self._settle()
        elif message.method == "notifications/cancelled":
            target = message.params.get("requestId")
            waiting = self.in_flight.get(target) if isinstance(target, str | int) else None
            # `True == 1`: a boolean must not call off request 1.
            if waiting is not None and type(waiting.id) is type(target):
                waiting.flight.cancel()
        elif message.method == "notifications/progress":
            if self._callbacks is not None:
                self._callbacks.progress(message.params)
        elif message.method == "notifications/roots/list_changed" and self.version:
            for server in self.gate.house.generation.servers.values():
                server.tell(self, message.method)

    def finish(self) -> None:
        """Let subscriptions end gracefully: each is answered."""
        self.subscriptions.finish()

    def close(self) -> None:
        """Call off whatever is under way."""
        self.gate.house.warden.leave(self)
        if self._subscriptions is not None:
            self._subscriptions.close()
        if self._callbacks is not None:
            self._callbacks.close()
        for message in list(self.in_flight.values()):
            if message.flight.barred is None:  # else it is being answered
                message.flight.cancel()
        if self.version:
            for server in self.gate.house.generation.servers.values():
                server.leave(self)

    # -- what the warden says ------------------------------------------------------------------

    @property
    def asking(self) -> Gate:
        """Its world."""
        return self.gate

    def bar(self, reason: Reason) -> None:
        """End whatever is under way, and hear and tell no more: for good where nobody is known by now."""
        if self._callbacks is not None:
            self._callbacks.bar()
        self.barred = reason
        for message in [*self.in_flight.values()]:
            message.flight.bar(reason)
        if self.version and reason not in PASSING:
            for server in self.gate.house.generation.servers.values():
                server.leave(self, returns=reason not in NOBODY)
        if self.held is not None:
            self.held.bar(for_good=reason in NOBODY)

    def free(self) -> None:
        """It may hear and tell again."""
        self.barred = None

    def review(self, judge: Callable[[Call], Reason | None]) -> None:
        """End the calls that may be no more, and let go of the subscriptions to what is out of sight."""
        for message in [*self.in_flight.values()]:
            call = message.flight.call
            if call is not None and (reason := judge(call)) is not None:
                if self._callbacks is not None:
                    self._callbacks.bar(message.flight)
                message.flight.bar(reason)
        if self.held is not None:
            self.held.review(judge)
        if self._subscriptions is not None:
            self._subscriptions.review()
        if self.version:
            features.review(self.gate, self)

    # -- what servers say to a handshake-era client ----------------------------------------------

    def told(self, method: str, params: bytes, flight: Flight | None) -> None:
        """Pass a notification on; of what is out of sight by now, nothing."""
        if flight is not None and flight.barred is not None:
            return
        if method == ELICITED and not isinstance(self.capabilities.get("elicitation"), dict):
            return
        if not features.may_hear(self.gate, method, params):
            return
        self._send(wire.notification(method, orjson.Fragment(params)), flight, anywhere=method == _LOG)

    def asked(self, method: str, params: bytes, answer: Answer, tell: Tell, flight: Flight | None) -> None:
        """Pass a request on."""
        if self.barred is not None or (flight is not None and flight.barred is not None):
            answer({"code": wire.DENIED, "message": "the client may not be asked any more"}, True)  # noqa: FBT003
            return
        if self._callbacks is None:
            self._callbacks = Callbacks(lambda line, related: self._send(line, related, anywhere=True))
        self._callbacks.ask(method, params, answer, flight, tell)

    def _send(self, line: bytes, flight: Flight | None, *, anywhere: bool = False) -> bool:
        """Send it on the stream of its request; else where the client listens; else, on any request's.

        Before its handshake is done a client is told nothing: what servers say by then waits.
        """
        if self.barred is not None:
            return False
        if self._early is not None:
            if room := len(self._early) < MAX_EARLY and sum(len(one[0]) for one in self._early) < MAX_MESSAGE:
                self._early.append((line, flight, anywhere))
            return room
        if flight is not None and flight.tell is not None and not flight.cancelled:
            flight.tell(line)
            return True
        if self.notify is not None and self.notify(line) is not False:
            return True
        if anywhere:
            for message in reversed(self.in_flight.values()):
                if message.flight.tell is not None:
                    message.flight.tell(line)
                    return True
        return False

    def _settle(self) -> None:
        """The client's handshake is done."""
        early, self._early = self._early, None
        for line, flight, anywhere in early or ():
            self._send(line, flight, anywhere=anywhere)

    # -- methods -------------------------------------------------------------------------------

    async def _call(self, message: Request) -> bytes | None:
        return await authorize(message, self.gate)

    async def _unknown(self, message: Request) -> bytes:
        """As a configured method that the caller may not see: nobody tells the two apart."""
        self.gate.identify()
        raise answers.no_method(message)

    async def _ping(self, message: Request) -> bytes:
        return wire.result(message.id, {})

    async def _initialize(self, message: Request) -> bytes:
        self.gate.identify()
        asked, declared, info = (
            message.params.get(name) for name in ("protocolVersion", "capabilities", "clientInfo")
        )
        if not isinstance(asked, str):
            raise Malformed(wire.INVALID_PARAMS, "protocolVersion is not a string", message.id)
        if not isinstance(declared, dict | None) or not isinstance(info, dict | None):
            raise Malformed(wire.INVALID_PARAMS, "capabilities or clientInfo is not an object", message.id)
        version = asked if asked in eras.HANDSHAKE else eras.HANDSHAKE[0]
        if not self.version:
            self.client, self.capabilities = info or features.NOBODY, declared or {}
            self.version, self.gate.asker, self._early = version, self, []
        found = await behind(self.gate.house, self.gate.identify(), self)
        await shown(self.gate, instructions(found), pinned=True)
        about = {
            "protocolVersion": self.version,
            "capabilities": offers.capabilities(found.upstreams, modern=False),
            "serverInfo": served_by(self.gate.house),
        }
        return wire.result(message.id, {**about, **found.said})

    async def _discover(self, message: Request) -> bytes:
        found = await behind(self.gate.house, self.gate.identify(), None)
        await shown(self.gate, instructions(found), pinned=True)
        about = {
            "supportedVersions": [*eras.MODERN, *eras.HANDSHAKE],
            "capabilities": offers.capabilities(found.upstreams, modern=True),
            "ttlMs": 0,
            "cacheScope": "private",
        }
        info = served_by(self.gate.house)
        return wire.result(message.id, wire.stamped({**about, **found.said}, info, modern=True))

    async def _list(self, message: Request) -> bytes:
        """The pinned tools that the caller may see; by credential and policy only, in a fixed order."""
        features.one_page(message)
        found = await listing(self.gate.house, self.gate.identify(), self.gate.asker, anew=True)
        await shown(self.gate, definitions(self.gate.house.generation, found.tools), pinned=True)
        if self.notify is not None:
            self.subscriptions.showed(found.digests)
        caching = {"ttlMs": 0, "cacheScope": "private"} if message.modern else {}
        value = {"tools": list(found.tools.values()), **caching}
        info = served_by(self.gate.house)
        return wire.result(message.id, wire.stamped(value, info, modern=message.modern))

    async def _listen(self, message: Request) -> bytes | None:
        return await self.subscriptions.listen(message)


_METHODS: Final[Mapping[str, Any]] = {
    "initialize": Session._initialize,  # noqa: SLF001 - its own table
    "ping": Session._ping,  # noqa: SLF001
    "server/discover": Session._discover,  # noqa: SLF001
    LISTEN: Session._listen,  # noqa: SLF001
    "tools/list": Session._list,  # noqa: SLF001
}


def _barred(message: Request, reason: Reason) -> tuple[bytes, int]:
    """What is said of a request that may go on no longer, and the code of it."""
    code = wire.NOT_AUTHENTICATED if reason in NOBODY else wire.DENIED
    text = "not authenticated" if reason in NOBODY else "this is permitted no longer"
    return wire.error(message.id, code, text, {"reason": reason}), code


def _progress_to(tell: Callable[[bytes], object], token: wire.Id) -> Callable[[dict[str, Any]], None]:
    def on_progress(params: dict[str, Any]) -> None:
        tell(wire.notification("notifications/progress", {**params, "progressToken": token}))

    return on_progress


def _log_to(tell: Callable[[bytes], object]) -> Callable[[str, bytes], None]:
    def on_note(method: str, params: bytes) -> None:
        if method == _LOG:
            tell(wire.notification(method, orjson.Fragment(params)))

    return on_note

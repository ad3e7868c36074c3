"""The front: Streamable HTTP towards clients, in both eras.

The order of the checks is the order of trust: Host and Origin, then who calls, then what it says.
Nobody unauthenticated has a byte of a body read.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from guard.core.errors import Reason, Refused
from guard.core.model import Principal
from guard.proxy import documents, eras, reviewing, wire
from guard.proxy.documents import Published
from guard.proxy.exchange import JSON, Exchange
from guard.proxy.house import House
from guard.proxy.refusals import Refusals, Turned, bearer, challenge, nothing_here, unavailable
from guard.proxy.replies import error_code
from guard.proxy.resumption import PRIMING, Stream
from guard.proxy.server import LISTEN, Handler, Session
from guard.proxy.sessions import Held, Sessions, new_session
from guard.proxy.sse import event
from guard.proxy.wire import Malformed, Notification, Request
from guard.proxy.world import Gate

PATH: Final = "/mcp"
SESSION: Final = "mcp-session-id"
LAST_EVENT: Final = "last-event-id"
_LOCAL: Final = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.ASCII)
_READABLE: Final = frozenset({"/health", "/proof", "/.well-known/jwks.json"})
_STATUS: Final[Mapping[int, int]] = {
    wire.PARSE_ERROR: 400,
    wire.INVALID_REQUEST: 400,
    wire.INVALID_PARAMS: 400,
    eras.HEADER_MISMATCH: 400,
    eras.MISSING_CAPABILITY: 400,
    eras.UNSUPPORTED_VERSION: 400,
    wire.METHOD_NOT_FOUND: 404,
    wire.NOT_AUTHENTICATED: 401,
}
"""HTTP status of an error, to modern clients (2026-07-28, Streamable HTTP)."""

Identify = Callable[[str | None], Callable[[], Principal]]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the front holds requests to; replaced whole on a reload.

    Attributes:
        identify: given the value of `Authorization`, who calls: asked anew whenever it matters.
        hosts: values of `Host` that are meant for this Guard, lower case.
        origins: origins of pages that may call it, lower case; others may not.
        local: whether pages of this very machine may.
        body_bytes: of one message.
        body_seconds: to send it.
        in_flight: requests of one principal at once.
    """

    identify: Identify = field(repr=False)
    hosts: frozenset[str]
    origins: frozenset[str] = frozenset()
    local: bool = True
    body_bytes: int = 4 * 1024 * 1024
    body_seconds: float = 30.0
    in_flight: int = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, and how to ask that again."""

    identify: Callable[[], Principal]
    principal: Principal


class Front:
    """The application.

    Args:
        house: what answers.
        rules: what requests are held to.
        sessions: the handshake-era sessions.
        published: what outsiders check this Guard with.
        refusals_per_minute: for one address.
    """

    def __init__(
        self,
        house: House,
        *,
        rules: Rules,
        sessions: Sessions,
        published: Published,
        refusals_per_minute: int = 60,
    ) -> None:
        self.house = house
        self._rules = rules
        self.sessions = sessions
        self.refusals = Refusals(refusals_per_minute, house.refusals)
        self._published = published
        self._busy: Counter[tuple[str, str, str]] = Counter()
        self._listening: set[Session] = set()

    @property
    def rules(self) -> Rules:
        """What requests are held to."""
        return self._rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        self._rules = rules
        self.house.warden.moved()  # who calls may be known in another way

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        try:
            exchange.check_fields()
            await self._route(exchange)
        except Turned as turned:
            exchange.turn_away(turned)

    async def _route(self, exchange: Exchange) -> None:
        self.check_place(exchange.fields)
        if exchange.path in _READABLE:
            self._show(exchange)
            return
        if reviewing.is_meant(exchange.path):
            await self._review(exchange, self.identify(exchange))
            return
        if exchange.path != PATH:
            raise nothing_here()
        caller = self.identify(exchange)
        match exchange.method:
            case "POST":
                await self.body(exchange, caller, lambda body: self._take(exchange, caller, body))
            case "GET" if SESSION in exchange.fields:
                await self._stream(exchange, self._held(exchange.fields, caller))
            case "DELETE" if SESSION in exchange.fields:
                self.sessions.end(self._held(exchange.fields, caller))
                exchange.respond(204)
            case _:
                raise Turned(405, "the MCP endpoint takes POST", headers=[("allow", "POST, GET, DELETE")])

    # -- who, and where to ---------------------------------------------------------------------

    def check_place(self, fields: Mapping[str, str]) -> None:
        """A page in a browser must not reach a local Guard under a name of its own (DNS rebinding)."""
        if fields.get("host", "").lower() not in self.rules.hosts:
            self.house.refusals["host"] += 1
            raise Turned(421, "this Guard does not serve that host: see `hosts` in its configuration")
        origin = fields.get("origin")
        if origin is not None and not self._welcome(origin.lower()):
            self.house.refusals["origin"] += 1
            raise Turned(403, "that origin may not call this Guard: see `origins` in its configuration")

    def _welcome(self, origin: str) -> bool:
        if origin in self.rules.origins:
            return True
        scheme, _, rest = origin.partition("://")
        return self.rules.local and scheme in {"http", "https"} and _LOCAL.fullmatch(rest) is not None

    def identify(self, exchange: Exchange) -> Caller:
        """Who sent it. Raises Turned: nobody that is known."""
        given = exchange.fields.get("authorization")
        try:
            rules = self._rules
            known = rules.identify(given)

            def identify() -> Principal:
                """As the rules say that hold when it is asked."""
                return (known if self._rules is rules else self._rules.identify(given))()

            return Caller(identify, known())
        except Refused as refusal:
            if refusal.reason is Reason.STORE_UNAVAILABLE:
                raise unavailable() from None
            wait = self.refusals.refuse(refusal.reason, exchange.client, time.monotonic())
            raise challenge(refusal.reason, given=given is not None, wait=wait) from None

    def _held(self, fields: Mapping[str, str], caller: Caller) -> Held:
        if SESSION not in fields:
            raise Turned(400, "Mcp-Session-Id is missing: begin with `initialize`")
        held = self.sessions.find(fields[SESSION], caller.principal)
        if held is None:
            raise Turned(404, "there is no such session: begin with `initialize`")
        if fields.get(eras.VERSION_HEADER, eras.ASSUMED) not in {held.session.version, eras.ASSUMED}:
            raise Turned(400, "MCP-Protocol-Version is not what this session agreed on")
        return held

    # -- POST ----------------------------------------------------------------------------------

    async def body(self, exchange: Exchange, caller: Caller, use: Callable[[bytes], Awaitable[None]]) -> None:
        """Read the body of a POST and use it, within what one caller may have under way. Raises Turned."""
        exchange.check_content()
        key = caller.principal.key
        if self._busy[key] >= self.rules.in_flight:
            self.house.refusals[Reason.OVERLOADED] += 1
            raise Turned(
                429,
                "too many requests of this caller are under way",
                code=wire.OVERLOADED,
                data={"reason": Reason.OVERLOADED, "retryable": True},
                headers=[("retry-after", "1")],
            )
        self._busy[key] += 1
        try:
            await use(await exchange.body(self.rules.body_bytes, self.rules.body_seconds))
        finally:
            self._busy[key] -= 1
            if not self._busy[key]:
                del self._busy[key]

    async def _take(self, exchange: Exchange, caller: Caller, body: bytes) -> None:
        try:
            message = wire.read_message(body, exchange.fields)
        except Malformed as fault:
            self.house.refusals["malformed"] += 1
            raise _of(fault, modern=True) from None
        if isinstance(message, Request):
            message.flight.headers = exchange.fields
            await self._answer(exchange, caller, message)
            return
        if not eras.says_modern(exchange.fields):
            held = self._held(exchange.fields, caller)
            if message is not None:
                held.session.hear(message)
        elif not isinstance(message, Notification):
            raise Turned(400, "a client sends no responses")
        exchange.respond(202)

    async def _answer(self, exchange: Exchange, caller: Caller, message: Request) -> None:
        if not message.modern and message.method != "initialize":
            await self._answer_in(self._held(exchange.fields, caller), exchange, message)
            return
        if message.modern:
            id_, conversation = "", self.sessions.inferred(caller.principal)
        else:
            id_, conversation = new_session(self.sessions.suffix)
        seen = caller.principal if message.modern else None  # a session outlives what was seen
        session = Session(Gate(self.house, caller.identify, conversation, seen))
        session.owner = caller.principal.key
        flight = message.flight
        # `initialize` is answered whole: its answer has the session's id in its head
        streams = message.modern and exchange.streams
        flight.tell = exchange.tell if streams else None
        handler = _admit(session, message)
        exchange.watch(exchange.live if streams else None, flight.cancel if message.modern else None)
        if message.method == LISTEN:
            self._listening.add(session)
        warden, begun = self.house.warden, False
        warden.enter(session)
        try:
            line, code = await session.answer(message, handler)
            begun = id_ != "" and code == 0
        finally:
            if message.modern:
                self._listening.discard(session)
                session.close()
            elif not begun:
                warden.leave(session)
        more: list[tuple[str, str]] = []
        if begun:
            self.sessions.begin(id_, caller.principal, session)
            more.append((SESSION, id_))
        _conclude(exchange, message, line, code, more)

    async def _answer_in(self, held: Held, exchange: Exchange, message: Request) -> None:
        """Answer in a session. A broken connection calls nothing off, and its client may come back."""
        session, flight = held.session, message.flight
        if not exchange.streams:
            line, code = await session.answer(message, _admit(session, message))
            _conclude(exchange, message, line, code)
            return
        stream = Stream(held.streams, exchange, primes=session.version in PRIMING)
        stream.flight = flight
        flight.tell, flight.on_away, flight.on_bar = stream.tell, stream.away, stream.clear
        handler = _admit(session, message)
        exchange.watch(stream.show_life, None)
        if exchange.prefers_streams:
            stream.begin()
        try:
            line, code = await session.answer(message, handler)
        except BaseException:
            stream.finish(None)
            raise
        if stream.begun:
            stream.finish(line)
        else:
            _conclude(exchange, message, line, code)

    # -- GET -----------------------------------------------------------------------------------

    async def _stream(self, exchange: Exchange, held: Held) -> None:
        """The handshake era's stream for what belongs to no request, or one that is taken up again."""
        if not exchange.streams:
            raise Turned(406, "Accept lacks text/event-stream")
        try:
            self.house.warden.admit(held.session.gate)
        except Refused as refusal:
            data = {"reason": refusal.reason}
            raise Turned(403, "this is not permitted now", code=wire.DENIED, data=data) from None
        last = exchange.fields.get(LAST_EVENT, "")
        if last:
            found = held.streams.find(last)
            if found is None:
                raise Turned(400, "Last-Event-ID names no event that is kept")
            stream, after = found
        else:
            held.hang_up()  # the newest one is the one
            stream, after = Stream(held.streams, exchange, primes=held.session.version in PRIMING), -1
            held.listening = stream

        def allowed() -> bool:
            """A stream outlives its credential no longer than to the next event or sign of life."""
            try:
                held.session.gate.identify()
            except Exception:  # noqa: BLE001 - whatever it is, it is no yes
                return False
            return True

        stream.allowed = allowed
        exchange.watch(stream.show_life, None)
        if last:
            stream.resume(exchange, after)
        else:
            stream.begin()
        await exchange.ended()

    # -- beside the endpoint -------------------------------------------------------------------

    def _show(self, exchange: Exchange) -> None:
        if exchange.method not in {"GET", "HEAD"}:
            raise Turned(405, "this is read with GET", headers=[("allow", "GET, HEAD")])
        status, value = 200, dict(self._published.jwks())
        if exchange.path == "/health":
            ready, value = documents.health(self.house)
            status = 200 if ready else 503
        elif exchange.path == "/proof":
            value = documents.proof(self.house, self._published)
        exchange.respond(status, orjson.dumps(value), JSON, [("cache-control", "no-store")])

    async def _review(self, exchange: Exchange, caller: Caller) -> None:
        await reviewing.review(
            self.house, exchange, caller.identify, lambda use: self.body(exchange, caller, use)
        )

    def finish(self) -> None:
        """Let streams and subscriptions end gracefully."""
        for session in [*self._listening]:
            session.finish()
        for held in self.sessions.each():
            held.hang_up()


def _admit(session: Session, message: Request) -> Handler:
    try:
        return session.admit(message)
    except Malformed as fault:
        raise _of(fault, modern=message.modern) from None


def _conclude(
    exchange: Exchange,
    message: Request,
    line: bytes | None,
    code: int,
    more: Sequence[tuple[str, str]] = (),
) -> None:
    """Send an answer, with the status that its error has, as JSON unless events are what is wanted."""
    if code == wire.NOT_AUTHENTICATED:
        more = [*more, ("www-authenticate", bearer("invalid_token"))]
    elif message.modern and line is not None and not code:
        # a tool server's own error has the status of its code, too; but who calls is not its to say
        code = 0 if (found := error_code(line)) == wire.NOT_AUTHENTICATED else found
    status = _STATUS.get(code, 200) if message.modern or code == wire.NOT_AUTHENTICATED else 200
    if line is not None and not code and not more and exchange.prefers_streams:
        exchange.end(event(line))
    else:
        exchange.finish(line, status, more)


def _of(fault: Malformed, *, modern: bool) -> Turned:
    """A malformed message as an HTTP answer; where a 404 would end a handshake-era session it is none."""
    status = _STATUS.get(fault.code, 400) if modern else 200
    return Turned(status, fault.message, code=fault.code, data=fault.data, id_=fault.id)

"""The world in memory: every step of a call in its simplest honest form, and broken on demand.

It writes down what it was asked. Each step can be broken before or after it took effect, by an
exception or by an answer that is not one. The log is a list; a restart closes what is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

from guard.artifact.grant import Grant, Issuer
from guard.artifact.replay import MemoryReplay
from guard.artifact.verify import VerifiedGrant, Verifier
from guard.core.canonical import b64, write
from guard.core.errors import Reason
from guard.core.keys import KeySet, SigningKey
from guard.core.model import Allow, Ask, Call, Conversation, Decision, Deny, Facts, Pin, Principal, Tool
from guard.policy.decide import decide
from guard.policy.document import load
from guard.policy.rules import Policy
from guard.proxy.endings import Ending, Failed, Returned, Unknown
from guard.proxy.steps import APPROVED, Approved
from guard.proxy.steps import World as Asked
from guard.proxy.wire import Request

NOW = 1_700_000_000
STEPS = ("identify", "bind", "decide", "issue", "record", "verify", "dispatch", "end", "reply", "refuse")
BEFORE_DISPATCH = STEPS[:6]
REPLY = b"an answer\n"
KEY = SigningKey.load(bytes(range(32)))
POLICY: Policy = load(
    write(
        {
            "guard": 1,
            "id": "simulated",
            "version": 1,
            "roles": {"caller": {"scopes": ["use"]}},
            "tools": [{"match": "echo", "scopes": ["use"]}],
        }
    ),
    name="simulated.yaml",
)
_issuer = Issuer(name="guard.test", key=KEY, pairwise_secret=bytes(32))
_replay = MemoryReplay()
_verifier = Verifier(
    issuer="guard.test", keys=KeySet([KEY.public]), audience="server", replay=_replay, accept_observed=True
)
_numbers = count()


def _fresh() -> str:
    return b64(next(_numbers).to_bytes(16, "big"))


def request(arguments: Mapping[str, Any] | None = None, *, tool: str = "echo", id_: int = 1) -> Request:
    return Request(id_, "tools/call", {"name": tool, "arguments": dict(arguments or {})})


class Torn(BaseException):
    """Not an Exception: what a shutdown or a cancelled task looks like."""


@dataclass(frozen=True)
class Break:
    """One step broken.

    Attributes:
        step: which.
        after: whether it took effect first.
        raises: makes what it raises, None to answer instead.
        returns: what it answers.
        visit: at which visit, counted from 0; None for every one.
    """

    step: str
    after: bool = False
    raises: Callable[[], BaseException] | None = None
    returns: Any = None
    visit: int | None = None


@dataclass
class MemoryLog:
    """The naive lineage: (kind, call) in order."""

    entries: list[tuple[str, str]] = field(default_factory=list)

    @property
    def open(self) -> list[str]:
        ended = {call for kind, call in self.entries if kind in {"returned", "failed", "unknown"}}
        return [call for kind, call in self.entries if kind == "granted" and call not in ended]

    def append(self, kind: str, call: str) -> None:
        self.entries.append((kind, call))

    def restart(self) -> None:
        for call in self.open:
            self.append("unknown", call)

    def of(self, call: str) -> list[str]:
        return [kind for kind, named in self.entries if named == call]


@dataclass
class World:
    """`guard.proxy.steps.World`, for one call, over a log that calls may share.

    Attributes:
        breaks: what is broken.
        moved: how many times `record` finds that something moved.
        told: what it then says.
        asks: how many decisions want a person first, who approves.
        ending: what the server makes of the call.
        tamper: after this step (issue or record) the arguments are changed behind everyone's back.
        trace: (step, "ok" or "broken", what it was about).
        sent: params and token of everything that reached the server.
        refused: every denial that was asked for.
        endings: every ending that was asked to be recorded.
    """

    log: MemoryLog = field(default_factory=MemoryLog)
    breaks: tuple[Break, ...] = ()
    moved: int = 0
    told: Deny = field(default_factory=lambda: Deny(Reason.CONTENDED))
    asks: int = 0
    ending: Ending = field(default_factory=lambda: Returned(b"{}"))
    tamper: str = ""
    role: str = "caller"
    pin: Pin = Pin.MATCHES
    trace: list[tuple[str, str, Any]] = field(default_factory=list)
    judged: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: list[tuple[Mapping[str, Any], bytes]] = field(default_factory=list)
    refused: list[Deny] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    _visits: dict[str, int] = field(default_factory=dict)

    def steps(self) -> list[str]:
        return [step for step, _, _ in self.trace]

    def _step(self, step: str, about: Any, effect: Callable[[], Any]) -> Any:
        visit = self._visits.get(step, 0)
        self._visits[step] = visit + 1
        broken = next((b for b in self.breaks if b.step == step and b.visit in {None, visit}), None)
        if broken is None:
            self.trace.append((step, "ok", about))
            return effect()
        self.trace.append((step, "broken", about))
        if broken.after:
            effect()
        if broken.raises is not None:
            raise broken.raises()
        return broken.returns

    def _tampered(self, step: str, call: Call) -> None:
        if self.tamper == step:
            call.arguments["tampered"] = True  # type: ignore[index]

    def identify(self, message: Request) -> Principal:
        return self._step("identify", None, lambda: Principal("default", "launch", "someone", self.role))

    async def bind(self, message: Request, principal: Principal) -> Call:
        await asyncio.sleep(0)

        def effect() -> Call:
            return Call(
                id=_fresh(),
                principal=principal,
                tool=Tool("server", message.params["name"], "sha256", self.pin),
                audience="server",
                method=message.method,
                params={**message.params, "arguments": dict(message.params["arguments"])},
                conversation=Conversation("c", "launch"),
                facts=Facts(now=NOW * 1000, last=NOW * 1000),
            )

        return self._step("bind", principal, effect)

    def decide(self, call: Call) -> Decision:
        def effect() -> Decision:
            self.judged[call.id] = {**call.params, "arguments": dict(call.arguments)}
            found = decide(call, POLICY)
            wants = isinstance(found, Allow) and self._visits["decide"] <= self.asks
            return Ask(("person",), "reviewer", 600_000) if wants else found

        return self._step("decide", call, effect)

    async def ask(
        self, message: Request, principal: Principal, call: Call, ask: Ask
    ) -> Approved | bytes | None:
        await asyncio.sleep(0)
        return self._step("ask", call, lambda: APPROVED)

    def issue(self, call: Call, allow: Allow) -> Grant:
        def effect() -> Grant:
            grant = _issuer.issue(call, allow, POLICY.ref, now=NOW, jti=_fresh())
            self._tampered("issue", call)
            return grant

        return self._step("issue", call, effect)

    async def record(self, call: Call, allow: Allow, grant: Grant) -> Literal[True] | Deny:
        await asyncio.sleep(0)

        def effect() -> Literal[True] | Deny:
            if self._visits["record"] <= self.moved:
                return self.told
            if not grant.sha256:
                raise ValueError("no artifact to record")
            self.log.append("granted", call.id)
            self._tampered("record", call)
            return True

        return self._step("record", call, effect)

    def verify(self, grant: Grant, call: Call) -> VerifiedGrant:
        return self._step(
            "verify",
            call,
            lambda: _verifier.verify(
                grant.token, call.method, call.params, now=NOW, definition_sha256=call.tool.sha256
            ),
        )

    async def dispatch(self, verified: VerifiedGrant, message: Request, call: Call) -> Ending:
        await asyncio.sleep(0)

        def effect() -> Ending:
            if not isinstance(self.ending, Failed):
                self.sent.append((verified.params, verified.token))
            return self.ending

        return self._step("dispatch", verified, effect)

    async def end(self, call: Call, ending: Ending) -> None:
        await asyncio.sleep(0)

        def effect() -> None:
            kind = {Returned: "returned", Failed: "failed", Unknown: "unknown"}[type(ending)]
            if call.id in self.log.open:
                self.log.append(kind, call.id)
            elif isinstance(ending, Failed):
                self.log.append("denied", call.id)
            else:
                raise ValueError("an ending without its grant")
            self.endings.append(ending)

        return self._step("end", call, effect)

    def reply(self, message: Request, call: Call, ending: Ending) -> bytes | None:
        return self._step("reply", (call, ending), lambda: REPLY)

    async def refuse(
        self, message: Request, principal: Principal, call: Call | None, deny: Deny
    ) -> bytes | None:
        await asyncio.sleep(0)

        def effect() -> bytes:
            self.log.append("denied", "" if call is None else call.id)
            self.refused.append(deny)
            return b"no\n"

        return self._step("refuse", (call, deny), effect)


def mimic(verified: VerifiedGrant) -> object:
    """Looks like a VerifiedGrant, and no verifier made it."""

    class Mimic(VerifiedGrant):
        pass

    found = object.__new__(Mimic)
    for name in ("token", "claims", "params", "made"):
        object.__setattr__(found, name, getattr(verified, name))
    return found


def verified() -> VerifiedGrant:
    """A real one, for some other call."""
    call = Call(
        id=_fresh(),
        principal=Principal("default", "launch", "someone", "caller"),
        tool=Tool("server", "echo", "sha256", Pin.MATCHES),
        audience="server",
        method="tools/call",
        params={"name": "echo", "arguments": {}},
        conversation=Conversation("c", "launch"),
        facts=Facts(now=NOW * 1000),
    )
    grant = _issuer.issue(call, Allow((), ("use",)), POLICY.ref, now=NOW, jti=_fresh())
    return _verifier.verify(grant.token, call.method, call.params, now=NOW)


_: type[Asked] = World  # a world that lacks a step is no world

"""The real world that `flow` asks: each step handed to the room that does it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal

from guard.artifact.grant import Grant
from guard.artifact.verify import VerifiedGrant
from guard.core.errors import Reason, Refused
from guard.core.model import (
    Allow,
    Ask,
    Call,
    Conversation,
    Decision,
    Deny,
    Principal,
)
from guard.lineage.store import (
    CONTAINMENT,
    REVOCATION,
    Conflict,
    Moved,
    Recorded,
    pins_version,
)
from guard.policy.decide import decide
from guard.proxy import answers, facts, obligations, records, wire
from guard.proxy.answers import Served
from guard.proxy.asking import Asking
from guard.proxy.binding import Binding, random_id
from guard.proxy.bound import (
    Bound,
    bound_to,
    sees,
    trail_of,
)
from guard.proxy.endings import Ending, Failed, Returned, Unknown
from guard.proxy.house import House
from guard.proxy.listing import served_by
from guard.proxy.remembering import Memory, memory_of, remembered
from guard.proxy.steps import Approved

LARGE: Final = 65_536
"""Bytes of a result whose values are not looked for on the loop."""


def _moved(allow: Allow, key: str) -> Deny:
    """What is said of a grant under which something moved, if it keeps moving."""
    full = next((one for one in allow.reservations if one.counter == key), None)
    if full is None:
        return Deny(Reason.CONTENDED)
    return Deny(Reason.LIMIT_REACHED if full.amount else Reason.FORBIDDEN_AFTER, full.limit)


class Gate(Binding):
    """The world of one client: steps 2 and 3 are the binding's."""

    def __init__(
        self,
        house: House,
        identify: Callable[[], Principal],
        conversation: Conversation,
        seen: Principal | None = None,
    ) -> None:
        super().__init__(house, identify, conversation, seen)
        self.asking = Asking(house, self)

    # -- 4, 5 ----------------------------------------------------------------------------------

    def decide(self, call: Call) -> Decision:
        """The one function that says yes."""
        if not isinstance(call, Bound) or call.generation is None:
            raise Refused(Reason.UNEXPECTED, "the call is bound to no policy")
        return decide(call, call.generation.policy)  # of no server: a tool that does not exist

    async def ask(
        self, message: wire.Request, principal: Principal, call: Call, ask: Ask
    ) -> Approved | bytes | None:
        """Have a person approve it."""
        return await self.asking.ask(message, principal, call, ask)

    def issue(self, call: Call, allow: Allow) -> Grant:
        """Sign, unless the decision asks for what this enforcement point cannot do."""
        if not all(map(obligations.is_known, allow.obligations)):
            raise Refused(Reason.UNKNOWN_OBLIGATION, "an obligation that Guard does not know")
        ref = bound_to(call)[0].policy.ref
        return self._issuer.issue(call, allow, ref, now=call.facts.now // 1000, jti=random_id())

    # -- 6, 9 ----------------------------------------------------------------------------------

    async def record(self, call: Call, allow: Allow, grant: Grant) -> Literal[True] | Deny:
        """Make the grant durable, if nothing moved under the decision and every counter has room."""
        generation, server = bound_to(call)
        versions, policy = call.facts.versions, generation.policy.ref
        pins = pins_version(server.about.name)
        expects = {
            CONTAINMENT: versions.get(CONTAINMENT, 0),
            REVOCATION: versions.get(REVOCATION, 0),
            **facts.versions(generation.policy),
            pins: versions.get(pins, 0),
        }
        trail, memory = trail_of(call), self._memory(call)
        trail.allow = allow
        if trail.flight is not None:
            trail.flight.call = call  # from here on the warden looks after it
        made = records.granted(
            call,
            allow,
            grant,
            policy,
            now=self._clock(),
            instance=self.house.instance,
            expects=expects,
            memory=memory,
        )
        outcome = await self._log.commit(made)
        if isinstance(outcome, Recorded):
            trail.conversation = outcome.conversation
            self.house.decisions["allow"] += 1
            return True
        if trail.flight is not None:
            trail.flight.call = None
        if isinstance(outcome, Moved):
            return _moved(allow, outcome.key)
        raise Refused(outcome.reason, outcome.what)

    def _memory(self, call: Call) -> Memory | None:
        """Where what its server says is remembered; None where the policy needs none."""
        policy = bound_to(call)[0].policy
        return memory_of(policy, call.principal, call.conversation, self.house.salt)

    async def end(self, call: Call, ending: Ending) -> None:
        """Give the grant its one ending.

        Waited for where nothing was sent, under `strict`, and where something is noted of it: what a later
        decision rests on is stored before the reply is sent. What the server said of it is told first.
        """
        trail = trail_of(call)
        if trail.flight is not None and trail.flight.telling is not None:
            await trail.flight.telling.settled()
        keep, told = None, self._memory(call) is not None and not isinstance(ending, Failed)
        if told:
            raw = ending.raw if isinstance(ending, Returned) else b""
            about = (bound_to(call)[0].policy, call, raw, self.house.salt)
            try:
                keep = await asyncio.to_thread(remembered, *about) if len(raw) > LARGE else remembered(*about)
            except Exception as error:
                lost = Unknown(Reason.UNEXPECTED, executed=isinstance(ending, Returned))
                await self._log.commit(records.ended(call, lost, trail.conversation, now=self._clock()))
                raise Refused(Reason.UNEXPECTED, "what was said could not be remembered") from error
        transaction = records.ended(
            call, ending, trail.conversation, now=self._clock(), allow=trail.allow, keep=keep, told=told
        )
        if isinstance(ending, Failed):
            outcome = await self._log.commit(transaction)
            if ending.integrity:
                self.house.warden.moved()
            if isinstance(outcome, Conflict):
                # `record` failed before anything stood: there is an attempt, and no grant to end.
                await self._commit_denied(call, Deny(ending.reason))
        elif bound_to(call)[0].strict or told or records.notes(transaction):
            if not isinstance(await self._log.commit(transaction), Recorded):
                raise Refused(Reason.STORE_UNAVAILABLE, "the ending could not be recorded")
        else:
            self._log.enqueue(transaction)

    async def _commit_denied(self, call: Call, deny: Deny) -> None:
        generation = call.generation if isinstance(call, Bound) and call.generation else self.house.generation
        ref, now = generation.policy.ref, self._clock()
        sealed = "sealed" in call.facts.contained
        strikes = () if sealed else records.strikes(generation.policy, call, deny)
        made = records.denied(call, deny, ref, now=now, sealed=sealed, strikes=strikes)
        outcome = await self._log.commit(made)
        if isinstance(outcome, Conflict) and not sealed:  # it was sealed meanwhile
            await self._log.commit(records.denied(call, deny, ref, now=now, sealed=True))
        elif strikes:
            self.house.warden.moved()

    # -- 7, 8 ----------------------------------------------------------------------------------

    def verify(self, grant: Grant, call: Call) -> VerifiedGrant:
        """Check the artifact as a stranger would: public keys only."""
        return bound_to(call)[1].about.verifier.verify(
            grant.token,
            call.method,
            call.params,
            now=self._clock() / 1000,
            definition_sha256=call.tool.sha256,
        )

    async def dispatch(self, verified: VerifiedGrant, message: wire.Request, call: Call) -> Ending:
        """Send it, once, to the very server that the call was bound to."""
        upstream = call.upstream if isinstance(call, Bound) else None
        if upstream is None:
            return Failed(Reason.UPSTREAM_UNAVAILABLE)
        return await upstream.dispatch(verified, message.method, message.meta, message.flight)

    # -- 10 ------------------------------------------------------------------------------------

    def reply(self, message: wire.Request, call: Call, ending: Ending) -> bytes | None:
        """What the client is told of an ending; nothing where it called the request off."""
        if message.flight.cancelled:
            return None
        if message.flight.barred is not None and isinstance(ending, Returned):
            ending = Unknown(message.flight.barred, executed=True)
        ending = obligations.shown(ending, trail_of(call).allow)
        upstream = call.upstream if isinstance(call, Bound) else None
        served = Served(served_by(self.house), modern=upstream is not None and upstream.modern)
        return answers.ending(
            message,
            call.id,
            ending,
            server=served,
            seal=lambda state: self.house.seal.seal(state, call),
            kind=call.tool.kind,
        )

    async def refuse(
        self,
        message: wire.Request,
        principal: Principal,
        call: Call | None,
        deny: Deny,
        *,
        hint: str = "",
        more: Mapping[str, Any] | None = None,
    ) -> bytes | None:
        """Record the attempt and say no. A record that fails changes nothing about the no.

        Args:
            message: the request.
            principal: who asks.
            call: as far as it was bound.
            deny: why.
            hint: what to do next, in place of whom to ask.
            more: what else programs are told of the decision.

        Raises:
            Malformed: to the caller there is no such method, configured or not.
        """
        if call is None:
            call = self.attempt(message, principal)
        unknown = call.tool.kind == "method" and not sees(principal, call)
        # Counted as it is told: the counts are shown to anybody, and what is out of sight stays so.
        if not unknown:
            self.house.decisions[answers.told(deny.reason, call.tool.kind)] += 1
        try:
            await self._commit_denied(call, deny)
        except Refused as refusal:
            deny = replace(deny, reason=refusal.reason, rule="", pointer="")
        if unknown:
            raise answers.no_method(message)
        if message.flight.cancelled:
            return None
        server = call.server if isinstance(call, Bound) else None
        command = server.about.pin_command(principal.tenant) if server else ""
        served = Served(served_by(self.house), modern=False)
        return answers.denial(
            message,
            call.id,
            deny,
            server=served,
            pin_command=command,
            kind=call.tool.kind,
            hint=hint,
            more=more or {},
        )

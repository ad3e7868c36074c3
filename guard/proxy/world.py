"""The real world that `flow` asks: each step handed to the room that does it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Literal

from guard.artifact.grant import Grant
from guard.artifact.verify import ArtifactRefused, VerifiedGrant
from guard.core.canonical import b64, sha256
from guard.core.errors import Reason, Refused
from guard.core.model import (
    CONVERSATION_META,
    SUBJECTS,
    Allow,
    Call,
    Conversation,
    Decision,
    Deny,
    Facts,
    Parent,
    Pin,
    Principal,
    Tool,
    subject,
)
from guard.lineage.store import (
    CONTAINMENT,
    REVOCATION,
    Conflict,
    Moved,
    pins_version,
)
from guard.policy.decide import decide, visible
from guard.proxy import answers, records, wire
from guard.proxy.answers import Served
from guard.proxy.asker import Asker
from guard.proxy.bound import Bound, bound_to, check_mirrored, params_for, sees, server_named, trail_of
from guard.proxy.endings import Ending, Failed, Returned, Unknown
from guard.proxy.house import Generation, House
from guard.proxy.links import Link, ToolServer
from guard.proxy.listing import served_by
from guard.proxy.shelves import Shelves

OBLIGATIONS: Final = frozenset({"observed"})
"""What this enforcement point can do: mark artifact and entry as observed."""
ID_BYTES: Final = 16
MAX_REBINDS: Final = 10


def random_id() -> str:
    """128 random bits, base64url."""
    return b64(os.urandom(ID_BYTES))


class Gate:
    """The world of one client.

    Args:
        house: what all clients share.
        identify: makes a Principal of the credential that came with the launch or the request;
            raises Refused. Nothing in a message has a say.
        conversation: where calls belong that name no conversation.
        seen: who it was a moment ago, where the transport had to ask already.

    Attributes:
        asker: the client itself, once it shook hands; None for 2026-07-28, which has no sessions.
    """

    def __init__(
        self,
        house: House,
        identify: Callable[[], Principal],
        conversation: Conversation,
        seen: Principal | None = None,
    ) -> None:
        self.house = house
        self.conversation = conversation
        self.asker: Asker | None = None
        self._identify = identify
        self._seen = seen
        self._issuer = house.issuer
        self._log = house.log
        self._clock = house.clock

    # -- 2, 3 ----------------------------------------------------------------------------------

    @property
    def home(self) -> Conversation:
        """Where its calls belong that name no conversation."""
        configured = self.house.generation.conversation
        if self.conversation.source == "inferred" and configured is not None:
            return Conversation(configured, "launch")
        return self.conversation

    def identify(self, message: wire.Request | None = None) -> Principal:
        """Who asks. Nothing in the message has a say."""
        if message is not None and (seen := self._seen) is not None:
            self._seen = None  # good for the first step of one call: `bind` asks again. A list asks now
            return seen
        return self._identify()

    async def bind(self, message: wire.Request, principal: Principal) -> Call:
        """The message as it would be sent, and the facts around it."""
        for _ in range(MAX_REBINDS):
            before = self.house.generation
            try:
                server, name, link = await self._find(before, message, principal)
            except Refused:
                if self.house.generation is before:
                    raise
                continue  # its server went with the old configuration
            generation = await self.house.settled()
            # From here to the snapshot nothing is awaited: what it reads belongs to this generation.
            if generation is not before:
                continue
            conversation = self._conversation(message)
            about = server.about.name if server else ""
            snapshot = self._log.store.snapshot(
                principal,
                conversation,
                (about, name),
                own_only=generation.policy.may_assert_conversations(principal.role),
            )
            if generation.policy.ref.versioned in snapshot.versions:
                break
            await self.house.adopt(principal.tenant, generation.policy)
        else:
            raise Refused(Reason.CONTENDED, "the configuration changes faster than calls can be bound")
        again = self.identify(message)  # after the versions were read, or step 6 sees no move
        if again is not principal and again != principal:
            raise Refused(Reason.UNEXPECTED, "the credential changed its meaning")
        kind = subject(message.method, message.params)[0]
        if kind != "tool":
            tool = Tool(about, name, pin=Pin.MATCHES if link else Pin.ABSENT, kind=kind)
        elif link is not None:
            link.catalog.at(snapshot.versions)
            tool = link.catalog.tool(name)
            if message.flight.headers is not None and message.modern:
                check_mirrored(message, link.catalog.mirroring(name), message.flight.headers)
        else:
            tool = Tool(about, name)
        now = self._clock()
        at = max(now, snapshot.last)
        facts = Facts(
            now=now,
            last=snapshot.last,
            artifact_key=self._issuer.usable(now // 1000),
            store_writable=self._log.failure is None,
            contained=snapshot.contained,
            versions=snapshot.versions,
            used=self._used(generation, principal, tool, conversation, at) if link else {},
        )
        call = Bound(
            id=random_id(),
            principal=principal,
            tool=tool,
            audience=server.about.audience if server else "",
            method=message.method,
            params=params_for(message, name),
            conversation=conversation,
            facts=facts,
            fault=message.fault,
            traceparent=message.traceparent,
            parent=self._parent(message, generation, now),
            generation=generation,
            server=server,
            upstream=link.upstream if link else None,
        )
        if "requestState" in call.params and call.method in SUBJECTS:  # any other method's is its own
            state = self.house.seal.open(call.params["requestState"], call)
            call = replace(call, params={**call.params, "requestState": state})
        return call

    def _used(
        self, generation: Generation, principal: Principal, tool: Tool, conversation: Conversation, at: int
    ) -> Mapping[str, int]:
        """How much was taken of every limit on what is called, at that time (UNIX ms)."""
        wanted = generation.policy.reservations(principal, tool, conversation)
        if not wanted:
            return {}
        since = [(one.counter, at - one.window) for one in wanted]
        found = self._log.store.used(principal.tenant, since)
        return {one.limit: amount for one, amount in zip(wanted, found, strict=True)}

    async def _find(
        self, generation: Generation, message: wire.Request, principal: Principal
    ) -> tuple[ToolServer | None, str, Link | None]:
        """The server, its own name for what is asked, and a running link; None where it is not to be asked.

        Nobody starts or waits for a server by naming what is out of their sight.
        """
        kind, exposed = subject(message.method, message.params)
        flight = message.flight
        flight.parked = asyncio.current_task()  # a server's start may take long
        try:
            if kind == "resource":
                server, name = await Shelves(generation, principal, self.asker).owner(exposed), exposed
            else:
                server, name = server_named(generation, kind, exposed)
            if server is None or not visible(
                principal, server.about.name, name, frozenset(), generation.policy, kind=kind
            ):
                return server, name, None
            link = server.link(principal, self.asker)
            await (link.fresh() if kind == "tool" else link.ready())
        except asyncio.CancelledError:
            if not flight.was_barred():
                raise
            raise Refused(flight.barred or Reason.CANCELLED) from None
        finally:
            flight.parked = None
        return server, name, link

    def _conversation(self, message: wire.Request) -> Conversation:
        if CONVERSATION_META in message.meta:
            return Conversation(message.meta[CONVERSATION_META], "meta")
        return self.home

    def _parent(self, message: wire.Request, generation: Generation, now: int) -> Parent | None:
        """An artifact that came along: noted, believed only from a trusted issuer, never passed on."""
        token = message.artifact
        if token is None or message.flight.parent is not None:
            return message.flight.parent
        digest = sha256(token.encode("utf-8", "replace"))
        for verifier in generation.parents:
            try:
                verified = verifier.verify(
                    token.encode("ascii", "replace"), message.method, message.params, now=now / 1000
                )
            except ArtifactRefused:
                continue
            message.flight.parent = Parent("verified", digest, verified.claims["txn"])
            return message.flight.parent
        return Parent("claimed", digest)

    # -- 4, 5 ----------------------------------------------------------------------------------

    def decide(self, call: Call) -> Decision:
        """The one function that says yes."""
        if not isinstance(call, Bound) or call.generation is None:
            raise Refused(Reason.UNEXPECTED, "the call is bound to no policy")
        return decide(call, call.generation.policy)  # of no server: a tool that does not exist

    def issue(self, call: Call, allow: Allow) -> Grant:
        """Sign, unless the decision asks for what this enforcement point cannot do."""
        if not OBLIGATIONS.issuperset(allow.obligations):
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
            policy.versioned: policy.version,
            pins: versions.get(pins, 0),
        }
        outcome = await self._log.commit(
            records.granted(
                call, allow, grant, policy, now=self._clock(), instance=self.house.instance, expects=expects
            )
        )
        if isinstance(outcome, Moved):
            full = next((one.limit for one in allow.reservations if one.counter == outcome.key), None)
            return Deny(Reason.CONTENDED) if full is None else Deny(Reason.LIMIT_REACHED, full)
        if isinstance(outcome, Conflict):
            raise Refused(outcome.reason, outcome.what)
        trail_of(call).conversation = outcome.conversation
        self.house.decisions["allow"] += 1
        return True

    async def end(self, call: Call, ending: Ending) -> None:
        """Give the grant its one ending. Waited for where nothing was sent, or under `strict`."""
        conversation = trail_of(call).conversation
        transaction = records.ended(call, ending, conversation, now=self._clock())
        if isinstance(ending, Failed):
            outcome = await self._log.commit(transaction)
            if ending.integrity:
                self.house.warden.moved()
            if isinstance(outcome, Conflict):
                # `record` failed before anything stood: there is an attempt, and no grant to end.
                await self._commit_denied(call, Deny(ending.reason))
        elif bound_to(call)[0].strict:
            await self._log.commit(transaction)
        else:
            self._log.enqueue(transaction)

    async def _commit_denied(self, call: Call, deny: Deny) -> None:
        generation = call.generation if isinstance(call, Bound) and call.generation else self.house.generation
        ref, now = generation.policy.ref, self._clock()
        sealed = "sealed" in call.facts.contained
        made = records.denied(call, deny, ref, now=now, sealed=sealed)
        if isinstance(await self._log.commit(made), Conflict) and not sealed:  # it was sealed meanwhile
            await self._log.commit(records.denied(call, deny, ref, now=now, sealed=True))

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
        message.flight.call = call  # from here on the warden looks after it
        return await upstream.dispatch(verified, message.method, message.meta, message.flight)

    # -- 10 ------------------------------------------------------------------------------------

    def reply(self, message: wire.Request, call: Call, ending: Ending) -> bytes | None:
        """What the client is told of an ending; nothing where it called the request off."""
        if message.flight.cancelled:
            return None
        if message.flight.barred is not None and isinstance(ending, Returned):
            ending = Unknown(message.flight.barred, executed=True)
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
        self, message: wire.Request, principal: Principal, call: Call | None, deny: Deny
    ) -> bytes | None:
        """Record the attempt and say no. A record that fails changes nothing about the no.

        Raises:
            Malformed: to the caller there is no such method, configured or not.
        """
        if call is None:
            call = self._attempt(message, principal)
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
        return answers.denial(message, call.id, deny, server=served, pin_command=command, kind=call.tool.kind)

    def _attempt(self, message: wire.Request, principal: Principal) -> Call:
        """What is known of a call that could not be bound."""
        generation = self.house.generation
        kind, exposed = subject(message.method, message.params)
        server, name = server_named(generation, kind, exposed)
        return Bound(
            id=random_id(),
            principal=principal,
            tool=Tool(server.about.name if server else "", name, kind=kind),
            audience=server.about.audience if server else "",
            method=message.method,
            params=params_for(message, name),
            conversation=self._conversation(message),
            facts=Facts(now=self._clock()),
            fault=message.fault,
            generation=generation,
            server=server,
        )

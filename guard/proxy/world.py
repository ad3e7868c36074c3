"""The real world that `flow` asks: each step handed to the room that does it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from guard.artifact.grant import Grant
from guard.artifact.verify import ArtifactRefused, VerifiedGrant
from guard.core.canonical import b64, sha256
from guard.core.errors import Reason, Refused
from guard.core.model import (
    CONVERSATION_META,
    Allow,
    Call,
    Conversation,
    Decision,
    Deny,
    Facts,
    Parent,
    Principal,
    Tool,
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
from guard.proxy.endings import Ending, Failed
from guard.proxy.house import Generation, House
from guard.proxy.links import Link, ToolServer
from guard.proxy.listing import served_by
from guard.proxy.upstream import Upstream

OBLIGATIONS: Final = frozenset({"observed"})
"""What this enforcement point can do: mark artifact and entry as observed."""
ID_BYTES: Final = 16
MAX_REBINDS: Final = 10


def random_id() -> str:
    """128 random bits, base64url."""
    return b64(os.urandom(ID_BYTES))


@dataclass(slots=True)
class Trail:
    """What becomes known of a call on its way.

    Attributes:
        conversation: the log's own id of its conversation, once its grant stands.
    """

    conversation: str = ""


@dataclass(frozen=True, slots=True)
class Bound(Call):
    """A call, with the generation that it was bound in and the server that it would be sent to."""

    generation: Generation | None = None
    server: ToolServer | None = None
    upstream: Upstream | None = None
    trail: Trail = field(default_factory=Trail, compare=False, repr=False)


class Gate:
    """The world of one client.

    Args:
        house: what all clients share.
        identify: makes a Principal of the credential that came with the launch or the request;
            raises Refused. Nothing in a message has a say.
        conversation: where calls belong that name no conversation.
    """

    def __init__(self, house: House, identify: Callable[[], Principal], conversation: Conversation) -> None:
        self.house = house
        self.conversation = conversation
        self._identify = identify
        self._issuer = house.issuer
        self._log = house.log
        self._clock = house.clock

    # -- 2, 3 ----------------------------------------------------------------------------------

    def identify(self, message: wire.Request | None = None) -> Principal:  # noqa: ARG002 - the transport says who
        """Who asks. Nothing in the message has a say."""
        return self._identify()

    async def bind(self, message: wire.Request, principal: Principal) -> Call:
        """The message as it would be sent, and the facts around it."""
        for _ in range(MAX_REBINDS):
            before = self.house.generation
            try:
                server, name, link = await self._find(before, message.params["name"], principal)
            except Refused:
                if self.house.generation is before:
                    raise
                continue  # its server went with the old configuration
            generation = await self.house.settled()
            # From here to the snapshot nothing is awaited: what it reads belongs to this generation.
            if generation is not before:
                continue
            conversation = self._conversation(message, generation)
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
        if self.identify(message) != principal:  # asked after the versions were read, or step 6 sees no move
            raise Refused(Reason.UNEXPECTED, "the credential changed its meaning")
        tool = Tool(about, name)
        if link is not None:
            link.catalog.at(snapshot.versions)
            tool = link.catalog.tool(name)
        now = self._clock()
        facts = Facts(
            now=now,
            last=snapshot.last,
            artifact_key=self._issuer.usable(now // 1000),
            store_writable=self._log.failure is None,
            contained=snapshot.contained,
            versions=snapshot.versions,
        )
        return Bound(
            id=random_id(),
            principal=principal,
            tool=tool,
            audience=server.about.audience if server else "",
            method=message.method,
            params=_params(message, name),
            conversation=conversation,
            facts=facts,
            fault=message.fault,
            traceparent=message.traceparent,
            parent=self._parent(message, generation, now),
            generation=generation,
            server=server,
            upstream=link.upstream if link else None,
        )

    async def _find(
        self, generation: Generation, exposed: str, principal: Principal
    ) -> tuple[ToolServer | None, str, Link | None]:
        """The server, its own name for the tool, and a running link; None where it is not to be asked.

        Nobody starts or waits for a server by naming a tool that is out of their sight.
        """
        server, name = generation.find(exposed) or (None, exposed)
        if server is None or not visible(principal, server.about.name, name, frozenset(), generation.policy):
            return server, name, None
        link = server.link(principal)
        await link.fresh()
        return server, name, link

    def _conversation(self, message: wire.Request, generation: Generation) -> Conversation:
        if CONVERSATION_META in message.meta:
            return Conversation(message.meta[CONVERSATION_META], "meta")
        if self.conversation.source == "inferred" and generation.conversation is not None:
            return Conversation(generation.conversation, "launch")
        return self.conversation

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
        ref = _bound(call)[0].policy.ref
        return self._issuer.issue(call, allow, ref, now=call.facts.now // 1000, jti=random_id())

    # -- 6, 9 ----------------------------------------------------------------------------------

    async def record(self, call: Call, allow: Allow, grant: Grant) -> bool:
        """Make the grant durable, if nothing moved under the decision."""
        generation, server = _bound(call)
        versions, policy = call.facts.versions, generation.policy.ref
        transaction = records.granted(
            call, allow, grant, policy, now=self._clock(), instance=self.house.instance
        )
        expects = {
            CONTAINMENT: versions.get(CONTAINMENT, 0),
            REVOCATION: versions.get(REVOCATION, 0),
            policy.versioned: policy.version,
            pins_version(server.about.name): versions.get(pins_version(server.about.name), 0),
        }
        outcome = await self._log.commit(replace(transaction, expects=expects))
        if isinstance(outcome, Moved):
            return False
        if isinstance(outcome, Conflict):
            raise Refused(Reason.UNEXPECTED, outcome.what)
        _trail(call).conversation = outcome.conversation
        self.house.decisions["allow"] += 1
        return True

    async def end(self, call: Call, ending: Ending) -> None:
        """Give the grant its one ending. Waited for where nothing was sent, or under `strict`."""
        conversation = _trail(call).conversation
        transaction = records.ended(call, ending, conversation, now=self._clock())
        if isinstance(ending, Failed):
            if isinstance(await self._log.commit(transaction), Conflict):
                # `record` failed before anything stood: there is an attempt, and no grant to end.
                await self._commit_denied(call, Deny(ending.reason))
        elif _bound(call)[0].strict:
            await self._log.commit(transaction)
        else:
            self._log.enqueue(transaction)

    async def _commit_denied(self, call: Call, deny: Deny) -> None:
        generation = call.generation if isinstance(call, Bound) and call.generation else self.house.generation
        await self._log.commit(records.denied(call, deny, generation.policy.ref, now=self._clock()))

    # -- 7, 8 ----------------------------------------------------------------------------------

    def verify(self, grant: Grant, call: Call) -> VerifiedGrant:
        """Check the artifact as a stranger would: public keys only."""
        return _bound(call)[1].about.verifier.verify(
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
        upstream = call.upstream if isinstance(call, Bound) else None
        served = Served(served_by(self.house), modern=upstream is not None and upstream.modern)
        return answers.ending(message, call.id, ending, server=served)

    async def refuse(
        self, message: wire.Request, principal: Principal, call: Call | None, deny: Deny
    ) -> bytes | None:
        """Record the attempt and say no. A record that fails changes nothing about the no."""
        if call is None:
            call = self._attempt(message, principal)
        # Counted as it is told: the counts are shown to anybody, and what is out of sight stays so.
        self.house.decisions[answers.told(deny.reason)] += 1
        try:
            await self._commit_denied(call, deny)
        except Refused as refusal:
            deny = replace(deny, reason=refusal.reason, rule="", pointer="")
        if message.flight.cancelled:
            return None
        server = call.server if isinstance(call, Bound) else None
        command = server.about.pin_command(principal.tenant) if server else ""
        served = Served(served_by(self.house), modern=False)
        return answers.denial(message, call.id, deny, server=served, pin_command=command)

    def _attempt(self, message: wire.Request, principal: Principal) -> Call:
        """What is known of a call that could not be bound."""
        generation = self.house.generation
        server, name = generation.find(message.params["name"]) or (None, message.params["name"])
        return Bound(
            id=random_id(),
            principal=principal,
            tool=Tool(server.about.name if server else "", name),
            audience=server.about.audience if server else "",
            method=message.method,
            params=_params(message, name),
            conversation=self._conversation(message, generation),
            facts=Facts(now=self._clock()),
            fault=message.fault,
            generation=generation,
            server=server,
        )


def _bound(call: Call) -> tuple[Generation, ToolServer]:
    """What the call was bound to.

    Raises:
        Refused: UNEXPECTED; it was bound to no server, so nothing may be granted.
    """
    if not isinstance(call, Bound) or call.generation is None or call.server is None:
        raise Refused(Reason.UNEXPECTED, "the call is bound to no server")
    return call.generation, call.server


def _trail(call: Call) -> Trail:
    return call.trail if isinstance(call, Bound) else Trail()


def _params(message: wire.Request, name: str) -> Mapping[str, Any]:
    """The params as they would be sent: the server's own name for the tool, all else as judged."""
    if message.fault:
        return {"name": name}
    return message.params if message.params["name"] == name else {**message.params, "name": name}

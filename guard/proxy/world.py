"""The real world that `flow` asks: each step handed to the room that does it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from guard.artifact.grant import Grant, Issuer
from guard.artifact.verify import ArtifactRefused, VerifiedGrant, Verifier
from guard.core.canonical import b64, sha256, write
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
    Pin,
    Principal,
    args_sha256,
)
from guard.lineage.entry import Kind
from guard.lineage.log import Log, entry
from guard.lineage.store import (
    CONTAINMENT,
    REVOCATION,
    CloseGrant,
    Conflict,
    Contain,
    Effect,
    Moved,
    OpenGrant,
    Place,
    Transaction,
    UseKey,
    pins_version,
)
from guard.policy.decide import decide
from guard.policy.rules import Policy
from guard.proxy import answers, wire
from guard.proxy.catalog import Catalog
from guard.proxy.endings import Ending, Failed, Returned, Unknown
from guard.proxy.upstream import Upstream

OBLIGATIONS: Final = frozenset({"observed"})
"""What this enforcement point can do: mark artifact and entry as observed."""
ID_BYTES: Final = 16
MAX_KEPT: Final = 64 * 1024
"""Bytes of a denied call's params that are kept; of larger ones only the digest is."""
_KINDS: Final = {Returned: Kind.RETURNED, Failed: Kind.FAILED, Unknown: Kind.UNKNOWN}


def random_id() -> str:
    """128 random bits, base64url."""
    return b64(os.urandom(ID_BYTES))


@dataclass(frozen=True, slots=True)
class Setting:
    """What does not change while one server is guarded.

    Attributes:
        audience: the operator's id of the server, the `aud` of its artifacts.
        conversation: the launch setting's conversation id, None to mint one.
        instance: who owes the endings.
        strict: whether a result waits until its ending is durable.
        pin_command: what the operator runs to accept a tool.
    """

    audience: str
    instance: str
    pin_command: str
    conversation: str | None = None
    strict: bool = False


class Gate:
    """The world of one guarded server.

    Args:
        identify: makes a Principal of the launch's credential; raises Refused.
        clock: UNIX milliseconds.
        parents: verifiers of artifacts that clients present, one for each trusted issuer.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        policy: Policy,
        identify: Callable[[], Principal],
        catalog: Catalog,
        issuer: Issuer,
        verifier: Verifier,
        log: Log,
        upstream: Upstream,
        clock: Callable[[], int],
        parents: Sequence[Verifier] = (),
    ) -> None:
        self.setting = setting
        self.policy = policy
        self.catalog = catalog
        self.upstream = upstream
        self._identify = identify
        self._issuer = issuer
        self._verifier = verifier
        self._log = log
        self._clock = clock
        self._parents = parents
        self._inferred = random_id()
        self._conversations: dict[str, str] = {}

    # -- 2, 3 ----------------------------------------------------------------------------------

    def identify(self, message: wire.Request | None = None) -> Principal:  # noqa: ARG002 - on stdio the launch says who
        """Who asks. Nothing in the message has a say."""
        return self._identify()

    async def current(self) -> None:
        """Bring the catalog up to what the server shows and the store holds now."""
        await self.catalog.fresh()
        self.catalog.at(self._log.store.versions(self._identify().tenant))

    async def bind(self, message: wire.Request, principal: Principal) -> Call:
        """The message as it would be sent, and the facts around it."""
        await self.catalog.fresh()
        name = message.params["name"]
        conversation = self._conversation(message)
        snapshot = self._log.store.snapshot(
            principal,
            conversation,
            (self.catalog.server, name),
            own_only=self.policy.may_assert_conversations(principal.role),
        )
        if self.identify(message) != principal:  # asked after the versions were read, or step 6 sees no move
            raise Refused(Reason.UNEXPECTED, "the credential changed its meaning")
        self.catalog.at(snapshot.versions)
        now = self._clock()
        facts = Facts(
            now=now,
            last=snapshot.last,
            artifact_key=self._issuer.usable(now // 1000),
            store_writable=self._log.failure is None,
            contained=snapshot.contained,
            versions=snapshot.versions,
        )
        params = {"name": name} if message.fault else message.params
        return Call(
            id=random_id(),
            principal=principal,
            tool=self.catalog.tool(name),
            audience=self.setting.audience,
            method=message.method,
            params=params,
            conversation=conversation,
            facts=facts,
            fault=message.fault,
            traceparent=message.traceparent,
            parent=self._parent(message, now),
        )

    def _conversation(self, message: wire.Request) -> Conversation:
        if CONVERSATION_META in message.meta:
            return Conversation(message.meta[CONVERSATION_META], "meta")
        if self.setting.conversation is not None:
            return Conversation(self.setting.conversation, "launch")
        return Conversation(self._inferred, "inferred")

    def _parent(self, message: wire.Request, now: int) -> Parent | None:
        """An artifact that came along: noted, believed only from a trusted issuer, never passed on."""
        token = message.artifact
        if token is None or message.flight.parent is not None:
            return message.flight.parent
        digest = sha256(token.encode("utf-8", "replace"))
        for verifier in self._parents:
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
        return decide(call, self.policy)

    def issue(self, call: Call, allow: Allow) -> Grant:
        """Sign, unless the decision asks for what this enforcement point cannot do."""
        if not OBLIGATIONS.issuperset(allow.obligations):
            raise Refused(Reason.UNKNOWN_OBLIGATION, "an obligation that Guard does not know")
        return self._issuer.issue(call, allow, self.policy.ref, now=call.facts.now // 1000, jti=random_id())

    # -- 6, 9 ----------------------------------------------------------------------------------

    async def record(self, call: Call, allow: Allow, grant: Grant) -> bool:
        """Make the grant durable, if nothing moved under the decision."""
        fields = self._asked(call) | {
            "args_sha256": grant.args_sha256,
            "tool_def_sha256": call.tool.sha256,
            "decision": {"rules": allow.rules, "scopes": allow.scopes, "mode": allow.mode},
            "artifact": {"sha256": grant.sha256, "aud": call.audience, "exp": grant.expires},
        }
        versions = call.facts.versions
        transaction = self._transaction(
            call,
            Kind.GRANTED,
            fields,
            (OpenGrant(call.id, self.setting.instance), *_key_used(call.principal)),
        )
        expects = {
            CONTAINMENT: versions.get(CONTAINMENT, 0),
            REVOCATION: versions.get(REVOCATION, 0),
            self.policy.ref.versioned: self.policy.ref.version,
            pins_version(self.catalog.server): versions.get(pins_version(self.catalog.server), 0),
        }
        outcome = await self._log.commit(replace(transaction, expects=expects))
        if isinstance(outcome, Moved):
            return False
        if isinstance(outcome, Conflict):
            raise Refused(Reason.UNEXPECTED, outcome.what)
        self._conversations[call.id] = outcome.conversation
        return True

    async def end(self, call: Call, ending: Ending) -> None:
        """Give the grant its one ending. Waited for where nothing was sent, or under `strict`."""
        conversation = self._conversations.pop(call.id, "")
        effects: tuple[Effect, ...] = (CloseGrant(call.id),)
        fields: dict[str, Any] = (
            {"result": {"sha256": sha256(ending.raw), "is_error": ending.is_error}}
            if isinstance(ending, Returned)
            else {"reason": ending.reason.value}
        )
        if isinstance(ending, Failed) and ending.integrity and conversation:
            effects += (Contain("conversation", conversation),)
            fields["contained"] = "conversation"
        transaction = self._transaction(call, _KINDS[type(ending)], fields, effects)
        if isinstance(ending, Failed):
            if isinstance(await self._log.commit(transaction), Conflict):
                # `record` failed before anything stood: there is an attempt, and no grant to end.
                await self._log.commit(self._denied(call, Deny(ending.reason)))
        elif self.setting.strict:
            await self._log.commit(transaction)
        else:
            self._log.enqueue(transaction)

    def _transaction(
        self, call: Call, kind: Kind, fields: Mapping[str, Any], effects: tuple[Effect, ...]
    ) -> Transaction:
        place = Place(call.principal.tenant, call.principal, call.conversation)
        return Transaction(place, entry(kind, call.id, fields), self._clock(), effects=effects)

    def _denied(self, call: Call, deny: Deny) -> Transaction:
        asked = self._asked(call)
        if len(write(call.params)) > MAX_KEPT:
            asked["arguments"] = None
        fields = asked | {
            "decision": {"reason": deny.reason, "rule": deny.rule, "pointer": deny.pointer},
            "args_sha256": None if call.fault else args_sha256(call.params),
        }
        return self._transaction(call, Kind.DENIED, fields, _key_used(call.principal))

    def _asked(self, call: Call) -> dict[str, Any]:
        who = call.principal
        return {
            "tenant": who.tenant,
            "principal": [who.issuer, who.subject],
            "role": who.role,
            "credential": who.credential,
            "conversation": {"id": call.conversation.id, "source": call.conversation.source},
            "server": call.tool.server,
            "tool": call.tool.name,
            "arguments": None if call.fault else call.params.get("arguments", {}),
            "policy": {
                "id": self.policy.ref.id,
                "version": self.policy.ref.version,
                "sha256": self.policy.ref.sha256,
            },
            "traceparent": call.traceparent,
            "parent": call.parent and {"edge": call.parent.edge, "sha256": call.parent.sha256},
        }

    # -- 7, 8 ----------------------------------------------------------------------------------

    def verify(self, grant: Grant, call: Call) -> VerifiedGrant:
        """Check the artifact as a stranger would: public keys only."""
        return self._verifier.verify(
            grant.token,
            call.method,
            call.params,
            now=self._clock() / 1000,
            definition_sha256=call.tool.sha256,
        )

    async def dispatch(self, verified: VerifiedGrant, message: wire.Request) -> Ending:
        """Send it, once."""
        return await self.upstream.dispatch(verified, message.method, message.meta, message.flight)

    # -- 10 ------------------------------------------------------------------------------------

    def reply(self, message: wire.Request, call: Call, ending: Ending) -> bytes | None:
        """What the client is told of an ending; nothing where it called the request off."""
        if message.flight.cancelled:
            return None
        return answers.ending(message, call.id, ending, server=self.upstream)

    async def refuse(
        self, message: wire.Request, principal: Principal, call: Call | None, deny: Deny
    ) -> bytes | None:
        """Record the attempt and say no. A record that fails changes nothing about the no."""
        if call is None:
            call = self._attempt(message, principal)
        try:
            await self._log.commit(self._denied(call, deny))
        except Refused as refusal:
            deny = replace(deny, reason=refusal.reason, rule="", pointer="")
        if message.flight.cancelled:
            return None
        return answers.denial(
            message, call.id, deny, server=self.upstream, pin_command=self.setting.pin_command
        )

    def _attempt(self, message: wire.Request, principal: Principal) -> Call:
        """What is known of a call that could not be bound."""
        params = {"name": message.params["name"]} if message.fault else message.params
        return Call(
            id=random_id(),
            principal=principal,
            tool=replace(self.catalog.tool(message.params["name"]), pin=Pin.ABSENT),
            audience=self.setting.audience,
            method=message.method,
            params=params,
            conversation=self._conversation(message),
            facts=Facts(now=self._clock()),
            fault=message.fault,
        )


def _key_used(principal: Principal) -> tuple[Effect, ...]:
    return (UseKey(principal.credential),) if principal.issuer == "api-key" else ()

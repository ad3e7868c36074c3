"""What is written down of a call: the entries of its attempt, its grant and its ending."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

from guard.artifact.grant import Grant
from guard.core.canonical import sha256, write
from guard.core.errors import Reason
from guard.core.model import (
    UNBOUNDED,
    Allow,
    Approval,
    Call,
    Deny,
    PolicyRef,
    Principal,
    args_sha256,
)
from guard.identity.api_keys import ISSUER
from guard.lineage.effects import principal_target
from guard.lineage.entry import Kind
from guard.lineage.log import entry
from guard.lineage.store import (
    CloseGrant,
    Contain,
    Effect,
    OpenGrant,
    Place,
    Remember,
    Reserve,
    Strike,
    Transaction,
    Unmoved,
    UseApproval,
    UseKey,
)
from guard.policy.rules import Policy
from guard.proxy.endings import Ending, Failed, Returned, Unknown
from guard.proxy.facts import pending
from guard.proxy.obligations import is_withheld
from guard.proxy.remembering import Memory

MAX_KEPT: Final = 64 * 1024
"""Bytes of a denied call's params that are kept; of larger ones only the digest is."""
CALL: Final = "tools/call"
NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
BLAMED: Final = frozenset(
    {
        Reason.ARGUMENTS_NOT_IJSON,
        Reason.UNKNOWN_TOOL,
        Reason.UNKNOWN_METHOD,
        Reason.UNKNOWN_RESOURCE,
        Reason.UNKNOWN_PROMPT,
        Reason.STATE_INVALID,
        Reason.TOOL_NOT_VISIBLE,
        Reason.UNAUTHORIZED_ROLE,
        Reason.PROTECTED,
        Reason.MISSING_SCOPE,
        Reason.INTENT_UNMATCHED,
        Reason.DEFAULT_DENY,
        Reason.LIMIT_REACHED,
        Reason.OUTSIDE_INTENT,
        Reason.OUTSIDE_HOURS,
        Reason.AMOUNT_UNREADABLE,
        Reason.REQUIRED_FIRST,
        Reason.FORBIDDEN_AFTER,
        Reason.ORIGIN_REFUSED,
        Reason.APPROVAL_REFUSED,
    }
)
"""Denials that a caller answers for: enough of them put it out of use, where the policy says so."""
_KINDS: Final = {Returned: Kind.RETURNED, Failed: Kind.FAILED, Unknown: Kind.UNKNOWN}


def granted(
    call: Call,
    allow: Allow,
    grant: Grant,
    policy: PolicyRef,
    *,
    now: int,
    instance: str,
    expects: Mapping[str, int] = NOTHING,
    memory: Memory | None = None,
) -> Transaction:
    """A grant begins, owed an ending by this instance, and takes what the decision says it must.

    Args:
        now: UNIX milliseconds.
        expects: the versions that must still stand.
        memory: where what its server says will be remembered: until it is, the memory is not whole.
    """
    fields = _asked(call, policy) | {
        "args_sha256": grant.args_sha256,
        "tool_def_sha256": call.tool.sha256,
        "decision": {"rules": allow.rules, "scopes": allow.scopes, "mode": allow.mode},
        "artifact": {"sha256": grant.sha256, "aud": call.audience, "exp": grant.expires},
    }
    effects: tuple[Effect, ...] = (OpenGrant(call.id, instance), *_key_used(call.principal))
    if allow.reservations:
        effects += tuple(
            Reserve(one.counter, call.id, one.amount, one.most, one.window, one.held)
            for one in allow.reservations
        )
    if memory is not None:
        effects += (Reserve(pending(memory.name), call.id, 1, UNBOUNDED, memory.window, held=True),)
        if allow.rests_on_seen and call.facts.seen is not None:
            effects += (Unmoved(memory.name, call.facts.seen.version),)
    if allow.approved and (approval := call.facts.approval) is not None:
        effects += (UseApproval(approval.id),)
        fields["approval"] = approved_by(approval)
    return Transaction(_place(call), entry(Kind.GRANTED, call.id, fields), now, expects, effects)


def denied(
    call: Call,
    deny: Deny,
    policy: PolicyRef,
    *,
    now: int,
    sealed: bool = False,
    strikes: tuple[Strike, ...] = (),
) -> Transaction:
    """An attempt that was denied. `now` is UNIX milliseconds.

    Nothing is appended to a conversation that is `sealed`: the house's own holds the attempt.
    """
    asked = _asked(call, policy)
    if sealed:  # named so that it is not taken for whose conversation the entry stands in
        asked["conversation"] = {"sealed": call.conversation.id, "source": call.conversation.source}
    if len(write(call.params)) > MAX_KEPT:
        asked["arguments"] = None
    fields = asked | {
        "decision": {"reason": deny.reason, "rule": deny.rule, "pointer": deny.pointer},
        "args_sha256": None if call.fault else args_sha256(call.params, call.method),
    }
    place = Place(call.principal.tenant) if sealed else _place(call)
    effects = (*_key_used(call.principal), *strikes)
    return Transaction(place, entry(Kind.DENIED, call.id, fields), now, NOTHING, effects)


def strikes(policy: Policy, call: Call, deny: Deny) -> tuple[Strike, ...]:
    """What a denial counts towards: only one that the caller has to answer for."""
    if deny.reason not in BLAMED:
        return ()
    who = call.principal
    found: list[Strike] = []
    for layer in policy.layers:
        scope = layer.scope(who, call.tool, call.conversation)
        for kind, most in layer.strikes.items():
            counter = f"strikes/{kind}/{scope.name(frozenset({kind}))}"
            target = principal_target(who.issuer, who.subject) if kind == "principal" else ""
            found.append(Strike(counter, call.id, most.denials, most.window, kind, target))
    return tuple(found)


def ended(
    call: Call,
    ending: Ending,
    conversation: str,
    *,
    now: int,
    allow: Allow | None = None,
    keep: Remember | None = None,
    told: bool = False,
) -> Transaction:
    """A grant ends. `conversation` is the log's own id of it, "" if the grant is not known to stand.

    Only where nothing was sent is given back what was reserved: whoever does not know gives nothing back.

    Args:
        now: UNIX milliseconds.
        allow: what was granted, None where that is not known.
        keep: what is remembered of what its server said; None where there is nothing.
        told: whether the policy remembers, and this is all that there is to.
    """
    held = allow is not None and any(one.held for one in allow.reservations)
    known = isinstance(ending, Returned)
    effects: list[Effect] = [
        CloseGrant(
            call.id,
            nothing_sent=isinstance(ending, Failed),
            known=held and known,
            told=told,
        )
    ]
    if keep is not None:
        effects.append(keep)
    if allow is not None and allow.marks and isinstance(ending, Returned) and is_good(ending):
        effects += [Reserve(mark.counter, call.id, 1, UNBOUNDED, mark.window) for mark in allow.marks]
    fields: dict[str, Any] = (
        {"result": {"sha256": sha256(ending.raw), "is_error": ending.is_error}}
        if isinstance(ending, Returned)
        else {"reason": ending.reason.value}
    )
    if is_withheld(ending, allow):
        fields["withheld"] = Reason.RESULT_TOO_LARGE.value
    if isinstance(ending, Failed) and ending.integrity and conversation:
        effects.append(Contain("conversation", conversation))
        fields["contained"] = "conversation"
    return Transaction(
        _place(call), entry(_KINDS[type(ending)], call.id, fields), now, NOTHING, tuple(effects)
    )


def is_good(ending: Returned) -> bool:
    """Whether it is a whole result and no error: neither JSON-RPC's nor the tool's own."""
    if ending.is_error:
        return False
    try:
        result = orjson.loads(ending.raw)
        whole = result.get("resultType", "complete") == "complete"
        return whole and result.get("isError", False) is False
    except (ValueError, AttributeError):  # what cannot be read is not good
        return False


def notes(transaction: Transaction) -> bool:
    """Whether a later decision may rest on it: something is noted, or a place is given back."""
    return any(
        isinstance(effect, Reserve | Remember) or (isinstance(effect, CloseGrant) and effect.known)
        for effect in transaction.effects
    )


def approved_by(approval: Approval) -> dict[str, str]:
    """A person's approval, as artifact and entry say it."""
    return {"id": approval.id, "approver": approval.approver, "word": approval.word}


def _place(call: Call) -> Place:
    return Place(call.principal.tenant, call.principal, call.conversation)


def _asked(call: Call, policy: PolicyRef) -> dict[str, Any]:
    who = call.principal
    said = {"user_message": call.user_message} if call.user_message else {}
    declared = {"intents": sorted(call.intents)} if call.intents else {}
    return {
        **said,
        **declared,
        "tenant": who.tenant,
        "principal": [who.issuer, who.subject],
        "role": who.role,
        "credential": who.credential,
        "conversation": {"id": call.conversation.id, "source": call.conversation.source},
        "server": call.tool.server,
        "tool": call.tool.name,
        "method": None if call.method == CALL else call.method,
        "arguments": None if call.fault else call.arguments,
        "policy": policy.as_json(),
        "traceparent": call.traceparent,
        "parent": call.parent and {"edge": call.parent.edge, "sha256": call.parent.sha256},
    }


def _key_used(principal: Principal) -> tuple[Effect, ...]:
    return (UseKey(principal.credential),) if principal.issuer == ISSUER else ()

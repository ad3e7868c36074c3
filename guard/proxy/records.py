"""What is written down of a call: the entries of its attempt, its grant and its ending."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from guard.artifact.grant import Grant
from guard.core.canonical import sha256, write
from guard.core.model import Allow, Call, Deny, PolicyRef, Principal, args_sha256
from guard.identity.api_keys import ISSUER
from guard.lineage.entry import Kind
from guard.lineage.log import entry
from guard.lineage.store import (
    CloseGrant,
    Contain,
    Effect,
    OpenGrant,
    Place,
    Reserve,
    Transaction,
    UseKey,
)
from guard.proxy.endings import Ending, Failed, Returned, Unknown

MAX_KEPT: Final = 64 * 1024
"""Bytes of a denied call's params that are kept; of larger ones only the digest is."""
CALL: Final = "tools/call"
NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
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
) -> Transaction:
    """A grant begins, owed an ending by this instance, and takes what the decision says it must.

    Args:
        now: UNIX milliseconds.
        expects: the versions that must still stand.
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
            Reserve(one.counter, call.id, one.amount, one.most, one.window) for one in allow.reservations
        )
    return Transaction(_place(call), entry(Kind.GRANTED, call.id, fields), now, expects, effects)


def denied(call: Call, deny: Deny, policy: PolicyRef, *, now: int, sealed: bool = False) -> Transaction:
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
    return Transaction(place, entry(Kind.DENIED, call.id, fields), now, NOTHING, _key_used(call.principal))


def ended(call: Call, ending: Ending, conversation: str, *, now: int) -> Transaction:
    """A grant ends. `conversation` is the log's own id of it, "" if the grant is not known to stand.

    Only where nothing was sent is given back what was reserved: whoever does not know gives nothing back.
    """
    effects: list[Effect] = [CloseGrant(call.id, nothing_sent=isinstance(ending, Failed))]
    fields: dict[str, Any] = (
        {"result": {"sha256": sha256(ending.raw), "is_error": ending.is_error}}
        if isinstance(ending, Returned)
        else {"reason": ending.reason.value}
    )
    if isinstance(ending, Failed) and ending.integrity and conversation:
        effects.append(Contain("conversation", conversation))
        fields["contained"] = "conversation"
    return Transaction(
        _place(call), entry(_KINDS[type(ending)], call.id, fields), now, NOTHING, tuple(effects)
    )


def _place(call: Call) -> Place:
    return Place(call.principal.tenant, call.principal, call.conversation)


def _asked(call: Call, policy: PolicyRef) -> dict[str, Any]:
    who = call.principal
    return {
        "tenant": who.tenant,
        "principal": [who.issuer, who.subject],
        "role": who.role,
        "credential": who.credential,
        "conversation": {"id": call.conversation.id, "source": call.conversation.source},
        "server": call.tool.server,
        "tool": call.tool.name,
        "method": None if call.method == CALL else call.method,
        "arguments": None if call.fault else call.arguments,
        "policy": {"id": policy.id, "version": policy.version, "sha256": policy.sha256},
        "traceparent": call.traceparent,
        "parent": call.parent and {"edge": call.parent.edge, "sha256": call.parent.sha256},
    }


def _key_used(principal: Principal) -> tuple[Effect, ...]:
    return (UseKey(principal.credential),) if principal.issuer == ISSUER else ()

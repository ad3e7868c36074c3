"""The facts a decision is told beside the state of the world: what was used, what was seen, who approved.

Each is read from the store while a call is bound, only where the policy asks for it, and compared again in
the transaction that records the grant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from guard.core.model import Appearance, Call, Facts, Principal, Seen
from guard.lineage.store import Store
from guard.policy.kinds import OriginRule
from guard.policy.origins.judge import candidates
from guard.policy.origins.values import Glimpses
from guard.policy.pointers import values_at
from guard.policy.rules import Policy
from guard.proxy import questions
from guard.proxy.remembering import Memory, memory_of


def pending(memory: str) -> str:
    """The counter that a grant holds until what its server said is remembered."""
    return f"pending/{memory}"


def told(store: Store, policy: Policy, call: Call, *, at: int, salt: bytes, spoken: Glimpses = ()) -> Facts:
    """The facts of a call, with all that its policy asks for.

    Args:
        store: where they are read.
        policy: which will decide.
        call: the call, bound, with the facts of the world.
        at: UNIX milliseconds of the decision.
        salt: what fingerprints are keyed with.
        spoken: what the user said with this very call.
    """
    facts, tool = call.facts, call.tool
    abouts = [layer.about(tool.server, tool.name, tool.kind) for layer in policy.layers]
    if not any(about.counts or about.questions for about in abouts):
        return facts
    if readings := policy.readings(call.principal, call.tool, call.conversation):
        since = [(one.counter, at - one.window) for one in readings]
        found = store.used(call.principal.tenant, since)
        used = {one.key: amount for one, amount in zip(readings, found, strict=True)}
        facts = replace(facts, used=used)
    if call.fault is not None:
        return facts
    if rules := policy.sensitive(tool):
        memory = memory_of(policy, call.principal, call.conversation, salt)
        if memory is not None:
            facts = replace(facts, seen=_seen(store, call, rules, memory, spoken))
    if policy.asks_about(tool):
        facts = replace(facts, approval=questions.standing(store, policy, call, at))
    return facts


def _seen(store: Store, call: Call, rules: tuple[OriginRule, ...], memory: Memory, spoken: Glimpses) -> Seen:
    wanted = {
        fingerprint
        for rule in rules
        for pointer in rule.arguments
        for _, value in values_at(call.arguments, pointer)
        for fingerprint in candidates(value, memory.salt)
    }
    found = store.recall(call.principal.tenant, memory.name, pending(memory.name), sorted(wanted))
    values: dict[bytes, tuple[Appearance, ...]] = {}
    for row in found.glimpses:
        seen = Appearance(row.source, row.trust, row.field)
        values[row.fingerprint] = (*values.get(row.fingerprint, ()), seen)
    for fingerprint, seen in spoken:
        if fingerprint in wanted:
            values[fingerprint] = (*values.get(fingerprint, ()), seen)
    return Seen(values, found.whole, memory.salt, found.version)


def versions(policy: Policy) -> Mapping[str, int]:
    """The version of each layer, as the store must know it."""
    return policy.versions


def user_may_speak(policy: Policy, principal: Principal) -> bool:
    """Whether what comes as the user's words is believed to be that, and matters."""
    return policy.may_assert_user(principal.role) and any(layer.origins for layer in policy.layers)

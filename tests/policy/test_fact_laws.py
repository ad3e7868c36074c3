"""What the facts around a call can do: none that takes trust or room away ever permits more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from guard.core.errors import Reason
from guard.core.model import Allow, Appearance, Approval, Ask, Call, Decision, Deny, Seen
from guard.policy.decide import decide
from guard.policy.origins.judge import candidates
from guard.policy.rules import Policy
from tests.policy.whole_worlds import COUNTED, SALT, approvals, calls, policies


def rank(decision: Decision) -> int:
    """How far a decision lets the call: not at all, if a person agrees, at once."""
    return [Deny, Ask, Allow].index(type(decision))


def with_facts(call: Call, **facts: Any) -> Call:
    return replace(call, facts=replace(call.facts, **facts))


def without_requests(policy: Policy) -> Policy:
    """Without the rules that speak of the whole request: one may well want that a value is not trusted."""

    def plain(rules: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(rule for rule in rules if rule.request is None)

    return replace(
        policy,
        intents=plain(policy.intents),
        protected=plain(policy.protected),
        asks=plain(policy.asks),
    )


@given(policies(), calls(), approvals)
def test_an_approval_never_turns_a_denial_into_a_permit(
    policy: Policy, call: Call, approval: Approval
) -> None:
    """What is denied without an approval is denied with it, in the same words; it only answers questions."""
    bare = decide(with_facts(call, approval=None), policy)
    approved = decide(with_facts(call, approval=approval), policy)
    if not isinstance(bare, Ask):
        assert approved == bare
    elif isinstance(approved, Allow):
        assert set(bare.rules) == set(approved.approved) <= approval.rules
        assert approval.word == "reviewer" or bare.approver == "client"
    else:
        assert approved == bare


@given(policies(), calls(), st.fixed_dictionaries({key: st.sampled_from((0, 0, 1, 2, 5)) for key in COUNTED}))
def test_more_used_never_permits_more(policy: Policy, call: Call, more: dict[str, int]) -> None:
    """Whatever was used beside, of limits, budgets and sequences; but a return that a sequence asks for."""
    returned = {rule.id for rule in policy.sequences if rule.requires}
    used = {key: before if key in returned else before + more[key] for key, before in call.facts.used.items()}
    assert rank(decide(with_facts(call, used=used), policy)) <= rank(decide(call, policy))


@given(policies(), calls(), st.sampled_from(COUNTED))
def test_what_nobody_counted_never_permits_more(policy: Policy, call: Call, missing: str) -> None:
    """A counter of which nobody knows what was used denies where a rule on the call looks at it."""
    used = {key: amount for key, amount in call.facts.used.items() if key != missing}
    assert rank(decide(with_facts(call, used=used), policy)) <= rank(decide(call, policy))


@given(policies(), calls(), st.data())
def test_an_untrusted_appearance_never_permits_more(policy: Policy, call: Call, data: st.DataObject) -> None:
    """Who can put a value before the agent's eyes can only take trust from it."""
    policy = without_requests(policy)
    seen = call.facts.seen
    if seen is None or not call.arguments:
        return
    planted = data.draw(st.sampled_from(list(call.arguments.values())))
    values = dict(seen.values)
    for key in candidates(planted, SALT)[1:]:
        values[key] = (*values.get(key, ()), Appearance("tool:evil/page", "untrusted"))
    shown = decide(with_facts(call, seen=replace(seen, values=values)), policy)
    assert rank(shown) <= rank(decide(call, policy))


@given(policies(), calls(), st.booleans())
def test_a_memory_that_is_not_whole_never_permits_more(
    policy: Policy,
    call: Call,
    looked: bool,  # noqa: FBT001
) -> None:
    """Nor does one at which nobody looked: then a rule on origins that names the call denies."""
    policy = without_requests(policy)
    seen: Seen | None = call.facts.seen
    worse = replace(seen, whole=False) if seen is not None and looked else None
    blind = decide(with_facts(call, seen=worse), policy)
    assert rank(blind) <= rank(decide(call, policy))
    tool = call.tool
    if worse is None and any(
        one.covers(tool.server, tool.name, tool.kind) for rule in policy.origins for one in rule.tools
    ):
        assert isinstance(blind, Deny)
        assert blind.reason != Reason.ORIGIN_REFUSED

"""The laws that deciding must keep, each as a property."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guard.core.errors import Reason
from guard.core.model import Allow, Call, Decision, Deny
from guard.policy.decide import decide, visible
from guard.policy.explain import explain
from guard.policy.request import Asked
from guard.policy.rules import Held, Intent, Pattern, Policy, Protected, ToolRule
from guard.policy.schema import Schema, compile_schema
from tests.policy.calls import call, git
from tests.policy.whole_worlds import calls, policies
from tests.policy.worlds import KINDS, rules


class Broken:
    """A schema engine that breaks down."""

    def is_valid(self, arguments: Any) -> bool:
        raise RuntimeError("broken")


EVERYWHERE = tuple(Pattern("*", kind=kind) for kind in KINDS)
BROKEN = Schema({}, Broken())
PARTS = ("limits", "ceilings", "hours", "sequences", "origins", "asks")


def permits(decision: Decision) -> bool:
    return isinstance(decision, Allow)


@given(policies(), calls())
def test_default_deny(policy: Policy, call: Call) -> None:
    """What no rule for its kind lists, or no intent matches where some name it, is denied in enforce mode."""
    tool = call.tool
    about = policy.about(tool.server, tool.name, tool.kind)
    listed = any(rule.tools[0].covers(tool.server, tool.name, tool.kind) for rule in policy.tools)
    assert listed == bool(about.tools) == bool(about.listing)
    decision = decide(call, policy)
    if not listed and policy.mode == "enforce":
        assert isinstance(decision, Deny)
    asked = Asked(call, dict)
    if call.facts.seen and about.intents and not any(rule.matches(asked) for rule in about.intents):
        assert isinstance(decision, Deny) or "observed" in decision.obligations


@given(policies(), calls())
def test_an_empty_policy_denies(policy: Policy, call: Call) -> None:
    """A policy from which every rule was removed permits nothing in enforce mode."""
    empty = replace(policy, mode="enforce", observe_until=None, tools=(), intents=(), protected=())
    assert not permits(decide(call, empty))


@given(policies(), calls())
def test_forbid_beats_permit(policy: Policy, call: Call) -> None:
    """A protected rule that matches denies, whatever permits."""
    forbidding = replace(policy, protected=(*policy.protected, Protected("zz", EVERYWHERE)))
    decision = decide(call, forbidding)
    assert isinstance(decision, Deny)
    if permits(decide(call, policy)):
        assert decision == Deny(Reason.PROTECTED, "zz")
    asked = Asked(call, dict)
    for rule in policy.about(call.tool.server, call.tool.name, call.tool.kind).protected:
        assert not (permits(decide(call, policy)) and rule.matches(asked))


@given(policies(), calls(), st.booleans())
def test_a_rule_that_fails_denies(policy: Policy, call: Call, forbids: bool) -> None:  # noqa: FBT001
    """A rule that cannot be evaluated denies, even beside others that permit."""
    rule: Any = Protected("zz", EVERYWHERE, BROKEN) if forbids else Intent("zz", EVERYWHERE, BROKEN)
    kind = "protected" if forbids else "intents"
    decision = decide(call, replace(policy, **{kind: (*getattr(policy, kind), rule)}))
    assert isinstance(decision, Deny)
    if permits(decide(call, policy)):
        assert decision == Deny(Reason.RULE_FAILED, "zz")


@given(policies(), calls(), st.randoms(use_true_random=False))
def test_order_and_duplicates_do_not_matter(policy: Policy, call: Call, shuffler: random.Random) -> None:
    """Rules in another order, and rules that stand there twice, give the same decision."""

    def mixed(rules: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = [*rules, *rules]
        shuffler.shuffle(twice)
        return tuple(twice)

    other = replace(
        policy,
        tools=mixed(policy.tools),
        intents=mixed(policy.intents),
        protected=mixed(policy.protected),
        **{part: mixed(getattr(policy, part)) for part in PARTS},
        roles=dict(reversed(policy.roles.items())),
    )
    assert decide(call, other) == decide(call, policy)


@given(policies(), calls(), rules)
def test_adding_a_forbid_never_permits_more(policy: Policy, call: Call, rule: dict[str, Any]) -> None:
    """One more protected rule never turns a denial into a permit."""
    added = Protected("added", EVERYWHERE, compile_schema(rule["schema"]))
    if permits(decide(call, replace(policy, protected=(*policy.protected, added)))):
        assert permits(decide(call, policy))


def of(policy: Policy, kinds: set[str]) -> Policy:
    """The policy with those of its rules that speak of these kinds, and of these only.

    Sequences stay: each speaks of tools as well, which come before.
    """

    def kept(rules: tuple[Any, ...]) -> tuple[Any, ...]:
        cut = (replace(rule, tools=tuple(p for p in rule.tools if p.kind in kinds)) for rule in rules)
        return tuple(rule for rule in cut if rule.tools)

    return replace(
        policy,
        tools=kept(policy.tools),
        intents=kept(policy.intents),
        protected=kept(policy.protected),
        **{part: kept(getattr(policy, part)) for part in PARTS if part != "sequences"},
    )


@given(policies(), calls())
def test_a_rule_for_one_kind_says_nothing_of_the_others(policy: Policy, call: Call) -> None:
    """Rules about other kinds change no decision; without those about its own there is a denial.

    Nothing is declared: an intent of another kind is known by its id, though it names nothing of this one.
    """
    kind = call.tool.kind
    call = replace(call, intents=frozenset())
    assert decide(call, of(policy, {kind})) == decide(call, policy)
    others = replace(of(policy, {*KINDS} - {kind}), mode="enforce", observe_until=None)
    assert not permits(decide(call, others))


@given(policies(), calls(), st.sampled_from(("/../", "/%2e%2e/", "/%2F", "\\", "\n")))
def test_a_uri_that_could_be_another_is_never_permitted_by_a_glob(
    policy: Policy, call: Call, turn: str
) -> None:
    """Whatever a policy of globs says, no traversal is permitted: not while observing either."""
    uri = f"get{turn}all"
    odd = replace(call, tool=replace(call.tool, kind="resource", name=uri), params={"uri": uri})
    assert not permits(decide(odd, policy))
    everything = ToolRule("zz", EVERYWHERE, frozenset())
    assert not permits(decide(odd, replace(policy, tools=(*policy.tools, everything))))


@given(policies(), calls(), st.sets(st.sampled_from(("a:read", "a:write", "b:read"))))
def test_narrowing_a_credential_never_permits_more(policy: Policy, call: Call, kept: set[str]) -> None:
    """A credential with fewer scopes is permitted nothing, and sees nothing, that the wider one is not."""
    wide = call.principal.scopes
    narrowed = replace(call.principal, scopes=frozenset(kept) if wide is None else wide & kept)
    tool = call.tool
    if permits(decide(replace(call, principal=narrowed), policy)):
        assert permits(decide(call, policy))
    if visible(narrowed, tool.server, tool.name, tool.declared, policy, kind=tool.kind):
        assert visible(call.principal, tool.server, tool.name, tool.declared, policy, kind=tool.kind)


@given(policies(), calls(), st.sets(st.sampled_from(("a:read", "a:write", "b:read"))))
def test_declared_scopes_only_add(policy: Policy, call: Call, declared: set[str]) -> None:
    """What a tool's author declares never permits more, and counts only on a trusted server."""
    bare = replace(call, tool=replace(call.tool, declared=frozenset()))
    more = replace(call, tool=replace(call.tool, declared=frozenset(declared)))
    if permits(decide(more, policy)):
        assert permits(decide(bare, policy))
    if call.tool.server not in policy.trusted:
        assert decide(more, policy) == decide(bare, policy)


@given(policies(), calls())
def test_a_decision_has_no_truth_value(policy: Policy, call: Call) -> None:
    """`if decision:` raises, for an allow and for a denial."""
    decision = decide(call, policy)
    with pytest.raises(TypeError):
        bool(decision)


@given(policies(), calls(), calls())
def test_same_call_same_decision(policy: Policy, call: Call, other: Call) -> None:
    """Deciding is pure: what was decided in between, and the order of members, change nothing."""
    first = decide(call, policy)
    decide(other, policy)
    members = call.params.items()
    turned = {name: dict(reversed(v.items())) if isinstance(v, dict) else v for name, v in reversed(members)}
    turned = replace(call, params=turned)
    assert decide(call, policy) == first == decide(turned, policy) == decide(call, replace(policy))


@given(policies(), calls())
def test_what_is_permitted_was_visible_and_covered(policy: Policy, call: Call) -> None:
    """What is permitted is what a list shows, and every scope in the Allow is held."""
    decision = decide(call, policy)
    assume(isinstance(decision, Allow))
    assert isinstance(decision, Allow)
    tool = call.tool
    assert visible(call.principal, tool.server, tool.name, tool.declared, policy, kind=tool.kind)
    assert (policy.held(call.principal) or Held(frozenset())).covers(decision.scopes)
    assert list(decision.rules) == sorted(set(decision.rules))


@given(policies(), calls())
def test_the_explanation_ends_where_the_decision_does(policy: Policy, call: Call) -> None:
    """The steps of an explanation, worked out on their own, lead to the decision."""
    explanation, decision = explain(call, policy), decide(call, policy)
    assert explanation.decision == decision
    if isinstance(decision, Deny):
        assert explanation.conclusion == (decision.reason, decision.rule, decision.pointer)
    else:
        assert explanation.conclusion == (None, "", "")
        observed = any(step.outcome == "observed" for step in explanation.steps)
        assert observed == (isinstance(decision, Allow) and "observed" in decision.obligations)


def test_an_unexpected_fault_in_deciding_denies() -> None:
    """Whatever raises inside decide ends in a denial, not in an exception that someone may swallow."""
    broken = replace(git(), roles=None)
    assert decide(call(), broken) == Deny(Reason.RULE_FAILED)

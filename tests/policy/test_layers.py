"""The law of layers: a lower one can only narrow. What all of them permit is what each permits alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guard.core.model import Allow, Ask, Call, Deny
from guard.policy.decide import decide
from guard.policy.layers import layered
from guard.policy.rules import Policy
from tests.policy.calls import call, git, policy
from tests.policy.worlds import calls, documents, modes

NAMES = ("organisation", "division", "team")


@st.composite
def stacks(draw: st.DrawFn) -> tuple[Policy, ...]:
    """Two or three policies, the highest first; a lower one often is the highest but for some parts."""
    first = {**draw(documents), **draw(modes)}
    found = [first]
    for _ in range(draw(st.integers(1, 2))):
        other = {**draw(documents), **draw(modes)}
        kept = draw(st.sets(st.sampled_from(sorted(documents_of(first)))))
        found.append({**other, **{part: first[part] for part in kept}})
    return tuple(policy(id=name, **one) for name, one in zip(NAMES, found, strict=False))


def documents_of(document: dict[str, Any]) -> set[str]:
    """The parts of a policy that a lower layer may share."""
    return {*document} - {"mode", "observe_until", "expires"}


def asks() -> st.SearchStrategy[Call]:
    """Calls that declare nothing and that nobody approved: both name rules, and rules are named by layer."""
    return calls().map(
        lambda made: replace(made, intents=frozenset(), facts=replace(made.facts, approval=None))
    )


def seen_by(asked: Call, stack: tuple[Policy, ...]) -> Call:
    """The call, with the counters of every layer under the name that they have among layers."""
    used = asked.facts.used
    every = {f"{one.ref.id}/{key}": value for one in stack[:-1] for key, value in used.items()}
    return replace(asked, facts=replace(asked.facts, used={**used, **every}))


@given(stacks(), asks())
def test_what_layers_permit_each_layer_permits_alone(stack: tuple[Policy, ...], asked: Call) -> None:
    """And nothing that all of them permit is denied for being in layers."""
    together = decide(seen_by(asked, stack), layered(stack))
    alone = [decide(asked, one) for one in stack]
    assert isinstance(together, Allow) == all(isinstance(one, Allow) for one in alone), (together, alone)
    if isinstance(together, Deny):
        assert together.reason in {one.reason for one in alone if isinstance(one, Deny)}
    if isinstance(together, Ask):
        assert any(isinstance(one, Ask) for one in alone)


@given(stacks(), asks(), st.data())
def test_adding_a_layer_never_permits_more(
    stack: tuple[Policy, ...], asked: Call, data: st.DataObject
) -> None:
    """Wherever it is put: at the top, between others, or at the bottom."""
    more = data.draw(st.sampled_from(range(len(stack))))
    fewer = (*stack[:more], *stack[more + 1 :])
    assume(isinstance(decide(seen_by(asked, stack), layered(stack)), Allow))
    assert isinstance(decide(seen_by(asked, fewer), layered(fewer)), Allow)


@given(stacks(), asks())
def test_the_same_policy_twice_permits_what_it_permits_once(stack: tuple[Policy, ...], asked: Call) -> None:
    """So the laws above are no laws about layers that deny everything."""
    first = stack[0]
    twice = (first, replace(first, ref=replace(first.ref, id="again")))
    one, two = decide(asked, first), decide(seen_by(asked, twice), layered(twice))
    assert type(one) is type(two)


@pytest.mark.parametrize("top", [True, False])
def test_a_forbid_of_any_layer_denies_and_is_named(top: bool) -> None:  # noqa: FBT001
    """With the id of its policy before it, where that is not the lowest."""
    forbids = [{"id": "nothing", "tools": ["git_commit"]}]
    stack = (
        git(id="organisation", protected=forbids if top else []),
        git(id="team", protected=[] if top else forbids),
    )
    made = decide(call(arguments={"message": "x"}), layered(stack))
    assert isinstance(made, Deny)
    assert made.rule == ("organisation/nothing" if top else "nothing")


def test_a_permit_names_every_layer() -> None:
    """What the artifact and the lineage say of a call is by whose leave it ran."""
    both = layered([git(id="organisation", version=4), git(id="team", version=9)])
    assert isinstance(decide(call(arguments={"message": "x"}), both), Allow)
    assert [(ref.id, ref.version) for ref in both.ref.all] == [("organisation", 4), ("team", 9)]


def test_layers_of_one_name_are_none() -> None:
    """Their counters and versions would be one another's."""
    with pytest.raises(ValueError, match="the same id"):
        layered([git(id="team"), git(id="team", version=2)])
    with pytest.raises(ValueError, match="needed"):
        layered([])

"""Policies above one another, declared intents and wildcards: each can only take away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.errors import Reason
from guard.core.model import Allow, Approval, Ask, Call, Decision, Deny
from guard.policy.decide import decide, visible
from guard.policy.document import load
from guard.policy.kinds import Held
from guard.policy.layers import layered, together
from guard.policy.rules import Policy
from tests.policy.calls import call, document, policy
from tests.policy.worlds import calls, documents, modes

SPANS: Final = st.sampled_from(("60s", "1h"))
TOOLS: Final = st.sampled_from((["get"], ["put"], ["*"], ["get*"]))
PER: Final = st.sampled_from(("principal", "role", "tool", "conversation"))
USED: Final = ("budget", "places", "first", "after")
MORNING: Final = {"from": "00:00", "to": "12:00", "zone": "UTC"}
PARTS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "hours": st.builds(
        lambda tools, days: [{"id": "open", "tools": tools, "days": days, **MORNING}],
        TOOLS,
        st.lists(st.sampled_from(("mon", "thu", "fri")), min_size=1, unique=True),
    ),
    "sequences": st.builds(
        lambda tools, calls: [
            {"id": "first", "tools": tools, "requires": ["read"], "within": "1h"},
            {"id": "after", "tools": tools, "after": ["secret"], "for": "1h", "calls": calls},
        ],
        TOOLS,
        st.integers(0, 2),
    ),
    "asks": st.builds(
        lambda tools, approver: [{"id": "person", "tools": tools, "approver": approver}],
        TOOLS,
        st.sampled_from(("client", "reviewer")),
    ),
}  # fmt: skip
LIMITS: Final = st.builds(
    lambda tools, per, most, depth: [
        {"id": "budget", "tools": tools, "per": per, "sum": most, "of": "/n", "digits": 0, "window": "1h"},
        {"id": "places", "tools": tools, "per": per, "at_once": 2},
        {"id": "deep", "tools": tools, "depth": depth},
        {"id": "size", "tools": tools, "result_bytes": 100 * most},
    ],
    TOOLS,
    PER,
    st.integers(0, 6),
    st.integers(0, 2),
)


@st.composite
def whole(draw: st.DrawFn, id_: str) -> dict[str, Any]:
    """A document with rules of every kind, now and then."""
    made = {**draw(documents), **draw(modes), "id": id_}
    made |= {name: draw(part) for name, part in PARTS.items() if draw(st.integers(0, 3)) == 0}
    if draw(st.integers(0, 3)) == 0:
        made["limits"] = draw(LIMITS)
    return made


def loaded(members: dict[str, Any]) -> Policy:
    return load(document(**members), name=f"{members['id']}.yaml")


def facts_of(made: Call, layer: str) -> Call:
    """The same call, as a policy that stands alone is told what was used."""
    prefix = f"{layer}/"
    used = {key.removeprefix(prefix): n for key, n in made.facts.used.items() if key.startswith(prefix)}
    return replace(made, facts=replace(made.facts, used=used if layer else made.facts.used))


@st.composite
def used(draw: st.DrawFn) -> dict[str, int]:
    """How much of each counter was used, for rules above and below."""
    names = ("limit-0", "limit-1", *USED, "after/spent")
    return {f"{above}{name}": draw(st.sampled_from((0, 0, 1, 2))) for above in ("org/", "") for name in names}


def permits(decision: Decision) -> bool:
    return isinstance(decision, Allow)


@given(whole("org"), whole("team"), calls(), used(), st.sets(st.sampled_from(("person", "org/person"))))
def test_a_layer_can_only_take_away(
    org: dict[str, Any], team: dict[str, Any], made: Call, much: dict[str, int], said: set[str]
) -> None:
    """What both permit, each permits alone; what one denies, both deny; a question is nobody's yes."""
    approval = Approval("q", frozenset(said), "ada", "client") if said else None
    # Declared intents are named by layer, too, and have a law of their own.
    made = replace(made, intents=frozenset(), facts=replace(made.facts, used=much, approval=approval))
    above, below = loaded(org), loaded(team)
    both = decide(made, layered([above, below]))
    alone_above = facts_of(made, "org")
    if said:
        own = frozenset(rule.removeprefix("org/") for rule in said if rule.startswith("org/"))
        alone_above = replace(
            alone_above, facts=replace(alone_above.facts, approval=Approval("q", own, "ada", "client"))
        )
    alone = decide(alone_above, above), decide(made, below)
    assert permits(both) == all(map(permits, alone))
    assert isinstance(both, Deny) == any(isinstance(one, Deny) for one in alone)
    if isinstance(both, Deny):
        first = next(one for one in alone if isinstance(one, Deny))
        assert both.reason is first.reason
    if isinstance(both, Allow):
        assert all(isinstance(one, Allow) for one in alone)
        higher, lower = (one for one in alone if isinstance(one, Allow))
        assert {*both.obligations} == {*higher.obligations, *lower.obligations}
        assert {*both.scopes} == {*higher.scopes, *lower.scopes}
        assert len(both.reservations) == len(higher.reservations) + len(lower.reservations)


@given(whole("org"), whole("team"), calls())
def test_what_one_layer_hides_is_hidden(org: dict[str, Any], team: dict[str, Any], made: Call) -> None:
    """A list shows what every layer shows, and nothing else."""
    above, below = loaded(org), loaded(team)

    def shown(by: Policy) -> bool:
        tool = made.tool
        return visible(made.principal, tool.server, tool.name, frozenset(), by, kind=tool.kind)

    assert shown(layered([above, below])) == (shown(above) and shown(below))


@given(whole("org"), calls(), st.sets(st.sampled_from(("intent-0", "intent-1", "intent-2", "x")), min_size=1))
def test_declaring_an_intent_only_narrows(org: dict[str, Any], made: Call, declared: set[str]) -> None:
    """What is denied without a declaration is denied with it, also while the policy observes."""
    made = replace(
        made, facts=replace(made.facts, used={**made.facts.used, **dict.fromkeys((*USED, "after/spent"), 0)})
    )
    rules = loaded(org)
    without, with_it = decide(made, rules), decide(replace(made, intents=frozenset(declared)), rules)
    if not permits(without):
        assert not permits(with_it)
    if permits(with_it):
        matched = {rule.id for rule in rules.intents}
        assert isinstance(with_it, Allow)
        assert declared <= matched
        assert declared <= set(with_it.rules)


SCOPES: Final = st.from_regex(r"[ab](:[ab]){0,2}", fullmatch=True)
WIDE: Final = st.one_of(SCOPES, SCOPES.map(lambda scope: f"{scope}:*"), st.just("*"))
SIDES: Final = st.frozensets(WIDE, max_size=3)


def stands_for(side: frozenset[str], scope: str) -> bool:
    """What the page says, written down again: by name, or `x:*` for what begins with `x:`, or `*`."""
    parts = scope.split(":")
    starts = {":".join(parts[:at]) + ":*" for at in range(1, len(parts))}
    return bool(side & {scope, "*", *starts})


@given(SIDES, SIDES, st.frozensets(SCOPES, min_size=1, max_size=2))
def test_a_wildcard_gives_never_more_than_both_sides(
    role: frozenset[str], key: frozenset[str], wanted: frozenset[str]
) -> None:
    """The intersection rule: held is what the role grants and the credential names, and nothing else."""
    held = Held(role, key)
    expected = all(stands_for(role, scope) and stands_for(key, scope) for scope in wanted)
    assert held.covers(wanted) == expected
    assert held.covers(wanted) <= (Held(role).covers(wanted) and Held(key).covers(wanted))
    assert Held(key, role).covers(wanted) == held.covers(wanted)


@pytest.mark.parametrize(
    ("role", "key", "held"),
    [
        ("git:*", "git:read", True),
        ("git:read", "*", True),
        ("git:*", "mail:*", False),
        ("git:read:*", "git:*", False),
        ("git:rea*", "*", False),
        ("*", "*", True),
    ],
)
def test_a_wildcard_on_either_side(role: str, key: str, held: bool) -> None:  # noqa: FBT001
    """As the page has it, decided by a whole policy; what the language refuses grants nothing."""
    roles = {"committer": {"scopes": [role]}}
    members = {"roles": roles, "tools": [{"match": "git_commit", "scopes": ["git:read"]}]}
    if role == "git:rea*":
        with pytest.raises(Exception, match="scope"):
            policy(**members)
        return
    assert permits(decide(call(scopes={key}), policy(**members))) is held


@pytest.mark.parametrize("said", [None, True, "allow", 1, object()])
def test_what_is_no_decision_permits_nothing(said: Any) -> None:
    """Layers that say something else, or none at all, are a fault and no permit."""
    yes = Allow((), ())
    for every in ([said], [yes, said], [said, yes], []):
        try:
            found: Any = together(every)
        except TypeError:
            continue
        assert not isinstance(found, Allow)


def test_ids_above_do_not_hide_those_below() -> None:
    """Two layers may use the same ids: each denial names one rule, and a declared intent is the shown id."""
    intent = {
        "id": "small",
        "tools": ["*"],
        "schema": {"properties": {"n": {"type": "integer", "maximum": 3}}},
    }
    members = {"roles": {"committer": {"scopes": ["s"]}}, "tools": [{"match": "*", "scopes": ["s"]}]}
    both = layered(
        [
            policy(**members, id="org", intents=[intent]),
            policy(**members, id="team", intents=[{**intent, "schema": {"required": ["n"]}}]),
        ]
    )

    def said(n: Any, *declared: str) -> tuple[Any, ...]:
        arguments = {} if n is None else {"n": n}
        found = decide(replace(call(arguments=arguments), intents=frozenset(declared)), both)
        return (found.reason, found.rule) if isinstance(found, Deny) else ("allow",)

    assert said(2) == ("allow",)
    assert said(9) == (Reason.INTENT_UNMATCHED, "org/small")
    assert said(None) == (Reason.INTENT_UNMATCHED, "small")
    assert said(2, "small", "org/small") == ("allow",)
    assert said(9, "small") == (Reason.INTENT_UNMATCHED, "org/small")
    assert said(9, "org/small") == (Reason.OUTSIDE_INTENT, "org/small")
    assert said(2, "team/small") == (Reason.OUTSIDE_INTENT, "")


def test_one_approval_answers_every_layer_or_none() -> None:
    """Half an approval is a question again, for all that asks."""
    members = {"roles": {"committer": {"scopes": ["s"]}}, "tools": [{"match": "*", "scopes": ["s"]}]}
    both = layered(
        [
            policy(**members, id="org", asks=[{"id": "person", "tools": ["*"], "approver": "reviewer"}]),
            policy(**members, id="team", asks=[{"id": "person", "tools": ["*"], "approver": "client"}]),
        ]
    )
    for rules, permitted in (
        ((), False),
        (("person",), False),
        (("org/person",), False),
        (("person", "org/person"), True),
    ):
        approval = Approval("q", frozenset(rules), "ada", "reviewer")
        found = decide(call(approval=approval), both)
        assert permits(found) is permitted
        if isinstance(found, Ask):
            assert found.rules == ("org/person", "person")
    client = Approval("q", frozenset(("person", "org/person")), "ada", "client")
    assert isinstance(decide(call(approval=client), both), Ask)

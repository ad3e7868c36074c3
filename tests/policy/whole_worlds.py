"""Hypothesis strategies: the small worlds of `worlds`, with all that the language has beside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from guard.core.model import Appearance, Approval, Call, Parent, Seen
from guard.policy.origins.judge import candidates
from guard.policy.rules import Policy
from tests.policy import worlds
from tests.policy.calls import policy
from tests.policy.worlds import KINDS, SCHEMAS, documents, modes, named

SALT = b"salt"
COUNTED = ("limit-0", "limit-1", "bound-0", "sequence-0", "sequence-0/spent")
requests: tuple[Any, ...] = (
    True,
    False,
    {"properties": {"context": {"properties": {"depth": {"maximum": 0}}}}},
    {"properties": {"context": {"properties": {"intents": {"maxItems": 0}}}}},
    {"properties": {"principal": {"properties": {"role": {"const": "low"}}}}},
    {"properties": {"origin": {"additionalProperties": {"properties": {"trust": {"const": "trusted"}}}}}},
)
_conditions = st.fixed_dictionaries(
    {}, optional={"schema": st.sampled_from(SCHEMAS), "request": st.sampled_from(requests)}
)


def _about(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Rules that name something, mostly tools, and say this of it."""
    field = st.sampled_from(("tools", "tools", *KINDS.values()))
    return st.builds(lambda which, what, rest: {which: what, **rest}, field, named, inner)


ask_rules = _about(_conditions)
hour_rules = _about(
    st.sampled_from(
        (
            {"from": "00:00", "to": "24:00", "zone": "UTC"},
            {"from": "08:00", "to": "18:00", "zone": "Europe/Berlin"},
            {"from": "00:10", "to": "00:20", "zone": "UTC", "days": ["thu"]},
        )
    )
)
sequence_rules = _about(
    st.builds(
        lambda word, others, calls: {word: others, "calls": calls},
        st.sampled_from(("requires", "after")),
        named,
        st.integers(0, 2),
    )
)
origin_rules = _about(
    st.fixed_dictionaries(
        {
            "arguments": st.lists(
                st.sampled_from(("/n", "/s", "/*", "/uri")), min_size=1, max_size=2, unique=True
            ),
            "accept": st.lists(
                st.sampled_from(("user", "policy", "trusted", "mixed", "unseen")),
                min_size=1,
                max_size=3,
                unique=True,
            ),
            "otherwise": st.sampled_from(("deny", "ask")),
        },
        optional={"constants": st.just(["x1", "3"])},
    )
)
bounds = _about(
    st.sampled_from(
        (
            {"per": "principal", "sum": 5, "of": "/n", "window": "1d"},
            {"per": ["role"], "sum": 0, "of": "/n", "window": "1d", "currency": {"at": "/s", "is": "x1"}},
            {"per": "principal", "at_once": 2},
            {"depth": 0},
            {"result_bytes": 100},
        )
    )
)


def _few(
    prefix: str, drawn: st.SearchStrategy[dict[str, Any]], most: int = 1
) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Mostly none of these rules, so that a call has a way through."""
    none: st.SearchStrategy[list[dict[str, Any]]] = st.just([])
    return st.one_of(none, none, st.lists(drawn, min_size=1, max_size=most)).map(
        lambda rules: [{"id": f"{prefix}-{index}", **rule} for index, rule in enumerate(rules)]
    )


parts = st.fixed_dictionaries(
    {
        "hours": _few("hours", hour_rules, 2),
        "sequences": _few("sequence", sequence_rules),
        "origins": _few("origin", origin_rules),
        "asks": _few("ask", ask_rules, 2),
        "memory": st.fixed_dictionaries({"user_overrides": st.booleans()}),
    }
)
more_rules = st.fixed_dictionaries(
    {
        "limits": _few("bound", bounds),
        "intents": _few("request", _about(st.fixed_dictionaries({"request": st.sampled_from(requests)}))),
        "protected": _few(
            "request-not", _about(st.fixed_dictionaries({"request": st.sampled_from(requests)}))
        ),
    }
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """A policy with rules of every kind."""
    made = {**draw(documents), **draw(modes), **draw(parts)}
    for part, rules in draw(more_rules).items():
        made[part] = [*made[part], *rules]
    low = draw(st.sampled_from((None, None, ["a:*"], ["*"])))
    if low is not None:
        made["roles"] = {**made["roles"], "low": {"scopes": low, "may_assert_conversations": True}}
    if draw(st.integers(0, 3)) == 0:
        made["servers"] = {**made["servers"], "two": {"scopes": ["a:read"]}}
    return policy(**made)


ANSWERABLE = ("ask-0", "ask-1", "origin-0")
approvals = st.builds(
    Approval,
    st.just("question"),
    st.one_of(st.just(frozenset(ANSWERABLE)), st.frozensets(st.sampled_from(ANSWERABLE))),
    st.just("launch/boss"),
    st.sampled_from(("reviewer", "client")),
)
appearances = st.builds(
    Appearance,
    st.sampled_from(("user", "tool:one/get", "tool:two/put", "sent:one/get")),
    st.sampled_from(("trusted", "mixed", "untrusted")),
)


@st.composite
def seens(draw: st.DrawFn, values: list[Any]) -> Seen:
    """A memory that knows some of these values."""
    known: dict[bytes, tuple[Appearance, ...]] = {}
    for value in values:
        told = tuple(draw(st.lists(appearances, max_size=2)))
        known.update({key: told for key in candidates(value, SALT)[1:] if told})
    return Seen(known, whole=draw(st.sampled_from((True, True, True, False))), salt=SALT)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """A call with a memory, counters, an approval, declared intents and what led to it."""
    made = draw(worlds.calls())
    memory = draw(st.sampled_from((True, True, True, False)))
    return replace(
        made,
        facts=replace(
            made.facts,
            used={key: draw(st.sampled_from((0, 0, 0, 1, 2, 3))) for key in COUNTED},
            seen=draw(seens([*made.arguments.values()])) if memory else None,
            approval=draw(st.one_of(st.none(), approvals)),
        ),
        intents=draw(st.sampled_from((frozenset(), frozenset(), frozenset({"intent-0"}), frozenset({"no"})))),
        parent=draw(st.sampled_from((None, None, Parent("claimed", "x"), Parent("verified", "x", "t", 1)))),
    )

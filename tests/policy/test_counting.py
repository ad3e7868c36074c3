"""Rules that count: a budget is never overspent, and a sequence holds in whichever order calls come."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.errors import Reason
from guard.core.model import UNBOUNDED, Allow, Deny
from guard.policy.counting import Budget
from guard.policy.decide import decide
from guard.policy.rules import Policy
from tests.policy.calls import ROLES, TOOLS, call, policy

BUDGET: Final = {
    "id": "money", "tools": ["git_commit"], "per": "principal", "sum": 50, "of": "/n", "window": "1d",
}  # fmt: skip
AMOUNTS: Final = st.one_of(
    st.integers(0, 60),
    st.floats(0, 60, allow_nan=False),
    st.decimals(0, 60, places=4).map(str),
    st.sampled_from(("0.001", "49.999", "0.000000001", 1e-9, 5e-324, "00012.50")),
)


def budget(**more: Any) -> Policy:
    return policy(roles=ROLES, tools=TOOLS, limits=[{**BUDGET, **more}])


def spend(amount: Any, used: int, rules: Policy) -> Any:
    return decide(call(arguments={"n": amount}, used={"money": used}), rules)


@given(st.lists(AMOUNTS, max_size=30), st.integers(0, 6), st.integers(0, 100))
def test_a_budget_is_never_overspent(amounts: list[Any], digits: int, most: int) -> None:
    """Whatever comes in whatever form: what was permitted adds up to no more than the sum."""
    rules, used, spent = budget(digits=digits, sum=most), 0, Decimal(0)
    for amount in amounts:
        found = spend(amount, used, rules)
        if isinstance(found, Allow):
            (taken,) = found.reservations
            assert taken.most == most * 10**digits
            assert used + taken.amount <= taken.most
            used += taken.amount
            spent += Decimal(amount) if isinstance(amount, str) else Decimal(repr(amount))
            assert spent <= Decimal(used).scaleb(-digits), "what is counted is never less than what is spent"
        else:
            assert found == Deny(Reason.LIMIT_REACHED, "money")
    assert spent <= most


@given(AMOUNTS, st.integers(0, 6))
def test_what_is_beyond_the_digits_is_rounded_up(amount: Any, digits: int) -> None:
    """By less than one unit, and never down: a thousand tenths of a cent are not free."""
    exact = Fraction(amount if isinstance(amount, str) else repr(amount)) * 10**digits
    counted = Budget("/n", digits).amount({"n": amount})
    assert isinstance(counted, int)
    assert exact <= counted < exact + 1


@pytest.mark.parametrize(
    "amount",
    [None, True, False, [], {}, -1, -0.01, "-1", "+1", "1e1", ".5", "5.", "1,5", " 1", "1\n", "0x1", "\u0665",
     "NaN", "1" * 16, "1.0000000000", "", "Infinity"],
)  # fmt: skip
def test_what_is_no_amount_is_unreadable(amount: Any) -> None:
    """No other form is guessed at, and nothing is added up below zero."""
    assert spend(amount, 0, budget()) == Deny(Reason.AMOUNT_UNREADABLE, "money", "/arguments/n")


@pytest.mark.parametrize("amount", [10**15, 10**15 + 1, 2**53 - 1, 1e300, 1.7e308, "9" * 15])
@pytest.mark.parametrize("digits", [0, 6])
def test_no_amount_is_too_large_to_be_too_large(amount: Any, digits: int) -> None:
    """Nor is any rounded to one that fits."""
    assert spend(amount, 0, budget(sum=10**9, digits=digits)) == Deny(Reason.LIMIT_REACHED, "money")


@pytest.mark.parametrize(
    ("arguments", "pointer"),
    [
        ({"n": 1}, "/arguments/unit"),
        ({"n": 1, "unit": "eur"}, "/arguments/unit"),
        ({"n": 1, "unit": "EUR "}, "/arguments/unit"),
        ({"n": 1, "unit": ["EUR"]}, "/arguments/unit"),
        ({"unit": "EUR"}, "/arguments/n"),
        ({"n": 1, "unit": "EUR"}, None),
    ],
)
def test_another_currency_is_not_added_up(arguments: dict[str, Any], pointer: str | None) -> None:
    """Five of one are not five of the other: denied, with the pointer that is at fault."""
    rules = budget(currency={"at": "/unit", "is": "EUR"})
    found = decide(call(arguments=arguments, used={"money": 0}), rules)
    if pointer is None:
        assert isinstance(found, Allow)
    else:
        assert found == Deny(Reason.AMOUNT_UNREADABLE, "money", pointer)


def test_a_budget_of_nothing_permits_what_costs_nothing() -> None:
    """Zero is a sum like any other."""
    rules = budget(sum=0)
    assert isinstance(spend(0, 0, rules), Allow)
    assert spend(0.001, 0, rules) == Deny(Reason.LIMIT_REACHED, "money")


@pytest.mark.parametrize("used", [None, -1, True, 1.0, "0"])
def test_a_budget_of_which_nobody_knows_the_use_denies(used: Any) -> None:
    """Absence is no zero, and neither is anything else that is no count."""
    facts = {} if used is None else {"money": used}
    found = decide(call(arguments={"n": 0}, used=facts), budget())
    assert found == Deny(Reason.RULE_FAILED, "money")


# -- sequences -------------------------------------------------------------------------------------


STEPS: Final = st.lists(st.sampled_from(("read", "write")), max_size=25)


def run(steps: list[str], rules: Policy) -> list[str]:
    """Calls one after the other, with the counters as a store would keep them; those that were permitted."""
    kept: dict[str, int] = {}
    permitted = list[str]()
    for step in steps:
        made = call(step, server="git")
        readings = rules.readings(made.principal, made.tool, made.conversation)
        used = {one.key: kept.get(one.counter, 0) for one in readings}
        found = decide(replace(made, facts=replace(made.facts, used=used)), rules)
        if not isinstance(found, Allow):
            assert isinstance(found, Deny)
            assert (found.reason, found.rule) in {(Reason.REQUIRED_FIRST, "s"), (Reason.FORBIDDEN_AFTER, "s")}
            continue
        for taken in found.reservations:
            assert kept.get(taken.counter, 0) + taken.amount <= taken.most or taken.most == UNBOUNDED
            kept[taken.counter] = kept.get(taken.counter, 0) + taken.amount
        for mark in found.marks:
            kept[mark.counter] = kept.get(mark.counter, 0) + 1
        permitted.append(step)
    return permitted


def sequence(**rule: Any) -> Policy:
    tools = [{"match": "*", "scopes": []}]
    return policy(roles=ROLES, tools=tools, sequences=[{"id": "s", **rule}])


@given(STEPS, st.integers(0, 3))
def test_each_read_is_good_for_so_many_writes(steps: list[str], calls: int) -> None:
    """At every moment there were at most so many writes for each read, and none before the first."""
    rule = {"calls": calls} if calls else {}
    ran = run(steps, sequence(tools=["write"], requires=["read"], **rule))
    assert ran.count("read") == steps.count("read")
    for at, step in enumerate(ran):
        reads = ran[:at].count("read")
        if step == "write":
            assert reads
            assert not calls or ran[:at].count("write") < calls * reads


@given(STEPS, st.integers(0, 3))
def test_after_a_read_so_many_writes_follow(steps: list[str], calls: int) -> None:
    """Before it any number; those before it count, so that nobody saves them up."""
    ran = run(steps, sequence(tools=["write"], after=["read"], calls=calls))
    assert ran.count("read") == steps.count("read")
    for at, step in enumerate(ran):
        if step == "write" and "read" in ran[:at]:
            assert ran[:at].count("write") < calls


@given(STEPS)
def test_what_is_forbidden_after_itself_runs_once(steps: list[str]) -> None:
    """A tool that stands on both sides: a cool-down, and not a rule that forbids its own first call."""
    ran = run(steps, sequence(tools=["write"], after=["write"]))
    assert ran.count("write") == min(steps.count("write"), 1)

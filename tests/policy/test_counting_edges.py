"""Counting at its edges: what counters are called, what an amount is worth, what comes before what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from guard.core.canonical import digest
from guard.core.errors import Reason
from guard.core.model import UNBOUNDED, Conversation, Deny, Mark, Principal, Reservation, Tool
from guard.policy.counting import Budget, Limit, Reading, Scope, Sequence, used
from guard.policy.kinds import Pattern, RuleFailed
from tests.policy.calls import call, of_kind

WHO = Principal("default", "launch", "someone", "committer")
TOOL = Tool("git", "git_commit", kind="tool")
SCOPE = Scope("p", WHO, TOOL, Conversation("c", "meta"))
SHARED = replace(SCOPE, conversation=None)
PRINCIPAL = ["principal", "launch", "someone"]
CONVERSATION = ["conversation", "launch", "someone", "c"]
EVERY = (Pattern("*"),)


# -- what counters are called: a store that counted under another name would count from zero ------------


@pytest.mark.parametrize(
    ("per", "parts"),
    [
        ({"principal"}, [PRINCIPAL]),
        ({"role"}, [["role", "committer"]]),
        ({"tool"}, [["tool", "tool", "git", "git_commit"]]),
        ({"conversation"}, [CONVERSATION]),
        ({"tool", "role"}, [["role", "committer"], ["tool", "tool", "git", "git_commit"]]),
        (set[str](), []),
    ],
)
def test_a_counter_is_called_the_same_in_every_release(per: set[str], parts: list[list[str]]) -> None:
    """Its name is the digest of the policy and of what is counted apart, in their order."""
    assert SCOPE.name(frozenset(per)) == digest(["p", *parts])


def test_a_conversation_that_separates_nothing_is_its_principal() -> None:
    """Both names are one then, and are in it once."""
    for per in ({"conversation"}, {"conversation", "principal"}):
        assert SHARED.name(frozenset(per)) == digest(["p", PRINCIPAL])


def test_a_memory_is_the_conversations_own() -> None:
    """Or all of the principal's, where its conversations separate nothing."""
    assert SCOPE.memory() == digest(["p", CONVERSATION])
    assert SHARED.memory() == digest(["p", PRINCIPAL])


# -- what an amount is worth -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "digits", "amount"),
    [
        (0, 2, 0),
        (0.0, 2, 0),
        ("0", 2, 0),
        (1, 0, 1),
        (12.5, 2, 1250),
        ("12.50", 2, 1250),
        ("12.501", 2, 1251),
        (0.1, 1, 1),
        (0.1, 9, 100_000_000),
        ("0.000000001", 0, 1),
        ("999999999999999", 0, 999_999_999_999_999),
        (10**15, 0, 10**15),
        (10**15 + 1, 0, UNBOUNDED),
        (1e300, 0, UNBOUNDED),
    ],
)
def test_an_amount_is_counted_in_its_last_digit_and_rounded_up(value: Any, digits: int, amount: int) -> None:
    """Not one unit is lost, and what is larger than any budget is larger than any budget."""
    assert Budget("/n", digits).amount({"n": value}) == amount


@pytest.mark.parametrize(
    "value",
    [
        *(True, False, None, [], {}, [1]),
        *(-1, -0.01, "-1", "+1", "1e3", "1,5", "", " 1", "1 ", "1.", ".5", "1\n"),
        *("0.0000000001", "1000000000000000", "Infinity", "NaN", "\u0661", "1x"),
        *(float("inf"), float("-inf"), float("nan")),
    ],
)
def test_what_is_no_amount_is_the_pointers_fault(value: Any) -> None:
    """A server may read it as a number; nobody here says which."""
    assert Budget("/n", 2).amount({"n": value}) == "/n"


def test_an_amount_that_is_not_there_is_no_zero() -> None:
    """Else leaving it out would be free."""
    assert Budget("/n", 2).amount({}) == "/n"


@pytest.mark.parametrize("currency", [{}, {"c": "USD"}, {"c": "eur"}, {"c": None}])
def test_another_currency_is_named_before_the_amount(currency: dict[str, Any]) -> None:
    """100 of one money are not 100 of another."""
    budget = Budget("/n", 0, "/c", "EUR")
    assert budget.amount({"n": 5, **currency}) == "/c"
    assert budget.amount({"n": 5, "c": "EUR"}) == 5
    assert budget.amount({"n": "x", "c": "EUR"}) == "/n"


# -- limits ----------------------------------------------------------------------------------------------


LIMIT = Limit("few", EVERY, frozenset({"principal"}), 10, 60_000, held=True)
COUNTER = f"few/{digest(['p', PRINCIPAL])}"


def test_a_reservation_says_what_is_taken_from_which_counter() -> None:
    """One call, or the amount of a budget; what only counts while it runs says so."""
    assert LIMIT.reading(SCOPE) == Reading("few", COUNTER, 60_000)
    taken = LIMIT.takes(call(used={"few": 9}), SCOPE)
    assert taken == Reservation("few", COUNTER, 1, 10, 60_000, held=True)
    budget = replace(LIMIT, budget=Budget("/n", 0), held=False)
    taken = budget.takes(call(arguments={"n": 7}, used={"few": 3}), SCOPE)
    assert taken == Reservation("few", COUNTER, 7, 10, 60_000, held=False)


def test_a_budget_is_used_up_to_its_last_unit_and_no_further() -> None:
    """Also by one call that is larger than all of it, of which nobody has to know the use."""
    budget = replace(LIMIT, budget=Budget("/n", 0))
    full = Deny(Reason.LIMIT_REACHED, "few")
    for amount, before, fits in ((10, 0, True), (11, 0, False), (7, 4, False), (0, 10, True), (0, 11, False)):
        taken = budget.takes(call(arguments={"n": amount}, used={"few": before}), SCOPE)
        assert (taken == full) is not fits
    assert budget.takes(call(arguments={"n": 11}), SCOPE) == full


@pytest.mark.parametrize(
    ("kind", "at"),
    [("tool", "/arguments/n"), ("prompt", "/arguments/n"), ("resource", "/n"), ("method", "/n")],
)
def test_an_unreadable_amount_is_pointed_at_in_the_request(kind: str, at: str) -> None:
    """Where the arguments stand depends on what is called."""
    budget = replace(LIMIT, budget=Budget("/n", 0))
    denied = budget.takes(of_kind(kind, "x", {"n": "much"}, used={"few": 0}), SCOPE)
    assert denied == Deny(Reason.AMOUNT_UNREADABLE, "few", at)


# -- what comes before what ------------------------------------------------------------------------------


AFTER = Sequence("seq", EVERY, EVERY, requires=True, window=5000)
NEVER = replace(AFTER, requires=False)
BEFORE = f"seq/before/{digest(['p', CONVERSATION])}"
SPENT = f"seq/spent/{digest(['p', CONVERSATION])}"


def sequence(rule: Sequence, before: Any, spent: Any = None) -> tuple[Reservation, ...] | Deny:
    told = {"seq": before} if spent is None else {"seq": before, "seq/spent": spent}
    return rule.takes(call(used=told), SCOPE)


def test_a_sequence_reads_what_came_before_and_what_was_spent_of_it() -> None:
    """The second only where it is counted."""
    first, second = Reading("seq", BEFORE, 5000), Reading("seq/spent", SPENT, 5000)
    assert list(AFTER.readings(SCOPE)) == [first]
    assert list(replace(AFTER, calls=1).readings(SCOPE)) == [first, second]
    assert list(replace(NEVER, calls=2).readings(SCOPE)) == [first, second]


def test_what_is_required_must_have_come_once() -> None:
    """Where it is good for any number, nothing is taken."""
    assert sequence(AFTER, 0) == Deny(Reason.REQUIRED_FIRST, "seq")
    assert sequence(AFTER, 1) == ()
    assert sequence(AFTER, 9) == ()


def test_what_is_required_is_good_for_so_many_calls_each() -> None:
    """The call after the last is denied for what did not come first."""
    two = replace(AFTER, calls=2)
    denied = Deny(Reason.REQUIRED_FIRST, "seq")
    assert sequence(two, 0, 0) == denied
    assert sequence(two, 1, 1) == (Reservation("seq", SPENT, 1, 2, 5000),)
    assert sequence(two, 1, 2) == denied
    assert sequence(two, 3, 5) == (Reservation("seq", SPENT, 1, 6, 5000),)
    assert sequence(two, 3, 6) == denied


def test_what_is_forbidden_after_is_free_before() -> None:
    """It takes nothing, but nothing of the other may come in between."""
    assert sequence(NEVER, 0) == (Reservation("seq", BEFORE, 0, 0, 5000),)
    assert sequence(NEVER, 1) == Deny(Reason.FORBIDDEN_AFTER, "seq")


def test_what_is_forbidden_after_may_follow_so_many_times() -> None:
    """Calls before it are noted, and count as having followed."""
    two = replace(NEVER, calls=2)
    free = (Reservation("seq", BEFORE, 0, 0, 5000), Reservation("seq", SPENT, 1, UNBOUNDED, 5000))
    assert sequence(two, 0, 0) == free
    assert sequence(two, 0, 7) == free
    assert sequence(two, 1, 1) == (Reservation("seq", SPENT, 1, 2, 5000),)
    assert sequence(two, 1, 2) == Deny(Reason.FORBIDDEN_AFTER, "seq")


def test_what_others_note_is_what_a_governed_call_reads() -> None:
    """The grant of one that forbids, and the return of one that is required."""
    assert NEVER.noted(SCOPE) == Reservation("seq", BEFORE, 1, UNBOUNDED, 5000)
    assert AFTER.marked(SCOPE) == Mark(BEFORE, 5000)


@pytest.mark.parametrize("amount", [None, -1, True, 1.0, "1"])
def test_a_count_that_nobody_said_names_the_rule_it_belongs_to(amount: Any) -> None:
    """Of a sequence, also where it is the second counter."""
    for key in ("seq", "seq/spent"):
        told = call(used={} if amount is None else {key: amount})
        with pytest.raises(RuleFailed) as failed:
            used(told, key)
        assert failed.value.rule == "seq"
        assert str(failed.value) == "seq could not be evaluated"

"""The order and the words of denials, questions and terms, at the edges of each kind of rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta, timezone
from typing import Any

import pytest

from guard.core.errors import Reason
from guard.core.model import UNBOUNDED, Allow, Approval, Ask, Call, Deny, Mark, Parent, Reservation, Seen
from guard.policy.conditions import CLOCK_TOLERANCE, fault
from guard.policy.counting import Ceiling, Limit, Sequence
from guard.policy.decide import decide
from guard.policy.kinds import AskRule, Held, Hours, OriginRule, Pattern, RuleFailed, grants
from guard.policy.rules import Policy
from tests.policy.calls import SHORT, call, git, of_kind

THESE = (Pattern("git_commit"),)
SAID = {"message": "x"}
NOTHING_SEEN = Seen({}, salt=b"salt")


def commit(arguments: Any = None, **more: Any) -> Call:
    return call("git_commit", SAID if arguments is None else arguments, **more)


def allowed(made: Call, of: Policy) -> Allow:
    decision = decide(made, of)
    assert isinstance(decision, Allow), decision
    return decision


# -- scopes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wide", "scope", "granted"),
    [
        ("*", "a:b", True),
        ("*", "", True),
        ("a:*", "a:b", True),
        ("a:*", "a:", True),
        ("a:*", "a", False),
        ("a:*", "ab:c", False),
        ("a*", "ab", False),
        ("*a", "ba", False),
        ("a:b", "a:b", True),
        ("a:b", "a:b:c", False),
    ],
)
def test_a_star_stands_for_more_only_alone_or_after_a_colon(wide: str, scope: str, granted: bool) -> None:  # noqa: FBT001
    """Whether a side is asked by itself or through what is held."""
    assert grants(frozenset({wide}), scope) is granted
    assert Held(frozenset({wide})).covers({scope}) is granted


def test_every_side_must_grant_and_what_is_lacking_is_said() -> None:
    """A wildcard on one side opens nothing on the other."""
    held = Held(frozenset({"a:*", "b:c"}), frozenset({"a:b", "b:c"}))
    assert held.exact == {"b:c"}
    assert held.words == "held are a:* b:c and a:b b:c"
    assert Held(frozenset()).words == "held are nothing"
    assert held.covers({"a:b", "b:c"})
    assert held.lacks(["a:b", "a:x", "b:c", "z"]) == {"a:x", "z"}


def test_a_name_is_spelled_by_itself_only() -> None:
    """A glob covers it and does not spell it; server and kind count for both."""
    spelled = Pattern("x?y", "s", "resource")
    assert spelled.spells("s", "x?y", "resource")
    assert spelled.covers("s", "xay", "resource")
    for server, name, kind in (("s", "xay", "resource"), ("t", "x?y", "resource"), ("s", "x?y", "tool")):
        assert not spelled.spells(server, name, kind)
    assert Pattern("x").covers("any", "x")
    assert not Pattern("x").covers("any", "x", "prompt")


# -- hours -----------------------------------------------------------------------------------------------

MINUTE, DAY = 60_000, 24 * 60 * 60_000
MONDAY = 4 * DAY  # 1970-01-05


def hours(begin: int, end: int, *days: int, zone: Any = UTC) -> Hours:
    return Hours("office", THESE, frozenset(days or {0}), begin, end, zone)


@pytest.mark.parametrize(
    ("rule", "minute", "held"),
    [
        *((hours(540, 1020), minute, 540 <= minute < 1020) for minute in (0, 539, 540, 1019, 1020, 1439)),
        *((hours(0, 1440), minute, 0 <= minute < 1440) for minute in (-1, 0, 1439, 1440)),
        *(
            (hours(1320, 360), minute, 1320 <= minute < 1800)
            for minute in (0, 359, 1319, 1320, 1440, 1799, 1800)
        ),
        *((hours(600, 600), minute, 600 <= minute < 2040) for minute in (599, 600, 2039, 2040)),
        *((hours(1320, 360, 6), minute, minute < 360) for minute in (0, 359, 360, 1320)),
    ],
)
def test_a_stretch_holds_its_first_minute_and_not_its_last(rule: Hours, minute: int, held: bool) -> None:  # noqa: FBT001
    """To the millisecond, and over midnight it belongs to the day on which it began."""
    assert rule.hold(MONDAY + minute * MINUTE) is held
    assert rule.hold(MONDAY + minute * MINUTE + MINUTE - 1) is held


def test_hours_are_those_of_their_zone() -> None:
    """Its hours, its minutes and its day."""
    there = hours(540, 1020, zone=timezone(timedelta(hours=5, minutes=30)))
    begins = MONDAY + (540 - 330) * MINUTE
    assert there.hold(begins)
    assert not there.hold(begins - 1)


def test_an_hour_that_breaks_names_its_rule() -> None:
    """It denies: there is no such year."""
    of = replace(git(), hours=(hours(0, 1440, *range(7)),))
    assert decide(commit(now=10**18), of) == Deny(Reason.RULE_FAILED, "office")
    with pytest.raises(RuleFailed, match=r"^office could not be evaluated$"):
        hours(0, 1440).hold(10**18)


def test_outside_every_hour_the_first_rule_is_named() -> None:
    """Inside one of them is enough."""
    early, late = hours(0, 60, *range(7)), replace(hours(120, 180, *range(7)), id="zz")
    of = replace(git(), hours=(late, early))
    assert decide(commit(now=MONDAY + 90 * MINUTE), of) == Deny(Reason.OUTSIDE_HOURS, "office")
    assert isinstance(decide(commit(now=MONDAY + 130 * MINUTE), of), Allow)


# -- intents ---------------------------------------------------------------------------------------------


def test_the_first_failing_argument_is_pointed_at_in_the_request() -> None:
    """Where the arguments are right and the request is not, there is nothing to point at."""
    long = decide(commit({"message": "x" * 21}), git())
    assert long == Deny(Reason.INTENT_UNMATCHED, "short-message", "/arguments/message")
    whole = git(intents=[{**SHORT, "request": {"properties": {"conversation": False}}}])
    assert decide(commit(), whole) == Deny(Reason.INTENT_UNMATCHED, "short-message", "")


def test_a_declared_intent_is_named_only_where_it_exists() -> None:
    """Nobody learns an id that they made up themselves; the first in order is said."""
    of = git(intents=[SHORT, {"id": "other", "tools": ["git_log"], "schema": True}])
    for declared, said in (({"made-up"}, ""), ({"other"}, "other"), ({"short-message", "other"}, "other")):
        assert decide(replace(commit(), intents=frozenset(declared)), of) == Deny(Reason.OUTSIDE_INTENT, said)
    assert isinstance(decide(replace(commit(), intents=frozenset({"short-message"})), of), Allow)


# -- ceilings, counters and their order ------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "permitted"), [(None, True), (0, False), (1, False), (2, True), (3, True)])
def test_a_call_may_be_as_deep_as_the_ceiling(depth: int | None, permitted: bool) -> None:  # noqa: FBT001
    """And no deeper."""
    of = replace(git(), ceilings=(Ceiling("deep", THESE, depth),))
    made = replace(commit(), parent=Parent("verified", "d", depth=1))
    assert isinstance(decide(made, of), Allow) is permitted
    if not permitted:
        assert decide(made, of) == Deny(Reason.LIMIT_REACHED, "deep")


def test_what_is_taken_is_sorted_by_rule_and_looked_at_before_it_is_noted() -> None:
    """A tool that stands on both sides of one rule forbids itself after the first time, not at once."""
    itself = Sequence("m", THESE, THESE, requires=False, window=1000)
    limits = [Limit(name, THESE, frozenset({"principal"}), 5, 1000) for name in ("z", "a")]
    of = replace(git(), limits=tuple(limits), sequences=(itself,))
    taken = allowed(commit(used={"a": 0, "z": 0, "m": 0}), of).reservations
    assert [(one.limit, one.amount, one.most) for one in taken] == [
        ("a", 1, 5),
        ("m", 0, 0),
        ("m", 1, UNBOUNDED),
        ("z", 1, 5),
    ]
    assert all(isinstance(one, Reservation) for one in taken)


def test_only_what_is_required_elsewhere_is_marked_and_only_what_forbids_is_noted() -> None:
    """Of one call that opens both, sorted by counter."""
    later = (Pattern("git_log"),)
    rules = [Sequence(name, later, THESE, requires=name != "b", window=1000) for name in ("c", "a", "b")]
    of = replace(git(), sequences=tuple(rules))
    made = allowed(commit(), of)
    assert [one.limit for one in made.reservations] == ["b"]
    scope = of.scope(commit().principal, commit().tool, commit().conversation)
    assert made.marks == (
        Mark(f"a/before/{scope.memory()}", 1000),
        Mark(f"c/before/{scope.memory()}", 1000),
    )


def test_obligations_name_every_ceiling_on_results_once() -> None:
    """Sorted; a ceiling on depth alone obliges to nothing."""
    sizes = {"a": 20, "b": None, "c": 10, "d": 20}
    of = replace(git(), ceilings=tuple(Ceiling(k, THESE, 9, size) for k, size in sizes.items()))
    assert allowed(commit(), of).obligations == ("result-bytes:10", "result-bytes:20")
    assert allowed(commit(), git()).obligations == ()


def test_what_observing_lets_through_is_noted() -> None:
    """An unmatched intent and an unlisted tool; a call that is right is not."""
    of = git(mode="observe", observe_until="2030-01-01T00:00:00Z")
    ceiling = (Ceiling("big", (Pattern("*"),), None, 7),)
    for made, noted in (
        (commit(), ()),
        (commit({"message": "x" * 50}), ("observed",)),
        (call("push"), ("observed",)),
    ):
        assert allowed(made, of).obligations == noted
        with_ceiling = allowed(made, replace(of, ceilings=ceiling))
        assert with_ceiling.obligations == (*noted, "result-bytes:7")


# -- questions -------------------------------------------------------------------------------------------


def asks(*rules: tuple[str, str, int]) -> Policy:
    return replace(git(), asks=tuple(AskRule(i, THESE, approver=who, window=w) for i, who, w in rules))


def approved(word: str, *rules: str) -> Call:
    return commit(approval=Approval("q", frozenset(rules), "launch/boss", word))


def test_a_question_names_all_rules_and_takes_the_stricter_terms() -> None:
    """One reviewer among the approvers is enough to need one, and the shortest window stands."""
    assert decide(commit(), asks(("b", "client", 9), ("a", "client", 5))) == Ask(("a", "b"), "client", 5, ())
    assert decide(commit(), asks(("b", "reviewer", 4), ("a", "client", 5))) == Ask(
        ("a", "b"), "reviewer", 4, ()
    )


@pytest.mark.parametrize(
    ("word", "answered", "left"),
    [
        ("reviewer", ("a", "b"), False),
        ("reviewer", ("a",), True),
        ("reviewer", ("a", "b", "c"), False),
        ("client", ("a", "b"), True),
        ("", ("a", "b"), True),
        ("Reviewer", ("a", "b"), True),
        ("CLIENT", ("a", "b"), True),
    ],
)
def test_only_an_answer_to_every_question_by_whose_word_counts_is_one(
    word: str,
    answered: tuple[str, ...],
    left: bool,  # noqa: FBT001
) -> None:
    """A client's word answers nothing that a reviewer must."""
    of = asks(("a", "client", 5), ("b", "reviewer", 5))
    decision = decide(approved(word, *answered), of)
    if left:
        assert decision == Ask(("a", "b"), "reviewer", 5, ())
    else:
        assert isinstance(decision, Allow)
        assert decision.approved == ("a", "b")


def test_a_client_answers_what_only_asks_a_client() -> None:
    """And what it answered is used up; an answer to nothing that was asked is not."""
    of = asks(("a", "client", 5))
    assert allowed(approved("client", "a", "other"), of).approved == ("a",)
    assert allowed(approved("client", "a"), git()).approved == ()
    assert isinstance(decide(approved("client", "other"), of), Ask)


# -- where values come from ------------------------------------------------------------------------------


FROM = OriginRule("o", THESE, ("/message", "/missing", "/more/*"), frozenset({"user"}))


def origins(*rules: OriginRule) -> Policy:
    return replace(git(intents=[{"id": "any", "tools": ["git_commit"], "schema": True}]), origins=rules)


def test_a_value_that_nobody_vouches_for_is_refused_where_it_first_stands() -> None:
    """With its pointer into the request; the pointers of all of them in a question."""
    made = commit({"more": ["account 7512345", "account 8123459"], "message": "zebra7512"}, seen=NOTHING_SEEN)
    assert decide(made, origins(FROM)) == Deny(Reason.ORIGIN_REFUSED, "o", "/arguments/message")
    pointers = ("/arguments/message", "/arguments/more/0", "/arguments/more/1")
    asking = replace(FROM, asks=True, window=7, approver="client")
    assert decide(made, origins(asking)) == Ask(("o",), "client", 7, pointers)
    two = decide(made, origins(asking, replace(FROM, id="p", asks=True, window=3, arguments=("/message",))))
    assert two == Ask(("o", "p"), "reviewer", 3, pointers)
    answered = replace(
        made, facts=replace(made.facts, approval=Approval("q", frozenset({"o"}), "x", "client"))
    )
    assert allowed(answered, origins(asking)).approved == ("o",)
    assert isinstance(decide(made, origins(asking, replace(FROM, id="p"))), Deny)


def test_what_is_accepted_rests_on_what_was_seen() -> None:
    """A rule that accepts what was never seen lets it through; a constant is the policy's own."""
    made = commit({"message": "zebra7512"}, seen=NOTHING_SEEN)
    assert allowed(made, origins(replace(FROM, accept=frozenset({"unseen"})))).rests_on_seen
    own = replace(FROM, accept=frozenset({"policy"}), constants=frozenset({"zebra7512"}))
    assert allowed(made, origins(own)).rests_on_seen
    assert not allowed(made, git()).rests_on_seen


def test_where_nobody_looked_a_rule_on_origins_denies() -> None:
    """As does whatever breaks in it; both name it."""
    assert decide(commit(), origins(FROM)) == Deny(Reason.RULE_FAILED, "o")
    broken = commit({"message": "x"}, seen=Seen(None))  # type: ignore[arg-type]
    assert decide(broken, origins(replace(FROM, arguments=("no pointer",)))) == Deny(Reason.RULE_FAILED, "o")


# -- the world -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("behind", "denied"), [(CLOCK_TOLERANCE, False), (CLOCK_TOLERANCE + 1, True)])
def test_a_clock_may_be_ten_seconds_behind_and_no_more(behind: int, denied: bool) -> None:  # noqa: FBT001
    """What the newest entry says is the time."""
    assert CLOCK_TOLERANCE == 10_000
    decision = decide(commit(last=1_000_000 + behind), git())
    assert (decision == Deny(Reason.CLOCK_BEHIND)) is denied


def test_a_policy_ends_at_the_millisecond_that_it_names() -> None:
    """Also where observing ends, or nobody said when."""
    of = replace(git(), expires=1_000_000)
    assert decide(commit(now=1_000_000), of) == Deny(Reason.POLICY_EXPIRED)
    assert isinstance(decide(commit(now=999_999), of), Allow)
    observing = replace(git(), mode="observe", observe_until=1_000_000)
    assert decide(commit(now=1_000_000), observing) == Deny(Reason.POLICY_EXPIRED)
    assert isinstance(decide(commit(now=999_999), observing), Allow)
    for now in (0, 1):
        assert decide(commit(now=now), replace(observing, observe_until=None)) == Deny(Reason.POLICY_EXPIRED)


def test_what_is_not_plain_is_pointed_at_in_the_request() -> None:
    """By the wire's own word first, and by kind of what is called."""
    assert fault(commit()) is None
    assert fault(commit(fault=("/x", "twice"))) == "/x"
    assert fault(commit({"n": 2**60})) == "/arguments/n"
    assert fault(of_kind("method", "m", {"n": 2**60})) == "/n"
    assert fault(commit(["no object"])) == "/arguments"
    assert fault(replace(of_kind("method", "m"), params=["no object"])) == ""  # type: ignore[arg-type]

"""What one layer says of one call, asked of `Judging` itself: questions, origins, what is counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from guard.core.errors import Reason
from guard.core.model import Appearance, Approval, Call, Deny, Mark, Parent, Seen
from guard.policy.conditions import ARGUMENTS, fault
from guard.policy.counting import Budget, Ceiling, Limit, Scope, Sequence
from guard.policy.decide import decide
from guard.policy.judging import Judging, Question
from guard.policy.kinds import AskRule, OriginRule, Pattern
from guard.policy.origins.values import glimpses, spoken
from guard.policy.pointers import segments, value_at
from guard.policy.rules import Policy, Remembering
from tests.policy.calls import call, git, of_kind

SALT: Final = b"a salt of the tests, as long as it is"
THESE: Final = (Pattern("git_commit"),)
PLAIN: Final = git()
ASSERTING: Final = git(roles={"committer": {"scopes": ["git:*"], "may_assert_conversations": True}})
SAID: Final = call("git_commit", {"message": "x"})


def judging(policy: Policy, made: Call = SAID) -> Judging:
    return Judging(made, policy, policy.about(made.tool.server, made.tool.name, made.tool.kind))


# -- questions -------------------------------------------------------------------------------------------


def asking(*rules: tuple[str, str, int]) -> Policy:
    return replace(PLAIN, asks=tuple(AskRule(name, THESE, approver=who, window=w) for name, who, w in rules))


CLIENTS: Final = asking(("b", "client", 9), ("a", "client", 5))
BOTH: Final = asking(("b", "reviewer", 4), ("a", "client", 5))
REVIEWERS: Final = asking(("b", "reviewer", 4), ("a", "reviewer", 5))


@pytest.mark.parametrize(
    ("policy", "question"),
    [
        (CLIENTS, (("a", "b"), "client", 5, ())),
        (BOTH, (("a", "b"), "reviewer", 4, ())),
        (REVIEWERS, (("a", "b"), "reviewer", 4, ())),
        (PLAIN, None),
    ],
)
def test_a_question_goes_to_a_reviewer_unless_each_rule_takes_a_clients_word(
    policy: Policy, question: Question | None
) -> None:
    """All rules in order, and the shortest window."""
    assert judging(policy).questions() == question


@pytest.mark.parametrize(
    ("policy", "word", "rules", "approved", "open_"),
    [
        (BOTH, "reviewer", "ab", ("a", "b"), False),
        (BOTH, "client", "ab", ("a",), True),
        (BOTH, "reviewer", "a", ("a",), True),
        (CLIENTS, "client", "abc", ("a", "b"), False),
        (REVIEWERS, "client", "ab", (), True),
        (CLIENTS, "CLIENT", "ab", (), True),
        (PLAIN, "reviewer", "ab", (), False),
    ],
)
def test_a_clients_word_answers_only_what_asks_a_client(
    policy: Policy,
    word: str,
    rules: str,
    approved: tuple[str, ...],
    open_: bool,  # noqa: FBT001
) -> None:
    """What it does not answer stays a question."""
    answer = Approval("q", frozenset(rules), "launch/boss", word)
    judged = judging(policy, replace(SAID, facts=replace(SAID.facts, approval=answer)))
    assert judged.approved() == approved
    assert (judged.questions() is not None) is open_


# -- where values come from ------------------------------------------------------------------------------

FROM: Final = OriginRule("o", THESE, ("/message", "/more/*"), frozenset({"user"}))
GUARDED: Final = replace(PLAIN, origins=(FROM,))
VALUE: Final = "mark.black-2134@gmail.com"


def seen(*appearances: tuple[tuple[bytes, Appearance], ...]) -> Seen:
    rows: dict[bytes, tuple[Appearance, ...]] = {}
    for key, one in (pair for each in appearances for pair in each):
        rows[key] = (*rows.get(key, ()), one)
    return Seen(rows, salt=SALT)


NOWHERE: Final = Seen({}, salt=SALT)
IN_BOTH: Final = seen(
    tuple(spoken(f"send it to {VALUE}", SALT)),
    tuple(
        glimpses(f"mail {VALUE}".encode(), source="tool:web/read", trust="untrusted", fields={}, salt=SALT)
    ),
)


def told(known: Seen) -> Call:
    made = call("git_commit", {"more": [VALUE], "message": VALUE})
    return replace(made, facts=replace(made.facts, seen=known))


def test_a_value_that_is_refused_is_named_by_its_rule_and_its_first_place() -> None:
    """In the order of the pointers, into the request."""
    judged = judging(GUARDED, told(NOWHERE))
    assert list(judged.origins()) == [Deny(Reason.ORIGIN_REFUSED, "o", "/arguments/message")]
    assert judged.questions() is None
    asked = judging(replace(PLAIN, origins=(replace(FROM, asks=True, window=7),)), told(NOWHERE))
    assert list(asked.origins()) == []
    assert asked.questions() == (("o",), "reviewer", 7, ("/arguments/message", "/arguments/more/0"))


@pytest.mark.parametrize("overrides", [True, False])
def test_the_users_word_beats_what_is_untrusted_only_where_the_policy_says_so(
    overrides: bool,  # noqa: FBT001
) -> None:
    """One value, handed over by the user and seen in a page."""
    policy = replace(GUARDED, remembering=Remembering(user_overrides=overrides))
    judged = judging(policy, told(IN_BOTH))
    assert (list(judged.origins()) == []) is overrides
    assert judged.by_pointer()["/message"].trust == ("trusted" if overrides else "untrusted")


# -- what is counted -------------------------------------------------------------------------------------


def test_nothing_is_taken_and_nothing_noted_where_nothing_counts() -> None:
    """Empty, and no absence of an answer."""
    judged = judging(PLAIN)
    assert (judged.taken(), judged.marks(), judged.obligations(), judged.approved()) == ((), (), (), ())
    assert list(judged.counters()) == []
    assert judged.taken() == ()


@pytest.mark.parametrize(("most", "denied"), [(None, False), (0, True), (1, False), (2, False)])
def test_a_call_is_as_deep_as_its_ceiling_at_most(most: int | None, denied: bool) -> None:  # noqa: FBT001
    """One call led to this one."""
    made = replace(SAID, parent=Parent("verified", "digest"))
    judged = judging(replace(PLAIN, ceilings=(Ceiling("deep", THESE, most),)), made)
    assert list(judged.counters()) == ([Deny(Reason.LIMIT_REACHED, "deep")] if denied else [])


def test_what_a_good_ending_notes_is_its_conversations_own() -> None:
    """Where the role may say which that is; else it is the principal's."""
    opening = Sequence("s", (Pattern("git_log"),), THESE, requires=True, window=1000)
    for policy, own in ((ASSERTING, SAID.conversation), (PLAIN, None)):
        scope = Scope("p", SAID.principal, SAID.tool, own)
        marks = judging(replace(policy, sequences=(opening,))).marks()
        assert marks == (Mark(f"s/before/{scope.memory()}", 1000),)


def test_a_counter_is_called_by_its_rule_without_the_layer() -> None:
    """Counts go on when a policy is put above another, or alone again."""
    limit = Limit("few", THESE, frozenset({"principal"}), 5, 1000)
    sequence = Sequence("few", THESE, THESE, requires=True, window=1000, calls=1)
    scope = Scope("p", SAID.principal, SAID.tool, None)
    for name in ("team/few", "a/b/few"):
        assert replace(limit, id=name).reading(scope).counter == limit.reading(scope).counter
        layered = [one.counter for one in replace(sequence, id=name).readings(scope)]
        assert layered == [one.counter for one in sequence.readings(scope)]
    assert limit.reading(scope).counter.startswith("few/")
    assert Budget("/n", 2).amount({"n": 1}) == 100


def test_a_call_in_another_layer_is_denied_by_the_first_that_says_no() -> None:
    """However the other one judges."""
    below = replace(PLAIN, above=(replace(CLIENTS, ref=replace(PLAIN.ref, id="above")),))
    denied = decide(call("git_commit", {"message": "x" * 99}), below)
    assert isinstance(denied, Deny)
    assert denied.reason is Reason.INTENT_UNMATCHED


@pytest.mark.parametrize(
    ("kind", "at"), [("tool", "/arguments"), ("prompt", "/arguments"), ("resource", ""), ("method", "")]
)
def test_what_rules_judge_stands_where_its_kind_has_it(kind: str, at: str) -> None:
    """Tools and prompts have arguments; of resources and methods the params are what is judged."""
    assert at == ARGUMENTS[kind]
    assert fault(of_kind(kind, "x", {"n": 2**60})) == (f"{at}/n" if kind != "resource" else None)
    assert ARGUMENTS.keys() == {"tool", "prompt", "resource", "method"}


# -- pointers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pointer", ["/~~01", "/~~1", "/a~", "/~2", "/~01~", "/~~00"])
def test_a_tilde_that_escapes_nothing_is_no_pointer(pointer: str) -> None:
    """Also where what stands beside it would make one, were it taken away (RFC 6901, section 3)."""
    with pytest.raises(ValueError, match="not a JSON pointer"):
        segments(pointer)
    assert value_at({"~1": 5}, "/~01") == 5


@pytest.mark.parametrize("broken", [None, replace(SAID, facts=None), replace(SAID, tool=None)])  # type: ignore[arg-type]
def test_what_breaks_outside_of_every_rule_is_a_denial(broken: Call) -> None:
    """A fault of ours is not a yes, whatever breaks, and names no rule."""
    assert decide(broken, PLAIN) == Deny(Reason.RULE_FAILED)
    assert decide(SAID, None) == Deny(Reason.RULE_FAILED)  # type: ignore[arg-type]

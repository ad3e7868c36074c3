"""Limits: what they may say, what they deny, and what they count apart."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from guard.cli.main import main
from guard.core.errors import GuardError, Reason
from guard.core.model import Allow, Call, Conversation, Deny, Reservation
from guard.policy.cases import load_checked
from guard.policy.cautions import cautions
from guard.policy.decide import decide, visible
from guard.policy.document import load
from guard.policy.explain import explain
from guard.policy.globs import fits, overlap
from guard.policy.language import document_schema
from guard.policy.rules import Limit, Policy
from tests.policy.calls import ROLES, TOOLS, call, document, git, of_kind, policy
from tests.policy.test_laws import EVERYWHERE, permits
from tests.policy.worlds import PATTERNS, calls, policies

FEW = {"id": "few", "tools": ["git_commit"], "per": "principal", "calls": 3, "window": "60s"}
ASSERTING = {"committer": {"scopes": ["git:read", "git:write"], "may_assert_conversations": True}}
SAID = {"message": "x"}


def limited(*limits: dict[str, Any], **members: Any) -> Policy:
    return git(limits=[{**FEW, **limit} for limit in limits or ({},)], **members)


def commit(used: Any = 0, **more: Any) -> Call:
    return call("git_commit", SAID, used={"few": used} if used is not None else {}, **more)


def reserved(made: Call, of: Policy) -> tuple[Reservation, ...]:
    decision = decide(made, of)
    assert isinstance(decision, Allow), decision
    return decision.reservations


def counter(made: Call, of: Policy) -> str:
    (one,) = reserved(replace(made, facts=replace(made.facts, used={"few": 0})), of)
    return one.counter


# -- what a limit denies ---------------------------------------------------------------------------


@pytest.mark.parametrize(("used", "permitted"), [(0, True), (2, True), (3, False), (4, False)])
def test_a_limit_permits_so_many_and_no_more(used: int, permitted: bool) -> None:  # noqa: FBT001
    """With as many calls as it names inside the window, the next one is denied by it."""
    decision = decide(commit(used), limited())
    assert permits(decision) == permitted
    if not permitted:
        assert decision == Deny(Reason.LIMIT_REACHED, "few")


@pytest.mark.parametrize("used", [None, -1, True, 0.0, "0", float("nan")])
def test_a_limit_of_which_nobody_knows_the_use_denies(used: Any) -> None:
    """Absence is no zero: without a count of whole calls nothing is permitted."""
    assert decide(commit(used), limited()) == Deny(Reason.RULE_FAILED, "few")


def test_what_a_permitted_call_takes_goes_with_the_decision() -> None:
    """One call of each limit on it, in the order of the ids; and nothing where no limit names it."""
    both = limited(
        {"id": "z", "tools": ["*"], "calls": 5, "window": "2h"}, {}, {"id": "o", "tools": ["push"]}
    )
    made = call("git_commit", SAID, used={"few": 2, "z": 4})
    few, z = reserved(made, both)
    assert (few.limit, few.amount, few.most, few.window) == ("few", 1, 3, 60_000)
    assert (z.limit, z.amount, z.most, z.window) == ("z", 1, 5, 7_200_000)
    assert reserved(call("git_log"), limited()) == ()
    assert git().readings(made.principal, made.tool, made.conversation) == ()


def test_every_limit_must_have_room_and_the_first_by_id_is_named() -> None:
    """Whatever their order in the file."""
    for order in ([{}, {"id": "a"}], [{"id": "a"}, {}]):
        both = limited(*order)
        for used, said in (
            ({"few": 3, "a": 0}, Deny(Reason.LIMIT_REACHED, "few")),
            ({"few": 3, "a": 3}, Deny(Reason.LIMIT_REACHED, "a")),
            ({"few": 3}, Deny(Reason.RULE_FAILED, "a")),
            ({"a": 3}, Deny(Reason.LIMIT_REACHED, "a")),
        ):
            assert decide(call("git_commit", SAID, used=used), both) == said


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (call("git_commit", {"message": "x" * 50}), Reason.INTENT_UNMATCHED),
        (call("git_commit", SAID, role="reader"), Reason.MISSING_SCOPE),
        (call("git_commit", SAID, role="nobody"), Reason.UNAUTHORIZED_ROLE),
        (call("git_reset"), Reason.PROTECTED),
        (call("push"), Reason.DEFAULT_DENY),
        (call("git_commit", SAID, contained=frozenset({"tool"})), Reason.TOOL_CONTAINED),
        (call("git_commit", {"n": 2**60}), Reason.ARGUMENTS_NOT_IJSON),
    ],
)
def test_a_limit_is_asked_last(made: Call, reason: Reason) -> None:
    """Who may not call it at all learns nothing of how often it was called."""
    full = limited({"tools": ["*"]})
    for used in ({}, {"few": 3}):
        decision = decide(replace(made, facts=replace(made.facts, used=used)), full)
        assert isinstance(decision, Deny)
        assert decision.reason is reason


def test_observing_lets_no_limit_through() -> None:
    """What observing permits counts, and is denied where there is no room."""
    observing = limited({"tools": ["*"]}, mode="observe", observe_until="2030-01-01T00:00:00Z")
    for made in (call("push"), call("git_commit", {"message": "x" * 50})):
        (one,) = reserved(replace(made, facts=replace(made.facts, used={"few": 2})), observing)
        assert one.limit == "few"
        denied = decide(replace(made, facts=replace(made.facts, used={"few": 3})), observing)
        assert denied == Deny(Reason.LIMIT_REACHED, "few")


def test_a_limit_hides_nothing() -> None:
    """Lists do not tell whether there is room."""
    made = commit(3)
    assert visible(made.principal, "git", "git_commit", frozenset(), limited())


KINDS = {"tool": "tools", "prompt": "prompts", "resource": "resources", "method": "methods"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_on_one_kind_says_nothing_of_the_others(kind: str) -> None:
    """It counts what it names, and of that whichever it is."""
    lists = {field: [{"match": "x", "scopes": []}] for field in KINDS.values()}
    limit = {"id": "few", KINDS[kind]: ["x"], "per": "principal", "calls": 1, "window": "1s"}
    of = policy(roles=ROLES, limits=[limit], **lists)
    for other in KINDS:
        expected = Deny(Reason.LIMIT_REACHED, "few") if other == kind else None
        decision = decide(of_kind(other, "x", used={"few": 1}), of)
        assert decision == expected or (expected is None and permits(decision))


WEAKER = {Reason.LIMIT_REACHED, Reason.AMOUNT_UNREADABLE, Reason.RULE_FAILED, Reason.ORIGIN_REFUSED}


@given(policies(), calls(), st.integers(0, 5), st.integers(1, 5), st.sets(st.sampled_from(("few", "zz"))))
def test_adding_a_limit_never_permits_more(
    of: Policy, made: Call, used: int, most: int, known: set[str]
) -> None:
    """One more limit only takes away, and what it lets through is decided as without it."""
    made = replace(made, facts=replace(made.facts, used=dict.fromkeys(known, used)))
    added = Limit("zz", EVERYWHERE, frozenset({"principal"}), most, 1000)
    with_it, without = decide(made, replace(of, limits=(*of.limits, added))), decide(made, of)
    if isinstance(with_it, Allow):
        assert isinstance(without, Allow)
        assert replace(with_it, reservations=without.reservations) == without
        assert with_it.reservations[: len(without.reservations)] == without.reservations
        assert "zz" in known
        assert used < most
    elif with_it != without:
        assert with_it in (Deny(Reason.LIMIT_REACHED, "zz"), Deny(Reason.RULE_FAILED, "zz"))
        assert not isinstance(without, Deny) or without.reason in WEAKER, without


@given(policies(), calls(), st.integers(0, 5), st.integers(0, 5), st.integers(1, 5))
def test_more_use_never_permits_more(of: Policy, made: Call, less: int, more: int, most: int) -> None:
    """What is denied with some calls is denied with more of them."""
    assume(less <= more)
    of = replace(of, limits=(Limit("zz", EVERYWHERE, frozenset({"tool"}), most, 1000),))
    few, many = (
        decide(replace(made, facts=replace(made.facts, used={"zz": used})), of) for used in (less, more)
    )
    assert not (permits(many) and not permits(few))


# -- what is counted apart -------------------------------------------------------------------------


def of_somebody(subject: str = "someone", talk: str = "c", tool: str = "git_commit", **more: Any) -> Call:
    made = call(tool, SAID, **more)
    return replace(
        made, principal=replace(made.principal, subject=subject), conversation=Conversation(talk, "meta")
    )


def apart(of: Policy, *made: Call) -> bool:
    """Whether no two of the calls are counted together; else all must be."""
    counters = {counter(one, of) for one in made}
    assert len(counters) in {1, len(made)}
    return len(counters) == len(made)


PER = [
    # per, who asserts, principals apart, tools apart, conversations apart
    ("principal", False, True, False, False),
    ("principal", True, True, False, False),
    ("tool", True, False, True, False),
    ("conversation", False, True, False, False),
    ("conversation", True, True, False, True),
    (["principal", "tool"], True, True, True, False),
    (["tool", "conversation"], False, True, True, False),
    (["tool", "conversation"], True, True, True, True),
    (["conversation", "tool", "principal"], True, True, True, True),
]


@pytest.mark.parametrize(("per", "asserting", "principals", "tools", "conversations"), PER)
def test_each_combination_is_counted_apart_and_nothing_else(
    per: Any,
    asserting: bool,  # noqa: FBT001
    principals: bool,  # noqa: FBT001
    tools: bool,  # noqa: FBT001
    conversations: bool,  # noqa: FBT001
) -> None:
    """Of two calls that differ in one thing, the counters differ just where the limit says so."""
    of = limited({"per": per, "tools": ["*"]}, intents=[], roles=ASSERTING if asserting else ROLES)
    one = of_somebody()
    assert apart(of, one, of_somebody("another")) == principals
    assert apart(of, one, of_somebody(tool="git_log")) == tools
    assert apart(of, one, replace(one, tool=replace(one.tool, server="gitx"))) == tools
    assert apart(of, one, of_somebody(talk="d")) == conversations
    other_issuer = replace(one, principal=replace(one.principal, issuer="api-key"))
    assert apart(of, one, other_issuer) == principals
    narrowed = frozenset({"git:read", "git:write"})
    other_key = replace(one, principal=replace(one.principal, credential="k2", scopes=narrowed))
    assert not apart(of, one, other_key)


def test_a_new_id_sheds_nothing() -> None:
    """Conversations count apart only where the role may assert them, whatever the id's source."""
    of = limited({"per": "conversation"})
    for source in ("meta", "session", "launch", "inferred"):
        other = replace(commit(), conversation=Conversation(f"another {source}", source))
        assert not apart(of, commit(), other)
    assert apart(limited({"per": "conversation"}, roles=ASSERTING), commit(), of_somebody(talk="another"))


def test_names_that_run_together_are_counted_apart() -> None:
    """No choice of subject, issuer or id makes two principals' counters one."""
    of = limited({"per": ["conversation", "tool"], "tools": ["*"]}, roles=ASSERTING)
    pairs = [("a", "b"), ("a/b", ""), ("", "a/b"), ('a","b', ""), ("ab", ""), ("a", "b\n")]
    assert apart(of, *(of_somebody(subject, talk) for subject, talk in pairs))


def test_a_counter_has_a_short_name() -> None:
    """However long what it counts is called, so that it fits into any index."""
    of = limited({"per": ["conversation", "tool"], "tools": ["*"], "id": "f" * 64}, roles=ASSERTING)
    made = of_somebody("s" * 10_000, "t" * 10_000)
    (one,) = reserved(replace(made, facts=replace(made.facts, used={"f" * 64: 0})), of)
    assert len(one.counter) == 64 + 1 + 43
    assert one.counter.isascii()


def test_a_count_outlives_a_new_version() -> None:
    """Another version, other numbers and other tools leave the counter; another id does not."""
    one = counter(commit(), limited())
    later = limited({"calls": 7, "window": "1h", "tools": ["git_*"]}, version=2)
    assert counter(commit(), later) == one
    assert counter(commit(), git(id="q", limits=[FEW])) != one


# -- what may be said ------------------------------------------------------------------------------


def refusal(**changed: Any) -> GuardError:
    said = {name: value for name, value in {**FEW, **changed}.items() if value is not ...}
    text = document(roles=ROLES, tools=TOOLS, limits=[said])
    with pytest.raises(GuardError) as raised:
        load(text, name="p.json")
    assert raised.value.where == "p.json:1"
    return raised.value


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"calls": 0}, "limits.0.calls: input should be greater than or equal to 1"),
        ({"calls": 10_001}, "limits.0.calls: input should be less than or equal to 10000"),
        ({"calls": "10"}, "limits.0.calls: input should be a valid integer"),
        ({"calls": 1.0}, "limits.0.calls: input should be a valid integer"),
        ({"calls": True}, "limits.0.calls: input should be a valid integer"),
        ({"calls": ...}, "limits.0: a limit has one of `calls`, `sum`, `at_once`, `depth`, `result_bytes`"),
        ({"depth": 2}, "limits.0: a limit has one of `calls`, `sum`, `at_once`, `depth`, `result_bytes`"),
        ({"window": ...}, "limits.0: `calls` needs `window`"),
        ({"per": ...}, "limits.0: `calls` needs `per`"),
        ({"of": "/amount"}, "limits.0: `sum` and `of` go together"),
        ({"calls": ..., "depth": 2}, "limits.0: `depth` has neither `per` nor `window`"),
        ({"id": ...}, "limits.0.id: is missing"),
        ({"id": "Few"}, "limits.0.id: has a form that is not allowed"),
        ({"tools": ...}, "limits.0: names nothing"),
        ({"methods": ["tools/call"]}, "limits.0.methods.0: `tools/call` is not judged as a method"),
        ({"window": 60}, "limits.0.window: input should be a valid string"),
        ({"per": "server"}, "limits.0.per"),
        ({"per": []}, "limits.0.per: list should have at least 1 item"),
        ({"per": ["tool", "tool"]}, "limits.0.per: `tool` stands here twice"),
        ({"schema": {}}, "limits.0.schema: is no field of the language"),
        ({"cals": 1}, "limits.0.cals: is no field of the language"),
    ],
)
def test_what_is_no_limit_is_refused(changed: dict[str, Any], said: str) -> None:
    """Strictly read, with the place, what is wrong, and a remedy."""
    error = refusal(**changed)
    assert error.what.startswith(said), error.what
    assert error.remedy


@pytest.mark.parametrize(
    "window",
    ["0s", "60", "1.5h", "-1s", "1 h", "32d", "745h", "60S", "1w", "1h30m", "", "01s", "٣s", "9" * 30 + "s"],
)
def test_a_window_has_one_form_and_bounds_that_are_told(window: str) -> None:
    """A whole number with its unit, from 1s to 31d."""
    assert (
        refusal(window=window).what
        == "limits.0.window: not a time from 1s to 31d, such as 90s, 15m, 24h or 7d"
    )


@pytest.mark.parametrize(
    ("window", "milliseconds"),
    [("1s", 1000), ("90s", 90_000), ("15m", 900_000), ("24h", 86_400_000), ("31d", 31 * 86_400_000)],
)
def test_a_window_is_as_long_as_it_says(window: str, milliseconds: int) -> None:
    """In whole milliseconds."""
    (limit,) = limited({"window": window}).limits
    assert limit.window == milliseconds


def test_an_id_names_one_rule() -> None:
    """A limit's id is no other rule's: an answer names one of them."""
    with pytest.raises(GuardError, match="the id `short-message` already stands at"):
        limited({"id": "short-message"})
    with pytest.raises(GuardError, match="the id `few` already stands at"):
        limited({}, {})


def test_a_misspelt_field_is_told_with_its_line() -> None:
    """In YAML the line is the field's own."""
    text = "guard: 1\nid: p\nversion: 1\nlimits:\n  - id: few\n    tools: [x]\n    per: tool\n"
    text += "    calls: 1\n    windw: 60s\n"
    with pytest.raises(GuardError) as raised:
        load(text.encode(), name="p.yaml")
    assert raised.value.where == "p.yaml:9"
    assert raised.value.remedy == "did you mean `window`?"


# -- cases, cautions, explanations -----------------------------------------------------------------


def cases(facts: str, expected: str) -> str:
    arguments = "arguments: {message: x}"
    return (
        "cases:\n"
        f"  - {{name: one, role: committer, server: git, tool: git_commit, {arguments}, {facts}{expected}}}\n"
    )


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ("", "expect: allow"),
        ("facts: {used: {few: 2}}, ", "expect: allow"),
        ("facts: {used: {few: 3}}, ", "expect: deny, reason: limit-reached, rule: few"),
    ],
)
def test_a_case_says_how_much_was_used(facts: str, expected: str) -> None:
    """What is not said was not used at all; and a case that is wrong about it fails."""
    text = document(roles=ROLES, tools=TOOLS, limits=[FEW])
    load_checked(text, cases(facts, expected).encode(), "p.json")
    wrong = "expect: allow" if "deny" in expected else "expect: deny, reason: limit-reached"
    with pytest.raises(GuardError, match="1 of 1 cases failed"):
        load_checked(text, cases(facts, wrong).encode(), "p.json")


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ("facts: {used: {fw: 3}}, ", "no limit and no sequence is called `fw`"),
        ("facts: {used: {few: -1}}, ", "greater than or equal to 0"),
        ("facts: {used: {few: many}}, ", "valid integer"),
    ],
)
def test_a_case_about_a_limit_that_is_not_there_is_refused(facts: str, what: str) -> None:
    """It would be without effect, and say nothing of the limit that was meant."""
    text = document(roles=ROLES, tools=TOOLS, limits=[FEW])
    with pytest.raises(GuardError, match=what):
        load_checked(text, cases(facts, "expect: allow").encode(), "p.json")


@pytest.mark.parametrize(
    ("limit", "caution"),
    [
        ({}, None),
        ({"tools": ["git_*"]}, None),
        ({"tools": ["*t_commit"], "per": "tool"}, None),
        ({"tools": ["git_log"], "per": "conversation"}, "no role may assert conversations"),
        ({"tools": ["comit"]}, "no rule lists a tool that fits `comit`"),
        ({"tools": ["svn_*"]}, "no rule lists a tool that fits `svn_*`"),
        ({"tools": [{"match": "git_log", "server": "hub"}]}, "no rule lists a tool that fits `git_log`"),
        ({"prompts": ["git_commit"]}, "no rule lists a prompt that fits `git_commit`"),
    ],
)
def test_cautions_name_limits_that_are_likely_a_mistake(limit: dict[str, Any], caution: str | None) -> None:
    """A limit that counts nothing, or not what it seems to."""
    found = [str(one) for one in cautions(limited(limit))]
    assert (not found) if caution is None else (len(found) == 1 and f"few: {caution}" in found[0])


def test_a_caution_where_every_uri_is_counted_apart() -> None:
    """Who knows many URIs that mean the same has many counters."""
    resources = [{"match": "file:///*", "scopes": []}]
    limit = {
        "id": "few",
        "resources": ["file:///*"],
        "per": ["principal", "tool"],
        "calls": 1,
        "window": "1s",
    }
    (found,) = cautions(policy(roles=ROLES, resources=resources, limits=[limit]))
    assert str(found).startswith("GP009 few: each URI that fits `file:///*` is counted apart")


GLOBS = st.text("ab*?", max_size=5)


@given(st.one_of(GLOBS, st.sampled_from(PATTERNS)), GLOBS, st.text("ab", max_size=6))
def test_two_globs_overlap_where_one_name_fits_both(one: str, other: str, name: str) -> None:
    """In either order; and no name fits two that do not."""
    assert overlap(one, other) == overlap(other, one)
    if fits(one, name) and fits(other, name):
        assert overlap(one, other)


@given(GLOBS, GLOBS)
def test_two_globs_that_overlap_share_a_name(one: str, other: str) -> None:
    """Some name of at most both lengths fits both: tried one after the other."""
    names = [""]
    for _ in range(len(one.replace("*", "")) + len(other.replace("*", ""))):
        names += [name + char for name in names for char in "ab" if len(name) == len(names[-1])]
    assume(len(names) < 5000)
    assert overlap(one, other) == any(fits(one, name) and fits(other, name) for name in names)


@given(policies(), calls(), st.integers(0, 3), st.booleans())
def test_the_explanation_of_limits_ends_where_the_decision_does(
    of: Policy,
    made: Call,
    used: int,
    known: bool,  # noqa: FBT001
) -> None:
    """The steps, worked out on their own, lead to the decision."""
    of = replace(of, limits=(Limit("zz", EVERYWHERE, frozenset({"principal"}), 2, 1000),))
    made = replace(made, facts=replace(made.facts, used={"zz": used} if known else {}))
    explanation, decision = explain(made, of), decide(made, of)
    assert explanation.decision == decision
    expected = (
        (decision.reason, decision.rule, decision.pointer) if isinstance(decision, Deny) else (None, "", "")
    )
    assert explanation.conclusion == expected


def explained(tmp_path: Any, *options: str) -> Any:
    file = tmp_path / "p.json"
    file.write_bytes(document(roles=ROLES, tools=TOOLS, limits=[{**FEW, "because": "people are slow"}]))
    words = ["policy", "explain", str(file), "--role", "committer", "--tool", "git_commit", "--server", "git"]
    return CliRunner().invoke(main, [*words, *options])


def test_an_explanation_shows_limits_and_what_was_used(tmp_path: Any) -> None:
    """To the author of the policy, with how much there is."""
    found = explained(tmp_path)
    assert found.exit_code == 0
    assert "limit [few] - 3 calls in 60 seconds per principal, 0 used; people are slow" in found.output
    found = explained(tmp_path, "--used", "few=3", "--json")
    assert found.exit_code == 1
    assert json.loads(found.output)["reason"] == "limit-reached"
    assert json.loads(found.output)["rule"] == "few"


@pytest.mark.parametrize(
    "option", ["few", "few=", "few=-1", "few=x", "other=1", "few=1.0", "few=" + "9" * 20]
)
def test_a_use_that_is_none_is_refused(tmp_path: Any, option: str) -> None:
    """On the command line too."""
    found = explained(tmp_path, "--used", option)
    assert found.exit_code == 2
    assert "--used" in found.output


@pytest.mark.parametrize(
    ("limit", "valid"),
    [
        ({}, True),
        ({"per": ["tool", "principal"], "window": "31d", "calls": 10_000}, True),
        ({"per": "role"}, True),
        ({"per": "server"}, False),
        ({"per": []}, False),
        ({"per": ["tool", "tool"]}, False),
        ({"calls": 0}, False),
        ({"calls": 10_001}, False),
        ({"window": "60"}, False),
        ({"window": 60}, False),
        ({"schema": {}}, False),
        ({"tools": []}, False),
    ],
)
def test_editors_are_told_the_same(limit: dict[str, Any], valid: bool) -> None:  # noqa: FBT001
    """The published schema takes what the reader takes of a limit, and refuses what it refuses."""
    written = {"guard": 1, "id": "p", "version": 1, "limits": [{**FEW, **limit}]}
    assert Draft202012Validator(document_schema()).is_valid(written) == valid
    if valid:
        load(json.dumps(written).encode(), name="p.json")
    else:
        with pytest.raises(GuardError):
            load(json.dumps(written).encode(), name="p.json")

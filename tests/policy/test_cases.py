"""Cases beside a policy: what is not as they say does not load."""

from __future__ import annotations

from pathlib import Path

import pytest

from guard.core.errors import GuardError
from guard.policy.cases import load_checked, read_cases, run
from guard.policy.cautions import cautions
from guard.policy.coverage import missing
from guard.policy.document import load
from tests.policy.calls import ROLES, SHORT, TOOLS, document, git, policy

POLICY = document(roles=ROLES, tools=TOOLS, intents=[SHORT])
GOOD = """\
cases:
  - {name: commits, role: committer, server: git, tool: git_commit, arguments: {message: x}, expect: allow}
  - name: too long
    role: committer
    server: git
    tool: git_commit
    arguments: {message: "a message of more than twenty characters"}
    expect: deny
    reason: intent-unmatched
    rule: short-message
"""


def refusal(cases: str, data: bytes = POLICY) -> GuardError:
    with pytest.raises(GuardError) as raised:
        load_checked(data, cases.encode(), "p.yaml", "p.cases.yaml")
    return raised.value


def test_a_policy_loads_with_cases_that_hold_and_without_any() -> None:
    """Cases are checked where they are given."""
    assert load_checked(POLICY, GOOD.encode(), "p.yaml", "p.cases.yaml").ref.id == "p"
    assert load_checked(POLICY, None, "p.yaml") == load(POLICY, name="p.yaml")


def test_a_policy_whose_cases_fail_does_not_load() -> None:
    """One case that is answered otherwise is enough, and its line is told."""
    error = refusal(GOOD.replace("expect: allow", "expect: deny, reason: protected"))
    assert error.where == "p.cases.yaml:2"
    assert "1 of 2 cases failed" in error.what
    assert "expected deny protected, got allow by short-message" in error.what


POLICIES = Path(__file__).parents[2] / "policies"
NAMES = sorted(path.stem for path in POLICIES.glob("*.yaml") if ".cases" not in path.name)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("reason: intent-unmatched", "reason: missing-scope"),
        ("rule: short-message", "rule: another"),
        ("message: x", "text: x"),
        ("role: committer, server", "role: reader, server"),
        ("role: committer, server", 'scopes: ["git:read"], role: committer, server'),
        ("tool: git_commit, arguments", "tool: push, arguments"),
        ("expect: allow}", "expect: allow, rule: another}"),
        ("expect: allow}", "expect: allow, facts: {contained: [tool]}}"),
    ],
)
def test_a_case_asserts_everything_that_it_says(old: str, new: str) -> None:
    """Outcome, reason and rule must all be as written; an allow must name the rule."""
    assert "cases failed" in refusal(GOOD.replace(old, new, 1)).what


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("arguments: {message: x}", "argumnets: {}", 2, "argumnets"),
        ("expect: allow", "expect: maybe", 2, "allow"),
        ("    reason: intent-unmatched\n", "", 3, "expects deny"),
        ("expect: allow", "expect: allow, reason: protected", 2, "expects allow"),
        ("reason: intent-unmatched", "reason: intent-unmatch", 9, "no reason"),
        ("name: too long", "name: commits", 3, "twice"),
        ("expect: allow", "expect: allow, facts: {now: tomorrow}", 2, "RFC 3339"),
        ("cases:", "case:", 1, "case"),
    ],
)
def test_a_mistake_in_a_case_is_told_with_its_line(old: str, new: str, where: int, what: str) -> None:
    """Cases are read as strictly as policies."""
    error = refusal(GOOD.replace(old, new, 1))
    assert error.where == f"p.cases.yaml:{where}"
    assert what in error.what
    assert error.remedy


def test_a_case_may_ask_for_a_prompt_a_resource_or_a_method() -> None:
    """Each is judged by the rules for its kind; of a method the arguments are its params."""
    text = b"""cases:
  - {name: p, role: reader, prompt: review, arguments: {depth: "1"}, expect: allow, rule: "prompts/*:review"}
  - {name: r, role: reader, resource: "file:///docs/a", expect: allow, rule: "resources/*:file:///docs/*"}
  - {name: climb, role: reader, resource: "file:///docs/../a", expect: deny, reason: default-deny}
  - {name: m, role: reader, method: tasks/get, arguments: {taskId: "1"}, expect: allow, rule: by-id}
  - {name: n, role: reader, method: tasks/get, expect: deny, reason: intent-unmatched, rule: by-id}
  - {name: t, role: reader, tool: review, expect: deny, reason: default-deny}
"""
    judging = policy(
        roles=ROLES,
        prompts=[{"match": "review", "scopes": []}],
        resources=[{"match": "file:///docs/*", "scopes": []}],
        methods=[{"match": "tasks/*", "scopes": []}],
        intents=[{"id": "by-id", "methods": ["tasks/get"], "schema": {"required": ["taskId"]}}],
    )
    assert [result.got for result in run(judging, read_cases(text, name="c")) if not result.passed] == []


@pytest.mark.parametrize(
    ("subject", "what"),
    [
        ("", "one thing"),
        ("tool: a, prompt: a", "one thing"),
        ("resource: 'file:///a', arguments: {uri: 'file:///b'}", "no arguments"),
    ],
)
def test_a_case_asks_for_one_thing(subject: str, what: str) -> None:
    """Not for nothing, not for two, and not for one resource under the URI of another."""
    with pytest.raises(GuardError, match=what) as raised:
        read_cases(
            f"cases: [{{name: a, role: r, {subject}, expect: allow}}]".replace(" ,", "").encode(), name="c"
        )
    assert raised.value.remedy


def test_cases_judge_as_in_enforce_mode() -> None:
    """A case for an unlisted tool must be denied, also while the policy observes."""
    observing = document(roles=ROLES, tools=TOOLS, mode="observe", observe_until="2030-01-01T00:00:00Z")
    unlisted = "cases: \n  - {name: a, role: reader, tool: push, expect: allow}\n"
    assert "got deny default-deny" in refusal(unlisted, observing).what
    denied = unlisted.replace("allow", "deny, reason: default-deny")
    assert load_checked(observing, denied.encode(), "p", "c").mode == "observe"


def test_time_and_containment_are_facts_of_a_case() -> None:
    """A case can stand at another time, and in a world where something is contained."""
    text = b"""cases:
  - {name: before, role: reader, server: git, tool: git_log, expect: allow}
  - {name: after, role: reader, server: git, tool: git_log, facts: {now: "2030-01-01T00:00:00Z"},
     expect: deny, reason: policy-expired}
  - {name: out, role: reader, server: git, tool: git_log, facts: {contained: [all]},
     expect: deny, reason: principal-contained}
"""
    results = run(git(expires="2029-01-01T00:00:00Z"), read_cases(text, name="c"))
    assert [result.passed for result in results] == [True, True, True]


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in POLICIES.glob("*.yaml") if ".cases" not in path.name)
)
def test_the_example_policies_hold_and_every_rule_has_a_case(name: str) -> None:
    """Each example loads with its cases, and each of its rules speaks in at least one of them."""
    data = (POLICIES / f"{name}.yaml").read_bytes()
    cases_data = (POLICIES / f"{name}.cases.yaml").read_bytes()
    loaded = load_checked(data, cases_data, name, name)
    assert missing(loaded, run(loaded, read_cases(cases_data, name=name))) == ()


def test_cautions_name_what_is_likely_a_mistake() -> None:
    """A bound that an absent or differently typed value slips past is pointed out."""
    schema = {
        "properties": {"amount": {"maximum": 10}, "to": {"type": "string", "pattern": "DE"}},
        "required": ["to"],
    }
    tools = [{"match": "pay", "scopes": ["pay"]}]
    found = [
        str(one)
        for one in cautions(policy(tools=tools, intents=[{"id": "i", "tools": ["pay"], "schema": schema}]))
    ]
    assert len(found) == 4
    assert "`amount` may be left out" in found[0]
    assert "maximum checks nothing but numbers" in found[1]
    assert "need not match the whole text" in found[2]
    assert found[3] == "GP007 tools/*:pay: no role grants pay"
    assert not [*cautions(git())]

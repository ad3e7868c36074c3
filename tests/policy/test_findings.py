# ruff: noqa: FBT003 - one finding a line
"""Findings of `guard policy check`: each has a page, and each is found where it is and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guard.policy.cases import read_cases, run
from guard.policy.cautions import Finding, cautions
from guard.policy.document import load
from tests.policy.calls import document

FOLDER = Path(__file__).parents[2] / "docs" / "findings"
ROLES = {"r": {"scopes": ["a", "b:*"], "may_assert_user": True, "may_assert_conversations": True}}
TOOLS = [{"match": "pay", "scopes": ["a"]}, {"match": "read", "scopes": ["b:x"]}]
LIMIT = {"id": "few", "tools": ["pay"], "per": "principal", "calls": 1, "window": "1s"}
ORIGIN = {"id": "o", "tools": ["pay"], "arguments": ["/to"], "accept": ["unseen"]}
SOUND: dict[str, Any] = {"roles": ROLES, "tools": TOOLS}
GOOD = {"type": "object", "required": ["n"], "properties": {"n": {"type": "number", "maximum": 10}}}


def intent(schema: Any, id_: str = "i") -> dict[str, Any]:
    return {"id": id_, "tools": ["pay"], "schema": schema}


def found(members: dict[str, Any], cases: str | None = None, known: Any = None) -> set[Finding]:
    policy = load(document(**{**SOUND, **members}), name="p.json")
    results = None if cases is None else run(policy, read_cases(cases.encode(), name="c")) if cases else []
    return {caution.id for caution in cautions(policy, results, known)}


NAMED = (
    "cases: [{name: p, role: r, tool: pay, expect: allow, rule: 'tools/*:pay'},"
    " {name: q, role: r, tool: read, expect: allow, rule: 'tools/*:read'}%s]"
)
SEEN = [
    (
        Finding.LEFT_OUT,
        {"intents": [intent({"properties": {"n": {"type": "number"}}})]},
        {"intents": [intent(GOOD)]},
    ),
    (
        Finding.UNTYPED,
        {"intents": [intent({"required": ["n"], "properties": {"n": {"maximum": 1}}})]},
        {"intents": [intent(GOOD)]},
    ),
    (
        Finding.OPEN_PATTERN,
        {"intents": [intent({"required": ["n"], "properties": {"n": {"type": "string", "pattern": "a"}}})]},
        {"intents": [intent({"required": ["n"], "properties": {"n": {"type": "string", "pattern": "^a$"}}})]},
    ),
    (
        Finding.LISTS_NO_URI,
        {"resources": [{"match": "file:///../*", "scopes": []}]},
        {"resources": [{"match": "file:///*", "scopes": []}]},
    ),
    (
        Finding.ANY_CHARACTER,
        {"resources": [{"match": "memo:a?b", "scopes": []}]},
        {"resources": [{"match": "memo:ab", "scopes": []}]},
    ),
    (
        Finding.ANY_HOST,
        {"resources": [{"match": "https://*.example/x", "scopes": []}]},
        {"resources": [{"match": "https://a.example/*", "scopes": []}]},
    ),
    (
        Finding.NOBODY_GRANTS,
        {"tools": [{"match": "pay", "scopes": ["c"]}]},
        {"tools": [{"match": "pay", "scopes": ["b:any"]}]},
    ),
    (Finding.ABOUT_NOTHING, {"limits": [{**LIMIT, "tools": ["pey"]}]}, {"limits": [LIMIT]}),
    (
        Finding.COUNTED_APART,
        {
            "resources": [{"match": "file:///*", "scopes": []}],
            "limits": [{"id": "few", "resources": ["file:///*"], "per": "tool", "calls": 1, "window": "1s"}],
        },
        {"limits": [{**LIMIT, "per": "tool"}]},
    ),
    (
        Finding.NOBODY_ASSERTS,
        {"roles": {"r": {"scopes": ["a", "b:*"]}}, "limits": [{**LIMIT, "per": "conversation"}]},
        {"limits": [{**LIMIT, "per": "conversation"}]},
    ),
    (
        Finding.UNREACHABLE,
        {"protected": [{"id": "never", "tools": ["p*"]}]},
        {"protected": [{"id": "never", "tools": ["pay"], "schema": GOOD}]},
    ),
    (
        Finding.SHADOWED,
        {"intents": [intent(GOOD, "a"), intent(GOOD, "b")]},
        {"intents": [intent(GOOD, "a"), intent({**GOOD, "required": ["n", "m"]}, "b")]},
    ),
    (Finding.ACCEPTS_EVERYTHING, {"intents": [intent(True)]}, {"intents": [intent(GOOD)]}),
    (
        Finding.NOBODY_APPROVES,
        {"asks": [{"id": "q", "tools": ["pay"]}]},
        {"asks": [{"id": "q", "tools": ["pay"], "approver": "client"}]},
    ),
    (
        Finding.UNUSED_SOURCE,
        {"sources": [{"tools": ["read"], "trust": "trusted"}]},
        {"sources": [{"tools": ["read"], "trust": "trusted"}], "origins": [ORIGIN]},
    ),
    (
        Finding.NEVER_ACCEPTED,
        {"origins": [{**ORIGIN, "accept": ["trusted"]}]},
        {
            "origins": [{**ORIGIN, "accept": ["trusted"]}],
            "sources": [{"tools": ["read"], "trust": "trusted"}],
        },
    ),
    (
        Finding.NEVER_ACCEPTED,
        {"origins": [{**ORIGIN, "accept": ["policy"]}]},
        {"origins": [{**ORIGIN, "accept": ["policy"], "constants": ["x"]}]},
    ),
    (
        Finding.NEVER_ACCEPTED,
        {"origins": [{**ORIGIN, "accept": ["tool:s/reed"]}]},
        {"origins": [{**ORIGIN, "accept": ["tool:s/read"]}]},
    ),
    (
        Finding.NOBODY_SPEAKS,
        {"roles": {"r": {"scopes": ["a", "b:*"]}}, "origins": [{**ORIGIN, "accept": ["user"]}]},
        {"origins": [{**ORIGIN, "accept": ["user"]}]},
    ),
]


@pytest.mark.parametrize(("finding", "bad", "good"), SEEN)
def test_a_finding_is_found_where_it_is_and_nowhere_else(
    finding: Finding, bad: dict[str, Any], good: dict[str, Any]
) -> None:
    """One policy that has it, and the same without it."""
    assert finding in found(bad)
    assert finding not in found(good)


def test_a_tool_that_no_server_has() -> None:
    """Only of servers whose tools are known."""
    assert Finding.NO_SUCH_TOOL in found({}, known=[("s", "pay")])
    assert Finding.NO_SUCH_TOOL not in found({}, known=[("s", "pay"), ("s", "read")])
    elsewhere = [{"match": "x", "server": "t", "scopes": []}]
    assert Finding.NO_SUCH_TOOL not in found({"tools": elsewhere}, known=[("s", "pay")])


def test_what_no_case_shows() -> None:
    """A forbid, an ask, any other rule, and a policy without cases, each under its own id."""
    assert found({}, "") == {Finding.NO_CASES}
    assert found({}, NAMED % "") == set()
    forbidding = {"protected": [{"id": "never", "tools": ["pay"], "schema": {"required": ["x"]}}]}
    assert found(forbidding, NAMED % "") == {Finding.FORBID_UNSHOWN}
    shown = ", {name: n, role: r, tool: pay, arguments: {x: 1}, expect: deny, reason: protected, rule: never}"
    assert found(forbidding, NAMED % shown) == set()
    asking = {"asks": [{"id": "q", "tools": ["pay"], "schema": {"required": ["x"]}, "approver": "client"}]}
    assert found(asking, NAMED % "") == {Finding.ASK_UNSHOWN}
    shown = ", {name: n, role: r, tool: pay, arguments: {x: 1}, expect: ask, rule: q}"
    assert found(asking, NAMED % shown) == set()
    assert found({"limits": [LIMIT]}, NAMED % "") == {Finding.UNSHOWN}


def test_each_finding_has_its_page_and_each_page_its_finding() -> None:
    """docs/findings/, and its index."""
    assert {path.stem for path in FOLDER.glob("GP*.md")} == {finding.value for finding in Finding}
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"[{finding.value}]({finding.value}.md)" in index for finding in Finding)


def test_every_finding_is_tried() -> None:
    """No finding is without a policy that has it."""
    elsewhere = {
        Finding.NO_SUCH_TOOL,
        Finding.FORBID_UNSHOWN,
        Finding.ASK_UNSHOWN,
        Finding.UNSHOWN,
        Finding.NO_CASES,
    }
    assert {finding for finding, *_ in SEEN} | elsewhere == set(Finding)

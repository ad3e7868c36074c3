"""`guard policy diff` and the cautions of `guard policy check`, whole: every call at an edge, every sentence.

They stand in files that people read. After a change that is meant:

    python -m tests.policy.test_golden_changes
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from guard.core.canonical import canonical
from guard.core.errors import Reason
from guard.core.model import Allow, Ask, Deny
from guard.policy.cases import read_cases, run
from guard.policy.cautions import cautions
from guard.policy.diff import changes, edges, of_cases, words
from guard.policy.rules import Policy
from tests.policy.calls import policy

HERE = Path(__file__).parent / "golden"
NOW = 1_800_000_000_000
ROLES: dict[str, Any] = {"a": {"scopes": ["x"]}, "b": {"scopes": ["x", "y"]}}
BOUNDS: dict[str, Any] = {
    "number": {"type": "integer", "minimum": 2, "maximum": 9},
    "open": {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 2.5},
    "text": {"type": "string", "minLength": 1, "maxLength": 3},
    "long": {"type": "string", "maxLength": 5001, "minLength": 0},
    "whole": {"type": "boolean"},
    "list": {"type": "array"},
    "object": {"type": "object"},
    "one": {"const": "this"},
    "some": {"enum": ["s", 1, True]},
    "real": {"minLength": 2.0, "maximum": 2.0},
    "any": True,
    "free": {},
}
BEFORE: dict[str, Any] = {
    "roles": ROLES,
    "tools": [
        {"match": "pay", "scopes": ["x"]},
        {"match": "re?d_*", "server": "s*", "scopes": []},
        {"match": "gone", "scopes": ["x"]},
    ],
    "resources": [{"match": "file:///a/*", "scopes": []}],
    "prompts": [{"match": "p", "server": "s", "scopes": []}],
    "methods": [{"match": "tasks/get", "scopes": []}],
    "intents": [
        {
            "id": "i",
            "tools": ["pay"],
            "schema": {"required": ["n", "more"], "properties": {"n": {"type": "integer", "maximum": 9}}},
        },
        {"id": "by-id", "methods": ["tasks/get"], "schema": {"required": ["taskId"]}},
        {"id": "anything", "prompts": ["p"], "schema": True},
    ],
    "protected": [
        {"id": "never", "tools": ["pay"], "schema": {"required": ["n"], "properties": {"n": {"const": 4}}}}
    ],
    "limits": [{"id": "few", "tools": ["counted"], "per": "role", "calls": 3, "window": "1h"}],
    "asks": [{"id": "person", "tools": ["asked"], "schema": {"properties": {"m": {"const": 1}}}}],
    "origins": [{"id": "whence", "tools": ["told"], "arguments": ["/to"], "accept": ["user"]}],
}
AFTER: dict[str, Any] = {
    **BEFORE,
    "roles": {**ROLES, "c": {"scopes": ["x"]}},
    "tools": [
        *BEFORE["tools"][:2],
        {"match": "new", "scopes": [], "id": "fresh"},
        {"match": "asked", "scopes": []},
    ],
    "intents": [
        {
            "id": "i",
            "tools": ["pay"],
            "schema": {
                "allOf": [{"required": ["n"], "properties": {"n": {"type": "integer", "maximum": 10}}}, True],
            },
        },
        *BEFORE["intents"][1:],
    ],
    "asks": [
        {"id": "person", "tools": ["re?d_*"]},
        {"id": "client", "tools": ["asked"], "approver": "client"},
    ],
}
CASES = (
    "cases: [{name: big, role: a, tool: pay, arguments: {n: 10}, expect: allow},"
    " {name: again, role: a, tool: pay, arguments: {n: 10}, expect: allow},"
    " {name: same, role: a, tool: nothing, expect: deny, reason: default-deny},"
    " {name: scoped, role: q, tool: pay, scopes: [x], expect: deny, reason: unauthorized-role}]"
)
SCHEMAS: dict[str, Any] = {
    "bounds": {"required": [*BOUNDS, "named"], "properties": BOUNDS},
    "parts": {
        "properties": {"a": {"const": 1}},
        "allOf": [{"properties": {"b": {"const": 2}}}, True],
        "anyOf": [{"oneOf": [{"properties": {"c": {"enum": [3, 4]}}}]}],
    },
    "nothing": {},
}


def _tried(schema: Any) -> Iterator[str]:
    found = policy(
        roles={"a": {}},
        tools=[{"match": "t", "scopes": []}],
        intents=[{"id": "i", "tools": ["t"], "schema": schema}],
    )
    for origin, call in edges([found], NOW):
        if call.tool.name == "t":
            yield f"{origin} {call.principal.role} {_shown(call.arguments)}"


def _shown(arguments: Any) -> str:
    whole = {
        name: f"{value[:1]}*{len(value)}" if isinstance(value, str) and len(value) > 9 else value
        for name, value in arguments.items()
    }
    return canonical(whole).decode()


def as_edges() -> str:
    found = [f"== {name}\n" + "\n".join(_tried(schema)) + "\n" for name, schema in SCHEMAS.items()]
    every = [
        f"{origin} {c.method} {c.principal.issuer}/{c.principal.subject} {c.principal.role} {c.tool.kind} "
        f"{c.tool.server}/{c.tool.name} {c.audience} {canonical(dict(c.params)).decode()}"
        for origin, c in edges([policy(**BEFORE), policy(**AFTER)], NOW)
        if c.principal.role in ("c", "nobody-knows-this-role") or not c.arguments
    ]
    return "\n".join([*found, "== two policies", *every, ""])


def as_changes() -> str:
    before, after = policy(**BEFORE), policy(**AFTER)
    cases = read_cases(CASES.encode(), name="c")
    calls = [*of_cases(cases), *edges((before, after), NOW)]
    found = [*changes(before, after, calls)]
    programs = [json.dumps(change.as_json()) for change in found[:3]]
    back = [str(change) for change in changes(after, before, calls)]
    observing = [*changes(replace(before, mode="observe", observe_until=1), before, calls)]
    return "\n".join(
        [*map(str, found), "== for programs", *programs, "== back", *back, f"== {observing}", ""]
    )


# -- cautions ------------------------------------------------------------------------------------------

DOUBTFUL: dict[str, Any] = {
    "roles": {"r": {"scopes": ["a", "b:*"]}},
    "tools": [
        {"match": "pay", "scopes": ["a"], "id": "z"},
        {"match": "sing", "server": "s", "scopes": ["c", "b:x", "d:y"], "id": "b"},
        {"match": "forbidden", "server": "s", "scopes": [], "id": "unreachable"},
        {"match": "forbidden-1", "server": "s", "scopes": [], "id": "unreachable-too"},
    ],
    "resources": [
        {"match": "file:///../*", "scopes": []},
        {"match": "file:///a?", "scopes": []},
        {"match": "HTTPS://*.example.com/a", "scopes": []},
        {"match": "http://a?/b", "scopes": []},
        {"match": "file:///plain", "scopes": []},
    ],
    "intents": [
        {
            "id": "a",
            "tools": ["pay"],
            "schema": {
                "properties": {
                    "n": {"maximum": 1, "minLength": 2},
                    "t": {"type": "string", "pattern": "a"},
                    "e": {},
                    "f": True,
                    "s/t": {"items": {"pattern": "^a"}},
                    "c": {"const": 5, "maximum": 4},
                },
                "required": ["c"],
            },
        },
        {"id": "b2", "tools": ["pay"], "schema": True},
        {"id": "c", "tools": ["pay"], "schema": {}, "request": {"required": ["tool"]}},
        {"id": "d", "tools": ["pay"], "schema": {"required": ["q"]}},
        {"id": "e", "tools": ["pay"], "schema": {"required": ["q"]}},
        {"id": "f", "tools": ["pay", "other"], "schema": {"required": ["q"]}},
        {"id": "g", "tools": [{"match": "pay", "server": "s"}], "schema": {"required": ["r"]}},
    ],
    "protected": [
        {"id": "always", "tools": [{"match": "forbidden*", "server": "s"}]},
        {"id": "sometimes", "tools": ["pay"], "schema": {"required": ["q"]}},
    ],
    "limits": [
        {"id": "m", "resources": ["file:///a*"], "per": ["tool", "conversation"], "calls": 1, "window": "1s"},
        {"id": "l", "tools": ["nowhere"], "per": "principal", "calls": 1, "window": "1s"},
    ],
    "hours": [
        {"id": "h", "prompts": ["pay"], "days": ["mon"], "from": "07:00", "to": "08:00", "zone": "UTC"}
    ],
    "sequences": [{"id": "s", "tools": ["pay"], "requires": ["absent"], "within": "1h"}],
    "sources": [{"tools": ["pay"], "trust": "untrusted", "fields": {"/a": "untrusted"}}],
    "origins": [
        {
            "id": "o2",
            "tools": ["pay"],
            "arguments": ["/to"],
            "accept": ["user", "policy", "tool:s/none", "tool:s/sing"],
        },
        {
            "id": "o1",
            "tools": ["pay"],
            "arguments": ["/to"],
            "accept": ["trusted", "mixed"],
            "otherwise": "ask",
        },
    ],
    "asks": [
        {"id": "q2", "tools": ["pay"]},
        {"id": "q1", "tools": ["pay"]},
        {"id": "q0", "tools": ["pay"], "approver": "client"},
    ],
}
SOUND: dict[str, Any] = {
    **DOUBTFUL,
    "roles": {
        "r": {
            "scopes": ["*"],
            "may_assert_user": True,
            "may_assert_conversations": True,
            "may_approve": True,
        }
    },
    "sources": [{"tools": ["pay"], "trust": "trusted", "fields": {"/a": "mixed"}}],
}
SHOWN = (
    "cases: [{name: a, role: r, tool: pay, arguments: {q: 1, c: 5}, expect: deny, reason: protected},"
    " {name: b, role: r, tool: sing, server: s, expect: deny, reason: missing-scope}]"
)
KNOWN = [("s", "sing"), ("s", "hum"), ("t", "pay")]


def _cautions(found: Policy, cases: str | None = None, tools: Any = None) -> Iterator[str]:
    results = None if cases is None else run(found, read_cases(cases.encode(), name="c")) if cases else []
    yield from map(str, cautions(found, results, tools))
    yield ""


def as_cautions() -> str:
    unasked = {name: part for name, part in DOUBTFUL.items() if name not in ("origins", "asks")}
    observing = {"mode": "observe", "observe_until": "2030-01-01T00:00:00Z"}
    return "\n".join(
        [
            "== doubtful",
            *_cautions(policy(**DOUBTFUL)),
            "== with tools and cases",
            *_cautions(policy(**DOUBTFUL), SHOWN, KNOWN),
            "== with no tools and no cases",
            *_cautions(policy(roles=ROLES), "", []),
            "== sound where roles and sources are",
            *_cautions(policy(**SOUND)),
            "== nobody asks",
            *_cautions(policy(**unasked)),
            "== observing",
            *_cautions(policy(**unasked, **observing)),
        ]
    )


FILES = {"edges.txt": as_edges, "changes.txt": as_changes, "cautions.txt": as_cautions}


def _same(name: str) -> None:
    kept, now = (HERE / name).read_text(), FILES[name]()
    for was, is_ in zip(kept.split("\n"), now.split("\n"), strict=False):
        assert is_ == was
    assert now == kept


def test_the_calls_at_the_edges_are_those() -> None:
    """Each bound from both sides, each member moved, taken away or added; each role, each kind."""
    _same("edges.txt")


def test_the_differences_of_two_policies_are_those() -> None:
    """Each call once, in words and for programs; a policy that observes is compared as if it enforced."""
    _same("changes.txt")


def test_the_cautions_about_a_doubtful_policy_are_those() -> None:
    """Each sentence, in the order of the parts; and nothing about what is sound."""
    _same("cautions.txt")


def test_a_decision_in_words() -> None:
    """With its rules, or without one."""
    assert words(Allow(("a", "b"), ())) == "allow by a, b"
    assert words(Allow((), ())) == "allow by no rule"
    assert words(Ask(("a", "b"), "client", 2_000)) == "ask by a, b within 2 seconds"
    assert words(Deny(Reason.PROTECTED, "p")) == "deny protected by p"
    assert words(Deny(Reason.DEFAULT_DENY)) == "deny default-deny"


if __name__ == "__main__":
    for name, text in FILES.items():
        (HERE / name).write_text(text())

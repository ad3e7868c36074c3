"""Which rules the cases beside a policy show, and which they leave out."""

from __future__ import annotations

from typing import Any, Final

import pytest

from guard.policy.cases import read_cases, run
from guard.policy.coverage import missing, rules, shown
from guard.policy.rules import Policy
from tests.policy.calls import policy

TOOLS: Final[list[dict[str, Any]]] = [
    {"id": name, "match": f"{name}*", "scopes": []} for name in ("mail", "read", "send")
]


def every_kind() -> Policy:
    """A policy with one rule of each kind."""
    return policy(
        roles={"r": {}},
        tools=TOOLS,
        resources=[{"id": "page", "match": "file:///a", "scopes": []}],
        intents=[{"id": "intent", "tools": ["mail"], "schema": {"required": ["to"]}}],
        protected=[{"id": "forbidden", "tools": ["mail_all"]}],
        limits=[
            {"id": "few", "tools": ["send"], "per": "principal", "calls": 1, "window": "1h"},
            {"id": "deep", "tools": ["send"], "depth": 1},
            {"id": "small", "tools": ["read"], "result_bytes": 100},
            {"id": "short", "resources": ["file:///a"], "result_bytes": 100},
        ],
        hours=[{"id": "office", "tools": ["read"], "from": "08:00", "to": "18:00", "zone": "UTC"}],
        sequences=[{"id": "first", "tools": ["read_next"], "requires": ["read"]}],
        origins=[{"id": "known", "tools": ["send"], "arguments": ["/to"], "accept": ["user"]}],
        asks=[{"id": "person", "tools": ["send_much"]}],
    )


HEAD: Final = "role: r, server: s"
NOON: Final = 'now: "2026-11-23T12:00:00Z"'
SHOWN: Final = {
    f"tool: mail, arguments: {{to: x}}, {HEAD}, expect: allow": {"mail", "intent"},
    f"tool: mail, {HEAD}, expect: deny, reason: intent-unmatched": {"intent"},
    f"tool: mail_all, {HEAD}, expect: deny, reason: protected": {"forbidden"},
    f"tool: read, facts: {{{NOON}}}, {HEAD}, expect: allow": {"read", "small"},
    f'resource: "file:///a", {HEAD}, expect: allow': {"page", "short"},
    f"tool: read, {HEAD}, expect: deny, reason: outside-hours": {"office"},
    f"tool: read_next, {HEAD}, expect: deny, reason: required-first": {"first"},
    f"tool: send, {HEAD}, expect: allow": {"send"},
    f"tool: send, facts: {{used: {{few: 1}}}}, {HEAD}, expect: deny, reason: limit-reached": {"few"},
    f"tool: send, depth: 2, {HEAD}, expect: deny, reason: limit-reached": {"deep"},
    f"tool: send, arguments: {{to: x}}, {HEAD}, expect: deny, reason: origin-refused": {"known"},
    f"tool: send_much, {HEAD}, expect: ask": {"person"},
}


def cases(*texts: str) -> bytes:
    return "\n".join(["cases:", *(f"  - {{name: n{n}, {text}}}" for n, text in enumerate(texts))]).encode()


@pytest.mark.parametrize("case", SHOWN)
def test_a_case_shows_the_rules_that_speak_in_it(case: str) -> None:
    """A permit shows what permits it, and what bounds its result; a denial or a question who says so."""
    judging = every_kind()
    results = run(judging, read_cases(cases(case), name="c"))
    assert [result.got for result in results if not result.passed] == []
    assert shown(judging, results) & set(rules(judging)) == SHOWN[case]


def test_every_kind_of_rule_wants_a_case() -> None:
    """No kind is left out of what the cases must show, and together the cases above show all."""
    judging = every_kind()
    assert rules(judging) == tuple(sorted(set().union(*SHOWN.values())))
    assert missing(judging, ()) == rules(judging)
    assert missing(judging, run(judging, read_cases(cases(*SHOWN), name="c"))) == ()


def test_a_case_that_fails_shows_nothing_and_hides_nothing() -> None:
    """What a policy says otherwise than expected is no proof; the cases behind it count all the same."""
    judging = every_kind()
    wrong = f"tool: send, {HEAD}, expect: deny, reason: protected"
    right = f"tool: mail_all, {HEAD}, expect: deny, reason: protected"
    assert shown(judging, run(judging, read_cases(cases(wrong, right), name="c"))) == {"forbidden"}

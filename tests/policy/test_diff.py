"""`guard policy diff`: what two policies decide differently is found, and nothing else is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from guard.cli.main import main
from guard.policy.diff import changes, edges
from guard.policy.document import load
from tests.policy.calls import document

ROLES = {"r": {"scopes": ["a"]}}
TOOLS = [{"match": "pay", "scopes": ["a"]}]
CASE = {"role": "r", "tool": "pay", "arguments": {"n": 11}, "expect": "allow"}
NOW = 1_800_000_000_000


def policy(**members: Any) -> Any:
    return load(document(**{"roles": ROLES, "tools": TOOLS, **members}), name="p.json")


def intent(**schema: Any) -> list[dict[str, Any]]:
    return [{"id": "i", "tools": ["pay"], "schema": {"required": ["n"], "properties": {"n": schema}}}]


def kinds(before: Any, after: Any) -> set[str]:
    return {change.kind for change in changes(before, after, edges((before, after), NOW))}


def number(**bound: Any) -> Any:
    return policy(intents=intent(type="integer", **bound))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (number(maximum=10), number(maximum=11), "newly permitted"),
        (number(maximum=11), number(maximum=10), "newly denied"),
        (number(minimum=1), number(minimum=2), "newly denied"),
        (number(exclusiveMinimum=1), number(minimum=1), "newly permitted"),
        (policy(intents=intent(const="x")), policy(intents=intent(enum=["x", "y"])), "newly permitted"),
        (
            policy(intents=intent(type="string", maxLength=5)),
            policy(intents=intent(type="string", maxLength=6)),
            "newly permitted",
        ),
        (
            policy(),
            policy(protected=[{"id": "p", "tools": ["pay"], "schema": {"required": ["q"]}}]),
            "newly denied",
        ),
        (policy(), policy(asks=[{"id": "p", "tools": ["pay"]}]), "newly asked"),
        (policy(), policy(tools=[*TOOLS, {"match": "more", "scopes": []}]), "newly permitted"),
        (policy(), policy(roles={**ROLES, "s": {"scopes": ["a"]}}), "newly permitted"),
        (policy(), policy(tools=[{"match": "pay", "scopes": ["a"], "id": "other"}]), "other terms"),
    ],
)
def test_a_bound_that_moved_is_found_by_a_call_at_its_edge(before: Any, after: Any, expected: str) -> None:
    """Nobody wrote a case for it."""
    assert expected in kinds(before, after)
    assert kinds(before, before) == set()


def test_the_same_two_policies_have_the_same_differences() -> None:
    """Nothing is drawn by chance."""
    before, after = number(maximum=10), number(maximum=12)
    found = [[*changes(before, after, edges((before, after), NOW))] for _ in range(2)]
    assert found[0] == found[1] != []


def test_the_command_tells_what_changes(tmp_path: Path) -> None:
    """For people and for programs, with an exit code; the cases of both are asked too."""
    files = []
    for name, most in (("a", 10), ("b", 12)):
        file = tmp_path / f"{name}.json"
        file.write_bytes(document(roles=ROLES, tools=TOOLS, intents=intent(type="integer", maximum=most)))
        (tmp_path / f"{name}.cases.json").write_text(json.dumps({"cases": [{**CASE, "name": f"of {name}"}]}))
        files.append(str(file))
    done = CliRunner().invoke(main, ["policy", "diff", *files])
    assert done.exit_code == 1
    assert "newly permitted (case of a): r tool server/pay" in done.output
    same = CliRunner().invoke(main, ["policy", "diff", files[0], files[0]])
    assert (same.exit_code, same.output) == (0, "no difference was found\n")
    told = json.loads(CliRunner().invoke(main, ["policy", "diff", *files, "--json"]).output)
    assert told["counts"]["newly permitted"] == len(
        [change for change in told["changes"] if change["kind"] == "newly permitted"]
    )

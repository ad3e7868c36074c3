"""`guard policy` as its user meets it: what it prints and how it exits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from guard.cli.policy import policy

POLICIES = Path(__file__).parents[2] / "policies"
PAYMENTS = str(POLICIES / "payments.yaml")
MINIMAL = "guard: 1\nid: p\nversion: 1\nroles: {r: {scopes: [a]}}\ntools: [{match: t, scopes: [a]}]\n"
CASES = "cases: [{name: one, role: r, tool: t, expect: allow}]\n"


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(policy, [str(argument) for argument in arguments])


def written(folder: Path, text: str = MINIMAL, cases: str | None = None) -> Path:
    file = folder / "p.yaml"
    file.write_text(text, encoding="utf-8")
    if cases is not None:
        (folder / "p.cases.yaml").write_text(cases, encoding="utf-8")
    return file


def test_check_of_a_sound_policy() -> None:
    """A policy that loads and whose cases hold exits 0."""
    result = run("check", PAYMENTS)
    assert result.exit_code == 0
    assert "payments version 3, enforce" in result.output
    assert "27 cases, 0 failed" in result.output


def test_check_tells_an_invalid_file_with_its_line(tmp_path: Path) -> None:
    """An invalid policy exits 2, the remedy on a line of its own."""
    result = run("check", written(tmp_path, MINIMAL.replace("roles", "rolls")))
    assert result.exit_code == 2
    assert ":4: rolls: is no field of the language" in result.output
    assert "\n  next: did you mean `roles`?" in result.output
    assert run("check", tmp_path / "gone.yaml").exit_code == 2


def test_check_of_a_file_of_cases_names_the_policy(tmp_path: Path) -> None:
    """Cases are no policy; the error says which file is."""
    written(tmp_path, cases="cases: []")
    result = run("check", tmp_path / "p.cases.yaml")
    assert result.exit_code == 2
    assert "name the policy beside it: p.yaml" in result.output


def test_check_and_test_run_the_cases_beside(tmp_path: Path) -> None:
    """A failing case exits 1 and says what was expected and what came."""
    file = written(tmp_path, cases=CASES)
    assert run("check", file).exit_code == run("test", file).exit_code == 0
    written(tmp_path, cases=CASES.replace("role: r", "role: q"))
    for command in ("check", "test"):
        result = run(command, file)
        assert result.exit_code == 1
        assert "expected allow, got deny unauthorized-role" in result.output


def test_test_wants_cases(tmp_path: Path) -> None:
    """A policy without cases was not tested, and that is not a success."""
    result = run("test", PAYMENTS, written(tmp_path))
    assert result.exit_code == 2
    assert "p.cases.yaml" in result.output


def test_check_holds_the_rules_beside_the_tools(tmp_path: Path) -> None:
    """A rule on a property that the tools lack exits 1."""
    tools = tmp_path / "tools.json"
    schema = {"properties": {"amount": {}, "currency": {}}}
    tools.write_text(json.dumps({"tools": [{"name": "transfer", "inputSchema": schema}]}), encoding="utf-8")
    result = run("check", PAYMENTS, "--tools", tools, "--server", "bank")
    assert result.exit_code == 1
    assert "a rule on `iban`" in result.output
    schema["properties"]["iban"] = {}
    tools.write_text(json.dumps({"tools": [{"name": "transfer", "inputSchema": schema}]}), encoding="utf-8")
    assert run("check", PAYMENTS, "--tools", tools, "--server", "bank").exit_code == 0
    for text in ("[]", "{", '{"tools": [3]}', '{"tools": 3}'):
        tools.write_text(text, encoding="utf-8")
        assert run("check", PAYMENTS, "--tools", tools).exit_code == 2


def test_explain_says_how_a_decision_comes_about() -> None:
    """The steps are readable and the last line is the verdict; a denial exits 1."""
    small = '{"amount": 5, "currency": "EUR", "iban": "DE89370400440532013000"}'
    asked = ("explain", PAYMENTS, "--role", "clerk", "--tool", "transfer", "--server", "bank")
    asked = (*asked, "--now", "2027-01-04T09:00:00Z", "--arguments")  # in banking hours
    assert run(*asked, small).exit_code == 0
    assert run(*asked, small).output.endswith("allowed\n")
    result = run(*asked, small.replace("5,", "5000,"))
    assert result.exit_code == 1
    assert "/arguments/amount - not as schema/properties/amount/money says" in result.output
    assert "denied: intent-unmatched by salary at /arguments/amount" in result.output
    assert run(*asked, small, "--scopes", "payments:read").exit_code == 1


def test_explain_takes_a_prompt_a_resource_or_a_method(tmp_path: Path) -> None:
    """One of them, or the tool; the pointer of a denial leads to the URI."""
    file = written(
        tmp_path,
        MINIMAL + "prompts: [{match: p, scopes: []}]\nresources: [{match: 'memo:*', scopes: []}]\n"
        "methods: [{match: m, scopes: []}]\n"
        "intents: [{id: i, resources: ['memo:*'], schema: {properties: {uri: {pattern: '[a-z]$'}}}}]\n",
    )
    for subject in (("--prompt", "p"), ("--resource", "memo:a"), ("--method", "m"), ("--tool", "t")):
        assert run("explain", file, "--role", "r", *subject).exit_code == 0
    result = run("explain", file, "--role", "r", "--resource", "memo:1")
    assert result.exit_code == 1
    assert "denied: intent-unmatched by i at /uri" in result.output
    for subjects in ((), ("--tool", "t", "--prompt", "p")):
        assert run("explain", file, "--role", "r", *subjects).exit_code == 2


def test_check_finds_a_rule_on_what_no_resource_has(tmp_path: Path) -> None:
    """Without --tools too: every resource has a `uri`, and rules judge nothing else of it."""
    rule = "protected: [{id: i, resources: ['*'], schema: {required: [url]}}]\n"
    result = run("check", written(tmp_path, MINIMAL + rule))
    assert result.exit_code == 1
    assert "`url`, which no resource has" in result.output


@pytest.mark.parametrize("arguments", ["{", "[]", '{"a": 1, "a": 2}', "\udcff"])
def test_explain_reads_its_arguments_strictly(arguments: str) -> None:
    """What is not an I-JSON object is a wrong usage."""
    assert run("explain", PAYMENTS, "--role", "r", "--tool", "t", "--arguments", arguments).exit_code == 2


def test_every_command_speaks_json(tmp_path: Path) -> None:
    """`--json` prints one JSON value, for a success, a denial and an error."""
    checked = json.loads(run("check", PAYMENTS, "--json").output)
    assert (checked["id"], checked["failed"], checked["misfits"]) == ("payments", [], [])
    tested = json.loads(run("test", PAYMENTS, "--json").output)
    assert all(case["passed"] for case in tested[PAYMENTS]["cases"])
    explained = json.loads(run("explain", PAYMENTS, "--role", "x", "--tool", "t", "--json").output)
    assert (explained["decision"], explained["reason"]) == ("deny", "unauthorized-role")
    assert explained["steps"][-1]["outcome"] == "denied"
    failed = run("check", written(tmp_path, "guard: 2\n"), "--json")
    assert failed.exit_code == 2
    assert set(json.loads(failed.output)) == {"error", "where", "remedy"}


def test_what_is_printed_cannot_steer_a_terminal(tmp_path: Path) -> None:
    """Names from the input are escaped."""
    file = written(tmp_path, cases=CASES.replace("one", '"\\e[31mred\\u202e"').replace("role: r", "role: q"))
    result = run("test", file)
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert "\u202e" not in result.output
    assert "\x1b" not in run("explain", PAYMENTS, "--role", "\x1b[1m", "--tool", "t").output


def test_exit_codes_are_in_the_help() -> None:
    """Each command lists what its exit code means."""
    for command in ("check", "test", "explain"):
        assert "Exit codes: 0 done, or yes; 1 the answer is no; 2" in run(command, "--help").output.replace(
            "\n  ", " "
        )


def test_explain_of_a_case_has_the_facts_of_the_case(tmp_path: Path) -> None:
    """What a case says of its world is there, and no option may say otherwise."""
    result = run("explain", PAYMENTS, "--case", "the eleventh transfer is denied")
    assert result.exit_code == 1
    assert "limit-reached" in result.output
    assert run("explain", PAYMENTS, "--case", "the tenth transfer of a day").exit_code == 0
    unknown = run("explain", PAYMENTS, "--case", "the eleventh transfer is refused")
    assert unknown.exit_code == 2
    assert "did you mean `the eleventh transfer is denied`?" in unknown.output
    both = run("explain", PAYMENTS, "--case", "the tenth transfer of a day", "--role", "clerk")
    assert both.exit_code == 2
    assert "leave out --role" in both.output
    assert run("explain", written(tmp_path), "--case", "a").exit_code == 2
    assert run("explain", PAYMENTS, "--tool", "balance").exit_code == 2

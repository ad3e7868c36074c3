"""`guard policy`: check and test a policy before it decides anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click

from guard.cli.comparing import diff
from guard.cli.explaining import explain_command
from guard.cli.shared import EPILOG, NO, emit, error_json, json_option, unusable
from guard.cli.signing import keygen, sign_policy, verify_policy
from guard.config.policies import cases_beside, read_file
from guard.core.canonical import NotIJson, NotJson, read
from guard.core.errors import GuardError, printable
from guard.policy.cases import CaseResult, read_cases, run
from guard.policy.cautions import cautions
from guard.policy.coverage import missing, rules
from guard.policy.document import load
from guard.policy.fit import misfits
from guard.policy.rules import Policy

FILE: Final = click.Path(path_type=Path)


@click.group(epilog=EPILOG)
def policy() -> None:
    """Check, test, explain, compare and sign a policy."""


for _command in (explain_command, diff, keygen, sign_policy, verify_policy):
    policy.add_command(_command)


@policy.command(epilog=EPILOG)
@click.argument("file", type=FILE)
@click.option("--tools", type=FILE, help='Hold the rules beside these tools: JSON, {"tools": [...]}.')
@click.option("--server", default="server", show_default=True, help="The id of the server that has --tools.")
@json_option
def check(file: Path, tools: Path | None, server: str, as_json: bool) -> None:
    """Load a policy as Guard would: strictly, with the cases beside it.

    Warnings are printed and change nothing. With --tools, a rule on a property that the tools do
    not have is an error. So is a rule on anything but the `uri` of a resource.
    """
    try:
        if ".cases." in file.name:
            remedy = f"name the policy beside it: {file.name.partition('.cases.')[0]}{file.suffix}"
            raise GuardError("a file of cases is no policy", where=printable(str(file)), remedy=remedy)  # noqa: TRY301
        loaded = load(read_file(file), name=str(file))
        results = _results(file, loaded)
        known = None if tools is None else _definitions(tools, server)
        found = [*misfits(loaded, known or {})]
    except GuardError as error:
        unusable(error, as_json=as_json)
    warnings = [*cautions(loaded, results, known)]
    failed = [result for result in results if not result.passed]
    if as_json:
        emit(
            {
                "id": loaded.ref.id,
                "version": loaded.ref.version,
                "sha256": loaded.ref.sha256,
                "mode": loaded.mode,
                "cases": len(results),
                "failed": [_case_json(result) for result in failed],
                "misfits": [error_json(misfit) for misfit in found],
                "warnings": [
                    {"id": one.id.value, "rule": one.rule, "what": printable(one.what)} for one in warnings
                ],
            },
            [],
            as_json=True,
        )
    else:
        click.echo(f"{loaded.ref.id} version {loaded.ref.version}, {loaded.mode}, sha256 {loaded.ref.sha256}")
        for line in (
            *map(_case_line, failed),
            *map(str, found),
            *(f"warning: {printable(str(one))}" for one in warnings),
        ):
            click.echo(line)
        click.echo(
            f"{len(results)} cases, {len(failed)} failed; {len(found)} misfits; {len(warnings)} warnings"
        )
    sys.exit(NO if failed or found else 0)


@policy.command(epilog=EPILOG)
@click.argument("files", type=FILE, nargs=-1, required=True)
@json_option
def test(files: tuple[Path, ...], as_json: bool) -> None:
    """Run the cases beside each policy, NAME.cases.yaml or NAME.cases.json beside NAME.yaml."""
    report: dict[str, list[CaseResult]] = {}
    unshown: dict[str, tuple[str, ...]] = {}
    every = 0
    try:
        for file in files:
            if ".cases." in file.name:
                continue  # `policies/*.yaml` names them too
            if cases_beside(file) is None:
                remedy = f"write {file.stem}.cases.yaml beside it"
                raise GuardError("there are no cases", where=printable(str(file)), remedy=remedy)  # noqa: TRY301
            loaded = load(read_file(file), name=str(file))
            report[str(file)] = _results(file, loaded)
            unshown[str(file)] = missing(loaded, report[str(file)])
            every += len(rules(loaded))
    except GuardError as error:
        unusable(error, as_json=as_json)
    failed = [result for results in report.values() for result in results if not result.passed]
    if as_json:
        emit(
            {
                file: {"cases": [_case_json(result) for result in results], "unshown": list(unshown[file])}
                for file, results in report.items()
            },
            [],
            as_json=True,
        )
    else:
        for name, results in report.items():
            click.echo(printable(name))
            for line in map(_case_line, results):
                click.echo(f"  {line}")
            for rule in unshown[name]:
                click.echo(f"  no case shows {printable(rule)}")
        covered = every - sum(map(len, unshown.values()))
        total = sum(map(len, report.values()))
        click.echo(f"{total} cases, {len(failed)} failed; {covered} of {every} rules shown")
    sys.exit(NO if failed else 0)


def _results(file: Path, loaded: Policy) -> list[CaseResult]:
    cases = cases_beside(file)
    return [] if cases is None else run(loaded, read_cases(read_file(cases), name=str(cases)))


def _definitions(file: Path, server: str) -> dict[tuple[str, str], dict[str, Any]]:
    where = printable(str(file))
    try:
        listed = read(read_file(file))["tools"]
        return {(server, str(tool["name"])): tool for tool in listed}
    except (NotJson, NotIJson) as error:
        raise GuardError(
            f"not JSON: {printable(str(error))}", where=where, remedy="save a tools/list result"
        ) from None
    except (KeyError, TypeError, IndexError):
        raise GuardError("no list of tools", where=where, remedy='write {"tools": [...]}') from None


def _case_line(result: CaseResult) -> str:
    verdict = "ok  " if result.passed else "FAIL"
    line = f"{verdict} {printable(result.case.name)}"
    if result.passed:
        return line
    got = f"expected {printable(result.expected)}, got {printable(result.got)}"
    return f"{line} ({printable(result.case.where)}): {got}"


def _case_json(result: CaseResult) -> dict[str, Any]:
    return {
        "name": result.case.name,
        "where": result.case.where,
        "passed": result.passed,
        "expected": result.expected,
        "got": result.got,
    }

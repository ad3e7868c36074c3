"""`guard policy`: check, test and explain a policy before it decides anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from guard.cli.comparing import diff
from guard.cli.shared import EPILOG, NO, UNUSABLE, emit, json_option, printable_lines
from guard.cli.signing import keygen, sign_policy, verify_policy
from guard.config.home import clock
from guard.config.policies import cases_beside, read_file
from guard.core.canonical import NotIJson, NotJson, read
from guard.core.errors import GuardError, printable
from guard.core.model import Allow, Approval, Call, Conversation, Facts, Parent, Pin, Principal, Seen, Tool
from guard.policy.cases import CaseResult, asked, read_cases, run, unused
from guard.policy.cautions import cautions
from guard.policy.coverage import missing, rules
from guard.policy.document import load
from guard.policy.explain import explain
from guard.policy.findings import nearest
from guard.policy.fit import misfits
from guard.policy.instants import milliseconds
from guard.policy.rules import Policy

MAX_DIGITS: Final = 15
FILE: Final = click.Path(path_type=Path)


@click.group(epilog=EPILOG)
def policy() -> None:
    """Check, test, explain, compare and sign a policy."""


for _command in (diff, keygen, sign_policy, verify_policy):
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
        loaded = load(read_file(file), name=str(file))
        results = _results(file, loaded)
        known = None if tools is None else _definitions(tools, server)
        found = [*misfits(loaded, known or {})]
    except GuardError as error:
        _invalid(error, as_json)
    warnings = [*cautions(loaded, results, known)]
    failed = [result for result in results if not result.passed]
    if as_json:
        _emit(
            {
                "id": loaded.ref.id,
                "version": loaded.ref.version,
                "sha256": loaded.ref.sha256,
                "mode": loaded.mode,
                "cases": len(results),
                "failed": [_case_json(result) for result in failed],
                "misfits": [_error_json(misfit) for misfit in found],
                "warnings": [
                    {"id": one.id.value, "rule": one.rule, "what": printable(one.what)} for one in warnings
                ],
            }
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
        _invalid(error, as_json)
    failed = [result for results in report.values() for result in results if not result.passed]
    if as_json:
        _emit(
            {
                file: {"cases": [_case_json(result) for result in results], "unshown": list(unshown[file])}
                for file, results in report.items()
            }
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


@policy.command("explain", epilog=EPILOG)
@click.argument("file", type=FILE)
@click.option("--role", required=True, help="The role of who asks.")
@click.option("--tool", help="The tool that is called.")
@click.option("--prompt", help="Or the prompt that is asked for.")
@click.option("--resource", help="Or the URI that is read.")
@click.option("--method", help="Or another method that the configuration passes on.")
@click.option(
    "--arguments",
    default="{}",
    show_default=True,
    help="The arguments, a JSON object; of a method its params.",
)
@click.option("--server", default="server", show_default=True, help="The id of the tool's server.")
@click.option("--scopes", help="What the credential narrows its role to, separated by commas.")
@click.option("--declared", default="", help="Scopes that the tool's author declares, separated by commas.")
@click.option(
    "--used",
    multiple=True,
    metavar="LIMIT=N",
    help="How much of a limit was used inside its window (default: 0). May be repeated.",
)
@click.option("--now", help="The time of the call, RFC 3339 (default: now).")
@click.option("--intent", "intents", multiple=True, metavar="ID", help="A declared intent. May be repeated.")
@click.option(
    "--depth", type=click.IntRange(0, 1000), default=0, help="How many calls led to it (default: 0)."
)
@click.option(
    "--approved", multiple=True, metavar="RULE", help="A rule that a reviewer approved. May be repeated."
)
@json_option
def explain_command(
    *,
    file: Path,
    role: str,
    arguments: str,
    server: str,
    scopes: str | None,
    declared: str,
    used: tuple[str, ...],
    now: str | None,
    intents: tuple[str, ...],
    depth: int,
    approved: tuple[str, ...],
    as_json: bool,
    **subjects: str | None,
) -> None:
    """Say what a policy answers to one call, and how it comes to that.

    The cases beside the policy are not run, so that a failing case can be looked into. The tool
    counts as pinned, and the rest of the world as sound.
    """
    named = [(kind, name) for kind, name in subjects.items() if name is not None]
    if len(named) != 1:
        raise click.UsageError("Name one of --tool, --prompt, --resource and --method.")
    ((kind, name),) = named
    try:
        loaded = load(read_file(file), name=str(file))
        method, params = asked(kind, name, _arguments(arguments))
        taken = unused(loaded) | _used(used, loaded)
    except GuardError as error:
        _invalid(error, as_json)
    try:
        time = clock() if now is None else milliseconds(now)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--now") from None
    narrowed = None if scopes is None else _split(scopes)
    explanation = explain(
        Call(
            id="explain",
            principal=Principal("default", "launch", "someone", role, narrowed),
            tool=Tool(server, name, "", Pin.MATCHES, _split(declared), kind),
            audience=server,
            method=method,
            params=params,
            conversation=Conversation("explain", "launch"),
            facts=Facts(now=time, used=taken, seen=Seen({}), approval=_approval(approved)),
            parent=Parent("verified", "", depth=depth - 1) if depth else None,
            intents=frozenset(intents),
        ),
        loaded,
    )
    if as_json:
        _emit(explanation.as_json())
    else:
        click.echo(str(explanation))
    sys.exit(0 if isinstance(explanation.decision, Allow) else NO)


def _approval(rules: tuple[str, ...]) -> Approval | None:
    return Approval("explain", frozenset(rules), "a reviewer", "reviewer") if rules else None


def _split(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())


def _used(options: tuple[str, ...], policy: Policy) -> dict[str, int]:
    found: dict[str, int] = {}
    for option in options:
        limit, _, amount = option.partition("=")
        if limit not in unused(policy):
            remedy = nearest(limit, unused(policy))
            raise GuardError(f"no limit is called `{printable(limit)}`", where="--used", remedy=remedy)
        if not (amount.isascii() and amount.isdecimal() and len(amount) <= MAX_DIGITS):
            remedy = f"give a whole number, such as {limit}=3"
            raise GuardError("not LIMIT=N", where="--used", remedy=remedy)
        found[limit] = int(amount)
    return found


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


def _arguments(text: str) -> Any:
    remedy = 'give a JSON object, such as \'{"path": "/tmp"}\''
    try:
        value = read(text.encode("utf-8"))
    except (ValueError, UnicodeEncodeError) as error:
        raise GuardError(printable(str(error)), where="--arguments", remedy=remedy) from None
    if not isinstance(value, dict):
        raise GuardError("not a JSON object", where="--arguments", remedy=remedy)
    return value


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


def _error_json(error: GuardError) -> dict[str, str]:
    return {"error": error.what, "where": error.where, "remedy": error.remedy}


def _emit(value: Any) -> None:
    emit(value, [], as_json=True)


def _invalid(error: GuardError, as_json: bool) -> NoReturn:
    if as_json:
        _emit(_error_json(error))
    else:
        click.echo(f"guard: {printable_lines(str(error))}", err=True)
    sys.exit(UNUSABLE)

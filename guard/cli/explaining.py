"""`guard policy explain`: what a policy answers to one call, and how it comes to that."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from click.core import ParameterSource

from guard.cli.shared import EPILOG, NO, emit, json_option, unusable
from guard.config.home import clock
from guard.config.policies import cases_beside, read_file
from guard.core.canonical import read
from guard.core.errors import GuardError, printable
from guard.core.model import Allow, Approval, Call, Conversation, Facts, Parent, Pin, Principal, Seen, Tool
from guard.policy.cases import asked, in_its_world, read_cases, unused
from guard.policy.document import load
from guard.policy.explain import Explanation, explain
from guard.policy.findings import nearest
from guard.policy.instants import milliseconds
from guard.policy.rules import Policy

MAX_DIGITS: Final = 15
FILE: Final = click.Path(path_type=Path)


@click.command("explain", epilog=EPILOG)
@click.argument("file", type=FILE)
@click.option("--role", help="The role of who asks.")
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
@click.option("--case", help="Instead of all these: the case of this name beside the policy.")
@json_option
def explain_command(
    *,
    file: Path,
    role: str | None,
    arguments: str,
    server: str,
    scopes: str | None,
    declared: str,
    used: tuple[str, ...],
    now: str | None,
    intents: tuple[str, ...],
    depth: int,
    approved: tuple[str, ...],
    case: str | None,
    as_json: bool,
    **subjects: str | None,
) -> None:
    """Say what a policy answers to one call, and how it comes to that.

    The cases beside the policy are not run, so that a failing case can be looked into. The tool
    counts as pinned, and the rest of the world as sound.
    """
    if case is not None:
        _explain_case(file, case, as_json=as_json)
    if role is None:
        raise click.UsageError("Name the --role of who asks, or a --case.")
    named = [(kind, name) for kind, name in subjects.items() if name is not None]
    if len(named) != 1:
        raise click.UsageError("Name one of --tool, --prompt, --resource and --method.")
    ((kind, name),) = named
    try:
        loaded = load(read_file(file), name=str(file))
        method, params = asked(kind, name, _arguments(arguments))
        taken = unused(loaded) | _used(used, loaded)
    except GuardError as error:
        unusable(error, as_json=as_json)
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
    _tell(explanation, as_json=as_json)


def _explain_case(file: Path, name: str, *, as_json: bool) -> NoReturn:
    """A case has facts that no option gives: what was said before, who is contained."""
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in {"file", "case", "as_json"}
        and context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"A case says it all: leave out {', '.join(given)}.")
    try:
        loaded = load(read_file(file), name=str(file))
        cases = cases_beside(file)
        if cases is None:
            remedy = f"write {file.stem}.cases.yaml beside it"
            raise GuardError("there are no cases", where=printable(str(file)), remedy=remedy)  # noqa: TRY301
        known = {case.name: case for case in read_cases(read_file(cases), name=str(cases))}
        if name not in known:
            remedy = nearest(name, list(known))
            raise GuardError(f"no case is called `{printable(name)}`", where=str(cases), remedy=remedy)  # noqa: TRY301
        call = in_its_world(known[name], loaded)
    except GuardError as error:
        unusable(error, as_json=as_json)
    _tell(explain(call, replace(loaded, mode="enforce", observe_until=None)), as_json=as_json)


def _tell(explanation: Explanation, *, as_json: bool) -> NoReturn:
    if as_json:
        emit(explanation.as_json(), [], as_json=True)
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


def _arguments(text: str) -> Any:
    remedy = 'give a JSON object, such as \'{"path": "/tmp"}\''
    try:
        value = read(text.encode("utf-8"))
    except (ValueError, UnicodeEncodeError) as error:
        raise GuardError(printable(str(error)), where="--arguments", remedy=remedy) from None
    if not isinstance(value, dict):
        raise GuardError("not a JSON object", where="--arguments", remedy=remedy)
    return value

"""`guard approvals`: see which calls wait for a person, and answer.

Whoever answers is known by an API key, and by nothing else: that somebody can read Guard's folder says
nothing about who they are, and an agent may run as the same user.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from guard.cli.shared import EPILOG, emit, json_option, opened, tenant_option, told, when
from guard.config.home import HOME_VARIABLE, clock, default_home
from guard.config.launch import KEY_VARIABLE
from guard.config.loaded import load
from guard.config.policies import Policies, read_file
from guard.config.settings import load_settings
from guard.core.canonical import write
from guard.core.errors import GuardError, printable
from guard.core.model import Principal
from guard.identity.api_keys import authenticate
from guard.lineage.store import Moved, QuestionRow, Recorded, Store
from guard.policy.rules import Policy
from guard.proxy import approvals as law

_LIKE_AN_OPTION: Final = re.compile(r"-[A-Za-z0-9_-]{21}")
"""An id of a question that begins with a hyphen."""


class _ById(click.Command):
    """A command whose argument may begin with a hyphen."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ids = [word for word in args if _LIKE_AN_OPTION.fullmatch(word)]
        if ids and "--" not in args:
            args = [*(word for word in args if word not in ids), "--", *ids]
        return super().parse_args(ctx, args)


@click.group(epilog=EPILOG)
def approvals() -> None:
    """See which calls wait for a person, and answer."""


def _config_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The configuration that Guard runs with.",
    )(command)


def _home_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        help=f"Guard's folder (default: the configuration's, else ${HOME_VARIABLE}, else ~/.guard).",
    )(command)


@approvals.command("list", epilog=EPILOG)
@click.option("--all", "every", is_flag=True, help="Also what was answered and is not void yet.")
@_config_option
@tenant_option
@_home_option
@json_option
def list_questions(
    *, every: bool, config: Path | None, tenant: str, home: Path | None, as_json: bool
) -> None:
    """List the questions that wait, the oldest first."""
    with _store(config, home) as store:
        rows = law.newest(store.questions(tenant, clock()))
        rows = [row for row in rows if every or row.state == "open"]
        emit([law.shown(row) for row in rows], [_line(row) for row in rows] or ["none"], as_json=as_json)


@approvals.command(epilog=EPILOG, cls=_ById)
@click.argument("question", metavar="ID")
@_config_option
@tenant_option
@_home_option
@json_option
def show(*, question: str, config: Path | None, tenant: str, home: Path | None, as_json: bool) -> None:
    """Show a question, and exactly what would be sent."""
    with _store(config, home) as store:
        row = store.question(tenant, question)
        if row is None:
            raise GuardError("there is no such question", remedy="`guard approvals list` shows what waits")
        emit(law.shown(row), _lines(row), as_json=as_json)


def _answering(command: Callable[..., None]) -> Callable[..., None]:
    for decorate in reversed(
        (
            click.argument("question", metavar="ID"),
            _config_option,
            click.option(
                "--policy",
                "policies",
                multiple=True,
                type=click.Path(path_type=Path, dir_okay=False),
                help="The policy that Guard runs with, where there is no configuration; repeatable, the "
                "highest first.",
            ),
            click.option(
                "--key-file",
                type=click.Path(path_type=Path, dir_okay=False),
                help=f"Your API key, the file's first line (default: ${KEY_VARIABLE}).",
            ),
            _home_option,
            json_option,
        )
    ):
        command = decorate(command)
    return command


@approvals.command(epilog=EPILOG, cls=_ById)
@_answering
def grant(**given: Any) -> None:
    """Let exactly this call run, once, when it is made again or still waits.

    Your key's role must have `may_approve: true` in the policy, and the call must be another's.
    """
    _answer(**given, yes=True)


@approvals.command(epilog=EPILOG, cls=_ById)
@_answering
def deny(**given: Any) -> None:
    """Refuse this call, and the same call again until the question is void."""
    _answer(**given, yes=False)


def _answer(
    *,
    question: str,
    config: Path | None,
    policies: tuple[Path, ...],
    key_file: Path | None,
    home: Path | None,
    as_json: bool,
    yes: bool,
) -> None:
    if (config is None) == (not policies):
        raise click.UsageError("Give one of --config and --policy: it says who may approve.")
    with told():
        holds = load(config).policy if config is not None else Policies(policies).load()
        text = _key(key_file)
    with _store(config, home) as store:
        now = clock()

        def identify() -> Principal:
            return authenticate(text, store.api_key, now // 1000)

        _check_in_force(store, identify().tenant, holds)
        (outcome,) = store.apply([law.answer(store, holds, identify, question, yes=yes, now=now)])
        if isinstance(outcome, Moved):
            raise GuardError("who may approve has just changed", remedy="run the command again")
        if not isinstance(outcome, Recorded):
            raise GuardError("it is answered already, or its time is over")
        state = "granted" if yes else "denied"
        emit({"id": question, "state": state}, [f"{state} {question}"], as_json=as_json)


@contextmanager
def _store(config: Path | None, home: Path | None) -> Iterator[Store]:
    """The store: the configuration's, else the home's own; failures as `told`."""
    address = None
    if config is not None:
        with told():
            settings = load_settings(config)
            home, address = home or settings.home, settings.address
    with opened(home or default_home(), address=address) as (_, store):
        yield store


def _key(file: Path | None) -> str | None:
    """The reviewer's key, None where none was given. Raises GuardError."""
    if file is None:
        return os.environ.get(KEY_VARIABLE)
    return read_file(file).decode("utf-8", "replace").partition("\n")[0].strip()


def _check_in_force(store: Store, tenant: str, policy: Policy) -> None:
    """Nobody becomes a reviewer by a policy of their own. Raises GuardError."""
    for ref in policy.ref.all:
        if store.policy(tenant, ref.id) != (ref.version, ref.sha256):
            raise GuardError(
                f"the policy {printable(ref.id)} version {ref.version} is not the one in force",
                remedy="name the configuration or policy that Guard runs with",
            )


def _line(row: QuestionRow) -> str:
    asked, call = row.question, law.shown(row)["call"]
    return (
        f"{asked.id}  {row.state:7}  until {when(asked.until)}  {asked.issuer}/{asked.subject}"
        f"  {call['server']}: {call['kind']} {call['name']}  rules {', '.join(asked.rules)}"
    )


def _lines(row: QuestionRow) -> list[str]:
    asked, call = row.question, law.shown(row)["call"]
    params = call["params"]
    sent = f"too large to keep, digest {call['args_sha256']}" if params is None else write(params).decode()
    answered = f"{row.state} by {row.answered_by} ({row.word})" if row.answered_by else row.state
    return [
        f"question {asked.id}",
        f"state    {answered}",
        f"asked    {when(row.asked)}",
        f"until    {when(asked.until)}",
        f"by       {asked.issuer}/{asked.subject}, role {call['role']}",
        f"server   {call['server']}",
        f"{call['kind']:8} {call['name']}",
        f"rules    {', '.join(asked.rules)}",
        f"fields   {', '.join(call['pointers']) or 'the whole'}",
        f"sent     {sent}",
        f"digest   {asked.digest}",
    ]

"""What every command shares: where the home is, how data is printed, how it ends.

Exit codes: 0 done, or yes; 1 the answer is no; 2 wrong usage, or something cannot be used;
3 the tool server could not be started, or ended.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from guard.cli.main import EPILOG as EPILOG  # noqa: PLC0414 - handed on to the commands
from guard.config.home import HOME_VARIABLE, Home, default_home, open_home
from guard.core.errors import GuardError, printable
from guard.lineage.postgres.address import Address
from guard.lineage.store import Store

NO: Final = 1
UNUSABLE: Final = 2
Command = TypeVar("Command", bound=Callable[..., Any])


def home_option(command: Command) -> Command:
    """`--home`: Guard's folder."""
    return click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        default=default_home,
        help=f"Guard's folder (default: ${HOME_VARIABLE}, else ~/.guard).",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`: print data for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def tenant_option(command: Command) -> Command:
    """`--tenant`: whose."""
    return click.option("--tenant", default="default", show_default=True, help="The tenant.")(command)


@contextmanager
def told() -> Iterator[None]:
    """Say what failed and what to do next, and end with exit code 2."""
    try:
        yield
    except GuardError as error:
        unusable(error, as_json=False)


def error_json(error: GuardError) -> dict[str, str]:
    """An error for programs."""
    return {"error": error.what, "where": error.where, "remedy": error.remedy}


def unusable(error: GuardError, *, as_json: bool) -> NoReturn:
    """Say what failed and what to do next, as lines or as JSON, and end with exit code 2."""
    if as_json:
        emit(error_json(error), [], as_json=True)
    else:
        click.echo(f"guard: {printable_lines(str(error))}", err=True)
    sys.exit(UNUSABLE)


@contextmanager
def opened(path: Path, *, make: bool = False, address: Address | None = None) -> Iterator[tuple[Home, Store]]:
    """A home and its store, made only where the command is one that begins; failures as `told`."""
    with told():
        home = open_home(path, make=make)
        store = home.store(address=address)
        try:
            yield home, store
        finally:
            store.close()


def emit(value: Any, lines: Iterator[str] | list[str], *, as_json: bool) -> None:
    """Print data as JSON, or as lines for people, everything escaped."""
    if as_json:
        click.echo(json.dumps(value, indent=2, ensure_ascii=True))
    else:
        for line in lines:
            click.echo(printable(line))


def printable_lines(text: str) -> str:
    """Escape each line by itself."""
    return "\n".join(printable(line) for line in text.split("\n"))


def when(milliseconds: int) -> str:
    """UNIX milliseconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")

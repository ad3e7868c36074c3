"""`guard pin`: show a server's tools and accept them."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import orjson

from guard.cli.shared import (
    EPILOG,
    NO,
    emit,
    json_option,
    opened,
    printable_lines,
    tenant_option,
    told,
)
from guard.config.home import HOME_VARIABLE, default_home, record
from guard.config.launch import environment, server_name
from guard.config.reach import LetGo, look, reached
from guard.config.run import SERVER_GONE
from guard.config.settings import Settings, load_settings
from guard.core.errors import GuardError, printable
from guard.core.model import SCOPES_META
from guard.lineage.entry import Kind
from guard.lineage.store import PinRow, SavePins, Store
from guard.policy.findings import nearest
from guard.proxy.about import Make
from guard.proxy.catalog import INSTRUCTIONS, listed, rows
from guard.proxy.process import Process
from guard.proxy.upstream import ServerError

Reached = tuple[Make, LetGo | None]


@click.command(epilog=EPILOG)
@click.option("--server", help="Your name for the tool server (default: made of the command).")
@click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="Pass a variable on; repeatable.")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take the servers of this configuration: all of them, or those named.",
)
@click.option("--yes", "-y", is_flag=True, help="Accept without asking.")
@tenant_option
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"Guard's folder (default: the configuration's, else ${HOME_VARIABLE}, else ~/.guard).",
)
@json_option
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND ARGS... | NAME...]")
def pin(
    *,
    server: str | None,
    env: tuple[str, ...],
    config: Path | None,
    yes: bool,
    tenant: str,
    home: Path | None,
    as_json: bool,
    words: tuple[str, ...],
) -> None:
    """Show the tools of a server and accept their definitions: guard pin -- COMMAND ARGS...

    From then on a tool whose definition is another one is refused until it is pinned again. With a
    configuration: guard pin --config guard.yaml [NAME...]
    """
    address = None
    with told():
        if config is None:
            looked_at = _of_command(words, server=server, env=env)
        else:
            settings = load_settings(config)
            home, address = home or settings.home, settings.address
            looked_at = _of_settings(settings, words, server=server, env=env)
    with opened(home or default_home(), make=True, address=address) as (_, store):
        reports = [
            _pinned(name, how, store, tenant=tenant, yes=yes, as_json=as_json)
            for name, how in looked_at.items()
        ]
    if as_json:
        emit(reports[0] if config is None else {"servers": reports}, [], as_json=True)
    if not all(report["accepted"] or report["same"] for report in reports):
        click.echo("  next: look at the list, then run it with --yes", err=True)
        sys.exit(NO)


def _of_command(words: tuple[str, ...], *, server: str | None, env: tuple[str, ...]) -> dict[str, Reached]:
    if not words:
        raise click.UsageError("Missing argument 'COMMAND ARGS...'.")
    return {server or server_name(words): (partial(Process, words, env=environment(env)), None)}


def _of_settings(
    settings: Settings, names: tuple[str, ...], *, server: str | None, env: tuple[str, ...]
) -> dict[str, Reached]:
    if server is not None or env:
        raise click.UsageError("--server and --env are the configuration's matter.")
    if unknown := [name for name in names if name not in settings.servers]:
        raise GuardError(
            f"the configuration has no server {printable(unknown[0])}",
            remedy=nearest(unknown[0], settings.servers),
        )
    return {name: reached(settings.servers[name]) for name in names or settings.servers}


def _pinned(
    name: str, how: Reached, store: Store, *, tenant: str, yes: bool, as_json: bool
) -> dict[str, Any]:
    """Show one server's tools, and accept them if that is wanted."""
    try:
        upstream, tools = asyncio.run(look(*how))
    except ServerError as error:
        click.echo(f"guard: {printable_lines(str(error))}", err=True)
        sys.exit(SERVER_GONE)
    live = listed(tools)
    fresh = rows(live.values(), upstream.instructions)
    before = {row.name: row for row in store.pins(tenant, name)}
    changes = _changes(before, fresh)
    unpinnable = [tool.name for tool in live.values() if not tool.sha256]
    same = all(change["state"] == "same" for change in changes)
    report = {"server": name, "tools": changes, "unpinnable": unpinnable, "same": same}
    if not as_json:
        emit(report, _lines(name, changes, unpinnable, fresh), as_json=False)
    accepted = not same and (yes or _confirmed(as_json=as_json))
    if accepted:
        fields = {"server": name, "pins": {pin_name: sha256 for pin_name, sha256, _ in fresh}}
        record(store, Kind.PIN, fields, SavePins(name, fresh), tenant=tenant)
    if not as_json and same:
        click.echo("Nothing to accept: every definition is the pinned one.")
    elif not as_json:
        click.echo("Accepted." if accepted else "Not accepted.")
    return report | {"accepted": accepted}


def _changes(before: dict[str, PinRow], fresh: tuple[tuple[str, str, bytes], ...]) -> list[dict[str, str]]:
    changes = []
    for name, sha256, _ in fresh:
        old = before.get(name)
        state = "new" if old is None else "same" if old.sha256 == sha256 else "changed"
        changes.append({"name": name, "sha256": sha256, "state": state})
    gone = before.keys() - {name for name, _, _ in fresh}
    return changes + [{"name": name, "sha256": before[name].sha256, "state": "gone"} for name in sorted(gone)]


def _confirmed(*, as_json: bool) -> bool:
    """Ask, if there is anyone to ask."""
    return not as_json and sys.stdin.isatty() and click.confirm("Accept these definitions?")


def _lines(
    server: str,
    changes: list[dict[str, str]],
    unpinnable: list[str],
    fresh: tuple[tuple[str, str, bytes], ...],
) -> list[str]:
    definitions: dict[str, Any] = {name: orjson.loads(data) for name, _, data in fresh}
    lines = [f"server {server}"]
    for change in changes:
        name, definition = change["name"], definitions.get(change["name"])
        if name == INSTRUCTIONS:
            lines.append(f"  {change['state']:8}(instructions)")
            lines.append(f"          {_short(definition)}")
            continue
        lines.append(f"  {change['state']:8}{name}  sha256 {change['sha256']}")
        if isinstance(definition, dict):
            lines.append(f"          {_short(definition.get('description'))}")
            properties = definition.get("inputSchema", {}).get("properties", {})
            lines.append(f"          arguments: {', '.join(properties) or '(none)'}")
            scopes = (definition.get("_meta") or {}).get(SCOPES_META)
            if scopes is not None:
                lines.append(f"          scopes that its author declares: {scopes}")
    return lines + [f"  cannot be pinned: {name} (no canonical form, or listed twice)" for name in unpinnable]


def _short(text: Any) -> str:
    words = " ".join(str(text or "(no description)").split())
    return words if len(words) <= 200 else f"{words[:200]}…"  # noqa: PLR2004 - two lines of a terminal

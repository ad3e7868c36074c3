"""`guard pin`: show a server's tools and accept them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
import orjson

from guard.cli.shared import (
    EPILOG,
    NO,
    emit,
    home_option,
    json_option,
    opened,
    printable_lines,
    tenant_option,
)
from guard.config.home import record
from guard.config.launch import server_name
from guard.config.run import SERVER_GONE, look
from guard.core.model import SCOPES_META
from guard.lineage.entry import Kind
from guard.lineage.store import PinRow, SavePins
from guard.proxy.catalog import INSTRUCTIONS, listed, rows
from guard.proxy.upstream import ServerError


@click.command(epilog=EPILOG)
@click.option("--server", help="Your name for the tool server (default: made of the command).")
@click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="Pass a variable on; repeatable.")
@click.option("--yes", "-y", is_flag=True, help="Accept without asking.")
@tenant_option
@home_option
@json_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def pin(
    *,
    server: str | None,
    env: tuple[str, ...],
    yes: bool,
    tenant: str,
    home: Path,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Show the tools of a server and accept their definitions: guard pin -- COMMAND ARGS...

    From then on a tool whose definition is another one is refused until it is pinned again.
    """
    name = server or server_name(command)
    with opened(home, make=True) as (_, store):
        try:
            upstream, tools = asyncio.run(look(command, env))
        except ServerError as error:
            click.echo(f"guard: {printable_lines(str(error))}", err=True)
            sys.exit(SERVER_GONE)
        live = listed(tools)
        fresh = rows(live.values(), upstream.instructions)
        before = {row.name: row for row in store.pins(tenant, name)}
        changes = _changes(before, fresh)
        unpinnable = [tool.name for tool in live.values() if not tool.sha256]
        report = {"server": name, "tools": changes, "unpinnable": unpinnable}
        pending = any(change["state"] != "same" for change in changes)
        if not as_json:
            emit(report, _lines(name, changes, unpinnable, fresh), as_json=False)
        accepted = pending and (yes or _confirmed(as_json=as_json))
        if accepted:
            fields = {"server": name, "pins": {pin_name: sha256 for pin_name, sha256, _ in fresh}}
            record(store, Kind.PIN, fields, SavePins(name, fresh), tenant=tenant)
        if as_json:
            emit({**report, "accepted": accepted}, [], as_json=True)
        elif not pending:
            click.echo("Nothing to accept: every definition is the pinned one.")
        else:
            click.echo("Accepted." if accepted else "Not accepted.")
        if pending and not accepted:
            click.echo("  next: look at the list, then run it with --yes", err=True)
            sys.exit(NO)


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

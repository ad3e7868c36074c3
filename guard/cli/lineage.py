"""`guard lineage`: what a session did, why it was allowed, and whether the record still stands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from guard.cli.shared import EPILOG, NO, emit, home_option, json_option, opened, told, when
from guard.config.home import open_home
from guard.core.errors import GuardError
from guard.lineage import merkle, proof
from guard.lineage.audit import Report, audit, readable
from guard.lineage.checkpoint import parse_vkey
from guard.lineage.sqlite import SqliteStore


@click.group(epilog=EPILOG)
def lineage() -> None:
    """Read and check the record of every call."""


@lineage.command("list", epilog=EPILOG)
@home_option
@json_option
def list_conversations(*, home: Path, as_json: bool) -> None:
    """List conversations."""
    with opened(home) as (_, store):
        rows = [
            {
                "id": row.id,
                "tenant": row.tenant,
                "principal": f"{row.issuer}:{row.subject}",
                "conversation": row.given,
                "source": row.source,
                "entries": row.entries,
                "contained": bool(row.contained),
            }
            for row in store.conversations()
        ]
        lines = [
            f"{row['id']}  {row['entries']:5} entries  {row['tenant']}/{row['principal']}  {row['source']}"
            f"{'  CONTAINED' if row['contained'] else ''}"
            for row in rows
        ]
        emit(rows, lines or ["no conversations yet"], as_json=as_json)


@lineage.command(epilog=EPILOG)
@click.argument("conversation")
@home_option
@json_option
def show(*, conversation: str, home: Path, as_json: bool) -> None:
    """Show every entry of a conversation: what was asked, what was decided, and why."""
    with opened(home) as (_, store):
        entries = [_read(row) for row in store.entries(conversation)]
        if not entries:
            raise no_conversation(conversation)
        emit(entries, (line for entry in entries for line in describe(entry)), as_json=as_json)


def _read(row: Any) -> dict[str, Any]:
    try:
        return readable(row)
    except ValueError as error:
        raise GuardError(f"entry {row.index}: {error}", remedy="guard lineage verify says more") from None


def describe(entry: dict[str, Any]) -> Iterator[str]:
    """An entry as lines for a person."""
    fields = entry["fields"]
    head = f"{entry['index']:6}  {when(entry['at'])}  {entry['kind']:9}"
    if fields is None:
        yield f"{head} (erased)"
    elif "tool" in fields:
        arguments = json.dumps(fields.get("arguments"), ensure_ascii=True)
        yield f"{head} {fields['server']} {fields['tool']} {arguments}"
        yield f"{'':8}by {'/'.join(fields['principal'])} as {fields['role']}, decision {entry['call']}"
        yield f"{'':8}{_why(fields['decision'])}"
    else:
        yield f"{head} {entry['call']} {json.dumps(fields, ensure_ascii=True)}"


def _why(decision: dict[str, Any]) -> str:
    if "reason" in decision:
        rule = f", rule {decision['rule']}" if decision["rule"] else ""
        where = f", field {decision['pointer']}" if decision["pointer"] else ""
        return f"denied: {decision['reason']}{rule}{where}"
    mode = "" if decision["mode"] == "enforce" else f", mode {decision['mode']}"
    return (
        f"allowed by {', '.join(decision['rules']) or 'nothing'}; scopes {' '.join(decision['scopes'])}{mode}"
    )


@lineage.command("verify", epilog=EPILOG)
@click.argument("conversation", required=False)
@home_option
@json_option
def verify_lineage(*, conversation: str | None, home: Path, as_json: bool) -> None:
    """Recompute everything from the file; say which entry is wrong. Exit code 1 if anything is.

    With CONVERSATION, only what concerns it (and the tree and checkpoint that hold it) is said.
    """
    with told():
        opened_home = open_home(home, make=False)
        report = audit(opened_home.path / "guard.db", [parse_vkey(opened_home.vkey)])
        if conversation is not None:
            if conversation not in report.chains:
                raise no_conversation(conversation)
            # A damaged row names its own conversation: what names an entry is never left out.
            report.findings = [
                found
                for found in report.findings
                if found.entry is not None or found.conversation in {"", conversation}
            ]
            click.echo(f"{conversation}: {report.chains[conversation]} entries; of the whole log:", err=True)
        tell(report, as_json=as_json)


def no_conversation(conversation: str) -> GuardError:
    """There is none under this id."""
    return GuardError(f"there is no conversation {conversation}", remedy="guard lineage list shows them")


def tell(report: Report, *, as_json: bool) -> None:
    """Print an audit's report, and end with exit code 1 if anything is wrong."""
    value = {
        "sound": report.sound,
        "entries": report.entries,
        "conversations": report.conversations,
        "granted": report.granted,
        "ended": report.ended,
        "denied": report.denied,
        "open": report.open,
        "erased": report.erased,
        "checkpoint": {"size": report.size, "root_sha256": report.root},
        "findings": [
            {"entry": found.entry, "conversation": found.conversation or None, "what": found.what}
            for found in report.findings
        ],
    }
    kinds = f"{report.granted} granted, {report.ended} ended, {report.denied} denied"
    lines = [
        f"{report.entries} entries in {report.conversations} conversations: {kinds}",
        *(f"open: {call} was granted and has no ending yet" for call in report.open),
    ]
    if report.erased:
        lines.append(f"erased: {report.erased} entries can no longer be read")
    if report.size is not None:
        lines.append(f"checkpoint: {report.size} entries, root {report.root}")
    for found in report.findings:
        entry = "" if found.entry is None else f"entry {found.entry}"
        where = ", ".join(part for part in (entry, found.conversation) if part)
        lines.append(f"WRONG {where}: {found.what}" if where else f"WRONG: {found.what}")
    lines.append("everything stands as it was recorded" if report.sound else "the record was changed")
    emit(value, lines, as_json=as_json)
    if not report.sound:
        sys.exit(NO)


@lineage.command("proof", epilog=EPILOG)
@click.argument("entry", type=click.IntRange(min=0))
@home_option
def prove(*, entry: int, home: Path) -> None:
    """Print a proof (C2SP tlog-proof) that ENTRY is in the signed tree; `guard verify` reads it."""
    with opened(home) as (_, store):
        click.echo(_proof(store, entry), nl=False)


def _proof(store: SqliteStore, index: int) -> str:
    signed = store.checkpoint()
    size = int(signed.split("\n")[1])
    if index >= size:
        raise GuardError(
            f"there is no entry {index}", remedy=f"the log has {size}, from 0; guard lineage show names them"
        )
    path = merkle.inclusion_path(index, size, store.node)
    return proof.write(index, store.leaf(index), path, signed)


@lineage.command("vkey", epilog=EPILOG)
@home_option
def print_vkey(*, home: Path) -> None:
    """Print the key that checkpoints and proofs are checked with (C2SP vkey)."""
    with told():
        click.echo(open_home(home, make=False).vkey)

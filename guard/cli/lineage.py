"""`guard lineage`: what a session did, why it was allowed, and whether the record still stands."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from guard.cli.auditing import Progress, checkpoint_option, progress_option, read_kept, tell
from guard.cli.shared import EPILOG, emit, home_option, json_option, opened, told, when
from guard.config.home import clock, open_home
from guard.config.stores import Replicated
from guard.core.canonical import b64
from guard.core.errors import GuardError, printable
from guard.core.model import Conversation, Principal
from guard.lineage import merkle, proof
from guard.lineage.audit import audit, readable
from guard.lineage.checkpoint import VerifierKey, open_checkpoint, parse_vkey
from guard.lineage.entry import Kind
from guard.lineage.log import entry as drafted
from guard.lineage.sources import Source, SqliteSource
from guard.lineage.store import Conflict, ConversationRow, Place, Recorded, Seal, Store, Transaction

SEAL_TRIES: Final = 20
PAUSE: Final = 0.1
"""Seconds between two tries."""


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
                "sealed": bool(row.sealed),
            }
            for row in store.conversations()
        ]
        lines = [
            f"{row['id']}  {row['entries']:5} entries  {row['tenant']}/{row['principal']}  {row['source']}"
            f"{'  CONTAINED' if row['contained'] else ''}{'  SEALED' if row['sealed'] else ''}"
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
        _settle(store)
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
        if approval := fields.get("approval"):
            yield f"{'':8}approved by {approval['approver']} ({approval['word']}), question {approval['id']}"
    else:
        yield f"{head} {entry['call']} {json.dumps(fields, ensure_ascii=True)}"


def _why(decision: dict[str, Any]) -> str:
    if "reason" in decision:
        rule = f", rule {decision['rule']}" if decision["rule"] else ""
        where = f", field {decision['pointer']}" if decision["pointer"] else ""
        return f"denied: {decision['reason']}{rule}{where}"
    if "approver" in decision:
        word = "a reviewer" if decision["approver"] == "reviewer" else "its client, or a reviewer,"
        return f"{word} must approve: {', '.join(decision['rules'])}"
    mode = "" if decision["mode"] == "enforce" else f", mode {decision['mode']}"
    return (
        f"allowed by {', '.join(decision['rules']) or 'nothing'}; scopes {' '.join(decision['scopes'])}{mode}"
    )


@lineage.command("verify", epilog=EPILOG)
@click.argument("conversation", required=False)
@checkpoint_option
@progress_option
@home_option
@json_option
def verify_lineage(
    *, conversation: str | None, kept: tuple[Path, ...], progress: bool | None, home: Path, as_json: bool
) -> None:
    """Recompute everything from the store; say which entry is wrong. Exit code 1 if anything is.

    With CONVERSATION, only what concerns it (and the tree and checkpoint that hold it) is said.
    A store that was set back as a whole is only caught by --checkpoint: keep one elsewhere.
    """
    with told():
        opened_home = open_home(home, make=False)
        vkeys = [parse_vkey(opened_home.vkey)]
        with Progress(progress) as told_how_far:
            report = audit(opened_home.source(), vkeys, kept=read_kept(kept, vkeys), progress=told_how_far)
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


@lineage.command(epilog=EPILOG)
@click.argument("conversation")
@home_option
@json_option
def seal(*, conversation: str, home: Path, as_json: bool) -> None:
    """Close a conversation: its last entry says how many there are, and nothing follows it.

    Every later call in it is denied. Refused while one of its calls has no ending yet.
    """
    with opened(home) as (_, store):
        _settle(store)
        total = _sealed(store, conversation)
        index = _place(store, conversation, total - 1)
        value = {"sealed": conversation, "total": total, "entry": index}
        proof_of_it = (
            "its place in the log comes with the next replica that runs; then keep a proof of it elsewhere"
            if index is None
            else f"keep `guard lineage proof {index}` elsewhere: it shows what a cut record has lost"
        )
        lines = [f"sealed: {conversation} with {total} entries", proof_of_it]
        emit(value, lines, as_json=as_json)


def _sealed(store: Store, conversation: str) -> int:
    """Count and close; count again where something came in between. Returns the total."""
    for _ in range(SEAL_TRIES):
        row = _row(store, conversation)
        total = row.entries + 1
        place = Place(
            row.tenant,
            Principal(row.tenant, row.issuer, row.subject, ""),
            Conversation(row.given, row.source),
        )
        transaction = Transaction(
            place, drafted(Kind.SEALED, "", {"total": total}), clock(), effects=(Seal(row.id, total),)
        )
        outcome = store.apply([transaction])[0]
        if isinstance(outcome, Recorded):
            return total
        if isinstance(outcome, Conflict) and _row(store, conversation).entries == row.entries:
            raise GuardError(outcome.what)
        time.sleep(PAUSE)
    raise GuardError("the conversation is in use", remedy="run the command again, or contain it first")


def _settle(store: Store) -> bool:
    """Whether what was committed has its place in the log: in one file always, in a shared store soon."""
    return store.settle() if isinstance(store, Replicated) else True


def _place(store: Store, conversation: str, seq: int) -> int | None:
    """Where an entry stands in the log; None where a shared store did not get to it yet."""
    _settle(store)
    return next((row.index for row in store.entries(conversation) if row.seq == seq), None)


def _row(store: Store, conversation: str) -> ConversationRow:
    for row in store.conversations():
        if row.id == conversation:
            return row
    raise no_conversation(conversation)


@lineage.command("checkpoint", epilog=EPILOG)
@home_option
def print_checkpoint(*, home: Path) -> None:
    """Print the newest signed checkpoint. Kept elsewhere, it catches a store that was set back."""
    with opened(home) as (_, store):
        click.echo(store.checkpoint(), nl=False)


@lineage.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@home_option
@json_option
def snapshot(*, file: Path, home: Path, as_json: bool) -> None:
    """Copy the store as it stands now into FILE, while Guard runs; `guard verify FILE` checks it.

    The keys are not in it. Back up the home's `keys` folder by itself.
    """
    with told():
        opened_home = open_home(home, make=False)
        opened_home.source().copy(file)
        _tell_copy("snapshot", SqliteSource(file), file, [parse_vkey(opened_home.vkey)], as_json=as_json)


@lineage.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@checkpoint_option
@progress_option
@home_option
@json_option
def restore(*, file: Path, kept: tuple[Path, ...], progress: bool | None, home: Path, as_json: bool) -> None:
    """Put a snapshot back into a home that has its keys and no store. Nothing is overwritten.

    It is checked first, as by `guard lineage verify`. Without --checkpoint nobody can tell whether
    it is the newest state.
    """
    with told():
        opened_home = open_home(home, make=False)
        target = opened_home.source()
        target.refuse_used()
        vkeys = [parse_vkey(opened_home.vkey)]
        with Progress(progress) as told_how_far:
            report = audit(file, vkeys, kept=read_kept(kept, vkeys), progress=told_how_far)
        if not report.sound:
            tell(report, as_json=as_json)
        target.restore(file)
        _tell_copy("restored", target, file, vkeys, as_json=as_json)


def _tell_copy(what: str, made: Source, file: Path, vkeys: list[VerifierKey], *, as_json: bool) -> None:
    """Say what a copy holds. Raises GuardError where its checkpoint is not the home's."""
    with made.opened() as rows:
        signed = open_checkpoint(rows.checkpoint(), vkeys)
    root = b64(signed.root)
    value = {what: str(file), "size": signed.size, "root_sha256": root}
    lines = [f"{what}: {printable(str(file))}", f"checkpoint: {signed.size} entries, root {root}"]
    emit(value, lines, as_json=as_json)


@lineage.command("proof", epilog=EPILOG)
@click.argument("entry", type=click.IntRange(min=0))
@home_option
def prove(*, entry: int, home: Path) -> None:
    """Print a proof (C2SP tlog-proof) that ENTRY is in the signed tree; `guard verify` reads it."""
    with opened(home) as (_, store):
        _settle(store)
        click.echo(_proof(store, entry), nl=False)


def _proof(store: Store, index: int) -> str:
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

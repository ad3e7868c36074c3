"""What the commands that audit share: their options, how far they are, what they say at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

import click

from guard.cli.shared import NO, emit
from guard.core.errors import GuardError
from guard.lineage import proof
from guard.lineage.audit import Report
from guard.lineage.checkpoint import Checkpoint, VerifierKey, open_checkpoint

TOLD_EVERY: Final = 0.2
"""Seconds between two lines of progress."""


def checkpoint_option(command: click.decorators.FC) -> click.decorators.FC:
    """`--checkpoint`: checkpoints that were kept elsewhere."""
    return click.option(
        "--checkpoint",
        "kept",
        multiple=True,
        type=click.Path(path_type=Path, dir_okay=False),
        help="A checkpoint (or a proof) that you kept: the record must begin with it. Repeatable.",
    )(command)


def progress_option(command: click.decorators.FC) -> click.decorators.FC:
    """`--progress`: say on stderr how far it is."""
    return click.option(
        "--progress/--no-progress", default=None, help="Say how far it is. Default: on a terminal."
    )(command)


class Progress:
    """How far an audit is, on stderr; called as `audit` says.

    Args:
        wanted: whether to say it; None for on a terminal only.
    """

    def __init__(self, wanted: bool | None) -> None:
        self._terminal = sys.stderr.isatty()
        self._wanted = self._terminal if wanted is None else wanted
        self._said = time.monotonic()
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, size: int) -> None:
        """So many entries of so many are checked."""
        now = time.monotonic()
        if self._wanted and (now - self._said >= TOLD_EVERY or done == size):
            self._said, self._open = now, True
            line = f"{done} of {size} entries ({100 * done // max(size, done, 1)} %)"
            click.echo(f"\r{line}" if self._terminal else line, err=True, nl=not self._terminal)

    def __exit__(self, *_: object) -> None:
        if self._open and self._terminal:
            click.echo(err=True)


def read_kept(files: Iterable[Path], vkeys: list[VerifierKey]) -> list[Checkpoint]:
    """The checkpoints in files: signed notes, or proofs, which end in one.

    Raises:
        GuardError: one cannot be read, or is not signed by the log's key.
    """
    kept = []
    for file in files:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise GuardError(f"cannot be read: {error.strerror}", where=str(file)) from None
        if data.startswith(proof.FIRST_LINE.encode()):
            kept.append(proof.verify(data, vkeys).checkpoint)
        else:
            kept.append(open_checkpoint(data, vkeys))
    return kept


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
        "sealed": report.sealed,
        "waiting": report.waiting,
        "checkpoint": {"size": report.size, "root_sha256": report.root},
        "findings": [
            {"entry": found.entry, "conversation": found.conversation or None, "what": found.what}
            for found in report.findings
        ],
        "further_findings": report.further,
    }
    kinds = f"{report.granted} granted, {report.ended} ended, {report.denied} denied"
    lines = [
        f"{report.entries} entries in {report.conversations} conversations: {kinds}",
        *(f"open: {call} was granted and has no ending yet" for call in report.open),
    ]
    if report.erased:
        lines.append(f"erased: {report.erased} entries can no longer be read")
    if report.sealed:
        lines.append(f"sealed: {report.sealed} conversations are closed")
    if report.waiting:
        lines.append(f"waiting: {report.waiting} entries are durable and have no place in the log yet")
    if report.size is not None:
        lines.append(f"checkpoint: {report.size} entries, root {report.root}")
    for found in report.findings:
        entry = "" if found.entry is None else f"entry {found.entry}"
        where = ", ".join(part for part in (entry, found.conversation) if part)
        lines.append(f"WRONG {where}: {found.what}" if where else f"WRONG: {found.what}")
    if report.further:
        lines.append(f"WRONG: {report.further} more things")
    lines.append("everything stands as it was recorded" if report.sound else "the record was changed")
    emit(value, lines, as_json=as_json)
    if not report.sound:
        sys.exit(NO)

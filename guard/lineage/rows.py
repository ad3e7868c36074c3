"""What stands in a store's file, read as it stands: nothing about it is checked here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from guard.lineage.store import ConversationRow, EntryRow

LOG: Final = 0
"""The one log of the file. Where tiles are public each tenant will have its own."""


def read_entries(db: sqlite3.Connection, conversation: str | None = None) -> Iterator[EntryRow]:
    """Entries in order with a cursor of their own, nothing checked."""
    # The plus: SQLite must look up the conversation, and not walk through the log in its order.
    where = (
        "e.log = ? ORDER BY e.idx"
        if conversation is None
        else "+e.log = ? AND e.conversation = ? ORDER BY e.seq"
    )
    with closing(db.cursor()) as cursor:
        cursor.execute(
            "SELECT e.idx, e.conversation, e.seq, e.hash, e.leaf, p.disclosures FROM entries e"  # noqa: S608 - constants
            f" LEFT JOIN payloads p ON p.log = e.log AND p.idx = e.idx WHERE {where}",
            (LOG,) if conversation is None else (LOG, conversation),
        )
        for row in cursor:
            yield EntryRow(*row)


def read_conversations(db: sqlite3.Connection) -> list[ConversationRow]:
    """Every conversation, in the order of opening."""
    rows = db.execute(
        "SELECT c.id, c.tenant, c.issuer, c.subject, c.given, c.source, c.entries, c.head,"
        " EXISTS (SELECT 1 FROM contained x WHERE x.tenant = c.tenant AND x.kind = 'conversation'"
        " AND x.target = c.id), c.sealed FROM conversations c ORDER BY c.opened, c.rowid"
    )
    return [ConversationRow(*row) for row in rows]


def read_checkpoint(db: sqlite3.Connection) -> str:
    """The newest signed checkpoint."""
    return str(db.execute("SELECT checkpoint FROM heads WHERE log = ?", (LOG,)).fetchone()[0])


def read_node(db: sqlite3.Connection, level: int, index: int) -> bytes:
    """The hash of a complete subtree; level 0 are the leaves. Raises KeyError."""
    row = (
        db.execute("SELECT hash FROM entries WHERE log = ? AND idx = ?", (LOG, index))
        if level == 0
        else db.execute("SELECT hash FROM nodes WHERE log = ? AND level = ? AND idx = ?", (LOG, level, index))
    ).fetchone()
    if row is None or not isinstance(row[0], bytes):
        raise KeyError((level, index))
    return row[0]


def read_head(db: sqlite3.Connection) -> tuple[Any, ...] | None:
    """The head's origin, size, peaks and newest time (UNIX ms); None where there is none."""
    row = db.execute("SELECT origin, size, peaks, at FROM heads WHERE log = ?", (LOG,)).fetchone()
    return tuple(row) if row else None

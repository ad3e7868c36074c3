"""The shared store as one SQLite file of the embedded store's format, and back into an empty database.

A snapshot is a moment of the log: what was durable and had no place in it yet is not in it. So the open
grants and seals of the file are those of its entries; a grant whose ending is missing is closed as `unknown`
by the Guard that starts on it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final

import psycopg

from guard.lineage.database import StoreError, connect, prepare
from guard.lineage.entry import ENDINGS, Kind
from guard.lineage.postgres import schema
from guard.lineage.postgres.connection import Address, Connection, reason
from guard.lineage.postgres.needs import key_digest
from guard.lineage.questions import COLUMNS
from guard.lineage.rows import LOG
from guard.lineage.snapshots import write_new

AT_ONCE: Final = 2000
"""Rows that are handed over together."""
EMPTY_SECONDS: Final = 2.0
"""How long a moment is looked for at which nothing waits."""
NOBODY: Final = "0" * 32
"""The instance of a grant whose own is not known any more."""

# Table, its columns in the file, and what they are in the database.
_ALIKE: Final = (
    ("entries", "log, idx, conversation, seq, hash, leaf", "log, idx"),
    ("payloads", "log, idx, disclosures", "log, idx"),
    ("nodes", "log, level, idx, hash", "log, level, idx"),
    ("versions", "tenant, key, version", "tenant, key"),
    ("contained", "tenant, kind, target, since", "tenant, kind, target"),
    ("policies", "tenant, id, version, sha256", "tenant, id"),
    ("pins", "tenant, server, name, position, sha256, definition", "tenant, server, name"),
    (
        "api_keys",
        "tenant, key_id, secret_sha256, principal, role, scopes, created, expires, revoked, last_used",
        "key_id",
    ),
    ("settings", "tenant, key, value", "tenant, key"),
    ("reservations", "tenant, counter, at, call, amount, until, held", "tenant, counter, at, call"),
    ("memories", "tenant, memory, version, size, lost, until", "tenant, memory"),
    (
        "seen",
        "tenant, memory, fingerprint, source, trust, field, until",
        "tenant, memory, fingerprint, source",
    ),
    ("questions", COLUMNS, "tenant, id"),
)
_GRANTS: Final = "tenant, call, conversation, instance"
_CONVERSATIONS: Final = "id, tenant, issuer, subject, given, source, entries, head, opened, sealed"
_HEAD: Final = "log, origin, size, peaks, at, checkpoint"


def export(address: Address, target: Path) -> None:
    """Write the shared store as it stands at one moment into a new file, while replicas work.

    Raises:
        StoreError: the store cannot be read, something stands at the target, or it cannot be written.
    """
    try:
        with closing(address.connect(patience=0, name="guard-snapshot")) as db:
            schema.check(db, address)
            _one_moment(db)
            write_new(target, lambda made: _fill(db, made))
    except psycopg.Error as error:
        raise StoreError(f"cannot be read: {reason(error)}", where=str(address)) from None


def restore(file: Path, address: Address) -> None:
    """Put a snapshot into a database that has the tables and nothing in the log. One transaction.

    Args:
        file: a store's file, audited before.
        address: of the role that Guard works as, or the owner.

    Raises:
        StoreError: the database has entries, or has no tables, or cannot be written.
    """
    try:
        with closing(connect(file, read_only=True)) as old, closing(address.connect(patience=0)) as db:
            schema.check(db, address)
            old.execute("BEGIN")
            with db.transaction():
                _refuse_used(db, address)
                _return(old, db)
    except psycopg.Error as error:
        raise StoreError(f"cannot be written: {reason(error)}", where=str(address)) from None
    except sqlite3.Error as error:
        raise StoreError(f"the file is damaged: {error}", where=str(file)) from None


def refuse_used(address: Address) -> None:
    """Raises StoreError where `restore` would."""
    try:
        with closing(address.connect(patience=0)) as db:
            schema.check(db, address)
            _refuse_used(db, address)
    except psycopg.Error as error:
        raise StoreError(f"cannot be read: {reason(error)}", where=str(address)) from None


def _refuse_used(db: Connection, address: Address) -> None:
    used = "SELECT EXISTS (SELECT FROM guard.entries) OR EXISTS (SELECT FROM guard.inbox)"
    row = db.execute(f"{used} OR EXISTS (SELECT FROM guard.conversations)").fetchone()
    if row is None or row[0]:
        raise StoreError(
            "there is a lineage already, and nothing is overwritten",
            where=str(address),
            remedy="make another database, and guard store upgrade in it",
        )


# -- out -------------------------------------------------------------------------------------------


def _one_moment(db: Connection) -> None:
    """Begin a transaction with one picture; if it can be, one in which nothing waits."""
    end = time.monotonic() + EMPTY_SECONDS
    while True:
        db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if db.execute("SELECT 1 FROM guard.inbox LIMIT 1").fetchone() is None or time.monotonic() > end:
            return
        db.execute("ROLLBACK")
        time.sleep(0.01)


def _fill(db: Connection, made: sqlite3.Connection) -> None:
    made.execute("BEGIN")
    prepare(made)
    for table, columns, order in _ALIKE:
        stands = f"SELECT {columns} FROM guard.{table} ORDER BY {order}"  # noqa: S608 - constants
        _into(made, table, columns, _rows(db, stands))
    _into(made, "heads", _HEAD, _rows(db, f"SELECT {_HEAD} FROM guard.heads"))  # noqa: S608
    conversations = (
        "SELECT id, tenant, issuer, subject, given, source, coalesce(h.entries, 0), coalesce(h.head, ''),"
        " opened, CASE WHEN EXISTS (SELECT FROM guard.inbox i WHERE i.conversation = c.id AND i.kind ="
        " 'sealed') THEN 0 ELSE sealed END"
        " FROM guard.conversations c LEFT JOIN guard.chains h ON h.conversation = c.id ORDER BY opened, id"
    )
    _into(made, "conversations", _CONVERSATIONS, _rows(db, conversations))
    _into(made, "open_grants", _GRANTS, _rows(db, f"SELECT {_GRANTS} FROM guard.open_grants"))  # noqa: S608
    waiting = (
        "SELECT c.tenant, i.call, i.conversation, i.kind FROM guard.inbox i"
        " JOIN guard.conversations c ON c.id = i.conversation ORDER BY i.ticket DESC"
    )
    for tenant, call, conversation, kind in _rows(db, waiting):  # the newest first: undone one by one
        if kind == Kind.GRANTED:
            made.execute("DELETE FROM open_grants WHERE tenant = ? AND call = ?", (tenant, call))
        elif kind in ENDINGS:
            made.execute(
                "INSERT OR IGNORE INTO open_grants VALUES (?, ?, ?, ?)", (tenant, call, conversation, NOBODY)
            )
    made.execute("COMMIT")


def _rows(db: Connection, statement: str) -> Iterator[tuple[Any, ...]]:
    with db.cursor(name="guard_snapshot", binary=True) as cursor:
        cursor.itersize = AT_ONCE
        yield from cursor.execute(statement.encode())


def _into(made: sqlite3.Connection, table: str, columns: str, rows: Iterator[tuple[Any, ...]]) -> None:
    marks = ", ".join("?" * len(columns.split(",")))
    statement = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608 - constants
    while some := list(islice(rows, AT_ONCE)):
        made.executemany(statement, some)


# -- back ------------------------------------------------------------------------------------------


def _return(old: sqlite3.Connection, db: Connection) -> None:
    has = {row[0] for row in old.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table, made, _ in _ALIKE:
        if table in has:
            columns = _known(old, table, made)
            rows = old.execute(f"SELECT {columns} FROM {table}")  # noqa: S608 - constants
            if table == "entries":  # they never waited: their tickets are none that the inbox gives
                _copy(db, table, f"{columns}, ticket", ((*row, -1 - row[1]) for row in rows))
            else:
                _copy(db, table, columns, rows)
    sealed = _known(old, "conversations", "sealed") or "0"
    conversations = old.execute(
        f"SELECT id, tenant, issuer, subject, given, source, opened, {sealed} FROM conversations"  # noqa: S608
    )
    named = ((*row, key_digest((row[1], row[2], row[3], row[4]))) for row in conversations)
    _copy(db, "conversations", "id, tenant, issuer, subject, given, source, opened, sealed, key", named)
    _copy(
        db,
        "chains",
        "conversation, entries, head",
        old.execute("SELECT id, entries, head FROM conversations WHERE entries > 0"),
    )
    _copy(db, "open_grants", _GRANTS, old.execute(f"SELECT {_GRANTS} FROM open_grants"))  # noqa: S608
    head = old.execute(f"SELECT {_HEAD} FROM heads WHERE log = ?", (LOG,)).fetchone()  # noqa: S608
    db.execute(
        "INSERT INTO guard.heads VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (log) DO UPDATE SET"
        " origin = excluded.origin, size = excluded.size, peaks = excluded.peaks, at = excluded.at,"
        " checkpoint = excluded.checkpoint",
        head,
    )


def _known(old: sqlite3.Connection, table: str, columns: str) -> str:
    """Those of the columns that the file's format has; the database knows what the others are without it."""
    found = {row[1] for row in old.execute(f"PRAGMA table_info({table})")}
    return ", ".join(column for column in columns.split(", ") if column in found)


def _copy(db: Connection, table: str, columns: str, rows: Iterator[tuple[Any, ...]]) -> None:
    with (
        db.cursor() as cursor,
        cursor.copy(f"COPY guard.{table} ({columns}) FROM STDIN".encode()) as copying,
    ):
        for row in rows:
            copying.write_row(row)

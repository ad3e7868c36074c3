"""Where an audit reads the shared store: as `guard.lineage.sources` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from guard.lineage.database import StoreError
from guard.lineage.postgres import schema, snapshot
from guard.lineage.postgres.connection import Address, Connection, reason
from guard.lineage.rows import LOG
from guard.lineage.sources import Listed, Rows
from guard.lineage.store import EntryRow

_AT_ONCE: Final = 1000
"""Rows that are fetched together of what is as long as there are conversations."""
_ENTRIES: Final = (
    "SELECT e.idx, e.conversation, e.seq, e.hash, e.leaf, p.disclosures FROM guard.entries e"
    " LEFT JOIN guard.payloads p ON p.log = e.log AND p.idx = e.idx"
    " WHERE e.log = %s AND e.idx >= %s AND e.idx < %s ORDER BY e.idx"
)


@dataclass(frozen=True, slots=True)
class PostgresSource:
    """The shared store, as any role may read it that may select."""

    address: Address

    @property
    def damage(self) -> tuple[type[Exception], ...]:
        """What reading raises where the database cannot be read."""
        return (psycopg.Error,)

    @contextmanager
    def opened(self) -> Iterator[Rows]:
        """The rows. One read-only transaction with one picture, however much is written meanwhile."""
        try:
            db = self.address.connect(patience=0, name="guard-audit")
            try:
                schema.check(db, self.address)
                db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                yield PostgresRows(db)
            finally:
                with suppress(psycopg.Error):
                    db.close()
        except psycopg.Error as error:
            raise StoreError(f"cannot be read: {reason(error)}", where=str(self.address)) from None

    def copy(self, target: Path) -> None:
        """As `Source.copy`."""
        snapshot.export(self.address, target)

    def refuse_used(self) -> None:
        """As `Source.refuse_used`."""
        snapshot.refuse_used(self.address)

    def restore(self, file: Path) -> None:
        """As `Source.restore`."""
        snapshot.restore(file, self.address)


class PostgresRows:
    """As `Rows`."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def first_index(self, at: int | None) -> int | None:
        """As `Rows.first_index`."""
        row = self._db.execute(
            "SELECT idx FROM guard.entries WHERE log = %s AND idx >= %s ORDER BY idx LIMIT 1",
            (LOG, -(2**63) if at is None else at),
        ).fetchone()
        return None if row is None else int(row[0])

    def last_index(self) -> int | None:
        """As `Rows.last_index`."""
        row = self._db.execute(
            "SELECT idx FROM guard.entries WHERE log = %s ORDER BY idx DESC LIMIT 1", (LOG,)
        ).fetchone()
        return None if row is None else int(row[0])

    def strays(self) -> int:
        """None: the database lets nothing else stand there."""
        return 0

    def entries(self, first: int, end: int) -> Iterator[EntryRow]:
        """As `Rows.entries`."""
        with self._db.cursor(binary=True) as cursor:
            for row in cursor.execute(_ENTRIES, (LOG, first, end)):
                yield EntryRow(*row)

    def nodes(self, level: int, first: int, end: int) -> Mapping[int, Any]:
        """As `Rows.nodes`."""
        asked = "SELECT idx, hash FROM guard.nodes WHERE log = %s AND level = %s AND idx >= %s AND idx < %s"
        with self._db.cursor(binary=True) as cursor:
            return dict(cursor.execute(asked, (LOG, level, first, end)).fetchall())

    def conversations(self) -> Iterator[Listed]:
        """As `Rows.conversations`: with what stands in the log; what waits is not counted."""
        for row in self._many(
            "SELECT c.id, c.tenant, c.issuer, c.subject, c.given, coalesce(h.entries, 0),"
            " coalesce(h.head, ''::bytea), c.sealed <> 0 AND NOT EXISTS (SELECT FROM guard.inbox i"
            " WHERE i.conversation = c.id AND i.kind = 'sealed')"
            " FROM guard.conversations c LEFT JOIN guard.chains h ON h.conversation = c.id"
        ):
            id_, tenant, issuer, subject, given, entries, head, sealed = row
            yield Listed(id_, (tenant, issuer, subject, given), entries, head, sealed)

    def waiting(self) -> Iterator[tuple[str, str]]:
        """As `Rows.waiting`."""
        yield from self._many("SELECT kind, call FROM guard.inbox ORDER BY ticket")

    def open_calls(self) -> Iterator[Any]:
        """As `Rows.open_calls`."""
        for row in self._many("SELECT call FROM guard.open_grants"):
            yield row[0]

    def checkpoint(self) -> str:
        """As `Rows.checkpoint`."""
        row = self._db.execute("SELECT checkpoint FROM guard.heads WHERE log = %s", (LOG,)).fetchone()
        if row is None:
            raise TypeError("there is no head")
        return str(row[0])

    def head(self) -> tuple[Any, ...] | None:
        """As `Rows.head`."""
        return self._db.execute(
            "SELECT origin, size, peaks, at FROM guard.heads WHERE log = %s", (LOG,)
        ).fetchone()

    def _many(self, statement: str) -> Iterator[tuple[Any, ...]]:
        """Rows of which there may be many, some at a time."""
        with self._db.cursor(name="guard_audit", binary=True) as cursor:
            cursor.itersize = _AT_ONCE
            yield from cursor.execute(statement)

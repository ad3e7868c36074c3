"""Where an audit reads: what it asks of a store's rows, whichever store holds them.

A source is a small value that any process can be handed; each process opens it for itself. What is
read is one moment's picture for the process that holds it open, and the log's rows never change:
other processes that read the same indexes read the same rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from guard.core.errors import printable
from guard.lineage import snapshots
from guard.lineage.database import StoreError, connect
from guard.lineage.rows import LOG, read_checkpoint, read_head
from guard.lineage.store import EntryRow

_FIRST: Final = -(2**63)
_LAST: Final = 2**63 - 1


class Listed(NamedTuple):
    """A conversation as it is listed.

    Attributes:
        id: the log's own id of it.
        who: tenant, issuer, subject and the id that was given.
        entries: how many it has.
        head: the leaf hash of its newest entry.
        sealed: whether it is closed; None where the store's format does not know of seals.
    """

    id: str
    who: tuple[Any, ...]
    entries: int
    head: bytes
    sealed: bool | None


class Rows(Protocol):
    """A store's rows, opened: nothing about them is checked here. Raises one of `Source.damage`."""

    def first_index(self, at: int | None) -> int | None:
        """The lowest index that is at least `at` (of all, for None); None where there is none."""
        ...

    def last_index(self) -> int | None:
        """The highest index; None where there is none. What comes after it came after this picture."""
        ...

    def strays(self) -> int:
        """How many entries have something else than an index in the index's place, beyond all indexes."""
        ...

    def entries(self, first: int, end: int) -> Iterator[EntryRow]:
        """The entries `first` up to, not with, `end`, in order."""
        ...

    def nodes(self, level: int, first: int, end: int) -> Mapping[int, Any]:
        """The hashes that stand for complete subtrees of a level, by index."""
        ...

    def conversations(self) -> Iterator[Listed]:
        """Every conversation, in the order of opening."""
        ...

    def waiting(self) -> Iterator[tuple[str, str]]:
        """(kind, call) of what is durable and has no place in the log yet, in order."""
        ...

    def open_calls(self) -> Iterator[Any]:
        """The calls that are owed an ending."""
        ...

    def checkpoint(self) -> str:
        """The newest signed checkpoint. Raises TypeError where there is none."""
        ...

    def head(self) -> tuple[Any, ...] | None:
        """The head's origin, size, peaks and newest time (UNIX ms); None where there is none."""
        ...


class Source(Protocol):
    """Where a store's rows are. A value that another process can be handed.

    Attributes:
        damage: what reading raises where what stands there cannot be read.
    """

    @property
    def damage(self) -> tuple[type[Exception], ...]:
        """What reading raises where what stands there cannot be read."""
        ...

    def opened(self) -> AbstractContextManager[Rows]:
        """The rows, as they stand at one moment.

        Raises:
            StoreError: there is no store, or it is damaged.
        """
        ...

    def copy(self, target: Path) -> None:
        """Write the store as it stands at one moment into a new SQLite file, while Guard runs.

        Raises:
            StoreError: there is no store, something stands at the target, or it cannot be written.
        """
        ...

    def refuse_used(self) -> None:
        """Raises StoreError where `restore` would overwrite something."""
        ...

    def restore(self, file: Path) -> None:
        """Make what such a file holds the store, where none is.

        Args:
            file: what `copy` made, audited.

        Raises:
            StoreError: there is something already, or it cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class SqliteSource:
    """The embedded store's file."""

    path: Path

    @property
    def damage(self) -> tuple[type[Exception], ...]:
        """What reading raises where the file cannot be read."""
        return (sqlite3.DatabaseError, UnicodeDecodeError)  # damaged names do not decode

    @contextmanager
    def opened(self) -> Iterator[Rows]:
        """The rows. One read transaction: a Guard that is writing meanwhile does not disturb the picture."""
        try:
            with closing(connect(self.path, read_only=True)) as db:
                db.execute("BEGIN")
                yield SqliteRows(db)
        except self.damage as error:
            raise StoreError(f"the file is damaged: {printable(str(error))}", where=str(self.path)) from None

    def copy(self, target: Path) -> None:
        """As `Source.copy`: SQLite's own backup."""
        snapshots.copy(self.path, target)

    def refuse_used(self) -> None:
        """As `Source.refuse_used`."""
        snapshots.refuse_present(self.path)

    def restore(self, file: Path) -> None:
        """As `Source.restore`."""
        snapshots.copy(file, self.path)


class SqliteRows:
    """As `Rows`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def first_index(self, at: int | None) -> int | None:
        """As `Rows.first_index`."""
        row = self._db.execute(
            "SELECT idx FROM entries WHERE log = ? AND idx BETWEEN ? AND ? ORDER BY idx LIMIT 1",
            (LOG, _FIRST if at is None else at, _LAST),
        ).fetchone()
        return None if row is None else int(row[0] // 1)

    def last_index(self) -> int | None:
        """As `Rows.last_index`."""
        row = self._db.execute(
            "SELECT idx FROM entries WHERE log = ? AND idx BETWEEN ? AND ? ORDER BY idx DESC LIMIT 1",
            (LOG, _FIRST, _LAST),
        ).fetchone()
        return None if row is None else int(row[0] // 1)

    def strays(self) -> int:
        """As `Rows.strays`. Numbers with a fraction stand between the indexes, and are met there."""
        beyond = "SELECT count(*) FROM entries WHERE log = ? AND (idx > ? OR idx < ?)"  # text is beyond all
        return int(self._db.execute(beyond, (LOG, _LAST, _FIRST)).fetchone()[0])

    def entries(self, first: int, end: int) -> Iterator[EntryRow]:
        """As `Rows.entries`."""
        with closing(self._db.cursor()) as cursor:
            cursor.execute(
                "SELECT e.idx, e.conversation, e.seq, e.hash, e.leaf, p.disclosures FROM entries e"
                " LEFT JOIN payloads p ON p.log = e.log AND p.idx = e.idx"
                " WHERE e.log = ? AND e.idx >= ? AND e.idx < ? ORDER BY e.idx",
                (LOG, first, end),
            )
            for row in cursor:
                yield EntryRow(*row)

    def nodes(self, level: int, first: int, end: int) -> Mapping[int, Any]:
        """As `Rows.nodes`."""
        asked = "SELECT idx, hash FROM nodes WHERE log = ? AND level = ? AND idx >= ? AND idx < ?"
        return dict(self._db.execute(asked, (LOG, level, first, end)).fetchall())

    def conversations(self) -> Iterator[Listed]:
        """As `Rows.conversations`."""
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(conversations)")}
        sealed = "sealed" if "sealed" in columns else "NULL"
        with closing(self._db.cursor()) as cursor:
            cursor.execute(
                f"SELECT id, tenant, issuer, subject, given, entries, head, {sealed} FROM conversations"  # noqa: S608 - constants
                " ORDER BY opened, rowid"
            )
            for id_, tenant, issuer, subject, given, entries, head, at in cursor:
                is_sealed = None if at is None else at != 0
                yield Listed(id_, (tenant, issuer, subject, given), entries, head, is_sealed)

    def waiting(self) -> Iterator[tuple[str, str]]:
        """Nothing waits: what is durable in a file has its place."""
        return iter(())

    def open_calls(self) -> Iterator[Any]:
        """As `Rows.open_calls`."""
        with closing(self._db.cursor()) as cursor:
            for row in cursor.execute("SELECT call FROM open_grants"):
                yield row[0]

    def checkpoint(self) -> str:
        """As `Rows.checkpoint`."""
        return read_checkpoint(self._db)

    def head(self) -> tuple[Any, ...] | None:
        """As `Rows.head`."""
        return read_head(self._db)

"""The lineage as a test reads it: the rows that stand in a store, past everything that writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg

from guard.config.home import close_abandoned, open_home
from guard.lineage.audit import Report, audit
from guard.lineage.checkpoint import parse_vkey
from guard.lineage.database import connect
from guard.lineage.lease import Lease
from guard.lineage.postgres.connection import Address
from guard.lineage.postgres.source import PostgresSource
from guard.lineage.store import EntryRow

ROWS: Final = (
    "SELECT e.idx, e.conversation, e.seq, e.hash, e.leaf, p.disclosures FROM entries e"
    " LEFT JOIN payloads p ON p.log = e.log AND p.idx = e.idx WHERE e.idx >= {} ORDER BY e.idx"
)


class Book(Protocol):
    """What a test asks of a lineage.

    Attributes:
        home: a folder with the keys.
    """

    home: Path

    def rows(self, first: int = 0) -> list[EntryRow]:
        """The entries that have their place in the log, in order, from one on."""
        ...

    def waiting(self) -> int:
        """How many entries are durable and have no place yet."""
        ...

    def report(self) -> Report:
        """What an audit finds."""
        ...

    def recover(self) -> None:
        """What the next start does first: place what waits, end what a dead process left open."""
        ...

    @contextmanager
    def store(self) -> Iterator[Any]:
        """The store, opened as a command of the operator does."""
        ...


class SqliteBook:
    """The embedded store of a home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.file = home / "guard.db"

    def rows(self, first: int = 0) -> list[EntryRow]:
        with closing(connect(self.file, read_only=True)) as db:
            return [EntryRow(*row) for row in db.execute(ROWS.format("?"), (first,))]

    def waiting(self) -> int:
        return 0

    def report(self) -> Report:
        return audit(self.file, [parse_vkey(open_home(self.home).vkey)])

    def recover(self) -> None:
        lease = Lease(self.home / "run")
        with self.store() as store:
            close_abandoned(store, lease)
        lease.release()

    @contextmanager
    def store(self) -> Iterator[Any]:
        with closing(open_home(self.home).store()) as store:
            yield store


class PostgresBook:
    """The store of replicas, in a database."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url

    def rows(self, first: int = 0) -> list[EntryRow]:
        with psycopg.connect(self.url) as db:
            db.execute("SET search_path = guard")
            return [EntryRow(*row) for row in db.execute(ROWS.format("%s").encode(), (first,))]

    def waiting(self) -> int:
        with psycopg.connect(self.url) as db:
            row = db.execute("SELECT count(*) FROM guard.inbox").fetchone()
            assert row is not None
            return int(row[0])

    def report(self) -> Report:
        return audit(PostgresSource(Address(self.url)), [parse_vkey(open_home(self.home).vkey)])

    def recover(self) -> None:
        with self.store() as store:
            lease = store.lease()
            close_abandoned(store, lease)
            lease.release()
            store.settle()

    @contextmanager
    def store(self) -> Iterator[Any]:
        with closing(open_home(self.home).store(address=Address(self.url))) as store:
            yield store

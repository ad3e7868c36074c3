"""Where a fleet keeps its lineage, and what each of its replicas is told of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import psycopg

from guard.lineage.postgres import schema
from guard.lineage.postgres.connection import Address
from guard.lineage.postgres.sequencer import LOCK
from tests.faults.books import PostgresBook, SqliteBook
from tests.faults.ways import Way
from tests.postgres import PASSWORD, Databases, address, name_of, through, with_parts

_SEQUENCER: Final = (
    "SELECT a.usename FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.database = a.datid AND l.objsubid = 1"
    " AND (l.classid::bigint << 32 | l.objid::bigint) = %s AND starts_with(a.usename, %s)"
)
"""Which of a fleet's roles holds the lock of the office (pg_locks: a key of 64 bits is two of 32)."""


class FileSite:
    """One SQLite file and one home for all, on one machine."""

    kind = "sqlite"

    def __init__(self, home: Path) -> None:
        self.home = home
        self.book = SqliteBook(home)

    def settings(self, number: int) -> dict[str, Any]:
        """What a replica's configuration says of it."""
        return {"home": str(self.home)}

    def way(self, number: int) -> Way | None:
        """A replica's way to it; None where there is nothing to cut."""
        return None

    def sequencer(self) -> int | None:
        """Nobody: whoever holds the file's lock."""
        return None

    def hang_up(self, number: int) -> None:
        """There are no sessions."""


class DatabaseSite:
    """A database of PostgreSQL: each replica has a role, and a home with the keys, of its own.

    Args:
        home: the operator's home.
        url: the database, of somebody who may make roles; the operator's too.
        replicas: how many.
        ways: whether each reaches it by a way that can be cut.
    """

    kind = "postgres"

    def __init__(self, home: Path, url: str, replicas: int, *, ways: bool) -> None:
        self.url = url
        self._homes = [home.with_name(f"{home.name}-{number}") for number in range(replicas)]
        self._password = home.with_name("password")
        self._password.touch(mode=0o600)
        self._password.write_text(PASSWORD)
        for number, own in enumerate(self._homes):
            own.mkdir(mode=0o700)
            shutil.copytree(home / "keys", own / "keys")
            Databases(url).role(url, f"r{number}")
            schema.upgrade(Address(url), role=self._role(number))
        self._ways = [Way(lambda: [address(url)]) for _ in range(replicas)] if ways else []
        self.book = PostgresBook(home, url)

    def _role(self, number: int) -> str:
        return f"{name_of(self.url)}_r{number}"

    def settings(self, number: int) -> dict[str, Any]:
        """What a replica's configuration says of it."""
        url = with_parts(self.url, user=self._role(number))
        if self._ways and self._ways[number].port:
            url = through(url, self._ways[number].port)
        return {
            "home": str(self._homes[number]),
            "store": {"url": url, "password_file": str(self._password)},
        }

    def way(self, number: int) -> Way | None:
        """A replica's way to it; None where there is nothing to cut."""
        return self._ways[number] if self._ways else None

    def sequencer(self) -> int | None:
        """The replica that numbers the entries now; None while there is none."""
        with psycopg.connect(self.url) as db:
            row = db.execute(_SEQUENCER, (LOCK, f"{name_of(self.url)}_r")).fetchone()
            return None if row is None else int(row[0].rpartition("_r")[2])

    def hang_up(self, number: int) -> None:
        """End every session of a replica, and with them its locks; it is not told."""
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
                (self._role(number),),
            )

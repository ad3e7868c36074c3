"""Where used artifacts are remembered: one atomic insert, until nothing would accept them anyway."""

from __future__ import annotations

import heapq
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Protocol

Key = tuple[str, str, str]
"""(verifier's name, issuer, jti)."""


class ReplayStore(Protocol):
    """What a verifier asks of its replay store."""

    def insert(self, key: Key, *, until: int, now: int) -> bool:
        """Remember a key until `until` (UNIX seconds). True once, False ever after; atomic."""
        ...


class MemoryReplay:
    """For one process. A restart forgets: let a server wait 90 s after one, or use SqliteReplay."""

    def __init__(self) -> None:
        self._seen: set[Key] = set()
        self._ends: list[tuple[int, Key]] = []
        self._lock = Lock()

    def insert(self, key: Key, *, until: int, now: int) -> bool:
        """As ReplayStore; also forgets what ended before `now`."""
        with self._lock:
            while self._ends and self._ends[0][0] < now:
                self._seen.discard(heapq.heappop(self._ends)[1])
            if key in self._seen:
                return False
            self._seen.add(key)
            heapq.heappush(self._ends, (until, key))
            return True


class SqliteReplay:
    """For every process of one machine: a table in a file, durable before `insert` returns.

    They all read one clock, the one by which a verifier says whether an artifact has expired. Only where that
    was ahead and is set back may what was forgotten be accepted again, for as long as the artifact lives.

    Args:
        path: the file; made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._connect()) as db:
            # No WAL: switching to it fails where several processes start at once, whatever the timeout.
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "CREATE TABLE IF NOT EXISTS used (verifier TEXT, iss TEXT, jti TEXT, until INTEGER NOT NULL,"
                " PRIMARY KEY (verifier, iss, jti)) WITHOUT ROWID"
            )
            db.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=5, isolation_level=None)
        db.execute("PRAGMA synchronous=FULL")
        return db

    def insert(self, key: Key, *, until: int, now: int) -> bool:
        """As ReplayStore. Raises sqlite3.Error where the file cannot be written; treat that as a no."""
        with closing(self._connect()) as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM used WHERE until < ?", (now,))
            added = db.execute("INSERT OR IGNORE INTO used VALUES (?, ?, ?, ?)", (*key, until)).rowcount
            db.execute("COMMIT")
            return added == 1

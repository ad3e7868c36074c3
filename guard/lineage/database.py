"""Opening a store's file: one SQLite database, WAL, `synchronous=FULL`."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final

from guard.core.errors import GuardError
from guard.lineage.schema import SCHEMA, SCHEMA_VERSION, UPGRADES

PAGE_BYTES: Final = 8192
"""Of a new file: what stands beside most leaves fits into a page, and is copied once."""
BUSY_SECONDS: Final = 10
"""How long a connection waits for another process."""


class StoreError(GuardError):
    """The file cannot be used as a store."""


def connect(path: Path, *, read_only: bool = False, lax: bool = False) -> sqlite3.Connection:
    """Open a store's file. One of an older format can be read as it is, and is upgraded by `prepare`.

    Args:
        path: the file.
        read_only: nothing is made or changed.
        lax: `synchronous=NORMAL`: what was committed last may be lost when the power goes. For benchmarks.

    Raises:
        StoreError: it is missing, not a store, or of another version.
    """
    if read_only and not path.is_file():
        raise StoreError("there is no store", where=str(path), remedy="run Guard once, or give --home")
    uri = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    try:
        db = sqlite3.connect(
            uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        if not read_only:
            db.execute(f"PRAGMA page_size={PAGE_BYTES}")  # says nothing to a file that is there
            _use_wal(db)
            db.execute(f"PRAGMA synchronous={'NORMAL' if lax else 'FULL'}")
        db.execute("PRAGMA foreign_keys=ON")
        found = db.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise StoreError(f"not a readable SQLite file: {error}", where=str(path)) from error
    if found not in {SCHEMA_VERSION, *UPGRADES} | (set() if read_only else {0}):
        raise StoreError(
            f"the store has format {found}, this Guard writes {SCHEMA_VERSION}",
            where=str(path),
            remedy="use the Guard that wrote it",
        )
    return db


def prepare(db: sqlite3.Connection) -> bool:
    """Make the tables of a new file, or upgrade an older one. To be called inside a write transaction.

    Returns: whether the file is new.
    """
    found = db.execute("PRAGMA user_version").fetchone()[0]
    statements = SCHEMA if found == 0 else ()
    while found in UPGRADES:
        statements, found = (*statements, *UPGRADES[found]), found + 1
    for statement in statements:
        db.execute(statement)
    return bool(found == 0)


def _use_wal(db: sqlite3.Connection) -> None:
    """Switch to WAL. The switch ignores SQLite's own busy timeout, so it is tried again here."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return

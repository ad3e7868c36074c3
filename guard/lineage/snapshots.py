"""Copies of a lineage: one SQLite file, made while Guard runs, and put back only where nothing is.

A copy has everything that the store has but the keys. It is whole or it is not there: it is written
under another name and linked to its own, which fails where a file stands already.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from guard.core.errors import printable
from guard.lineage.database import StoreError, connect


def copy(store: Path, target: Path) -> None:
    """Copy a store's file as it stands at one moment, whoever writes to it meanwhile.

    Raises:
        StoreError: there is no store, something stands at the target, or the disk is full.
    """
    with closing(connect(store, read_only=True)) as db:
        write_new(target, db.backup)


def write_new(target: Path, fill: Callable[[sqlite3.Connection], object]) -> None:
    """Make a SQLite file that nobody else can read, durably and whole.

    Args:
        target: where it is to stand.
        fill: fills it, through a connection to a file that nobody knows of yet.

    Raises:
        StoreError: something stands there, or it cannot be written.
    """
    refuse_present(target)
    own = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        os.close(os.open(own, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(own, isolation_level=None)) as db:
            fill(db)
            db.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        _sync(own)
        os.link(own, target)
        _sync(target.parent)
    except FileExistsError:
        refuse_present(target)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"cannot be written: {printable(str(error))}", where=str(target)) from None
    finally:
        for left in (own, own.with_name(f"{own.name}-journal"), own.with_name(f"{own.name}-wal")):
            with contextlib.suppress(OSError):
                left.unlink()


def refuse_present(target: Path) -> None:
    """Raises StoreError where a store's file, or the log beside one, stands already."""
    for stands in (target, target.with_name(f"{target.name}-wal")):
        if os.path.lexists(stands):
            raise StoreError(
                "there is something already, and nothing is overwritten",
                where=str(stands),
                remedy="give another name, or move it away first",
            )


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

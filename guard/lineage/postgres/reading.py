"""The reading side's connection: short answers or none.

It is asked on the event loop. So one question may wait for so long, and after a failure the next ones are
refused unasked for a while.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any, Final

import psycopg

from guard.core.errors import GuardError
from guard.lineage.postgres.connection import Address, Bounded, again, reason
from guard.lineage.store import Away

PATIENCE: Final = 1.0
"""Seconds that an answer may take."""
OPEN_SECONDS: Final = 1.0
"""How long nothing is asked after a failure."""


class Reader:
    """One connection that reads, opened again where it was lost. For any thread.

    Args:
        address: where.
        check: looks at a new connection before it is used. Raises StoreError.
        name: what the server's list of sessions shows.
        patience: seconds that an answer may take.
    """

    def __init__(
        self,
        address: Address,
        check: Callable[[Bounded], None],
        *,
        name: str = "guard reader",
        patience: float = PATIENCE,
    ) -> None:
        self._address = address
        self._check = check
        self._name = name
        self._patience = patience
        self._lock = RLock()
        self._db: Bounded | None = None
        self._known = False
        self._not_before = 0.0

    @contextmanager
    def asked(self) -> Iterator[Bounded]:
        """The connection, for questions that belong together.

        Raises:
            Away: it cannot be had, or did not answer.
        """
        with self._lock:
            if time.monotonic() < self._not_before:
                raise Away("the database did not answer a moment ago")
            try:
                yield self._connection()
            except psycopg.Error as error:
                self._lose()
                self._not_before = time.monotonic() + OPEN_SECONDS
                raise Away(reason(error)) from error

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Every row of an answer. Raises Away."""
        with self._lock:
            again = self._db is not None  # it may have been lost long ago, and the database be there
            try:
                with self.asked() as db:
                    return db.execute(sql.encode(), values).fetchall()
            except Away as away:
                if not again or not _was_lost(away):
                    raise
                self._not_before = 0.0
                with self.asked() as db:
                    return db.execute(sql.encode(), values).fetchall()

    def row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of an answer. Raises Away."""
        return next(iter(self.rows(sql, *values)), None)

    def close(self) -> None:
        """Let go."""
        with self._lock:
            self._lose()

    def _connection(self) -> Bounded:
        if self._db is None or self._db.closed or self._db.broken:
            self._lose()
            db = again(self._address, patience=self._patience, name=self._name, known=self._known)
            try:
                self._check(db)
            except BaseException:
                db.close()
                raise
            self._db, self._known = db, True
        return self._db

    def _lose(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(psycopg.Error, GuardError):
                db.close()


def _was_lost(away: Away) -> bool:
    """Whether the session had ended, which is found out at once; no answer in time is something else."""
    cause = away.__cause__
    return isinstance(cause, psycopg.OperationalError) and "no answer" not in str(cause)

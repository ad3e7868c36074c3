"""The writing side of the shared store: one connection, which is also the process's lease.

A commit that was under way when the connection was lost is not lost, and not made twice: each has an id,
which the transaction leaves in the writer's own row. Whoever connects again waits for that row, and reads
from it whether the commit happened. The lease is a lock of the same session: a session that is gone
neither commits nor owes anything, and whoever can take its lock closes what it left open.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors

from guard.lineage.postgres import needs
from guard.lineage.postgres.batch import Batch, Clock, unfit
from guard.lineage.postgres.connection import Address, Bounded, again, reason
from guard.lineage.store import Away, Conflict, Outcome, Transaction

PATIENCE: Final = 5.0
"""Seconds that an answer may take; waiting for other writers is part of it."""
IDLE_SECONDS: Final = 3.0
"""The server ends a transaction that says nothing for so long: nobody waits longer for a frozen replica."""
PAUSE: Final = 0.05
LOOKS: Final = 3
TRIES: Final = 8
"""How often a commit that others were in the way of is made again."""
MAX_SAID: Final = 4096
_WRITER_BYTES: Final = 16
_FORGET_MS: Final = 30 * 24 * 60 * 60 * 1000
"""Rows of writers and instances that are so old are deleted; who still lives makes a new one."""
# Others were in the way, and nothing happened (PostgreSQL, appendix A).
_AGAIN: Final = (
    errors.UniqueViolation,
    errors.DeadlockDetected,
    errors.SerializationFailure,
)


def databases_clock(shared: int, _: int) -> int:
    """The one that all replicas share: none of them is believed."""
    return shared


class Writer:
    """Commits batches. One thread at a time.

    Args:
        address: where.
        check: looks at a new connection before it is used. Raises StoreError.
        clock: when it is.

    Attributes:
        last: UNIX milliseconds of the newest entry that this process knows of.
        instance: under which name this process owes endings, "" where it holds no lease.
        patience: seconds that a commit may look for a lost database.
    """

    def __init__(
        self, address: Address, check: Callable[[Bounded], None], clock: Clock = databases_clock
    ) -> None:
        self.last = 0
        self.instance = ""
        self.patience = 10.0
        self._address = address
        self._check = check
        self._clock = clock
        self._name = os.urandom(_WRITER_BYTES).hex()
        self._own: set[str] = set()
        self._said: dict[str, int] = {}
        self._db: Bounded | None = None
        self._pid = 0
        self._rolled_back = 0

    # -- commits -------------------------------------------------------------------------------

    def apply(self, batch: Sequence[Transaction]) -> tuple[list[Outcome], set[str]]:
        """Commit a batch durably.

        Returns: the outcomes; and the tenants of which something moved.

        Raises:
            Away: the database cannot be reached, or did not answer; what happened shows later.
        """
        fit = [one for one in batch if not unfit(one)]
        judged, moved = self._apply(fit) if fit else ([], set())
        taken = iter(judged)
        return [Conflict(why) if (why := unfit(one)) else next(taken) for one in batch], moved

    def _apply(self, batch: Sequence[Transaction]) -> tuple[list[Outcome], set[str]]:
        id_, end, tries = os.urandom(16), time.monotonic() + self.patience, 0
        alone: frozenset[str] = frozenset()
        done: tuple[list[Outcome], Batch] | None = None
        while True:
            try:
                db = self.connection()
                if done is not None and self._stands(db, id_):
                    return self._settled(done)
                done = None
                found = needs.read(db, self._name, id_, batch, last=self.last, alone=alone)
                taken = Batch(
                    db,
                    found,
                    self.last,
                    instance_of=self._instance_of,
                    said=self._said,
                    clock=self._clock,
                )
                outcomes = [taken.take(transaction) for transaction in batch]
                done = (outcomes, taken)
                self._finish(db, taken)
                return self._settled(done)
            except needs.MustBeAlone as error:
                self._roll_back()
                alone |= {error.tenant}
            except _AGAIN as error:
                self._roll_back()
                done, tries = None, tries + 1
                if tries == TRIES:
                    raise Away(reason(error)) from error
            except psycopg.Error as error:
                self._lose()
                if not _is_lost(error) or time.monotonic() >= end:
                    raise Away(reason(error)) from error
                time.sleep(PAUSE)
            except BaseException:
                self._roll_back()
                raise

    def _finish(self, db: Bounded, taken: Batch) -> None:
        """Write and commit, or, where nothing was taken, end the transaction."""
        with db.pipeline():
            if taken.waits:
                taken.write()
            ended = db.execute("COMMIT")
        if ended.statusmessage != "COMMIT":
            raise errors.OperationalError("the commit was not made")

    def _settled(self, done: tuple[list[Outcome], Batch]) -> tuple[list[Outcome], set[str]]:
        outcomes, taken = done
        self.last = max(self.last, taken.last)
        if len(self._said) + len(taken.used) > MAX_SAID:
            self._said.clear()
        self._said |= taken.used
        return outcomes, taken.moved

    def _stands(self, db: Bounded, id_: bytes) -> bool:
        """Whether the commit with this id was made. Waits for a session that may still be making it.

        FOR UPDATE makes this a commit of its own, which waits as any other does for a synchronous standby.
        A session that is ended while it waits for a standby has committed here and perhaps nowhere else: a
        plain SELECT would see it, and say that it is durable.
        """
        sql = "SELECT batch FROM writers WHERE writer = %s FOR UPDATE"
        row = db.execute(sql, (self._name,)).fetchone()
        return row is not None and bytes(row[0]) == id_

    def _roll_back(self) -> None:
        try:
            if self._db is not None and not self._db.closed:
                # In a pipeline that broke psycopg believes prepared what is not. A rollback makes it forget,
                # but only one whose text is new to it.
                self._rolled_back += 1
                self._db.execute(f"ROLLBACK /* {self._rolled_back} */".encode())
        except psycopg.Error:
            self._lose()

    # -- the connection ------------------------------------------------------------------------

    def connection(self) -> Bounded:
        """The connection, made anew where it was lost. Raises psycopg.Error, StoreError."""
        if self._db is not None and not self._db.closed and not self._db.broken:
            return self._db
        self._lose()
        name = f"guard {self.instance or self._name}"
        db = again(self._address, patience=PATIENCE, name=name, known=self._pid != 0)
        try:
            self._check(db)
            self._begin(db)
        except BaseException:
            db.close()
            raise
        self._db, self._pid = db, db.info.backend_pid
        return db

    def _begin(self, db: Bounded) -> None:
        db.execute(f"SET idle_in_transaction_session_timeout = {int(IDLE_SECONDS * 1000)}".encode())
        if self._pid:  # what is left of the session before: it may not know yet that it is alone
            db.execute(
                "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
                " WHERE pid = %s AND usename = current_user AND application_name = ANY(%s::text[])",
                (self._pid, [f"guard {name}" for name in (self._name, *self._own)]),
            )
        now = time.time_ns() // 1_000_000
        db.execute(
            "INSERT INTO writers VALUES (%s, '', %s) ON CONFLICT (writer) DO NOTHING", (self._name, now)
        )
        if not self._own:
            return
        for _ in range(LOOKS):  # whoever only looks whether this process lives lets go at once
            if self.instance and self._take(db, self.instance):
                if self._is_listed(db, self.instance):
                    return
                break
            time.sleep(PAUSE)
        self._renew(db)

    def _lose(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(psycopg.Error):
                db.close()

    def close(self) -> None:
        """Let go."""
        with contextlib.suppress(psycopg.Error):
            if self._db is not None and not self._db.closed:
                self._db.execute("DELETE FROM writers WHERE writer = %s", (self._name,))
        self._lose()

    # -- the lease -----------------------------------------------------------------------------

    def lease(self) -> str:
        """Begin to owe endings, under a new name. Raises Away."""
        with _reached():
            db = self.connection()
            self._renew(db)
            past = time.time_ns() // 1_000_000 - _FORGET_MS
            db.execute("DELETE FROM writers WHERE since < %s", (past,))
            db.execute(
                "DELETE FROM instances i WHERE since < %s"
                " AND NOT EXISTS (SELECT FROM open_grants g WHERE g.instance = i.instance)",
                (past,),
            )
        return self.instance

    def release(self) -> None:
        """Owe nothing any more."""
        with contextlib.suppress(psycopg.Error):
            if self._db is not None and not self._db.closed and self.instance:
                self._db.execute("DELETE FROM instances WHERE instance = %s", (self.instance,))
                self._let_go(self._db, self.instance)
        self.instance = ""
        self._own.clear()

    def hold(self) -> None:
        """See that the lease is held: a session that was lost is made anew. Raises Away."""
        with _reached():
            try:
                self.connection().execute("SELECT 1")
            except psycopg.Error:
                self._lose()
                self.connection()

    def lives(self, instance: str) -> bool:
        """Whether somebody holds this lease now. Raises Away."""
        if instance == self.instance:
            return True
        with _reached():
            db = self.connection()
            if not self._take(db, instance):
                return True
            self._let_go(db, instance)
        return False

    def was_mine(self, instance: str) -> bool:
        """Whether this process had the name, or has it."""
        return instance in self._own

    @contextmanager
    def takeover(self, instance: str) -> Iterator[bool]:
        """Try to take a dead instance's lock: True while held, False where it lives. Raises Away."""
        if instance == self.instance:
            yield False
            return
        with _reached():
            db = self.connection()
            dead = self._take(db, instance)
        if not dead:
            yield False
            return
        yield True
        with contextlib.suppress(psycopg.Error):  # a lost session has let go
            db.execute("DELETE FROM instances WHERE instance = %s", (instance,))
            self._let_go(db, instance)

    def _instance_of(self, instance: str) -> str:
        """What this process is called now, if the name is one that it had."""
        return self.instance if instance in self._own and self.instance else instance

    def _renew(self, db: Bounded) -> None:
        """Take a new name. What stands under an old one is for whoever takes that over."""
        if self.instance:
            self._let_go(db, self.instance)
        fresh = os.urandom(16).hex()
        if not self._take(db, fresh):
            raise errors.OperationalError("a new lock was taken already")
        now = time.time_ns() // 1_000_000
        db.execute("INSERT INTO instances VALUES (%s, %s)", (fresh, now))
        db.execute("SELECT set_config('application_name', %s, false)", (f"guard {fresh}",))
        self.instance = fresh
        self._own.add(fresh)

    @staticmethod
    def _take(db: Bounded, instance: str) -> bool:
        row = db.execute("SELECT pg_try_advisory_lock(%s)", (needs.lock_key("lease", instance),)).fetchone()
        return bool(row and row[0])

    @staticmethod
    def _let_go(db: Bounded, instance: str) -> None:
        db.execute("SELECT pg_advisory_unlock(%s)", (needs.lock_key("lease", instance),))

    @staticmethod
    def _is_listed(db: Bounded, instance: str) -> bool:
        row = db.execute("SELECT 1 FROM instances WHERE instance = %s", (instance,)).fetchone()
        return row is not None


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise Away(reason(error)) from error


def _is_lost(error: psycopg.Error) -> bool:
    """Whether the connection was lost, or the server is about to go: another try may do."""
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)

"""Stores to test with: one key, one origin, short names for the transactions that a Guard makes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from guard.core.keys import SigningKey
from guard.core.model import Conversation, Principal
from guard.lineage.audit import Report, audit
from guard.lineage.checkpoint import VerifierKey
from guard.lineage.entry import Kind
from guard.lineage.log import entry
from guard.lineage.postgres.connection import Address
from guard.lineage.postgres.source import PostgresSource
from guard.lineage.postgres.store import PostgresStore
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import (
    CloseGrant,
    Effect,
    OpenGrant,
    Outcome,
    Place,
    Recorded,
    Store,
    Transaction,
)

KEY: Final = SigningKey.load(bytes(range(32)))
OTHER_KEY: Final = SigningKey.load(bytes(range(1, 33)))
ORIGIN: Final = "guard.example/lineage"
VKEY: Final = VerifierKey.of(ORIGIN, KEY.public)
INSTANCE: Final = "0" * 32
NOW: Final = 1_700_000_000_000
TENANT: Final = "default"
HOUSE: Final = Place(TENANT)


def today() -> int:
    """Milliseconds: a shared store refuses a grant whose clock is astray, and `NOW` is long ago."""
    return time.time_ns() // 1_000_000


def as_it_is_told(_: int, told: int) -> int:
    """For times that are long past: the database's clock agrees with the transaction's."""
    return told


def open_store(path: Path | Address, *, key: SigningKey = KEY, origin: str = ORIGIN) -> Any:
    """The embedded store of a file, or the shared one of a database."""
    if isinstance(path, Address):
        return PostgresStore(path, key=key, origin=origin, clock=as_it_is_told)
    return SqliteStore(path, key=key, origin=origin)


def person(subject: str = "alice", *, tenant: str = TENANT) -> Principal:
    return Principal(tenant, "launch", subject, "caller")


def place(conversation: str = "talk", subject: str = "alice", *, tenant: str = TENANT) -> Place:
    return Place(tenant, person(subject, tenant=tenant), Conversation(conversation, "meta"))


def transaction(
    kind: Kind,
    call: str = "",
    *effects: Effect,
    where: Place | None = None,
    now: int = NOW,
    expects: dict[str, int] | None = None,
    **fields: Any,
) -> Transaction:
    fields = fields or {"note": f"{kind} {call}"}
    return Transaction(where or place(), entry(kind, call, fields), now, expects or {}, effects)


def granted(call: str, *, instance: str = INSTANCE, **given: Any) -> Transaction:
    return transaction(Kind.GRANTED, call, OpenGrant(call, instance), **given)


def ended(call: str, kind: Kind = Kind.RETURNED, **given: Any) -> Transaction:
    return transaction(kind, call, CloseGrant(call), **given)


def house(kind: Kind, *effects: Effect, tenant: str = TENANT, now: int = NOW) -> Transaction:
    return transaction(kind, "", *effects, where=Place(tenant), now=now)


def recorded(store: Store, *batch: Transaction) -> list[Recorded]:
    """Commit a batch of which all must be recorded."""
    outcomes = store.apply(batch)
    return [outcome for outcome in outcomes if _is_recorded(outcome)]


def _is_recorded(outcome: Outcome) -> bool:
    assert isinstance(outcome, Recorded), outcome
    return True


def checked(path: Path | Address) -> Report:
    if isinstance(path, Address):
        placed(path)
        return audit(PostgresSource(path), [VKEY])
    return audit(path, [VKEY])


def placed(address: Address) -> None:
    """Everything that waits gets its place in the log."""
    with closing(open_store(address)) as store:
        assert store.settle(20)


def dump(path: Path | Address) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table; of a shared store without what each writer did last."""
    if isinstance(path, Address):
        with closing(path.connect(patience=20)) as db:
            rows = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'guard'").fetchall()
            names = [name for (name,) in rows if name != "writers"]
            return {name: sorted(db.execute(_every(name)).fetchall(), key=repr) for name in names}
    with closing(sqlite3.connect(path)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in tables}  # noqa: S608


def _every(table: str) -> bytes:
    return f"SELECT * FROM guard.{table}".encode()  # noqa: S608 - the server's own names


def copied(source: Path, target: Path) -> Path:
    """A copy by SQLite's own means, whatever is still in the write-ahead log."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
    return target


def changed(path: Path, *statements: str | tuple[str, Sequence[Any]]) -> int:
    """Change a store's file behind Guard's back; how many rows were."""
    with closing(sqlite3.connect(path)) as db, db:
        count = 0
        for statement in statements:
            sql, values = (statement, ()) if isinstance(statement, str) else statement
            count += db.execute(sql, values).rowcount
        return count


def leaves(path: Path | Address) -> list[bytes]:
    if isinstance(path, Address):
        placed(path)
        with closing(open_store(path)) as store:
            return [row.leaf for row in store.entries()]
    with closing(sqlite3.connect(path)) as db:
        return [row[0] for row in db.execute("SELECT leaf FROM entries ORDER BY idx")]

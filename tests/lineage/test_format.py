"""A file of an older format: read as it is, upgraded by whoever writes to it, and nothing is lost."""

from __future__ import annotations

import multiprocessing
import sqlite3
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from guard.lineage import database, schema
from guard.lineage.database import StoreError, connect
from guard.lineage.entry import Kind
from guard.lineage.store import OpenGrant, Recorded, Reserve
from tests.lineage.lineages import (
    INSTANCE,
    NOW,
    TENANT,
    changed,
    checked,
    dump,
    ended,
    open_store,
    recorded,
    transaction,
)

DUMP = Path(__file__).parent / "format1.sql"
ADDED = {"reservations"}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file as the Guard that wrote format 1 left it."""
    path = tmp_path / "guard.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA journal_mode=WAL;\n" + DUMP.read_text(encoding="utf-8"))
    return path


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def layout(path: Path) -> set[tuple[str, ...]]:
    """Every table, column and index."""
    with closing(sqlite3.connect(path)) as db:
        names = db.execute("SELECT type, name, tbl_name FROM sqlite_master").fetchall()
        tables = [name for kind, name, _ in names if kind == "table"]
        columns = [
            (table, *map(str, row[1:]))
            for table in tables
            for row in db.execute(f"PRAGMA table_info({table})")
        ]
        return {*names, *columns}


def as_it_was(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the tables that format 1 has, in its columns; the conversations without `sealed`."""
    found = {name: rows for name, rows in dump(path).items() if name not in ADDED}
    found["conversations"] = [row[:9] for row in found["conversations"]]
    return found


def test_an_old_file_is_verified_as_it_is(old: Path) -> None:
    """Reading changes nothing: neither the format nor a row."""
    before = dump(old)
    report = checked(old)
    assert (report.findings, report.entries, report.open) == ([], 6, ["two"])
    assert version(old) == 1
    assert dump(old) == before


def test_an_old_file_is_upgraded_when_it_is_written_to(old: Path) -> None:
    """Every row stays as it was, the checkpoint too; and the file then is as a new one."""
    before = as_it_was(old)
    store = open_store(old)
    assert version(old) == schema.SCHEMA_VERSION
    assert as_it_was(old) == before
    assert store.used(TENANT, [("few/counter", 0)]) == [0]
    assert [key.key_id for key in store.api_keys()] == ["k1"]
    store.close()
    open_store(old.with_name("new.db")).close()
    assert layout(old) == layout(old.with_name("new.db"))
    assert checked(old).sound


def test_an_upgraded_file_goes_on_where_it_was(old: Path) -> None:
    """Chains, tree and open grants continue, and grants take from counters."""
    with closing(open_store(old)) as store:
        took = Reserve("few/counter", "three", 1, 1, 1000)
        batch = (
            ended("two", now=NOW + 2000),
            transaction(Kind.GRANTED, "three", OpenGrant("three", INSTANCE), took, now=NOW + 2000),
        )
        found = recorded(store, *batch)
        assert [outcome.index for outcome in found] == [6, 7]
        assert store.used(TENANT, [("few/counter", NOW)]) == [1]
    report = checked(old)
    assert (report.findings, report.entries, report.open) == ([], 8, ["three"])


def test_an_upgrade_that_breaks_leaves_the_old_file(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it in one transaction, or nothing of it."""
    before = dump(old)
    broken = (*schema.UPGRADES[1][:-1], "CREATE TABLE entries (broken)", schema.UPGRADES[1][-1])
    monkeypatch.setattr(database, "UPGRADES", {1: broken})
    with pytest.raises(sqlite3.OperationalError):
        open_store(old)
    assert version(old) == 1
    assert dump(old) == before
    monkeypatch.undo()
    open_store(old).close()
    assert checked(old).sound


def test_an_old_file_of_another_key_is_not_upgraded(old: Path) -> None:
    """Who may not sign it does not change it."""
    changed(old, "UPDATE heads SET origin = 'another'")
    before = dump(old)
    with pytest.raises(StoreError):
        open_store(old)
    assert version(old) == 1
    assert dump(old) == before


def test_a_format_from_the_future_is_refused_by_all(old: Path) -> None:
    """It says which format is there and who can use it."""
    changed(old, f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    for read_only in (True, False):
        with pytest.raises(StoreError, match=f"format {schema.SCHEMA_VERSION + 1}") as raised:
            connect(old, read_only=read_only)
        assert raised.value.remedy


def _open(path: Path, barrier: Barrier, results: Any) -> None:
    barrier.wait()
    with closing(open_store(path)) as store:
        (outcome,) = store.apply([transaction(Kind.DENIED, "denied", now=NOW + 5000)])
        results.put(isinstance(outcome, Recorded))


def test_processes_that_upgrade_at_once_upgrade_once(old: Path) -> None:
    """Whoever comes second finds it done."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_open, args=(old, barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [True] * 3
    for worker in workers:
        worker.join()
    report = checked(old)
    assert (report.findings, report.entries) == ([], 9)

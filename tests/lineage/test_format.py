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

FOLDER = Path(__file__).parent
ENTRIES = {1: 6, 2: 9}
"""How many each has; in all the grant `two` is open."""
TAKEN = {1: 0, 2: 2}
ADDED = {1: {"reservations", "memories", "seen", "questions"}, 2: {"memories", "seen", "questions"}}
COLUMNS = {1: {"conversations": 9}, 2: {"reservations": 6}}
"""How many a table had, where it has more now."""


@pytest.fixture(params=sorted(ENTRIES))
def format_(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def old(tmp_path: Path, format_: int) -> Path:
    """A file as the Guard that wrote this format left it."""
    path = tmp_path / "guard.db"
    dump = (FOLDER / f"format{format_}.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA journal_mode=WAL;\n" + dump)
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


def as_it_was(path: Path, format_: int) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the tables that the format has, in its columns."""
    found = {name: rows for name, rows in dump(path).items() if name not in ADDED[format_]}
    for name, count in COLUMNS[format_].items():
        found[name] = [row[:count] for row in found[name]]
    return found


def test_an_old_file_is_verified_as_it_is(old: Path, format_: int) -> None:
    """Reading changes nothing: neither the format nor a row."""
    before = dump(old)
    report = checked(old)
    assert (report.findings, report.entries, report.open) == ([], ENTRIES[format_], ["two"])
    assert version(old) == format_
    assert dump(old) == before


def test_an_old_file_is_upgraded_when_it_is_written_to(old: Path, format_: int) -> None:
    """Every row stays as it was, the checkpoint too; and the file then is as a new one."""
    before = as_it_was(old, format_)
    store = open_store(old)
    assert version(old) == schema.SCHEMA_VERSION
    assert as_it_was(old, format_) == before
    assert store.used(TENANT, [("few/counter", 0)]) == [TAKEN[format_]]
    assert [key.key_id for key in store.api_keys()] == ["k1"]
    store.close()
    open_store(old.with_name("new.db")).close()
    assert layout(old) == layout(old.with_name("new.db"))
    assert checked(old).sound


def test_an_upgraded_file_goes_on_where_it_was(old: Path, format_: int) -> None:
    """Chains, tree and open grants continue, and grants take from counters."""
    with closing(open_store(old)) as store:
        took = Reserve("new/counter", "three", 1, 1, 1000, held=True)
        batch = (
            ended("two", now=NOW + 2000),
            transaction(Kind.GRANTED, "three", OpenGrant("three", INSTANCE), took, now=NOW + 2000),
        )
        found = recorded(store, *batch)
        assert [outcome.index for outcome in found] == [ENTRIES[format_], ENTRIES[format_] + 1]
        assert store.used(TENANT, [("new/counter", NOW)]) == [1]
    report = checked(old)
    assert (report.findings, report.entries, report.open) == ([], ENTRIES[format_] + 2, ["three"])


def test_an_upgrade_that_breaks_leaves_the_old_file(
    old: Path, format_: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it in one transaction, or nothing of it."""
    before = dump(old)
    steps = schema.UPGRADES[2]
    broken = {**schema.UPGRADES, 2: (*steps[:-1], "CREATE TABLE entries (broken)", steps[-1])}
    monkeypatch.setattr(database, "UPGRADES", broken)
    with pytest.raises(sqlite3.OperationalError):
        open_store(old)
    assert version(old) == format_
    assert dump(old) == before
    monkeypatch.undo()
    open_store(old).close()
    assert checked(old).sound


def test_an_old_file_of_another_key_is_not_upgraded(old: Path, format_: int) -> None:
    """Who may not sign it does not change it."""
    changed(old, "UPDATE heads SET origin = 'another'")
    before = dump(old)
    with pytest.raises(StoreError):
        open_store(old)
    assert version(old) == format_
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


def test_processes_that_upgrade_at_once_upgrade_once(old: Path, format_: int) -> None:
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
    assert (report.findings, report.entries) == ([], ENTRIES[format_] + 3)

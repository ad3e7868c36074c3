"""The shared store as a file and back: a moment of the log, sound in both, over nothing that stands."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from guard.core.model import UNBOUNDED
from guard.lineage.audit import audit
from guard.lineage.checkpoint import Checkpoint, open_checkpoint
from guard.lineage.database import StoreError
from guard.lineage.entry import Kind
from guard.lineage.postgres import schema, snapshot
from guard.lineage.postgres.connection import Address
from guard.lineage.postgres.source import PostgresSource
from guard.lineage.postgres.store import PostgresStore
from guard.lineage.snapshots import copy
from guard.lineage.sources import SqliteSource
from guard.lineage.store import (
    AnswerQuestion,
    CloseGrant,
    Contain,
    Glimpse,
    Remember,
    Reserve,
    SavePins,
    SavePolicy,
    SaveQuestion,
    SaveSetting,
    Seal,
    Store,
    Transaction,
)
from tests.lineage.lineages import (
    NOW,
    VKEY,
    checked,
    ended,
    granted,
    house,
    leaves,
    open_store,
    place,
    recorded,
    transaction,
)
from tests.lineage.test_sequencer import candidate, running, until
from tests.postgres import Databases

TABLES = (
    "entries",
    "payloads",
    "nodes",
    "heads",
    "conversations",
    "versions",
    "open_grants",
    "contained",
    "policies",
    "pins",
    "api_keys",
    "settings",
    "reservations",
    "memories",
    "seen",
    "questions",
)
SEEN = b"f" * 16
PENDING = "pending/m"
QUESTION = SaveQuestion("q", "launch", "alice", "digest", ("r1", "r2"), "reviewer", NOW + 60_000, b'{"a":1}')
ANSWER = AnswerQuestion("q", yes=True, issuer="api-key", subject="rita", word="reviewer")


@pytest.fixture
def address(database: str) -> Address:
    made = Address(database)
    schema.upgrade(made)
    return made


@pytest.fixture
def store(address: Address) -> Iterator[PostgresStore]:
    with closing(open_store(address)) as made:
        yield made


def moved(address: Address) -> None:
    """Everything that waits has its place."""
    with closing(address.connect(patience=30)) as db, running(candidate(address)):
        until(lambda: db.execute("SELECT count(*) FROM guard.inbox").fetchone() == (0,))


def taken(store: PostgresStore, *batch: Transaction) -> None:
    assert [type(outcome).__name__ for outcome in store.apply(batch)] == ["Recorded"] * len(batch)


def fill(store: PostgresStore) -> None:
    """Something in every table."""
    taken(store, house(Kind.POLICY, SavePolicy("p", 1, "one")))
    taken(store, house(Kind.PIN, SavePins("server", (("echo", "sha", b'{"name":"echo"}'),))))
    taken(store, house(Kind.KEY_SET, SaveSetting("k", "v")), house(Kind.CONTAINED, Contain("all", "")))
    for n in range(10):
        where = place(f"talk-{n % 3}")
        taken(store, granted(f"call-{n}", where=where))
        if n != 9:
            taken(store, ended(f"call-{n}", where=where))
    closed = next(row for row in store.conversations() if row.given == "talk-1")
    total = closed.entries + 1
    taken(store, transaction(Kind.SEALED, "", Seal(closed.id, total), where=place("talk-1"), total=total))
    held = Reserve(PENDING, "call-9", 1, UNBOUNDED, 60_000, held=True)
    glimpses = (Glimpse(SEEN, "tool:s/t", "mixed", "/a"), Glimpse(SEEN, "user", "trusted"))
    kept = Remember("m", glimpses, 60_000, 9)
    taken(store, house(Kind.DENIED, held, Reserve("c", "call-9", 3, 9, 60_000), kept))
    taken(store, house(Kind.ASKED, QUESTION), house(Kind.ANSWERED, ANSWER))


def same(one: Store, other: Store) -> None:
    """What decisions read is the same in both."""
    assert one.versions("default") == other.versions("default")
    assert one.contained("default") == other.contained("default")
    assert one.open_grants() == other.open_grants()
    recalled = one.recall("default", "m", PENDING, [SEEN])
    assert recalled == other.recall("default", "m", PENDING, [SEEN])
    assert (len(recalled.glimpses), recalled.version, recalled.whole) == (2, 1, True)
    asked = [("c", 0), (PENDING, 0)]
    assert one.used("default", asked) == other.used("default", asked) == [3, 1]
    assert one.questions("default", NOW) == other.questions("default", NOW)
    assert [row.state for row in one.questions("default", NOW)] == ["granted"]


def test_a_snapshot_of_the_shared_store_is_a_store(
    store: PostgresStore, address: Address, tmp_path: Path
) -> None:
    """Sound, with what every table had; the embedded store opens it and goes on."""
    fill(store)
    moved(address)
    snapshot.export(address, tmp_path / "copy.db")
    one, other = audit(PostgresSource(address), [VKEY]), checked(tmp_path / "copy.db")
    assert other.findings == []
    assert other == one
    assert (one.sealed, one.open) == (1, ["call-9"])
    with closing(open_store(tmp_path / "copy.db")) as embedded:
        same(embedded, store)
        assert embedded.pins("default", "server") == store.pins("default", "server")
        assert embedded.policy("default", "p") == (1, "one")
        assert embedded.setting("default", "k") == "v"
        told = replace(ended("call-9", where=place("talk-0")), effects=(CloseGrant("call-9", told=True),))
        recorded(embedded, told, granted("new"))
        assert embedded.used("default", [("c", 0), (PENDING, 0)]) == [3, 0]
    assert checked(tmp_path / "copy.db").findings == []


def test_what_waits_is_not_in_a_snapshot_and_no_fault_of_it(
    store: PostgresStore, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grants, endings and a seal without a place yet: the file is the log's moment, and sound."""
    monkeypatch.setattr(snapshot, "EMPTY_SECONDS", 0.1)
    fill(store)
    taken(store, granted("open", where=place("talk-2")))
    moved(address)
    size = audit(PostgresSource(address), [VKEY]).entries
    taken(store, ended("open", where=place("talk-2")), granted("both"), ended("both"), granted("waits"))
    closed = next(row for row in store.conversations() if row.given == "talk-2")
    total = closed.entries + 1
    taken(store, transaction(Kind.SEALED, "", Seal(closed.id, total), where=place("talk-2"), total=total))
    snapshot.export(address, tmp_path / "copy.db")
    report = checked(tmp_path / "copy.db")
    assert (report.findings, report.entries) == ([], size)
    assert set(report.open) == {"call-9", "open"}
    with closing(open_store(tmp_path / "copy.db")) as embedded:
        assert {(call, instance) for call, instance, _ in embedded.open_grants()} >= {("open", "0" * 32)}
        assert [row.sealed for row in embedded.conversations() if row.given == "talk-2"] == [0]


def test_a_snapshot_while_replicas_write_is_one_moment(
    store: PostgresStore, address: Address, tmp_path: Path
) -> None:
    """Each is sound, and each begins with the one before."""
    end = threading.Event()

    def write() -> None:
        n = 0
        while not end.is_set():
            taken(store, granted(f"x{n}"), ended(f"x{n}"))
            n += 1

    writer = threading.Thread(target=write)
    kept: list[Checkpoint] = []
    with running(candidate(address)):
        writer.start()
        try:
            for n in range(4):
                target = tmp_path / f"copy-{n}.db"
                snapshot.export(address, target)
                report = audit(target, [VKEY], kept=kept)
                assert report.findings == []
                with SqliteSource(target).opened() as rows:
                    kept.append(open_checkpoint(rows.checkpoint(), [VKEY]))
        finally:
            end.set()
            writer.join()
    sizes = [checkpoint.size for checkpoint in kept]
    assert sizes == sorted(sizes)


def test_a_snapshot_comes_back_into_an_empty_database(
    store: PostgresStore, address: Address, tmp_path: Path, postgres: Databases
) -> None:
    """Every row, and replicas go on with it: the same log, grown from where the file ends."""
    fill(store)
    moved(address)
    snapshot.export(address, tmp_path / "copy.db")
    with postgres.fresh() as url:
        fresh = Address(url)
        schema.upgrade(fresh)
        snapshot.restore(tmp_path / "copy.db", fresh)
        assert audit(PostgresSource(fresh), [VKEY]) == audit(PostgresSource(address), [VKEY])
        with closing(open_store(fresh)) as back:
            same(back, store)
            assert back.conversations() == store.conversations()
            taken(back, ended("call-9", where=place("talk-0")), granted("new", now=NOW + 1))
            moved(fresh)
        report = audit(PostgresSource(fresh), [VKEY])
        assert (report.findings, report.open) == ([], ["new"])
        snapshot.export(fresh, tmp_path / "again.db")
    old = leaves(tmp_path / "copy.db")
    assert leaves(tmp_path / "again.db")[: len(old)] == old


def test_a_file_of_the_embedded_store_moves_into_a_database(tmp_path: Path, address: Address) -> None:
    """How one machine becomes many: what it recorded stays the beginning of the log."""
    with closing(open_store(tmp_path / "guard.db")) as embedded:
        recorded(embedded, granted("a"), ended("a"), granted("b"))
    snapshot.restore(tmp_path / "guard.db", address)
    with closing(open_store(address)) as store:
        taken(store, ended("b"))
        moved(address)
    report = audit(PostgresSource(address), [VKEY])
    assert (report.findings, report.entries, report.open) == ([], 4, [])


@pytest.mark.parametrize("format_", [1, 2])
def test_a_file_of_an_older_format_moves_too(tmp_path: Path, address: Address, format_: int) -> None:
    """A snapshot of years ago comes back: what its format lacks is as if it never was."""
    with closing(sqlite3.connect(tmp_path / "guard.db")) as db:
        db.executescript((Path(__file__).parent / f"format{format_}.sql").read_text(encoding="utf-8"))
    before = checked(tmp_path / "guard.db")
    copy(tmp_path / "guard.db", tmp_path / "copy.db")
    assert checked(tmp_path / "copy.db") == before
    snapshot.restore(tmp_path / "copy.db", address)
    report = audit(PostgresSource(address), [VKEY])
    assert report == before
    assert (report.findings, report.entries > 0) == ([], True)


def test_nothing_is_overwritten(store: PostgresStore, address: Address, tmp_path: Path) -> None:
    """Not a database with a lineage, waiting or in its place; not a file."""
    with closing(open_store(tmp_path / "guard.db")) as embedded:
        recorded(embedded, granted("a"))
    taken(store, granted("b"))
    for _ in range(2):
        with pytest.raises(StoreError, match="nothing is overwritten"):
            snapshot.restore(tmp_path / "guard.db", address)
        moved(address)
    before = (tmp_path / "guard.db").read_bytes()
    with pytest.raises(StoreError, match="nothing is overwritten"):
        snapshot.export(address, tmp_path / "guard.db")
    assert (tmp_path / "guard.db").read_bytes() == before
    assert audit(PostgresSource(address), [VKEY]).findings == []


def test_no_half_of_a_file_comes_back(tmp_path: Path, address: Address) -> None:
    """One transaction: a file that breaks in the middle leaves an empty database."""
    with closing(open_store(tmp_path / "guard.db")) as embedded:
        recorded(embedded, granted("a"), ended("a"))
    with closing(sqlite3.connect(tmp_path / "guard.db")) as db, db:
        db.execute("UPDATE heads SET size = 'many'")
    with pytest.raises(StoreError):
        snapshot.restore(tmp_path / "guard.db", address)
    with closing(address.connect(patience=30)) as db:
        assert db.execute("SELECT count(*) FROM guard.entries").fetchone() == (0,)


def test_a_snapshot_has_every_table_of_the_file(
    store: PostgresStore, address: Address, tmp_path: Path
) -> None:
    """A table that the embedded store gets later must be thought of here too."""
    snapshot.export(address, tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as db:
        names = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert names == set(TABLES)
        for name in sorted(names):
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({name})")]
            if name in {table: given for table, given, _ in snapshot._ALIKE}:
                given = {table: given for table, given, _ in snapshot._ALIKE}[name]
                assert set(given.split(", ")) == set(columns), name

"""The audit of the shared store: it finds there what it finds in a file, and is not disturbed by writers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from guard.core.canonical import b64
from guard.lineage import merkle
from guard.lineage.audit import audit
from guard.lineage.checkpoint import Checkpoint, open_checkpoint
from guard.lineage.database import StoreError
from guard.lineage.entry import Kind
from guard.lineage.postgres import schema
from guard.lineage.postgres.connection import Address
from guard.lineage.postgres.source import PostgresSource
from guard.lineage.ranges import RANGE
from tests.lineage.lineages import NOW, OTHER_KEY, VKEY
from tests.lineage.naive_tree import tree_hash
from tests.lineage.test_sequencer import calls, candidate, checked, put, running, settled, until
from tests.postgres import with_parts

TRAPPED = ("entries", "payloads", "nodes", "inbox")


@pytest.fixture
def address(database: str) -> Address:
    made = Address(database)
    schema.upgrade(made)
    return made


@pytest.fixture
def db(address: Address) -> Iterator[psycopg.Connection[Any]]:
    with closing(address.connect(patience=30)) as made:
        yield made


@pytest.fixture
def filled(address: Address, db: psycopg.Connection[Any]) -> Address:
    """Sixty entries of three conversations, one of them closed."""
    calls(db, 0, 29)
    put(db, "talk-0", Kind.GRANTED, "open")
    put(db, "talk-1", Kind.SEALED, "", NOW + 100)
    db.execute("UPDATE guard.conversations SET sealed = 1 WHERE id = 'talk-1'")
    with running(candidate(address)):
        until(settled(db, 60))
    assert checked(address).findings == []
    return address


def changed(db: psycopg.Connection[Any], *statements: str) -> None:
    """What whoever owns the database can do: the traps are taken off first."""
    for table in TRAPPED:
        db.execute(f"ALTER TABLE guard.{table} DISABLE TRIGGER ALL")
    for statement in statements:
        db.execute(statement)


def whats(address: Address) -> list[tuple[int | None, str]]:
    return [(finding.entry, finding.what) for finding in checked(address).findings]


def test_the_shared_store_is_recomputed(filled: Address, db: psycopg.Connection[Any]) -> None:
    """Everything is counted, and the root is the one that the RFC defines."""
    report = checked(filled)
    leaves = [row[0] for row in db.execute("SELECT leaf FROM guard.entries ORDER BY idx").fetchall()]
    assert (report.granted, report.ended, report.sealed, report.open) == (30, 29, 1, ["open"])
    assert report.chains == {"talk-0": 21, "talk-1": 21, "talk-2": 18}
    assert report.root == b64(tree_hash(leaves))


@pytest.mark.parametrize(
    ("change", "entry", "what"),
    [
        ("UPDATE guard.entries SET leaf = leaf || ' ' WHERE idx = 7", 7, "not the one that was recorded"),
        ("UPDATE guard.entries SET hash = sha256('x') WHERE idx = 7", 7, "not the one that was recorded"),
        ("DELETE FROM guard.entries WHERE idx = 7", 8, "the entries 7 to 7 are missing"),
        ("DELETE FROM guard.entries WHERE idx > 50", None, "signs 60 entries, 51 stand here"),
        (
            "DELETE FROM guard.entries WHERE conversation = 'talk-2'",
            None,
            "18 entries were recorded, 0 stand",
        ),
        ("UPDATE guard.payloads SET disclosures = '[]' WHERE idx = 7", 7, "a field is missing"),
        ("UPDATE guard.nodes SET hash = sha256('x') WHERE level = 2 AND idx = 3", 15, "tree node 2/3"),
        ("DELETE FROM guard.nodes WHERE level = 5", 31, "tree node 5/0"),
        ("UPDATE guard.heads SET at = at + 1", None, "the head is not that of the entries"),
        ("UPDATE guard.heads SET checkpoint = ''", None, "does not verify"),
        ("DELETE FROM guard.heads", None, "does not verify"),
        (
            "UPDATE guard.chains SET entries = 3 WHERE conversation = 'talk-0'",
            None,
            "3 entries were recorded",
        ),
        ("DELETE FROM guard.chains WHERE conversation = 'talk-0'", None, "0 entries were recorded, 21 stand"),
        ("DELETE FROM guard.conversations WHERE id = 'talk-0'", None, "the conversation is not listed"),
        ("UPDATE guard.conversations SET sealed = 0", None, "it has a seal and is open"),
        ("UPDATE guard.conversations SET sealed = 1", None, "it is closed, and its seal is missing"),
        ("DELETE FROM guard.open_grants", None, "the open grants are not those"),
    ],
)
def test_what_its_owner_changes_is_found(
    filled: Address, db: psycopg.Connection[Any], change: str, entry: int | None, what: str
) -> None:
    """A gap, a cut tail, a missing conversation, another byte: the finding says what, and where."""
    changed(db, change)
    assert [found for found, said in whats(filled) if what in said][:1] == [entry], whats(filled)


def test_what_waits_is_counted_and_no_fault(filled: Address, db: psycopg.Connection[Any]) -> None:
    """What is durable and not yet in the log: grants and endings count as owed or not."""
    put(db, "talk-0", Kind.RETURNED, "open")
    put(db, "talk-0", Kind.GRANTED, "waits")
    put(db, "new", Kind.DENIED, "d")
    report = checked(filled)
    assert (report.findings, report.waiting, report.entries) == ([], 3, 60)
    db.execute("DELETE FROM guard.open_grants WHERE call = 'waits'")
    assert whats(filled) == [(None, "the open grants are not those that the entries leave open")]


def test_a_moving_log_does_not_disturb_an_audit(address: Address, db: psycopg.Connection[Any]) -> None:
    """One picture each time, on several processes too; each begins with the one before."""
    kept: list[Checkpoint] = []
    with running(candidate(address)):
        for n in range(8):
            calls(db, 40 * n, 40)
            with PostgresSource(address).opened() as rows:
                if rows.head() is not None:
                    kept.append(open_checkpoint(rows.checkpoint(), [VKEY]))
            report = audit(PostgresSource(address), [VKEY], kept=kept, cores=1 + n % 2)
            assert report.findings == []
            assert report.entries + report.waiting >= 80 * n
    assert kept[-1].size > kept[0].size


def test_ranges_meet_without_a_seam(address: Address, db: psycopg.Connection[Any]) -> None:
    """Over several ranges and processes the tree is one, and a fault is found in whichever range it is."""
    for start in range(0, 2 * RANGE + 50, 50):
        with db.transaction():
            calls(db, start, 25)
    size = 2 * len(range(0, 2 * RANGE + 50, 50)) * 25
    with running(candidate(address)):
        until(settled(db, size))
    for cores in (1, 2, 3):
        assert audit(PostgresSource(address), [VKEY], cores=cores).findings == []
    at = [5, RANGE - 1, RANGE, 2 * RANGE + 3]
    changed(db, *(f"UPDATE guard.entries SET leaf = leaf || ' ' WHERE idx = {one}" for one in at))  # noqa: S608
    changed(db, "UPDATE guard.nodes SET hash = sha256('x') WHERE level = 12")
    for cores in (1, 3):
        report = audit(PostgresSource(address), [VKEY], cores=cores)
        assert sorted({f.entry for f in report.findings if "not the one" in f.what}) == at
        assert [f.entry for f in report.findings if "12/0" in f.what] == [2 * RANGE - 1]
        assert merkle.HASH_BYTES == 32


def test_another_logs_key_verifies_nothing(filled: Address) -> None:
    """Soundness is what the holder of the key signed for."""
    other = type(VKEY).of(VKEY.name, OTHER_KEY.public)
    assert "does not verify" in audit(PostgresSource(filled), [other]).findings[-1].what


def test_no_store_is_said(database: str) -> None:
    """A database without tables, one that is not there: what to do next, and no report."""
    with pytest.raises(StoreError, match="no store yet"):
        audit(PostgresSource(Address(database)), [VKEY])
    with pytest.raises(StoreError):
        audit(PostgresSource(Address(with_parts(database, database="no_such"))), [VKEY])

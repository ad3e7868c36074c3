"""Pages of PostgreSQL's own files that were half written: the audit says so, or nothing was hurt."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from guard.config.home import Home, open_home
from guard.core.errors import GuardError
from guard.lineage.audit import audit
from guard.lineage.checkpoint import Checkpoint, open_checkpoint, parse_vkey
from guard.lineage.entry import Kind
from guard.lineage.postgres import schema
from guard.lineage.postgres.connection import Address
from guard.lineage.postgres.source import PostgresSource
from tests.faults.verdict import EVERYTHING, write_figures
from tests.lineage.lineages import ended, granted, place, recorded, today
from tests.postgres import Databases, Server

CALLS = 200
TRIES = 60 if EVERYTHING else 8
PAGE = 8192
TABLES = ("entries", "payloads", "nodes", "heads", "conversations")
LEAVES = "SELECT leaf FROM guard.entries ORDER BY idx"


@pytest.fixture
def address(own_postgres: Server, tmp_path: Path) -> Address:
    """A store with some calls in it; all of it is in the files."""
    found = Address(Databases(own_postgres.url).make())
    schema.upgrade(found)
    with closing(open_home(tmp_path / "home").store(address=found)) as store:
        for number in range(CALLS):
            call, where = f"{number:032x}", place(f"c{number % 3}")
            granting = granted(call, where=where, now=today())
            recorded(store, granting, ended(call, Kind.RETURNED, where=where, now=today()))
        assert store.settle()
    return found


def test_a_torn_page_is_found(own_postgres: Server, address: Address, tmp_path: Path) -> None:
    """No mutilation of a table's pages makes an entry another one, or shortens the log unnoticed."""
    home = open_home(tmp_path / "home")
    whole = _leaves(address)
    assert audit(PostgresSource(address), [parse_vkey(home.vkey)]).findings == []
    with psycopg.connect(address.url) as db:
        files = [own_postgres.data / path for (path,) in db.execute(PATHS, ([*TABLES],))]
        note = db.execute("SELECT checkpoint FROM guard.heads").fetchone()
        assert note is not None
    kept = open_checkpoint(note[0], [parse_vkey(home.vkey)])
    moments = random.Random(TRIES)  # noqa: S311 - places in a file
    counts: Counter[str] = Counter()
    for _ in range(TRIES):
        file = moments.choice(files)
        own_postgres.stop()
        before = file.read_bytes()
        _tear(file, before, moments)
        own_postgres.start()
        counts[_outcome(address, home, whole, kept)] += 1
        own_postgres.stop()
        file.write_bytes(before)
        own_postgres.start()
    assert counts["changed"] == 0
    assert counts["refused"] > 0, counts
    write_figures("torn-postgres", Counter(kills=0, calls=0, changed=counts["changed"]))


PATHS = "SELECT pg_relation_filepath('guard.' || name) FROM unnest(%s::text[]) AS name"


def _leaves(address: Address) -> list[bytes]:
    with psycopg.connect(address.url) as db:
        return [leaf for (leaf,) in db.execute(LEAVES)]


def _tear(file: Path, before: bytes, moments: random.Random) -> None:
    """Half of a page is zeros, or another page's; the file stays as long as it was."""
    pages = len(before) // PAGE
    torn = moments.randrange(pages) * PAGE
    half = torn + moments.choice([0, PAGE // 2])
    other = moments.randrange(pages) * PAGE
    piece = bytes(PAGE // 2) if moments.random() < 0.5 else before[other : other + PAGE // 2]
    file.write_bytes(before[:half] + piece + before[half + PAGE // 2 :])


def _outcome(address: Address, home: Home, whole: list[bytes], kept: Checkpoint) -> str:
    """What becomes of a mutilated database."""
    try:
        report = audit(PostgresSource(address), [parse_vkey(home.vkey)], kept=[kept])
        stands = _leaves(address)
    except (GuardError, psycopg.Error):
        return "refused"
    if not report.sound:
        return "refused"
    return "whole" if stands == whole else "changed"

"""The audit of a long log: on all cores it finds what one finds, in the same order, in the same memory."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from guard.lineage import audit as audits
from guard.lineage.audit import Report, audit
from guard.lineage.database import StoreError
from guard.lineage.entry import Kind
from guard.lineage.ranges import RANGE
from guard.lineage.sources import SqliteSource
from tests.lineage.lineages import (
    VKEY,
    changed,
    copied,
    ended,
    granted,
    open_store,
    place,
    recorded,
    transaction,
)

SIZE = 4 * RANGE + 100


def fill(path: Path, size: int, talks: int = 7) -> Path:
    with closing(open_store(path)) as store:
        for first in range(0, size, 500):
            recorded(
                store,
                *(
                    transaction(Kind.DENIED, f"d{n}", where=place(f"talk-{n % talks}"))
                    for n in range(first, min(first + 500, size))
                ),
            )
    return path


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    fill(folder / "store.db", SIZE - 3)
    with closing(open_store(folder / "store.db")) as store:
        recorded(store, granted("a"), granted("b"), ended("a"))
    return copied(folder / "store.db", folder / "copy.db")


@pytest.fixture
def copy(long: Path, tmp_path: Path) -> Path:
    return copied(long, tmp_path / "copy.db")


def on(path: Path, cores: int) -> Report:
    return audit(path, [VKEY], cores=cores)


def test_all_cores_say_what_one_says(copy: Path) -> None:
    """A sound log, and one with faults of every kind in every range: the same report, word for word."""
    one = on(copy, 1)
    assert (one.findings, one.entries, one.denied, one.open) == ([], SIZE, SIZE - 3, ["b"])
    assert on(copy, 3) == one
    changed(
        copy,
        *(
            f"UPDATE entries SET leaf = leaf || x'20' WHERE idx = {at}"  # noqa: S608
            for at in (0, 9, RANGE - 1, RANGE, 3 * RANGE + 5, SIZE - 4)
        ),
        "UPDATE nodes SET hash = zeroblob(32) WHERE level IN (3, 12) AND idx IN (0, 1, 700)",
        "DELETE FROM nodes WHERE level = 13",
        f"DELETE FROM entries WHERE idx BETWEEN {2 * RANGE + 5} AND {2 * RANGE + 15}",  # noqa: S608
        "UPDATE payloads SET disclosures = '[]' WHERE idx % 1000 = 17",
        "DELETE FROM payloads WHERE idx % 1000 = 18",
        "UPDATE conversations SET entries = 4 WHERE given = 'talk-3'",
    )
    one = on(copy, 1)
    assert len(one.findings) > 20
    assert [f.entry for f in one.findings if f.entry is not None] == sorted(
        f.entry for f in one.findings if f.entry is not None
    )
    assert {f.what for f in one.findings if "tree node" in f.what} >= {
        "the tree node 12/0 is not the hash of what is below it",
        "the tree node 3/700 is not the hash of what is below it",
    }
    for cores in (2, 3):
        assert on(copy, cores) == one


def test_a_range_that_is_gone_is_one_finding(copy: Path) -> None:
    """A thousand missing entries in a row are told once, and what stands after them is still checked."""
    changed(copy, f"DELETE FROM entries WHERE idx >= {RANGE - 10} AND idx < {3 * RANGE}")  # noqa: S608
    changed(copy, f"UPDATE entries SET leaf = x'00' WHERE idx = {3 * RANGE + 1}")  # noqa: S608
    for cores in (1, 2):
        report = on(copy, cores)
        missing = [f.what for f in report.findings if "are missing" in f.what]
        assert missing == [f"the entries {RANGE - 10} to {3 * RANGE - 1} are missing"]
        assert 3 * RANGE + 1 in {f.entry for f in report.findings}
        assert report.entries == SIZE - 2 * RANGE - 10


def test_a_record_in_which_everything_is_wrong_takes_no_more_memory(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Findings are kept up to a number; how many more there were is said, and it is never sound."""
    monkeypatch.setattr(audits, "MAX_FINDINGS", 100)
    changed(copy, "UPDATE entries SET leaf = leaf || x'20'")
    report = on(copy, 1)
    assert len(report.findings) == 100
    assert report.further > SIZE
    assert not report.sound


def test_memory_does_not_grow_with_the_entries(tmp_path: Path) -> None:
    """Twice as many entries of as many conversations: the same memory."""
    peaks = []
    for ranges in (4, 8):
        path = fill(tmp_path / f"{ranges}.db", ranges * RANGE)
        tracemalloc.start()
        assert on(path, 1).entries == ranges * RANGE
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0], peaks


def test_progress_is_told_range_by_range(copy: Path) -> None:
    """Each time how many are checked, of how many there are; the last time all of them."""
    told: list[tuple[int, int]] = []
    audit(copy, [VKEY], progress=lambda done, size: told.append((done, size)), cores=2)
    assert told == [(min(n * RANGE, SIZE), SIZE) for n in range(1, 6)]


def test_a_writer_does_not_disturb_many_processes(tmp_path: Path) -> None:
    """What is appended meanwhile is not looked at: the picture is of one moment for all of them."""
    path = fill(tmp_path / "guard.db", RANGE + 5)
    script = (
        "import sys; from pathlib import Path; from tests.lineage.lineages import *;"
        "store = open_store(Path(sys.argv[1])); print('writing', flush=True);"
        "[recorded(store, granted(f'x{n}'), ended(f'x{n}')) for n in range(100000)]"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        sizes = []
        for cores in (2, 3, 2):
            report = on(path, cores)
            assert report.findings == []
            sizes.append(report.entries)
    finally:
        writer.kill()
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
    assert sizes[0] < sizes[-1]


def test_a_damaged_page_is_found_on_all_cores(copy: Path) -> None:
    """Where the file cannot be read, the audit stops and says so, or refuses: never sound, never a crash."""
    with closing(sqlite3.connect(copy)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'entries'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    data = bytearray(copy.read_bytes())
    pages = len(data) // size
    for page in range(root, pages, max(1, pages // 7)):
        data[page * size : page * size + 200] = bytes(200)
    copy.write_bytes(data)
    for cores in (1, 3):
        try:
            report = on(copy, cores)
        except StoreError:
            continue
        assert not report.sound


def test_a_source_that_is_gone_for_the_others_is_said(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot open the store ends the audit with an error, and never with a report."""

    class Vanishing(SqliteSource):
        def __reduce__(self) -> tuple[object, ...]:
            return (SqliteSource, (Path("/nonexistent/guard.db"),))

    with pytest.raises(StoreError, match="a process that checked a part of it ended"):
        audit(Vanishing(copy), [VKEY], cores=2)


def test_no_process_outlives_a_killed_audit(copy: Path) -> None:
    """Kill -9 of the one that was started: those that it started end too."""
    script = (
        "import multiprocessing, sys, time; from pathlib import Path; from tests.lineage.lineages import *;"
        "tell = lambda *_: (print([c.pid for c in multiprocessing.active_children()], flush=True),"
        " time.sleep(600));"
        "audit(Path(sys.argv[1]), [VKEY], progress=tell, cores=2)"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", script, str(copy)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        assert started.stdout is not None
        pids = json.loads(started.stdout.readline())
        assert pids
        assert all(_lives(pid) for pid in pids)
    finally:
        started.kill()
        started.wait()
        assert started.stdout is not None
        started.stdout.close()
    end = time.monotonic() + 30
    while any(_lives(pid) for pid in pids):
        assert time.monotonic() < end, "they are still there"
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False

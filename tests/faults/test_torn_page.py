"""Pages that were half written, or hold another one's bytes: refused, or read as they were before."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from guard.core.errors import GuardError
from guard.lineage.audit import audit
from guard.lineage.checkpoint import Checkpoint, open_checkpoint
from guard.lineage.entry import Kind
from tests.faults.verdict import EVERYTHING, write_figures
from tests.lineage.lineages import VKEY, checked, ended, granted, leaves, open_store, place, recorded

CALLS = 40
TRIES = 400 if EVERYTHING else 60
PAGE = 8192
FRAME = 24 + PAGE
"""Of a write-ahead log: a header and a page (SQLite, file format, section 4.1)."""
WAL_HEADER = 32


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as a killed process leaves it: some of it in the file, the rest in the write-ahead log."""
    path = tmp_path_factory.mktemp("torn") / "guard.db"
    for half in range(2):  # closing moves the first half from the write-ahead log into the file
        with closing(open_store(path)) as store:
            for number in range(half * CALLS, (half + 1) * CALLS):
                where = place(f"c{number % 3}")
                recorded(store, granted(f"{number:032x}", where=where))
                recorded(store, ended(f"{number:032x}", Kind.RETURNED, where=where))
            for name in ("guard.db", "guard.db-wal"):
                shutil.copy(path.with_name(name), path.with_name(f"kept-{name}"))
    return path.with_name("kept-guard.db")


def _copy(crashed: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in ("guard.db", "guard.db-wal"):
        shutil.copy(crashed.with_name(f"kept-{name}"), folder / name)
    return folder / "guard.db"


def _cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def _overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_frame_that_was_never_finished_loses_nothing(crashed: Path, tmp_path: Path) -> None:
    """Whatever stands behind the last commit in the write-ahead log is as if it were not there."""
    whole = leaves(_copy(crashed, tmp_path / "whole"))
    moments = random.Random(1)  # noqa: S311 - places in a file
    for number in range(20):
        path = _copy(crashed, tmp_path / str(number))
        wal = path.with_name("guard.db-wal")
        with wal.open("ab") as file:
            file.write(moments.randbytes(moments.randrange(1, 2 * FRAME)))
        assert checked(path).findings == []
        assert leaves(path) == whole
        with closing(open_store(path)) as store:
            recorded(store, granted("f" * 32))
        assert checked(path).findings == []


def test_a_torn_tail_is_refused_or_read_as_it_was_before(crashed: Path, tmp_path: Path) -> None:
    """No mutilation of the files' ends makes an entry another one, or shortens the log unnoticed.

    A write-ahead log that lost a commit is an older log, sound in itself: only a checkpoint that was
    kept elsewhere tells, and it does. Anything else is found, or refuses to open.
    """
    whole = leaves(_copy(crashed, tmp_path / "whole"))
    report = checked(tmp_path / "whole" / "guard.db")
    assert report.findings == []
    assert report.size == len(whole)
    with closing(open_store(tmp_path / "whole" / "guard.db")) as store:
        kept = open_checkpoint(store.checkpoint(), [VKEY])
    moments = random.Random(2)  # noqa: S311 - places in a file
    counts: Counter[str] = Counter()
    for number in range(TRIES):
        path = _copy(crashed, tmp_path / str(number))
        _mutilate(path, moments)
        counts[_outcome(path, whole, kept)] += 1
        shutil.rmtree(path.parent)
    assert counts["changed"] == 0
    assert min(counts["refused"], counts["older"], counts["whole"]) > 0, counts
    figures = Counter(kills=0, calls=0, changed=counts["changed"])
    write_figures("torn-sqlite", figures)


def _mutilate(path: Path, moments: random.Random) -> None:
    """Tear a page of the file, or one near the end of its log, as a disk does that wrote half of it."""
    wal = path.with_name("guard.db-wal")
    file = moments.choice([path, wal])
    size = file.stat().st_size
    start, page = (0, PAGE) if file is path else (WAL_HEADER, FRAME)
    pages = (size - start) // page
    torn = start + moments.randrange(max(0, pages - 12), pages) * page
    match moments.randrange(4):
        case 0:
            _cut(file, torn + moments.randrange(page))
        case 1:
            _overwrite(file, torn + page // 2, bytes(page // 2))
        case 2:
            _overwrite(file, torn + moments.randrange(page - 512), moments.randbytes(512))
        case 3:
            other = start + moments.randrange(pages) * page
            _overwrite(file, torn, file.read_bytes()[other : other + page])


def _outcome(path: Path, whole: list[bytes], kept: Checkpoint) -> str:
    """What becomes of a mutilated store."""
    try:
        with closing(open_store(path)) as store:
            recorded(store, granted("f" * 32))
        report = checked(path)
    except (GuardError, sqlite3.DatabaseError):
        return "refused"
    if not report.sound:
        return "refused"
    stands = leaves(path)[:-1]
    if stands == whole:
        return "whole"
    if stands != whole[: len(stands)] or audit(path, [VKEY], kept=[kept]).sound:
        return "changed"
    return "older"

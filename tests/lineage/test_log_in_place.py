"""Commits on the event loop itself: the same promises, and nobody waits for a disk or a lock there."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from guard.core.errors import Refused
from guard.lineage.log import MAX_BATCH, Log
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import Conflict, Outcome, Recorded, Transaction
from tests.lineage.lineages import KEY, ORIGIN, checked, ended, granted, leaves

MAIN = threading.main_thread().name
PATIENCE = 10.0


class Watched(SqliteStore):
    """A store that notes on which thread its batches were committed, and is as slow as it is told.

    Attributes:
        commits: thread and size of each.
        pause: seconds that a commit waits for its disk.
        breaks: whether commits raise after they took effect.
    """

    commits: list[tuple[str, int]]
    pause: float = 0.0
    breaks: bool = False

    def apply(self, batch: Sequence[Transaction]) -> list[Outcome]:
        outcomes = super().apply(batch)
        self.commits.append((threading.current_thread().name, len(batch)))
        time.sleep(self.pause)
        if self.breaks:
            raise OSError(5, "Input/output error")
        return outcomes


@asynccontextmanager
async def logging(path: Path, in_place: float = 1.0) -> AsyncIterator[tuple[Log, Watched]]:
    store = Watched(path, key=KEY, origin=ORIGIN)
    store.commits = []
    log = Log(store, in_place=in_place)
    try:
        yield log, store
    finally:
        await log.close()
        store.close()


async def all_of(log: Log, *transactions: Transaction) -> list[Outcome]:
    return await asyncio.wait_for(asyncio.gather(*map(log.commit, transactions)), PATIENCE)


async def test_what_comes_in_one_turn_is_committed_together(tmp_path: Path) -> None:
    """On the loop, in the order it came, bounded, and durable when the waiters go on."""
    async with logging(tmp_path / "db") as (log, store):
        outcomes = await all_of(log, *(granted(f"g{n}") for n in range(MAX_BATCH + 10)))
        assert [found.index for found in outcomes if isinstance(found, Recorded)] == list(
            range(MAX_BATCH + 10)
        )
        assert store.commits == [(MAIN, MAX_BATCH), (MAIN, 10)]
        assert len(leaves(tmp_path / "db")) == MAX_BATCH + 10
    checked(tmp_path / "db")


async def test_each_waiter_gets_its_own_outcome(tmp_path: Path) -> None:
    """In one commit some are recorded and some refused."""
    async with logging(tmp_path / "db") as (log, _):
        found = await all_of(log, granted("a"), granted("a"), ended("b"), ended("a"))
        assert [type(outcome) for outcome in found] == [Recorded, Conflict, Conflict, Recorded]


async def test_an_ending_waits_for_company_and_not_for_ever(tmp_path: Path) -> None:
    """It goes with the next grant; without one it goes by itself."""
    async with logging(tmp_path / "db") as (log, store):
        await all_of(log, granted("a"))
        first = log.enqueue(ended("a"))
        await all_of(log, granted("b"))
        assert isinstance(first.result(), Recorded)
        assert store.commits == [(MAIN, 1), (MAIN, 2)]
        second = log.enqueue(ended("b"))
        assert isinstance(second, asyncio.Future)
        assert isinstance(await asyncio.wait_for(second, PATIENCE), Recorded)


async def test_another_writer_never_holds_up_the_loop(tmp_path: Path) -> None:
    """While another process holds the file the thread waits for it, and the loop goes on."""
    async with logging(tmp_path / "db") as (log, store):
        with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            work = [asyncio.ensure_future(log.commit(granted(name))) for name in "abc"]
            turns = 0
            while turns < 20:
                await asyncio.sleep(0.005)
                turns += 1
            assert not any(task.done() for task in work)
            other.execute("COMMIT")
        assert {type(found) for found in await asyncio.wait_for(asyncio.gather(*work), PATIENCE)} == {
            Recorded
        }
        assert {thread for thread, _ in store.commits} == {"guard-log"}


async def test_a_slow_disk_is_waited_for_in_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one slow commit the next ones leave the loop alone, and come back when it may be quick again."""
    async with logging(tmp_path / "db", in_place=0.01) as (log, store):
        store.pause = 0.05
        await all_of(log, granted("a"))
        await all_of(log, granted("b"))
        assert [thread for thread, _ in store.commits] == [MAIN, "guard-log"]
        store.pause = 0.0
        monkeypatch.setattr(log, "_thread_until", 0.0)
        await asyncio.to_thread(_until, lambda: log._put_away == log._done_away)
        await all_of(log, granted("c"))
        assert store.commits[-1] == (MAIN, 1)


def _until(holds: object) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.001)


async def test_a_commit_that_fails_on_the_loop_stops_the_log(tmp_path: Path) -> None:
    """Whether or not it took effect: whoever waits is refused, and so is whoever comes after."""
    told: list[BaseException] = []
    store = Watched(tmp_path / "db", key=KEY, origin=ORIGIN)
    store.commits, store.breaks = [], True
    log = Log(store, told.append, in_place=1.0)
    for name in "ab":
        with pytest.raises(Refused, match="Input/output error"):
            await log.commit(granted(name))
    assert [type(error) for error in told] == [OSError]
    assert len(store.commits) == 1
    await log.close()
    store.close()


async def test_a_waiter_that_gives_up_takes_nothing_back(tmp_path: Path) -> None:
    """Its transaction is committed all the same."""
    async with logging(tmp_path / "db") as (log, _):
        work = asyncio.ensure_future(log.commit(granted("a")))
        await asyncio.sleep(0)
        work.cancel()
        await all_of(log, granted("b"))
        assert work.cancelled()
    assert len(leaves(tmp_path / "db")) == 2


async def test_closing_commits_what_waits(tmp_path: Path) -> None:
    """An ending that nobody waits for is on disk when the log is closed; later ones are refused."""
    async with logging(tmp_path / "db") as (log, _):
        await all_of(log, granted("a"))
        log.enqueue(ended("a"))
        await log.close()
        assert len(leaves(tmp_path / "db")) == 2
        with pytest.raises(Refused):
            await log.commit(granted("late"))

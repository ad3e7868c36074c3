"""The log's writer: what waits together commits together, and a log that fails stops granting."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from threading import Event

import pytest

from guard.config.home import close_abandoned
from guard.core.errors import Reason, Refused
from guard.lineage.entry import ENDINGS, Kind, parse
from guard.lineage.lease import Lease
from guard.lineage.log import MAX_BATCH, Log
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import Conflict, Outcome, Recorded, Transaction
from tests.lineage.lineages import KEY, ORIGIN, checked, dump, ended, granted, leaves, open_store

PATIENCE = 10.0


class Broken(Exception):
    """A store that cannot, on purpose."""


class Slow(SqliteStore):
    """A store that notes its batches, waits to be let on, and breaks as it is told.

    Attributes:
        batches: sizes of what was committed together.
        let_on: whether commits may go through.
        breaks: which commit raises, counted from 1, "before" or "after" it took effect.
    """

    batches: list[int]
    let_on: Event
    breaks: tuple[int, str] = (0, "")

    def apply(self, batch: Sequence[Transaction]) -> list[Outcome]:
        self.batches.append(len(batch))
        assert self.let_on.wait(PATIENCE)
        if self.breaks == (len(self.batches), "before"):
            raise Broken("before the commit")
        outcomes = super().apply(batch)
        if self.breaks == (len(self.batches), "after"):
            raise Broken("after the commit")
        return outcomes


@asynccontextmanager
async def logging(
    path: Path, on_failure: Callable[[BaseException], None] = lambda _: None
) -> AsyncIterator[tuple[Log, Slow]]:
    store = Slow(path, key=KEY, origin=ORIGIN)
    store.batches, store.let_on = [], Event()
    store.let_on.set()
    log = Log(store, on_failure)
    try:
        yield log, store
    finally:
        store.let_on.set()
        await log.close()
        store.close()


async def soon(work: asyncio.Future[Outcome]) -> Outcome:
    return await asyncio.wait_for(work, PATIENCE)


def commits(log: Log, *transactions: Transaction) -> list[asyncio.Task[Outcome]]:
    return [asyncio.ensure_future(log.commit(transaction)) for transaction in transactions]


async def queued(log: Log, count: int) -> None:
    """Wait until so many are queued behind a commit that is held."""
    for _ in range(int(PATIENCE * 1000)):
        if log._queue.qsize() == count:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"{log._queue.qsize()} are queued, not {count}")


# -- group commit --------------------------------------------------------------------------------


async def test_what_waits_together_is_committed_together(tmp_path: Path) -> None:
    """While one commit is on its way the others gather, and go in one, in the order they came."""
    async with logging(tmp_path / "db") as (log, store):
        store.let_on.clear()
        first = commits(log, granted("first"))
        await asyncio.sleep(0.05)
        rest = commits(log, *(granted(f"g{n}") for n in range(50)))
        await queued(log, 50)
        store.let_on.set()
        outcomes = [await soon(task) for task in first + rest]
        assert store.batches == [1, 50]
        assert [outcome.index for outcome in outcomes if isinstance(outcome, Recorded)] == list(range(51))


async def test_one_commit_takes_no_more_than_it_may(tmp_path: Path) -> None:
    """However many wait, a commit stays bounded, and each of them is answered."""
    async with logging(tmp_path / "db") as (log, store):
        store.let_on.clear()
        first = commits(log, granted("first"))
        await asyncio.sleep(0.05)
        rest = commits(log, *(granted(f"g{n}") for n in range(MAX_BATCH + 10)))
        await queued(log, MAX_BATCH + 10)
        store.let_on.set()
        assert {type(await soon(task)) for task in first + rest} == {Recorded}
        assert store.batches == [1, MAX_BATCH, 10]


async def test_each_waiter_gets_its_own_outcome(tmp_path: Path) -> None:
    """In one commit some are recorded and some refused: everybody hears of his own."""
    async with logging(tmp_path / "db") as (log, _):
        found = [
            await soon(task) for task in commits(log, granted("a"), granted("a"), ended("b"), ended("a"))
        ]
        assert [type(outcome) for outcome in found] == [Recorded, Conflict, Conflict, Recorded]


async def test_an_ending_waits_for_the_next_grant(tmp_path: Path) -> None:
    """What nobody waits for makes no commit of its own while one is coming, and is not late without one."""
    async with logging(tmp_path / "db") as (log, store):
        await soon(commits(log, granted("a"))[0])
        ending = log.enqueue(ended("a"))
        await soon(commits(log, granted("b"))[0])
        assert isinstance(ending.result(0), Recorded)
        assert store.batches == [1, 2]
        began = time.monotonic()
        await soon(asyncio.wrap_future(log.enqueue(ended("b"))))
        assert time.monotonic() - began < 2


async def test_durable_when_the_commit_returns(tmp_path: Path) -> None:
    """Another connection sees a grant at once when its waiter goes on."""
    async with logging(tmp_path / "db") as (log, _):
        for n in range(10):
            await soon(commits(log, granted(f"g{n}"))[0])
            assert parse(leaves(tmp_path / "db")[-1]).call == f"g{n}"


async def test_a_cancelled_waiter_cancels_no_commit(tmp_path: Path) -> None:
    """A client that leaves does not take back what was handed to the log."""
    async with logging(tmp_path / "db") as (log, store):
        store.let_on.clear()
        task, other = commits(log, granted("a"), granted("b"))
        await asyncio.sleep(0.05)
        task.cancel()
        store.let_on.set()
        assert isinstance(await soon(other), Recorded)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance(await soon(commits(log, ended("a"))[0]), Recorded)


async def test_what_is_queued_at_the_end_is_committed(tmp_path: Path) -> None:
    """Closing the log waits for what it was given; what comes later is refused and does not hang."""
    async with logging(tmp_path / "db") as (log, _):
        await soon(commits(log, *(granted(f"g{n}") for n in range(20)))[-1])
        endings = [log.enqueue(ended(f"g{n}")) for n in range(20)]
        await log.close()
        assert all(isinstance(future.result(0), Recorded) for future in endings)
        with pytest.raises(Refused):
            log.enqueue(granted("late")).result(PATIENCE)
        with pytest.raises(Refused):
            await soon(commits(log, granted("late"))[0])
    report = checked(tmp_path / "db")
    assert (report.findings, report.open, report.ended) == ([], [], 20)


async def test_what_comes_while_the_log_ends_is_refused(tmp_path: Path) -> None:
    """A call that is late by a moment gets an answer: nobody waits for a writer that is gone."""
    async with logging(tmp_path / "db") as (log, _):
        log._queue.put(None)  # the end, as `close` says it
        late = log.enqueue(granted("late"))
        await log.close()
        with pytest.raises(Refused):
            late.result(PATIENCE)
    assert leaves(tmp_path / "db") == []


# -- a log that fails stops granting ---------------------------------------------------------------


def restarted(path: Path) -> Counter[str]:
    """What a restart makes of a store; each granted then has exactly one ending. Kinds by number."""
    with closing(open_store(path)) as store:
        lease = Lease(path.parent / "run")
        close_abandoned(store, lease)
        assert close_abandoned(store, lease) == 0
        lease.release()
    report = checked(path)
    assert report.findings == []
    assert report.open == []
    found = [parse(leaf) for leaf in leaves(path)]
    grants = sorted(leaf.call for leaf in found if leaf.kind is Kind.GRANTED)
    assert grants == sorted(leaf.call for leaf in found if leaf.kind in ENDINGS)
    assert len(set(grants)) == len(grants)
    return Counter(leaf.kind.value for leaf in found)


@pytest.mark.parametrize(
    ("breaks", "expected"),
    [
        ("before", {"granted": 4, "unknown": 4}),
        ("after", {"granted": 14, "returned": 3, "unknown": 11}),
    ],
)
async def test_a_log_that_fails_stops_granting(tmp_path: Path, breaks: str, expected: dict[str, int]) -> None:
    """Whether the commit failed before or after it took effect: nobody is granted, a restart settles it."""
    told: list[BaseException] = []
    async with logging(tmp_path / "db", told.append) as (log, store):
        for task in commits(log, *(granted(f"g{n}") for n in range(3))):
            assert isinstance(await soon(task), Recorded)
        store.let_on.clear()
        store.batches.clear()
        store.breaks = (2, breaks)
        (held,) = commits(log, granted("held"))
        await asyncio.sleep(0.05)
        endings = [log.enqueue(ended(f"g{n}")) for n in range(3)]
        tasks = commits(log, *(granted(f"h{n}") for n in range(10)))
        await queued(log, 13)
        store.let_on.set()
        assert isinstance(await soon(held), Recorded)
        for task in tasks:
            with pytest.raises(Refused) as refused:
                await soon(task)
            assert refused.value.reason is Reason.STORE_UNAVAILABLE
        for future in endings:
            with pytest.raises(Refused):
                future.result(PATIENCE)
        before = dump(tmp_path / "db")
        with pytest.raises(Refused, match="cannot be written"):
            await soon(commits(log, granted("later"))[0])
        with pytest.raises(Refused):
            log.enqueue(ended("g0")).result(PATIENCE)
        assert store.batches == [1, 13], "a log that failed does not try again"
        assert dump(tmp_path / "db") == before
        assert [str(error) for error in told] == [f"{breaks} the commit"]
        assert log.failure is told[0]
    assert restarted(tmp_path / "db") == expected


async def test_who_cannot_be_told_of_a_failure_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A standard error that is closed must not leave calls without an answer."""

    def broken(_: BaseException) -> None:
        raise BrokenPipeError

    async with logging(tmp_path / "db", broken) as (log, store):
        store.breaks = (1, "before")
        for _ in range(2):
            with pytest.raises(Refused):
                await soon(commits(log, granted("a"))[0])


async def test_a_full_database_grants_nothing(tmp_path: Path) -> None:
    """A store that has no room left answers STORE_UNAVAILABLE, and what is granted is what stands."""
    recorded = 0
    async with logging(tmp_path / "db") as (log, store):
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages + 8}")
        refusal = None
        while refusal is None:
            assert recorded < 1000
            try:
                await soon(commits(log, granted(f"g{recorded}"))[0])
                recorded += 1
            except Refused as refused:
                refusal = refused
        assert refusal.reason is Reason.STORE_UNAVAILABLE
        assert "full" in refusal.what
    assert recorded > 1
    assert restarted(tmp_path / "db") == {"granted": recorded, "unknown": recorded}


def _fill(path: Path, limit: int, told: multiprocessing.SimpleQueue[str]) -> None:
    """Grant until the system lets no file grow any further."""

    async def run() -> None:
        with closing(open_store(path)) as store:
            log = Log(store)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            for n in range(1000):
                try:
                    await log.commit(granted(f"g{n}"))
                except Refused as refused:
                    told.put(refused.reason)
                    return
                told.put(f"g{n}")

    asyncio.run(run())


def test_a_full_disk_grants_nothing(tmp_path: Path) -> None:
    """When the write-ahead log cannot grow, STORE_UNAVAILABLE; every grant that was told stands."""
    context = multiprocessing.get_context("spawn")
    told = context.SimpleQueue()
    process = context.Process(target=_fill, args=(tmp_path / "db", 400_000, told))
    process.start()
    calls = []
    process.join(PATIENCE)
    while (word := told.get()).startswith("g"):
        calls.append(word)
    assert word == Reason.STORE_UNAVAILABLE
    assert len(calls) > 1
    assert process.exitcode == 0
    with closing(open_store(tmp_path / "db")) as store:
        assert {call for call, _, _ in store.open_grants()} == set(calls)
    assert restarted(tmp_path / "db") == {"granted": len(calls), "unknown": len(calls)}


async def test_a_store_that_others_hold_grants_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that never comes is a failure like any other, not a wait without end."""
    monkeypatch.setattr("guard.lineage.log.BUSY_SECONDS", 0.2)
    async with logging(tmp_path / "db") as (log, _):
        with closing(sqlite3.connect(tmp_path / "db")) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Refused, match="locked"):
                await soon(commits(log, granted("a"))[0])
    assert leaves(tmp_path / "db") == []

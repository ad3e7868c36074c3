"""Counters: what grants take from them, inside the one transaction that records the grant."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from guard.config.home import close_abandoned
from guard.lineage.counters import MAX_FORGOTTEN
from guard.lineage.entry import Kind
from guard.lineage.lease import Lease
from guard.lineage.postgres import schema
from guard.lineage.postgres.connection import Address
from guard.lineage.postgres.store import PostgresStore
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import (
    CloseGrant,
    Conflict,
    Contain,
    Effect,
    Moved,
    Outcome,
    Recorded,
    Reserve,
    Store,
    Transaction,
)
from tests.lineage.lineages import (
    NOW,
    TENANT,
    checked,
    dump,
    ended,
    granted,
    house,
    open_store,
    place,
    recorded,
    transaction,
)

Opener = Callable[[], Store]
WINDOW = 60_000
COUNTER = "few/counter"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db"


@pytest.fixture
def embedded(path: Path) -> Iterator[SqliteStore]:
    """What is about this store's own rows."""
    with closing(open_store(path)) as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def opener(request: pytest.FixtureRequest, path: Path) -> Opener:
    """Opens one store, each time anew, as another process would."""
    if request.param == "sqlite":
        return lambda: open_store(path)
    address = Address(request.getfixturevalue("database"))
    schema.upgrade(address)
    return lambda: open_store(address)


@pytest.fixture
def store(opener: Opener) -> Iterator[Store]:
    with closing(opener()) as found:
        yield found


def taking(
    call: str,
    *,
    amount: int = 1,
    most: int = 10,
    window: int = WINDOW,
    counters: tuple[str, ...] = (COUNTER,),
    **given: Any,
) -> Transaction:
    """A grant that takes from counters."""
    grant = granted(call, **given)
    wanted = tuple(Reserve(counter, call, amount, most, window) for counter in counters)
    return replace(grant, effects=(*grant.effects, *wanted))


def ending(call: str, kind: Kind = Kind.FAILED, *, nothing_sent: bool, **given: Any) -> Transaction:
    return replace(ended(call, kind, **given), effects=(CloseGrant(call, nothing_sent),))


def used(store: Store, since: int = NOW - WINDOW, *, counter: str = COUNTER, tenant: str = TENANT) -> int:
    (found,) = store.used(tenant, [(counter, since)])
    return found


def rows(path: Path) -> list[tuple[Any, ...]]:
    return dump(path)["reservations"]


def count(outcomes: list[Outcome]) -> tuple[int, int]:
    assert all(outcome == Moved(COUNTER) for outcome in outcomes if not isinstance(outcome, Recorded))
    taken = sum(isinstance(outcome, Recorded) for outcome in outcomes)
    return taken, len(outcomes) - taken


def test_64_at_once_against_10_take_exactly_10(store: Store) -> None:
    """What one batch takes counts for what follows in it; the others are told which counter is full."""
    outcomes = store.apply([taking(f"call-{n}") for n in range(64)])
    assert count(outcomes) == (10, 54)
    assert [type(outcome) for outcome in outcomes] == [Recorded] * 10 + [Moved] * 54
    assert used(store) == 10


def test_a_counter_without_room_writes_nothing(embedded: SqliteStore, path: Path) -> None:
    """Neither entry nor grant, nor what the transaction would have taken from another counter."""
    recorded(embedded, taking("one", most=1))
    before = dump(path)
    assert embedded.apply([taking("two", most=1, counters=("other", COUNTER))]) == [Moved(COUNTER)]
    assert embedded.apply([taking("three", most=1, counters=(COUNTER, "other"))]) == [Moved(COUNTER)]
    after = dump(path)
    del before["heads"], after["heads"]  # the checkpoint over the same tree is signed anew
    assert after == before


def test_a_moved_version_is_told_before_a_full_counter(store: Store) -> None:
    """What was revoked or contained meanwhile comes first: who may not ask learns of no limit."""
    recorded(store, taking("one", most=1), house(Kind.CONTAINED, Contain("tool", "t")))
    stale = taking("two", most=1, expects={"containment": 0})
    assert store.apply([stale]) == [Moved("containment")]


def test_what_left_the_window_makes_room_and_not_before(store: Store) -> None:
    """The window slides with the transaction's time: one millisecond decides."""
    recorded(store, taking("one", most=2), taking("two", most=2, now=NOW + 10))
    assert store.apply([taking("three", most=2, now=NOW + WINDOW - 1)]) == [Moved(COUNTER)]
    recorded(store, taking("four", most=2, now=NOW + WINDOW))
    assert store.apply([taking("five", most=2, now=NOW + WINDOW + 9)]) == [Moved(COUNTER)]
    recorded(store, taking("six", most=2, now=NOW + WINDOW + 10))


def test_a_clock_that_jumps_back_makes_no_room(store: Store) -> None:
    """Time is the log's: never before its newest entry, whatever a writer's clock says."""
    recorded(store, taking("one", most=1, now=NOW))
    for now in (NOW - WINDOW - 1, 0, NOW):
        assert store.apply([taking("two", most=1, now=now)]) == [Moved(COUNTER)]
    recorded(store, transaction(Kind.DENIED, "later", now=NOW + WINDOW))
    (found,) = recorded(store, taking("three", most=1, now=NOW - WINDOW))
    assert found.at == NOW + WINDOW
    assert used(store, NOW) == 1


def test_no_window_ever_holds_more_than_the_limit(store: Store) -> None:
    """However the calls come, of all stretches of that length none has more grants."""
    times: list[int] = []
    for step in range(400):
        now = NOW + step * 137
        (outcome,) = store.apply([taking(f"c{step}", most=7, window=5_000, now=now)])
        times += [outcome.at] if isinstance(outcome, Recorded) else []
    assert len(times) > 50
    assert max(sum(end - 5_000 < at <= end for at in times) for end in times) == 7


@pytest.mark.parametrize("kind", [Kind.RETURNED, Kind.UNKNOWN, Kind.FAILED])
def test_only_what_was_certainly_not_sent_is_given_back(store: Store, kind: Kind) -> None:
    """An ending that does not say so keeps what the grant took, whatever the ending is called."""
    recorded(store, taking("one"), taking("two"))
    recorded(store, ending("one", kind, nothing_sent=False))
    assert used(store) == 2
    recorded(store, ending("two", kind, nothing_sent=True))
    assert used(store) == 1


def test_what_a_restart_closes_stays_taken(store: Store, tmp_path: Path) -> None:
    """Nobody knows whether it was sent."""
    recorded(store, taking("one"))
    lease = Lease(tmp_path / "run")
    assert close_abandoned(store, lease) == 1
    lease.release()
    assert used(store) == 1


def test_what_is_given_back_in_the_same_batch_makes_room_in_it(store: Store) -> None:
    """One after the other, as if each had a commit of its own."""
    batch = [
        taking("one", most=1),
        taking("two", most=1),
        ending("one", nothing_sent=True),
        taking("three", most=1),
    ]
    assert [type(outcome) for outcome in store.apply(batch)] == [Recorded, Moved, Recorded, Recorded]
    recorded(store, ending("three", nothing_sent=True))
    assert used(store) == 0


def test_a_grant_gives_back_only_its_own(store: Store) -> None:
    """Of every counter that it took from, in its tenant, and of no other grant."""
    recorded(store, taking("one", counters=("a", "b")), taking("two", counters=("a", "b")))
    elsewhere = place(tenant="elsewhere")
    recorded(store, taking("one", counters=("a",), where=elsewhere))
    recorded(store, ending("one", nothing_sent=True))
    assert (used(store, counter="a"), used(store, counter="b")) == (1, 1)
    assert used(store, counter="a", tenant="elsewhere") == 1
    (again,) = store.apply([ending("one", nothing_sent=True)])
    assert isinstance(again, Conflict)
    assert used(store, counter="a") == 1


def test_tenants_and_counters_do_not_touch(store: Store) -> None:
    """A counter of the same name in another tenant is another counter."""
    recorded(store, taking("one", most=1))
    recorded(store, taking("two", most=1, where=place(tenant="elsewhere")))
    recorded(store, taking("three", most=1, counters=("few/another",)))
    assert store.apply([taking("four", most=1)]) == [Moved(COUNTER)]


def test_two_limits_over_one_counter_add_up(store: Store) -> None:
    """A transaction that takes twice from one counter needs room for both, and takes both."""
    twice = (COUNTER, COUNTER)
    assert store.apply([taking("one", most=1, counters=twice)]) == [Moved(COUNTER)]
    recorded(store, taking("one", most=2, counters=twice))
    assert used(store) == 2
    assert store.apply([taking("two", most=2)]) == [Moved(COUNTER)]


def test_amounts_add_up_as_calls_do(store: Store) -> None:
    """A budget is the same effect with another amount."""
    recorded(store, taking("one", amount=70, most=100))
    assert store.apply([taking("two", amount=31, most=100)]) == [Moved(COUNTER)]
    recorded(store, taking("three", amount=30, most=100), taking("four", amount=0, most=100))
    assert used(store) == 100


def test_what_was_used_is_told_for_each_counter_in_order(store: Store) -> None:
    """After the time that is asked for, and 0 where nothing was taken."""
    recorded(store, taking("one", counters=("a", "b")), taking("two", counters=("a",), now=NOW + 5))
    asked = [("b", 0), ("none", 0), ("a", NOW), ("a", NOW - 1), ("a", NOW + 5), ("b", 0)]
    assert store.used(TENANT, asked) == [1, 0, 1, 2, 0, 1]
    assert store.used(TENANT, []) == []


def test_a_row_goes_once_it_left_the_window(embedded: SqliteStore, path: Path) -> None:
    """Of whichever counter: also of one that nobody asks for any more."""
    recorded(embedded, *(taking(f"old-{n}", counters=(f"talk-{n}",)) for n in range(20)))
    recorded(embedded, taking("last", now=NOW + WINDOW - 1))
    assert len(rows(path)) == 21
    recorded(embedded, taking("next", now=NOW + WINDOW))
    assert [row[3] for row in rows(path)] == ["last", "next"]


def test_a_shorter_window_deletes_nothing_that_a_longer_one_counts(store: Store) -> None:
    """While two versions of a policy are in use, the one cannot make room for the other."""
    recorded(store, taking("one", most=1, window=10 * WINDOW))
    recorded(store, taking("two", most=1, window=WINDOW, now=NOW + WINDOW))
    long = taking("three", most=2, window=10 * WINDOW, now=NOW + 5 * WINDOW)
    assert store.apply([long]) == [Moved(COUNTER)]


def test_after_a_long_pause_no_commit_deletes_for_long(embedded: SqliteStore, path: Path) -> None:
    """What lapsed meanwhile goes by and by, and counts for nothing."""
    recorded(embedded, *(taking(f"old-{n}", counters=(f"talk-{n}",)) for n in range(MAX_FORGOTTEN + 5)))
    recorded(embedded, taking("one", now=NOW + WINDOW))
    assert len(rows(path)) == 6
    recorded(embedded, taking("two", now=NOW + WINDOW))
    assert len(rows(path)) == 2


def test_a_commit_that_fails_takes_nothing(embedded: SqliteStore, path: Path) -> None:
    """Counters and log are one transaction."""
    bad: Effect = Reserve(COUNTER, "two", 1, 10, 10**30)  # no integer of the database's
    grant = granted("two")
    with pytest.raises(OverflowError):
        embedded.apply([taking("one"), replace(grant, effects=(*grant.effects, bad))])
    assert rows(path) == []
    assert checked(path).entries == 0
    recorded(embedded, taking("one"))


def test_two_writers_of_one_store_count_together(store: Store, opener: Opener) -> None:
    """What another process took is seen by the next transaction, and by the next reader."""
    with closing(opener()) as other:
        for n in range(5):
            recorded(store, taking(f"a-{n}"))
            recorded(other, taking(f"b-{n}"))
            assert used(store) == used(other) == 2 * n + 2
        assert store.apply([taking("a")]) == other.apply([taking("b")]) == [Moved(COUNTER)]


def _hammer(where: Path | Address, name: str, barrier: Barrier, calls: int, results: Any) -> None:
    with closing(open_store(where)) as store:
        barrier.wait()
        taken = 0
        for n in range(calls):
            (outcome,) = store.apply([taking(f"{name}-{n}")])
            taken += isinstance(outcome, Recorded)
        results.put(taken)


def test_processes_at_once_take_exactly_what_there_is(store: Store, path: Path) -> None:
    """Four processes, 16 calls each, a limit of 10: ten are granted."""
    where = store.address if isinstance(store, PostgresStore) else path
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_hammer, args=(where, f"p{n}", barrier, 16, results)) for n in range(4)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(found) == 10
    assert used(store) == 10


def test_the_sum_is_read_from_the_index_alone(path: Path) -> None:
    """What a decision costs depends on its own counter, not on how many there are."""
    open_store(path).close()
    with closing(sqlite3.connect(path)) as db:
        statements = {
            "SELECT COALESCE(SUM(amount), 0) FROM reservations WHERE tenant = ? AND counter = ? AND at > ?": (
                "(tenant=? AND counter=? AND at>?)"
            ),
            "DELETE FROM reservations WHERE tenant = ? AND call = ?": "(tenant=? AND call=?)",
            "SELECT tenant, counter, at, call FROM reservations WHERE until <= ? LIMIT ?": "(until<?)",
        }
        for statement, found in statements.items():
            values = ("x",) * statement.count("?")
            plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values))
            assert plan.startswith("SEARCH reservations USING")
            assert plan.endswith(found)

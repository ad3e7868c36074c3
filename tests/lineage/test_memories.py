"""What a memory keeps of the values that were seen: the least trusted one, bounded, nothing lost."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from guard.core.model import UNBOUNDED
from guard.lineage import memories
from guard.lineage.entry import Kind
from guard.lineage.postgres.connection import Address
from guard.lineage.store import (
    CloseGrant,
    Conflict,
    Contain,
    Effect,
    Glimpse,
    Memory,
    Moved,
    Place,
    Recorded,
    Remember,
    Reserve,
    Store,
    Transaction,
    Unmoved,
)
from tests.lineage.lineages import (
    NOW,
    TENANT,
    checked,
    dump,
    ended,
    granted,
    open_store,
    recorded,
    transaction,
)

Where = Path | Address
WINDOW = 60_000
MEMORY = "memory/alice"
PENDING = f"pending/{MEMORY}"
A, B, C, D = (bytes([n]) * 16 for n in range(4))
ALL = (A, B, C, D)


def seen(fingerprint: bytes, trust: str = "trusted", source: str = "tool:s/t", field: str = "") -> Glimpse:
    return Glimpse(fingerprint, source, trust, field)


def remembering(
    *glimpses: Glimpse, now: int = NOW, most: int = 100, window: int = WINDOW, tenant: str = TENANT
) -> Transaction:
    return Transaction(Place(tenant), None, now, effects=(Remember(MEMORY, glimpses, window, most),))


def recall(store: Store, *fingerprints: bytes, tenant: str = TENANT) -> Memory:
    return store.recall(tenant, MEMORY, PENDING, fingerprints or ALL)


def pass_time(store: Store, now: int) -> None:
    """Something is recorded, so that the log's time is this."""
    recorded(store, transaction(Kind.DENIED, f"at-{now}", now=now))


def test_what_was_never_seen_is_not_there(store: Store) -> None:
    """A memory that never was: whole, empty, version 0."""
    assert recall(store) == Memory((), whole=True, version=0)


def test_what_was_seen_is_found_and_nothing_else(store: Store) -> None:
    """Of what is asked for, however often it is."""
    recorded(store, remembering(seen(A), seen(B, "mixed", field="/b"), seen(C)))
    found = recall(store, B, D, A, B)
    assert found == Memory((seen(A), seen(B, "mixed", field="/b")), whole=True, version=1)
    assert recall(store, D) == Memory((), whole=True, version=1)
    assert store.recall(TENANT, MEMORY, PENDING, []) == Memory((), whole=True, version=1)


@pytest.mark.parametrize("at_once", [True, False])
def test_of_one_source_the_least_trusted_stays(store: Store, *, at_once: bool) -> None:
    """Whatever comes later, and in whatever order; of other sources each has its own."""
    first, second = seen(A, "trusted", field="/t"), seen(A, "untrusted", field="/u")
    for glimpses in ((first, second, seen(A, "mixed")), (seen(A, "trusted"), seen(A, source="user"))):
        if at_once:
            recorded(store, remembering(*glimpses))
        else:
            recorded(store, *(remembering(one) for one in glimpses))
    assert recall(store).glimpses == (seen(A, "untrusted", field="/u"), seen(A, source="user"))


def test_a_trust_that_nobody_knows_is_none(store: Store) -> None:
    """What cannot be read is not believed."""
    recorded(store, remembering(seen(A, "absolutely")))
    assert recall(store).glimpses == (seen(A, "untrusted"),)


def test_nothing_is_appended_for_it(store: Store, where: Where) -> None:
    """No entry, no time in the log; and what decisions read of versions is as it was."""
    recorded(store, transaction(Kind.DENIED, "one"))
    before = dump(where)
    (outcome,) = store.apply([remembering(seen(A), now=NOW + 5)])
    assert outcome == Recorded(-1, "", NOW + 5)
    after = dump(where)
    assert {name for name in after if after[name] != before[name]} == {"memories", "seen"}
    assert checked(where).findings == []


def test_without_an_entry_nothing_else_can_be(store: Store, where: Where) -> None:
    """Neither a containment nor a reservation, even beside what may be."""
    others: list[Effect] = [Contain("all", ""), Reserve("c", "x", 1, 1, 1), Unmoved(MEMORY, 0)]
    before = dump(where)
    for other in others:
        one = remembering(seen(A))
        (outcome,) = store.apply([replace(one, effects=(*one.effects, other))])
        assert isinstance(outcome, Conflict)
    assert dump(where) == before


def test_it_comes_with_an_ending_or_not_at_all(store: Store) -> None:
    """Facts and ending are one transaction."""
    recorded(store, granted("one"))
    remember = Remember(MEMORY, (seen(A),), WINDOW, 10)
    end = replace(ended("one"), effects=(CloseGrant("one", known=True), remember))
    recorded(store, end)
    assert recall(store).glimpses == (seen(A),)
    again = replace(end, effects=(CloseGrant("one", known=True), replace(remember, glimpses=(seen(B),))))
    assert isinstance(store.apply([again])[0], Conflict)
    assert recall(store) == Memory((seen(A),), whole=True, version=1)


def test_a_decision_that_rests_on_what_moved_is_not_taken(store: Store, opener: Callable[[], Store]) -> None:
    """In the same batch and from another process; a memory of nothing moves nothing."""
    grant = granted("one")
    resting = replace(grant, effects=(*grant.effects, Unmoved(MEMORY, 0)))
    recorded(store, remembering())
    assert store.apply([remembering(seen(A)), resting])[1] == Moved(MEMORY)
    with closing(opener()) as other:
        recorded(other, remembering(seen(A)))
    stale = replace(grant, effects=(*grant.effects, Unmoved(MEMORY, 1)))
    assert store.apply([stale]) == [Moved(MEMORY)]
    recorded(store, replace(grant, effects=(*grant.effects, Unmoved(MEMORY, 2))))


def test_what_left_the_window_counts_for_nothing(store: Store) -> None:
    """It is not found; and what is seen again has no past."""
    recorded(store, remembering(seen(A, "untrusted"), seen(B, "untrusted")))
    recorded(store, remembering(seen(B), now=NOW + WINDOW - 1))
    pass_time(store, NOW + WINDOW - 1)
    assert recall(store).glimpses == (seen(A, "untrusted"), seen(B, "untrusted"))
    pass_time(store, NOW + WINDOW)
    assert recall(store).glimpses == (seen(B, "untrusted"),)
    recorded(store, remembering(seen(A), now=NOW + WINDOW))
    assert recall(store).glimpses == (seen(A), seen(B, "untrusted"))


def test_a_full_memory_is_not_whole_until_what_it_lost_would_be_gone(store: Store) -> None:
    """Who floods it gains nothing: what was not kept is missed for as long as it would have been kept."""
    recorded(store, remembering(seen(A), seen(B), most=2))
    assert recall(store).whole
    recorded(store, remembering(seen(C, "untrusted"), now=NOW + 1000, most=2))
    found = recall(store)
    assert (found.glimpses, found.whole) == ((seen(A), seen(B)), False)
    pass_time(store, NOW + WINDOW)  # the oldest rows have left the window
    assert not recall(store).whole
    recorded(store, remembering(seen(D), now=NOW + WINDOW, most=2))
    assert recall(store).glimpses == (seen(D),)
    assert not recall(store).whole
    pass_time(store, NOW + WINDOW + 1000)
    assert recall(store).whole


def test_a_full_memory_still_learns_that_what_it_has_is_worse(store: Store) -> None:
    """That needs no room."""
    recorded(store, remembering(seen(A), seen(B), most=2))
    recorded(store, remembering(seen(B, "untrusted"), seen(A, "mixed"), most=2))
    assert recall(store) == Memory((seen(A, "mixed"), seen(B, "untrusted")), whole=True, version=2)


def test_as_many_are_kept_as_there_is_room_for_in_their_order(store: Store) -> None:
    """Those that are there already take none."""
    recorded(store, remembering(seen(A)))
    recorded(store, remembering(seen(D), seen(A, "mixed"), seen(C), seen(B), most=3))
    found = recall(store)
    assert [one.fingerprint for one in found.glimpses] == [A, C, D]
    assert not found.whole


def test_a_grant_whose_facts_never_came_makes_it_not_whole(store: Store) -> None:
    """While it is open nothing is missing; an ending that is known and has its facts owes nothing."""
    for call in ("lost", "told"):
        grant = granted(call)
        held = Reserve(PENDING, call, 1, UNBOUNDED, WINDOW, held=True)
        recorded(store, replace(grant, effects=(*grant.effects, held)))
    assert recall(store).whole
    recorded(store, replace(ended("told"), effects=(CloseGrant("told", told=True),)))
    assert recall(store).whole
    recorded(store, ended("lost", Kind.UNKNOWN))
    assert not recall(store).whole
    assert store.recall(TENANT, MEMORY, "pending/another", ALL).whole
    pass_time(store, NOW + WINDOW)
    assert recall(store).whole


def test_tenants_and_memories_do_not_touch(store: Store) -> None:
    """A memory of the same name in another tenant is another memory."""
    recorded(store, remembering(seen(A)), remembering(seen(B), tenant="elsewhere"))
    assert recall(store).glimpses == (seen(A),)
    assert recall(store, tenant="elsewhere").glimpses == (seen(B),)
    assert store.recall(TENANT, "another", PENDING, ALL) == Memory((), whole=True, version=0)


def test_whatever_a_server_calls_its_fields_is_kept(store: Store) -> None:
    """NUL, half characters and texts without end harm nothing; two long names stay two."""
    ugly = [seen(A, source="tool:\0", field="/\ud800"), seen(B, field="/" + "x" * 10**6)]
    long = [seen(C, source="resource:" + "y" * 10_000 + end) for end in "ab"]
    recorded(store, remembering(*ugly, *long))
    found = recall(store).glimpses
    assert [(one.source, one.field) for one in found[:1]] == [("tool:?", "/?")]
    assert len(found) == 4
    assert len({one.source for one in found[2:]}) == 2
    assert all(len(one.source) <= 256 and len(one.field) <= 256 for one in found)


def test_more_than_one_statement_can_ask_for_is_found(store: Store) -> None:
    """A call with thousands of values is asked about in parts, a result remembered whole."""
    many = [n.to_bytes(16, "big") for n in range(1, 2 * memories.MAX_ASKED + 2)]
    recorded(store, remembering(*(seen(one) for one in many), most=len(many)))
    found = recall(store, *reversed(many), A)
    assert [one.fingerprint for one in found.glimpses] == many
    assert found.whole


def test_rows_that_faded_go_by_and_by(store: Store, where: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the memory that is added to, and of one that nobody asks for any more; so many in one commit."""
    monkeypatch.setattr(memories, "MAX_FORGOTTEN", 3)
    monkeypatch.setattr("guard.lineage.postgres.memories.MAX_FORGOTTEN", 3)
    old = [n.to_bytes(16, "big") for n in range(1, 9)]
    idle = Remember("memory/idle", tuple(seen(one) for one in old), WINDOW, 100)
    recorded(store, remembering(*(seen(one) for one in old)), replace(remembering(), effects=(idle,)))
    counts = []
    for step in range(4):
        late = NOW + 10 * WINDOW
        pass_time(store, late)
        recorded(store, remembering(seen(A, source=f"tool:s/{step}"), now=late))
        rows = [row[1] for row in dump(where)["seen"]]
        counts.append((rows.count(MEMORY), rows.count("memory/idle")))
    assert counts == [(5, 5), (2, 2), (3, 0), (4, 0)]


def _hammer(where: Where, name: str, barrier: Barrier, results: Any) -> None:
    with closing(open_store(where)) as store:
        barrier.wait()
        for n in range(16):
            mine = seen(f"{name}{n:014}".encode(), source=f"tool:{name}/x")
            ours = seen(A, "untrusted" if (name, n) == ("p2", 7) else "trusted")
            recorded(store, remembering(mine, ours, most=50))
        results.put(name)


def test_processes_at_once_lose_nothing_and_overfill_nothing(
    store: Store, where: Where, opener: Callable[[], Store]
) -> None:
    """Four processes, 16 each, room for 50: 50 rows, the least trusted of them, and not whole."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_hammer, args=(where, f"p{n}", barrier, results)) for n in range(4)]
    for worker in workers:
        worker.start()
    assert sorted(results.get(timeout=60) for _ in workers) == ["p0", "p1", "p2", "p3"]
    for worker in workers:
        worker.join()
    with closing(opener()) as fresh:
        assert recall(fresh, A) == Memory((seen(A, "untrusted"),), whole=False, version=64)
    found = dump(where)
    assert len(found["seen"]) == 50
    assert [row[3] for row in found["memories"]] == [50]

"""Denials that are counted: so many of them contain, in the transaction that records the last one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from guard.lineage.audit import readable
from guard.lineage.effects import principal_target
from guard.lineage.entry import Kind
from guard.lineage.postgres.connection import Address
from guard.lineage.store import (
    CONTAINMENT,
    Contain,
    Moved,
    Release,
    Reserve,
    Store,
    Strike,
    Transaction,
)
from tests.lineage.lineages import (
    HOUSE,
    NOW,
    TENANT,
    checked,
    granted,
    house,
    open_store,
    place,
    placed,
    recorded,
    transaction,
)

WINDOW = 60_000
ALICE = principal_target("launch", "alice")
Where = Path | Address


def denied(call: str, *, most: int = 3, kind: str = "conversation", **given: Any) -> Transaction:
    target = ALICE if kind == "principal" else ""
    strike = Strike(f"denials/{kind}", call, most, WINDOW, kind, target)
    return transaction(Kind.DENIED, call, strike, **given)


def contained(store: Store) -> list[tuple[str, str]]:
    return [(row["kind"], row["target"]) for row in store.contained(TENANT)]


def conversation(store: Store, given: str = "talk") -> str:
    (found,) = [row.id for row in store.conversations() if row.given == given]
    return found


def entries(where: Where, store: Store) -> list[dict[str, Any]]:
    if isinstance(where, Address):
        placed(where)
    return [readable(row) for row in store.entries()]


def test_so_many_denials_contain_the_conversation(store: Store, where: Where) -> None:
    """With the last of them, at once; and the version that decisions rest on moves."""
    recorded(store, denied("one"), denied("two"))
    assert contained(store) == []
    assert store.versions(TENANT) == {}
    recorded(store, denied("three"))
    assert contained(store) == [("conversation", conversation(store))]
    assert store.versions(TENANT) == {CONTAINMENT: 1}
    assert checked(where).findings == []


def test_the_entry_that_follows_says_why(store: Store, where: Where) -> None:
    """In the house's conversation, as a person's containment does: what, since which call, how many."""
    recorded(store, *(denied(f"call-{n}") for n in range(3)))
    last = entries(where, store)[-1]
    assert (last["kind"], last["call"]) == (Kind.CONTAINED, "call-2")
    target = conversation(store)
    assert last["fields"] == {"kind": "conversation", "target": target, "denials": 3, "window": WINDOW}
    assert [row.source for row in store.conversations() if row.id == last["conversation"]] == ["house"]


def test_a_principal_is_contained_across_its_conversations(store: Store) -> None:
    """The counter says over what is counted, the effect what is contained."""
    for n, given in enumerate(("a", "b", "c")):
        recorded(store, denied(f"call-{n}", kind="principal", where=place(given)))
    assert contained(store) == [("principal", ALICE)]


def test_a_grant_that_was_decided_before_is_not_taken_after(store: Store) -> None:
    """In the same batch, too: the containment is between them."""
    recorded(store, denied("one"), denied("two"))
    grant = granted("late", expects={CONTAINMENT: 0})
    assert store.apply([denied("three"), grant])[1] == Moved(CONTAINMENT)


def test_denials_that_left_the_window_do_not_count(store: Store) -> None:
    """The window slides: one millisecond decides."""
    recorded(store, denied("one"), denied("two"))
    recorded(store, denied("three", now=NOW + WINDOW))
    assert contained(store) == []
    recorded(store, denied("four", now=NOW + WINDOW), denied("five", now=NOW + 2 * WINDOW - 1))
    assert len(contained(store)) == 1


def test_after_a_release_the_count_begins_anew(store: Store) -> None:
    """And while it is contained nothing is counted, and nothing moves."""
    recorded(store, *(denied(f"call-{n}") for n in range(3)))
    recorded(store, *(denied(f"more-{n}") for n in range(7)))
    assert store.versions(TENANT) == {CONTAINMENT: 1}
    recorded(store, house(Kind.RELEASED, Release("conversation", conversation(store))))
    recorded(store, denied("again"), denied("and again"))
    assert contained(store) == []
    recorded(store, denied("enough"))
    assert len(contained(store)) == 1
    assert store.versions(TENANT) == {CONTAINMENT: 3}


def test_one_batch_of_denials_contains_once(store: Store, where: Where) -> None:
    """64 at once: one containment, one entry of it, and each denial has its own."""
    recorded(store, *(denied(f"call-{n}") for n in range(64)))
    kinds = [entry["kind"] for entry in entries(where, store)]
    assert (kinds.count("denied"), kinds.count("contained")) == (64, 1)
    assert store.versions(TENANT) == {CONTAINMENT: 1}


def test_a_new_conversation_may_be_contained_by_its_first_denial(store: Store) -> None:
    """It is opened, contained and told in one transaction."""
    recorded(store, denied("one", most=1))
    assert contained(store) == [("conversation", conversation(store))]


def test_two_counts_in_one_denial(store: Store) -> None:
    """The conversation's and the principal's: each contains on its own."""
    for n in range(3):
        one = denied(f"call-{n}", most=2)
        both = (*one.effects, *denied(f"call-{n}", kind="principal").effects)
        recorded(store, Transaction(one.place, one.entry, NOW, effects=both))
    assert contained(store) == [("conversation", conversation(store)), ("principal", ALICE)]


def test_the_house_is_never_contained(store: Store) -> None:
    """A denial that stands there, since its conversation is sealed, contains nothing."""
    recorded(store, *(denied(f"call-{n}", most=1, where=HOUSE) for n in range(3)))
    assert contained(store) == []


def test_tenants_do_not_strike_each_other(store: Store) -> None:
    """A counter of the same name in another tenant is another counter."""
    elsewhere = place(tenant="elsewhere")
    recorded(store, denied("one"), denied("two"), denied("three", where=elsewhere))
    assert (contained(store), store.contained("elsewhere")) == ([], [])


def test_other_counters_stay_as_they_were(store: Store) -> None:
    """The count begins anew, and no other."""
    recorded(store, transaction(Kind.DENIED, "x", Reserve("other", "x", 1, 9, WINDOW)))
    recorded(store, *(denied(f"call-{n}") for n in range(3)))
    assert store.used(TENANT, [("other", 0), ("denials/conversation", 0)]) == [1, 0]


def _hammer(where: Where, name: str, barrier: Barrier, results: Any) -> None:
    with closing(open_store(where)) as store:
        barrier.wait()
        for n in range(16):
            recorded(store, denied(f"{name}-{n}", most=20))
        results.put(name)


def test_processes_at_once_count_each_denial(store: Store, where: Where, opener: Callable[[], Store]) -> None:
    """Four processes, 16 denials each, 20 contain: once, since nothing is counted afterwards."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_hammer, args=(where, f"p{n}", barrier, results)) for n in range(4)]
    for worker in workers:
        worker.start()
    assert sorted(results.get(timeout=60) for _ in workers) == ["p0", "p1", "p2", "p3"]
    for worker in workers:
        worker.join()
    with closing(opener()) as fresh:
        assert fresh.versions(TENANT) == {CONTAINMENT: 1}
        kinds = [entry["kind"] for entry in entries(where, fresh)]
    assert (kinds.count("denied"), kinds.count("contained"), kinds.index("contained")) == (64, 1, 20)


def test_what_a_person_contained_is_not_contained_again(store: Store) -> None:
    """`guard contain` was first: denials of it move nothing."""
    recorded(store, house(Kind.CONTAINED, Contain("principal", ALICE)))
    recorded(store, *(denied(f"call-{n}", kind="principal") for n in range(5)))
    assert store.versions(TENANT) == {CONTAINMENT: 1}

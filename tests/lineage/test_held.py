"""What a grant holds while it is open, what is only looked at, and what is only noted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from guard.core.model import UNBOUNDED
from guard.lineage.entry import Kind
from guard.lineage.store import CloseGrant, Conflict, Moved, Recorded, Reserve, Store, Transaction
from tests.lineage.lineages import NOW, TENANT, ended, granted, recorded

WINDOW = 60_000
COUNTER = "at-once/counter"


def holding(call: str, *, amount: int = 1, most: int = 3, held: bool = True, **given: Any) -> Transaction:
    """A grant that takes a place while it is open."""
    grant = granted(call, **given)
    return replace(grant, effects=(*grant.effects, Reserve(COUNTER, call, amount, most, WINDOW, held)))


def ending(call: str, kind: Kind = Kind.RETURNED, **how: Any) -> Transaction:
    return replace(ended(call, kind), effects=(CloseGrant(call, **how),))


def used(store: Store, counter: str = COUNTER) -> int:
    return store.used(TENANT, [(counter, NOW - WINDOW)])[0]


def test_64_at_once_hold_no_more_places_than_there_are(store: Store) -> None:
    """Concurrency is a counter like any other: in one batch, and in the next."""
    outcomes = store.apply([holding(f"call-{n}") for n in range(64)])
    assert [type(outcome) for outcome in outcomes] == [Recorded] * 3 + [Moved] * 61
    assert store.apply([holding("late")]) == [Moved(COUNTER)]


def test_an_ending_that_is_known_gives_back_what_was_held_and_nothing_else(store: Store) -> None:
    """The place is free; what was counted stays counted."""
    both = holding("one")
    counted = Reserve("day/counter", "one", 5, 10, WINDOW)
    recorded(store, replace(both, effects=(*both.effects, counted)))
    recorded(store, ending("one", known=True))
    assert (used(store), used(store, "day/counter")) == (0, 5)


def test_an_ending_that_is_not_known_keeps_its_place_until_the_window_has_passed(store: Store) -> None:
    """Nobody knows whether it still runs."""
    recorded(store, *(holding(f"call-{n}") for n in range(3)))
    recorded(store, ending("call-0", Kind.UNKNOWN))
    assert used(store) == 3
    assert store.apply([holding("next", now=NOW + WINDOW - 1)]) == [Moved(COUNTER)]
    recorded(store, holding("next", now=NOW + WINDOW))


def test_a_place_that_is_free_again_is_free_in_the_same_batch(store: Store) -> None:
    """One after the other, as if each had a commit of its own; whether it was committed before or not."""
    recorded(store, holding("old", most=1))
    batch = [
        ending("old", known=True),
        holding("one", most=1),
        holding("two", most=1),
        ending("one", known=True),
        holding("three", most=1),
    ]
    expected = [Recorded, Recorded, Moved, Recorded, Recorded]
    assert [type(outcome) for outcome in store.apply(batch)] == expected
    assert used(store) == 1


def test_what_was_not_sent_gives_back_all(store: Store) -> None:
    """Held or not, and whatever else the ending says."""
    grant = holding("one")
    counted = Reserve("day/counter", "one", 5, 10, WINDOW)
    recorded(store, replace(grant, effects=(*grant.effects, counted)))
    recorded(store, ending("one", Kind.FAILED, nothing_sent=True, known=True))
    assert (used(store), used(store, "day/counter")) == (0, 0)


@pytest.mark.parametrize("in_one_batch", [True, False])
@pytest.mark.parametrize(
    ("how", "left"),
    [
        ({}, (1, 1, 1)),
        ({"known": True}, (0, 1, 1)),
        ({"told": True}, (1, 0, 1)),
        ({"known": True, "told": True}, (0, 0, 1)),
        ({"nothing_sent": True}, (0, 0, 0)),
    ],
)
def test_an_ending_frees_what_it_says(
    store: Store, how: dict[str, bool], left: tuple[int, ...], *, in_one_batch: bool
) -> None:
    """Known frees the place, told what its facts were owed for; and what was counted only nothing sent."""
    grant = holding("one")
    pending = Reserve("pending/m", "one", 1, UNBOUNDED, WINDOW, held=True)
    counted = Reserve("pending/counted", "one", 1, 9, WINDOW)
    grant = replace(grant, effects=(*grant.effects, pending, counted))
    end = ending("one", Kind.UNKNOWN, **how)
    if in_one_batch:
        recorded(store, grant, end)
    else:
        recorded(store, grant)
        recorded(store, end)
    assert tuple(used(store, name) for name in (COUNTER, "pending/m", "pending/counted")) == left
    full = holding("two", most=1)
    assert isinstance(store.apply([full])[0], Recorded if left[0] == 0 else Moved)


def test_what_is_taken_twice_and_once_not_held_stays(store: Store) -> None:
    """Two rules over one counter: the stricter one holds."""
    twice = holding("one")
    twice = replace(twice, effects=(*twice.effects, Reserve(COUNTER, "one", 1, 3, WINDOW)))
    recorded(store, twice)
    recorded(store, ending("one", known=True))
    assert used(store) == 2


def test_nothing_is_given_back_by_an_ending_that_cannot_be(store: Store) -> None:
    """A second ending frees no place."""
    recorded(store, holding("one"), holding("two"), ending("one", known=True))
    (again,) = store.apply([ending("one", known=True)])
    assert isinstance(again, Conflict)
    assert used(store) == 1


def test_to_look_takes_nothing_and_asks_for_room(store: Store) -> None:
    """An amount of 0: as many as like may look, and none beyond what there may be."""
    recorded(store, holding("one", most=0, amount=0))
    assert used(store) == 0
    recorded(store, holding("two", most=5, amount=3))
    recorded(store, holding("three", most=3, amount=0))
    assert store.apply([holding("four", most=2, amount=0)]) == [Moved(COUNTER)]


def test_what_is_only_noted_is_noted_beyond_any_number(store: Store) -> None:
    """UNBOUNDED: there is always room, and others see how much it is."""
    recorded(store, *(holding(f"call-{n}", amount=2**40, most=UNBOUNDED, held=False) for n in range(9)))
    assert used(store) == 9 * 2**40
    assert store.apply([holding("bound", most=10)]) == [Moved(COUNTER)]
    recorded(store, holding("more", most=UNBOUNDED))


def test_a_note_in_an_ending_outlives_what_the_ending_gives_back(store: Store) -> None:
    """A mark of a good return is not held, whatever order the effects have."""
    note = Reserve("mark/counter", "one", 1, UNBOUNDED, WINDOW)
    for call, order in (("one", 1), ("two", -1)):
        recorded(store, holding(call))
        effects = (CloseGrant(call, known=True), replace(note, call=call))[::order]
        recorded(store, replace(ended(call), effects=effects))
    assert (used(store), used(store, "mark/counter")) == (0, 2)


def test_an_ending_with_a_note_is_recorded_whatever_the_clock_says(store: Store) -> None:
    """A clock that is ahead grants nothing; what was granted still ends."""
    recorded(store, holding("one"))
    note = Reserve("mark/counter", "one", 1, UNBOUNDED, WINDOW)
    far = 4_000_000_000_000
    recorded(store, replace(ended("one", now=far), effects=(CloseGrant("one", known=True), note)))
    assert used(store, "mark/counter") == 1


def test_what_others_noted_a_moment_ago_is_seen(store: Store, opener: Callable[[], Store]) -> None:
    """A sequence rule: a send is refused as soon as a secret was granted, by whichever writer."""
    with closing(opener()) as other:
        recorded(store, holding("look", most=0, amount=0))
        recorded(other, holding("note", most=UNBOUNDED, held=False))
        assert store.apply([holding("look again", most=0, amount=0)]) == [Moved(COUNTER)]

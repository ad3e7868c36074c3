"""What was taken from counters, in the shared store: what one commit found, takes and gives back.

Whoever draws on a counter holds its lock, so the sums that were read stand until the commit. What is given
back frees room at once in the same commit; in another it may be seen a moment later, never too early.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from guard.lineage.postgres.needs import Found
from guard.lineage.store import Reserve

MAX_FORGOTTEN: Final = 1000
"""How many lapsed rows one commit deletes: more than it can add, and never a long pause."""
LATE: Final = 60_000
"""Milliseconds that a lapsed row stays: clocks differ, and no other replica may still count it."""

_GIVEN_BACK: Final = (
    "DELETE FROM reservations r USING unnest(%s::text[], %s::text[]) AS ended (tenant, call)"
    " WHERE r.tenant = ended.tenant AND r.call = ended.call"
)
_TAKEN: Final = (
    "INSERT INTO reservations AS r (tenant, counter, at, call, amount, until)"
    " SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[])"
    " ON CONFLICT (tenant, counter, at, call) DO UPDATE"
    " SET amount = r.amount + excluded.amount, until = GREATEST(r.until, excluded.until)"
)
_FORGOTTEN: Final = (
    "DELETE FROM reservations WHERE ctid = ANY (ARRAY(SELECT r.ctid"
    " FROM unnest(%s::bigint[], %s::integer[]) AS past (at, most), LATERAL (SELECT ctid FROM reservations"
    " WHERE until <= past.at LIMIT past.most FOR UPDATE SKIP LOCKED) AS r))"
)
_Row = tuple[str, str, int, str]
"""Tenant, counter, time and grant."""


class Counters:
    """The counters of one commit.

    Args:
        found: what stands.
    """

    def __init__(self, found: Found) -> None:
        self._found = found.taken
        self._at = 0
        self._standing = {
            (tenant, counter, at, call): amount for tenant, counter, call, at, amount in found.given_back
        }
        self._given_back: set[tuple[str, str]] = set()
        self._freed: dict[tuple[str, str], list[tuple[int, int]]] = {}
        self._taken: dict[_Row, tuple[int, int]] = {}
        self._before: dict[_Row, tuple[int, int]] = {}

    def next(self, count: int) -> list[tuple[int, int]]:
        """What was found for the next so many Reserves of the batch: each counter's newest time, and sum."""
        found = self._found[self._at : self._at + count]
        self._at += count
        return found

    def full(self, tenant: str, wanted: Sequence[Reserve], found: Sequence[tuple[int, int]], at: int) -> str:
        """The first counter without room for what one transaction wants, "" if all have.

        What was found counts from a time that is not after `at - window`: never too little.
        """
        together: dict[str, int] = {}
        for one, (_, stood) in zip(wanted, found, strict=True):
            amount = together[one.counter] = together.get(one.counter, 0) + one.amount
            since = at - one.window
            own = sum(
                taken
                for rows in (self._before, self._taken)
                for (owner, counter, when, _), (taken, _) in rows.items()
                if (owner, counter) == (tenant, one.counter) and when > since
            )
            freed = sum(taken for when, taken in self._freed.get((tenant, one.counter), ()) if when > since)
            if stood + own - freed + amount > one.most:
                return one.counter
        return ""

    def take(self, tenant: str, wanted: Reserve, at: int) -> None:
        """Take what there is room for. `at` is UNIX milliseconds."""
        row = (tenant, wanted.counter, at, wanted.call)
        amount, until = self._taken.get(row, (0, 0))
        self._taken[row] = (amount + wanted.amount, max(until, at + wanted.window))

    def give_back(self, tenant: str, call: str) -> None:
        """A grant came to nothing: what it took was not used."""
        for rows in (self._taken, self._before):
            for row in [row for row in rows if (row[0], row[3]) == (tenant, call)]:
                del rows[row]
        for row in [row for row in self._standing if (row[0], row[3]) == (tenant, call)]:
            self._freed.setdefault(row[:2], []).append((row[2], self._standing.pop(row)))
        self._given_back.add((tenant, call))

    def statements(self, last: int) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
        """What is to be written, in this order. `last` is UNIX milliseconds of the newest entry."""
        yield _GIVEN_BACK, sorted(self._given_back)
        yield _TAKEN, sorted((*row, *taken) for row, taken in self._taken.items())
        yield _FORGOTTEN, [(last - LATE, MAX_FORGOTTEN)] if self._taken else []

    def written(self) -> None:
        """What was to be written is; it still counts."""
        self._before |= self._taken
        self._taken, self._given_back = {}, set()

"""What was taken from counters, in the shared store: what one commit found, takes and gives back.

Whoever draws on a counter holds its lock, so the sums that were read stand until the commit. What is given
back frees room at once in the same commit; in another it may be seen a moment later, never too early.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from guard.lineage.postgres.needs import Found
from guard.lineage.transaction import PENDING, CloseGrant, Reserve, Strike

MAX_FORGOTTEN: Final = 1000
"""How many lapsed rows one commit deletes: more than it can add, and never a long pause."""
LATE: Final = 60_000
"""Milliseconds that a lapsed row stays: clocks differ, and no other replica may still count it."""

_GIVEN_BACK: Final = (
    "DELETE FROM reservations r USING unnest(%s::text[], %s::text[], %s::boolean[],"  # noqa: S608 - constants
    " %s::boolean[], %s::boolean[]) AS ended (tenant, call, whole, known, told)"
    " WHERE r.tenant = ended.tenant AND r.call = ended.call AND (ended.whole OR (r.held AND"
    f" CASE WHEN starts_with(r.counter, '{PENDING}') THEN ended.told ELSE ended.known END))"
)
_CLEARED: Final = (
    "DELETE FROM reservations r USING unnest(%s::text[], %s::text[]) AS cleared (tenant, counter)"
    " WHERE r.tenant = cleared.tenant AND r.counter = cleared.counter"
)
_TAKEN: Final = (
    "INSERT INTO reservations AS r (tenant, counter, at, call, amount, until, held)"
    " SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[],"
    " %s::boolean[]) ON CONFLICT (tenant, counter, at, call) DO UPDATE"
    " SET amount = r.amount + excluded.amount, until = GREATEST(r.until, excluded.until),"
    " held = r.held AND excluded.held"
)
_FORGOTTEN: Final = (
    "DELETE FROM reservations WHERE ctid = ANY (ARRAY(SELECT r.ctid"
    " FROM unnest(%s::bigint[], %s::integer[]) AS past (at, most), LATERAL (SELECT ctid FROM reservations"
    " WHERE until <= past.at LIMIT past.most FOR UPDATE SKIP LOCKED) AS r))"
)
_Row = tuple[str, str, int, str]
"""Tenant, counter, time and grant."""
_Taken = tuple[int, int, bool]
"""Amount, until when it is kept, and whether it is held."""


class Counters:
    """The counters of one commit.

    Args:
        found: what stands.
    """

    def __init__(self, found: Found) -> None:
        self._found = found.taken
        self._at = 0
        self._standing = {
            (tenant, counter, at, call): (amount, 0, held)
            for tenant, counter, call, at, amount, held in found.given_back
        }
        self._ended: dict[tuple[str, str], CloseGrant] = {}
        self._freed: dict[tuple[str, str], list[tuple[int, int]]] = {}
        self._cleared: set[tuple[str, str]] = set()
        self._to_clear: set[tuple[str, str]] = set()
        self._taken: dict[_Row, _Taken] = {}
        self._before: dict[_Row, _Taken] = {}

    def next(self, count: int) -> list[tuple[int, int]]:
        """What was found for the next so many counted effects: each window's earliest end, and sum."""
        found = self._found[self._at : self._at + count]
        self._at += count
        return found

    def full(
        self,
        tenant: str,
        wanted: Sequence[Reserve | Strike],
        found: Sequence[tuple[int, int]],
        at: int,
    ) -> str:
        """The first counter without room for what one transaction wants, "" if all have.

        What was found counts from a time that is not after `at - window`: never too little.
        """
        together: dict[str, int] = {}
        for one, (_, stood) in zip(wanted, found, strict=True):
            if isinstance(one, Reserve):
                amount = together[one.counter] = together.get(one.counter, 0) + one.amount
                if self._stands(tenant, one, stood, at) + amount > one.most:
                    return one.counter
        return ""

    def _stands(self, tenant: str, one: Reserve | Strike, stood: int, at: int) -> int:
        """How much of a counter is taken inside the window, with what this commit did."""
        name, since = (tenant, one.counter), at - one.window
        own = sum(
            taken
            for rows in (self._before, self._taken)
            for (owner, counter, when, _), (taken, _, _) in rows.items()
            if (owner, counter) == name and when > since
        )
        if name in self._cleared:
            return own
        return stood + own - sum(taken for when, taken in self._freed.get(name, ()) if when > since)

    def take(self, tenant: str, wanted: Reserve, at: int) -> None:
        """Take what there is room for. `at` is UNIX milliseconds."""
        row = (tenant, wanted.counter, at, wanted.call)
        amount, until, held = self._taken.get(row, (0, 0, True))
        self._taken[row] = (
            amount + wanted.amount,
            max(until, at + wanted.window),
            held and wanted.held,
        )

    def strike(self, tenant: str, one: Strike, stood: int, at: int) -> bool:
        """Count a denial; whether there are so many now that it contains. The count then begins anew."""
        if self._stands(tenant, one, stood, at) + 1 < one.most:
            self.take(tenant, Reserve(one.counter, one.call, 1, one.most, one.window), at)
            return False
        name = (tenant, one.counter)
        for rows in (self._taken, self._before, self._standing):
            for row in [row for row in rows if row[:2] == name]:
                del rows[row]
        self._cleared.add(name)
        self._to_clear.add(name)
        return True

    def give_back(self, tenant: str, end: CloseGrant) -> None:
        """A grant ended: what the ending frees of what it took."""
        grant = (tenant, end.call)
        for rows in (self._taken, self._before):
            for row in [row for row in rows if (row[0], row[3]) == grant]:
                if end.frees(row[1], held=rows[row][2]):
                    del rows[row]
        for row in [row for row in self._standing if (row[0], row[3]) == grant]:
            if end.frees(row[1], held=self._standing[row][2]):
                self._freed.setdefault(row[:2], []).append((row[2], self._standing.pop(row)[0]))
        self._ended[grant] = end

    def statements(self, last: int) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
        """What is to be written, in this order. `last` is UNIX milliseconds of the newest entry."""
        yield (
            _GIVEN_BACK,
            sorted((*grant, end.nothing_sent, end.known, end.told) for grant, end in self._ended.items()),
        )
        yield _CLEARED, sorted(self._to_clear)
        yield _TAKEN, sorted((*row, *taken) for row, taken in self._taken.items())
        yield _FORGOTTEN, [(last - LATE, MAX_FORGOTTEN)] if self._taken else []

    def written(self) -> None:
        """What was to be written is; it still counts."""
        self._before |= self._taken
        self._taken, self._ended, self._to_clear = {}, {}, set()

"""What was taken from counters, in the embedded store: a row for each grant that took something.

It is added up inside the write transaction, so that what is granted at once cannot overrun a limit. A
counter in one row would not do: a window that slides needs the times, and what is given back needs the
grant.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from guard.core.model import UNBOUNDED
from guard.lineage.transaction import PENDING, CloseGrant, Reserve, Strike

MAX_FORGOTTEN: Final = 1000
"""How many lapsed rows one commit deletes: more than it can add, and never a long pause."""

_TAKEN: Final = (
    "SELECT COALESCE(SUM(amount), 0) FROM reservations WHERE tenant = ? AND counter = ? AND at > ?"
)


def taken(db: sqlite3.Connection, tenant: str, counter: str, since: int) -> int:
    """How much was taken from a counter after a time (UNIX ms)."""
    return int(db.execute(_TAKEN, (tenant, counter, since)).fetchone()[0])


def used(db: sqlite3.Connection, tenant: str, counters: Sequence[tuple[str, int]]) -> list[int]:
    """As `Store.used`."""
    return [taken(db, tenant, counter, since) for counter, since in counters]


def full(db: sqlite3.Connection, tenant: str, wanted: Sequence[Reserve], at: int) -> str:
    """The first counter without room for what one transaction wants, "" if all have."""
    together: dict[str, int] = {}
    for one in wanted:
        amount = together[one.counter] = together.get(one.counter, 0) + one.amount
        if one.most == UNBOUNDED:
            continue
        if taken(db, tenant, one.counter, at - one.window) + amount > one.most:
            return one.counter
    return ""


def take(db: sqlite3.Connection, tenant: str, wanted: Reserve, at: int) -> None:
    """Take what there is room for. `at` is UNIX milliseconds."""
    db.execute(
        "INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " amount = amount + excluded.amount, until = max(until, excluded.until),"
        " held = min(held, excluded.held)",
        (tenant, wanted.counter, at, wanted.call, wanted.amount, at + wanted.window, int(wanted.held)),
    )


def give_back(db: sqlite3.Connection, tenant: str, end: CloseGrant) -> None:
    """A grant ended: what the ending frees of what it took, as `CloseGrant.frees` says."""
    if end.nothing_sent:
        db.execute("DELETE FROM reservations WHERE tenant = ? AND call = ?", (tenant, end.call))
        return
    db.execute(
        "DELETE FROM reservations WHERE tenant = ? AND call = ? AND held = 1"
        " AND iif(substr(counter, 1, ?) = ?, ?, ?)",
        (tenant, end.call, len(PENDING), PENDING, end.told, end.known),
    )


def strike(db: sqlite3.Connection, tenant: str, one: Strike, at: int) -> bool:
    """Count a denial; whether there are so many now that it contains. The count then begins anew."""
    if taken(db, tenant, one.counter, at - one.window) + 1 < one.most:
        take(db, tenant, Reserve(one.counter, one.call, 1, one.most, one.window), at)
        return False
    db.execute("DELETE FROM reservations WHERE tenant = ? AND counter = ?", (tenant, one.counter))
    return True


def forget(db: sqlite3.Connection, at: int) -> None:
    """Delete what has left the window that it was taken under, of whichever counter. `at` is UNIX ms."""
    db.execute(
        "DELETE FROM reservations WHERE (tenant, counter, at, call) IN"
        " (SELECT tenant, counter, at, call FROM reservations WHERE until <= ? LIMIT ?)",
        (at, MAX_FORGOTTEN),
    )

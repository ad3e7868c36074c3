"""Below which ticket nothing can come into the inbox any more.

What was moved is deleted, but as long as anybody holds an older picture (an audit, a backup) the database
keeps the dead rows, and each look at the inbox would walk over all of them. Tickets are drawn in order, by
transactions that hold a lock on the inbox from before the draw to their end. So once every transaction that
held it after a ticket was seen has ended, all lower tickets are either there or never will be.
"""

from __future__ import annotations

import time
from typing import Final

from guard.lineage.postgres.connection import Connection

LOOK: Final = 1.0
"""Seconds between two looks at who may still write."""
_WRITERS: Final = (
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'"
    " AND relation = 'guard.inbox'::regclass"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Floor:
    """What one sequencer knows of it, from its election on.

    Args:
        seconds: between two looks.

    Attributes:
        at: a ticket: it and all below it were moved, or never will be there. 0 for none known.
    """

    def __init__(self, seconds: float = LOOK) -> None:
        self.at = 0
        self._seconds = seconds
        self._next = 0.0
        self._highest = 0
        self._wanted = 0
        self._writers: set[str] = set()

    def look(self, db: Connection) -> int:
        """Before the inbox is read, outside a transaction.

        Returns: a ticket up to which all that will ever be there is there now; 0 where none is known.
        """
        if not self._wanted:
            if self._highest > self.at and time.monotonic() >= self._next:
                self._wanted, self._writers = self._highest, self._writing(db)
            return 0
        if time.monotonic() >= self._next:
            self._writers &= self._writing(db)
        return 0 if self._writers else self._wanted

    def moved(self, tickets: list[int], whole: int, *, all_of_it: bool) -> None:
        """After what was read is committed in its place.

        Args:
            tickets: what was moved, in order.
            whole: what `look` said before it was read.
            all_of_it: whether everything that was there was read.
        """
        self._highest = max([self._highest, *tickets])
        if whole and (all_of_it or tickets[-1] > whole):
            self.at, self._wanted = whole, 0

    def _writing(self, db: Connection) -> set[str]:
        self._next = time.monotonic() + self._seconds
        return {row[0] for row in db.execute(_WRITERS).fetchall()}

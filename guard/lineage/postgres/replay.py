"""Where used artifacts are remembered for every replica: one atomic insert, durable when it returns."""

from __future__ import annotations

from typing import Final

from guard.artifact.replay import Key
from guard.lineage.postgres.reading import Reader

_EVERY: Final = 256
"""After so many inserts what has ended is deleted."""
MAX_FORGOTTEN: Final = 10_000

# What has ended has for the caller and for the database: one replica whose clock is ahead frees nothing.
_ENDED: Final = "LEAST(%s, extract(epoch FROM clock_timestamp())::bigint)"
_INSERT: Final = (
    "INSERT INTO used_jti AS u (verifier, iss, jti, until) VALUES (%s, %s, %s, %s)"  # noqa: S608 - constants
    " ON CONFLICT (verifier, iss, jti) DO UPDATE SET until = excluded.until"
    f" WHERE u.until < {_ENDED} RETURNING 1"
)
_FORGET: Final = (
    "DELETE FROM used_jti WHERE ctid = ANY (ARRAY(SELECT ctid FROM used_jti"  # noqa: S608 - constants
    f" WHERE until < (SELECT {_ENDED}) LIMIT %s FOR UPDATE SKIP LOCKED)) RETURNING 1"
)


class PostgresReplay:
    """As ReplayStore, shared by everything that works with one database.

    Args:
        reader: through which connection. What it raises is a no.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._count = 0

    def insert(self, key: Key, *, until: int, now: int) -> bool:
        """Remember a key until `until` (UNIX seconds). True once, False ever after; atomic.

        Raises:
            Away: nobody knows whether it was remembered; it counts as used.
        """
        if self._count % _EVERY == 0:
            self._reader.rows(_FORGET, now, MAX_FORGOTTEN)
        self._count += 1
        # never asked twice: where the first answer was lost, the second would say that it was used
        with self._reader.asked() as db:
            return db.execute(_INSERT, (*key, until, now)).fetchone() is not None

"""What memories keep of the values that were seen, in the shared store: in one commit, and asked for.

Whoever adds to a memory holds its lock, and locks its row before anything else of it is read or written:
whoever deletes what has faded skips the rows that are locked, so nothing that is seen again is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from guard.lineage.memories import MAX_FORGOTTEN, Kept, kept
from guard.lineage.postgres.connection import Connection
from guard.lineage.postgres.needs import Found
from guard.lineage.postgres.reading import Reader
from guard.lineage.store import Memory
from guard.lineage.transaction import Remember, Unmoved

_MOVED: Final = (
    "INSERT INTO memories AS m (tenant, memory, version, size, lost, until)"
    " VALUES (%(tenant)s, %(memory)s, 1, 0, 0, %(until)s) ON CONFLICT (tenant, memory)"
    " DO UPDATE SET version = m.version + 1, until = GREATEST(m.until, excluded.until)"
)
_FADED: Final = (
    "WITH gone AS (DELETE FROM seen WHERE ctid = ANY (ARRAY(SELECT ctid FROM seen WHERE tenant = %(tenant)s"
    " AND memory = %(memory)s AND until <= %(at)s LIMIT %(faded)s)) RETURNING 1)"
    " UPDATE memories SET size = size - (SELECT count(*) FROM gone)"
    " WHERE tenant = %(tenant)s AND memory = %(memory)s"
)
# All parts of one statement have one picture: what is kept anew is not what was seen again.
_KEPT: Final = (
    "WITH asked AS MATERIALIZED (SELECT * FROM unnest(%(fingerprints)b::bytea[], %(sources)s::text[],"
    " %(trusts)s::smallint[], %(fields)s::text[]) WITH ORDINALITY"
    " AS one (fingerprint, source, trust, field, place)),"
    " fresh AS MATERIALIZED (SELECT a.*, row_number() OVER (ORDER BY a.place) AS number FROM asked a"
    " LEFT JOIN LATERAL (SELECT true AS found FROM seen s WHERE s.tenant = %(tenant)s"
    " AND s.memory = %(memory)s AND s.fingerprint = a.fingerprint AND s.source = a.source) AS s ON true"
    " WHERE s.found IS NULL),"
    " kept AS (INSERT INTO seen (tenant, memory, fingerprint, source, trust, field, until)"
    " SELECT %(tenant)s, %(memory)s, f.fingerprint, f.source, f.trust, f.field, %(until)s FROM fresh f"
    " WHERE f.number <= %(most)s - (SELECT size FROM memories WHERE tenant = %(tenant)s"
    " AND memory = %(memory)s) RETURNING 1),"
    " again AS (UPDATE seen s SET"
    " field = CASE WHEN s.until <= %(at)s OR a.trust < s.trust THEN a.field ELSE s.field END,"
    " trust = CASE WHEN s.until <= %(at)s THEN a.trust ELSE LEAST(s.trust, a.trust) END,"
    " until = GREATEST(s.until, %(until)s) FROM asked a WHERE s.tenant = %(tenant)s"
    " AND s.memory = %(memory)s AND s.fingerprint = a.fingerprint AND s.source = a.source)"
    " UPDATE memories SET size = size + (SELECT count(*) FROM kept), lost = CASE"
    " WHEN (SELECT count(*) FROM fresh) > (SELECT count(*) FROM kept) THEN GREATEST(lost, %(until)s)"
    " ELSE lost END WHERE tenant = %(tenant)s AND memory = %(memory)s"
)
_OVER: Final = (
    "WITH over AS MATERIALIZED (SELECT tenant, memory FROM memories WHERE until <= %(at)s AND size > 0"
    " LIMIT 1 FOR UPDATE SKIP LOCKED),"
    " gone AS (DELETE FROM seen WHERE ctid = ANY (ARRAY(SELECT s.ctid FROM over o JOIN seen s"
    " ON s.tenant = o.tenant AND s.memory = o.memory AND s.until <= %(at)s LIMIT %(faded)s)) RETURNING 1)"
    " UPDATE memories m SET size = m.size - (SELECT count(*) FROM gone) FROM over o"
    " WHERE m.tenant = o.tenant AND m.memory = o.memory"
)
_RECALLED: Final = (
    "WITH stood AS (SELECT GREATEST(%s, COALESCE((SELECT at FROM heads WHERE log = 0), 0)) AS at)"
    " SELECT COALESCE(m.version, 0), COALESCE(m.lost, 0) <= stood.at AND NOT EXISTS"
    " (SELECT FROM reservations r WHERE r.tenant = %s AND r.counter = %s AND r.until > stood.at"
    " AND NOT EXISTS (SELECT FROM open_grants g WHERE g.tenant = r.tenant AND g.call = r.call)),"
    " s.fingerprint, s.source, s.trust, s.field"
    " FROM stood LEFT JOIN memories m ON m.tenant = %s AND m.memory = %s"
    " LEFT JOIN LATERAL (SELECT s.* FROM unnest(%b::bytea[]) AS asked (fingerprint) JOIN seen s"
    " ON s.tenant = m.tenant AND s.memory = m.memory AND s.fingerprint = asked.fingerprint"
    " AND s.until > stood.at) AS s ON true"
)


class Memories:
    """The memories of one commit.

    Args:
        found: what stands.
    """

    def __init__(self, found: Found) -> None:
        self._versions = dict(found.memories)
        self._gathered: list[tuple[str, Remember, list[Kept], int]] = []

    @property
    def waits(self) -> bool:
        """Whether there is something to write."""
        return bool(self._gathered)

    def is_at(self, tenant: str, effect: Unmoved) -> bool:
        """Whether the memory is at this version still."""
        return self._versions.get((tenant, effect.memory), 0) == effect.version

    def remember(self, tenant: str, effect: Remember, at: int) -> None:
        """Keep what there is room for, and move the version. `at` is UNIX milliseconds."""
        if fresh := kept(effect.glimpses):
            owner = (tenant, effect.memory)
            self._versions[owner] = self._versions.get(owner, 0) + 1
            self._gathered.append((tenant, effect, fresh, at))

    def write(self, db: Connection, late: int) -> None:
        """In a pipeline, after all else but what is told. `late`: what ended by then is over (UNIX ms)."""
        if not self._gathered:
            return
        for tenant, effect, fresh, at in sorted(self._gathered, key=lambda one: (one[0], one[1].memory)):
            values = {
                "tenant": tenant,
                "memory": effect.memory,
                "at": at,
                "until": at + effect.window,
                "most": effect.most,
                "faded": len(fresh) + MAX_FORGOTTEN,
                "fingerprints": [one.fingerprint for one in fresh],
                "sources": [one.source for one in fresh],
                "trusts": [one.trust for one in fresh],
                "fields": [one.field for one in fresh],
            }
            for statement in (_MOVED, _FADED, _KEPT):
                db.execute(statement, values)
        db.execute(_OVER, {"at": late, "faded": MAX_FORGOTTEN})
        self._gathered = []


def recall(
    reader: Reader, last: int, owner: tuple[str, str], pending: str, fingerprints: Sequence[bytes]
) -> Memory:
    """As `Store.recall`: one statement, one picture.

    Args:
        last: UNIX milliseconds of the newest entry that this process knows of.
        owner: tenant and memory.

    Raises:
        Away: the database cannot be reached.
    """
    asked = list(dict.fromkeys(fingerprints))
    rows = reader.rows(_RECALLED, last, owner[0], pending, *owner, asked)
    version, whole = rows[0][:2]
    found = sorted(Kept(bytes(row[2]), *row[3:]) for row in rows if row[2] is not None)
    return Memory(tuple(one.glimpse() for one in found), bool(whole), int(version))

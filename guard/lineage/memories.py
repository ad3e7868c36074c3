"""What memories keep of the values that were seen, in the embedded store: a row a fingerprint and source.

A row that has left its window counts for nothing, deleted or not. What is deleted in one commit is bounded.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from guard.lineage.rows import LOG
from guard.lineage.store import Memory
from guard.lineage.transaction import Glimpse, Remember

MAX_FORGOTTEN: Final = 1000
"""How many faded rows one commit deletes beside those that it needs the room of."""
MAX_ASKED: Final = 500
"""How many fingerprints one statement asks for."""
MAX_TEXT: Final = 256
"""Characters of a source or field that are kept as they are."""
TRUSTS: Final = ("untrusted", "mixed", "trusted")
"""The least first: as what they are stored."""
_RANKS: Final = {trust: rank for rank, trust in enumerate(TRUSTS)}

_KEEP: Final = "INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?, ?, ?, ?)"
_SEEN_AGAIN: Final = (
    "UPDATE seen SET field = iif(until <= :at OR :trust < trust, :field, field),"
    " trust = iif(until <= :at, :trust, min(trust, :trust)), until = max(until, :until)"
    " WHERE tenant = :tenant AND memory = :memory AND fingerprint = :fingerprint AND source = :source"
)
_RECALLED: Final = (
    "SELECT fingerprint, source, trust, field FROM seen WHERE tenant = ? AND memory = ?"
    " AND until > {} AND fingerprint IN ({})"
)
_FADED: Final = (
    "DELETE FROM seen WHERE (tenant, memory, fingerprint, source) IN (SELECT tenant, memory, fingerprint,"
    " source FROM seen WHERE tenant = ? AND memory = ? AND until <= ? LIMIT ?)"
)


class Kept(NamedTuple):
    """A glimpse as a store keeps it."""

    fingerprint: bytes
    source: str
    trust: int
    field: str

    def glimpse(self) -> Glimpse:
        """As it was told."""
        return Glimpse(self.fingerprint, self.source, TRUSTS[self.trust], self.field)


def kept(glimpses: Iterable[Glimpse]) -> list[Kept]:
    """One for each fingerprint and source, in their order: the least trusted, of equals the first."""
    found: dict[tuple[bytes, str], Kept] = {}
    for one in glimpses:
        source, rank = stored(one.source), _RANKS.get(one.trust, 0)
        key = (one.fingerprint, source)
        if key not in found or rank < found[key].trust:
            found[key] = Kept(one.fingerprint, source, rank, stored(one.field))
    return list(found.values())


def stored(text: str) -> str:
    """A text that came from a server, as any store can hold it: no NUL, no half character, not long."""
    if len(text) > MAX_TEXT:  # two that differ stay two
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        text = f"{text[: MAX_TEXT - len(digest) - 1]}~{digest}"
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def version(db: sqlite3.Connection, tenant: str, memory: str) -> int:
    """The memory's version, 0 for one that never was."""
    row = db.execute("SELECT version FROM memories WHERE tenant = ? AND memory = ?", (tenant, memory))
    return int((row.fetchone() or (0,))[0])


def recall(
    db: sqlite3.Connection, tenant: str, memory: str, pending: str, fingerprints: Sequence[bytes]
) -> Memory:
    """As `Store.recall`. The version is read first: what moves in between makes step 6 start again."""
    owner = (tenant, memory)
    row = db.execute(
        "SELECT version, lost, (SELECT at FROM heads WHERE log = ?) FROM memories"
        " WHERE tenant = ? AND memory = ?",
        (LOG, *owner),
    ).fetchone()
    number, lost, now = row or (0, 0, 0)
    is_owed = db.execute(
        "SELECT 1 FROM reservations r WHERE r.tenant = ? AND r.counter = ?"
        " AND r.until > (SELECT at FROM heads WHERE log = ?) AND NOT EXISTS"
        " (SELECT 1 FROM open_grants g WHERE g.tenant = r.tenant AND g.call = r.call) LIMIT 1",
        (tenant, pending, LOG),
    ).fetchone()
    found = _asked(db, _RECALLED.format(int(now), "{}"), owner, fingerprints)
    glimpses = tuple(Kept(*each).glimpse() for each in sorted(found))
    return Memory(glimpses, lost <= now and is_owed is None, number)


def remember(db: sqlite3.Connection, tenant: str, effect: Remember, at: int) -> None:
    """Keep what there is room for, and move the version. `at` is UNIX milliseconds."""
    owner, fresh = (tenant, effect.memory), kept(effect.glimpses)
    if not fresh:
        return
    row = db.execute("SELECT size FROM memories WHERE tenant = ? AND memory = ?", owner).fetchone()
    size = 0 if row is None else row[0]
    if size:
        size -= db.execute(_FADED, (*owner, at, len(fresh) + MAX_FORGOTTEN)).rowcount
    until, lost = at + effect.window, 0
    if size + len(fresh) > effect.most:
        fresh, lost = _with_room(db, owner, fresh, effect.most - size, until)
    values = [(*owner, *one, until) for one in fresh]
    added = db.executemany(_KEEP, values).rowcount if values else 0
    if added < len(values):
        names = ("tenant", "memory", "fingerprint", "source", "trust", "field", "until")
        again = [dict(zip(names, one, strict=True)) | {"at": at} for one in values]
        db.executemany(_SEEN_AGAIN, again)
    db.execute(
        "INSERT INTO memories VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET version = version + 1,"
        " size = excluded.size, lost = max(lost, excluded.lost), until = max(until, excluded.until)",
        (*owner, size + added, lost, until),
    )


def _with_room(
    db: sqlite3.Connection, owner: tuple[str, str], fresh: list[Kept], room: int, until: int
) -> tuple[list[Kept], int]:
    """Those that have a row, and of the others as many as there is room for; until when it lacks the rest."""
    marks = "SELECT fingerprint, source FROM seen WHERE tenant = ? AND memory = ? AND fingerprint IN ({})"
    stands = {
        (bytes(fingerprint), source)
        for fingerprint, source in _asked(db, marks, owner, [one.fingerprint for one in fresh])
    }
    taken: list[Kept] = []
    lost = 0
    for one in fresh:
        if one[:2] in stands:
            taken.append(one)
        elif room > 0:
            taken.append(one)
            room -= 1
        else:
            lost = until
    return taken, lost


def _asked(
    db: sqlite3.Connection, statement: str, owner: tuple[str, str], fingerprints: Sequence[bytes]
) -> Iterator[tuple[Any, ...]]:
    each = list(dict.fromkeys(fingerprints))
    for some in (each[at : at + MAX_ASKED] for at in range(0, len(each), MAX_ASKED)):
        yield from db.execute(statement.format(", ".join("?" * len(some))), (*owner, *some))


def forget(db: sqlite3.Connection, at: int) -> None:
    """Delete of one memory that is over, whosever it is. `at` is UNIX milliseconds."""
    over = db.execute("SELECT tenant, memory FROM memories WHERE until <= ? AND size > 0 LIMIT 1", (at,))
    if owner := over.fetchone():
        gone = db.execute(_FADED, (*owner, at, MAX_FORGOTTEN)).rowcount
        db.execute("UPDATE memories SET size = size - ? WHERE tenant = ? AND memory = ?", (gone, *owner))

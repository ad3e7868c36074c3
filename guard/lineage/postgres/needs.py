"""What a commit reads before it judges: locks first, then all questions, in one round trip.

Every lock is taken in one order, whatever the transactions: first tenants, then counters, by their keys. A
commit that moves a version holds its tenant's lock alone, any other shares it. PostgreSQL gives each
statement its own picture (READ COMMITTED): what is read after a lock is as new as the lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from guard.core.canonical import canonical
from guard.lineage.batch import HOUSE, Key
from guard.lineage.postgres.connection import Connection
from guard.lineage.store import (
    CloseGrant,
    OpenGrant,
    Place,
    Reserve,
    Transaction,
    UseKey,
)

COMMON: Final = (OpenGrant, CloseGrant, Reserve, UseKey)
"""What every call does. Anything else moves something, or makes a row that must be the only one."""

# One statement for the locks, and for what a lost connection will be asked about.
_LOCKS: Final = (
    "WITH mine AS (INSERT INTO writers (writer, batch, since)"
    " VALUES (%s, %s, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)"
    " ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, since = excluded.since)"
    " SELECT CASE WHEN alone THEN pg_advisory_xact_lock(key) ELSE pg_advisory_xact_lock_shared(key) END"
    " FROM unnest(%s::bigint[], %s::boolean[]) AS wanted (key, alone)"
)
# One statement for what almost every commit asks: each costs as much as what it finds.
_STANDS: Final = (
    "WITH owed AS MATERIALIZED (SELECT g.tenant, g.call, g.conversation"
    " FROM unnest(%s::text[], %s::text[]) AS asked (tenant, call)"
    " JOIN open_grants g ON g.tenant = asked.tenant AND g.call = asked.call"
    " ORDER BY g.tenant, g.call FOR UPDATE OF g)"  # two that end the same grant take turns
    " SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,"
    " COALESCE((SELECT at FROM heads WHERE log = 0), 0),"
    " (SELECT json_agg(json_build_array(tenant, key, version))::text FROM versions"
    " WHERE tenant = ANY(%s::text[])),"
    " (SELECT json_agg(json_build_array(encode(key, 'hex'), id, sealed))::text FROM conversations"
    " WHERE key = ANY(%b::bytea[])),"
    " (SELECT json_agg(json_build_array(tenant, call, conversation))::text FROM owed)"
)
# `at` is never before what the counter holds: a window ends at the newest that was taken from it.
_TAKEN: Final = (
    "SELECT COALESCE(newest.at, 0), (SELECT COALESCE(sum(r.amount), 0)::bigint FROM reservations r"
    " WHERE r.tenant = asked.tenant AND r.counter = asked.counter"
    " AND r.at > GREATEST(asked.at, COALESCE(newest.at, 0)) - asked.span)"
    " FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[]) WITH ORDINALITY"
    " AS asked (tenant, counter, at, span, place)"
    " LEFT JOIN LATERAL (SELECT max(r.at) AS at FROM reservations r WHERE r.tenant = asked.tenant"
    " AND r.counter = asked.counter) AS newest ON true ORDER BY asked.place"
)
_GIVEN_BACK: Final = (
    "SELECT r.tenant, r.counter, r.call, r.at, r.amount"
    " FROM unnest(%s::text[], %s::text[]) AS asked (tenant, call)"
    " JOIN reservations r ON r.tenant = asked.tenant AND r.call = asked.call"
)


@dataclass(slots=True)
class Found:
    """What stands, as of the locks that are held now.

    Attributes:
        now: UNIX milliseconds of the database's clock.
        last: UNIX milliseconds of the newest entry of the log.
        versions: by tenant, of those that were asked for.
        conversations: by key digest: the log's own id, and whether it is closed.
        grants: open ones, by (tenant, call): their conversation.
        taken: for each Reserve of the batch, in order: the newest time of its counter, and what was taken.
        given_back: rows of grants that come to nothing: (tenant, counter, call, at, amount).
    """

    now: int = 0
    last: int = 0
    versions: dict[str, dict[str, int]] = field(default_factory=dict)
    conversations: dict[bytes, tuple[str, bool]] = field(default_factory=dict)
    grants: dict[tuple[str, str], str] = field(default_factory=dict)
    taken: list[tuple[int, int]] = field(default_factory=list)
    given_back: list[tuple[str, str, str, int, int]] = field(default_factory=list)


def lock_key(kind: str, *names: str) -> int:
    """The key of an advisory lock: the first 64 bits of a digest. Two names with one key only wait."""
    digest = hashlib.sha256(canonical([kind, *names])).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def conversation_key(place: Place) -> Key:
    """Whose conversation it is, and which."""
    if place.principal is None or place.conversation is None:
        return (place.tenant, *HOUSE, "")
    return (place.tenant, place.principal.issuer, place.principal.subject, place.conversation.id)


def key_digest(key: Key) -> bytes:
    """What a conversation is found by."""
    return hashlib.sha256(canonical([*key])).digest()


def is_common(transaction: Transaction) -> bool:
    """Whether it does no more than every call does."""
    return all(isinstance(effect, COMMON) for effect in transaction.effects)


def read(
    db: Connection, writer: str, batch_id: bytes, transactions: Sequence[Transaction], last: int
) -> Found:
    """Begin a database transaction, take its locks, and read what the transactions rest on.

    Args:
        writer: who writes.
        batch_id: what its row tells once this is committed.
        last: UNIX milliseconds of the newest entry that this process knows of.
    """
    found = Found()
    tenants = sorted({one.place.tenant for one in transactions if one.expects})
    digests = list({key_digest(conversation_key(one.place)) for one in transactions})
    grants = _columns(_calls(transactions, OpenGrant, CloseGrant)) or [[], []]
    wanted = list(_reserves(transactions, last))
    ended = _calls(transactions, CloseGrant) if wanted else []
    with db.pipeline():
        db.execute("BEGIN")
        db.execute(_LOCKS, (writer, batch_id, *_locks(transactions)))
        stands = db.execute(_STANDS, (*grants, tenants, digests))
        taken = db.execute(_TAKEN, _columns(wanted)) if wanted else None
        given_back = db.execute(_GIVEN_BACK, _columns(ended)) if ended else None
    found.now, found.last, versions, conversations, owed = stands.fetchone() or (0, 0, None, None, None)
    found.versions = {tenant: {} for tenant in tenants}
    for tenant, key, version in _rows(versions):
        found.versions[tenant][key] = version
    found.conversations = {
        bytes.fromhex(key): (id_, sealed != 0) for key, id_, sealed in _rows(conversations)
    }
    found.grants = {(tenant, call): conversation for tenant, call, conversation in _rows(owed)}
    found.taken = taken.fetchall() if taken is not None else []
    found.given_back = given_back.fetchall() if given_back is not None else []
    return found


def _rows(text: str | None) -> list[list[Any]]:
    return orjson.loads(text) if text else []


def _columns(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _calls(transactions: Sequence[Transaction], *kinds: type) -> list[tuple[str, str]]:
    found = {
        (one.place.tenant, effect.call)
        for one in transactions
        for effect in one.effects
        if isinstance(effect, kinds) and isinstance(effect, OpenGrant | CloseGrant)
    }
    return sorted(found)


def _reserves(transactions: Sequence[Transaction], last: int) -> Iterable[tuple[str, str, int, int]]:
    """(tenant, counter, at, window) of every Reserve, in order; `at` is not after what it will be."""
    for one in transactions:
        for effect in one.effects:
            if isinstance(effect, Reserve):
                yield one.place.tenant, effect.counter, max(last, one.now), effect.window


def _locks(transactions: Sequence[Transaction]) -> tuple[list[int], list[bool]]:
    """The keys to lock, in their order, and which of them alone."""
    tenants: dict[int, bool] = {}
    counters: set[int] = set()
    for one in transactions:
        key = lock_key("tenant", one.place.tenant)
        tenants[key] = tenants.get(key, False) or not is_common(one)
        counters |= {
            lock_key("counter", one.place.tenant, effect.counter)
            for effect in one.effects
            if isinstance(effect, Reserve)
        }
    wanted = [*sorted(tenants.items()), *((key, True) for key in sorted(counters - tenants.keys()))]
    return [key for key, _ in wanted], [alone for _, alone in wanted]

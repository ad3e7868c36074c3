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

_LOCKS: Final = (
    "SELECT CASE WHEN alone THEN pg_advisory_xact_lock(key) ELSE pg_advisory_xact_lock_shared(key) END"
    " FROM unnest(%s::bigint[], %s::boolean[]) AS wanted (key, alone)"
)
_MINE: Final = (
    "INSERT INTO writers (writer, batch, since)"
    " VALUES (%s, %s, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)"
    " ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, since = excluded.since"
)
_NOW: Final = (
    "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,"
    " COALESCE((SELECT at FROM heads WHERE log = 0), 0)"
)
_VERSIONS: Final = "SELECT tenant, key, version FROM versions WHERE tenant = ANY(%s::text[])"
_CONVERSATIONS: Final = "SELECT key, id, sealed FROM conversations WHERE key = ANY(%b::bytea[])"
_GRANTS: Final = (
    "SELECT g.tenant, g.call, g.conversation FROM unnest(%s::text[], %s::text[]) AS asked (tenant, call)"
    " JOIN open_grants g ON g.tenant = asked.tenant AND g.call = asked.call"
    " ORDER BY g.tenant, g.call FOR UPDATE OF g"  # two that end the same grant take turns
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
    asked: dict[str, Any] = {}
    with db.pipeline():
        db.execute("BEGIN")
        db.execute(_MINE, (writer, batch_id))
        keys, alone = _locks(transactions)
        db.execute(_LOCKS, (keys, alone))
        now = db.execute(_NOW)
        if tenants := sorted({one.place.tenant for one in transactions if one.expects}):
            found.versions = {tenant: {} for tenant in tenants}
            asked["versions"] = db.execute(_VERSIONS, (tenants,))
        digests = {key_digest(conversation_key(one.place)) for one in transactions}
        conversations = db.execute(_CONVERSATIONS, (list(digests),))
        if grants := _calls(transactions, OpenGrant, CloseGrant):
            asked["grants"] = db.execute(_GRANTS, _columns(grants))
        if wanted := list(_reserves(transactions, last)):
            asked["taken"] = db.execute(_TAKEN, _columns(wanted))
            if ended := _calls(transactions, CloseGrant):
                asked["given_back"] = db.execute(_GIVEN_BACK, _columns(ended))
    found.now, found.last = now.fetchone() or (0, 0)
    found.conversations = {bytes(key): (id_, sealed != 0) for key, id_, sealed in conversations}
    for tenant, key, version in asked.get("versions", ()):
        found.versions[tenant][key] = version
    found.grants = {(tenant, call): conversation for tenant, call, conversation in asked.get("grants", ())}
    found.taken = asked["taken"].fetchall() if "taken" in asked else []
    found.given_back = asked["given_back"].fetchall() if "given_back" in asked else []
    return found


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

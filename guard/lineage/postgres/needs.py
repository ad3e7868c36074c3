"""What a commit reads before it judges: locks first, then all questions, in one round trip.

Every lock is taken in one order, whatever the transactions: first tenants, then counters, memories and
questions, by their keys. A commit that moves a version holds its tenant's lock alone, any other shares it.
Who asks a counter for room, adds to a memory or touches a question holds its lock alone; who only notes
something, or rests on a memory, shares it with those who do the same. PostgreSQL gives each
statement its own picture (READ COMMITTED): what is read after a lock is as new as the lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from guard.core.canonical import canonical
from guard.core.model import UNBOUNDED
from guard.lineage.batch import HOUSE, Key
from guard.lineage.postgres.connection import Connection
from guard.lineage.questions import Stands
from guard.lineage.transaction import (
    AnswerQuestion,
    CloseGrant,
    Effect,
    OpenGrant,
    Place,
    Remember,
    Reserve,
    SaveQuestion,
    Strike,
    Transaction,
    Unmoved,
    UseApproval,
    UseKey,
)

COMMON: Final = (
    *(OpenGrant, CloseGrant, Reserve, UseKey, Strike),
    *(Remember, Unmoved, SaveQuestion, AnswerQuestion, UseApproval),
)
"""What calls do. Anything else moves something, or makes a row that must be the only one."""
PLAIN: Final = (OpenGrant, CloseGrant, UseKey)
"""What needs no lock of its own, and nothing that is not read anyway."""
Questioned = SaveQuestion | AnswerQuestion | UseApproval

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
# A window ends at the newest that was taken from its counter, else now: never later than by the database's
# clock, for a replica that is ahead would miss what stands. What is taken has this time or a later one.
_TAKEN: Final = (
    "SELECT ending.at, (SELECT COALESCE(sum(r.amount), 0)::bigint FROM reservations r"
    " WHERE r.tenant = asked.tenant AND r.counter = asked.counter AND r.at > ending.at - asked.span)"
    " FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[]) WITH ORDINALITY"
    " AS asked (tenant, counter, at, span, place)"
    " CROSS JOIN LATERAL (SELECT GREATEST(max(r.at),"
    " LEAST(asked.at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)) AS at FROM reservations r"
    " WHERE r.tenant = asked.tenant AND r.counter = asked.counter) AS ending ORDER BY asked.place"
)
_GIVEN_BACK: Final = (
    "SELECT r.tenant, r.counter, r.call, r.at, r.amount, r.held"
    " FROM unnest(%s::text[], %s::text[]) AS asked (tenant, call)"
    " JOIN reservations r ON r.tenant = asked.tenant AND r.call = asked.call"
)
_CONTAINED: Final = "SELECT tenant, kind, target FROM contained WHERE tenant = ANY(%s::text[])"
_MEMORIES: Final = (
    "SELECT m.tenant, m.memory, m.version FROM unnest(%s::text[], %s::text[]) AS asked (tenant, memory)"
    " JOIN memories m ON m.tenant = asked.tenant AND m.memory = asked.memory"
)
_QUESTIONS: Final = (
    "SELECT q.tenant, q.id, q.issuer, q.subject, q.approver, q.until, q.state"
    " FROM unnest(%s::text[], %s::text[]) AS asked (tenant, id)"
    " JOIN questions q ON q.tenant = asked.tenant AND q.id = asked.id"
)


class MustBeAlone(Exception):
    """A version of this tenant would move, and its lock is shared. Nothing happened: begin again, alone."""

    def __init__(self, tenant: str) -> None:
        super().__init__(tenant)
        self.tenant = tenant


@dataclass(slots=True)
class Found:
    """What stands, as of the locks that are held now.

    Attributes:
        now: UNIX milliseconds of the database's clock.
        last: UNIX milliseconds of the newest entry of the log.
        versions: by tenant, of those that were asked for.
        conversations: by key digest: the log's own id, and whether it is closed.
        grants: open ones, by (tenant, call): their conversation.
        taken: for each effect of the batch that is `counted`, in order: when its window ends at the
            earliest, and what was taken in the window that ends then.
        given_back: rows of grants that end: (tenant, counter, call, at, amount, held).
        alone: tenants whose lock is held alone.
        contained: what is out of use in tenants where denials are counted: (tenant, kind, target).
        memories: versions by (tenant, memory), of those that were asked for.
        questions: by (tenant, id), of those that were asked for.
    """

    now: int = 0
    last: int = 0
    versions: dict[str, dict[str, int]] = field(default_factory=dict)
    conversations: dict[bytes, tuple[str, bool]] = field(default_factory=dict)
    grants: dict[tuple[str, str], str] = field(default_factory=dict)
    taken: list[tuple[int, int]] = field(default_factory=list)
    given_back: list[tuple[str, str, str, int, int, bool]] = field(default_factory=list)
    alone: frozenset[str] = frozenset()
    contained: set[tuple[str, str, str]] = field(default_factory=set)
    memories: dict[tuple[str, str], int] = field(default_factory=dict)
    questions: dict[tuple[str, str], Stands] = field(default_factory=dict)


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


def special(effects: Iterable[Effect]) -> list[Effect]:
    """Those that are not PLAIN: mostly none."""
    return [effect for effect in effects if not isinstance(effect, PLAIN)]


def counted(effects: Iterable[Effect]) -> list[Reserve | Strike]:
    """The effects that ask how much was taken from a counter, in order. A note asks nothing."""
    return [
        effect
        for effect in effects
        if isinstance(effect, Strike) or (isinstance(effect, Reserve) and effect.most != UNBOUNDED)
    ]


def read(
    db: Connection,
    writer: str,
    batch_id: bytes,
    transactions: Sequence[Transaction],
    *,
    last: int,
    alone: frozenset[str] = frozenset(),
) -> Found:
    """Begin a database transaction, take its locks, and read what the transactions rest on.

    Args:
        writer: who writes.
        batch_id: what its row tells once this is committed.
        last: UNIX milliseconds of the newest entry that this process knows of.
        alone: tenants whose lock must be held alone, whatever the transactions are.
    """
    tenants = sorted({one.place.tenant for one in transactions if one.expects})
    asked = _Asked.of(transactions, last)
    found = Found(alone=alone | {one.place.tenant for one in transactions if not is_common(one)})
    grants = _columns(_calls(transactions, OpenGrant, CloseGrant)) or [[], []]
    with db.pipeline():
        db.execute("BEGIN")
        db.execute(_LOCKS, (writer, batch_id, *_locks(transactions, found.alone)))
        stands = db.execute(_STANDS, (*grants, tenants, list(asked.digests)))
        taken, given_back, contained, memories, questions = (
            db.execute(statement, values) if values else None for statement, values in asked.statements()
        )
    found.now, found.last, versions, conversations, owed = stands.fetchone() or (0, 0, None, None, None)
    found.versions = {tenant: {} for tenant in tenants}
    for tenant, key, version in _rows(versions):
        found.versions[tenant][key] = version
    found.conversations = {
        bytes.fromhex(key): (id_, sealed != 0) for key, id_, sealed in _rows(conversations)
    }
    found.grants = {(tenant, call): conversation for tenant, call, conversation in _rows(owed)}
    found.taken = taken.fetchall() if taken else []
    found.given_back = given_back.fetchall() if given_back else []
    found.contained = set(contained.fetchall()) if contained else set()
    found.memories = {row[:2]: row[2] for row in memories.fetchall()} if memories else {}
    found.questions = {row[:2]: Stands(*row[2:]) for row in questions.fetchall()} if questions else {}
    return found


@dataclass(slots=True)
class _Asked:
    """What is asked for only where transactions need it."""

    digests: set[bytes]
    taken: list[tuple[str, str, int, int]] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)
    contained: set[str] = field(default_factory=set)
    memories: set[tuple[str, str]] = field(default_factory=set)
    questions: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def of(cls, transactions: Sequence[Transaction], last: int) -> _Asked:
        """`at` of what is taken is not after what it will be."""
        asked = cls(
            {key_digest(conversation_key(one.place)) for one in transactions if one.entry is not None}
        )
        for one in transactions:
            for effect in special(one.effects):
                asked._add(one.place.tenant, effect)
                for each in counted([effect]):
                    at = max(last, one.now)
                    asked.taken.append((one.place.tenant, each.counter, at, each.window))
        if asked.taken:
            asked.ended = _calls(transactions, CloseGrant)
        return asked

    def _add(self, tenant: str, effect: Effect) -> None:
        if isinstance(effect, Remember | Unmoved):
            self.memories.add((tenant, effect.memory))
        elif isinstance(effect, Questioned):
            self.questions.add((tenant, effect.id))
        elif isinstance(effect, Strike):
            self.contained.add(tenant)
            self.digests.add(key_digest(conversation_key(Place(tenant))))

    def statements(self) -> Iterator[tuple[str, list[list[Any]]]]:
        """Each with its columns, none where there is nothing to ask."""
        yield _TAKEN, _columns(self.taken)
        yield _GIVEN_BACK, _columns(self.ended)
        yield _CONTAINED, [sorted(self.contained)] if self.contained else []
        yield _MEMORIES, _columns(sorted(self.memories))
        yield _QUESTIONS, _columns(sorted(self.questions))


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


def _locks(transactions: Sequence[Transaction], alone: frozenset[str]) -> tuple[list[int], list[bool]]:
    """The keys to lock, in their order, and which of them alone."""
    tenants: dict[int, bool] = {}
    others: dict[int, bool] = {}
    for one in transactions:
        tenant = one.place.tenant
        tenants[lock_key("tenant", tenant)] = tenant in alone
        for effect in special(one.effects):
            if (wanted := _lock(tenant, effect)) is not None:
                key, is_alone = wanted
                others[key] = others.get(key, False) or is_alone
    wanted_keys = [
        *sorted(tenants.items()),
        *sorted(item for item in others.items() if item[0] not in tenants),
    ]
    return [key for key, _ in wanted_keys], [alone for _, alone in wanted_keys]


def _lock(tenant: str, effect: Effect) -> tuple[int, bool] | None:
    """What an effect locks beside its tenant, and whether alone."""
    if isinstance(effect, Reserve):
        return lock_key("counter", tenant, effect.counter), effect.most != UNBOUNDED
    if isinstance(effect, Strike):
        return lock_key("counter", tenant, effect.counter), True
    if isinstance(effect, Remember | Unmoved):
        return lock_key("memory", tenant, effect.memory), isinstance(effect, Remember)
    if isinstance(effect, Questioned):
        return lock_key("question", tenant, effect.id), True
    return None

"""One commit: what it reads once, and the rows that it writes at its end.

What every call does (an entry, a grant that opens or ends, a key that is used) is gathered and
written in one statement a table. What is rare is written at once, by `effects`.
"""

from __future__ import annotations

import os
import sqlite3
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from guard.core.canonical import b64
from guard.lineage import counters, effects, memories, merkle, questions, strikes
from guard.lineage.entry import GENESIS, Draft, Kind, leaf
from guard.lineage.rows import LOG
from guard.lineage.transaction import (
    AnswerQuestion,
    CloseGrant,
    Conflict,
    Effect,
    Moved,
    OpenGrant,
    Outcome,
    Place,
    Recorded,
    Remember,
    Reserve,
    SaveKey,
    SaveQuestion,
    SaveSetting,
    Seal,
    Strike,
    Transaction,
    Unmoved,
    UseApproval,
    UseKey,
)

HOUSE: Final = ("guard", "house")
"""Issuer and subject of the conversation that holds policies, pins, keys and containments."""
MAX_KNOWN: Final = 4096
"""How many conversations, and how many tenants' versions, the writer remembers."""
NO_ENTRY: Final = "a transaction without an entry can only remember"
_CONVERSATION_BYTES: Final = 12

Key = tuple[str, str, str, str]
"""Tenant, issuer, subject and given id of a conversation."""
Chain = tuple[str, int, bytes, bool]
"""The log's own id of a conversation, its next seq, its newest leaf hash, and whether it is closed."""


class Known:
    """What the writer remembers from one commit to the next, as long as nobody else writes to the file.

    Attributes:
        versions: every version that ever moved, by tenant.
    """

    def __init__(self, most: int = MAX_KNOWN) -> None:
        self.versions: dict[str, Mapping[str, int]] = {}
        self._chains: OrderedDict[Key, Chain] = OrderedDict()
        self._most = most
        self._at: int | None = None

    def begin(self, db: sqlite3.Connection) -> bool:
        """Whether another connection wrote since the last time; what was known is then forgotten.

        To be asked inside a write transaction: until its end nobody else writes.
        """
        if self.is_alone(db):
            return False
        self.forget()
        self._at = _version(db)
        return True

    def is_alone(self, db: sqlite3.Connection) -> bool:
        """Whether no other connection has committed since `begin`."""
        return self._at is not None and _version(db) == self._at

    def chain(self, key: Key) -> Chain | None:
        """What is known of a conversation."""
        return self._chains.get(key)

    def keep(self, chains: Mapping[Key, Chain]) -> None:
        """Remember what was committed; the oldest goes where there is no room."""
        for key, chain in chains.items():
            self._chains[key] = chain
            self._chains.move_to_end(key)
        while len(self._chains) > self._most:
            self._chains.popitem(last=False)
        if len(self.versions) > self._most:
            self.versions.clear()

    def forget(self) -> None:
        """Know nothing: what stands in the file is not known to be what was read."""
        self.versions.clear()
        self._chains.clear()
        self._at = None


class Batch:
    """The transactions of one commit, taken one after the other inside one database transaction.

    Args:
        db: in a write transaction.
        known: what is known of the file; it holds as long as the transaction does.
        frontier: the tree that stands.
        last: UNIX milliseconds of the newest entry.
        transactions: what will be taken.

    Attributes:
        last: UNIX milliseconds of the newest entry, with those that were taken.
        chains: every conversation that grew.
        used: API keys that were used: when, UNIX seconds.
        plain: whether no more happened than what every call does.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        known: Known,
        frontier: merkle.Frontier,
        last: int,
        transactions: Sequence[Transaction],
    ) -> None:
        self.last = last
        self.chains: dict[Key, Chain] = {}
        self.used: dict[str, int] = {}
        self.plain = True
        self._reserved = self._remembered = False
        self._db = db
        self._known = known
        self._frontier = frontier
        self._open = _open_grants(db, transactions)
        self._opened: dict[tuple[str, str], tuple[str, str]] = {}
        self._closed: list[tuple[str, str]] = []
        self._leaves: list[bytes] = []
        self._entries: list[tuple[int, int, str, int, bytes, bytes]] = []
        self._payloads: list[tuple[int, int, bytes]] = []

    def take(self, transaction: Transaction) -> Outcome:
        """Judge one transaction after those before it, and take it unless something is in its way."""
        tenant, at = transaction.place.tenant, max(transaction.now, self.last)
        if transaction.expects:
            versions = self._versions(tenant)
            for key, expected in transaction.expects.items():
                if versions.get(key, 0) != expected:
                    return Moved(key)
        if transaction.entry is None:
            return self._without_entry(transaction, at)
        where = _conversation_key(transaction.place)
        chain = self.chains.get(where) or self._known.chain(where) or self._chain(where)
        if verdict := self._refusal(transaction, where, chain, at):
            return verdict
        chain = chain or self._begun(transaction.place, where, at)
        conversation, index = self._append(where, chain, transaction.entry, at)
        for effect in transaction.effects:
            self._apply(tenant, effect, conversation, at)
        self.last = at
        return Recorded(index, conversation, at)

    def _refusal(
        self, transaction: Transaction, where: Key, chain: Chain | None, at: int
    ) -> Moved | Conflict | None:
        """What is in the way of its effects, None if nothing is."""
        if chain is not None and chain[3]:
            return Conflict(f"the conversation {chain[0]} is sealed")
        tenant = transaction.place.tenant
        wanted: list[Reserve] = []
        rests: list[Unmoved | UseApproval] = []
        for effect in transaction.effects:
            if isinstance(effect, Reserve):
                wanted.append(effect)
            elif isinstance(effect, Unmoved | UseApproval):
                rests.append(effect)
            elif problem := (
                self._cannot_seal(where, chain, effect)
                if isinstance(effect, Seal)
                else self._obstacle(tenant, effect, at)
            ):
                return Conflict(problem)
        for rest in rests:
            if key := self._moved(tenant, rest, at):
                return Moved(key)
        if wanted and (counter := counters.full(self._db, tenant, wanted, at)):
            return Moved(counter)
        return None

    def _without_entry(self, transaction: Transaction, at: int) -> Outcome:
        """Remember, and append nothing: no time passes in the log by it."""
        tenant = transaction.place.tenant
        if not all(isinstance(effect, Remember) for effect in transaction.effects):
            return Conflict(NO_ENTRY)
        for effect in transaction.effects:
            self._apply(tenant, effect, "", at)
        return Recorded(-1, "", at)

    def write(self) -> merkle.Frontier:
        """Write what was gathered. Returns the tree that then stands."""
        many = self._db.executemany
        frontier, nodes = self._frontier.extended(self._leaves)
        if self._reserved:
            counters.forget(self._db, self.last)
        if self._remembered:
            memories.forget(self._db, self.last)
        many("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", self._entries)
        many("INSERT INTO payloads VALUES (?, ?, ?)", self._payloads)
        many("INSERT INTO nodes VALUES (?, ?, ?, ?)", [(LOG, *node) for node in nodes])
        many("DELETE FROM open_grants WHERE tenant = ? AND call = ?", self._closed)
        many(
            "INSERT INTO open_grants VALUES (?, ?, ?, ?)",
            [(*grant, *owed) for grant, owed in self._opened.items()],
        )
        many(
            "UPDATE api_keys SET last_used = ? WHERE key_id = ?",
            [(at, key_id) for key_id, at in self.used.items()],
        )
        many(
            "UPDATE conversations SET entries = ?, head = ? WHERE id = ?",
            [(entries, head, id_) for id_, entries, head, _ in self.chains.values()],
        )
        return frontier

    def _versions(self, tenant: str) -> Mapping[str, int]:
        versions = self._known.versions.get(tenant)
        if versions is None:
            versions = self._known.versions[tenant] = effects.versions(self._db, tenant)
        return versions

    def _moved(self, tenant: str, effect: Unmoved | UseApproval, at: int) -> str:
        """What a decision rested on and is so no more, "" if it is."""
        if isinstance(effect, Unmoved):
            stands = memories.version(self._db, tenant, effect.memory)
            return "" if stands == effect.version else effect.memory
        usable = questions.is_usable(questions.stands(self._db, tenant, effect.id), at)
        return "" if usable else questions.approval_key(effect.id)

    def _obstacle(self, tenant: str, effect: Effect, at: int) -> str:
        """Why an effect cannot be, "" if it can."""
        if isinstance(effect, OpenGrant):
            return f"the grant {effect.call} is open already" if (tenant, effect.call) in self._open else ""
        if isinstance(effect, CloseGrant):
            is_open = (tenant, effect.call) in self._open
            return "" if is_open else f"the grant {effect.call} has its ending already"
        if isinstance(effect, UseKey | Strike | Remember | Reserve | Unmoved | UseApproval):
            return ""
        if isinstance(effect, SaveQuestion | AnswerQuestion):
            return questions.obstacle(effect, questions.stands(self._db, tenant, effect.id), at)
        return effects.obstacle(self._db, tenant, effect)

    def _apply(self, tenant: str, effect: Effect, conversation: str, at: int) -> None:
        """Gather or write an effect whose obstacle was ""."""
        if isinstance(effect, OpenGrant):
            grant = (tenant, effect.call)
            self._open.add(grant)
            self._opened[grant] = (conversation, effect.instance)
        elif isinstance(effect, CloseGrant):
            grant = (tenant, effect.call)
            self._open.discard(grant)
            if self._opened.pop(grant, None) is None:
                self._closed.append(grant)
            if effect.frees_some:
                counters.give_back(self._db, tenant, effect)
        elif isinstance(effect, Reserve):
            if effect.amount:
                counters.take(self._db, tenant, effect, at)
                self._reserved = True
        elif isinstance(effect, UseKey):
            self.used[effect.key_id] = at // 1000
        elif isinstance(effect, Remember):
            memories.remember(self._db, tenant, effect, at)
            self._remembered = True
        elif isinstance(effect, SaveQuestion | AnswerQuestion | UseApproval):
            questions.apply(self._db, tenant, effect, at)
        elif isinstance(effect, Strike):
            self._strike(tenant, effect, conversation, at)
        elif not isinstance(effect, Unmoved):
            self._move(tenant, effect, at)

    def _move(self, tenant: str, effect: effects.Rare, at: int) -> None:
        self.plain = False
        effects.apply(self._db, tenant, effect, at)
        if not isinstance(effect, SaveKey | SaveSetting):
            self._known.versions.pop(tenant, None)

    def _strike(self, tenant: str, effect: Strike, conversation: str, at: int) -> None:
        """Count a denial; and contain if there are enough, with an entry that says why."""
        what, house = strikes.contains(effect, conversation), Place(tenant)
        key = _conversation_key(house)
        chain = self.chains.get(key) or self._known.chain(key) or self._chain(key)
        if (chain is not None and what.target == chain[0]) or effects.stands(self._db, tenant, what):
            return
        self._reserved = True
        if counters.strike(self._db, tenant, effect, at):
            self._append(key, chain or self._begun(house, key, at), strikes.told(effect, what), at)
            self._move(tenant, what, at)

    def _append(self, key: Key, chain: Chain, entry: Draft, at: int) -> tuple[str, int]:
        conversation, seq, head, _ = chain
        data = leaf(entry, conversation=conversation, seq=seq, prev=b64(head) if head else GENESIS, at=at)
        hashed, index = merkle.leaf_hash(data), self._frontier.size + len(self._leaves)
        self._leaves.append(hashed)
        self._entries.append((LOG, index, conversation, seq, hashed, data))
        self._payloads.append((LOG, index, orjson.dumps(entry.disclosures)))
        self.chains[key] = (conversation, seq + 1, hashed, entry.kind is Kind.SEALED)
        return conversation, index

    def _cannot_seal(self, key: Key, chain: Chain | None, effect: Seal) -> str:
        """Why the conversation cannot be closed, "" if it can."""
        if key[1:3] == HOUSE:
            return "the house's own conversation is never closed"
        if chain is None or chain[0] != effect.conversation:
            return f"there is no conversation {effect.conversation}; `guard lineage list` shows them"
        if effect.total != chain[1] + 1:
            return f"the conversation {chain[0]} has {chain[1]} entries by now"
        rows = self._db.execute(
            "SELECT tenant, call FROM open_grants WHERE tenant = ? AND conversation = ?", (key[0], chain[0])
        )
        is_open = set(rows.fetchall()).difference(self._closed)
        is_open |= {grant for grant, (conversation, _) in self._opened.items() if conversation == chain[0]}
        return f"a call of the conversation {chain[0]} has no ending yet" if is_open else ""

    def _chain(self, key: Key) -> Chain | None:
        """The conversation as it stands in the file; None where it is new."""
        row = self._db.execute(
            "SELECT id, entries, head, sealed FROM conversations"
            " WHERE tenant = ? AND issuer = ? AND subject = ? AND given = ?",
            key,
        ).fetchone()
        return None if row is None else (str(row[0]), int(row[1]), bytes(row[2]), row[3] != 0)

    def _begun(self, place: Place, key: Key, at: int) -> Chain:
        """A new conversation."""
        fresh = os.urandom(_CONVERSATION_BYTES).hex()  # typed at commands: never begins with a hyphen
        source = place.conversation.source if place.conversation else "house"
        self._db.execute(
            "INSERT INTO conversations VALUES (?, ?, ?, ?, ?, ?, 0, x'', ?, 0)", (fresh, *key, source, at)
        )
        return fresh, 0, b"", False


def _version(db: sqlite3.Connection) -> int:
    """Another number whenever another connection has committed."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])


def _open_grants(db: sqlite3.Connection, transactions: Sequence[Transaction]) -> set[tuple[str, str]]:
    """Which of the grants that the transactions are about are open: one question a tenant."""
    asked: dict[str, list[str]] = {}
    for transaction in transactions:
        for effect in transaction.effects:
            if isinstance(effect, OpenGrant | CloseGrant):
                asked.setdefault(transaction.place.tenant, []).append(effect.call)
    return {
        (tenant, call)
        for tenant, calls in asked.items()
        for (call,) in db.execute(
            "SELECT call FROM open_grants WHERE tenant = ? AND call IN (SELECT value FROM json_each(?))",
            (tenant, orjson.dumps(calls).decode()),
        )
    }


def _conversation_key(place: Place) -> Key:
    if place.principal is None or place.conversation is None:
        return (place.tenant, *HOUSE, "")
    return (place.tenant, place.principal.issuer, place.principal.subject, place.conversation.id)

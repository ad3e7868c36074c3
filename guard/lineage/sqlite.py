"""The embedded store: one SQLite file, WAL, `synchronous=FULL`.

Several processes may share the file: the head is read again inside each write transaction, so
the tree, the chains and the checkpoint always follow from what is there.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from guard.core.canonical import b64
from guard.core.errors import GuardError, printable
from guard.core.keys import SigningKey
from guard.core.model import Conversation, Principal
from guard.identity.api_keys import ApiKeyRecord
from guard.lineage import checkpoint, effects, merkle
from guard.lineage.database import BUSY_SECONDS, StoreError, connect
from guard.lineage.entry import GENESIS, Draft, leaf
from guard.lineage.rows import LOG, read_checkpoint, read_conversations, read_entries, read_head, read_node
from guard.lineage.schema import SCHEMA
from guard.lineage.store import (
    Busy,
    Conflict,
    ConversationRow,
    EntryRow,
    Moved,
    Outcome,
    PinRow,
    Place,
    Recorded,
    Snapshot,
    Transaction,
)

HOUSE: Final = ("guard", "house")
"""Issuer and subject of the conversation that holds policies, pins, keys and containments."""
_CONVERSATION_BYTES: Final = 12


_Key = tuple[str, str, str, str]


@dataclass(slots=True)
class _Seen:
    """What one batch has read, so that it is read once; nobody else writes while it lasts.

    Attributes:
        versions: every version, by tenant.
        conversations: id, next seq and newest leaf hash; written down at the end of the batch.
    """

    versions: dict[str, dict[str, int]] = field(default_factory=dict)
    conversations: dict[_Key, tuple[str, int, bytes]] = field(default_factory=dict)


class SqliteStore:
    """The store in a file.

    Args:
        path: the file; made where there is none.
        key: the checkpoint key; never the artifact key.
        origin: the log's name, first line of every checkpoint.
    """

    def __init__(self, path: Path, *, key: SigningKey, origin: str) -> None:
        self._path = path
        self._key = key
        self._origin = origin
        self._vkey = checkpoint.VerifierKey.of(origin, key.public)
        self._frontier = merkle.Frontier.empty()
        self._db = connect(path)
        self._patience = float(BUSY_SECONDS)
        try:
            self._reader = self._open(path)
        except BaseException:
            self._db.close()
            raise

    def _open(self, path: Path) -> sqlite3.Connection:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in SCHEMA:
                    self._db.execute(statement)
                empty = merkle.Frontier.empty()
                note = self._checkpoint(empty)
                self._db.execute("INSERT INTO heads VALUES (?, ?, 0, x'', 0, ?)", (LOG, self._origin, note))
        origin = (read_head(self._db) or (None,))[0]
        if origin != self._origin:
            raise StoreError(f"the store belongs to the log {printable(str(origin))}", where=str(path))
        self._load_head()
        return connect(path)

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()
        self._db.close()

    # -- writing: one thread at a time ---------------------------------------------------------

    def apply(self, batch: Sequence[Transaction]) -> list[Outcome]:
        """Commit a batch: all of it is durable when this returns.

        Raises:
            Busy: another process writes, and did not let go in time. Nothing happened.
            sqlite3.Error: nothing of the batch can be relied on.
        """
        self._begin()
        try:
            last = self._load_head()
            outcomes: list[Outcome] = []
            seen = _Seen()
            for transaction in batch:
                outcome = self._one(transaction, last, seen)
                outcomes.append(outcome)
                if isinstance(outcome, Recorded):
                    last = outcome.at
            self._db.executemany(
                "UPDATE conversations SET entries = ?, head = ? WHERE id = ?",
                [(entries, head, id_) for id_, entries, head in seen.conversations.values()],
            )
            self._db.execute(
                "UPDATE heads SET size = ?, peaks = ?, at = ?, checkpoint = ? WHERE log = ?",
                (self._frontier.size, self._frontier.packed(), last, self._checkpoint(self._frontier), LOG),
            )
            self._db.execute("COMMIT")
        except BaseException:
            # What the commit did is not known: forget the cached head, so that it is read again.
            self._frontier = merkle.Frontier.empty()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return outcomes

    def patience(self, seconds: float) -> None:
        """How long `apply` waits for another process that writes."""
        if seconds != self._patience:
            self._db.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")
            self._patience = seconds

    def _begin(self) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise Busy(str(error)) from error
            raise

    def _load_head(self) -> int:
        _, size, peaks, at = read_head(self._db) or (None, None, None, None)
        if size != self._frontier.size or size == 0:
            self._frontier = self._signed(size, peaks)
        return int(at)

    def _signed(self, size: Any, peaks: Any) -> merkle.Frontier:
        """The frontier that stands. It is built upon only if this store's own key signed its root.

        Raises:
            StoreError: it did not; a changed tree must not get a fresh signature.
        """
        try:
            frontier = merkle.Frontier.unpacked(size, peaks)
            signed = checkpoint.open_checkpoint(read_checkpoint(self._db), [self._vkey])
        except (GuardError, TypeError, ValueError) as error:
            raise self._not_ours(str(error)) from None
        if signed != checkpoint.Checkpoint(self._origin, frontier.size, frontier.root()):
            raise self._not_ours("its checkpoint signs another tree")
        return frontier

    def _not_ours(self, why: str) -> StoreError:
        return StoreError(
            f"this key did not sign the lineage that stands here: {why}",
            where=str(self._path),
            remedy="guard lineage verify says more; put back the file and the keys that belong together",
        )

    def _checkpoint(self, frontier: merkle.Frontier) -> str:
        return checkpoint.sign(checkpoint.Checkpoint(self._origin, frontier.size, frontier.root()), self._key)

    def _one(self, transaction: Transaction, last: int, seen: _Seen) -> Outcome:
        place, at = transaction.place, max(transaction.now, last)
        if transaction.expects:
            versions = seen.versions.get(place.tenant)
            if versions is None:
                versions = seen.versions[place.tenant] = effects.versions(self._db, place.tenant)
            for key, expected in transaction.expects.items():
                if versions.get(key, 0) != expected:
                    return Moved(key)
        for effect in transaction.effects:
            if problem := effects.obstacle(self._db, place.tenant, effect):
                return Conflict(problem)
        conversation, index = self._append(place, transaction.entry, at, seen)
        for effect in transaction.effects:
            effects.apply(self._db, place.tenant, effect, conversation, at)
            if not isinstance(effect, effects.MOVING_NOTHING):
                seen.versions.pop(place.tenant, None)
        return Recorded(index, conversation, at)

    def _append(self, place: Place, entry: Draft, at: int, seen: _Seen) -> tuple[str, int]:
        key = _conversation_key(place)
        conversation, seq, head = seen.conversations.get(key) or self._conversation(place, key, at)
        data = leaf(entry, conversation=conversation, seq=seq, prev=b64(head) if head else GENESIS, at=at)
        hashed, index = merkle.leaf_hash(data), self._frontier.size
        self._frontier, nodes = self._frontier.append(hashed)
        self._db.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", (LOG, index, conversation, seq, hashed, data)
        )
        self._db.execute(
            "INSERT INTO payloads VALUES (?, ?, ?)", (LOG, index, orjson.dumps(entry.disclosures))
        )
        if nodes:
            self._db.executemany("INSERT INTO nodes VALUES (?, ?, ?, ?)", [(LOG, *node) for node in nodes])
        seen.conversations[key] = (conversation, seq + 1, hashed)
        return conversation, index

    def _conversation(self, place: Place, key: _Key, at: int) -> tuple[str, int, bytes]:
        """The conversation's id, its next seq and its newest leaf hash; opened where it is new."""
        row = self._db.execute(
            "SELECT id, entries, head FROM conversations"
            " WHERE tenant = ? AND issuer = ? AND subject = ? AND given = ?",
            key,
        ).fetchone()
        if row is not None:
            return str(row[0]), int(row[1]), bytes(row[2])
        fresh = os.urandom(_CONVERSATION_BYTES).hex()  # typed at commands: never begins with a hyphen
        source = place.conversation.source if place.conversation else "house"
        self._db.execute(
            "INSERT INTO conversations VALUES (?, ?, ?, ?, ?, ?, 0, x'', ?)", (fresh, *key, source, at)
        )
        return fresh, 0, b""

    # -- reading -------------------------------------------------------------------------------

    def snapshot(
        self, principal: Principal, conversation: Conversation, tool: tuple[str, str], *, own_only: bool
    ) -> Snapshot:
        """Versions first, then containments: what moves in between makes step 6 start again."""
        tenant, last = principal.tenant, 0
        versions: dict[str, int] = {}
        for key, value in self._reader.execute(
            "SELECT key, version FROM versions WHERE tenant = ?"
            " UNION ALL SELECT NULL, at FROM heads WHERE log = ?",
            (tenant, LOG),
        ):
            if key is None:
                last = value
            else:
                versions[key] = value
        standing = self._reader.execute(
            "SELECT kind, target FROM contained WHERE tenant = ?", (tenant,)
        ).fetchall()
        if not standing:
            return Snapshot(versions, last, frozenset())
        return Snapshot(
            versions, last, frozenset(self._touching(standing, principal, conversation, tool, own_only))
        )

    def versions(self, tenant: str) -> dict[str, int]:
        """Every version of the tenant."""
        return effects.versions(self._reader, tenant)

    def _touching(
        self,
        standing: Sequence[tuple[str, str]],
        principal: Principal,
        conversation: Conversation,
        tool: tuple[str, str],
        own_only: bool,  # noqa: FBT001 - private
    ) -> Iterator[str]:
        for kind, target in standing:
            if kind == "all":
                yield kind
            elif kind == "principal":
                if target == effects.principal_target(principal.issuer, principal.subject):
                    yield kind
            elif kind == "tool":
                if target == effects.tool_target(*tool):
                    yield kind
            elif self._is_of(target, principal, conversation if own_only else None):
                yield kind

    def _is_of(self, contained: str, principal: Principal, conversation: Conversation | None) -> bool:
        """Whether the contained conversation is this one; without one, any of the principal's.

        A new id sheds nothing: only a role that may assert conversations is judged by one alone.
        """
        row = self._reader.execute(
            "SELECT tenant, issuer, subject, given FROM conversations WHERE id = ?", (contained,)
        ).fetchone()
        if row is None:
            return False
        return tuple(row[:3]) == principal.key and (conversation is None or row[3] == conversation.id)

    def api_key(self, key_id: str) -> ApiKeyRecord | None:
        """The record of a key, None where there is none."""
        return effects.read_key(self._reader, key_id)

    def api_keys(self) -> list[ApiKeyRecord]:
        """Every key, in the order of their making."""
        return effects.read_keys(self._reader)

    def pins(self, tenant: str, server: str) -> list[PinRow]:
        """A server's pins in the server's order."""
        rows = self._reader.execute(
            "SELECT name, sha256, definition FROM pins WHERE tenant = ? AND server = ? ORDER BY position",
            (tenant, server),
        )
        return [PinRow(*row) for row in rows]

    def policy(self, tenant: str, policy_id: str) -> tuple[int, str] | None:
        """Version and digest of the policy that was last adopted under this id."""
        row = self._reader.execute(
            "SELECT version, sha256 FROM policies WHERE tenant = ? AND id = ?", (tenant, policy_id)
        ).fetchone()
        return tuple(row) if row else None

    def setting(self, tenant: str, key: str) -> str | None:
        """A value that was kept, None where there is none."""
        row = self._reader.execute(
            "SELECT value FROM settings WHERE tenant = ? AND key = ?", (tenant, key)
        ).fetchone()
        return str(row[0]) if row else None

    def servers(self, tenant: str) -> list[str]:
        """Every server that has pins."""
        rows = self._reader.execute(
            "SELECT DISTINCT server FROM pins WHERE tenant = ? ORDER BY server", (tenant,)
        )
        return [row[0] for row in rows]

    def open_grants(self) -> list[tuple[str, str, Place]]:
        """(call, instance, place) of every grant without an ending."""
        rows = self._reader.execute(
            "SELECT g.call, g.instance, c.tenant, c.issuer, c.subject, c.given, c.source"
            " FROM open_grants g JOIN conversations c ON c.id = g.conversation"
        )
        return [
            (
                call,
                instance,
                Place(tenant, Principal(tenant, issuer, subject, ""), Conversation(given, source)),
            )
            for call, instance, tenant, issuer, subject, given, source in rows
        ]

    def contained(self, tenant: str) -> list[dict[str, Any]]:
        """Every containment that stands: kind, target, since (UNIX ms)."""
        rows = self._reader.execute(
            "SELECT kind, target, since FROM contained WHERE tenant = ? ORDER BY since", (tenant,)
        )
        return [{"kind": kind, "target": target, "since": since} for kind, target, since in rows]

    def entries(self, conversation: str | None = None) -> Iterator[EntryRow]:
        """Entries in order, of one conversation or all."""
        return read_entries(self._reader, conversation)

    def leaf(self, index: int) -> bytes:
        """One leaf's bytes. Raises KeyError."""
        row = self._reader.execute(
            "SELECT leaf FROM entries WHERE log = ? AND idx = ?", (LOG, index)
        ).fetchone()
        if row is None:
            raise KeyError(index)
        return bytes(row[0])

    def conversations(self) -> list[ConversationRow]:
        """Every conversation, in the order of opening."""
        return read_conversations(self._reader)

    def checkpoint(self) -> str:
        """The newest signed checkpoint."""
        return read_checkpoint(self._reader)

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree; level 0 are the leaves. Raises KeyError."""
        return read_node(self._reader, level, index)


def _conversation_key(place: Place) -> _Key:
    if place.principal is None or place.conversation is None:
        return (place.tenant, *HOUSE, "")
    return (place.tenant, place.principal.issuer, place.principal.subject, place.conversation.id)

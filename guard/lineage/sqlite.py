"""The embedded store: one SQLite file, WAL, `synchronous=FULL`.

Several processes may share the file: the head is read again inside each write transaction, so
the tree, the chains and the checkpoint always follow from what is there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from guard.core.errors import GuardError, printable
from guard.core.keys import SigningKey
from guard.core.model import Conversation, Principal
from guard.identity.api_keys import ApiKeyRecord
from guard.lineage import checkpoint, counters, effects, memories, merkle, questions
from guard.lineage.batch import HOUSE, Batch, Known
from guard.lineage.database import BUSY_SECONDS, StoreError, connect, prepare
from guard.lineage.rows import LOG, read_checkpoint, read_conversations, read_entries, read_head, read_node
from guard.lineage.standing import Standing
from guard.lineage.store import (
    Busy,
    ConversationRow,
    EntryRow,
    Memory,
    Outcome,
    PinRow,
    Place,
    QuestionRow,
    Snapshot,
    Transaction,
)

__all__ = ["HOUSE", "SqliteStore"]


class SqliteStore:
    """The store in a file.

    Args:
        path: the file; made where there is none.
        key: the checkpoint key; never the artifact key.
        origin: the log's name, first line of every checkpoint.
        lax: commits do not wait for the disk; see `connect`.
    """

    def __init__(self, path: Path, *, key: SigningKey, origin: str, lax: bool = False) -> None:
        self._path = path
        self._key = key
        self._origin = origin
        self._vkey = checkpoint.VerifierKey.of(origin, key.public)
        self._frontier = merkle.Frontier.empty()
        self._known = Known()
        self._db = connect(path, lax=lax)
        self._patience = float(BUSY_SECONDS)
        try:
            self._reader = self._open(path)
            self._standing = Standing(self._reader)
        except BaseException:
            self._db.close()
            raise

    def _open(self, path: Path) -> sqlite3.Connection:
        with self._db:  # a file that is not this key's is not upgraded either
            self._db.execute("BEGIN IMMEDIATE")
            if prepare(self._db):
                empty = merkle.Frontier.empty()
                note = self._checkpoint(empty)
                self._db.execute("INSERT INTO heads VALUES (?, ?, 0, x'', 0, ?)", (LOG, self._origin, note))
            origin = (read_head(self._db) or (None,))[0]
            if origin != self._origin:
                raise StoreError(f"the store belongs to the log {printable(str(origin))}", where=str(path))
            self._load_head(moved=True)
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
            last = self._load_head(moved=self._known.begin(self._db))
            taken = Batch(self._db, self._known, self._frontier, last, batch)
            outcomes = [taken.take(transaction) for transaction in batch]
            frontier = taken.write()
            if frontier.size != self._frontier.size:
                self._db.execute(
                    "UPDATE heads SET size = ?, peaks = ?, at = ?, checkpoint = ? WHERE log = ?",
                    (frontier.size, frontier.packed(), taken.last, self._checkpoint(frontier), LOG),
                )
            held = self._standing.held() if taken.plain else None
            self._db.execute("COMMIT")
            self._frontier = frontier
            self._known.keep(taken.chains)
            self._standing.carry(held, taken.last, taken.used, lambda: self._known.is_alone(self._db))
        except BaseException:
            # What the commit did is not known: forget what was read, so that it is read again.
            self._frontier = merkle.Frontier.empty()
            self._known.forget()
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

    def _load_head(self, *, moved: bool) -> int:
        """When the newest entry was made (UNIX ms). `moved`: somebody else wrote since."""
        _, size, peaks, at = read_head(self._db) or (None, None, None, None)
        if moved or size != self._frontier.size or size == 0:
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

    # -- reading -------------------------------------------------------------------------------

    def snapshot(
        self, principal: Principal, conversation: Conversation, tool: tuple[str, str], *, own_only: bool
    ) -> Snapshot:
        """Read what a decision needs. With `own_only` only this conversation's containment counts."""
        return self._standing.snapshot(principal, conversation, tool, own_only=own_only)

    def used(self, tenant: str, counters_: Sequence[tuple[str, int]]) -> list[int]:
        """How much was taken from each counter after a time: (counter, UNIX ms), in their order."""
        return counters.used(self._reader, tenant, counters_)

    def recall(self, tenant: str, memory: str, pending: str, fingerprints: Sequence[bytes]) -> Memory:
        """What a memory has of these fingerprints."""
        return memories.recall(self._reader, tenant, memory, pending, fingerprints)

    def approval(self, tenant: str, issuer: str, subject: str, digest: str, at: int) -> QuestionRow | None:
        """The newest question of this principal on this digest, neither used nor void at `at` (UNIX ms)."""
        return questions.approval(self._reader, tenant, (issuer, subject), digest, at)

    def question(self, tenant: str, id_: str) -> QuestionRow | None:
        """One question, void or not."""
        return questions.question(self._reader, tenant, id_)

    def questions(self, tenant: str, at: int) -> list[QuestionRow]:
        """Every question that is not void at `at` (UNIX ms), the oldest first."""
        return questions.questions(self._reader, tenant, at)

    def open_questions(self, tenant: str, issuer: str, subject: str, at: int) -> int:
        """How many questions of this principal are open, and not void at `at` (UNIX ms)."""
        return questions.open_questions(self._reader, tenant, (issuer, subject), at)

    def versions(self, tenant: str) -> Mapping[str, int]:
        """Every version of the tenant."""
        return self._standing.versions(tenant)

    def api_key(self, key_id: str) -> ApiKeyRecord | None:
        """The record of a key, None where there is none."""
        return self._standing.api_key(key_id)

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

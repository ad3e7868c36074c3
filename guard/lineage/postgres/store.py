"""The store that replicas share: PostgreSQL 15 or later.

A commit is durable in the inbox, with everything that it changes, in one conditional transaction; whoever
is the sequencer moves it into the log. What stands in the log is read from the log, so an entry may be a
moment away from its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from guard.core.errors import GuardError, printable
from guard.core.keys import SigningKey
from guard.core.model import Conversation, Principal
from guard.identity.api_keys import ApiKeyRecord
from guard.lineage import checkpoint, merkle
from guard.lineage.database import StoreError
from guard.lineage.effects import KEY_COLUMNS, key_record
from guard.lineage.postgres import memories, questions, schema
from guard.lineage.postgres.batch import Clock
from guard.lineage.postgres.connection import Address, Bounded
from guard.lineage.postgres.keys import SharedKeys
from guard.lineage.postgres.lease import SessionLease
from guard.lineage.postgres.reading import Reader
from guard.lineage.postgres.replay import PostgresReplay
from guard.lineage.postgres.sequencer import Sequencer
from guard.lineage.postgres.standing import Standing
from guard.lineage.postgres.writing import Writer, databases_clock
from guard.lineage.rows import LOG
from guard.lineage.store import (
    Away,
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

REPORT_SECONDS: Final = 60.0
"""How long an answer may take that grows with the store. Only commands ask such questions."""
SETTLE_SECONDS: Final = 2.0
"""How long a process that ends waits for what it committed to have its place in the log."""
PAGE: Final = 500
"""Entries that are read at once."""


class PostgresStore:
    """The store in a database.

    Args:
        address: where it is.
        key: the checkpoint key; never the artifact key. Every replica has the same.
        origin: the log's name, first line of every checkpoint.
        clock: when it is. Another than the database's is for tests of times that are long past.

    Attributes:
        address: where it is.

    Raises:
        StoreError: it cannot be reached, has no store or one of another format, or is another log's.
    """

    def __init__(
        self, address: Address, *, key: SigningKey, origin: str, clock: Clock = databases_clock
    ) -> None:
        self.address = address
        self._key = key
        self._origin = origin
        self._vkey = checkpoint.VerifierKey.of(origin, key.public)
        self._after: list[Callable[[], None]] = []
        self._committed = False
        self._sequencer: Sequencer | None = None
        self._reader = Reader(address, self._check)
        self._reports = Reader(address, self._check, name="guard reports", patience=REPORT_SECONDS)
        self._watcher = Reader(address, self._check, name="guard watcher")
        self._writer = Writer(address, self._check, clock)
        self._standing = Standing(self._reader, self._watcher, lambda: self._writer.last)
        try:
            self._open()
        except Away as away:
            raise StoreError(
                f"the database cannot be used: {away.what}",
                where=str(address),
                remedy="is it running, and may this role connect to it?",
            ) from None
        except BaseException:
            self.close()
            raise

    def _check(self, db: Bounded) -> None:
        schema.check(db, self.address)

    def _open(self) -> None:
        empty = merkle.Frontier.empty()
        signed = checkpoint.sign(checkpoint.Checkpoint(self._origin, empty.size, empty.root()), self._key)
        with self._reader.asked() as db:
            sql = "INSERT INTO heads VALUES (%s, %s, 0, '', 0, %s) ON CONFLICT (log) DO NOTHING"
            db.execute(sql, (LOG, self._origin, signed))
        origin, size, peaks, note = self._row(
            "SELECT origin, size, peaks, checkpoint FROM heads WHERE log = %s", LOG
        )
        if origin != self._origin:
            raise StoreError(f"the store belongs to the log {printable(origin)}", where=str(self.address))
        try:
            frontier = merkle.Frontier.unpacked(size, bytes(peaks))
            signed_by_us = checkpoint.open_checkpoint(note, [self._vkey])
        except (GuardError, ValueError) as error:
            raise self._not_ours(str(error)) from None
        if signed_by_us != checkpoint.Checkpoint(self._origin, frontier.size, frontier.root()):
            raise self._not_ours("its checkpoint signs another tree")

    def _not_ours(self, why: str) -> StoreError:
        return StoreError(
            f"this key did not sign the lineage that stands here: {why}",
            where=str(self.address),
            remedy="give every replica the keys of one home; guard lineage verify says more",
        )

    def close(self) -> None:
        """Let go of the connections, after what was committed here has its place if that is soon."""
        if self._committed:
            self.settle()
        if self._sequencer is not None:
            self._sequencer.stop()
        self._standing.close()
        self._writer.close()
        for reader in (self._reader, self._reports, self._watcher):
            reader.close()

    # -- writing: one thread at a time ---------------------------------------------------------

    def apply(self, batch: Sequence[Transaction]) -> list[Outcome]:
        """Commit a batch: all of it is durable when this returns.

        Raises:
            Away: the database cannot be reached, or did not answer; what happened shows later.
        """
        outcomes, moved = self._writer.apply(batch)
        self._committed = True
        if moved:
            self._standing.forget(moved)
        for tell in self._after:
            tell()
        return outcomes

    def patience(self, seconds: float) -> None:
        """How long `apply` looks for a database that was lost."""
        self._writer.patience = seconds

    def after_commit(self, tell: Callable[[], None]) -> None:
        """Tell this whenever something was committed here: it must not block."""
        self._after.append(tell)

    def lease(self) -> SessionLease:
        """Begin to owe endings. Raises Away."""
        return SessionLease(self._writer)

    def replay(self) -> PostgresReplay:
        """Where every replica remembers used artifacts."""
        return PostgresReplay(self._reader)

    def keys(self, secret: bytes) -> SharedKeys:
        """Public parts of the replicas' artifact keys; `secret` is what every home has."""
        return SharedKeys(self._reader, secret)

    def serve(self, holder: str, on_failure: Callable[[BaseException], None]) -> None:
        """Remember what decisions read, and be ready to move the inbox into the log.

        Args:
            holder: what the store says of who does it.
            on_failure: told what keeps this process from it.

        Raises:
            Away: the database cannot be reached.
        """
        self.watch()
        self._sequencer = Sequencer(
            self.address, key=self._key, origin=self._origin, holder=holder, on_failure=on_failure
        )
        self.after_commit(self._sequencer.wake)
        self._sequencer.start()

    def watch(self) -> None:
        """Remember what decisions read, kept fresh by a thread. Raises Away."""
        self._standing.watch()

    def settle(self, seconds: float = SETTLE_SECONDS) -> bool:
        """Wait until everything has its place in the log; whether it has. Moves it where nobody else does."""
        own = None
        end = time.monotonic() + seconds
        try:
            while self._reader.row("SELECT 1 FROM inbox LIMIT 1") is not None:
                if time.monotonic() > end:
                    return False
                if self._sequencer is None and own is None:
                    own = Sequencer(self.address, key=self._key, origin=self._origin, holder="")
                    own.start()
                time.sleep(0.01)
        except Away:
            return False
        finally:
            if own is not None:
                own.stop(seconds)
        return True

    # -- reading -------------------------------------------------------------------------------

    def snapshot(
        self, principal: Principal, conversation: Conversation, tool: tuple[str, str], *, own_only: bool
    ) -> Snapshot:
        """Read what a decision needs. With `own_only` only this conversation's containment counts."""
        return self._standing.snapshot(principal, conversation, tool, own_only=own_only)

    def used(self, tenant: str, counters: Sequence[tuple[str, int]]) -> list[int]:
        """How much was taken from each counter after a time: (counter, UNIX ms), in their order."""
        if not counters:
            return []
        rows = self._reader.rows(
            "SELECT (SELECT COALESCE(sum(r.amount), 0)::bigint FROM reservations r WHERE r.tenant = %s"
            " AND r.counter = asked.counter AND r.at > asked.since)"
            " FROM unnest(%s::text[], %s::bigint[]) WITH ORDINALITY AS asked (counter, since, place)"
            " ORDER BY asked.place",
            tenant,
            [counter for counter, _ in counters],
            [since for _, since in counters],
        )
        return [int(row[0]) for row in rows]

    def recall(self, tenant: str, memory: str, pending: str, fingerprints: Sequence[bytes]) -> Memory:
        """What a memory has of these fingerprints."""
        return memories.recall(self._reader, self._writer.last, (tenant, memory), pending, fingerprints)

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
        sql = f"SELECT {KEY_COLUMNS} FROM api_keys ORDER BY created, key_id"  # noqa: S608 - a constant
        return [key_record(row) for row in self._reader.rows(sql)]

    def pins(self, tenant: str, server: str) -> list[PinRow]:
        """A server's pins in the server's order."""
        sql = "SELECT name, sha256, definition FROM pins WHERE tenant = %s AND server = %s ORDER BY position"
        return [
            PinRow(name, sha256, bytes(made)) for name, sha256, made in self._reader.rows(sql, tenant, server)
        ]

    def policy(self, tenant: str, policy_id: str) -> tuple[int, str] | None:
        """Version and digest of the policy that was last adopted under this id."""
        sql = "SELECT version, sha256 FROM policies WHERE tenant = %s AND id = %s"
        row = self._reader.row(sql, tenant, policy_id)
        return (row[0], row[1]) if row else None

    def setting(self, tenant: str, key: str) -> str | None:
        """A value that was kept, None where there is none."""
        row = self._reader.row("SELECT value FROM settings WHERE tenant = %s AND key = %s", tenant, key)
        return str(row[0]) if row else None

    def servers(self, tenant: str) -> list[str]:
        """Every server that has pins."""
        sql = "SELECT DISTINCT server FROM pins WHERE tenant = %s ORDER BY server"
        return [row[0] for row in self._reader.rows(sql, tenant)]

    def open_grants(self) -> list[tuple[str, str, Place]]:
        """(call, instance, place) of every grant without an ending."""
        rows = self._reports.rows(
            "SELECT g.call, g.instance, c.tenant, c.issuer, c.subject, c.given, c.source"
            " FROM open_grants g JOIN conversations c ON c.id = g.conversation ORDER BY g.call"
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
        sql = "SELECT kind, target, since FROM contained WHERE tenant = %s ORDER BY since, kind, target"
        rows = self._reader.rows(sql, tenant)
        return [{"kind": kind, "target": target, "since": since} for kind, target, since in rows]

    def conversations(self) -> list[ConversationRow]:
        """Every conversation, in the order of opening; what waits for its place in the log counts."""
        rows = self._reports.rows(
            "SELECT c.id, c.tenant, c.issuer, c.subject, c.given, c.source,"
            " COALESCE(h.entries, 0) + (SELECT count(*) FROM inbox i WHERE i.conversation = c.id),"
            " COALESCE(h.head, ''), EXISTS (SELECT FROM contained x WHERE x.tenant = c.tenant"
            " AND x.kind = 'conversation' AND x.target = c.id)::int, c.sealed"
            " FROM conversations c LEFT JOIN chains h ON h.conversation = c.id ORDER BY c.opened, c.id"
        )
        return [ConversationRow(*row) for row in rows]

    def entries(self, conversation: str | None = None) -> Iterator[EntryRow]:
        """Entries in order, of one conversation or all. What waits for its place is not among them."""
        at, place = -1, "e.idx" if conversation is None else "e.seq"
        where = "TRUE" if conversation is None else "e.conversation = %s"
        asked = () if conversation is None else (conversation,)
        sql = (
            "SELECT e.idx, e.conversation, e.seq, e.hash, e.leaf, p.disclosures FROM entries e"  # noqa: S608
            f" LEFT JOIN payloads p ON p.log = e.log AND p.idx = e.idx WHERE e.log = %s AND {where}"
            f" AND {place} > %s ORDER BY {place} LIMIT {PAGE}"
        )
        while True:
            rows = self._reports.rows(sql, LOG, *asked, at)
            for index, id_, seq, hashed, leaf, disclosures in rows:
                opened = None if disclosures is None else bytes(disclosures)
                yield EntryRow(index, id_, seq, bytes(hashed), bytes(leaf), opened)
            if len(rows) < PAGE:
                return
            at = rows[-1][0 if conversation is None else 2]

    def index(self, conversation: str, seq: int) -> int | None:
        """The place in the log of a conversation's entry, None where it has none yet."""
        row = self._reader.row(
            "SELECT idx FROM entries WHERE log = %s AND conversation = %s AND seq = %s",
            LOG,
            conversation,
            seq,
        )
        return None if row is None else int(row[0])

    def leaf(self, index: int) -> bytes:
        """One leaf's bytes. Raises KeyError."""
        row = self._reader.row("SELECT leaf FROM entries WHERE log = %s AND idx = %s", LOG, index)
        if row is None:
            raise KeyError(index)
        return bytes(row[0])

    def checkpoint(self) -> str:
        """The newest signed checkpoint."""
        return str(self._row("SELECT checkpoint FROM heads WHERE log = %s", LOG)[0])

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree; level 0 are the leaves. Raises KeyError."""
        row = (
            self._reader.row("SELECT hash FROM entries WHERE log = %s AND idx = %s", LOG, index)
            if level == 0
            else self._reader.row(
                "SELECT hash FROM nodes WHERE log = %s AND level = %s AND idx = %s", LOG, level, index
            )
        )
        if row is None:
            raise KeyError((level, index))
        return bytes(row[0])

    def _row(self, sql: str, *values: Any) -> tuple[Any, ...]:
        row = self._reader.row(sql, *values)
        if row is None:
            raise StoreError("the store has no head", where=str(self.address))
        return row

"""The sequencer: the one that moves what replicas committed into the log, and signs.

Every replica has one, in a thread of its own and never on the event loop. One of them is elected: it holds
an advisory lock of its session, so that the server itself ends its office when the session ends. Its token
is newer than every one before, and is compared, and held, in each transaction that writes: whoever was
deposed without noticing writes nothing. The head is compared and swapped before it is signed, in the same
transaction as the entries that it covers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Any, Final

import psycopg

from guard.core.canonical import b64
from guard.core.errors import GuardError
from guard.core.keys import SigningKey
from guard.lineage import checkpoint, merkle
from guard.lineage.database import StoreError
from guard.lineage.entry import GENESIS, Draft, Kind, leaf
from guard.lineage.postgres.connection import Address, Connection
from guard.lineage.postgres.floor import Floor
from guard.lineage.rows import LOG

MOST: Final = 1000
"""Entries that are moved in one transaction."""
POLL: Final = 0.05
"""Seconds between two looks at the inbox, where nobody wakes it: other replicas cannot."""
COMPANY: Final = 0.02
"""Seconds that entries wait for others while there is work. Calls do not wait for it."""
STAND_BY: Final = 0.5
"""Seconds between two tries to be elected, and before a lost database is asked again."""
PATIENCE: Final = 10.0
"""Seconds that an answer may take."""
IDLE_SECONDS: Final = 5.0
"""The server ends the session, and with it the office, of an elected one that is silent for so long."""
MAX_CHAINS: Final = 10_000
"""Conversations whose newest entry is remembered."""
LOCK: Final = 0x6775617264_00_00_01
"""Key of the advisory lock of the office: "guard" and 1."""

_INBOX: Final = (
    "SELECT ticket, conversation, at, kind, call, digests, disclosures FROM guard.inbox"
    " WHERE ticket > %s ORDER BY ticket LIMIT %s"
)
_ENTRIES: Final = (
    "INSERT INTO guard.entries (log, idx, conversation, seq, hash, leaf, ticket)"
    " SELECT %s, * FROM unnest("
    "%b::bigint[], %b::text[], %b::bigint[], %b::bytea[], %b::bytea[], %b::bigint[])"
)
_PAYLOADS: Final = (
    "INSERT INTO guard.payloads (log, idx, disclosures) SELECT %s, * FROM unnest(%b::bigint[], %b::bytea[])"
)
_NODES: Final = (
    "INSERT INTO guard.nodes (log, level, idx, hash)"
    " SELECT %s, * FROM unnest(%b::integer[], %b::bigint[], %b::bytea[])"
)
_CHAINS: Final = (
    "INSERT INTO guard.chains (conversation, entries, head)"
    " SELECT * FROM unnest(%b::text[], %b::bigint[], %b::bytea[])"
    " ON CONFLICT (conversation) DO UPDATE SET entries = excluded.entries, head = excluded.head"
)
_SWAP: Final = (
    "UPDATE guard.heads SET size = %s, peaks = %s, at = %s"
    " WHERE log = %s AND origin = %s AND size = %s AND peaks = %s"
)


class Deposed(Exception):
    """Somebody else holds the office, or the head is not the one that was left. Nothing was written."""


class Sequencer:
    """One replica's candidate.

    Args:
        address: where the store is.
        key: the checkpoint key; never the artifact key.
        origin: the log's name, first line of every checkpoint.
        holder: what the store says of who is in office: the replica's instance.
        on_failure: told on the sequencer's thread what keeps it from its office although it is elected.
        idle_seconds: after how long the server ends a silent session of the elected one.

    Attributes:
        elected: set while it is in office.
        token: the newest token that it had, 0 for none.
        moved: how many entries it has moved.
        failure: what keeps it from its office, None while nothing does.
    """

    def __init__(
        self,
        address: Address,
        *,
        key: SigningKey,
        origin: str,
        holder: str,
        on_failure: Callable[[BaseException], None] = lambda _: None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._address = address
        self._key = key
        self._vkey = checkpoint.VerifierKey.of(origin, key.public)
        self._origin = origin
        self._holder = holder
        self._on_failure = on_failure
        self._idle = idle_seconds
        self._end = Event()
        self._wake = Event()
        self._thread: Thread | None = None
        self._frontier = merkle.Frontier.empty()
        self._last = 0
        self._chains: dict[str, tuple[int, bytes]] = {}
        self._floor = Floor()
        self.elected = Event()
        self.token = 0
        self.moved = 0
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Be a candidate from now on."""
        self._thread = Thread(target=self._run, name="guard-sequencer", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something waits in the inbox. From any thread, and at no cost."""
        self._wake.set()

    def stop(self, seconds: float | None = None) -> None:
        """Leave the office and end, after the transaction that is under way. Safe to call twice.

        Args:
            seconds: how long to wait for it, None for as long as it takes.
        """
        self._end.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                with contextlib.closing(self._connected()) as db:
                    self._candidate(db)
            except (psycopg.Error, Deposed):
                pass  # the session is gone, and the office with it; what was not committed is still there
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing was signed over it
                self._tell(error)
            finally:
                self.elected.clear()
            self._end.wait(STAND_BY)

    def _tell(self, error: BaseException) -> None:
        """Once for each cause: the thread goes on trying, since an operator may mend it."""
        told, self.failure = self.failure, error
        if told is None or str(told) != str(error):
            with contextlib.suppress(Exception):
                self._on_failure(error)

    def _connected(self) -> Connection:
        db = self._address.connect(patience=PATIENCE, name="guard-sequencer")
        idle = int(self._idle * 1000)
        db.execute(
            f"SET idle_session_timeout = {idle}; SET idle_in_transaction_session_timeout = {idle};"
            f" SET lock_timeout = {idle}"
        )
        return db

    def _candidate(self, db: Connection) -> None:
        """Until it is told to end, or the session is gone."""
        while not self._end.is_set():
            if self._is_elected(db):
                try:
                    self._serve(db)
                finally:
                    self.elected.clear()
                    with contextlib.suppress(psycopg.Error):
                        db.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
                return
            self._end.wait(STAND_BY)

    def _is_elected(self, db: Connection) -> bool:
        row = db.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        return row is not None and row[0] is True

    # -- in office -----------------------------------------------------------------------------

    def _serve(self, db: Connection) -> None:
        self._take_office(db)
        self.failure = None
        self.elected.set()
        while not self._end.is_set():
            self._wake.clear()
            moved = self.step(db)
            if moved < MOST:
                self._wake.wait(POLL)
                if moved:  # more comes: a step costs much the same for one entry and for many
                    self._end.wait(COMPANY)

    def _take_office(self, db: Connection) -> None:
        """A new token, and a look at the head: it is built upon only if this key has signed it.

        Raises:
            StoreError: it has not; a changed tree must not get a fresh signature.
        """
        self._chains.clear()
        self._floor = Floor()
        with db.transaction():
            row = db.execute(
                "UPDATE guard.sequencer SET token = token + 1, holder = %s, since = %s RETURNING token",
                (self._holder, time.time_ns() // 1_000_000),
            ).fetchone()
            if row is None:
                raise StoreError("the store has no sequencer's row", where=str(self._address))
            head = _head(db) or self._begin(db)
            try:
                origin, size, peaks, at, note = head
                frontier = merkle.Frontier.unpacked(size, peaks)
                signed = checkpoint.open_checkpoint(note, [self._vkey])
            except (GuardError, TypeError, ValueError) as error:
                raise self._not_ours(str(error)) from None
            if origin != self._origin or signed != checkpoint.Checkpoint(origin, size, frontier.root()):
                raise self._not_ours("its checkpoint signs another tree")
        self.token, self._frontier, self._last = int(row[0]), frontier, at

    def _begin(self, db: Connection) -> tuple[Any, ...]:
        """The head of an empty log."""
        if db.execute("SELECT 1 FROM guard.entries LIMIT 1").fetchone() is not None:
            raise self._not_ours("it has entries and no head")
        note = self._signed(merkle.Frontier.empty())
        head = (self._origin, 0, b"", 0, note)
        db.execute("INSERT INTO guard.heads VALUES (%s, %s, %s, %s, %s, %s)", (LOG, *head))
        return head

    def step(self, db: Connection) -> int:
        """Move what waits, at most MOST, in one transaction. Returns how many.

        Raises:
            Deposed: another is in office, or the head moved. Nothing was written.
            psycopg.Error: the database is away; what was not committed is still in the inbox.
        """
        whole = self._floor.look(db)
        waiting = db.execute(_INBOX, (self._floor.at, MOST), binary=True).fetchall()
        if waiting:
            self._move_all(db, waiting)
        self._floor.moved([row[0] for row in waiting], whole, all_of_it=len(waiting) < MOST)
        return len(waiting)

    def _move_all(self, db: Connection, waiting: Sequence[tuple[Any, ...]]) -> None:
        try:
            with db.transaction():
                self._hold_office(db)
                moved = self._move(db, waiting)
        except BaseException:
            self._chains.clear()
            raise
        self._frontier, self._last, grown = moved
        self._chains.update(grown)
        if len(self._chains) > MAX_CHAINS:
            self._chains.clear()
        self.moved += len(waiting)

    def _hold_office(self, db: Connection) -> None:
        """Until the transaction ends nobody else takes it. Raises Deposed: somebody has."""
        row = db.execute("SELECT token FROM guard.sequencer FOR UPDATE").fetchone()
        if row is None or row[0] != self.token:
            raise Deposed

    def _move(
        self, db: Connection, waiting: Sequence[tuple[Any, ...]]
    ) -> tuple[merkle.Frontier, int, dict[str, tuple[int, bytes]]]:
        """Returns what then stands, if it is committed: tree, newest time, and the chains that grew."""
        chains = self._read_chains(db, {row[1] for row in waiting})
        grown: dict[str, tuple[int, bytes]] = {}
        last = self._last
        placed: list[tuple[int, str, int, bytes, bytes, int]] = []
        for index, row in enumerate(waiting, self._frontier.size):
            ticket, conversation, at, kind, call, digests, _ = row
            seq, head = grown.get(conversation) or chains.get(conversation) or (0, b"")
            last = max(last, at)  # the clock of a replica, and never less than before
            data = leaf(
                Draft(Kind(kind), call, tuple(digests), ()),
                conversation=conversation,
                seq=seq,
                prev=b64(head) if head else GENESIS,
                at=last,
            )
            hashed = merkle.leaf_hash(data)
            grown[conversation] = (seq + 1, hashed)
            placed.append((index, conversation, seq, hashed, data, ticket))
        indexes, conversations, seqs, hashes, leaves, tickets = map(list, zip(*placed, strict=True))
        frontier, nodes = self._frontier.extended(hashes)
        with db.pipeline():
            old = self._frontier
            swapped = db.execute(
                _SWAP, (frontier.size, frontier.packed(), last, LOG, self._origin, old.size, old.packed())
            )
            db.execute(_ENTRIES, (LOG, indexes, conversations, seqs, hashes, leaves, tickets))
            db.execute(_PAYLOADS, (LOG, indexes, [row[6] for row in waiting]))
            db.execute(_NODES, (LOG, *map(list, zip(*nodes, strict=True))) if nodes else (LOG, [], [], []))
            db.execute(_CHAINS, (list(grown), *map(list, zip(*grown.values(), strict=True))))
            gone = db.execute("DELETE FROM guard.inbox WHERE ticket = ANY(%b::bigint[])", (tickets,))
        if swapped.rowcount != 1 or gone.rowcount != len(tickets):
            raise Deposed
        # Only now: whoever signs holds the token and the head, and has written what the signature covers.
        db.execute(
            "UPDATE guard.heads SET checkpoint = %s WHERE log = %s AND size = %s",
            (self._signed(frontier), LOG, frontier.size),
        )
        return frontier, last, grown

    def _read_chains(self, db: Connection, conversations: set[str]) -> dict[str, tuple[int, bytes]]:
        """What stands of these conversations; remembered as long as this is in office."""
        asked = [conversation for conversation in conversations if conversation not in self._chains]
        if asked:
            rows = db.execute(
                "SELECT conversation, entries, head FROM guard.chains WHERE conversation = ANY(%s)", (asked,)
            )
            self._chains.update((name, (entries, head)) for name, entries, head in rows)
        return self._chains

    def _signed(self, frontier: merkle.Frontier) -> str:
        return checkpoint.sign(checkpoint.Checkpoint(self._origin, frontier.size, frontier.root()), self._key)

    def _not_ours(self, why: str) -> StoreError:
        return StoreError(
            f"this key did not sign the lineage that stands here: {why}",
            where=str(self._address),
            remedy="guard lineage verify says more; put back the database and the keys that belong together",
        )


def _head(db: Connection) -> tuple[Any, ...] | None:
    return db.execute(
        "SELECT origin, size, peaks, at, checkpoint FROM guard.heads WHERE log = %s", (LOG,)
    ).fetchone()

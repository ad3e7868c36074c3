"""What decisions read of the shared store: remembered, refreshed from beside, and never old for long.

A thread listens for what moves (LISTEN) and looks by itself as well; each look confirms what is remembered.
What was not confirmed for a second is not told: whoever asks is refused, and what hangs on it is closed.
A grant never rests on it alone: step 6 compares the versions inside the transaction.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from threading import Event, Lock, Thread
from typing import Any, Final

from guard.core.errors import GuardError
from guard.core.model import Conversation, Principal
from guard.identity.api_keys import ApiKeyRecord
from guard.lineage.effects import KEY_COLUMNS, key_record
from guard.lineage.postgres.effects import CHANNEL
from guard.lineage.postgres.needs import key_digest
from guard.lineage.postgres.reading import Reader
from guard.lineage.standing import MAX_REMEMBERED, Tenant
from guard.lineage.store import Away, Snapshot

LOOK_SECONDS: Final = 0.2
"""How long nothing may be heard before the thread looks by itself."""
STALE_SECONDS: Final = 1.0
"""How long what is remembered may go without a look."""

_LOOK: Final = "SELECT (SELECT moves FROM moves), COALESCE((SELECT at FROM heads WHERE log = 0), 0)"
_VERSIONS: Final = "SELECT tenant, key, version FROM versions WHERE tenant = ANY(%s::text[])"
_CONTAINED: Final = (
    "SELECT x.tenant, x.kind, x.target, c.tenant, c.issuer, c.subject, c.given FROM contained x"
    " LEFT JOIN conversations c ON x.kind = 'conversation' AND c.id = x.target"
    " WHERE x.tenant = ANY(%s::text[])"
)
_CLOSED: Final = (
    "SELECT t FROM unnest(%s::text[]) AS t"
    " WHERE EXISTS (SELECT FROM conversations c WHERE c.tenant = t AND c.sealed <> 0)"
)
_SEALED: Final = "SELECT sealed <> 0 FROM conversations WHERE key = %s"
_KEY: Final = f"SELECT {KEY_COLUMNS} FROM api_keys WHERE key_id = %s"  # noqa: S608 - a constant


class Standing:
    """What decisions read.

    Args:
        reader: for what is not remembered. Asked on whichever thread asks.
        watcher: for the thread that looks.
        last: the newest time that the process's own writer knows of, UNIX milliseconds.
    """

    def __init__(self, reader: Reader, watcher: Reader, last: Callable[[], int]) -> None:
        self._reader = reader
        self._watcher = watcher
        self._own_last = last
        self._lock = Lock()
        self._tenants: dict[str, Tenant] = {}
        self._keys: dict[str, ApiKeyRecord | None] = {}
        self._generation = 0
        self._moves = -1
        self._last = 0  # UNIX milliseconds of the newest entry of the log
        self._confirmed = 0.0
        self._stop = Event()
        self._thread: Thread | None = None

    # -- asked ---------------------------------------------------------------------------------

    def snapshot(
        self, principal: Principal, conversation: Conversation, tool: tuple[str, str], *, own_only: bool
    ) -> Snapshot:
        """As `Store.snapshot`. Raises Away."""
        found = self._tenant(principal.tenant)
        sealed = False
        if found.closed:  # those that are closed may be many, and are seldom asked for
            row = self._reader.row(_SEALED, key_digest((*principal.key, conversation.id)))
            sealed = row is not None and bool(row[0])
        last = max(self._last, self._own_last())
        return found.snapshot(principal, conversation, tool, own_only=own_only, last=last, sealed=sealed)

    def versions(self, tenant: str) -> Mapping[str, int]:
        """Every version of the tenant. Raises Away."""
        return self._tenant(tenant).versions

    def api_key(self, key_id: str) -> ApiKeyRecord | None:
        """The record of a key, None where there is none. Both answers cost the same. Raises Away."""
        if "\0" in key_id:
            return None
        if self._thread is None:
            return self._read_key(key_id)
        while True:
            with self._lock:
                self._be_fresh()
                if key_id in self._keys:
                    return self._keys[key_id]
                generation = self._generation
            found = self._read_key(key_id)
            with self._lock:
                if generation == self._generation:
                    if len(self._keys) >= MAX_REMEMBERED:
                        self._keys.clear()
                    self._keys[key_id] = found
                    return found

    def forget(self, tenants: Iterable[str]) -> None:
        """The process itself moved something: whoever asks next reads it."""
        with self._lock:
            self._generation += 1
            self._keys.clear()
            for tenant in tenants:
                self._tenants.pop(tenant, None)

    def _tenant(self, tenant: str) -> Tenant:
        if self._thread is None:
            self._last = self._look(self._reader)[1]
            return self._read(self._reader, [tenant])[tenant]
        while True:
            with self._lock:
                self._be_fresh()
                if tenant in self._tenants:
                    return self._tenants[tenant]
                generation = self._generation
            found = self._read(self._reader, [tenant])[tenant]
            with self._lock:
                if generation == self._generation:  # else it may be older than what was heard meanwhile
                    if len(self._tenants) >= MAX_REMEMBERED:
                        self._tenants.clear()
                    self._tenants[tenant] = found
                    return found

    def _be_fresh(self) -> None:
        """With the lock held. Raises Away."""
        if time.monotonic() - self._confirmed > STALE_SECONDS:
            raise Away("what is remembered of the database was not confirmed for a second")

    # -- read ----------------------------------------------------------------------------------

    def _read_key(self, key_id: str) -> ApiKeyRecord | None:
        row = self._reader.row(_KEY, key_id)
        return key_record(row) if row else None

    @staticmethod
    def _look(reader: Reader) -> tuple[int, int]:
        """How often anything moved, and when the newest entry of the log was."""
        moves, last = reader.row(_LOOK) or (0, 0)
        return int(moves), int(last)

    @staticmethod
    def _read(reader: Reader, tenants: list[str]) -> dict[str, Tenant]:
        """Versions first, then containments: what moves in between makes step 6 start again."""
        with reader.asked() as db, db.pipeline():
            versions = db.execute(_VERSIONS, (tenants,))
            contained = db.execute(_CONTAINED, (tenants,))
            closed = db.execute(_CLOSED, (tenants,))
            moved: dict[str, dict[str, int]] = {tenant: {} for tenant in tenants}
            held: dict[str, list[tuple[Any, ...]]] = {tenant: [] for tenant in tenants}
            for tenant, key, version in versions:
                moved[tenant][key] = version
            for tenant, *row in contained:
                held[tenant].append(tuple(row))
            is_closed = {row[0] for row in closed}
        return {
            tenant: Tenant.of(moved[tenant], held[tenant], closed=tenant in is_closed) for tenant in tenants
        }

    # -- the thread ----------------------------------------------------------------------------

    def watch(self) -> None:
        """Begin to remember. Raises Away."""
        if self._thread is not None:
            return
        self._refresh()
        self._thread = Thread(target=self._run, name="guard-standing", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._listen()
            except (Away, GuardError):  # nothing is confirmed meanwhile, so nothing is told
                self._stop.wait(LOOK_SECONDS)

    def _listen(self) -> None:
        with self._watcher.asked() as db:
            db.execute(f"LISTEN {CHANNEL}".encode())
        while not self._stop.is_set():
            self._refresh()
            with (
                self._watcher.asked() as db,
                contextlib.closing(db.notifies(timeout=LOOK_SECONDS, stop_after=1)) as heard,
            ):
                for _ in heard:
                    pass

    def _refresh(self) -> None:
        """Look, read again what is remembered if anything moved, and confirm it."""
        began = time.monotonic()
        moves, last = self._look(self._watcher)
        while True:
            with self._lock:
                generation, known = self._generation, list(self._tenants)
                if moves == self._moves:
                    self._confirmed, self._last = began, last
                    return
            fresh = self._read(self._watcher, known) if known else {}
            with self._lock:
                if generation == self._generation:
                    self._generation += 1
                    self._tenants = fresh  # who was added meanwhile is read when asked for
                    self._keys.clear()
                    self._moves, self._confirmed, self._last = moves, began, last
                    return

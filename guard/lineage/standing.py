"""What decisions read of the store, read once for each state of the file.

SQLite says with `PRAGMA data_version` whether any other connection has committed since, of this
process or another. It is asked each time: what is remembered is never older than the last commit.
The store's own commits mostly append and move nothing: over those it is carried.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType
from typing import Any, Final

from guard.core.model import Conversation, Principal
from guard.identity.api_keys import ApiKeyRecord
from guard.lineage import effects
from guard.lineage.rows import LOG
from guard.lineage.store import Snapshot

MAX_REMEMBERED: Final = 1024
"""How many tenants and how many API keys are remembered."""
_NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Tenant:
    """What stands for a tenant.

    Attributes:
        versions: every version that ever moved.
        anything: whether anything is contained.
        everything: whether ("all", "") is.
        targets: contained principals and tools: (kind, target).
        conversations: contained conversations: (tenant, issuer, subject, given).
        owners: their principals: (tenant, issuer, subject).
        closed: whether any conversation is sealed.
    """

    versions: Mapping[str, int]
    anything: bool
    everything: bool
    targets: frozenset[tuple[str, str]]
    conversations: frozenset[tuple[str, str, str, str]]
    owners: frozenset[tuple[str, str, str]]
    closed: bool

    @classmethod
    def of(cls, versions: Mapping[str, int], contained: Sequence[tuple[Any, ...]], *, closed: bool) -> Tenant:
        """What stands, of rows as a store has them.

        Args:
            versions: every version that ever moved.
            contained: (kind, target, tenant, issuer, subject, given); the last four are a contained
                conversation's, None for anything else.
            closed: whether any conversation is sealed.
        """
        held = [row[2:] for row in contained if row[0] == "conversation" and row[2] is not None]
        return cls(
            MappingProxyType(versions),
            bool(contained),
            any(row[0] == "all" for row in contained),
            frozenset((kind, target) for kind, target, *_ in contained),
            frozenset(held),
            frozenset(row[:3] for row in held),
            closed,
        )

    def snapshot(
        self,
        principal: Principal,
        conversation: Conversation,
        tool: tuple[str, str],
        *,
        own_only: bool,
        last: int,
        sealed: bool,
    ) -> Snapshot:
        """As `Store.snapshot`, at a time when the newest entry is `last` and the conversation `sealed`."""
        if not self.anything and not sealed:
            return Snapshot(self.versions, last, _NOTHING)
        touching = {
            "sealed": sealed,
            "all": self.everything,
            "principal": ("principal", effects.principal_target(principal.issuer, principal.subject))
            in self.targets,
            "tool": ("tool", effects.tool_target(*tool)) in self.targets,
            # A new id sheds nothing: only a role that may assert conversations is judged by one alone.
            "conversation": (*principal.key, conversation.id) in self.conversations
            if own_only
            else principal.key in self.owners,
        }
        return Snapshot(self.versions, last, frozenset(kind for kind, is_so in touching.items() if is_so))


class Standing:
    """The reading side of a store.

    Args:
        db: a connection that never writes.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._lock = Lock()
        self._at: int | None = None
        self._last = 0  # UNIX milliseconds of the newest entry of the log
        self._tenants: dict[str, Tenant] = {}
        self._keys: dict[str, ApiKeyRecord | None] = {}

    def snapshot(
        self, principal: Principal, conversation: Conversation, tool: tuple[str, str], *, own_only: bool
    ) -> Snapshot:
        """As `Store.snapshot`."""
        with self._lock:
            found, last = self._tenant(principal.tenant), self._last
            sealed = found.closed and self._is_sealed((*principal.key, conversation.id))
        return found.snapshot(principal, conversation, tool, own_only=own_only, last=last, sealed=sealed)

    def versions(self, tenant: str) -> Mapping[str, int]:
        """Every version of the tenant."""
        with self._lock:
            return self._tenant(tenant).versions

    def api_key(self, key_id: str) -> ApiKeyRecord | None:
        """The record of a key, None where there is none. Both answers cost the same."""
        with self._lock:
            self._look()
            if key_id not in self._keys:
                if len(self._keys) >= MAX_REMEMBERED:
                    self._keys.clear()
                self._keys[key_id] = effects.read_key(self._db, key_id)
            return self._keys[key_id]

    def held(self) -> int | None:
        """What to hand to `carry` after a commit: asked inside its transaction, while nobody else writes.

        Returns: None where what is remembered does not hold any more.
        """
        with self._lock, suppress(sqlite3.Error):  # no commit fails for want of a shortcut
            if self._at is not None and self._version() == self._at:
                return self._at
        return None

    def carry(self, held: int | None, last: int, used: Iterable[str], alone: Callable[[], bool]) -> None:
        """Carry what is remembered over a commit of the store's own that moved nothing else than this.

        Args:
            held: what `held` gave inside the transaction.
            last: UNIX milliseconds of the newest entry.
            used: the API keys that were used.
            alone: whether nobody but the store's own writer has committed since the transaction began.
        """
        with self._lock, suppress(sqlite3.Error):
            if held is None or self._at != held:
                return
            after = self._version()
            if alone():  # asked after the version was: what it tells is the own commit and no other
                self._at, self._last = after, last
                for key_id in used:
                    self._keys.pop(key_id, None)

    def _tenant(self, tenant: str) -> Tenant:
        """With the lock held."""
        self._look()
        found = self._tenants.get(tenant)
        if found is None:
            if len(self._tenants) >= MAX_REMEMBERED:
                self._tenants.clear()
            found = self._tenants[tenant] = self._read(tenant)
        return found

    def _is_sealed(self, key: tuple[str, str, str, str]) -> bool:
        """Read each time: those that are closed may be many, and are seldom asked for."""
        row = self._db.execute(
            "SELECT sealed FROM conversations WHERE tenant = ? AND issuer = ? AND subject = ? AND given = ?",
            key,
        ).fetchone()
        return row is not None and row[0] != 0

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def _look(self) -> None:
        """Forget everything if anybody committed. What is read after this is at least as new."""
        at = self._version()
        if at != self._at:
            self._tenants.clear()
            self._keys.clear()
            self._at = at

    def _read(self, tenant: str) -> Tenant:
        """Versions first, then containments: what moves in between makes step 6 start again."""
        versions: dict[str, int] = {}
        for key, value in self._db.execute(
            "SELECT key, version FROM versions WHERE tenant = ?"
            " UNION ALL SELECT NULL, at FROM heads WHERE log = ?",
            (tenant, LOG),
        ):
            if key is None:
                self._last = value
            else:
                versions[key] = value
        rows = self._db.execute(
            "SELECT x.kind, x.target, c.tenant, c.issuer, c.subject, c.given FROM contained x"
            " LEFT JOIN conversations c ON x.kind = 'conversation' AND c.id = x.target WHERE x.tenant = ?",
            (tenant,),
        ).fetchall()
        closed = self._db.execute(
            "SELECT 1 FROM conversations WHERE tenant = ? AND sealed != 0 LIMIT 1", (tenant,)
        ).fetchone()
        return Tenant.of(versions, rows, closed=closed is not None)

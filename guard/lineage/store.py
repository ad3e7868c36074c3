"""What the log asks of a store, and what a transaction is.

A transaction is conditional: it names the versions that its decision rested on, one entry to
append, and the effects that come with it. A store applies all of it or none of it. Limits,
budgets, approvals and origins will be further effects and expectations, not a second way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from guard.core.model import Conversation, Principal
from guard.identity.api_keys import ApiKeyRecord
from guard.lineage.entry import Draft

CONTAINMENT: Final = "containment"
REVOCATION: Final = "revocation"


def pins_version(server: str) -> str:
    """The versioned key of a server's pins."""
    return f"pins/{server}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry goes: a conversation of a principal, or the house's own (principal None)."""

    tenant: str
    principal: Principal | None = None
    conversation: Conversation | None = None


@dataclass(frozen=True, slots=True)
class OpenGrant:
    """A grant begins; exactly one CloseGrant must follow. `instance` is the process that owes it."""

    call: str
    instance: str


@dataclass(frozen=True, slots=True)
class CloseGrant:
    """A grant ends. A grant that is not open cannot end: the transaction is refused."""

    call: str


@dataclass(frozen=True, slots=True)
class UseKey:
    """An API key was used at the transaction's time."""

    key_id: str


@dataclass(frozen=True, slots=True)
class Contain:
    """Put a conversation, principal, tool, or ("all", "") everything out of use; twice is as once."""

    kind: str
    target: str


@dataclass(frozen=True, slots=True)
class Release:
    """Take a containment back. One that does not stand cannot be: the transaction is refused."""

    kind: str
    target: str


@dataclass(frozen=True, slots=True)
class SavePolicy:
    """A policy was loaded. An older version, or the same with other bytes, is refused."""

    id: str
    version: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SavePins:
    """All pins of one server: (name, digest, definition as JSON), in the server's order."""

    server: str
    pins: tuple[tuple[str, str, bytes], ...]


@dataclass(frozen=True, slots=True)
class SaveKey:
    """A new API key."""

    record: ApiKeyRecord


@dataclass(frozen=True, slots=True)
class RevokeKey:
    """An API key ends. One that is unknown or revoked already is refused."""

    key_id: str


@dataclass(frozen=True, slots=True)
class SaveSetting:
    """A value of the store's own to keep."""

    key: str
    value: str


Effect = (
    OpenGrant
    | CloseGrant
    | UseKey
    | Contain
    | Release
    | SavePolicy
    | SavePins
    | SaveKey
    | RevokeKey
    | SaveSetting
)


@dataclass(frozen=True, slots=True)
class Transaction:
    """One entry and what comes with it, under conditions.

    Attributes:
        place: the conversation that it belongs to; opened where it is new.
        entry: what is appended.
        now: UNIX milliseconds of the writer's clock.
        expects: versions that must still stand, else nothing happens and the outcome is Moved.
        effects: what else changes.
    """

    place: Place
    entry: Draft
    now: int
    expects: Mapping[str, int] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """The transaction is durable.

    Attributes:
        index: place in the log.
        conversation: the log's own id of the conversation.
        at: UNIX milliseconds of the entry.
    """

    index: int
    conversation: str
    at: int


@dataclass(frozen=True, slots=True)
class Moved:
    """Nothing happened: this version is no longer what was expected."""

    key: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing happened: an effect cannot be."""

    what: str


Outcome = Recorded | Moved | Conflict


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a decision reads of the store, at one moment.

    Attributes:
        versions: every version of the tenant.
        last: UNIX milliseconds of the newest entry, 0 for none.
        contained: what is out of use for the caller: any of "all", "conversation", "principal", "tool".
    """

    versions: Mapping[str, int]
    last: int
    contained: frozenset[str]


@dataclass(frozen=True, slots=True)
class PinRow:
    """A tool definition that an operator accepted. `definition` is its JSON, keys in the server's order."""

    name: str
    sha256: str
    definition: bytes


@dataclass(frozen=True, slots=True)
class EntryRow:
    """An entry as it is stored, nothing about it checked."""

    index: int
    conversation: str
    seq: int
    hash: bytes
    leaf: bytes
    disclosures: bytes | None


@dataclass(frozen=True, slots=True)
class ConversationRow:
    """A conversation as it is stored."""

    id: str
    tenant: str
    issuer: str
    subject: str
    given: str
    source: str
    entries: int
    head: bytes
    contained: int


class Busy(Exception):
    """Another process writes to the store, and did not let go in time. Nothing happened."""


class Store(Protocol):
    """One place where the log lives. `apply` is called by one thread at a time."""

    def apply(self, batch: Sequence[Transaction]) -> list[Outcome]:
        """Commit a batch durably: head compared, checkpoint signed, in one database transaction.

        Raises:
            Busy: another process writes, and did not let go within `patience`. Nothing happened.
            Exception: nothing of the batch can be relied on.
        """
        ...

    def patience(self, seconds: float) -> None:
        """How long the next `apply` waits for another process that writes."""
        ...

    def snapshot(
        self, principal: Principal, conversation: Conversation, tool: tuple[str, str], *, own_only: bool
    ) -> Snapshot:
        """Read what a decision needs. With `own_only` only this conversation's containment counts."""
        ...

    def versions(self, tenant: str) -> Mapping[str, int]:
        """Every version of the tenant."""
        ...

    def api_key(self, key_id: str) -> ApiKeyRecord | None:
        """The record of a key."""
        ...

    def pins(self, tenant: str, server: str) -> list[PinRow]:
        """A server's pins, in order."""
        ...

    def open_grants(self) -> list[tuple[str, str, Place]]:
        """(call, instance, place) of every grant without an ending."""
        ...

    def contained(self, tenant: str) -> list[dict[str, Any]]:
        """Every containment that stands."""
        ...

    def checkpoint(self) -> str:
        """The newest signed checkpoint."""
        ...

    def entries(self, conversation: str | None = None) -> Iterator[EntryRow]:
        """Entries in order, of one conversation or all."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...

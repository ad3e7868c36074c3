"""What the log asks of a store, and what a transaction is.

A transaction is conditional: it names the versions that its decision rested on, one entry to
append, and the effects that come with it. A store applies all of it or none of it. A limit is such
an effect; budgets, approvals and origins will be further ones, not a second way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from guard.core.errors import Reason, Refused
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
    """A grant ends. A grant that is not open cannot end: the transaction is refused.

    Attributes:
        call: which one.
        nothing_sent: it is certain that nothing was sent: what it had reserved is given back.
    """

    call: str
    nothing_sent: bool = False


@dataclass(frozen=True, slots=True)
class Reserve:
    """Take from a counter of the tenant, if there is room; else the outcome is Moved(counter).

    There is room where the amounts that were taken after `at - window`, with those of this batch and
    of this transaction, and `amount` are together no more than `most`. `at` is the transaction's time.

    What is taken stays taken until the window has passed, unless `CloseGrant(call, nothing_sent=True)`
    gives it back. Rows older than the window that they were taken under (`at + window`) may be deleted.

    Attributes:
        counter: short text that names the counter: the limit's id and a digest.
        call: the grant that takes it.
        amount: how much, from 0; 1 where calls are counted.
        most: how much there may be inside the window.
        window: milliseconds.
    """

    counter: str
    call: str
    amount: int
    most: int
    window: int


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
class Seal:
    """Close the conversation that the transaction's entry goes to: nothing follows that entry.

    Refused where a grant is still open in it, where it is closed already or the house's own, and where
    the total is another.

    Attributes:
        conversation: the log's own id of it.
        total: how many entries it then has, the transaction's own too.
    """

    conversation: str
    total: int


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
    | Reserve
    | UseKey
    | Contain
    | Release
    | Seal
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
        effects: what else changes. Versions are compared first, then whether every effect can be (Conflict),
            and last whether the counters have room (Moved).
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
    """Nothing happened: this version is no longer what was expected, or this counter has no room."""

    key: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing happened: an effect cannot be. `what` says why, `reason` how a caller is told."""

    what: str
    reason: Reason = Reason.UNEXPECTED


Outcome = Recorded | Moved | Conflict


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a decision reads of the store, at one moment.

    Attributes:
        versions: every version of the tenant.
        last: UNIX milliseconds of the newest entry, 0 for none.
        contained: what is out of use for the caller: any of "all", "conversation", "principal", "tool";
            and "sealed", where this very conversation is closed.
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
    sealed: int


class Busy(Exception):
    """Another process writes to the store, and did not let go in time. Nothing happened."""


class Away(Refused):
    """The store cannot be reached, or did not answer. It may come back, and then knows what happened."""

    def __init__(self, what: str) -> None:
        super().__init__(Reason.STORE_UNAVAILABLE, what, remedy="make the database reachable again")


class Store(Protocol):
    """One place where the log lives. `apply` is called by one thread at a time."""

    def apply(self, batch: Sequence[Transaction]) -> list[Outcome]:
        """Commit a batch durably: head compared, checkpoint signed, in one database transaction.

        Raises:
            Busy: another process writes, and did not let go within `patience`. Nothing happened.
            Away: the store is out of reach.
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

    def used(self, tenant: str, counters: Sequence[tuple[str, int]]) -> list[int]:
        """How much was taken from each counter after a time: (counter, UNIX ms), in their order."""
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

    def api_keys(self) -> list[ApiKeyRecord]:
        """Every key, in the order of their making."""
        ...

    def policy(self, tenant: str, policy_id: str) -> tuple[int, str] | None:
        """Version and digest of the policy that was last adopted under this id."""
        ...

    def setting(self, tenant: str, key: str) -> str | None:
        """A value that was kept, None where there is none."""
        ...

    def servers(self, tenant: str) -> list[str]:
        """Every server that has pins."""
        ...

    def conversations(self) -> list[ConversationRow]:
        """Every conversation, in the order of opening; what waits for its place in the log counts."""
        ...

    def leaf(self, index: int) -> bytes:
        """One leaf's bytes. Raises KeyError."""
        ...

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree; level 0 are the leaves. Raises KeyError."""
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

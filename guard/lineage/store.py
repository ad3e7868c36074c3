"""What the log asks of a store, and what it tells.

What a transaction is says `guard.lineage.transaction`; its names are handed on here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from guard.core.errors import Reason, Refused
from guard.core.model import Conversation, Principal
from guard.identity.api_keys import ApiKeyRecord
from guard.lineage.transaction import (
    CONTAINMENT,
    REVOCATION,
    AnswerQuestion,
    CloseGrant,
    Conflict,
    Contain,
    Effect,
    Glimpse,
    Moved,
    OpenGrant,
    Outcome,
    Place,
    Recorded,
    Release,
    Remember,
    Reserve,
    RevokeKey,
    SaveKey,
    SavePins,
    SavePolicy,
    SaveQuestion,
    SaveSetting,
    Seal,
    Strike,
    Transaction,
    Unmoved,
    UseApproval,
    UseKey,
    pins_version,
)

__all__ = [
    "CONTAINMENT",
    "REVOCATION",
    "AnswerQuestion",
    "Away",
    "Busy",
    "CloseGrant",
    "Conflict",
    "Contain",
    "ConversationRow",
    "Effect",
    "EntryRow",
    "Glimpse",
    "Memory",
    "Moved",
    "OpenGrant",
    "Outcome",
    "PinRow",
    "Place",
    "QuestionRow",
    "Recorded",
    "Release",
    "Remember",
    "Reserve",
    "RevokeKey",
    "SaveKey",
    "SavePins",
    "SavePolicy",
    "SaveQuestion",
    "SaveSetting",
    "Seal",
    "Snapshot",
    "Store",
    "Strike",
    "Transaction",
    "Unmoved",
    "UseApproval",
    "UseKey",
    "pins_version",
]


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
class Memory:
    """What a memory has of what was asked.

    Attributes:
        glimpses: the rows of the fingerprints that were asked for.
        whole: False where it was full, or a grant ended whose facts never came.
        version: what `Unmoved` compares; 0 for a memory that never was.
    """

    glimpses: tuple[Glimpse, ...]
    whole: bool
    version: int


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """A question as it is stored. `state`: "open", "granted", "denied" or "used".

    Attributes:
        question: as it was asked.
        tenant: whose it is.
        asked: UNIX milliseconds.
        state: what became of it.
        answered_by: "issuer/subject" of who answered, "" while nobody did.
        word: "reviewer" or "client", "" while nobody answered.
    """

    question: SaveQuestion
    tenant: str
    asked: int
    state: str
    answered_by: str = ""
    word: str = ""


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

    def recall(self, tenant: str, memory: str, pending: str, fingerprints: Sequence[bytes]) -> Memory:
        """What a memory has of these fingerprints.

        Args:
            tenant: whose it is.
            memory: its name.
            pending: the counter that each grant holds whose facts are still to come: rows of it whose grant
                is open no more make the memory not whole.
            fingerprints: what is asked for.
        """
        ...

    def approval(self, tenant: str, issuer: str, subject: str, digest: str, at: int) -> QuestionRow | None:
        """The newest question of this principal on this digest, neither used nor void at `at` (UNIX ms)."""
        ...

    def question(self, tenant: str, id_: str) -> QuestionRow | None:
        """One question."""
        ...

    def questions(self, tenant: str, at: int) -> list[QuestionRow]:
        """Every question that is not void at `at` (UNIX ms), the oldest first."""
        ...

    def open_questions(self, tenant: str, issuer: str, subject: str, at: int) -> int:
        """How many questions of this principal are open, and not void at `at` (UNIX ms)."""
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

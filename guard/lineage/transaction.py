"""What a transaction is: one entry to append, the versions that it rests on, and its effects.

A transaction is conditional: it names the versions that its decision rested on, one entry to
append, and the effects that come with it. A store applies all of it or none of it. Limits, budgets,
approvals and what was seen are such effects, and there is no second way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from guard.core.errors import Reason
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


PENDING: Final = "pending/"
"""What the counters begin with that a grant holds until its facts are stored."""


@dataclass(frozen=True, slots=True)
class CloseGrant:
    """A grant ends. A grant that is not open cannot end: the transaction is refused.

    Attributes:
        call: which one.
        nothing_sent: it is certain that nothing was sent: what it had reserved is given back.
        known: it is known what became of it: what it held is given back, but for what is PENDING.
        told: its facts are stored, or its client was told nothing: what it held of PENDING is given back.
    """

    call: str
    nothing_sent: bool = False
    known: bool = False
    told: bool = False

    @property
    def frees_some(self) -> bool:
        """Whether anything may be given back."""
        return self.nothing_sent or self.known or self.told

    def frees(self, counter: str, *, held: bool) -> bool:
        """Whether a row of this counter is given back."""
        if not held or self.nothing_sent:
            return self.nothing_sent
        return self.told if counter.startswith(PENDING) else self.known


@dataclass(frozen=True, slots=True)
class Reserve:
    """Take from a counter of the tenant, if there is room; else the outcome is Moved(counter).

    There is room where the amounts that were taken after `at - window`, with those of this batch and
    of this transaction, and `amount` are together no more than `most`. `at` is the transaction's time.

    What is taken stays taken until the window has passed, unless `CloseGrant(call, nothing_sent=True)`
    gives it back, or `known` and `told` of the ending what is `held`. An amount of 0 takes nothing and asks
    for room all the same; where `most` is UNBOUNDED there is always room. Rows older than the window that
    they were taken under may be deleted. What is taken twice, once not held, is not held.

    Attributes:
        counter: short text that names the counter: the limit's id and a digest.
        call: the grant that takes it.
        amount: how much, from 0; 1 where calls are counted.
        most: how much there may be inside the window.
        window: milliseconds.
        held: given back by an ending that is known, or told (see `CloseGrant`), too.
    """

    counter: str
    call: str
    amount: int
    most: int
    window: int
    held: bool = False


@dataclass(frozen=True, slots=True)
class Strike:
    """Count a denial; `most` of them inside the window contain, and the count begins anew.

    A containment that a count brings about has an entry of its own in the house's conversation, after the
    transaction's: `contained`, with the denied call, and how many denials inside which window. What is
    contained already is not counted, nor is the house's own conversation ever contained.

    Attributes:
        counter: short text that names the counter.
        call: the denied call.
        most: how many contain.
        window: milliseconds.
        kind: "conversation" (the one that the transaction's entry goes to) or "principal".
        target: of a principal, how a containment names it; "" for the conversation.
    """

    counter: str
    call: str
    most: int
    window: int
    kind: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Glimpse:
    """One value that was seen, as its fingerprint: 16 bytes, keyed; and where (see `Appearance`)."""

    fingerprint: bytes
    source: str
    trust: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep what was seen in a memory, and move the memory's version.

    One row a fingerprint and source: of several the least trusted stays. At `most` rows the memory is full:
    nothing new is kept, and it is not whole until what was not kept would have left the window.

    Attributes:
        memory: short text that names the memory: whose it is.
        glimpses: what was seen.
        window: milliseconds that it is kept.
        most: how many rows a memory may have.
    """

    memory: str
    glimpses: tuple[Glimpse, ...]
    window: int
    most: int


@dataclass(frozen=True, slots=True)
class Unmoved:
    """The memory is at this version still; else the outcome is Moved(memory)."""

    memory: str
    version: int


@dataclass(frozen=True, slots=True)
class SaveQuestion:
    """A person is asked to approve a call.

    Attributes:
        id: 128 random bits, base64url; the `decision_id` of the call that asked.
        issuer: of the principal that wants to call.
        subject: of that principal.
        digest: base64url SHA-256 of what would be sent: server, method and the params' own digest.
        rules: the rules that ask, sorted.
        approver: "reviewer" or "client".
        until: UNIX milliseconds from which on the question and any answer are void.
        shown: JSON of what a reviewer sees.
    """

    id: str
    issuer: str
    subject: str
    digest: str
    rules: tuple[str, ...]
    approver: str
    until: int
    shown: bytes


@dataclass(frozen=True, slots=True)
class AnswerQuestion:
    """A person said yes or no. Refused where the question is unknown, void, answered, or the asker's own.

    Attributes:
        id: of the question.
        yes: what they said.
        issuer: of the principal that answers.
        subject: of that principal.
        word: "reviewer" or "client"; a client may answer its own principal's question that takes its word.
    """

    id: str
    yes: bool
    issuer: str
    subject: str
    word: str


@dataclass(frozen=True, slots=True)
class UseApproval:
    """Use up an approval: one that is not granted, is used or void by then is Moved("approval/ID")."""

    id: str


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
    | Strike
    | Remember
    | Unmoved
    | SaveQuestion
    | AnswerQuestion
    | UseApproval
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
        entry: what is appended; None only where all that it does is to remember.
        now: UNIX milliseconds of the writer's clock.
        expects: versions that must still stand, else nothing happens and the outcome is Moved.
        effects: what else changes. Versions are compared first, then whether every effect can be (Conflict),
            then memories and approvals (Moved), and last whether the counters have room (Moved).
    """

    place: Place
    entry: Draft | None
    now: int
    expects: Mapping[str, int] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """The transaction is durable.

    Attributes:
        index: place in the log; -1 where it has none yet, or nothing was appended.
        conversation: the log's own id of the conversation, "" where nothing was appended.
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

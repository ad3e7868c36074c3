"""The nouns: who asks, what for, the request, the facts around it, and the decision.

All are frozen values. None knows where it came from or what happens to it next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NoReturn

from guard.core.canonical import digest
from guard.core.errors import Reason

DIGESTED_MEMBERS: Final = ("name", "uri", "arguments", "inputResponses", "requestState", "task")
SUBJECTS: Final[Mapping[str, tuple[str, str]]] = {
    "tools/call": ("tool", "name"),
    "prompts/get": ("prompt", "name"),
    "resources/read": ("resource", "uri"),
}
"""The methods of MCP that read or act: what kind of thing each is about, and which member names it."""
SCOPES_META: Final = "dev.guard-mcp/scopes"
ARTIFACT_META: Final = "dev.guard-mcp/authorization"
DECISION_META: Final = "dev.guard-mcp/decision"
CONVERSATION_META: Final = "dev.guard-mcp/conversation"
INTENT_META: Final = "dev.guard-mcp/intent"
USER_MESSAGE_META: Final = "dev.guard-mcp/user-message"
OWN_META_PREFIX: Final = "dev.guard-mcp/"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. Two are the same only if tenant, issuer and subject are.

    Attributes:
        tenant: from the credential's record only.
        issuer: who vouches: "api-key", "launch", or a token issuer's URL.
        subject: the name under that issuer.
        role: the one role that the record names.
        scopes: what the credential narrows its role to; None narrows nothing.
        credential: which credential it was (a key's id, or "launch").
    """

    tenant: str
    issuer: str
    subject: str
    role: str
    scopes: frozenset[str] | None = None
    credential: str = "launch"

    @property
    def key(self) -> tuple[str, str, str]:
        """What every store key begins with."""
        return (self.tenant, self.issuer, self.subject)


class Pin(StrEnum):
    """How the tool's live definition stands to the one that an operator accepted."""

    MATCHES = "matches"
    UNPINNED = "unpinned"
    CHANGED = "changed"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Tool:
    """What a call is for: one tool of one server, as it was pinned; or a prompt, a resource, a method.

    Attributes:
        server: the operator's id of the server.
        name: the server's own name for it; the URI of a resource.
        sha256: digest of the definition's RFC 8785 bytes (base64url); "" for what has none.
        pin: how the live definition stands to the pinned one; only tools are pinned, all else MATCHES.
        declared: scopes that the tool's author declared in the definition's `_meta`.
        kind: "tool", "prompt", "resource", or "method" for one that only the operator knows.
    """

    server: str
    name: str
    sha256: str = ""
    pin: Pin = Pin.ABSENT
    declared: frozenset[str] = frozenset()
    kind: str = "tool"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Which conversation a call belongs to.

    Attributes:
        id: the id as it was given or minted; scoped to the principal.
        source: "meta", "session", "launch" or "inferred".
    """

    id: str
    source: str


@dataclass(frozen=True, slots=True)
class Approval:
    """A person said yes to this very call.

    Attributes:
        id: of the question.
        rules: the rules that asked; it removes what these ask, and no denial.
        approver: who said so, in words for the record: "issuer/subject".
        word: "reviewer" for another principal that may approve, "client" for the requester's own client.
    """

    id: str
    rules: frozenset[str]
    approver: str
    word: str


@dataclass(frozen=True, slots=True)
class Appearance:
    """Where a value was seen in a memory.

    Attributes:
        source: "user", "policy", or "tool:SERVER/NAME" ("prompt:", "resource:", "server:SERVER" likewise).
        trust: "trusted", "mixed" or "untrusted".
        field: RFC 6901 pointer to where in it, "" for the whole or inside prose.
    """

    source: str
    trust: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a memory knows of the values of one call.

    Attributes:
        values: every appearance of a fingerprint that was asked for; one that is not in it was never seen.
        whole: whether nothing is missing: False where an ending was lost, or the memory was full.
        salt: what fingerprints of this memory are keyed with.
        version: of the memory, compared again in step 6.
    """

    values: Mapping[bytes, tuple[Appearance, ...]]
    whole: bool = True
    salt: bytes = b""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """The world at the moment of the call, as values.

    Attributes:
        now: UNIX milliseconds of the clock.
        last: UNIX milliseconds of the newest entry of the log.
        artifact_key: whether a signing key is present and inside its validity.
        store_writable: whether the log still takes entries.
        contained: what is out of use: any of "all", "conversation", "principal", "tool"; and "sealed" where
            this conversation is closed.
        versions: every version that the decision rests on, checked again in step 6.
        used: how much was taken inside its window, by the key of each reading that the policy asks for
            (a limit's id, a sequence's); counted again in step 6. One that is not in it denies.
        seen: what the memory knows of the call's values; None where nobody looked: a rule on origins denies.
        approval: a standing approval of this very call, None where there is none.
    """

    now: int
    last: int = 0
    artifact_key: bool = True
    store_writable: bool = True
    contained: frozenset[str] = frozenset()
    versions: Mapping[str, int] = field(default_factory=dict)
    used: Mapping[str, int] = field(default_factory=dict)
    seen: Seen | None = None
    approval: Approval | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request, bound: everything that `decide` may know and that will be sent.

    Attributes:
        id: 128 random bits, base64url; the `decision_id`.
        principal: who asks.
        tool: what for.
        audience: the operator's id of the server that the artifact is for.
        method: the JSON-RPC method.
        params: the upstream params without `_meta`, exactly as they will be sent.
        conversation: where it belongs.
        facts: the world around it.
        fault: pointer and words of what made `arguments` not I-JSON; None if nothing did.
        traceparent: W3C trace context, a label only.
        parent: the artifact that the client presented, as far as it was believed.
        intents: ids of the intents that launch and message declared: each must name the call and match.
        user_message: base64url SHA-256 of the user's words that came with it, "" where none did or may.
    """

    id: str
    principal: Principal
    tool: Tool
    audience: str
    method: str
    params: Mapping[str, Any]
    conversation: Conversation
    facts: Facts
    fault: tuple[str, str] | None = None
    traceparent: str | None = None
    parent: Parent | None = None
    intents: frozenset[str] = frozenset()
    user_message: str = ""

    @property
    def depth(self) -> int:
        """How many calls led to this one: 0 for one that came with no artifact."""
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What rules judge: the arguments, {} where the client sent none; of a resource, its URI.

        Of a method that only the operator knows, all params.
        """
        match self.tool.kind:
            case "resource":
                return {"uri": self.tool.name}
            case "method":
                return self.params
        arguments: Mapping[str, Any] = self.params.get("arguments", {})
        return arguments


@dataclass(frozen=True, slots=True)
class Parent:
    """An artifact that came with the call.

    Attributes:
        edge: "verified" (a trusted issuer's, for this Guard), or "claimed".
        sha256: digest of its bytes.
        txn: the transaction that it belongs to, "" when it is only claimed.
        depth: how many calls led to that one, 0 when it is only claimed.
    """

    edge: str
    sha256: str
    txn: str = ""
    depth: int = 0


def subject(method: str, params: Mapping[str, Any]) -> tuple[str, Any]:
    """What a request is about: the kind, and its name as the params have it (None if they have none)."""
    if method in SUBJECTS:
        kind, member = SUBJECTS[method]
        return kind, params.get(member)
    return "method", method


def args_sha256(params: Mapping[str, Any], method: str = "tools/call") -> str:
    """The digest of what was judged: RFC 8785 over the members of DIGESTED_MEMBERS that are there.

    Of a method that is not in SUBJECTS, over every member but `_meta`.

    Raises:
        NotIJson: the params have no canonical form.
    """
    members = DIGESTED_MEMBERS if method in SUBJECTS else params.keys() - {"_meta"}
    return digest({name: params[name] for name in members if name in params})


class _Decision:
    """A decision has no truth value: `if decision:` would read a denial as a yes."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        raise TypeError("a decision has no truth value; match on Allow and Deny")


@dataclass(frozen=True, slots=True)
class Reservation:
    """What must be taken from a counter before the call may run.

    Attributes:
        limit: id of the rule that says so.
        counter: short text that names the counter.
        amount: how much; 1 where calls are counted, 0 where it is only looked at.
        most: how much there may be inside the window; UNBOUNDED where it is only noted.
        window: milliseconds.
        held: it is given back by any ending that says what became of the call; `unknown` keeps it.
    """

    limit: str
    counter: str
    amount: int
    most: int
    window: int
    held: bool = False


UNBOUNDED: Final = 2**53 - 1
"""Of a reservation: nothing is too much."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What is noted of a call that returned without an error, in a counter, for `window` milliseconds."""

    counter: str
    window: int


@dataclass(frozen=True, slots=True)
class Allow(_Decision):
    """The call may run, if every obligation is met.

    Attributes:
        rules: ids of the rules that permitted it, sorted.
        scopes: what this tool required, sorted; no more than that goes into the artifact.
        obligations: what the enforcement point must do, sorted; an unknown one denies.
        mode: "enforce" or "observe".
        reservations: what must be taken with the grant, in the same transaction, sorted by limit.
        marks: what its return is noted as, sorted.
        approved: the rules whose question the standing approval answered: it is used up with the grant.
        rests_on_seen: whether the decision read `facts.seen`: its version must still stand.
    """

    rules: tuple[str, ...]
    scopes: tuple[str, ...]
    obligations: tuple[str, ...] = ()
    mode: str = "enforce"
    reservations: tuple[Reservation, ...] = ()
    marks: tuple[Mark, ...] = ()
    approved: tuple[str, ...] = ()
    rests_on_seen: bool = False


@dataclass(frozen=True, slots=True)
class Ask(_Decision):
    """The call may run once a person has approved this very call; all else permits it.

    Attributes:
        rules: ids of the rules that ask and are not answered, sorted.
        approver: "client" where each of them takes the word of the requester's own client; else "reviewer".
        window: milliseconds that question and approval stand: the least that one of the rules says.
        pointers: RFC 6901 pointers into the request to what they ask about, sorted; () for the whole.
    """

    rules: tuple[str, ...]
    approver: str
    window: int
    pointers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deny(_Decision):
    """The call may not run.

    Attributes:
        reason: why, from the closed list.
        rule: id of the rule that said so, "" when none did.
        pointer: JSON pointer into the request to the field at fault, "" when there is none.
    """

    reason: Reason
    rule: str = ""
    pointer: str = ""


Decision = Allow | Ask | Deny


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """Which policy decided: what goes into artifact and entry.

    Attributes:
        layers: the policies above it that decided, too, the highest first.
    """

    id: str
    version: int
    sha256: str
    layers: tuple[PolicyRef, ...] = ()

    @property
    def all(self) -> tuple[PolicyRef, ...]:
        """Every policy that decided, the highest first."""
        return (*self.layers, self)

    def as_json(self) -> dict[str, Any]:
        """As artifacts and entries say it; a policy of one layer has no `layers`."""
        own: dict[str, Any] = {"id": self.id, "version": self.version, "sha256": self.sha256}
        return own | {"layers": [layer.as_json() for layer in self.layers]} if self.layers else own

    @property
    def versioned(self) -> str:
        """The key under which the store holds the newest version of this policy."""
        return f"policy/{self.id}"

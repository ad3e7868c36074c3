"""Cases beside a policy: what it must answer, checked before it may decide anything.

They stand in a file of their own, because the policy's digest goes into every artifact and must not
change with a test. A case is judged as in `mode: enforce`: what observing lets through is not what
the policy permits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from guard.core.canonical import write
from guard.core.errors import GuardError, Reason, printable
from guard.core.model import (
    SUBJECTS,
    Allow,
    Appearance,
    Approval,
    Ask,
    Call,
    Conversation,
    Decision,
    Facts,
    Parent,
    Pin,
    Principal,
    Seen,
    Tool,
)
from guard.policy.decide import decide
from guard.policy.document import load
from guard.policy.findings import explain_invalid, invalid, nearest
from guard.policy.grammar import KINDS, SCHEMA_URL, Id, Instant, Pointer, RoleName, Strict, WideScope
from guard.policy.instants import milliseconds
from guard.policy.language import Approver, Trust
from guard.policy.origins.values import glimpses, spoken
from guard.policy.reading import Text, read
from guard.policy.rules import Policy

_SALT: Final = b"cases beside a policy"


class SaidDocument(Strict):
    """Something that was said before: a result as text or as JSON, or the user's words."""

    by: Annotated[str, Field(pattern=r"^(user|(tool|prompt|resource|server):\S{1,512})$")]
    trust: Trust = "untrusted"
    fields: dict[Pointer, Trust] = Field(default={})
    text: str | None = None
    value: Any = None


class ApprovedDocument(Strict):
    """A person approved this very call."""

    rules: list[str]
    word: Approver = "reviewer"


class FactsDocument(Strict):
    """The world of a case; what is not said is sound."""

    now: Instant = "1970-01-01T00:00:00Z"
    contained: list[Literal["all", "conversation", "principal", "sealed", "tool"]] = Field(default=[])
    used: dict[
        Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/-]{0,191}$")], Annotated[int, Field(ge=0)]
    ] = Field(
        default={},
        description="how much of each limit, and of each sequence, was used inside its window; else 0",
    )
    said: list[SaidDocument] = Field(default=[], description="what was said before, and by whom")
    whole: bool = Field(default=True, description="whether nothing is missing of what was said")
    approved: ApprovedDocument | None = None


class CaseDocument(Strict):
    """One call, and what the policy must say to it."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    role: RoleName
    tool: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    prompt: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    resource: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    method: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    server: Annotated[str, Field(min_length=1, max_length=256)] = "server"
    principal: Annotated[str, Field(min_length=1, max_length=256)] = "someone"
    scopes: list[WideScope] | None = Field(
        default=None, description="what the credential narrows its role to"
    )
    declared: list[WideScope] = Field(default=[], description="scopes that the tool's author declares")
    arguments: dict[str, Any] = Field(default={}, description="of a method, its params")
    facts: FactsDocument = FactsDocument()
    intents: list[Id] = Field(default=[], description="declared intents")
    depth: Annotated[int, Field(ge=0, le=1000)] = Field(default=0, description="how many calls led to it")
    expect: Literal["allow", "ask", "deny"]
    reason: str | None = Field(
        default=None, json_schema_extra={"enum": [None, *(reason.value for reason in Reason)]}
    )
    rule: str | None = None


class CasesDocument(Strict):
    """The cases of one policy."""

    dialect: str | None = Field(default=None, alias="$schema", description="for editors; decides nothing")
    cases: Annotated[list[CaseDocument], Field(min_length=1)]


def cases_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a case file, for editors and other tools."""
    return {"$schema": SCHEMA_URL, **CasesDocument.model_json_schema()}


@dataclass(frozen=True, slots=True)
class Case:
    """A case, ready to run.

    Attributes:
        name: what it shows.
        where: file and line.
        call: what is asked.
        reason: why it must be denied, None if it must be allowed.
        rule: the id that the decision must name, None if any will do.
        expect: "allow", "ask" or "deny".
    """

    name: str
    where: str
    call: Call
    reason: Reason | None
    rule: str | None
    expect: str


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one case went.

    Attributes:
        case: the case.
        decision: what the policy said.
        passed: whether that is what was expected.
    """

    case: Case
    decision: Decision
    passed: bool

    @property
    def expected(self) -> str:
        """What the case asked for, in words."""
        head = self.case.expect if self.case.reason is None else f"deny {self.case.reason}"
        return head if self.case.rule is None else f"{head} by {self.case.rule}"

    @property
    def got(self) -> str:
        """What the policy said, in words."""
        if isinstance(self.decision, Allow):
            return f"allow by {', '.join(self.decision.rules)}"
        if isinstance(self.decision, Ask):
            return f"ask by {', '.join(self.decision.rules)}"
        return f"deny {self.decision.reason}" + (f" by {self.decision.rule}" if self.decision.rule else "")


def read_cases(data: bytes, *, name: str) -> tuple[Case, ...]:
    """Read a file of cases, YAML or JSON.

    Raises:
        GuardError: not readable, an unknown field, a reason that does not exist, a name used twice.
    """
    text = read(data, name=name)
    try:
        document = CasesDocument.model_validate(text.value)
    except ValidationError as error:
        raise explain_invalid(error, text, CasesDocument) from None
    cases: dict[str, Case] = {}
    for index, case in enumerate(document.cases):
        at = f"/cases/{index}"
        if case.name in cases:
            raise invalid(
                text, f"{at}/name", f"`{printable(case.name)}` stands here twice", "name each case once"
            )
        _check_subject(case, text, at)
        if (case.expect == "deny") != (case.reason is not None):
            remedy = (
                "say why: add `reason`"
                if case.expect == "deny"
                else "remove `reason`, only a denied call has one"
            )
            raise invalid(text, at, f"the case expects {case.expect}", remedy)
        if case.reason is not None and case.reason not in list(Reason):
            what = f"no reason is called `{printable(case.reason)}`"
            raise invalid(text, f"{at}/reason", what, nearest(case.reason, list(Reason)))
        reason = None if case.reason is None else Reason(case.reason)
        cases[case.name] = Case(case.name, text.where(at), _call(case), reason, case.rule, case.expect)
    return tuple(cases.values())


def run(policy: Policy, cases: Sequence[Case]) -> list[CaseResult]:
    """Ask the policy every case, as in enforce mode.

    Raises:
        GuardError: a case says how much was used of a limit that the policy does not have.
    """
    enforced = replace(policy, mode="enforce")
    return [_judged(case, decide(in_its_world(case, policy), enforced)) for case in cases]


def load_checked(policy_bytes: bytes, cases_bytes: bytes | None, name: str, cases_name: str = "") -> Policy:
    """Load a policy and run its cases; the one way to a policy that may decide.

    Args:
        policy_bytes: the policy.
        cases_bytes: the cases beside it, None if there are none.
        name: what the policy is called in messages.
        cases_name: what the cases are called in messages.

    Raises:
        GuardError: the policy or the cases are not valid, or a case failed.
    """
    policy = load(policy_bytes, name=name)
    if cases_bytes is not None:
        results = run(policy, read_cases(cases_bytes, name=cases_name or f"{name} (cases)"))
        failed = [result for result in results if not result.passed]
        if failed:
            raise _failure(failed, len(results))
    return policy


def asked(kind: str, name: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method and the params of a request for a tool, a prompt, a resource or a method."""
    for method, (of, member) in SUBJECTS.items():
        if of == kind:
            return method, {member: name} | ({} if kind == "resource" else {"arguments": dict(arguments)})
    return name, dict(arguments)


def unused(policy: Policy) -> dict[str, int]:
    """How much was used of each limit and sequence, in each layer, where nothing was."""
    found: dict[str, int] = {}
    for layer in policy.layers:
        found |= {limit.id: 0 for limit in layer.limits}
        for sequence in layer.sequences:
            found |= {sequence.id: 0, f"{sequence.id}/spent": 0}
    return found


def in_its_world(case: Case, policy: Policy) -> Call:
    """The call of a case in a world in which nothing else was used than it says.

    Raises:
        GuardError: it says how much was used of a limit that the policy does not have.
    """
    facts, limits = case.call.facts, unused(policy)
    for limit in facts.used:
        if limit not in limits:
            raise GuardError(
                f"no limit and no sequence is called `{printable(limit)}`",
                where=case.where,
                remedy=nearest(limit, limits),
            )
    return replace(case.call, facts=replace(facts, used={**limits, **facts.used}))


def _check_subject(case: CaseDocument, text: Text, at: str) -> None:
    named = [kind for kind in KINDS.values() if getattr(case, kind) is not None]
    if len(named) != 1:
        remedy = f"name one of {', '.join(f'`{kind}`' for kind in KINDS.values())}"
        raise invalid(text, at, "a case asks for one thing", remedy)
    if case.resource is not None and case.arguments:
        raise invalid(text, f"{at}/arguments", "a resource has no arguments", "remove them")


def _judged(case: Case, decision: Decision) -> CaseResult:
    if isinstance(decision, Allow):
        passed = case.expect == "allow" and (case.rule is None or case.rule in decision.rules)
    elif isinstance(decision, Ask):
        passed = case.expect == "ask" and (case.rule is None or case.rule in decision.rules)
    else:
        passed = (
            case.expect == "deny" and case.reason is decision.reason and case.rule in (None, decision.rule)
        )
    return CaseResult(case, decision, passed)


def _failure(failed: list[CaseResult], total: int) -> GuardError:
    first = failed[0]
    return GuardError(
        f"{len(failed)} of {total} cases failed, the first is `{printable(first.case.name)}`: "
        f"expected {printable(first.expected)}, got {printable(first.got)}",
        where=first.case.where,
        remedy="correct the policy or the case; until then the policy does not load",
    )


def _call(case: CaseDocument) -> Call:
    scopes = None if case.scopes is None else frozenset(case.scopes)
    kind = next(kind for kind in KINDS.values() if getattr(case, kind) is not None)
    name = getattr(case, kind)
    method, params = asked(kind, name, case.arguments)
    return Call(
        id="case",
        principal=Principal("default", "launch", case.principal, case.role, scopes),
        tool=Tool(case.server, name, "", Pin.MATCHES, frozenset(case.declared), kind),
        audience=case.server,
        method=method,
        params=params,
        conversation=Conversation("case", "launch"),
        facts=Facts(
            now=milliseconds(case.facts.now),
            contained=frozenset(case.facts.contained),
            used=case.facts.used,
            seen=_seen(case.facts),
            approval=_approval(case.facts.approved),
        ),
        parent=Parent("verified", "", depth=case.depth - 1) if case.depth else None,
        intents=frozenset(case.intents),
    )


def _seen(facts: FactsDocument) -> Seen:
    """What is remembered of what was said."""
    values: dict[bytes, tuple[Appearance, ...]] = {}
    for said in facts.said:
        text = write(said.value) if said.text is None else said.text.encode()
        found = (
            spoken(text.decode(), _SALT)
            if said.by == "user"
            else glimpses(text, source=said.by, trust=said.trust, fields=said.fields, salt=_SALT)
        )
        for fingerprint, appearance in found:
            values[fingerprint] = (*values.get(fingerprint, ()), appearance)
    return Seen(values, facts.whole, _SALT)


def _approval(approved: ApprovedDocument | None) -> Approval | None:
    if approved is None:
        return None
    return Approval("case", frozenset(approved.rules), "case/reviewer", approved.word)

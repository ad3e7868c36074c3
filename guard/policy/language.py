"""The policy language: every field that a document may have.

There are no others, and an unknown one is an error with its line.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from guard.core.canonical import MAX_SAFE_INTEGER
from guard.policy.grammar import (
    NAMED,
    SCHEMA_URL,
    About,
    ArgumentPointer,
    Id,
    Instant,
    JsonSchemaOrNone,
    Pointer,
    PolicyId,
    RequestSchemaOrNone,
    ResourceMatch,
    RoleName,
    Scope,
    ServerName,
    Span,
    Strict,
    ToolMatch,
    Tools,
    WideScope,
    each_once,
    one_or_more,
)

MAX_CALLS: Final = 10_000
"""Of a limit: all that was taken inside the window is added up for each call."""
MAX_DIGITS: Final = 6
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00", re.ASCII)
Because = Annotated[str, Field(description="for reviewers; decides nothing")]


def _language(version: int) -> int:
    if version != 1:
        raise ValueError("this Guard reads version 1 of the policy language")
    return version


def _time(text: str) -> str:
    if not _TIME.fullmatch(text):
        raise ValueError("not a time of day such as 08:00 or 24:00")
    return text


TimeOfDay = Annotated[
    str, AfterValidator(_time), Field(json_schema_extra={"pattern": "^[0-2][0-9]:[0-5][0-9]$"})
]
Trust = Literal["trusted", "mixed", "untrusted"]
Approver = Literal["reviewer", "client"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class RoleDocument(Strict):
    """What a role grants."""

    inherits: list[RoleName] = []
    scopes: list[WideScope] = []
    may_assert_conversations: bool = False
    may_assert_user: bool = Field(default=False, description="may hand over the user's own words")
    may_approve: bool = Field(default=False, description="may answer what other principals are asked")


class ServerDocument(Strict):
    """How far a server is trusted, and what everything of it requires."""

    trust_declared_scopes: bool = False
    scopes: list[Scope] = []


class ToolDocument(ToolMatch):
    """Lists tools and the scopes that they require."""

    id: Id | None = None
    scopes: list[Scope]


class ResourceDocument(ResourceMatch):
    """Lists resources and the scopes that they require."""

    id: Id | None = None
    scopes: list[Scope]


class _Schemas(About):
    """Over the arguments, and over the whole request."""

    schema_: JsonSchemaOrNone = Field(default=None, alias="schema")
    request: RequestSchemaOrNone = None
    because: Because = ""


class IntentDocument(_Schemas):
    """What a permitted call of these looks like: as `schema` says, and as `request` says."""

    id: Id


class ProtectedDocument(_Schemas):
    """Forbids calls of these: always, or where all matches that is given."""

    id: Id


class AskDocument(_Schemas):
    """A person must approve calls of these: always, or where all matches that is given."""

    id: Id
    approver: Approver = Field(
        default="reviewer", description="`client`: the word of the caller's own client counts"
    )
    ttl: Span = Field(default="10m", description="how long question and approval stand")


_Per = Literal["principal", "role", "tool", "conversation"]
_Some = Annotated[list[_Per], Field(min_length=1, json_schema_extra={"uniqueItems": True})]


_ONE_KIND: Final[list[Any]] = [
    {"required": ["calls", "per", "window"], "properties": {"of": False, "currency": False}},
    {"required": ["sum", "of", "per", "window"]},
    {"required": ["at_once", "per"], "properties": {"of": False, "currency": False}},
    *(
        {"required": [kind], "properties": dict.fromkeys(("of", "currency", "per", "window"), False)}
        for kind in ("depth", "result_bytes")
    ),
]


class CurrencyDocument(Strict):
    """Which argument names the currency, and which one is counted."""

    at: ArgumentPointer
    is_: Annotated[str, Field(min_length=1, max_length=16)] = Field(alias="is")


class LimitDocument(About):
    """How much there may be of these: calls or a sum in a stretch of time, at once, how deep, how large."""

    model_config = ConfigDict(json_schema_extra={**NAMED, "oneOf": _ONE_KIND})

    id: Id
    per: Annotated[
        list[_Per],
        Field(min_length=1, description="each combination of these is counted apart"),
        AfterValidator(each_once),
        BeforeValidator(one_or_more, json_schema_input_type=_Per | _Some),
    ] = []
    calls: Annotated[int, Field(ge=1, le=MAX_CALLS)] | None = None
    sum: Annotated[int, Field(ge=0, le=10**12)] | None = None
    of: ArgumentPointer | None = Field(default=None, description="the argument that `sum` adds up")
    digits: Annotated[int, Field(ge=0, le=MAX_DIGITS)] = Field(
        default=2, description="decimals that are counted"
    )
    currency: CurrencyDocument | None = None
    at_once: Annotated[int, Field(ge=1, le=MAX_CALLS)] | None = None
    depth: Annotated[int, Field(ge=0, le=100)] | None = None
    result_bytes: Annotated[int, Field(ge=0, le=2**31)] | None = None
    window: Span | None = None
    because: Because = ""

    @model_validator(mode="after")
    def _is_one_kind(self) -> LimitDocument:
        kinds = {
            "calls": self.calls,
            "sum": self.sum,
            "at_once": self.at_once,
            "depth": self.depth,
            "result_bytes": self.result_bytes,
        }
        given = [name for name, value in kinds.items() if value is not None]
        if len(given) != 1:
            raise ValueError(f"a limit has one of {', '.join(f'`{name}`' for name in kinds)}")
        kind = given[0]
        counts = kind in {"calls", "sum", "at_once"}
        if counts and not self.per:
            raise ValueError(f"`{kind}` needs `per`")
        if not counts and (self.per or self.window):
            raise ValueError(f"`{kind}` has neither `per` nor `window`")
        if kind in {"calls", "sum"} and self.window is None:
            raise ValueError(f"`{kind}` needs `window`")
        if (kind == "sum") != (self.of is not None):
            raise ValueError("`sum` and `of` go together")
        if self.sum is not None and self.sum * 10**self.digits >= MAX_SAFE_INTEGER:
            raise ValueError("`sum` with so many `digits` is more than can be counted")
        if kind != "sum" and self.currency is not None:
            raise ValueError("`currency` goes with `sum`")
        return self


class HoursDocument(About):
    """When these may be called. Where such rules name something, the time lies inside one of them."""

    id: Id
    days: Annotated[list[Day], Field(min_length=1, max_length=7), AfterValidator(each_once)] = [
        "mon",
        "tue",
        "wed",
        "thu",
        "fri",
        "sat",
        "sun",
    ]
    from_: TimeOfDay = Field(alias="from")
    to: TimeOfDay = Field(description="not after `from`: on the day that follows")
    zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/_-]{1,64}$")] = Field(description="an IANA time zone")
    because: Because = ""


class SequenceDocument(About):
    """What must have returned before these (`requires`), or after what they are forbidden (`after`)."""

    id: Id
    requires: Tools | None = None
    within: Span = Field(default="24h", description="of `requires`: how far it looks back")
    after: Tools | None = None
    for_: Span = Field(default="24h", alias="for", description="of `after`: how long it holds")
    calls: Annotated[int, Field(ge=0, le=MAX_CALLS)] = Field(
        default=0,
        description="`requires`: how many calls each is good for, 0 for any; `after`: how many may follow",
    )
    because: Because = ""

    @model_validator(mode="after")
    def _is_one_kind(self) -> SequenceDocument:
        if (self.requires is None) == (self.after is None):
            raise ValueError("a sequence has `requires` or `after`")
        return self


class SourceDocument(About):
    """How far what these say is trusted. What no source names is untrusted."""

    trust: Trust
    fields: dict[Pointer, Trust] = Field(
        default={}, description="other trust for parts of structured results"
    )


class OriginDocument(About):
    """Where the values of these arguments may come from."""

    id: Id
    arguments: Annotated[list[Pointer], Field(min_length=1), AfterValidator(each_once)]
    accept: Annotated[
        list[
            Annotated[
                str, Field(pattern=r"^(user|policy|trusted|mixed|unseen|tool:[^/\s*]{1,128}/\S{1,256})$")
            ]
        ],
        Field(min_length=1, description="user, policy, trusted, mixed, unseen, or `tool:SERVER/NAME`"),
        AfterValidator(each_once),
    ]
    constants: list[str] = Field(default=[], description="values that are the policy's own")
    otherwise: Literal["deny", "ask"] = "deny"
    approver: Approver = "reviewer"
    ttl: Span = "10m"
    because: Because = ""


class MemoryDocument(Strict):
    """What is remembered for rules on origins."""

    window: Span = "24h"
    values: Annotated[int, Field(ge=100, le=1_000_000)] = 20_000
    user_overrides: bool = Field(default=False, description="the user's word beats an untrusted appearance")


class StrikesDocument(Strict):
    """How many denials put something out of use."""

    denials: Annotated[int, Field(ge=1, le=MAX_CALLS)]
    window: Span


class ContainmentDocument(Strict):
    """After how many denials a conversation, and a principal, is put out of use."""

    conversation: StrikesDocument | None = None
    principal: StrikesDocument | None = None


class PolicyDocument(Strict):
    """A Guard policy."""

    dialect: str | None = Field(default=None, alias="$schema", description="for editors; decides nothing")
    guard: Annotated[
        int,
        AfterValidator(_language),
        Field(json_schema_extra={"const": 1}, description="version of the language"),
    ]
    id: PolicyId
    version: Annotated[int, Field(ge=1, le=MAX_SAFE_INTEGER, description="only grows")]
    expires: Instant | None = None
    mode: Literal["enforce", "observe"] = "enforce"
    observe_until: Instant | None = None
    roles: dict[RoleName, RoleDocument] = {}
    servers: dict[ServerName, ServerDocument] = {}
    tools: list[ToolDocument] = []
    prompts: list[ToolDocument] = []
    resources: list[ResourceDocument] = []
    methods: list[ToolDocument] = Field(default=[], description="methods that the configuration passes on")
    intents: list[IntentDocument] = []
    protected: list[ProtectedDocument] = []
    limits: list[LimitDocument] = []
    hours: list[HoursDocument] = []
    sequences: list[SequenceDocument] = []
    sources: list[SourceDocument] = []
    origins: list[OriginDocument] = []
    memory: MemoryDocument = MemoryDocument()
    asks: list[AskDocument] = []
    containment: ContainmentDocument = ContainmentDocument()


def document_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a policy document, for editors and other tools."""
    return {"$schema": SCHEMA_URL, **PolicyDocument.model_json_schema()}

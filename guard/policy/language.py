"""The policy language: every field that a document may have.

There are no others, and an unknown one is an error with its line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from guard.core.canonical import MAX_SAFE_INTEGER
from guard.policy.instants import milliseconds, span

MAX_CALLS: Final = 10_000
"""Of a limit: all that was taken inside the window is added up for each call."""
SCHEMA_URL: Final = "https://json-schema.org/draft/2020-12/schema"


def _instant(text: str) -> str:
    milliseconds(text)
    return text


def _span(text: str) -> str:
    span(text)
    return text


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _each_once(values: list[str]) -> list[str]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"`{value}` stands here twice")
    return values


def _language(version: int) -> int:
    if version != 1:
        raise ValueError("this Guard reads version 1 of the policy language")
    return version


def _spelled_out(value: Any) -> Any:
    return {"match": value} if isinstance(value, str) else value


Instant = Annotated[
    str,
    AfterValidator(_instant),
    Field(description="RFC 3339 with an offset", json_schema_extra={"format": "date-time"}),
]
Span = Annotated[
    str,
    AfterValidator(_span),
    Field(
        description="from 1s to 31d: a whole number, and s, m, h or d",
        json_schema_extra={"pattern": "^[1-9][0-9]{0,6}[smhd]$"},
    ),
]
Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
PolicyId = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
Scope = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9:._/-]{0,127}$")]
RoleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ServerName = Annotated[str, Field(pattern=r"^[^\s*?]{1,128}$")]
Glob = Annotated[
    str, Field(pattern=r"^\S{1,256}$", description="a name; `*` stands for any characters, `?` for one")
]
UriGlob = Annotated[
    str,
    Field(
        pattern=r"^\S{1,2048}$",
        description="a URI exactly as it is sent; `*` stands for any characters, `?` for one",
    ),
]
_OVER_ARGUMENTS: Final = "JSON Schema 2020-12 over the arguments of the call"
JsonSchema = Annotated[Any, WithJsonSchema({"type": ["object", "boolean"], "description": _OVER_ARGUMENTS})]
JsonSchemaOrNone = Annotated[
    Any, WithJsonSchema({"type": ["object", "boolean", "null"], "description": _OVER_ARGUMENTS})
]


class Strict(BaseModel):
    """Nothing is converted, nothing unknown is let through, nothing changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RoleDocument(Strict):
    """What a role grants."""

    inherits: list[RoleName] = []
    scopes: list[Scope] = []
    may_assert_conversations: bool = False


class ServerDocument(Strict):
    """How far a server is trusted."""

    trust_declared_scopes: bool = False


class ToolMatch(Strict):
    """Which tools a rule is about."""

    match: Glob
    server: Glob = "*"


class ToolDocument(ToolMatch):
    """Lists tools and the scopes that they require."""

    id: Id | None = None
    scopes: list[Scope]


class ResourceMatch(Strict):
    """Which resources a rule is about."""

    match: UriGlob
    server: Glob = "*"


class ResourceDocument(ResourceMatch):
    """Lists resources and the scopes that they require."""

    id: Id | None = None
    scopes: list[Scope]


Tools = Annotated[
    list[Annotated[ToolMatch, BeforeValidator(_spelled_out, json_schema_input_type=Glob | ToolMatch)]],
    Field(min_length=1),
]
Resources = Annotated[
    list[
        Annotated[
            ResourceMatch, BeforeValidator(_spelled_out, json_schema_input_type=UriGlob | ResourceMatch)
        ]
    ],
    Field(min_length=1),
]
KINDS: Final[Mapping[str, str]] = {
    "tools": "tool",
    "prompts": "prompt",
    "resources": "resource",
    "methods": "method",
}
"""The fields that list things, or name them in a rule; and the kind of what they speak of."""


class About(Strict):
    """What a rule names: at least one of these."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [field]} for field in KINDS]})

    tools: Tools = []
    prompts: Tools = []
    resources: Resources = []
    methods: Tools = []


class IntentDocument(About):
    """What a permitted call of these looks like."""

    id: Id
    schema_: JsonSchema = Field(alias="schema")
    because: str = Field(default="", description="for reviewers; decides nothing")


class ProtectedDocument(About):
    """Forbids calls of these: always, or where the arguments match `schema`."""

    id: Id
    schema_: JsonSchemaOrNone = Field(default=None, alias="schema")
    because: str = Field(default="", description="for reviewers; decides nothing")


_Per = Literal["principal", "tool", "conversation"]


_Some = Annotated[list[_Per], Field(min_length=1, json_schema_extra={"uniqueItems": True})]


class LimitDocument(About):
    """How many calls of these there may be inside any stretch of time of that length."""

    id: Id
    per: Annotated[
        list[_Per],
        Field(min_length=1, description="each combination of these is counted apart"),
        AfterValidator(_each_once),
        BeforeValidator(_one_or_more, json_schema_input_type=_Per | _Some),
    ]
    calls: Annotated[int, Field(ge=1, le=MAX_CALLS)]
    window: Span
    because: str = Field(default="", description="for reviewers; decides nothing")


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


def document_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a policy document, for editors and other tools."""
    return {"$schema": SCHEMA_URL, **PolicyDocument.model_json_schema()}

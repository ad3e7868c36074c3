"""The words of the policy language: what ids, scopes, spans, globs and schemas look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from guard.policy.instants import milliseconds, span
from guard.policy.pointers import segments

SCHEMA_URL: Final = "https://json-schema.org/draft/2020-12/schema"


def _instant(text: str) -> str:
    milliseconds(text)
    return text


def _span(text: str) -> str:
    span(text)
    return text


def _pointer(text: str) -> str:
    segments(text)
    return text


def one_or_more(value: Any) -> Any:
    """What is no list stands for a list of it."""
    return value if isinstance(value, list) else [value]


def each_once(values: list[str]) -> list[str]:
    """Nothing stands there twice. Raises ValueError."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"`{value}` stands here twice")
    return values


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
WideScope = Annotated[
    str,
    Field(
        pattern=r"^(\*|[a-z0-9][a-z0-9:._/-]{0,125}:\*|[a-z0-9][a-z0-9:._/-]{0,127})$",
        description="a scope; `x:*` stands for every scope that begins with `x:`, `*` for all",
    ),
]
ArgumentPointer = Annotated[
    str,
    Field(min_length=2, description="a JSON pointer (RFC 6901) to one argument, such as `/amount`"),
    AfterValidator(_pointer),
]
Pointer = Annotated[
    str,
    AfterValidator(_pointer),
    Field(description="a JSON pointer (RFC 6901) into the arguments, such as `/recipient`"),
]
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
_OVER_REQUEST: Final = (
    "JSON Schema 2020-12 over the whole request: principal, tool, conversation, context, origin, arguments"
)
RequestSchemaOrNone = Annotated[
    Any, WithJsonSchema({"type": ["object", "boolean", "null"], "description": _OVER_REQUEST})
]
JsonSchemaOrNone = Annotated[
    Any, WithJsonSchema({"type": ["object", "boolean", "null"], "description": _OVER_ARGUMENTS})
]


class Strict(BaseModel):
    """Nothing is converted, nothing unknown is let through, nothing changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ToolMatch(Strict):
    """Which tools a rule is about."""

    match: Glob
    server: Glob = "*"


class ResourceMatch(Strict):
    """Which resources a rule is about."""

    match: UriGlob
    server: Glob = "*"


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


NAMED: Final[Mapping[str, Any]] = {"anyOf": [{"required": [field]} for field in KINDS]}
"""In JSON Schema: a rule names something."""


class About(Strict):
    """What a rule names: at least one of these."""

    model_config = ConfigDict(json_schema_extra=dict(NAMED))

    tools: Tools = []
    prompts: Tools = []
    resources: Resources = []
    methods: Tools = []

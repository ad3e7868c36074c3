"""The vocabulary: every boundary keyword, and the shape of its value."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import jsonschema_rs

from guard.core.canonical import escape
from guard.core.errors import printable
from guard.policy.boundaries import emails, ibans, money, paths, shell, sql, urls
from guard.policy.boundaries.verdict import Judge, Keyword, Misstated

_ALL: Final = (
    emails.KEYWORD,
    ibans.KEYWORD,
    money.KEYWORD,
    paths.KEYWORD,
    shell.KEYWORD,
    sql.KEYWORD,
    urls.KEYWORD,
)
KEYWORDS: Final[Mapping[str, Keyword]] = {keyword.name: keyword for keyword in _ALL}
NAMES: Final = frozenset(KEYWORDS)

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
VOCABULARY: Final = "https://guard-mcp.dev/vocabulary/boundaries/1"
META: Final = "https://guard-mcp.dev/schema/boundaries/1"
_LONGEST_MESSAGE: Final = 200


@cache
def _shape(name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(dict(KEYWORDS[name].shape), offline=True)


def judge(name: str, stated: Any) -> Judge:
    """What a keyword with this value says of values.

    Raises:
        Misstated: the keyword's value is not as its shape says, or says nothing sensible.
    """
    try:
        _shape(name).validate(stated)
    except jsonschema_rs.ValidationError as error:
        pointer = "".join(f"/{escape(str(token))}" for token in error.instance_path)
        what = f"`{name}` is misstated: {printable(error.message[:_LONGEST_MESSAGE])}"
        raise Misstated(what, pointer, f"docs/boundaries.md says what `{name}` takes") from None
    return KEYWORDS[name].judge(stated)


def meta_schema() -> dict[str, Any]:
    """The vocabulary's meta-schema (JSON Schema 2020-12 core, section 8.1), as published in docs/."""
    return {
        "$schema": DIALECT,
        "$id": META,
        "$vocabulary": {VOCABULARY: True},
        "$dynamicAnchor": "meta",
        "title": "Guard's boundary keywords",
        "type": ["object", "boolean"],
        "properties": {name: dict(KEYWORDS[name].shape) for name in sorted(KEYWORDS)},
    }

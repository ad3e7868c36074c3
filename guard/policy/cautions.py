"""What a policy says but may not mean: true to the language, and yet likely a mistake.

These are warnings for `guard policy check`. They decide nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from guard.core.canonical import escape
from guard.policy.globs import is_glob, overlap
from guard.policy.rules import Limit, Policy
from guard.policy.uris import oddity
from guard.policy.vocabulary import subschemas

_HOST: Final = re.compile(r"https?://[^/]*[*?]", re.IGNORECASE)
_OF_TYPE: Final[Mapping[str, str]] = {
    "maximum": "number",
    "minimum": "number",
    "exclusiveMaximum": "number",
    "exclusiveMinimum": "number",
    "multipleOf": "number",
    "maxLength": "string",
    "minLength": "string",
    "pattern": "string",
    "format": "string",
    "maxItems": "array",
    "items": "array",
}


def cautions(policy: Policy) -> Iterator[str]:
    """Warnings about a policy, one sentence each, in the order of the rules."""
    for intent in policy.intents:
        for pointer, part in subschemas(True if intent.schema is None else intent.schema.source):
            if isinstance(part, dict):
                yield from (f"{intent.id}: schema{pointer}: {what}" for what in _of_part(part))
    granted = frozenset[str]().union(*(role.scopes for role in policy.roles.values()))
    for rule in sorted(policy.tools, key=lambda rule: rule.id):
        for pattern in rule.tools:
            if pattern.kind == "resource" and is_glob(pattern.match):
                yield from (f"{rule.id}: {what}" for what in _of_uri(pattern.match))
        if not rule.scopes <= granted:
            yield f"{rule.id}: no role grants {', '.join(sorted(rule.scopes - granted))}"
    for limit in sorted(policy.limits, key=lambda limit: limit.id):
        yield from (f"{limit.id}: {what}" for what in _of_limit(limit, policy))


def _of_limit(limit: Limit, policy: Policy) -> Iterator[str]:
    listed = [pattern for rule in policy.tools for pattern in rule.tools]
    for pattern in limit.tools:
        if not any(
            pattern.kind == other.kind
            and overlap(pattern.match, other.match)
            and overlap(pattern.server, other.server)
            for other in listed
        ):
            yield f"no rule lists a {pattern.kind} that fits `{pattern.match}`; the limit counts none"
        if pattern.kind == "resource" and is_glob(pattern.match) and "tool" in limit.per:
            yield f"each URI that fits `{pattern.match}` is counted apart, and a caller may know many"
    if "conversation" in limit.per and not any(
        role.may_assert_conversations for role in policy.roles.values()
    ):
        yield "no role may assert conversations, so `per: conversation` counts per principal"


def _of_uri(match: str) -> Iterator[str]:
    if found := oddity(match.replace("*", "x").replace("?", "x")):
        yield f"it has {found}, and a glob lists no such URI; spell it out, or remove it"
    if "?" in match:
        yield "`?` stands for any one character, also in a URI"
    if _HOST.match(match):
        yield "a `*` or `?` before the path also stands for other hosts"


def _of_part(part: Mapping[str, Any]) -> Iterator[str]:
    required = part.get("required", ())
    for name, schema in part.get("properties", {}).items():
        if not isinstance(schema, dict):
            continue
        if name not in required and schema:
            yield f"`{name}` may be left out and is then not checked; else add it to `required`"
        for keyword in sorted(_OF_TYPE.keys() & schema.keys()):
            if not {"type", "const", "enum"} & schema.keys():
                at = f"/properties/{escape(name)}/{keyword}"
                yield f"{at} checks nothing but a {_OF_TYPE[keyword]}; add `type: {_OF_TYPE[keyword]}`"
    pattern = part.get("pattern")
    if isinstance(pattern, str) and not (pattern.startswith("^") and "$" in pattern):
        yield f"the pattern {pattern} need not match the whole text; begin it with ^ and end it with $"

"""What a schema may consist of, checked by one walk before anything evaluates it.

JSON Schema ignores what it does not know, so a typo makes a rule that never bites. Here every
keyword, format and reference is known and has an effect, or the schema is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import unquote

from guard.core.canonical import escape
from guard.core.errors import printable
from guard.policy.boundaries import words
from guard.policy.boundaries.verdict import Misstated
from guard.policy.patterns import REMEDY, disputed
from guard.policy.references import ANCHORS, REFERENCES

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
MAX_DEPTH: Final = 32
MAX_SUBSCHEMAS: Final = 2_000
MAX_UNROLLED: Final = 4_000
MAX_UNROLLED_DEPTH: Final = 128
MAX_ENUM: Final = 10_000

ONE: Final = frozenset(
    {
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
LISTED: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
NAMED: Final = frozenset({"$defs", "dependentSchemas", "patternProperties", "properties"})
ASSERTIONS: Final = frozenset(
    {
        "const",
        "dependentRequired",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "maxContains",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minContains",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "pattern",
        "required",
        "type",
        "uniqueItems",
    }
)
NOTES: Final = frozenset(
    {
        "$anchor",
        "$comment",
        "$dynamicAnchor",
        "$schema",
        "default",
        "deprecated",
        "description",
        "examples",
        "readOnly",
        "title",
        "writeOnly",
    }
)
KNOWN: Final = ONE | LISTED | NAMED | REFERENCES | ASSERTIONS | NOTES | words.NAMES
FORMATS: Final = frozenset(
    {
        "date",
        "date-time",
        "duration",
        "email",
        "hostname",
        "idn-email",
        "idn-hostname",
        "ipv4",
        "ipv6",
        "iri",
        "iri-reference",
        "json-pointer",
        "regex",
        "relative-json-pointer",
        "time",
        "uri",
        "uri-reference",
        "uri-template",
        "uuid",
    }
)
NOT_TAKEN: Final[Mapping[str, str]] = {
    "$id": "remove it; a rule's schema stands alone",
    "$vocabulary": "remove it; the vocabulary is that of 2020-12",
    "additionalItems": "use `prefixItems` with `items`",
    "contentEncoding": "it asserts nothing in 2020-12; use `pattern`",
    "contentMediaType": "it asserts nothing in 2020-12; use `pattern`",
    "contentSchema": "it asserts nothing in 2020-12; describe the value itself",
    "definitions": "use `$defs`",
    "dependencies": "use `dependentRequired` or `dependentSchemas`",
    "$recursiveRef": "use `$ref`",
    "id": "remove it; a rule's schema stands alone",
}
NEEDS: Final[Mapping[str, str]] = {
    "then": "if",
    "else": "if",
    "minContains": "contains",
    "maxContains": "contains",
}


class SchemaRefused(ValueError):
    """A schema that is not taken.

    Attributes:
        what: what is wrong, one sentence without a full stop.
        pointer: RFC 6901 pointer into the schema.
        remedy: what to do about it.
    """

    def __init__(self, what: str, pointer: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.pointer = pointer
        self.remedy = remedy


def survey(schema: Any) -> None:
    """Walk a schema and refuse what Guard does not take.

    Raises:
        SchemaRefused: see the constants of this module for the bounds.
    """
    found: dict[str, Any] = {}
    for pointer, part in subschemas(schema):
        if len(found) >= MAX_SUBSCHEMAS:
            raise SchemaRefused(
                f"more than {MAX_SUBSCHEMAS} subschemas", pointer, "split the rule into several"
            )
        _check_part(part, pointer)
        found[pointer] = part
    _Unrolling(found).size("", (), 0)


def subschemas(schema: Any) -> Iterator[tuple[str, Any]]:
    """Every subschema with its pointer, the schema itself first.

    Raises:
        SchemaRefused: a subschema that is neither an object nor a boolean, or nested deeper than MAX_DEPTH.
    """
    waiting: list[tuple[str, Any, int]] = [("", schema, 0)]
    while waiting:
        pointer, part, depth = waiting.pop()
        if not isinstance(part, (dict, bool)):
            raise SchemaRefused("a schema is an object, true or false", pointer, "correct the schema")
        if depth > MAX_DEPTH:
            raise SchemaRefused(f"nested deeper than {MAX_DEPTH} levels", pointer, "flatten the schema")
        yield pointer, part
        waiting.extend((f"{pointer}{step}", child, depth + 1) for step, child in reversed([*children(part)]))


def children(part: Any) -> Iterator[tuple[str, Any]]:
    """The subschemas directly inside one, each with the pointer from there."""
    if not isinstance(part, dict):
        return
    for keyword, value in part.items():
        if keyword in ONE:
            yield f"/{keyword}", value
        elif keyword in LISTED and isinstance(value, list):
            yield from ((f"/{keyword}/{index}", child) for index, child in enumerate(value))
        elif keyword in NAMED and isinstance(value, dict):
            yield from ((f"/{keyword}/{escape(name)}", child) for name, child in value.items())


def nearest(word: str, known: frozenset[str]) -> str:
    """The known word that was probably meant, as a remedy."""
    close = get_close_matches(word, sorted(known))
    return f"did you mean `{close[0]}`?" if close else f"known are: {', '.join(sorted(known))}"


def _check_part(part: Any, pointer: str) -> None:
    if not isinstance(part, dict):
        return
    for keyword, value in part.items():
        at = f"{pointer}/{escape(keyword)}"
        if keyword in NOT_TAKEN:
            raise SchemaRefused(f"the keyword `{keyword}` is not taken", at, NOT_TAKEN[keyword])
        if keyword not in KNOWN:
            raise SchemaRefused(f"unknown keyword `{printable(keyword)}`", at, nearest(keyword, KNOWN))
        if keyword in NEEDS and NEEDS[keyword] not in part:
            needed = NEEDS[keyword]
            raise SchemaRefused(
                f"`{keyword}` has no effect without `{needed}`", at, f"add `{needed}` or remove it"
            )
        if keyword == "$schema" and value != DIALECT:
            raise SchemaRefused("another dialect than 2020-12", at, f"use {DIALECT}, or remove the line")
        if keyword == "format" and value not in FORMATS:
            raise SchemaRefused(f"unknown format `{printable(str(value))}`", at, nearest(str(value), FORMATS))
        if keyword == "enum" and isinstance(value, list) and len(value) > MAX_ENUM:
            raise SchemaRefused(f"more than {MAX_ENUM} values", at, "use a pattern or a range")
        if keyword in REFERENCES and not (isinstance(value, str) and value.startswith("#")):
            raise SchemaRefused("a reference that leaves the document", at, "copy the schema under `$defs`")
        if keyword in words.NAMES:
            _check_boundary(keyword, value, at)
    _check_patterns(part, pointer)


def _check_patterns(part: dict[str, Any], pointer: str) -> None:
    named, own = part.get("patternProperties"), part.get("pattern")
    patterns = (
        {f"/patternProperties/{escape(text)}": text for text in named} if isinstance(named, dict) else {}
    )
    if isinstance(own, str):
        patterns["/pattern"] = own
    for at, text in patterns.items():
        if word := disputed(text):
            what = f"`{word}` in a pattern is not taken, engines differ on it"
            raise SchemaRefused(what, f"{pointer}{at}", REMEDY)


def _check_boundary(keyword: str, value: Any, at: str) -> None:
    try:
        words.judge(keyword, value)
    except Misstated as misstated:
        raise SchemaRefused(misstated.what, f"{at}{misstated.pointer}", misstated.remedy) from None


class _Unrolling:
    """How large a schema is with every reference written out: what one evaluation can cost."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self.parts = parts
        self.sizes: dict[str, int] = {}
        self.anchors = {
            part[keyword]: pointer
            for pointer, part in parts.items()
            if isinstance(part, dict)
            for keyword in ANCHORS
            if isinstance(part.get(keyword), str)
        }

    def size(self, pointer: str, above: tuple[str, ...], depth: int) -> int:
        """Count one subschema and all below it; `above` are the references on the way here."""
        if pointer in self.sizes:
            return self.sizes[pointer]
        if depth > MAX_UNROLLED_DEPTH:
            what = f"nested deeper than {MAX_UNROLLED_DEPTH} levels once references are written out"
            raise SchemaRefused(what, pointer, "flatten the schema")
        part, total = self.parts[pointer], 1
        for step, _ in children(part):
            if not step.startswith("/$defs/"):
                total += self.size(f"{pointer}{step}", above, depth + 1)
        for keyword in sorted(REFERENCES & part.keys()) if isinstance(part, dict) else ():
            at = f"{pointer}/{keyword}"
            target = self.target(part[keyword], at)
            if target in above or f"{pointer}/".startswith(f"{target}/"):
                raise SchemaRefused(
                    "a schema that contains itself", at, "write out as many levels as are meant"
                )
            total += self.size(target, (*above, target), depth + 1)
        if total > MAX_UNROLLED:
            raise SchemaRefused(
                f"more than {MAX_UNROLLED} subschemas once references are written out", pointer, "simplify it"
            )
        self.sizes[pointer] = total
        return total

    def target(self, reference: str, at: str) -> str:
        fragment = unquote(reference[1:])
        pointer = self.anchors.get(fragment) if fragment and not fragment.startswith("/") else fragment
        if pointer is None or pointer not in self.parts:
            raise SchemaRefused(
                "a reference to what is no schema in this document", at, "point it to a `$defs` entry"
            )
        return pointer

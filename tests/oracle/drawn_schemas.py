"""Schemas over arguments, URIs and requests, and arguments as they expect them."""

from __future__ import annotations

from typing import Any

from drawn import FIELDS, FORMATS, NUMBERS, PATTERNS, SCALARS, TEXTS, TYPES, Dice, Document, Schema


def schema(dice: Dice) -> Schema:
    """A schema over the arguments: an object's keywords, now and then combined."""
    match dice.below(12):
        case 1:
            return dice.one((True, {}, False))
        case 2:
            combined = [_object(dice) for _ in range(1 + dice.below(3))]
            return {dice.one(("allOf", "anyOf", "oneOf")): combined}
        case 3:
            return {"not": _object(dice)}
        case 4:
            schema: Document = {"if": _object(dice), "then": _object(dice)}
            if dice.once_in(2):
                schema["else"] = _object(dice)
            return schema
        case 5:
            field = dice.one(FIELDS)
            return {"$defs": {"d": _value(dice, field)}, "properties": {field: {"$ref": "#/$defs/d"}}}
        case _:
            return _object(dice)


def _object(dice: Dice) -> Document:
    fields = dice.some(FIELDS, 1, 2)
    schema: Document = {"properties": {field: _value(dice, field) for field in fields}}
    return schema | _keywords(dice, OBJECT_KEYWORDS, 0, 2)


def _value(dice: Dice, field: str) -> Schema:
    """A schema for one field, mostly for values of the kind that the field has."""
    match dice.below(20):
        case 16:
            return dice.one((True, False, {}))
        case 17:
            return {"type": dice.some(TYPES, 1, 3)}
        case 18:
            return {"const": dice.one(SCALARS)}
        case 19:
            return {"not": {"enum": dice.some(SCALARS[:6], 1, 3)}}
        case _:
            keywords = {"n": NUMBER_KEYWORDS, "l": LIST_KEYWORDS, "o": MEMBER_KEYWORDS}
            return _keywords(dice, keywords.get(field, TEXT_KEYWORDS), 1, 2)


def _keywords(dice: Dice, keywords: dict[str, tuple[Any, ...]], low: int, high: int) -> Document:
    return {name: dice.one(keywords[name]) for name in dice.some(list(keywords), low, high)}


ITEMS: tuple[Schema, ...] = ({"type": "string"}, {"type": "number"}, {"maxLength": 2}, {"minimum": 1})
OBJECT_KEYWORDS: dict[str, tuple[Any, ...]] = {
    "required": (["n"], ["s"], ["l", "n"], ["o", "s"], ["a/b"]),
    "type": ("object", ["object", "null"]),
    "additionalProperties": (True, False, {"type": "string"}),
    "unevaluatedProperties": (False, {"type": ["number", "string"]}),
    "patternProperties": ({"^[ns]$": {"type": ["number", "string"]}}, {"/": {"minLength": 1}}),
    "propertyNames": ({"maxLength": 1}, {"enum": ["n", "s", "l"]}),
    "minProperties": (1, 2),
    "maxProperties": (1, 3),
    "dependentRequired": ({"n": ["s"]}, {"s": ["n", "l"]}),
    "dependentSchemas": ({"n": {"required": ["s"]}}, {"s": {"properties": {"n": {"minimum": 1}}}}),
}
NUMBER_KEYWORDS: dict[str, tuple[Any, ...]] = {
    "type": ("number", "integer"),
    "minimum": (0, -1, 1.5),
    "maximum": (10, 3, 2.5),
    "exclusiveMinimum": (0, -2),
    "exclusiveMaximum": (3, 1e300),
    "multipleOf": (0.01, 0.01, 3),
    "enum": ([1, 2], [1.0, "1"], [0, True], [False, 2.5], [[1], {"n": 1}, -1]),
    "const": NUMBERS,
}
TEXT_KEYWORDS: dict[str, tuple[Any, ...]] = {
    "type": ("string", ["string", "null"]),
    "minLength": (0, 1, 2),
    "maxLength": (1, 3, 40),
    "pattern": PATTERNS,
    "format": FORMATS,
    "enum": (list(TEXTS[:6]), list(TEXTS[4:]), ["é", "a"]),
    "not": ({"pattern": "^a"}, {"const": "a"}, {"type": "number"}),
}
LIST_KEYWORDS: dict[str, tuple[Any, ...]] = {
    "type": ("array", ["array", "string"]),
    "items": ITEMS,
    "prefixItems": ([{"type": "string"}], [{"type": "number"}, {"maxLength": 2}]),
    "contains": ITEMS,
    "unevaluatedItems": (False, {"type": "string"}),
    "minItems": (0, 1, 2),
    "maxItems": (1, 3),
    "uniqueItems": (True,),
    "allOf": (
        [{"contains": {"const": "a"}, "minContains": 1, "maxContains": 2}],
        [{"items": {"minLength": 1}}],
    ),
}
MEMBER_KEYWORDS: dict[str, tuple[Any, ...]] = {
    "type": ("object",),
    "properties": ({"n": {"minimum": 1}}, {"s": {"type": "string"}}),
    "required": (["n"], ["s"]),
    "additionalProperties": (False, {"type": "string"}),
    "minProperties": (1, 2),
    "const": ({"n": 1}, {}, {"n": True}),
}


def request_schema(dice: Dice) -> Schema:
    """A schema over the whole request: mostly something about one member, that some calls have."""
    match dice.below(12):
        case 0:
            return {"properties": {"arguments": _object(dice)}}
        case 1:
            return {"anyOf": [_member(dice), _member(dice)]}
        case 2:
            return {"not": _member(dice)}
        case 3:
            return dice.one((True, False, {}))
        case 4:
            return ALL_MEMBERS
        case _:
            return _member(dice)


def _member(dice: Dice) -> Schema:
    name = dice.one(list(MEMBERS))
    inner: Schema = dice.one(MEMBERS[name])
    return {"properties": {name: inner}, "required": [name]}


def _of(name: str, *schemas: Schema) -> tuple[Schema, ...]:
    return tuple({"properties": {name: one}} for one in schemas)


def _exactly(*names: str) -> Document:
    return {"required": list(names), "properties": dict.fromkeys(names, True), "additionalProperties": False}


MEMBERS: dict[str, tuple[Schema, ...]] = {
    "principal": (
        *_of("subject", {"const": "someone"}, {"pattern": "^a"}),
        *_of("issuer", {"const": "launch"}),
        *_of("role", {"enum": ["reader", "admin"]}),
        *_of("tenant", {"const": "t"}),
        *_of("scopes", {"type": "null"}, {"contains": {"const": "a:read"}}, {"const": ["a:read", "a:write"]}),
        _exactly("tenant", "issuer", "subject", "role", "scopes"),
    ),
    "tool": (
        *_of("kind", {"const": "tool"}, {"enum": ["resource", "prompt"]}, {"const": "method"}),
        *_of("server", {"const": "git"}, {"maxLength": 1}),
        *_of("name", {"pattern": "r"}),
        _exactly("server", "name", "kind"),
    ),
    "conversation": (*_of("id", {"const": "c"}), *_of("source", {"const": "meta"}), _exactly("id", "source")),
    "context": (
        *_of("now", {"pattern": "^2027-01-1[45]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]Z$"}),
        *_of("now", {"const": "2027-01-14T08:00:00Z"}, {"format": "date-time"}),
        *_of("depth", {"maximum": 0}, {"minimum": 1}, {"const": 2}),
        *_of("intents", {"maxItems": 0}, {"minItems": 1}, {"items": {"maxLength": 3}}),
        *_of("method", {"const": "tools/call"}, {"pattern": "^[pr]"}),
        _exactly("now", "depth", "intents", "method"),
    ),
    "origin": (
        *_of("/n", {"properties": {"trust": {"enum": ["trusted", "mixed"]}}}),
        *_of("/s", {"properties": {"trust": {"const": "untrusted"}}}),
        *_of("/s", {"properties": {"kinds": {"contains": {"const": "user"}}}}),
        *_of("/l/0", {"properties": {"kinds": {"const": ["unseen"]}}}),
        {"maxProperties": 0},
        {"minProperties": 1},
        {"additionalProperties": _exactly("kinds", "trust")},
        {"propertyNames": {"maxLength": 2}},
    ),
    "arguments": ({"required": ["n"]}, {"maxProperties": 1}, {"required": ["uri"]}),
}
ALL_MEMBERS = _exactly("principal", "tool", "conversation", "context", "origin", "arguments")

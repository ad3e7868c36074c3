"""Policies, and calls near them: small vocabularies, so that rules and calls meet, and often at an edge.

All is built from one kind of choice, a number below n. Hypothesis makes it in the tests, a seeded
generator in scripts/oracle.py. The first of several options is the plainest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from typing import Any, TypeVar

from hypothesis import strategies as st

from guard.core.model import Call, Conversation, Facts, Pin, Principal, Tool

T = TypeVar("T")
Document = dict[str, Any]
Schema = dict[str, Any] | bool

NOON = 1_800_000_000_000  # UNIX milliseconds
DAY = 86_400_000
ROLES = ("reader", "Writer", "admin", "0")
SCOPES = ("a:read", "a:write", "b/x", "c")
SERVERS = ("git", "bank", "g")
TOOLS = ("read", "read_all", "write", "r", "réad", "[rw]ead")
# Globs, each with something that it matches; the last ones match nothing that is usually called.
SERVER_GLOBS = {
    "*": "git",
    "git": "git",
    "bank": "bank",
    "g*": "g",
    "?": "g",
    "b??k": "bank",
    "[gb]*": "[gb]",
}
TOOL_GLOBS = {name: name for name in TOOLS} | {
    "*": "write",
    "read*": "read_all",
    "r?ad": "réad",
    "*_all": "read_all",
    "w*e": "write",
    "r*": "read",
    "?": "r",
    "**a*d*": "read",
    "*r*e*": "write",
    "[rw]*": "[rw]ead",
    "re?d": "read",
    "READ*": "READ",
    "r.*": "r.",
}
# Likewise; behind each glob a URI that it matches, now and then one that no glob lists.
RESOURCE_GLOBS = {
    "file:///d/*": "file:///d/a",
    "*": "memo:one",
    "file:///d/a": "file:///d/a",
    "file:///*": "file:///d/../e",
    "file:///d/..": "file:///d/..",
    "file:///d/%2e%2e/*": "file:///d/%2e%2e/e",
    "memo:?*": "memo:a",
    "memo:*": "memo:..",
    "file:///d/*a": "file:///d/%C3%A9a",
}
URIS = (
    *("file:///d/a", "memo:one", "file:///d/b.c", "file:///d/%C3%A9a", "file:///d/\u00e9", "file:///d/.a"),
    *("file:///d/../e", "file:///d/./a", "file:///d/..", "file:///d/%2e%2E/e", "file:///d/.%2e", "memo:."),
    *("file:///d/..%2fe", "file:///d/%5c", "file:///d/..\\e", "file:///d/a\n", "file:///d/%00", "memo:%7f"),
    *("file:///d/%252e%252e/e", "file:///d/%c0%ae", "file:///d/%", "file:///d/%u002e", "file:///d/%6"),
    *("file:///d/..;a/e", "file:///d/a?b=..", "file:///d/..#a", "file:///d/. ./e", "file:///d/.../e"),
    *("file:///d/%61", "file:///d/%7Ea", "file:///d/%20", "FILE:///d/a", "memo:A", "file:///d//a", "//d"),
    *(
        "file:///d/\uff0e\uff0e/e",
        "file:///d/\u2025/e",
        "file:///d/a\u202eb",
        "file:///d/\ud800",
        "",
        "a:b//c",
    ),
    *("file:///d/a b", "file:///d/ /a", "file:///d/%3F%23", "file:///d/%C2%A0", "file:///d/\uff3cx"),
)
FIELD_OF = {"tool": "tools", "prompt": "prompts", "resource": "resources", "method": "methods"}
URI_SCHEMAS: tuple[Schema, ...] = (
    {"properties": {"uri": {"pattern": "^file:"}}},
    {"properties": {"uri": {"maxLength": 12}}},
    {"required": ["uri"]},
    {"properties": {"uri": {"pattern": "a$"}}, "required": ["uri"]},
)
# They sort otherwise than in a dictionary, and around "servers/git" and "tools/*:read".
IDS = (
    *("a", "a-b", "a.b", "a_b", "ab", "servers.x", "tools.x", "tools-x", "tools0", "u"),
    *("resources.x", "prompts0", "methods-x", "m"),
)

APART = ("principal", "tool", "conversation")

NUMBERS = (1, 0, 2, 3, -1, 10, 0.5, 1.0, 2.5, -0.0, 0.29, 1.005, 1e300, 2**53 - 1, -(2**53 - 1))
TEXTS = (
    *("a", "", "b", "ab", "abc", "A1", "é", "\U0001f600", "a/b", "~", "agent/x"),
    *("2024-02-29", "2023-02-29", "me@example.com", "nobody", "1.2.3.4", "1.2.3.400", "::1", ":::"),
    *("2eb8aa08-aa98-11ea-b4aa-73b441d16380", "2eb8aa08"),
)
SCALARS = (None, True, False, *NUMBERS, *TEXTS)
PATTERNS = ("^a", "b$", "^[a-z]+$", "[0-9]", "^(a|b)?$", "^agent/[a-z0-9-]{1,8}$", "a.c")
FORMATS = ("date", "email", "ipv4", "ipv6", "uuid")
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
FIELDS = ("n", "s", "l", "o", "a/b", "m~n")


@dataclass(frozen=True)
class Dice:
    """What chooses.

    Attributes:
        below: gives a number from 0, below its argument.
    """

    below: Callable[[int], int]

    def one(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def once_in(self, n: int) -> bool:
        return self.below(n) == n - 1

    def some(self, options: Sequence[T], low: int, high: int) -> list[T]:
        """From `low` to `high` of the options, none twice, in any order."""
        return list(islice(self.each(options), low + self.below(high - low + 1)))

    def each(self, options: Sequence[T]) -> Iterator[T]:
        """All options in any order, each chosen when it is asked for."""
        left = list(options)
        while left:
            yield left.pop(self.below(len(left)))


def cases(size: int) -> st.SearchStrategy[tuple[Document, list[Call]]]:
    """A policy with `size` calls near it."""

    @st.composite
    def _cases(draw: st.DrawFn) -> tuple[Document, list[Call]]:
        return case(lambda n: draw(_BELOW[n]), size)

    return _cases()


_BELOW = [st.nothing(), *(st.integers(0, n - 1) for n in range(1, 100))]


def case(below: Callable[[int], int], size: int) -> tuple[Document, list[Call]]:
    """A policy with `size` calls near it."""
    dice = Dice(below)
    document = _document(dice)
    return document, [_call(dice, document) for _ in range(size)]


# Policies


def _document(dice: Dice) -> Document:
    document: Document = {"guard": 1, "id": dice.one(("p", "q")), "version": dice.one((1, 7))}
    ids = dice.each(IDS)
    document["roles"] = _roles(dice)
    document["tools"] = [_tool_rule(dice, ids) for _ in range(1 + dice.below(4))]
    if dice.once_in(2):
        for field in dice.some(("resources", "prompts", "methods"), 1, 2):
            document[field] = [_tool_rule(dice, ids, field) for _ in range(1 + dice.below(2))]
    if dice.once_in(2):
        trust = ({"trust_declared_scopes": True}, {"trust_declared_scopes": False}, {})
        document["servers"] = {server: dice.one(trust) for server in dice.some(SERVERS, 1, 3)}
    if not dice.once_in(3):
        document["intents"] = [_schema_rule(dice, ids, document) for _ in range(1 + dice.below(3))]
    if dice.once_in(3):
        document["protected"] = [_forbidding(dice, ids, document) for _ in range(1 + dice.below(2))]
    if dice.once_in(2):
        document["limits"] = [_limit(dice, ids, document) for _ in range(1 + dice.below(2))]
    if dice.once_in(4):
        document["mode"] = "observe"
        document["observe_until"] = _moment(dice)
    if dice.once_in(4):
        document["expires"] = _moment(dice)
    return document


def _roles(dice: Dice) -> Document:
    """Each role may inherit those that stand before it."""
    roles: Document = {}
    for name in dice.some(ROLES, 1, 4):
        role: Document = {"scopes": dice.some(SCOPES, 0, dice.one((4, 2)))}
        if roles and not dice.once_in(4):
            role["inherits"] = dice.some(list(reversed(roles)), 1, min(2, len(roles)))
        if dice.once_in(2):
            role["may_assert_conversations"] = dice.one((True, False))
        roles[name] = role
    return roles


def _tool_rule(dice: Dice, ids: Iterator[str], field: str = "tools") -> Document:
    usual = ("file:///d/*", "*") if field == "resources" else ("read", "*", "r*", "*", "r*")
    rule: Document = {
        "match": dice.one((*usual, *_globs(field))),
        "scopes": dice.some(SCOPES, 0, dice.one((0, 1, 1, 2))),
    }
    if dice.once_in(3):
        rule["server"] = dice.one(list(SERVER_GLOBS))
    if dice.once_in(2):
        rule["id"] = next(ids)
    return rule


def _globs(field: str) -> dict[str, str]:
    return RESOURCE_GLOBS if field == "resources" else TOOL_GLOBS


def _schema_rule(dice: Dice, ids: Iterator[str], document: Document) -> Document:
    """A rule with a schema, about a tool that is listed, or about any."""
    rule = _naming(dice, ids, document)
    about_uris = "resources" in rule and not dice.once_in(4)
    rule["schema"] = dice.one(URI_SCHEMAS) if about_uris else _schema(dice)
    if dice.once_in(3):
        rule["because"] = "somebody wrote it"
    return rule


def _limit(dice: Dice, ids: Iterator[str], document: Document) -> Document:
    """A limit on what is listed, or on anything."""
    rule = _naming(dice, ids, document)
    apart = dice.some(APART, 1, 3)
    rule["per"] = apart[0] if len(apart) == 1 and dice.once_in(2) else apart
    rule["calls"] = dice.one((3, 1, 2, 10_000))
    rule["window"] = dice.one(("60s", "1s", "90m", "24h", "31d"))
    return rule


def _naming(dice: Dice, ids: Iterator[str], document: Document) -> Document:
    """The beginning of a rule that names something."""
    rule: Document = {"id": next(ids)}
    fields = [field for field in FIELD_OF.values() if field in document]
    for field in dice.some(fields, 1, min(2, len(fields))):
        globs = _globs(field)
        named: list[Any] = []
        for _ in range(1 + dice.below(2)):
            listed = dice.one(document[field])["match"]
            name = dice.one((globs[listed], listed, listed, dice.one(list(globs))))
            if dice.once_in(3):
                named.append({"match": name, "server": dice.one(list(SERVER_GLOBS))})
            else:
                named.append(dice.one((name, {"match": name})))
        rule[field] = named
    return rule


def _forbidding(dice: Dice, ids: Iterator[str], document: Document) -> Document:
    rule = _schema_rule(dice, ids, document)
    if dice.once_in(4):
        rule["schema"] = None
    elif dice.once_in(4):
        del rule["schema"]
    elif isinstance(rule["schema"], dict) and not dice.once_in(3):
        rule["schema"] = {**rule["schema"], "required": dice.some(FIELDS, 1, 2)}
    return rule


def _moment(dice: Dice) -> str:
    """An end: mostly after noon, else at, around or before it; with any offset."""
    milliseconds = NOON + dice.one((DAY, 10 * DAY, 2 * DAY, DAY, 1, 0, -1, -2 * DAY))
    zone = timezone(timedelta(hours=dice.one((0, 2, -11)), minutes=dice.one((0, 30))))
    moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)
    return moment.astimezone(zone).isoformat(timespec=dice.one(("milliseconds", "microseconds")))


# Schemas


def _schema(dice: Dice) -> Schema:
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


# Calls


def _call(dice: Dice, document: Document) -> Call:
    """A call that the policy may well permit, or one with some of the troubles that forbid it."""
    call = _sound(dice, document)
    for trouble in dice.some(TROUBLES, 0, dice.one((0, 0, 0, 1, 2, 4))):
        call = trouble(dice, call, document)
    return call


def _sound(dice: Dice, document: Document) -> Call:
    kind = dice.one([kind for kind, field in FIELD_OF.items() if field in document])
    rule = dice.one(document[FIELD_OF[kind]])
    fitting = _globs(FIELD_OF[kind])[rule["match"]]
    tool = Tool(
        server=dice.one((SERVER_GLOBS[rule.get("server", "*")], dice.one(SERVERS))),
        name=dice.one((fitting, fitting, dice.one(URIS if kind == "resource" else TOOLS))),
        kind=kind,
        pin=Pin.MATCHES,
        declared=frozenset(dice.one(((), (), ("a:read",), ("a:read", "c")))),
    )
    narrowed = (None, None, None, frozenset(SCOPES), frozenset(SCOPES[:2]), frozenset({"c", "d"}))
    method, params = _request(dice, tool)
    seen = ({}, {f"policy/{document['id']}": document["version"], "policy/r": 99})
    return Call(
        id="AAAAAAAAAAAAAAAAAAAAAA",
        principal=Principal(
            tenant="t",
            issuer=dice.one(("launch", "launch", "api-key")),
            subject=dice.one(("someone", "someone", "another")),
            role=dice.one(sorted(document["roles"])),
            scopes=dice.one(narrowed),
        ),
        tool=tool,
        audience=tool.server,
        method=method,
        params=params,
        conversation=Conversation(dice.one(("c", "d")), "meta"),
        facts=Facts(
            now=NOON - dice.one((DAY, DAY, 1, 0)),
            versions=dice.one(seen),
            used={
                limit["id"]: dice.one((0, 0, limit["calls"] - 1, limit["calls"]))
                for limit in document.get("limits", ())
            },
        ),
    )


def _request(dice: Dice, tool: Tool) -> tuple[str, Document]:
    arguments = _plausible(dice)
    match tool.kind:
        case "resource":
            return "resources/read", {"uri": tool.name}
        case "method":
            return tool.name, arguments
    params: Document = {"name": tool.name, "arguments": arguments}
    if not arguments and dice.once_in(2):
        del params["arguments"]
    return ("prompts/get" if tool.kind == "prompt" else "tools/call"), params


def _plausible(dice: Dice) -> Document:
    """Arguments as the schemas expect them, with strangers among the values."""
    fields = dice.some(FIELDS, 0, 4)
    arguments: Document = {}
    for field in fields:
        match field:
            case _ if dice.once_in(8):
                arguments[field] = dice.one((*SCALARS, [], {}))
            case "n":
                arguments[field] = dice.one((1, 19.99, 0.29, 0.07, *NUMBERS))
            case "l":
                arguments[field] = dice.some((*TEXTS[:4], "a", *NUMBERS[:4], 1.0, True, None), 0, 4)
            case "o":
                arguments[field] = dice.one(({"n": 1}, {}, {"s": "a"}, {"n": 0, "s": None}, {"n": True}))
            case _:
                arguments[field] = dice.one(("a", *TEXTS))
    return arguments


def _contained(dice: Dice, call: Call, document: Document) -> Call:
    words = dice.some(("tool", "conversation", "sealed", "principal", "all", "else"), 1, dice.one((1, 2)))
    return replace(call, facts=replace(call.facts, contained=frozenset(words)))


def _contained_tool(dice: Dice, call: Call, document: Document) -> Call:
    return replace(call, facts=replace(call.facts, contained=frozenset({"tool"})))


def _store(dice: Dice, call: Call, document: Document) -> Call:
    return replace(call, facts=replace(call.facts, store_writable=False))


def _key(dice: Dice, call: Call, document: Document) -> Call:
    return replace(call, facts=replace(call.facts, artifact_key=False))


def _clock(dice: Dice, call: Call, document: Document) -> Call:
    ahead = dice.one((10_001, 10_000, DAY, 1, -1))
    return replace(call, facts=replace(call.facts, last=call.facts.now + ahead))


def _versions(dice: Dice, call: Call, document: Document) -> Call:
    other = document["version"] + dice.one((1, -1))
    return replace(call, facts=replace(call.facts, versions={f"policy/{document['id']}": other}))


def _used_up(dice: Dice, call: Call, document: Document) -> Call:
    """A limit without room, or with a little."""
    used = dict(call.facts.used)
    for limit in document.get("limits", ()):
        if not dice.once_in(3):
            used[limit["id"]] = limit["calls"] + dice.one((0, 1, -1))
    return replace(call, facts=replace(call.facts, used=used))


def _uncounted(dice: Dice, call: Call, document: Document) -> Call:
    """Nobody knows what was used of some limit."""
    kept = dice.some(sorted(call.facts.used), 0, len(call.facts.used))
    return replace(call, facts=replace(call.facts, used={limit: call.facts.used[limit] for limit in kept}))


def _late(dice: Dice, call: Call, document: Document) -> Call:
    return replace(call, facts=replace(call.facts, now=NOON + dice.one((1, DAY, 2 * DAY - 1, 11 * DAY))))


def _stranger(dice: Dice, call: Call, document: Document) -> Call:
    role = dice.one(("nobody", "READER", "", *ROLES))
    return replace(call, principal=replace(call.principal, role=role))


def _narrowed(dice: Dice, call: Call, document: Document) -> Call:
    scopes = frozenset(dice.some((*SCOPES, "d"), 0, 2))
    return replace(call, principal=replace(call.principal, scopes=scopes))


def _unlisted(dice: Dice, call: Call, document: Document) -> Call:
    name = dice.one(("other", "Read", "*", "", "read\n", "ab\nd", "\U0001f600", "file:///d/a"))
    server = dice.one((*SERVERS, "elsewhere", "*"))
    return replace(call, tool=replace(call.tool, name=name, server=server), audience=server)


def _of_another_kind(dice: Dice, call: Call, document: Document) -> Call:
    """A tool's name for a prompt, a prompt's for a method: what is listed for one says nothing of others."""
    return replace(call, tool=replace(call.tool, kind=dice.one(list(FIELD_OF))))


def _loose(dice: Dice, call: Call, document: Document) -> Call:
    pin = dice.one((Pin.ABSENT, Pin.CHANGED, Pin.UNPINNED))
    return replace(call, tool=replace(call.tool, pin=pin))


def _author(dice: Dice, call: Call, document: Document) -> Call:
    declared = frozenset(dice.some((*SCOPES, "d"), 1, 2))
    return replace(call, tool=replace(call.tool, declared=declared))


def _fault(dice: Dice, call: Call, document: Document) -> Call:
    pointer = dice.one(("/arguments/n", "/arguments", "", "/arguments/l/0/x"))
    return replace(call, fault=(pointer, "a name stands twice"))


def _shapeless(dice: Dice, call: Call, document: Document) -> Call:
    shape: Any = dice.one((None, [], [{}], "{}", 1, True))
    return replace(call, params={**call.params, "arguments": shape})


def _unspeakable(dice: Dice, call: Call, document: Document) -> Call:
    """A value that I-JSON cannot say."""
    number = dice.one((math.inf, -math.inf, math.nan, 2**53, -(2**53), 10**400))
    value: Any = dice.one((number, "\ud800", {"\udfff": 1}))
    return _with_value(dice, call, value)


def _impossible(dice: Dice, call: Call, document: Document) -> Call:
    """A value that no JSON text gives."""
    return _with_value(dice, call, dice.one((b"x", (1,), {1: 2}, {3})))


def _with_value(dice: Dice, call: Call, value: Any) -> Call:
    inner: Any = dice.one((value, [0, value], {"k~": {"k/": value}}))
    return replace(call, params={**call.params, "arguments": {dice.one(FIELDS): inner}})


def _deep(dice: Dice, call: Call, document: Document) -> Call:
    """Arguments at about the greatest depth."""
    value: Any = dice.one(([], {}, 0))
    for level in range(dice.one((127, 128, 126))):
        value = {"k": value} if level % 3 == 0 else [value]
    return replace(call, params={**call.params, "arguments": {"x": value}})


TROUBLES: tuple[Callable[[Dice, Call, Document], Call], ...] = (
    *(_contained, _contained_tool, _store, _key, _clock, _versions, _late),
    *(_used_up, _used_up, _uncounted),
    *(_stranger, _narrowed, _unlisted, _of_another_kind, _loose, _loose, _author),
    *(_fault, _shapeless, _unspeakable, _impossible, _deep, _deep),
)

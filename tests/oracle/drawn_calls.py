"""Calls near a policy: mostly sound ones, and some with troubles that forbid them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import drawn_facts
from drawn import (
    AMOUNTS,
    DAY,
    FIELD_OF,
    FIELDS,
    NOON,
    NUMBERS,
    ROLES,
    SCALARS,
    SCOPES,
    SERVER_GLOBS,
    SERVERS,
    TEXTS,
    TOOLS,
    URIS,
    WILDCARDS,
    Dice,
    Document,
    globs,
)

from guard.core.model import Call, Conversation, Facts, Pin, Principal, Tool


def call(dice: Dice, documents: list[Document]) -> Call:
    """A call that the policy may well permit, or one with some of the troubles that forbid it."""
    drawn = drawn_facts.around(dice, _sound(dice, documents[0]), documents)
    for trouble in dice.some(TROUBLES, 0, dice.one((0, 0, 0, 1, 2, 4))):
        drawn = trouble(dice, drawn, dice.one(documents))
    return drawn


def _sound(dice: Dice, document: Document) -> Call:
    kind = dice.one([kind for kind, field in FIELD_OF.items() if field in document])
    rule = dice.one(document[FIELD_OF[kind]])
    fitting = globs(FIELD_OF[kind])[rule["match"]]
    tool = Tool(
        server=dice.one((SERVER_GLOBS[rule.get("server", "*")], dice.one(SERVERS))),
        name=dice.one((fitting, fitting, dice.one(URIS if kind == "resource" else TOOLS))),
        kind=kind,
        pin=Pin.MATCHES,
        declared=frozenset(dice.one(((), (), ("a:read",), ("a:read", "c")))),
    )
    narrowed = (
        *(None, None, None, frozenset(SCOPES), frozenset(SCOPES[:2]), frozenset({"c", "d"})),
        *(frozenset({"a:*", "c"}), frozenset({"*"}), frozenset({"a*", "a:read:*", "b/x"})),
    )
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
                arguments[field] = dice.one((1, 19.99, 0.29, 0.07, *NUMBERS, *AMOUNTS))
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
    """Much was used, of all or of some."""
    used = {key: dice.one((used, 3, 1, 9_999, 10_000, 10**15)) for key, used in call.facts.used.items()}
    return replace(call, facts=replace(call.facts, used=used))


def _uncounted(dice: Dice, call: Call, document: Document) -> Call:
    """Nobody knows what was used of some limit or sequence."""
    kept = dice.some(sorted(call.facts.used), 0, len(call.facts.used))
    return replace(call, facts=replace(call.facts, used={limit: call.facts.used[limit] for limit in kept}))


def _unremembered(dice: Dice, call: Call, document: Document) -> Call:
    """Nobody looked at the memory."""
    return replace(call, facts=replace(call.facts, seen=None))


def _outside(dice: Dice, call: Call, document: Document) -> Call:
    """An intent is declared that nobody knows."""
    return replace(call, intents=call.intents | {dice.one(("nobody-knows", "zz", f"{document['id']}/a", ""))})


def _late(dice: Dice, call: Call, document: Document) -> Call:
    return replace(call, facts=replace(call.facts, now=NOON + dice.one((1, DAY, 2 * DAY - 1, 11 * DAY))))


def _stranger(dice: Dice, call: Call, document: Document) -> Call:
    role = dice.one(("nobody", "READER", "", *ROLES))
    return replace(call, principal=replace(call.principal, role=role))


def _narrowed(dice: Dice, call: Call, document: Document) -> Call:
    scopes = frozenset(dice.some((*SCOPES, "d", *WILDCARDS, "a*", "a:rea*"), 0, 2))
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
    *(_contained, _contained, _contained_tool, _store, _key, _clock, _versions, _late),
    *(_used_up, _used_up, _uncounted, _unremembered, _outside),
    *(_stranger, _narrowed, _unlisted, _of_another_kind, _loose, _loose, _author),
    *(_fault, _shapeless, _unspeakable, _impossible, _deep, _deep),
)

"""Policies: rules about few names, now and then in several layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from drawn import (
    DAY,
    FIELD_OF,
    FIELDS,
    IDS,
    NOON,
    ROLES,
    SCOPES,
    SERVER_GLOBS,
    SERVERS,
    URI_SCHEMAS,
    WILDCARDS,
    Dice,
    Document,
    globs,
)
from drawn_rules import asked, hours, limit, origins, sequence
from drawn_schemas import request_schema, schema


def documents(dice: Dice) -> list[Document]:
    """One policy, or layers, the highest first. A lower one is like the highest, but for some parts."""
    first = _document(dice)
    layers = [first]
    for _ in range(dice.one((0, 0, 0, 1, 1, 2))):
        lower = {**first, **{part: value for part, value in _document(dice).items() if dice.once_in(2)}}
        lower["tools"] = first["tools"] if dice.once_in(2) else lower["tools"]
        lower["roles"] = first["roles"] if dice.once_in(2) else lower["roles"]
        for part in dice.some([*PARTS, "mode", "expires"], 0, 4):
            lower.pop(part, None)
        if "mode" in lower:
            lower["observe_until"] = _moment(dice)
        else:
            lower.pop("observe_until", None)
        layers.append({**_each_id_once(lower), "id": f"{first['id']}{len(layers)}"})
    return layers


def _each_id_once(document: Document) -> Document:
    """The document without rules whose id another rule has."""
    taken: set[str] = set()
    kept: Document = {}
    for part, value in document.items():
        if not isinstance(value, list):
            kept[part] = value
        elif left := [rule for rule in value if rule.get("id") not in taken]:
            taken |= {rule["id"] for rule in left if "id" in rule}
            kept[part] = left
    return kept


def _document(dice: Dice) -> Document:
    document: Document = {"guard": 1, "id": dice.one(("p", "q")), "version": dice.one((1, 7))}
    ids = dice.each(IDS)
    document["roles"] = _roles(dice)
    document["tools"] = [_tool_rule(dice, ids) for _ in range(1 + dice.below(4))]
    if dice.once_in(2):
        for field in dice.some(("resources", "prompts", "methods"), 1, 2):
            document[field] = [_tool_rule(dice, ids, field) for _ in range(1 + dice.below(2))]
    if dice.once_in(2):
        document["servers"] = {server: _server(dice) for server in dice.some(SERVERS, 1, 3)}
    for part in dice.some([*PARTS], 0, dice.one((2, 3, 4, 5))):
        document[part] = [PARTS[part](dice, ids, document) for _ in range(1 + dice.below(2))]
    if dice.once_in(3):
        document["memory"] = dice.one(({"user_overrides": True}, {"user_overrides": False}, {}))
    if dice.once_in(3):
        document["sources"] = [{"tools": ["read*"], "trust": dice.one(("trusted", "mixed", "untrusted"))}]
    if dice.once_in(4):
        document["containment"] = {"principal": {"denials": 1, "window": "1h"}}
    if dice.once_in(4):
        document["mode"] = "observe"
        document["observe_until"] = _moment(dice)
    if dice.once_in(8):
        document["expires"] = _moment(dice)
    return document


def _server(dice: Dice) -> Document:
    trust = ({"trust_declared_scopes": True}, {"trust_declared_scopes": False}, {})
    return dice.one(trust) | dice.one(({}, {}, {"scopes": dice.some(SCOPES, 0, 1)}))


def _roles(dice: Dice) -> Document:
    """Each role may inherit those that stand before it."""
    roles: Document = {}
    for name in dice.some(ROLES, 1, 4):
        role: Document = {"scopes": dice.some(SCOPES, 0, dice.one((4, 2)))}
        if dice.once_in(3):
            role["scopes"] += dice.some(WILDCARDS, 1, 2)
        if roles and not dice.once_in(4):
            role["inherits"] = dice.some(list(reversed(roles)), 1, min(2, len(roles)))
        if dice.once_in(2):
            role["may_assert_conversations"] = dice.one((True, False))
        roles[name] = role
    return roles


def _tool_rule(dice: Dice, ids: Iterator[str], field: str = "tools") -> Document:
    usual = ("file:///d/*", "*") if field == "resources" else ("read", "*", "r*", "*", "r*")
    rule: Document = {
        "match": dice.one((*usual, *globs(field))),
        "scopes": dice.some(SCOPES, 0, dice.one((0, 1, 1, 2))),
    }
    if dice.once_in(3):
        rule["server"] = dice.one(list(SERVER_GLOBS))
    if dice.once_in(2):
        rule["id"] = next(ids)
    return rule


def _schema_rule(dice: Dice, ids: Iterator[str], document: Document) -> Document:
    """A rule with a schema over the arguments, over the request, or both."""
    rule = naming(dice, ids, document)
    about_uris = "resources" in rule and not dice.once_in(4)
    rule["schema"] = dice.one(URI_SCHEMAS) if about_uris else schema(dice)
    if dice.once_in(3):
        rule["request"] = request_schema(dice)
        if not dice.once_in(3):
            del rule["schema"]
    if dice.once_in(3):
        rule["because"] = "somebody wrote it"
    return rule


def naming(dice: Dice, ids: Iterator[str], document: Document) -> Document:
    """The beginning of a rule that names something."""
    rule: Document = {"id": next(ids)}
    fields = [field for field in FIELD_OF.values() if field in document]
    for field in dice.some(fields, 1, min(2, len(fields))):
        fitting = globs(field)
        named: list[Any] = []
        for _ in range(1 + dice.below(2)):
            listed = dice.one(document[field])["match"]
            name = dice.one((fitting[listed], listed, listed, dice.one(list(fitting))))
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
        rule.pop("schema", None)
    elif isinstance(rule.get("schema"), dict) and not dice.once_in(3):
        rule["schema"] = {**rule["schema"], "required": dice.some(FIELDS, 1, 2)}
    return rule


def _ask(dice: Dice, ids: Iterator[str], document: Document) -> Document:
    rule = _schema_rule(dice, ids, document)
    if dice.once_in(2):
        rule.pop(dice.one(("schema", "request")), None)
    return rule | asked(dice)


def _moment(dice: Dice) -> str:
    """An end: mostly after noon, else at, around or before it; with any offset."""
    milliseconds = NOON + dice.one((DAY, 10 * DAY, 2 * DAY, DAY, 1, 0, -1, -2 * DAY))
    zone = timezone(timedelta(hours=dice.one((0, 2, -11)), minutes=dice.one((0, 30))))
    moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)
    return moment.astimezone(zone).isoformat(timespec=dice.one(("milliseconds", "microseconds")))


Drawing = Callable[[Dice, Iterator[str], Document], Document]
PARTS: dict[str, Drawing] = {
    "intents": _schema_rule,
    "protected": _forbidding,
    "limits": lambda dice, ids, document: naming(dice, ids, document) | limit(dice),
    "hours": lambda dice, ids, document: naming(dice, ids, document) | hours(dice),
    "sequences": lambda dice, ids, document: naming(dice, ids, document) | sequence(dice),
    "origins": lambda dice, ids, document: naming(dice, ids, document) | origins(dice),
    "asks": _ask,
}

"""The world around a call: what was used, what was seen, who approved, what was declared, what led to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from drawn import DAY, HOUR, NOON, Dice, Document
from drawn_rules import SOURCES

from guard.core.model import Appearance, Approval, Call, Parent, Seen
from guard.policy.origins.judge import candidates

# UNIX milliseconds. Berlin's clock goes forward, back; New York's back; a Sunday; Apia has no 30 December.
EDGES = (
    *(1_774_746_000_000, 1_792_888_200_000, 1_792_891_800_000, 1_793_511_000_000, 1_793_520_000_000),
    *(1_799_564_400_000, 1_325_239_200_000, 0, -1),
)
WORDS = ("user", "trusted", "mixed", "untrusted")


def around(dice: Dice, call: Call, documents: list[Document]) -> Call:
    """The call in a world that the policies have something to say of."""
    prefixes = [f"{document['id']}/" for document in documents[:-1]] + [""]
    ids = {
        part: [
            prefix + rule["id"]
            for prefix, document in zip(prefixes, documents, strict=True)
            for rule in document.get(part, ())
        ]
        for part in ("limits", "sequences", "intents", "asks", "origins")
    }
    used = {key: dice.one((0, 0, 0, 1, 2)) for key in ids["limits"]}
    for key in ids["sequences"]:
        used |= {key: dice.one((0, 1, 0, 1, 2)), f"{key}/spent": dice.one((0, 0, 1, 2, 3))}
    facts = replace(
        call.facts,
        used=used,
        seen=_seen(dice, call),
        approval=_approval(dice, [*ids["asks"], *ids["origins"]]),
        now=_now(dice) if dice.once_in(3) else call.facts.now,
    )
    declared = dice.some(ids["intents"], 0, min(1, len(ids["intents"]))) if dice.once_in(2) else []
    return replace(call, facts=facts, intents=frozenset(declared), parent=_parent(dice))


def _now(dice: Dice) -> int:
    """Any hour of a week; or about where a day, an hour, a summer begins."""
    if dice.once_in(2):
        return dice.one(EDGES) + dice.one((0, 1, -1, HOUR, -HOUR, HOUR // 2))
    hour = NOON - dice.below(8) * DAY + dice.below(24) * HOUR - DAY
    return hour + dice.one((0, -1, 1, HOUR // 2, HOUR // 4))


def _approval(dice: Dice, ids: list[str]) -> Approval | None:
    if dice.once_in(2) or not ids:
        return None
    rules = ids if not dice.once_in(4) else dice.some(ids, 0, len(ids))
    return Approval(
        "question", frozenset(rules), "launch/boss", dice.one(("reviewer", "client", "reviewer", ""))
    )


def _parent(dice: Dice) -> Parent | None:
    match dice.below(6):
        case 0:
            return Parent("claimed", "x")
        case 1 | 2:
            return Parent("verified", "x", "t", dice.one((0, 1, 2)))
        case _:
            return None


def _seen(dice: Dice, call: Call) -> Seen:
    """What the memory knows of some of the values of the call, and of what is in them."""
    values: dict[bytes, tuple[Appearance, ...]] = {}
    for value in _values(call.arguments):
        if not dice.once_in(2):
            continue
        told = tuple(_appearance(dice) for _ in range(1 + dice.below(2)))
        overflow, *keys = candidates(value, b"salt")
        values.update(dict.fromkeys(keys, told))
        if dice.once_in(40):
            values[overflow] = told
    return Seen(values, whole=not dice.once_in(8), salt=b"salt", version=1)


def _appearance(dice: Dice) -> Appearance:
    source = dice.one(SOURCES)
    return Appearance(source, "trusted" if source == "user" else dice.one(("trusted", "mixed", "untrusted")))


def _values(value: Any) -> list[Any]:
    """A value and all inside it, but what no JSON text gives."""
    if isinstance(value, dict):
        return [inner for one in value.values() for inner in _values(one)]
    if isinstance(value, list):
        return [inner for one in value for inner in _values(one)]
    return [value] if isinstance(value, str | int | float | None) else []

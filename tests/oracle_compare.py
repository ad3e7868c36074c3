"""Whether two opinions on a call are one."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Any

from guard.core.errors import Reason
from guard.core.model import Allow, Call, Decision, Deny, Reservation
from tests.oracle_rules import layers, name, naming
from tests.oracle_schemas import faults


def differ(call: Call, documents: list[dict[str, Any]], one: Decision, other: Decision) -> bool:
    """Whether a decision differs from the oracle's. Which of several fields a pointer names is left open.

    So is what a counter is called: `same_counters` says which calls have the same ones.
    """
    if isinstance(one, Allow) and isinstance(other, Allow):
        return _unnamed(one) != _unnamed(other)
    if not (isinstance(one, Deny) and isinstance(other, Deny)):
        return one != other
    if (one.reason, one.rule) != (other.reason, other.rule):
        return True
    if one.reason == Reason.ARGUMENTS_NOT_IJSON:
        return _place(one.pointer) != _place(other.pointer)
    if one.reason != Reason.INTENT_UNMATCHED:
        return one.pointer != other.pointer
    (intent,) = (
        intent
        for layer in layers(documents)
        for intent in naming(call, layer, "intents")
        if name(intent, call, layer) == one.rule
    )
    schema = intent.get("schema")
    found = {""} if schema is None else faults(call, schema) or {""}
    return not {_place(one.pointer), _place(other.pointer)} <= {_place(pointer) for pointer in found}


def _unnamed(allow: Allow) -> tuple[Allow, tuple[Any, ...], list[Reservation], int]:
    """What two engines must say alike. In which order they count what one rule counts is left open."""
    bare = [replace(one, counter="") for one in allow.reservations]
    return (
        replace(allow, reservations=(), marks=(), rests_on_seen=False),
        tuple(one.limit for one in bare),
        sorted(bare, key=astuple),
        len(allow.marks),
    )


def same_counters(one: list[Allow], other: list[Allow]) -> bool:
    """Whether two opinions on several calls count together what the other counts together."""
    pairs = {
        (mine.counter, theirs.counter)
        for a, b in zip(one, other, strict=True)
        for mine, theirs in zip(_counting(a), _counting(b), strict=True)
    }
    return len({mine for mine, _ in pairs}) == len({theirs for _, theirs in pairs}) == len(pairs)


def _counting(allow: Allow) -> list[Reservation]:
    """What is counted, in an order that both engines have. What is only looked at is looked at elsewhere."""
    return sorted(
        (one for one in allow.reservations if one.amount or one.most),
        key=lambda one: (one.limit, one.amount, one.most, one.window),
    )


def _place(pointer: str) -> tuple[str, ...]:
    return tuple(pointer.split("/")[:3])

"""On which side of a negation each boundary keyword of a schema stands.

A schema is monotone in a keyword that stands on one side only: if the keyword said yes instead of no,
the schema could turn one way and never back. That is what makes "not understood" harmless.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Flag
from typing import Any, Final
from urllib.parse import unquote

from guard.policy.boundaries.words import NAMES
from guard.policy.references import ANCHORS


class Side(Flag):
    """Where a keyword stands."""

    NOWHERE = 0
    POSITIVE = 1
    NEGATIVE = 2
    BOTH = 3


_OTHER: Final = {Side.POSITIVE: Side.NEGATIVE, Side.NEGATIVE: Side.POSITIVE}
_COUNTING: Final = ("/if", "/oneOf/")
_UNTOLD: Final = ("$dynamicRef", "unevaluatedItems", "unevaluatedProperties")
"""What rests on how other parts of a schema fared, or on the way that led to it."""


def sides(parts: Mapping[str, Any], children: Mapping[str, tuple[str, ...]]) -> dict[str, Side]:
    """The side of each boundary keyword of a schema, by its pointer.

    Args:
        parts: every subschema by its pointer.
        children: the steps from each to those directly inside.
    """
    found: dict[str, Side] = {}
    for pointer, part in parts.items():
        if isinstance(part, dict):
            found |= {f"{pointer}/{name}": Side.NOWHERE for name in NAMES & part.keys()}
    if not found:
        return found
    if any(isinstance(part, dict) and not part.keys().isdisjoint(_UNTOLD) for part in parts.values()):
        return dict.fromkeys(found, Side.BOTH)
    waiting, seen = [("", Side.POSITIVE)], set[tuple[str, Side]]()
    while waiting:
        here = waiting.pop()
        if here not in seen:
            seen.add(here)
            pointer, side = here
            for name in NAMES & _keys(parts[pointer]):
                found[f"{pointer}/{name}"] |= side
            waiting += _onward(pointer, side, parts, children)
    return found


def _onward(
    pointer: str, side: Side, parts: Mapping[str, Any], children: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, Side]]:
    part = parts[pointer]
    for step in children[pointer]:
        if step.startswith("/$defs/"):
            continue
        onward = f"{pointer}{step}"
        if step.startswith(_COUNTING) or (step == "/contains" and "maxContains" in part):
            yield from ((onward, Side.POSITIVE), (onward, Side.NEGATIVE))
        else:
            yield onward, _OTHER[side] if step == "/not" else side
    if "$ref" in _keys(part):
        yield _target(part["$ref"], parts), side


def _keys(part: Any) -> frozenset[str]:
    return frozenset(part) if isinstance(part, dict) else frozenset()


def _target(reference: str, parts: Mapping[str, Any]) -> str:
    """Where a reference leads; that it leads to a subschema was checked before."""
    fragment = unquote(reference[1:])
    if not fragment or fragment.startswith("/"):
        return fragment
    return next(
        pointer
        for pointer, part in parts.items()
        if any(isinstance(part, dict) and part.get(keyword) == fragment for keyword in ANCHORS)
    )

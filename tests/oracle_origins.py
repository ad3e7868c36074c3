"""A second reading of docs/policy.md, "Where values come from": which arguments, which rule, no or question.

Where one value came from is given: guard.policy.origins.judge says it for both engines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from guard.core.model import Call, Seen
from guard.policy.origins.judge import Origin, origin
from tests.oracle_rules import Layer, Rule, naming, places, root


def blind(call: Call, layer: Layer) -> list[Rule]:
    """The rules on origins that nobody can judge: all, where nobody looked at the memory.

    docs: silent on a call without the arguments that they name: they cannot be judged either.
    """
    return naming(call, layer, "origins") if call.facts.seen is None else []


def refused(call: Call, layer: Layer, rule: Rule) -> list[str]:
    """Pointers to the arguments whose values come from where this rule does not accept, in order."""
    found = {
        root(call) + pointer
        for pointer, value in _arguments(call, rule)
        if not _came_from(call, layer, rule, value).accepted_by(frozenset(rule["accept"]))
    }
    return sorted(found)


def of_arguments(call: Call, layer: Layer) -> dict[str, Any]:
    """What a request says of the origin of its arguments."""
    told: dict[str, Any] = {}
    for rule in naming(call, layer, "origins"):
        for pointer, value in _arguments(call, rule):
            judged = _came_from(call, layer, rule, value)
            told[pointer] = {"kinds": sorted(judged.kinds), "trust": judged.trust}
    return told


def _arguments(call: Call, rule: Rule) -> Iterator[tuple[str, Any]]:
    """The arguments that the rule names and that are there."""
    for named in rule["arguments"]:
        yield from places(call.arguments, named, stars=True)


def _came_from(call: Call, layer: Layer, rule: Rule, value: Any) -> Origin:
    seen: Seen | None = call.facts.seen
    if seen is None:
        raise ValueError(rule["id"])
    overrides = layer.document.get("memory", {}).get("user_overrides", False)
    return origin(value, seen, frozenset(rule.get("constants", ())), overrides)

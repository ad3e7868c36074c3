"""What the parts of the second engine share: a layer, which of its rules are about a call, and pointers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from guard.core.model import Call
from tests import oracle_uris

FIELDS = {"tool": "tools", "prompt": "prompts", "resource": "resources", "method": "methods"}
Rule = dict[str, Any]


@dataclass(frozen=True)
class Layer:
    """One policy as plain data, and what stands before the ids of its rules where they are shown."""

    document: dict[str, Any]
    prefix: str = ""

    def list(self, kind: str) -> list[Rule]:
        return list(self.document.get(kind, []))


def layers(documents: list[dict[str, Any]]) -> list[Layer]:
    """The highest first, as they are given; ids of all but the last are shown as POLICY/RULE."""
    above = [Layer(document, f"{document['id']}/") for document in documents[:-1]]
    return [*above, Layer(documents[-1])]


def naming(call: Call, layer: Layer, kind: str) -> list[Rule]:
    """The rules of a kind that name the tool, the prompt, the resource or the method, by their ids."""
    field = FIELDS[call.tool.kind]
    found = [rule for rule in layer.list(kind) if any(is_about(one, call) for one in rule.get(field, []))]
    return sorted(found, key=lambda rule: str(rule["id"]))


def tool_rules(call: Call, layer: Layer) -> list[Rule]:
    """The rules in the list for this kind of thing that match, whatever they are good for."""
    found = [rule for rule in layer.list(FIELDS[call.tool.kind]) if is_about(rule, call)]
    return sorted(found, key=lambda rule: name(rule, call, layer))


def name(rule: Rule, call: Call, layer: Layer) -> str:
    """What a rule is called where it is shown."""
    if rule.get("id") is not None:
        return f"{layer.prefix}{rule['id']}"
    return f"{layer.prefix}{FIELDS[call.tool.kind]}/{rule.get('server', '*')}:{rule['match']}"


def is_about(match: str | Rule, call: Call) -> bool:
    if isinstance(match, str):
        match = {"match": match}
    return glob(match["match"], call.tool.name) and glob(match.get("server", "*"), call.tool.server)


def is_odd(call: Call) -> bool:
    return call.tool.kind == "resource" and oracle_uris.is_odd(call.tool.name)


def glob(pattern: str, text: str) -> bool:
    if pattern == "":
        return text == ""
    if pattern[0] == "*":
        return any(glob(pattern[1:], text[skipped:]) for skipped in range(len(text) + 1))
    return text != "" and pattern[0] in ("?", text[0]) and glob(pattern[1:], text[1:])


def root(call: Call) -> str:
    """Where in the params stands what is judged: of a resource and of a method that is all of them."""
    return "" if call.tool.kind in ("resource", "method") else "/arguments"


def token(step: object) -> str:
    """One step of a pointer (RFC 6901, section 3)."""
    return str(step).replace("~", "~0").replace("/", "~1")


def places(value: Any, pointer: str, *, stars: bool = False) -> Iterator[tuple[str, Any]]:
    """Every place that a pointer (RFC 6901) names and that is there, with its value; in order.

    Args:
        stars: whether a step `*` stands for each member or item.
    """
    if pointer == "":
        yield "", value
        return
    step, slash, rest = pointer[1:].partition("/")
    for key, inner in _members(value):
        if token(key) == step or (stars and step == "*"):
            for place, found in places(inner, slash + rest, stars=stars):
                yield f"/{token(key)}{place}", found


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def milliseconds(stretch: str) -> int:
    """How long `10m` and its like are."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    return timedelta(**{units[stretch[-1]]: int(stretch[:-1])}) // timedelta(milliseconds=1)

"""Whether a policy fits the tools that it governs.

A rule on a property that a tool does not have would never match, and nobody would notice. So it is
an error, found by holding each rule's schema beside the pinned tool's `inputSchema`. Of a resource a
rule judges `uri` and nothing else. Prompts and methods have no definition that is pinned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from guard.core.canonical import escape
from guard.core.errors import GuardError, printable
from guard.policy.findings import nearest
from guard.policy.globs import is_glob
from guard.policy.references import REFERENCES, resolve
from guard.policy.rules import Intent, Pattern, Policy, Protected

_SAME_PLACE: Final = ("allOf", "anyOf", "oneOf")
_SAME_PLACE_ONE: Final = ("not", "if", "then", "else")
_ITEMS: Final = ("items", "contains", "unevaluatedItems")

_READ: Final[Mapping[str, Any]] = {"properties": {"uri": {"type": "string"}}}

Tools = Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Mention:
    """A place in the arguments that a rule's schema speaks of.

    Attributes:
        pointer: RFC 6901 pointer into the rule's schema.
        name: the property, None for the items of an array.
        schema: what the rule says about the value, None if it only names the property.
    """

    pointer: str
    name: str | None
    schema: Any = None


def check_against(policy: Policy, tools: Tools) -> None:
    """Refuse a policy with a rule on a property that no pinned tool of that name has.

    Args:
        policy: the policy.
        tools: the pinned definitions (with `inputSchema`), by server id and tool name.

    Raises:
        GuardError: the first misfit.
    """
    for misfit in misfits(policy, tools):
        raise misfit


def misfits(policy: Policy, tools: Tools) -> Iterator[GuardError]:
    """Every rule on a property that the tools, or resources, do not have, in the order of the rule ids.

    An exact name: each tool of that name must have it. A glob: at least one of the matched tools.
    """
    rules: list[Intent | Protected] = [*policy.intents, *policy.protected]
    for rule in sorted(rules, key=lambda rule: rule.id):
        if rule.schema is not None:
            for pattern in rule.tools:
                yield from _misfits(rule.id, rule.schema.source, pattern, tools)
            if any(pattern.kind == "resource" for pattern in rule.tools):
                for pointer, (what, known) in dict(_unknown(rule.schema.source, _READ)).items():
                    yield GuardError(
                        printable(f"a rule on `{what}`, which no resource has"),
                        where=printable(f"{rule.id}: schema{pointer}"),
                        remedy=nearest(what, known),
                    )


def _misfits(rule: str, source: Any, pattern: Pattern, tools: Tools) -> Iterator[GuardError]:
    governed = {key: tools[key] for key in sorted(tools) if pattern.covers(*key)}
    unknown = {key: dict(_unknown(source, tool.get("inputSchema", {}))) for key, tool in governed.items()}
    for (server, name), found in unknown.items():
        for pointer, (what, known) in found.items():
            if is_glob(pattern.match) and not all(pointer in other for other in unknown.values()):
                continue
            which = (
                f"no tool that fits `{pattern.match}`"
                if is_glob(pattern.match)
                else f"the tool `{name}` of `{server}`"
            )
            verb = "has" if is_glob(pattern.match) else "does not have"
            yield GuardError(
                printable(f"a rule on `{what}`, which {which} {verb}"),
                where=printable(f"{rule}: schema{pointer}"),
                remedy=nearest(what, known),
            )
        if is_glob(pattern.match):
            return


def _unknown(source: Any, input_schema: Any) -> Iterator[tuple[str, tuple[str, list[str]]]]:
    """Pointers into a rule's schema to what the tool does not have, with the name and what it has."""
    waiting: list[tuple[Any, str, list[Any]]] = [(source, "", [input_schema])]
    while waiting:
        part, pointer, parts = waiting.pop()
        shape = _Shape(parts, input_schema)
        if shape.open or (pointer and not shape.explicit):
            continue
        for mention in _mentions(part, pointer, source, frozenset()):
            if mention.name is None:
                inner = shape.items
            elif mention.name in shape.properties:
                inner = shape.properties[mention.name]
            else:
                yield mention.pointer, (mention.name, sorted(shape.properties))
                continue
            if isinstance(mention.schema, dict) and inner:
                waiting.append((mention.schema, mention.pointer, inner))


def _mentions(part: Any, pointer: str, root: Any, seen: frozenset[str]) -> Iterator[Mention]:
    """What a rule's schema says at one place; the rule's references are local and do not turn in circles."""
    if not isinstance(part, dict):
        return
    yield from _mentioned_here(part, pointer)
    for step, schema in _same_place(part):
        yield from _mentions(schema, f"{pointer}{step}", root, seen)
    for keyword in REFERENCES & part.keys():
        reference = part[keyword]
        if reference not in seen:
            yield from _mentions(resolve(root, reference), f"{pointer}/{keyword}", root, seen | {reference})


def _mentioned_here(part: Mapping[str, Any], pointer: str) -> Iterator[Mention]:
    for name, schema in part.get("properties", {}).items():
        yield Mention(f"{pointer}/properties/{escape(name)}", name, schema)
    for index, name in enumerate(part.get("required", [])):
        yield Mention(f"{pointer}/required/{index}", name)
    for name, others in part.get("dependentRequired", {}).items():
        at = f"{pointer}/dependentRequired/{escape(name)}"
        yield Mention(at, name)
        yield from (Mention(f"{at}/{index}", other) for index, other in enumerate(others))
    for name in part.get("dependentSchemas", {}):
        yield Mention(f"{pointer}/dependentSchemas/{escape(name)}", name)
    for keyword in _ITEMS:
        if keyword in part:
            yield Mention(f"{pointer}/{keyword}", None, part[keyword])
    for index, schema in enumerate(part.get("prefixItems", [])):
        yield Mention(f"{pointer}/prefixItems/{index}", None, schema)


def _same_place(part: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The subschemas that speak of the same value."""
    for keyword in _SAME_PLACE:
        listed = part.get(keyword)
        if isinstance(listed, list):
            yield from ((f"/{keyword}/{index}", schema) for index, schema in enumerate(listed))
    for keyword in _SAME_PLACE_ONE:
        if keyword in part:
            yield f"/{keyword}", part[keyword]
    named = part.get("dependentSchemas")
    if isinstance(named, dict):
        yield from ((f"/dependentSchemas/{escape(name)}", schema) for name, schema in named.items())


class _Shape:
    """What a tool's schema says about the members of one value. The schema is another's: trust no type."""

    def __init__(self, parts: list[Any], root: Any) -> None:
        self.properties: dict[str, list[Any]] = {}
        self.items: list[Any] = []
        self.open = False
        self.explicit = False
        waiting, seen = list(parts), set[int]()
        while waiting:
            part = waiting.pop()
            if part is True:
                self.open = True
            if not isinstance(part, dict) or id(part) in seen:
                continue
            seen.add(id(part))
            self._add(part)
            waiting.extend(schema for step, schema in _same_place(part) if step != "/not")
            references = [part[keyword] for keyword in REFERENCES & part.keys()]
            waiting.extend(resolve(root, reference) for reference in references if isinstance(reference, str))

    def _add(self, part: Mapping[str, Any]) -> None:
        if isinstance(part.get("patternProperties"), dict):
            self.open = True
        additional = part.get("additionalProperties")
        self.open = self.open or additional is True or isinstance(additional, dict)
        properties = part.get("properties")
        if isinstance(properties, dict):
            self.explicit = True
            for name, schema in properties.items():
                self.properties.setdefault(str(name), []).append(schema)
        if isinstance(part.get("items"), (dict, bool)):
            self.explicit = True
            self.items.append(part["items"])
        if isinstance(part.get("prefixItems"), list):
            self.explicit = True
            self.items.extend(part["prefixItems"])
        self.explicit = self.explicit or part.get("additionalProperties") is False

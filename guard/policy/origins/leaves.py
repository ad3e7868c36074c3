"""The leaves of a JSON document: every value and name in it, with its place and how far it is trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

TRUST: Final = ("untrusted", "mixed", "trusted")  # from the least
ANY: Final = "*"

_Patterns = tuple[tuple[tuple[str, ...], str], ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value, or one name of a member.

    Attributes:
        at: RFC 6901 pointer; of a name, to the object that has it.
        value: a string or a number.
        trust: of this place.
        whole: whether it stands for itself: False for prose that is no JSON.
        name: whether it is the name of a member.
    """

    at: str
    value: str | int | float
    trust: str
    whole: bool = True
    name: bool = False


class Members(tuple[tuple[str, Any], ...]):
    """An object with every member that was written, doubled names too: readers differ in which they take."""

    __slots__ = ()


def least(*labels: str) -> str:
    """The least trusted of some labels."""
    return min(labels, key=TRUST.index)


def read(said: str) -> Any:
    """A text as JSON. Raises ValueError for what is none, or nested too deep to be read."""
    try:
        return json.loads(said, object_pairs_hook=Members)
    except RecursionError as error:
        raise ValueError from error


def leaves(said: str, trust: str, fields: Mapping[str, str]) -> Iterator[Leaf]:
    """Every leaf of what was said: of a document each with the trust of its place, of prose the text.

    Prose may show anything: it is as little trusted as the least of all fields.
    """
    document: Any = said
    if said.lstrip()[:1] in ("{", "[", '"'):
        try:
            document = read(said)
        except ValueError:
            document = said
    if isinstance(document, str):
        yield Leaf("", document, least(trust, *fields.values()), whole=False)
    else:
        yield from leaves_of(unwrapped(document), trust, fields)


def leaves_of(document: Any, trust: str, fields: Mapping[str, str]) -> Iterator[Leaf]:
    """Every leaf of a document that was read, each with the trust of its place."""
    patterns = tuple((tuple(pattern.split("/")[1:]), label) for pattern, label in fields.items())
    waiting: list[tuple[Any, str, str, _Patterns]] = [(document, "", trust, patterns)]
    while waiting:
        node, at, label, ahead = waiting.pop()
        reached = [one for path, one in ahead if not path]
        if reached:
            label = least(*reached)
        if isinstance(node, Members):
            for name, inner in node:
                yield Leaf(at, name, label, name=True)
                escaped = name.replace("~", "~0").replace("/", "~1")
                waiting.append((inner, f"{at}/{escaped}", label, _below(ahead, escaped)))
        elif isinstance(node, list):
            waiting.extend(
                (inner, f"{at}/{place}", label, _below(ahead, str(place))) for place, inner in enumerate(node)
            )
        elif isinstance(node, str):
            yield from _string(node, at, label)
        elif node is not None and not isinstance(node, bool):
            yield Leaf(at, node, label)


def unwrapped(document: Any) -> Any:
    """What stands inside a sole `result`, as SDKs wrap what is no object."""
    if isinstance(document, Members) and len(document) == 1 and document[0][0] == "result":
        return document[0][1]
    return document


def _string(text: str, at: str, label: str) -> Iterator[Leaf]:
    """A string, and where it is a document itself, what is in it."""
    yield Leaf(at, text, label)
    if text[:1] in ("{", "["):
        try:
            document = read(text)
        except ValueError:
            return
        for leaf in leaves_of(document, label, {}):
            yield Leaf(at + leaf.at, leaf.value, label, name=leaf.name)


def _below(ahead: _Patterns, segment: str) -> _Patterns:
    if not ahead:
        return ahead
    return tuple((path[1:], label) for path, label in ahead if path and path[0] in (segment, ANY))

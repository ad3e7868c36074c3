"""The result of a tool as MCP builds it (2025-06-18 and later, Tools, "Tool Result").

Structured content and each block of text are documents of their own: pointers begin there. Text beside
structured content says the same again, for readers that know no better; what it shows of that has the trust
of its place there, and only the rest is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from guard.policy.origins.leaves import Members, least, leaves, leaves_of, read, unwrapped
from guard.policy.origins.values import Found

_DOCUMENTS: Final = frozenset({"content", "structuredContent"})
_PICTURES: Final = frozenset({"image", "audio"})


def answered(raw: bytes, trust: str, fields: Mapping[str, str], *, tool: bool = True) -> Found:
    """The values of a result or error object.

    Args:
        raw: as the server wrote it.
        trust: of what no field says otherwise.
        fields: trust by pointer. Of what is no result of a tool, pointers begin at the object itself.
        tool: whether a tool answered.
    """
    found = Found()
    text = raw.decode("utf-8", "replace")
    try:
        document = read(text)
    except ValueError:
        document = text
    if tool and not (isinstance(document, Members) and any(name in _DOCUMENTS for name, _ in document)):
        found.take_all(leaves(text, least(trust, *fields.values()), {}))  # an error, or a question
    elif not isinstance(document, Members):
        found.take_all(leaves(text, trust, fields))
    elif not tool:
        found.take_all(leaves_of(without_pictures(document), trust, fields))
    else:
        _result(found, document, trust, fields)
    return found


def _result(found: Found, document: Members, trust: str, fields: Mapping[str, str]) -> None:
    structured = [unwrapped(inner) for name, inner in document if name == "structuredContent"]
    for inner in structured:
        found.take_all(leaves_of(inner, trust, fields))
    beside = Found()
    rest: list[Any] = [inner for name, inner in document if name not in _DOCUMENTS]
    for name, blocks in document:
        if name != "content":
            continue
        for block in blocks if isinstance(blocks, list) else [blocks]:
            told = _text(block)
            if told is None:
                rest.append(without_pictures(block))
            elif not structured:
                found.take_all(leaves(told, trust, fields))
            elif not _repeats(told, structured):
                beside.take_all(leaves(told, trust, fields))
    found.take_all(leaves_of(rest, least(trust, *fields.values()), {}))
    if beside.keys:
        shown = Found()
        for inner in structured:
            shown.take_all(leaves_of(inner, "untrusted", {}))
        found.merge(beside, but=shown.keys)


def _text(block: Any) -> str | None:
    """The text of a block that has nothing else in it."""
    if not isinstance(block, Members):
        return None
    members = dict(block)
    told = members.get("text")
    plain = members.keys() == {"type", "text"} and len(block) == len(members) and members["type"] == "text"
    return told if plain and isinstance(told, str) else None


def _repeats(text: str, structured: list[Any]) -> bool:
    if text[:1] not in {"{", "["}:
        return False
    try:
        return unwrapped(read(text)) in structured
    except (ValueError, RecursionError):
        return False


def without_pictures(node: Any) -> Any:
    """A document without the data of pictures and sounds: nothing in them is read."""
    if isinstance(node, Members):
        picture = any(name == "type" and inner in _PICTURES for name, inner in node if isinstance(inner, str))
        return Members(
            (name, without_pictures(inner)) for name, inner in node if not (picture and name == "data")
        )
    return [without_pictures(inner) for inner in node] if isinstance(node, list) else node

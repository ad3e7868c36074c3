"""JSON pointers (RFC 6901) into arguments, also with `*` for each member or item."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from guard.core.canonical import escape

MISSING: Final = object()
"""What no pointer finds."""
_BARE_TILDE: Final = re.compile(r"~(?![01])")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)


def segments(pointer: str) -> list[str]:
    """The unescaped parts of a pointer.

    Raises:
        ValueError: it does not begin with a slash, or has a tilde that escapes nothing.
    """
    if not pointer:
        return []
    if not pointer.startswith("/") or _BARE_TILDE.search(pointer):
        raise ValueError("not a JSON pointer such as `/recipient` or `/items/0/price`")
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/")]


def value_at(document: Any, pointer: str) -> Any:
    """What stands there, MISSING where nothing does."""
    for _, value in values_at(document, pointer, wild=False):
        return value
    return MISSING


def values_at(document: Any, pointer: str, *, wild: bool = True) -> Iterator[tuple[str, Any]]:
    """Everything that stands there, with its own pointer. With `wild`, a part `*` is each member or item."""
    yield from _values(document, segments(pointer), "", wild=wild)


def _values(document: Any, parts: list[str], at: str, *, wild: bool) -> Iterator[tuple[str, Any]]:
    if not parts:
        yield at, document
        return
    part, rest = parts[0], parts[1:]
    if isinstance(document, dict):
        names = list(document) if wild and part == "*" else [part] if part in document else []
        for name in names:
            yield from _values(document[name], rest, f"{at}/{escape(name)}", wild=wild)
    elif isinstance(document, list):
        every = range(len(document)) if wild and part == "*" else _index(part, len(document))
        for index in every:
            yield from _values(document[index], rest, f"{at}/{index}", wild=wild)


def _index(part: str, length: int) -> list[int]:
    """RFC 6901 section 4: digits without a leading zero."""
    return [int(part)] if _INDEX.fullmatch(part) and int(part) < length else []

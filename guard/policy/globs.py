"""Names with `*` and `?`, matched in linear time and by nothing but code points.

`*` stands for any characters, none included; `?` for exactly one. All else stands for itself, so
`[a]` is three characters, and case counts.
"""

from __future__ import annotations


def is_glob(pattern: str) -> bool:
    """Whether a pattern can match more than the one name that it spells."""
    return "*" in pattern or "?" in pattern


def fits(pattern: str, name: str) -> bool:
    """Whether the whole name fits the pattern."""
    if not is_glob(pattern):
        return pattern == name
    first, *rest = pattern.split("*")
    if not rest:
        return len(first) == len(name) and _at(first, name, 0)
    *middle, last = rest
    end = len(name) - len(last)
    if end < len(first) or not _at(first, name, 0) or not _at(last, name, end):
        return False
    at = len(first)
    for piece in middle:
        at = _find(piece, name, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def _at(piece: str, name: str, at: int) -> bool:
    """Whether a piece without `*` stands at that place."""
    if "?" not in piece:
        return name.startswith(piece, at)
    part = name[at : at + len(piece)]
    return len(part) == len(piece) and all(p in ("?", c) for p, c in zip(piece, part, strict=True))


def _find(piece: str, name: str, start: int, end: int) -> int:
    """Where a piece without `*` first stands in name[start:end], -1 if nowhere."""
    if "?" not in piece:
        return name.find(piece, start, end)
    return next((at for at in range(start, end - len(piece) + 1) if _at(piece, name, at)), -1)

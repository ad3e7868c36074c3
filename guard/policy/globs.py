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


def overlap(one: str, other: str) -> bool:
    """Whether some name fits both patterns."""
    here = _past_stars({0}, other)  # how much of `other` is used up by what fits the beginning of `one`
    for char in one:
        if char == "*":
            here = {at for start in here for at in range(start, len(other) + 1)}
            continue
        after = set[int]()
        for at in here:
            if at < len(other):
                if other[at] == "*":
                    after.add(at)
                elif "?" in (char, other[at]) or char == other[at]:
                    after.add(at + 1)
        here = _past_stars(after, other)
    return len(other) in here


def _past_stars(places: set[int], pattern: str) -> set[int]:
    """With the places that a `*` leads to that stands for nothing."""
    found = set(places)
    for place in places:
        at = place
        while at < len(pattern) and pattern[at] == "*":
            at += 1
            found.add(at)
    return found


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

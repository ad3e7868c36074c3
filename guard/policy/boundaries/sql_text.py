"""SQL as text, before any parser reads it: only what every dialect splits into the same words.

What is refused here are the places where databases disagree with each other and with parsers: comments
(MySQL runs some of them), backslashes, dollar quotes, prefixed strings, odd quotes, several statements.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from guard.policy.boundaries.sql_words import FUNCTIONS, KEYWORDS, REFUSED_BY, TYPES
from guard.policy.boundaries.verdict import NotUnderstood

LONGEST: Final = 16_384  # characters
DEEPEST: Final = 32  # parentheses and CASE inside each other
MOST_WORDS: Final = 2_000
DEEPEST_TYPES: Final = 4  # parentheses behind what may be a type, inside each other
_TYPELESS: Final = (KEYWORDS | FUNCTIONS) - TYPES - {"union", "year"}
"""Behind any other word the parser reads a parenthesis as a type's and as a call's: each level doubles."""

_PIECES: Final[Mapping[str, str]] = {
    "text": r"'(?:[^'\\]|'')*'(?!['\w])",
    "word": r"[A-Za-z_][A-Za-z0-9_]*(?!['\"`\w$])",
    "number": r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?![\w.$'\"`])",
    "space": r"[ \n\t]+",
    "cast": r"::",
    "sign": r"\|\||<=|>=|<>|!=|[(),+%<>=]|\*(?!/)|/(?!\*)|-(?!-)|\.(?![0-9])",
}
_QUOTED: Final = {
    "postgres": r"\"[A-Za-z_][A-Za-z0-9_]*\"(?!['\"`\w])",
    "sqlite": r"\"[A-Za-z_][A-Za-z0-9_]*\"(?!['\"`\w])",
    "mysql": r"`[A-Za-z_][A-Za-z0-9_]*`(?!['\"`\w])",
}
_QUOTES: Final = '"`'
DIALECTS: Final = tuple(sorted(_QUOTED))


def splitter(dialect: str) -> re.Pattern[str]:
    """What finds the next piece of a statement; its last group says of which kind."""
    pieces = {**_PIECES, "quoted": _QUOTED[dialect]}
    if dialect != "postgres":
        del pieces["cast"]
    return re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in pieces.items()))


_SPLIT: Final = {dialect: splitter(dialect) for dialect in DIALECTS}


@dataclass(frozen=True, slots=True)
class Words:
    """What a statement consists of.

    Attributes:
        plain: the statement without its final semicolon.
        first: the first of them that is not quoted, in small letters.
        bare: every word that is not quoted, in small letters.
        called: those with a parenthesis behind them, but for keywords.
    """

    plain: str
    first: str
    bare: frozenset[str]
    called: frozenset[str]


def split(statement: str, dialect: str) -> Words:
    """One statement's words. Raises NotUnderstood."""
    plain = statement.strip(" \n\t").removesuffix(";").rstrip(" \n\t")
    bare, called = set[str](), set[str]()
    opened: list[bool] = []  # of each parenthesis that is open, whether what stands before may be a type
    place, depth, count, first, last = 0, 0, 0, "", ""
    while place < len(plain):
        match = _SPLIT[dialect].match(plain, place)
        if match is None:
            raise NotUnderstood
        place, kind, piece = match.end(), match.lastgroup, match[0].lower()
        if kind == "space":
            continue
        if last == "values" and piece != "(":
            raise NotUnderstood  # a table of that name, to a database that takes it for no keyword
        count += 1
        if kind == "text" and not piece.isprintable():
            raise NotUnderstood
        if kind == "word":
            first = first or piece
            bare.add(piece)
            depth += {"case": 1, "end": -1}.get(piece, 0)
        elif piece == "(":
            depth += 1
            opened.append(bool(last) and last not in _TYPELESS)
            if last and last not in KEYWORDS:
                called.add(last.strip(_QUOTES))
        elif piece == ")":
            depth -= 1
            del opened[-1:]
        last = piece if kind in ("word", "quoted") else ""
        if not 0 <= depth <= DEEPEST or count > MOST_WORDS or sum(opened) > DEEPEST_TYPES:
            raise NotUnderstood
    if bare & REFUSED_BY[dialect]:
        raise NotUnderstood
    return Words(plain, first, frozenset(bare), frozenset(called))

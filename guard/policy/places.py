"""Which line of a JSON text every value stands on.

It only counts: what is not JSON is found by the reader proper, and gets the lines it gets.
"""

from __future__ import annotations

import re
from typing import Final

from guard.core.canonical import escape, read

_PIECE: Final = re.compile(r'\n|[{}\[\],:]|"(?:[^"\\]|\\.)*"|[^\s{}\[\],:"]+', re.DOTALL)


class Places:
    """Walks the pieces of a JSON text.

    Attributes:
        lines: line, counted from 1, by RFC 6901 pointer; of a duplicate, that of the last.
        depth: how deep the text nests.
    """

    def __init__(self, text: str) -> None:
        self.lines: dict[str, int] = {}
        self.depth = 0
        self._path: list[str | int] = []
        self._wants_key = False
        line = 1
        for match in _PIECE.finditer(text):
            if match[0] == "\n":
                line += 1
            else:
                self._piece(match[0], line)

    def _piece(self, piece: str, line: int) -> None:
        if piece in "]}":
            self._path = self._path[:-1]
            self._wants_key = False
        elif piece == ",":
            self._next()
        elif piece == ":":
            self._wants_key = False
        elif self._wants_key:
            self._path[-1] = _unquoted(piece)
        else:
            self._value(piece, line)

    def _value(self, piece: str, line: int) -> None:
        self.lines["".join(f"/{escape(str(part))}" for part in self._path)] = line
        if piece in "{[":
            self._path = [*self._path, "" if piece == "{" else 0]
            self._wants_key = piece == "{"
            self.depth = max(self.depth, len(self._path))

    def _next(self) -> None:
        if not self._path:
            return
        last = self._path[-1]
        if isinstance(last, int):
            self._path[-1] = last + 1
        else:
            self._wants_key = True


def _unquoted(piece: str) -> str:
    try:
        return str(read(piece.encode()))
    except ValueError:
        return piece

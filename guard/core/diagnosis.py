"""The slow reader, for the one message in a million that the fast reader refused.

It tells JSON from I-JSON and names the place of the first fault. It never recurses, so depth
costs nothing but memory that the message's size already bounds.
"""

from __future__ import annotations

import re
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]  # in the module, not in its stub
from typing import Any, Final

from guard.core.canonical import MAX_DEPTH, MAX_SAFE_INTEGER, NotIJson, NotJson, escape

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_NUMBER: Final = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_LITERALS: Final = {"true": True, "false": False, "null": None}
_LONGEST_SAFE: Final = len(str(-MAX_SAFE_INTEGER))
_INFINITY: Final = float("inf")
_MOST_DIGITS: Final = 4300  # before the point; the fast reader refuses more, whatever the exponent


class _Reader:
    """An explicit stack of open containers; `path` holds the reference tokens above the cursor."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.fault: NotIJson | None = None
        self.stack: list[Any] = []
        self.path: list[str] = []

    def read(self) -> Any:
        value = self._value()
        while self.stack:
            value = self._close_or_next(value)
        self._space()
        if self.at != len(self.text):
            raise self._broken("something after the end")
        return value

    def note(self, what: str) -> None:
        if self.fault is None:
            self.fault = NotIJson(what, "".join(f"/{escape(token)}" for token in self.path))

    def _broken(self, what: str) -> NotJson:
        return NotJson(f"{what} at character {self.at}")

    def _space(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None  # noqa: S101 - the pattern matches the empty string
        self.at = match.end()

    def _peek(self) -> str:
        self._space()
        return self.text[self.at : self.at + 1]

    def _value(self) -> Any:
        """Read a scalar, or open containers until one holds a scalar or is empty."""
        while True:
            char = self._peek()
            if char not in ("{", "["):
                return self._scalar(char)
            container: Any = {} if char == "{" else []
            self.at += 1
            if len(self.stack) >= MAX_DEPTH:
                self.note(f"nested deeper than {MAX_DEPTH} levels")
            closing = "}" if char == "{" else "]"
            if self._peek() == closing:
                self.at += 1
                return container
            self.stack.append(container)
            self.path.append(self._key() if char == "{" else "0")

    def _close_or_next(self, value: Any) -> Any:
        """Put a finished value into its container; read what follows it."""
        container, token = self.stack[-1], self.path.pop()
        if isinstance(container, dict):
            container.setdefault(token, value)
            closing = "}"
        else:
            container.append(value)
            closing = "]"
        char = self._peek()
        if char == closing:
            self.at += 1
            return self.stack.pop()
        if char != ",":
            raise self._broken(f"expected a comma or {closing}")
        self.at += 1
        self.path.append(self._key() if closing == "}" else str(len(container)))
        return self._value()

    def _key(self) -> str:
        if self._peek() != '"':
            raise self._broken("expected a member name")
        key = self._string()
        if self._peek() != ":":
            raise self._broken("expected a colon")
        self.at += 1
        if key in self.stack[-1]:
            self.path.append(key)
            self.note("duplicate key")
            self.path.pop()
        return key

    def _string(self) -> str:
        try:
            text, self.at = scanstring(self.text, self.at + 1, True)  # noqa: FBT003 - a C signature
        except JSONDecodeError as error:
            raise NotJson(str(error)) from None
        try:
            text.encode()
        except UnicodeEncodeError:
            self.note("lone surrogate")
            text = text.encode(errors="backslashreplace").decode()  # what is said of it can be written
        return str(text)

    def _scalar(self, char: str) -> Any:
        if char == '"':
            return self._string()
        for literal, value in _LITERALS.items():
            if self.text.startswith(literal, self.at):
                self.at += len(literal)
                return value
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            raise self._broken("expected a value")
        self.at = match.end()
        return self._number(*match.groups())

    def _number(self, whole: str, fraction: str | None, exponent: str | None) -> Any:
        if len(whole.removeprefix("-")) > _MOST_DIGITS:
            self.note(f"number with more than {_MOST_DIGITS} digits before the point")
            return None
        if fraction or exponent:
            number = float(f"{whole}{fraction or ''}{exponent or ''}")
            if abs(number) == _INFINITY:
                self.note("number beyond the range of a double")
                return None
            return number
        if len(whole) > _LONGEST_SAFE or abs(int(whole)) > MAX_SAFE_INTEGER:
            self.note("integer beyond ±(2^53-1)")
            return None
        return int(whole)


def diagnose(data: bytes) -> tuple[Any, NotIJson | None]:
    """Read JSON and report the first thing in it that I-JSON forbids.

    Returns: the value and its first fault, None if it is I-JSON. Where there is a fault the value
        serves to find out what the message was about and nothing else: a duplicate keeps its
        first value, a number out of range is None, and a lone surrogate is a backslash escape.

    Raises:
        NotJson: not UTF-8, or not JSON.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotJson(f"not UTF-8: {error.reason} at byte {error.start}") from None
    reader = _Reader(text)
    return reader.read(), reader.fault

"""Newline-delimited messages over byte streams: what both ends of the stdio transport share."""

from __future__ import annotations

from typing import Final

MAX_MESSAGE: Final = 16 * 1024 * 1024
"""Bytes that one message may have."""


class LineBuffer:
    """Cut a byte stream at its newlines, holding at most `limit` bytes of an unfinished line."""

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._held = 0
        self._skipping = False

    def feed(self, data: bytes) -> tuple[list[bytes], int]:
        """Take bytes; give whole lines without their newline, and how many were too long.

        Blank lines are not messages and are left out.
        """
        lines: list[bytes] = []
        too_long = 0
        *whole, rest = data.split(b"\n")
        for part in whole:
            if self._skipping:
                self._skipping = False
                continue
            line = b"".join((*self._parts, part)) if self._parts else part
            self._parts, self._held = [], 0
            if len(line) > self._limit:
                too_long += 1
            elif stripped := line.strip(b" \t\r"):
                lines.append(stripped)
        if rest and not self._skipping:
            self._parts.append(rest)
            self._held += len(rest)
            if self._held > self._limit:
                self._parts, self._held, self._skipping = [], 0, True
                too_long += 1
        return lines, too_long

    def rest(self) -> bytes:
        """What stands after the last newline when the stream ends: a last message without one."""
        line, self._parts, self._held = b"".join(self._parts), [], 0
        return line.strip(b" \t\r")

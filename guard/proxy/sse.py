"""Server-Sent Events, both ways (WHATWG HTML, section 9.2): whole events out of pieces, and back."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from guard.proxy.lines import MAX_MESSAGE

CONTENT_TYPE: Final = "text/event-stream"
MAX_WAITING: Final = 256
"""Messages that wait for a reader; of bytes, as many as one message may have."""
KEEP_ALIVE: Final = b":\r\n\r\n"
_END: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"


class TooLarge(Exception):
    """An event is larger than a message may be."""


class Events:
    """Cut a byte stream into the data of its events, holding at most `limit` bytes of one.

    Only the data of `message` events counts here; ids, retry times and comments do not.
    """

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._data = bytearray()  # each line with its newline
        self._message = True
        self._started = self._after_cr = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Take bytes; give the data of every event that is whole now, in order.

        Raises:
            TooLarge: an event is larger than the limit.
        """
        if not self._started:
            piece = bytes(self._rest) + piece
            self._rest.clear()
            if len(piece) < len(_BOM) and _BOM.startswith(piece):
                self._rest += piece
                return []
            self._started, piece = True, piece.removeprefix(_BOM)
        if self._after_cr and piece:
            self._after_cr, piece = False, piece.removeprefix(b"\n")  # the second half of a CR LF
        if piece:
            self._after_cr = piece.endswith(b"\r")
        *lines, rest = _END.split(piece)
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += rest
        if len(self._data) + len(self._rest) > self._limit:
            raise TooLarge
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            data, message = bytes(self._data[:-1]), self._message
            self._data, self._message = bytearray(), True
            return data if data and message else None
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data += value + b"\n"
            if len(self._data) > self._limit:
                raise TooLarge
        elif name == b"event":
            self._message = value in {b"", b"message"}
        return None


def event(line: bytes) -> bytes:
    """One message, written on one line, as an event."""
    return b"event: message\r\ndata: " + line.rstrip(b"\n") + b"\r\n\r\n"


class Outbox:
    """Events that wait for a stream's reader; of more than it holds, the newest are dropped."""

    def __init__(self, most: int = MAX_WAITING) -> None:
        self._most = most
        self._lines: list[bytes] = []
        self._bytes = 0
        self._more = asyncio.Event()
        self.ended = False

    def put(self, line: bytes) -> None:
        """Add one message, written on one line. A reader that is too slow misses it."""
        fits = not self._lines or self._bytes + len(line) <= MAX_MESSAGE
        if not self.ended and len(self._lines) < self._most and fits:
            self._lines.append(line)
            self._bytes += len(line)
            self._more.set()

    def end(self) -> None:
        """Nothing more comes."""
        self.ended = True
        self._more.set()

    def take(self) -> bytes:
        """Everything that waits, as events."""
        lines, self._lines, self._bytes = self._lines, [], 0
        if not self.ended:
            self._more.clear()
        return b"".join(event(line) for line in lines)

    async def wait(self) -> None:
        """Until there is something to take, or nothing more comes."""
        await self._more.wait()

"""Server-Sent Events, both ways (WHATWG HTML, section 9.2): whole events out of pieces, and back."""

from __future__ import annotations

import re
from typing import Final

from guard.proxy.lines import MAX_MESSAGE

CONTENT_TYPE: Final = "text/event-stream"
MAX_ID: Final = 1024
"""Bytes of an event's id."""
KEEP_ALIVE: Final = b":\r\n\r\n"
_END: Final = re.compile(rb"\r\n|\n|\r")
_NUMBER: Final = re.compile(rb"[0-9]{1,9}")
_BOM: Final = b"\xef\xbb\xbf"


class TooLarge(Exception):
    """An event is larger than a message may be."""


class Events:
    """Cut a byte stream into the data of its events, holding at most `limit` bytes of one.

    Only the data of `message` events is given.

    Attributes:
        last_id: the id of the last event that was whole, b"" for none; one too long to be sent is none.
        retry: milliseconds that the server wants its clients to wait before they come back, None for none.
    """

    def __init__(self, limit: int = MAX_MESSAGE, *, retry: int | None = None) -> None:
        self.last_id = b""
        self.retry = retry
        self._id = b""
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
            self.last_id = self._id
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
        elif name == b"id":
            if b"\0" not in value:
                self._id = value if len(value) <= MAX_ID else b""
        elif name == b"retry" and _NUMBER.fullmatch(value):
            self.retry = int(value)
        return None


def event(line: bytes, id_: bytes = b"") -> bytes:
    """One message, written on one line, as an event."""
    head = b"id: " + id_ + b"\r\nevent: message\r\ndata: " if id_ else b"event: message\r\ndata: "
    return head + line.rstrip(b"\n") + b"\r\n\r\n"

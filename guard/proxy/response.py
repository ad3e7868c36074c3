"""One answer of a tool server over HTTP/1.1, as its reader sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

MAX_WAITING: Final = 256 * 1024
"""Bytes of a body that may wait unread before the connection is no longer read from."""


class Broken(Exception):
    """The request was or may have been sent, and no whole answer came: what became of it is unknown."""


class TooLarge(Broken):
    """The body is larger than the reader takes. The connection is closed."""


class Response:
    """An answer whose head is there. Its body is read once, by one reader.

    Whoever has one calls `close` in the end, whatever happened: an answer that is dropped keeps its
    connection. A reader that is cancelled closes it.

    Args:
        on_read: called when what waited was read, and more comes.
        on_close: called when the reader lets go of it before its end, with why.

    Attributes:
        on_wake: called instead of waking a reader, for whoever looks without waiting; None for a reader.
        status: 200 to 599; interim answers are never seen.
        headers: lower-case names, values as latin-1; a repeated name is joined with ", " (RFC 9110, 5.3).
    """

    __slots__ = (
        "_ended", "_failure", "_on_close", "_on_read", "_waiter", "_waiting", "headers", "on_wake", "status",
    )  # fmt: skip

    def __init__(self, on_read: Callable[[], None], on_close: Callable[[str], None]) -> None:
        self.status = 0
        self.on_wake: Callable[[], None] | None = None
        self.headers: Mapping[str, str] = {}
        self._on_read, self._on_close = on_read, on_close
        self._waiting = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Broken | None = None
        self._ended = False

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Args:
            limit: bytes that it may have.

        Raises:
            TooLarge: it has more, or says that it will have.
            Broken: it did not come whole.
        """
        if not self._ended and int(self.headers.get("content-length", "0")) > limit:
            self._refuse(limit)
        pieces: list[bytes] = []
        size = 0
        async for piece in self:
            size += len(piece)
            if size > limit:
                self._refuse(limit)
            pieces.append(piece)
        return b"".join(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces of the body as they come. Raises Broken after the last one where it is not whole."""
        return self

    async def __anext__(self) -> bytes:
        while not self._waiting:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            await self._wait()
        piece = bytes(self._waiting)
        self._waiting.clear()
        if not self._over:
            self._on_read()
        return piece

    def take(self) -> bytes | None:
        """The whole body if it is there, None while it is not. Raises Broken: it does not come whole."""
        if self._failure is not None:
            raise self._failure
        return bytes(self._waiting) if self._ended else None

    def close(self) -> None:
        """Let go of it. If the body is not at its end the connection is closed."""
        if not self._over:
            self._on_close("its reader let go of it")
        elif self._waiting:  # what is left must not look like the end
            self._failure = self._failure or Broken("its reader let go of it")
        self._waiting.clear()

    def _refuse(self, limit: int) -> None:
        self.close()
        self._failure = TooLarge(f"the body has more than {limit} bytes")
        raise self._failure

    async def head(self) -> None:
        """Wait for the head. Raises Broken."""
        while not self.status:
            if self._failure is not None:
                raise self._failure
            await self._wait()

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("an answer has one reader")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiter = None

    # -- what the connection says ------------------------------------------------------------------

    @property
    def _over(self) -> bool:
        return self._ended or self._failure is not None

    @property
    def waiting(self) -> int:
        """Bytes of the body that wait unread."""
        return len(self._waiting)

    def arrived(self, body: bytes) -> None:
        """A piece of the body."""
        self._waiting += body

    def ended(self, failure: Broken | None) -> None:
        """Nothing more comes: the body is whole, or it broke."""
        self._ended = failure is None
        self._failure = failure

    def wake(self) -> None:
        """Let the reader look again."""
        if self.on_wake is not None:
            self.on_wake()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

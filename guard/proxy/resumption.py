"""The streams of a handshake-era session, which a client may take up again where they broke off.

Each event has an id, `STREAM-EVENT`, two numbers of this session. A GET with `Last-Event-ID` gets what
came after that event on that very stream, and what is still to come (2025-06-18 and 2025-11-25,
Streamable HTTP, "Resumability and Redelivery"). Only so much is kept, and only in memory.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Final

from guard.proxy import sse
from guard.proxy.endings import Flight
from guard.proxy.exchange import Exchange

PRIMING: Final = frozenset({"2025-11-25"})
"""Revisions whose streams begin with an event that has an id and no data: older clients cannot read it."""
KEPT_BYTES: Final = 4 * 1024 * 1024
"""Bytes of events that one session keeps; what is larger by itself is not kept."""
KEPT_EVENTS: Final = 1024
"""Events that one stream keeps."""
KEPT_STREAMS: Final = 64
"""Streams that one session keeps."""
KEPT_SECONDS: Final = 300.0
"""How long a stream is kept after its end."""
MAX_RETRY: Final = 60_000
_ID: Final = re.compile(r"([1-9][0-9]{0,9})-(0|[1-9][0-9]{0,9})")


class Streams:
    """The streams of one session.

    Args:
        clock: seconds, only forward.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.bytes = 0
        self._streams: dict[int, Stream] = {}
        self._number = 0

    def find(self, id_: str) -> tuple[Stream, int] | None:
        """The stream that an event belongs to, and the event's number; None if it is not kept."""
        found = _ID.fullmatch(id_)
        stream = self._streams.get(int(found[1])) if found else None
        if found is None or stream is None or int(found[2]) >= stream.next:
            return None
        return stream, int(found[2])

    def keep(self, stream: Stream) -> int:
        """Keep a stream that begins. Returns: its number."""
        while len(self._streams) >= KEPT_STREAMS:
            self.drop(next((one for one in self._streams.values() if one.ended), None) or self._oldest())
        self._number += 1
        self._streams[self._number] = stream
        return self._number

    def drop(self, stream: Stream) -> None:
        """Keep nothing of a stream any more."""
        if self._streams.pop(stream.number, None) is not None:
            stream.forget()

    def make_room(self, size: int, own: Stream) -> None:
        """Let go of the oldest events, those of ended streams first."""
        while self._streams and self.bytes + size > KEPT_BYTES:
            others = [one for one in self._streams.values() if one is not own]
            ended = next((one for one in others if one.ended), None)
            if ended is not None:
                self.drop(ended)
            elif not own.shorten() and not any(one.shorten() for one in others):
                return

    def sweep(self) -> None:
        """Let go of streams that ended long ago."""
        since = self.clock() - KEPT_SECONDS
        for stream in [*self._streams.values()]:
            if stream.ended and stream.ended_at <= since:
                self.drop(stream)

    def each(self) -> list[Stream]:
        """Every stream that is kept."""
        return [*self._streams.values()]

    def withhold(self) -> None:
        """Give nobody anything of what was kept. What answers a request ends as that does."""
        for stream in self.each():
            self.drop(stream)

    def close(self) -> None:
        """End them all."""
        for stream in [*self._streams.values()]:
            stream.hang_up()
            self.drop(stream)

    def _oldest(self) -> Stream:
        return next(iter(self._streams.values()))


class Stream:
    """One stream: what was told on it, and the exchange that carries it now.

    Args:
        streams: the session's.
        exchange: the request that it answers.
        primes: whether it begins with an event without data.

    Attributes:
        number: its own, 0 before it began.
        next: the number of its next event.
        ended: whether the last event was told.
        allowed: asked before anything is sent; None where that is nobody's question.
        flight: of the request that it answers; None where it answers none.
    """

    def __init__(self, streams: Streams, exchange: Exchange, *, primes: bool) -> None:
        self.number = self.next = 0
        self.ended = False
        self.ended_at = 0.0
        self.allowed: Callable[[], bool] | None = None
        self.exchange: Exchange | None = exchange
        self.flight: Flight | None = None
        self._streams = streams
        self._primes = primes
        self._kept: deque[tuple[int, bytes]] = deque()
        self._dropped = False

    @property
    def begun(self) -> bool:
        """Whether it is a stream at all: until something is told its answer may still be plain JSON."""
        return self.number > 0

    @property
    def live(self) -> bool:
        """Whether somebody listens."""
        return self.exchange is not None and not self.exchange.gone and not self.exchange.finished

    def begin(self) -> None:
        """Begin it, if anybody could come back to it."""
        if self.begun or not self.live:
            return
        self.number = self._streams.keep(self)
        self._put(b"") if self._primes else self._send(b"")

    def tell(self, line: bytes) -> None:
        """Send one message, or keep it until somebody comes back."""
        self.begin()
        if self.begun and not self.ended:
            self._put(line)

    def show_life(self) -> None:
        """Send a sign of life."""
        self.begin()
        self._send(sse.KEEP_ALIVE)

    def away(self, milliseconds: int) -> None:
        """The server closed its own stream for so long: so does Guard, and the client comes back."""
        if not self._primes or self.ended:
            return
        self.begin()
        if self.live and self.exchange is not None:
            self.exchange.end(b"retry: %d\r\n\r\n" % min(max(milliseconds, 0), MAX_RETRY))
            self.exchange = None

    def finish(self, line: bytes | None) -> None:
        """Tell the last message, and end."""
        if line is not None:
            self.tell(line)
        self.ended, self.ended_at = True, self._streams.clock()
        if self.exchange is not None:
            self.exchange.end()
            self.exchange = None

    def hang_up(self) -> None:
        """End what carries it."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.end()

    def resume(self, exchange: Exchange, after: int) -> None:
        """Go on here: what came after that event, then what is still to come."""
        self.hang_up()
        self.exchange = exchange
        missed = b"".join(event for number, event in self._kept if number > after)
        if self.ended:
            self.exchange = None
            exchange.end(missed)
        else:
            exchange.send(missed)

    def shorten(self) -> bool:
        """Let go of its oldest event. Returns whether there was one."""
        if not self._kept:
            return False
        self._streams.bytes -= len(self._kept.popleft()[1])
        return True

    def clear(self) -> None:
        """Let go of all of them."""
        while self.shorten():
            pass

    def forget(self) -> None:
        """Let go of all of them, and keep no other."""
        self._dropped = True
        self.clear()

    def _put(self, line: bytes) -> None:
        event = sse.event(line, b"%d-%d" % (self.number, self.next))
        if len(event) <= KEPT_BYTES and not self._dropped:
            self._streams.make_room(len(event), self)
            if len(self._kept) >= KEPT_EVENTS:
                self.shorten()
            self._kept.append((self.next, event))
            self._streams.bytes += len(event)
        self.next += 1
        self._send(event)

    def _send(self, events: bytes) -> None:
        if self.exchange is None or not self.live:
            return
        if self.allowed is not None and not self.allowed():
            self.hang_up()
            return
        self.exchange.send(events)

"""Handshake-era sessions over HTTP, each bound to one credential; and conversations without an id.

A session id is 128 random bits, and still opens nothing but with the credential that began it: for
everybody else it does not exist. Another key of the same principal may stand for less, while what is done
in a session is authorized and recorded with the one that began it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from guard.core.canonical import sha256
from guard.core.errors import Reason
from guard.core.model import Call, Conversation, Principal
from guard.proxy.binding import random_id
from guard.proxy.resumption import Stream, Streams
from guard.proxy.server import Session

QUIET_SECONDS: Final = 1800.0
"""A principal's calls without a conversation id belong together until it was quiet so long."""
SWEEP_SECONDS: Final = 30.0

_REQUEST: Final = b'{"jsonrpc":"2.0","id":'
"""How Guard writes a request."""
_Key = tuple[str, str, str]


@dataclass(slots=True, eq=False)
class Held:
    """A session as it is held.

    Attributes:
        owner: the principal's key.
        credential: of the principal, that it was begun with.
        session: what answers.
        streams: what its client can take up again.
        listening: the stream for what belongs to no request, None before the first one.
        used: seconds, of a clock that only goes forward.
        drop: ends it, and holds it no longer.
    """

    id: str
    owner: _Key
    credential: str
    session: Session
    streams: Streams = field(repr=False)
    listening: Stream | None = field(default=None, repr=False)
    used: float = 0.0
    drop: Callable[[], None] = field(default=lambda: None, repr=False)

    def notify(self, line: bytes) -> bool:
        """Send a message that belongs to no request. Returns whether it was sent, or is kept.

        A request is not kept: a server waits for its answer, and another stream may be there for it.
        """
        stream = self.listening
        if stream is None or not (stream.live or not line.startswith(_REQUEST)):
            return False
        stream.tell(line)
        return True

    @property
    def listens(self) -> bool:
        """Whether its client listens."""
        return self.listening is not None and self.listening.live

    def close(self) -> None:
        """End the session: what is under way is called off."""
        self.session.close()
        self.hang_up()
        self.streams.close()

    def bar(self, *, for_good: bool) -> None:
        """Nobody hears anything here any more, or takes anything up again."""
        self.hang_up()
        self.streams.withhold()
        if for_good:
            self.drop()

    def review(self, judge: Callable[[Call], Reason | None]) -> None:
        """Keep nothing of a call that may be no more."""
        for stream in self.streams.each():
            flight = stream.flight if stream.ended else None  # else its own request ends it
            if flight is None or flight.call is None or flight.barred is not None:
                continue
            if judge(flight.call) is not None:
                self.streams.drop(stream)

    def hang_up(self) -> None:
        """End the stream for what belongs to no request."""
        stream, self.listening = self.listening, None
        if stream is not None:
            stream.finish(None)
            self.streams.drop(stream)


class Sessions:
    """Every session and every inferred conversation.

    Args:
        most: sessions that one principal may have; the idlest of its own makes room for another.
        idle_seconds: how long an unused one is held.
        clock: seconds, only forward.

    Attributes:
        suffix: how each session's id ends.
    """

    suffix = ""

    def __init__(self, most: int, idle_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.idle_seconds = idle_seconds
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._inferred: dict[_Key, tuple[Conversation, float]] = {}
        self._swept = clock()

    def __len__(self) -> int:
        """How many sessions there are."""
        return len(self._held)

    def begin(self, id_: str, principal: Principal, session: Session) -> Held:
        """Hold a new session."""
        self._sweep()
        own = [held for held in self._held.values() if held.owner == principal.key]
        for idlest in sorted(own, key=lambda held: held.used)[: max(0, len(own) + 1 - self.most)]:
            self._drop(idlest)
        held = Held(
            id_, principal.key, principal.credential, session, Streams(self._clock), used=self._clock()
        )
        held.drop = lambda: self._drop(held)
        session.owner, session.held = principal.key, held
        session.attach(held.notify)
        self._held[id_] = held
        return held

    def find(self, id_: str, principal: Principal) -> Held | None:
        """The credential's session of that id; None for anybody else's as for none."""
        self._sweep()
        held = self._held.get(id_)
        if held is None or (held.owner, held.credential) != (principal.key, principal.credential):
            return None
        held.used = self._clock()
        return held

    def end(self, held: Held) -> None:
        """End a session."""
        self._drop(held)

    def close(self) -> None:
        """End them all."""
        for held in [*self._held.values()]:
            self._drop(held)

    def each(self) -> list[Held]:
        """Every session."""
        return [*self._held.values()]

    def inferred(self, principal: Principal) -> Conversation:
        """The conversation of a principal's calls that name none."""
        now = self._clock()
        self._sweep()
        found = self._inferred.get(principal.key)
        conversation = found[0] if found and now - found[1] < QUIET_SECONDS else None
        conversation = conversation or Conversation(random_id(), "inferred")
        self._inferred[principal.key] = (conversation, now)
        return conversation

    def _drop(self, held: Held) -> None:
        if self._held.pop(held.id, None) is not None:
            held.close()

    def _sweep(self) -> None:
        now = self._clock()
        if now - self._swept < SWEEP_SECONDS:
            return
        self._swept = now
        for held in [*self._held.values()]:
            held.streams.sweep()
            busy = held.listens or held.session.in_flight
            if not busy and now - held.used >= self.idle_seconds:
                self._drop(held)
        self._inferred = {
            key: found for key, found in self._inferred.items() if now - found[1] < QUIET_SECONDS
        }


def new_session(suffix: str = "") -> tuple[str, Conversation]:
    """A session's id, and the conversation that it is: the id itself is never written down."""
    id_ = random_id() + suffix
    return id_, Conversation(f"session-{sha256(id_.encode())[:22]}", "session")

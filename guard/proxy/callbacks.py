"""What servers ask of a handshake-era client: sampling, elicitation, roots. Asked once, answered once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from guard.core.errors import printable
from guard.proxy import wire
from guard.proxy.asker import Answer, Tell
from guard.proxy.endings import Flight
from guard.proxy.replies import fragments, read_object, value_of
from guard.proxy.wire import Response

MAX_ASKED: Final = 64
"""Requests that one client may have unanswered; more are refused, so that nothing grows."""
ANSWER_SECONDS: Final = 600.0
"""How long a client may take: a person may have to answer."""
_PREFIX: Final = "guard-"


class Asked:
    """A request of a server's, to be answered once.

    Args:
        answer: takes the answer.

    Attributes:
        call_off: set by whoever passed it on; takes the params of the server's `notifications/cancelled`.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.call_off: Callable[[Mapping[str, Any]], None] | None = None

    def __call__(self, value: Any, is_error: bool, /) -> None:  # noqa: FBT001 - as JSON-RPC has it
        """Answer it."""
        self._answer(value, is_error)


@dataclass(frozen=True, slots=True)
class _Waiting:
    answer: Answer
    flight: Flight | None
    timer: asyncio.TimerHandle
    token: wire.Id | None
    tell: Tell


class Callbacks:
    """The requests that servers have to one client.

    Args:
        send: sends the client a line on the stream of that request, or wherever else it listens; says
            whether there was a way.
    """

    def __init__(self, send: Callable[[bytes, Flight | None], bool]) -> None:
        self._send = send
        self._next = 0
        self._waiting: dict[str, _Waiting] = {}

    def ask(
        self,
        method: str,
        params: bytes,
        answer: Answer,
        flight: Flight | None,
        tell: Tell,
    ) -> None:
        """Pass a request on under an id of Guard's own.

        Args:
            tell: takes the client's progress notification for it.

        Raises:
            Garbage: the params are not an object that can be written.
        """
        if len(self._waiting) >= MAX_ASKED:
            answer({"code": wire.OVERLOADED, "message": "too many requests of servers are unanswered"}, True)  # noqa: FBT003
            return
        members = fragments(params)
        meta = value_of(read_object(params).get("_meta", b"{}"))
        self._next += 1
        id_ = f"{_PREFIX}{self._next}"
        token = meta.get("progressToken") if isinstance(meta, dict) else None
        if token is not None:
            members["_meta"] = {**meta, "progressToken": id_}
        timer = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._give_up, id_)
        self._waiting[id_] = _Waiting(answer, flight, timer, token, tell)
        if isinstance(answer, Asked):
            answer.call_off = partial(self._call_off, id_)
        if not self._send(wire.request(id_, method, members), flight):
            self._end(
                id_, {"code": wire.INTERNAL_ERROR, "message": "the client cannot be asked now"}, is_error=True
            )

    def hear(self, response: Response) -> None:
        """The client's answer. One to nothing is nobody's."""
        if isinstance(response.id, str):
            self._end(response.id, response.value, is_error=response.is_error)

    def progress(self, params: Mapping[str, object]) -> None:
        """The client's progress notification."""
        waiting = self._waiting.get(str(params.get("progressToken")))
        if waiting is not None and waiting.token is not None:
            waiting.tell("notifications/progress", {**params, "progressToken": waiting.token})

    def bar(self, flight: Flight | None = None) -> None:
        """The client may not be asked any more: not for this request, or for none at all.

        Of what came out of the blue nobody knows for which request it is: it goes with any.
        """
        for id_, waiting in [*self._waiting.items()]:
            if flight is None or waiting.flight is flight or waiting.flight is None:
                what = "the client may not be asked any more"
                self._end(id_, {"code": wire.DENIED, "message": what}, is_error=True)
                self._send(wire.notification("notifications/cancelled", {"requestId": id_}), waiting.flight)

    def close(self) -> None:
        """The client is gone: every server that waits is told."""
        for id_ in [*self._waiting]:
            self._end(id_, {"code": wire.INTERNAL_ERROR, "message": "the client is gone"}, is_error=True)

    def _call_off(self, id_: str, params: Mapping[str, Any]) -> None:
        """The server waits no longer: the client is told, under the id that it knows."""
        waiting = self._waiting.pop(id_, None)
        if waiting is not None:
            waiting.timer.cancel()
            self._send(
                wire.notification("notifications/cancelled", {**params, "requestId": id_}), waiting.flight
            )

    def _give_up(self, id_: str) -> None:
        what = f"the client did not answer within {ANSWER_SECONDS:g} seconds"
        self._end(id_, {"code": wire.INTERNAL_ERROR, "message": printable(what)}, is_error=True)
        self._send(wire.notification("notifications/cancelled", {"requestId": id_}), None)

    def _end(self, id_: str, value: object, *, is_error: bool) -> None:
        waiting = self._waiting.pop(id_, None)
        if waiting is not None:
            waiting.timer.cancel()
            waiting.answer(value, is_error)

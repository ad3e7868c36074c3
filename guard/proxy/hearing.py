"""What a tool server says, and whom it concerns: a request, a subscription, or the client behind it."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec
import orjson

from guard.core.errors import Reason, printable
from guard.proxy import eras, wire
from guard.proxy.asker import ASKED, SAID, Asker
from guard.proxy.callbacks import Asked
from guard.proxy.endings import Ending, Flight, Returned, Tells, Unknown
from guard.proxy.replies import (
    Garbage,
    Line,
    fragments,
    read_line,
    read_object,
    value_of,
    without_own_meta,
)

ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_COMPLETE: Final = b'"complete"'
_INPUT: Final = b'"input_required"'


class Hearing(ABC):
    """The half of an upstream that listens.

    Args:
        where: what to call the server in messages: its command or its URL, printable.
        on_list_changed: called when it says that its tools changed.

    Attributes:
        name: the operator's name for the server.
        version: the revision of MCP that was agreed on, "" before that.
        asker: the handshake-era client that it is spoken to for; None where there are many, or none.
        methods: what the operator lets through to it beside the methods of MCP.
        shared: whether several principals are spoken for, so that it knows of no client.
    """

    def __init__(self, where: str, on_list_changed: Callable[[], None]) -> None:
        self.where = where
        self.name = ""
        self.version = ""
        self.asker: Asker | None = None
        self.methods: frozenset[str] = frozenset()
        self.shared = False
        self._on_list_changed = on_list_changed
        self._flights: dict[int, Flight] = {}
        self._ears: Flight | None = None
        self._asked: dict[wire.Id, Asked] = {}
        self._garbled = 0

    @property
    def modern(self) -> bool:
        """Whether the server speaks 2026-07-28."""
        return self.version in eras.MODERN

    @abstractmethod
    def _notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification, if it can be sent."""

    @abstractmethod
    def _answer(self, line: bytes) -> None:
        """Send the answer to a request of the server's, if it can be sent."""

    def _hear_bytes(self, data: bytes, only: int | None = None) -> None:
        """One message of the server's. With `only`, an answer to any other request is nobody's."""
        try:
            line = read_line(data)
            if only is None or line.method is not msgspec.UNSET or line.id == only:
                self._hear(line, only)
        except (Garbage, TypeError, ValueError) as garbage:
            self._garbled += 1
            if not self._garbled & (self._garbled - 1):  # ever more seldom: nobody fills a log at will
                what = f"{printable(str(garbage))}, {self._garbled} by now"
                print(f"guard: {self.where} sent no message: {what}", file=sys.stderr)  # noqa: T201

    def _hear(self, line: Line, only: int | None) -> None:
        if line.method is not msgspec.UNSET:
            self._hear_method(line, line.method, self._flights.get(only) if only else None)
            return
        flight = self._flights.get(line.id) if isinstance(line.id, int) else None
        if flight is None or flight.ending is None or flight.ending.done():
            return  # an answer to nothing: late, repeated, or made up
        try:
            flight.end(self._ending(bytes(line.result), bytes(line.error), flight))
        except Garbage:
            flight.end(Unknown(Reason.UNEXPECTED, executed=True))
            raise

    def _hear_method(self, line: Line, method: str, flight: Flight | None) -> None:
        if line.id is not msgspec.UNSET and line.id is not None:
            self._hear_request(line.id, method, bytes(line.params), flight)
        elif method == "notifications/progress":
            self._hear_progress(read_object(without_own_meta(bytes(line.params))))
        elif method == "notifications/tools/list_changed":
            self._on_list_changed()
        elif method == "notifications/cancelled":
            self._hear_called_off(without_own_meta(bytes(line.params)), flight)
        elif method in SAID or method == ACKNOWLEDGED or method in self.methods:
            self._hear_note(method, without_own_meta(bytes(line.params) or b"{}"), flight)

    def _hear_note(self, method: str, params: bytes, flight: Flight | None) -> None:
        """Whom it concerns: a subscription, the request that it came with, or the asker."""
        if self.modern:
            flight = self._subscribed(params) or flight or self._logging()
            if flight is not None and flight.on_note is not None:
                note = partial(_note, flight, method, params)
                if method == ACKNOWLEDGED:  # Guard asked, and it is Guard that hears it
                    note()
                else:
                    self._tell(flight.telling, params, flight, note)
        elif (asker := self.asker) is not None:
            self._tell(asker.telling, params, flight, lambda: asker.told(method, params, flight))

    def _tell(
        self,
        telling: Tells | None,
        params: bytes,
        flight: Flight | None,
        send: Callable[[], object],
        drop: Callable[[], object] = lambda: None,
    ) -> None:
        """Send what the server says to a client, once it is remembered where it must be."""
        if telling is None:
            send()
        else:
            telling.after(self.name, params, flight.call if flight is not None else None, send, drop)

    def _subscribed(self, params: bytes) -> Flight | None:
        if b"subscriptionId" not in params:
            return None
        meta = value_of(read_object(params).get("_meta", b"{}"))
        id_ = meta.get(eras.SUBSCRIPTION) if isinstance(meta, dict) else None
        return self._flights.get(id_) if type(id_) is int else None

    def _logging(self) -> Flight | None:
        """On a pipe a log message names no request (2026-07-28, stdio): the oldest that hears any is it.

        Where principals share the pipe, or keys of one that stand for more and for less, it may be about
        another's request, so nobody hears it.
        """
        calls = (flight.call for flight in self._flights.values())
        if self.shared or len({call.principal.credential for call in calls if call is not None}) > 1:
            return None
        heard = (f for f in self._flights.values() if f is not self._ears and f.on_note is not None)
        return next(heard, None)

    def _hear_request(self, id_: wire.Id, method: str, params: bytes, flight: Flight | None) -> None:
        """Answer `ping`; pass on what the asker said it can do; refuse the rest."""
        asker, needed = self.asker, ASKED.get(method, "")
        if method == "ping":
            self._answer(wire.result(id_, {}))
        elif self.modern or asker is None or not isinstance(asker.capabilities.get(needed), dict):
            text = "the client cannot be asked this through Guard"
            self._answer(wire.error(id_, wire.METHOD_NOT_FOUND, text))
        else:
            self._pass_on(asker, id_, method, params, flight)

    def _pass_on(self, asker: Asker, id_: wire.Id, method: str, params: bytes, flight: Flight | None) -> None:
        def answer(value: Any, is_error: bool) -> None:  # noqa: FBT001 - as JSON-RPC has it
            if self._asked.get(id_) is asked:
                del self._asked[id_]
            self._answer((wire.failure if is_error else wire.result)(id_, value))

        def ask() -> None:
            try:
                asker.asked(method, shown, asked, self._notify, flight)
            except Garbage:
                refuse()
                raise

        def refuse() -> None:
            asked({"code": wire.INVALID_PARAMS, "message": "the params cannot be passed on"}, True)  # noqa: FBT003

        self._asked[id_] = asked = Asked(answer)
        shown = without_own_meta(params or b"{}")
        self._tell(asker.telling, shown, flight, ask, refuse)

    def _hear_called_off(self, params: bytes, flight: Flight | None) -> None:
        """The server no longer waits for an answer of its client's. It may say why: see `_tell`."""
        id_ = value_of(read_object(params).get("requestId", b"null"))
        asked = self._asked.pop(id_, None) if type(id_) in {int, str} else None
        if asked is None:
            return

        def call_off(said: Mapping[str, Any]) -> None:
            if asked.call_off is not None:
                asked.call_off(said)

        why = fragments(params)
        telling = None if self.asker is None else self.asker.telling
        self._tell(telling, params, flight, partial(call_off, why), partial(call_off, {}))

    def _hear_progress(self, params: Mapping[str, msgspec.Raw]) -> None:
        token = value_of(params.get("progressToken", b"null"))
        flight = self._flights.get(token) if type(token) is int else None
        if flight is not None and flight.on_progress is not None and not flight.cancelled:
            # As bytes: a number too large to be read must not break the pipe that it came by.
            shown = {name: orjson.Fragment(bytes(value)) for name, value in params.items()}
            self._tell(flight.telling, orjson.dumps(shown), flight, partial(_progress, flight, shown))

    def _ending(self, result: bytes, failure: bytes, flight: Flight) -> Ending:
        """What the server answered with. Raises Garbage."""
        if bool(result) == bool(failure):
            raise Garbage("neither a result nor an error, or both")
        part = without_own_meta(result or failure)
        if not part.startswith(b"{"):
            raise Garbage("not an object")
        if result and (b"resultType" in part or b"\\u" in part):
            kind = bytes(read_object(part).get("resultType", _COMPLETE))
            if kind != _COMPLETE and not (kind == _INPUT and self.modern and flight.rounds):
                # What is of a kind that Guard does not know is not passed on.
                return Unknown(Reason.UNEXPECTED, executed=True)
        return Returned(part, is_error=bool(failure))


def _note(flight: Flight, method: str, params: bytes) -> None:
    if flight.on_note is not None and not flight.cancelled:
        flight.on_note(method, params)


def _progress(flight: Flight, params: dict[str, Any]) -> None:
    if flight.on_progress is not None and not flight.cancelled:
        flight.on_progress(params)

"""What can become of a call that was granted, and how its client calls it off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from guard.core.errors import Reason
from guard.core.model import Call, Parent


@dataclass(frozen=True, slots=True)
class Returned:
    """The server answered. `raw` is its result, or its error object if `is_error`, as it wrote it."""

    raw: bytes
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing was sent.

    Attributes:
        reason: why.
        integrity: whether it must put the conversation out of use.
    """

    reason: Reason
    integrity: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """It was sent, and nobody knows what became of it, or nobody may be shown.

    Attributes:
        reason: why.
        executed: whether the server is known to have answered.
    """

    reason: Reason
    executed: bool = False


Ending = Returned | Failed | Unknown


class Tells(Protocol):
    """Tells a client what servers say, once it is remembered."""

    def after(
        self,
        server: str,
        raw: bytes,
        call: Call | None,
        send: Callable[[], object],
        drop: Callable[[], object] = ...,
    ) -> None:
        """Call `send` then. See `Telling`."""
        ...

    async def settled(self) -> None:
        """All that was said by now was told, or will never be."""
        ...


@dataclass(slots=True)
class Flight:
    """A request on its way.

    Attributes:
        tell: sends the client a notification that belongs to this request, as a line; None where
            none can be sent.
        headers: of the HTTP request that it came in, names in lower case; None where there are none.
        on_progress: hears the params of each progress notification that the server sends for it.
        on_note: hears what else the server says of it, method and params; None where nobody does.
        on_away: hears that the server closed the stream of its answer for so many milliseconds; None
            where nobody does.
        rounds: whether its client takes a request for input as an answer (2026-07-28, multi round-trip).
        cancelled: whether the client called it off.
        ending: resolved once, by whoever knows first.
        parent: the artifact that came with it, once it was looked at: it can be used up only once.
        call: the call that it is, once it was granted; None before that, and for what is no call.
        parked: what waits for it where nothing was sent for it yet and waiting is all that it does.
        barred: why it may go on no longer, None where it may.
        on_bar: called once when it is barred.
        telling: tells its client what the server says meanwhile, once it is remembered; None where that is
            told at once.
    """

    tell: Callable[[bytes], object] | None = field(default=None, repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    on_progress: Callable[[dict[str, Any]], None] | None = None
    on_note: Callable[[str, bytes], None] | None = field(default=None, repr=False)
    on_away: Callable[[int], None] | None = field(default=None, repr=False)
    rounds: bool = False
    cancelled: bool = False
    ending: asyncio.Future[Ending] | None = field(default=None, repr=False)
    parent: Parent | None = None
    call: Call | None = field(default=None, repr=False)
    parked: asyncio.Task[Any] | None = field(default=None, repr=False)
    barred: Reason | None = None
    on_bar: Callable[[], None] | None = field(default=None, repr=False)
    telling: Tells | None = field(default=None, repr=False)

    def cancel(self) -> None:
        """The client no longer waits. Before dispatch nothing is sent, after it nobody knows."""
        self.cancelled = True
        self.end(Unknown(Reason.CANCELLED))

    def end(self, ending: Ending) -> None:
        """Say what became of it, if nobody has yet and it was sent."""
        if self.ending is not None and not self.ending.done():
            self.ending.set_result(ending)

    def bar(self, reason: Reason) -> None:
        """It is authorized no longer: its client hears nothing more of it, and is shown nothing of it."""
        if self.barred is not None:
            return
        self.barred = reason
        self.tell = self.on_progress = self.on_note = self.on_away = None
        self.end(Unknown(reason))
        if self.parked is not None and self.parked is not asyncio.current_task():
            self.parked.cancel()
        if self.on_bar is not None:
            self.on_bar()

    def was_barred(self) -> bool:
        """Asked where a wait was cancelled: whether that was because it was barred, and for nothing else."""
        task, self.parked = self.parked, None
        return self.barred is not None and task is not None and task.uncancel() == 0

"""What servers say outside of answers to calls: remembered first, told then.

Logs, progress, notifications, requests of servers, lists, completions. Where the policy keeps no memory,
nothing here costs anything. What cannot be remembered is not told.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import orjson

from guard.core.errors import Reason, Refused
from guard.core.model import Call, Conversation, Principal, Tool
from guard.lineage.store import Place, Recorded, Remember, Transaction
from guard.policy.rules import Policy
from guard.proxy.house import Generation, House
from guard.proxy.listing import Behind
from guard.proxy.remembering import listed, memory_of, said

MAX_WAITING: Final = 1_024
"""Messages that wait to be remembered, for one client; more are not told, so that nothing grows."""
MAX_WAITING_BYTES: Final = 16 * 1024 * 1024


class Teller(Protocol):
    """Whoever tells a client what servers say."""

    house: House

    @property
    def home(self) -> Conversation:
        """Where belongs what names no conversation."""
        ...

    def identify(self) -> Principal:
        """Who the client is. Raises Refused."""
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """One item of a list: whose it is, and the bytes of it."""

    server: str
    name: str
    kind: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class _Saying:
    """One message of a server's, and what is done with it. See `Telling.after`."""

    server: str
    raw: bytes
    call: Call | None
    send: Callable[[], object]
    drop: Callable[[], object]


class Telling:
    """What one client is told.

    Args:
        gate: the world of its calls.
    """

    def __init__(self, gate: Teller) -> None:
        self._gate = gate
        self._last: asyncio.Task[None] | None = None
        self._waiting = self._bytes = 0

    def after(
        self,
        server: str,
        raw: bytes,
        call: Call | None,
        send: Callable[[], object],
        drop: Callable[[], object] = lambda: None,
    ) -> None:
        """Send what a server said, once it is remembered; in the order in which it came.

        Args:
            server: who says it, as a source is named.
            raw: the params of the message.
            call: the call that it belongs to, None for none.
            send: sends it.
            drop: called instead where it cannot be remembered, or too much waits for that.
        """
        policy = self._gate.house.generation.policy
        if not _remembers(policy):
            send()
            return
        if self._waiting >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES:
            drop()
            return
        self._waiting += 1
        self._bytes += len(raw)
        before = None if self._last is None or self._last.done() else self._last
        self._last = asyncio.ensure_future(self._send(before, _Saying(server, raw, call, send, drop)))

    async def settled(self) -> None:
        """All that was said by now was told, or will never be."""
        if self._last is not None and not self._last.done():
            await asyncio.wait([self._last])

    async def _send(self, before: asyncio.Task[None] | None, saying: _Saying) -> None:
        try:
            await self._remember(before, saying)
        finally:
            self._waiting -= 1
            self._bytes -= len(saying.raw)

    async def _remember(self, before: asyncio.Task[None] | None, saying: _Saying) -> None:
        if before is not None:
            await asyncio.wait([before])
        house, call = self._gate.house, saying.call
        try:
            if call is None:
                principal, conversation = self._gate.identify(), self._gate.home
            else:
                principal, conversation = call.principal, call.conversation
            memory = memory_of(house.generation.policy, principal, conversation, house.salt)
            if memory is not None and (keep := said(memory, saying.server, saying.raw)) is not None:
                await _store(house, principal, keep)
        except Refused as refusal:
            print(f"guard: what {saying.server} said is not told: {refusal.reason}", file=sys.stderr)  # noqa: T201
            saying.drop()
            return
        saying.send()


async def shown(gate: Teller, items: Iterable[Shown], *, pinned: bool) -> None:
    """Remember the items of a list before it is shown.

    Args:
        gate: whose client it is shown to.
        items: what is in it.
        pinned: whether an operator accepted their wording: then words alone are no appearance.

    Raises:
        Refused: it cannot be remembered.
    """
    house = gate.house
    policy = house.generation.policy
    if not _remembers(policy):
        return
    principal = gate.identify()
    if (memory := memory_of(policy, principal, gate.home, house.salt)) is None:
        return
    known = [*items]
    about = b"\n".join(b"%s\0%s\0%s" % (one.server.encode(), one.kind.encode(), one.raw) for one in known)
    text = memory.text(about, house.clock())
    if text in house.heard:
        return
    for one in known:
        trust = policy.trust(Tool(one.server, one.name, kind=one.kind))[0] if one.name else "untrusted"
        name = f"{one.server}/{one.name}" if one.name else one.server
        keep = listed(memory, one.kind, name, one.raw, trust, pinned=pinned)
        if keep is not None:
            await _store(house, principal, keep)
    house.note_heard(text)


def definitions(generation: Generation, tools: Mapping[str, orjson.Fragment]) -> Iterable[Shown]:
    """Definitions of tools by the client's name for the tool, as items of a list; and who serves them."""
    if generation.only is not None:
        yield Shown(generation.only.about.name, "", "server", orjson.dumps(generation.only.info))
    for name, definition in tools.items():
        if (found := generation.find(name)) is not None:
            yield Shown(found[0].about.name, found[1], "tool", orjson.dumps(definition))


def instructions(found: Behind) -> Iterable[Shown]:
    """What servers say of themselves, as items of a list."""
    for text in found.said.values():
        yield Shown("*", "", "server", text.encode("utf-8", "replace"))
    for upstream in found.upstreams:
        about = [upstream.info, upstream.capabilities.get("extensions")]
        yield Shown(upstream.name, "", "server", orjson.dumps(about))


async def _store(house: House, principal: Principal, keep: Remember) -> None:
    made = Transaction(Place(principal.tenant), None, house.clock(), effects=(keep,))
    if not isinstance(await house.log.commit(made), Recorded):
        raise Refused(Reason.STORE_UNAVAILABLE, "what a server said could not be remembered")


def _remembers(policy: Policy) -> bool:
    return any(layer.origins for layer in policy.layers)

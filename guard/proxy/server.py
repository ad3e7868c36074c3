"""What a client talks to: every method that Guard answers, and the one that it authorizes.

A method that is not in the table is not understood, and what is not understood does not pass.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Final

from guard import __version__
from guard.core.errors import Reason, Refused, printable
from guard.policy.decide import visible
from guard.proxy import eras, wire
from guard.proxy.flow import authorize
from guard.proxy.upstream import EXTENSION
from guard.proxy.wire import Malformed, Notification, Request
from guard.proxy.world import Gate

MAX_IN_FLIGHT: Final = 1024
CALLED_OFF_SECONDS: Final = 2.0
OWN_INFO: Final = {"name": "guard-mcp", "version": __version__}
_EXTENSIONS: Final[dict[str, Any]] = {EXTENSION: {}}
_NOBODY: Final = frozenset({Reason.NO_CREDENTIAL, Reason.INVALID_KEY, Reason.EXPIRED_KEY, Reason.REVOKED_KEY})


class Session:
    """One client's connection.

    Args:
        gate: the world of the server behind.
        write: sends one line to the client.
        on_busy: told True when too much is in flight, False when there is room again.
    """

    def __init__(
        self,
        gate: Gate,
        write: Callable[[bytes], None],
        on_busy: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._gate = gate
        self._write = write
        self._on_busy = on_busy
        self._version = ""
        self._in_flight: dict[wire.Id, Request] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._shown: list[str] | None = None
        self._methods: dict[str, Callable[[Request], Awaitable[bytes | None]]] = {
            "initialize": self._initialize,
            "ping": self._ping,
            "server/discover": self._discover,
            "tools/list": self._list,
            wire.CALL: self._call,
        }

    def receive(self, line: bytes) -> None:
        """Take one line from the client."""
        try:
            message = wire.read_message(line)
            if isinstance(message, Request):
                self._admit(message)
            elif isinstance(message, Notification):
                self._hear(message)
        except Malformed as fault:
            self._write(wire.error(fault.id, fault.code, fault.message, fault.data))

    def refuse_line(self) -> None:
        """A line was longer than a message may be."""
        self._write(wire.error(None, wire.INVALID_REQUEST, "the message is too large"))

    async def drain(self, seconds: float) -> None:
        """Let what is in flight come home, at most so long; then call it off."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for message in list(self._in_flight.values()):
            message.flight.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CALLED_OFF_SECONDS)
        for task in self._tasks:  # still asking the server something; an open grant ends at the next start
            task.cancel()

    def tools_changed(self) -> None:
        """The server's tools changed: tell a handshake-era client, if what it may see did."""
        self._gate.catalog.forget()
        if self._version and self._shown is not None:
            self._start(self._tell_if_changed())

    # -- messages ------------------------------------------------------------------------------

    def _admit(self, message: Request) -> None:
        if message.id in self._in_flight:
            raise Malformed(wire.INVALID_REQUEST, "this id is in flight already", message.id)
        handler = self._methods.get(message.method)
        opened = message.modern or self._version or message.method in {"initialize", "ping"}
        if not opened:
            params = {**message.params, "_meta": dict(message.meta)}
            wire.require_envelope({"method": message.method, "params": params, "id": message.id})
        modern_only, old_only = message.method == "server/discover", message.method in {"initialize", "ping"}
        if handler is None or (modern_only and not message.modern) or (old_only and message.modern):
            name = printable(message.method)
            raise Malformed(wire.METHOD_NOT_FOUND, f"method not found: {name}", message.id)
        if message.progress_token is not None:
            message.flight.on_progress = self._progress_to(message.progress_token)
        self._in_flight[message.id] = message
        if len(self._in_flight) == MAX_IN_FLIGHT:
            self._on_busy(True)  # noqa: FBT003 - the one thing it tells
        self._start(self._answer(message, handler))

    def _hear(self, message: Notification) -> None:
        if message.method == "notifications/cancelled":
            target = message.params.get("requestId")
            waiting = self._in_flight.get(target) if isinstance(target, str | int) else None
            # `True == 1`: a boolean must not call off request 1.
            if waiting is not None and type(waiting.id) is type(target):
                waiting.flight.cancel()

    def _progress_to(self, token: wire.Id) -> Callable[[dict[str, Any]], None]:
        def tell(params: dict[str, Any]) -> None:
            self._write(wire.notification("notifications/progress", {**params, "progressToken": token}))

        return tell

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Request, handler: Callable[[Request], Awaitable[bytes | None]]) -> None:
        try:
            line = await handler(message)
        except Malformed as fault:
            line = wire.error(message.id, fault.code, fault.message, fault.data)
        except Refused as refusal:
            unknown = refusal.reason in _NOBODY
            code = wire.NOT_AUTHENTICATED if unknown else wire.INTERNAL_ERROR
            text = "not authenticated" if unknown else "the tool server cannot be asked"
            line = wire.error(message.id, code, text, {"reason": refusal.reason})
        except Exception:  # noqa: BLE001 - a surprise is an answer too, and never a permit
            traceback.print_exc(file=sys.stderr)
            # A call may have been sent by then: a lost answer must not become a second execution.
            data = {"outcome": "unknown", "retryable": False} if message.method == wire.CALL else None
            line = wire.error(message.id, wire.INTERNAL_ERROR, "Guard failed; see its standard error", data)
        finally:
            self._in_flight.pop(message.id, None)
        if len(self._in_flight) == MAX_IN_FLIGHT - 1:
            self._on_busy(False)  # noqa: FBT003 - the one thing it tells
        if line is not None and not message.flight.cancelled:
            self._write(line)

    # -- methods -------------------------------------------------------------------------------

    async def _call(self, message: Request) -> bytes | None:
        return await authorize(message, self._gate)

    async def _ping(self, message: Request) -> bytes:
        return wire.result(message.id, {})

    async def _initialize(self, message: Request) -> bytes:
        self._gate.identify()
        asked = message.params.get("protocolVersion")
        if not isinstance(asked, str):
            raise Malformed(wire.INVALID_PARAMS, "protocolVersion is not a string", message.id)
        self._version = asked if asked in eras.HANDSHAKE else eras.HANDSHAKE[0]
        capabilities = {"tools": {"listChanged": True}, "extensions": _EXTENSIONS}
        about = {
            "protocolVersion": self._version,
            "capabilities": capabilities,
            "serverInfo": self._info(),
        }
        return wire.result(message.id, about | self._instructions())

    async def _discover(self, message: Request) -> bytes:
        self._gate.identify()
        about = {
            "supportedVersions": list(eras.MODERN),
            "capabilities": {"tools": {}, "extensions": _EXTENSIONS},
            "ttlMs": 0,
            "cacheScope": "private",
        }
        value = wire.stamped(about | self._instructions(), self._info(), modern=True)
        return wire.result(message.id, value)

    async def _list(self, message: Request) -> bytes:
        """The pinned tools that the caller may see; by credential and policy only, in a fixed order."""
        if unknown := message.params.keys() - {"cursor"}:
            name = printable(min(unknown))
            raise Malformed(wire.INVALID_PARAMS, f"params.{name} is not part of tools/list", message.id)
        if message.params.get("cursor") is not None:
            raise Malformed(wire.INVALID_PARAMS, "the list has one page: no such cursor", message.id)
        self._gate.identify()
        self._gate.catalog.forget()
        self._shown = await self._visible()
        tools = [self._gate.catalog.definition(name) for name in self._shown]
        caching = {"ttlMs": 0, "cacheScope": "private"} if message.modern else {}
        value = wire.stamped({"tools": tools, **caching}, self._info(), modern=message.modern)
        return wire.result(message.id, value)

    async def _visible(self) -> list[str]:
        principal = self._gate.identify()
        await self._gate.current()
        return [
            tool.name
            for tool in self._gate.catalog.tools()
            if visible(principal, tool.server, tool.name, tool.declared, self._gate.policy)
        ]

    async def _tell_if_changed(self) -> None:
        before = self._shown
        try:
            self._shown = await self._visible()
        except Refused:
            return
        if self._shown != before:
            self._write(wire.notification("notifications/tools/list_changed", {}))

    def _info(self) -> dict[str, Any]:
        return self._gate.upstream.info or OWN_INFO

    def _instructions(self) -> dict[str, str]:
        text = self._gate.catalog.instructions(self._gate.upstream.instructions)
        return {} if text is None else {"instructions": text}

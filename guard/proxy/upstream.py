"""One tool server behind Guard, whatever carries the messages: eras, artifacts, endings.

Dispatch takes a VerifiedGrant and nothing else. What is sent is the params that were verified,
with `_meta` built anew: the era's envelope, progress, trace context, and the artifact. `process`
and `remote` are the two ways to carry it.
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import orjson

from guard import __version__
from guard.artifact.verify import VerifiedGrant
from guard.core.errors import GuardError, Reason, Refused, printable
from guard.core.model import ARTIFACT_META
from guard.proxy import eras, wire
from guard.proxy.endings import Ending, Failed, Flight, Returned, Unknown
from guard.proxy.replies import Garbage, Line, read_line, read_object, value_of, without_own_meta

CLIENT_INFO: Final = {"name": "guard-mcp", "version": __version__}
EXTENSION: Final = "dev.guard-mcp/authorization"
PROBE_SECONDS: Final = 10.0
LISTEN_SECONDS: Final = 3600.0
LISTEN_AGAIN_SECONDS: Final = 1.0
MAX_PAGES: Final = 100
MAX_TOOLS: Final = 10_000
MAX_IN_FLIGHT: Final = 512
"""Requests that one server may have unanswered; more are refused, so that nothing grows."""
_CAPABILITIES: Final[Mapping[str, Any]] = {"extensions": {EXTENSION: {}}}
_COMPLETE: Final = b'"complete"'


class ServerError(GuardError):
    """The tool server cannot be started, or does not speak MCP."""


class Upstream(ABC):
    """A tool server, spoken to in the era that it speaks.

    Args:
        where: what to call it in messages: its command or its URL, printable.
        timeout: seconds that a request may take.
        on_list_changed: called when the server says that its tools changed.
        on_gone: called once when it cannot be spoken to any more.

    Attributes:
        info: its `serverInfo`.
        instructions: its instructions, None for none.
        version: the revision of MCP that was agreed on, "" before that.
        reachable: whether it could be reached when it was last tried.
    """

    def __init__(
        self,
        where: str,
        *,
        timeout: float = 300.0,
        on_list_changed: Callable[[], None] = lambda: None,
        on_gone: Callable[[], None] = lambda: None,
    ) -> None:
        self.where = where
        self.info: dict[str, Any] = {}
        self.instructions: str | None = None
        self.version = ""
        self.reachable = True
        self._timeout = timeout
        self._on_list_changed = on_list_changed
        self._on_gone = on_gone
        self._flights: dict[int, Flight] = {}
        self._next = 0
        self._silent = False
        self._announces = False
        self._ears: Flight | None = None
        self._listener: asyncio.Task[None] | None = None

    # -- what carries the messages ---------------------------------------------------------------

    @abstractmethod
    async def start(self) -> None:
        """Connect and agree on an era.

        Raises:
            ServerError: it cannot be started or reached, or speaks no version that Guard speaks.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Let go of it. What it did not answer is unknown."""

    @abstractmethod
    async def _send(self, id_: int, method: str, params: Mapping[str, Any], version: str) -> Failed | None:
        """Send one request; its answer ends its flight. A Failed says that nothing was sent."""

    @abstractmethod
    def _notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification, if it can be sent."""

    @abstractmethod
    def _answer(self, line: bytes) -> None:
        """Send the answer to a request of the server's, if it can be sent."""

    @abstractmethod
    def _abandon(self, id_: int, method: str) -> None:
        """Nobody waits for this request any more."""

    @property
    def alive(self) -> bool:
        """Whether an era is agreed on and the server can be spoken to."""
        return self.version != "" and not self._silent

    @property
    def modern(self) -> bool:
        """Whether the server speaks 2026-07-28."""
        return self.version in eras.MODERN

    @property
    def busy(self) -> bool:
        """Whether anybody waits for an answer."""
        return any(flight is not self._ears for flight in self._flights.values())

    # -- agreeing --------------------------------------------------------------------------------

    async def _agree(self) -> None:
        """Probe with `server/discover`; whatever is no modern answer falls back to the handshake."""
        version = eras.MODERN[-1]
        ending = await self._ask("server/discover", {}, version=version, timeout=PROBE_SECONDS)
        found = _object(ending)
        if isinstance(ending, Returned) and ending.is_error:
            data = found.get("data")
            offered = _strings(data.get("supported") if isinstance(data, dict) else None)
            modern_only = offered and not set(offered) & set(eras.HANDSHAKE)
            if found.get("code") == eras.UNSUPPORTED_VERSION and modern_only:
                raise ServerError(f"the tool server speaks only {', '.join(map(printable, offered))}")
        elif version in _strings(found.get("supportedVersions")):
            self._adopt(version, found, found.get("_meta"))
            return
        await self._handshake()

    async def _handshake(self) -> None:
        offer = {
            "protocolVersion": eras.HANDSHAKE[0],
            "capabilities": {},
            "clientInfo": CLIENT_INFO,
        }
        ending = await self._ask("initialize", offer, version="", timeout=self._timeout)
        found = _object(ending)
        version = found.get("protocolVersion")
        if version not in eras.HANDSHAKE:
            raise self._no_handshake()
        self._adopt(version, found, {eras.SERVER_INFO: found.get("serverInfo")})
        self._notify("notifications/initialized", {})

    def _no_handshake(self) -> ServerError:
        return ServerError("the tool server did not complete the MCP handshake", where=self.where)

    def _adopt(self, version: str, found: Mapping[str, Any], meta: Any) -> None:
        info = meta.get(eras.SERVER_INFO) if isinstance(meta, dict) else None
        instructions, capabilities = found.get("instructions"), found.get("capabilities")
        tools = capabilities.get("tools") if isinstance(capabilities, dict) else None
        self.info = info if isinstance(info, dict) else {}
        self.instructions = instructions if isinstance(instructions, str) else None
        self._announces = isinstance(tools, dict) and tools.get("listChanged") is True
        self.version = version

    # -- hearing of change ---------------------------------------------------------------------

    def _attend(self) -> None:
        """Hear of changed tools for as long as the server is there, if it says that it tells."""
        if self._announces:
            self._listener = asyncio.ensure_future(self._listen())

    def _deaf(self) -> None:
        if self._listener is not None:
            self._listener.cancel()

    async def _listen(self) -> None:
        """2026-07-28: a subscription, opened again where it ends."""
        wanted = {"notifications": {"toolsListChanged": True}}
        pause = LISTEN_AGAIN_SECONDS
        while self.modern and not self._silent:
            self._ears = Flight()
            ending = await self._ask(
                "subscriptions/listen",
                wanted,
                version=self.version,
                timeout=LISTEN_SECONDS,
                flight=self._ears,
            )
            if isinstance(ending, Returned) and ending.is_error:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LISTEN_SECONDS)
            self._on_list_changed()  # what happened while nobody listened

    # -- asking --------------------------------------------------------------------------------

    async def dispatch(
        self, grant: VerifiedGrant, method: str, meta: Mapping[str, Any], flight: Flight
    ) -> Ending:
        """Send one call, once, with its artifact.

        Args:
            grant: what the verifier returned for this very call.
            meta: the client's `_meta`; only its trace context goes on.
            flight: how the client cancels, and hears of progress.

        Without a VerifiedGrant nothing is sent.
        """
        if type(grant) is not VerifiedGrant:
            return Failed(Reason.ARTIFACT_MISSING, integrity=True)
        own = {name: meta[name] for name in wire.TRACE_KEYS if isinstance(meta.get(name), str)}
        own[ARTIFACT_META] = grant.token.decode()
        return await self._ask(
            method, grant.params, version=self.version, timeout=self._timeout, meta=own, flight=flight
        )

    async def _ask(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        version: str,
        timeout: float,  # noqa: ASYNC109 - a timeout here is an ending, not an exception
        meta: Mapping[str, Any] | None = None,
        flight: Flight | None = None,
    ) -> Ending:
        flight = flight or Flight()
        if flight.cancelled:
            return Failed(Reason.CANCELLED)
        if self._silent:
            return Failed(Reason.UPSTREAM_UNAVAILABLE)
        if len(self._flights) >= MAX_IN_FLIGHT:
            return Failed(Reason.OVERLOADED)
        self._next += 1
        id_, loop = self._next, asyncio.get_running_loop()
        flight.ending = loop.create_future()
        own = {**(meta or {}), **_envelope(version)}
        if flight.on_progress is not None:
            own["progressToken"] = id_
        self._flights[id_] = flight
        timer = loop.call_later(timeout, flight.end, Unknown(Reason.TIMED_OUT))
        try:
            unsent = await self._send(id_, method, {**params, "_meta": own} if own else params, version)
            ending = unsent or await flight.ending
        except BaseException:  # whoever waited was torn down
            self._abandon(id_, method)
            raise
        finally:
            timer.cancel()
            self._flights.pop(id_, None)
        if isinstance(ending, Unknown) and not self._silent:
            self._abandon(id_, method)
        return ending

    async def list_tools(self) -> list[dict[str, Any]]:
        """Every tool that the server has now, all pages.

        Raises:
            Refused: UPSTREAM_UNAVAILABLE; it does not answer, or not with tools.
        """
        tools: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            params = {} if cursor is None else {"cursor": cursor}
            ending = await self._ask("tools/list", params, version=self.version, timeout=self._timeout)
            page = _object(ending)
            found = page.get("tools")
            if not isinstance(found, list):
                raise Refused(Reason.UPSTREAM_UNAVAILABLE, "the tool server does not list its tools")
            tools += [tool for tool in found if isinstance(tool, dict)]
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or len(tools) > MAX_TOOLS:
                return tools
        return tools

    # -- what the server says ------------------------------------------------------------------

    def _hear_bytes(self, data: bytes, only: int | None = None) -> None:
        """One message of the server's. With `only`, an answer to any other request is nobody's."""
        try:
            line = read_line(data)
            if only is None or line.method is not msgspec.UNSET or line.id == only:
                self._hear(line)
        except (Garbage, TypeError, ValueError) as garbage:
            print(f"guard: {self.where} sent no message: {printable(str(garbage))}", file=sys.stderr)  # noqa: T201

    def _hear(self, line: Line) -> None:
        if line.method is not msgspec.UNSET:
            self._hear_method(line, line.method)
            return
        flight = self._flights.get(line.id) if isinstance(line.id, int) else None
        if flight is None or flight.ending is None or flight.ending.done():
            return  # an answer to nothing: late, repeated, or made up
        try:
            flight.end(_ending(bytes(line.result), bytes(line.error)))
        except Garbage:
            flight.end(Unknown(Reason.UNEXPECTED, executed=True))
            raise

    def _hear_method(self, line: Line, method: str) -> None:
        if line.id is not msgspec.UNSET and line.id is not None:
            # The one request of a server that this Guard serves is ping; the rest comes later.
            answer = (
                wire.result(line.id, {})
                if method == "ping"
                else wire.error(line.id, wire.METHOD_NOT_FOUND, "Guard does not pass this on yet")
            )
            self._answer(answer)
        elif method == "notifications/progress":
            self._hear_progress(read_object(without_own_meta(bytes(line.params))))
        elif method == "notifications/tools/list_changed":
            self._on_list_changed()

    def _hear_progress(self, params: Mapping[str, msgspec.Raw]) -> None:
        token = value_of(params.get("progressToken", b"null"))
        flight = self._flights.get(token) if type(token) is int else None
        if flight is not None and flight.on_progress is not None and not flight.cancelled:
            # As bytes: a number too large to be read must not break the pipe that it came by.
            flight.on_progress({name: orjson.Fragment(bytes(value)) for name, value in params.items()})

    def _gone(self) -> None:
        if self._silent:
            return
        self._silent = True
        self._deaf()
        self._end_all(Unknown(Reason.UPSTREAM_UNAVAILABLE))
        self._on_gone()

    def _end_all(self, ending: Ending) -> None:
        for flight in self._flights.values():
            flight.end(ending)


def _ending(result: bytes, failure: bytes) -> Ending:
    """What the server answered with. Raises Garbage."""
    if bool(result) == bool(failure):
        raise Garbage("neither a result nor an error, or both")
    part = without_own_meta(result or failure)
    members = read_object(part)
    if result and bytes(members.get("resultType", _COMPLETE)) != _COMPLETE:
        # What asks for input, or is of a kind that Guard does not know, is not passed on yet.
        return Unknown(Reason.UNEXPECTED, executed=True)
    return Returned(part, is_error=bool(failure))


def _envelope(version: str) -> dict[str, Any]:
    """The 2026-07-28 per-request fields; a handshake-era request has none."""
    if version not in eras.MODERN:
        return {}
    return {
        eras.PROTOCOL_VERSION: version,
        eras.CLIENT_INFO: CLIENT_INFO,
        eras.CLIENT_CAPABILITIES: _CAPABILITIES,
    }


def _object(ending: Ending) -> dict[str, Any]:
    """The object that the server answered with, {} where it answered with none."""
    if not isinstance(ending, Returned):
        return {}
    try:
        found = value_of(ending.raw)
    except Garbage:
        return {}
    return found if isinstance(found, dict) else {}


def _strings(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

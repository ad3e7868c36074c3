"""One tool server behind Guard, whatever carries the messages: eras, artifacts, endings.

Dispatch takes a VerifiedGrant and nothing else. What is sent is the params that were verified,
with `_meta` built anew: the era's envelope, progress, trace context, and the artifact. `process`
and `remote` are the two ways to carry it.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final

from guard import __version__
from guard.artifact.verify import VerifiedGrant
from guard.core.errors import GuardError, Reason, Refused, printable
from guard.core.model import ARTIFACT_META
from guard.proxy import eras
from guard.proxy.asker import EVERYTHING, Asker, abilities, passed
from guard.proxy.endings import Ending, Failed, Flight, Returned, Unknown
from guard.proxy.hearing import ACKNOWLEDGED, Hearing
from guard.proxy.replies import Garbage, page_of, value_of

CLIENT_INFO: Final = {"name": "guard-mcp", "version": __version__}
PROBE_SECONDS: Final = 10.0
LISTEN_SECONDS: Final = 3600.0
LISTEN_AGAIN_SECONDS: Final = 1.0
MAX_PAGES: Final = 100
MAX_TOOLS: Final = 10_000
MAX_IN_FLIGHT: Final = 512
"""Requests that one server may have unanswered; more are refused, so that nothing grows."""
_OF_CLIENT: Final = frozenset({eras.CLIENT_INFO, eras.CLIENT_CAPABILITIES, eras.LOG_LEVEL})
_OWN_META: Final[Mapping[str, Any]] = {
    eras.CLIENT_INFO: CLIENT_INFO,
    eras.CLIENT_CAPABILITIES: EVERYTHING,
}
"""Some tools are shown to able clients only: Guard asks for all, each client says what it can do itself."""


class ServerError(GuardError):
    """The tool server cannot be started, or does not speak MCP."""


class Upstream(Hearing):
    """A tool server, spoken to in the era that it speaks.

    Args:
        where: what to call it in messages: its command or its URL, printable.
        timeout: seconds that a request may take.
        on_list_changed: called when the server says that its tools changed.
        on_gone: called once when it cannot be spoken to any more.

    Attributes:
        info: its `serverInfo`.
        instructions: its instructions, None for none.
        reachable: whether it could be reached when it was last tried.
        capabilities: its own, as it declared them.
        keys: the keys of `_meta` that the operator lets through to it.
        offers: the capabilities that it is told of in a handshake where nobody is behind it.
        attentive: whether its word that its tools changed would be heard now.
        tools_until: until when its list keeps by its own word, on the clock that only goes forward.
    """

    def __init__(
        self,
        where: str,
        *,
        timeout: float = 300.0,
        on_list_changed: Callable[[], None] = lambda: None,
        on_gone: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(where, on_list_changed)
        self.info: dict[str, Any] = {}
        self.instructions: str | None = None
        self.reachable = True
        self.capabilities: Mapping[str, Any] = {}
        self.keys: frozenset[str] = frozenset()
        self.offers: Mapping[str, Any] = {}
        self.attentive = False
        self.tools_until = 0.0
        self._timeout = timeout
        self._on_gone = on_gone
        self._next = 0
        self._silent = False
        self._announces = False
        self._listener: asyncio.Task[None] | None = None

    # -- what carries the messages ---------------------------------------------------------------

    async def open(self) -> None:
        """Do what can be done before it is known who asks. Raises ServerError."""

    @abstractmethod
    async def start(self) -> None:
        """Open it where that is not done, and agree on an era: the asker's where there is one.

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
    def _abandon(self, id_: int, method: str) -> None:
        """Nobody waits for this request any more."""

    @property
    def alive(self) -> bool:
        """Whether an era is agreed on and the server can be spoken to."""
        return self.version != "" and not self._silent

    @property
    def busy(self) -> bool:
        """Whether anybody waits for an answer."""
        return any(flight is not self._ears for flight in self._flights.values())

    # -- agreeing --------------------------------------------------------------------------------

    async def _agree(self) -> None:
        """The asker's era first: a server may hold a connection to the first one that it hears.

        Without an asker 2026-07-28 comes first, and whatever is no answer of it falls back.
        """
        if self.asker is not None:
            if await self._handshake(self.asker):
                return
            if not await self._discover():
                raise self._no_handshake()
        elif not await self._discover() and not await self._handshake(None):
            raise self._no_handshake()

    async def _discover(self) -> bool:
        """Probe with `server/discover`. Raises ServerError: it speaks none of Guard's versions."""
        version = eras.MODERN[-1]
        ending = await self._ask(
            "server/discover", {}, version=version, timeout=PROBE_SECONDS, meta=_own_meta(version)
        )
        found = _object(ending)
        if isinstance(ending, Returned) and ending.is_error:
            data = found.get("data")
            offered = _strings(data.get("supported") if isinstance(data, dict) else None)
            modern_only = offered and not set(offered) & set(eras.HANDSHAKE)
            if found.get("code") == eras.UNSUPPORTED_VERSION and modern_only:
                raise ServerError(f"the tool server speaks only {', '.join(map(printable, offered))}")
        elif version in _strings(found.get("supportedVersions")):
            self._adopt(version, found, found.get("_meta"))
            return True
        return False

    async def _handshake(self, asker: Asker | None) -> bool:
        """Whether it took `initialize`, in the name of the asker where there is one."""
        offer = {
            "protocolVersion": asker.version if asker else eras.HANDSHAKE[0],
            "capabilities": abilities(asker.capabilities, self.methods) if asker else self.offers,
            "clientInfo": asker.client if asker else CLIENT_INFO,
        }
        ending = await self._ask("initialize", offer, version="", timeout=self._timeout)
        found = _object(ending)
        version = found.get("protocolVersion")
        if version not in eras.HANDSHAKE:
            return False
        self._adopt(version, found, {eras.SERVER_INFO: found.get("serverInfo")})
        self._notify("notifications/initialized", {})
        return True

    def _no_handshake(self) -> ServerError:
        return ServerError("the tool server did not complete the MCP handshake", where=self.where)

    def _adopt(self, version: str, found: Mapping[str, Any], meta: Any) -> None:
        info = meta.get(eras.SERVER_INFO) if isinstance(meta, dict) else None
        instructions, capabilities = found.get("instructions"), found.get("capabilities")
        self.info = info if isinstance(info, dict) else {}
        self.instructions = instructions if isinstance(instructions, str) else None
        self.capabilities = capabilities if isinstance(capabilities, dict) else {}
        self._announces = self.can("tools", "listChanged")
        self.version = version

    def can(self, capability: str, detail: str = "") -> bool:
        """Whether the server declared a capability, and where one is named, a detail of it."""
        found = self.capabilities.get(capability)
        return isinstance(found, dict) and (not detail or found.get(detail) is True)

    # -- hearing of change ---------------------------------------------------------------------

    def _attend(self) -> None:
        """Hear what it says of itself for as long as it is there: of changed tools, if it tells of them.

        In the handshake era it may also log, ask its client, or tell it of a resource at any time.
        """
        if self._announces or (self.asker is not None and not self.modern):
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
            self._ears.on_note = self._acknowledged
            ending = await self._ask(
                "subscriptions/listen",
                wanted,
                version=self.version,
                timeout=LISTEN_SECONDS,
                meta=_own_meta(self.version),
                flight=self._ears,
            )
            self.attentive = False
            if isinstance(ending, Returned) and ending.is_error:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LISTEN_SECONDS)
            self._on_list_changed()  # what happened while nobody listened

    def _acknowledged(self, method: str, params: bytes) -> None:  # noqa: ARG002 - it can only be for this
        if method == ACKNOWLEDGED:
            self.attentive = True

    # -- asking --------------------------------------------------------------------------------

    async def dispatch(
        self, grant: VerifiedGrant, method: str, meta: Mapping[str, Any], flight: Flight
    ) -> Ending:
        """Send one call, once, with its artifact.

        Args:
            grant: what the verifier returned for this very call.
            meta: the client's `_meta`; only what `passed` takes of it goes on.
            flight: how the client cancels, and hears of progress.

        Without a VerifiedGrant nothing is sent.
        """
        if type(grant) is not VerifiedGrant:
            return Failed(Reason.ARTIFACT_MISSING, integrity=True)
        own = self._passed(meta)
        own[ARTIFACT_META] = grant.token.decode()
        return await self._ask(
            method, grant.params, version=self.version, timeout=self._timeout, meta=own, flight=flight
        )

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        meta: Mapping[str, Any] | None = None,
        flight: Flight | None = None,
        seconds: float | None = None,
    ) -> Ending:
        """Ask what neither reads nor acts and needs no artifact: lists, completions, subscriptions.

        Args:
            method: of JSON-RPC.
            params: without `_meta`.
            meta: the client's `_meta`, None where Guard itself asks.
            flight: as for `dispatch`.
            seconds: how long it may take, None for as long as any request.
        """
        own = _own_meta(self.version) if meta is None else self._passed(meta)
        timeout = self._timeout if seconds is None else seconds
        return await self._ask(method, params, version=self.version, timeout=timeout, meta=own, flight=flight)

    def tell(self, method: str, params: Mapping[str, Any]) -> None:
        """Pass a notification of the client's on, if it can be sent."""
        self._notify(method, params)

    def _passed(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        if self.shared:
            meta = {name: value for name, value in meta.items() if name not in _OF_CLIENT}
        theirs = self.capabilities.get("extensions")
        own = passed(
            meta,
            version=self.version,
            theirs=theirs if isinstance(theirs, dict) else {},
            methods=self.methods,
            keys=self.keys,
        )
        if eras.PROTOCOL_VERSION in own and eras.CLIENT_INFO not in own:
            own[eras.CLIENT_INFO] = CLIENT_INFO
        return own

    async def _ask(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        version: str,
        timeout: float,  # noqa: ASYNC109 - a timeout here is an ending, not an exception
        meta: dict[str, Any] | None = None,
        flight: Flight | None = None,
    ) -> Ending:
        flight = flight or Flight()
        if flight.cancelled or flight.barred is not None:
            return Failed(flight.barred or Reason.CANCELLED)
        if self._silent:
            return Failed(Reason.UPSTREAM_UNAVAILABLE)
        if len(self._flights) >= MAX_IN_FLIGHT:
            return Failed(Reason.OVERLOADED)
        self._next += 1
        id_, loop = self._next, asyncio.get_running_loop()
        flight.ending = loop.create_future()
        own = meta or {}
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
        items, ttl = await self.list_all("tools/list", "tools")
        self.tools_until = time.monotonic() + ttl / 1000
        return [tool for item in items if isinstance(tool := value_of(item), dict)]

    async def list_all(
        self, method: str, member: str, meta: Mapping[str, Any] | None = None
    ) -> tuple[list[bytes], int]:
        """Every item of a list, all pages, as the server wrote them; and how long they keep, in ms.

        Raises:
            Refused: UPSTREAM_UNAVAILABLE; it does not answer, or not with a list.
        """
        items: list[bytes] = []
        keeps: list[int] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            params = {} if cursor is None else {"cursor": cursor}
            ending = await self.ask(method, params, meta)
            try:
                page = page_of(ending.raw if isinstance(ending, Returned) else b"", member)
            except Garbage:
                what = f"the tool server does not answer {method} with a list"
                raise Refused(Reason.UPSTREAM_UNAVAILABLE, what) from None
            items += page.items
            keeps.append(page.ttl)
            cursor = page.cursor
            if cursor is None or len(items) > MAX_TOOLS:
                break
        return items, min(keeps)

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


def _own_meta(version: str) -> dict[str, Any]:
    """The 2026-07-28 per-request fields of what Guard itself asks; a handshake-era request has none."""
    return {eras.PROTOCOL_VERSION: version, **_OWN_META} if version in eras.MODERN else {}


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

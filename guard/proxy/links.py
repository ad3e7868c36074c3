"""One configured tool server, and its links: one principal's connection each, started when wanted.

A process or a handshake-era session remembers things about whoever spoke to it, so it belongs to
one principal, unless the operator says `shared`. Each link waits for its own server only: a slow or
dead one costs its own callers, and is started again after a pause that grows.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

from guard.core.errors import GuardError, Reason, Refused
from guard.core.model import Principal, Tool
from guard.proxy.about import About
from guard.proxy.asker import Asker
from guard.proxy.catalog import Catalog
from guard.proxy.upstream import Upstream
from guard.proxy.wishes import Wishes

START_SECONDS: Final = 60.0
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""A server that ran so long and then died begins again with the shortest pause."""
LEAVE_SECONDS: Final = 1.0
"""A call that was bound before its server was replaced is on its way by then."""
SWEEPS: Final = 4
"""How often in its idle time a link is looked at."""


class Link:
    """One principal's connection to one tool server, and the catalog that goes with it.

    Args:
        server: the server.
        tenant: whose pins count.
        asker: the handshake-era client that it is for; None for 2026-07-28, which has no sessions.
    """

    def __init__(self, server: ToolServer, tenant: str, asker: Asker | None = None) -> None:
        self.server = server
        self.tenant = tenant
        self.asker = asker
        self.catalog = Catalog(
            server.about.name, read_pins=lambda: server.about.pins(tenant), list_tools=self._list_tools
        )
        self.upstream: Upstream | None = None
        self.used = time.monotonic()
        self.users: dict[str, Principal] = {}  # by credential; nobody where it is shared
        self._starting: asyncio.Task[Upstream] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._failures = 0
        self._not_before = 0.0
        self._since = 0.0
        self._closed = False
        self._opened: Upstream | None = None
        self.has_room = False
        self.shown: tuple[Any, Any] | None = None  # the listing's memory

    @property
    def up(self) -> bool:
        """Whether the server can be spoken to now."""
        return self.upstream is not None and self.upstream.alive

    @property
    def attentive(self) -> bool:
        """Whether its list is known to be good: it would be heard if it changed, or keeps by its own word."""
        upstream = self.upstream
        if upstream is None or not upstream.alive:
            return False
        return upstream.attentive or time.monotonic() < upstream.tools_until

    @property
    def begun_for_anybody(self) -> bool:
        """Whether nothing was said to the server yet."""
        return self.upstream is None and self._starting is None

    @property
    def idle(self) -> bool:
        """Whether nobody is being served."""
        return self._starting is None and (self.upstream is None or not self.upstream.busy)

    async def ready(self) -> Upstream:
        """The server, started if it does not run.

        Raises:
            Refused: UPSTREAM_UNAVAILABLE; it cannot be started, or was tried a moment ago. OVERLOADED;
                too many links are up.
        """
        self.used = time.monotonic()
        return await self._ready()

    async def _ready(self) -> Upstream:
        if self.upstream is not None and self.upstream.alive:
            return self.upstream
        paused = time.monotonic() < self._not_before or (self._failures and not self.server.restarts)
        if self._closed or (self._starting is None and paused):
            raise Refused(Reason.UPSTREAM_UNAVAILABLE, f"{self.server.about.name} does not run")
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
            self._starting.add_done_callback(self._started)
        starting = self._starting
        try:  # whoever gives up waiting must not stop a start that others wait for
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise Refused(Reason.UPSTREAM_UNAVAILABLE, "it is being let go of") from None
            raise

    async def fresh(self) -> Upstream:
        """The server, with what it shows now in the catalog. Raises Refused, as `ready`."""
        upstream = await self.ready()
        await self.catalog.fresh()
        return upstream

    async def _list_tools(self) -> list[dict[str, Any]]:
        return await (await self.ready()).list_tools()

    async def open(self) -> None:
        """Let the server begin to start, before it is known who asks. Raises GuardError."""
        self._opened = self._made()
        await self._opened.open()

    def _made(self) -> Upstream:
        upstream = self.server.about.make(on_list_changed=self._changed, on_gone=lambda: self._gone(upstream))
        upstream.name, upstream.shared = (about := self.server.about).name, about.shared
        upstream.methods, upstream.keys = about.methods, about.meta
        return upstream

    async def _start(self) -> Upstream:
        await self.server.make_room(self)
        upstream, self._opened = self._opened or self._made(), None
        upstream.asker = self.asker
        try:
            async with asyncio.timeout(START_SECONDS):
                await upstream.start()
        except BaseException as error:
            await upstream.stop()
            if isinstance(error, GuardError | TimeoutError | OSError):
                self.server.error = error if isinstance(error, GuardError) else None
                self._fail(str(error) or f"it did not start within {START_SECONDS:.0f} seconds")
                raise Refused(Reason.UPSTREAM_UNAVAILABLE, str(error)) from error
            raise
        self.upstream, self._since = upstream, time.monotonic()
        self.catalog.forget()
        if not upstream.modern:
            for method, params in self.server.wishes.standing(self.asker):
                if method != "logging/setLevel" or upstream.can("logging"):
                    self.server.aside(upstream.ask(method, params, {}))
        self.server.failure, self.server.error, self.server.info = None, None, upstream.info
        self.server.changed()
        self.server.on_up(self)
        return upstream

    def _started(self, task: asyncio.Task[Upstream]) -> None:
        self._starting, self.has_room = None, False
        if not task.cancelled():
            task.exception()  # everyone who waited was told; nobody may have waited

    def _changed(self) -> None:
        self.catalog.forget()
        self.server.changed()

    def _gone(self, upstream: Upstream) -> None:
        if self._closed or upstream is not self.upstream:
            return  # of one that nobody asked anything yet, whoever asks first learns how it ended
        if time.monotonic() - self._since > STEADY_SECONDS:
            self._failures = 0
        self._fail("it ended")
        self.catalog.forget()
        self.server.aside(upstream.stop())  # whatever it left behind goes too
        self.server.changed()

    def _fail(self, what: str) -> None:
        """Try again after a pause, as long as somebody used it lately."""
        pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
        self._failures = min(self._failures + 1, 16)
        self._not_before = time.monotonic() + pause
        self.server.failure = what
        self.server.on_gone()
        if self.server.restarts:
            self._again = asyncio.get_running_loop().call_later(pause + 0.01, self._try_again)

    def _try_again(self) -> None:
        idle = self.server.about.idle_seconds
        if not self._closed and not self.up and (idle is None or time.monotonic() - self.used < idle):
            self.server.aside(self._ready())

    async def close(self) -> None:
        """Stop the server."""
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        if self._starting is not None:
            self._starting.cancel()
            with contextlib.suppress(BaseException):
                await asyncio.shield(asyncio.gather(self._starting, return_exceptions=True))
        for upstream in (self.upstream, self._opened):
            if upstream is not None:
                await upstream.stop()


class ToolServer:
    """One configured tool server.

    Args:
        about: what the operator says of it.
        on_change: told when its tools may have changed, or it came or went.
        on_gone: told when a link's server ended by itself, or could not be started.
        on_up: told when a link was started.
        restarts: whether it is started again then.

    Attributes:
        failure: why its last start failed or how its last link ended; None while all is well.
        error: what its last start failed with, None where it did not.
        began: whether anybody ever asked for it.
        info: its `serverInfo`, as it was last heard.
        wishes: what handshake-era clients want it to keep telling them.
    """

    def __init__(
        self,
        about: About,
        *,
        on_change: Callable[[], None] = lambda: None,
        on_gone: Callable[[], None] = lambda: None,
        on_up: Callable[[Link], None] = lambda _: None,
        restarts: bool = True,
    ) -> None:
        self.about = about
        self.changed = on_change
        self.on_gone = on_gone
        self.on_up = on_up
        self.restarts = restarts
        self.failure: str | None = None
        self.error: GuardError | None = None
        self.began = False
        self.info: Mapping[str, Any] = {}
        self._pinned: dict[str, Catalog] = {}
        self._aside: set[asyncio.Task[Any]] = set()
        self._links: dict[tuple[Any, ...], Link] = {}
        self._spare: Link | None = None
        self.wishes = Wishes()
        self._sweeper: asyncio.TimerHandle | None = None

    def link(self, principal: Principal, asker: Asker | None = None) -> Link:
        """The link of a principal, and of a handshake-era client its own; it need not be up.

        A shared server has one for each tenant, and knows of no client.
        """
        key: tuple[Any, ...] = (principal.tenant,) if self.about.shared else (*principal.key, asker)
        found = self._links.get(key)
        self.began = True
        if found is None:
            found = self._adopt(principal.tenant, None if self.about.shared else asker)
            self._links[key] = found
            self._sweep_later()
        if not self.about.shared:
            found.users[principal.credential] = principal
        found.used = time.monotonic()
        return found

    @property
    def links(self) -> list[Link]:
        """Every link, and the one that was started before anybody asked."""
        return [*self._links.values(), *([self._spare] if self._spare else [])]

    def _behind(self, asker: Asker) -> list[Upstream]:
        """A handshake-era client's own links, where they are up."""
        found = (link.upstream for link in self._links.values() if link.asker is asker and link.up)
        return [one for one in found if one is not None and not one.modern]

    def tell(self, asker: Asker, method: str) -> None:
        """Pass a notification without params of a handshake-era client on, where it has a link."""
        for upstream in self._behind(asker):
            upstream.tell(method, {})

    def remember(self, asker: Asker | None, method: str, params: Mapping[str, Any]) -> None:
        """Say this again where a client's own link starts anew: its log level, its subscriptions."""
        if asker is not None and any(link.asker is asker for link in self._links.values()):
            self.wishes.note(asker, method, params)

    def review(self, asker: Asker, sees: Callable[[str], bool]) -> None:
        """Let go of the subscriptions to what a client sees no longer; take up those that it sees again."""
        for method, params in self.wishes.review(asker, sees):
            for upstream in self._behind(asker):
                self.aside(upstream.ask(method, params, {}))

    def leave(self, asker: Asker, *, returns: bool = False) -> None:
        """A handshake-era client is gone: so are its links. Its wishes stay where it may come back."""
        if not returns:
            self.wishes.forget(asker)
        self.let_go(lambda link: link.asker is asker)

    def let_go(self, over: Callable[[Link], bool]) -> None:
        """Close the links that are over."""
        for key, link in [*self._links.items()]:
            if over(link):
                del self._links[key]
                self.aside(link.close())

    def pinned(self, tenant: str, versions: Mapping[str, int]) -> list[Tool]:
        """Every tool of it that the tenant's operator accepted, whether or not it runs."""
        catalog = self._pinned.get(tenant)
        if catalog is None:
            pins = partial(self.about.pins, tenant)
            catalog = self._pinned[tenant] = Catalog(self.about.name, read_pins=pins)
        catalog.at(versions)
        return catalog.pinned()

    async def warm(self, tenant: str) -> Link:
        """Start a link before anybody asks; the tenant's first principal gets it. Raises Refused."""
        self._spare = link = Link(self, tenant)
        await link.fresh()
        return link

    async def open(self, tenant: str) -> None:
        """Only begin to start the server: whoever comes says in which era. Raises GuardError."""
        self._spare = Link(self, tenant)
        await self._spare.open()

    def _adopt(self, tenant: str, asker: Asker | None) -> Link:
        spare = self._spare
        if spare is None or spare.tenant != tenant or not (asker is None or spare.begun_for_anybody):
            return Link(self, tenant, asker)
        self._spare, spare.asker = None, asker
        return spare

    async def make_room(self, wanting: Link) -> None:
        """Let go of the idlest link if too many are up, or too many of one's. Raises Refused, OVERLOADED."""
        most, by_key = self.about.most, {id(link): key[:3] for key, link in self._links.items()}
        others = [link for link in self.links if link is not wanting and (link.up or link.has_room)]
        own = [link for link in others if by_key.get(id(link)) == by_key.get(id(wanting))]
        share, wanting.has_room = most - most // 4, True  # a quarter is kept from any one principal
        if not (full := own if len(own) >= share else others if len(others) >= most else []):
            return
        if not (idle := [link for link in full if link.idle]):
            wanting.has_room = False
            raise Refused(Reason.OVERLOADED, f"{len(others)} of {most} are in use, {len(own)} by this caller")
        oldest = min(idle, key=lambda link: link.used)
        self._links = {key: link for key, link in self._links.items() if link is not oldest}
        if self._spare is oldest:
            self._spare = None
        await oldest.close()

    def aside(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something that nobody waits for, and that ends before the server is closed."""
        task = asyncio.ensure_future(work)
        self._aside.add(task)
        task.add_done_callback(self._done_aside)

    def _done_aside(self, task: asyncio.Task[Any]) -> None:
        self._aside.discard(task)
        _ = task.cancelled() or task.exception()  # told where it happened

    def health(self) -> Mapping[str, Any]:
        """How it does, without secrets: its state is "up", "down", or "idle" when nobody wanted it yet."""
        up = [link.upstream for link in self.links if link.up and link.upstream is not None]
        state = "down" if up or self.failure is not None else "idle"
        return {"state": "up" if any(one.reachable for one in up) else state, "links": len(up)}

    def _sweep_later(self) -> None:
        if self.about.idle_seconds is not None and self._sweeper is None:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(self.about.idle_seconds / SWEEPS, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        idle = self.about.idle_seconds
        assert idle is not None  # noqa: S101 - nothing is swept otherwise
        end = time.monotonic() - idle
        self.let_go(lambda link: link.used < end and link.idle)
        if self._links:
            self._sweep_later()

    async def drain(self, seconds: float) -> None:
        """Let what is under way end, at most so long, then close."""
        end = time.monotonic() + seconds
        try:
            await asyncio.sleep(LEAVE_SECONDS)
            while any(not link.idle for link in self._links.values()) and time.monotonic() < end:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        finally:  # also where Guard ends first
            await self.close()

    async def close(self) -> None:
        """Stop every link."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        links, self._links, self._spare = self.links, {}, None
        await asyncio.gather(*(link.close() for link in links), return_exceptions=True)
        if self._aside:
            await asyncio.gather(*self._aside, return_exceptions=True)
        if self.about.let_go is not None:
            await self.about.let_go()

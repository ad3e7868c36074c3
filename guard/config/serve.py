"""`guard serve`: many tool servers behind one Guard, over HTTP or stdio, and its reload."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from guard.config import made, stores
from guard.config.door import hosts, tls, who
from guard.config.home import Home, clock, default_home, open_home
from guard.config.launch import trusted
from guard.config.loaded import LAX, Loaded
from guard.config.policies import Looks, adopt_policy, check_policy, news, reads
from guard.config.reach import reached
from guard.config.run import STOPPING, named_or_inferred, on_signals, serve_pipes
from guard.config.settings import ServerSettings, Settings, load_settings
from guard.config.watching import Watch
from guard.config.wiring import about, begin, definitions, say, settle, tell_of, tenants
from guard.core.errors import GuardError, Refused
from guard.lineage.store import Store
from guard.policy.rules import Policy
from guard.proxy import eras
from guard.proxy.documents import Published
from guard.proxy.house import House
from guard.proxy.http import PATH, Front, Rules
from guard.proxy.links import Link, ToolServer
from guard.proxy.listener import Bounds, Listener, listen, listen_on
from guard.proxy.relay import Post, Relay, take_over
from guard.proxy.remembering import salt_of
from guard.proxy.sealing import Seal
from guard.proxy.world import Gate

DRAIN_SECONDS: Final = 10.0
_FIXED: Final = ("home", "store", "listen", "tls")
"""What a reload cannot change."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One of several processes that serve one configuration.

    Attributes:
        post: its place among the others.
        sockets: what it takes clients from; each listens already.
        begun: called once when it serves.
        parent: a descriptor that is at its end when the parent is gone.
    """

    post: Post
    sockets: Sequence[socket.socket]
    begun: Callable[[], None]
    parent: int


class Serving:
    """Everything that runs while a configuration is served.

    Args:
        path: the configuration's file, read again on a reload.
        settings: what it said at the start.
        home: Guard's folder.
        store: its store, opened.
        policy: the policy, None to read the one that the settings name.
        worker: which process it is of several; None where it is the only one.
        looks: what its files looked like before they were read; None to look now.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        home: Home,
        store: Store,
        *,
        policy: Policy | None = None,
        worker: Worker | None = None,
        looks: Looks | None = None,
    ) -> None:
        self.home = home
        self.store = store
        self.listener: Listener | None = None
        self._path = path
        self._settings = settings
        self._worker = worker
        self._relay: Relay | None = None
        self._more: list[Listener] = []
        self._beside: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._looks = reads(self._files()) if looks is None else looks
        policy = policy or settings.policies.load()
        self._identify, self.tenant = who(settings, store)
        for tenant in tenants(store):
            adopt_policy(store, policy, definitions(store, tenant, settings.servers), tenant=tenant)
        parents = self._parents(settings)
        if self._tells:
            made.warn(policy, settings)
        servers = {name: self._tool_server(name, one) for name, one in settings.servers.items()}
        self.lease, self.log = begin(store, home, shared=worker is not None)
        self.house = House(
            issuer=home.issuer(),
            log=self.log,
            instance=self.lease.instance,
            clock=clock,
            generation=made.generation(settings, policy, servers, parents),
            seal=Seal(home.pairwise_secret),
            salt=salt_of(home.pairwise_secret),
        )
        self._watch: Watch | None = None
        self.front = Front(
            self.house,
            rules=Rules(identify=self._identify, hosts=frozenset()),
            sessions=made.sessions(settings, worker.post if worker else None),
            published=Published(
                home.name, stores.public_keys(store, home.keys, home.pairwise_secret), home.vkey
            ),
            refusals_per_minute=settings.limits.refusals_per_minute,
        )

    def _tool_server(self, name: str, one: ServerSettings) -> ToolServer:
        make, let_go = reached(one)
        known = about(
            name,
            make,
            audience=one.audience or name,
            home=self.home,
            store=self.store,
            pin_command=partial(made.pin_command, self._path, name),
            shared=one.shared,
            idle_seconds=None if self._settings.stdio else one.idle_seconds,
            most=one.processes,
            let_go=let_go,
            methods=one.methods,
            meta=one.meta,
        )
        if not self._settings.stdio:
            return ToolServer(known, on_change=lambda: self.house.tools_changed())  # noqa: PLW0108 - made before the house
        server = ToolServer(
            known,
            on_change=lambda: self.house.tools_changed(),  # noqa: PLW0108
            on_up=lambda link: server.aside(self._look(link)),
            on_gone=lambda: self._tell_of(server, server.error or GuardError(server.failure or "it ended")),
        )
        return server

    def _parents(self, settings: Settings) -> tuple[Any, ...]:
        """Verifiers of what clients present; whoever uses the store remembers together what was used."""
        items = [f"{one.issuer}={one.jwks}" for one in settings.trust]
        replay = stores.replay(self.store, self.home.path) if items else None
        return trusted(items, audience=self.home.name, replay=replay)

    @property
    def _tells(self) -> bool:
        """Whether it tells the operator what all workers would."""
        return self._worker is None or self._worker.post.number == 0

    # -- running -------------------------------------------------------------------------------

    async def open(self) -> None:
        """Bind the address, and let the tool servers start. Raises GuardError."""
        await asyncio.to_thread(eras.warm)
        settings = self._settings
        if not settings.stdio:
            limits = settings.limits
            bounds = Bounds(
                limits.connections, limits.header_bytes, limits.head_seconds, limits.keep_alive_seconds
            )
            try:
                await self._listen(bounds)
            except OSError as error:
                raise GuardError(
                    f"cannot be bound: {error.strerror or error}",
                    where=f"{self._path}: listen",
                    remedy="is another program there already? give another port",
                ) from None
            self.front.rules = self._rules(settings)
        for server in self.house.generation.servers.values():
            self._aside(self._start(server))  # nobody waits for a slow one but its own callers
        settle()

    async def _listen(self, bounds: Bounds) -> None:
        settings, context = self._settings, tls(self._settings)
        if self._worker is None:
            self.listener = await listen(self.front, settings.host, settings.port, bounds, context)
            return
        post = self._worker.post
        self._relay = Relay(self.front, post)
        self._more = [await take_over(self._relay, post.socket(post.number), bounds)]
        for each in self._worker.sockets:
            self._more.append(await listen_on(self._relay, each, bounds, context))
        self.listener = self._more.pop()

    @property
    def url(self) -> str:
        """Where clients reach it."""
        scheme = "https" if self._settings.tls else "http"
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        port = self.listener.port if self.listener else self._settings.port
        return f"{scheme}://{host}:{port}{PATH}"

    async def _start(self, server: ToolServer) -> None:
        """Start one server before anybody asks, and say what the operator should know."""
        try:
            if self._settings.stdio:  # there is one client, and it says in which era
                await server.open(self.tenant)
            else:
                await self._look(await server.warm(self.tenant))
        except (Refused, GuardError) as error:
            self._tell_of(server, error.__cause__ if isinstance(error.__cause__, GuardError) else error)

    async def _look(self, link: Link) -> None:
        """Say which of a server's tools will be refused."""
        await link.catalog.fresh()
        link.catalog.at(self.store.versions(link.tenant))
        if self._tells:
            tell_of(link.catalog.unpinned(), link.server.about.pin_command(link.tenant))

    def _tell_of(self, server: ToolServer, error: GuardError) -> None:
        if self._tells:
            say(f"{server.about.name}: {error.what}", error.remedy)

    async def serve(self, read_fd: int = 0, write_fd: int = 1) -> None:
        """Serve until a signal comes, or the client on stdio leaves."""
        on_signals(lambda: self._aside(self.reload()), signal.SIGHUP)
        if self._settings.watch and self._tells:
            self._watch = Watch(self._files, self._changed, since=self._looks)
            self._watch.start()
        if self._settings.stdio:
            conversation = named_or_inferred(self._settings.conversation)
            gate = Gate(self.house, lambda: self._identify(None)(), conversation)  # noqa: PLW0108 - a reload may change it
            await serve_pipes(gate, read_fd, write_fd, asyncio.Event())
            return
        stopped = asyncio.Event()
        on_signals(stopped.set, *STOPPING)
        if self._tells:
            several = f" with {self._worker.post.count} workers" if self._worker else ""
            say(f"serving {', '.join(self._settings.servers)} at {self.url}{several}")
            if not self._settings.loopback and self._settings.tls is None:
                say("keys travel in the clear", "give `tls`, or put something that speaks TLS in front")
        if self._worker is not None:
            asyncio.get_running_loop().add_reader(self._worker.parent, stopped.set)
            self._worker.begun()
        await stopped.wait()

    def _files(self) -> list[Path]:
        """Every file that a change of would be a reload."""
        return [self._path, *self._settings.policies.files()]

    async def _changed(self) -> None:
        """A file changed: read all again, in every worker."""
        if self._worker is None:
            await self.reload()
        else:
            os.kill(os.getppid(), signal.SIGHUP)

    async def close(self) -> None:
        """End what is under way, write what is owed, let go."""
        if self._watch is not None:
            await self._watch.stop()
        if self.listener is not None:
            self.front.finish()
            listeners = [self.listener, *self._more]
            await asyncio.gather(*(each.drain(DRAIN_SECONDS) for each in listeners))
            self.front.sessions.close()
            await asyncio.gather(*(each.close() for each in listeners))
            if self._relay is not None:
                self._relay.close()
        for task in [*self._beside]:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        servers = self.house.generation.servers.values()
        await asyncio.gather(*(server.close() for server in servers), return_exceptions=True)
        self.house.warden.close()
        await self.log.close()
        self.lease.release()
        self.store.close()

    def _aside(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    # -- reload --------------------------------------------------------------------------------

    async def reload(self) -> bool:
        """Read the configuration and the policy again, and let them hold from one moment on.

        Returns: whether they do; if not, the old ones hold, and standard error says why.
        """
        try:
            async with self._reloading:
                await self._reload(load_settings(self._path))
        except GuardError as error:
            say(f"not reloaded, the old configuration holds: {error}")
            return False
        say("reloaded")
        return True

    async def _reload(self, settings: Settings) -> None:
        old = self.house.generation
        if (settings.durability == LAX) != (self._settings.durability == LAX):
            raise GuardError(
                f"cannot change to or from `{LAX}` while Guard runs",
                where=f"{self._path}: durability",
                remedy="change it back, or start Guard again",
            )
        for name in _FIXED:
            if getattr(settings, name) != getattr(self._settings, name):
                raise GuardError(
                    "cannot change while Guard runs",
                    where=f"{self._path}: {name}",
                    remedy="change it back, or start Guard again",
                )
        policy = settings.policies.load()
        identify, tenant = who(settings, self.store)
        known = tenants(self.store)
        for one in known:
            check_policy(self.store, policy, definitions(self.store, one, settings.servers), tenant=one)
        parents = self._parents(settings)
        servers = {
            name: old.servers[name]
            if name in old.servers and one == self._settings.servers[name]
            else self._tool_server(name, one)
            for name, one in settings.servers.items()
        }
        # another worker may have recorded them by now
        records = [record for one in known for record in news(self.store, policy, one)]
        await self.house.replace(made.generation(settings, policy, servers, parents), records)
        before = self._settings
        self._settings, self._identify, self.tenant = settings, identify, tenant
        self.front.rules = self._rules(settings)
        self.front.sessions.most = settings.limits.sessions
        self.front.sessions.idle_seconds = settings.limits.session_idle_seconds
        self.front.refusals.per_minute = settings.limits.refusals_per_minute
        if self._tells:
            made.warn(policy, settings)
        for name, server in servers.items():
            if old.servers.get(name) is not server:
                self._aside(self._start(server))
        for name, server in old.servers.items():
            if servers.get(name) is not server:
                self._aside(server.drain(before.servers[name].timeout))

    def _rules(self, settings: Settings) -> Rules:
        port = self.listener.port if self.listener else settings.port
        return Rules(
            identify=self._identify,
            hosts=hosts(settings, port),
            origins=frozenset(settings.origins),
            local=settings.loopback,
            body_bytes=settings.limits.body_bytes,
            body_seconds=settings.limits.body_seconds,
            in_flight=settings.limits.in_flight,
        )


async def serve(path: Path, loaded: Loaded, worker: Worker | None = None) -> None:
    """Serve a configuration until told to stop.

    Args:
        path: the configuration.
        loaded: what it said.
        worker: which process this is of several; None where it is the only one.

    Raises:
        GuardError: it could not start; nothing was served.
    """
    settings = loaded.settings
    home = open_home(settings.home or default_home())
    store = home.store(lax=settings.durability == LAX, address=settings.address)
    try:
        serving = Serving(
            path.absolute(),  # noqa: ASYNC240 - before anything is served
            settings,
            home,
            store,
            policy=loaded.policy,
            worker=worker,
            looks=loaded.looks,
        )
    except BaseException:
        store.close()
        raise
    try:
        await serving.open()
        await serving.serve()
    finally:
        await serving.close()

"""`guard serve`: many tool servers behind one Guard, over HTTP or stdio, and its reload."""

from __future__ import annotations

import asyncio
import shlex
import signal
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from guard.config.home import DEFAULT_TENANT, Home, clock, default_home, open_home
from guard.config.launch import adopt_policy, check_policy, identity, load_policy, trusted
from guard.config.reach import reached
from guard.config.run import STOPPING, named_or_inferred, on_signals, serve_pipes
from guard.config.settings import FixedCaller, ServerSettings, Settings, load_settings
from guard.config.wiring import about, begin, definitions, say, tell_of, tenants, warn_of_role
from guard.core.errors import GuardError, Refused
from guard.core.model import Principal
from guard.identity.api_keys import authenticate
from guard.lineage.sqlite import SqliteStore
from guard.policy.rules import Policy
from guard.proxy import eras
from guard.proxy.documents import Published
from guard.proxy.house import Generation, House, policy_record
from guard.proxy.http import PATH, Front, Identify, Rules
from guard.proxy.links import ToolServer
from guard.proxy.listener import Bounds, Listener, listen
from guard.proxy.sessions import Sessions
from guard.proxy.world import Gate

DRAIN_SECONDS: Final = 10.0
_FIXED: Final = ("home", "listen", "tls")
"""What a reload cannot change."""


class Serving:
    """Everything that runs while a configuration is served.

    Args:
        path: the configuration's file, read again on a reload.
        settings: what it said at the start.
        home: Guard's folder.
        store: its store, opened.
    """

    def __init__(self, path: Path, settings: Settings, home: Home, store: SqliteStore) -> None:
        self.home = home
        self.store = store
        self.listener: Listener | None = None
        self._path = path
        self._settings = settings
        self._beside: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        policy = load_policy(settings.policy)
        self._identify, self.tenant = _who(settings, store)
        for tenant in tenants(store):
            adopt_policy(store, policy, definitions(store, tenant, settings.servers), tenant=tenant)
        parents = trusted([f"{one.issuer}={one.jwks}" for one in settings.trust], audience=home.name)
        _warn(policy, settings)
        servers = {name: self._tool_server(name, one) for name, one in settings.servers.items()}
        self.lease, self.log = begin(store, home)
        self.house = House(
            issuer=home.issuer(),
            log=self.log,
            instance=self.lease.instance,
            clock=clock,
            generation=_generation(settings, policy, servers, parents),
        )
        self.front = Front(
            self.house,
            rules=Rules(identify=self._identify, hosts=frozenset()),
            sessions=Sessions(settings.limits.sessions, settings.limits.session_idle_seconds),
            published=Published(home.name, home.keys.jwks(), home.vkey),
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
            pin_command=partial(_pin_command, self._path, name),
            shared=one.shared,
            idle_seconds=None if self._settings.stdio else one.idle_seconds,
            most=one.processes,
            let_go=let_go,
        )
        return ToolServer(known, on_change=lambda: self.house.tools_changed())  # noqa: PLW0108 - made before the house

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
                self.listener = await listen(self.front, settings.host, settings.port, bounds, _tls(settings))
            except OSError as error:
                raise GuardError(
                    f"cannot be bound: {error.strerror or error}",
                    where=f"{self._path}: listen",
                    remedy="is another program there already? give another port",
                ) from None
            self.front.rules = self._rules(settings)
        for server in self.house.generation.servers.values():
            self._aside(self._start(server))  # nobody waits for a slow one but its own callers

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
            if self._settings.stdio:
                link = server.link(self._identify(None)())
                await link.fresh()
            else:
                link = await server.warm(self.tenant)
        except Refused as refusal:
            cause = refusal.__cause__
            if isinstance(cause, GuardError):
                say(f"{server.about.name}: {cause.what}", cause.remedy)
            else:
                say(f"{server.about.name}: {refusal.what}")
            return
        link.catalog.at(self.store.versions(link.tenant))
        tell_of(link.catalog.unpinned(), server.about.pin_command(link.tenant))

    async def serve(self, read_fd: int = 0, write_fd: int = 1) -> None:
        """Serve until a signal comes, or the client on stdio leaves."""
        on_signals(lambda: self._aside(self.reload()), signal.SIGHUP)
        if self._settings.stdio:
            conversation = named_or_inferred(self._settings.conversation)
            gate = Gate(self.house, lambda: self._identify(None)(), conversation)  # noqa: PLW0108 - a reload may change it
            await serve_pipes(gate, read_fd, write_fd, asyncio.Event())
            return
        say(f"serving {', '.join(self._settings.servers)} at {self.url}")
        if not self._settings.loopback and self._settings.tls is None:
            say("keys travel in the clear", "give `tls`, or put something that speaks TLS in front")
        stopped = asyncio.Event()
        on_signals(stopped.set, *STOPPING)
        await stopped.wait()

    async def close(self) -> None:
        """End what is under way, write what is owed, let go."""
        if self.listener is not None:
            self.front.finish()
            await self.listener.drain(DRAIN_SECONDS)
            self.front.sessions.close()
            await self.listener.close()
        for task in [*self._beside]:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        servers = self.house.generation.servers.values()
        await asyncio.gather(*(server.close() for server in servers), return_exceptions=True)
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
        for name in _FIXED:
            if getattr(settings, name) != getattr(self._settings, name):
                raise GuardError(
                    "cannot change while Guard runs",
                    where=f"{self._path}: {name}",
                    remedy="change it back, or start Guard again",
                )
        policy = load_policy(settings.policy)
        identify, tenant = _who(settings, self.store)
        known = tenants(self.store)
        for one in known:
            check_policy(self.store, policy, definitions(self.store, one, settings.servers), tenant=one)
        parents = trusted([f"{one.issuer}={one.jwks}" for one in settings.trust], audience=self.home.name)
        servers = {
            name: old.servers[name]
            if name in old.servers and one == self._settings.servers[name]
            else self._tool_server(name, one)
            for name, one in settings.servers.items()
        }
        moved = policy.ref != old.policy.ref
        records = [policy_record(policy, one, clock()) for one in known] if moved else []
        await self.house.replace(_generation(settings, policy, servers, parents), records)
        before = self._settings
        self._settings, self._identify, self.tenant = settings, identify, tenant
        self.front.rules = self._rules(settings)
        self.front.sessions.most = settings.limits.sessions
        self.front.sessions.idle_seconds = settings.limits.session_idle_seconds
        self.front.refusals.per_minute = settings.limits.refusals_per_minute
        _warn(policy, settings)
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
            hosts=_hosts(settings, port),
            origins=frozenset(settings.origins),
            local=settings.loopback,
            body_bytes=settings.limits.body_bytes,
            body_seconds=settings.limits.body_seconds,
            in_flight=settings.limits.in_flight,
        )


def _generation(
    settings: Settings, policy: Policy, servers: Mapping[str, ToolServer], parents: tuple[Any, ...]
) -> Generation:
    return Generation(
        policy,
        servers,
        conversation=settings.conversation,
        strict=settings.durability == "strict",
        parents=parents,
    )


def _who(settings: Settings, store: SqliteStore) -> tuple[Identify, str]:
    """How callers are known, and the tenant that servers are started for before anybody calls.

    Over HTTP by the key in `Authorization`, read anew at each look (RFC 6750 section 2.1); on stdio by
    the launch. A fixed caller is one whatever the request says.
    """
    fixed = settings.identity if isinstance(settings.identity, FixedCaller) else None
    if fixed is not None or settings.stdio:
        by_launch, tenant = identity(
            store, role=fixed.role if fixed else None, principal=fixed.principal if fixed else None
        )
        return (lambda _: by_launch), tenant

    def by_bearer(value: str | None) -> Callable[[], Principal]:
        scheme, _, token = (value or "").partition(" ")
        text = token.strip(" ") if scheme.lower() == "bearer" else None
        return lambda: authenticate(text, store.api_key, clock() // 1000)

    return by_bearer, DEFAULT_TENANT


def _hosts(settings: Settings, port: int) -> frozenset[str]:
    """Values of `Host` that mean this Guard, with and without the port; on loopback its names too."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    names = [
        *settings.hosts,
        *(["localhost", "127.0.0.1", "[::1]", host.lower()] if settings.loopback else []),
    ]
    return frozenset(each for name in names for each in (name, f"{name}:{port}"))


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls.certificate, settings.tls.key)
    except (OSError, ssl.SSLError) as error:
        raise GuardError(
            f"certificate and key cannot be used: {error.strerror or error}",
            where=f"{settings.tls.certificate}",
            remedy="give two PEM files that belong together",
        ) from None
    return context


def _warn(policy: Policy, settings: Settings) -> None:
    if isinstance(settings.identity, FixedCaller):
        warn_of_role(policy, settings.identity.role)


def _pin_command(path: Path, name: str, tenant: str) -> str:
    whose = () if tenant == DEFAULT_TENANT else ("--tenant", tenant)
    return shlex.join(["guard", "pin", "--config", str(path), *whose, name])


async def serve(path: Path) -> None:
    """Serve a configuration until told to stop.

    Raises:
        GuardError: it could not start; nothing was served.
    """
    settings = load_settings(path)
    home = open_home(settings.home or default_home())
    store = home.store()
    try:
        serving = Serving(path.absolute(), settings, home, store)  # noqa: ASYNC240 - before anything is served
    except BaseException:
        store.close()
        raise
    try:
        await serving.open()
        await serving.serve()
    finally:
        await serving.close()

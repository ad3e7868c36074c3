"""Wire one guarded server to one client over stdio, and take it all down again."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from guard.config import stores
from guard.config.home import DEFAULT_TENANT, Home, clock, open_home
from guard.config.launch import environment, identity, server_name, trusted
from guard.config.policies import Policies, adopt_policy, check_policy, news, reads
from guard.config.watching import Watch
from guard.config.wiring import about, begin, definitions, say, settle, tell_of, warn_of_role
from guard.core.errors import GuardError, Refused
from guard.core.model import Conversation
from guard.lineage.store import Store
from guard.proxy import eras
from guard.proxy.binding import random_id
from guard.proxy.house import Generation, House
from guard.proxy.links import Link, ToolServer
from guard.proxy.process import Process
from guard.proxy.remembering import salt_of
from guard.proxy.sealing import Seal
from guard.proxy.stdio import Pipes
from guard.proxy.world import Gate

DRAIN_SECONDS: Final = 30.0
SIGNALLED_DRAIN_SECONDS: Final = 0.5
STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
SERVER_GONE: Final = 3
"""Exit code: the tool server ended, or could not be started."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What `guard run` was told.

    Attributes:
        home: Guard's folder.
        policies: the policies' files.
        command: the tool server's program and arguments.
        role: launch setting; None where an API key says who calls.
        principal: launch setting; None for the user's name.
        server: the operator's id of the server; None for one made of the command.
        audience: `aud` of its artifacts; None for the server's id.
        conversation: launch setting; None to mint one.
        env: further environment for the server, `NAME` or `NAME=VALUE`.
        strict: whether a result waits until its ending is durable.
        timeout: seconds that a call may take.
        pin: words of the command that accepts the server's tools, before its `--`.
        trust: issuers whose artifacts the client may present, `ISSUER=JWKS-FILE`.
        intents: what every call declares.
    """

    home: Path
    policies: Policies
    command: tuple[str, ...]
    role: str | None = None
    principal: str | None = None
    server: str | None = None
    audience: str | None = None
    conversation: str | None = None
    env: tuple[str, ...] = ()
    strict: bool = False
    timeout: float = 300.0
    pin: tuple[str, ...] = ("guard", "pin")
    trust: tuple[str, ...] = ()
    intents: tuple[str, ...] = ()

    @property
    def server_id(self) -> str:
        """The server's id."""
        return self.server or server_name(self.command)


class Guarded:
    """Everything that runs while one server is guarded."""

    def __init__(self, launch: Launch, home: Home, store: Store) -> None:
        self.home = home
        self.store = store
        self.gone = asyncio.Event()
        looks = reads(launch.policies.files())
        policy = launch.policies.load()
        identify, tenant = identity(store, role=launch.role, principal=launch.principal)
        warn_of_role(policy, identify().role)
        name = launch.server_id
        adopt_policy(store, policy, definitions(store, tenant, [name]), tenant=tenant)
        make = partial(Process, launch.command, env=environment(launch.env), timeout=launch.timeout)
        replay = stores.replay(store, home.path) if launch.trust else None
        parents = trusted(launch.trust, audience=home.name, replay=replay)
        self.lease, self.log = begin(store, home)
        known = about(
            name,
            make,
            audience=launch.audience or name,
            home=home,
            store=store,
            pin_command=partial(_pin_command, launch),
        )
        self.server = ToolServer(
            known,
            on_change=lambda: self.house.tools_changed(),  # noqa: PLW0108 - made before the house
            on_gone=self.gone.set,
            on_up=lambda link: self.server.aside(self._tell_of(link)),
            restarts=False,
        )
        self.house = House(
            issuer=home.issuer(),
            log=self.log,
            instance=self.lease.instance,
            clock=clock,
            generation=Generation(
                policy,
                {name: self.server},
                strict=launch.strict,
                parents=parents,
                intents=frozenset(launch.intents),
            ),
            seal=Seal(home.pairwise_secret),
            salt=salt_of(home.pairwise_secret),
        )
        self.gate = Gate(self.house, identify, named_or_inferred(launch.conversation))
        self._identify, self._tenant, self._launch = identify, tenant, launch
        self._watch = Watch(launch.policies.files, self.reload, since=looks)

    async def open(self) -> None:
        """Let the server begin to start; it is spoken to as the client speaks. Raises GuardError."""
        await asyncio.gather(self.server.open(self._tenant), asyncio.to_thread(eras.warm))
        settle()

    async def _tell_of(self, link: Link) -> None:
        with contextlib.suppress(Refused):
            await link.catalog.fresh()
            link.catalog.at(self.store.versions(link.tenant))
            tell_of(link.catalog.unpinned(), self.server.about.pin_command(link.tenant))

    async def serve(self, read_fd: int, write_fd: int) -> int:
        """Serve the client until it leaves, the server dies, or a signal comes. Returns the exit code.

        Raises:
            GuardError: the server could not be started.
        """
        self._watch.start()
        died = await serve_pipes(self.gate, read_fd, write_fd, self.gone)
        if not self.server.began:  # the client said nothing: does the server work?
            with contextlib.suppress(Refused):
                await self.server.link(self._identify()).fresh()
        if self.server.error is not None:
            raise self.server.error
        if died:
            say("the tool server ended")
        return SERVER_GONE if died else 0

    async def reload(self) -> bool:
        """Read the policies again, and let them hold from one moment on.

        Returns: whether they do; if not, the old ones hold, and standard error says why.
        """
        generation, name = self.house.generation, self.server.about.name
        try:
            policy = self._launch.policies.load()
            check_policy(
                self.store, policy, definitions(self.store, self._tenant, [name]), tenant=self._tenant
            )
            records = news(self.store, policy, self._tenant)
            await self.house.replace(replace(generation, policy=policy), records)
        except GuardError as error:
            say(f"not reloaded, the old policy holds: {error}")
            return False
        say("reloaded")
        return True

    async def close(self) -> None:
        """Stop the server, write what is owed, let go."""
        await self._watch.stop()
        await self.server.close()
        self.house.warden.close()
        await self.log.close()
        self.lease.release()
        self.store.close()


def named_or_inferred(conversation: str | None) -> Conversation:
    """The conversation of a launch: the one that it names, else a fresh one."""
    if conversation is not None:
        return Conversation(conversation, "launch")
    return Conversation(random_id(), "inferred")


async def serve_pipes(gate: Gate, read_fd: int, write_fd: int, gone: asyncio.Event) -> bool:
    """Serve one client on these descriptors until it leaves, `gone` is set, or a signal comes.

    Returns: whether it ended because `gone` was set.
    """
    pipes = Pipes(gate)
    stopped = asyncio.Event()
    on_signals(stopped.set, *STOPPING)
    await pipes.open(read_fd, write_fd)
    waits = [asyncio.ensure_future(wait) for wait in (stopped.wait(), gone.wait(), pipes.closed)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    died = gone.is_set() and not stopped.is_set() and not pipes.closed.done()
    await pipes.drain(SIGNALLED_DRAIN_SECONDS if stopped.is_set() else DRAIN_SECONDS)
    await pipes.close()
    return died


def on_signals(act: Callable[[], None], *signals: signal.Signals) -> None:
    """Act on these signals. A loop that cannot hear them raises: a Guard that is deaf to them is none."""
    loop = asyncio.get_running_loop()
    for signum in signals:
        loop.add_signal_handler(signum, act)


async def run(launch: Launch, read_fd: int = 0, write_fd: int = 1) -> int:
    """Guard one server for the client on these descriptors. Returns the exit code.

    Raises:
        GuardError: it could not start; nothing was served.
    """
    home = open_home(launch.home)
    store = home.store()
    try:
        guarded = Guarded(launch, home, store)
    except BaseException:
        store.close()
        raise
    try:
        await guarded.open()
        return await guarded.serve(read_fd, write_fd)
    finally:
        await guarded.close()


def _pin_command(launch: Launch, tenant: str) -> str:
    """The very command that accepts the server's tools for this tenant."""
    whose = () if tenant == DEFAULT_TENANT else ("--tenant", tenant)
    return shlex.join([*launch.pin, *whose, "--", *launch.command])

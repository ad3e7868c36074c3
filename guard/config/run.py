"""Wire one guarded server to one client over stdio, and take it all down again."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guard.config.home import DEFAULT_TENANT, Home, clock, close_abandoned, open_home
from guard.config.launch import adopt_policy, environment, identity, load_policy, server_name, trusted
from guard.core.errors import Refused, printable
from guard.core.model import Pin, Tool
from guard.lineage.lease import Lease
from guard.lineage.log import Log
from guard.lineage.sqlite import SqliteStore
from guard.policy.findings import nearest
from guard.policy.rules import Policy
from guard.proxy import eras
from guard.proxy.catalog import Catalog
from guard.proxy.server import Session
from guard.proxy.stdio import Pipes
from guard.proxy.upstream import ServerError, Upstream
from guard.proxy.world import Gate, Setting

DRAIN_SECONDS: Final = 30.0
SIGNALLED_DRAIN_SECONDS: Final = 0.5
SERVER_GONE: Final = 3
"""Exit code: the tool server ended, or could not be started."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What `guard run` was told.

    Attributes:
        home: Guard's folder.
        policy: the policy's file.
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
    """

    home: Path
    policy: Path
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

    @property
    def server_id(self) -> str:
        """The server's id."""
        return self.server or server_name(self.command)


class Guarded:
    """Everything that runs while one server is guarded."""

    def __init__(self, launch: Launch, home: Home, store: SqliteStore) -> None:
        self.home = home
        self.store = store
        self.gone = asyncio.Event()
        self._pipes: Pipes | None = None
        policy = load_policy(launch.policy)
        identify, tenant = identity(store, role=launch.role, principal=launch.principal)
        _warn_of_role(policy, identify().role)
        self.upstream = Upstream(
            launch.command,
            env=environment(launch.env),
            timeout=launch.timeout,
            on_list_changed=self._tools_changed,
            on_gone=self.gone.set,
            on_pressure=self._pressure,
        )
        self.catalog = Catalog(
            launch.server_id,
            read_pins=lambda: store.pins(tenant, launch.server_id),
            list_tools=self.upstream.list_tools,
        )
        self.catalog.at(store.versions(tenant))
        adopt_policy(store, policy, self.catalog.definitions(), tenant=tenant)
        self.lease = Lease(home.path / "run")
        close_abandoned(store, self.lease)
        self.log = Log(store, on_failure=_log_failed)
        audience = launch.audience or launch.server_id
        setting = Setting(
            audience=audience,
            instance=self.lease.instance,
            pin_command=_pin_command(launch, tenant),
            conversation=launch.conversation,
            strict=launch.strict,
        )
        self.gate = Gate(
            setting,
            policy=policy,
            identify=identify,
            catalog=self.catalog,
            issuer=home.issuer(),
            verifier=home.gate_verifier(audience),
            log=self.log,
            upstream=self.upstream,
            clock=clock,
            parents=trusted(launch.trust, audience=home.name),
        )

    async def open(self) -> None:
        """Start the server and look at its tools. Raises GuardError."""
        await asyncio.gather(self.upstream.start(), asyncio.to_thread(eras.warm))
        with contextlib.suppress(Refused):
            await self.catalog.fresh()
        _tell_of(self.catalog.unpinned(), self.gate.setting.pin_command)

    async def serve(self, read_fd: int, write_fd: int) -> int:
        """Serve the client until it leaves, the server dies, or a signal comes. Returns the exit code."""
        self._pipes = Pipes(lambda write, busy: Session(self.gate, write, busy))
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(signum, stopped.set)
        await self._pipes.open(read_fd, write_fd)
        waits = [
            asyncio.ensure_future(wait) for wait in (stopped.wait(), self.gone.wait(), self._pipes.closed)
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        died = self.gone.is_set() and not stopped.is_set() and not self._pipes.closed.done()
        await self._pipes.session.drain(SIGNALLED_DRAIN_SECONDS if stopped.is_set() else DRAIN_SECONDS)
        await self._pipes.close()
        if died:
            _say("the tool server ended")
        return SERVER_GONE if died else 0

    async def close(self) -> None:
        """Stop the server, write what is owed, let go."""
        await self.upstream.stop()
        await self.log.close()
        self.lease.release()
        self.store.close()

    def _tools_changed(self) -> None:
        if self._pipes is not None:
            self._pipes.session.tools_changed()
        else:
            self.catalog.forget()

    def _pressure(self, on: bool) -> None:  # noqa: FBT001 - called by those who have one thing to tell
        if self._pipes is not None:
            self._pipes.hold(on)


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


async def look(command: Sequence[str], env: Sequence[str]) -> tuple[Upstream, list[dict[str, object]]]:
    """Start a server, ask for its tools, stop it. Raises GuardError."""
    upstream = Upstream(command, env=environment(env))
    try:
        await upstream.start()
        return upstream, await upstream.list_tools()
    except Refused as refusal:
        raise ServerError(refusal.what, where=printable(" ".join(command))) from None
    finally:
        await upstream.stop()


def _pin_command(launch: Launch, tenant: str) -> str:
    """The very command that accepts the server's tools for this tenant."""
    whose = () if tenant == DEFAULT_TENANT else ("--tenant", tenant)
    return shlex.join([*launch.pin, *whose, "--", *launch.command])


def _warn_of_role(policy: Policy, role: str) -> None:
    if not policy.role_exists(role):
        what = f"the policy has no role {printable(role)}, every call will be denied"
        _say(what, nearest(role, policy.roles))


def _tell_of(tools: Sequence[Tool], pin_command: str) -> None:
    """Name the tools that will be refused for want of a pin."""
    for pin, state in ((Pin.UNPINNED, "not pinned"), (Pin.CHANGED, "not as they were pinned")):
        names = ", ".join(printable(tool.name) for tool in tools if tool.pin is pin)
        if names:
            _say(f"these tools are {state} and will be refused: {names}", pin_command)


def _log_failed(error: BaseException) -> None:
    what = f"the lineage cannot be written, every call is denied: {printable(str(error))}"
    _say(what, "mend the disk or the file, then start Guard again")


def _say(what: str, remedy: str = "") -> None:
    hint = f"\n  next: {remedy}" if remedy else ""
    print(f"guard: {what}{hint}", file=sys.stderr, flush=True)  # noqa: T201 - stdout is the client's

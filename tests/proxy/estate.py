"""An estate: several tool servers, over stdio and HTTP, behind one Guard that serves HTTP or stdio.

Guard runs in this process with a real store and a real listener; every tool server is a process.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guard.config.home import open_home, record
from guard.config.serve import Serving
from guard.config.settings import load_settings
from guard.core.canonical import write
from guard.identity.api_keys import mint
from guard.lineage.entry import Kind
from guard.lineage.store import RevokeKey, SaveKey, SavePins
from guard.proxy.catalog import listed, rows
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import MODERN, PATIENCE, POLICY, PYTHON, SERVERS, TOOLS, Client, Kept, serving


@dataclass
class Server:
    """One scripted tool server.

    Attributes:
        name: the operator's id of it.
        era: "modern" or "legacy".
        over: "stdio" or "http".
        answers: what it makes of each call; None to echo.
        tools: what it shows.
        settings: further fields of its configuration.
        flags: further flags of the scripted server.
    """

    name: str
    era: str = "modern"
    over: str = "stdio"
    answers: Sequence[Sequence[Any]] | None = None
    tools: list[dict[str, Any]] = field(default_factory=lambda: [dict(each) for each in TOOLS])
    settings: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


class Estate(Kept):
    """Everything around one Guard that serves a configuration.

    Args:
        folder: where its files are.
        servers: the tool servers; one modern one over stdio if none is given.
        policy: the policy's members.
        settings: further fields of `guard.yaml`. Calls need a key unless `identity` is given here.
    """

    def __init__(
        self, folder: Path, *servers: Server, policy: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.home = folder / "home"
        self.config = folder / "guard.yaml"
        self.servers = {server.name: server for server in servers or (Server("server"),)}
        self.policy = dict(POLICY) if policy is None else policy
        self.settings = {"listen": "127.0.0.1:0", **settings}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.serving: Serving | None = None
        for server in self.servers.values():
            self.log(server.name).touch()
            self.show(server.name, server.tools)
        self.write_policy()

    # -- the files around it -------------------------------------------------------------------

    def log(self, name: str) -> Path:
        """What reached a server, one line of JSON each."""
        return self.folder / f"{name}.jsonl"

    def show(self, name: str, tools: list[dict[str, Any]]) -> None:
        """What a server lists from now on."""
        new = self.folder / f"{name}.tools.new"
        new.write_text(json.dumps(tools))
        new.replace(self.folder / f"{name}.tools.json")

    def write_policy(self, **members: Any) -> None:
        """Write the policy, with some members changed."""
        self.policy |= members
        (self.folder / "policy.json").write_bytes(write(self.policy))

    def write_config(self, **settings: Any) -> None:
        """Write `guard.yaml`, with some fields changed; servers over HTTP must run by then."""
        self.settings |= settings
        servers = {name: self._reached(server) for name, server in self.servers.items()}
        value = {"guard": 1, "home": "home", "policy": "policy.json", "servers": servers, **self.settings}
        self.config.write_text(json.dumps(value))

    def _reached(self, server: Server) -> dict[str, Any]:
        if server.over == "http":
            port = (self.folder / f"{server.name}.port").read_text().strip()
            return {"url": f"http://127.0.0.1:{port}/mcp", **server.settings}
        return {"command": self._words(server), **server.settings}

    def _words(self, server: Server) -> list[str]:
        script = "scripted.py" if server.over == "stdio" else "scripted_http.py"
        words = [*PYTHON, str(SERVERS / script), "--log", str(self.log(server.name)), "--era", server.era]
        words += ["--tools", str(self.folder / f"{server.name}.tools.json"), *server.flags]
        if server.over == "http":
            words += ["--port-file", str(self.folder / f"{server.name}.port")]
        if server.answers is not None:
            path = self.folder / f"{server.name}.answers.json"
            path.write_text(json.dumps(server.answers))
            words += ["--answers", str(path)]
        return words

    def run(self, name: str) -> None:
        """Start a server over HTTP, and wait for its port."""
        port = self.folder / f"{name}.port"
        port.unlink(missing_ok=True)
        self.processes[name] = subprocess.Popen(self._words(self.servers[name]))
        end = time.monotonic() + PATIENCE
        while not port.exists():
            assert time.monotonic() < end, "the scripted server did not start"
            assert self.processes[name].poll() is None, "the scripted server ended"
            time.sleep(0.01)

    def ask_again(self) -> None:
        """Guard no longer trusts what it knows of the servers' tools."""
        assert self.serving is not None
        for server in self.serving.house.generation.servers.values():
            for link in server._links.values():
                link.catalog.forget()

    def kill(self, name: str) -> None:
        """Kill a server over HTTP."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Every server over HTTP runs."""
        try:
            for server in self.servers.values():
                if server.over == "http" and server.name not in self.processes:
                    self.run(server.name)
            yield
        finally:
            for name in [*self.processes]:
                self.kill(name)

    # -- what an operator does -----------------------------------------------------------------

    def pin(
        self, name: str | None = None, tools: list[dict[str, Any]] | None = None, tenant: str = "default"
    ) -> None:
        """Accept what a server shows; of every server, if none is named."""
        with self.store() as store:
            for server in [self.servers[name]] if name else self.servers.values():
                pins = rows(listed(server.tools if tools is None else tools).values(), None)
                record(store, Kind.PIN, {"server": server.name}, SavePins(server.name, pins), tenant=tenant)

    def key(self, principal: str = "someone", role: str = "caller", tenant: str = "default") -> str:
        """Mint an API key."""
        text, made = mint(os.urandom(30), tenant=tenant, principal=principal, role=role, created=0)
        with self.store() as store:
            record(store, Kind.API_KEY, {"key_id": made.key_id}, SaveKey(made), tenant=tenant)
        return text

    def revoke(self, key: str) -> None:
        """End an API key."""
        key_id = key.split("_")[1]
        with self.store() as store:
            record(store, Kind.REVOKED, {"key_id": key_id}, RevokeKey(key_id))

    # -- Guard ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def guarded(self, **settings: Any) -> AsyncIterator[Serving]:
        """Guard, serving HTTP; the tool servers over HTTP run."""
        with self.running():
            self.write_config(**settings)
            home = open_home(self.home)
            found = load_settings(self.config)
            store = home.store()
            try:
                self.serving = Serving(self.config, found, home, store)
            except BaseException:
                store.close()
                raise
            try:
                await self.serving.open()
                yield self.serving
            finally:
                await asyncio.wait_for(self.serving.close(), PATIENCE)

    def client(self, version: str = MODERN, key: str | None = None) -> RawHttp:
        """A raw client of the running Guard."""
        assert self.serving is not None
        assert self.serving.listener is not None
        return RawHttp(self.serving.listener.port, version=version, key=key)

    @asynccontextmanager
    async def over_stdio(self, version: str = MODERN, **settings: Any) -> AsyncIterator[Client]:
        """Guard, serving stdio, and a raw client that has said hello. The caller is fixed."""
        fixed = {"listen": "stdio", "identity": {"role": "caller", "principal": "someone"}}
        async with self.guarded(**fixed, **settings) as found, serving(found, version) as client:
            yield client

    # -- what came of it -----------------------------------------------------------------------

    def received(self, name: str | None = None, method: str = "tools/call") -> list[dict[str, Any]]:
        """Every message of that method that reached a server; of all, if none is named."""
        names = [name] if name else [*self.servers]
        lines = [
            line for each in names for line in self.log(each).read_bytes().rpartition(b"\n")[0].splitlines()
        ]
        return [message for line in lines if (message := json.loads(line)).get("method") == method]

"""Several replicas of one lineage, a round-robin in front of them, and a tool server that writes down.

Each replica is a process with a tool server of its own; all tool servers write one record.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

from guard.config.home import open_home, record
from guard.identity.api_keys import mint
from guard.lineage.entry import Kind
from guard.lineage.store import SaveKey, SavePins
from guard.proxy.catalog import listed, rows
from tests.faults.load import Load
from tests.faults.replica import PATIENCE, Replica
from tests.faults.sites import DatabaseSite, FileSite
from tests.faults.verdict import LIMITED, Verdict
from tests.faults.ways import Address, Way
from tests.servers.recorder import TOOLS

RECORDER: Final = Path(__file__).parents[1] / "servers" / "recorder.py"
SERVER: Final = "recorder"
POLICY: Final = {
    "guard": 1,
    "id": "faults",
    "version": 1,
    "roles": {"agent": {"scopes": ["use"], "may_assert_conversations": True}},
    "tools": [{"match": "*", "scopes": ["use"]}],
}
LIMIT: Final = 5
"""How many calls of the one tool that is limited a caller has, unless a test says otherwise."""
TURNS: Final = 80
"""Calls after which the next caller comes, so that limits are drawn on all the time."""


def limited(calls: int) -> dict[str, Any]:
    """A limit on one tool, for each caller, in a window that no test outlives."""
    return {"id": "few", "tools": [LIMITED], "per": "principal", "calls": calls, "window": "1d"}


class Fleet:
    """Replicas of one lineage.

    Args:
        folder: where everything is.
        replicas: how many.
        database: the URL of a PostgreSQL database of the fleet's own; None for one SQLite file.
        limit: how many calls of the tool LIMITED each caller may have.
        callers: how many principals have an API key.
        home: Guard's folder, if it is to be elsewhere.
        before: words before the command of each replica.
        ways: whether each replica has a way of its own to the database, that a test may cut.
        settings: further fields of each configuration.
    """

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 3,
        database: str | None = None,
        limit: int = LIMIT,
        callers: int = 4,
        home: Path | None = None,
        before: Sequence[str] = (),
        ways: bool = False,
        **settings: Any,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.home = home or folder / "home"
        self.log = folder / "log"
        self.log.touch()
        self._before = before
        policy = {**POLICY, "limits": [limited(limit)]}
        (folder / "policy.json").write_text(json.dumps(policy))
        open_home(self.home)
        self.site = (
            FileSite(self.home)
            if database is None
            else DatabaseSite(self.home, database, replicas, ways=ways)
        )
        self.book = self.site.book
        self.keys = [self._key(f"caller-{number}") for number in range(callers)]
        self._pin()
        self.way = Way(self._alive)
        self.loads: list[Load] = []
        self._numbers = count()
        self.replicas = [self._replica(number, settings) for number in range(replicas)]
        self.verdict = Verdict(self.book, self.log, limit=limit)

    def settle(self, what: str) -> None:
        """All replicas have ended: everything must hold. The figures are kept under this name."""
        for replica in self.replicas:
            assert "Traceback" not in replica.heard(), replica.heard()[:4000]
        self.verdict.settle(*self.loads)
        self.verdict.write(f"{what}-{self.site.kind}")

    def _replica(self, number: int, settings: dict[str, Any]) -> Replica:
        words = [sys.executable, "-I", "-S", str(RECORDER), "--log", str(self.log), "--delay", "0.02"]
        config = {
            "guard": 1,
            "policy": str(self.folder / "policy.json"),
            "listen": "127.0.0.1:0",
            "servers": {SERVER: {"command": words, "shared": True}},
            **self.site.settings(number),
            **settings,
        }
        return Replica(self.folder / f"replica-{number}", config, self._before, self.site.way(number))

    async def sequencer(self, *, but: Replica | None = None) -> Replica:
        """The replica that numbers the entries, as soon as there is one that serves and is not `but`."""
        end = time.monotonic() + PATIENCE
        while True:
            number = await asyncio.to_thread(self.site.sequencer)
            found = None if number is None else self.replicas[number]
            if found is not None and found is not but and found.address is not None:
                return found
            assert time.monotonic() < end, "nobody is the sequencer"
            await asyncio.sleep(0.02)

    def hang_up(self, replica: Replica) -> None:
        """End every session of a replica at the database; it is not told."""
        self.site.hang_up(self.replicas.index(replica))

    async def serving(self) -> list[Replica]:
        """Those that serve; at least one."""
        end = time.monotonic() + PATIENCE
        while not (found := [one for one in self.replicas if one.address is not None]):
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
        return found

    def _alive(self) -> list[Address]:
        return [one.address for one in self.replicas if one.address is not None]

    def _key(self, principal: str) -> str:
        text, made = mint(os.urandom(30), tenant="default", principal=principal, role="agent", created=0)
        with self.book.store() as store:
            record(store, Kind.API_KEY, {"key_id": made.key_id}, SaveKey(made))
        return text

    def _pin(self) -> None:
        pins = rows(listed(TOOLS).values(), None)
        with self.book.store() as store:
            record(store, Kind.PIN, {"server": SERVER}, SavePins(SERVER, pins))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Fleet]:
        """Every replica serves; at the end all of them have ended."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.way.running())
            try:
                for number, replica in enumerate(self.replicas):
                    if replica.way is not None:
                        await stack.enter_async_context(replica.way.running())
                        replica.config |= self.site.settings(number)  # its port is known now
                    replica.begin()
                await asyncio.gather(*(replica.serving() for replica in self.replicas))
                yield self
                living = [one for one in self.replicas if one.process is not None]
                await asyncio.gather(*(one.stop() for one in living))
            finally:
                for replica in self.replicas:
                    replica.kill()

    def load(self, conversations: int = 64, *, think: float = 0.0, turns: int = 0) -> Load:
        """Load on all of them, call by call in turn."""
        return self._load(lambda: self.way.port, conversations, think, turns)

    def load_on(self, replica: Replica, conversations: int) -> Load:
        """Load on one of them."""
        assert replica.address is not None
        port = replica.address[1]
        return self._load(lambda: port, conversations, 0.0, 0)

    def _load(self, port: Callable[[], int], conversations: int, think: float, turns: int) -> Load:
        load = Load(port, self.keys, conversations, think=think, turns=turns, numbers=self._numbers)
        self.loads.append(load)
        return load

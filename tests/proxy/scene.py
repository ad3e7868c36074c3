"""A scene: a home, a policy, a tool server that writes down what reaches it, and Guard between.

Guard runs in this process, on real pipes, with a real store; the tool server is a real process.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from guard.config.home import open_home, record
from guard.config.policies import Policies
from guard.config.run import Guarded, Launch
from guard.config.serve import Serving
from guard.core.canonical import write
from guard.lineage.audit import Report, audit, readable
from guard.lineage.checkpoint import parse_vkey
from guard.lineage.entry import ENDINGS, Kind
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import SavePins
from guard.proxy.catalog import listed, rows

SERVERS: Final = Path(__file__).parents[1] / "servers"
PYTHON: Final = (sys.executable, "-I", "-S")
SERVER: Final = "server"
PIN: Final = ("guard", "pin", "--server", "server")
MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"
PATIENCE: Final = 20.0
ENVELOPE: Final[Mapping[str, Any]] = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def tool(name: str, **more: Any) -> dict[str, Any]:
    properties = {"text": {"type": "string"}, "n": {"type": "integer"}}
    schema = {"type": "object", "properties": properties}
    return {"name": name, "description": f"The tool {name}.", "inputSchema": schema, **more}


TOOLS: Final = [tool("echo"), tool("slow"), tool("fail"), tool("hidden"), tool("unlisted")]
POLICY: Final[Mapping[str, Any]] = {
    "guard": 1,
    "id": "scene",
    "version": 1,
    "roles": {
        "caller": {"scopes": ["use"]},
        "powerful": {"scopes": ["use", "more"], "may_assert_conversations": True},
    },
    "tools": [
        {"match": "echo", "scopes": ["use"]},
        {"match": "slow", "scopes": ["use"]},
        {"match": "fail", "scopes": ["use"]},
        {"match": "hidden", "scopes": ["more"]},
    ],
    "intents": [
        {
            "id": "short-text",
            "tools": ["echo"],
            "schema": {"properties": {"text": {"maxLength": 100_000}}},
        }
    ],
    "protected": [
        {
            "id": "never-thirteen",
            "tools": ["echo"],
            "schema": {"required": ["n"], "properties": {"n": {"const": 13}}},
        }
    ],
}


class Client:
    """A client that says exactly what it is told to say, and reads raw lines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport, version: str) -> None:
        self.version = version
        self.notifications: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self._reader = reader
        self._writer = writer
        self._ids = count(1)
        self._answers: dict[Any, dict[str, Any]] = {}

    @property
    def modern(self) -> bool:
        return self.version == MODERN

    def say(self, message: bytes | Mapping[str, Any]) -> None:
        self._writer.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")

    def request(self, method: str, params: Mapping[str, Any] | None = None, *, id_: Any = None) -> Any:
        """Send a request of this client's era; its id."""
        params = dict(params or {})
        if self.modern:
            params["_meta"] = {**ENVELOPE, **params.get("_meta", {})}
        id_ = next(self._ids) if id_ is None else id_
        self.say({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
        return id_

    async def hear(self) -> dict[str, Any]:
        """The next message."""
        line = await asyncio.wait_for(self._reader.readline(), PATIENCE)
        if not line:
            raise EOFError("Guard closed the pipe")
        self.raw.append(line)
        found = json.loads(line)
        assert isinstance(found, dict)
        return found

    async def answer(self, id_: Any) -> dict[str, Any]:
        """The response to a request, whenever it comes; notifications are kept."""
        while id_ not in self._answers:
            message = await self.hear()
            if "method" in message:
                self.notifications.append(message)
            else:
                assert message["id"] not in self._answers, "answered twice"
                self._answers[message["id"]] = message
        return self._answers.pop(id_)

    async def ask(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await self.answer(self.request(method, params))

    async def call(self, name: str = "echo", /, **arguments: Any) -> dict[str, Any]:
        """Call a tool; the whole response."""
        return await self.ask("tools/call", {"name": name, "arguments": arguments})

    async def greet(self) -> dict[str, Any]:
        """The handshake, for a client of that era."""
        found = await self.ask(
            "initialize",
            {
                "protocolVersion": self.version,
                "capabilities": {},
                "clientInfo": {"name": "tests", "version": "1"},
            },
        )
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return found

    async def silent(self) -> None:
        """Nothing more comes: whatever was sent before has been answered, and a ping's answer is next."""
        if self.modern:
            message = await self.ask("ping")
            assert message["error"]["code"] == -32601
        else:
            assert (await self.ask("ping"))["result"] == {}
        assert self._answers == {}

    def leave(self) -> None:
        self._writer.close()


def decision(response: Mapping[str, Any]) -> dict[str, Any]:
    """What Guard says of a call that it did not let through, or whose result it withholds."""
    found = response["result"]
    assert found["isError"] is True
    assert "structuredContent" not in found
    about = found["_meta"]["dev.guard-mcp/decision"]
    assert isinstance(about, dict)
    return about


def reason(response: Mapping[str, Any]) -> str:
    return str(decision(response)["reason"])


class Kept:
    """What a Guard wrote down, read afterwards.

    Attributes:
        home: Guard's folder.
    """

    home: Path

    @contextmanager
    def store(self) -> Iterator[SqliteStore]:
        with closing(open_home(self.home).store()) as store:
            yield store

    def report(self) -> Report:
        home = open_home(self.home)
        return audit(self.home / "guard.db", [parse_vkey(home.vkey)])

    def entries(self, *kinds: Kind) -> list[dict[str, Any]]:
        """The lineage, opened."""
        with self.store() as store:
            found = [readable(row) for row in store.entries()]
        return [entry for entry in found if not kinds or entry["kind"] in kinds]

    def contained(self) -> list[str]:
        with self.store() as store:
            return [row["kind"] for row in store.contained("default")]

    def settled(self) -> dict[str, list[str]]:
        """For each call its entries, after a restart; the lineage is sound, each grant has one ending."""
        with self.store() as store:
            from guard.config.home import close_abandoned
            from guard.lineage.lease import Lease

            lease = Lease(self.home / "run")
            close_abandoned(store, lease)
            lease.release()
        report = self.report()
        assert report.findings == []
        assert report.open == []
        calls: dict[str, list[str]] = {}
        for entry in self.entries():
            if entry["call"]:
                calls.setdefault(entry["call"], []).append(entry["kind"])
        for kinds in calls.values():
            assert sum(kind in ENDINGS for kind in kinds) == kinds.count("granted") <= 1, kinds
        return calls


@dataclass
class Scene(Kept):
    """Everything around one guarded server.

    Attributes:
        folder: where its files are.
        era: the server's.
        answers: what the server makes of each call; None to echo.
        tools: what it shows.
        policy: the policy's members.
    """

    folder: Path
    era: str = "modern"
    answers: Sequence[Sequence[Any]] | None = None
    tools: list[dict[str, Any]] = field(default_factory=lambda: [dict(each) for each in TOOLS])
    policy: dict[str, Any] = field(default_factory=lambda: dict(POLICY))
    version: str | None = None
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.home = self.folder / "home"
        self.log = self.folder / "received.jsonl"
        self.log.touch()
        self.show(self.tools)
        self.write_policy()
        if not self.command:
            words = [*PYTHON, str(SERVERS / "scripted.py"), "--log", str(self.log), "--era", self.era]
            words += ["--tools", str(self.folder / "tools.json")]
            if self.version is not None:
                words += ["--version", self.version]
            if self.answers is not None:
                (self.folder / "answers.json").write_text(json.dumps(self.answers))
                words += ["--answers", str(self.folder / "answers.json")]
            self.command = tuple(words)

    def show(self, tools: list[dict[str, Any]]) -> None:
        """What the server lists from now on."""
        (self.folder / "tools.json").write_text(json.dumps(tools))

    def write_policy(self, **members: Any) -> None:
        self.policy |= members
        (self.folder / "policy.json").write_bytes(write(self.policy))

    def launch(self, **members: Any) -> Launch:
        given = {
            "home": self.home,
            "policies": Policies((self.folder / "policy.json",)),
            "command": self.command,
            "role": "caller",
            "principal": "someone",
            "server": SERVER,
            "conversation": "talk",
            "timeout": 10.0,
            "pin": PIN,
        }
        return Launch(**{**given, **members})

    def pin(self, tools: list[dict[str, Any]] | None = None) -> None:
        """Accept what the server shows."""
        pins = rows(listed(self.tools if tools is None else tools).values(), None)
        with self.store() as store:
            record(store, Kind.PIN, {"server": SERVER}, SavePins(SERVER, pins))

    @asynccontextmanager
    async def guarded(
        self, version: str = MODERN, *, wrap: Callable[[Guarded], None] = lambda _: None, **launch: Any
    ) -> AsyncIterator[Client]:
        """Guard, running, and a client that has said hello."""
        home = open_home(self.home)
        store = home.store()
        try:
            guarded = Guarded(self.launch(**launch), home, store)
        except BaseException:
            store.close()
            raise
        try:
            await guarded.open()
            wrap(guarded)
            async with serving(guarded, version) as client:
                yield client
        finally:
            await guarded.close()

    # -- what came of it -----------------------------------------------------------------------

    def received(self, method: str = "tools/call") -> list[dict[str, Any]]:
        """Every message of that method that reached the server."""
        messages = [json.loads(line) for line in self.log.read_bytes().splitlines()]
        return [message for message in messages if message.get("method") == method]


@asynccontextmanager
async def serving(guarded: Guarded | Serving, version: str) -> AsyncIterator[Client]:
    loop = asyncio.get_running_loop()
    (from_client, client_out), (client_in, to_client) = os.pipe(), os.pipe()
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    source, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(client_in, "rb", 0)
    )
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(client_out, "wb", 0))
    serve = asyncio.ensure_future(guarded.serve(from_client, to_client))
    client = Client(reader, writer, version)
    try:
        if not client.modern:
            await client.greet()
        yield client
    finally:
        client.leave()
        await asyncio.wait_for(serve, PATIENCE)
        source.close()

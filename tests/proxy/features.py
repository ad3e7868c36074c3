"""Clients and servers that have every feature, in the same era, over either transport on either side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, Self

import pytest

from guard.artifact.replay import MemoryReplay
from guard.artifact.verify import VerifiedGrant, Verifier
from guard.config.home import open_home
from guard.lineage.entry import Kind
from tests.proxy.estate import Estate, Server
from tests.proxy.raw_http import SSE, Connection, RawHttp, Stream
from tests.proxy.scene import ENVELOPE, LEGACY, MODERN, PATIENCE, PYTHON, SERVERS, Client, serving, tool

META: Final = "io.modelcontextprotocol/"
OWN: Final = "dev.guard-mcp/"
ARTIFACT: Final = f"{OWN}authorization"
WAYS: Final = pytest.mark.parametrize(
    ("by", "over"), [("stdio", "stdio"), ("stdio", "http"), ("http", "stdio"), ("http", "http")]
)
"""How the client reaches Guard, and Guard the server."""
ERAS: Final = pytest.mark.parametrize("version", [MODERN, LEGACY], ids=["modern", "handshake"])
MANY: Final = pytest.mark.parametrize("many", [False, True], ids=["one", "two"])
OVERS: Final = pytest.mark.parametrize("over", ["stdio", "http"])
BYS: Final = pytest.mark.parametrize("by", ["stdio", "http"])

CAPABILITIES: Final = {
    "tools": {},
    "prompts": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True},
    "completions": {},
    "logging": {},
}
EVERYTHING: Final[Mapping[str, Any]] = {
    "sampling": {},
    "elicitation": {"form": {}, "url": {}},
    "roots": {"listChanged": True},
}
"""What a client can do."""
TOOLS: Final = [tool("do", inputSchema={"type": "object"}), tool("echo")]
POLICY: Final[Mapping[str, Any]] = {
    "guard": 1,
    "id": "features",
    "version": 1,
    "roles": {
        "caller": {"scopes": ["use"]},
        "powerful": {"scopes": ["use", "more"]},
        "nobody": {"scopes": []},
    },
    "tools": [{"match": "do", "scopes": ["use"]}, {"match": "echo", "scopes": ["use"]}],
    "prompts": [{"match": "hello", "scopes": ["use"]}, {"match": "secret", "scopes": ["more"]}],
    "resources": [
        {"match": "test://shown/*", "scopes": ["use"]},
        {"match": "test://secret/*", "scopes": ["more"]},
    ],
}


def book(name: str = "", **more: Any) -> dict[str, Any]:
    """What a server has: things to see, and things that only the powerful may."""
    end = f"/{name}" if name else ""
    return {
        "capabilities": CAPABILITIES,
        "tools": TOOLS,
        "prompts": [
            {"name": "hello", "title": "Hello", "arguments": [{"name": "who", "required": True}]},
            {"name": "secret"},
        ],
        "resources": [
            {"uri": f"test://shown/text{end}", "name": "text", "mimeType": "text/plain"},
            {"uri": f"test://shown/bytes{end}", "name": "bytes", "size": 3},
            {"uri": f"test://secret/text{end}", "name": "secret"},
        ],
        "resourceTemplates": [
            {"uriTemplate": f"test://shown/of{end}/{{id}}", "name": "of"},
            {"uriTemplate": f"test://secret/of{end}/{{id}}", "name": "secret of"},
        ],
        "resources/read": {
            f"test://shown/text{end}": contents(f"test://shown/text{end}", text="plain\u2028 \x00 ü"),
            f"test://shown/bytes{end}": contents(f"test://shown/bytes{end}", blob="AP+A"),
            f"test://shown/of{end}/7": contents(f"test://shown/of{end}/7", text="seven"),
            f"test://secret/text{end}": contents(f"test://secret/text{end}", text="classified"),
        },
        "prompts/get": {
            "hello": {"messages": [{"role": "user", "content": {"type": "text", "text": f"Hello{end}"}}]},
            "secret": {"messages": [{"role": "user", "content": {"type": "text", "text": "classified"}}]},
        },
        **more,
    }


def contents(uri: str, **more: Any) -> dict[str, Any]:
    return {"contents": [{"uri": uri, **more}], "ttlMs": 60_000, "cacheScope": "public"}


class Estates(Estate):
    """An estate of featured servers: each has a book, which a test may rewrite while it runs."""

    def __init__(
        self, folder: Path, *servers: Server, policy: Mapping[str, Any] | None = None, **more: Any
    ) -> None:
        self.books: dict[str, dict[str, Any]] = {}
        folder.mkdir(exist_ok=True)
        self.folder = folder
        for server in servers:
            server.tools = TOOLS
            self.write_book(server.name, **book(server.name if len(servers) > 1 else ""))
        super().__init__(folder, *servers, policy={**POLICY, **(policy or {})}, **more)
        self.pin()

    def write_book(self, name: str, **members: Any) -> None:
        """What a server has from now on, with some members changed."""
        found = self.books[name] = {**self.books.get(name, {}), **members}
        path = self.folder / f"{name}.book.json"
        path.with_suffix(".new").write_text(json.dumps(found))
        path.with_suffix(".new").replace(path)

    def _words(self, server: Server) -> list[str]:
        words = [*PYTHON, str(SERVERS / "featured.py"), "--log", str(self.log(server.name))]
        words += ["--era", server.era, "--book", str(self.folder / f"{server.name}.book.json"), *server.flags]
        if server.over == "http":
            words += ["--port-file", str(self.folder / f"{server.name}.port")]
        return words

    # -- what came of it -------------------------------------------------------------------------

    def all(self, name: str) -> list[dict[str, Any]]:
        """Everything that reached a server."""
        return [json.loads(line) for line in self.log(name).read_bytes().splitlines()]

    def about(self, text: str, name: str | None = None) -> list[str]:
        """Every line of what reached a server in which a text stands; of all, if none is named."""
        names = [name] if name else [*self.servers]
        lines = [line for each in names for line in self.log(each).read_text().splitlines()]
        return [line for line in lines if text in line]

    def verifier(self, audience: str) -> Verifier:
        """As a tool server checks what reaches it: public keys, and nothing else of Guard's."""
        home = open_home(self.home)
        return Verifier(issuer=home.name, audience=audience, keys=home.keys, replay=MemoryReplay())

    def granted(self, name: str, method: str) -> list[VerifiedGrant]:
        """The artifacts of every request of that method that reached a server, each verified."""
        verifier, found = self.verifier(name), self.received(name, method)
        return [verifier.admit(method, one["params"], now=time.time()) for one in found]

    def endings(self) -> list[list[str]]:
        """What was written down of each call, oldest first."""
        return [*self.settled().values()]

    def written(self, kind: Kind) -> list[dict[str, Any]]:
        """The opened fields of every entry of that kind."""
        return [entry["fields"] for entry in self.entries(kind)]

    def denials(self) -> list[dict[str, Any]]:
        return self.written(Kind.DENIED)

    # -- clients ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def speaking(
        self, version: str, by: str, capabilities: Mapping[str, Any] = EVERYTHING, **settings: Any
    ) -> AsyncIterator[Party]:
        """Guard, and one client that has said hello."""
        if by == "stdio":
            fixed = {"listen": "stdio", "identity": {"role": "caller", "principal": "someone"}}
            async with (
                self.guarded(**fixed, **settings) as found,
                _quiet(found, version) as client,
                Pipe(client, capabilities) as party,
            ):
                await party.greet()
                yield party
            return
        key = self.key()
        async with self.guarded(**settings), self.party(version, key, capabilities) as party:
            yield party

    @asynccontextmanager
    async def party(
        self, version: str, key: str, capabilities: Mapping[str, Any] = EVERYTHING, *, deaf: bool = False
    ) -> AsyncIterator[Web]:
        """One more client over HTTP that has said hello; a deaf one opens no stream of its own."""
        async with Web(self.client(version, key), capabilities, deaf=deaf) as party:
            await party.greet()
            yield party


@asynccontextmanager
async def _quiet(found: Any, version: str) -> AsyncIterator[Client]:
    """The pipes' client, before it says anything."""
    async with serving(found, MODERN) as client:  # a modern one is not greeted
        client.version = version
        yield client


Reply = Callable[[dict[str, Any]], Any]
"""Makes the result of a server's request of its params; an `Error` it returns is the answer, None none."""


class Error(dict[str, Any]):
    """An error object, to answer with."""


class Party:
    """A client that hears everything and answers what servers ask.

    Attributes:
        notes: every notification that came, in order.
        asked: every request of a server's that came, in order.
        replies: what answers them, by method; what is not in it is not answered.
    """

    def __init__(self, version: str, capabilities: Mapping[str, Any]) -> None:
        self.version = version
        self.capabilities = dict(capabilities)
        self.notes: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.replies: dict[str, Reply] = {}
        self.ids = count(1)
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def modern(self) -> bool:
        return self.version == MODERN

    def request(self, method: str, params: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
        own = {**ENVELOPE, f"{META}clientCapabilities": self.capabilities} if self.modern else {}
        params = {**params, "_meta": {**own, **meta}} if own or meta else dict(params)
        return {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params}

    def start(
        self, method: str, params: Mapping[str, Any] | None = None, **meta: Any
    ) -> tuple[Any, asyncio.Task[dict[str, Any]]]:
        """Send a request: its id, and its answer to come. Names in `meta` are whole but for `META`."""
        whole = {
            name if "/" in name or name in PLAIN else f"{META}{name}": value for name, value in meta.items()
        }
        message = self.request(method, params or {}, whole)
        task = asyncio.ensure_future(self.sent(message))
        self._tasks.add(task)
        return message["id"], task

    async def ask(self, method: str, params: Mapping[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
        """The whole response."""
        return await asyncio.wait_for(self.start(method, params, **meta)[1], PATIENCE)

    async def do(self, *acts: Mapping[str, Any], name: str = "do", **meta: Any) -> dict[str, Any]:
        """Have a server do something; the whole response."""
        return await self.ask("tools/call", {"name": name, "arguments": {"acts": acts}}, **meta)

    async def noted(self, *acts: Mapping[str, Any], name: str = "do", **meta: Any) -> list[Any]:
        """Have a server do something; what it noted."""
        found = await self.do(*acts, name=name, **meta)
        noted = found["result"]["structuredContent"]["noted"]
        assert isinstance(noted, list)
        return noted

    def heard(self, method: str) -> list[dict[str, Any]]:
        """The params of each notification of that method so far."""
        return [note.get("params", {}) for note in self.notes if note["method"] == method]

    async def hears(self, method: str, times: int = 1) -> list[dict[str, Any]]:
        """Wait until so many came."""
        return await until(lambda: found if len(found := self.heard(method)) >= times else None)

    def took(self, message: dict[str, Any]) -> None:
        """A notification, or a server's request."""
        if "id" not in message:
            self.notes.append(message)
            return
        self.asked.append(message)
        if (reply := self.replies.get(message["method"])) is not None:
            found = reply(message.get("params", {}))
            if found is not None:
                name = "error" if isinstance(found, Error) else "result"
                self.say({"jsonrpc": "2.0", "id": message["id"], name: found})

    def say(self, message: Mapping[str, Any]) -> None:
        """Say something that has no answer."""
        raise NotImplementedError

    def cancel(self, id_: Any) -> None:
        """Call a request off."""
        raise NotImplementedError

    async def sent(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request; its response."""
        raise NotImplementedError

    async def greet(self) -> dict[str, Any]:
        """The handshake, or `server/discover`: the result."""
        if self.modern:
            found = await self.ask("server/discover")
        else:
            info = {"name": "tests", "version": "1"}
            params = {"protocolVersion": self.version, "capabilities": self.capabilities, "clientInfo": info}
            found = await self.ask("initialize", params)
            self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self.offered: dict[str, Any] = found["result"]
        return self.offered

    async def settle(self) -> None:
        """Whatever was on its way before has come: a whole round trip to Guard and back."""
        await self.ask("tools/list")


PLAIN: Final = frozenset({"progressToken", "traceparent"})


class Pipe(Party):
    """A client on Guard's pipes."""

    def __init__(self, client: Client, capabilities: Mapping[str, Any]) -> None:
        super().__init__(client.version, capabilities)
        self._client = client
        self._answers: dict[Any, asyncio.Future[dict[str, Any]]] = {}

    async def __aenter__(self) -> Self:
        self._reading = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        await _end({self._reading, *self._tasks})

    async def _read(self) -> None:
        with contextlib.suppress(EOFError):
            while True:
                line = await self._client._reader.readline()
                if not line:
                    return
                message = json.loads(line)
                if "method" in message:
                    self.took(message)
                else:
                    self._answers[message["id"]].set_result(message)

    async def sent(self, message: dict[str, Any]) -> dict[str, Any]:
        self._answers[message["id"]] = asyncio.get_running_loop().create_future()
        self.say(message)
        return await self._answers[message["id"]]

    def say(self, message: Mapping[str, Any]) -> None:
        self._client.say(message)

    def cancel(self, id_: Any) -> None:
        self.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id_}})

    def leave(self) -> None:
        self._client.leave()


class Web(Party):
    """A client over HTTP. In the handshake era it opens the session's stream, unless it is deaf."""

    def __init__(self, raw: RawHttp, capabilities: Mapping[str, Any], *, deaf: bool = False) -> None:
        super().__init__(raw.version, capabilities)
        self.raw = raw
        self.deaf = deaf
        self.ended = asyncio.Event()  # the session's stream
        self._open: dict[Any, Connection] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await _end(self._tasks)

    async def greet(self) -> dict[str, Any]:
        found = await super().greet()
        if not self.modern and not self.deaf:
            listening = asyncio.Event()
            self._tasks.add(asyncio.ensure_future(self._listen(listening)))
            await asyncio.wait_for(listening.wait(), PATIENCE)
        return found

    async def _listen(self, listening: asyncio.Event) -> None:
        try:
            async with self.raw.listen() as stream:
                listening.set()
                while True:
                    self.took(await _next(stream))
        except (EOFError, ConnectionError):
            self.ended.set()

    async def sent(self, message: dict[str, Any]) -> dict[str, Any]:
        async with self.raw.connected() as connection:
            self._open[message["id"]] = connection
            connection.write(self.raw.written("POST", message))
            head = await connection.head()
            if message["method"] == "initialize":
                self.raw.session = head.headers.get("mcp-session-id")
            if head.kind != SSE:
                body = bytearray()
                while piece := await connection.piece():
                    body += piece
                return _object(body)
            stream = Stream(connection, head)
            while "method" in (found := await _next(stream)):
                self.took(found)
            return found

    def say(self, message: Mapping[str, Any]) -> None:
        self._tasks.add(asyncio.ensure_future(self._say(message)))

    async def _say(self, message: Mapping[str, Any]) -> None:
        answer = await self.raw.post(message)
        assert answer.status == 202, answer

    def cancel(self, id_: Any) -> None:
        if self.modern:
            self._open[id_].close()
        else:
            self.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id_}})

    async def hang_up(self) -> None:
        """Close every stream that is open, as a client that is gone."""
        for connection in self._open.values():
            connection.close()


def _object(body: bytes | bytearray) -> dict[str, Any]:
    found = json.loads(body)
    assert isinstance(found, dict)
    return found


async def _next(stream: Stream) -> dict[str, Any]:
    """The next event, however long it takes."""
    while True:
        try:
            return await stream.next()
        except TimeoutError:
            continue


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, AssertionError):
            raise found


async def until(holds: Callable[[], Any]) -> Any:
    """Wait for what comes of itself; what it is."""
    async with asyncio.timeout(PATIENCE):
        while not (found := holds()):  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)
    return found


def era(version: str) -> str:
    return "modern" if version == MODERN else "legacy"


def servers(version: str, over: str, *, many: bool = False, **settings: Any) -> list[Server]:
    """One server, `one`; or two, over both transports."""
    found = [Server("one", era(version), over, settings=dict(settings))]
    other = "http" if over == "stdio" else "stdio"
    return [*found, Server("two", era(version), other, settings=dict(settings))] if many else found


def name(plain: str, *, many: bool, server: str = "one") -> str:
    """A client's name for a server's tool or prompt."""
    return f"{server}__{plain}" if many else plain


def uri(plain: str, *, many: bool, server: str = "one") -> str:
    """A server's resource."""
    return f"test://{plain}/{server}" if many else f"test://{plain}"

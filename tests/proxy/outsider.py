"""Somebody who sends what nobody should, on either transport, and what must hold after each try."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.proxy.estate import Estate, Server
from tests.proxy.raw_http import Answer, RawHttp
from tests.proxy.scene import ENVELOPE, LEGACY, MODERN, Client

PARSE, REQUEST, PARAMS, METHOD, MISMATCH = -32700, -32600, -32602, -32601, -32020
TRANSPORTS: Final = pytest.mark.parametrize("over", ["stdio", "http"])
VERSIONS: Final = pytest.mark.parametrize("version", [MODERN, LEGACY], ids=["modern", "handshake"])
LIMITS: Final = {"body_bytes": 65536, "header_bytes": 8192}
NO_HEADERS: Final[Mapping[str, str | None]] = {}
ID: Final = 77


def call(modern: bool, arguments: str = '{"text":"bad"}', **members: str) -> bytes:  # noqa: FBT001 - an era
    """A call as text, so that it can say what no writer would write; "" leaves a member out.

    Args:
        modern: whether it carries the envelope.
        arguments: JSON text, as all members are.
        members: those of the message; or `name`, `meta`, and `more` of the params.
    """
    meta = members.pop("meta", json.dumps(ENVELOPE) if modern else "{}")
    name = members.pop("name", '"echo"')
    more = members.pop("more", "")
    params = members.pop("params", f'{{"name":{name},"arguments":{arguments},"_meta":{meta}{more}}}')
    given = {"jsonrpc": '"2.0"', "id": str(ID), "method": '"tools/call"', "params": params, **members}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in given.items() if value) + "}").encode()


def enveloped(modern: bool, **meta: Any) -> str:  # noqa: FBT001 - an era
    """The text of a `_meta` with more members."""
    return json.dumps({**(ENVELOPE if modern else {}), **meta})


@dataclass
class Outsider:
    """A client of a running Guard, and the estate around it.

    Attributes:
        client: on stdio the pipes' client, else one over HTTP that has a key.
        key: the key; "" on stdio.
        port: Guard's; 0 on stdio.
    """

    estate: Estate
    version: str
    client: Any
    key: str = ""
    port: int = 0
    reached: int = field(default=0, init=False)

    @property
    def over(self) -> str:
        return "stdio" if isinstance(self.client, Client) else "http"

    @property
    def modern(self) -> bool:
        return self.version == MODERN

    def nobody(self, version: str = MODERN) -> RawHttp:
        """A client without a key."""
        return self.estate.client(version)

    async def another(self, principal: str, version: str = MODERN) -> RawHttp:
        """Another principal, who has said hello."""
        client = self.estate.client(version, self.estate.key(principal))
        if not client.modern:
            await client.greet()
        return client

    async def send(self, message: bytes, headers: Mapping[str, str | None] = NO_HEADERS) -> tuple[int, Any]:
        """One message. Returns: the HTTP status, 0 on stdio, and the answer."""
        if self.over == "stdio":
            self.client.say(message + b"\n")
            return 0, await self.client.hear()
        answer: Answer = await self.client.post(message, headers=headers)
        return answer.status, answer.message()

    async def refused(self, message: bytes, code: int, *, id_: Any = None, status: int = 400) -> str:
        """It is answered with this error and nothing else; on HTTP with this status. Returns: the words."""
        found, answer = await self.send(message)
        assert found == (0 if self.over == "stdio" else status), answer
        assert answer.keys() == {"jsonrpc", "id", "error"}
        assert (answer["error"]["code"], answer["id"]) == (code, id_), answer
        shown = json.dumps(answer, ensure_ascii=False)
        assert shown.isprintable(), "it steers a terminal"
        return str(answer["error"]["message"])

    async def honest(self) -> None:
        """An honest call is served at once, and since the last look it alone has reached a server."""
        answer = await self.client.call("echo", text="honest")
        assert "isError" not in answer["result"], answer
        before, received = self.reached, self.estate.received()
        self.reached = len(received)
        assert self.reached == before + 1, "something else got through"
        assert received[-1]["params"]["arguments"] == {"text": "honest"}

    def head(self, *lines: str, verb: str = "POST", path: str = "/mcp", key: bool = True) -> bytes:
        """The head of a modern call of `echo`, its framing left to `lines`."""
        own = [
            f"{verb} {path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            "Content-Type: application/json",
            "Accept: application/json, text/event-stream",
            f"MCP-Protocol-Version: {MODERN}",
            "Mcp-Method: tools/call",
            "Mcp-Name: echo",
            *([f"Authorization: Bearer {self.key}"] if key else []),
        ]
        return "\r\n".join([*own, *lines, "", ""]).encode("latin-1")

    async def tried(self, data: bytes) -> Answer | None:
        """These bytes on a connection of their own; None where it is closed without an answer."""
        try:
            found: Answer = await self.client.exchange(data)
        except (EOFError, ConnectionError):
            return None
        return found


@asynccontextmanager
async def outsider(
    tmp_path: Path, over: str = "http", version: str = MODERN, *servers: Server, **settings: Any
) -> AsyncIterator[Outsider]:
    """A running Guard and who tries it; afterwards the lineage is sound, with one ending for each grant."""
    policy = settings.pop("policy", None)
    estate = Estate(tmp_path / "estate", *servers, policy=policy)
    estate.pin()
    if over == "stdio":
        async with estate.over_stdio(version, **settings) as pipes:
            yield Outsider(estate, version, pipes)
    else:
        key = estate.key()
        async with estate.guarded(**settings) as found:
            assert found.listener is not None
            client = estate.client(version, key)
            if version == LEGACY:
                await client.greet()
            yield Outsider(estate, version, client, key, found.listener.port)
    estate.settled()

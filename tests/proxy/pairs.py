"""Every pair of a client and a server: both eras and both transports, on either side of Guard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from tests.proxy.estate import Estate
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import LEGACY, MODERN, PATIENCE, Client

VERSIONS: Final = pytest.mark.parametrize("version", [MODERN, LEGACY])
CLIENTS: Final = pytest.mark.parametrize("by", ["http", "stdio"])
ERAS: Final = pytest.mark.parametrize("era", ["modern", "legacy"])
SERVERS: Final = pytest.mark.parametrize("over", ["http", "stdio"])
ARTIFACT: Final = "dev.guard-mcp/authorization"
PROGRESS: Final = (
    '{"jsonrpc":"2.0","method":"notifications/progress",'
    '"params":{"progressToken":$TOKEN,"progress":%d,"total":1e400}}'
)
ECHO: Final = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[{"type":"text","text":$ARGUMENTS}]}}'


def acts(over: str, *texts: str) -> list[Any]:
    """What a server says, one message after the other, whatever carries it."""
    return [*texts] if over == "stdio" else [{"event": text} for text in texts]


async def until(holds: Callable[[], Any]) -> None:
    """Wait for what comes of itself."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


def heard(estate: Estate, name: str, member: str) -> list[Any]:
    """What the scripted server over HTTP noted besides messages."""
    lines = [json.loads(line) for line in estate.log(name).read_bytes().rpartition(b"\n")[0].splitlines()]
    return [line[member] for line in lines if member in line]


@asynccontextmanager
async def speaking(estate: Estate, version: str, by: str) -> AsyncIterator[RawHttp | Client]:
    """A client that has said hello, over either transport."""
    if by == "stdio":
        async with estate.over_stdio(version) as client:
            yield client
        return
    key = estate.key()
    async with estate.guarded():
        caller = estate.client(version, key)
        if not caller.modern:
            await caller.greet()
        yield caller


async def ask(client: RawHttp | Client, method: str, params: dict[str, Any]) -> dict[str, Any]:
    if isinstance(client, Client):
        return await client.ask(method, params)
    return (await client.request(method, params)).message()


async def attended(estate: Estate, era: str, client: RawHttp, links: int = 1) -> None:
    """Wait until so many links to the server hear of its changes."""
    verb = "POST /mcp" if era == "modern" else "GET /mcp"
    method = "subscriptions/listen" if era == "modern" else None

    def listen() -> bool:
        lines = [
            json.loads(line) for line in estate.log("one").read_bytes().rpartition(b"\n")[0].splitlines()
        ]
        return sum((line.get("_http"), line["method"]) == (verb, method) for line in lines) >= links

    await until(listen)
    await client.request("tools/list")  # by its answer the server has taken in what it noted before

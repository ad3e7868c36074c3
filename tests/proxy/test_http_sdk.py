"""The protocol's own SDK on both sides of Guard over HTTP, in both eras."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.subscriptions import ToolsListChanged

from guard.config.reach import look, reached
from guard.config.settings import ServerSettings
from guard.lineage.entry import Kind
from tests.proxy.estate import Estate, Server
from tests.proxy.pairs import ERAS, attended, until
from tests.proxy.scene import MODERN, PATIENCE, TOOLS

MODES = pytest.mark.parametrize("mode", ["2026-07-28", "legacy", "auto"])
FRAMING = pytest.mark.parametrize("framing", ["stream", "json"])
PROGRAM = '''
import sys
from pathlib import Path

import anyio, socket, uvicorn
from mcp.server.mcpserver import Context, MCPServer

port_file, era, framing = sys.argv[1:]
server = MCPServer("real", instructions="Be brief.")

@server.tool()
def echo(text: str = "", n: int = 0) -> str:
    """Say it again."""
    return f"{text} {n}"

@server.tool()
async def slow(ctx: Context) -> str:
    """Take three steps."""
    for step in range(3):
        await ctx.report_progress(step, 3, f"step {step}")
    return "done"

@server.tool()
async def fail() -> str:
    """Wait for ever."""
    Path(port_file).with_suffix(".begun").touch()
    try:
        await anyio.sleep_forever()
    finally:
        Path(port_file).with_suffix(".called-off").touch()
    return ""

app = server.streamable_http_app(json_response=framing == "json")

async def served(scope, receive, send):
    """An older server knows no 2026-07-28."""
    old = dict(scope.get("headers", [])).get(b"mcp-protocol-version") == b"2026-07-28" and era == "legacy"
    if not old:
        return await app(scope, receive, send)
    await send({"type": "http.response.start", "status": 400, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Bad Request: Unsupported protocol version"})

listening = socket.create_server(("127.0.0.1", 0))
Path(port_file + ".new").write_text(str(listening.getsockname()[1]))
Path(port_file + ".new").rename(port_file)
uvicorn.Server(uvicorn.Config(served, log_level="error")).run(sockets=[listening])
'''


class Real(Estate):
    """An estate with one server of the SDK's, over HTTP."""

    def __init__(self, folder: Path, era: str, framing: str) -> None:
        super().__init__(folder, Server("real", era, "http"), Server("two"))
        self._words_of_real = [sys.executable, "-c", PROGRAM, str(folder / "real.port"), era, framing]

    def _words(self, server: Server) -> list[str]:
        return self._words_of_real if server.name == "real" else super()._words(server)

    async def accept(self) -> None:
        """Pin what it lists now."""
        settings = ServerSettings(url=f"http://127.0.0.1:{(self.folder / 'real.port').read_text()}/mcp")
        _, tools = await look(*reached(settings))
        self.pin("real", tools)
        self.pin("two")


@asynccontextmanager
async def connected(estate: Real, mode: str) -> AsyncIterator[SdkClient]:
    """The SDK's client at Guard's URL, with a key."""
    with estate.running():
        await estate.accept()
        key = estate.key()
        async with (
            estate.guarded() as serving,
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE) as http,
            SdkClient(streamable_http_client(serving.url, http_client=http), mode=mode) as client,
        ):
            yield client


def text(result: Any) -> str:
    return "".join(part.text for part in result.content)


@MODES
@ERAS
@FRAMING
async def test_the_sdk_lists_and_calls_through_guard(
    tmp_path: Path, mode: str, era: str, framing: str
) -> None:
    """Tools, a result, a denial and an unknown tool, whichever eras the two sides speak."""
    estate = Real(tmp_path / "estate", era, framing)
    async with connected(estate, mode) as client:
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert sorted(names) == [
            f"{server}__{tool}" for server in ("real", "two") for tool in ("echo", "fail", "slow")
        ]
        found = await client.call_tool("real__echo", {"text": "größe", "n": 2})
        assert (found.is_error, text(found)) == (False, "größe 2")
        denied = await client.call_tool("real__echo", {"n": 13})
        assert denied.is_error
        assert denied.meta["dev.guard-mcp/decision"]["reason"] == "protected"
        unknown = await client.call_tool("real__hidden", {})
        assert unknown.meta["dev.guard-mcp/decision"]["reason"] == "unknown-tool"
    assert sorted(estate.settled().values()) == [["denied"], ["denied"], ["granted", "returned"]]


@MODES
@ERAS
async def test_the_sdk_hears_progress_through_guard(tmp_path: Path, mode: str, era: str) -> None:
    """Each step comes, in order, before the result."""
    estate = Real(tmp_path / "estate", era, "stream")
    steps: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        assert total == 3
        steps.append((progress, message))

    async with connected(estate, mode) as client:
        found = await client.call_tool("real__slow", {}, progress_callback=on_progress)
        assert text(found) == "done"
        assert steps == [(0, "step 0"), (1, "step 1"), (2, "step 2")]
    estate.settled()


@MODES
@ERAS
async def test_what_the_sdk_calls_off_stops_at_the_server(tmp_path: Path, mode: str, era: str) -> None:
    """A cancelled call is called off at the server as well, and its outcome is unknown."""
    estate = Real(tmp_path / "estate", era, "stream")
    async with connected(estate, mode) as client:
        call = asyncio.ensure_future(client.call_tool("real__fail", {}))
        await until((estate.folder / "real.begun").exists)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until((estate.folder / "real.called-off").exists)
        assert not (await client.call_tool("real__echo", {})).is_error
    assert [entry["fields"]["reason"] for entry in estate.entries(Kind.UNKNOWN)] == ["cancelled"]
    estate.settled()


async def test_the_sdk_hears_of_changed_tools(tmp_path: Path) -> None:
    """Its subscription is acknowledged, and tells when a tool that it sees is gone."""
    estate = Estate(tmp_path / "estate", Server("one", "modern", "http"))
    estate.pin()
    headers = {"Authorization": f"Bearer {estate.key()}"}
    async with (
        estate.guarded() as serving,
        httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http,
        SdkClient(streamable_http_client(serving.url, http_client=http), mode="2026-07-28") as client,
        client.listen(tools_list_changed=True) as changes,
    ):
        await attended(estate, "modern", estate.client(MODERN, headers["Authorization"].split()[1]))
        before = [tool.name for tool in (await client.list_tools()).tools]
        estate.show("one", TOOLS[:2])
        async with asyncio.timeout(PATIENCE):
            assert isinstance(await anext(aiter(changes)), ToolsListChanged)
        after = [tool.name for tool in (await client.list_tools()).tools]
    assert (before, after) == (["echo", "slow", "fail"], ["echo", "slow"])

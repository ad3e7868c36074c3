"""What a bad tool server can do before any call: when it starts, and when it lists its tools."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from guard.proxy import upstream
from tests.proxy.estate import Estate, Server
from tests.proxy.hostile import Bad
from tests.proxy.pairs import ECHO, ERAS, SERVERS, VERSIONS
from tests.proxy.scene import MODERN, PATIENCE, decision
from tests.proxy.scene import SERVERS as SCRIPTS

LISTS = {
    "a name twice": ("{'tools': [*TOOLS, {**TOOLS[0], 'description': 'another'}]}", "tool-changed"),
    "a name twice, on two pages": (
        "{'tools': [TOOLS[0]]} if cursor else {'tools': TOOLS, 'nextCursor': 'x'}",
        "tool-changed",
    ),
    "no objects": ("{'tools': [1, None, 'x', [], {}, {'name': 5}, {'name': None}, *TOOLS]}", None),
    "a cursor for ever": ("{'tools': [] if cursor else TOOLS, 'nextCursor': 'again'}", None),
    "pages without end": (
        "{'tools': [{'name': f't{cursor}'}] if cursor else TOOLS, 'nextCursor': f'{cursor}0'}",
        None,
    ),
    "a cursor that is none": ("{'tools': TOOLS, 'nextCursor': 7}", None),
    "many tools": (
        "{'tools': [*TOOLS, *({'name': f't{n}'} for n in range(12000))], 'nextCursor': 'more'}",
        None,
    ),
    "no list": ("{'tools': {}}", "upstream-unavailable"),
    "no tools": ("{}", "upstream-unavailable"),
    "an empty list": ("{'tools': []}", "unknown-tool"),
    "control characters": (
        r"{'tools': [*TOOLS, {'name': '\x1b[31m\u202e', 'description': '\x1b[0m'}]}",
        None,
    ),
    "another schema": ("{'tools': [{**tool, 'inputSchema': {}} for tool in TOOLS]}", "tool-changed"),
}
LISTING = """
import asyncio, json, sys
sys.path.insert(0, $FOLDER)
import $MODULE as scripted

def page(self, message):
    TOOLS = json.loads(self.options.tools.read_text())
    cursor = message["params"].get("cursor", "")
    return {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **($PAGE)}

hear, take = scripted.Scripted.hear, getattr(scripted.Scripted, "take", None)

def on_line(self, message):
    if message.get("method") != "tools/list":
        return hear(self, message)
    self.result(message["id"], page(self, message))

async def on_post(self, exchange, message):
    if message.get("method") != "tools/list":
        return await take(self, exchange, message)
    exchange.result(message["id"], page(self, message))

if take:
    scripted.Scripted.take = on_post
else:
    scripted.Scripted.hear = on_line
scripted.main()
"""
WAITS = """
import sys, time
from pathlib import Path
sys.path.insert(0, $FOLDER)
while not Path($GO).exists():
    time.sleep(0.01)
import scripted
scripted.main()
"""
DENIED = ["denied"]
ENDED = ["granted", "returned"]


@ERAS
@SERVERS
@pytest.mark.parametrize("how", LISTS)
async def test_a_list_of_nonsense_harms_its_own_server_at_most(
    tmp_path: Path, how: str, over: str, era: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A tool counts if it stands once, as it was pinned; a list has an end; and the others are served."""
    page, reason = LISTS[how]
    module = "scripted" if over == "stdio" else "scripted_http"
    script = tmp_path / "listing.py"
    text = LISTING.replace("$FOLDER", repr(str(SCRIPTS))).replace("$MODULE", module)
    script.write_text(text.replace("$PAGE", page))
    estate = Bad(tmp_path, era, over, [], script=script)
    key = estate.key()
    async with estate.guarded():
        client = estate.client(MODERN, key)
        response = await client.call("bad__echo", text="x")
        if reason is None:
            assert response["result"]["content"][0]["text"] == '{"text": "x"}'
        else:
            assert decision(response)["reason"] == reason
        assert "isError" not in (await client.call("good__echo"))["result"]
        names = [tool["name"] for tool in (await client.request("tools/list")).message()["result"]["tools"]]
        assert len(names) == len({*names})
        assert {*names} >= {"good__echo", "good__slow", "good__fail"}
    assert len(estate.received("bad", "tools/list")) <= 2 * upstream.MAX_PAGES
    assert len(estate.received("bad")) == (1 if reason is None else 0)
    assert sorted(estate.settled().values()) == sorted([ENDED, ENDED if reason is None else DENIED])
    errors = capfd.readouterr().err
    assert all(letter.isprintable() or letter == "\n" for letter in errors)


class Unstarted(Estate):
    """An estate whose server `bad` is reached in a way of its own."""

    def __init__(self, folder: Path, **reach: Any) -> None:
        self._reach = {"timeout": 0.5, **reach}
        super().__init__(folder / "estate", Server("bad"), Server("good"))
        self.pin()

    def _reached(self, server: Server) -> dict[str, Any]:
        return self._reach if server.name == "bad" else super()._reached(server)


@asynccontextmanager
async def answering(data: bytes | None) -> AsyncIterator[str]:
    """The URL of a server that says always the same; with None, nothing."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if data is not None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(data)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


async def denied(estate: Unstarted, version: str) -> None:
    """A call of the bad server is denied, with nothing sent; the good one is listed and answers."""
    key = estate.key()
    async with estate.guarded():
        client = estate.client(version, key)
        if not client.modern:
            await client.greet()
        call = asyncio.ensure_future(client.call("bad__echo"))
        assert "isError" not in (await client.call("good__echo"))["result"]
        about = decision(await call)
        assert (about["decision"], about["reason"]) == ("deny", "upstream-unavailable")
        assert about["retryable"] is True
        names = [tool["name"] for tool in (await client.request("tools/list")).message()["result"]["tools"]]
        assert names == ["good__echo", "good__slow", "good__fail"]
    assert estate.received("bad") == []
    assert sorted(estate.settled().values()) == [DENIED, ENDED]


@VERSIONS
@pytest.mark.parametrize(
    "words",
    [
        ["/nowhere/at/all"],
        [sys.executable, "-c", "raise SystemExit(3)"],
        [sys.executable, "-c", "import time; time.sleep(60)"],
        [sys.executable, "-c", "print('\\x1b[31mhello'); import time; time.sleep(60)"],
        [sys.executable, "-c", "import os, time; os.close(1); time.sleep(60)"],
        ["cat"],
    ],
    ids=["missing", "ends", "silent", "garbage", "mute", "echo"],
)
async def test_a_process_that_does_not_start_costs_its_own_calls(
    tmp_path: Path,
    words: list[str],
    version: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Nothing was sent, so it is a denial, and one that may be tried again."""
    monkeypatch.setattr(upstream, "PROBE_SECONDS", 0.3)
    await denied(Unstarted(tmp_path, command=words), version)
    assert "\x1b" not in capfd.readouterr().err


@VERSIONS
@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 8\r\n\r\n\x1b[31m<a>",
        b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:1/mcp\r\nContent-Length: 0\r\n\r\n",
        b"\x1b[31mSSH-2.0\r\n\r\n",
    ],
    ids=["silent", "closes", "html", "unauthorized", "redirect", "no-http"],
)
async def test_a_url_that_is_no_tool_server_costs_its_own_calls(
    tmp_path: Path,
    answer: bytes | None,
    version: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Whatever listens there: without a handshake no call is sent."""
    monkeypatch.setattr(upstream, "PROBE_SECONDS", 0.3)
    async with answering(answer) as url:
        await denied(Unstarted(tmp_path, url=url), version)
    assert "\x1b" not in capfd.readouterr().err


@VERSIONS
async def test_a_url_where_nobody_listens_costs_its_own_calls(tmp_path: Path, version: str) -> None:
    """A refused connection is a denial with nothing sent."""
    async with answering(None) as url:
        pass
    await denied(Unstarted(tmp_path, url=url), version)


async def test_a_slow_start_is_waited_for_by_its_own_callers(tmp_path: Path) -> None:
    """While one server still starts the other one answers; and the call that waited is sent once."""
    go, script = tmp_path / "go", tmp_path / "slow.py"
    script.write_text(WAITS.replace("$FOLDER", repr(str(SCRIPTS))).replace("$GO", repr(str(go))))
    estate = Bad(tmp_path, "modern", "stdio", [], script=script, timeout=PATIENCE)
    key = estate.key()
    async with estate.guarded():
        client = estate.client(MODERN, key)
        call = asyncio.ensure_future(client.call("bad__echo"))
        for _ in range(3):
            assert "isError" not in (await client.call("good__echo"))["result"]
        assert not call.done()
        assert estate.received("bad") == []
        go.touch()
        assert "isError" not in (await call)["result"]
    assert len(estate.received("bad")) == 1
    assert [*estate.settled().values()] == [ENDED] * 4


@VERSIONS
async def test_a_server_that_is_gone_at_dispatch_was_sent_nothing(tmp_path: Path, version: str) -> None:
    """The grant stands, the connection is refused: it failed, and the client may try again."""
    estate = Bad(tmp_path, "legacy", "http", [], flags=("--no-get",))
    key = estate.key()
    async with estate.guarded():
        client = estate.client(version, key)
        if not client.modern:
            await client.greet()
        assert "isError" not in (await client.call("bad__echo"))["result"]
        estate.kill("bad")
        response = await client.call("bad__echo")
        about = decision(response)
        assert (about["reason"], about["retryable"]) == ("upstream-unavailable", True)
        assert "Nothing was sent" in response["result"]["content"][0]["text"]
        assert "isError" not in (await client.call("good__echo"))["result"]
    assert len(estate.received("bad")) == 1
    assert sorted(estate.settled().values()) == [["granted", "failed"], ENDED, ENDED]


async def test_a_server_that_died_is_started_again(tmp_path: Path) -> None:
    """After a pause later calls are served; the one that was lost stays lost, and is not repeated."""
    estate = Bad(tmp_path, "modern", "stdio", [[{"exit": 1}]])
    key = estate.key()
    async with estate.guarded():
        client = estate.client(MODERN, key)
        assert decision(await client.call("bad__echo", text="lost"))["outcome"] == "unknown"
        (tmp_path / "estate" / "bad.answers.json").write_text(json.dumps([[ECHO]]))
        async with asyncio.timeout(PATIENCE):
            while "isError" in (await client.call("bad__echo", text="later"))["result"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    said = [each["params"]["arguments"]["text"] for each in estate.received("bad")]
    assert (said[0], said.count("lost")) == ("lost", 1)
    estate.settled()

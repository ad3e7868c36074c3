"""Servers that never stop talking, and clients that do not listen: neither makes Guard grow."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from guard.lineage.entry import Kind
from guard.lineage.sqlite import SqliteStore
from guard.proxy.asking import LOOK_SECONDS, MANY, _parked
from guard.proxy.telling import MAX_WAITING, MAX_WAITING_BYTES, Telling
from tests.proxy.asked import asking, waits
from tests.proxy.features import Estates, servers, until
from tests.proxy.scene import LEGACY, MODERN, PATIENCE, Scene
from tests.proxy.test_telling import Journal, Someone

MEGABYTE = 1_000_000
MESSAGES = 60
CHANGES = 20_000
CHATTERER = """
import json, sys
tools, listed = json.loads(open(sys.argv[1]).read()), 0
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "initialize":
        about = {"capabilities": {"tools": {"listChanged": True}}, "serverInfo": {"name": "c"}}
        result = {"protocolVersion": message["params"]["protocolVersion"], **about}
    elif message["method"] == "tools/list":
        listed += 1
        if listed > 1:
            continue
        result = {"tools": tools}
    else:
        note = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        sys.stdout.write((json.dumps(note) + "\\n") * int(sys.argv[2]))
        result = {"content": []}
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}) + "\\n")
    sys.stdout.flush()
"""
TALKER = """
import json, sys
tools = json.loads(open(sys.argv[1]).read())
def say(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\\n")
    sys.stdout.flush()
def flood():
    for number in range(int(sys.argv[2])):
        params = {"level": "info", "data": "x" * int(sys.argv[3])}
        say({"method": "notifications/message", "params": params})
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "initialize":
        info = {"name": "talker", "version": "1"}
        about = {"capabilities": {"tools": {}, "logging": {}}, "serverInfo": info}
        result = {"protocolVersion": message["params"]["protocolVersion"], **about}
    elif message["method"] == "tools/list":
        result = {"tools": tools}
    else:
        flood()
        result = {"content": []}
    say({"id": message["id"], "result": result})
    if message["method"] == "initialize" and len(sys.argv) > 4:
        flood()
        open(sys.argv[4], "x").close()
"""


def talking(folder: Path, *more: str) -> Scene:
    """Behind Guard stands a server that talks."""
    (folder / "talker.py").write_text(TALKER)
    scene = Scene(folder / "scene")
    flags = (str(scene.folder / "tools.json"), str(MESSAGES), str(MEGABYTE), *more)
    scene.command = (sys.executable, str(folder / "talker.py"), *flags)
    scene.pin()
    return scene


async def test_what_waits_to_be_remembered_is_bounded() -> None:
    """A server that says more than can be remembered is not heard to the end; later it is heard again."""
    journal, told, dropped = Journal(), list[int](), list[int]()
    telling = Telling(Someone(journal))
    before = len(asyncio.all_tasks())
    for number in range(3 * MAX_WAITING):
        telling.after(
            *("one", b'{"data": "x%d@example.org"}' % number, None),
            lambda n=number: told.append(n),
            lambda n=number: dropped.append(n),
        )
    assert len(asyncio.all_tasks()) - before == MAX_WAITING
    assert dropped == [*range(MAX_WAITING, 3 * MAX_WAITING)]
    await telling.settled()
    assert told == [*range(MAX_WAITING)]
    large = b'{"data": "%b"}' % (b"x" * (MAX_WAITING_BYTES // 4))
    for _ in range(8):
        telling.after("one", large, None, lambda: told.append(-1), lambda: dropped.append(-1))
    await telling.settled()
    assert (told.count(-1), dropped.count(-1)) == (4, 4)


async def test_a_client_that_does_not_read_misses_what_it_is_told_but_no_answer(tmp_path: Path) -> None:
    """What a server logs meanwhile is let go of beyond a bound; what answers a request never is."""
    scene = talking(tmp_path)
    async with scene.guarded(LEGACY) as client:
        source = client._reader._transport  # type: ignore[attr-defined]
        source.pause_reading()
        id_ = client.request("tools/call", {"name": "echo", "arguments": {}})
        async with asyncio.timeout(PATIENCE):
            while not scene.entries(Kind.RETURNED):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        source.resume_reading()
        found = await client.answer(id_)
    assert found["result"]["content"] == []
    logged = [note for note in client.notifications if note["method"] == "notifications/message"]
    assert 0 < len(logged) < MESSAGES
    assert len(json.dumps(logged)) < 40 * MEGABYTE


async def test_a_server_that_says_over_and_over_that_its_tools_changed_is_asked_once_at_a_time(
    tmp_path: Path,
) -> None:
    """And where it does not answer then, nothing piles up that waits for it."""
    (tmp_path / "chatterer.py").write_text(CHATTERER)
    scene = Scene(tmp_path / "scene")
    flags = (str(scene.folder / "tools.json"), str(CHANGES))
    scene.command = (sys.executable, str(tmp_path / "chatterer.py"), *flags)
    scene.pin()
    async with scene.guarded(LEGACY) as client:
        await client.ask("tools/list")
        before = len(asyncio.all_tasks())
        assert (await client.call("echo"))["result"]["content"] == []
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) - before < 20


async def test_what_a_server_says_before_the_handshake_is_done_is_bounded(tmp_path: Path) -> None:
    """A client that never says `initialized` has no megabyte after megabyte kept for it."""
    done = tmp_path / "done"
    scene = talking(tmp_path, str(done))
    async with scene.guarded(MODERN) as client:
        client.version = LEGACY
        about = {"capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}
        await client.ask("initialize", {"protocolVersion": LEGACY, **about})
        async with asyncio.timeout(PATIENCE):
            while not done.exists():  # noqa: ASYNC110 - what is waited for happens in another process
                await asyncio.sleep(0.05)
        client.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        await client.ask("ping")
        assert 0 < len(client.notifications) < MESSAGES // 2


async def test_the_more_calls_are_parked_the_more_seldom_each_asks_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has as many calls wait as may be keeps the loop from nobody else."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, "stdio"), policy=asking("reviewer"))
    looks, asked = 0, SqliteStore.approval

    def counted(store: SqliteStore, *about: Any) -> Any:
        nonlocal looks
        looks += 1
        return asked(store, *about)

    async with estate.guarded(), estate.party(MODERN, estate.key()) as party:
        await asyncio.gather(*[waits(party) for _ in range(4 * MANY)])
        await until(lambda: sum(_parked.values()) == 4 * MANY)
        monkeypatch.setattr(SqliteStore, "approval", counted)
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(8 * LOOK_SECONDS)
        turns = (asyncio.get_running_loop().time() - begun) / (4 * LOOK_SECONDS)
        assert 0 < looks <= 4 * MANY * (turns + 2)


async def test_a_server_that_sends_garbage_does_not_fill_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told of the first times, then ever more seldom, and the call that it came with still ends."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, "stdio"))
    async with estate.speaking(MODERN, "stdio") as party:
        acts = [{"raw": "no JSON\n" * 2000}, {"answer": {"content": []}}]
        assert (await party.do(*acts))["result"]["content"] == []
    said = capsys.readouterr().err
    assert said.count("sent no message") == 11
    assert ", 1024 by now" in said

"""Over HTTP a client hears that its tools changed: when they did, when they did not, and to the end."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from guard.proxy import exchange
from tests.proxy.estate import Estate, Server
from tests.proxy.pairs import ECHO, ERAS, attended, until
from tests.proxy.raw_http import Stream
from tests.proxy.scene import LEGACY, MODERN, PATIENCE, TOOLS, tool

CHANGED = "notifications/tools/list_changed"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
WANTED = {"notifications": {"toolsListChanged": True}}
FEWER = [each for each in TOOLS if each["name"] != "slow"]


def lists(estate: Estate) -> int:
    return len(estate.received("one", "tools/list"))


async def looked(estate: Estate, asked: int) -> None:
    """Wait until Guard has listed the tools again, and told whoever it tells."""
    serving = estate.serving
    assert serving is not None
    await until(lambda: lists(estate) > asked)
    await until(lambda: not any(each._tasks for each in serving.house._watchers))  # type: ignore[attr-defined]


async def no_more(stream: Stream) -> list[dict[str, Any]]:
    """What else comes before the end of a stream."""
    found = []
    try:
        while True:
            found.append(await stream.next())
    except EOFError:
        return found


@ERAS
async def test_a_session_hears_of_a_change_that_it_can_see(tmp_path: Path, era: str) -> None:
    """The handshake era's GET stream: nothing for an unpinned tool, one message for one that went."""
    estate = Estate(tmp_path / "estate", Server("one", era, "http"))
    estate.pin()
    client_key = estate.key()
    async with estate.guarded():
        client = estate.client(LEGACY, client_key)
        await client.greet()
        await attended(estate, era, client)
        before = (await client.request("tools/list")).message()["result"]["tools"]
        async with client.listen() as stream:
            asked = lists(estate)
            estate.show("one", [*TOOLS, tool("new")])
            await looked(estate, asked)
            assert (await client.request("tools/list")).message()["result"]["tools"] == before
            asked = lists(estate)
            estate.show("one", FEWER)
            assert await stream.next() == {"jsonrpc": "2.0", "method": CHANGED, "params": {}}
            await looked(estate, asked)
            after = (await client.request("tools/list")).message()["result"]["tools"]
            assert [each["name"] for each in after] == ["echo", "fail"]
            assert (await client.delete()).status == 204
            assert await no_more(stream) == []


@ERAS
async def test_a_subscription_hears_of_a_change_that_it_can_see(tmp_path: Path, era: str) -> None:
    """2026-07-28: acknowledged first, each message names its subscription, and a graceful end is a result."""
    estate = Estate(tmp_path / "estate", Server("one", era, "http"))
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        async with client.stream("subscriptions/listen", WANTED) as stream:
            first = await stream.next()
            about = {SUBSCRIPTION: first["params"]["_meta"][SUBSCRIPTION]}
            assert first["method"] == "notifications/subscriptions/acknowledged"
            assert first["params"] == {"_meta": about, "notifications": {"toolsListChanged": True}}
            await attended(estate, era, client)
            asked = lists(estate)
            estate.show("one", [*TOOLS, tool("new")])
            await looked(estate, asked)
            asked = lists(estate)
            estate.show("one", FEWER)
            assert await stream.next() == {"jsonrpc": "2.0", "method": CHANGED, "params": {"_meta": about}}
            await looked(estate, asked)
            serving.front.finish()
            (last,) = await no_more(stream)
            assert last["id"] == about[SUBSCRIPTION]
            assert last["result"] == {"resultType": "complete", "_meta": about}


@pytest.mark.parametrize("wanted", [{}, {"toolsListChanged": False}, {"promptsListChanged": True}])
async def test_a_subscription_to_nothing_hears_nothing(tmp_path: Path, wanted: dict[str, bool]) -> None:
    """What is not honoured is not acknowledged, and never told."""
    estate = Estate(tmp_path / "estate", Server("one", "modern", "http"))
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        async with (
            client.stream("subscriptions/listen", {"notifications": wanted}) as deaf,
            client.stream("subscriptions/listen", WANTED) as hears,
        ):
            assert (await deaf.next())["params"]["notifications"] == {}
            await hears.next()
            await attended(estate, "modern", client)
            estate.show("one", FEWER)
            assert (await hears.next())["method"] == CHANGED
            serving.front.finish()
            (last,) = await no_more(deaf)
            assert "result" in last


async def test_a_server_over_stdio_is_heard_as_well(tmp_path: Path) -> None:
    """Its notification reaches every client whose view changed, on the stream that the client has."""
    said = json.dumps({"jsonrpc": "2.0", "method": CHANGED})
    estate = Estate(tmp_path / "estate", Server("one", "legacy", "stdio", answers=[[said, ECHO]]))
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client, other = estate.client(MODERN, key), estate.client(LEGACY, key)
        await other.greet()
        await other.request("tools/list")
        async with other.listen() as session, client.stream("subscriptions/listen", WANTED) as stream:
            await stream.next()
            estate.show("one", FEWER)
            await client.call("echo")
            assert (await stream.next())["method"] == CHANGED
            await other.call("echo")  # a session has a process of its own, and is told by that one
            assert (await session.next())["method"] == CHANGED


async def test_a_new_policy_is_a_change_too(tmp_path: Path) -> None:
    """A reload that takes a tool out of sight is told to whoever saw it, and to nobody else."""
    estate = Estate(tmp_path / "estate", Server("one"))
    estate.pin()
    key, powerful = estate.key(), estate.key("mighty", "powerful")
    async with estate.guarded() as serving:
        client, other = estate.client(MODERN, key), estate.client(MODERN, powerful)
        async with (
            client.stream("subscriptions/listen", WANTED) as stream,
            other.stream("subscriptions/listen", WANTED) as unchanged,
        ):
            await stream.next()
            await unchanged.next()
            tools = [
                {"match": "echo", "scopes": ["use"]},
                *({"match": name, "scopes": ["more"]} for name in ("slow", "fail", "hidden")),
            ]
            estate.write_policy(version=2, tools=tools)
            assert await serving.reload()
            assert (await stream.next())["method"] == CHANGED
            serving.front.finish()
            assert ["result" in each for each in await no_more(unchanged)] == [True]


async def test_a_stream_outlives_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the key is revoked the GET stream ends at its next sign of life."""
    monkeypatch.setattr(exchange, "KEEP_ALIVE_SECONDS", 0.02)
    estate = Estate(tmp_path / "estate", Server("one"))
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client = estate.client(LEGACY, key)
        await client.greet()
        async with client.listen() as stream:
            estate.revoke(key)
            assert await no_more(stream) == []


async def test_a_subscription_outlives_no_key(tmp_path: Path) -> None:
    """A revoked key hears of no change any more."""
    estate = Estate(tmp_path / "estate", Server("one", "modern", "http"))
    estate.pin()
    key, other_key = estate.key(), estate.key("other")
    async with estate.guarded() as serving:
        client, other = estate.client(MODERN, key), estate.client(MODERN, other_key)
        async with (
            client.stream("subscriptions/listen", WANTED) as stream,
            other.stream("subscriptions/listen", WANTED) as hears,
        ):
            await stream.next()
            await hears.next()
            await attended(estate, "modern", other, links=2)
            estate.revoke(key)
            estate.show("one", FEWER)
            assert (await hears.next())["method"] == CHANGED
            serving.front.finish()
            assert all("method" not in each for each in await no_more(stream))


async def test_the_newest_stream_of_a_session_is_the_one(tmp_path: Path) -> None:
    """An older GET stream ends when another begins, and nothing is told twice."""
    estate = Estate(tmp_path / "estate", Server("one", "modern", "http"))
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client = estate.client(LEGACY, key)
        await client.greet()
        await attended(estate, "modern", client)
        async with client.listen() as old, client.listen() as new:
            assert await no_more(old) == []
            estate.show("one", FEWER)
            assert (await new.next())["method"] == CHANGED


@ERAS
async def test_a_guard_that_closes_ends_every_stream(tmp_path: Path, era: str) -> None:
    """Streams are no reason to wait: a subscription is answered, a GET stream ends, and Guard is gone."""
    estate = Estate(tmp_path / "estate", Server("one", era, "http"))
    estate.pin()
    key = estate.key()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(estate.guarded())
        client, other = estate.client(MODERN, key), estate.client(LEGACY, key)
        await other.greet()
        async with client.stream("subscriptions/listen", WANTED) as stream, other.listen() as session:
            await stream.next()
            closing = asyncio.ensure_future(stack.aclose())
            assert ["result" in each for each in await no_more(stream)] == [True]
            assert await no_more(session) == []
            await asyncio.wait_for(closing, PATIENCE)
    estate.settled()

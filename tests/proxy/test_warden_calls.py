"""A call that may be no more, among others that may: its tool, its conversation, its policy, its wait."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from guard.config.policies import adopt_policy, load_policy
from guard.config.run import Guarded
from guard.lineage.entry import Kind
from tests.proxy.estate import Server
from tests.proxy.features import BYS, ERAS, POLICY, TOOLS, Estates, Party, servers, until
from tests.proxy.raw_http import CLIENT
from tests.proxy.scene import LEGACY, MODERN, Scene
from tests.proxy.wards import (
    BY,
    CAUSES,
    LIFE,
    NOBODY,
    ONE,
    Clock,
    Two,
    about,
    brief_key,
    clocked,
    contain,
    listening,
    told,
    tool,
)

MUTE = [sys.executable, "-I", "-S", "-c", "import sys\nfor line in sys.stdin: pass"]
"""A tool server that never answers anything."""


def end() -> str:
    """LIFE seconds from now, as a policy has it."""
    return (datetime.now(UTC) + timedelta(seconds=LIFE)).strftime("%Y-%m-%dT%H:%M:%SZ")


def under_way(estate: Estates, calls: int) -> Any:
    return until(lambda: len(estate.received(method="tools/call")) == calls)


@asynccontextmanager
async def both(
    folder: Path, version: str, by: str, **policy: Any
) -> AsyncIterator[tuple[Estates, Party, asyncio.Task[Any], asyncio.Task[Any]]]:
    """One client, and two calls of it under way: of `do`, and of `echo`. They end when `go` is there."""
    estate = Estates(folder / "estate", *servers(version, "stdio"), policy={**POLICY, **policy})
    acts = [{"appears": str(folder / "go")}, {"answer": {"content": [], "secret": "x"}}]
    estate.write_book("one", **{"tools/call": {"do": acts, "echo": acts}})
    async with estate.speaking(version, by) as party:
        calls = [party.start("tools/call", {"name": name, "arguments": {}})[1] for name in ("do", "echo")]
        await under_way(estate, 2)
        yield estate, party, calls[0], calls[1]


@BYS
@ERAS
async def test_of_a_contained_tool_every_call_ends_and_no_other(
    tmp_path: Path, version: str, by: str
) -> None:
    """Its session goes on, and so does a call of another tool in it."""
    async with both(tmp_path, version, by) as (estate, party, ended, other):
        contain(estate, "tool", tool("do"))
        assert about(await asyncio.wait_for(ended, 20))["reason"] == "tool-contained"
        (tmp_path / "go").touch()
        assert (await other)["result"]["secret"] == "x"
        await party.settle()
    assert sorted(estate.endings()) == [["granted", "returned"], ["granted", "unknown"]]


@BYS
@ERAS
@pytest.mark.parametrize("how", ["unlisted", "scopes", "needs"])
async def test_of_a_tool_out_of_sight_every_call_ends_and_no_other(
    tmp_path: Path, version: str, by: str, how: str
) -> None:
    """After a reload; the client is told of it as of a tool that is not there."""
    shown = {"match": "echo", "scopes": ["use"]}
    more = {"match": "do", "scopes": ["more"]}
    tools = {
        "unlisted": [shown],
        "scopes": [shown, more],
        "needs": [shown, more, {"match": "d*", "scopes": ["use"]}],
    }[how]
    async with both(tmp_path, version, by) as (estate, _, ended, other):
        estate.write_policy(version=2, tools=tools)
        assert estate.serving is not None
        assert await estate.serving.reload()
        found = about(await asyncio.wait_for(ended, 20))
        assert found["reason"] == ("missing-scope" if how == "needs" else "unknown-tool")
        (tmp_path / "go").touch()
        assert (await other)["result"]["secret"] == "x"
    (unknown,) = estate.written(Kind.UNKNOWN)
    assert unknown["reason"] == ("missing-scope" if how == "needs" else "tool-not-visible")


@BYS
async def test_a_reload_that_leaves_it_in_sight_ends_no_call(tmp_path: Path, by: str) -> None:
    """A call keeps the decision that it was granted by: other rules are for the next one."""
    async with both(tmp_path, MODERN, by) as (estate, party, one, other):
        forbids = [{"id": "no-more", "tools": ["do", "echo"]}]
        estate.write_policy(version=2, protected=forbids)
        assert estate.serving is not None
        assert await estate.serving.reload()
        await party.settle()
        (tmp_path / "go").touch()
        for call in (one, other):
            assert (await call)["result"]["secret"] == "x"


@BYS
@ERAS
@pytest.mark.parametrize("how", ["expires", "observe"])
async def test_with_its_policy_every_call_ends(tmp_path: Path, version: str, by: str, how: str) -> None:
    """At the policy's end, or where observing ends: nothing moves in the store then."""
    policy = {"expires": end()} if how == "expires" else {"mode": "observe", "observe_until": end()}
    with clocked() as clock:
        async with both(tmp_path, version, by, **policy) as (estate, _, one, other):
            clock.run_out()
            for call in (one, other):
                assert about(await asyncio.wait_for(call, 20))["reason"] == "policy-expired"
            (tmp_path / "go").touch()
    assert sorted(estate.endings()) == [["granted", "unknown"]] * 2


@BYS
@ERAS
async def test_everything_contained_ends_every_call(tmp_path: Path, version: str, by: str) -> None:
    """Of every principal, whatever it is about."""
    async with both(tmp_path, version, by) as (estate, _, one, other):
        contain(estate, "all", "")
        for call in (one, other):
            assert about(await asyncio.wait_for(call, 20))["reason"] == "principal-contained"


@BYS
async def test_of_a_contained_conversation_every_call_ends(tmp_path: Path, by: str) -> None:
    """A role that may assert conversations keeps its others; any other role has none to keep."""
    for asserts in (True, False):
        folder = tmp_path / str(asserts)
        folder.mkdir()
        estate = Estates(folder / "estate", *servers(MODERN, "stdio"), policy={**POLICY})
        role = {"scopes": ["use"], "may_assert_conversations": asserts}
        estate.write_policy(roles={**POLICY["roles"], "caller": role})
        acts = [{"appears": str(folder / "go")}, {"answer": {"content": [], "secret": "x"}}]
        async with estate.speaking(MODERN, by) as party:
            params = {"name": "do", "arguments": {"acts": acts}}
            calls = [
                party.start("tools/call", params, **{"dev.guard-mcp/conversation": name})[1] for name in "ab"
            ]
            await under_way(estate, 2)
            with estate.store() as store:
                rows = {row.given: row.id for row in store.conversations()}
            contain(estate, "conversation", rows["a"])
            assert about(await asyncio.wait_for(calls[0], 20))["reason"] == "conversation-contained"
            (folder / "go").touch()
            if asserts:
                assert (await calls[1])["result"]["secret"] == "x"
            else:
                assert about(await calls[1])["reason"] == "conversation-contained"


@BY
@pytest.mark.parametrize("method", ["tools/call", "initialize", "tools/list"])
async def test_who_waits_for_a_server_is_denied(tmp_path: Path, method: str, cause: str) -> None:
    """A server that does not answer keeps nobody waiting who may not wait; nothing was granted or sent."""
    _, reason = CAUSES[cause]
    estate = Estates(tmp_path / "estate", Server("one", settings={"command": MUTE}), policy=POLICY)
    estate.pin(tools=TOOLS)
    key = brief_key(estate) if cause == "expiry" else estate.key()
    with clocked() as clock:
        await _denied(estate, key, clock, method, cause)
    assert [one["decision"]["reason"] for one in estate.denials()] == [reason] * (method == "tools/call")
    assert estate.entries(Kind.GRANTED) == []


async def _denied(estate: Estates, key: str, clock: Clock, method: str, cause: str) -> None:
    act, reason = CAUSES[cause]
    async with estate.guarded() as serving:
        client = estate.client(LEGACY if method == "initialize" else MODERN, key)
        wanted: dict[str, Any] = {"name": "do", "arguments": {}} if method == "tools/call" else {}
        if method == "initialize":
            wanted = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}
        waiting = asyncio.ensure_future(client.request(method, wanted))
        links = serving.house.generation.servers["one"]._links
        await until(lambda: [link for link in links.values() if link.users])
        await act(Two(estate, cast("Any", None), cast("Any", None), key, MODERN, clock))
        answer = await asyncio.wait_for(waiting, 20)
        if method == "tools/call":
            found = about(answer.message())
            assert (found["decision"], found["reason"]) == ("deny", reason)
            assert "outcome" not in found
        else:
            assert told(answer.message()) == (4401 if reason in NOBODY else 4403, reason)
            assert answer.status == (401 if reason in NOBODY else 200)
        assert len(serving.front.sessions) == 0


@ERAS
async def test_a_caller_that_a_reload_replaces_has_nothing_left(tmp_path: Path, version: str) -> None:
    """Where the configuration says who calls, and says another: what the first one began ends."""
    estate = Estates(tmp_path / "estate", *servers(version, "stdio"))
    fixed = {"identity": {"role": "caller", "principal": "someone"}}
    acts = [{"appears": str(tmp_path / "go")}, {"answer": {"content": [], "secret": "x"}}]
    async with estate.guarded(**fixed) as serving, estate.party(version, "") as party:
        _, call = party.start("tools/call", {"name": "do", "arguments": {"acts": acts}})
        await under_way(estate, 1)
        end = await listening(party, toolsListChanged=True) if version == MODERN else None
        estate.write_config(identity={"role": "powerful", "principal": "another"})
        assert await serving.reload()
        found = about(await asyncio.wait_for(call, 20))
        assert (found["reason"], found["outcome"]) == ("invalid-key", "unknown")
        (tmp_path / "go").touch()
        if end is None:
            await asyncio.wait_for(party.ended.wait(), 20)
            assert (await party.raw.send("GET")).status == 404
        else:
            assert told(await asyncio.wait_for(end, 20)) == (4401, "invalid-key")


async def test_a_newer_policy_that_only_another_guard_has_closes_everything(tmp_path: Path) -> None:
    """This one would decide by the old one: nothing is shown by it; after its own reload it goes on."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, "stdio"))
    acts = [{"appears": str(tmp_path / "go")}, {"answer": {"content": [], "secret": "x"}}]
    async with estate.speaking(LEGACY, "http") as party:
        _, call = party.start("tools/call", {"name": "do", "arguments": {"acts": acts}})
        await under_way(estate, 1)
        estate.write_policy(version=2)
        policy = load_policy(estate.folder / "policy.json")
        with estate.store() as store:
            adopt_policy(store, policy, {}, tenant="default")
        assert about(await asyncio.wait_for(call, 20))["reason"] == "policy-superseded"
        await asyncio.wait_for(party.ended.wait(), 20)
        assert told(await party.ask("resources/subscribe", {"uri": ONE})) == (4403, "policy-superseded")
        (tmp_path / "go").touch()
        assert estate.serving is not None
        assert await estate.serving.reload()
        assert (await party.do({"answer": {"content": [], "fine": 1}}))["result"]["fine"] == 1
        async with party.raw.listen() as stream:
            assert (await party.ask("resources/subscribe", {"uri": ONE}))["result"] == {}
            await party.do({"update": ONE})
            assert (await stream.next())["params"] == {"uri": ONE}
    assert len({line["_pid"] for line in estate.all("one") if line.get("method") == "tools/call"}) == 1


async def test_a_result_that_came_just_before_is_not_shown(tmp_path: Path) -> None:
    """Under `strict` it waits for the disk: who ends meanwhile is told that it was executed, and no more."""
    scene = Scene(tmp_path / "scene")
    scene.pin()
    caught: list[Guarded] = []
    async with scene.guarded(strict=True, wrap=caught.append) as client:
        gate = caught[0].gate
        ended = gate.end

        async def end(call: Any, ending: Any) -> None:
            await ended(call, ending)
            contain(scene, "all", "")
            gate.house.warden.moved()

        gate.end = end  # type: ignore[method-assign]
        found = about(await client.call(text="secret"))
        assert (found["reason"], found["outcome"]) == ("principal-contained", "executed")
        assert b"secret" not in b"".join(client.raw)
    assert [*scene.settled().values()] == [["granted", "returned"]]


async def test_of_a_contained_tool_nothing_is_kept(tmp_path: Path) -> None:
    """2025-11-25: a result that its client has not fetched yet is not given out any more; others are."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, "stdio"))
    acts = [{"progress": 1}, {"answer": {"content": [], "secret": "x"}}]
    estate.write_book("one", **{"tools/call": {"echo": acts}})
    async with estate.speaking(LEGACY, "http") as party:
        raw, firsts = party.raw, {}
        for name in ("do", "echo"):
            params = {"name": name, "arguments": {"acts": acts}, "_meta": {"progressToken": 1}}
            done = await raw.post(raw.message("tools/call", params))
            firsts[name] = done.body.split(b"id: ")[1].split()[0].decode()
            assert b"secret" in (await raw.send("GET", headers={"Last-Event-ID": firsts[name]})).body
        contain(estate, "tool", tool("do"))
        assert estate.serving is not None
        (held,) = estate.serving.front.sessions.each()
        await until(lambda: held.streams.find(firsts["do"]) is None)
        assert (await raw.send("GET", headers={"Last-Event-ID": firsts["do"]})).status == 400
        assert b"secret" in (await raw.send("GET", headers={"Last-Event-ID": firsts["echo"]})).body


async def test_of_a_call_that_ended_so_its_end_alone_can_be_fetched(tmp_path: Path) -> None:
    """2025-11-25: who comes back to it gets the reason, and nothing of what was told before."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, "stdio"))
    acts = [{"progress": 1}, {"appears": str(tmp_path / "go")}]
    async with estate.speaking(LEGACY, "http") as party:
        params = {"name": "do", "arguments": {"acts": acts}, "_meta": {"progressToken": 1}}
        async with party.raw.connected() as connection:
            connection.write(party.raw.written("POST", party.raw.message("tools/call", params)))
            await connection.head()
            data = b""
            while b"progress" not in data:
                data += await connection.piece()
        first = data.split(b"id: ")[1].split()[0].decode()
        contain(estate, "tool", tool("do"))
        again = await party.raw.send("GET", headers={"Last-Event-ID": first})
        assert b"tool-contained" in again.body
        again = await party.raw.send("GET", headers={"Last-Event-ID": first})
        assert again.status == 200
        assert b"tool-contained" in again.body
        assert b"progress" not in again.body
        (tmp_path / "go").touch()


@BYS
async def test_where_servers_stay_nothing_of_them_is_told_or_asked(tmp_path: Path, by: str) -> None:
    """2025-11-25: with the policy's end a server keeps its client, and what it says is dropped or refused."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, "stdio"), policy={**POLICY, "expires": end()})
    sample = {"ask": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}
    said = [{"log": "info", "data": "secret"}, {"update": ONE}, {"changed": "prompts"}, sample]
    acts = [{"progress": 1}, {"appears": str(tmp_path / "go")}, *said]
    with clocked() as clock:
        async with estate.speaking(LEGACY, by) as party:
            await party.ask("resources/subscribe", {"uri": ONE})
            params = {"name": "do", "arguments": {"acts": acts}}
            _, call = party.start("tools/call", params, progressToken="t")
            await party.hears("notifications/progress")
            clock.run_out()
            assert about(await asyncio.wait_for(call, 20))["reason"] == "policy-expired"
            heard = [*party.notes]
            (tmp_path / "go").touch()
            (refused,) = await until(lambda: [one for one in estate.all("one") if one.get("id") == "s-1"])
            assert refused["error"]["code"] == 4403
            await party.ask("ping")
            assert (party.notes, party.asked) == (heard, [])


@ERAS
async def test_a_caller_that_a_reload_replaces_on_stdio_is_shown_nothing(
    tmp_path: Path, version: str
) -> None:
    """The pipe is the same, and somebody else's by now."""
    estate = Estates(tmp_path / "estate", *servers(version, "stdio"))
    acts = [{"appears": str(tmp_path / "go")}, {"answer": {"content": [], "secret": "x"}}]
    async with estate.speaking(version, "stdio") as party:
        _, call = party.start("tools/call", {"name": "do", "arguments": {"acts": acts}})
        await under_way(estate, 1)
        estate.write_config(listen="stdio", identity={"role": "caller", "principal": "another"})
        assert estate.serving is not None
        assert await estate.serving.reload()
        found = about(await asyncio.wait_for(call, 20))
        assert (found["reason"], found["outcome"]) == ("invalid-key", "unknown")
        (tmp_path / "go").touch()
        assert (await party.do({"answer": {"content": [], "fine": 1}}))["result"]["fine"] == 1

"""What belongs to a session and outlives its grant: subscriptions, questions, kept streams, servers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.proxy.features import ERAS, OVERS, Estates, servers, until
from tests.proxy.raw_http import SSE
from tests.proxy.scene import LEGACY, MODERN
from tests.proxy.wards import (
    BY,
    CAUSES,
    NOBODY,
    ONE,
    UPDATED,
    about,
    contain,
    listening,
    release,
    someone,
    subscribed,
    told,
    two,
)

OTHER = "test://shown/bytes"
LOG = "notifications/message"
SAMPLE: dict[str, Any] = {"messages": [], "maxTokens": 7}


def links(estate: Estates, principal: str) -> list[Any]:
    """The links of a principal that are up."""
    assert estate.serving is not None
    every = [link for one in estate.serving.house.generation.servers.values() for link in one.links]
    return [link for link in every if any(user.subject == principal for user in link.users.values())]


@BY
@ERAS
async def test_a_principals_server_goes_with_its_last_key(tmp_path: Path, version: str, cause: str) -> None:
    """Its process is stopped, whatever it was doing; another principal's is not."""
    act, _ = CAUSES[cause]
    async with two(tmp_path, version, cause) as at:
        for party in (at.ended, at.honest):
            await party.ask("tools/list")
            await party.do()
        (gone,), (stays,) = links(at.estate, "someone"), links(at.estate, "honest")
        process = gone.upstream._process
        await act(at)
        await until(lambda: links(at.estate, "someone") == [] and process.get_returncode() is not None)
        assert links(at.estate, "honest") == [stays]
        assert stays.up


async def test_a_server_stays_with_another_key_of_its_principal(tmp_path: Path) -> None:
    """2026-07-28: a principal's link is there for all its keys, and goes with the last one."""
    async with two(tmp_path, MODERN, "revocation") as at:
        more = at.estate.key()
        async with at.estate.party(MODERN, more) as again:
            await at.ended.do()
            (link,) = links(at.estate, "someone")
            await again.do()
            end = await listening(at.ended)
            at.estate.revoke(at.key)
            assert told(await asyncio.wait_for(end, 20)) == (4401, "revoked-key")
            await again.do()
            assert links(at.estate, "someone") == [link]
            at.estate.revoke(more)
            await until(lambda: links(at.estate, "someone") == [])


@BY
async def test_a_resource_that_was_subscribed_to_tells_nothing_more(tmp_path: Path, cause: str) -> None:
    """2025-11-25: the server is let go of; whatever still comes is told to the honest one alone."""
    act, _ = CAUSES[cause]
    async with two(tmp_path, LEGACY, cause, "http") as at:
        for party in (at.ended, at.honest):
            await party.ask("logging/setLevel", {"level": "debug"})
            await subscribed(party)
        go = str(at.gate("go"))
        acts = [{"appears": go}, {"update": ONE}, {"log": "info", "data": "secret"}]
        for party in (at.ended, at.honest):
            party.start("tools/call", {"name": "do", "arguments": {"acts": acts}})
        await until(lambda: len(at.estate.received(method="tools/call")) == 2)
        await act(at)
        await asyncio.wait_for(at.ended.ended.wait(), 20)
        at.gate("go").touch()
        await at.honest.hears(UPDATED)
        await at.honest.hears(LOG)
        assert at.ended.heard(UPDATED) == at.ended.heard(LOG) == []


@BY
async def test_a_question_that_waits_is_called_off(tmp_path: Path, cause: str) -> None:
    """Who is still somebody is told, under the id that they know; what they answer reaches nobody."""
    act, reason = CAUSES[cause]
    async with two(tmp_path, LEGACY, cause) as at:
        at.honest.replies["sampling/createMessage"] = lambda _: None
        acts = [{"ask": "sampling/createMessage", "params": SAMPLE}]
        calls = [
            p.start("tools/call", {"name": "do", "arguments": {"acts": acts}})[1]
            for p in (at.ended, at.honest)
        ]
        await until(lambda: at.ended.asked and at.honest.asked)
        await act(at)
        assert about(await asyncio.wait_for(calls[0], 20))["reason"] == reason
        asked = at.ended.asked[0]["id"]
        called_off = [one["requestId"] for one in at.ended.heard("notifications/cancelled")]
        assert called_off == ([] if reason in NOBODY else [asked])  # who is nobody is told nothing at all
        late = {"jsonrpc": "2.0", "id": asked, "result": {"secret": "late"}}
        assert (await at.ended.raw.post(late)).status == (401 if reason in NOBODY else 202)
        at.honest.say({"jsonrpc": "2.0", "id": at.honest.asked[0]["id"], "result": {"fine": True}})
        noted = (await asyncio.wait_for(calls[1], 20))["result"]["structuredContent"]["noted"]
        assert noted == [{"result": {"fine": True}}]
    assert at.estate.about("late") == []


@BY
async def test_what_was_kept_of_a_stream_is_kept_no_longer(tmp_path: Path, cause: str) -> None:
    """2025-11-25: neither of an answer that was told nor of one that is under way."""
    act, reason = CAUSES[cause]
    async with two(tmp_path, LEGACY, cause) as at:
        raw = at.ended.raw
        acts = [{"progress": 1}, {"answer": {"content": [], "secret": "x"}}]
        message = raw.message(
            "tools/call", {"name": "do", "arguments": {"acts": acts}, "_meta": {"progressToken": 1}}
        )
        done = await raw.post(message)
        assert done.kind == SSE
        first = done.body.split(b"id: ")[1].split()[0].decode()
        again = await raw.send("GET", headers={"Last-Event-ID": first})
        assert b"secret" in again.body
        assert at.estate.serving is not None
        held = next(one for one in at.estate.serving.front.sessions.each() if one.id == raw.session)
        assert held.streams.bytes > 0
        await act(at)
        await asyncio.wait_for(at.ended.ended.wait(), 20)
        assert held.streams.bytes == 0
        again = await raw.send("GET", headers={"Last-Event-ID": first})
        assert again.status == (401 if reason in NOBODY else 403)
        assert b"secret" not in again.body


async def test_a_session_goes_on_when_its_principal_is_released(tmp_path: Path) -> None:
    """2025-11-25: a containment ends what is under way, not the session; its subscriptions stand again."""
    async with two(tmp_path, LEGACY, "containment") as at:
        await subscribed(at.ended)
        contain(at.estate, "principal", someone())
        await asyncio.wait_for(at.ended.ended.wait(), 20)
        assert about(await at.ended.do({"update": ONE}))["reason"] == "principal-contained"
        for method, params in (
            ("resources/subscribe", {"uri": ONE}),
            ("logging/setLevel", {"level": "info"}),
        ):
            assert told(await at.ended.ask(method, params)) == (4403, "principal-contained")
        release(at.estate, "principal", someone())
        assert at.estate.serving is not None
        held = next(o for o in at.estate.serving.front.sessions.each() if o.id == at.ended.raw.session)
        await until(lambda: held.session.barred is None)
        async with at.ended.raw.listen() as stream:
            await at.ended.do()
            await until(lambda: len(at.estate.received(method="resources/subscribe")) == 2)
            await at.ended.do({"update": ONE})
            assert (await stream.next())["params"] == {"uri": ONE}


@OVERS
async def test_a_resource_out_of_sight_is_unsubscribed_from(tmp_path: Path, over: str) -> None:
    """In either era, at the server as well; and subscribed to again once it is seen again."""
    for version in (LEGACY, MODERN):
        estate = Estates(tmp_path / version, *servers(version, over))
        async with estate.speaking(version, "http") as party:
            if version == MODERN:
                await listening(party, resourceSubscriptions=[ONE, OTHER])
            else:
                await subscribed(party, ONE)
                await subscribed(party, OTHER)
            assert estate.serving is not None
            estate.write_policy(version=2, resources=[{"match": OTHER, "scopes": ["use"]}])
            assert await estate.serving.reload()
            await until(lambda estate=estate, version=version: wanted(estate, version) == {OTHER})
            await party.do({"update": ONE, "rude": True}, {"update": OTHER, "rude": True})
            await party.hears(UPDATED)
            estate.write_policy(version=3, resources=[{"match": "test://shown/*", "scopes": ["use"]}])
            assert await estate.serving.reload()
            await until(lambda estate=estate, version=version: wanted(estate, version) == {ONE, OTHER})
            await party.do({"update": ONE})
            await party.hears(UPDATED, 2)
            assert [one["uri"] for one in party.heard(UPDATED)] == [OTHER, ONE]


def wanted(estate: Estates, version: str) -> set[str]:
    """What the server was asked to tell of, by what it was told last."""
    found: set[str] = set()
    for message in estate.all("one"):
        params = message.get("params") or {}
        if version == MODERN and message.get("method") == "subscriptions/listen":
            found = {*params["notifications"].get("resourceSubscriptions", ())} or found
        elif message.get("method") == "resources/subscribe":
            found.add(params["uri"])
        elif message.get("method") == "resources/unsubscribe":
            found.discard(params["uri"])
    return found


@BY
@ERAS
async def test_what_is_no_call_is_let_go_of_too(tmp_path: Path, version: str, cause: str) -> None:
    """A completion that is under way ends with the reason, and is called off; what comes late is nobody's."""
    act, reason = CAUSES[cause]
    params = {"ref": {"type": "ref/prompt", "name": "hello"}, "argument": {"name": "who", "value": "a"}}
    async with two(tmp_path, version, cause) as at:
        late = {"completion": {"values": ["secret"]}}
        acts = [{"appears": str(at.gate("go"))}, {"answer": late}]
        at.estate.write_book("one", **{"completion/complete": {"": acts}})
        asked = [party.start("completion/complete", params)[1] for party in (at.ended, at.honest)]
        await until(lambda: len(at.estate.received(method="completion/complete")) == 2)
        await act(at)
        answer = await asyncio.wait_for(asked[0], 20)
        assert told(answer) == (4401 if reason in NOBODY else 4403, reason)
        at.gate("go").touch()
        assert (await asked[1])["result"]["completion"] == late["completion"]

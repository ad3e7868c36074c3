"""Sessions of the handshake era over HTTP: whose they are, and how many there may be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from guard.lineage.entry import Kind
from tests.proxy.outsider import LIMITS, outsider
from tests.proxy.raw_http import Answer, RawHttp
from tests.proxy.scene import LEGACY

OLD: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "echo", "arguments": {"text": "stolen"}},
}
CANCEL = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
MADE_UP = ["x", "AAAAAAAAAAAAAAAAAAAAAA", "../../etc/passwd", "' or 1=1", "", "\xe9", "x" * 4000]


async def everything(client: RawHttp) -> list[Answer]:
    """Each thing that can be done with a session."""
    found = [await client.post(OLD), await client.post({**OLD, "method": "tools/list", "params": {}})]
    return [*found, await client.post(CANCEL), await client.send("GET"), await client.delete()]


async def test_a_session_of_another_principal_does_not_exist(tmp_path: Path) -> None:
    """404 for a call, a list, a notification, its stream and its end; and it lives on."""
    async with outsider(tmp_path, "http", LEGACY, limits=LIMITS) as at:
        thief = await at.another("thief", LEGACY)
        thief.session = at.client.session
        answers = await everything(thief)
        assert [answer.status for answer in answers] == [404] * 5
        refused(answers, at.client.session)
        await at.honest()
    assert at.estate.entries(Kind.DENIED) == []


def refused(answers: list[Answer], session: str | None) -> None:
    """None of them repeats the session."""
    assert session
    assert all(session.encode() not in answer.body for answer in answers)


@pytest.mark.parametrize("version", ["handshake", "no version"])
@pytest.mark.parametrize("session", MADE_UP, ids=range(len(MADE_UP)))
async def test_a_session_that_is_made_up_does_not_exist(tmp_path: Path, session: str, version: str) -> None:
    """404, as for somebody else's."""
    async with outsider(tmp_path, "http", LEGACY, limits=LIMITS) as at:
        client = at.estate.client(LEGACY, at.key)
        fields = {"Mcp-Session-Id": session}
        answer = await client.post(
            OLD, headers={**fields, **({"MCP-Protocol-Version": None} if version != "handshake" else {})}
        )
        assert answer.status == 404
        assert (await client.send("GET", headers=fields)).status == 404
        assert (await client.send("DELETE", headers=fields)).status == 404
        await at.honest()


async def test_a_session_that_was_ended_does_not_exist(tmp_path: Path) -> None:
    """After DELETE it is 404 for its own principal too; a new one can be begun."""
    async with outsider(tmp_path, "http", LEGACY, limits=LIMITS) as at:
        assert (await at.client.delete()).status == 204
        assert [answer.status for answer in await everything(at.client)] == [404] * 5
        await at.client.greet()
        await at.honest()


async def test_without_a_session_there_is_no_call(tmp_path: Path) -> None:
    """400, and what could be done about it; GET and DELETE are not allowed."""
    async with outsider(tmp_path, "http", LEGACY, limits=LIMITS) as at:
        client = at.estate.client(LEGACY, at.key)
        answers = await everything(client)
        assert [answer.status for answer in answers] == [400, 400, 400, 405, 405]
        assert "initialize" in answers[0].message()["error"]["message"]
        await at.honest()


@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28", "2024-11-05", "x", ""])
async def test_a_session_speaks_the_version_that_it_agreed_on(tmp_path: Path, version: str) -> None:
    """Another one is 400, for a call as for the stream and the end; and it lives on."""
    async with outsider(tmp_path, "http", LEGACY, limits=LIMITS) as at:
        fields = {"MCP-Protocol-Version": version}
        assert (await at.client.post(OLD, headers=fields)).status == 400
        assert (await at.client.send("GET", headers=fields)).status == 400
        assert (await at.client.send("DELETE", headers=fields)).status == 400
        await at.honest()


async def test_two_session_ids_are_none(tmp_path: Path) -> None:
    """Which one was meant is not guessed."""
    async with outsider(tmp_path, "http", LEGACY, limits=LIMITS) as at:
        written = at.client.written("POST", OLD)
        field = f"Mcp-Session-Id: {at.client.session}\r\n".encode()
        assert (await at.client.exchange(written.replace(field, field * 2))).status == 400
        await at.honest()


async def test_the_newest_stream_of_a_session_is_the_one(tmp_path: Path) -> None:
    """A second GET stream ends the first, and costs the session nothing; a thief's ends neither."""
    async with outsider(tmp_path, "http", LEGACY, limits=LIMITS) as at:
        thief = await at.another("thief", LEGACY)
        thief.session = at.client.session
        async with at.client.listen() as first:
            ended = asyncio.ensure_future(first.next())
            assert (await thief.send("GET")).status == 404
            assert not ended.done()
            async with at.client.listen() as second:
                with pytest.raises(EOFError, match="the stream ended"):
                    await ended
                await at.honest()
                assert (await at.client.delete()).status == 204
                with pytest.raises(EOFError, match="the stream ended"):
                    await second.next()
        await at.client.greet()
        await at.honest()


async def test_more_sessions_than_one_principal_may_have(tmp_path: Path) -> None:
    """Its own idlest ends, whatever others do; others' live."""
    async with outsider(tmp_path, "http", LEGACY, limits={**LIMITS, "sessions": 2}) as at:
        other = await at.another("other", LEGACY)
        second = at.estate.client(LEGACY, at.key)
        await second.greet()
        await at.honest()  # so that the second is the idlest
        for _ in range(5):
            third = at.estate.client(LEGACY, at.key)
            await third.greet()
            await at.honest()
        assert (await second.post(OLD)).status == 404
        listing = {**OLD, "method": "tools/list", "params": {}}
        assert [(await client.post(listing)).status for client in (other, third)] == [200, 200]
        await at.honest()


async def test_a_flood_of_hellos_that_fail_holds_nothing(tmp_path: Path) -> None:
    """A hello that is refused begins no session, and ends none."""
    async with outsider(tmp_path, "http", LEGACY, limits={**LIMITS, "sessions": 1}) as at:
        for params in ({}, {"protocolVersion": 5}, {"protocolVersion": None}):
            answer = await at.estate.client(LEGACY, at.key).request("initialize", params)
            assert answer.message()["error"]["code"] == -32602
            assert "mcp-session-id" not in answer.headers
        assert at.estate.serving is not None
        assert len(at.estate.serving.front.sessions) == 1
        await at.honest()

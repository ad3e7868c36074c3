"""Honest traffic: every era and transport of a client, in front of every era and transport of a server."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest

from guard.lineage.entry import Kind
from guard.proxy import eras, exchange
from tests.proxy.estate import Estate, Server
from tests.proxy.pairs import (
    ARTIFACT,
    CLIENTS,
    ECHO,
    ERAS,
    PROGRESS,
    SERVERS,
    VERSIONS,
    acts,
    ask,
    heard,
    speaking,
    until,
)
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import LEGACY, MODERN, PATIENCE, Client, decision

ENVELOPE = {
    f"io.modelcontextprotocol/{name}" for name in ("protocolVersion", "clientInfo", "clientCapabilities")
}
SAID = {"name": "scripted", "version": "1"}, {"name": "scripted-http", "version": "1"}


@VERSIONS
@CLIENTS
@ERAS
@SERVERS
async def test_lists_and_calls_pass_in_every_pair(
    tmp_path: Path, version: str, by: str, era: str, over: str
) -> None:
    """The server gets its own tool name, the arguments as judged, the artifact, and no more of the client."""
    estate = Estate(tmp_path / "estate", Server("one", era, over), Server("two", "modern", "stdio"))
    estate.pin()
    meta = {"example.org/mine": 1, "dev.guard-mcp/decision": 2, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    arguments = {"text": 'ü\u2028"\\', "n": 9007199254740991, "more": [1.5, None, {"": []}]}
    async with speaking(estate, version, by) as client:
        listed = await ask(client, "tools/list", {})
        names = [tool["name"] for tool in listed["result"]["tools"]]
        assert names == [
            f"{server}__{tool}" for server in ("one", "two") for tool in ("echo", "slow", "fail")
        ]
        assert ("ttlMs" in listed["result"]) is (version == MODERN)
        found = await ask(client, "tools/call", {"name": "one__echo", "arguments": arguments, "_meta": meta})
        assert json.loads(found["result"]["content"][0]["text"]) == arguments
        if version == MODERN:
            assert found["result"]["resultType"] == "complete"
        other = await client.call("two__echo", text="b")
        assert other["result"]["content"][0]["text"] == '{"text": "b"}'
    (received,) = estate.received("one")
    assert received["params"].keys() == {"name", "arguments", "_meta"}
    assert (received["params"]["name"], received["params"]["arguments"]) == ("echo", arguments)
    sent = received["params"]["_meta"]
    assert sent.keys() == {ARTIFACT, "traceparent"} | (ENVELOPE if era == "modern" else set())
    claims = json.loads(urlsafe_b64decode(sent[ARTIFACT].split(".")[1] + "=="))
    assert claims["aud"] == "one"
    assert all(kinds == ["granted", "returned"] for kinds in estate.settled().values())


@VERSIONS
@CLIENTS
@ERAS
@SERVERS
async def test_one_server_keeps_its_own_names(
    tmp_path: Path, version: str, by: str, era: str, over: str
) -> None:
    """Where there is no other server nothing is put before a name, and a denied call reaches nobody."""
    estate = Estate(tmp_path / "estate", Server("one", era, over))
    estate.pin()
    async with speaking(estate, version, by) as client:
        tools = (await ask(client, "tools/list", {}))["result"]["tools"]
        assert [tool["name"] for tool in tools] == ["echo", "slow", "fail"]
        about = decision(await client.call("echo", n=13))
        assert (about["decision"], about["reason"]) == ("deny", "protected")
        for hidden in ("hidden", "one__echo", "nothing"):
            assert decision(await client.call(hidden))["reason"] == "unknown-tool"
    assert estate.received("one") == []
    assert [*estate.settled().values()] == [["denied"]] * 4


@VERSIONS
@CLIENTS
@ERAS
@SERVERS
async def test_progress_comes_before_the_result_with_the_clients_own_token(
    tmp_path: Path, version: str, by: str, era: str, over: str
) -> None:
    """The server never sees the client's token, the client never Guard's, and the order is the server's."""
    told = acts(over, *(PROGRESS % number for number in range(5)), ECHO)
    estate = Estate(tmp_path / "estate", Server("one", era, over, answers=[told]))
    estate.pin()
    async with speaking(estate, version, by) as client:
        params = {"name": "echo", "arguments": {"text": "x"}, "_meta": {"progressToken": "mine"}}
        found = await ask(client, "tools/call", params)
        assert found["result"]["content"][0]["text"] == '{"text": "x"}'
        progress = [each["params"] for each in client.notifications]
        client.notifications.clear()
        assert [each["progress"] for each in progress] == [0, 1, 2, 3, 4]
        assert {each["progressToken"] for each in progress} == {"mine"}
        await client.call("echo", text="nobody asked for progress here")
        assert client.notifications == []
    assert estate.received()[0]["params"]["_meta"]["progressToken"] != "mine"
    assert "progressToken" not in estate.received()[1]["params"]["_meta"]
    estate.settled()


@VERSIONS
@ERAS
@SERVERS
async def test_a_client_that_takes_no_streams_gets_the_result_alone(
    tmp_path: Path, version: str, era: str, over: str
) -> None:
    """What a server tells on the way is dropped where nothing can carry it; the call goes on."""
    estate = Estate(tmp_path / "estate", Server("one", era, over, answers=[acts(over, PROGRESS % 1, ECHO)]))
    estate.pin()
    async with speaking(estate, version, "http") as client:
        assert isinstance(client, RawHttp)
        params = {"name": "echo", "arguments": {}, "_meta": {"progressToken": 7}}
        answer = await client.request("tools/call", params, headers={"Accept": "application/json"})
        assert (answer.status, answer.kind) == (200, "application/json")
        assert answer.json()["result"]["content"][0]["text"] == "{}"
    estate.settled()


@CLIENTS
@ERAS
@SERVERS
@VERSIONS
async def test_what_a_client_calls_off_is_called_off_at_the_server(
    tmp_path: Path, version: str, by: str, era: str, over: str
) -> None:
    """However a client says it, the server hears of it in its own way, and the outcome is unknown."""
    wait = [{"wait": "notifications/cancelled"}]
    answers = [{"hang": True}] if over == "http" else [*wait, ECHO]
    estate = Estate(tmp_path / "estate", Server("one", era, over, answers=[answers, [ECHO]]))
    estate.pin()
    async with speaking(estate, version, by) as client:
        params = {"name": "slow", "arguments": {}}
        if isinstance(client, Client):
            id_ = client.request("tools/call", params)
            await until(lambda: estate.received("one"))
            client.say(_cancelled(id_))
        else:
            message = client.message("tools/call", params)
            async with client.connected() as connection:
                connection.write(client.written("POST", message))
                await until(lambda: estate.received("one"))
                if not client.modern:
                    assert (await client.post(_cancelled(message["id"]))).status == 202
                    assert not (await connection.answer()).body.strip(b":\r\n ")
        if over == "http":
            await until(lambda: "tools/call" in heard(estate, "one", "_closed"))
        if over == "stdio" or era == "legacy":
            await until(lambda: estate.received("one", "notifications/cancelled"))
            (notice,) = estate.received("one", "notifications/cancelled")
            assert notice["params"]["requestId"] == estate.received("one")[0]["id"]
        assert "isError" not in (await client.call("echo"))["result"]
    assert sorted(estate.settled().values()) == [["granted", "returned"], ["granted", "unknown"]]
    assert [entry["fields"] for entry in estate.entries(Kind.UNKNOWN)] == [{"reason": "cancelled"}]


def _cancelled(id_: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id_}}


@ERAS
async def test_in_the_handshake_era_a_lost_connection_calls_nothing_off(tmp_path: Path, era: str) -> None:
    """2025-11-25, transports: a disconnection is no cancellation; the call goes on to its end."""
    estate = Estate(
        tmp_path / "estate", Server("one", era, "http", answers=[[{"wait": "tools/call"}, ECHO], [ECHO]])
    )
    estate.pin()
    async with speaking(estate, LEGACY, "http") as client:
        assert isinstance(client, RawHttp)
        async with client.connected() as connection:
            connection.write(client.written("POST", client.message("tools/call", {"name": "slow"})))
            await until(lambda: estate.received("one"))
        assert "isError" not in (await client.call("echo"))["result"]
        await until(lambda: len(estate.entries(Kind.RETURNED)) == 2)
    assert estate.received("one", "notifications/cancelled") == []
    assert "tools/call" not in heard(estate, "one", "_closed")
    assert [*estate.settled().values()] == [["granted", "returned"]] * 2


@VERSIONS
async def test_a_long_call_shows_signs_of_life(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing comes a stream carries comments, so that nobody on the way takes it for dead."""
    monkeypatch.setattr(exchange, "KEEP_ALIVE_SECONDS", 0.02)
    estate = Estate(
        tmp_path / "estate", Server("one", "modern", "http", answers=[[{"wait": "tools/call"}, ECHO], [ECHO]])
    )
    estate.pin()
    async with speaking(estate, version, "http") as client:
        assert isinstance(client, RawHttp)
        async with client.connected() as connection, asyncio.timeout(PATIENCE):
            connection.write(client.written("POST", client.message("tools/call", {"name": "slow"})))
            assert (await connection.head()).kind == "text/event-stream"
            if not client.modern:
                assert await connection.piece() == b"id: 1-0\r\nevent: message\r\ndata: \r\n\r\n"
            for _ in range(3):
                assert await connection.piece() == b":\r\n\r\n"
            await client.call("echo")
            rest = b""
            while piece := await connection.piece():
                rest += piece
        message = json.loads(rest.rpartition(b"data: ")[2])
        assert message["result"]["content"][0]["text"] == "null"
    estate.settled()


@SERVERS
@ERAS
async def test_the_hello_of_each_era_says_what_guard_serves(tmp_path: Path, era: str, over: str) -> None:
    """One server speaks under its own name; the capabilities are Guard's, and the session id is fresh."""
    estate = Estate(tmp_path / "estate", Server("one", era, over))
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        modern, legacy = estate.client(MODERN, key), estate.client(LEGACY, key)
        found = (await modern.request("server/discover")).message()["result"]
        assert found["supportedVersions"] == [*eras.MODERN, *eras.HANDSHAKE]
        assert found["resultType"] == "complete"
        assert found["_meta"]["io.modelcontextprotocol/serverInfo"] in SAID
        answer = await legacy.greet()
        hello = answer.message()["result"]
        assert hello["protocolVersion"] == LEGACY
        assert hello["serverInfo"] in SAID
        for capabilities in (found["capabilities"], hello["capabilities"]):
            assert capabilities == {"tools": {"listChanged": True}, "extensions": {ARTIFACT: {}}}
        first = legacy.session
        await legacy.greet()
        assert first
        assert legacy.session != first
        assert "mcp-session-id" not in (await modern.request("server/discover")).headers


async def test_an_older_handshake_revision_is_spoken_as_asked(tmp_path: Path) -> None:
    """2025-06-18 is agreed on where it is asked for; of an unknown one, the newest of the era."""
    estate = Estate(tmp_path / "estate", Server("one"))
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        for asked, agreed in (("2025-06-18", "2025-06-18"), ("2024-11-05", LEGACY), ("1999-01-01", LEGACY)):
            client = estate.client(asked, key)
            message = client.message(
                "initialize",
                {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
            )
            found = (await client.post(message)).message()["result"]
            assert found["protocolVersion"] == agreed

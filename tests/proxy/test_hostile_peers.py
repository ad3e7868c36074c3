"""The failures of well-known peers, and that they are not Guard's.

A denial that clients cannot parse; a schema violation told as an internal error; a default that allows; a
call without a session that nobody wrote down; a tool that is out of sight and shows through a stream.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult
from mcp_types._v2025_11_25 import CallToolResult as HandshakeResult
from mcp_types._v2026_07_28 import CallToolResult as ModernResult

from guard.lineage.entry import Kind
from tests.proxy.estate import Estate, Server
from tests.proxy.outsider import LIMITS, TRANSPORTS, VERSIONS, call, outsider
from tests.proxy.pairs import ERAS, ask, attended
from tests.proxy.raw_http import Stream
from tests.proxy.scene import LEGACY, MODERN, PATIENCE, POLICY, TOOLS, tool

CHANGED = "notifications/tools/list_changed"
WANTED = {"notifications": {"toolsListChanged": True}}
DENIED: dict[str, tuple[str, str, str]] = {
    "a protected call": ("echo", '{"n":13}', "protected"),
    "a schema violation": ("echo", '{"text":5}', "intent-unmatched"),
    "a missing scope": ("hidden", "{}", "unknown-tool"),
    "a tool without a rule": ("unlisted", "{}", "unknown-tool"),
    "no tool": ("nothing", "{}", "unknown-tool"),
    "a tool that was not pinned": ("slow", "{}", "tool-unpinned"),
    "no I-JSON": ("echo", '{"n":1e400}', "arguments-not-ijson"),
}
STRICT = {
    **POLICY,
    "intents": [
        {
            "id": "short-text",
            "tools": ["echo"],
            "schema": {"properties": {"text": {"type": "string", "maxLength": 10}}},
        }
    ],
}


@VERSIONS
@TRANSPORTS
@pytest.mark.parametrize("denied", DENIED)
async def test_a_denial_is_a_result_that_clients_can_parse(
    tmp_path: Path, over: str, version: str, denied: str
) -> None:
    """Never an error of the protocol: the types of the SDK and of the very revision take it."""
    name, arguments, reason = DENIED[denied]
    async with outsider(tmp_path, over, version, policy=STRICT) as at:
        at.estate.pin("server", [each for each in TOOLS if each["name"] != "slow"])
        fields = {"Mcp-Method": "tools/call", "Mcp-Name": name} if at.modern else {}
        status, answer = await at.send(call(at.modern, arguments, name=json.dumps(name)), fields)
        assert (status, answer.keys()) == (0 if over == "stdio" else 200, {"jsonrpc", "id", "result"})
        revision = ModernResult if at.modern else HandshakeResult
        for kind in (CallToolResult, revision):
            found = kind.model_validate(answer["result"])
            assert found.is_error is True
            assert [part.type for part in found.content] == ["text"]
        assert ("resultType" in answer["result"]) is at.modern
        about = answer["result"]["_meta"]["dev.guard-mcp/decision"]
        assert (about["decision"], about["reason"]) == ("deny", reason)
        await at.honest()
    assert ["denied"] in at.estate.settled().values()


@pytest.mark.parametrize("mode", ["legacy", MODERN])
@pytest.mark.parametrize("denied", DENIED)
async def test_the_sdks_client_parses_every_denial(tmp_path: Path, mode: str, denied: str) -> None:
    """Its `call_tool` returns a result that is an error, and raises nothing."""
    name, arguments, reason = DENIED[denied]
    given = json.loads(arguments) if "e400" not in arguments else {"n": 2**60}
    async with outsider(tmp_path, policy=STRICT) as at:
        at.estate.pin("server", [each for each in TOOLS if each["name"] != "slow"])
        assert at.estate.serving is not None
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {at.key}"}, timeout=PATIENCE) as http,
            SdkClient(streamable_http_client(at.estate.serving.url, http_client=http), mode=mode) as client,
        ):
            found = await client.call_tool(name, given)
        assert found.is_error
        assert found.meta is not None
        assert found.meta["dev.guard-mcp/decision"]["reason"] == reason
        await at.honest()


EMPTY = {"guard": 1, "id": "p", "version": 1}
POLICIES: dict[str, dict[str, Any]] = {
    "nothing at all": EMPTY,
    "a role and no tool": {**EMPTY, "roles": {"caller": {"scopes": ["use"]}}},
    "a tool and no role": {**EMPTY, "tools": [{"match": "echo", "scopes": ["x"]}]},
}


@VERSIONS
@TRANSPORTS
@pytest.mark.parametrize("rules", POLICIES)
async def test_what_no_rule_allows_is_denied(tmp_path: Path, rules: str, over: str, version: str) -> None:
    """Nothing is listed, nothing is called, and each try is recorded."""
    async with outsider(tmp_path, over, version, policy=POLICIES[rules]) as at:
        assert (await ask(at.client, "tools/list", {}))["result"]["tools"] == []
        for each in TOOLS:
            assert (await at.client.call(each["name"]))["result"]["isError"] is True
    assert at.estate.received() == []
    assert [*at.estate.settled().values()] == [["denied"]] * len(TOOLS)


async def test_a_call_without_a_session_is_in_the_record(tmp_path: Path) -> None:
    """A modern call names no conversation: it belongs to an inferred one, each principal to its own."""
    async with outsider(tmp_path) as at:
        await at.honest()
        other = await at.another("other")
        for client in (at.client, other):
            assert (await client.call("hidden"))["result"]["isError"] is True
        assert "isError" not in (await other.call("echo"))["result"]
    found = at.estate.entries(Kind.GRANTED, Kind.DENIED)
    places = [(entry["fields"]["principal"][1], entry["fields"]["conversation"]) for entry in found]
    assert [(who, place["source"]) for who, place in places] == [
        (who, "inferred") for who in ("someone", "someone", "other", "other")
    ]
    assert len({place["id"] for _, place in places}) == 2
    assert len({entry["conversation"] for entry in found}) == 2


# -- what is out of sight ------------------------------------------------------------------------

SECRET = tool("hidden", title="The secret title", annotations={"title": "Secretly"})


async def rest(stream: Stream) -> list[dict[str, Any]]:
    """What else comes before the end of a stream."""
    found = []
    try:
        while True:
            found.append(await stream.next())
    except EOFError:
        return found


@ERAS
@VERSIONS
async def test_a_tool_out_of_sight_shows_through_no_stream(tmp_path: Path, version: str, era: str) -> None:
    """Whether it comes, changes or goes: no notification, no list and no error text tells of it."""
    before = [each for each in TOOLS if each["name"] != "hidden"]
    estate = Estate(tmp_path / "estate", Server("one", era, "http", tools=before))
    estate.pin()
    estate.pin("one", [*before, SECRET])
    key = estate.key()
    shown: list[Any] = []
    async with estate.guarded(limits=LIMITS):
        client = estate.client(version, key)
        if version == LEGACY:
            await client.greet()
        shown.append((await client.request("tools/list")).message())
        await attended(estate, era, client)
        opened = client.stream("subscriptions/listen", WANTED) if version == MODERN else client.listen()
        async with opened as stream:
            if version == MODERN:
                await stream.next()
            lists = len(estate.received("one", "tools/list"))
            for tools in ([*before, SECRET], [*before, {**SECRET, "description": "Other."}], before):
                estate.show("one", tools)
                async with asyncio.timeout(PATIENCE):
                    while len(estate.received("one", "tools/list")) == lists:  # Guard asks of itself
                        shown.append((await client.call("hidden", text="x"))["result"]["content"])
                lists = len(estate.received("one", "tools/list"))
                shown.append((await client.request("tools/list")).message())
            estate.show("one", [each for each in before if each["name"] != "slow"])
            told = await stream.next()
            assert told["method"] == CHANGED
            assert estate.serving is not None
            estate.serving.front.finish()
            shown += [told, *[each for each in await rest(stream) if "method" in each]]
        shown.append((await client.call("hidden"))["result"]["content"])
        shown.append((await client.call("nothing"))["result"]["content"])
        shown.append((await client.call("unlisted"))["result"]["content"])
    said = json.dumps(shown)
    assert said.count(CHANGED) == 1, "what is out of sight was told of"
    assert not any(word in said for word in ("hidden", "unlisted", "ecret", "tool-not-visible", "scope"))
    assert estate.received() == []
    estate.settled()


@VERSIONS
@TRANSPORTS
async def test_a_tool_out_of_sight_is_told_as_one_that_does_not_exist(
    tmp_path: Path, over: str, version: str
) -> None:
    """Word for word: without the scope, without a rule, or not there at all."""
    async with outsider(tmp_path, over, version) as at:
        await at.honest()  # the server runs: who serves is told alike from here on
        found = [(await at.client.call(name))["result"] for name in ("hidden", "unlisted", "nothing")]
        ids = [each["_meta"]["dev.guard-mcp/decision"]["decision_id"] for each in found]
        said = [json.dumps(each).replace(id_, "ID") for each, id_ in zip(found, ids, strict=True)]
        assert len({*said}) == 1
        names = [each["name"] for each in (await ask(at.client, "tools/list", {}))["result"]["tools"]]
        assert sorted(names) == ["echo", "fail", "slow"]
        await at.honest()

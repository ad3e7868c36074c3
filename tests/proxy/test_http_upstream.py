"""What a tool server behind a URL gets, and what is read of its answers, however it writes them."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from guard.lineage.entry import Kind
from tests.proxy.estate import Estate, Server
from tests.proxy.pairs import CLIENTS, ECHO, ERAS, SERVERS, VERSIONS, acts, ask, speaking, until
from tests.proxy.raw_http import RawHttp, header_value
from tests.proxy.scene import LEGACY, MODERN, PATIENCE, TOOLS, Client, decision, tool

MIRRORED = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "text": {"type": "string"},
        "n": {"type": "integer"},
    },
}
INVALID = {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "No Token"}}}
SSE_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
STEP = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":$TOKEN,"progress":1}}'
STREAMS = {
    "lf": f"data: {STEP}\n\ndata: {ECHO}\n\n",
    "crlf": f"data: {STEP}\r\n\r\ndata: {ECHO}\r\n\r\n",
    "cr": f"data: {STEP}\r\rdata: {ECHO}\r\r",
    "no-blank": f"data:{STEP}\n\ndata:{ECHO}\n\n",
    "bom": f"\xef\xbb\xbfdata: {STEP}\n\ndata: {ECHO}\n\n",
    "comments": f": hello\n\n:\n\ndata: {STEP}\n: inside\n\ndata: {ECHO}\n\n",
    "ids": f"id: 1\nretry: 3000\ndata: \n\nid: 2\nevent: message\ndata: {STEP}\n\nid: 3\ndata: {ECHO}\n\n",
    "others": f"event: other\ndata: {ECHO.replace('$ARGUMENTS', '1')}\n\ndata: {STEP}\n\ndata: {ECHO}\n\n",
    "lines": "".join(f"data: {text}\n\n" for text in (STEP, ECHO)).replace(",", ",\ndata: "),
    "mixed": f"event: message\r\ndata: {STEP}\r\n\ndata: {ECHO}\r\r\n",
}


def pieces(text: str, size: int) -> list[Any]:
    """Bytes as they are written one after the other; a placeholder is not cut."""
    at, cuts = 0, [0]
    while at < len(text):
        at += size
        while "$" in text[max(0, at - 10) : at] and at < len(text) and not text[at - 1 : at + 1].isspace():
            at += 1
        cuts.append(min(at, len(text)))
    return [{"raw": text[start:end]} for start, end in pairwise(cuts)]


@pytest.mark.parametrize(("size", "ending"), [(10_000, "open"), (3, "closed"), (1, "open")])
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
async def test_any_stream_that_the_standard_allows_is_read(
    tmp_path: Path, stream: str, size: int, ending: str
) -> None:
    """Line ends, comments, ids, cuts: the progress and the result come; nobody waits for the stream's end."""
    written = [*pieces(SSE_HEAD, 10_000), *pieces(stream, size)]
    last = {"hang": True} if ending == "open" else {"close": True}
    estate = Estate(tmp_path / "estate", Server("one", "modern", "http", answers=[[*written, last]]))
    estate.pin()
    async with speaking(estate, MODERN, "http") as client:
        params = {"name": "echo", "arguments": {"text": "ü"}, "_meta": {"progressToken": "t"}}
        found = await ask(client, "tools/call", params)
        assert json.loads(found["result"]["content"][0]["text"]) == {"text": "ü"}
        assert [each["params"]["progressToken"] for each in client.notifications] == ["t"]
    assert [*estate.settled().values()] == [["granted", "returned"]]


@ERAS
@SERVERS
@CLIENTS
@VERSIONS
async def test_literals_reach_the_client_as_the_server_wrote_them(
    tmp_path: Path, version: str, by: str, over: str, era: str
) -> None:
    """Numbers that no float holds, lone surrogates, names that stand twice: results are carried, not read."""
    literals = rb'{"a":123456789012345678901234567890,"b":1e400,"c":-0.0,"d":1.10,"e":"\ud800","e":"\u00e9"}'
    result = f'{{"jsonrpc":"2.0","id":$ID,"result":{{$COMPLETE"content":[],"x":{literals.decode()}}}}}'
    failure = f'{{"jsonrpc":"2.0","id":$ID,"error":{{"code":1,"message":"m","data":{literals.decode()}}}}}'
    estate = Estate(
        tmp_path / "estate", Server("one", era, over, answers=[acts(over, result), acts(over, failure)])
    )
    estate.pin()
    async with speaking(estate, version, by) as client:
        for _ in range(2):
            if isinstance(client, Client):
                await client.call("echo")
                raw = client.raw[-1]
            else:
                raw = (await client.request("tools/call", {"name": "echo"})).body
            assert literals in raw
    assert [*estate.settled().values()] == [["granted", "returned"]] * 2


@ERAS
@CLIENTS
@VERSIONS
@pytest.mark.parametrize("blank", ["\n", "\r\n", "\r", "\t\n  "])
async def test_a_pretty_body_is_one_line_and_one_event(
    tmp_path: Path, version: str, by: str, era: str, blank: str
) -> None:
    """A server's line ends cannot end Guard's line or event: what follows is still the same message."""
    pretty = blank.join(
        ["{", '"jsonrpc": "2.0",', '"id": $ID,', '"result": {$COMPLETE', '"content": [', "]}", "}", ""]
    )
    streamed = [{"event": STEP}, {"event": pretty.replace("\r", " ")}]
    estate = Estate(tmp_path / "estate", Server("one", era, "http", answers=[[pretty], streamed]))
    estate.pin()
    async with speaking(estate, version, by) as client:
        for _ in range(2):
            params = {"name": "echo", "_meta": {"progressToken": 1}}
            assert (await ask(client, "tools/call", params))["result"]["content"] == []
        assert len(client.notifications) == 1
        if isinstance(client, Client):
            assert all(b"\r" not in line and line.count(b"\n") == 1 for line in client.raw)
    estate.settled()


@CLIENTS
async def test_a_modern_server_gets_the_headers_of_its_era(tmp_path: Path, by: str) -> None:
    """Version, method and name stand in headers that say what the body says; configured ones are sent."""
    named = [*TOOLS, tool("größe")]
    rules = [{"match": each, "scopes": ["use"]} for each in ("echo", "größe")]
    server = Server(
        "one", "modern", "http", tools=named, settings={"headers": {"X-Api": "the key", "b": "2"}}
    )
    estate = Estate(tmp_path / "estate", server)
    estate.write_policy(tools=rules)
    estate.pin()
    async with speaking(estate, MODERN, by) as client:
        await client.call("echo")
        await client.call("größe")
    first, second = (each["_headers"] for each in estate.received("one"))
    assert (first["mcp-method"], first["mcp-name"]) == ("tools/call", "echo")
    assert second["mcp-name"] == header_value("größe") == "=?base64?Z3LDtsOfZQ==?="
    for line in estate.log("one").read_bytes().splitlines():
        headers = json.loads(line)["_headers"]
        assert (headers["x-api"], headers["b"]) == ("the key", "2")
        assert headers["mcp-protocol-version"] == MODERN
        assert headers["mcp-method"] == json.loads(line)["method"] or "_closed" in json.loads(line)
        assert "authorization" not in headers  # the client's key is for Guard alone
        assert "mcp-session-id" not in headers


@VERSIONS
@CLIENTS
async def test_mirrored_arguments_are_mirrored_anew(tmp_path: Path, version: str, by: str) -> None:
    """`Mcp-Param-*` come of the arguments that were judged; a tool that asks for nonsense is not shown."""
    tools = [tool("echo", inputSchema=MIRRORED), tool("slow", inputSchema=INVALID)]
    estate = Estate(tmp_path / "estate", Server("one", "modern", "http", tools=tools))
    estate.pin()
    arguments = {"region": "größe", "count": 42, "text": "not mirrored"}
    mirrored = {"Mcp-Param-Region": header_value("größe"), "Mcp-Param-Count": "42"}
    async with speaking(estate, version, by) as client:
        shown = (await ask(client, "tools/list", {}))["result"]["tools"]
        assert [each["name"] for each in shown] == ["echo"]
        params = {"name": "echo", "arguments": arguments}
        if isinstance(client, RawHttp):
            headers = (
                {**mirrored, "Mcp-Param-Other": "x", "X-Other": "y"} if client.modern else {"X-Other": "y"}
            )
            found = (await client.request("tools/call", params, headers=headers)).message()
        else:
            found = await ask(client, "tools/call", params)
        assert json.loads(found["result"]["content"][0]["text"]) == arguments
        assert decision(await client.call("slow"))["reason"] == "unknown-tool"
    (received,) = estate.received("one")
    sent = {name: value for name, value in received["_headers"].items() if name.startswith("mcp-param")}
    assert sent == {name.lower(): value for name, value in mirrored.items()}
    assert "x-other" not in received["_headers"]


@VERSIONS
@CLIENTS
async def test_a_handshake_server_gets_its_session_back(tmp_path: Path, version: str, by: str) -> None:
    """Its session id stands on every request after the handshake, and DELETE ends it when Guard closes."""
    server = Server("one", "legacy", "http", settings={"headers": {"X-Api": "key"}})
    estate = Estate(tmp_path / "estate", server)
    estate.pin()
    async with speaking(estate, version, by) as client:
        await client.call("echo")
        await client.call("echo")
        assert "DELETE /mcp" not in estate.log("one").read_text()
    first, second = (each["_headers"] for each in estate.received("one"))
    session = first["mcp-session-id"]
    assert session == second["mcp-session-id"]
    assert first["mcp-protocol-version"] == LEGACY
    assert not {"mcp-method", "mcp-name"} & first.keys()
    lines = [json.loads(line) for line in estate.log("one").read_bytes().splitlines()]
    deleted = [line["_headers"] for line in lines if line.get("_http") == "DELETE /mcp"]
    begun = [each["_headers"] for each in estate.received("one", "notifications/initialized")]
    assert sorted(each["mcp-session-id"] for each in deleted) == sorted(
        each["mcp-session-id"] for each in begun
    )
    assert session in [each["mcp-session-id"] for each in deleted]
    assert {each["x-api"] for each in deleted} == {"key"}


@CLIENTS
async def test_a_server_without_sessions_is_served_without(tmp_path: Path, by: str) -> None:
    """Neither a session id nor a GET stream is something that a server must have."""
    flags = ("--no-sessions", "--no-get")
    estate = Estate(tmp_path / "estate", Server("one", "legacy", "http", flags=flags))
    estate.pin()
    async with speaking(estate, MODERN, by) as client:
        assert "isError" not in (await client.call("echo"))["result"]
    (received,) = estate.received("one")
    assert "mcp-session-id" not in received["_headers"]
    assert "DELETE /mcp" not in estate.log("one").read_text()


@VERSIONS
async def test_a_forgotten_session_costs_one_call_that_is_not_repeated(tmp_path: Path, version: str) -> None:
    """What met the forgetful server is unknown; a later call begins a new session."""
    flags = ("--forget-after", "1", "--no-get")
    estate = Estate(tmp_path / "estate", Server("one", "legacy", "http", flags=flags), Server("two"))
    estate.pin()
    async with speaking(estate, version, "http") as client:
        assert "isError" not in (await client.call("one__echo", text="first"))["result"]
        about = decision(await client.call("one__echo", text="second"))
        assert (about["outcome"], about["retryable"]) == ("unknown", False)
        assert "isError" not in (await client.call("two__echo"))["result"]
        async with asyncio.timeout(PATIENCE):
            while "isError" in (await client.call("one__echo", text="third"))["result"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    said = [each["params"]["arguments"]["text"] for each in estate.received("one")]
    assert said == ["first", "second", "third"]
    first, second, third = (each["_headers"]["mcp-session-id"] for each in estate.received("one"))
    assert first == second != third
    estate.settled()


async def test_two_principals_have_two_sessions(tmp_path: Path) -> None:
    """What a server remembers of one caller never meets another, unless the operator says `shared`."""
    servers = Server("one", "legacy", "http"), Server("two", "legacy", "http", settings={"shared": True})
    estate = Estate(tmp_path / "estate", *servers)
    estate.pin()
    keys = [estate.key("a"), estate.key("b"), estate.key("b")]
    async with estate.guarded():
        for key in keys:
            await estate.client(MODERN, key).call("one__echo")
            await estate.client(MODERN, key).call("two__echo")
        await until(lambda: len(estate.entries(Kind.RETURNED)) == 6)
    own, shared = (
        [each["_headers"]["mcp-session-id"] for each in estate.received(name)] for name in ("one", "two")
    )
    assert own[0] != own[1] == own[2]
    assert len({*shared}) == 1

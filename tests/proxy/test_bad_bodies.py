"""What a bad message gets, over every transport and in both eras: a clear error, and nothing lost.

After each one an honest call is served at once, nothing bad has reached the tool server, and the
lineage stands.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.estate import Estate, Server
from tests.proxy.scene import ENVELOPE, LEGACY, MODERN, reason

PARSE, REQUEST, PARAMS, METHOD = -32700, -32600, -32602, -32601
HEADERS = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "echo"}


def body(modern: bool, arguments: str = '{"text":"bad"}', **members: str) -> bytes:  # noqa: FBT001
    """A call as text, so that it can say what no writer would write."""
    meta = members.pop("meta", json.dumps(ENVELOPE) if modern else "{}")
    name = members.pop("name", '"echo"')
    more = members.pop("more", "")
    params = members.pop("params", f'{{"name":{name},"arguments":{arguments},"_meta":{meta}{more}}}')
    given = {"jsonrpc": '"2.0"', "id": "77", "method": '"tools/call"', "params": params, **members}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in given.items() if value) + "}").encode()


Bad = Callable[[bool], bytes]
REFUSED: dict[str, tuple[Bad, set[int]]] = {
    "no JSON": (lambda _: b"{", {PARSE}),
    "two texts": (lambda m: body(m) + b" {}", {PARSE}),
    "bad UTF-8": (lambda m: body(m).replace(b"bad", b"\xff"), {PARSE}),
    "NaN": (lambda m: body(m, '{"n":NaN}'), {PARSE}),
    "Infinity": (lambda m: body(m, '{"n":-Infinity}'), {PARSE}),
    "a control character in a string": (lambda m: body(m).replace(b"bad", b"\x01"), {PARSE}),
    "a string": (lambda _: b'"x"', {REQUEST}),
    "null": (lambda _: b"null", {REQUEST}),
    "an empty batch": (lambda _: b"[]", {REQUEST}),
    "a batch with a valid call": (lambda m: b"[" + body(m) + b"]", {REQUEST}),
    "a duplicate key at the top": (lambda m: body(m)[:-1] + b',"id":78}', {REQUEST}),
    "a duplicate method": (lambda m: body(m)[:-1] + b',"method":"ping"}', {REQUEST}),
    "a duplicate key in params": (lambda m: body(m, more=',"name":"slow"'), {REQUEST}),
    "arguments twice": (lambda m: body(m, more=',"arguments":{}'), {REQUEST}),
    "a duplicate key in _meta": (lambda m: body(m, meta='{"a":1,"a":2}'), {REQUEST}),
    "a big integer outside": (lambda m: body(m, more=',"x":' + "1" * 30), {REQUEST}),
    "a lone surrogate outside": (lambda m: body(m, meta='{"a":"\\ud800"}'), {REQUEST}),
    "1e400 outside": (lambda m: body(m, meta='{"a":1e400}'), {REQUEST}),
    "depth 10,000 outside": (lambda m: body(m, meta="[" * 10_000 + "]" * 10_000), {REQUEST}),
    "depth 10,000 alone": (lambda _: b"[" * 10_000 + b"]" * 10_000, {REQUEST}),
    "wrong jsonrpc": (lambda m: body(m, jsonrpc='"1.0"'), {REQUEST}),
    "jsonrpc as a number": (lambda m: body(m, jsonrpc="2.0"), {REQUEST}),
    "no jsonrpc": (lambda m: body(m, jsonrpc=""), {REQUEST}),
    "a null id": (lambda m: body(m, id="null"), {REQUEST}),
    "a boolean id": (lambda m: body(m, id="true"), {REQUEST}),
    "a fractional id": (lambda m: body(m, id="1.5"), {REQUEST}),
    "an object as id": (lambda m: body(m, id="{}"), {REQUEST}),
    "an id that is too large": (lambda m: body(m, id="1" * 30), {REQUEST}),
    "an id that is too long": (lambda m: body(m, id=json.dumps("x" * 1000)), {REQUEST}),
    "a member that no request has": (lambda m: body(m)[:-1] + b',"role":"powerful"}', {REQUEST}),
    "__proto__ at the top": (lambda m: body(m)[:-1] + b',"__proto__":{}}', {REQUEST}),
    "a method that is no string": (lambda m: body(m, method="5"), {REQUEST}),
    "a long method": (lambda m: body(m, method=json.dumps("x" * 1000)), {REQUEST}),
    "params as a list": (lambda m: body(m, params='["echo"]'), {PARAMS}),
    "arguments as a list": (lambda m: body(m, "[1]"), {PARAMS}),
    "arguments as a string": (lambda m: body(m, '"x"'), {PARAMS}),
    "arguments as null": (lambda m: body(m, "null"), {PARAMS}),
    "_meta as a list": (lambda m: body(m, meta="[]"), {PARAMS}),
    "_meta as null": (lambda m: body(m, meta="null"), {PARAMS}),
    "a control character in the name": (lambda m: body(m, name='"ec\\u0007ho"'), {PARAMS}),
    "a bidirectional mark in the name": (lambda m: body(m, name='"echo\\u202e"'), {PARAMS}),
    "a zero-width character in the name": (lambda m: body(m, name='"ec\\u200bho"'), {PARAMS}),
    "an empty name": (lambda m: body(m, name='""'), {PARAMS}),
    "a name that is no string": (lambda m: body(m, name="5"), {PARAMS}),
    "a long name": (lambda m: body(m, name=json.dumps("x" * 1000)), {PARAMS}),
    "no name": (lambda m: body(m, name="null"), {PARAMS}),
    "a params member that Guard does not know": (lambda m: body(m, more=',"role":"powerful"'), {PARAMS}),
    "__proto__ in params": (lambda m: body(m, more=',"__proto__":{"role":"powerful"}'), {PARAMS}),
    "a conversation that is no string": (
        lambda m: body(m, meta=json.dumps({**(ENVELOPE if m else {}), "dev.guard-mcp/conversation": 5})),
        {PARAMS},
    ),
    "a method that Guard does not know": (lambda m: body(m, method='"tools/Call"'), {METHOD}),
    "a method with a control character": (lambda m: body(m, method='"tools/call\\u0000"'), {METHOD}),
}
RECORDED: dict[str, str] = {
    "a 30-digit integer": '{"n":' + "1" * 30 + "}",
    "1e400": '{"n":1e400}',
    "a duplicate key": '{"n":1,"n":2}',
    "a duplicate key further down": '{"text":{"a":[{"b":1,"b":2}]}}',
    "a lone surrogate": '{"text":"\\ud800"}',
    "a lone surrogate as a key": '{"\\udc00":1}',
    "depth 10,000": '{"text":' + "[" * 10_000 + "]" * 10_000 + "}",
}
POINTERS = {
    "a 30-digit integer": "/arguments/n",
    "1e400": "/arguments/n",
    "a duplicate key": "/arguments/n",
    "a duplicate key further down": "/arguments/text/a/0/b",
    "a lone surrogate": "/arguments/text",
}
TRANSPORTS = ["stdio", "http"]
VERSIONS = [MODERN, LEGACY]


class Peer:
    """A client on either transport: sends bytes as one message, and reads one answer."""

    def __init__(self, over: str, version: str, client: Any) -> None:
        self.over, self.version, self.client = over, version, client

    async def bad(self, message: bytes) -> tuple[int, dict[str, Any]]:
        """Send it. Returns the HTTP status, 0 on stdio, and the answer."""
        if self.over == "stdio":
            self.client.say(message + b"\n")
            return 0, await self.client.hear()
        headers: dict[str, str | None] = {**HEADERS} if self.version == MODERN else {}
        answer = await self.client.post(message, headers=headers)
        return answer.status, answer.message() if answer.status == 200 else answer.json()

    async def call(self, **arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = await self.client.call("echo", **arguments)
        return found


@asynccontextmanager
async def talking(estate: Estate, over: str, version: str) -> AsyncIterator[Peer]:
    estate.pin()
    if over == "stdio":
        async with estate.over_stdio(version) as pipes:
            yield Peer(over, version, pipes)
    else:
        key = estate.key()
        async with estate.guarded():
            client = estate.client(version, key)
            if version == LEGACY:
                await client.greet()
            yield Peer(over, version, client)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("over", TRANSPORTS)
async def test_a_bad_message_is_refused_and_costs_nobody_anything(
    tmp_path: Path, over: str, version: str
) -> None:
    """Each with the right code, status and id; then business as usual."""
    estate = Estate(tmp_path / "estate")
    modern = version == MODERN
    async with talking(estate, over, version) as peer:
        for name, (bad, codes) in REFUSED.items():
            status, answer = await peer.bad(bad(modern))
            if modern and name == "a method that Guard does not know" and over == "http":
                codes = {*codes, -32020}  # noqa: PLW2901 - the header field says `tools/call`
            if modern and over == "http":
                codes = {*codes, -32020}  # noqa: PLW2901 - what disagrees with its header fields may be told so
            assert answer["error"]["code"] in codes, (name, answer)
            assert answer["id"] in {None, 77} or "id" in name, (name, answer)
            assert status in ({0} if over == "stdio" else {400, 404} if modern else {200, 400}), name
            assert json.dumps(answer).isascii(), name
            assert "\\u0007" not in json.dumps(answer), name
        assert "isError" not in (await peer.call(text="honest"))["result"]
    (received,) = estate.received()
    assert received["params"]["arguments"] == {"text": "honest"}
    assert [*estate.settled().values()] == [["granted", "returned"]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("over", TRANSPORTS)
async def test_arguments_that_are_no_i_json_are_a_recorded_denial(
    tmp_path: Path, over: str, version: str
) -> None:
    """Each names its field; none reaches the server; the entry says the same."""
    estate = Estate(tmp_path / "estate")
    async with talking(estate, over, version) as peer:
        for name, arguments in RECORDED.items():
            _, answer = await peer.bad(body(version == MODERN, arguments))
            assert reason(answer) == "arguments-not-ijson", (name, answer)
            about = answer["result"]["_meta"]["dev.guard-mcp/decision"]
            assert about["pointer"].startswith("/arguments"), name
            assert about["pointer"] == POINTERS.get(name, about["pointer"])
        assert "isError" not in (await peer.call(text="honest"))["result"]
    assert len(estate.received()) == 1
    calls = [*estate.settled().values()]
    assert calls.count(["denied"]) == len(RECORDED)
    reasons = [
        entry["fields"]["decision"]["reason"] for entry in estate.entries() if entry["kind"] == "denied"
    ]
    assert reasons == ["arguments-not-ijson"] * len(RECORDED)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("over", TRANSPORTS)
async def test_names_that_mean_something_elsewhere_are_plain_data(
    tmp_path: Path, over: str, version: str
) -> None:
    """`__proto__` and `constructor` inside the arguments reach the server as they were judged."""
    given = {"text": "x", "__proto__": {"role": "powerful"}, "constructor": {"prototype": 1}}
    estate = Estate(tmp_path / "estate")
    async with talking(estate, over, version) as peer:
        assert "isError" not in (await peer.call(**given))["result"]
    (received,) = estate.received()
    assert received["params"]["arguments"] == given


@pytest.mark.parametrize("over", TRANSPORTS)
@pytest.mark.parametrize("artifact", ['"not.an.artifact"', "5", '{"a":1}', '""'])
async def test_an_artifact_of_the_clients_never_travels_on(tmp_path: Path, over: str, artifact: str) -> None:
    """It is noted as claimed; the server gets Guard's own."""
    estate = Estate(tmp_path / "estate")
    async with talking(estate, over, MODERN) as peer:
        meta = json.dumps(ENVELOPE)[:-1] + f',"dev.guard-mcp/authorization":{artifact}}}'
        _, answer = await peer.bad(body(True, meta=meta))  # noqa: FBT003
        assert "isError" not in answer["result"]
    (received,) = estate.received()
    token = received["params"]["_meta"]["dev.guard-mcp/authorization"]
    assert token.count(".") == 2
    assert token != json.loads(artifact)
    (granted,) = [entry for entry in estate.entries() if entry["kind"] == "granted"]
    assert granted["fields"]["parent"]["edge"] == "claimed"


async def test_a_line_without_end_is_refused_and_the_next_one_read(tmp_path: Path) -> None:
    """More than 16 MiB on stdio: one error, then business as usual."""
    estate = Estate(tmp_path / "estate")
    async with talking(estate, "stdio", MODERN) as peer:
        status, answer = await peer.bad(b'{"jsonrpc":"2.0","x":"' + b"x" * (17 * 1024 * 1024) + b'"}')
        assert (status, answer["error"]["code"], answer["id"]) == (0, REQUEST, None)
        assert "isError" not in (await peer.call(text="honest"))["result"]
    assert len(estate.received()) == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_10_megabytes_is_refused_before_it_is_read(tmp_path: Path, chunked: bool) -> None:  # noqa: FBT001
    """Declared or in chunks: 413, and the next request is served."""
    estate = Estate(tmp_path / "estate")
    estate.pin()
    key = estate.key()
    async with estate.guarded() as found:
        assert found.listener is not None
        client = estate.client(MODERN, key)
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{found.listener.port}\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
        ).encode()
        if chunked:
            piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
            data = head + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 160
        else:
            data = head + b"Content-Length: 10000000\r\n\r\n" + b"x" * 100_000
        assert (await client.exchange(data)).status == 413
        assert "isError" not in (await client.call("echo", text="honest"))["result"]
    assert len(estate.received()) == 1


@pytest.mark.parametrize("over", TRANSPORTS)
async def test_an_id_in_flight_is_not_used_twice(tmp_path: Path, over: str) -> None:
    """In a session the second is refused; a modern request over HTTP has a stream of its own."""
    echo = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[]}}'
    estate = Estate(tmp_path / "estate", Server("server", answers=[[{"sleep": 0.3}, echo]]))
    estate.pin()
    if over == "stdio":
        async with estate.over_stdio(LEGACY) as pipes:
            for _ in range(2):
                pipes.request("tools/call", {"name": "slow", "arguments": {}}, id_=5)
            answers = [await pipes.hear(), await pipes.hear()]
        assert sorted("error" in answer for answer in answers) == [False, True]
        assert len(estate.received()) == 1
        return
    key = estate.key()
    async with estate.guarded():
        client = estate.client(MODERN, key)
        message = {
            "jsonrpc": "2.0",
            "id": 5,
            "method": "tools/call",
            "params": {"name": "slow", "arguments": {}, "_meta": ENVELOPE},
        }
        both = await asyncio.gather(client.post(message), client.post(message))
        assert ["result" in answer.message() for answer in both] == [True, True]
        old = estate.client(LEGACY, key)
        await old.greet()
        message["params"] = {"name": "slow", "arguments": {}}
        both = await asyncio.gather(old.post(message), old.post(message))
        assert sorted("error" in answer.message() for answer in both) == [False, True]
    assert len(estate.received()) == 3

"""The scripted HTTP server and the raw HTTP client, against each other and against the real SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp import Client as SdkClient
from mcp.client.subscriptions import ToolsListChanged
from mcp_types import TextContent, ToolListChangedNotification

from tests.proxy.raw_http import Answer, Connection, RawHttp, Stream, header_value, take_events
from tests.proxy.scene import ENVELOPE, LEGACY, MODERN, PATIENCE, PYTHON, SERVERS, TOOLS, tool

ERAS = ("modern", "legacy")
VERSIONS = {"modern": MODERN, "legacy": LEGACY}
CHANGED = "notifications/tools/list_changed"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
DONE = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[]}}'
PROGRESS = (
    '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":$TOKEN,"progress":1}}'
)
LISTEN = {"notifications": {"toolsListChanged": True, "promptsListChanged": True}}


@dataclass(frozen=True)
class ScriptedHttp:
    """`scripted_http.py`, running.

    Attributes:
        folder: where its files are.
        port: where it listens.
        process: what runs it.
    """

    folder: Path
    port: int
    process: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def show(self, tools: Sequence[Mapping[str, Any]]) -> None:
        """What it lists from now on."""
        (self.folder / "tools.json").write_text(json.dumps(tools))

    def log(self) -> list[dict[str, Any]]:
        """Everything that reached it."""
        return [json.loads(line) for line in (self.folder / "received.jsonl").read_bytes().splitlines()]

    def received(self, method: str | None = "tools/call") -> list[dict[str, Any]]:
        return [each for each in self.log() if each.get("method") == method]

    async def closed(self, what: str) -> dict[str, Any]:
        """Wait until it has seen that an open answer to that method was closed; its line."""
        async with asyncio.timeout(PATIENCE):
            while not (found := [each for each in self.log() if each.get("_closed") == what]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return found[0]


def files(
    folder: Path, answers: Sequence[Sequence[Any]] | None, tools: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Write what it reads; the options that name the files."""
    folder.mkdir(exist_ok=True)
    (folder / "received.jsonl").touch()
    (folder / "tools.json").write_text(json.dumps(tools))
    (folder / "port").unlink(missing_ok=True)
    names = {"--log": "received.jsonl", "--tools": "tools.json", "--port-file": "port"}
    if answers is not None:
        (folder / "answers.json").write_text(json.dumps(answers))
        names["--answers"] = "answers.json"
    return [word for option, name in names.items() for word in (option, str(folder / name))]


@asynccontextmanager
async def scripted_http(
    folder: Path,
    *words: str,
    era: str = "modern",
    answers: Sequence[Sequence[Any]] | None = None,
    tools: Sequence[Mapping[str, Any]] = TOOLS,
) -> AsyncIterator[ScriptedHttp]:
    """Run `scripted_http.py` with its files in that folder; `words` are more of its options."""
    port = folder / "port"
    options = files(folder, answers, tools)
    command = [*PYTHON, str(SERVERS / "scripted_http.py"), "--era", era, *options, *words]
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(PATIENCE):
            while not port.exists():
                assert process.returncode is None, "it did not start"
                await asyncio.sleep(0.01)
        yield ScriptedHttp(folder, int(port.read_text()), process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def both(
    folder: Path, *words: str, era: str = "modern", answers: Sequence[Sequence[Any]] | None = None
) -> AsyncIterator[tuple[ScriptedHttp, RawHttp]]:
    """The server, and a client of its era that has said hello."""
    async with scripted_http(folder, *words, era=era, answers=answers) as server:
        client = RawHttp(server.port, version=VERSIONS[era])
        if not client.modern:
            await client.greet()
        yield server, client


# -- a conforming server, when it is not told otherwise --------------------------------------------


@pytest.mark.parametrize("words", [(), ("--no-get",), ("--no-sessions",)])
@pytest.mark.parametrize("mode", ["2026-07-28", "legacy", "auto modern", "auto legacy"])
async def test_the_sdk_client_lists_and_calls(tmp_path: Path, mode: str, words: tuple[str, ...]) -> None:
    """The real client finds its era, lists the tools and calls one."""
    era = "modern" if "modern" in mode or mode == MODERN else "legacy"
    async with asyncio.timeout(PATIENCE), scripted_http(tmp_path, *words, era=era) as server:
        async with SdkClient(server.url, mode=mode.partition(" ")[0]) as client:
            assert client.protocol_version == VERSIONS[era]
            assert [each.name for each in (await client.list_tools()).tools] == [
                each["name"] for each in TOOLS
            ]
            (content,) = (await client.call_tool("echo", {"text": "x"})).content
        assert isinstance(content, TextContent)
        assert json.loads(content.text) == {"text": "x"}
        ended = [each for each in server.received(None) if each.get("_http") == "DELETE /mcp"]
        assert len(ended) == (era == "legacy" and "--no-sessions" not in words)


async def test_the_sdk_client_hears_that_tools_changed(tmp_path: Path) -> None:
    """Its subscription takes the acknowledgement and the notification for what they are."""
    async with (
        asyncio.timeout(PATIENCE),
        scripted_http(tmp_path) as server,
        SdkClient(server.url, mode=MODERN) as client,
        client.listen(tools_list_changed=True) as subscription,
    ):
        server.show([tool("new")])
        assert isinstance(await anext(subscription), ToolsListChanged)
        assert [each.name for each in (await client.list_tools()).tools] == ["new"]


async def test_the_sdk_client_of_the_handshake_era_hears_that_tools_changed(tmp_path: Path) -> None:
    """Its GET stream carries the notification."""
    heard = asyncio.Event()

    async def on_message(message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            heard.set()

    async with (
        asyncio.timeout(PATIENCE),
        scripted_http(tmp_path, era="legacy") as server,
        SdkClient(server.url, mode="legacy", message_handler=on_message),
    ):
        while not any(each.get("_http") == "GET /mcp" for each in server.log()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        server.show([tool("new")])
        await heard.wait()


# -- what is logged --------------------------------------------------------------------------------


async def test_every_message_is_logged_with_its_headers(tmp_path: Path) -> None:
    """The message is as it came, literals and all, and what the client adds by itself is right."""
    async with both(tmp_path) as (server, client):
        client.key = "secret"
        await client.call("echo", n=1)
        await client.post(b'{"jsonrpc": "2.0",\n "id": 1e0, "method": "x"}', path="/other?a=b")
        lines = (tmp_path / "received.jsonl").read_bytes().splitlines()
    call, other = server.log()
    assert lines[1].startswith(b'{"jsonrpc": "2.0",  "id": 1e0, "method": "x", "_')
    assert call["params"] == {"name": "echo", "arguments": {"n": 1}, "_meta": dict(ENVELOPE)}
    assert (call["_http"], other["_http"]) == ("POST /mcp", "POST /other?a=b")
    assert call["_headers"].pop("content-length").isdigit()
    assert call["_headers"] == {
        "host": f"127.0.0.1:{server.port}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "authorization": "Bearer secret",
        "mcp-protocol-version": MODERN,
        "mcp-method": "tools/call",
        "mcp-name": "echo",
    }


async def test_a_header_can_be_left_out_or_said_otherwise(tmp_path: Path) -> None:
    """None leaves a header out, whatever the case of its name; a value stands in its place."""
    async with both(tmp_path) as (server, client):
        given = {"mcp-method": None, "MCP-NAME": "wrong", "X-More": "y"}
        await client.request("tools/call", {"name": "echo"}, headers=given)
    headers = server.received()[0]["_headers"]
    assert "mcp-method" not in headers
    assert (headers["mcp-name"], headers["x-more"]) == ("wrong", "y")


@pytest.mark.parametrize("text", ["Hello, 世界", " padded ", "line1\nline2", "=?base64?literal?=", ""])
def test_a_value_that_a_header_cannot_carry_is_encoded(text: str) -> None:
    """The examples of the specification."""
    assert header_value(text).startswith("=?base64?")
    assert header_value("us-west1") == "us-west1"
    assert header_value("Hello, 世界") == "=?base64?SGVsbG8sIOS4lueVjA==?="


async def test_what_is_not_a_message_is_logged_and_refused(tmp_path: Path) -> None:
    """A body that is not an object, and a request that is not HTTP."""
    async with both(tmp_path) as (server, client):
        assert (await client.post(b"[not json")).status == 400
        assert (await client.exchange(b"nonsense\r\n\r\n")).status == 400
    first, second = server.received(None)
    assert first["_body"] == "[not json"
    assert "_malformed" in second


# -- the acts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_a_string_is_the_body_of_an_answer(tmp_path: Path, era: str) -> None:
    """With the request's own id, token and arguments; the last item serves all further calls."""
    told = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"t":$TOKEN,"a":$ARGUMENTS}}'
    async with both(tmp_path, era=era, answers=[[told], [DONE]]) as (_, client):
        params = {"name": "echo", "arguments": {"n": 1}, "_meta": {"progressToken": "p"}}
        answer = await client.request("tools/call", params)
        others = [await client.call(), await client.call()]
    complete = {"resultType": "complete"} if era == "modern" else {}
    assert answer.message()["result"] == {**complete, "t": "p", "a": '{"n": 1}'}
    assert (answer.status, answer.kind) == (200, "application/json")
    assert answer.headers["content-length"] == str(len(answer.body))
    assert [each["result"] for each in others] == [{**complete, "content": []}] * 2


@pytest.mark.parametrize("era", ERAS)
async def test_events_are_a_stream_that_ends_after_the_last(tmp_path: Path, era: str) -> None:
    """Notifications are kept, the response is found, and a text of several lines is one event."""
    events = [{"event": PROGRESS}, {"sleep": 0.01}, {"event": DONE.replace(",", ",\n")}]
    async with both(tmp_path, era=era, answers=[events]) as (_, client):
        params = {"name": "echo", "_meta": {"progressToken": "p"}}
        answer = await client.request("tools/call", params)
        assert "result" in await client.call()
    assert (answer.status, answer.kind) == (200, "text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.message()["result"]["content"] == []
    assert [each["params"]["progressToken"] for each in client.notifications] == ["p", None]


async def test_a_stream_that_hangs_is_read_event_by_event(tmp_path: Path) -> None:
    """What is there is heard, others are answered, and the server sees who closed it, and when."""
    async with both(tmp_path, answers=[[{"event": PROGRESS}, {"hang": True}]]) as (server, client):
        async with client.stream("tools/call", {"name": "echo"}) as stream:
            assert (await stream.next())["method"] == "notifications/progress"
            assert (await client.request("tools/list")).status == 200
            assert server.received(None) == []
        line = await server.closed("tools/call")
        assert line["_headers"]["mcp-name"] == "echo"


async def test_raw_bytes_are_the_answer(tmp_path: Path) -> None:
    """Nothing is added to them, the connection carries another request, and its close ends a body."""
    body = "a\xe9"
    framed = [{"raw": f"HTTP/1.1 299 Odd\r\nX: 1\r\nx: 2\r\nContent-Length: 2\r\n\r\n{body}"}]
    ended = [{"raw": f"HTTP/1.1 200 OK\r\n\r\n{body}"}, {"close": True}]
    async with both(tmp_path, answers=[framed, ended]) as (_, client), client.connected() as connection:
        call = client.written("POST", client.message("tools/call", {"name": "echo"}))
        connection.write(call)
        assert await connection.answer() == Answer(299, {"x": "1, 2", "content-length": "2"}, b"a\xe9")
        connection.write(call)
        assert await connection.answer() == Answer(200, {}, b"a\xe9")


async def test_a_status_is_answered_with_headers_and_body(tmp_path: Path) -> None:
    """Content-Length is added, unless the headers say how the body is framed."""
    acts = [{"status": 503, "headers": {"Retry-After": "1"}, "body": "busy $ID"}]
    wrong = [{"status": 200, "headers": {"content-length": "9"}, "body": "short"}, {"close": True}]
    async with both(tmp_path, answers=[acts, [{"status": 299}], wrong]) as (_, client):
        busy = await client.request("tools/call", {"name": "echo"})
        empty = await client.request("tools/call", {"name": "echo"})
        with pytest.raises(EOFError):
            await client.request("tools/call", {"name": "echo"})
    assert busy == Answer(503, {"retry-after": "1", "content-length": "6"}, b"busy 1")
    assert empty == Answer(299, {"content-length": "0"}, b"")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_flood_has_exactly_its_size(tmp_path: Path, *, chunked: bool) -> None:
    """It is a valid result, so that nothing but its size can be what is refused."""
    size = 3_000_000
    async with both(tmp_path, answers=[[{"flood": size, "chunked": chunked}]]) as (_, client):
        answer = await client.request("tools/call", {"name": "echo"})
    assert len(answer.body) == size
    assert ("content-length" in answer.headers) == (not chunked)
    assert answer.message()["result"]["resultType"] == "complete"


@pytest.mark.parametrize("before", [[], [{"event": PROGRESS}], [{"raw": "HTTP/1.1 200"}]])
async def test_a_close_cuts_the_answer_off(tmp_path: Path, before: list[Any]) -> None:
    """Whether nothing, half a head or half a stream was written: it is not taken for an answer."""
    async with both(tmp_path, answers=[[*before, {"close": True}]]) as (_, client):
        with pytest.raises(EOFError, match="closed"):
            await client.call()


async def test_acts_that_answer_nothing_close_the_connection(tmp_path: Path) -> None:
    """A client is not left waiting by mistake."""
    async with both(tmp_path, answers=[[{"sleep": 0}]]) as (_, client):
        with pytest.raises(EOFError, match="closed"):
            await client.call()


@pytest.mark.parametrize("before", [[], [DONE]])
async def test_the_process_exits_where_it_is_told(tmp_path: Path, before: list[Any]) -> None:
    """With that code; what was written before it arrives."""
    async with both(tmp_path, answers=[[*before, {"exit": 7}]]) as (server, client):
        if before:
            assert "result" in await client.call()
        else:
            with pytest.raises((EOFError, ConnectionError)):
                await client.call()
        assert await asyncio.wait_for(server.process.wait(), PATIENCE) == 7


async def test_a_call_that_waits_holds_up_nobody(tmp_path: Path) -> None:
    """Others are answered meanwhile, and it goes on when the message that it waits for has come."""
    async with both(tmp_path, answers=[[{"wait": "notifications/go"}, DONE], [DONE]]) as (server, client):
        first = asyncio.ensure_future(client.call())
        async with asyncio.timeout(PATIENCE):
            while not server.received():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert "result" in await client.call()
        assert not first.done()
        assert (await client.post({"jsonrpc": "2.0", "method": "notifications/go"})).status == 202
        assert "result" in await first


# -- HTTP ------------------------------------------------------------------------------------------


async def test_a_connection_is_kept_until_it_is_not_wanted(tmp_path: Path) -> None:
    """Two requests on one connection; the second one asks to close it."""
    async with both(tmp_path) as (_, client), client.connected() as connection:
        message = client.message("tools/list")
        connection.write(client.written("POST", message))
        first = await connection.answer()
        connection.write(client.written("POST", message, headers={"Connection": "close"}))
        second = await connection.answer()
        assert await connection.closed() == b""
    assert first.json() == second.json()
    assert "connection" not in first.headers
    assert second.headers["connection"] == "close"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\nT: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nabc",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_is_read_however_it_is_framed_and_cut(data: bytes, size: int) -> None:
    """An interim answer, chunks with extensions and trailers, a body up to the end; in any pieces."""
    connection = Connection()
    for start in range(0, len(data), size):
        connection.data_received(data[start : start + size])
    connection.connection_lost(None)
    assert (await connection.answer()).body == b"abc"


@pytest.mark.parametrize("cut", [10, 50, 56, 59])
async def test_an_answer_that_is_cut_off_is_none(cut: int) -> None:
    """In its head, in a chunk, and before the last chunk."""
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    connection = Connection()
    connection.data_received(data[:cut])
    connection.connection_lost(None)
    with pytest.raises(EOFError):
        await connection.answer()


async def test_who_gives_up_waiting_for_an_event_misses_nothing() -> None:
    """Whatever part of a chunk had come, the event is whole when it is asked for again."""
    event = b'data: {"a":1}\n\n'
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(event), event)
    connection = Connection()
    connection.data_received(data[:47])
    stream = Stream(connection, await connection.head())
    for cut in range(47, len(data)):
        waiting = asyncio.ensure_future(stream.next())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        connection.data_received(data[cut : cut + 1])
    assert await stream.next() == {"a": 1}


@pytest.mark.parametrize("data", [b"[" * 200_000, b'{"method": 1, "params": [1]}', b"\xff", b"{}"])
def test_any_bytes_can_be_said(data: bytes) -> None:
    """What is no message has no names to mirror, and is sent as it is."""
    assert RawHttp(1).written("POST", data).endswith(b"\r\n\r\n" + data)


async def test_an_answer_framed_in_two_ways_is_refused() -> None:
    """Nobody but a smuggler frames a message twice (RFC 9112, section 6.3)."""
    connection = Connection()
    connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n")
    with pytest.raises(AssertionError, match="two ways"):
        await connection.answer()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_events_are_read_with_every_line_end(end: bytes, size: int) -> None:
    """Comments, ids and events without data are skipped; what has no end is no event."""
    lines = [b": hello", b"", b"id: 1", b"data:", b"", b"event: message", b'data: {"a":', b"data:1}", b""]
    data = end.join([*lines, b'data: {"b":2}', b"", b'data: {"c":3}', b""])
    held, found = bytearray(), []
    for start in range(0, len(data), size):
        held += data[start : start + size]
        found += take_events(held)
    assert found == [{"a": 1}, {"b": 2}]


# -- the modern era --------------------------------------------------------------------------------


async def test_a_modern_server_discovers_lists_and_refuses_the_rest(tmp_path: Path) -> None:
    """No handshake and no session: an unknown method is 404 with -32601, GET and DELETE are 405."""
    async with both(tmp_path) as (server, client):
        found = (await client.request("server/discover")).message()["result"]
        assert found["supportedVersions"] == [MODERN]
        assert found["capabilities"] == {"tools": {"listChanged": True}}
        listed = (await client.request("tools/list")).message()["result"]
        assert (listed["tools"], listed["resultType"]) == (TOOLS, "complete")
        for method in ("initialize", "ping", "resources/list"):
            answer = await client.request(method)
            assert (answer.status, answer.message()["error"]["code"]) == (404, -32601)
        assert [(await client.send(verb)).status for verb in ("GET", "DELETE", "PUT")] == [405] * 3
        told = await client.post({"jsonrpc": "2.0", "method": "notifications/x"})
        assert (told.status, told.body) == (202, b"")
    assert [each["_http"] for each in server.received(None)] == ["GET /mcp", "DELETE /mcp", "PUT /mcp"]
    assert all("mcp-session-id" not in each["_headers"] for each in server.log())


async def test_a_subscription_is_acknowledged_and_hears_of_changes(tmp_path: Path) -> None:
    """Each stream that asked hears once of each change, under its own id; nobody else does."""
    async with (
        both(tmp_path, answers=[[{"exit": 0}]]) as (server, client),
        client.stream("subscriptions/listen", LISTEN) as one,
        client.stream("subscriptions/listen", LISTEN) as two,
        client.stream("subscriptions/listen", {"notifications": {"promptsListChanged": True}}) as deaf,
    ):
        for number, stream in enumerate((one, two, deaf), 1):
            honored = {} if stream is deaf else {"toolsListChanged": True}
            params = {"_meta": {SUBSCRIPTION: number}, "notifications": honored}
            assert await stream.next() == {"jsonrpc": "2.0", "method": ACKNOWLEDGED, "params": params}
        for name in ("a", "b"):
            server.show([tool(name)])
            for number, stream in enumerate((one, two), 1):
                changed = await stream.next()
                assert (changed["method"], changed["params"]["_meta"]) == (CHANGED, {SUBSCRIPTION: number})
            listed = (await client.request("tools/list")).message()["result"]["tools"]
            assert [each["name"] for each in listed] == [name]
        one.close()
        await server.closed("subscriptions/listen")
        with pytest.raises((EOFError, ConnectionError)):
            await client.call()
        for stream in (two, deaf):  # nothing more was said before the process ended
            with pytest.raises((EOFError, ConnectionError)):
                await stream.next()


async def test_a_subscription_does_not_hear_of_what_was_before_it(tmp_path: Path) -> None:
    """A change is told to the streams that were there, and to no later one."""
    async with (
        both(tmp_path, answers=[[{"exit": 0}]]) as (server, client),
        client.stream("subscriptions/listen", LISTEN) as earlier,
    ):
        assert (await earlier.next())["method"] == ACKNOWLEDGED
        server.show([tool("new")])
        async with client.stream("subscriptions/listen", LISTEN) as later:
            assert (await later.next())["method"] == ACKNOWLEDGED
            assert (await earlier.next())["method"] == CHANGED
            with pytest.raises((EOFError, ConnectionError)):
                await client.call()
            with pytest.raises((EOFError, ConnectionError)):
                await later.next()


# -- the handshake era -----------------------------------------------------------------------------


async def test_a_session_is_asked_for_and_ended(tmp_path: Path) -> None:
    """Without its id 400, with another 404; after DELETE it is another one."""
    async with both(tmp_path, era="legacy") as (server, client):
        session = client.session
        assert session is not None
        assert "result" in await client.call()
        for given, status in ((None, 400), ("other", 404), (session, 200)):
            answer = await client.request("ping", headers={"Mcp-Session-Id": given})
            assert answer.status == status
        assert (await client.request("server/discover")).message()["error"]["code"] == -32601
        assert (await client.delete()).status == 200
        assert (await client.request("ping")).status == (await client.delete()).status == 404
        await client.greet()
        assert client.session not in {None, session}
        assert "result" in await client.call()
    first, *_ = server.received("initialize")
    assert not {"mcp-session-id", "mcp-protocol-version"} & first["_headers"].keys()
    (greeted, _) = server.received("notifications/initialized")
    assert greeted["_headers"]["mcp-session-id"] == session
    assert greeted["_headers"]["mcp-protocol-version"] == LEGACY
    assert "mcp-method" not in greeted["_headers"]


async def test_sessions_are_forgotten_after_so_many_calls(tmp_path: Path) -> None:
    """The last of them is still answered; a new session is then kept."""
    async with both(tmp_path, "--forget-after", "2", era="legacy") as (_, client), client.listen() as stream:
        assert "result" in await client.call()
        assert "result" in await client.call()
        assert (await client.request("tools/call", {"name": "echo"})).status == 404
        with pytest.raises(EOFError, match="the stream ended"):
            await stream.next()
        await client.greet()
        for _ in range(3):
            assert "result" in await client.call()


async def test_a_server_without_sessions_asks_for_none(tmp_path: Path) -> None:
    """There is nothing to delete, and its streams hear of changes all the same."""
    async with both(tmp_path, "--no-sessions", era="legacy") as (server, client):
        assert client.session is None
        assert "result" in await client.call()
        assert (await client.delete()).status == 405
        async with client.listen() as stream:
            server.show([tool("new")])
            assert (await stream.next())["method"] == CHANGED


async def test_the_stream_of_a_session_hears_of_changes(tmp_path: Path) -> None:
    """Once for each change, on the newest stream; the older one and the session's end are ends."""
    async with both(tmp_path, era="legacy") as (server, client), client.listen() as old:
        async with client.listen() as stream:
            with pytest.raises(EOFError, match="the stream ended"):
                await old.next()
            for name in ("a", "b"):
                server.show([tool(name)])
                assert await stream.next() == {"jsonrpc": "2.0", "method": CHANGED, "params": {}}
            await client.delete()
            with pytest.raises(EOFError, match="the stream ended"):
                await stream.next()
        assert (await client.send("GET")).status == 404


async def test_a_server_may_offer_no_stream(tmp_path: Path) -> None:
    """GET is 405, and everything else goes on."""
    async with both(tmp_path, "--no-get", era="legacy") as (_, client):
        assert (await client.send("GET")).status == 405
        with pytest.raises(AssertionError, match="405"):
            async with client.listen():
                pass
        assert "result" in await client.call()


@pytest.mark.parametrize("era", ERAS)
async def test_a_version_is_claimed_where_one_is_named(tmp_path: Path, era: str) -> None:
    """Whatever the client asked for."""
    async with scripted_http(tmp_path, "--version", "1999-01-01", era=era) as server:
        client = RawHttp(server.port, version=VERSIONS[era])
        answer = await (client.request("server/discover") if era == "modern" else client.greet())
    found = answer.message()["result"]
    assert (found.get("supportedVersions") or [found["protocolVersion"]]) == ["1999-01-01"]

"""At the door of the HTTP front: who may come in, how a request must look, and what it may cost."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from guard.config.home import record
from guard.identity.api_keys import mint
from guard.lineage.entry import Kind
from guard.lineage.store import SaveKey
from tests.proxy.estate import Estate, Server
from tests.proxy.raw_http import Answer, RawHttp
from tests.proxy.scene import ENVELOPE, LEGACY, MODERN, tool

CALL: Mapping[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "echo", "arguments": {"text": "x"}, "_meta": ENVELOPE},
}
LIMITS = {
    "body_bytes": 65536,
    "header_bytes": 8192,
    "head_seconds": 0.5,
    "body_seconds": 0.5,
    "keep_alive_seconds": 1.0,
    "connections": 40,
}


class Door:
    """A running Guard, a key that opens it, and a client that has it."""

    def __init__(self, estate: Estate, key: str, port: int) -> None:
        self.estate, self.key, self.port = estate, key, port
        self.client = estate.client(MODERN, key)

    def nobody(self, key: str | None = None) -> RawHttp:
        return self.estate.client(MODERN, key)

    def head(self, *lines: str, method: str = "POST", path: str = "/mcp", key: bool = True) -> bytes:
        own = [
            f"{method} {path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            "Content-Type: application/json",
            "Accept: application/json, text/event-stream",
            f"MCP-Protocol-Version: {MODERN}",
            "Mcp-Method: tools/call",
            "Mcp-Name: echo",
        ]
        if key:
            own.append(f"Authorization: Bearer {self.key}")
        return "\r\n".join([*own, *lines, "", ""]).encode("latin-1")

    async def still_open(self) -> None:
        """An honest call is served, and it alone has reached the server since the last look."""
        before = len(self.estate.received())
        found = await self.client.call("echo", text="honest")
        assert "isError" not in found["result"]
        assert len(self.estate.received()) == before + 1

    async def untouched(self, *answers: Answer) -> None:
        """Nothing has reached the server, and the door is still open."""
        assert self.estate.received() == []
        await self.still_open()


@asynccontextmanager
async def door(tmp_path: Path, *servers: Server, **settings: Any) -> AsyncIterator[Door]:
    estate = Estate(tmp_path / "estate", *servers)
    estate.pin()
    key = estate.key()
    async with estate.guarded(**{"limits": LIMITS, **settings}) as found:
        assert found.listener is not None
        yield Door(estate, key, found.listener.port)
    assert all(kinds.count("granted") <= 1 for kinds in estate.settled().values())


# -- header fields and body ----------------------------------------------------------------------


def encoded(text: str) -> str:
    return f"=?base64?{b64encode(text.encode()).decode()}?="


@pytest.mark.parametrize(
    "fields",
    [
        {"MCP-Protocol-Version": None},
        {"MCP-Protocol-Version": "2025-11-25"},
        {"MCP-Protocol-Version": "2030-01-01"},
        {"Mcp-Method": None},
        {"Mcp-Method": "tools/list"},
        {"Mcp-Method": "Tools/Call"},
        {"Mcp-Name": None},
        {"Mcp-Name": "slow"},
        {"Mcp-Name": "Echo"},
        {"Mcp-Name": encoded("slow")},
        {"Mcp-Name": "=?base64?!!?="},
    ],
)
async def test_header_fields_that_disagree_with_the_body(
    tmp_path: Path, fields: dict[str, str | None]
) -> None:
    """-32020 and 400, whatever the body says; nothing is judged."""
    async with door(tmp_path) as at:
        answer = await at.client.post(CALL, headers=fields)
        assert (answer.status, answer.json()["error"]["code"]) == (400, -32020)
        await at.untouched()


async def test_the_encoded_name_agrees_too(tmp_path: Path) -> None:
    """Base64 of the very name is the name."""
    async with door(tmp_path) as at:
        answer = await at.client.post(CALL, headers={"Mcp-Name": encoded("echo")})
        assert "isError" not in answer.message()["result"]


@pytest.mark.parametrize("name", ["Mcp-Name", "Mcp-Method", "MCP-Protocol-Version"])
async def test_a_routing_field_that_stands_twice(tmp_path: Path, name: str) -> None:
    """Whoever reads the first and whoever reads the last must not disagree."""
    async with door(tmp_path) as at:
        data = json.dumps(CALL).encode()
        head = at.head(f"{name}: echo", f"Content-Length: {len(data)}")
        answer = await at.client.exchange(head + data)
        assert (answer.status, answer.json()["error"]["code"]) == (400, -32020)
        await at.untouched()


async def test_a_version_that_nobody_speaks(tmp_path: Path) -> None:
    """-32022 with what is spoken."""
    async with door(tmp_path) as at:
        meta = {**ENVELOPE, "io.modelcontextprotocol/protocolVersion": "2030-01-01"}
        message = {**CALL, "params": {**CALL["params"], "_meta": meta}}
        answer = await at.client.post(message, headers={"MCP-Protocol-Version": "2030-01-01"})
        assert (answer.status, answer.json()["error"]["code"]) == (400, -32022)
        assert MODERN in answer.json()["error"]["data"]["supported"]
        await at.untouched()


async def test_mirrored_arguments_agree_with_the_body(tmp_path: Path) -> None:
    """`Mcp-Param-*` of a pinned tool: missing, another, twice is refused; the right one passes."""
    text = {"type": "string", "x-mcp-header": "Text"}
    schema = {"type": "object", "properties": {"text": text, "n": {"type": "integer"}}}
    tools = [tool("echo") | {"inputSchema": schema}]
    async with door(tmp_path, Server("server", tools=tools)) as at:
        for fields in ({}, {"Mcp-Param-Text": "y"}, {"Mcp-Param-Text": encoded("y")}):
            answer = await at.client.post(CALL, headers=fields)
            assert (answer.status, answer.json()["error"]["code"]) == (400, -32020), fields
        assert at.estate.received() == []
        answer = await at.client.post(CALL, headers={"Mcp-Param-Text": "x"})
        assert "isError" not in answer.message()["result"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Content-Type": None}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/jsonx"}, 415),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "identity"}, 200),
        ({"Accept": None}, 406),
        ({"Accept": "text/html"}, 406),
        ({"Accept": "text/event-stream"}, 406),
        ({"Accept": "application/json;q=0, text/event-stream"}, 406),
        ({"Accept": "*/*"}, 200),
        ({"Accept": "application/json"}, 200),
    ],
)
async def test_only_plain_json_comes_in(tmp_path: Path, fields: dict[str, str | None], status: int) -> None:
    """Anything else is turned away before its body is read."""
    async with door(tmp_path) as at:
        assert (await at.client.post(CALL, headers=fields)).status == status
        assert len(at.estate.received()) == (status == 200)


async def test_a_compressed_bomb_is_never_inflated(tmp_path: Path) -> None:
    """A small body that would be 50 MB large: 415."""
    async with door(tmp_path) as at:
        bomb = gzip.compress(b"x" * 50_000_000)
        assert len(bomb) < LIMITS["body_bytes"]
        answer = await at.client.post(bomb, headers={"Content-Encoding": "gzip"})
        assert answer.status == 415
        await at.untouched()


# -- framing -------------------------------------------------------------------------------------


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


BODY = json.dumps(CALL).encode()
GAMES: dict[str, tuple[list[str], bytes]] = {
    "a chunk size that is none": (["Transfer-Encoding: chunked"], b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a negative chunk size": (["Transfer-Encoding: chunked"], b"-5\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk longer than it says": (["Transfer-Encoding: chunked"], b"5\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "another transfer coding": (["Transfer-Encoding: xchunked"], chunks(BODY)),
    "both framings": (["Transfer-Encoding: chunked", f"Content-Length: {len(BODY)}"], chunks(BODY)),
    "two lengths": (["Content-Length: 5", f"Content-Length: {len(BODY)}"], BODY),
    "a negative length": (["Content-Length: -5"], BODY),
    "a signed length": ([f"Content-Length: +{len(BODY)}"], BODY),
    "a hexadecimal length": ([f"Content-Length: {len(BODY):#x}"], BODY),
    "a space before the colon": ([f"Content-Length : {len(BODY)}"], BODY),
    "a NUL in a field": (["X: a\0b", f"Content-Length: {len(BODY)}"], BODY),
    "a folded field": (["X: a\r\n b", f"Content-Length: {len(BODY)}"], BODY),
    "a bare line feed": ([f"X: a\nContent-Length: {len(BODY)}"], BODY),
    "a field without a name": ([": x", f"Content-Length: {len(BODY)}"], BODY),
}


@pytest.mark.parametrize("game", GAMES)
async def test_framing_that_two_readers_could_read_differently(tmp_path: Path, game: str) -> None:
    """Refused or closed, and never a call: no request stands inside another."""
    lines, body = GAMES[game]
    async with door(tmp_path) as at:
        try:
            answer = await at.client.exchange(at.head(*lines) + body)
        except (EOFError, ConnectionError):
            pass
        else:
            assert 400 <= answer.status < 500, answer
        await at.untouched()


async def test_what_follows_a_body_is_a_request_of_its_own(tmp_path: Path) -> None:
    """A request that stands behind a body must show a key of its own."""
    async with door(tmp_path) as at:
        smuggled = at.head(f"Content-Length: {len(BODY)}", key=False) + BODY
        async with at.client.connected() as line:
            line.write(at.head(f"Content-Length: {len(BODY)}") + BODY + smuggled)
            first, second = await line.answer(), await line.answer()
        assert (first.status, second.status) == (200, 401)
        assert len(at.estate.received()) == 1


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    """Each with its own id."""
    async with door(tmp_path) as at:
        bodies = [json.dumps({**CALL, "id": n}).encode() for n in (1, 2, 3)]
        async with at.client.connected() as line:
            line.write(b"".join(at.head(f"Content-Length: {len(body)}") + body for body in bodies))
            found = [(await line.answer()).message()["id"] for _ in bodies]
        assert found == [1, 2, 3]


@pytest.mark.parametrize(
    "head",
    [
        b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        b"".join(b"X%d: a\r\n" % n for n in range(10_000)) + b"\r\n",
        b"X: " + b"a" * 500_000,
    ],
    ids=["one large field", "ten thousand fields", "a field without end"],
)
async def test_a_head_that_is_too_large(tmp_path: Path, head: bytes) -> None:
    """431, or the connection is closed."""
    async with door(tmp_path) as at:
        try:
            answer = await at.client.exchange(at.head()[:-2] + head)
        except (EOFError, ConnectionError):
            pass
        else:
            assert answer.status in {400, 431}
        await at.untouched()


# -- time and number -----------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"POST", b"\r\n\r\n", b"POST /mcp HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_never_ends_is_not_waited_for(tmp_path: Path, sent: bytes) -> None:
    """Slow loris: the connection is let go of."""
    async with door(tmp_path) as at:
        async with at.client.connected() as line:
            line.write(sent)
            await line.closed()
        await at.untouched()


async def test_a_body_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    """408, and no call."""
    async with door(tmp_path) as at:
        answer = await at.client.exchange(at.head("Content-Length: 100") + b"{")
        assert answer.status == 408
        await at.untouched()


async def test_a_client_that_keeps_silent_between_requests_is_let_go_of(tmp_path: Path) -> None:
    """After keep_alive_seconds the connection closes."""
    async with door(tmp_path) as at, at.client.connected() as line:
        line.write(at.head(f"Content-Length: {len(BODY)}") + BODY)
        assert (await line.answer()).status == 200
        await line.closed()


async def test_more_connections_than_there_may_be_are_turned_away(tmp_path: Path) -> None:
    """503 or closed for one more; when they go, the door is open again."""
    async with door(tmp_path, limits={**LIMITS, "connections": 4, "head_seconds": 5.0}) as at:
        held = [await asyncio.open_connection("127.0.0.1", at.port) for _ in range(4)]
        try:
            answer = await at.client.post(CALL)
        except (EOFError, ConnectionError):
            pass
        else:
            assert answer.status == 503
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.05)
        await at.untouched()


async def test_more_calls_at_once_than_one_caller_may_have(tmp_path: Path) -> None:
    """429 with `overloaded`, no entry; somebody else is served meanwhile."""
    echo = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[]}}'
    slow = Server("server", answers=[[{"sleep": 0.5}, echo], [echo]])
    async with door(tmp_path, slow, limits={**LIMITS, "in_flight": 1}) as at:
        first = asyncio.ensure_future(at.client.post(CALL))
        while not at.estate.received():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
        answer = await at.client.post(CALL)
        assert answer.status == 429
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["data"]["reason"] == "overloaded"
        other = at.estate.client(MODERN, at.estate.key("other"))
        assert (await other.request("tools/list", {})).status == 200
        assert (await first).status == 200
    assert [*at.estate.settled().values()] == [["granted", "returned"]]


# -- who -----------------------------------------------------------------------------------------


def expired(estate: Estate) -> str:
    text, made = mint(os.urandom(30), tenant="default", principal="p", role="caller", created=0, expires=1)
    with estate.store() as store:
        record(store, Kind.API_KEY, {"key_id": made.key_id}, SaveKey(made))
    return text


async def test_nobody_without_a_good_key_learns_anything(tmp_path: Path) -> None:
    """401 with a challenge (RFC 6750), nothing of the tools, no entry; each is counted."""
    async with door(tmp_path) as at:
        revoked = at.estate.key("gone")
        at.estate.revoke(revoked)
        before = len(at.estate.entries())
        wrong = {
            "none": None,
            "another scheme": f"Basic {at.key}",
            "the key alone": at.key,
            "malformed": "Bearer guard_x",
            "a changed character": f"Bearer {at.key[:-1]}{'a' if at.key[-1] != 'a' else 'b'}",
            "unknown": f"Bearer {mint(os.urandom(30), tenant='t', principal='p', role='r', created=0)[0]}",
            "revoked": f"Bearer {revoked}",
            "expired": f"Bearer {expired(at.estate)}",
            "two": f"Bearer {at.key}, Bearer {at.key}",
            "empty": "Bearer ",
        }
        before = len(at.estate.entries())
        for name, value in wrong.items():
            for message in (CALL, {**CALL, "method": "tools/list", "params": {"_meta": ENVELOPE}}):
                answer = await at.nobody().post(message, headers={"Authorization": value})
                assert answer.status == 401, name
                challenge = answer.headers["www-authenticate"]
                assert challenge.startswith("Bearer "), name
                assert ('error="invalid_token"' in challenge) == (value is not None), name
                assert b"echo" not in answer.body, name
        assert len(at.estate.entries()) == before
        shown = (await at.client.send("GET", path="/proof")).json()["refusals"]
        assert sum(shown.values()) == 2 * len(wrong)
        await at.untouched()


@pytest.mark.parametrize(
    "place",
    [
        {"path": "/mcp?authorization={key}"},
        {"headers": {"X-Api-Key": "{key}"}},
        {"headers": {"Cookie": "authorization={key}"}},
        {"headers": {"X-Forwarded-User": "someone", "X-Remote-User": "someone"}},
    ],
)
async def test_a_key_counts_in_its_place_only(tmp_path: Path, place: dict[str, Any]) -> None:
    """Not in the URL, where logs keep it, and not in a field that anybody may set."""
    async with door(tmp_path) as at:
        filled = json.loads(json.dumps(place).replace("{key}", at.key))
        assert (await at.nobody().post(CALL, **filled)).status == 401
        await at.untouched()


async def test_two_authorization_fields_are_no_authorization(tmp_path: Path) -> None:
    """Which of the two was meant is not guessed."""
    async with door(tmp_path) as at:
        head = at.head(f"Authorization: Bearer {at.key}", f"Content-Length: {len(BODY)}")
        assert (await at.client.exchange(head + BODY)).status == 400
        await at.untouched()


async def test_a_role_that_is_only_asserted_is_nobodys(tmp_path: Path) -> None:
    """In the body, in `_meta`, in a header field: a tool that the key's role may not see stays unknown."""
    async with door(tmp_path) as at:
        meta = {**ENVELOPE, "role": "powerful", "dev.guard-mcp/role": "powerful", "user": "admin"}
        message = {**CALL, "params": {"name": "hidden", "arguments": {"role": "powerful"}, "_meta": meta}}
        fields = {"Mcp-Name": "hidden", "X-Role": "powerful", "X-User": "admin", "Role": "powerful"}
        answer = (await at.client.post(message, headers=fields)).message()
        assert answer["result"]["_meta"]["dev.guard-mcp/decision"]["reason"] == "unknown-tool"
        await at.untouched()
        (denied,) = at.estate.entries(Kind.DENIED)
        assert denied["fields"]["role"] == "caller"


async def test_wrong_keys_are_answered_more_and_more_curtly(tmp_path: Path) -> None:
    """After the share of a minute it is 429 with Retry-After; a valid key from there still passes."""
    async with door(tmp_path, limits={**LIMITS, "refusals_per_minute": 3}) as at:
        answers = [await at.nobody("guard_x").post(CALL) for _ in range(6)]
        assert [answer.status for answer in answers] == [401, 401, 401, 429, 429, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        await at.untouched()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "localhost:1"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "guard.example.com"}, 200),
        ({"Host": "GUARD.example.com"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "http://localhost@evil.example"}, 403),
        ({"Origin": "http://127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://evil.example#localhost"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "http://127.0.0.1"}, 200),
        ({"Origin": "https://console.example.com"}, 200),
        ({"Origin": "https://console.example.com.evil.example"}, 403),
        ({"Host": "guard.example.com", "X-Forwarded-Host": "evil.example"}, 200),
        ({"Host": "evil.example", "X-Forwarded-Host": "127.0.0.1"}, 421),
    ],
)
async def test_a_page_elsewhere_cannot_reach_it(tmp_path: Path, fields: dict[str, str], status: int) -> None:
    """DNS rebinding and foreign pages are turned away before anybody is asked who they are."""
    own = {"hosts": ["guard.example.com"], "origins": ["https://console.example.com"]}
    async with door(tmp_path, **own) as at:
        assert (await at.client.post(CALL, headers=fields)).status == status
        assert len(at.estate.received()) == (status == 200)
        if status != 200:
            assert (await at.nobody().post(CALL, headers=fields)).status == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/mcp", 405), ("PATCH", "/mcp", 405), ("OPTIONS", "/mcp", 405), ("TRACE", "/mcp", 405),
        ("GET", "/mcp", 405), ("DELETE", "/mcp", 405), ("HEAD", "/mcp", 405), ("POST", "/health", 405),
        ("POST", "/", 404), ("POST", "/mcp/", 404), ("POST", "//mcp", 404), ("POST", "/MCP", 404),
        ("POST", "/mcp%2f..", 404), ("POST", "/x/../mcp", 404), ("GET", "/health/", 404),
    ],
)  # fmt: skip
async def test_there_is_one_endpoint_and_nothing_beside_it(
    tmp_path: Path, method: str, path: str, status: int
) -> None:
    """Other methods are 405 with Allow, other paths 404."""
    async with door(tmp_path) as at:
        answer = await at.client.send(method, path=path)
        assert answer.status == status
        assert ("allow" in answer.headers) == (status == 405)
        await at.untouched()


# -- sessions ------------------------------------------------------------------------------------


async def test_a_session_is_its_principals_and_nobody_elses(tmp_path: Path) -> None:
    """Another's, a made-up and an ended one do not exist; without one there is no call."""
    async with door(tmp_path) as at:
        own = at.estate.client(LEGACY, at.key)
        await own.greet()
        thief = at.estate.client(LEGACY, at.estate.key("thief"))
        thief.session = own.session
        old = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {}}}
        assert (await thief.post(old)).status == 404
        assert (await thief.delete()).status == 404
        assert (await thief.send("GET")).status == 404
        thief.session = "made-up"
        assert (await thief.post(old)).status == 404
        thief.session = None
        assert (await thief.post(old)).status == 400
        assert (await own.post(old, headers={"MCP-Protocol-Version": "2025-06-18"})).status == 400
        assert at.estate.received() == []
        assert "isError" not in (await own.call("echo", text="x"))["result"]
        assert (await own.delete()).status == 204
        assert (await own.post(old)).status == 404
        await at.still_open()


async def test_more_sessions_than_one_principal_may_have(tmp_path: Path) -> None:
    """Its own idlest makes room; another's live on."""
    async with door(tmp_path, limits={**LIMITS, "sessions": 2}) as at:
        other = at.estate.client(LEGACY, at.estate.key("other"))
        await other.greet()
        clients = [at.estate.client(LEGACY, at.key) for _ in range(3)]
        for client in clients:
            await client.greet()
        listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        assert [(await client.post(listing)).status for client in clients] == [404, 200, 200]
        assert (await other.post(listing)).status == 200


async def test_a_call_without_a_session_is_in_the_record(tmp_path: Path) -> None:
    """A modern call names no conversation: it belongs to an inferred one, and each principal has its own."""
    async with door(tmp_path) as at:
        await at.still_open()
        other = at.estate.client(MODERN, at.estate.key("other"))
        assert "isError" not in (await other.call("echo", text="x"))["result"]
    granted = at.estate.entries(Kind.GRANTED)
    found = [entry["fields"]["conversation"] for entry in granted]
    assert [one["source"] for one in found] == ["inferred", "inferred"]
    assert found[0]["id"] != found[1]["id"]


async def test_what_is_not_permitted_is_denied(tmp_path: Path) -> None:
    """A policy without rules allows nothing, and lists nothing."""
    estate = Estate(tmp_path / "estate", policy={"guard": 1, "id": "empty", "version": 1})
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client = estate.client(MODERN, key)
        assert (await client.request("tools/list", {})).message()["result"]["tools"] == []
        assert (await client.call("echo", text="x"))["result"]["isError"] is True
    assert estate.received() == []


async def test_a_client_that_does_not_read_is_let_go_of(tmp_path: Path) -> None:
    """Its answer does not stay in memory for ever; others are served meanwhile."""
    large = (
        '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[{"type":"text","text":"' + "x" * 8_000_000
    )
    echo = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[]}}'
    server = Server("server", answers=[[large + '"}]}}'], [echo]])
    async with door(tmp_path, server) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port, limit=1024)
        writer.write(at.head(f"Content-Length: {len(BODY)}") + BODY)
        assert at.estate.serving is not None
        assert at.estate.serving.listener is not None
        held = at.estate.serving.listener._state.connections
        async with asyncio.timeout(20):
            while not at.estate.received():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)
            await at.still_open()
            while held:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
        writer.transport.abort()
        del reader

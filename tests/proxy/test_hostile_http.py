"""HTTP requests that nobody should send: header fields, content, framing, targets.

Each is answered with 4xx or the connection is closed; never do two calls come of one request; the honest
call right after it is served. One Guard takes them all.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from guard.lineage.entry import Kind
from tests.proxy.estate import Server
from tests.proxy.outsider import LIMITS, MISMATCH, REQUEST, Outsider, call, outsider
from tests.proxy.scene import ENVELOPE, LEGACY, MODERN, tool

pytestmark = pytest.mark.asyncio(loop_scope="module")
BODY = call(True)  # noqa: FBT003 - an era
SIZE = f"Content-Length: {len(BODY)}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def at(tmp_path_factory: Any) -> AsyncIterator[Outsider]:
    async with outsider(tmp_path_factory.mktemp("hostile"), limits=LIMITS) as found:
        yield found


def encoded(text: bytes) -> str:
    return f"=?base64?{b64encode(text).decode()}?="


# -- header fields -------------------------------------------------------------------------------

DISAGREEING: dict[str, dict[str, str | None]] = {
    "no version": {"MCP-Protocol-Version": None},
    "a handshake version": {"MCP-Protocol-Version": LEGACY},
    "an unknown version": {"MCP-Protocol-Version": "2030-01-01"},
    "a version with a blank": {"MCP-Protocol-Version": f"{MODERN} x"},
    "two versions in one": {"MCP-Protocol-Version": f"{MODERN}, {MODERN}"},
    "an empty version": {"MCP-Protocol-Version": ""},
    "no method": {"Mcp-Method": None},
    "another method": {"Mcp-Method": "tools/list"},
    "a method in capitals": {"Mcp-Method": "Tools/Call"},
    "an empty method": {"Mcp-Method": ""},
    "no name": {"Mcp-Name": None},
    "another name": {"Mcp-Name": "slow"},
    "a name in capitals": {"Mcp-Name": "Echo"},
    "an empty name": {"Mcp-Name": ""},
    "another name in base64": {"Mcp-Name": encoded(b"slow")},
    "malformed base64": {"Mcp-Name": "=?base64?!!?="},
    "base64 without padding": {"Mcp-Name": "=?base64?ZWNobw?="},
    "base64 that is no UTF-8": {"Mcp-Name": encoded(b"\xff\xfe")},
    "base64 without an end": {"Mcp-Name": "=?base64?ZWNobw=="},
    "base64 that is cut": {"Mcp-Name": "=?base64?ZWNob?="},
    "base64 in base64": {"Mcp-Name": encoded(encoded(b"echo").encode())},
    "a name in Latin-1": {"Mcp-Name": "echo\xa0"},
}


@pytest.mark.parametrize("fields", DISAGREEING)
async def test_header_fields_that_disagree_with_the_body(at: Outsider, fields: str) -> None:
    """-32020 and 400: who routes by the header and who reads the body must not see different calls."""
    answer = await at.client.post(BODY, headers=DISAGREEING[fields])
    assert (answer.status, answer.message()["error"]["code"]) == (400, MISMATCH)
    await at.honest()


@pytest.mark.parametrize(
    "name", ["Mcp-Name", "mcp-name", "Mcp-Method", "MCP-Protocol-Version", "Mcp-Param-X"]
)
async def test_a_routing_field_that_stands_twice(at: Outsider, name: str) -> None:
    """-32020 and 400, even where the two agree."""
    value = {"mcp-name": "echo", "mcp-method": "tools/call"}.get(name.lower(), MODERN)
    answer = await at.client.exchange(at.head(f"{name}: {value}", f"{name}: {value}", SIZE) + BODY)
    assert (answer.status, answer.message()["error"]["code"]) == (400, MISMATCH)
    await at.honest()


async def test_the_right_name_in_base64_is_the_name(at: Outsider) -> None:
    """It is decoded, and agrees."""
    answer = await at.client.post(BODY, headers={"Mcp-Name": encoded(b"echo")})
    assert "isError" not in answer.message()["result"]
    at.reached += 1
    await at.honest()


@pytest.mark.parametrize("version", ["2030-01-01", "2024-11-05", "x", "DRAFT-2026"])
async def test_a_version_that_nobody_speaks(at: Outsider, version: str) -> None:
    """-32022 and 400 with what is supported, where header and body agree on it."""
    body = call(True, meta=json.dumps({**ENVELOPE, "io.modelcontextprotocol/protocolVersion": version}))  # noqa: FBT003
    answer = await at.client.post(body, headers={"MCP-Protocol-Version": version})
    error = answer.message()["error"]
    assert (answer.status, error["code"]) == (400, -32022)
    assert {MODERN, LEGACY} <= {*error["data"]["supported"]}
    await at.honest()


MIRRORED: dict[str, tuple[dict[str, str], list[str]]] = {
    "missing": ({}, []),
    "another": ({"Mcp-Param-Text": "y"}, []),
    "in capitals": ({"Mcp-Param-Text": "BAD"}, []),
    "malformed": ({"Mcp-Param-Text": "=?base64?!?="}, []),
    "another in base64": ({"Mcp-Param-Text": encoded(b"y")}, []),
    "for what is not there": ({"Mcp-Param-Text": "bad", "Mcp-Param-N": "5"}, []),
    "twice": ({}, ["Mcp-Param-Text: bad", "Mcp-Param-Text: bad"]),
    "twice in other letters": ({}, ["Mcp-Param-Text: bad", "mcp-param-text: y"]),
}


@pytest.mark.parametrize("case", MIRRORED)
async def test_mirrored_arguments_that_disagree(tmp_path: Path, case: str) -> None:
    """`Mcp-Param-*` of a pinned tool: -32020 and 400; the right one passes, in base64 too."""
    fields, lines = MIRRORED[case]
    properties = {
        "text": {"type": "string", "x-mcp-header": "Text"},
        "n": {"type": "integer", "x-mcp-header": "N"},
    }
    tools = [tool("echo") | {"inputSchema": {"type": "object", "properties": properties}}]
    async with outsider(tmp_path, "http", MODERN, Server("server", tools=tools)) as at:
        if lines:
            answer = await at.client.exchange(at.head(*lines, SIZE) + BODY)
        else:
            answer = await at.client.post(BODY, headers=fields)
        assert (answer.status, answer.message()["error"]["code"]) == (400, MISMATCH)
        assert at.estate.received() == []
        for right in ("bad", encoded(b"bad")):
            answer = await at.client.post(BODY, headers={"Mcp-Param-Text": right})
            assert "isError" not in answer.message()["result"]
    assert len(at.estate.received()) == 2


# -- content -------------------------------------------------------------------------------------

CONTENT: dict[str, tuple[dict[str, str | None], int]] = {
    "no type": ({"Content-Type": None}, 415),
    "an empty type": ({"Content-Type": ""}, 415),
    "plain text": ({"Content-Type": "text/plain"}, 415),
    "a form": ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    "nearly JSON": ({"Content-Type": "application/jsonx"}, 415),
    "JSON of another kind": ({"Content-Type": "application/vnd.api+json"}, 415),
    "two types": ({"Content-Type": "application/json, text/plain"}, 415),
    "text with JSON behind": ({"Content-Type": "text/plain; application/json"}, 415),
    "UTF-16": ({"Content-Type": "application/json; charset=utf-16"}, 415),
    "UTF-7 in quotes": ({"Content-Type": 'application/json; charset="utf-7"'}, 415),
    "two charsets": ({"Content-Type": "application/json; charset=utf-8; charset=utf-16"}, 415),
    "gzip": ({"Content-Encoding": "gzip"}, 415),
    "deflate, gzip": ({"Content-Encoding": "deflate, gzip"}, 415),
    "br in capitals": ({"Content-Encoding": "BR"}, 415),
    "an empty encoding": ({"Content-Encoding": ""}, 415),
    "no Accept": ({"Accept": None}, 406),
    "HTML only": ({"Accept": "text/html"}, 406),
    "streams only": ({"Accept": "text/event-stream"}, 406),
    "JSON refused": ({"Accept": "application/json;q=0, text/event-stream"}, 406),
}


@pytest.mark.parametrize("case", CONTENT)
async def test_only_plain_json_comes_in(at: Outsider, case: str) -> None:
    """415 or 406, and the body is not looked at."""
    fields, status = CONTENT[case]
    assert (await at.client.post(BODY, headers=fields)).status == status
    await at.honest()


@pytest.mark.parametrize("said", ["gzip", "x-gzip", None])
async def test_a_compressed_bomb_is_never_inflated(at: Outsider, said: str | None) -> None:
    """415 where it says so; where it does not, it is no JSON."""
    bomb = gzip.compress(b" " * 20_000_000 + BODY)
    assert len(bomb) < LIMITS["body_bytes"]
    answer = await at.client.post(bomb, headers={"Content-Encoding": said})
    assert answer.status == (400 if said is None else 415)
    await at.honest()


# -- what the target is --------------------------------------------------------------------------

TARGETS = {
    "the root": ("/", 404), "a slash behind": ("/mcp/", 404), "two slashes": ("//mcp", 404),
    "an encoded slash": ("/mcp%2f..", 404), "an encoded slash alone": ("/mcp%2f", 404),
    "a double encoding": ("/%256dcp", 404), "dots": ("/x/../mcp", 404), "dots behind": ("/mcp/..", 404),
    "encoded dots": ("/x/%2e%2e/mcp", 404), "a semicolon": ("/mcp;x", 404), "capitals": ("/MCP", 404),
    "a NUL": ("/mcp%00", 404), "a line end": ("/mcp%0d%0aX:%20y", 404), "a backslash": ("/\\mcp", 404),
    "an attribute": ("/__init__", 404), "health with a slash": ("/health/", 404), "no slash": ("mcp", 400),
    "an asterisk": ("*", 400), "a letter beyond ASCII": ("/mcp\xe9", 400), "an authority": ("evil:80", 400),
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
async def test_there_is_one_endpoint_and_nothing_beside_it(at: Outsider, target: str) -> None:
    """Another spelling is another place: 404, or 400 where it is no target at all."""
    path, status = TARGETS[target]
    answer = await at.tried(at.head(SIZE, path=path) + BODY)
    assert answer is not None
    assert answer.status == status
    await at.honest()


@pytest.mark.parametrize("verb", ["PUT", "PATCH", "OPTIONS", "TRACE", "HEAD", "GET", "DELETE", "PROPFIND"])
async def test_other_methods_are_not_allowed(at: Outsider, verb: str) -> None:
    """405 with Allow, on the endpoint and beside it; TRACE repeats nothing."""
    answer = await at.client.exchange(at.head(verb=verb))
    assert (answer.status, answer.headers["allow"]) == (405, "POST, GET, DELETE")
    assert at.key.encode() not in answer.body
    if verb not in {"GET", "HEAD"}:
        answer = await at.client.exchange(at.head(verb=verb, path="/proof"))
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    await at.honest()


async def test_a_target_in_absolute_form_is_one_call(at: Outsider) -> None:
    """RFC 9112 section 3.2.2: it is taken as the path."""
    answer = await at.client.exchange(at.head(SIZE, path=f"http://127.0.0.1:{at.port}/mcp") + BODY)
    assert "isError" not in answer.message()["result"]
    at.reached += 1
    await at.honest()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "x@evil.example"])
async def test_a_target_in_absolute_form_names_the_host(at: Outsider, host: str) -> None:
    """RFC 9112 section 3.2.2: the target's host counts, whatever `Host` says."""
    answer = await at.tried(at.head(SIZE, path=f"http://{host}/mcp") + BODY)
    assert answer is None or answer.status in {400, 421}
    await at.honest()


async def test_http_1_0_is_answered_once_and_closed(at: Outsider) -> None:
    """A request of the old version is served, and nothing behind it."""
    data = at.head(SIZE).replace(b"HTTP/1.1", b"HTTP/1.0", 1) + BODY
    async with at.client.connected() as line:
        line.write(data + data)
        assert (await line.answer()).status == 200
        assert await line.closed() == b""
    at.reached += 1
    await at.honest()
    assert at.estate.entries(Kind.DENIED) == []


async def test_what_could_be_read_twice_is_an_invalid_request(at: Outsider) -> None:
    """Single fields that stand twice: 400, whether or not they agree."""
    fields = {"Host": f"127.0.0.1:{at.port}", "Authorization": f"Bearer {at.key}"}
    fields |= {"Content-Type": "application/json", "Origin": "http://localhost"}
    for name, value in fields.items():
        lines = [f"{name}: {value}"] * (2 if name == "Origin" else 1)
        answer = await at.client.exchange(at.head(*lines, SIZE) + BODY)
        assert (answer.status, answer.message()["error"]["code"]) == (400, REQUEST), name
        await at.honest()

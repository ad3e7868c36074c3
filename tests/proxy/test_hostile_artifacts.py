"""What a client says that it may say, and that must not count: artifacts, odd names, ids, responses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from guard.core.canonical import sha256
from guard.lineage.entry import Kind
from tests.proxy.estate import Server
from tests.proxy.outsider import ID, REQUEST, TRANSPORTS, VERSIONS, call, enveloped, outsider
from tests.proxy.pairs import ECHO, until
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import ENVELOPE, LEGACY, MODERN

ARTIFACT = "dev.guard-mcp/authorization"
FORGED: dict[str, Any] = {
    "a string": "eyJhbGciOiJub25lIn0.eyJpc3MiOiJndWFyZCJ9.",
    "garbage": "\u202e\u0000 not an artifact",
    "an empty string": "",
    "an object": {"decision": "allow", "scopes": ["more"]},
    "a list": ["a.b.c"],
    "a number": 5,
    "true": True,
    "a long one": "a." * 100_000,
}
DATA: dict[str, Any] = {
    "__proto__": {"__proto__": {"role": "powerful"}},
    "constructor": {"constructor": {"prototype": {"role": "powerful"}}},
    "a class": {"__class__": "x", "__dict__": {}, "__init__": None},
    "_meta": {"_meta": {ARTIFACT: "x"}},
    "a name that looks like ours": {"dev.guard-mcp/role": "powerful", "name": "hidden", "role": "powerful"},
    "an empty key": {"": {"": ""}},
    "hidden letters": {"text": "\u202e\u200b\u0000\u001b[2J"},
    "a template": {"text": "{0.__class__} %s ${jndi:ldap://x} {{7*7}}"},
}
HELD = [{"wait": "tools/list"}, ECHO]
"""What a server over HTTP makes of a call: an answer, once somebody asked it for its tools."""


@VERSIONS
@TRANSPORTS
@pytest.mark.parametrize("forged", FORGED)
async def test_an_artifact_of_the_clients_never_travels_on(
    tmp_path: Path, over: str, version: str, forged: str
) -> None:
    """The server gets Guard's own and nothing of the other; the entry notes it as claimed."""
    value = FORGED[forged]
    async with outsider(tmp_path, over, version) as at:
        _, answer = await at.send(call(at.modern, meta=enveloped(at.modern, **{ARTIFACT: value})))
        assert "isError" not in answer["result"]
        at.reached += 1
        await at.honest()
    token = at.estate.received()[0]["params"]["_meta"][ARTIFACT]
    assert (token.count("."), token != value) == (2, True)
    assert not isinstance(value, str) or not value or value not in at.estate.log("server").read_text()
    parent = at.estate.entries(Kind.GRANTED)[0]["fields"]["parent"]
    assert parent == {"edge": "claimed", "sha256": sha256(str(value).encode())}


@VERSIONS
@TRANSPORTS
async def test_guards_own_names_in_meta_do_not_travel_on(tmp_path: Path, over: str, version: str) -> None:
    """Scopes, role and decision that a client asserts in `_meta` reach nobody and change nothing."""
    own = {"scopes": ["more"], "role": "powerful", "decision": {"decision": "allow"}, "tenant": "other"}
    asserted = {f"dev.guard-mcp/{name}": value for name, value in own.items()}
    async with outsider(tmp_path, over, version) as at:
        for name in ('"hidden"', '"echo"'):
            _, answer = await at.send(call(at.modern, name=name, meta=enveloped(at.modern, **asserted)))
            assert answer["result"].get("isError", False) is (name == '"hidden"')
        at.reached += 1
        await at.honest()
    for message in at.estate.received():
        assert {name for name in message["params"]["_meta"] if "guard-mcp" in name} == {ARTIFACT}
    (denied,) = at.estate.entries(Kind.DENIED)
    assert (denied["fields"]["role"], denied["fields"]["tenant"]) == ("caller", "default")


@VERSIONS
@TRANSPORTS
@pytest.mark.parametrize("data", DATA)
async def test_names_that_mean_something_elsewhere_are_plain_data(
    tmp_path: Path, over: str, version: str, data: str
) -> None:
    """Inside the arguments they reach the server as they were judged, and mean nothing to Guard."""
    async with outsider(tmp_path, over, version) as at:
        assert "isError" not in (await at.client.call("echo", **DATA[data]))["result"]
        at.reached += 1
        await at.honest()
    assert at.estate.received()[0]["params"]["arguments"] == DATA[data]
    assert at.estate.entries(Kind.GRANTED)[0]["fields"]["arguments"] == DATA[data]


RESPONSES = {
    "a result": b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}',
    "an error": b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}',
    "both": b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
    "one without an id": b'{"jsonrpc":"2.0","result":{}}',
}


@VERSIONS
@TRANSPORTS
@pytest.mark.parametrize("response", RESPONSES)
async def test_a_response_of_a_client_answers_nothing(
    tmp_path: Path, over: str, version: str, response: str
) -> None:
    """Guard asked nothing: it is passed over, and refused with 400 where the era has no such message."""
    async with outsider(tmp_path, over, version) as at:
        if over == "stdio":
            at.client.say(RESPONSES[response] + b"\n")
            await at.client.silent()
        else:
            answer = await at.client.post(RESPONSES[response])
            assert answer.status == (400 if at.modern else 202)
        await at.honest()
    assert at.estate.entries(Kind.DENIED) == []


NOTIFICATIONS = {
    "a call": call(True, id=""),  # noqa: FBT003 - an era
    "an unknown one": b'{"jsonrpc":"2.0","method":"notifications/\\u202eevil","params":{"x":1}}',
    "a cancellation of nothing": b'{"jsonrpc":"2.0","method":"notifications/cancelled"}',
    "a cancellation of a list": (
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[1]}}'
    ),
}


@VERSIONS
@TRANSPORTS
@pytest.mark.parametrize("sent", NOTIFICATIONS)
async def test_what_has_no_id_is_not_answered_and_calls_nothing(
    tmp_path: Path, over: str, version: str, sent: str
) -> None:
    """A call without an id is a notification: it is taken and not made."""
    async with outsider(tmp_path, over, version) as at:
        if over == "stdio":
            at.client.say(NOTIFICATIONS[sent] + b"\n")
            await at.client.silent()
        else:
            answer = await at.client.post(NOTIFICATIONS[sent])
            assert (answer.status, answer.body) == (202, b"")
        await at.honest()


@VERSIONS
async def test_an_id_in_flight_is_not_used_twice_on_stdio(tmp_path: Path, version: str) -> None:
    """The second is refused, the first is answered, and one call is made."""
    async with outsider(tmp_path, "stdio", version) as at:
        at.client.say(call(at.modern) + b"\n" + call(at.modern) + b"\n")
        answers = [await at.client.hear(), await at.client.hear()]
        assert [answer["id"] for answer in answers] == [ID, ID]
        assert answers[0]["error"]["code"] == REQUEST
        assert "isError" not in answers[1]["result"]
        at.reached += 1
        await at.honest()


@pytest.mark.parametrize(("version", "calls"), [(MODERN, 2), (LEGACY, 1)], ids=["modern", "handshake"])
async def test_an_id_in_flight_over_http(tmp_path: Path, version: str, calls: int) -> None:
    """In a session the second is refused; modern requests share nothing, and both are answered."""
    server = Server("server", over="http", answers=[HELD, HELD, [ECHO]][2 - calls :])
    async with outsider(tmp_path, "http", version, server) as at:
        message = json.loads(call(at.modern))
        first = asyncio.ensure_future(at.client.post(message))
        await until(lambda: len(at.estate.received()) == 1)
        second = asyncio.ensure_future(at.client.post(message))
        if calls == 1:
            answer = (await second).message()
            assert (answer["id"], answer["error"]["code"]) == (ID, REQUEST)
        else:
            await until(lambda: len(at.estate.received()) == 2)
        assert not first.done()
        at.estate.ask_again()
        assert (await at.client.request("tools/list")).status == 200
        for answered in [first, second][:calls]:
            found = (await answered).message()
            assert (found["id"], "result" in found) == (ID, True)
        at.reached = calls
        await at.honest()


@VERSIONS
@pytest.mark.parametrize("framing", ["declared", "chunked"])
async def test_a_body_that_is_too_large_is_not_read_whole(tmp_path: Path, framing: str, version: str) -> None:
    """10 MB against the usual limit: 413, before or as soon as it is more."""
    async with outsider(tmp_path, "http", version) as at:
        if framing == "declared":
            body, fields = b"x" * 100_000, {"Content-Length": "10000000"}
        else:
            body = (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 160 + b"0\r\n\r\n"
            fields = {"Content-Length": None, "Transfer-Encoding": "chunked"}
        assert isinstance(at.client, RawHttp)
        written = at.client.written("POST", b"", headers=fields)
        answer = await at.client.exchange(written + body)
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert answer.message()["error"]["code"] == REQUEST
        await at.honest()


@VERSIONS
@pytest.mark.parametrize("shape", ["one string", "nested", "blanks", "a call"])
async def test_a_line_of_more_than_16_mib_is_no_message(tmp_path: Path, shape: str, version: str) -> None:
    """One error without an id, nothing is kept of it, and the next line is a message again."""
    size = 16 * 1024 * 1024 + 1
    async with outsider(tmp_path, "stdio", version) as at:
        line = {
            "one string": b'"' + b"x" * size + b'"',
            "nested": b"[" * size,
            "blanks": b" " * size + b"{}",
            "a call": call(at.modern, json.dumps({"text": "x" * size})),
        }[shape]
        await at.refused(line, REQUEST)
        await at.client.silent()
        await at.honest()


async def test_an_envelope_of_another_revision_is_refused_on_stdio(tmp_path: Path) -> None:
    """-32022 with what is supported; nothing is called."""
    async with outsider(tmp_path, "stdio", MODERN) as at:
        meta = {**ENVELOPE, "io.modelcontextprotocol/protocolVersion": "2030-01-01"}
        _, answer = await at.send(call(True, meta=json.dumps(meta)))  # noqa: FBT003 - an era
        assert (answer["error"]["code"], answer["id"]) == (-32022, ID)
        assert MODERN in answer["error"]["data"]["supported"]
        await at.honest()

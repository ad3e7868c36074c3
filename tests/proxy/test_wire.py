"""What a client may say: everything else gets a clear error, and nothing of it is forwarded."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.canonical import MAX_DEPTH, MAX_SAFE_INTEGER
from guard.core.model import ARTIFACT_META, CONVERSATION_META
from guard.lineage.entry import Kind
from guard.proxy import eras, wire
from guard.proxy.lines import MAX_MESSAGE, LineBuffer
from guard.proxy.wire import Malformed, Notification, Request, Response, read_message
from tests.proxy.scene import ENVELOPE, LEGACY, MODERN, Scene, decision, reason

META = json.dumps(ENVELOPE)


def line(arguments: str = "{}", **members: str) -> bytes:
    """A call as raw JSON: each member's text can be replaced, `more` is put at the end of its object."""
    given = {"id": "1", "jsonrpc": '"2.0"', "method": '"tools/call"', "name": '"echo"', "meta": META}
    given |= {"more_params": "", "more": ""} | members
    params = '{{"name":{name},"arguments":{arguments},"_meta":{meta}{more_params}}}'.format(
        arguments=arguments, **given
    )
    body = '{{"jsonrpc":{jsonrpc},"id":{id},"method":{method},"params":{params}{more}}}'
    return body.format(
        params=members.get("params", params), **{k: v for k, v in given.items() if k != "params"}
    ).encode("utf-8", "surrogatepass")


NOT_JSON: dict[str, bytes] = {
    "nothing readable": b"hello",
    "cut off": line()[:-1],
    "two values": line() + b" {}",
    "BOM": b"\xef\xbb\xbf" + line(),
    "UTF-16": line().decode().encode("utf-16-le").replace(b"\n", b""),
    "invalid UTF-8": line('{"text":"@"}').replace(b"@", b"\xff"),
    "an overlong form": line('{"text":"@"}').replace(b"@", b"\xc0\xaf"),
    "a raw surrogate": line('{"text":"\ud800"}'),
    "NaN": line('{"n":NaN}'),
    "Infinity": line('{"n":-Infinity}'),
    "a leading zero": line('{"n":01}'),
    "a plus sign": line('{"n":+1}'),
    "hexadecimal": line('{"n":0x10}'),
    "a trailing comma": line('{"n":1,}'),
    "a comment": line('{"n":1/*2*/}'),
    "single quotes": line("{'n':1}"),
    "a raw control character": line('{"text":"a\x01b"}'),
    "a raw NUL": line('{"text":"a\x00b"}'),
    "an unknown escape": line('{"text":"\\x41"}'),
}
NOT_I_JSON: dict[str, bytes] = {
    "duplicate method": line(more=',"method":"tools/list"'),
    "duplicate id": line(more=',"id":2'),
    "duplicate jsonrpc": line(more=',"jsonrpc":"2.0"'),
    "duplicate params": line(more=',"params":{"name":"hidden"}'),
    "duplicate name": line(more_params=',"name":"hidden"'),
    "duplicate name, escaped": line(more_params=',"n\\u0061me":"hidden"'),
    "duplicate arguments": line(more_params=',"arguments":{"n":13}'),
    "duplicate _meta": line(more_params=',"_meta":{}'),
    "duplicate in _meta": line(meta=META[:-1] + ',"x":1,"x":2}'),
    "lone surrogate in the name": line(name='"echo\\ud800"'),
    "lone surrogate in _meta": line(meta=META[:-1] + ',"x":"\\udfff"}'),
    "lone surrogate in a key": line(more_params=',"\\ud800":1'),
    "lone surrogate in the id": line(id='"\\ud83d"'),
    "large integer in _meta": line(meta=META[:-1] + ',"progressToken":123456789012345678901234567890}'),
    "1e400 in _meta": line(meta=META[:-1] + ',"x":1e400}'),
    "huge id": line(id="123456789012345678901234567890"),
    "id beyond 2^53": line(id=str(MAX_SAFE_INTEGER + 1)),
    "deep _meta": line(meta=META[:-1] + ',"x":' + "[" * 10_000 + "]" * 10_000 + "}"),
    "deep message": b"[" * 10_000 + b"]" * 10_000,
}
NOT_A_REQUEST: dict[str, tuple[bytes, int]] = {
    "batch": (b"[" + line() + b"," + line(id="2") + b"]", -32600),
    "empty batch": (b"[]", -32600),
    "string": (b'"tools/call"', -32600),
    "number": (b"7", -32600),
    "null": (b"null", -32600),
    "empty object": (b"{}", -32600),
    "jsonrpc 1.0": (line(jsonrpc='"1.0"'), -32600),
    "jsonrpc 2": (line(jsonrpc="2"), -32600),
    "jsonrpc 2.0 as a number": (line(jsonrpc="2.0"), -32600),
    "no jsonrpc": (line().replace(b'"jsonrpc":"2.0",', b""), -32600),
    "null id": (line(id="null"), -32600),
    "boolean id": (line(id="true"), -32600),
    "float id": (line(id="1.0"), -32600),
    "float id with an exponent": (line(id="1e0"), -32600),
    "list id": (line(id="[1]"), -32600),
    "object id": (line(id="{}"), -32600),
    "id of 257 characters": (line(id=json.dumps("x" * 257)), -32600),
    "method null": (line(method="null"), -32600),
    "method list": (line(method='["tools/call"]'), -32600),
    "method empty": (line(method='""'), -32600),
    "method of 257 characters": (line(method=json.dumps("x" * 257)), -32600),
    "no method": (line().replace(b'"method":"tools/call",', b""), -32600),
    "unknown member": (line(more=',"extra":1'), -32600),
    "result beside method": (line(more=',"result":{}'), -32600),
    "__proto__": (line(more=',"__proto__":{}'), -32600),
    "params list": (line(params='["echo"]'), -32602),
    "params null": (line(params="null"), -32602),
    "params string": (line(params='"echo"'), -32602),
    "arguments list": (line("[]"), -32602),
    "arguments null": (line("null"), -32602),
    "arguments string": (line('"{}"'), -32602),
    "no name": (line(params="{" + f'"arguments":{{}},"_meta":{META}' + "}"), -32602),
    "name null": (line(name="null"), -32602),
    "name number": (line(name="1"), -32602),
    "name empty": (line(name='""'), -32602),
    "name of 257 characters": (line(name=json.dumps("x" * 257)), -32602),
    "name with ANSI": (line(name='"\\u001b[31mecho"'), -32602),
    "name with newline": (line(name='"echo\\n"'), -32602),
    "name with NUL": (line(name='"echo\\u0000"'), -32602),
    "name with bidi": (line(name='"\\u202eohce"'), -32602),
    "name with zero width": (line(name='"ec\\u200bho"'), -32602),
    "name with DEL": (line(name='"echo\\u007f"'), -32602),
    "_meta null": (line(meta="null"), -32602),
    "_meta list": (line(meta="[]"), -32602),
    "_meta string": (line(meta='"x"'), -32602),
    "progress token null": (line(meta=META[:-1] + ',"progressToken":null}'), -32602),
    "progress token float": (line(meta=META[:-1] + ',"progressToken":1.5}'), -32602),
    "progress token boolean": (line(meta=META[:-1] + ',"progressToken":true}'), -32602),
    "conversation number": (line(meta=META[:-1] + f',"{CONVERSATION_META}":1}}'), -32602),
    "conversation empty": (line(meta=META[:-1] + f',"{CONVERSATION_META}":""}}'), -32602),
    "conversation hidden": (line(meta=META[:-1] + f',"{CONVERSATION_META}":"a\\u202eb"}}'), -32602),
    "unknown param": (line(more_params=',"extra":1'), -32602),
    "__proto__ param": (line(more_params=',"__proto__":{"name":"hidden"}'), -32602),
    "Arguments": (line(more_params=',"Arguments":{}'), -32602),
    "inputResponses list": (line(more_params=',"inputResponses":[]'), -32602),
    "requestState number": (line(more_params=',"requestState":1'), -32602),
    "task": (line(more_params=',"task":{}'), -32602),
}
IN_ARGUMENTS: dict[str, tuple[str, str]] = {
    "duplicate key": ('{"text":"a","text":"b"}', "/arguments/text"),
    "duplicate key, escaped": ('{"text":"a","te\\u0078t":"b"}', "/arguments/text"),
    "duplicate key below": ('{"a":[1,{"x":1,"x":2}]}', "/arguments/a/1/x"),
    "30 digits": ('{"n":123456789012345678901234567890}', "/arguments/n"),
    "2^53": (f'{{"n":{MAX_SAFE_INTEGER + 1}}}', "/arguments/n"),
    "-2^53": (f'{{"n":{-MAX_SAFE_INTEGER - 1}}}', "/arguments/n"),
    "1e400": ('{"n":1e400}', "/arguments/n"),
    "5,000 digits": ('{"n":' + "9" * 5000 + "}", "/arguments/n"),
    "lone high surrogate": ('{"text":"\\ud83d"}', "/arguments/text"),
    "lone low surrogate": ('{"text":"\\ude00"}', "/arguments/text"),
    "surrogates the wrong way round": ('{"text":"\\ude00\\ud83d"}', "/arguments/text"),
    "lone surrogate in a key": ('{"\\ud83d":1}', "/arguments"),
    "lone surrogate in a key below": ('{"a":{"\\ud83d":1}}', "/arguments/a"),
    "129 levels": ('{"a":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", "/arguments/a/0"),
    "10,000 levels": ('{"a":' + "[" * 10_000 + "]" * 10_000 + "}", "/arguments/a/0"),
    "a slash in the key": ('{"a/b~c":1e400}', "/arguments/a~1b~0c"),
}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    found = Scene(tmp_path / "scene")
    found.pin()
    return found


async def test_what_is_not_json_is_a_parse_error(scene: Scene) -> None:
    """-32700 to no id, nothing forwarded, nothing recorded, and the connection goes on."""
    async with scene.guarded() as client:
        for what, data in NOT_JSON.items():
            client.say(data + b"\n")
            answer = await client.hear()
            assert answer["error"]["code"] == wire.PARSE_ERROR, what
            assert answer["id"] is None
        assert "isError" not in (await client.call(text="still there"))["result"]
    assert len(scene.received()) == 1
    assert len(scene.settled()) == 1


async def test_what_is_not_i_json_outside_arguments_is_an_invalid_request(scene: Scene) -> None:
    """-32600 that says where, nothing forwarded and nothing recorded."""
    async with scene.guarded() as client:
        for what, data in NOT_I_JSON.items():
            client.say(data + b"\n")
            error = (await client.hear())["error"]
            assert error["code"] == wire.INVALID_REQUEST, what
            assert "not I-JSON" in error["message"] or what == "deep message"
            assert len(error["message"]) < 400
        await client.silent()
    assert scene.received() == []
    assert scene.entries(Kind.GRANTED, Kind.DENIED) == []


@pytest.mark.parametrize("version", [MODERN, LEGACY])
async def test_what_is_no_request_of_ours_is_refused(scene: Scene, version: str) -> None:
    """Every wrong form has its JSON-RPC error, under the id if that can be one."""
    async with scene.guarded(version) as client:
        for what, (data, code) in NOT_A_REQUEST.items():
            client.say(data + b"\n")
            answer = await client.hear()
            assert answer["error"]["code"] == code, what
            assert answer["id"] in {1, None}
            assert answer["id"] == 1 or code == -32600
            assert all(char.isprintable() for char in answer["error"]["message"])
        await client.silent()
    assert scene.received() == []
    assert scene.entries(Kind.GRANTED, Kind.DENIED) == []


async def test_a_second_fault_behind_one_in_the_arguments_is_answered_too(scene: Scene) -> None:
    """What cannot be written back must not silence Guard: each line has its answer, the next is read."""
    twice = '{"n":1,"n":2}'
    lines = [
        line(twice, id='"\\ud83d"'),
        line(twice, meta=META.replace(MODERN, "\\ud83d")),
        line(twice, meta=META[:-1] + f',"{ARTIFACT_META}":"\\ud83d","traceparent":"\\ud83d"}}'),
        line(twice, name='"\\ud83d"'),
        line(twice, more_params=',"\\ud83d":1'),
        line(twice, more=',"\\ud83d":1'),
        line(twice, jsonrpc='"\\ud83d"'),
    ]
    async with scene.guarded() as client:
        client.say(b"".join(data + b"\n" for data in lines))
        for _ in lines:
            answer = await client.hear()
            assert "error" in answer or reason(answer) == "arguments-not-ijson"
        await client.silent()
    assert scene.received() == []


async def test_arguments_that_are_not_i_json_are_a_recorded_denial(scene: Scene) -> None:
    """The field is named, nothing is sent, and the attempt stands in the lineage."""
    async with scene.guarded() as client:
        for what, (arguments, pointer) in IN_ARGUMENTS.items():
            client.say(line(arguments) + b"\n")
            answer = await client.hear()
            about = decision(answer)
            assert about["reason"] == "arguments-not-ijson", what
            assert about["pointer"].startswith(pointer), what
            assert len(about["pointer"]) < 300
            assert about["pointer"] in answer["result"]["content"][0]["text"]
    assert scene.received() == []
    assert [*scene.settled().values()] == [["denied"]] * len(IN_ARGUMENTS)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"text": "😀 \u0000 \u2028", "n": 1},
        {"__proto__": {"x": 1}, "constructor": None, "": ""},
        {"n": MAX_SAFE_INTEGER, "m": -MAX_SAFE_INTEGER, "x": 1.5, "y": 5e-324, "z": -0.0},
        {"deep": [[[{"a": [None, True, False]}]]]},
    ],
)
async def test_plain_arguments_arrive_as_they_were_sent(scene: Scene, arguments: dict[str, Any]) -> None:
    """What is I-JSON passes unchanged, whatever its names."""
    async with scene.guarded() as client:
        assert "isError" not in (await client.call(**{"arguments": arguments} and arguments))["result"]
    (sent,) = scene.received()
    assert sent["params"]["arguments"] == arguments
    assert list(sent["params"]["arguments"]) == list(arguments)


async def test_a_call_without_arguments_is_sent_without_any(scene: Scene) -> None:
    """What the client did not say is not made up."""
    async with scene.guarded() as client:
        assert "isError" not in (await client.ask("tools/call", {"name": "echo"}))["result"]
    (sent,) = scene.received()
    assert sent["params"].keys() == {"name", "_meta"}


async def test_a_line_that_is_too_long_is_refused_and_the_next_one_is_read(scene: Scene) -> None:
    """20 MB without a newline are skipped, not held."""
    async with scene.guarded() as client:
        client.say(line(json.dumps({"text": "x" * 20_000_000})) + b"\n")
        answer = await client.hear()
        assert answer == {
            "jsonrpc": "2.0",
            "id": None,
            "error": {"code": -32600, "message": "the message is too large"},
        }
        assert "isError" not in (await client.call(text="after it"))["result"]
    assert len(scene.received()) == 1


async def test_an_id_that_is_in_flight_is_not_taken_twice(tmp_path: Path) -> None:
    """The second request under the id is refused, the first is answered once."""
    done = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[]}}'
    begun = (
        '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":$TOKEN,"progress":0}}'
    )
    scene = Scene(tmp_path / "scene", answers=[[begun, {"wait": "notifications/cancelled"}, done], [done]])
    scene.pin()
    async with scene.guarded() as client:
        call = {"name": "slow", "arguments": {}, "_meta": {"progressToken": 1}}
        client.request("tools/call", call, id_="held")
        assert (await client.hear())["method"] == "notifications/progress"
        for method in ("tools/call", "tools/list", "ping"):
            client.request(method, {"name": "echo", "arguments": {}}, id_="held")
            error = await client.hear()
            assert (error["id"], error["error"]["code"]) == ("held", -32600)
        client.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "held"}})
        assert "result" in await client.answer(client.request("tools/call", {"name": "echo"}, id_="new"))
    assert len(scene.received()) == 2


async def test_ids_come_back_as_they_were(scene: Scene) -> None:
    """0, negatives, digits in a string, the empty string: each is its own id."""
    async with scene.guarded() as client:
        for id_ in (0, -1, MAX_SAFE_INTEGER, "", "0", "1", "a" * 256, "é\u2028"):
            client.request("tools/call", {"name": "echo", "arguments": {}}, id_=id_)
            found = await client.hear()
            assert found["id"] == id_
            assert type(found["id"]) is type(id_)


async def test_responses_and_notifications_of_a_client_are_not_answered(scene: Scene) -> None:
    """Nobody here asked the client for anything; what it answers or announces goes nowhere."""
    async with scene.guarded(LEGACY) as client:
        await client.call(text="awake")
        before = scene.log.read_bytes()
        for message in (
            {"jsonrpc": "2.0", "id": 1, "result": {}},
            {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "x"}},
            {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1}},
            {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "echo", "arguments": {}}},
        ):
            client.say(message)
        client.say(b"\n \n\r\n\t\n")
        await client.silent()
        assert scene.log.read_bytes() == before


# -- `_meta` -------------------------------------------------------------------------------------

FORGED = ["x.y.z", "", {"a": 1}, 7, ["x"], False, "é", "x" * 100_000]


@pytest.mark.parametrize("version", [MODERN, LEGACY])
@pytest.mark.parametrize("forged", FORGED, ids=lambda forged: str(forged)[:8])
async def test_an_artifact_of_the_clients_own_never_travels(scene: Scene, forged: Any, version: str) -> None:
    """It is removed, noted as a claimed parent, and Guard's own stands in its place."""
    async with scene.guarded(version) as client:
        params = {"name": "echo", "arguments": {}, "_meta": {ARTIFACT_META: forged}}
        assert "isError" not in (await client.ask("tools/call", params))["result"]
    (sent,), (grant,) = scene.received(), scene.entries(Kind.GRANTED)
    assert sent["params"]["_meta"][ARTIFACT_META] != forged
    assert sent["params"]["_meta"][ARTIFACT_META].count(".") == 2
    assert grant["fields"]["parent"]["edge"] == "claimed"


async def test_an_artifact_that_was_used_does_not_travel_again(scene: Scene) -> None:
    """Not even one that Guard made: it is noted under its digest, and a fresh one is made."""
    async with scene.guarded() as client:
        await client.call(text="first")
        used = scene.received()[0]["params"]["_meta"][ARTIFACT_META]
        params = {"name": "echo", "arguments": {"text": "first"}, "_meta": {ARTIFACT_META: used}}
        await client.ask("tools/call", params)
    assert scene.received()[1]["params"]["_meta"][ARTIFACT_META] != used
    first, second = scene.entries(Kind.GRANTED)
    assert second["fields"]["parent"] == {"edge": "claimed", "sha256": first["fields"]["artifact"]["sha256"]}


EVERYTHING = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "a=b",
    "baggage": "k=v",
    "progressToken": "mine",
    "dev.guard-mcp/conversation": "one",
    "dev.guard-mcp/decision": {"decision": "allow"},
    "dev.guard-mcp/authorization": "forged",
    "dev.guard-mcp/anything": 1,
    "io.modelcontextprotocol/logLevel": "debug",
    "io.modelcontextprotocol/serverInfo": {"name": "x"},
    "io.modelcontextprotocol/anything": 1,
    "com.example/secret": "s3cret",
    "cookie": "s3cret",
    "role": "admin",
}


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("version", [MODERN, LEGACY])
async def test_what_goes_up_in_meta_is_exactly_the_allow_list(tmp_path: Path, version: str, era: str) -> None:
    """Envelope, log level, trace context, a progress token of Guard's own and the artifact; nothing else."""
    scene = Scene(tmp_path / "scene", era=era)
    scene.pin()
    async with scene.guarded(version) as client:
        await client.ask("tools/call", {"name": "echo", "arguments": {}, "_meta": EVERYTHING})
        await client.ask("tools/call", {"name": "echo", "arguments": {}, "_meta": {"traceparent": 1}})
    first, second = (message["params"]["_meta"] for message in scene.received())
    envelope = set(ENVELOPE) if era == "modern" else set()
    level = {eras.LOG_LEVEL} if era == "modern" else set()
    assert first.keys() == envelope | level | {*wire.TRACE_KEYS, "progressToken", ARTIFACT_META}
    assert second.keys() == envelope | {ARTIFACT_META}
    assert {name: first[name] for name in wire.TRACE_KEYS} == {
        name: EVERYTHING[name] for name in wire.TRACE_KEYS
    }
    assert first["progressToken"] != "mine"
    if envelope:
        assert first[eras.CLIENT_INFO]["name"] == ("tests" if version == MODERN else "guard-mcp")
        assert first[eras.CLIENT_CAPABILITIES] == {"extensions": {"dev.guard-mcp/authorization": {}}}
    for message in scene.received():
        assert message.keys() == {"jsonrpc", "id", "method", "params"}
        assert message["params"].keys() == {"name", "arguments", "_meta"}
        assert "s3cret" not in str(message)


async def test_a_conversation_that_the_client_names_is_noted_as_such(scene: Scene) -> None:
    """The id chooses the lineage; where it came from is recorded; a launch's id is the default."""
    async with scene.guarded() as client:
        named = {"name": "echo", "arguments": {}, "_meta": {CONVERSATION_META: "named"}}
        await client.ask("tools/call", named)
        await client.call()
    async with scene.guarded(conversation=None) as client:
        await client.call()
    found = [entry["fields"]["conversation"] for entry in scene.entries(Kind.GRANTED)]
    assert found[:2] == [{"id": "named", "source": "meta"}, {"id": "talk", "source": "launch"}]
    assert found[2]["source"] == "inferred"


async def test_tools_list_takes_no_cursor_and_nothing_unknown(scene: Scene) -> None:
    """The list has one page."""
    async with scene.guarded() as client:
        for params in ({"cursor": "x"}, {"cursor": 1}, {"filter": "x"}, {"__proto__": 1}):
            assert (await client.ask("tools/list", params))["error"]["code"] == -32602
        assert "result" in await client.ask("tools/list", {"cursor": None})


async def test_many_calls_at_once_are_each_answered_once(scene: Scene) -> None:
    """More calls than may be in flight: reading pauses, and every one is answered."""
    many = 1500
    async with scene.guarded() as client:
        ids = [client.request("tools/call", {"name": "echo", "arguments": {"n": 13}}) for _ in range(many)]
        answers = await asyncio.gather(*(asyncio.wait_for(client.hear(), 20) for _ in ids[:0]))
        for id_ in ids:
            assert reason(await client.answer(id_)) == "protected"
        assert answers == []
    assert scene.received() == []


# -- the reader by itself ------------------------------------------------------------------------

text = st.text(max_size=20)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
    max_leaves=15,
)
messages = st.one_of(
    values,
    st.fixed_dictionaries(
        {},
        optional={
            "jsonrpc": st.one_of(st.just("2.0"), values),
            "id": st.one_of(st.integers(0, 5), values),
            "method": st.one_of(st.sampled_from(("tools/call", "tools/list", "initialize")), values),
            "params": st.one_of(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "name": st.one_of(st.just("echo"), values),
                        "arguments": values,
                        "_meta": st.one_of(st.just(dict(ENVELOPE)), values),
                        "task": values,
                    },
                ),
                values,
            ),
            "result": values,
        },
    ),
)


@given(messages)
def test_the_reader_understands_or_says_what_is_malformed(message: Any) -> None:
    """No message, however strange, does anything but become a value or a Malformed."""
    data = json.dumps(message).encode()
    try:
        found = read_message(data)
    except Malformed as fault:
        assert wire.error(fault.id, fault.code, fault.message, fault.data).endswith(b"}\n")  # noqa: PT017
        return
    assert found is None or isinstance(found, Request | Notification | Response)
    if isinstance(found, Request):
        assert found.id == message["id"]
        assert found.method == message["method"]
        if found.fault is None:
            assert {
                **found.params,
                **({"_meta": found.meta} if "_meta" in message.get("params", {}) else {}),
            } == (message.get("params", {}))


@given(st.binary(max_size=60))
def test_the_reader_never_breaks_on_bytes(data: bytes) -> None:
    """Any bytes at all are malformed, or a message."""
    try:
        read_message(data)
    except Malformed as fault:
        assert fault.code in {wire.PARSE_ERROR, wire.INVALID_REQUEST, wire.INVALID_PARAMS}  # noqa: PT017


@given(st.lists(st.binary(max_size=12), max_size=8), st.integers(1, 10), st.integers(1, 20))
def test_lines_are_cut_the_same_however_the_bytes_arrive(parts: list[bytes], limit: int, size: int) -> None:
    """Where the stream is cut changes nothing of what is read, and no more than the limit is held."""
    data = b"\n".join(parts) + b"\n"
    whole, pieces = LineBuffer(limit), LineBuffer(limit)
    expected = whole.feed(data)
    found: tuple[list[bytes], int] = ([], 0)
    for start in range(0, len(data), size):
        lines, too_long = pieces.feed(data[start : start + size])
        found = (found[0] + lines, found[1] + too_long)
        assert pieces._held <= limit + size
    assert found == expected
    assert expected[1] == sum(len(part) > limit for line in parts for part in line.split(b"\n"))


def test_the_largest_message_fits() -> None:
    """The limit is the message's, exactly."""
    buffer = LineBuffer()
    assert buffer.feed(b"x" * MAX_MESSAGE + b"\n")[1] == 0
    assert buffer.feed(b"x" * (MAX_MESSAGE + 1) + b"\n") == ([], 1)

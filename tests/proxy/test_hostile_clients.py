"""Messages that nobody should send, over every transport and in both eras.

Each gets a clear error with the right code; nothing of it reaches the tool server; the honest call right
after it is served; and the lineage stands. One Guard for each transport and era takes them all.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from guard.lineage.entry import Kind
from tests.proxy.outsider import (
    ID,
    METHOD,
    MISMATCH,
    PARAMS,
    PARSE,
    REQUEST,
    Outsider,
    call,
    enveloped,
    outsider,
)
from tests.proxy.raw_http import header_value
from tests.proxy.scene import LEGACY, MODERN, reason

pytestmark = pytest.mark.asyncio(loop_scope="module")

Bad = Callable[[bool], bytes]
DEEP = "[" * 10_000 + "]" * 10_000
BIG = "1" * 30
NOT_JSON: dict[str, Bad] = {
    "a brace": lambda _: b"{",
    "two texts": lambda m: call(m) + b" {}",
    "a trailing comma": lambda m: call(m)[:-1] + b",}",
    "single quotes": lambda m: call(m).replace(b'"', b"'"),
    "a byte order mark": lambda m: b"\xef\xbb\xbf" + call(m),
    "bad UTF-8": lambda m: call(m).replace(b"bad", b"\xff"),
    "overlong UTF-8": lambda m: call(m).replace(b"bad", b"\xc0\xaf"),
    "a surrogate in UTF-8": lambda m: call(m).replace(b"bad", b"\xed\xa0\x80"),
    "UTF-16": lambda m: call(m).decode().encode("utf-16-be").replace(b"\n", b""),
    "NaN in arguments": lambda m: call(m, '{"n":NaN}'),
    "NaN outside": lambda m: call(m, more=',"x":NaN'),
    "Infinity": lambda m: call(m, '{"n":Infinity}'),
    "-Infinity": lambda m: call(m, '{"n":-Infinity}'),
    "a NaN id": lambda m: call(m, id="NaN"),
    "a leading zero": lambda m: call(m, '{"n":01}'),
    "a control character in a string": lambda m: call(m).replace(b"bad", b"\x01"),
    "a NUL": lambda m: call(m).replace(b"bad", b"\x00"),
    "half of a call": lambda m: call(m)[:-10],
    "brackets without end": lambda _: b"[" * 10_000,
}
# What is JSON, and still no message: its code is -32600; its id is answered where one can be read.
NO_MESSAGE: dict[str, tuple[Bad, int | None]] = {
    "a string": (lambda _: b'"x"', None),
    "null": (lambda _: b"null", None),
    "a number": (lambda _: b"1", None),
    "an empty object": (lambda _: b"{}", None),
    "an empty batch": (lambda _: b"[]", None),
    "a batch of one": (lambda m: b"[" + call(m) + b"]", None),
    "a batch of two": (lambda m: b"[" + call(m) + b"," + call(m, id="78") + b"]", None),
    "a batch with nonsense and a call": (lambda m: b"[1," + call(m) + b"]", None),
    "an id twice": (lambda m: call(m)[:-1] + b',"id":78}', None),
    "a method twice": (lambda m: call(m)[:-1] + b',"method":"ping"}', ID),
    "params twice": (lambda m: call(m)[:-1] + b',"params":{}}', ID),
    "a key twice in params": (lambda m: call(m, more=',"name":"slow"'), ID),
    "arguments twice": (lambda m: call(m, more=',"arguments":{}'), ID),
    "_meta twice": (lambda m: call(m, more=',"_meta":{}'), ID),
    "a key twice in _meta": (lambda m: call(m, meta='{"a":1,"a":2}'), ID),
    "a key twice, escaped once": (lambda m: call(m, more=',"\\u006eame":"slow"'), ID),
    "a 30-digit integer in params": (lambda m: call(m, more=f',"x":{BIG}'), ID),
    "a 30-digit integer in _meta": (lambda m: call(m, meta=f'{{"progressToken":{BIG}}}'), ID),
    "a 30-digit id": (lambda m: call(m, id=BIG), None),
    "1e400 in _meta": (lambda m: call(m, meta='{"a":1e400}'), ID),
    "1e400 as id": (lambda m: call(m, id="1e400"), None),
    "a lone surrogate in _meta": (lambda m: call(m, meta='{"a":"\\ud800"}'), ID),
    "a lone surrogate as a key of params": (lambda m: call(m, more=',"\\udc00":1'), ID),
    "a lone surrogate in the id": (lambda m: call(m, id='"\\ud800"'), None),
    "depth 10,000 in params": (lambda m: call(m, more=f',"x":{DEEP}'), ID),
    "depth 10,000 in _meta": (lambda m: call(m, meta=DEEP), ID),
    "depth 10,000 and nothing else": (lambda _: DEEP.encode(), None),
    "a fault in a large message": (
        lambda m: call(m, json.dumps({"text": "x" * 2_000_000})[:-1] + ',"n":1,"n":2}'),
        None,
    ),
    "jsonrpc 1.0": (lambda m: call(m, jsonrpc='"1.0"'), ID),
    "jsonrpc as a number": (lambda m: call(m, jsonrpc="2.0"), ID),
    "jsonrpc null": (lambda m: call(m, jsonrpc="null"), ID),
    "no jsonrpc": (lambda m: call(m, jsonrpc=""), ID),
    "a null id": (lambda m: call(m, id="null"), None),
    "a boolean id": (lambda m: call(m, id="true"), None),
    "a fractional id": (lambda m: call(m, id="1.5"), None),
    "a float that is whole as id": (lambda m: call(m, id="77.0"), None),
    "an object as id": (lambda m: call(m, id="{}"), None),
    "a list as id": (lambda m: call(m, id="[77]"), None),
    "an id beyond 2^53": (lambda m: call(m, id="9007199254740993"), None),
    "a long id": (lambda m: call(m, id=json.dumps("x" * 257)), None),
    "a member that no request has": (lambda m: call(m)[:-1] + b',"role":"powerful"}', ID),
    "a result beside the method": (lambda m: call(m)[:-1] + b',"result":{}}', ID),
    "__proto__ at the top": (lambda m: call(m)[:-1] + b',"__proto__":{}}', ID),
    "a hidden member": (lambda m: call(m)[:-1] + b',"\\u202e\\u001b[31m":1}', ID),
    "a method that is a number": (lambda m: call(m, method="5"), ID),
    "a method that is a list": (lambda m: call(m, method='["tools/call"]'), ID),
    "an empty method": (lambda m: call(m, method='""'), ID),
    "a long method": (lambda m: call(m, method=json.dumps("x" * 257)), ID),
    "no method": (lambda m: call(m, method=""), ID),
}
NO_CALL: dict[str, Bad] = {
    "params as a list": lambda m: call(m, params='["echo"]'),
    "params as a string": lambda m: call(m, params='"echo"'),
    "params as null": lambda m: call(m, params="null"),
    "arguments as a list": lambda m: call(m, "[1]"),
    "arguments as a string": lambda m: call(m, '"{}"'),
    "arguments as null": lambda m: call(m, "null"),
    "arguments as false": lambda m: call(m, "false"),
    "_meta as a list": lambda m: call(m, meta="[]"),
    "_meta as a string": lambda m: call(m, meta='"x"'),
    "_meta as null": lambda m: call(m, meta="null"),
    "a progress token that is an object": lambda m: call(m, meta=enveloped(m, progressToken={})),
    "a progress token that is true": lambda m: call(m, meta=enveloped(m, progressToken=True)),
    "a conversation that is a number": lambda m: call(
        m, meta=enveloped(m, **{"dev.guard-mcp/conversation": 5})
    ),
    "a conversation that is hidden": lambda m: call(
        m, meta=enveloped(m, **{"dev.guard-mcp/conversation": "a\u202eb"})
    ),
    "a control character in the name": lambda m: call(m, name='"ec\\u0007ho"'),
    "a NUL in the name": lambda m: call(m, name='"echo\\u0000"'),
    "an escape sequence in the name": lambda m: call(m, name='"\\u001b[2Jecho"'),
    "a line end in the name": lambda m: call(m, name='"echo\\r\\nX: y"'),
    "a bidirectional mark in the name": lambda m: call(m, name='"echo\\u202e"'),
    "a zero-width space in the name": lambda m: call(m, name='"ec\\u200bho"'),
    "a zero-width joiner in the name": lambda m: call(m, name='"echo\\u200d"'),
    "a variation selector in the name": lambda m: call(m, name='"echo\\ufe0f"'),
    "an empty name": lambda m: call(m, name='""'),
    "a name that is null": lambda m: call(m, name="null"),
    "a long name": lambda m: call(m, name=json.dumps("x" * 257)),
    "a role in params": lambda m: call(m, more=',"role":"powerful"'),
    "a task": lambda m: call(m, more=',"task":{}'),
    "an artifact in params": lambda m: call(m, more=',"dev.guard-mcp/authorization":"x"'),
    "__proto__ in params": lambda m: call(m, more=',"__proto__":{"role":"powerful"}'),
    "a hidden member in params": lambda m: call(m, more=',"\\u202e\\u001b[31m":1'),
}
METHODS = {
    "unknown": "tools/exec",
    "in capitals": "Tools/Call",
    "with a control character": "tools/call\u0000",
    "with a zero-width space": "tools/call\u200b",
    "with a bidirectional mark": "\u202etools/call",
    "with an escape sequence": "\u001b[31mtools/call",
    "with a blank": "tools/call ",
    "of a prototype": "__proto__",
    "of an attribute": "__init__",
    "of the server": "sampling/createMessage",
}


IN_ARGUMENTS = {
    "a 30-digit integer": (f'{{"n":{BIG}}}', "/arguments/n"),
    "2^53": ('{"n":9007199254740992}', "/arguments/n"),
    "a number of 5,000 digits": (f'{{"n":{"1" * 5000}}}', "/arguments/n"),
    "1e400": ('{"n":-1e400}', "/arguments/n"),
    "a key twice": ('{"n":1,"n":2}', "/arguments/n"),
    "a key twice, escaped once": ('{"n":1,"\\u006e":2}', "/arguments/n"),
    "a key twice further down": ('{"text":{"a":[{"b/c":1,"b/c":2}]}}', "/arguments/text/a/0/b~1c"),
    "a lone high surrogate": ('{"text":"\\ud800x"}', "/arguments/text"),
    "a lone low surrogate": ('{"text":["a","\\udfff"]}', "/arguments/text/1"),
    "surrogates in the wrong order": ('{"text":"\\udc00\\ud800"}', "/arguments/text"),
    "a lone surrogate as a key": ('{"\\udc00":1}', "/arguments"),
    "depth 10,000": (f'{{"text":{DEEP}}}', None),
    "two faults": (f'{{"n":{BIG},"text":"\\ud800"}}', "/arguments/n"),
}


@pytest_asyncio.fixture(
    params=[(over, version) for over in ("stdio", "http") for version in (MODERN, LEGACY)],
    ids=["stdio-modern", "stdio-handshake", "http-modern", "http-handshake"],
    scope="module",
    loop_scope="module",
)
async def at(request: pytest.FixtureRequest, tmp_path_factory: Any) -> AsyncIterator[Outsider]:
    async with outsider(tmp_path_factory.mktemp("hostile"), *request.param) as found:
        yield found


@pytest.mark.parametrize("bad", NOT_JSON)
async def test_what_is_not_json_is_a_parse_error(at: Outsider, bad: str) -> None:
    """-32700 without an id, and 400 over HTTP; no entry."""
    before = len(at.estate.entries(Kind.DENIED))
    await at.refused(NOT_JSON[bad](at.modern), PARSE)
    await at.honest()
    assert len(at.estate.entries(Kind.DENIED)) == before


@pytest.mark.parametrize("bad", NO_MESSAGE)
async def test_what_is_no_message_is_an_invalid_request(at: Outsider, bad: str) -> None:
    """-32600 with the id where one can be read, and 400 over HTTP; a batch is refused whole; no entry."""
    before = len(at.estate.entries(Kind.DENIED))
    message, id_ = NO_MESSAGE[bad]
    await at.refused(message(at.modern), REQUEST, id_=id_)
    await at.honest()
    assert len(at.estate.entries(Kind.DENIED)) == before


@pytest.mark.parametrize("bad", NO_CALL)
async def test_what_is_no_call_has_invalid_params(at: Outsider, bad: str) -> None:
    """-32602 with the id, and 400 over HTTP; never an internal error, and no entry."""
    before = len(at.estate.entries(Kind.DENIED))
    await at.refused(NO_CALL[bad](at.modern), PARAMS, id_=ID)
    await at.honest()
    assert len(at.estate.entries(Kind.DENIED)) == before


@pytest.mark.parametrize("bad", METHODS)
async def test_a_method_that_guard_does_not_know(at: Outsider, bad: str) -> None:
    """-32601; over HTTP 404 to modern clients, and 200 where a 404 would end the session."""
    message = call(at.modern, method=json.dumps(METHODS[bad]))
    if at.over == "http" and at.modern and header_value(METHODS[bad]) != METHODS[bad]:
        await at.refused(message, MISMATCH, id_=ID)  # `Mcp-Method` has no encoding: it cannot agree
    else:
        await at.refused(message, METHOD, id_=ID, status=404 if at.modern else 200)
    await at.honest()


@pytest.mark.parametrize("bad", IN_ARGUMENTS)
async def test_arguments_that_are_no_i_json_are_a_recorded_denial(at: Outsider, bad: str) -> None:
    """The client is told reason and field, the entry says the same, and keeps nothing that was not read."""
    arguments, pointer = IN_ARGUMENTS[bad]
    before = len(at.estate.entries(Kind.DENIED))
    fields = {"Mcp-Method": "tools/call", "Mcp-Name": "echo"} if at.modern else {}
    status, answer = await at.send(call(at.modern, arguments), fields)
    assert status == (0 if at.over == "stdio" else 200)
    assert (reason(answer), answer["id"]) == ("arguments-not-ijson", ID)
    told = answer["result"]["_meta"]["dev.guard-mcp/decision"]["pointer"]
    assert told == pointer or (pointer is None and told.startswith("/arguments/text/0/0"))
    await at.honest()
    *old, entry = at.estate.entries(Kind.DENIED)
    assert len(old) == before
    said = {"reason": "arguments-not-ijson", "rule": "", "pointer": told}
    assert (entry["fields"]["decision"], entry["fields"]["tool"]) == (said, "echo")
    assert entry["fields"].keys().isdisjoint({"arguments", "args_sha256"})


async def test_nothing_at_all_is_no_call(at: Outsider) -> None:
    """An empty body is a parse error; on stdio blank lines are passed over, and not answered."""
    if at.over == "stdio":
        at.client.say(b"\n\r\n \t \n\n")
        await at.client.silent()
    else:
        for nothing in (b"", b" ", b"\r\n\r\n"):
            await at.refused(nothing, PARSE)
        answer = await at.client.post(b"", headers={"Content-Length": None})
        assert (answer.status, answer.message()["error"]["code"]) == (400, PARSE)
    await at.honest()

"""What a bad tool server behind a URL can do with HTTP itself."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from guard.lineage.entry import Kind
from tests.proxy.hostile import LINUX, MEGABYTE, Bad, forget_peak, peak
from tests.proxy.pairs import ECHO, ERAS, until
from tests.proxy.scene import PATIENCE

ANSWER = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[{"type":"text","text":"forged"}]}}'
OK = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"
CLOSE: dict[str, Any] = {"close": True}
JSON = {"Content-Type": "application/json"}
HTML = {"Content-Type": "text/html"}
CUT = {
    "nothing": [CLOSE],
    "in the status": [{"raw": "HTTP/1.1 20"}, CLOSE],
    "in the head": [{"raw": OK}, CLOSE],
    "before the body": [{"raw": f"{OK}Content-Length: 500\r\n\r\n"}, CLOSE],
    "in the body": [{"raw": f"{OK}Content-Length: 500\r\n\r\n{ANSWER}"}, CLOSE],
    "in a chunk": [{"raw": f"{OK}{CHUNKED}fff\r\n{ANSWER}"}, CLOSE],
    "before the last chunk": [{"raw": f"{OK}{CHUNKED}2\r\n{{}}\r\n"}, CLOSE],
    "in an event": [{"raw": f"{STREAM}Connection: close\r\n\r\ndata: {ANSWER}"}, CLOSE],
    "in an event's end": [{"raw": f"{STREAM}Connection: close\r\n\r\ndata: {ANSWER}\n"}, CLOSE],
    "process, in the body": [{"raw": f"{OK}Content-Length: 500\r\n\r\n{ANSWER}"}, {"exit": 0}],
    "process, in an event": [{"raw": f"{STREAM}{CHUNKED}ff\r\ndata: {ANSWER}"}, {"exit": 0}],
}
NOT_HTTP = {
    "no http": [{"raw": "\x1b[31mSSH-2.0\x1b[0m\r\n\r\n"}, CLOSE],
    "two lengths": [{"raw": f"{OK}Content-Length: 9\r\nContent-Length: 10\r\n\r\n{ANSWER}"}, CLOSE],
    "length and chunks": [{"raw": f"{OK}Content-Length: 2\r\n{CHUNKED}2\r\n{{}}\r\n0\r\n\r\n"}, CLOSE],
    "a length that is none": [{"raw": f"{OK}Content-Length: -1\r\n\r\n{ANSWER}"}, CLOSE],
    "a chunk that is none": [{"raw": f"{OK}{CHUNKED}zz\r\n{ANSWER}\r\n0\r\n\r\n"}, CLOSE],
    "another coding": [{"raw": f"{OK}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"}, CLOSE],
    "switching": [
        {"raw": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"},
        CLOSE,
    ],
    "interim for ever": [{"raw": "HTTP/1.1 103 Early Hints\r\n\r\n" * 1000}, {"hang": True}],
    "a head of a megabyte": [{"raw": f"{OK}X: {'a' * MEGABYTE}\r\n\r\n{ANSWER}"}, CLOSE],
    "a thousand fields": [{"raw": OK + "X: a\r\n" * 1000 + f"Content-Length: 2\r\n\r\n{ANSWER}"}, CLOSE],
    "a head without end": [{"raw": OK}, {"hang": True}],
}
STATUSES = [
    *((status, headers, body) for status in (401, 403, 404, 500, 503) for headers, body in [
        ({}, ""), (HTML, "<h1>\x1b[31mno</h1>"), (JSON, '{"error":"no"}'), (JSON, ""), (JSON, "\x1b[31mno"),
    ]),
    *((status, headers, "") for status in (200, 202, 204, 205, 226) for headers in ({}, JSON)),
    (200, HTML, ANSWER),
    (200, {}, ANSWER),
    (200, {"Content-Type": "application/json-seq"}, ANSWER),
    (500, {"Content-Type": "text/event-stream"}, f"data: {ANSWER}\n\n"),
    (200, {**JSON, "Content-Length": "20"}, ANSWER),
]  # fmt: skip


@ERAS
@pytest.mark.parametrize("how", [*CUT, *NOT_HTTP])
async def test_an_answer_that_is_not_whole_is_unknown(
    tmp_path: Path, how: str, era: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wherever a connection breaks, and whatever is not HTTP: it was sent, and nobody knows."""
    answer = (CUT | NOT_HTTP)[how]
    (found,) = await Bad(tmp_path, era, "http", [answer], timeout=2.0).suffer()
    assert found.outcome()[0] == "unknown"
    assert "forged" not in json.dumps(found.response)
    assert "\x1b" not in capfd.readouterr().err


@ERAS
@pytest.mark.parametrize("answer", STATUSES, ids=str)
async def test_a_status_is_no_answer(
    tmp_path: Path,
    answer: tuple[int, dict[str, str], str],
    era: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Without a JSON-RPC answer to this very call its outcome is unknown, whatever the status says."""
    act = dict(zip(("status", "headers", "body"), answer, strict=True))
    (found,) = await Bad(tmp_path, era, "http", [[act, CLOSE]]).suffer()
    assert found.outcome()[0] == "unknown"
    assert "forged" not in json.dumps(found.response)
    assert "\x1b" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("era", "status"),  # 404 says to the handshake era that the session is gone
    [
        *(("modern", each) for each in (400, 401, 404, 500, 503)),
        *(("legacy", each) for each in (400, 401, 500)),
    ],
)
async def test_an_error_that_answers_the_call_is_passed_on(tmp_path: Path, status: int, era: str) -> None:
    """2026-07-28 gives errors an HTTP status of their own: a JSON-RPC error to this call is the answer."""
    body = '{"jsonrpc":"2.0","id":$ID,"error":{"code":-32603,"message":"mine"}}'
    answer = {"status": status, "headers": JSON, "body": body}
    (found,) = await Bad(tmp_path, era, "http", [[answer]]).suffer()
    assert found.response["error"] == {"code": -32603, "message": "mine"}


@ERAS
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(tmp_path: Path, status: int, era: str) -> None:
    """The artifact and the arguments go to the configured URL, and to nobody that its server names."""
    came: list[bytes] = []

    async def second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read(65536))
        writer.close()

    async with await asyncio.start_server(second, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for_ever = {"Location": f"http://127.0.0.1:{port}/mcp", "Refresh": f"0; url=http://127.0.0.1:{port}/"}
        (found,) = await Bad(tmp_path, era, "http", [[{"status": status, "headers": for_ever}]]).suffer()
        assert found.outcome()[0] == "unknown"
    assert came == []


@ERAS
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "GZIP", "identity, gzip", "gzip, identity"])
async def test_what_is_compressed_is_not_opened(tmp_path: Path, coding: str, packed: bool, era: str) -> None:  # noqa: FBT001
    """Nobody asked for it, so nobody opens it or believes that it is not: the outcome is unknown."""
    guesses = [ANSWER.replace("$ID", str(id_)).replace("$COMPLETE", "") for id_ in range(1, 12)]
    body = "".join(f"data: {guess}\n\n" for guess in guesses).encode()
    if packed:
        body = zlib.compress(body) if coding == "deflate" else gzip.compress(body)
    headers = {"Content-Type": "text/event-stream", "Content-Encoding": coding}
    answer = {"status": 200, "headers": headers, "body": body.decode("latin-1")}
    (found,) = await Bad(tmp_path, era, "http", [[answer]]).suffer()
    assert found.outcome()[0] == "unknown"


@LINUX
@ERAS
@pytest.mark.parametrize("how", ["bomb", "length", "event", "events", "comments", "trailers"])
async def test_no_answer_makes_guard_grow(tmp_path: Path, how: str, era: str) -> None:
    """Bombs, false lengths and events without end: memory is bounded, and the outcome is unknown."""
    large = "a" * (20 * MEGABYTE)
    body = gzip.compress(b"a" * 300 * MEGABYTE).decode("latin-1")
    head = f"{STREAM}Connection: close\r\n\r\n"
    answers: dict[str, list[Any]] = {
        "bomb": [{"status": 200, "headers": {**JSON, "Content-Encoding": "gzip"}, "body": body}],
        "length": [{"raw": f"{OK}Content-Length: 999999999999\r\n\r\n{large}"}, {"hang": True}],
        "event": [{"raw": f"{head}data: {large}"}, {"hang": True}],
        "events": [{"raw": head + "data:\n" * (4 * MEGABYTE)}, {"hang": True}],
        "comments": [{"raw": f"{head}: {large}"}, {"hang": True}],
        "trailers": [{"raw": f"{OK}{CHUNKED}2\r\n{{}}\r\n0\r\nX: {large}"}, {"hang": True}],
    }
    estate = Bad(tmp_path, era, "http", [answers[how]], timeout=3.0)
    answers.clear()
    del large, body
    before = forget_peak()
    (found,) = await estate.suffer()
    assert found.outcome()[0] == "unknown"
    assert peak() - before < 100 * MEGABYTE


@ERAS
async def test_signs_of_life_do_not_make_a_call_endless(tmp_path: Path, era: str) -> None:
    """Comments keep a connection open and no call: its time runs out all the same."""
    life = [{"raw": ": still here\n\n"}, {"sleep": 0.02}] * 2000
    estate = Bad(tmp_path, era, "http", [[{"raw": f"{STREAM}Connection: close\r\n\r\n"}, *life]], timeout=0.5)
    (found,) = await estate.suffer()
    assert found.outcome() == ("unknown", "timed-out")
    assert [entry["fields"]["reason"] for entry in estate.entries(Kind.UNKNOWN)] == ["timed-out"]


@ERAS
async def test_progress_does_not_make_a_call_endless(tmp_path: Path, era: str) -> None:
    """Progress is told and prolongs nothing: the timeout is the operator's."""
    step = (
        '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":$TOKEN,"progress":1}}'
    )
    estate = Bad(tmp_path, era, "http", [[{"event": step}, {"sleep": 0.02}] * 2000], timeout=0.5)
    (found,) = await estate.suffer()
    assert found.outcome() == ("unknown", "timed-out")
    assert found.notifications


@ERAS
async def test_no_cookie_is_kept(tmp_path: Path, era: str) -> None:
    """A server cannot mark Guard's callers: what it sets is never sent back."""
    cookies = {**JSON, "Set-Cookie": "who=you; Path=/", "Set-Cookie2": "a=b", "Mcp-Session-Id": "another"}
    estate = Bad(tmp_path, era, "http", [[{"status": 200, "headers": cookies, "body": ECHO}]])
    found = await estate.suffer(calls=3)
    assert [each.text() for each in found] == ['{"text": "x"}'] * 3
    for line in estate.log("bad").read_bytes().splitlines():
        headers = json.loads(line)["_headers"]
        assert not {"cookie", "cookie2"} & headers.keys()
        assert headers.get("mcp-session-id") != "another"


@ERAS
@pytest.mark.parametrize("framing", ["json", "stream"])
async def test_an_answer_before_its_request_is_nobodys(tmp_path: Path, framing: str, era: str) -> None:
    """Response splitting: what follows an answer on its connection is not the next call's answer."""
    guesses = [ANSWER.replace("$ID", str(id_)) for id_ in range(1, 30)]
    events = "".join(f"data: {guess}\n\n" for guess in guesses)
    size = len(events.replace("$COMPLETE", '"resultType":"complete",' if era == "modern" else ""))
    forged = f"{STREAM}Content-Length: {size}\r\n\r\n{events}"
    first: list[Any] = [ECHO] if framing == "json" else [{"event": ECHO}, {"raw": "0\r\n\r\n"}]
    estate = Bad(tmp_path, era, "http", [[*first, {"raw": forged * 3}], [ECHO]])
    found = await estate.suffer(calls=3)
    assert [each.text() for each in found] == ['{"text": "x"}'] * 3


@ERAS
async def test_an_answer_to_another_call_on_this_stream_is_nobodys(tmp_path: Path, era: str) -> None:
    """Two calls at once: the stream of one cannot answer the other, whose own answer counts."""
    guesses = [{"event": ANSWER.replace("$ID", str(id_))} for id_ in range(1, 30)]
    wait = [{"wait": "tools/call"}, {"wait": "tools/list"}, ECHO]
    estate = Bad(tmp_path, era, "http", [wait, guesses], timeout=PATIENCE)
    key = estate.key()
    async with estate.guarded():
        client = estate.client(key=key)
        first = asyncio.ensure_future(client.call("bad__slow"))
        await until(lambda: estate.received("bad"))
        await client.call("bad__echo")
        assert not first.done()
        estate.ask_again()
        await client.request("tools/list")
        assert (await first)["result"]["content"][0]["text"] == "{}"
    assert [*estate.settled().values()] == [["granted", "returned"]] * 2

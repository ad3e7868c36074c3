"""Streams that broke off, on both sides of Guard: answers are fetched, nothing is called twice."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from guard.core.errors import Reason
from guard.proxy.endings import Ending, Flight, Returned, Unknown
from guard.proxy.http1 import Client
from guard.proxy.remote import Remote
from tests.proxy.estate import Estate, Server
from tests.proxy.pairs import ECHO, PROGRESS
from tests.proxy.raw_http import Connection, RawHttp
from tests.proxy.scene import PATIENCE

VERSION = "2025-11-25"
HELD = [{"event": PROGRESS % 1}, {"wait": "tools/call"}, {"event": PROGRESS % 2}, {"event": ECHO}]
"""What a server makes of a call: one step, and the rest once it is called again."""
CALL = {"name": "echo", "arguments": {"text": "ü"}, "_meta": {"progressToken": "t"}}


def events(data: bytes) -> list[tuple[str, str]]:
    """Id and data of each whole event; comments are skipped."""
    found = []
    for part in data.decode().split("\r\n\r\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in part.split("\r\n") if not line.startswith(":"))
        if fields:
            found.append((fields.get("id", ""), fields.get("data", "")))
    return found


async def read(connection: Connection, least: int) -> list[tuple[str, str]]:
    """The events of an answer: as many as these, or all of them for 0."""
    assert (await connection.head()).kind == "text/event-stream"
    data = b""
    async with asyncio.timeout(PATIENCE):
        while not least or len(events(data)) < least:
            if not (piece := await connection.piece()):
                break
            data += piece
    return events(data)


async def again(client: RawHttp, last: str) -> list[tuple[str, str]]:
    async with client.connected() as connection:
        connection.write(client.written("GET", headers={"Last-Event-ID": last}))
        return await read(connection, 0)


@asynccontextmanager
async def broken_off(
    tmp_path: Path, version: str = VERSION, era: str = "legacy"
) -> AsyncIterator[tuple[Estate, RawHttp, list[tuple[str, str]]]]:
    """A call whose stream was lost after its first step, and what had come by then."""
    estate = Estate(tmp_path / "estate", Server("one", era, "http", answers=[HELD, [ECHO]]))
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client = estate.client(version, key)
        await client.greet()
        async with client.connected() as connection:
            connection.write(client.written("POST", client.message("tools/call", CALL)))
            had = await read(connection, 2 if version == VERSION else 1)
        yield estate, client, had
    assert [*estate.settled().values()] == [["granted", "returned"]] * 2


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_who_lost_the_stream_of_a_call_gets_its_answer(tmp_path: Path, era: str) -> None:
    """From the last event on, once each, in order; and the tool was called once."""
    async with broken_off(tmp_path, era=era) as (estate, client, had):
        assert had[0][1] == ""  # primed
        assert json.loads(had[1][1])["params"]["progress"] == 1
        await client.call("echo")
        rest = await again(client, had[1][0])
        assert [json.loads(data).get("method", "answer") for _, data in rest] == [
            "notifications/progress",
            "answer",
        ]
        assert json.loads(json.loads(rest[-1][1])["result"]["content"][0]["text"]) == {"text": "ü"}
        ids = [id_ for id_, _ in (*had, *rest)]
        assert len({*ids}) == len(ids) == 4
        assert await again(client, had[0][0]) == [had[1], *rest]
        assert len(estate.received("one")) == 2


async def test_who_comes_back_early_is_told_when_it_comes(tmp_path: Path) -> None:
    """The stream goes on where it was taken up again, to its end."""
    async with broken_off(tmp_path) as (_, client, had), client.connected() as connection:
        connection.write(client.written("GET", headers={"Last-Event-ID": had[-1][0]}))
        rest = asyncio.ensure_future(read(connection, 0))
        await client.call("echo")
        assert [json.loads(data).get("id") is None for _, data in await rest] == [True, False]


async def test_a_stream_is_nobody_elses(tmp_path: Path) -> None:
    """Neither another principal nor another session of the same one gets a byte of it."""
    async with broken_off(tmp_path) as (estate, client, had):
        thief = estate.client(VERSION, estate.key("thief"))
        thief.session = client.session
        fields = {"Last-Event-ID": had[0][0]}
        assert (await thief.exchange(thief.written("GET", headers=fields))).status == 404
        other = estate.client(VERSION, client.key)
        await other.greet()
        assert (await other.exchange(other.written("GET", headers=fields))).status == 400
        await client.call("echo")
        assert len(await again(client, had[-1][0])) == 2


@pytest.mark.parametrize("last", ["9-0", "1-99", "x", "1-0, 1-0"])
async def test_an_event_that_never_was_is_refused(tmp_path: Path, last: str) -> None:
    """400, and not a stream on which nothing would ever come."""
    async with broken_off(tmp_path) as (_, client, had):
        answer = await client.exchange(client.written("GET", headers={"Last-Event-ID": last}))
        assert answer.status == 400
        await client.call("echo")
        assert len(await again(client, had[-1][0])) == 2


async def test_a_revision_without_priming_gets_no_empty_event(tmp_path: Path) -> None:
    """Clients of 2025-06-18 cannot read one; ids they can, and they come back with them."""
    async with broken_off(tmp_path, "2025-06-18") as (_, client, had):
        assert json.loads(had[0][1])["params"]["progress"] == 1
        await client.call("echo")
        assert len(await again(client, had[0][0])) == 2


async def test_who_names_streams_first_gets_one(tmp_path: Path) -> None:
    """Though nothing comes before the answer; whoever names JSON first gets JSON."""
    estate = Estate(tmp_path / "estate", Server("one", "legacy", "http"))
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client = estate.client(VERSION, key)
        await client.greet()
        for accept, kind in (
            ("text/event-stream, application/json", "text/event-stream"),
            ("application/json, text/event-stream", "application/json"),
        ):
            data = client.written("POST", client.message("tools/list"), headers={"Accept": accept})
            assert (await client.exchange(data)).kind == kind


# -- towards a server ------------------------------------------------------------------------------


class Away:
    """A handshake-era server in this process: a call's stream ends early, and GETs get what is scripted."""

    def __init__(self, first: str, rest: Sequence[str], *, clean: bool = True) -> None:
        self.first, self.rest, self.clean = first, [*rest], clean
        self.asked: list[tuple[str, str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = re.search(r"content-length: (\d+)", head.lower())
                body = await reader.readexactly(int(length[1]) if length else 0)
                writer.write(self.answer(head, json.loads(body or b"{}")))
                if head.startswith("POST") and b"completion" in body and not self.clean:
                    await writer.drain()
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def answer(self, head: str, message: dict[str, Any]) -> bytes:
        method, id_ = message.get("method", ""), message.get("id")
        last = re.search(r"last-event-id: (.*)\r", head.lower())
        self.asked.append((method or head[:3], last[1] if last else ""))
        if method == "initialize":
            about = {"protocolVersion": VERSION, "capabilities": {}, "serverInfo": {}}
            return whole(200, json.dumps({"jsonrpc": "2.0", "id": id_, "result": about}))
        if method == "completion/complete":
            self.id = id_
            return stream(self.first, clean=self.clean)
        if head.startswith("GET"):
            text = self.rest.pop(0)
            return whole(int(text), "") if text.isdigit() else stream(text.replace("$ID", str(self.id)))
        return whole(202 if id_ is None else 400, "")


def whole(status: int, body: str) -> bytes:
    kind = "Content-Type: application/json\r\n" if body else ""
    return f"HTTP/1.1 {status} X\r\n{kind}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def stream(text: str, *, clean: bool = True) -> bytes:
    head = b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n" % (len(text), text.encode()) + (b"0\r\n\r\n" if clean else b"")


async def asking(server: Away, *, seconds: float = PATIENCE, flight: Flight | None = None) -> Ending:
    """What becomes of one request to it."""
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/mcp"
    client = Client(url)
    remote = Remote(url, client=client, timeout=PATIENCE)
    try:
        await remote.start()
        async with asyncio.timeout(PATIENCE):
            return await remote.ask("completion/complete", {}, flight=flight, seconds=seconds)
    finally:
        await remote.stop()
        await client.close()
        listener.close()


ANSWER = 'id: 3\ndata: {"jsonrpc":"2.0","id":$ID,"result":{"there":1}}\n\n'
PRIMED = "id: a\nretry: 1\ndata:\n\n"


@pytest.mark.parametrize("clean", [True, False], ids=["closed", "cut off"])
@pytest.mark.parametrize(
    ("rest", "lasts"),
    [
        ([ANSWER], ["a"]),
        ([": nothing yet\n\n", ANSWER], ["a", "a"]),
        (['id: b\ndata: {"jsonrpc":"2.0","method":"x"}\n\n', ANSWER], ["a", "b"]),
    ],
    ids=["at once", "later", "in pieces"],
)
async def test_an_answer_is_fetched_where_the_server_closed_its_stream(
    rest: list[str],
    lasts: list[str],
    clean: bool,  # noqa: FBT001 - a case
) -> None:
    """By GETs from the last event on; the request itself is never sent again."""
    server, away = Away(PRIMED, rest, clean=clean), []
    flight = Flight()
    flight.on_away = away.append
    assert await asking(server, flight=flight) == Returned(b'{"there":1}')
    assert [last for method, last in server.asked if method == "GET"] == lasts
    assert [method for method, _ in server.asked].count("completion/complete") == 1
    assert away == [1] * len(lasts)


@pytest.mark.parametrize("status", ["400", "404", "405", "500"])
async def test_a_stream_that_is_not_given_again_is_unknown(status: str) -> None:
    """The server was asked once more, by a GET, and the request is not repeated."""
    server = Away(PRIMED, [status])
    assert await asking(server) == Unknown(Reason.UPSTREAM_UNAVAILABLE)
    assert [method for method, _ in server.asked if method in {"GET", "completion/complete"}] == [
        "completion/complete",
        "GET",
    ]


@pytest.mark.parametrize("first", ["retry: 1\ndata:\n\n", "data: 1\n\n", "id: a\0b\ndata:\n\n", "id: a\n"])
async def test_a_stream_without_an_id_is_not_asked_for_again(first: str) -> None:
    """There is nothing to come back with, and an event that is not whole has none."""
    server = Away(first, [])
    ending = await asking(server)
    assert isinstance(ending, Unknown)
    assert "GET" not in [method for method, _ in server.asked]


async def test_a_call_whose_server_stays_away_times_out() -> None:
    """It is unknown then, and nobody comes back for it."""
    server = Away("id: a\nretry: 3600000\ndata:\n\n", [])
    assert await asking(server, seconds=0.05) == Unknown(Reason.TIMED_OUT)
    assert "GET" not in [method for method, _ in server.asked]

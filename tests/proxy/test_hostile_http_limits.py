"""What a client may cost: bytes, seconds, connections and calls at once. Others are served meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from guard.lineage.entry import Kind
from tests.proxy.estate import Server
from tests.proxy.outsider import LIMITS, Outsider, call, outsider
from tests.proxy.pairs import ECHO, until
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import MODERN, PATIENCE

BODY = call(True)  # noqa: FBT003 - an era
SIZE = f"Content-Length: {len(BODY)}"
HELD = [{"wait": "tools/list"}, ECHO]
"""What a server over HTTP makes of a call: an answer, once somebody asked it for its tools."""
HASTY = {**LIMITS, "head_seconds": 0.3, "body_seconds": 0.3, "keep_alive_seconds": 0.3}
LARGE = {
    "one large field": b"X: " + b"a" * 20_000 + b"\r\n\r\n",
    "a large name": b"X" * 20_000 + b": a\r\n\r\n",
    "ten thousand fields": b"".join(b"X%d: a\r\n" % n for n in range(10_000)) + b"\r\n",
    "blanks before a value": b"X:" + b" " * 1_000_000 + b"a\r\n\r\n",
    "a field of a megabyte without end": b"X: " + b"a" * 1_000_000,
    "fields without end": b"X: a\r\n" * 200_000,
}


@pytest.mark.parametrize("more", LARGE)
async def test_a_head_that_is_too_large(tmp_path: Path, more: str) -> None:
    """431, or the connection is closed; nothing is asked who it is."""
    async with outsider(tmp_path, limits=LIMITS) as at:
        answer = await at.tried(at.head()[:-2] + LARGE[more])
        assert answer is None or answer.status == 431
        await at.honest()


async def test_a_target_that_is_too_long(tmp_path: Path) -> None:
    """431 or closed, as a head that is too large."""
    async with outsider(tmp_path, limits=LIMITS) as at:
        answer = await at.tried(at.head(SIZE, path="/mcp?" + "x" * 20_000) + BODY)
        assert answer is None or answer.status == 431
        await at.honest()


async def test_a_header_that_never_ends_is_let_go_of(tmp_path: Path) -> None:
    """However much is sent, the connection closes."""
    async with outsider(tmp_path, limits=LIMITS) as at:
        async with at.client.connected() as line:
            line.write(at.head()[:-2] + b"X: ")
            closed = asyncio.ensure_future(line.closed())
            async with asyncio.timeout(PATIENCE):
                while not (await asyncio.wait([closed], timeout=0.01))[0]:
                    line.write(b"a" * 1024)
            assert b" 200 " not in await closed
        await at.honest()


SLOW_HEADS = {
    "nothing": b"",
    "a letter": b"P",
    "a line": b"POST /mcp HTTP/1.1\r\n",
    "half a field": b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1",
    "blank lines": b"\r\n\r\n\r\n",
}


@pytest.mark.parametrize("sent", SLOW_HEADS)
async def test_a_head_that_does_not_come_is_not_waited_for(tmp_path: Path, sent: str) -> None:
    """After head_seconds it is 408 or closed."""
    async with outsider(tmp_path, limits=HASTY) as at:
        async with at.client.connected() as line:
            line.write(SLOW_HEADS[sent])
            rest = await line.closed()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 408 ")
        await at.honest()


@pytest.mark.parametrize("drop", [b"a", b"\r\nX: y"], ids=["letters", "fields"])
async def test_a_head_that_comes_in_drops_is_not_waited_for(tmp_path: Path, drop: bytes) -> None:
    """Slow loris: each byte buys no more time."""
    async with outsider(tmp_path, limits=HASTY) as at:
        async with at.client.connected() as line:
            line.write(b"POST /mcp HTTP/1.1\r\nX: ")
            closed = asyncio.ensure_future(line.closed())
            async with asyncio.timeout(PATIENCE):
                while not (await asyncio.wait([closed], timeout=0.05))[0]:
                    line.write(drop)
            assert (await closed).startswith(b"HTTP/1.1 408 ")
        await at.honest()


SLOW_BODIES = {
    "nothing": (SIZE, b""),
    "nearly all": (SIZE, BODY[:-1]),
    "no chunk": ("Transfer-Encoding: chunked", b""),
    "half a chunk": ("Transfer-Encoding: chunked", b"ff\r\n{"),
    "no last chunk": ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (len(BODY), BODY)),
    "no end of the trailers": ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)),
}


@pytest.mark.parametrize("sent", SLOW_BODIES)
async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path, sent: str) -> None:
    """After body_seconds it is 408, and no call; nothing more is read on the connection."""
    async with outsider(tmp_path, limits=HASTY) as at:
        size, part = SLOW_BODIES[sent]
        async with at.client.connected() as line:
            line.write(at.head(size) + part)
            answer = await line.answer()
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            line.write(BODY[len(part) :] + at.head(SIZE) + BODY)
            assert await line.closed() == b""
        await at.honest()


async def test_a_body_that_comes_in_drops_is_not_waited_for(tmp_path: Path) -> None:
    """Each byte buys no more time."""
    async with outsider(tmp_path, limits=HASTY) as at:
        async with at.client.connected() as line:
            line.write(at.head("Content-Length: 60000"))
            answer = asyncio.ensure_future(line.answer())
            async with asyncio.timeout(PATIENCE):
                while not (await asyncio.wait([answer], timeout=0.05))[0]:
                    line.write(b" ")
            assert (await answer).status == 408
        await at.honest()


@pytest.mark.parametrize("key", [True, False], ids=["somebody", "nobody"])
async def test_a_body_that_nobody_reads_holds_no_connection(tmp_path: Path, key: bool) -> None:  # noqa: FBT001
    """What was turned away cannot be kept open by sending the rest in drops, and least by nobody."""
    async with outsider(tmp_path, limits=HASTY) as at:
        async with at.client.connected() as line:
            line.write(at.head("Content-Length: 60000", "Content-Encoding: gzip", key=key))
            assert (await line.answer()).status == (415 if key else 401)
            line.write(b"x")
            await line.closed()
        await at.honest()


async def test_a_client_that_is_silent_between_requests_is_let_go_of(tmp_path: Path) -> None:
    """After keep_alive_seconds the connection closes."""
    async with outsider(tmp_path, limits=HASTY) as at:
        async with at.client.connected() as line:
            line.write(at.head(SIZE) + BODY)
            assert (await line.answer()).status == 200
            assert await line.closed() == b""
        at.reached += 1
        await at.honest()


async def test_a_client_that_reads_nothing_is_let_go_of(tmp_path: Path) -> None:
    """A large answer does not stay for ever; the call has its ending, and others are served meanwhile."""
    large = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[{"type":"text","text":"%s"}]}}'
    server = Server("server", answers=[[large % ("x" * 12_000_000)], [ECHO]])
    async with outsider(tmp_path, "http", MODERN, server, limits=HASTY) as at:
        assert at.estate.serving is not None
        assert at.estate.serving.listener is not None
        listener = at.estate.serving.listener
        _, writer = await asyncio.open_connection("127.0.0.1", at.port, limit=1024)
        writer.write(at.head(SIZE) + BODY)
        await until(at.estate.received)
        at.reached += 1
        await at.honest()
        await until(lambda: not listener.connections)
        writer.transport.abort()
        await at.honest()
    assert sorted(at.estate.settled().values()) == [["granted", "returned"]] * 3


async def test_more_connections_than_there_may_be_are_turned_away(tmp_path: Path) -> None:
    """503 or closed for one more, whoever it is; those that are there go on, and room comes back."""
    async with outsider(tmp_path, limits={**LIMITS, "connections": 2}) as at:
        assert isinstance(at.client, RawHttp)
        async with at.client.connected() as one:
            async with at.client.connected() as two:
                for line in (one, two):
                    line.write(at.head(verb="GET", path="/health"))
                    assert (await line.answer()).status == 200
                answer = await at.tried(at.head(SIZE) + BODY)
                assert answer is None or (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert at.estate.received() == []
                two.write(at.head(SIZE) + BODY)
                assert (await two.answer()).status == 200
            assert at.estate.serving is not None
            assert at.estate.serving.listener is not None
            listener = at.estate.serving.listener
            await until(lambda: listener.connections == 1)
            at.reached += 1
            await at.honest()


BROKEN = {
    "garbage": b"garbage\r\n\r\n",
    "a head that is too large": b"POST /mcp HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    "a head that does not come": b"POST /mcp HTTP/1.1\r\n",
    "another version": b"POST /mcp HTTP/3.0\r\n\r\n",
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_what_is_broken_behind_a_call_is_not_its_answer(tmp_path: Path, broken: str) -> None:
    """A 4xx would say that the call under way was not made, and invite its repetition: closed, no word."""
    server = Server("server", over="http", answers=[HELD, [ECHO]])
    async with outsider(tmp_path, "http", MODERN, server, limits={**LIMITS, "head_seconds": 0.3}) as at:
        async with at.client.connected() as line:
            line.write(at.head(SIZE) + BODY)
            await until(at.estate.received)
            line.write(BROKEN[broken])
            assert await line.closed() == b""
        at.reached += 1
        await at.honest()


async def overloaded(at: Outsider) -> None:
    """One call too many: 429, told when to come again, and that it may."""
    answer = await at.client.post(BODY)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert answer.message()["error"]["data"] == {"reason": "overloaded", "retryable": True}


async def test_more_calls_at_once_than_one_caller_may_have(tmp_path: Path) -> None:
    """429 with `overloaded`, counted and no entry; another is served meanwhile, this one afterwards."""
    server = Server("server", over="http", answers=[HELD, HELD, [ECHO]])
    async with outsider(tmp_path, "http", MODERN, server, limits={**LIMITS, "in_flight": 2}) as at:
        held = [asyncio.ensure_future(at.client.post(BODY)) for _ in range(2)]
        await until(lambda: len(at.estate.received()) == 2)
        for _ in range(3):
            await overloaded(at)
        assert not any(each.done() for each in held)
        other = await at.another("other")
        assert "isError" not in (await other.call("echo"))["result"]
        assert (await other.request("tools/list")).status == 200
        assert [(await each).status for each in held] == [200, 200]
        at.reached = 3
        await at.honest()
        refusals = (await at.client.send("GET", path="/proof")).json()["refusals"]
        assert refusals == {"overloaded": 3}
    assert at.estate.entries(Kind.DENIED) == []
    assert sorted(at.estate.settled().values()) == [["granted", "returned"]] * 4

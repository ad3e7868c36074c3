"""Who is turned away reads why: nothing that they were still sending costs them the answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from guard.proxy import peer
from guard.proxy.exchange import Exchange
from guard.proxy.listener import Listener, listen
from guard.proxy.peer import Bounds
from tests.proxy.features import until

WHOLE = b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5000


async def app(exchange: Exchange) -> None:
    exchange.respond(200)


@asynccontextmanager
async def full(**bounds: int) -> AsyncIterator[Listener]:
    """A listener that has the one connection that it may have."""
    listener = await listen(app, "127.0.0.1", 0, Bounds(connections=1, **bounds))
    try:
        async with connected(listener):
            await until(lambda: listener.connections == 1)
            yield listener
    finally:
        await listener.close()


@asynccontextmanager
async def connected(listener: Listener) -> AsyncIterator[socket.socket]:
    with socket.socket() as found:
        found.settimeout(0)
        await asyncio.get_running_loop().sock_connect(found, ("127.0.0.1", listener.port))
        yield found


async def test_one_too_many_reads_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole 503 and the end come, whatever is sent meanwhile: no reset overtakes them."""
    monkeypatch.setattr(peer, "_LINGER_SECONDS", 60.0)
    loop = asyncio.get_running_loop()
    async with full() as listener, connected(listener) as one:
        await loop.sock_sendall(one, WHOLE)
        answer = b""
        while piece := await loop.sock_recv(one, 4096):
            answer += piece
            await loop.sock_sendall(one, b"x" * 5000)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"\r\n\r\n")
        await loop.sock_sendall(one, b"x" * 5000)
        assert await loop.sock_recv(one, 1) == b""


async def test_who_was_turned_away_is_waited_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who neither reads nor leaves is let go of, and takes nobody's place meanwhile."""
    monkeypatch.setattr(peer, "_LINGER_SECONDS", 0.1)
    async with full() as listener, connected(listener):
        await until(lambda: listener.connections == 2)
        await until(lambda: listener.connections == 1)


async def test_who_was_turned_away_cannot_send_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is thrown away is bounded in bytes too."""
    monkeypatch.setattr(peer, "_LINGER_SECONDS", 1e6)
    loop = asyncio.get_running_loop()
    async with full() as listener, connected(listener) as one:
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await loop.sock_sendall(one, b"x" * 64 * 1024 * 1024)
        await until(lambda: listener.connections == 1)


async def test_those_that_linger_are_bounded_and_take_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """One lingers; the next is closed at once. When the place is free, whoever comes has it."""
    monkeypatch.setattr(peer, "_LINGER_SECONDS", 1e6)
    monkeypatch.setattr(peer, "_LINGERERS", 1)
    loop = asyncio.get_running_loop()
    listener = await listen(app, "127.0.0.1", 0, Bounds(connections=1))
    try:
        async with connected(listener) as first:
            await until(lambda: listener.connections == 1)
            async with connected(listener), connected(listener) as third:
                while await loop.sock_recv(third, 4096):
                    pass
                await until(lambda: listener.connections == 2)
                first.close()
                await until(lambda: listener.connections == 1)
                async with connected(listener) as fourth:
                    await loop.sock_sendall(fourth, b"GET /mcp HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert (await loop.sock_recv(fourth, 4096)).startswith(b"HTTP/1.1 200 ")
    finally:
        await listener.close()

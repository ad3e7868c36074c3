"""Who comes to a busy Guard is let in soon, even if only to be told that there is no room."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
import uvloop

from guard.proxy.exchange import Exchange
from guard.proxy.listener import Listener, doors, listen, listen_on
from guard.proxy.peer import Bounds, Peer, Shared

MANY = 128
TURNS = 16
"""Turns of the loop in which all of them are in: a door lets in one a turn, and the first may find none."""


async def app(exchange: Exchange) -> None:
    exchange.respond(200)


def come(kind: int, address: Any) -> list[socket.socket]:
    found = [socket.socket(kind) for _ in range(MANY)]
    for each in found:
        each.setblocking(False)  # noqa: FBT003 - its signature
        if each.connect_ex(address) not in {0, 115}:
            raise AssertionError("it could not connect")
    return found


async def turns_until_all_are_in(listener: Listener) -> int:
    for turn in range(100 * TURNS):
        if listener.connections == MANY:
            return turn
        await asyncio.sleep(0)
    raise AssertionError(f"{listener.connections} of {MANY} after {100 * TURNS} turns")


@pytest.mark.parametrize("how", ["address", "socket", "path"])
def test_a_crowd_does_not_wait_one_turn_each(how: str) -> None:
    """A turn under load takes long: taking one client in each let others wait for minutes."""

    async def crowd() -> int:
        loop, bounds = asyncio.get_running_loop(), Bounds(connections=MANY)
        kind, address = socket.AF_INET, None
        if how == "address":
            listener = await listen(app, "127.0.0.1", 0, bounds)
        elif how == "socket":
            own = socket.create_server(("127.0.0.1", 0), backlog=4096)
            listener = await listen_on(app, own, bounds)
        else:
            kind, address = socket.AF_UNIX, str(Path(tempfile.mkdtemp(prefix="guard-")) / "post")
            shared = Shared(app, bounds, loop)
            first = await loop.create_unix_server(lambda: Peer(shared), address, backlog=4096)
            others = await doors(
                first, lambda sock: loop.create_unix_server(lambda: Peer(shared), sock=sock, backlog=4096)
            )
            listener = Listener(others, shared)
        clients = come(kind, address or ("127.0.0.1", listener.port))
        try:
            return await turns_until_all_are_in(listener)
        finally:
            for each in clients:
                each.close()
            await listener.close()

    assert uvloop.run(crowd()) <= TURNS


def test_a_closed_address_takes_nobody_by_any_of_its_doors() -> None:
    """After `refuse` a client finds nobody there."""

    async def closed() -> None:
        listener = await listen(app, "127.0.0.1", 0, Bounds())
        listener.refuse()
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", listener.port)
        await listener.close()

    uvloop.run(closed())

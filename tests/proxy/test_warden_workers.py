"""In every worker: whoever revoked it, and whichever worker the client had reached."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.config.test_workers import Workers, workers
from tests.proxy.features import POLICY, Estates, servers
from tests.proxy.raw_http import RawHttp, Stream
from tests.proxy.scene import LEGACY, MODERN
from tests.proxy.wards import command

WORKERS = 3
EACH = 4
"""Streams of each caller, so that they lie with several workers."""
LISTEN = {"notifications": {"toolsListChanged": True}}
CHANGED = "notifications/tools/list_changed"
LESS = {name: role for name, role in POLICY["roles"].items() if name != "caller"}
REASONS = {"revocation": "revoked-key", "containment": "principal-contained", "reload": "unauthorized-role"}


def reload(guard: Workers, **policy: Any) -> None:
    guard.estate.write_policy(version=guard.estate.policy["version"] + 1, **policy)
    guard.process.send_signal(signal.SIGHUP)


async def opened(
    guard: Workers, version: str, key: str, stack: AsyncExitStack
) -> list[tuple[RawHttp, Stream]]:
    """Streams of one caller, on connections of their own."""
    found = []
    for _ in range(EACH):
        client = guard.client(version, key)
        if version == LEGACY:
            await client.greet()
            await client.request("tools/list")
            stream = await stack.enter_async_context(client.listen())
        else:
            stream = await stack.enter_async_context(client.stream("subscriptions/listen", LISTEN))
            await stream.next()
        found.append((client, stream))
    return found


async def rest(stream: Stream) -> list[dict[str, Any]]:
    """What comes before the last chunk of a stream."""
    found: list[dict[str, Any]] = []

    async def read() -> None:
        while True:
            found.append(await stream.next())

    with pytest.raises(EOFError, match="the stream ended"):
        await read()
    return found


@pytest.mark.parametrize("version", [MODERN, LEGACY], ids=["modern", "handshake"])
@pytest.mark.parametrize("how", [*REASONS])
async def test_every_worker_closes_what_may_be_no_more(tmp_path: Path, version: str, how: str) -> None:
    """Each stream of the one ends, and says why where it can; each of the other one goes on to be told."""
    estate = Estates(tmp_path / "estate", *servers(version, "stdio"))
    key, beside = estate.key(), estate.key("honest", "powerful")
    with workers(estate, WORKERS) as guard:
        await guard.ready(WORKERS)
        async with AsyncExitStack() as stack:
            ended = await opened(guard, version, key, stack)
            honest = await opened(guard, version, beside, stack)
            if how == "revocation":
                await command(estate, "key", "revoke", key.split("_")[1])
            elif how == "containment":
                await command(estate, "contain", "--principal", "someone")
            else:
                reload(guard, roles=LESS)
                guard.heard("guard: reloaded", times=WORKERS)
            for client, stream in ended:
                last = [one["error"]["data"]["reason"] for one in await rest(stream) if "error" in one]
                assert last == ([REASONS[how]] if version == MODERN else [])
                if version == LEGACY:
                    assert (await client.send("GET")).status == (401 if how == "revocation" else 403)
            reload(guard, tools=[{"match": "do", "scopes": ["use"]}])
            for _, stream in honest:
                assert (await stream.next())["method"] == CHANGED
    estate.settled()

"""In every replica on a shared PostgreSQL: whoever revoked it, and wherever the stream is."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from guard.config.home import open_home
from guard.lineage.entry import Kind
from guard.lineage.postgres import schema
from guard.lineage.postgres.address import Address
from tests.postgres import Server
from tests.proxy.features import ERAS, Estates, Web, servers
from tests.proxy.scene import LEGACY, MODERN
from tests.proxy.wards import (
    ONE,
    about,
    command,
    contain,
    listening,
    someone,
    subscribed,
    told,
)

REASONS = {"revocation": "revoked-key", "containment": "principal-contained", "reload": "policy-superseded"}


def replica(folder: Path, url: str, version: str, keys: Path | None = None) -> Estates:
    """An estate on a shared database; every replica has the same keys."""
    home = folder / "home"
    home.mkdir(parents=True, mode=0o700)
    if keys is not None:
        shutil.copytree(keys, home / "keys")
    open_home(home).store(address=Address(url)).close()  # which the home remembers
    return Estates(folder, *servers(version, "stdio"))


@asynccontextmanager
async def replicas(tmp_path: Path, url: str, version: str) -> AsyncIterator[tuple[Estates, Estates]]:
    """Two Guards on one database."""
    schema.upgrade(Address(url))
    here = replica(tmp_path / "here", url, version)
    there = replica(tmp_path / "there", url, version, here.home / "keys")
    async with here.guarded(), there.guarded():
        yield here, there


async def begun(party: Web, go: Path) -> list[asyncio.Task[dict[str, object]]]:
    """A call under way and, in 2026-07-28, a subscription; else the session's own stream is open."""
    acts = [{"progress": 1}, {"appears": str(go)}, {"answer": {"content": [], "secret": "x"}}]
    params = {"name": "do", "arguments": {"acts": acts}}
    _, call = party.start("tools/call", params, progressToken="t")
    await party.hears("notifications/progress")
    if party.version == MODERN:
        return [call, await listening(party, resourceSubscriptions=[ONE])]
    await subscribed(party)
    return [call]


@ERAS
@pytest.mark.parametrize("how", [*REASONS])
async def test_every_replica_closes_what_may_be_no_more(
    tmp_path: Path, database: str, version: str, how: str
) -> None:
    """What was done at one is closed at the other; a caller whom it does not concern goes on at both."""
    async with replicas(tmp_path, database, version) as (here, there):
        key, beside = here.key(), here.key("honest", "powerful")
        async with (
            here.party(version, key) as one,
            there.party(version, key) as other,
            there.party(version, beside) as honest,
        ):
            go = tmp_path / "go"
            begun_here, begun_there = await begun(one, go), await begun(other, go)
            fine = await begun(honest, go)
            if how == "revocation":
                await command(here, "key", "revoke", key.split("_")[1])
            elif how == "containment":
                contain(here, "principal", someone())
            else:  # a replica without it is none by which anything is shown
                here.write_policy(version=2)
                assert here.serving is not None
                assert await here.serving.reload()
            ended = [*begun_there] if how == "reload" else [*begun_here, *begun_there]
            for task in ended:
                answer = await asyncio.wait_for(task, 20)
                found = about(answer)["reason"] if "result" in answer else told(answer)[1]
                assert found == REASONS[how]
            if version == LEGACY:
                await asyncio.wait_for(other.ended.wait(), 20)
                assert one.ended.is_set() == (how != "reload")
            go.touch()
            last = await asyncio.wait_for((begun_here if how == "reload" else fine)[0], 20)
            assert last["result"]["secret"] == "x"  # type: ignore[index]
            if how != "reload":
                assert not honest.ended.is_set()
                await honest.do({"update": ONE})
                await honest.hears("notifications/resources/updated")
    kinds = [entry["kind"] for entry in here.entries() if entry["call"]]
    assert kinds.count("granted") == sum(kinds.count(kind) for kind in ("returned", "failed", "unknown"))


@ERAS
async def test_a_database_that_is_away_closes_everything(
    tmp_path: Path, own_postgres: Server, version: str
) -> None:
    """Nobody can say what was revoked; when it is back, a new stream is given and calls are granted."""
    async with replicas(tmp_path, own_postgres.url, version) as (here, _), AsyncExitStack() as stack:
        party = await stack.enter_async_context(here.party(version, here.key()))
        tasks = await begun(party, tmp_path / "go")
        await asyncio.to_thread(own_postgres.kill)
        try:
            if version == LEGACY:
                await asyncio.wait_for(party.ended.wait(), 20)
            else:
                assert told(await asyncio.wait_for(tasks[1], 20)) == (4403, "store-unavailable")
        finally:
            await asyncio.to_thread(own_postgres.start)
        assert about(await asyncio.wait_for(tasks[0], 20))["reason"] == "store-unavailable"
        (tmp_path / "go").touch()
        async with asyncio.timeout(60):
            while "error" in (answer := await party.do()) or answer["result"].get("isError"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        if version == MODERN:
            await listening(party, resourceSubscriptions=[ONE])
        else:
            assert (await party.ask("resources/subscribe", {"uri": ONE}))["result"] == {}
    assert len(here.entries(Kind.UNKNOWN)) == 1

"""On a shared PostgreSQL: a call waits in one replica, another is told the answer; a yes runs it once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from guard.config.home import open_home
from guard.lineage.entry import Kind
from guard.lineage.postgres import schema
from guard.lineage.postgres.address import Address
from tests.proxy.asked import DO, about, asked, asking, grant, park, question, questions, reason, retry, waits
from tests.proxy.features import ERAS, Estates, servers
from tests.proxy.scene import MODERN


def replica(folder: Path, url: str, version: str, approver: str, keys: Path | None = None) -> Estates:
    """An estate on a shared database; every replica has the same keys."""
    home = folder / "home"
    home.mkdir(parents=True, mode=0o700)
    if keys is not None:
        shutil.copytree(keys, home / "keys")
    open_home(home).store(address=Address(url)).close()  # which the home remembers
    return Estates(folder, *servers(version, "stdio"), policy=asking(approver))


@asynccontextmanager
async def replicas(
    tmp_path: Path, url: str, version: str, approver: str
) -> AsyncIterator[tuple[Estates, Estates]]:
    """Two Guards on one database."""
    schema.upgrade(Address(url))
    here = replica(tmp_path / "here", url, version, approver)
    there = replica(tmp_path / "there", url, version, approver, here.home / "keys")
    async with here.guarded(), there.guarded():
        yield here, there


@ERAS
async def test_the_answer_may_be_given_to_any_replica(tmp_path: Path, database: str, version: str) -> None:
    """The call waits here; the reviewer speaks to the one there, and a `no` there is a `no` here."""
    async with replicas(tmp_path, database, version, "reviewer") as (here, there):
        key, reviewer = here.key(), here.key("rita", "reviewer")
        async with here.party(version, key) as party, there.party(version, key) as other:
            call = await waits(party)
            await grant(there, reviewer, (await question(here)).question.id)
            assert "isError" not in (await call)["result"]
            call = await waits(party)
            await grant(there, reviewer, (await question(here, 2)).question.id, yes=False)
            assert reason(await call) == "approval-refused"
            assert reason(await other.ask("tools/call", DO)) == "approval-refused"
    assert len(here.received()) == 1
    assert there.received() == []


async def test_retries_at_every_replica_at_once_run_once(tmp_path: Path, database: str) -> None:
    """The approval is used up in the transaction that grants, whichever replica makes it."""
    async with replicas(tmp_path, database, MODERN, "reviewer") as (here, there):
        key, reviewer = here.key(), here.key("rita", "reviewer")
        async with here.party(MODERN, key) as one, there.party(MODERN, key) as other:
            for estate in (here, there):
                park(estate.serving, 0.0)
            said = about(await one.ask("tools/call", DO))
            await grant(there, reviewer, said["question"])
            calls = [await waits(party) for party in (one, other) for _ in range(16)]
            answers = await asyncio.gather(*calls)
            ran = [answer for answer in answers if "isError" not in answer["result"]]
            denied = {reason(answer) for answer in answers if answer not in ran}
            assert len(ran) == 1
            assert denied <= {"approval-required", "contended"}
    assert len(here.received()) + len(there.received()) == 1


async def test_a_clients_answer_may_come_to_another_replica(tmp_path: Path, database: str) -> None:
    """2026-07-28 has no sessions: the state is sealed with what all replicas have, and is used up in all."""
    async with replicas(tmp_path, database, MODERN, "client") as (here, there):
        key = here.key()
        async with here.party(MODERN, key) as one, there.party(MODERN, key) as other:
            first = await asked(one)
            assert "result" in await other.ask("tools/call", retry(first))
            assert reason(await one.ask("tools/call", retry(first))) == "state-invalid"
            assert [row.state for row in questions(here)] == ["used"]
    assert len(there.received()) == 1
    assert [entry["word"] for entry in there.written(Kind.ANSWERED)] == ["client"]

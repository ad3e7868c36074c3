"""An old backup is put back: it is sound in itself, and a checkpoint that was kept elsewhere tells."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from guard.core.canonical import read
from tests.faults.fleet import Fleet
from tests.faults.replica import GUARD
from tests.postgres import Databases, Server, name_of


async def guard(fleet: Fleet, *words: str | Path, code: int = 0) -> str:
    """Run a command of the operator's on the fleet's home."""
    command = [GUARD, *words, "--home", str(fleet.home)]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stdout + done.stderr
    return str(done.stdout)


async def test_a_restored_old_backup_is_caught(tmp_path: Path) -> None:
    """At once, and later too, when it has grown beyond the checkpoint; the right backup passes."""
    fleet = Fleet(tmp_path / "fleet", replicas=1)
    old, new, kept = tmp_path / "old.db", tmp_path / "new.db", tmp_path / "kept.checkpoint"
    async with fleet.running():
        async with fleet.load(8).running() as load:
            await load.answered(20)
            await guard(fleet, "lineage", "snapshot", old)  # while it is written to
            await load.answered(60)
            kept.write_text(await guard(fleet, "lineage", "checkpoint"))
        await guard(fleet, "lineage", "snapshot", new)
    fleet.settle("before-restore")
    await guard(fleet, "lineage", "verify", "--checkpoint", kept)

    await put_back(fleet, old)
    await guard(fleet, "lineage", "verify")  # by itself nothing is wrong with it
    assert "the record was changed" in await guard(fleet, "lineage", "verify", "--checkpoint", kept, code=1)
    size = int(kept.read_text().split("\n")[1])
    async with fleet.running(), fleet.load(8).running() as load:
        while read((await guard(fleet, "lineage", "verify", "--json")).encode())["entries"] <= size:
            await load.answered(80)
    await guard(fleet, "lineage", "verify")
    assert "the record was changed" in await guard(fleet, "lineage", "verify", "--checkpoint", kept, code=1)

    await put_back(fleet, new)
    await guard(fleet, "lineage", "verify", "--checkpoint", kept)


async def put_back(fleet: Fleet, snapshot: Path) -> None:
    """What an operator does who has lost the store."""
    for name in ("guard.db", "guard.db-wal", "guard.db-shm"):
        (fleet.home / name).unlink(missing_ok=True)
    await guard(fleet, "lineage", "restore", snapshot)


async def test_a_database_that_was_set_back_is_caught(tmp_path: Path, own_postgres: Server) -> None:
    """As a database's own backup does it: everything in it is of one earlier moment."""
    databases = Databases(own_postgres.url)
    url = databases.make()
    fleet = Fleet(tmp_path / "fleet", replicas=1, database=url)
    kept = tmp_path / "kept.checkpoint"
    async with fleet.running(), fleet.load(8).running() as load:
        await load.answered(20)
    fleet.verdict.settle(load)
    databases.run(f"CREATE DATABASE backup TEMPLATE {name_of(url)}")
    async with fleet.running(), fleet.load(8).running() as load:
        await load.answered(60)
    fleet.settle("before-restore")
    kept.write_text(await guard(fleet, "lineage", "checkpoint"))
    await guard(fleet, "lineage", "verify", "--checkpoint", kept)

    databases.drop(url, roles=False)
    databases.run(f"ALTER DATABASE backup RENAME TO {name_of(url)}")
    await guard(fleet, "lineage", "verify")  # by itself nothing is wrong with it
    assert "the record was changed" in await guard(fleet, "lineage", "verify", "--checkpoint", kept, code=1)
    async with fleet.running(), fleet.load(8).running() as load:
        await load.answered(60)
    assert "the record was changed" in await guard(fleet, "lineage", "verify", "--checkpoint", kept, code=1)

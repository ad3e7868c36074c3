"""Kill -9 of PostgreSQL itself, and a full disk under it: Guard refuses, and comes back by itself."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

from tests.faults.disks import enlarge, small_disk
from tests.faults.fleet import TURNS, Fleet
from tests.faults.verdict import EVERYTHING
from tests.postgres import Databases, Server

CALLERS = 400 if EVERYTHING else 20
KILLS = 200 if EVERYTHING else 3
ROOM = 512


async def test_postgresql_is_killed(tmp_path: Path, own_postgres: Server) -> None:
    """Every process of it at once, again and again: what was granted stands, and nobody restarts a Guard."""
    database = Databases(own_postgres.url).make()
    fleet = Fleet(tmp_path / "fleet", database=database, replicas=2, callers=CALLERS)
    moments = random.Random(KILLS)  # noqa: S311 - moments of a test
    async with fleet.running(), fleet.load(16, think=0.05, turns=TURNS).running() as load:
        for _ in range(KILLS):
            await load.answered(20)
            await asyncio.sleep(moments.uniform(0.0, 0.3))
            await asyncio.to_thread(own_postgres.kill)
            fleet.verdict.figures["kills"] += 1
            await asyncio.sleep(moments.uniform(0.0, 0.2))
            await asyncio.to_thread(own_postgres.start)
            await load.answered(1)
            await asyncio.to_thread(fleet.verdict.look)
        assert all(replica.runs for replica in fleet.replicas)
    fleet.settle("database")


async def test_postgresql_on_a_full_disk(tmp_path: Path) -> None:
    """Every call is denied while there is no room; with room, and the server started, all is well."""
    with small_disk(64) as disk:
        server = Server(disk / "postgres")
        try:
            server.start()
            fleet = Fleet(tmp_path / "fleet", replicas=2, database=Databases(server.url).make())
            async with fleet.running(), fleet.load(16, think=0.05).running() as load:
                await load.answered(20)
                (disk / "ballast").write_bytes(bytes(disk_free(disk) - (2 << 20)))
                await load.turned_away(100)
                sent = len(fleet.verdict.seen())
                await load.turned_away(20)
                assert len(fleet.verdict.seen()) == sent, "what cannot be recorded was sent"
                enlarge(disk, ROOM)
                await asyncio.to_thread(server.restart)
                await load.answered(20)
            fleet.settle("disk-full")
        finally:
            server.close()


def disk_free(folder: Path) -> int:
    """Bytes."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize

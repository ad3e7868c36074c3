"""A disk that is full: nothing more is sent, nothing that stands is hurt, and room is all that is needed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.faults.disks import enlarge, small_disk
from tests.faults.fleet import Fleet
from tests.faults.load import Load

ROOM = 64
DENIALS = 30


async def full(load: Load) -> None:
    """Wait until so many calls in a row are denied because the store cannot be written."""
    ran = -1
    while len(load.ran) != ran:
        ran = len(load.ran)
        await load.turned_away(DENIALS)


async def test_two_replicas_of_one_file_on_a_full_disk(tmp_path: Path) -> None:
    """From the first commit that cannot be made every call is denied; with room and a restart all is well."""
    with small_disk(3) as disk:
        fleet = Fleet(tmp_path / "fleet", replicas=2, home=disk / "home")
        async with fleet.running():
            async with fleet.load(8).running() as load:
                await full(load)
                sent = len(fleet.verdict.seen())
                await asyncio.sleep(0.2)
                assert len(fleet.verdict.seen()) == sent, "what cannot be recorded was sent"
            assert all("the lineage cannot be written" in one.heard() for one in fleet.replicas)
            enlarge(disk, ROOM)
            for replica in fleet.replicas:
                await replica.stop()
                await replica.start()
            async with fleet.load(8).running() as later:
                await later.answered(20)
        fleet.settle("disk-full")

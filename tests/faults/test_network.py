"""The way between a replica and its database: cut, and stalled so that nobody is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.faults.fleet import Fleet
from tests.faults.verdict import EVERYTHING

CUTS = 20 if EVERYTHING else 1


async def test_a_replica_that_is_cut_off_refuses_and_comes_back(tmp_path: Path, database: str) -> None:
    """Its calls are denied and those of the others run; nobody starts it again."""
    await _cut_off(Fleet(tmp_path / "fleet", database=database, replicas=2, ways=True), "cut")


async def test_a_replica_whose_packets_are_dropped_refuses_and_comes_back(
    tmp_path: Path, database: str
) -> None:
    """Nothing comes and nobody says so: it waits no longer than it may, refuses, and comes back."""
    await _cut_off(Fleet(tmp_path / "fleet", database=database, replicas=2, ways=True), "stall")


async def _cut_off(fleet: Fleet, how: str) -> None:
    async with fleet.running(), fleet.load(16, think=0.1).running() as load:
        for number in range(CUTS):
            replica = fleet.replicas[number % len(fleet.replicas)]
            assert replica.way is not None
            await load.answered(20)
            getattr(replica.way, how)()
            await load.turned_away(5)
            await load.answered(20)
            replica.way.mend()
            alone = fleet.load_on(replica, 4)
            async with alone.running():
                await alone.answered(5)
            await asyncio.to_thread(fleet.verdict.look)
    fleet.settle(f"network-{how}")

"""The sequencer of replicas: killed, deposed while it sleeps, and two that think that they are it."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

from tests.faults.fleet import TURNS, Fleet
from tests.faults.verdict import EVERYTHING

CALLERS = 400 if EVERYTHING else 20
KILLS = 200 if EVERYTHING else 4
COUPS = 50 if EVERYTHING else 2


async def test_the_sequencer_is_killed(tmp_path: Path, database: str) -> None:
    """Whoever numbers the entries dies again and again: another one goes on where it stopped."""
    fleet = Fleet(tmp_path / "fleet", database=database, callers=CALLERS)
    moments = random.Random(KILLS)  # noqa: S311 - moments of a test
    load = fleet.load(16, think=0.05, turns=TURNS)
    async with fleet.running(), load.running(), asyncio.TaskGroup() as again:
        for _ in range(KILLS):
            await load.answered(1)
            await asyncio.sleep(moments.uniform(0.0, 0.3))
            replica = await fleet.sequencer()
            replica.kill()
            fleet.verdict.figures["kills"] += 1
            await asyncio.to_thread(fleet.verdict.look)
            again.create_task(replica.start())
    fleet.settle("sequencer")


async def test_a_sequencer_that_was_deposed_in_its_sleep_writes_nothing(
    tmp_path: Path, database: str
) -> None:
    """It is stopped, its lock is taken from it and another is elected; when it wakes there are two."""
    fleet = Fleet(tmp_path / "fleet", database=database, replicas=2, callers=CALLERS)
    async with fleet.running(), fleet.load(16, think=0.05, turns=TURNS).running() as load:
        for _ in range(COUPS):
            old = await fleet.sequencer()
            old.send(signal.SIGSTOP)
            await asyncio.to_thread(fleet.hang_up, old)
            assert await fleet.sequencer(but=old) is not old
            old.send(signal.SIGCONT)
            await load.answered(30)
            await asyncio.to_thread(fleet.verdict.look)
    fleet.settle("two-sequencers")

"""Kill -9 of replicas at random moments under load: nothing is lost, changed, or run twice."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

from tests.faults.fleet import TURNS, Fleet
from tests.faults.verdict import EVERYTHING

CALLERS = 400 if EVERYTHING else 20
KILLS = 200 if EVERYTHING else 6
PAUSES = 50 if EVERYTHING else 3


async def test_replicas_are_killed(tmp_path: Path, store: str | None) -> None:
    """Of three one is killed and started again, and again: every call has its entry, and one ending."""
    fleet = Fleet(tmp_path / "fleet", database=store, callers=CALLERS)
    moments = random.Random(KILLS)  # noqa: S311 - moments of a test
    async with (
        fleet.running(),
        fleet.load(16, think=0.05, turns=TURNS).running() as load,
        asyncio.TaskGroup() as again,
    ):
        for _ in range(KILLS):
            await load.answered(1)
            await asyncio.sleep(moments.uniform(0.0, 0.3))
            replica = moments.choice(await fleet.serving())
            replica.kill()
            fleet.verdict.figures["kills"] += 1
            await asyncio.to_thread(fleet.verdict.look)
            again.create_task(replica.start())
    fleet.settle("replicas")
    assert len(load.ran) > 5 * KILLS, "hardly a call ran: nothing was tested"
    assert load.denied["limit-reached"] > 0, "no limit was reached: nothing was tested"


async def test_a_replica_that_was_stopped_goes_on_from_what_stands(tmp_path: Path, store: str | None) -> None:
    """A process that sleeps through what the others wrote builds on none of what it remembers."""
    fleet = Fleet(tmp_path / "fleet", database=store, replicas=2, callers=CALLERS)
    moments = random.Random(PAUSES)  # noqa: S311 - moments of a test
    async with fleet.running(), fleet.load(16, think=0.02, turns=TURNS).running() as load:
        for _ in range(PAUSES):
            replica = moments.choice(fleet.replicas)
            replica.send(signal.SIGSTOP)
            await asyncio.sleep(moments.uniform(0.0, 0.6))
            replica.send(signal.SIGCONT)
            await load.answered(30)
    fleet.settle("paused")

"""Three replicas behind a round-robin on one PostgreSQL, as an operator runs them, on a bad day."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

from tests.faults.fleet import Fleet
from tests.faults.replica import GUARD
from tests.faults.verdict import EVERYTHING

CONVERSATIONS = 64
CALLS = 1000 if EVERYTHING else 100


async def test_sixty_four_conversations_while_a_replica_and_the_sequencer_die(
    tmp_path: Path, database: str
) -> None:
    """Nothing is lost, the others go on, and the whole lineage verifies."""
    fleet = Fleet(tmp_path / "fleet", database=database)
    async with fleet.running(), fleet.load(CONVERSATIONS).running() as load:
        await load.answered(CALLS)
        elected = await fleet.sequencer()
        bystander = next(one for one in fleet.replicas if one is not elected)
        bystander.kill()
        await load.answered(CALLS)
        await bystander.start()
        sequencer = await fleet.sequencer()
        sequencer.kill()
        fleet.verdict.figures["kills"] += 2
        await load.answered(CALLS)
        await sequencer.start()
        await load.answered(CALLS)
    fleet.settle("many-replicas")
    words = [GUARD, "lineage", "verify", "--json", "--home", str(fleet.home)]
    told = await asyncio.to_thread(subprocess.run, words, capture_output=True, check=True)
    report = json.loads(told.stdout)
    assert report["sound"]
    assert report["open"] == []
    asked = {entry["fields"]["conversation"]["id"] for entry in fleet.verdict.granted.values()}
    assert len(asked) == CONVERSATIONS

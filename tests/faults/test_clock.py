"""A clock that is set back or forward under load: time in the lineage never runs backwards, limits hold."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tests.faults.fleet import Fleet

SHIFTED = Path(__file__).parent / "shifted.py"
HOUR = 3_600_000
LITTLE = 5_000
"""Milliseconds that a clock may be behind the newest entry."""


async def test_a_clock_that_jumps_back(tmp_path: Path, store: str | None) -> None:
    """A little is borne, an hour is denied, and when the clock is right again so is everything else."""
    off = tmp_path / "off"
    off.write_text("0")
    fleet = Fleet(
        tmp_path / "fleet", database=store, replicas=1, before=[sys.executable, str(SHIFTED), str(off)]
    )
    async with fleet.running(), fleet.load(8, think=0.01).running() as load:
        await load.answered(20)
        off.write_text(str(-LITTLE))
        await load.answered(20)
        off.write_text(str(-HOUR))
        await load.told("clock-behind", 10)
        ran = len(fleet.verdict.seen())
        await load.told("clock-behind", 10)
        assert len(fleet.verdict.seen()) == ran
        off.write_text("0")
        await load.answered(20)
    fleet.settle("clock")
    times = [json.loads(row.leaf)["at"] for row in fleet.book.rows()]
    assert times == sorted(times)


async def test_a_clock_that_jumps_ahead_of_the_databases(tmp_path: Path, database: str) -> None:
    """It grants nothing, and leaves no time behind that others would have to wait for."""
    off = tmp_path / "off"
    off.write_text("0")
    before = [sys.executable, str(SHIFTED), str(off)]
    fleet = Fleet(tmp_path / "fleet", database=database, replicas=1, before=before)
    async with fleet.running(), fleet.load(8, think=0.01).running() as load:
        await load.answered(20)
        off.write_text(str(HOUR))
        await load.refusals(8)  # what was decided before may still be on its way
        ran = len(fleet.verdict.seen())
        await load.told("clock-ahead", 40)
        assert len(fleet.verdict.seen()) == ran
        off.write_text("0")
        await load.answered(20)
    fleet.settle("clock-ahead")
    newest = max(json.loads(row.leaf)["at"] for row in fleet.book.rows())
    assert newest < time.time_ns() // 1_000_000 + LITTLE

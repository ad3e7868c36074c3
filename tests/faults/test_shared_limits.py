"""One limit, many replicas: what is drawn at once is drawn once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.faults.fleet import Fleet
from tests.faults.verdict import LIMITED

AT_ONCE = 64
LIMIT = 10


async def test_sixty_four_calls_at_once_against_a_limit_of_ten(tmp_path: Path, store: str | None) -> None:
    """Exactly ten are permitted, whichever replicas they reach; the others are told why not."""
    fleet = Fleet(tmp_path / "fleet", database=store, callers=1, limit=LIMIT)
    async with fleet.running():
        load = fleet.load()
        warm = [load.call(1000 + n, fleet.keys[0], f"c{n}", "echo") for n in range(len(fleet.replicas))]
        assert all(await asyncio.gather(*warm))
        calls = [load.call(n, fleet.keys[0], f"c{n}", LIMITED) for n in range(AT_ONCE)]
        assert sum(await asyncio.gather(*calls)) == LIMIT
    fleet.settle("limit")
    assert len(fleet.verdict.seen()) == LIMIT + len(warm)
    assert load.denied == {"limit-reached": AT_ONCE - LIMIT}

"""Many calls at once flood no reviewer."""

from __future__ import annotations

import asyncio
from pathlib import Path

from guard.proxy.asking import MAX_OPEN
from tests.proxy.asked import asking, do, park, questions, reason
from tests.proxy.features import Estates, servers
from tests.proxy.scene import MODERN


async def test_calls_at_once_open_no_more_questions_than_one_caller_may_have(tmp_path: Path) -> None:
    """Each asks for something else; together they are counted as one after the other."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, "stdio"), policy=asking("reviewer"))
    async with estate.guarded() as serving, estate.party(MODERN, estate.key()) as party:
        park(serving, 0.0)
        calls = [party.start("tools/call", do({"sleep": number}))[1] for number in range(2 * MAX_OPEN)]
        reasons = [reason(answer) for answer in await asyncio.gather(*calls)]
    assert len(questions(estate)) == MAX_OPEN
    assert sorted(reasons) == ["approval-required"] * MAX_OPEN + ["overloaded"] * MAX_OPEN

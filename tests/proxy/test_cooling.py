"""A tool that is forbidden after itself: of many calls at once one runs, on either store."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from tests.proxy.features import ERAS, OWN, Estates, servers
from tests.proxy.test_spent import ALL_AT_ONCE, WHERE, home, many, said

__all__ = ["home"]

CALM = {"id": "calm", "tools": ["echo"], "after": ["echo"], "for": "1h"}
CALL = {"name": "echo", "arguments": {}}


@ERAS
@WHERE
async def test_of_64_at_once_one_runs(home: Path, version: str) -> None:
    """It looks before it notes, in one transaction; a new conversation id does not warm it up again."""
    found = Estates(home, *servers(version, "stdio"), policy={"sequences": [CALM]})
    async with found.speaking(version, "http") as party:
        assert Counter(await many(party, [CALL] * ALL_AT_ONCE)) == {
            "allow": 1,
            "forbidden-after": ALL_AT_ONCE - 1,
        }
        later = [party.start("tools/call", CALL, **{f"{OWN}conversation": f"c{n}"})[1] for n in range(4)]
        assert {said(answer) for answer in await asyncio.gather(*later)} == {"forbidden-after"}
    assert len(found.received()) == 1

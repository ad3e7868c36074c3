"""One caller's many sessions, and the links to a tool server that all share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proxy.asked import reason
from tests.proxy.features import Estates, servers, until
from tests.proxy.scene import LEGACY, MODERN

SLOW = {"name": "do", "arguments": {"acts": [{"sleep": 3.0}]}}


@pytest.mark.parametrize("era", [LEGACY, MODERN])
async def test_one_callers_sessions_do_not_take_every_link(tmp_path: Path, era: str) -> None:
    """Of four links a fourth session of one principal gets none, and another principal's call goes on."""
    found = Estates(tmp_path / "e", *servers(LEGACY, "stdio", processes=4))
    ada, bob = found.key("ada"), found.key("bob")
    async with found.guarded():
        parties = [found.party(LEGACY, ada, deaf=True) for _ in range(4)]
        opened = [await party.__aenter__() for party in parties]
        held = [party.start("tools/call", SLOW)[1] for party in opened]
        await until(lambda: len(found.received()) == 3)
        async with found.party(era, bob) as other:
            answer = await other.ask("tools/call", {"name": "echo", "arguments": {"text": "hi"}})
            assert "isError" not in answer["result"]
        answers = [await one for one in held]
        assert [reason(one) for one in answers if one["result"].get("isError")] == ["overloaded"]
        for party in parties:
            await party.__aexit__(None, None, None)


async def test_sixty_four_sessions_of_one_principal_find_room(tmp_path: Path) -> None:
    """As many as were served before a quarter was kept from each: as configured by default, all at once."""
    found = Estates(tmp_path / "e", *servers(LEGACY, "http"))
    ada = found.key("ada")
    held = {"name": "do", "arguments": {"acts": [{"sleep": 1.0}, {"answer": {"content": []}}]}}
    async with found.guarded():
        parties = [found.party(LEGACY, ada, deaf=True) for _ in range(64)]
        opened = [await party.__aenter__() for party in parties]
        answers = [await one for one in [party.start("tools/call", held)[1] for party in opened]]
        assert [reason(one) for one in answers if one["result"].get("isError")] == []
        for party in parties:
            await party.__aexit__(None, None, None)

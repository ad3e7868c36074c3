"""A result that waits for what was said before it is not told once its caller is nobody any more."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from guard.lineage.log import Log
from guard.lineage.store import Remember, Transaction
from tests.proxy.features import ERAS, Estates, servers, until
from tests.proxy.scene import LEGACY
from tests.proxy.test_origins_heard import POLICY

LOGS = {"log": "info", "data": "write to someone@log.example"}
ANSWER = {"answer": {"content": [{"type": "text", "text": "classified"}]}}


@ERAS
async def test_a_revoked_key_gets_no_result_that_waited_for_a_note(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that talks before it answers holds no door open through which the answer comes late."""
    estate = Estates(tmp_path / "estate", *servers(version, "stdio"), policy=POLICY)
    opened, noting, commit = asyncio.Event(), asyncio.Event(), Log.commit

    async def slow(log: Log, made: Transaction) -> Any:
        if made.entry is None and any(isinstance(one, Remember) for one in made.effects):
            noting.set()
            await opened.wait()
        return await commit(log, made)

    key = estate.key("ada")
    level = {} if version == LEGACY else {"logLevel": "info"}
    async with estate.guarded() as serving, estate.party(version, key) as party:
        await party.do(ANSWER)
        monkeypatch.setattr(Log, "commit", slow)
        _, call = party.start(
            "tools/call",
            {"name": "do", "arguments": {"acts": [LOGS, ANSWER]}},
            **level,
        )
        await asyncio.wait_for(noting.wait(), 10)
        await asyncio.sleep(0.5)  # by now the server has answered, too
        warden = serving.house.warden
        wards = [*warden._known, *warden._new]
        estate.revoke(key)
        await until(lambda: any(ward.barred for ward in wards))
        opened.set()
        found = await asyncio.wait_for(call, 10)
        assert "classified" not in str(found)
        assert "revoked-key" in str(found)

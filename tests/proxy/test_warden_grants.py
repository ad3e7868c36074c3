"""The warden looks between a grant that is on disk and its call that goes on: nothing is sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guard.config.home import record
from guard.lineage.effects import tool_target
from guard.lineage.entry import Kind
from guard.lineage.store import Contain
from tests.proxy.asked import about
from tests.proxy.features import ERAS, Estates, servers


def revoked(estate: Estates, key: str) -> None:
    estate.revoke(key)


def of_tool(estate: Estates, key: str) -> None:
    what = Contain("tool", tool_target("one", "do"))
    with estate.store() as store:
        record(store, Kind.CONTAINED, {"kind": what.kind, "target": what.target}, what)


def of_conversation(estate: Estates, key: str) -> None:
    with estate.store() as store:
        own = next(row for row in store.conversations() if row.subject == "someone")
        what = Contain("conversation", own.id)
        record(store, Kind.CONTAINED, {"kind": what.kind, "target": what.target}, what)


MOVES = [
    (revoked, "revoked-key"),
    (of_tool, "tool-contained"),
    (of_conversation, "conversation-contained"),
]


@ERAS
@pytest.mark.parametrize(("move", "reason"), MOVES)
async def test_what_moves_right_after_the_grant_stops_the_call(
    tmp_path: Path, version: str, move: Callable[[Estates, str], None], reason: str
) -> None:
    """The commit has happened, the call has not heard of it yet: it is looked after all the same."""
    estate = Estates(tmp_path / "estate", *servers(version, "stdio"))
    key = estate.key()
    async with estate.guarded() as serving, estate.party(version, key, deaf=True) as party:
        assert "isError" not in (await party.do({"answer": {"content": []}}))["result"]
        real = serving.house.log.commit

        async def commit(made: Any) -> Any:
            outcome = await real(made)
            if made.entry is not None and made.entry.kind is Kind.GRANTED:
                move(estate, key)
                serving.house.warden._look()
            return outcome

        serving.house.log.commit = commit  # type: ignore[method-assign]
        answer = await party.do({"answer": {"content": []}})
        assert about(answer)["reason"] == reason
    assert len(estate.received()) == 1
    assert [kinds[-1] for kinds in estate.endings()] == ["returned", "failed"]

"""What outlives its grant is authorized again: each kind of thing, however its caller came to an end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from guard.lineage.entry import Kind
from guard.proxy import warden
from tests.proxy.features import ERAS
from tests.proxy.scene import LEGACY, MODERN
from tests.proxy.wards import ANYWHERE, BY, CAUSES, NOBODY, ONE, UPDATED, about, listening, told, two


def test_what_was_revoked_is_closed_within_a_second() -> None:
    """The longest way is a newer policy that this Guard does not have: it is waited for, and seen then."""
    assert warden.GRACE_SECONDS + 2 * warden.LOOK_SECONDS <= 1.0


@ANYWHERE
@ERAS
async def test_a_call_under_way_ends_as_unknown(tmp_path: Path, version: str, cause: str) -> None:
    """Its ending is one entry with the reason; its server hears of it; nothing that it still says is told."""
    act, reason = CAUSES[cause]
    async with two(tmp_path, version, cause) as at:
        go = str(at.gate("go"))
        acts = [{"progress": 1}, {"appears": go}, {"progress": 2}, {"answer": {"content": [], "secret": "x"}}]
        params = {"name": "do", "arguments": {"acts": acts}}
        _, call = at.ended.start("tools/call", params, progressToken="t")
        _, beside = at.honest.start("tools/call", params, progressToken="h")
        for party in (at.ended, at.honest):
            await party.hears("notifications/progress")
        await act(at)
        found = about(await asyncio.wait_for(call, 20))
        assert (found["reason"], found["outcome"], found["retryable"]) == (reason, "unknown", False)
        at.gate("go").touch()
        assert (await beside)["result"]["secret"] == "x"
        assert len(at.honest.heard("notifications/progress")) == 2
        assert len(at.ended.heard("notifications/progress")) == 1
        assert "secret" not in json.dumps(at.ended.notes)
    (unknown,) = at.estate.written(Kind.UNKNOWN)
    assert unknown["reason"] == reason
    assert sorted(at.estate.endings()) == [["granted", "returned"], ["granted", "unknown"]]


@BY
async def test_a_sessions_stream_ends(tmp_path: Path, cause: str) -> None:
    """2025-11-25: with the last chunk. Who is nobody has no session either, and nobody gets another one."""
    act, reason = CAUSES[cause]
    async with two(tmp_path, LEGACY, cause) as at:
        assert at.estate.serving is not None
        sessions = at.estate.serving.front.sessions
        await at.ended.ask("tools/list")
        assert len(sessions) == 2
        await act(at)
        await asyncio.wait_for(at.ended.ended.wait(), 20)
        again = await at.ended.raw.send("GET")
        assert again.status == (401 if reason in NOBODY else 403)
        assert len(sessions) == (1 if reason in NOBODY else 2)
        await at.honest.settle()
        assert not at.honest.ended.is_set()


@BY
async def test_a_subscription_ends(tmp_path: Path, cause: str) -> None:
    """2026-07-28: it is answered with the reason, and called off at the server; another one's goes on."""
    act, reason = CAUSES[cause]
    async with two(tmp_path, MODERN, cause, "http") as at:
        end = await listening(at.ended, resourceSubscriptions=[ONE], toolsListChanged=True)
        await listening(at.honest, resourceSubscriptions=[ONE])
        await act(at)
        code = 4401 if reason in NOBODY else 4403
        assert told(await asyncio.wait_for(end, 20)) == (code, reason)
        await at.honest.do({"update": ONE})
        await at.honest.hears(UPDATED)
        assert at.ended.heard(UPDATED) == []
        answer = await at.ended.ask("subscriptions/listen", {"notifications": {}})
        assert answer["error"]["code"] == code

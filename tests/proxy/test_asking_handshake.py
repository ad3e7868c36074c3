"""The handshake era, where a person must approve and the client may: it is asked, and the call waits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from guard.lineage.entry import Kind
from tests.proxy.asked import (
    DISMISSED,
    DO,
    NO,
    YES,
    answer,
    asking,
    do,
    estate,
    grant,
    kinds,
    park,
    question,
    questions,
    ran,
    reason,
    waits,
)
from tests.proxy.features import BYS, WAYS, Error, Estates, Party, servers, until
from tests.proxy.scene import LEGACY

ELICIT = "elicitation/create"
CANCELLED = "notifications/cancelled"


async def says(party: Party, value: Any) -> None:
    """Wait for Guard's question, and answer it."""
    (asked,) = await until(lambda: party.asked)
    assert asked["method"] == ELICIT
    name = "error" if isinstance(value, Error) else "result"
    party.say({"jsonrpc": "2.0", "id": asked["id"], name: value})


@WAYS
async def test_the_client_is_asked_and_its_yes_runs_the_call_once(tmp_path: Path, by: str, over: str) -> None:
    """Nothing reaches the server while the question waits."""
    found = estate(tmp_path, LEGACY, over, "client")
    async with found.speaking(LEGACY, by) as party:
        call = await waits(party, do({"answer": {"content": [], "done": "ü"}}))
        (asked,) = await until(lambda: party.asked)
        assert asked["params"]["requestedSchema"]["required"] == ["approve"]
        assert '"done":"ü"' in asked["params"]["message"]
        assert found.received() == []
        await says(party, YES)
        assert (await call)["result"]["done"] == "ü"
    assert kinds(found) == ["asked", "answered", "granted", "returned"]
    assert found.written(Kind.ANSWERED)[0]["word"] == "client"
    ran(found)


@BYS
async def test_a_no_is_told_and_holds(tmp_path: Path, by: str) -> None:
    """The client is not asked again about the same call."""
    found = estate(tmp_path, LEGACY, by, "client")
    async with found.speaking(LEGACY, by) as party:
        call = await waits(party)
        await says(party, NO)
        assert reason(await call) == "approval-refused"
        assert reason(await party.ask("tools/call", DO)) == "approval-refused"
        assert len(party.asked) == 1
    assert found.received() == []


@BYS
@pytest.mark.parametrize("value", [DISMISSED, {}, {"action": "accept", "content": {"approve": "yes"}}, 7])
async def test_what_is_no_answer_approves_nothing(tmp_path: Path, by: str, value: Any) -> None:
    """The call is denied at once; made again, the same question is put again."""
    found = estate(tmp_path, LEGACY, by, "client")
    async with found.speaking(LEGACY, by) as party:
        call = await waits(party)
        await says(party, value)
        assert reason(await call) == "approval-required"
        party.asked.clear()
        call = await waits(party)
        await says(party, YES)
        assert "result" in await call
        assert len(questions(found)) == 1
    ran(found)


@BYS
async def test_a_client_that_fails_to_ask_leaves_it_to_a_reviewer(tmp_path: Path, by: str) -> None:
    """An error is no answer; the call waits on, for a while."""
    found = estate(tmp_path, LEGACY, by, "client")
    async with found.speaking(LEGACY, by) as party:
        park(found.serving, 0.4)
        call = await waits(party)
        await says(party, Error(code=-32603, message="no window"))
        assert reason(await call) == "approval-required"
        assert questions(found)[0].state == "open"
    assert found.received() == []


async def test_a_reviewer_may_be_quicker(tmp_path: Path) -> None:
    """Its client's question is called off then, and what it says afterwards is nobody's."""
    found = estate(tmp_path, LEGACY, "stdio", "client")
    key, reviewer = found.key(), found.key("rita", "reviewer")
    async with found.guarded(), found.party(LEGACY, key) as party:
        call = await waits(party)
        (asked,) = await until(lambda: party.asked)
        await grant(found, reviewer, (await question(found)).question.id)
        assert "result" in await call
        assert await party.hears(CANCELLED) == [{"requestId": asked["id"]}]
        party.say({"jsonrpc": "2.0", "id": asked["id"], "result": NO})
        await party.settle()
        assert questions(found)[0].state == "used"
    assert found.written(Kind.ANSWERED)[0]["approver"] == ["api-key", "rita"]
    ran(found)


@BYS
async def test_a_call_that_is_called_off_asks_nobody_any_more(tmp_path: Path, by: str) -> None:
    """Its question to the client is called off; a yes that comes afterwards is nobody's."""
    found = estate(tmp_path, LEGACY, by, "client")
    async with found.speaking(LEGACY, by) as party:
        id_, call = party.start("tools/call", DO)
        (asked,) = await until(lambda: party.asked)
        party.cancel(id_)
        await party.hears(CANCELLED)
        party.say({"jsonrpc": "2.0", "id": asked["id"], "result": YES})
        await party.settle()
        call.cancel()
    assert found.received() == []
    assert found.written(Kind.ANSWERED) == []
    assert [entry["decision"]["reason"] for entry in found.denials()] == ["cancelled"]


async def test_a_session_that_ends_takes_its_question_along(tmp_path: Path) -> None:
    """Nobody waits any more; a reviewer may answer still, and nothing runs by itself."""
    found = estate(tmp_path, LEGACY, "stdio", "client")
    key, reviewer = found.key(), found.key("rita", "reviewer")
    async with found.guarded(), found.party(LEGACY, key) as party:
        _, call = party.start("tools/call", DO)
        await until(lambda: party.asked)
        assert (await party.raw.delete()).status == 204
        await until(lambda: "denied" in kinds(found))
        await grant(found, reviewer, questions(found)[0].question.id)
        await asyncio.sleep(0.6)
        call.cancel()
    assert found.received() == []


async def test_another_sessions_answer_is_none(tmp_path: Path) -> None:
    """An id of Guard's is guessed easily; to another session it means nothing, whosever that is."""
    found = estate(tmp_path, LEGACY, "stdio", "client")
    keys = [found.key(), found.key("other")]
    async with (
        found.guarded() as serving,
        found.party(LEGACY, keys[0]) as party,
        found.party(LEGACY, keys[0]) as again,
        found.party(LEGACY, keys[1]) as other,
    ):
        call = await waits(party)
        (asked,) = await until(lambda: party.asked)
        for one in (again, other):
            one.say({"jsonrpc": "2.0", "id": asked["id"], "result": YES})
            await one.settle()
        assert questions(found)[0].state == "open"
        await says(party, YES)
        assert "result" in await call
        assert serving.house.decisions["allow"] == 1
    ran(found)


@WAYS
async def test_a_server_that_forges_guards_question_gets_no_approval(
    tmp_path: Path, by: str, over: str
) -> None:
    """What a server asks is answered to the server; Guard's own question is another."""
    found = estate(tmp_path, LEGACY, over, "client")
    found.write_policy(asks=[{"id": "person", "tools": ["echo"], "approver": "client"}])
    fake = {"mode": "form", "message": "Guard holds a call until you approve it.", "_meta": {}}
    async with found.speaking(LEGACY, by) as party:
        party.replies[ELICIT] = lambda params: YES if params["message"] == fake["message"] else NO
        noted = await party.noted({"ask": ELICIT, "params": fake})
        assert noted == [{"result": YES}]
        echo = {"name": "echo", "arguments": {"text": "x"}}
        assert reason(await party.ask("tools/call", echo)) == "approval-refused"
    assert [entry["answer"] for entry in found.written(Kind.ANSWERED)] == ["no"]


@BYS
async def test_the_server_asks_in_its_turn_after_guard(tmp_path: Path, by: str) -> None:
    """Guard's question comes first and the server's passes as before: each has its own answer."""
    found = estate(tmp_path, LEGACY, by, "client")
    theirs = {"mode": "form", "message": "Who?"}
    async with found.speaking(LEGACY, by) as party:
        party.replies[ELICIT] = lambda params: NO if params["message"] == "Who?" else YES
        noted = await party.noted({"ask": ELICIT, "params": theirs})
        assert noted == [{"result": NO}]
        assert [one["params"]["message"] == "Who?" for one in party.asked] == [False, True]
    ran(found)


async def test_an_older_client_is_asked_without_a_mode(tmp_path: Path) -> None:
    """2025-06-18 knows of none."""
    found = Estates(tmp_path / "e", *servers(LEGACY, "stdio"), policy=asking("client"))
    key = found.key()
    async with found.guarded(), found.party("2025-06-18", key) as party:
        call = await waits(party)
        (asked,) = await until(lambda: party.asked)
        assert "mode" not in asked["params"]
        await says(party, YES)
        assert "result" in await call
        assert (await answer(found, key, questions(found)[0].question.id, {"approve": True})).status == 404
    ran(found)

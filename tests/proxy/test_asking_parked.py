"""Where a reviewer must approve: the call is parked, and what it finds when an answer comes, or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from guard.config.home import open_home
from guard.config.serve import Serving
from guard.config.settings import load_settings
from guard.lineage.entry import Kind
from guard.proxy import asking as asking_module
from tests.proxy.asked import (
    DO,
    about,
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
from tests.proxy.features import ERAS, WAYS, Estates, Party, servers, until
from tests.proxy.scene import LEGACY, MODERN, PATIENCE
from tests.proxy.wards import LIFE, clocked, command, contain, someone


@asynccontextmanager
async def scene(
    tmp_path: Path, version: str = MODERN, over: str = "stdio", *, many: bool = False, **more: Any
) -> AsyncIterator[tuple[Estates, Party, str]]:
    """A caller whose calls of `do` a reviewer must approve, and the reviewer's key."""
    found = Estates(tmp_path / "e", *servers(version, over, many=many), policy=asking("reviewer", **more))
    key, reviewer = found.key(), found.key("rita", "reviewer")
    async with found.guarded(), found.party(version, key) as party:
        yield found, party, reviewer


async def approved(found: Estates, party: Party, reviewer: str, params: Any = DO) -> str:
    """An approval that nobody used yet: the call was called off before the answer came. Its question's id."""
    count = len(questions(found))
    id_, call = party.start("tools/call", params)
    row = await question(found, count + 1)
    party.cancel(id_)
    await until(lambda: kinds(found).count("denied") > count)
    call.cancel()
    await grant(found, reviewer, row.question.id)
    return row.question.id


@ERAS
@pytest.mark.parametrize("over", ["stdio", "http"])
async def test_a_parked_call_runs_once_a_reviewer_says_yes(tmp_path: Path, version: str, over: str) -> None:
    """Nothing reaches the server before; then exactly what was approved does."""
    async with scene(tmp_path, version, over) as (found, party, reviewer):
        call = await waits(party, do({"answer": {"content": [], "done": 1}}))
        row = await question(found)
        assert found.received() == []
        await grant(found, reviewer, row.question.id)
        assert (await call)["result"]["done"] == 1
    assert kinds(found) == ["asked", "answered", "granted", "returned"]
    (said,) = found.written(Kind.ANSWERED)
    assert (said["word"], said["approver"]) == ("reviewer", ["api-key", "rita"])
    (artifact,) = found.granted("one", "tools/call")
    approval = {"id": said["question"], "approver": "api-key/rita", "word": "reviewer"}
    assert artifact.claims["tctx"]["approval"] == approval
    assert found.written(Kind.GRANTED)[0]["approval"] == approval
    ran(found)


@WAYS
async def test_on_any_way_a_call_waits_for_the_command(tmp_path: Path, by: str, over: str) -> None:
    """`guard approvals grant` is another process on the same store."""
    found = estate(tmp_path, MODERN, over, "reviewer")
    reviewer = found.key("rita", "reviewer")
    (tmp_path / "key").write_text(f"{reviewer}\n")
    async with found.speaking(MODERN, by) as party:
        call = await waits(party)
        row = await question(found)
        words = ["--policy", str(found.folder / "policy.json"), "--key-file", str(tmp_path / "key")]
        await command(found, "approvals", "grant", row.question.id, *words)
        assert "result" in await call
    ran(found)


@ERAS
async def test_nobody_answers_and_the_call_is_denied_until_somebody_does(
    tmp_path: Path, version: str
) -> None:
    """The denial names the question and invites a retry; the retry finds the answer, and is used once."""
    async with scene(tmp_path, version) as (found, party, reviewer):
        park(found.serving, 0.3)
        first = await party.ask("tools/call", DO)
        said = about(first)
        assert (said["reason"], said["retryable"]) == ("approval-required", True)
        (row,) = questions(found)
        assert said["question"] == row.question.id
        assert row.question.id in first["result"]["content"][0]["text"]
        assert "rita" not in str(first)
        assert about(await party.ask("tools/call", DO))["question"] == row.question.id
        await grant(found, reviewer, row.question.id)
        assert "isError" not in (await party.ask("tools/call", DO))["result"]
        assert about(await party.ask("tools/call", DO))["question"] != row.question.id
    ran(found)
    assert len(found.written(Kind.ASKED)) == 2


@ERAS
async def test_a_reviewers_no_is_told_and_holds(tmp_path: Path, version: str) -> None:
    """The parked call is refused at once, and so is the same call until the question is void."""
    async with scene(tmp_path, version) as (found, party, reviewer):
        call = await waits(party)
        await grant(found, reviewer, (await question(found)).question.id, yes=False)
        assert about(await call)["reason"] == "approval-refused"
        said = about(await party.ask("tools/call", DO))
        assert (said["reason"], said["retryable"]) == ("approval-refused", False)
        park(found.serving, 0.3)
        assert reason(await party.ask("tools/call", do({"sleep": 0}))) == "approval-required"
    assert found.received() == []


async def test_an_approval_is_for_no_other_call_or_principal(tmp_path: Path) -> None:
    """Other arguments, another server, another tool, another caller: each is asked about for itself."""
    async with scene(tmp_path, many=True) as (found, party, reviewer):
        found.write_policy(version=2, asks=[{"id": "person", "tools": ["*"]}])
        assert found.serving is not None
        assert await found.serving.reload()
        params = do(many=True)
        await approved(found, party, reviewer, params)
        park(found.serving, 0.0)
        others = [
            do({"sleep": 0}, many=True),
            {**params, "arguments": {"acts": [], "more": None}},
            {**params, "name": "two__do"},
            {**params, "name": "one__echo"},
        ]
        for other in others:
            assert reason(await party.ask("tools/call", other)) == "approval-required", other
        async with found.party(MODERN, found.key("other")) as another:
            assert reason(await another.ask("tools/call", params)) == "approval-required"
        assert found.received() == []
        assert "isError" not in (await party.ask("tools/call", params))["result"]
    ran(found)


async def test_an_approval_outlives_a_restart(tmp_path: Path) -> None:
    """Question and answer are durable; the same call finds them in another process's time."""
    found = estate(tmp_path, MODERN, "stdio", "reviewer")
    key, reviewer = found.key(), found.key("rita", "reviewer")
    async with found.guarded() as serving, found.party(MODERN, key) as party:
        park(serving, 0.0)
        await party.ask("tools/call", DO)
    async with found.guarded(), found.party(MODERN, key) as party:
        await grant(found, reviewer, questions(found)[0].question.id)
    async with found.guarded(), found.party(MODERN, key) as party:
        assert "isError" not in (await party.ask("tools/call", DO))["result"]
    ran(found)


async def test_an_approval_is_void_after_its_time(tmp_path: Path) -> None:
    """To the millisecond: neither question nor yes outlives the window."""
    with clocked() as clock:
        async with scene(tmp_path, ttl=f"{LIFE}s") as (found, party, reviewer):
            await approved(found, party, reviewer)
            clock.run_out()
            park(found.serving, 0.0)
            assert reason(await party.ask("tools/call", DO)) == "approval-required"
    assert found.received() == []


async def test_a_question_that_runs_out_while_the_call_is_parked_ends_the_wait(tmp_path: Path) -> None:
    """Nobody can answer it any more."""
    with clocked() as clock:
        async with scene(tmp_path, ttl=f"{LIFE}s") as (found, party, reviewer):
            call = await waits(party)
            row = await question(found)
            clock.run_out()
            assert reason(await call) == "approval-required"
            client = found.client(key=reviewer)
            late = await client.post(b'{"approve":true}', path=f"/approvals/{row.question.id}")
            assert late.status == 409
    assert found.received() == []


async def test_an_approval_falls_with_its_reviewers_key(tmp_path: Path) -> None:
    """A yes that was not used yet counts only while whoever gave it could give it again."""
    async with scene(tmp_path) as (found, party, reviewer):
        await approved(found, party, reviewer)
        found.revoke(reviewer)
        park(found.serving, 0.0)
        assert reason(await party.ask("tools/call", DO)) == "approval-required"
        assert len(questions(found)) == 2, "it is asked about anew"
        another = found.key("rita", "reviewer")
        await grant(found, another, questions(found)[1].question.id)
        assert "isError" not in (await party.ask("tools/call", DO))["result"]
    ran(found)


@pytest.mark.parametrize("how", ["role", "contained"])
async def test_an_approval_falls_with_its_reviewers_rights(tmp_path: Path, how: str) -> None:
    """The role may approve no more, or the reviewer is contained."""
    async with scene(tmp_path) as (found, party, reviewer):
        await approved(found, party, reviewer)
        assert found.serving is not None
        if how == "contained":
            contain(found, "principal", someone("rita"))
        else:
            roles = {**found.policy["roles"], "reviewer": {"scopes": ["use"]}}
            found.write_policy(version=2, roles=roles)
            assert await found.serving.reload()
        park(found.serving, 0.0)
        assert reason(await party.ask("tools/call", DO)) == "approval-required"
    assert found.received() == []


async def test_an_approval_removes_no_denial(tmp_path: Path) -> None:
    """The retry is decided afresh under the policy in force."""
    async with scene(tmp_path) as (found, party, reviewer):
        await approved(found, party, reviewer)
        found.write_policy(version=2, protected=[{"id": "never", "tools": ["do"]}])
        assert found.serving is not None
        assert await found.serving.reload()
        assert reason(await party.ask("tools/call", DO)) == "protected"
    assert found.received() == []


async def test_a_policy_tightened_while_a_call_is_parked_denies_it(tmp_path: Path) -> None:
    """A yes to a parked call is no yes of the new policy."""
    async with scene(tmp_path) as (found, party, reviewer):
        call = await waits(party)
        row = await question(found)
        found.write_policy(version=2, protected=[{"id": "never", "tools": ["do"]}])
        assert found.serving is not None
        assert await found.serving.reload()
        await grant(found, reviewer, row.question.id)
        assert reason(await call) == "protected"
    assert found.received() == []


@ERAS
async def test_many_calls_alike_ask_once_and_an_approval_runs_one(tmp_path: Path, version: str) -> None:
    """One question, one yes, one run. Of the others, those too late for the race are asked about anew."""
    async with scene(tmp_path, version) as (found, party, reviewer):
        park(found.serving, 8)
        calls = [await waits(party) for _ in range(16)]
        row = await question(found)
        await grant(found, reviewer, row.question.id)
        answers = await asyncio.gather(*calls)
        denied = [about(one)["reason"] for one in answers if one["result"].get("isError")]
        assert denied == ["approval-required"] * 15
        assert [row.state for row in questions(found)] in (["used"], ["used", "open"])
    ran(found)


async def test_64_retries_at_once_run_once(tmp_path: Path) -> None:
    """The approval is used up in the transaction that grants."""
    async with scene(tmp_path) as (found, party, reviewer):
        await approved(found, party, reviewer)
        park(found.serving, 0.0)
        answers = await asyncio.gather(*[await waits(party) for _ in range(64)])
        assert sum("isError" not in one["result"] for one in answers) == 1
    ran(found)


@ERAS
async def test_a_parked_call_can_be_called_off(tmp_path: Path, version: str) -> None:
    """A yes that comes afterwards runs nothing by itself."""
    async with scene(tmp_path, version) as (found, party, reviewer):
        id_, call = party.start("tools/call", DO)
        row = await question(found)
        party.cancel(id_)
        await until(lambda: "denied" in kinds(found))
        await grant(found, reviewer, row.question.id)
        await asyncio.sleep(3 * asking_module.LOOK_SECONDS)
        call.cancel()
    assert found.received() == []
    assert [entry["decision"]["reason"] for entry in found.denials()] == ["cancelled"]


@ERAS
@pytest.mark.parametrize("how", ["revoked", "contained", "unlisted"])
async def test_a_parked_call_is_authorized_again_while_it_waits(
    tmp_path: Path, version: str, how: str
) -> None:
    """Its key, its principal, its tool: whoever may call it no longer waits no longer."""
    found = Estates(tmp_path / "e", *servers(version, "stdio"), policy=asking("reviewer"))
    key = found.key()
    async with found.guarded() as serving, found.party(version, key) as party:
        call = await waits(party)
        await question(found)
        if how == "revoked":
            found.revoke(key)
        elif how == "contained":
            contain(found, "principal", someone())
        else:
            found.write_policy(version=2, tools=[{"match": "echo", "scopes": ["use"]}])
            assert await serving.reload()
        expected = {
            "revoked": "revoked-key",
            "contained": "principal-contained",
            "unlisted": "unknown-tool",
        }
        assert reason(await call) == expected[how]
    assert found.received() == []


async def test_the_answer_may_be_given_to_another_replica(tmp_path: Path) -> None:
    """The call waits in one Guard; the reviewer speaks to another on the same store."""
    async with scene(tmp_path) as (found, party, reviewer):
        call = await waits(party)
        row = await question(found)
        store = open_home(found.home).store()
        other = Serving(found.config, load_settings(found.config), open_home(found.home), store)
        try:
            await other.open()
            first, found.serving = found.serving, other
            await grant(found, reviewer, row.question.id)
            found.serving = first
        finally:
            await asyncio.wait_for(other.close(), PATIENCE)
        assert "isError" not in (await call)["result"]
    ran(found)


async def test_a_caller_cannot_flood_the_reviewers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many questions of one principal may be open, and no more; another's are not touched by that."""
    monkeypatch.setattr(asking_module, "MAX_OPEN", 3)
    async with scene(tmp_path) as (found, party, _):
        park(found.serving, 0.0)
        reasons = [reason(await party.ask("tools/call", do({"sleep": n}))) for n in range(5)]
        assert reasons == ["approval-required"] * 3 + ["overloaded"] * 2
        async with found.party(MODERN, found.key("other")) as other:
            assert reason(await other.ask("tools/call", DO)) == "approval-required"
        assert len(questions(found)) == 4


async def test_prompts_and_resources_are_parked_as_tools_are(tmp_path: Path) -> None:
    """Whatever reads or acts goes the one way; a denial of it is an error."""
    rules = [{"id": "reading", "resources": ["test://shown/*"]}, {"id": "person", "prompts": ["hello"]}]
    found = Estates(tmp_path / "e", *servers(LEGACY, "stdio"), policy={**asking("reviewer"), "asks": rules})
    key, reviewer = found.key(), found.key("rita", "reviewer")
    async with found.guarded() as serving, found.party(LEGACY, key) as party:
        park(serving, 0.0)
        for method, params in (
            ("prompts/get", {"name": "hello", "arguments": {"who": "ü"}}),
            ("resources/read", {"uri": "test://shown/text"}),
        ):
            said = about(await party.ask(method, params))
            assert said["reason"] == "approval-required"
            await grant(found, reviewer, said["question"])
            assert "result" in await party.ask(method, params)
    assert kinds(found).count("returned") == 2

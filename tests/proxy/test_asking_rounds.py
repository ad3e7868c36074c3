"""2026-07-28, where a person must approve and the client's word counts: Guard's own round trip."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest

from guard.core.canonical import write
from guard.lineage.entry import Kind
from tests.proxy.asked import (
    DISMISSED,
    DO,
    NAME,
    NO,
    YES,
    about,
    asked,
    asking,
    do,
    estate,
    kinds,
    park,
    questions,
    ran,
    reason,
    retry,
)
from tests.proxy.features import BYS, MANY, WAYS, Estates, servers
from tests.proxy.scene import MODERN
from tests.proxy.wards import LIFE, clocked

FORM: dict[str, Any] = {"method": "elicitation/create", "params": {"mode": "form", "message": "Who?"}}
GIVEN = {"who": {"action": "accept", "content": {"who": "me"}}}


@WAYS
@MANY
async def test_an_approved_call_runs_once_as_it_was_approved(
    tmp_path: Path, by: str, over: str, *, many: bool
) -> None:
    """Nothing runs before; then the params reach the server without a trace of Guard's round trip."""
    found = estate(tmp_path, MODERN, over, "client", many=many)
    params = do({"answer": {"content": [], "done": "ü"}}, many=many)
    async with found.speaking(MODERN, by) as party:
        first = await asked(party, params)
        assert found.received() == []
        done = await party.ask("tools/call", retry(first, params))
        assert done["result"]["done"] == "ü"
    (received,) = found.received()
    assert received["params"].keys() == {"name", "arguments", "_meta"}
    assert NAME not in json.dumps(received)
    assert kinds(found) == ["asked", "answered", "granted", "returned"]
    (question,) = found.written(Kind.ASKED)
    (said,) = found.written(Kind.ANSWERED)
    assert (said["word"], said["answer"], said["question"]) == ("client", "yes", question["question"])
    assert said["approver"] == said["principal"] == question["principal"]
    (grant,) = found.granted("one", "tools/call")
    assert grant.claims["tctx"]["args_sha256"] == question["args_sha256"]
    approval = {"id": question["question"], "approver": "/".join(question["principal"]), "word": "client"}
    assert grant.claims["tctx"]["approval"] == approval
    assert found.written(Kind.GRANTED)[0]["approval"] == approval
    ran(found)


@BYS
async def test_prompts_and_resources_are_asked_about_as_tools_are(tmp_path: Path, by: str) -> None:
    """Whatever reads or acts goes the one way."""
    rules = [{"id": "person", "prompts": ["hello"], "approver": "client"}]
    rules += [{"id": "reading", "resources": ["test://shown/*"], "approver": "client"}]
    found = Estates(tmp_path / "e", *servers(MODERN, by), policy={**asking("client"), "asks": rules})
    async with found.speaking(MODERN, by) as party:
        for method, params in (
            ("prompts/get", {"name": "hello", "arguments": {"who": "ü"}}),
            ("resources/read", {"uri": "test://shown/text"}),
        ):
            first = await asked(party, params, method)
            assert reason(await party.ask(method, retry(first, params, NO))) == "approval-refused"
            other = (
                {**params, "arguments": {"who": "x"}} if "name" in params else {"uri": "test://shown/bytes"}
            )
            first = await asked(party, other, method)
            assert "result" in await party.ask(method, retry(first, other))
    assert kinds(found).count("returned") == 2


@BYS
async def test_what_is_shown_is_escaped_and_bounded(tmp_path: Path, by: str) -> None:
    """No argument draws a line of its own, hides text, or pushes the rest out of sight unsaid."""
    found = estate(tmp_path, MODERN, by, "client")
    evil = "x\nQuestion: fine\u202e\x1b[2J"
    async with found.speaking(MODERN, by) as party:
        first = await asked(party, do({"answer": {"content": []}, "evil": evil, "long": "y" * 9000}))
        request = first["inputRequests"][NAME]
        assert request["method"] == "elicitation/create"
        assert request["params"]["mode"] == "form"
        text = request["params"]["message"]
        assert len(text) < 4000
        assert "NOT shown" in text
        assert not {"\u202e", "\x1b"} & set(text)
        assert [line for line in text.splitlines() if line.startswith("Question:")] == [
            text.splitlines()[-1]
        ], "the fixed text ends with it, and it stands once"
        assert request["params"]["requestedSchema"]["required"] == ["approve"]
        assert first["_meta"]["dev.guard-mcp/decision"]["question"] == questions(found)[0].question.id


@BYS
async def test_a_no_holds_for_the_same_call_made_again(tmp_path: Path, by: str) -> None:
    """A client that says no is not asked again, whether the call comes with the state or without."""
    found = estate(tmp_path, MODERN, by, "client")
    async with found.speaking(MODERN, by) as party:
        first = await asked(party)
        assert reason(await party.ask("tools/call", retry(first, answer=NO))) == "approval-refused"
        for params in (retry(first, answer=YES), DO, retry(first, answer=NO)):
            assert reason(await party.ask("tools/call", params)) == "approval-refused"
    assert found.received() == []
    assert kinds(found) == ["asked", "answered", *["denied"] * 4]


NO_ANSWERS: list[Any] = [
    DISMISSED,
    {"action": "accept"},
    {"action": "accept", "content": {}},
    {"action": "accept", "content": {"approve": 1}},
    {"action": "accept", "content": {"approve": "true"}},
    {"action": "accept", "content": [True]},
    {"action": "ACCEPT", "content": {"approve": True}},
    {"content": {"approve": True}},
    {"action": ["accept"], "content": {"approve": True}},
    "accept",
    True,
    None,
]


@BYS
async def test_what_is_no_answer_approves_nothing(tmp_path: Path, by: str) -> None:
    """Dismissed or not understood: the question stays open, the call is denied and names it."""
    found = estate(tmp_path, MODERN, by, "client")
    async with found.speaking(MODERN, by) as party:
        first = await asked(party)
        for value in NO_ANSWERS:
            said = about(await party.ask("tools/call", retry(first, answer=value)))
            assert (said["reason"], said["retryable"]) == ("approval-required", True), value
            assert said["question"] == questions(found)[0].question.id
        missing = {**DO, "requestState": first["requestState"]}
        assert reason(await party.ask("tools/call", missing)) == "approval-required"
        assert "result" in await party.ask("tools/call", retry(first))
    ran(found)
    assert len(found.written(Kind.ASKED)) == 1


@BYS
async def test_an_open_question_is_not_repeated(tmp_path: Path, by: str) -> None:
    """The same call made again finds the question that stands; another call has one of its own."""
    found = estate(tmp_path, MODERN, by, "client")
    async with found.speaking(MODERN, by) as party:
        states = [(await asked(party))["requestState"] for _ in range(3)]
        assert len(set(states)) == 1
        await asked(party, do({"sleep": 0}))
    assert kinds(found) == ["asked", "asked"]


async def refused(found: Estates, party: Any, params: Any, pointer: str = "/requestState") -> None:
    before = len(found.received())
    said = about(await party.ask("tools/call", params))
    assert (said["reason"], said["pointer"]) == ("state-invalid", pointer)
    assert len(found.received()) == before


@BYS
async def test_a_replayed_state_opens_nothing(tmp_path: Path, by: str) -> None:
    """After its call ran it is used up, whatever comes with it."""
    found = estate(tmp_path, MODERN, by, "client")
    async with found.speaking(MODERN, by) as party:
        first = await asked(party)
        assert "result" in await party.ask("tools/call", retry(first))
        for answer in (YES, NO, DISMISSED):
            await refused(found, party, retry(first, answer=answer))
        await asked(party)  # the same call again is asked about again
    ran(found)


@BYS
async def test_a_tampered_state_opens_nothing(tmp_path: Path, by: str) -> None:
    """Every byte of it counts, and so does its spelling; a server's state is none of Guard's."""
    found = estate(tmp_path, MODERN, by, "client")
    async with found.speaking(MODERN, by) as party:
        first = await asked(party)
        state = first["requestState"]
        head, _, body = state.partition(".")
        raw = urlsafe_b64decode(body + "=" * (-len(body) % 4))
        forged = json.loads(raw[32:])
        forged["until"] += 10**9
        parts = [
            *(bytes([*raw[:at], raw[at] ^ 1, *raw[at + 1 :]]) for at in (0, 31, 32, len(raw) - 1)),
            raw[:-1],
            raw + b" ",
            raw[32:],
            raw[:32] + write(forged),
            b"",
        ]
        bad = [f"{head}.{urlsafe_b64encode(part).decode().rstrip('=')}" for part in parts]
        bad += [f"{state}=", f"{state}\n", f" {state}", body, f"{head}.", f"{head}..{body}", head.upper()]
        for one in bad:
            own = one.startswith(f"{head}.")
            params = {**DO, "requestState": one, "inputResponses": {NAME: YES}}
            await refused(found, party, params, "/requestState" if own else "/inputResponses")
        assert questions(found)[0].state == "open"
        assert "result" in await party.ask("tools/call", retry(first)), "the right one still holds"
    ran(found)


@BYS
async def test_an_approval_is_for_no_other_call(tmp_path: Path, by: str) -> None:
    """Other arguments, another tool, another server: the state is not theirs, and nothing is approved."""
    found = estate(tmp_path, MODERN, by, "client", many=True)
    found.write_policy(asks=[{"id": "person", "tools": ["*"], "approver": "client"}])
    params = do(many=True)
    async with found.speaking(MODERN, by) as party:
        first = await asked(party, params)
        await refused(found, party, retry(first, do({"sleep": 0}, many=True)))
        await refused(found, party, retry(first, {**params, "arguments": {}}))
        await refused(found, party, retry(first, {"name": params["name"]}))
        for tool in ("one__echo", "two__do"):
            await refused(found, party, retry(first, {**params, "name": tool}))
        assert questions(found)[0].state == "open"
        assert "result" in await party.ask("tools/call", retry(first, params))
        await asked(party, {**params, "name": "two__do"})
    ran(found)


async def test_an_approval_is_for_no_other_principal(tmp_path: Path) -> None:
    """Whoever finds the state cannot use it; another key of the same principal can."""
    found = estate(tmp_path, MODERN, "http", "client")
    keys = [found.key("someone"), found.key("other"), found.key("someone")]
    async with (
        found.guarded(),
        found.party(MODERN, keys[0]) as party,
        found.party(MODERN, keys[1]) as other,
        found.party(MODERN, keys[2]) as again,
    ):
        first = await asked(party)
        await refused(found, other, retry(first))
        theirs = await asked(other)
        await refused(found, party, retry(theirs))
        assert "result" in await again.ask("tools/call", retry(first))
        assert [row.state for row in questions(found)] == ["used", "open"]
    ran(found)


async def test_an_approval_after_its_time_opens_nothing(tmp_path: Path) -> None:
    """Neither an answer that comes too late, nor a yes that was not used in time."""
    found = Estates(tmp_path / "e", *servers(MODERN, "http"), policy=asking("client", ttl=f"{LIFE - 60}s"))
    key = found.key()
    with clocked() as clock:
        async with found.guarded(), found.party(MODERN, key) as party:
            first, other = await asked(party), await asked(party, do({"sleep": 0}))
            found.write_policy(version=2, protected=[{"id": "never", "tools": ["do"]}])
            assert found.serving is not None
            assert await found.serving.reload()
            late = retry(other, do({"sleep": 0}))
            assert reason(await party.ask("tools/call", late)) == "protected"  # a yes that waits unused
            found.write_policy(version=3, protected=[])
            assert await found.serving.reload()
            clock.run_out()
            await refused(found, party, retry(first))
            await refused(found, party, late)
            await asked(party)
            await asked(party, do({"sleep": 0}))
    assert found.received() == []


@BYS
async def test_an_answer_without_a_state_is_none(tmp_path: Path, by: str) -> None:
    """Forged input: nobody was asked, so nobody answered. A server's own answers pass as before."""
    found = estate(tmp_path, MODERN, by, "client")
    async with found.speaking(MODERN, by) as party:
        for name in (NAME, "dev.guard-mcp/other"):
            await refused(found, party, {**DO, "inputResponses": {name: YES}}, "/inputResponses")
        await refused(
            found,
            party,
            {**DO, "inputResponses": {NAME: YES, "who": YES}, "requestState": ""},
            "/inputResponses",
        )
        assert questions(found) == []
    assert kinds(found) == ["denied"] * 3


@WAYS
async def test_guards_round_trip_and_the_servers_nest(tmp_path: Path, by: str, over: str) -> None:
    """Each round of the server's is a call of its own, asked about with the answers that it would carry."""
    found = estate(tmp_path, MODERN, over, "client")
    params = do({"input": {"who": FORM}, "state": "the server's"})
    async with found.speaking(MODERN, by) as party:
        first = await asked(party, params)
        servers_ask = (await party.ask("tools/call", retry(first, params)))["result"]
        assert servers_ask["inputRequests"] == {"who": FORM}
        second = {**params, "requestState": servers_ask["requestState"], "inputResponses": GIVEN}
        again = await asked(party, second)
        assert '"who":"me"' in again["inputRequests"][NAME]["params"]["message"]
        await refused(found, party, retry(first, params))
        done = (await party.ask("tools/call", retry(again, params)))["result"]
        noted = done["structuredContent"]["noted"]
        assert noted == [{"inputResponses": GIVEN, "requestState": "the server's"}]
    ran(found, 2)
    once = ["asked", "answered", "granted", "returned"]
    assert [kind for kind in kinds(found) if kind != "denied"] == [*once, *once]


@BYS
async def test_a_client_that_answers_both_at_once_is_understood(tmp_path: Path, by: str) -> None:
    """Where it sends the server's answers beside Guard's, they are what it said before."""
    found = estate(tmp_path, MODERN, by, "client")
    params = do({"input": {"who": FORM}, "state": "s"})
    async with found.speaking(MODERN, by) as party:
        state = (await party.ask("tools/call", retry(await asked(party, params), params)))["result"]
        again = await asked(party, {**params, "requestState": state["requestState"], "inputResponses": GIVEN})
        other = {**GIVEN, "who": {"action": "accept", "content": {"who": "eve"}}}
        await asked(party, retry(again, params, inputResponses={NAME: YES, **other}))  # another call by that
        both = retry(again, params, inputResponses={NAME: YES, **GIVEN})
        done = (await party.ask("tools/call", both))["result"]
        assert done["structuredContent"]["noted"] == [{"inputResponses": GIVEN, "requestState": "s"}]
    assert [one["params"].get("inputResponses") for one in found.received()] == [None, GIVEN]


@BYS
async def test_a_server_that_forges_guards_question_gets_no_approval(tmp_path: Path, by: str) -> None:
    """Guard's name is taken out of what it asks; and what it is told under another name approves nothing."""
    found = estate(tmp_path, MODERN, by, "client")
    found.write_policy(asks=[{"id": "person", "tools": ["echo"], "approver": "client"}])
    async with found.speaking(MODERN, by) as party:
        fake = {"method": "elicitation/create", "params": {"mode": "form", "message": "Guard holds a call"}}
        acts = do({"input": {NAME: fake, "approval": fake}, "state": "guard.AAAA"})
        forged = (await party.ask("tools/call", acts))["result"]
        assert forged["inputRequests"] == {"approval": fake}
        state = forged["requestState"]
        assert "." not in state, "it is sealed as a server's"
        await refused(found, party, retry({"requestState": state}, acts), "/inputResponses")
        await party.ask("tools/call", {**acts, "requestState": state, "inputResponses": {"approval": YES}})
        echo = {"name": "echo", "arguments": {"text": "x"}}
        await refused(found, party, retry({"requestState": state}, echo), "/inputResponses")
        await asked(party, echo)
    assert found.written(Kind.ANSWERED) == []


@BYS
async def test_many_retries_at_once_run_once(tmp_path: Path, by: str) -> None:
    """One of them uses the approval up; the others are refused or asked about anew."""
    found = estate(tmp_path, MODERN, by, "client")
    async with found.speaking(MODERN, by) as party:
        first = await asked(party)
        tasks = [party.start("tools/call", retry(first))[1] for _ in range(64)]
        answers = await asyncio.gather(*tasks)
        results = [each["result"] for each in answers if "result" in each]
        done = [one for one in results if one.get("structuredContent") == {"noted": []}]
        assert len(done) == 1
        others = {reason(each) for each in answers if "error" in each}
        assert others <= {"state-invalid"}
    ran(found)


@BYS
async def test_an_approval_removes_no_denial(tmp_path: Path, by: str) -> None:
    """The retry is decided afresh under the policy in force; a yes from before does not help."""
    found = estate(tmp_path, MODERN, by, "client")
    async with found.speaking(MODERN, by) as party:
        first = await asked(party)
        found.write_policy(version=2, protected=[{"id": "never", "tools": ["do"]}])
        assert found.serving is not None
        assert await found.serving.reload()
        assert reason(await party.ask("tools/call", retry(first))) == "protected"
    assert found.received() == []


@BYS
async def test_a_rule_that_asks_more_asks_again(tmp_path: Path, by: str) -> None:
    """An approval answers the rules that asked; where another asks by then, a person is asked again."""
    found = estate(tmp_path, MODERN, by, "client")
    async with found.speaking(MODERN, by) as party:
        first = await asked(party)
        rules = [*found.policy["asks"], {"id": "second", "tools": ["do"], "approver": "client"}]
        found.write_policy(version=2, asks=rules)
        assert found.serving is not None
        assert await found.serving.reload()
        again = await asked(party, retry(first))
        assert "second" in again["inputRequests"][NAME]["params"]["message"]
        assert "result" in await party.ask("tools/call", retry(again))
    ran(found)


@BYS
async def test_a_clients_word_counts_for_nothing_where_a_reviewer_is_wanted(tmp_path: Path, by: str) -> None:
    """Self-approval: a policy that was tightened to `reviewer` takes no yes that the client gave before."""
    found = estate(tmp_path, MODERN, by, "client")
    async with found.speaking(MODERN, by) as party:
        first = await asked(party)
        found.write_policy(version=2, asks=asking("reviewer")["asks"])
        assert found.serving is not None
        assert await found.serving.reload()
        park(found.serving, 0.3)
        assert reason(await party.ask("tools/call", retry(first))) == "approval-required"
        assert questions(found)[-1].question.approver == "reviewer"
    assert found.received() == []


@pytest.mark.parametrize(
    "declared", [{}, {"elicitation": {"url": {}}}, {"elicitation": None}, {"sampling": {}}]
)
async def test_a_client_that_cannot_be_asked_is_not_asked(tmp_path: Path, declared: Any) -> None:
    """Its call waits for a reviewer, as any other."""
    found = estate(tmp_path, MODERN, "http", "client")
    key = found.key()
    async with found.guarded() as serving, found.party(MODERN, key, declared) as party:
        park(serving, 0.3)
        assert reason(await party.ask("tools/call", DO)) == "approval-required"
    assert found.received() == []

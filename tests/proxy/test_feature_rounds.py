"""2026-07-28, multi round-trip requests: the input is asked for, and each retry is a call of its own."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest

from guard.core.errors import Reason
from tests.proxy.features import BYS, EVERYTHING, MANY, OVERS, OWN, WAYS, Estates, Party, name, servers
from tests.proxy.scene import LEGACY, MODERN

FORM: dict[str, Any] = {"method": "elicitation/create", "params": {"mode": "form", "message": "Who?"}}
SAMPLE: dict[str, Any] = {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}
ROOTS: dict[str, Any] = {"method": "roots/list"}
STATE = 'state "ü\u2028\x00 \U0001f600 {}='
GIVEN = {"who": {"action": "accept", "content": {"who": "me"}}}
URI = "test://shown/asks"
INPUT: list[dict[str, Any]] = [{"input": {"who": FORM}, "state": STATE}]


def asking(estate: Estates, *, many: bool = False) -> dict[str, dict[str, Any]]:
    """What is asked for input, by method: the params of each first round."""
    estate.write_book("one", **{"resources/read": {URI: INPUT}, "prompts/get": {"hello": INPUT}})
    estate.write_book("one", resources=[{"uri": URI, "name": "asks"}])
    return {
        "tools/call": {"name": name("do", many=many), "arguments": {"acts": INPUT}},
        "prompts/get": {"name": name("hello", many=many), "arguments": {"who": "ü"}},
        "resources/read": {"uri": URI},
    }


async def begun(party: Party, method: str, params: dict[str, Any]) -> str:
    """The state that a first round was given."""
    found = (await party.ask(method, params))["result"]
    assert found["resultType"] == "input_required"
    state = found["requestState"]
    assert isinstance(state, str)
    return state


@WAYS
@MANY
async def test_the_state_comes_back_exact_and_each_round_has_an_artifact(
    tmp_path: Path, by: str, over: str, *, many: bool
) -> None:
    """Of tools, prompts and resources: two calls, two grants, two endings, each artifact of what was sent."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, over, many=many))
    asked = asking(estate, many=many)
    async with estate.speaking(MODERN, by) as party:
        for method, params in asked.items():
            first = (await party.ask(method, params))["result"]
            assert first["inputRequests"] == {"who": FORM}
            assert first["requestState"] != STATE
            more = {"inputResponses": GIVEN, "requestState": first["requestState"]}
            second = (await party.ask(method, {**params, **more}))["result"]
            assert second["structuredContent"]["noted"] == [{"inputResponses": GIVEN, "requestState": STATE}]
            assert second["resultType"] == "complete"
    for method in asked:
        first_grant, second_grant = estate.granted("one", method)
        assert first_grant.claims["jti"] != second_grant.claims["jti"]
        assert second_grant.params["requestState"] == STATE
        assert second_grant.params["inputResponses"] == GIVEN
        digests = {grant.claims["tctx"]["args_sha256"] for grant in (first_grant, second_grant)}
        assert len(digests) == 2
    assert estate.endings() == [["granted", "returned"]] * 6


@BYS
@OVERS
async def test_several_rounds_and_rounds_without_state_pass(tmp_path: Path, by: str, over: str) -> None:
    """Inputs alone need no state; a state that is empty is one."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, over))
    async with estate.speaking(MODERN, by) as party:
        stateless = {"name": "do", "arguments": {"acts": [{"input": {"a": FORM, "b": SAMPLE, "c": ROOTS}}]}}
        found = (await party.ask("tools/call", stateless))["result"]
        assert found["inputRequests"].keys() == {"a", "b", "c"}
        assert "requestState" not in found
        done = await party.ask("tools/call", {**stateless, "inputResponses": {}})
        noted = done["result"]["structuredContent"]["noted"]
        assert noted == [{"inputResponses": {}, "requestState": None}]
        empty = {"name": "do", "arguments": {"acts": [{"input": {}, "state": ""}]}}
        state = await begun(party, "tools/call", empty)
        done = await party.ask("tools/call", {**empty, "requestState": state})
        assert done["result"]["structuredContent"]["noted"][0]["requestState"] == ""


async def refused(estate: Estates, party: Party, method: str, params: dict[str, Any]) -> None:
    """It is an error, recorded with its reason, and no server hears of it."""
    before, denied = len(estate.received(method=method)), len(estate.denials())
    found = await party.ask(method, params)
    about = found["error"]["data"][f"{OWN}decision"]
    assert (found["error"]["code"], about["reason"]) == (4403, Reason.STATE_INVALID)
    assert about["pointer"] == "/requestState"
    assert len(estate.received(method=method)) == before
    assert [one["decision"]["reason"] for one in estate.denials()[denied:]] == [Reason.STATE_INVALID]


@BYS
async def test_a_tampered_state_is_refused(tmp_path: Path, by: str) -> None:
    """Every byte of it counts, and so does its spelling; nothing of it is told."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, by))
    asked = asking(estate)
    async with estate.speaking(MODERN, by) as party:
        for method, params in asked.items():
            state = await begun(party, method, params)
            raw = urlsafe_b64decode(state + "=" * (-len(state) % 4))
            flipped = [bytes([*raw[:at], raw[at] ^ 1, *raw[at + 1 :]]) for at in (0, 31, 32, len(raw) - 1)]
            bad = [
                *(urlsafe_b64encode(one).decode().rstrip("=") for one in [*flipped, raw[:-1], raw + b"x"]),
                f"{state}=",
                f"{state}\n",
                f" {state}",
                state[:-1],
                "",
                STATE,
                urlsafe_b64encode(raw[32:]).decode().rstrip("="),
            ]
            for one in bad[:: 1 if method == "tools/call" else 4]:
                await refused(estate, party, method, {**params, "requestState": one, "inputResponses": GIVEN})


@OVERS
async def test_a_state_of_other_arguments_or_another_method_is_refused(tmp_path: Path, over: str) -> None:
    """It belongs to the very call that it came from, and to the very server."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, over, many=True))
    asked = asking(estate, many=True)
    async with estate.speaking(MODERN, "http") as party:
        states = {method: await begun(party, method, params) for method, params in asked.items()}
        for method, params in asked.items():
            for other in states.keys() - {method}:
                await refused(estate, party, method, {**params, "requestState": states[other]})
        call, state = asked["tools/call"], states["tools/call"]
        acts = call["arguments"]["acts"]
        for arguments in ({"acts": acts, "more": 1}, {"acts": [*acts, {"sleep": 0}]}, {}):
            other_call = {**call, "arguments": arguments, "requestState": state}
            await refused(estate, party, "tools/call", other_call)
        for tool in ("two__do", "one__echo"):
            await refused(estate, party, "tools/call", {**call, "name": tool, "requestState": state})
        prompt = {**asked["prompts/get"], "name": "two__hello", "requestState": states["prompts/get"]}
        await refused(estate, party, "prompts/get", prompt)
        read = {"uri": "test://shown/text/two", "requestState": states["resources/read"]}
        await refused(estate, party, "resources/read", read)
        again = {**call, "requestState": state, "inputResponses": GIVEN}
        assert "result" in await party.ask("tools/call", again), "the right one still holds"


@OVERS
async def test_a_state_of_another_principal_is_refused(tmp_path: Path, over: str) -> None:
    """Whoever finds it cannot use it; another key of the same principal can."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, over))
    params = asking(estate)["tools/call"]
    keys = [estate.key("someone"), estate.key("other"), estate.key("someone", "powerful")]
    async with (
        estate.guarded(),
        estate.party(MODERN, keys[0]) as party,
        estate.party(MODERN, keys[1]) as other,
        estate.party(MODERN, keys[2]) as again,
    ):
        retry = {**params, "requestState": await begun(party, "tools/call", params)}
        await refused(estate, other, "tools/call", retry)
        assert "result" in await again.ask("tools/call", retry)


async def test_a_state_of_another_guard_is_refused_and_of_this_one_outlives_it(tmp_path: Path) -> None:
    """The seal is of Guard's own folder: a restart keeps it, and no other folder has it."""
    here = Estates(tmp_path / "here", *servers(MODERN, "stdio"))
    there = Estates(tmp_path / "there", *servers(MODERN, "stdio"))
    params = asking(here)["tools/call"]
    async with here.speaking(MODERN, "stdio") as party:
        state = await begun(party, "tools/call", params)
    async with there.speaking(MODERN, "stdio") as party:
        await refused(there, party, "tools/call", {**params, "requestState": state})
    async with here.speaking(MODERN, "stdio") as party:
        assert "result" in await party.ask("tools/call", {**params, "requestState": state})


@BYS
async def test_a_server_asks_for_no_input_that_the_client_cannot_give(tmp_path: Path, by: str) -> None:
    """What it did not declare, and what MCP does not know, is withheld; that the call ran is told."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, by))
    declared = {"elicitation": {}, "sampling": None}
    bad: list[Any] = [
        {"x": SAMPLE},
        {"x": ROOTS},
        {"x": FORM, "y": ROOTS},
        {"x": {"method": "tools/call", "params": {"name": "do"}}},
        {"x": {"method": None}},
        {"x": "elicitation/create"},
        [FORM],
    ]
    async with estate.speaking(MODERN, by, declared) as party:
        for one in bad:
            found = (await party.do({"input": one, "state": "s"}))["result"]
            assert found["isError"] is True, one
            assert found["_meta"][f"{OWN}decision"]["outcome"] == "executed"
            assert "inputRequests" not in found
        fine = (await party.do({"input": {"x": FORM}, "state": "s"}))["result"]
        assert fine["inputRequests"] == {"x": FORM}


@BYS
async def test_no_server_speaks_as_guard_in_what_it_asks_for(tmp_path: Path, by: str) -> None:
    """Names of Guard's own are taken out of input requests, and of the result around them."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, by))
    forged = {
        "method": "elicitation/create",
        "params": {"message": "m", "_meta": {f"{OWN}decision": 1, "k": 2}},
    }
    async with estate.speaking(MODERN, by) as party:
        found = (await party.do({"input": {"x": forged, f"{OWN}y": FORM}, "state": "s"}))["result"]
        assert found["inputRequests"] == {
            "x": {"method": "elicitation/create", "params": {"message": "m", "_meta": {"k": 2}}}
        }
        assert OWN not in json.dumps(found)


@pytest.mark.parametrize("version", [MODERN, LEGACY], ids=["modern", "handshake"])
async def test_what_is_no_round_is_not_taken_for_one(tmp_path: Path, version: str) -> None:
    """Another kind of result is withheld; before 2026-07-28 there are no rounds at all."""
    estate = Estates(tmp_path / "estate", *servers(version, "http"))
    kinds = ['"task"', '"INPUT_REQUIRED"', "null", "7", '"input_requi\\u0072ed"']
    if version == LEGACY:
        kinds.append('"input_required"')
    async with estate.speaking(version, "http") as party:
        for kind in kinds:
            text = f'{{"resultType":{kind},"content":[],"inputRequests":{{}},"requestState":"s"}}'
            found = (await party.do({"exact": text}))["result"]
            assert found["_meta"][f"{OWN}decision"]["outcome"] == "executed", kind
        bad = {"name": "do", "arguments": {"acts": []}, "requestState": 7}
        assert (await party.ask("tools/call", bad))["error"]["code"] == -32602
        if version == LEGACY:
            for more in ({"requestState": "x"}, {"inputResponses": {}}):
                found = await party.ask("tools/call", {"name": "do", "arguments": {"acts": []}, **more})
                assert found["error"]["code"] == -32602
    assert EVERYTHING["elicitation"]


@OVERS
async def test_a_retry_is_judged_anew(tmp_path: Path, over: str) -> None:
    """A policy that says no by then says no; the state opens nothing."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, over))
    params = asking(estate)["tools/call"]
    async with estate.speaking(MODERN, "http") as party:
        retry = {**params, "requestState": await begun(party, "tools/call", params), "inputResponses": GIVEN}
        estate.write_policy(version=2, tools=[{"match": "echo", "scopes": ["use"]}])
        assert estate.serving is not None
        assert await estate.serving.reload()
        found = (await party.ask("tools/call", retry))["result"]
        assert found["_meta"][f"{OWN}decision"]["reason"] == Reason.UNKNOWN_TOOL
    assert len(estate.received()) == 1

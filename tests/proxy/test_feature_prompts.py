"""Prompts and completions: seen as the policy shows them, got the way of every call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from guard.core.errors import Reason
from guard.lineage.entry import Kind
from tests.proxy.features import BYS, ERAS, MANY, WAYS, Estates, name, servers


def plain(response: dict[str, Any]) -> bytes:
    """A response's bytes, but for its id and the id of the decision."""
    about = response.get("error", {}).get("data", {}).get("dev.guard-mcp/decision", {})
    return json.dumps({**response, "id": 0}).replace(about.get("decision_id", "none"), "").encode()


@ERAS
@WAYS
@MANY
async def test_only_prompts_in_sight_are_listed(
    tmp_path: Path, version: str, by: str, over: str, *, many: bool
) -> None:
    """By the client's names for them; the rest of each item is the server's."""
    estate = Estates(tmp_path / "estate", *servers(version, over, many=many))
    async with estate.speaking(version, by) as party:
        assert party.offered["capabilities"]["prompts"] == {"listChanged": True}
        found = (await party.ask("prompts/list"))["result"]
        first = estate.books["one"]["prompts"][0]
        expected = [{**first, "name": name("hello", many=many, server=server)} for server in estate.servers]
        assert found["prompts"] == expected
        if party.modern:
            assert (found["cacheScope"], found["resultType"]) == ("private", "complete")
            assert found["ttlMs"] <= 1000


@ERAS
@WAYS
@MANY
async def test_a_prompt_that_is_got_is_granted_artifact_and_all(
    tmp_path: Path, version: str, by: str, over: str, *, many: bool
) -> None:
    """The server gets its own name and the arguments as judged; the other server hears nothing."""
    estate = Estates(tmp_path / "estate", *servers(version, over, many=many))
    arguments = {"who": "ü\u2028", "of": ""}
    server = "two" if many else "one"
    async with estate.speaking(version, by) as party:
        asked = {"name": name("hello", many=many, server=server), "arguments": arguments}
        found = (await party.ask("prompts/get", asked))["result"]
        assert found["messages"] == estate.books[server]["prompts/get"]["hello"]["messages"]
    (grant,) = estate.granted(server, "prompts/get")
    context = grant.claims["tctx"]
    assert (context["method"], context["tool"]) == ("prompts/get", "hello")
    assert (grant.claims["aud"], grant.claims["scope"]) == (server, "use")
    assert grant.params == {"name": "hello", "arguments": arguments}
    assert estate.endings() == [["granted", "returned"]]
    (entry,) = estate.written(Kind.GRANTED)
    assert (entry["tool"], entry["method"], entry["server"]) == ("hello", "prompts/get", server)
    assert len(estate.received(method="prompts/get")) == 1


@ERAS
@WAYS
@MANY
async def test_a_prompt_out_of_sight_is_one_that_does_not_exist(
    tmp_path: Path, version: str, by: str, over: str, *, many: bool
) -> None:
    """Byte for byte, to `prompts/get` and to completions; recorded, and no server hears of either."""
    estate = Estates(tmp_path / "estate", *servers(version, over, many=many))
    hidden, absent = (name(one, many=many) for one in ("secret", "absent"))
    argument = {"name": "who", "value": "s"}
    async with estate.speaking(version, by) as party:
        answers = [await party.ask("prompts/get", {"name": one}) for one in (hidden, absent)]
        assert plain(answers[0]) == plain(answers[1])
        about = answers[0]["error"]["data"]["dev.guard-mcp/decision"]
        assert (answers[0]["error"]["code"], about["reason"]) == (4403, Reason.UNKNOWN_PROMPT)
        refs = [{"type": "ref/prompt", "name": one} for one in (hidden, absent)]
        completions = [
            await party.ask("completion/complete", {"ref": one, "argument": argument}) for one in refs
        ]
        assert plain(completions[0]) == plain(completions[1])
        assert completions[0]["error"]["code"] == -32602
    assert estate.about("secret") == estate.about("absent") == []
    first, second = estate.denials()
    assert [one["decision"]["reason"] for one in (first, second)] == ["tool-not-visible", "default-deny"]


@ERAS
@WAYS
@MANY
async def test_completions_are_the_servers(
    tmp_path: Path, version: str, by: str, over: str, *, many: bool
) -> None:
    """For a prompt by the server's own name, for a template as it is; the rest of the params unchanged."""
    estate = Estates(tmp_path / "estate", *servers(version, over, many=many))
    template = "test://shown/of/one/{id}" if many else "test://shown/of/{id}"
    more = {"argument": {"name": "id", "value": "x"}, "context": {"arguments": {"a": "b"}}}
    async with estate.speaking(version, by) as party:
        assert party.offered["capabilities"]["completions"] == {}
        for ref in (
            {"type": "ref/prompt", "name": name("hello", many=many)},
            {"type": "ref/resource", "uri": template},
        ):
            found = (await party.ask("completion/complete", {"ref": ref, **more}))["result"]
            assert found["completion"] == {"values": ["xa", "xb"], "total": 2, "hasMore": False}
    prompt, resource = estate.received("one", "completion/complete")
    assert prompt["params"]["ref"] == {"type": "ref/prompt", "name": "hello"}
    assert resource["params"]["ref"] == {"type": "ref/resource", "uri": template}
    for one in (prompt, resource):
        sent = {member: value for member, value in one["params"].items() if member not in {"ref", "_meta"}}
        assert sent == more
    assert len(estate.received(method="completion/complete")) == 2
    assert estate.entries(Kind.GRANTED) == [], "nothing was read, and nothing done"


@ERAS
@BYS
async def test_a_completion_of_a_template_out_of_sight_is_answered_as_of_none(
    tmp_path: Path, version: str, by: str
) -> None:
    """Nor does a reference with two names get the hidden one past the look at the other."""
    estate = Estates(tmp_path / "estate", *servers(version, "stdio", many=True))
    argument = {"name": "id", "value": ""}
    refs: list[Any] = [
        {"type": "ref/resource", "uri": "test://secret/of/one/{id}"},
        {"type": "ref/resource", "uri": "test://absent/of/one/{id}"},
    ]
    async with estate.speaking(version, by) as party:
        hidden, absent = [
            await party.ask("completion/complete", {"ref": ref, "argument": argument}) for ref in refs
        ]
        assert plain(hidden) == plain(absent)
        for ref in (None, [], {}, {"type": "ref/tool", "name": "do"}, {"type": "ref/prompt", "uri": "x"}):
            found = await party.ask("completion/complete", {"ref": ref, "argument": argument})
            assert found["error"]["code"] == -32602
        both = {"type": "ref/prompt", "name": "one__hello", "uri": "test://secret/of/one/{id}"}
        found = await party.ask("completion/complete", {"ref": both, "argument": argument})
        assert found["error"]["code"] == -32602
    assert estate.about("secret") == estate.about("absent") == []


@ERAS
@BYS
async def test_an_intent_holds_for_prompts(tmp_path: Path, version: str, by: str) -> None:
    """What is judged is what is sent: other arguments are denied, and the field is named."""
    intents = [
        {
            "id": "greet-friends",
            "prompts": ["hello"],
            "schema": {"required": ["who"], "properties": {"who": {"enum": ["a friend"]}}},
        }
    ]
    estate = Estates(tmp_path / "estate", *servers(version, "http"), policy={"intents": intents})
    async with estate.speaking(version, by) as party:
        good = await party.ask("prompts/get", {"name": "hello", "arguments": {"who": "a friend"}})
        assert "messages" in good["result"]
        for bad in ({"who": "a foe"}, {}):
            found = await party.ask("prompts/get", {"name": "hello", "arguments": bad})
            about = found["error"]["data"]["dev.guard-mcp/decision"]
            assert (about["reason"], about["rule"]) == (Reason.INTENT_UNMATCHED, "greet-friends")
    assert len(estate.granted("one", "prompts/get")) == 1


@ERAS
@BYS
async def test_of_two_servers_the_wrong_one_never_sees_the_prompt(
    tmp_path: Path, version: str, by: str
) -> None:
    """No name reaches a server but its own, whatever stands around the joint."""
    estate = Estates(tmp_path / "estate", *servers(version, "stdio", many=True))
    async with estate.speaking(version, by) as party:
        assert "result" in await party.ask("prompts/get", {"name": "two__hello"})
        for bad in ("hello", "__hello", "three__hello", "one__two__hello", "one__", "one", "ONE__hello"):
            found = await party.ask("prompts/get", {"name": bad})
            assert found["error"]["code"] == 4403, bad
    assert estate.received("one", "prompts/get") == []
    (received,) = estate.received("two", "prompts/get")
    assert received["params"]["name"] == "hello"
    assert len(estate.denials()) == 7


@ERAS
async def test_a_resource_by_a_prompts_name_is_no_prompt(tmp_path: Path, version: str) -> None:
    """A rule for one kind says nothing of the others: each kind is asked for by its own method."""
    policy: dict[str, Any] = {"prompts": [], "resources": [{"match": "hello", "scopes": ["use"]}]}
    estate = Estates(tmp_path / "estate", *servers(version, "http"), policy=policy)
    async with estate.speaking(version, "http") as party:
        assert (await party.ask("prompts/get", {"name": "hello"}))["error"]["code"] == 4403
        assert (await party.ask("prompts/get", {"name": "do"}))["error"]["code"] == 4403
        assert (await party.ask("resources/read", {"uri": "do"}))["error"]["code"] == 4403
        assert (await party.ask("tools/call", {"name": "hello"}))["result"]["isError"] is True
        assert (await party.ask("prompts/list"))["error"]["code"] == -32601
    assert estate.received(method="prompts/get") == estate.received(method="resources/read") == []

"""Resources: listed as far as they may be seen, read the way of every call, and never past the policy."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from guard.core.errors import Reason
from guard.lineage.entry import Kind
from guard.proxy import shelves
from guard.proxy.links import ToolServer
from guard.proxy.shelves import Shelf, Shelves
from tests.proxy.features import ARTIFACT, BYS, ERAS, MANY, OVERS, WAYS, Estates, contents, servers, uri
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import LEGACY, MODERN

LISTS = {
    "resources/list": ("resources", "uri"),
    "resources/templates/list": ("resourceTemplates", "uriTemplate"),
}


def without_decision(response: dict[str, Any]) -> bytes:
    """A response's bytes, but for its id and the id of the decision."""
    text = json.dumps({**response, "id": 0})
    about = response.get("error", {}).get("data", {}).get("dev.guard-mcp/decision", {})
    return text.replace(about.get("decision_id", "none"), "").encode()


@ERAS
@WAYS
@MANY
async def test_only_what_the_policy_shows_is_listed(
    tmp_path: Path, version: str, by: str, over: str, *, many: bool
) -> None:
    """Of each server, in the order of the configuration; every item as the server wrote it, and no cache."""
    estate = Estates(tmp_path / "estate", *servers(version, over, many=many))
    async with estate.speaking(version, by) as party:
        assert party.offered["capabilities"]["resources"] == {"subscribe": True, "listChanged": True}
        for method, (member, named) in LISTS.items():
            found = (await party.ask(method))["result"]
            shown = [
                item for one in estate.books.values() for item in one[member] if "secret" not in item[named]
            ]
            assert found[member] == shown
            if party.modern:
                assert (found["resultType"], found["cacheScope"]) == ("complete", "private")
                assert found["ttlMs"] <= 1000, "longer than a revocation may take"
            assert "nextCursor" not in found
    assert estate.received(method="resources/read") == []


@ERAS
@WAYS
@MANY
async def test_what_is_read_is_granted_artifact_and_all(
    tmp_path: Path, version: str, by: str, over: str, *, many: bool
) -> None:
    """Text, bytes, and what a template made: exact, each with an artifact for that URI, and an ending."""
    estate = Estates(tmp_path / "estate", *servers(version, over, many=many))
    asked = [uri(plain, many=many) for plain in ("shown/text", "shown/bytes")]
    asked.append("test://shown/of/one/7" if many else "test://shown/of/7")
    async with estate.speaking(version, by) as party:
        for one in asked:
            found = (await party.ask("resources/read", {"uri": one}))["result"]
            assert found["contents"] == estate.books["one"]["resources/read"][one]["contents"]
    grants = estate.granted("one", "resources/read")
    for one, grant in zip(asked, grants, strict=True):
        context = grant.claims["tctx"]
        assert (context["method"], context["tool"], grant.claims["aud"]) == ("resources/read", one, "one")
        assert (grant.claims["scope"], context["tool_def_sha256"]) == ("use", "")
        assert grant.params == {"uri": one}
    assert estate.endings() == [["granted", "returned"]] * 3
    entries = estate.written(Kind.GRANTED)
    assert [(entry["tool"], entry["method"], entry["server"]) for entry in entries] == [
        (one, "resources/read", "one") for one in asked
    ]
    assert len(estate.received(method="resources/read")) == 3, "the other server heard nothing"


@ERAS
@WAYS
async def test_a_resource_that_is_not_there_is_the_servers_to_deny(
    tmp_path: Path, version: str, by: str, over: str
) -> None:
    """In sight the server's own error passes, and the grant has its ending."""
    estate = Estates(tmp_path / "estate", *servers(version, over))
    async with estate.speaking(version, by) as party:
        found = await party.ask("resources/read", {"uri": "test://shown/none"})
    code = -32602 if version == MODERN else -32002
    error = {"code": code, "message": "Resource not found", "data": {"uri": "test://shown/none"}}
    assert found["error"] == error
    assert estate.endings() == [["granted", "returned"]]


@ERAS
@WAYS
@MANY
async def test_what_is_out_of_sight_is_what_does_not_exist(
    tmp_path: Path, version: str, by: str, over: str, *, many: bool
) -> None:
    """Byte for byte, to readers and to subscribers; recorded, and the server hears of neither."""
    estate = Estates(tmp_path / "estate", *servers(version, over, many=many))
    hidden, absent = uri("secret/text", many=many), uri("absent/text", many=many)
    assert len(hidden) == len(absent)
    async with estate.speaking(version, by) as party:
        for method in (
            "resources/read",
            *(() if party.modern else ("resources/subscribe", "resources/unsubscribe")),
        ):
            answers = [await party.ask(method, {"uri": one}) for one in (hidden, absent)]
            first, second = (without_decision(answer) for answer in answers)
            assert first == second
            assert answers[0]["error"]["code"] in {4403, -32002}
            assert "secret" not in first.decode()
    assert estate.about("secret/") == estate.about("absent/") == []
    first_denial, second_denial = estate.denials()
    assert (first_denial["tool"], second_denial["tool"]) == (hidden, absent)
    assert first_denial["method"] == second_denial["method"] == "resources/read"
    reasons = [one["decision"]["reason"] for one in (first_denial, second_denial)]
    assert reasons == [Reason.TOOL_NOT_VISIBLE, Reason.DEFAULT_DENY]


@ERAS
@OVERS
async def test_a_uri_of_another_principals_scope_is_for_that_principal_alone(
    tmp_path: Path, version: str, over: str
) -> None:
    """One reads it; the other is told what is told of nothing, over a session of its own, in any spelling."""
    estate = Estates(tmp_path / "estate", *servers(version, over))
    low, high = estate.key("low"), estate.key("high", "powerful")
    odd = [
        "test://shown/../secret/text",
        "test://shown/%2e%2e/secret/text",
        "test://shown/..%2Fsecret/text",
        "test://shown/./text",
        "TEST://secret/text",
        "test://secret/text#test://shown/text",
        "test://secret/text?test://shown/",
        "test://shown/\\..\\secret",
        "test://shown/\uff0e\uff0e/secret",
    ]
    async with estate.guarded(), estate.party(version, low) as weak, estate.party(version, high) as strong:
        read = await strong.ask("resources/read", {"uri": "test://secret/text"})
        assert read["result"]["contents"][0]["text"] == "classified"
        shown = await strong.ask("resources/list")
        assert "test://secret/text" in {item["uri"] for item in shown["result"]["resources"]}
        for one in ["test://secret/text", *odd]:
            refused = await weak.ask("resources/read", {"uri": one})
            assert refused["error"]["code"] == 4403, one
            about = refused["error"]["data"]["dev.guard-mcp/decision"]
            assert about["reason"] == Reason.UNKNOWN_RESOURCE, one
    (received,) = estate.received(method="resources/read")
    assert received["params"]["uri"] == "test://secret/text"
    assert len(estate.denials()) == 1 + len(odd)


@ERAS
@BYS
async def test_of_two_servers_the_wrong_one_never_sees_the_uri(tmp_path: Path, version: str, by: str) -> None:
    """The one that lists it is asked, whichever stands first; what neither lists is asked of neither."""
    estate = Estates(tmp_path / "estate", *servers(version, "stdio", many=True))
    async with estate.speaking(version, by) as party:
        for one in ("test://shown/text/two", "test://shown/of/two/7"):
            found = await party.ask("resources/read", {"uri": one})
            assert found["result"]["contents"][0]["uri"] == one
        nowhere = await party.ask("resources/read", {"uri": "test://shown/nowhere"})
        assert nowhere["error"]["code"] == 4403
        if not party.modern:
            assert (await party.ask("resources/subscribe", {"uri": "test://shown/text/two"}))["result"] == {}
            refused = await party.ask("resources/subscribe", {"uri": "test://shown/nowhere"})
            assert refused["error"]["code"] == -32002
    assert estate.about("/two", "one") == []
    assert estate.about("nowhere") == []
    assert len(estate.granted("two", "resources/read")) == 2


@ERAS
async def test_a_server_that_lists_anothers_uri_gets_it_only_where_the_policy_shows_it_there(
    tmp_path: Path, version: str
) -> None:
    """Whoever names the server in the policy is safe from one that stands before it and claims everything."""
    rules = [{"match": "test://shown/*", "server": "two", "scopes": ["use"]}]
    estate = Estates(tmp_path / "estate", *servers(version, "stdio", many=True), policy={"resources": rules})
    taken = "test://shown/text/two"
    claims = [{"uri": taken, "name": "mine"}]
    everything = [{"uriTemplate": "{+all}", "name": "mine"}]
    estate.write_book("one", resources=claims, resourceTemplates=everything)
    async with estate.speaking(version, "http") as party:
        listed = (await party.ask("resources/list"))["result"]["resources"]
        assert [item["name"] for item in listed] == ["text", "bytes"]
        found = await party.ask("resources/read", {"uri": taken})
        assert found["result"]["contents"][0]["text"] == "plain\u2028 \x00 ü"
    assert estate.about(taken, "one") == []


@BYS
@OVERS
async def test_what_one_may_read_is_not_cached_for_all(tmp_path: Path, by: str, over: str) -> None:
    """`public` becomes `private`, however it is spelled; how long it keeps is the server's to say."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, over))
    spelled = [
        '{"resultType":"complete","contents":[],"ttlMs":7,"cacheScope":"public"}',
        '{"resultType":"complete","contents":[],"ttlMs":7,"cache\\u0053cope":"public"}',
        '{"resultType":"complete","contents":[],"ttlMs":7,"cacheScope":"publi\\u0063"}',
        '{"resultType":"complete","contents":[],"cacheScope":"private","ttlMs":7,"cacheScope":"public"}',
    ]
    acts = {f"test://shown/{at}": [{"exact": text}] for at, text in enumerate(spelled)}
    estate.write_book("one", **{"resources/read": acts})
    async with estate.speaking(MODERN, by) as party:
        for one in acts:
            found = (await party.ask("resources/read", {"uri": one}))["result"]
            assert (found["cacheScope"], found["ttlMs"], found["contents"]) == ("private", 7, [])


@ERAS
@OVERS
async def test_a_reload_takes_a_resource_out_of_sight_at_once(
    tmp_path: Path, version: str, over: str
) -> None:
    """What was listed and read a moment ago is neither listed nor read."""
    estate = Estates(tmp_path / "estate", *servers(version, over))
    async with estate.speaking(version, "http") as party:
        assert "result" in await party.ask("resources/read", {"uri": "test://shown/text"})
        estate.write_policy(version=2, resources=[])
        assert estate.serving is not None
        assert await estate.serving.reload()
        found = await party.ask("resources/read", {"uri": "test://shown/text"})
        assert found["error"]["code"] == 4403
        for method in LISTS:
            assert (await party.ask(method))["error"]["code"] == -32601, "as of a server that has none"
    assert len(estate.received(method="resources/read")) == 1


@ERAS
async def test_a_server_that_has_no_resources_and_one_whose_are_out_of_sight_look_alike(
    tmp_path: Path, version: str
) -> None:
    """A principal without the scope is told that there are none, byte for byte."""
    answers = []
    for has in (True, False):
        estate = Estates(tmp_path / f"estate-{has}", *servers(version, "stdio"))
        if not has:
            estate.write_book("one", capabilities={"tools": {}})
        role = "nobody" if has else "caller"
        key = estate.key("someone", role)
        async with estate.guarded(), estate.party(version, key) as party:
            answers.append([json.dumps(await party.ask(method)) for method in LISTS])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("version", [MODERN, LEGACY], ids=["modern", "handshake"])
async def test_what_is_no_uri_is_refused_before_anybody_is_asked(tmp_path: Path, version: str) -> None:
    """Not a string, empty, too long, unprintable, or beside members that are not understood."""
    estate = Estates(tmp_path / "estate", *servers(version, "stdio"))
    bad: list[dict[str, Any]] = [
        {},
        {"uri": 7},
        {"uri": ""},
        {"uri": "test://shown/" + "x" * 8192},
        {"uri": "test://shown/\u202etxt"},
        {"uri": "test://shown/text", "name": "do"},
        {"uri": "test://shown/text", "arguments": {}},
        {"uri": ["test://shown/text"]},
    ]
    async with estate.speaking(version, "stdio") as party:
        for params in bad:
            assert (await party.ask("resources/read", params))["error"]["code"] == -32602, params
    assert estate.received(method="resources/read") == []


async def test_the_header_and_the_body_name_the_same_resource(tmp_path: Path) -> None:
    """2026-07-28 over HTTP: whoever looks at `Mcp-Name` alone is not deceived."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, "http"))
    key = estate.key()
    async with estate.guarded():
        client: RawHttp = estate.client(MODERN, key)
        answer = await client.request(
            "resources/read", {"uri": "test://shown/text"}, headers={"Mcp-Name": "test://shown/bytes"}
        )
        assert (answer.status, answer.message()["error"]["code"]) == (400, -32020)
        assert (await client.request("resources/read", {"uri": "test://shown/text"})).status == 200
    (received,) = estate.received(method="resources/read")
    assert received["_session"] is None
    assert ARTIFACT in received["params"]["_meta"]


@ERAS
async def test_contents_of_every_kind_pass_unchanged(tmp_path: Path, version: str) -> None:
    """Numbers that nobody can hold, a lone surrogate, members that Guard does not know."""
    estate = Estates(tmp_path / "estate", *servers(version, "http"))
    kind = '"resultType":"complete",' if version == MODERN else ""
    odd = '"text":"\\ud83d","n":123456789012345678901234567890,"$x":[1e400]'
    text = f'{{{kind}"contents":[{{"uri":"x",{odd}}}]}}'
    estate.write_book("one", **{"resources/read": {"test://shown/odd": [{"exact": text}]}})
    key = estate.key()
    async with estate.guarded():
        client = estate.client(version, key)
        if version == LEGACY:
            await client.greet()
        answer = await client.request("resources/read", {"uri": "test://shown/odd"})
        assert text.encode() in answer.body
    assert contents("x")["cacheScope"] == "public"


@BYS
async def test_a_dead_neighbour_costs_a_read_nothing_where_the_first_has_it(
    tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several servers the first in order is enough; one behind it is not waited for, and one before it is
    left out after a while."""
    waited: list[str] = []
    has = Shelves._has

    async def slow(self: Shelves, server: ToolServer, shelf: Shelf, uri: str) -> bool:
        if server.about.name in dead:
            waited.append(server.about.name)
            await asyncio.Event().wait()
        return await has(self, server, shelf, uri)

    estate = Estates(tmp_path / "estate", *servers(MODERN, "stdio", many=True))
    async with estate.speaking(MODERN, by) as party:
        dead: set[str] = set()
        for each in ("one", "two"):
            assert "result" in await party.ask(
                "resources/read", {"uri": uri("shown/text", many=True, server=each)}
            )
        monkeypatch.setattr(Shelves, "_has", slow)
        monkeypatch.setattr(shelves, "LIST_SECONDS", 1e6)
        monkeypatch.setattr(shelves, "OWNER_SECONDS", 1e6)
        dead = {"two"}
        found = await party.ask("resources/read", {"uri": uri("shown/text", many=True)})
        assert "result" in found, "it waits for ever for no one"
        monkeypatch.setattr(shelves, "OWNER_SECONDS", 0.3)
        dead = {"one"}
        for what in ("text", "of/two/7"):
            asked = uri("shown/text", many=True, server="two") if what == "text" else "test://shown/of/two/7"
            assert "result" in await party.ask("resources/read", {"uri": asked})
        assert waited == ["two", "one", "one"], "who was late with one list is not asked for the next"

"""What passes unchanged from end to end: content, schemas, extensions, and what the operator lets through."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from guard.lineage.entry import Kind
from tests.proxy.features import BYS, ERAS, MANY, META, OVERS, OWN, WAYS, Estates, name, servers
from tests.proxy.scene import MODERN

EXTENSION, OTHER, TASKS = "org.example/ext", "org.example/other", "io.modelcontextprotocol/tasks"
CONTENT: list[dict[str, Any]] = [
    {"type": "text", "text": "a\u2028\x00 ü", "annotations": {"audience": ["user"], "priority": 0.5}},
    {"type": "image", "data": "AP+A", "mimeType": "image/png"},
    {"type": "audio", "data": "AP+A", "mimeType": "audio/wav"},
    {"type": "resource", "resource": {"uri": "test://secret/in", "text": "embedded"}},
    {"type": "resource_link", "uri": "test://secret/linked", "name": "link", "size": 3},
]
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://example.org/echo",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object"}},
    "properties": {"address": {"$ref": "#addressDef"}, "n": {"enum": [1e3, None, {"a": []}]}},
    "if": {"required": ["n"]},
    "then": {"required": ["address"]},
}


@ERAS
@WAYS
@MANY
async def test_content_of_every_type_and_structured_content_pass(
    tmp_path: Path, version: str, by: str, over: str, *, many: bool
) -> None:
    """Exactly as the server said it: embedded resources and links keep their URIs."""
    estate = Estates(tmp_path / "estate", *servers(version, over, many=many))
    said = {
        "content": CONTENT,
        "structuredContent": {"a": [1, None, {"b": 1.5}]},
        "_meta": {"org.example/k": 1},
    }
    async with estate.speaking(version, by) as party:
        found = (await party.do({"answer": said}, name=name("do", many=many)))["result"]
    assert {member: found[member] for member in said} == said


@ERAS
@OVERS
async def test_a_schema_stays_as_it_is_written(tmp_path: Path, version: str, over: str) -> None:
    """`$defs`, `$anchor`, conditions and output schemas reach the client as the operator accepted them."""
    tools = [
        {"name": "do", "inputSchema": SCHEMA, "outputSchema": SCHEMA, "title": "Do", "annotations": {"x": 1}},
        {"name": "echo", "inputSchema": {"type": "object"}, "icons": [{"src": "data:,"}]},
    ]
    estate = Estates(tmp_path / "estate", *servers(version, over))
    estate.write_book("one", tools=tools)
    estate.pin(tools=tools, name="one")
    async with estate.speaking(version, "http") as party:
        assert (await party.ask("tools/list"))["result"]["tools"] == tools


@ERAS
@WAYS
async def test_an_extension_is_agreed_on_end_to_end(tmp_path: Path, version: str, by: str, over: str) -> None:
    """Each side learns what the other has; names of Guard's own are Guard's, and tasks need their methods."""
    estate = Estates(tmp_path / "estate", *servers(version, over))
    theirs = {EXTENSION: {"of": "the server"}, TASKS: {}, f"{OWN}authorization": {"forged": 1}, f"{OWN}x": {}}
    capabilities = {**estate.books["one"]["capabilities"], "extensions": theirs}
    estate.write_book("one", capabilities=capabilities)
    ours = {
        EXTENSION: {"of": "the client"},
        OTHER: {},
        TASKS: {},
        f"{OWN}authorization": {"forged": 1},
        f"{OWN}x": {},
    }
    async with estate.speaking(version, by, {"extensions": ours}) as party:
        offered = party.offered["capabilities"]["extensions"]
        assert offered == {EXTENSION: {"of": "the server"}, f"{OWN}authorization": {}}
        meta = {f"{EXTENSION}/key": 1, EXTENSION: 2, f"{EXTENSION}ended": 3, f"{OTHER}/key": 4, f"{OWN}x": 5}
        await party.do(**meta)
    told = {EXTENSION: {"of": "the client"}, OTHER: {}, f"{OWN}authorization": {}}
    (call,) = estate.received()
    sent = call["params"]["_meta"]
    if version == MODERN:
        assert sent[f"{META}clientCapabilities"]["extensions"] == told
        assert (sent[f"{EXTENSION}/key"], sent[EXTENSION]) == (1, 2)
    else:
        greeted = [one["params"] for one in estate.received(method="initialize")]
        (mine,) = [one for one in greeted if one["clientInfo"]["name"] == "tests"]
        assert mine["capabilities"]["extensions"] == told
    assert not {f"{EXTENSION}ended", f"{OTHER}/key", f"{OWN}x"} & sent.keys()


@ERAS
@OVERS
async def test_a_method_that_the_operator_lets_through_goes_the_one_way(
    tmp_path: Path, version: str, over: str
) -> None:
    """Judged by the policy's `methods`, granted, with an artifact over all its params; no other passes."""
    policy: dict[str, Any] = {"methods": [{"match": "example/do", "scopes": ["use"]}]}
    estate = Estates(tmp_path / "estate", *servers(version, over), policy=policy)
    estate.write_book("one", **{"example/do": {"x": {"done": True}}, "example/hidden": {"x": {"done": True}}})
    params = {"name": "x", "requestState": "the method's own", "more": [1, {"a": None}]}
    key = estate.key()
    async with estate.guarded() as serving:
        (server,) = serving.house.generation.servers.values()
        server.about = replace(
            server.about,
            methods=frozenset({"example/do", "example/hidden"}),
            meta=frozenset({"example.org/key"}),
        )
        if server._spare is not None:
            await asyncio.wait_for(server._spare.ready(), 20)
            await server._spare.close()
            server._spare = None
        async with estate.party(version, key) as party:
            found = await party.ask(
                "example/do",
                params,
                **{"example.org/key": 1, "a/b": 2},
            )
            assert found["result"]["done"] is True
            raw = [
                await party.raw.post(
                    party.request(f"example/{method}", {"name": "x"}, {}) | {"id": "the same"}
                )
                for method in ("hidden", "absent")
            ]
            assert raw[0].status == raw[1].status
            assert raw[0].body == raw[1].body.replace(b"absent", b"hidden"), (
                "nobody learns what is configured"
            )
            assert raw[0].message()["error"] == {
                "code": -32601,
                "message": "method not found: example/hidden",
            }
    (grant,) = estate.granted("one", "example/do")
    context = grant.claims["tctx"]
    assert (context["method"], context["tool"]) == ("example/do", "example/do")
    assert grant.params == params, "its requestState is no business of Guard's"
    (received,) = estate.received(method="example/do")
    assert received["params"]["_meta"]["example.org/key"] == 1
    assert "a/b" not in received["params"]["_meta"]
    (entry,) = estate.written(Kind.GRANTED)
    assert (entry["method"], entry["tool"]) == ("example/do", "example/do")
    assert estate.received(method="example/hidden") == estate.received(method="example/absent") == []
    assert [one["decision"]["reason"] for one in estate.denials()] == ["default-deny"]


@BYS
async def test_of_a_servers_capabilities_only_what_passes_is_offered(tmp_path: Path, by: str) -> None:
    """What Guard does not pass on it does not promise; of two servers, whatever one can do."""
    for version in (MODERN, "2025-11-25"):
        estate = Estates(tmp_path / f"estate-{version}", *servers(version, by, many=True))
        estate.write_book(
            "one", capabilities={"tools": {}, "made-up": {}, "experimental": {"x": {}}, "logging": 7}
        )
        estate.write_book(
            "two", capabilities={"tools": {}, "resources": {"subscribe": True, "listChanged": 1}}
        )
        async with estate.speaking(version, by) as party:
            assert party.offered["capabilities"] == {
                "tools": {"listChanged": True},
                "resources": {"subscribe": True},
                "extensions": {f"{OWN}authorization": {}},
            }

"""A declared intent only narrows: by the call, by the launch, in both eras and over both transports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from guard.lineage.entry import Kind
from tests.proxy.asked import about
from tests.proxy.features import BYS, ERAS, OWN, Estates, Party, servers
from tests.proxy.scene import LEGACY, MODERN, Scene, decision

DECLARED: Final = f"{OWN}intent"
SMALL: Final = {"properties": {"n": {"type": "integer", "maximum": 9}}}
LARGE: Final = {"properties": {"n": {"type": "integer", "minimum": 5}}}
POLICY: Final[Mapping[str, Any]] = {
    "intents": [
        {
            "id": "small",
            "tools": ["echo"],
            "schema": {"properties": {"n": {"type": "integer", "maximum": 9}}},
        },
        {
            "id": "large",
            "tools": ["echo"],
            "schema": {"properties": {"n": {"type": "integer", "minimum": 5}}},
        },
        {"id": "greet", "prompts": ["hello"], "schema": {"properties": {"who": {"const": "Ann"}}}},
        {"id": "read", "resources": ["test://shown/*"], "schema": {}},
    ]
}
MALFORMED: Final = [
    7,
    None,
    True,
    {},
    "",
    [],
    [""],
    ["small", 7],
    [["small"]],
    ["a"] * 17,
    "a" * 161,
    {"small": 1},
]
SHOWN: Final = {"uri": "test://shown/text"}
ANN: Final = {"name": "hello", "arguments": {"who": "Ann"}}


def estate(folder: Path, version: str, over: str = "stdio") -> Estates:
    return Estates(folder / "estate", *servers(version, over), policy=POLICY)


async def told(
    party: Party, params: Mapping[str, Any], declared: Any = (), method: str = "tools/call"
) -> tuple[str, str]:
    """The reason and the rule of a denial; ("", "") where it was let through."""
    meta = {DECLARED: declared} if declared != () else {}
    found = await party.ask(method, params, **meta)
    if "error" not in found and not found["result"].get("isError"):
        return "", ""
    said = about(found)
    return said["reason"], said["rule"]


def n(value: int) -> dict[str, Any]:
    return {"name": "echo", "arguments": {"n": value}}


@ERAS
@BYS
async def test_only_calls_of_the_declared_intent_pass(tmp_path: Path, version: str, by: str) -> None:
    """What any intent would let through is denied where it is not the one declared; of several, all hold."""
    found = estate(tmp_path, version, "http" if by == "http" else "stdio")
    async with found.speaking(version, by) as party:
        assert await told(party, n(3)) == ("", "")
        assert await told(party, n(3), "small") == ("", "")
        assert await told(party, n(3), "large") == ("outside-intent", "large")
        assert await told(party, n(7), ["small", "large"]) == ("", "")
        assert await told(party, n(3), ["small", "large"]) == ("outside-intent", "large")
        assert await told(party, n(3), "read") == ("outside-intent", "read")
        assert await told(party, {"name": "do", "arguments": {"acts": []}}, "small") == (
            "outside-intent",
            "small",
        )
    assert len(found.received()) == 3
    granted = [entry["fields"].get("intents") for entry in found.entries(Kind.GRANTED)]
    assert granted == [None, ["small"], ["large", "small"]]


@ERAS
@BYS
async def test_prompts_and_resources_have_declared_intents_too(tmp_path: Path, version: str, by: str) -> None:
    """An intent of one kind lets nothing of another kind through."""
    found = estate(tmp_path, version)
    async with found.speaking(version, by) as party:
        assert await told(party, ANN, "greet", "prompts/get") == ("", "")
        assert await told(party, ANN, "read", "prompts/get") == ("outside-intent", "read")
        assert await told(party, SHOWN, "read", "resources/read") == ("", "")
        assert await told(party, SHOWN, ["read", "greet"], "resources/read") == ("outside-intent", "greet")
    assert [len(found.received(method=each)) for each in ("prompts/get", "resources/read")] == [1, 1]


@ERAS
async def test_declaring_never_widens(tmp_path: Path, version: str) -> None:
    """What is denied without a declaration is denied with any; an id that nobody knows permits nothing."""
    found = estate(tmp_path, version)
    async with found.speaking(version, "stdio") as party:
        for declared in ("small", "large", ["small", "large"], "nobody-knows-it"):
            reason, _ = await told(party, {"name": "unlisted", "arguments": {"n": 7}}, declared)
            assert reason == "unknown-tool"
            assert (await told(party, {"name": "echo", "arguments": {"n": "text"}}, declared))[0]
        assert await told(party, n(3), "nobody-knows-it") == ("outside-intent", "")
    assert found.received() == []


@ERAS
@BYS
async def test_what_is_no_declaration_is_refused(tmp_path: Path, version: str, by: str) -> None:
    """Neither an id nor a short list of ids: the request is invalid, and is no call at all."""
    found = estate(tmp_path, version)
    async with found.speaking(version, by) as party:
        for declared in MALFORMED:
            for method, params in (("tools/call", n(3)), ("prompts/get", ANN), ("resources/read", SHOWN)):
                answer = await party.ask(method, params, **{DECLARED: declared})
                assert answer["error"]["code"] == -32602, declared
    assert found.received() == []
    assert found.entries(Kind.GRANTED) == []


@ERAS
async def test_no_server_learns_what_was_declared(tmp_path: Path, version: str) -> None:
    """It is Guard's own, and goes no further than Guard."""
    found = estate(tmp_path, version)
    async with found.speaking(version, "stdio") as party:
        assert await told(party, n(3), "small") == ("", "")
        assert await told(party, ANN, "greet", "prompts/get") == ("", "")
    assert found.about(DECLARED) == []
    assert json.dumps(found.received()[0]["params"]["arguments"]) == '{"n": 3}'


@ERAS
@BYS
async def test_the_operators_intent_holds_for_every_call(tmp_path: Path, version: str, by: str) -> None:
    """What the configuration declares cannot be shed by a call that declares another, or nothing."""
    found = estate(tmp_path, version)
    async with found.speaking(version, by, intent=["small"]) as party:
        assert await told(party, n(3)) == ("", "")
        assert await told(party, n(12)) == ("outside-intent", "small")
        assert await told(party, n(12), "large") == ("outside-intent", "small")
        assert await told(party, n(7), "large") == ("", "")
        assert await told(party, SHOWN, "read", "resources/read") == ("outside-intent", "small")
    assert len(found.received()) == 2


@pytest.mark.parametrize("version", [MODERN, LEGACY])
async def test_the_launch_declares_for_every_call(tmp_path: Path, version: str) -> None:
    """`guard run --intent`: as the configuration of `guard serve`."""
    scene = Scene(tmp_path / "s")
    scene.pin()
    async with scene.guarded(version, intents=("short-text",)) as client:
        assert "isError" not in (await client.call("echo", text="a"))["result"]
        said = decision(await client.call("slow"))
        assert (said["reason"], said["rule"]) == ("outside-intent", "short-text")
    assert len(scene.received()) == 1

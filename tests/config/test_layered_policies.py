"""An organisation's policy above a team's, on the way of real calls: both must permit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from guard.config.policies import Policies
from guard.core.canonical import write
from guard.core.errors import GuardError
from guard.lineage.entry import Kind
from tests.proxy.asked import about
from tests.proxy.features import BYS, ERAS, POLICY, Estates, Party, servers
from tests.proxy.scene import MODERN, Scene, decision
from tests.proxy.test_spent import many, said

ORG: Final[dict[str, Any]] = {
    "guard": 1,
    "id": "org",
    "version": 3,
    "roles": {"caller": {"scopes": ["*"]}, "powerful": {"scopes": ["*"]}},
    "tools": [{"match": "*", "scopes": []}],
    "prompts": [{"match": "*", "scopes": []}],
    "protected": [
        {"id": "never", "tools": ["echo"], "schema": {"required": ["n"], "properties": {"n": {"const": 13}}}}
    ],
    "limits": [{"id": "few", "tools": ["do"], "per": "principal", "calls": 2, "window": "1h"}],
}
DO: Final = {"name": "do", "arguments": {"acts": [{"answer": {"content": []}}]}}


class Layered(Estates):
    """An estate with an organisation's policy above its own."""

    def __init__(self, folder: Path, version: str, **own: Any) -> None:
        super().__init__(folder, *servers(version, "stdio"), policy=own)
        self.settings["policy"] = ["org.json", "policy.json"]
        self.above()

    def above(self, **members: Any) -> None:
        """Write the organisation's."""
        (self.folder / "org.json").write_bytes(write({**ORG, **members}))


async def told(party: Party, params: dict[str, Any], method: str = "tools/call") -> tuple[str, str]:
    found = await party.ask(method, params)
    if "error" not in found and not found["result"].get("isError"):
        return "allow", ""
    return about(found)["reason"], about(found)["rule"]


def echo(n: int) -> dict[str, Any]:
    return {"name": "echo", "arguments": {"n": n}}


@ERAS
@BYS
async def test_a_denial_above_beats_a_permit_below(tmp_path: Path, version: str, by: str) -> None:
    """And one below beats a permit above: what was permitted names both, in artifact and entry."""
    small = {"properties": {"n": {"maximum": 20, "type": "integer"}}}
    own = [{"id": "small", "tools": ["echo"], "schema": small}]
    found = Layered(tmp_path / "e", version, intents=own)
    async with found.speaking(version, by) as party:
        assert await told(party, echo(1)) == ("allow", "")
        assert await told(party, echo(13)) == ("protected", "org/never")
        assert await told(party, echo(21)) == ("intent-unmatched", "small")
        unlisted = await told(party, {"uri": "test://shown/text"}, "resources/read")
        assert unlisted[0] == "unknown-resource", "above lists none"
        assert [tool["name"] for tool in (await party.ask("tools/list"))["result"]["tools"]] == ["do", "echo"]
    (grant,) = found.granted("one", "tools/call")
    policy = grant.claims["tctx"]["policy"]
    assert (policy["id"], policy["version"]) == ("features", POLICY["version"])
    (above,) = policy["layers"]
    assert (above["id"], above["version"]) == ("org", 3)
    (entry,) = found.written(Kind.GRANTED)
    assert entry["policy"] == policy
    assert entry["decision"]["rules"] == ["org/tools/*:*", "small", "tools/*:echo"]
    assert all(denied["policy"]["layers"] == [above] for denied in found.denials())


@ERAS
async def test_each_layer_counts_for_itself(tmp_path: Path, version: str) -> None:
    """The organisation's two of 16 at once, though the team permits ten."""
    own = [{"id": "few", "tools": ["do"], "per": "principal", "calls": 10, "window": "1h"}]
    found = Layered(tmp_path / "e", version, limits=own)
    async with found.speaking(version, "http") as party:
        ran = await many(party, [DO] * 16)
        assert sorted(ran) == ["allow"] * 2 + ["limit-reached"] * 14
    assert {entry["decision"]["rule"] for entry in found.denials()} == {"org/few"}


@BYS
async def test_every_layers_version_only_grows(tmp_path: Path, by: str) -> None:
    """An older file above, or other bytes under its version, does not load; the old ones hold."""
    found = Layered(tmp_path / "e", MODERN)
    async with found.speaking(MODERN, by) as party:
        assert found.serving is not None
        found.above(version=4, protected=[{"id": "all", "tools": ["echo"]}])
        assert await found.serving.reload()
        for version in (3, 4):
            found.above(version=version, protected=[])
            assert not await found.serving.reload()
            assert await told(party, echo(1)) == ("protected", "org/all")
        found.above(version=5, protected=[])
        assert await found.serving.reload()
        assert await told(party, echo(1)) == ("allow", "")
        found.above(version=4)
    with pytest.raises(GuardError, match="version 4 is older"):
        async with found.guarded():
            pass
    assert found.granted("one", "tools/call")[-1].claims["tctx"]["policy"]["layers"][0]["version"] == 5


async def test_a_layer_that_another_guard_replaced_is_superseded(tmp_path: Path) -> None:
    """A Guard that holds an older one above grants nothing any more, whatever its own is."""
    found = Layered(tmp_path / "e", MODERN)
    async with found.speaking(MODERN, "http") as party:
        assert said(await party.ask("tools/call", echo(1))) == "allow"
        first = found.serving
        found.above(version=9)
        async with found.guarded():
            pass
        found.serving = first
        assert said(await party.ask("tools/call", echo(1))) == "policy-superseded"


async def test_a_layer_that_does_not_load_stops_all(tmp_path: Path) -> None:
    """One that is missing, broken or twice there is no layer that permits."""
    found = Layered(tmp_path / "e", MODERN)
    (found.folder / "org.json").unlink()
    with pytest.raises(GuardError, match="cannot be read"):
        async with found.guarded():
            pass
    found.above(id="features")
    with pytest.raises(GuardError, match="the same id"):
        async with found.guarded():
            pass
    found.above(roles={})
    async with found.speaking(MODERN, "http") as party:
        assert said(await party.ask("tools/call", echo(1))) in {"unauthorized-role", "unknown-tool"}
    assert found.received() == []


async def test_guard_run_takes_layers_too(tmp_path: Path) -> None:
    """`--policy` twice: the highest first."""
    scene = Scene(tmp_path / "s")
    scene.pin()
    above = scene.folder / "org.json"
    above.write_bytes(write(ORG))
    policies = Policies((above, scene.folder / "policy.json"))
    async with scene.guarded(policies=policies) as client:
        assert "isError" not in (await client.call(text="a"))["result"]
        about_it = decision(await client.call(n=13))
        assert about_it["rule"] == "org/never"
    assert len(scene.received()) == 1

"""How many calls may have led to one: told by artifacts that a trusted issuer signed, from Guard to Guard."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from guard.config.home import open_home
from guard.core.model import Parent
from guard.lineage.entry import Kind
from guard.proxy.binding import random_id
from tests.artifact.artifacts import KEYS, NAME, call, issue
from tests.proxy.asked import about
from tests.proxy.features import ARTIFACT, BYS, ERAS, Estates, Party, servers

LIMIT: Final[Mapping[str, Any]] = {"id": "deep", "tools": ["echo"], "depth": 2}
PARAMS: Final = {"name": "echo", "arguments": {}}


def estate(folder: Path, version: str) -> Estates:
    return Estates(folder / "estate", *servers(version, "stdio"), policy={"limits": [LIMIT]})


def led_to(estate: Estates, depth: int) -> str:
    """The artifact of a call that so many led to, made by a trusted Guard for this one."""
    parent = Parent("verified", "digest", "the first call's id", depth - 1) if depth else None
    bound = call(PARAMS, audience=open_home(estate.home).name, parent=parent)
    return issue(bound, now=int(time.time()), jti=random_id()).token.decode()


def trusting(folder: Path) -> list[dict[str, str]]:
    keys = folder / "jwks.json"
    keys.write_text(json.dumps(KEYS.jwks()))
    return [{"issuer": NAME, "jwks": str(keys)}]


async def told(party: Party, artifact: str | None = None) -> str:
    """The reason of a denial, "" where it was let through."""
    found = await party.ask("tools/call", PARAMS, **({ARTIFACT: artifact} if artifact else {}))
    return str(about(found)["reason"]) if found["result"].get("isError") else ""


@ERAS
@BYS
async def test_a_chain_that_is_too_long_ends(tmp_path: Path, version: str, by: str) -> None:
    """Each call that an artifact led to counts one more; what is too deep is denied, and names the rule."""
    found = estate(tmp_path, version)
    async with found.speaking(version, by, trust=trusting(tmp_path)) as party:
        assert await told(party) == ""
        assert [await told(party, led_to(found, depth)) for depth in (0, 1, 2, 3, 9)] == [
            "", "", "limit-reached", "limit-reached", "limit-reached",
        ]  # fmt: skip
    assert [entry["decision"]["rule"] for entry in found.denials()] == ["deep"] * 3
    sent = [grant.claims["rctx"].get("depth") for grant in found.granted("one", "tools/call")]
    assert sent == [None, 1, 2]
    assert [entry["fields"].get("parent", {}).get("edge") for entry in found.entries(Kind.GRANTED)] == [
        None, "verified", "verified",
    ]  # fmt: skip


@ERAS
async def test_what_nobody_trusted_signed_says_nothing_of_depth(tmp_path: Path, version: str) -> None:
    """Of an artifact that is only claimed no number is believed: it is one call that led here."""
    found = estate(tmp_path, version)
    async with found.speaking(version, "http") as party:
        assert [await told(party, led_to(found, depth)) for depth in (0, 9)] == ["", ""]
        assert await told(party, "a.b.c") == ""
    assert [grant.claims["rctx"]["depth"] for grant in found.granted("one", "tools/call")] == [1, 1, 1]
    edges = [entry["fields"]["parent"]["edge"] for entry in found.entries(Kind.GRANTED)]
    assert edges == ["claimed"] * 3

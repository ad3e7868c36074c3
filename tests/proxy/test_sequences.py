"""What came before: read before write, nothing out after a secret; real calls, on either store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from guard.lineage.entry import Kind
from tests.proxy.features import ERAS, OWN, Estates, Party, servers, until
from tests.proxy.scene import LEGACY, MODERN
from tests.proxy.test_spent import ALL_AT_ONCE, WAYS, WHERE, home, said

__all__ = ["home"]

READ_FIRST: Final[Mapping[str, Any]] = {"id": "look", "tools": ["echo"], "requires": ["do"], "within": "1h"}
NO_LEAK: Final[Mapping[str, Any]] = {"id": "leak", "tools": ["echo"], "after": ["do"], "for": "24h"}
WRITE: Final = {"name": "echo", "arguments": {}}
GOOD: Final = {"answer": {"content": []}}


def estate(folder: Path, version: str, rule: Mapping[str, Any], **more: Any) -> Estates:
    return Estates(folder, *servers(version, "stdio"), policy={"sequences": [rule], **more})


async def write(party: Party, **meta: Any) -> str:
    return said(await party.ask("tools/call", WRITE, **meta))


# -- requires --------------------------------------------------------------------------------------


@WAYS
async def test_write_is_denied_until_read_has_returned(home: Path, version: str, by: str) -> None:
    """Nobody waits for the disk: a write right after the read's result finds that it was read."""
    found = estate(home, version, READ_FIRST)
    async with found.speaking(version, by) as party:
        assert await write(party) == "required-first"
        assert said(await party.do(GOOD)) == "allow"
        assert [await write(party) for _ in range(3)] == ["allow"] * 3
    assert [entry["decision"]["rule"] for entry in found.denials()] == ["look"]


@ERAS
async def test_what_did_not_end_well_is_no_read(tmp_path: Path, version: str) -> None:
    """An error of the server's, one of the tool's, a denial, and what is still under way."""
    found = estate(tmp_path / "e", version, READ_FIRST)
    go = tmp_path / "go"
    async with found.speaking(version, "http") as party:
        await party.do({"error": [-32000, "no"]})
        await party.do({"answer": {"content": [], "isError": True}})
        assert said(await party.do(GOOD, **{f"{OWN}intent": "another"})) == "outside-intent"
        assert await write(party) == "required-first"
        task = party.start("tools/call", {"name": "do", "arguments": {"acts": [{"appears": str(go)}, GOOD]}})[
            1
        ]
        await until(lambda: len(found.received()) == 3)
        assert await write(party) == "required-first"
        go.touch()
        assert said(await task) == "allow"
        assert await write(party) == "allow"


async def test_a_request_for_input_is_no_read(tmp_path: Path) -> None:
    """2026-07-28: a result that only asks for more has read nothing yet."""
    found = estate(tmp_path / "e", MODERN, READ_FIRST)
    form = {
        "method": "elicitation/create",
        "params": {"message": "?", "requestedSchema": {"type": "object", "properties": {}}},
    }
    async with found.speaking(MODERN, "http") as party:
        asked = await party.do({"input": {"one": form}, "state": "s"})
        assert asked["result"]["resultType"] == "input_required"
        assert await write(party) == "required-first"


@ERAS
@WHERE
async def test_each_read_is_good_for_so_many_writes(home: Path, version: str) -> None:
    """64 writes at once after two reads, each good for three: six run."""
    found = estate(home, version, {**READ_FIRST, "calls": 3})
    async with found.speaking(version, "http") as party:
        for _ in range(2):
            assert said(await party.do(GOOD)) == "allow"
        tasks = [party.start("tools/call", WRITE)[1] for _ in range(ALL_AT_ONCE)]
        ran = Counter(said(answer) for answer in await asyncio.gather(*tasks))
        assert ran == {"allow": 6, "required-first": ALL_AT_ONCE - 6}
        assert said(await party.do(GOOD)) == "allow"
        assert [await write(party) for _ in range(4)] == ["allow"] * 3 + ["required-first"]


async def test_a_read_of_somebody_else_or_of_another_conversation_is_none(tmp_path: Path) -> None:
    """Facts belong to the principal; where the role may assert conversations, to the conversation."""
    roles = {
        "caller": {"scopes": ["use"]},
        "powerful": {"scopes": ["use"], "may_assert_conversations": True},
    }
    found = estate(tmp_path / "e", MODERN, READ_FIRST, roles=roles)
    talk = f"{OWN}conversation"
    keys = [found.key("alice"), found.key("bob"), found.key("carol", "powerful")]
    async with (
        found.guarded(),
        found.party(MODERN, keys[0]) as alice,
        found.party(MODERN, keys[1]) as bob,
        found.party(MODERN, keys[2]) as carol,
    ):
        assert said(await alice.do(GOOD, **{talk: "one"})) == "allow"
        assert await write(bob, **{talk: "one"}) == "required-first"
        assert await write(alice, **{talk: "two"}) == "allow"  # its id separates nothing
        assert said(await carol.do(GOOD, **{talk: "one"})) == "allow"
        assert await write(carol, **{talk: "two"}) == "required-first"
        assert await write(carol, **{talk: "one"}) == "allow"


# -- after -----------------------------------------------------------------------------------------


@WAYS
async def test_nothing_goes_out_after_a_secret_was_read(home: Path, version: str, by: str) -> None:
    """From the grant on: while the read is under way, when it has failed, and in any new session."""
    found = estate(home, version, NO_LEAK)
    go = home / "go"
    async with found.speaking(version, by) as party:
        assert [await write(party) for _ in range(2)] == ["allow"] * 2
        acts = [{"appears": str(go)}, {"error": [-32000, "no"]}]
        task = party.start("tools/call", {"name": "do", "arguments": {"acts": acts}})[1]
        await until(lambda: len(found.received()) == 3)
        assert await write(party) == "forbidden-after"
        go.touch()
        await task
        assert await write(party) == "forbidden-after"
        assert await write(party, **{f"{OWN}conversation": "another"}) == "forbidden-after"
        if by == "http":
            for each in (MODERN, LEGACY) if version == MODERN else (LEGACY,):
                async with found.party(each, found.key(), deaf=True) as other:
                    assert await write(other) == "forbidden-after"
    assert len(found.received()) == 3


@ERAS
@WHERE
async def test_of_a_read_and_64_writes_at_once_none_follows(home: Path, version: str) -> None:
    """However they race, no write is granted after the read was: the lineage says in which order."""
    found = estate(home, version, NO_LEAK)
    async with found.speaking(version, "http") as party:
        calls: list[Mapping[str, Any]] = [WRITE] * ALL_AT_ONCE
        calls.insert(8, {"name": "do", "arguments": {"acts": [GOOD]}})
        answers = await asyncio.gather(*(party.start("tools/call", each)[1] for each in calls))
        told = Counter(map(said, answers))
    assert told.keys() <= {"allow", "forbidden-after"}
    granted = [entry["fields"]["tool"] for entry in found.entries(Kind.GRANTED)]
    assert granted.count("do") == 1
    assert granted.index("do") == len(granted) - 1
    assert told["allow"] == len(granted)
    assert len(found.received()) == len(granted)


@ERAS
async def test_so_many_may_follow(tmp_path: Path, version: str) -> None:
    """`calls: 2`: two of 64, however many reads there were."""
    found = estate(tmp_path / "e", version, {**NO_LEAK, "calls": 2})
    async with found.speaking(version, "http") as party:
        for _ in range(2):
            assert said(await party.do(GOOD)) == "allow"
        tasks = [party.start("tools/call", WRITE)[1] for _ in range(ALL_AT_ONCE)]
        ran = Counter(said(answer) for answer in await asyncio.gather(*tasks))
        assert ran == {"allow": 2, "forbidden-after": ALL_AT_ONCE - 2}

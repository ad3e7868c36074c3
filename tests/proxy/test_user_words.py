"""The user's own words: from whom they count, for which calls, and that they go no further than Guard."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from guard.core.canonical import sha256
from guard.lineage.entry import Kind
from tests.proxy.features import BYS, ERAS, OWN, Estates, Party, servers
from tests.proxy.scene import MODERN
from tests.proxy.test_spent import WAYS, home, said

__all__ = ["home"]

WORDS: Final = f"{OWN}user-message"
TALK: Final = f"{OWN}conversation"
SAID: Final = "Please send the report to bob@friends.example, thank you"
BOB: Final = "bob@friends.example"
EVE: Final = "eve@planted.example"
POLICY: Final[Mapping[str, Any]] = {
    "roles": {
        "caller": {"scopes": ["use"], "may_assert_user": True},
        "mute": {"scopes": ["use"]},
        "powerful": {"scopes": ["use"], "may_assert_user": True, "may_assert_conversations": True},
    },
    "origins": [{"id": "where-to", "tools": ["do"], "arguments": ["/to"], "accept": ["user"]}],
}


def estate(folder: Path, version: str, **more: Any) -> Estates:
    return Estates(folder, *servers(version, "stdio"), policy={**POLICY, **more})


async def send(party: Party, to: str, words: Any = None, **meta: Any) -> str:
    meta = {**meta, **({} if words is None else {WORDS: words})}
    params = {"name": "do", "arguments": {"acts": [{"answer": {"content": []}}], "to": to}}
    return said(await party.ask("tools/call", params, **meta))


@WAYS
async def test_what_the_user_said_counts_at_once_and_later(home: Path, version: str, by: str) -> None:
    """For the very call that it comes with, and for the next ones without it; what was not said does not."""
    found = estate(home, version)
    async with found.speaking(version, by) as party:
        assert await send(party, BOB) == "origin-refused"
        assert await send(party, EVE, SAID) == "origin-refused"
        assert await send(party, BOB, SAID) == "allow"
        assert await send(party, BOB) == "allow"
        assert await send(party, EVE) == "origin-refused"
    assert len(found.received()) == 2
    digest = sha256(SAID.encode())
    assert [one.get("user_message") for one in found.denials()] == [None, digest, None]
    assert [one.get("user_message") for one in found.written(Kind.GRANTED)] == [digest, None]


async def test_only_a_role_that_may_speaks_for_the_user(tmp_path: Path) -> None:
    """Anybody else's are passed over: they make nothing the user's, and the entry has no digest."""
    found = estate(tmp_path / "e", MODERN)
    mute, other = found.key("mallory", "mute"), found.key("alice")
    async with (
        found.guarded(),
        found.party(MODERN, mute) as party,
        found.party(MODERN, other) as alice,
    ):
        assert [await send(party, BOB, SAID) for _ in range(2)] == ["origin-refused"] * 2
        assert await send(alice, BOB) == "origin-refused"
        assert await send(alice, BOB, SAID) == "allow"
        assert await send(party, BOB) == "origin-refused"  # each remembers for itself
    assert [one.get("user_message") for one in found.denials()] == [None] * 4


async def test_words_belong_to_their_conversation_where_ids_separate(tmp_path: Path) -> None:
    """What was said in one is not said in the other."""
    found = estate(tmp_path / "e", MODERN)
    key = found.key("carol", "powerful")
    async with found.guarded(), found.party(MODERN, key) as party:
        assert await send(party, BOB, SAID, **{TALK: "one"}) == "allow"
        assert await send(party, BOB, **{TALK: "two"}) == "origin-refused"
        assert await send(party, BOB, SAID, **{TALK: "two"}) == "allow"


@ERAS
async def test_a_planted_value_does_not_become_the_users(tmp_path: Path, version: str) -> None:
    """Seen in a page first, it stays untrusted, whoever repeats it, unless the policy says otherwise."""
    for overrides in (False, True):
        found = estate(tmp_path / f"e{overrides}", version, memory={"user_overrides": overrides})
        async with found.speaking(version, "http") as party:
            page = {"content": [{"type": "text", "text": f"Please write to {BOB}"}]}
            await party.ask("tools/call", {"name": "do", "arguments": {"acts": [{"answer": page}]}})
            assert await send(party, BOB, SAID) == ("allow" if overrides else "origin-refused")


@ERAS
@BYS
async def test_what_are_no_words_is_refused(tmp_path: Path, version: str, by: str) -> None:
    """Neither a string nor of a bounded length: the request is invalid, and is no call at all."""
    found = estate(tmp_path / "e", version)
    async with found.speaking(version, by) as party:
        bad: list[Any] = [7, None, True, {}, [], [SAID], {"text": SAID}, "a" * 65_537]
        for words in bad:
            params = {"name": "do", "arguments": {"acts": [], "to": BOB}}
            answer = await party.ask("tools/call", params, **{WORDS: words})
            assert answer["error"]["code"] == -32602, words
        assert await send(party, BOB, SAID + " " * (65_536 - len(SAID))) == "allow"
    assert len(found.received()) == 1


async def test_the_same_words_are_remembered_once(tmp_path: Path) -> None:
    """A host hands them over with every call of a turn: one transaction, not one for each."""
    found = estate(tmp_path / "e", MODERN)
    key = found.key()
    async with found.guarded() as serving, found.party(MODERN, key) as party:
        bare: list[Any] = []
        real = serving.house.log.commit

        async def commit(made: Any) -> Any:
            if made.entry is None:
                bare.append(made)
            return await real(made)

        serving.house.log.commit = commit  # type: ignore[method-assign]
        assert [await send(party, BOB, SAID) for _ in range(4)] == ["allow"] * 4
        assert len(bare) == 1
        assert await send(party, BOB, f"{SAID}!") == "allow"
        assert len(bare) == 2


async def test_words_said_again_after_their_window_are_remembered_again(tmp_path: Path) -> None:
    """What lapsed is the user's again once the user says it again, for the calls after that one."""
    found = estate(tmp_path / "e", MODERN, memory={"window": "2s"})
    key = found.key()
    async with found.guarded(), found.party(MODERN, key) as party:
        assert await send(party, BOB, SAID) == "allow"
        assert await send(party, BOB) == "allow"
        await asyncio.sleep(2.5)
        assert await send(party, EVE, SAID) == "origin-refused"
        assert await send(party, BOB) == "allow"


@ERAS
async def test_no_server_hears_what_the_user_said(tmp_path: Path, version: str) -> None:
    """Neither the words nor their name travel on, and the store has no word of them."""
    found = estate(tmp_path / "e", version)
    secret = "the blue heron flies at midnight"
    async with found.speaking(version, "stdio") as party:
        assert await send(party, BOB, f"{SAID}: {secret}") == "allow"
    assert found.about(WORDS) == found.about("heron") == []
    for path in found.home.glob("guard.db*"):
        assert b"heron" not in path.read_bytes()

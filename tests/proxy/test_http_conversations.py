"""Which conversation a call over HTTP belongs to, and who says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guard.lineage.entry import Kind
from tests.proxy.estate import Estate, Server
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import LEGACY, MODERN

META = "dev.guard-mcp/conversation"


def named(estate: Estate) -> list[tuple[str, str]]:
    """Id and source of the conversation of each granted call, in order."""
    found = [entry["fields"]["conversation"] for entry in estate.entries(Kind.GRANTED)]
    return [(each["id"], each["source"]) for each in found]


def chains(estate: Estate) -> list[str]:
    """The log's own id of the conversation of each granted call, in order."""
    return [entry["conversation"] for entry in estate.entries(Kind.GRANTED)]


def an_estate(folder: Path, **settings: Any) -> Estate:
    estate = Estate(folder / "estate", Server("one"), **settings)
    estate.pin()
    return estate


async def asserting(client: RawHttp, conversation: str) -> None:
    params = {"name": "echo", "_meta": {META: conversation}}
    assert "isError" not in (await client.request("tools/call", params)).message()["result"]


async def permitted(client: RawHttp) -> None:
    assert "isError" not in (await client.call("echo"))["result"]


async def test_a_client_may_name_its_conversation(tmp_path: Path) -> None:
    """The id in `_meta` goes before a session and before the configuration, in both eras."""
    estate = an_estate(tmp_path, conversation="configured")
    key = estate.key()
    async with estate.guarded():
        for version in (MODERN, LEGACY):
            client = estate.client(version, key)
            if version == LEGACY:
                await client.greet()
            await asserting(client, "mine")
    assert named(estate) == [("mine", "meta")] * 2
    assert len({*chains(estate)}) == 1
    estate.settled()


async def test_a_session_is_a_conversation_and_its_id_is_never_written_down(tmp_path: Path) -> None:
    """What is recorded is a digest: whoever reads the log holds nothing that opens the session."""
    estate = an_estate(tmp_path, conversation="configured")
    key = estate.key()
    sessions = []
    async with estate.guarded():
        for _ in range(2):
            client = estate.client(LEGACY, key)
            await client.greet()
            await permitted(client)
            await permitted(client)
            sessions.append(str(client.session))
    ids = [id_ for id_, source in named(estate) if source == "session"]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert all(id_.startswith("session-") for id_ in ids)
    assert len({*chains(estate)}) == 2
    written = b"".join(path.read_bytes() for path in estate.home.rglob("*") if path.is_file())
    assert ids[0].encode() in written
    assert not any(session.encode() in written for session in sessions)
    estate.settled()


async def test_a_configured_conversation_is_that_of_calls_without_one(tmp_path: Path) -> None:
    """The operator's id holds where neither the message nor a session names one, and is the operator's."""
    estate = an_estate(tmp_path, conversation="configured")
    key = estate.key()
    async with estate.guarded():
        await permitted(estate.client(MODERN, key))
        await permitted(estate.client(MODERN, key))
    assert named(estate) == [("configured", "launch")] * 2


async def test_calls_without_a_conversation_belong_together_by_inference(tmp_path: Path) -> None:
    """One principal's modern calls are one conversation, which is said to be inferred."""
    estate = an_estate(tmp_path)
    key = estate.key()
    async with estate.guarded():
        await permitted(estate.client(MODERN, key))
        await permitted(estate.client(MODERN, key))
    (first, source), second = named(estate)
    assert (first, source) == second
    assert source == "inferred"
    assert len({*chains(estate)}) == 1


async def test_two_principals_share_no_conversation(tmp_path: Path) -> None:
    """Whatever they name or are given, the log keeps apart who they are."""
    estate = an_estate(tmp_path)
    keys = [estate.key("a"), estate.key("b"), estate.key("a", tenant="other")]
    estate.pin(tenant="other")
    async with estate.guarded():
        for key in keys:
            await permitted(estate.client(MODERN, key))
            await asserting(estate.client(MODERN, key), "the same")
    inferred, asserted = chains(estate)[::2], chains(estate)[1::2]
    assert len({*inferred}) == 3
    assert len({*asserted}) == 3
    assert set(named(estate)[1::2]) == {("the same", "meta")}
    assert len({id_ for id_, _ in named(estate)[::2]}) == 3
    estate.settled()


async def test_the_same_configured_conversation_is_another_for_each_principal(tmp_path: Path) -> None:
    """One id in the configuration joins no two callers."""
    estate = an_estate(tmp_path, conversation="configured")
    keys = [estate.key("a"), estate.key("b")]
    async with estate.guarded():
        for key in keys:
            await permitted(estate.client(MODERN, key))
    assert len({*named(estate)}) == 1
    assert len({*chains(estate)}) == 2


async def test_a_session_is_nobody_elses(tmp_path: Path) -> None:
    """With another principal's session id a call reaches nobody, and is in no conversation."""
    estate = an_estate(tmp_path)
    mine, other = estate.key("a"), estate.key("b")
    async with estate.guarded():
        owner, thief = estate.client(LEGACY, mine), estate.client(LEGACY, other)
        await owner.greet()
        thief.session = owner.session
        answer = await thief.request("tools/call", {"name": "echo"})
        assert answer.status == 404
        assert (await thief.delete()).status == 404
        await permitted(owner)
    assert len(estate.received()) == len(named(estate)) == 1
    assert estate.entries(Kind.DENIED) == []


async def test_two_keys_of_one_principal_are_one_caller(tmp_path: Path) -> None:
    """A conversation is a principal's, not a key's: a new key goes on where the old one was."""
    estate = an_estate(tmp_path)
    keys = [estate.key("a"), estate.key("a")]
    async with estate.guarded():
        for key in keys:
            await permitted(estate.client(MODERN, key))
    assert len({*chains(estate)}) == 1

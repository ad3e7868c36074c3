"""A session is what the key that began it may do, and no other key's, whosever that is."""

from __future__ import annotations

from pathlib import Path

from tests.proxy.features import OVERS, Estates, servers, until
from tests.proxy.raw_http import SSE
from tests.proxy.scene import LEGACY, MODERN

SECRET = {"uri": "test://secret/text"}


@OVERS
async def test_a_weaker_key_of_the_same_name_does_nothing_with_a_stronger_ones_session(
    tmp_path: Path, over: str
) -> None:
    """Who has the session's id and a key for less is answered as a stranger; the session goes on."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, over))
    strong, weak = estate.key("ada", "powerful"), estate.key("ada", "nobody")
    async with estate.guarded(), estate.party(LEGACY, strong) as party:
        other = estate.client(LEGACY, weak)
        other.session = party.raw.session
        assert other.session is not None
        read = await other.request("resources/read", SECRET)
        call = await other.request("tools/call", {"name": "echo", "arguments": {}})
        stream = await other.send("GET", headers={"Accept": SSE})
        answers = [read, call, stream, await other.delete()]
        assert [answer.status for answer in answers] == [404] * 4
        assert b"classified" not in read.body
        assert estate.received(method="resources/read") == []
        found = await party.ask("resources/read", SECRET)
        assert found["result"]["contents"][0]["text"] == "classified"
    assert estate.endings() == [["granted", "returned"]]


async def test_what_is_logged_for_a_stronger_key_is_told_to_no_weaker_one(tmp_path: Path) -> None:
    """On a pipe a log message names no request: where keys share the server, it is nobody's."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, "stdio"))
    strong, weak = estate.key("ada", "powerful"), estate.key("ada", "caller")
    done = tmp_path / "done"
    async with (
        estate.guarded(),
        estate.party(MODERN, strong) as party,
        estate.party(MODERN, weak) as other,
    ):
        wait = {"name": "do", "arguments": {"acts": [{"appears": str(done)}]}}
        _, waiting = other.start("tools/call", wait, logLevel="info")
        await until(estate.received)
        await party.do({"log": "info", "data": "classified"}, logLevel="info")
        done.touch()
        assert "result" in await waiting
        assert "classified" not in str(other.notes)
        await party.do({"log": "info", "data": "for itself"}, logLevel="info")
        assert "for itself" in str(party.notes)

"""What is said while a request is under way: progress, logs, and that it is called off."""

from __future__ import annotations

from pathlib import Path

from tests.proxy.features import BYS, ERAS, MANY, OVERS, WAYS, Estates, name, servers, until
from tests.proxy.scene import LEGACY, MODERN

MESSAGE, PROGRESS = "notifications/message", "notifications/progress"


@ERAS
@WAYS
@MANY
async def test_progress_comes_under_the_clients_own_token(
    tmp_path: Path, version: str, by: str, over: str, *, many: bool
) -> None:
    """Of a call, a prompt and a resource alike; the server knows another token."""
    estate = Estates(tmp_path / "estate", *servers(version, over, many=many))
    uri = "test://shown/slow"
    acts = [{"progress": 1}, {"progress": 2}]
    estate.write_book("one", **{"resources/read": {uri: [*acts, {"answer": {"contents": []}}]}})
    estate.write_book("one", **{"prompts/get": {"hello": [*acts, {"answer": {"messages": []}}]}})
    if many:
        estate.write_book("two", resources=[])
    async with estate.speaking(version, by) as party:
        if many:
            estate.write_book("one", resources=[{"uri": uri, "name": "slow"}])
        await party.do(*acts, name=name("do", many=many), progressToken="mine")
        await party.ask("prompts/get", {"name": name("hello", many=many)}, progressToken=0)
        await party.ask("resources/read", {"uri": uri}, progressToken="")
        await party.do(*acts, name=name("do", many=many))
        found = await party.hears(PROGRESS, 6)
        await party.settle()
    expected = [
        {"progressToken": token, "progress": step, "total": 9} for token in ("mine", 0, "") for step in (1, 2)
    ]
    assert found == expected
    tokens = [one["params"]["_meta"].get("progressToken") for one in estate.received("one")]
    assert tokens[0] != "mine"
    assert tokens[1] is None


@ERAS
@WAYS
async def test_a_server_makes_up_no_progress(tmp_path: Path, version: str, by: str, over: str) -> None:
    """Of a token that it was not given, of another request's, and as nobody's business."""
    estate = Estates(tmp_path / "estate", *servers(version, over))
    made_up = [
        {"jsonrpc": "2.0", "method": PROGRESS, "params": {"progressToken": token, "progress": 1}}
        for token in ("mine", 1, 2, 3, 4, 5, 6, 7, True, None, [], {}, 1.0, "1")
    ]
    async with estate.speaking(version, by) as party:
        await party.do(*({"say": one} for one in made_up))
        await party.settle()
        assert party.notes == []
        await party.do({"progress": 1}, *({"say": one} for one in made_up[8:]), progressToken="mine")
        await party.settle()
        assert len(party.heard(PROGRESS)) == 1


@ERAS
@WAYS
@MANY
async def test_what_is_called_off_is_called_off_at_the_server(
    tmp_path: Path, version: str, by: str, over: str, *, many: bool
) -> None:
    """A call, a prompt and a resource: the server is told, and the grant ends unknown."""
    estate = Estates(tmp_path / "estate", *servers(version, over, many=many))
    uri = "test://shown/slow"
    wait = [{"progress": 1}, {"until": "never"}]
    estate.write_book("one", **{"resources/read": {uri: wait}, "prompts/get": {"hello": wait}})
    estate.write_book("one", resources=[{"uri": uri, "name": "slow"}])
    asked = {
        "tools/call": {"name": name("do", many=many), "arguments": {"acts": wait}},
        "prompts/get": {"name": name("hello", many=many)},
        "resources/read": {"uri": uri},
    }
    async with estate.speaking(version, by) as party:
        for count, (method, params) in enumerate(asked.items(), 1):
            id_, task = party.start(method, params, progressToken=method)
            await party.hears(PROGRESS, count)
            party.cancel(id_)
            if version == LEGACY or over == "stdio":
                await until(
                    lambda count=count: len(estate.received("one", "notifications/cancelled")) >= count
                )
            task.cancel()
        await party.settle()
    if version == LEGACY or over == "stdio":
        ids = [estate.received("one", method)[0]["id"] for method in asked]
        cancelled = estate.received("one", "notifications/cancelled")
        assert [one["params"]["requestId"] for one in cancelled][:3] == ids
    assert estate.endings() == [["granted", "unknown"]] * 3


@WAYS
async def test_one_client_cannot_call_off_what_is_anothers(tmp_path: Path, by: str, over: str) -> None:
    """A request id means nothing outside the session that chose it."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, over))
    keys = [estate.key("someone"), estate.key("someone"), estate.key("other")]
    async with (
        estate.guarded(),
        estate.party(LEGACY, keys[0]) as party,
        estate.party(LEGACY, keys[1]) as again,
        estate.party(LEGACY, keys[2]) as other,
    ):
        id_, task = party.start(
            "tools/call",
            {"name": "do", "arguments": {"acts": [{"progress": 1}, {"until": "prompts/list"}]}},
            progressToken="mine",
        )
        await party.hears(PROGRESS)
        for stranger in (again, other):
            stranger.cancel(id_)
            stranger.cancel(str(id_))
            await stranger.settle()
        party.cancel(str(id_))
        party.cancel(float(id_))
        await party.settle()
        assert (await party.ask("prompts/list"))["result"]["prompts"]
        assert "result" in await task
    assert estate.received(method="notifications/cancelled") == []


@WAYS
@MANY
async def test_a_request_that_asks_for_no_log_gets_none(
    tmp_path: Path, by: str, over: str, *, many: bool
) -> None:
    """2026-07-28: whoever names a level hears, on that request alone; whatever the server does."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, over, many=many))
    do = name("do", many=many)
    async with estate.speaking(MODERN, by) as party:
        await party.do(
            {"log": "info", "data": "polite"}, {"log": "error", "data": "r", "rude": True}, name=do
        )
        await party.settle()
        assert party.notes == []
        await party.do({"log": "info", "data": {"a": [1e3]}}, name=do, logLevel="info")
        assert await party.hears(MESSAGE) == [{"level": "info", "logger": "featured", "data": {"a": [1e3]}}]
        await party.do({"log": "error", "data": "again", "rude": True}, name=do)
        await party.settle()
        assert len(party.notes) == 1
    levels = [
        one["params"]["_meta"].get("io.modelcontextprotocol/logLevel") for one in estate.received("one")
    ]
    assert levels == [None, "info", None]


@WAYS
@MANY
async def test_a_level_is_set_at_every_server_that_logs(
    tmp_path: Path, by: str, over: str, *, many: bool
) -> None:
    """2025-11-25: and what they log comes, of a call or out of the blue."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, over, many=many))
    blue = {"jsonrpc": "2.0", "method": MESSAGE, "params": {"level": "error", "data": "blue"}}
    async with estate.speaking(LEGACY, by) as party:
        assert party.offered["capabilities"]["logging"] == {}
        assert (await party.ask("logging/setLevel", {"level": "debug"}))["result"] == {}
        for server in estate.servers:
            if estate.servers[server].over == "http":
                await until(lambda server=server: [one for one in estate.all(server) if "_opened" in one])
            do = name("do", many=many, server=server)
            await party.do({"log": "debug", "data": server}, {"stream": blue}, name=do)
        found = await party.hears(MESSAGE, 2 * len(estate.servers))
    assert sorted(str(one["data"]) for one in found) == sorted(
        [*estate.servers, *["blue"] * len(estate.servers)]
    )
    assert [one["params"]["level"] for one in estate.received(method="logging/setLevel")] == ["debug"] * (
        1 + many
    )


@BYS
@OVERS
async def test_a_server_that_does_not_log_is_not_asked_to(tmp_path: Path, by: str, over: str) -> None:
    """Of two, only the one that said so; where there is none there is no such method."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, over, many=True))
    estate.write_book("one", capabilities={"tools": {}})
    async with estate.speaking(LEGACY, by) as party:
        assert (await party.ask("logging/setLevel", {"level": "debug"}))["result"] == {}
    assert estate.received("one", "logging/setLevel") == []
    assert len(estate.received("two", "logging/setLevel")) == 1
    estate = Estates(tmp_path / "other", *servers(LEGACY, over))
    estate.write_book("one", capabilities={"tools": {}})
    async with estate.speaking(LEGACY, by) as party:
        assert "logging" not in party.offered["capabilities"]
        assert (await party.ask("logging/setLevel", {"level": "debug"}))["error"]["code"] == -32601


@OVERS
async def test_a_level_starts_no_server_that_is_out_of_sight(tmp_path: Path, over: str) -> None:
    """Whoever may see nothing of a server has no business with it: it is not even begun for them."""
    rules = [{"match": "do", "server": "two", "scopes": ["use"]}]
    policy = {"tools": rules, "prompts": [], "resources": []}
    estate = Estates(tmp_path / "estate", *servers(LEGACY, over, many=True), policy=policy)
    key = estate.key()
    async with estate.guarded(), estate.party(LEGACY, key) as party:
        assert (await party.ask("logging/setLevel", {"level": "debug"}))["result"] == {}
        await party.settle()
    assert estate.received("one", "logging/setLevel") == []
    greeted = [one["params"]["clientInfo"]["name"] for one in estate.received("one", "initialize")]
    assert "tests" not in greeted
    assert len(estate.received("two", "logging/setLevel")) == 1


@WAYS
async def test_what_one_server_logs_reaches_no_other_session(tmp_path: Path, by: str, over: str) -> None:
    """Neither another principal's nor another one of the same, even if both listen."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, over))
    keys = [estate.key("someone"), estate.key("other")]
    async with (
        estate.guarded(),
        estate.party(LEGACY, keys[0]) as party,
        estate.party(LEGACY, keys[0]) as again,
        estate.party(LEGACY, keys[1]) as other,
    ):
        blue = {"jsonrpc": "2.0", "method": MESSAGE, "params": {"level": "error", "data": "private"}}
        if over == "http":
            await until(lambda: len([one for one in estate.all("one") if "_opened" in one]) >= 3)
        await party.do({"log": "info", "data": "private"}, {"stream": blue})
        await party.hears(MESSAGE, 2)
        for stranger in (again, other):
            await stranger.do({"log": "info", "data": "own"})
            assert [one["data"] for one in await stranger.hears(MESSAGE)] == ["own"]
        await party.settle()
        assert len(party.heard(MESSAGE)) == 2

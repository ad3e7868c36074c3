"""What a client hears of without asking: what it asked to hear, while it may see what it is about."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from tests.proxy.features import BYS, MANY, META, OVERS, WAYS, Estates, Party, name, servers, until, uri
from tests.proxy.scene import LEGACY, MODERN

UPDATED = "notifications/resources/updated"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
PROMPTS, RESOURCES = (f"notifications/{kind}/list_changed" for kind in ("prompts", "resources"))
SUBSCRIPTION = f"{META}subscriptionId"


async def listening(party: Party, **wanted: Any) -> tuple[Any, asyncio.Task[dict[str, Any]], dict[str, Any]]:
    """Open a subscription: its id, its end to come, and what was agreed to."""
    count = len(party.heard(ACKNOWLEDGED))
    id_, task = party.start("subscriptions/listen", {"notifications": wanted})
    found = (await party.hears(ACKNOWLEDGED, count + 1))[-1]
    assert found["_meta"] == {SUBSCRIPTION: id_}
    return id_, task, found["notifications"]


async def heard_last(estate: Estates, server: str = "one") -> None:
    """Over HTTP, the session's stream is open."""
    if estate.servers[server].over == "http":
        await until(lambda: [one for one in estate.all(server) if "_opened" in one])


@WAYS
@MANY
async def test_a_resource_that_is_subscribed_to_is_heard_of(
    tmp_path: Path, by: str, over: str, *, many: bool
) -> None:
    """2025-11-25: until it is unsubscribed from; only its own server is asked."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, over, many=many))
    one, do = uri("shown/text", many=many), name("do", many=many)
    async with estate.speaking(LEGACY, by) as party:
        await heard_last(estate)
        assert (await party.ask("resources/subscribe", {"uri": one}))["result"] == {}
        await party.do({"update": one}, name=do)
        assert await party.hears(UPDATED) == [{"uri": one}]
        assert (await party.ask("resources/unsubscribe", {"uri": one}))["result"] == {}
        await party.do({"update": one}, {"changed": "prompts"}, {"changed": "resources"}, name=do)
        for method in (PROMPTS, RESOURCES):
            assert await party.hears(method) == [{}]
        assert len(party.heard(UPDATED)) == 1
    assert len(estate.received(method="resources/subscribe")) == 1


@OVERS
async def test_a_session_hears_of_no_other_sessions_resources(tmp_path: Path, over: str) -> None:
    """What one subscribed to is told to that one alone, of one principal or of two."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, over))
    keys = [estate.key("someone"), estate.key("other")]
    async with (
        estate.guarded(),
        estate.party(LEGACY, keys[0]) as party,
        estate.party(LEGACY, keys[0]) as again,
        estate.party(LEGACY, keys[1]) as other,
    ):
        if over == "http":
            await until(lambda: len([one for one in estate.all("one") if "_opened" in one]) >= 3)
        await party.ask("resources/subscribe", {"uri": "test://shown/text"})
        await party.do({"update": "test://shown/text"}, {"update": "test://shown/text"})
        await party.hears(UPDATED, 2)
        for stranger in (again, other):
            await stranger.do({"update": "test://shown/text"})
            await stranger.settle()
            assert stranger.notes == []


@WAYS
async def test_what_is_out_of_sight_is_not_heard_of(tmp_path: Path, by: str, over: str) -> None:
    """2025-11-25: whatever a server says of it without being asked."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, over))
    bad: list[Any] = [{"uri": "test://secret/text"}, {"uri": 7}, {}, {"uri": ["test://shown/text"]}]
    notes = [{"jsonrpc": "2.0", "method": UPDATED, "params": params} for params in bad]
    async with estate.speaking(LEGACY, by) as party:
        await heard_last(estate)
        await party.do(
            *({"stream": one} for one in notes), *({"say": one} for one in notes), {"changed": "prompts"}
        )
        await party.hears(PROMPTS)
        await party.settle()
        assert party.heard(UPDATED) == []


@BYS
@OVERS
async def test_after_a_reload_what_is_out_of_sight_tells_nothing_more(
    tmp_path: Path, by: str, over: str
) -> None:
    """In either era: what was subscribed to is silent from the reload on, and what is still seen is not."""
    for version in (LEGACY, MODERN):
        estate = Estates(tmp_path / f"estate-{version}", *servers(version, over))
        first, second = "test://shown/text", "test://shown/bytes"
        async with estate.speaking(version, by) as party:
            if party.modern:
                await listening(party, resourceSubscriptions=[first, second])
            else:
                await heard_last(estate)
                for one in (first, second):
                    await party.ask("resources/subscribe", {"uri": one})
            await party.do({"update": first})
            await party.hears(UPDATED)
            estate.write_policy(version=2, resources=[{"match": second, "scopes": ["use"]}])
            assert estate.serving is not None
            assert await estate.serving.reload()
            await party.do({"update": first}, {"update": second})
            found = await party.hears(UPDATED, 2)
            await party.settle()
            assert [one["uri"] for one in found] == [first, second]
            assert len(party.heard(UPDATED)) == 2


@OVERS
async def test_a_revoked_key_ends_what_it_hears(tmp_path: Path, over: str) -> None:
    """In either era, though the stream may stay open: nothing more is told on it."""
    for version in (LEGACY, MODERN):
        estate = Estates(tmp_path / f"estate-{version}", *servers(version, over))
        key, one = estate.key(), "test://shown/text"
        async with (
            estate.guarded(),
            estate.party(version, key) as party,
            estate.party(version, estate.key()) as again,
        ):
            if party.modern:
                for each in (party, again):
                    await listening(each, resourceSubscriptions=[one], promptsListChanged=True)
            else:
                if over == "http":
                    await until(
                        lambda estate=estate: len([x for x in estate.all("one") if "_opened" in x]) >= 2
                    )
                await party.ask("resources/subscribe", {"uri": one})
            acts = [{"update": one}, {"changed": "prompts"}, {"changed": "resources"}]
            go = tmp_path / f"go-{version}"
            acts = [*acts, {"appears": str(go)}, *acts]
            _, task = party.start("tools/call", {"name": "do", "arguments": {"acts": acts}})
            await party.hears(PROMPTS)
            heard = len(await party.hears(UPDATED))
            estate.revoke(key)
            go.touch()
            if party.modern:
                await again.hears(UPDATED, 2)
            await task
            await again.settle()
            assert len(party.heard(UPDATED)) == heard


@WAYS
@MANY
async def test_a_subscription_hears_what_it_asked_for_under_its_own_id(
    tmp_path: Path, by: str, over: str, *, many: bool
) -> None:
    """2026-07-28: acknowledged first, as far as it may see; the server's own id of it is its own."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, over, many=many))
    shown, hidden, do = uri("shown/text", many=many), uri("secret/text", many=many), name("do", many=many)
    async with estate.speaking(MODERN, by) as party:
        id_, _, agreed = await listening(
            party, resourceSubscriptions=[shown, hidden, "test://absent"], promptsListChanged=True
        )
        assert agreed == {"promptsListChanged": True, "resourceSubscriptions": [shown]}
        await party.do(
            {"update": shown},
            {"update": hidden, "rude": True},
            {"changed": "resources", "rude": True},
            name=do,
        )
        assert await party.hears(UPDATED) == [{"uri": shown, "_meta": {SUBSCRIPTION: id_}}]
        await party.do({"changed": "prompts"}, name=do)
        assert await party.hears(PROMPTS) == [{"_meta": {SUBSCRIPTION: id_}}]
        await party.settle()
        assert (len(party.heard(UPDATED)), party.heard(RESOURCES)) == (1, [])
    (asked,) = [
        one for one in estate.received("one", "subscriptions/listen") if one["params"]["notifications"]
    ]
    assert asked["params"]["notifications"] == {"promptsListChanged": True, "resourceSubscriptions": [shown]}
    assert estate.about("secret", "one") == [
        line for line in estate.about("secret", "one") if '"acts"' in line
    ]
    if many:
        (other,) = estate.received("two", "subscriptions/listen")
        assert other["params"]["notifications"] == {"promptsListChanged": True}


@WAYS
async def test_a_subscription_that_ends_ends_at_the_server(tmp_path: Path, by: str, over: str) -> None:
    """Called off by the client: the server is told, and tells nothing more."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, over))
    one = "test://shown/text"
    async with estate.speaking(MODERN, by) as party:
        id_, task, _ = await listening(party, resourceSubscriptions=[one])
        (asked,) = estate.received(method="subscriptions/listen")
        party.cancel(id_)
        if over == "stdio":
            await until(lambda: estate.received(method="notifications/cancelled"))
            (cancelled,) = estate.received(method="notifications/cancelled")
            assert cancelled["params"]["requestId"] == asked["id"]
        else:
            await until(lambda: [one for one in estate.all("one") if one.get("_id") == asked["id"]])
        task.cancel()
        await party.do({"update": one, "rude": True})
        await party.settle()
        assert party.heard(UPDATED) == []
        again, _, _ = await listening(party, resourceSubscriptions=[one])
        await party.do({"update": one})
        assert await party.hears(UPDATED) == [{"uri": one, "_meta": {SUBSCRIPTION: again}}]


@WAYS
async def test_two_subscriptions_are_told_apart(tmp_path: Path, by: str, over: str) -> None:
    """Each hears its own, and one that asks for nothing hears nothing."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, over))
    first, second = "test://shown/text", "test://shown/bytes"
    async with estate.speaking(MODERN, by) as party:
        one, _, _ = await listening(party, resourceSubscriptions=[first])
        two, _, _ = await listening(party, resourceSubscriptions=[second], resourcesListChanged=True)
        _, _, agreed = await listening(party, promptsListChanged=False, resourceSubscriptions=[])
        assert agreed == {}
        await party.do(
            {"update": first}, {"update": second}, {"changed": "resources"}, {"changed": "prompts"}
        )
        found = await party.hears(UPDATED, 2)
        assert sorted((each["uri"], each["_meta"][SUBSCRIPTION]) for each in found) == [
            (second, two),
            (first, one),
        ]
        assert await party.hears(RESOURCES) == [{"_meta": {SUBSCRIPTION: two}}]
        await party.settle()
        assert party.heard(PROMPTS) == []


@OVERS
async def test_another_principals_subscription_hears_nothing_of_this_ones(tmp_path: Path, over: str) -> None:
    """Even behind a shared server each is told what it asked for, and no more."""
    for shared in (False, True):
        estate = Estates(tmp_path / f"estate-{shared}", *servers(MODERN, over, shared=shared))
        keys = [estate.key("someone"), estate.key("high", "powerful")]
        shown, hidden = "test://shown/text", "test://secret/text"
        async with (
            estate.guarded(),
            estate.party(MODERN, keys[0]) as party,
            estate.party(MODERN, keys[1]) as other,
        ):
            _, _, agreed = await listening(party, resourceSubscriptions=[hidden, shown])
            assert agreed == {"resourceSubscriptions": [shown]}
            id_, _, agreed = await listening(other, resourceSubscriptions=[hidden])
            assert agreed == {"resourceSubscriptions": [hidden]}
            await other.do({"update": hidden}, {"update": hidden, "rude": True})
            found = await other.hears(UPDATED)
            assert found[0] == {"uri": hidden, "_meta": {SUBSCRIPTION: id_}}
            await party.settle()
            assert party.heard(UPDATED) == []


@OVERS
async def test_a_server_that_agrees_to_less_is_believed(tmp_path: Path, over: str) -> None:
    """The client is told what it will hear, and not what it wished."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, over))
    estate.write_book("one", disagrees=["resourceSubscriptions"])
    async with estate.speaking(MODERN, "http") as party:
        _, _, agreed = await listening(
            party, resourceSubscriptions=["test://shown/text"], promptsListChanged=True, toolsListChanged=True
        )
        assert agreed == {"promptsListChanged": True, "toolsListChanged": True}


@BYS
async def test_what_is_no_filter_is_refused(tmp_path: Path, by: str) -> None:
    """Not a list, no strings, too many, or beside members that are not understood: no server hears of it."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, "stdio"))
    bad: list[Any] = [
        {"notifications": {"resourceSubscriptions": "test://shown/text"}},
        {"notifications": {"resourceSubscriptions": [7]}},
        {"notifications": {"resourceSubscriptions": ["x"] * 1001}},
        {"notifications": []},
        {},
        {"notifications": {}, "uri": "test://shown/text"},
    ]
    async with estate.speaking(MODERN, by) as party:
        for params in bad:
            assert (await party.ask("subscriptions/listen", params))["error"]["code"] == -32602, params
    assert estate.received(method="subscriptions/listen") == []


async def test_each_era_has_its_own_way_to_subscribe(tmp_path: Path) -> None:
    """The other one's methods do not exist."""
    for version in (LEGACY, MODERN):
        estate = Estates(tmp_path / f"estate-{version}", *servers(version, "stdio"))
        methods = ["resources/subscribe", "resources/unsubscribe", "logging/setLevel", "ping"]
        params: dict[str, Any] = {"uri": "test://shown/text"}
        if version == LEGACY:
            methods, params = ["subscriptions/listen", "server/discover"], {"notifications": {}}
        async with estate.speaking(version, "stdio") as party:
            for method in methods:
                assert (await party.ask(method, params))["error"]["code"] == -32601


@WAYS
async def test_lists_of_a_kind_that_is_out_of_sight_do_not_change_for_the_client(
    tmp_path: Path, by: str, over: str
) -> None:
    """2025-11-25: who may see no prompt and no resource hears of none, whatever the server says."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, over), policy={"prompts": [], "resources": []})
    notes = [{"jsonrpc": "2.0", "method": method} for method in (PROMPTS, RESOURCES)]
    async with estate.speaking(LEGACY, by) as party:
        await heard_last(estate)
        await party.do(*({"stream": one} for one in notes), *({"say": one} for one in notes))
        await party.do({"log": "info", "data": "the last"})
        await party.hears("notifications/message")
        await party.settle()
        assert party.heard(PROMPTS) == party.heard(RESOURCES) == []


@BYS
@OVERS
async def test_a_subscription_moves_to_the_server_that_replaces_its_own(
    tmp_path: Path, by: str, over: str
) -> None:
    """After a reload the old one is let go of at once, and the new one is heard under the same id."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, over))
    one = "test://shown/text"
    async with estate.speaking(MODERN, by) as party:
        id_, _, _ = await listening(party, resourceSubscriptions=[one])
        assert estate.serving is not None
        old = estate.serving.house.generation.servers["one"]
        (link,) = old._links.values()
        estate.servers["one"].settings["idle_seconds"] = 77
        settings = {"listen": "stdio", "identity": {"role": "caller", "principal": "someone"}}
        estate.write_config(**(settings if by == "stdio" else {}))
        assert await estate.serving.reload()
        assert estate.serving.house.generation.servers["one"] is not old
        await until(lambda: len(estate.received("one", "subscriptions/listen")) == 2)
        await until(lambda: link.idle)
        await party.do({"update": one})
        assert await party.hears(UPDATED) == [{"uri": one, "_meta": {SUBSCRIPTION: id_}}]


async def test_a_server_that_starts_again_is_told_again_what_its_client_wants(tmp_path: Path) -> None:
    """2025-11-25: the log level and what is still subscribed to; nothing is lost in silence."""
    estate = Estates(tmp_path / "estate", *servers(LEGACY, "stdio"))
    one, other = "test://shown/text", "test://shown/bytes"
    async with estate.speaking(LEGACY, "http") as party:
        await party.ask("logging/setLevel", {"level": "debug"})
        for uri_ in (one, other):
            await party.ask("resources/subscribe", {"uri": uri_})
        await party.ask("resources/unsubscribe", {"uri": other})
        (first,) = {line["_pid"] for line in estate.received(method="logging/setLevel")}
        os.kill(first, signal.SIGKILL)
        again = await until(
            lambda: [x for x in estate.received(method="logging/setLevel") if x["_pid"] != first]
        )
        assert again[0]["params"]["level"] == "debug"
        new = await until(
            lambda: [x for x in estate.received(method="resources/subscribe") if x["_pid"] != first]
        )
        assert [x["params"]["uri"] for x in new] == [one]
        await party.do({"update": one}, {"update": other})
        assert await party.hears(UPDATED) == [{"uri": one}]


@BYS
async def test_a_kind_that_the_policy_takes_out_of_sight_tells_a_subscription_nothing_more(
    tmp_path: Path, by: str
) -> None:
    """2026-07-28: from the reload on, lists of that kind do not change for the client; others do."""
    estate = Estates(tmp_path / "estate", *servers(MODERN, "stdio"))
    async with estate.speaking(MODERN, by) as party:
        await listening(party, promptsListChanged=True, resourcesListChanged=True)
        estate.write_policy(version=2, prompts=[])
        assert estate.serving is not None
        assert await estate.serving.reload()
        await party.do({"changed": "prompts"}, {"changed": "resources"})
        await party.hears(RESOURCES)
        await party.settle()
        assert party.heard(PROMPTS) == []

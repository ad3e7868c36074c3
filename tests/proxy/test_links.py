"""Links: whose connection to a tool server is whose, and what a slow or dead one costs whom."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from guard.config import run, serve
from guard.config.serve import Serving
from guard.core.errors import Reason, Refused
from guard.core.model import Principal
from guard.proxy import catalog, links, listing
from guard.proxy.about import About
from guard.proxy.links import Link, ToolServer
from guard.proxy.process import Process
from guard.proxy.upstream import ServerError, Upstream
from tests.proxy.estate import Estate, Server
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import LEGACY, MODERN, PATIENCE, PYTHON, TOOLS, reason

ADA, BOB, EVE = (Principal("default", "api-key", name, "caller") for name in ("ada", "bob", "eve"))
COUNTS = [
    [f'{{"jsonrpc":"2.0","id":$ID,"result":{{$COMPLETE"content":[{{"type":"text","text":"{n}"}}]}}}}']
    for n in range(1, 6)
]
"""A server that remembers: it answers with how often it was called."""
DIES = [[{"exit": 7}]]

# -- with real servers ------------------------------------------------------------------------------


def text(response: dict[str, Any]) -> str:
    assert "_meta" not in response["result"] or "dev.guard-mcp/decision" not in response["result"]["_meta"]
    return str(response["result"]["content"][0]["text"])


def starts(estate: Estate, name: str) -> int:
    """How often a server was started, or a session with it begun."""
    return len(estate.received(name, "server/discover"))


def pids(serving: Serving, name: str) -> set[int]:
    """The processes of a server that can be spoken to."""
    server = serving.house.generation.servers[name]
    every = [*server._links.values(), *([server._spare] if server._spare else [])]
    found = [link.upstream for link in every if link.up]
    assert all(isinstance(upstream, Process) for upstream in found)
    return {cast("Any", upstream)._process.get_pid() for upstream in found}


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that nobody tells of."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def names(client: RawHttp) -> list[str]:
    found = (await client.request("tools/list")).message()["result"]["tools"]
    return [tool["name"] for tool in found]


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_each_principal_has_a_process_of_its_own(tmp_path: Path, era: str) -> None:
    """What a server remembers of one caller is never seen by another."""
    estate = Estate(tmp_path / "estate", Server("one", era=era, answers=COUNTS), Server("two"))
    estate.pin()
    ada, bob = estate.key("ada"), estate.key("bob")
    async with estate.guarded() as serving:
        for count in ("1", "2"):
            for key in (ada, bob):
                assert text(await estate.client(MODERN, key).call("one__echo")) == count
        assert len(pids(serving, "one")) == 2
    assert starts(estate, "one") == 2
    estate.settled()


async def test_two_keys_of_one_principal_share_its_process(tmp_path: Path) -> None:
    """It is the principal that a server may remember, whatever it shows as a credential."""
    estate = Estate(tmp_path / "estate", Server("one", answers=COUNTS), Server("two"))
    estate.pin()
    keys = [estate.key("ada"), estate.key("ada")]
    async with estate.guarded():
        assert [text(await estate.client(MODERN, key).call("one__echo")) for key in keys] == ["1", "2"]


async def test_a_shared_server_is_shared_within_a_tenant_only(tmp_path: Path) -> None:
    """Two principals of one tenant meet at one process; another tenant has another."""
    estate = Estate(
        tmp_path / "estate", Server("one", answers=COUNTS, settings={"shared": True}), Server("two")
    )
    estate.pin()
    estate.pin(tenant="acme")
    ada, bob = estate.key("ada"), estate.key("bob")
    eve = estate.key("ada", tenant="acme")
    async with estate.guarded() as serving:
        said = [text(await estate.client(MODERN, key).call("one__echo")) for key in (ada, bob, eve, ada)]
        assert said == ["1", "2", "1", "3"]
        assert len(pids(serving, "one")) == 2


@pytest.mark.parametrize(("shared", "sessions"), [(False, 2), (True, 1)])
async def test_an_old_http_server_has_a_session_for_each_principal(
    tmp_path: Path, *, shared: bool, sessions: int
) -> None:
    """A handshake-era session remembers as a process does; each is ended when Guard ends."""
    one = Server("one", era="legacy", over="http", settings={"shared": shared})
    estate = Estate(tmp_path / "estate", one, Server("two"))
    estate.pin()
    keys = [estate.key("ada"), estate.key("bob")]
    async with estate.guarded():
        for key in [*keys, *keys]:
            assert json.loads(text(await estate.client(MODERN, key).call("one__echo", text="hi")))
    used = [message["_headers"]["mcp-session-id"] for message in estate.received("one")]
    assert len({*used}) == sessions
    assert used[:2] == used[2:]
    ended = [each for each in estate.received("one", cast("str", None)) if each.get("_http") == "DELETE /mcp"]
    assert {each["_headers"]["mcp-session-id"] for each in ended} == {*used}


async def test_a_process_sees_the_named_variables_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The allow-list, `pass_env` and `env`; never Guard's own key, nor anything else of Guard's."""
    monkeypatch.setenv("GUARD_API_KEY", "guard_never")
    monkeypatch.setenv("PASSED", "passed on")
    monkeypatch.setenv("OTHER_SECRET", "kept")
    settings = {"env": {"GIVEN": "given"}, "pass_env": ["PASSED", "ABSENT"]}
    estate = Estate(tmp_path / "estate", Server("one", settings=settings), Server("two"))
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        await estate.client(MODERN, key).call("one__echo", text="hi")
        (pid,) = pids(serving, "one")
        items = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")  # noqa: ASYNC240
    found = dict(item.decode().split("=", 1) for item in items if item)
    allowed = {"HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"}
    assert found.keys() - allowed == {"GIVEN", "PASSED"}
    assert (found["GIVEN"], found["PASSED"]) == ("given", "passed on")


async def test_a_server_that_dies_is_started_again_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call during the pause is denied at once; the next after it runs, in a new process."""
    monkeypatch.setattr(links, "FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(links, "LONGEST_PAUSE", 3600.0)
    estate = Estate(tmp_path / "estate", Server("one", answers=DIES), Server("two"))
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        assert reason(await client.call("one__echo")) == "upstream-unavailable"  # it was sent, and is unknown
        denied = await client.call("one__echo")
        assert reason(denied) == "upstream-unavailable"
        assert serving.house.generation.servers["one"].health() == {"state": "down", "links": 0}
        assert text(await client.call("two__echo", text="hi"))
        (tmp_path / "estate" / "one.answers.json").write_text(json.dumps(COUNTS))
        (link,) = serving.house.generation.servers["one"]._links.values()
        link._not_before = 0.0
        assert text(await client.call("one__echo")) == "1"
        assert serving.house.generation.servers["one"].health() == {"state": "up", "links": 1}
    assert len(estate.received("one")) == 2
    assert starts(estate, "one") == 2
    kinds = [kinds for kinds in estate.settled().values() if "granted" not in kinds]
    assert kinds == [["denied"]]


async def test_a_server_that_died_is_back_without_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as somebody used it lately."""
    monkeypatch.setattr(links, "FIRST_PAUSE", 0.0)
    estate = Estate(tmp_path / "estate", Server("one", answers=DIES), Server("two"))
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        await estate.client(MODERN, key).call("one__echo")
        await until(lambda: starts(estate, "one") == 2)
        await until(lambda: len(pids(serving, "one")) == 1)


@pytest.mark.parametrize("stdio", [False, True])
async def test_a_server_that_cannot_start_is_told_and_stops_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], *, stdio: bool
) -> None:
    """What failed and what to do is on standard error; the other server serves."""
    estate = Estate(
        tmp_path / "estate", Server("one", settings={"command": ["/no/such/program"]}), Server("two")
    )
    estate.pin()
    key = estate.key("someone")
    if stdio:
        async with estate.over_stdio() as client:
            assert text(await client.call("two__echo", text="hi"))
            assert reason(await client.call("one__echo")) == "upstream-unavailable"
    else:
        async with estate.guarded():
            http = estate.client(MODERN, key)
            assert text(await http.call("two__echo", text="hi"))
            assert reason(await http.call("one__echo")) == "upstream-unavailable"
            assert await names(http) == [f"two__{name}" for name in ("echo", "slow", "fail")]
            health = (await http.send("GET", path="/health")).json()
            assert health["servers"]["one"]["state"] == "down"
            assert health["ready"] is True
    said = capfd.readouterr().err
    assert "guard: one: the tool server does not start" in said
    assert "next: run the command by itself" in said


DEAF = """
import json, sys, time
about = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
discovered = {**about, "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
for result in [discovered] if READS else [discovered, {**about, "tools": TOOLS}]:
    line = json.loads(sys.stdin.readline())
    print(json.dumps({"jsonrpc": "2.0", "id": line["id"], "result": result}), flush=True)
while READS and sys.stdin.readline():
    pass
time.sleep(3600)
"""


def deaf(folder: Path, *, reads: bool) -> dict[str, Any]:
    """A server that reads, and answers nothing but the first question; or one that reads two and no more."""
    path = folder / "deaf.py"
    path.write_text(DEAF.replace("READS", str(reads)).replace("TOOLS", repr(TOOLS)))
    return {"command": [*PYTHON, str(path)]}


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("stdio", [False, True])
async def test_a_server_that_answers_nothing_costs_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stdio: bool, reads: bool
) -> None:
    """Calls of the other server, lists and pings come while somebody waits for the deaf one."""
    monkeypatch.setattr(listing, "LIST_SECONDS", 0.2)
    for each in (run, serve):
        monkeypatch.setattr(each, "DRAIN_SECONDS", 0.2)
    estate = Estate(
        tmp_path / "estate", Server("one", settings=deaf(tmp_path, reads=reads)), Server("two", over="http")
    )
    estate.pin()
    key = estate.key("someone")
    large = "x" * 90_000  # more than a pipe holds
    two = [f"two__{name}" for name in ("echo", "slow", "fail")]
    if stdio:
        async with estate.over_stdio(LEGACY) as client:
            for _ in range(3):
                client.request("tools/call", {"name": "one__echo", "arguments": {"text": large}})
            assert (await client.ask("ping"))["result"] == {}
            assert text(await client.call("two__echo", text="hi"))
            found = (await client.ask("tools/list"))["result"]["tools"]
            assert [tool["name"] for tool in found] == two
        return
    async with estate.guarded():
        http = estate.client(LEGACY, key)
        await http.greet()
        stuck = [asyncio.ensure_future(http.call("one__echo", text=large)) for _ in range(3)]
        assert (await http.request("ping")).message()["result"] == {}
        assert text(await http.call("two__echo", text="hi"))
        assert await names(http) == two
        assert not any(each.done() for each in stuck)
        for each in stuck:
            each.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def test_a_server_that_was_killed_costs_nobody_else(tmp_path: Path) -> None:
    """A dead server over HTTP is out of the list and its calls fail; the other one's run."""
    estate = Estate(tmp_path / "estate", Server("one", over="http"), Server("two"))
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client = estate.client(MODERN, key)
        assert text(await client.call("one__echo", text="hi"))
        estate.kill("one")
        both = await asyncio.gather(client.call("one__echo"), client.call("two__echo", text="hi"))
        assert reason(both[0]) == "upstream-unavailable"
        assert text(both[1])
        assert all(name.startswith("two__") for name in await names(client))
    estate.settled()


async def test_the_cap_lets_go_of_the_idlest_process(tmp_path: Path) -> None:
    """With `processes: 2` a third principal takes the place of the one that was quiet longest."""
    one = Server("one", answers=COUNTS, settings={"processes": 2})
    estate = Estate(tmp_path / "estate", one, Server("two"))
    estate.pin()
    keys = {name: estate.key(name) for name in ("ada", "bob", "eve")}
    async with estate.guarded() as serving:
        ada, bob, eve = (estate.client(MODERN, keys[name]) for name in ("ada", "bob", "eve"))
        assert [text(await each.call("one__echo")) for each in (ada, bob, ada, eve)] == ["1", "1", "2", "1"]
        assert len(pids(serving, "one")) == 2
        assert text(await ada.call("one__echo")) == "3"  # bob was the idlest
        assert text(await bob.call("one__echo")) == "1"
        assert len(pids(serving, "one")) == 2


async def test_the_cap_refuses_where_all_are_busy(tmp_path: Path) -> None:
    """Nobody's call is cut off for another's: the newcomer is told to come again."""
    one = Server("one", answers=[[{"wait": "notifications/cancelled"}]], settings={"processes": 1})
    estate = Estate(tmp_path / "estate", one, Server("two"))
    estate.pin()
    ada, bob = estate.key("ada"), estate.key("bob")
    async with estate.guarded():
        client = estate.client(MODERN, ada)
        async with client.connected() as connection:
            connection.write(client.written("POST", client.message("tools/call", {"name": "one__echo"})))
            await until(lambda: len(estate.received("one")) == 1)
            denied = await estate.client(MODERN, bob).call("one__echo")
            assert reason(denied) == "overloaded"
            assert text(await estate.client(MODERN, bob).call("two__echo", text="hi"))
        await until(lambda: len(estate.received("one", "notifications/cancelled")) == 1)


async def test_an_idle_process_is_let_go_of_and_comes_back(tmp_path: Path) -> None:
    """Its process ends when nobody used it; the next call starts another."""
    one = Server("one", answers=COUNTS, settings={"idle_seconds": 0.1})
    estate = Estate(tmp_path / "estate", one, Server("two"))
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        assert text(await client.call("one__echo")) == "1"
        server = serving.house.generation.servers["one"]
        await until(lambda: not server._links)
        await until(lambda: starts(estate, "one") == 1 and not pids(serving, "one"))
        assert text(await client.call("one__echo")) == "1"
    assert starts(estate, "one") == 2


HIDDEN = {
    "guard": 1,
    "id": "scene",
    "version": 1,
    "roles": {"caller": {"scopes": ["use"]}},
    "tools": [{"server": "one", "match": "echo", "scopes": ["use"]}],
}


async def test_who_may_see_none_of_a_servers_tools_never_starts_it(tmp_path: Path) -> None:
    """Neither lists nor calls start it, and its tools are answered as tools that do not exist."""
    estate = Estate(tmp_path / "estate", Server("one"), Server("two"), policy=HIDDEN)
    for tenant in ("default", "acme"):
        estate.pin(tenant=tenant)
    key = estate.key(tenant="acme")
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        await until(lambda: len(estate.received("two", "tools/list")) == 1)  # the one that nobody asked for
        assert await names(client) == ["one__echo"]
        answers = []
        for name in ("two__echo", "two__nonsense", "nowhere__echo", "echo", "two__", "__echo"):
            message = {**client.message("tools/call", {"name": name, "arguments": {}}), "id": 1}
            answer = await client.post(message)
            headers = {key: value for key, value in answer.headers.items() if key != "date"}
            body = re.sub(rb"[\w-]{22}", b"ID", answer.body)
            answers.append((answer.status, headers, body))
            assert reason(answer.message()) == "unknown-tool"
        assert all(each == answers[0] for each in answers)
        assert not [link for link in serving.house.generation.servers["two"]._links.values() if link.up]
    assert starts(estate, "two") == 1


async def test_nothing_is_left_running(tmp_path: Path) -> None:
    """Whatever was started, for whomever, is gone when Guard has ended; also what does not read."""
    one = Server("one", settings=deaf(tmp_path, reads=False))
    estate = Estate(tmp_path / "estate", one, Server("two"), Server("three", era="legacy"))
    estate.pin()
    keys = [estate.key(name) for name in ("ada", "bob")]
    async with estate.guarded() as serving:
        for key in keys:
            for name in ("two__echo", "three__echo"):
                assert text(await estate.client(MODERN, key).call(name, text="hi"))
        await until(lambda: len(pids(serving, "one")) == 1)
        found = {pid for name in estate.servers for pid in pids(serving, name)}
        assert len(found) == 5
        assert all(map(runs, found))
    assert not any(map(runs, found))


async def test_lists_and_calls_at_once_all_come_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask anew at the same time, no server drops out of a list, and no call is denied."""
    monkeypatch.setattr(catalog, "MAX_REFRESHES", 1)
    estate = Estate(tmp_path / "estate", Server("one"), Server("two", over="http"))
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client = estate.client(MODERN, key)

        async def one(number: int) -> bool:
            await asyncio.sleep(number / 1000)
            if number % 2:
                return len(await names(client)) == 6
            return text(await client.call("one__echo", text="hi")) != ""

        assert all(await asyncio.gather(*map(one, range(120))))


# -- with a server that is made up, and a clock that stands -------------------------------------------


class Clock:
    """What `links` takes for time."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Fake(Upstream):
    """A tool server that starts and answers as its maker says."""

    def __init__(self, maker: Maker, **more: Any) -> None:
        super().__init__("fake", **more)
        self.maker = maker
        self.stopped = False
        self.work = False

    async def start(self) -> None:
        await self.maker.may_start.wait()
        if self.maker.fails:
            raise ServerError("does not start")
        self.version = MODERN

    async def stop(self) -> None:
        self.stopped = self._silent = True

    @property
    def busy(self) -> bool:
        return self.work

    def die(self) -> None:
        self._gone()

    async def list_tools(self) -> list[dict[str, Any]]:
        self.maker.on_list()
        return []

    async def _send(self, *_: Any) -> None: ...
    def _notify(self, *_: Any) -> None: ...
    def _answer(self, *_: Any) -> None: ...
    def _abandon(self, *_: Any) -> None: ...


class Maker:
    def __init__(self) -> None:
        self.made: list[Fake] = []
        self.fails = False
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.on_list: Callable[[], object] = lambda: None

    def __call__(self, **more: Any) -> Fake:
        self.made.append(Fake(self, **more))
        return self.made[-1]

    def server(self, **more: Any) -> ToolServer:
        about = About(
            "server", "server", self, cast("Any", None), lambda _: [], lambda _: "", **{"most": 2, **more}
        )
        return ToolServer(about)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time stands still until the test moves it; pauses are so long that no timer comes by itself."""
    found = Clock()
    monkeypatch.setattr(links, "time", found)
    monkeypatch.setattr(links, "FIRST_PAUSE", 1000.0)
    monkeypatch.setattr(links, "LONGEST_PAUSE", 6000.0)
    return found


async def refused(link: Link) -> Reason:
    with pytest.raises(Refused) as told:
        await link.ready()
    return told.value.reason


async def test_the_pause_grows_with_each_failure_up_to_a_bound(clock: Clock) -> None:
    """Within it nothing is started; right after it one start is tried."""
    maker = Maker()
    maker.fails = True
    server = maker.server()
    link = server.link(ADA)
    for tries, pause in enumerate([1000.0, 2000.0, 4000.0, 6000.0, 6000.0], 1):
        assert await refused(link) is Reason.UPSTREAM_UNAVAILABLE
        assert len(maker.made) == tries
        assert maker.made[-1].stopped
        clock.now += pause - 1
        assert await refused(link) is Reason.UPSTREAM_UNAVAILABLE
        assert len(maker.made) == tries  # still in the pause
        clock.now += 1
    assert server.health()["state"] == "down"
    maker.fails = False
    assert await link.ready() is maker.made[-1]
    assert server.health() == {"state": "up", "links": 1}
    await server.close()


async def test_a_server_that_ran_long_begins_with_the_shortest_pause(clock: Clock) -> None:
    """One that dies soon after each start is waited for longer and longer."""
    maker = Maker()
    server = maker.server()
    link = server.link(ADA)
    for lasts, pause in [(1, 1000), (1, 2000), (1, 4000), (links.STEADY_SECONDS + 1, 1000), (1, 2000)]:
        await link.ready()
        clock.now += lasts
        maker.made[-1].die()
        assert link._not_before == clock.now + pause
        clock.now += pause
    await server.close()
    assert all(each.stopped for each in maker.made)


async def test_a_start_that_hangs_costs_only_its_own_callers(clock: Clock) -> None:
    """Another principal's link starts meanwhile, and the hanging one is given up after its time."""
    maker = Maker()
    server = maker.server()
    await server.link(BOB).ready()
    maker.may_start.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(links, "START_SECONDS", 0.05)
        waits = [asyncio.ensure_future(refused(server.link(ADA))) for _ in range(3)]
        assert await server.link(BOB).ready() is maker.made[0]
        assert await asyncio.gather(*waits) == [Reason.UPSTREAM_UNAVAILABLE] * 3
    assert len(maker.made) == 2
    assert server.failure is not None
    assert "did not start within" in server.failure
    await server.close()


async def test_who_gives_up_waiting_does_not_stop_a_start(clock: Clock) -> None:
    """Others wait for it; and even if nobody did, it is there for the next."""
    maker = Maker()
    maker.may_start.clear()
    server = maker.server()
    waits = [asyncio.ensure_future(server.link(ADA).ready()) for _ in range(3)]
    await asyncio.sleep(0)
    waits[0].cancel()
    waits[1].cancel()
    await asyncio.wait(waits[:2])
    maker.may_start.set()
    assert await waits[2] is maker.made[0]
    assert [each.cancelled() for each in waits[:2]] == [True, True]
    maker.may_start.clear()
    alone = asyncio.ensure_future(server.link(BOB).ready())
    await asyncio.sleep(0)
    alone.cancel()
    await asyncio.wait([alone])
    maker.may_start.set()
    assert await server.link(BOB).ready() is maker.made[1]
    await server.close()


async def test_closing_while_a_start_hangs_refuses_who_waits_and_stops_it(clock: Clock) -> None:
    """Nobody waits for ever, and what was begun is stopped."""
    maker = Maker()
    maker.may_start.clear()
    server = maker.server()
    wait = asyncio.ensure_future(refused(server.link(ADA)))
    await until(lambda: len(maker.made) == 1)
    await server.close()
    assert await wait is Reason.UPSTREAM_UNAVAILABLE
    assert maker.made[0].stopped


async def test_room_is_made_by_the_idlest_and_never_by_the_busy(clock: Clock) -> None:
    """All busy: overloaded. One idle: it goes, and is the one that was used least lately."""
    maker = Maker()
    server = maker.server(most=2)
    for principal in (ADA, BOB):
        await server.link(principal).ready()
        clock.now += 1
    ada, bob = maker.made
    ada.work = bob.work = True
    assert await refused(server.link(EVE)) is Reason.OVERLOADED
    ada.work = bob.work = False
    server.link(ADA)  # ada came by: now bob is the idlest
    await server.link(EVE).ready()
    assert (ada.stopped, bob.stopped) == (False, True)
    bob_again = await server.link(BOB).ready()
    assert bob_again is maker.made[-1]
    assert ada.stopped
    await server.close()


async def test_an_overload_leaves_no_pause_behind(clock: Clock) -> None:
    """As soon as there is room the start is tried."""
    maker = Maker()
    server = maker.server(most=1)
    await server.link(ADA).ready()
    maker.made[0].work = True
    assert await refused(server.link(BOB)) is Reason.OVERLOADED
    maker.made[0].work = False
    assert await server.link(BOB).ready() is maker.made[1]
    await server.close()


async def test_two_hundred_principals_leave_nothing_behind(clock: Clock) -> None:
    """Never more than the cap are up, and after the idle time none is remembered."""
    maker = Maker()
    server = maker.server(most=4, idle_seconds=600.0)
    for number in range(200):
        await server.link(Principal("default", "api-key", str(number), "caller")).ready()
        assert server.health()["links"] <= 4
    assert len(server._links) == 4
    assert sum(not each.stopped for each in maker.made) == 4
    clock.now += 601
    server._sweep()
    assert not server._links
    await server.close()
    assert all(each.stopped for each in maker.made)


async def test_principals_whose_server_never_started_are_forgotten_too(clock: Clock) -> None:
    """Links that are down, and links that only a list looked at."""
    maker = Maker()
    maker.fails = True
    server = maker.server(idle_seconds=600.0)
    for number in range(200):
        link = server.link(Principal("default", "api-key", str(number), "caller"))
        if number % 2:
            assert await refused(link) is Reason.UPSTREAM_UNAVAILABLE
    clock.now += 601
    server._sweep()
    assert not server._links
    await server.close()


async def test_a_busy_link_is_not_idle_however_long_it_takes(clock: Clock) -> None:
    """A long call is not cut off; once it has ended, the link goes."""
    maker = Maker()
    server = maker.server(idle_seconds=600.0)
    await server.link(ADA).ready()
    maker.made[0].work = True
    clock.now += 10_000
    server._sweep()
    assert not maker.made[0].stopped
    maker.made[0].work = False
    server._sweep()
    await server.close()
    assert maker.made[0].stopped


async def test_the_server_that_was_started_before_anybody_asked_goes_to_the_first(clock: Clock) -> None:
    """Of its tenant; another tenant's principal starts its own, and the next of this tenant too."""
    maker = Maker()
    server = maker.server(most=4)
    await server.warm("default")
    await server.link(Principal("acme", "api-key", "ada", "caller")).ready()
    assert len(maker.made) == 2
    assert await server.link(ADA).ready() is maker.made[0]
    assert await server.link(BOB).ready() is maker.made[2]
    await server.close()


async def test_a_link_that_was_let_go_of_starts_nothing_more(clock: Clock) -> None:
    """Whoever still holds it is refused."""
    maker = Maker()
    server = maker.server(most=1)
    old = server.link(ADA)
    await old.ready()
    await server.link(BOB).ready()
    assert await refused(old) is Reason.UPSTREAM_UNAVAILABLE
    assert len(maker.made) == 2
    await server.close()


async def test_others_who_ask_anew_do_not_hold_up_who_does_not(clock: Clock) -> None:
    """Each list brings another wish for a list; nobody waits for wishes that came after the own."""
    maker = Maker()
    server = maker.server()
    link = server.link(ADA)
    maker.on_list = link.catalog.again
    await link.fresh()
    link.catalog.again()
    await link.fresh()
    await server.close()


async def test_tools_that_do_not_stand_still_are_not_bound(clock: Clock) -> None:
    """A server that tells of a change during each list is asked a few times, and then refused."""
    maker = Maker()
    server = maker.server()
    link = server.link(ADA)
    maker.on_list = link.catalog.forget
    with pytest.raises(Refused) as told:
        await link.fresh()
    assert told.value.reason is Reason.UPSTREAM_UNAVAILABLE
    await server.close()


async def test_draining_waits_for_what_is_under_way_and_stops_all_even_if_it_is_called_off(
    clock: Clock,
) -> None:
    """A server that was removed keeps no process, whether its calls ended or Guard ends first."""
    maker = Maker()
    server = maker.server()
    await server.link(ADA).ready()
    maker.made[0].work = True
    draining = asyncio.ensure_future(server.drain(3600))
    await asyncio.sleep(0)
    assert not maker.made[0].stopped
    draining.cancel()
    await asyncio.wait([draining])
    assert maker.made[0].stopped

"""A reload: from one moment on the new configuration holds; no call is dropped; a bad one changes nothing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from guard.config.serve import Serving
from guard.lineage.entry import Kind
from tests.proxy.estate import Estate, Server
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import LEGACY, MODERN, PATIENCE, POLICY, PYTHON, reason

CHANGED = "notifications/tools/list_changed"
LISTEN = {"notifications": {"toolsListChanged": True}}
RELOADS = 20
DEAF = """
import json, sys
about = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "capabilities": {"tools": {}}}
line = json.loads(sys.stdin.readline())
result = {**about, "supportedVersions": ["2026-07-28"]}
print(json.dumps({"jsonrpc": "2.0", "id": line["id"], "result": result}), flush=True)
sys.stdin.read()
"""


def generation(version: int) -> dict[str, Any]:
    """A policy that permits `echo` where its version is even; where it is odd, a rule of its own forbids."""
    schema = {"required": ["n"], "properties": {"n": {"const": 1}}}
    forbids = [{"id": f"never-{version}", "tools": ["echo"], "schema": schema}]
    return {**POLICY, "version": version, "protected": forbids if version % 2 else []}


def decided(response: dict[str, Any]) -> tuple[str, str]:
    """("", "") for a permitted call, else the reason and the rule."""
    about = response["result"].get("_meta", {}).get("dev.guard-mcp/decision")
    return ("", "") if about is None else (about["reason"], about.get("rule", ""))


def pids(serving: Serving, name: str) -> set[int]:
    server = serving.house.generation.servers[name]
    every = [*server._links.values(), *([server._spare] if server._spare else [])]
    return {cast("Any", link.upstream)._process.get_pid() for link in every if link.up}


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


async def names(client: RawHttp) -> set[str]:
    found = (await client.request("tools/list")).message()["result"]["tools"]
    return {tool["name"] for tool in found}


# -- no call is dropped ---------------------------------------------------------------------------------


async def reloaded_under_load(estate: Estate, serving: Serving, call: Callable[[], Any]) -> None:
    """Many calls at once, all the time, while the policy moves on; each is decided by one of them."""
    answers: list[tuple[str, str]] = []
    over = asyncio.Event()

    async def caller() -> None:
        while not over.is_set():
            answers.append(decided(await call()))

    callers = [asyncio.ensure_future(caller()) for _ in range(12)]
    for version in range(2, RELOADS + 2):
        before = len(answers)
        await until(lambda: len(answers) >= before + 15 or any(each.done() for each in callers))  # noqa: B023
        estate.write_policy(**generation(version))
        assert await serving.reload()
    over.set()
    await asyncio.gather(*callers)
    allowed = {("", ""), *(("protected", f"never-{version}") for version in range(1, RELOADS + 2, 2))}
    assert {*answers} <= allowed
    assert len({*answers}) > RELOADS // 4  # the load was there while the policy moved


def held_by_the_policy_that_is_named(estate: Estate) -> None:
    """Each entry names the policy that decided, and it is one that decides so."""
    for entry in estate.entries(Kind.GRANTED, Kind.DENIED):
        version = entry["fields"]["policy"]["version"]
        assert (entry["kind"] == "granted") == (version % 2 == 0), entry
        if entry["kind"] == "denied":
            decision = entry["fields"]["decision"]
            assert (decision["reason"], decision["rule"]) == ("protected", f"never-{version}")
    estate.settled()


@pytest.mark.parametrize("version", [MODERN, LEGACY])
async def test_no_call_over_http_is_dropped_by_a_reload(tmp_path: Path, version: str) -> None:
    """Every call is permitted, or denied by a rule of the policy that its entry names."""
    estate = Estate(tmp_path / "estate", Server("one"), Server("two", over="http"), policy=generation(1))
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(version, key)
        if version == LEGACY:
            await client.greet()
        turns = iter(range(1_000_000))

        async def call() -> dict[str, Any]:
            server = "one" if next(turns) % 2 else "two"
            return await client.call(f"{server}__echo", n=1)

        await reloaded_under_load(estate, serving, call)
    held_by_the_policy_that_is_named(estate)


async def test_no_call_over_stdio_is_dropped_by_a_reload(tmp_path: Path) -> None:
    """As over HTTP."""
    estate = Estate(tmp_path / "estate", Server("one"), Server("two"), policy=generation(1))
    estate.pin()
    async with estate.over_stdio() as client:
        assert estate.serving is not None
        waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

        async def listen() -> None:
            while True:
                message = await client.hear()
                if "id" in message:
                    waiting.pop(message["id"]).set_result(message)

        listening = asyncio.ensure_future(listen())

        async def call() -> dict[str, Any]:
            id_ = client.request("tools/call", {"name": "one__echo", "arguments": {"n": 1}})
            waiting[id_] = asyncio.get_running_loop().create_future()
            return await asyncio.wait_for(waiting[id_], PATIENCE)

        await reloaded_under_load(estate, estate.serving, call)
        listening.cancel()
        await asyncio.wait([listening])
    held_by_the_policy_that_is_named(estate)


async def test_the_next_call_is_decided_by_the_new_policy(tmp_path: Path) -> None:
    """As soon as the reload is done."""
    estate = Estate(tmp_path / "estate", policy=generation(2))
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        assert decided(await client.call("echo", n=1)) == ("", "")
        estate.write_policy(**generation(3))
        assert decided(await client.call("echo", n=1)) == ("", "")  # a file alone changes nothing
        assert await serving.reload()
        assert decided(await client.call("echo", n=1)) == ("protected", "never-3")


async def test_a_call_under_way_ends_as_it_was_granted(tmp_path: Path) -> None:
    """What was sent under the old policy comes back, though the new one forbids it."""
    said = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[]}}'
    answers = [[{"sleep": 0.3}, said]]
    estate = Estate(tmp_path / "estate", Server("server", answers=answers), policy=generation(2))
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        call = asyncio.ensure_future(client.call("echo", n=1))
        await until(lambda: len(estate.received()) == 1)
        estate.write_policy(**generation(3))
        assert await serving.reload()
        assert not call.done()
        assert decided(await call) == ("", "")
        assert decided(await client.call("echo", n=1)) == ("protected", "never-3")
    assert len(estate.received()) == 1
    estate.settled()


# -- what cannot be taken -----------------------------------------------------------------------------


BROKEN: dict[str, tuple[Callable[[Estate], object], str]] = {
    "a configuration that is none": (
        lambda estate: estate.config.write_text('{"guard": 1,\n"polcy": "x"}'),
        r"guard\.yaml:2.*polcy",
    ),
    "a policy that is none": (
        lambda estate: (estate.folder / "policy.json").write_text(
            '{"guard": 1,\n"id": "scene",\n"rols": {}}'
        ),
        r"policy\.json:3.*rols",
    ),
    "a policy that is not there": (
        lambda estate: (estate.folder / "policy.json").unlink(),
        r"policy\.json: cannot be read",
    ),
    "an older policy": (lambda estate: estate.write_policy(**generation(2)), "version 2 is older"),
    "other bytes under the same version": (
        lambda estate: estate.write_policy(expires="2999-01-01T00:00:00Z"),
        "had other bytes",
    ),
    "a rule that no pinned tool can meet": (
        lambda estate: estate.write_policy(
            version=5,
            intents=[{"id": "x", "tools": ["echo"], "schema": {"properties": {"txt": {"type": "string"}}}}],
        ),
        "txt",
    ),
    "another address": (lambda estate: estate.write_config(listen="127.0.0.1:1"), "listen: cannot change"),
    "another home": (lambda estate: estate.write_config(home="elsewhere"), "home: cannot change"),
    "another certificate": (
        lambda estate: estate.write_config(tls={"certificate": "c.pem", "key": "k.pem"}),
        "tls: cannot change",
    ),
}


@pytest.mark.parametrize(("spoil", "said"), BROKEN.values(), ids=BROKEN)
async def test_what_cannot_be_taken_leaves_the_old_in_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Estate], object], said: str
) -> None:
    """Standard error says where and what to do; Guard is ready, and decides as before."""
    estate = Estate(tmp_path / "estate", Server("one"), Server("two"), policy=generation(4))
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        assert decided(await client.call("one__echo", n=1)) == ("", "")
        before, processes = serving.house.generation, pids(serving, "one")
        spoil(estate)
        capsys.readouterr()
        assert not await serving.reload()
        told = capsys.readouterr().err
        assert told.startswith("guard: not reloaded, the old configuration holds: ")
        assert re.search(said, told), told
        assert "\n  next: " in told
        assert serving.house.generation is before
        health = await client.send("GET", path="/health")
        assert (health.status, health.json()["ready"]) == (200, True)
        assert decided(await client.call("one__echo", n=1)) == ("", "")
        assert pids(serving, "one") == processes
        estate.write_policy(**generation(6))  # and what is mended is taken
        estate.write_config(listen="127.0.0.1:0", home="home", tls=None)
        assert await serving.reload()
        assert decided(await client.call("one__echo", n=1)) == ("", "")
    estate.settled()


# -- servers come and go --------------------------------------------------------------------------------


async def test_servers_come_go_and_change_and_the_others_stay(tmp_path: Path) -> None:
    """An unchanged one keeps its process; a removed and a changed one's ends; a new one is there."""
    estate = Estate(tmp_path / "estate", *map(Server, ("stays", "goes", "changes", "comes")))
    estate.pin()
    key = estate.key()
    comes = estate.servers.pop("comes")
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        for name in ("stays", "goes", "changes"):
            assert decided(await client.call(f"{name}__echo")) == ("", "")
        stays, goes, changes = (pids(serving, name) for name in ("stays", "goes", "changes"))
        del estate.servers["goes"]
        estate.servers |= {"comes": comes, "changes": Server("changes", settings={"env": {"NEW": "1"}})}
        estate.write_config()
        assert await serving.reload()
        for name in ("stays", "changes", "comes"):
            assert decided(await client.call(f"{name}__echo")) == ("", "")
        assert reason(await client.call("goes__echo")) == "unknown-tool"
        assert {name.partition("__")[0] for name in await names(client)} == {"stays", "changes", "comes"}
        assert pids(serving, "stays") == stays
        assert not pids(serving, "changes") & changes
        (pid,) = pids(serving, "changes")
        assert b"NEW=1" in Path(f"/proc/{pid}/environ").read_bytes()  # noqa: ASYNC240
        await until(lambda: not any(map(runs, goes | changes)))
    estate.settled()


async def test_a_call_on_a_removed_server_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the server may take: then its process goes."""
    monkeypatch.setattr("guard.config.serve.DRAIN_SECONDS", 0.0)
    monkeypatch.setattr("guard.proxy.links.LEAVE_SECONDS", 0.0)
    said = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[]}}'
    estate = Estate(tmp_path / "estate", Server("one"), Server("goes", answers=[[{"sleep": 0.5}, said]]))
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        call = asyncio.ensure_future(client.call("goes__echo"))
        await until(lambda: len(estate.received("goes")) == 1)
        processes = pids(serving, "goes")
        del estate.servers["goes"]
        estate.write_config()
        assert await serving.reload()
        assert not call.done()
        assert decided(await call) == ("", "")
        await until(lambda: not any(map(runs, processes)))
        estate.servers["goes"] = Server("goes")
    estate.settled()


async def test_ending_while_a_removed_server_still_works_leaves_no_process(tmp_path: Path) -> None:
    """Its call is unknown then, as any that Guard could not wait for."""
    estate = Estate(tmp_path / "estate", Server("one"), Server("goes", answers=[[{"sleep": 3600}]]))
    estate.pin()
    key = estate.key()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("guard.config.serve.DRAIN_SECONDS", 0.1)
        async with estate.guarded() as serving:
            client = estate.client(MODERN, key)
            call = asyncio.ensure_future(client.call("goes__echo"))
            await until(lambda: len(estate.received("goes")) == 1)
            processes = pids(serving, "goes")
            goes = estate.servers.pop("goes")
            estate.write_config()
            assert await serving.reload()
    await asyncio.gather(call, return_exceptions=True)
    assert processes
    assert not any(map(runs, processes))
    estate.servers["goes"] = goes
    estate.settled()


async def test_reloads_that_come_at_once_leave_one_of_each_server(tmp_path: Path) -> None:
    """Two signals in a row are two reloads, one after the other: nothing is started that nobody stops."""
    estate = Estate(tmp_path / "estate", *map(Server, ("one", "two", "comes")), policy=generation(2))
    estate.pin()
    key = estate.key()
    comes = estate.servers.pop("comes")
    async with estate.guarded() as serving:
        estate.servers["comes"] = comes
        estate.write_config()
        estate.write_policy(**generation(4))
        assert await asyncio.gather(*(serving.reload() for _ in range(3))) == [True] * 3
        assert decided(await estate.client(MODERN, key).call("comes__echo")) == ("", "")
        await until(lambda: len(estate.received("comes", "tools/list")) >= 1)
    assert len(estate.received("comes", "server/discover")) == 1
    estate.settled()


async def test_calls_while_a_server_changes_are_never_denied_for_it(tmp_path: Path) -> None:
    """A call that was bound to the old one, and not sent yet, goes to the new one."""
    estate = Estate(tmp_path / "estate", Server("one"), Server("two"))
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        over = asyncio.Event()
        answers: list[tuple[str, str]] = []

        async def caller() -> None:
            while not over.is_set():
                answers.append(decided(await client.call("one__echo", n=1)))

        callers = [asyncio.ensure_future(caller()) for _ in range(8)]
        for number in range(8):
            before = len(answers)
            await until(lambda: len(answers) >= before + 10 or any(each.done() for each in callers))  # noqa: B023
            estate.servers["one"] = Server("one", settings={"env": {"N": str(number)}})
            estate.write_config()
            assert await serving.reload()
        over.set()
        await asyncio.gather(*callers)
        assert {*answers} == {("", "")}
    estate.settled()


async def test_a_call_that_waits_for_a_server_that_is_replaced_goes_to_the_new_one(tmp_path: Path) -> None:
    """The old one never told its tools, and is given up; the call was not bound to it yet."""
    script = tmp_path / "deaf.py"
    script.write_text(DEAF)
    deaf = {"command": [*PYTHON, str(script)], "timeout": 3}
    estate = Estate(tmp_path / "estate", Server("one", settings=deaf), Server("two"))
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        await until(lambda: len(pids(serving, "one")) == 1)
        call = asyncio.ensure_future(client.call("one__echo"))
        await until(lambda: len(serving.house.generation.servers["one"]._links) == 1)
        estate.servers["one"] = Server("one")
        estate.write_config()
        assert await serving.reload()
        assert not call.done()
        assert decided(await call) == ("", "")
    estate.settled()


# -- who hears of it ------------------------------------------------------------------------------------


MORE = [{"match": "echo", "scopes": ["use"]}, {"match": "hidden", "scopes": ["more"]}]
NEXT = [*MORE, {"match": "unlisted", "scopes": ["more"]}]
LAST = [*NEXT, {"match": "fail", "scopes": ["use"]}]


def seen(version: int, tools: list[dict[str, Any]]) -> dict[str, Any]:
    return {**POLICY, "version": version, "tools": tools}


async def test_those_hear_of_a_reload_for_whom_something_changed(tmp_path: Path) -> None:
    """Streams of sessions and subscriptions alike; whoever sees what they saw hears nothing."""
    estate = Estate(tmp_path / "estate", Server("one"), Server("two"), policy=seen(1, MORE))
    estate.pin()
    keys = {role: estate.key(role, role=role) for role in ("caller", "powerful")}
    async with estate.guarded() as serving:
        old = {role: estate.client(LEGACY, key) for role, key in keys.items()}
        new = {role: estate.client(MODERN, key) for role, key in keys.items()}
        for each in old.values():
            await each.greet()
            await each.request("tools/list")
        async with (
            old["caller"].listen() as caller_get,
            old["powerful"].listen() as powerful_get,
            new["caller"].stream("subscriptions/listen", LISTEN) as caller_listen,
            new["powerful"].stream("subscriptions/listen", LISTEN) as powerful_listen,
        ):
            for each in (caller_listen, powerful_listen):
                assert (await each.next())["method"] == "notifications/subscriptions/acknowledged"
            estate.write_policy(**seen(2, NEXT))  # only the powerful see one more
            assert await serving.reload()
            for each in (powerful_get, powerful_listen):
                assert (await each.next())["method"] == CHANGED
            estate.write_policy(**seen(3, LAST))  # all do
            assert await serving.reload()
            for each in (caller_get, caller_listen, powerful_get, powerful_listen):
                assert (await each.next())["method"] == CHANGED
            serving.front.finish()
            for each in (caller_get, powerful_get):
                with pytest.raises(EOFError, match="the stream ended"):
                    await each.next()
            for each in (caller_listen, powerful_listen):
                assert "result" in await each.next()  # the end, and no second notification before it


async def test_a_client_at_the_pipes_hears_of_a_reload(tmp_path: Path) -> None:
    """Once, where what it sees changed; and not where it did not."""
    estate = Estate(tmp_path / "estate", Server("one"), Server("two"), policy=seen(1, MORE))
    estate.pin()
    async with estate.over_stdio(LEGACY) as client:
        assert estate.serving is not None
        await client.ask("tools/list")
        estate.write_policy(**seen(2, NEXT))
        assert await estate.serving.reload()
        estate.write_policy(**seen(3, LAST))
        assert await estate.serving.reload()
        assert (await client.hear())["method"] == CHANGED
        found = (await client.ask("tools/list"))["result"]["tools"]
        assert {tool["name"] for tool in found} == {
            f"{s}__{t}" for s in ("one", "two") for t in ("echo", "fail")
        }
        await client.silent()
    assert client.notifications == []


# -- keys and tenants -----------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True])
async def test_a_new_tenants_key_works_at_once(tmp_path: Path, *, again: bool) -> None:
    """Minted while Guard runs, before or after a reload: the policy is adopted for the tenant."""
    estate = Estate(tmp_path / "estate", Server("one"), Server("two"), policy=generation(2))
    estate.pin()
    async with estate.guarded() as serving:
        estate.pin(tenant="acme")
        key = estate.key("ada", tenant="acme")
        if again:
            estate.write_policy(**generation(4))
            assert await serving.reload()
        client = estate.client(MODERN, key)
        answers = await asyncio.gather(*(client.call("one__echo", n=1) for _ in range(8)))
        assert {*map(decided, answers)} == {("", "")}
        estate.write_policy(**generation(5))
        assert await serving.reload()
        assert decided(await client.call("one__echo", n=1)) == ("protected", "never-5")
    estate.settled()


# -- a signal -------------------------------------------------------------------------------------------


class Process:
    """A real `guard serve`."""

    def __init__(self, estate: Estate) -> None:
        self.log = estate.folder / "serve.log"
        with self.log.open("w") as errors:
            words = [sys.executable, "-m", "guard.cli.main", "serve", str(estate.config)]
            self.guard = subprocess.Popen(words, stderr=errors, stdin=subprocess.DEVNULL)

    async def said(self, pattern: str) -> str:
        """What standard error says, as soon as it does."""
        await until(
            lambda: self.guard.poll() is not None or re.search(pattern, self.log.read_text()) is not None
        )
        found = re.search(pattern, self.log.read_text())
        assert found is not None, self.log.read_text()
        return found[0]

    async def reloads(self, pattern: str) -> str:
        """Send SIGHUP; what is said then."""
        self.log.write_text("")
        self.guard.send_signal(signal.SIGHUP)
        return await self.said(pattern)


@contextmanager
def process(estate: Estate) -> Iterator[Process]:
    found = Process(estate)
    try:
        yield found
    finally:
        found.guard.send_signal(signal.SIGTERM)
        assert found.guard.wait(PATIENCE) == 0, found.log.read_text()


async def test_a_signal_reloads_a_running_guard(tmp_path: Path) -> None:
    """SIGHUP takes the new policy; a broken one is told with its line, and Guard goes on; SIGTERM ends it."""
    estate = Estate(tmp_path / "estate", Server("one"), Server("two"), policy=generation(2))
    estate.pin()
    key = estate.key()
    estate.write_config()
    with process(estate) as guard:
        port = int((await guard.said(r" at http://127\.0\.0\.1:\d+/")).split(":")[-1].strip("/"))
        client = RawHttp(port, key=key)
        assert decided(await client.call("one__echo", n=1)) == ("", "")
        estate.write_policy(**generation(3))
        await guard.reloads("guard: reloaded")
        assert decided(await client.call("one__echo", n=1)) == ("protected", "never-3")
        (estate.folder / "policy.json").write_text('{"guard": 1,\n"id": "scene",\n"rols": {}}')
        await guard.reloads(r"not reloaded, the old configuration holds: .*policy\.json:3.*rols.*\n  next: ")
        assert (await client.send("GET", path="/health")).json()["ready"] is True
        assert decided(await client.call("one__echo", n=1)) == ("protected", "never-3")
        estate.write_policy(**generation(4))
        await guard.reloads("guard: reloaded")
        assert decided(await client.call("one__echo", n=1)) == ("", "")
    assert "Traceback" not in guard.log.read_text()
    estate.settled()

"""Limits on the way of a real call: many at once, over several processes, and what is given back."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from guard.config.home import close_abandoned
from guard.lineage.entry import Kind
from guard.lineage.lease import Lease
from guard.lineage.store import Transaction
from tests.config.test_workers import workers
from tests.proxy.estate import Estate, Server
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import LEGACY, MODERN, PATIENCE, POLICY, Client, Scene, decision

GUARD = Path(sys.executable).parent / "guard"
ALL_AT_ONCE = 64
MOST = 10
FEW: dict[str, Any] = {"id": "few", "tools": ["echo"], "per": "principal", "calls": MOST, "window": "1h"}


def limited(**limit: Any) -> dict[str, Any]:
    return {**POLICY, "limits": [{**FEW, **limit}]}


def said(answer: dict[str, Any]) -> str:
    """What became of a call: "allow", or why not."""
    return str(decision(answer)["reason"]) if answer["result"].get("isError") else "allow"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    found = Scene(tmp_path / "s", policy=limited())
    found.pin()
    return found


def estate(folder: Path, *servers: Server, **limit: Any) -> Estate:
    found = Estate(folder, *(servers or (Server("server"),)), policy=limited(**limit))
    found.pin()
    return found


async def many(client: Client | RawHttp, count: int = ALL_AT_ONCE) -> Counter[str]:
    """So many calls at once."""
    if isinstance(client, Client):
        ids = [
            client.request("tools/call", {"name": "echo", "arguments": {"n": 100 + n}}) for n in range(count)
        ]
        return Counter([said(await client.answer(id_)) for id_ in ids])
    return Counter(map(said, await asyncio.gather(*(client.call("echo", n=100 + n) for n in range(count)))))


def exactly(found: Counter[str], kept: Scene | Estate) -> None:
    """As many as there may be were permitted and reached the server; all others were told why not."""
    assert found == {"allow": MOST, "limit-reached": ALL_AT_ONCE - MOST}
    assert len(kept.received()) == MOST
    kinds = Counter(kind for kinds in kept.settled().values() for kind in kinds)
    assert (kinds["granted"], kinds["returned"]) == (MOST, MOST)
    denied = [entry["fields"]["decision"] for entry in kept.entries(Kind.DENIED)]
    assert denied == [{"reason": "limit-reached", "rule": "few", "pointer": ""}] * (ALL_AT_ONCE - MOST)


# -- many at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [MODERN, LEGACY])
async def test_64_at_once_against_10_permit_exactly_10(scene: Scene, version: str) -> None:
    """The others are told that the limit is reached, and none that something was contended."""
    async with scene.guarded(version) as client:
        found = await many(client)
    exactly(found, scene)


async def test_64_at_once_over_http_permit_exactly_10(tmp_path: Path) -> None:
    """Each on a connection of its own."""
    found = estate(tmp_path / "e")
    key = found.key()
    async with found.guarded():
        client = found.client(key=key)
        verdicts = await many(client)
    exactly(verdicts, found)


async def test_two_workers_share_a_limit(tmp_path: Path) -> None:
    """`guard serve --workers 2`: whichever process a call reaches, ten in all."""
    found = estate(tmp_path / "e")
    key = found.key()
    with workers(found) as guard:
        await guard.ready(2)
        verdicts = await many(guard.client(key=key))
        guard.process.terminate()
        assert guard.process.wait(PATIENCE) == 0
    assert len({entry["fields"]["credential"] for entry in found.entries(Kind.GRANTED)}) == 1
    exactly(verdicts, found)


@contextmanager
def another(found: Estate, name: str, *, kill: bool = False) -> Iterator[int]:
    """A `guard serve` of its own over the estate's home; the port that it took. It ends, or is killed."""
    found.write_config()
    config, errors = found.folder / f"{name}.yaml", found.folder / f"{name}.said"
    config.write_bytes(found.config.read_bytes())
    with errors.open("wb") as out:
        process = subprocess.Popen([str(GUARD), "serve", str(config)], stdin=subprocess.DEVNULL, stderr=out)
    try:
        end = time.monotonic() + PATIENCE
        while not (heard := re.search(r"http://127\.0\.0\.1:(\d+)/mcp", errors.read_text())):
            assert time.monotonic() < end, errors.read_text()
            assert process.poll() is None, errors.read_text()
            time.sleep(0.02)
        yield int(heard[1])
    finally:
        (process.kill if kill else process.terminate)()
        process.wait(PATIENCE)


async def test_two_guards_on_one_file_share_a_limit(tmp_path: Path) -> None:
    """Two processes that know nothing of each other but the store's file: ten in all."""
    found = estate(tmp_path / "e")
    key = found.key()
    with another(found, "one") as first, another(found, "two") as second:
        clients = [RawHttp(port, version=MODERN, key=key) for port in (first, second)]
        for client in clients:
            await client.request("tools/list")
        halves = await asyncio.gather(*(many(client, ALL_AT_ONCE // 2) for client in clients))
    exactly(halves[0] + halves[1], found)


async def test_principals_at_once_have_ten_each(tmp_path: Path) -> None:
    """What one used up is there for another; two keys of one principal share."""
    found = estate(tmp_path / "e")
    keys = [found.key("alice"), found.key("alice"), found.key("bob")]
    async with found.guarded():
        verdicts = await asyncio.gather(*(many(found.client(key=key), 20) for key in keys))
    assert verdicts[0]["allow"] + verdicts[1]["allow"] == MOST
    assert verdicts[2]["allow"] == MOST
    assert sum(verdicts, Counter()).keys() == {"allow", "limit-reached"}


def granting(into: list[Kind]) -> Any:
    """Write down what is asked of the log."""

    def listen(guarded: Any) -> None:
        log, commit = guarded.log, guarded.log.commit

        async def told(transaction: Transaction) -> Any:
            into.append(transaction.entry.kind)
            return await commit(transaction)

        log.commit = told

    return listen


async def test_what_is_known_to_be_full_is_denied_by_the_decision(tmp_path: Path) -> None:
    """It asks for no grant that the transaction would have to refuse."""
    scene = Scene(tmp_path / "s", policy=limited(calls=2))
    scene.pin()
    asked: list[Kind] = []
    async with scene.guarded(strict=True, wrap=granting(asked)) as client:
        assert [said(await client.call("echo")) for _ in range(2)] == ["allow"] * 2
        asked.clear()
        assert said(await client.call("echo")) == "limit-reached"
    assert asked == [Kind.DENIED]


async def test_a_decision_on_an_old_count_grants_nothing(tmp_path: Path) -> None:
    """A reader that always says that nothing was used yet: the transaction counts for itself, and the
    denial names the limit."""
    scene = Scene(tmp_path / "s", policy=limited(calls=2))
    scene.pin()
    asked: list[Kind] = []

    def blind(guarded: Any) -> None:
        granting(asked)(guarded)
        guarded.log.store.used = lambda _, counters: [0 for _ in counters]

    async with scene.guarded(strict=True, wrap=blind) as client:
        assert [said(await client.call("echo")) for _ in range(2)] == ["allow"] * 2
        asked.clear()
        about = decision(await client.call("echo"))
        assert (about["reason"], about["rule"]) == ("limit-reached", "few")
    assert asked == [Kind.GRANTED] * 3 + [Kind.DENIED]
    assert len(scene.received()) == 2
    scene.settled()


# -- what is told, and what sheds nothing ----------------------------------------------------------


async def test_a_denial_tells_neither_how_many_nor_when(tmp_path: Path) -> None:
    """The limit's id and that it may be tried again; no number of the policy's."""
    policy = limited(calls=7, window="4321s", because="secret grounds")
    scene = Scene(tmp_path / "s", policy=policy)
    scene.pin()
    async with scene.guarded() as client:
        answers = [await client.call("echo", n=n) for n in range(8)]
        about = decision(answers[-1])
        assert (about["reason"], about["rule"], about["retryable"]) == ("limit-reached", "few", True)
        text = json.dumps(answers[-1]).replace(about["decision_id"], "")
        assert not re.search(r"7|4321|4_?321_?000|secret|window|calls", text.replace("2026-07-28", ""))


async def test_a_new_conversation_sheds_nothing(tmp_path: Path) -> None:
    """New sessions, and ids in `_meta`, count per principal where the role may not assert them."""
    found = estate(tmp_path / "e", per="conversation", calls=3)
    caller, powerful = found.key("alice", "caller"), found.key("bob", "powerful")
    named = "dev.guard-mcp/conversation"

    async def call(key: str, talk: str) -> str:
        client = found.client(key=key)
        params = {"name": "echo", "arguments": {}, "_meta": {named: talk}}
        return said((await client.request("tools/call", params)).message())

    async with found.guarded():
        assert [await call(caller, f"talk-{n}") for n in range(5)] == ["allow"] * 3 + ["limit-reached"] * 2
        for _ in range(3):
            session = found.client(LEGACY, key=caller)
            await session.greet()
            assert said(await session.call("echo")) == "limit-reached"
        assert [await call(powerful, "one") for _ in range(4)] == ["allow"] * 3 + ["limit-reached"]
        assert [await call(powerful, "two") for _ in range(4)] == ["allow"] * 3 + ["limit-reached"]


async def test_a_denied_call_uses_nothing_up(scene: Scene) -> None:
    """Neither one that a rule forbids, nor one that the limit itself denied."""
    async with scene.guarded() as client:
        for _ in range(MOST + 1):
            assert said(await client.call("echo", n=13)) == "protected"
        found = await many(client, MOST + 5)
        assert found == {"allow": MOST, "limit-reached": 5}
        assert said(await client.call("slow")) == "allow"
    with scene.store() as store:
        rows = store._db.execute("SELECT COUNT(*) FROM reservations").fetchone()
    assert rows == (MOST,)


# -- what is given back ----------------------------------------------------------------------------


async def test_what_was_not_sent_is_given_back(tmp_path: Path) -> None:
    """Grants whose server cannot be reached leave the limit as it was."""
    found = estate(tmp_path / "e", Server("server", over="http"), calls=2)
    key = found.key()
    async with found.guarded():
        client = found.client(key=key)
        assert said(await client.call("echo")) == "allow"
        found.kill("server")
        for _ in range(3):
            assert said(await client.call("echo")) == "upstream-unavailable"
        granted, failed = found.entries(Kind.GRANTED), found.entries(Kind.FAILED)
        assert len(granted) - 1 == len(failed)
    with found.store() as store:
        assert store._db.execute("SELECT COUNT(*) FROM reservations").fetchone() == (1,)


async def test_what_may_have_run_stays_taken(tmp_path: Path) -> None:
    """A server that dies over a call, and a Guard that dies over one, have used it up."""
    answers = [[{"exit": True}]]
    scene = Scene(tmp_path / "s", policy=limited(calls=2), answers=answers)
    scene.pin()
    async with scene.guarded() as client:
        about = decision(await client.call("echo"))
        assert about["outcome"] == "unknown"
    with scene.store() as store:
        assert store._db.execute("SELECT COUNT(*) FROM reservations").fetchone() == (1,)
        lease = Lease(scene.home / "run")
        close_abandoned(store, lease)
        lease.release()
        assert store._db.execute("SELECT COUNT(*) FROM reservations").fetchone() == (1,)


async def test_when_the_window_has_passed_there_is_room_again(tmp_path: Path) -> None:
    """The same call, later, with nobody having changed anything."""
    scene = Scene(tmp_path / "s", policy=limited(calls=1, window="1s"))
    scene.pin()
    async with scene.guarded() as client:
        assert said(await client.call("echo")) == "allow"
        verdicts = [said(await client.call("echo"))]
        end = time.monotonic() + PATIENCE
        while verdicts[-1] != "allow":
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
            verdicts.append(said(await client.call("echo")))
    granted = [entry["at"] for entry in scene.entries(Kind.GRANTED)]
    assert all(later - earlier >= 1000 for earlier, later in pairwise(granted))
    assert set(verdicts[:-1]) <= {"limit-reached"}


async def test_a_policy_without_limits_reads_and_writes_no_counter(tmp_path: Path) -> None:
    """What nobody asked for costs nothing: no statement about reservations is run."""
    scene = Scene(tmp_path / "s")
    scene.pin()
    statements: list[str] = []

    def listen(guarded: Any) -> None:
        for db in (guarded.log.store._db, guarded.log.store._reader):
            db.set_trace_callback(statements.append)

    async with scene.guarded(wrap=listen) as client:
        assert said(await client.call("echo")) == "allow"
    assert any("INSERT INTO entries" in statement for statement in statements)
    assert not any("reservations" in statement for statement in statements)

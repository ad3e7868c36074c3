"""Replicas on one database: who lives, what each remembers, what was used, and how they come back."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from guard.config import stores
from guard.config.home import open_home
from guard.config.wiring import begin
from guard.core.errors import GuardError, Reason, Refused
from guard.core.keys import KeySet
from guard.core.model import Conversation
from guard.lineage import log
from guard.lineage.abandoned import Tending, close_abandoned
from guard.lineage.entry import Kind, parse
from guard.lineage.log import Log
from guard.lineage.postgres import schema
from guard.lineage.postgres.address import Address
from guard.lineage.postgres.store import PostgresStore
from guard.lineage.store import CONTAINMENT, Away, Conflict, Contain, Recorded, RevokeKey, SaveKey
from tests.lineage.lineages import (
    KEY,
    OTHER_KEY,
    TENANT,
    checked,
    ended,
    granted,
    house,
    leaves,
    open_store,
    person,
    place,
    recorded,
)
from tests.lineage.test_postgres import kill
from tests.lineage.test_store import key_record
from tests.postgres import Server

SECONDS = 20.0


@pytest.fixture
def address(database: str) -> Address:
    made = Address(database)
    schema.upgrade(made)
    return made


@pytest.fixture
def own(own_postgres: Server) -> Address:
    """In a server that may be stopped."""
    made = Address(own_postgres.url)
    schema.upgrade(made)
    return made


@pytest.fixture
def store(address: Address) -> Iterator[PostgresStore]:
    with closing(open_store(address)) as opened:
        yield opened


def until(holds: Callable[[], object]) -> None:
    """Wait until it does."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- leases ------------------------------------------------------------------------------------------


def _hold(url: str, grants: int, out: Connection) -> None:
    with closing(open_store(Address(url))) as store:
        lease = store.lease()
        name = lease.instance
        recorded(store, *(granted(f"{name[:6]}-{n}", instance=name) for n in range(grants)))
        out.send(name)
        signal.pause()


def test_only_what_the_dead_left_open_is_closed(address: Address) -> None:
    """As long as a process lives its grants stay open; killed, whoever starts closes them, once."""
    context = multiprocessing.get_context("spawn")
    names, processes = [], []
    for grants in (3, 2):
        here, there = context.Pipe()
        processes.append(context.Process(target=_hold, args=(address.url, grants, there)))
        processes[-1].start()
        assert here.poll(SECONDS)
        names.append(here.recv())
    with closing(open_store(address)) as store:
        lease = store.lease()
        assert close_abandoned(store, lease) == 0
        processes[0].kill()
        processes[0].join(SECONDS)
        closed = 0
        end = time.monotonic() + SECONDS
        while closed < 3:  # the server has yet to notice
            closed += close_abandoned(store, lease)
            assert time.monotonic() < end
        assert {instance for _, instance, _ in store.open_grants()} == {names[1]}
        processes[1].kill()
        processes[1].join(SECONDS)
        until(lambda: close_abandoned(store, lease) == 2)
        lease.release()
    report = checked(address)
    assert (report.findings, report.open, report.ended) == ([], [], 5)


def test_recoverers_at_once_close_each_grant_once(address: Address) -> None:
    """However many start at the same moment, each abandoned grant gets one ending."""
    with ExitStack() as stack:
        stores = [stack.enter_context(closing(open_store(address))) for _ in range(4)]
        for instance in range(12):
            batch = [granted(f"{instance}-{n}", instance=f"{instance:032x}") for n in range(5)]
            recorded(stores[0], *batch)
        leases = [store.lease() for store in stores]
        with ThreadPoolExecutor(4) as pool:
            counts = list(pool.map(close_abandoned, stores, leases))
        assert sum(counts) == 60
    report = checked(address)
    assert (report.findings, report.open, report.granted, report.ended) == ([], [], 60, 60)


def test_a_lease_outlives_a_lost_session_that_nobody_took_over(
    address: Address, store: PostgresStore
) -> None:
    """The same process connects again, and nobody closes what it still owes."""
    lease = store.lease()
    recorded(store, granted("a", instance=lease.instance))
    for _ in range(3):
        assert kill(address, f"guard {lease.instance}") == 1
        recorded(store, granted("x", instance=lease.instance), ended("x"))
    with closing(open_store(address)) as other:
        assert close_abandoned(other, other.lease()) == 0
    recorded(store, ended("a"))


def test_a_lease_that_was_taken_over_is_not_taken_back(address: Address, store: PostgresStore) -> None:
    """What others closed stays closed; the process goes on under another name, and its grants are its own."""
    lease = store.lease()
    recorded(store, granted("a", instance=lease.instance))
    kill(address, f"guard {lease.instance}")
    with closing(open_store(address)) as other:
        assert close_abandoned(other, other.lease()) == 1
        recorded(store, granted("b", instance=lease.instance))
        assert isinstance(store.apply([ended("a")])[0], Conflict)
        ((_, instance, _),) = other.open_grants()
        assert instance != lease.instance
        assert close_abandoned(other, other.lease()) == 0, "it lives"
        recorded(store, ended("b"))
    assert checked(address).findings == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "F" * 32, "0" * 31, "0" * 32 + "\n"])
def test_an_instance_that_no_lease_names_stops_the_start(store: PostgresStore, name: str) -> None:
    """The store's text never becomes a lock of somebody's choosing."""
    recorded(store, granted("a", instance=name))
    with pytest.raises(GuardError, match="names no instance"):
        close_abandoned(store, store.lease())


async def test_who_lives_closes_what_the_dead_left_open(
    address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that runs ends the grants of one that died; nobody has to start anything."""
    monkeypatch.setattr(log, "TEND_SECONDS", 0.05)
    with closing(open_store(address)) as store, closing(open_store(address)) as dead:
        own, writer = begin(store, open_home(tmp_path / "home"))
        theirs = dead.lease()
        recorded(dead, granted("a", instance=theirs.instance))
        assert await _committed(writer, "b", own.instance)
        kill(address, f"guard {theirs.instance}")
        dead._writer._address = Address("postgresql://nobody@/nowhere?host=/nowhere")  # it does not come back
        end = time.monotonic() + SECONDS
        while [call for call, *_ in store.open_grants()] != ["b"]:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
        await writer.close()
        own.release()
        dead._committed = False
    kinds = {leaf.call: leaf.kind for leaf in map(parse, leaves(address))}
    assert kinds == {"a": Kind.UNKNOWN, "b": Kind.GRANTED}


def test_who_lost_its_session_for_a_moment_is_not_dead(address: Address) -> None:
    """After the database was started again every session is gone: nobody's calls are closed for that."""
    with closing(open_store(address)) as one, closing(open_store(address)) as other:
        leases = (one.lease(), other.lease())
        tending = [Tending(store, lease) for store, lease in zip((one, other), leases, strict=True)]
        recorded(one, granted("a", instance=leases[0].instance))
        recorded(other, granted("b", instance=leases[1].instance))
        for _ in range(3):
            assert kill(address, "guard %") >= 2
            for tend in tending * 2:  # the first of them finds the other without a session
                tend()
        recorded(one, ended("a"))
        recorded(other, ended("b"))
    assert checked(address).findings == []


# -- what is remembered ------------------------------------------------------------------------------


def _snapshot(store: PostgresStore) -> frozenset[str]:
    asked = (person(), Conversation("talk", "meta"), ("server", "echo"))
    return store.snapshot(*asked, own_only=True).contained


def test_what_another_replica_moved_is_heard_of(address: Address) -> None:
    """A containment, a key and its revocation by another replica are seen without being asked for."""
    with closing(open_store(address)) as store, closing(open_store(address)) as other:
        store.watch()
        assert _snapshot(store) == frozenset()
        assert store.api_key("k1") is None
        recorded(other, house(Kind.CONTAINED, Contain("all", "")), house(Kind.API_KEY, SaveKey(key_record())))
        until(lambda: _snapshot(store) == {"all"})
        assert store.versions(TENANT)[CONTAINMENT] == 1
        until(lambda: store.api_key("k1") == key_record())
        recorded(other, house(Kind.REVOKED, RevokeKey("k1")))
        until(lambda: (found := store.api_key("k1")) is not None and found.revoked_at is not None)


def test_what_a_replica_moved_itself_it_sees_at_once(store: PostgresStore) -> None:
    """A containment is believed by the very next question of the process that committed it."""
    store.watch()
    for n in range(30):
        recorded(store, house(Kind.CONTAINED, Contain("tool", f"t{n}")))
        assert store.versions(TENANT)[CONTAINMENT] == n + 1


def test_what_is_not_confirmed_is_not_told(own: Address, own_postgres: Server) -> None:
    """A database that is gone, or that is silent, makes every question fail, and soon; then it is back."""
    with closing(open_store(own)) as store:
        recorded(store, house(Kind.CONTAINED, Contain("all", "")))
        store.watch()
        assert store.versions(TENANT) == {CONTAINMENT: 1}
        for away, back in (
            (own_postgres.kill, own_postgres.start),
            (lambda: _signal(own_postgres, signal.SIGSTOP), lambda: _signal(own_postgres, signal.SIGCONT)),
        ):
            away()
            until(lambda: _raises_away(lambda: store.versions(TENANT)))
            assert _raises_away(lambda: _snapshot(store))
            assert _raises_away(lambda: store.api_key("k"))
            back()
            until(lambda: not _raises_away(lambda: _snapshot(store)))
            assert store.versions(TENANT) == {CONTAINMENT: 1}


def _signal(server: Server, signum: signal.Signals) -> None:
    assert server.process is not None
    for pid in (server.process.pid, *server.children()):
        os.kill(pid, signum)


def _raises_away(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except Away:
        return True
    return False


def test_a_database_that_is_silent_is_asked_once_in_a_while(own: Address, own_postgres: Server) -> None:
    """After a question without an answer the next ones are refused unasked: nobody waits in a row."""
    with closing(open_store(own)) as store:
        assert store.used(TENANT, [("c", 0)]) == [0]
        _signal(own_postgres, signal.SIGSTOP)
        try:
            asked = 0
            began = time.monotonic()
            while time.monotonic() - began < 1.5:
                assert _raises_away(lambda: store.used(TENANT, [("c", 0)]))
                asked += 1
            assert asked > 1000, "each waited for itself"
        finally:
            _signal(own_postgres, signal.SIGCONT)
        until(lambda: not _raises_away(lambda: store.used(TENANT, [("c", 0)])))


# -- used artifacts ----------------------------------------------------------------------------------


def test_one_of_all_replicas_may_use_an_artifact(address: Address) -> None:
    """However many present it at the same moment: once, and not again until nothing accepts it anyway."""
    with ExitStack() as stack:
        stores = [stack.enter_context(closing(open_store(address))) for _ in range(6)]
        replays = [store.replay() for store in stores]
        start = threading.Barrier(len(replays))

        def use(number: int) -> list[bool]:
            start.wait()
            return [replays[number].insert(("parents", "iss", f"j{n}"), until=100, now=50) for n in range(40)]

        with ThreadPoolExecutor(len(replays)) as pool:
            found = list(pool.map(use, range(len(replays))))
        assert [sum(each) for each in zip(*found, strict=True)] == [1] * 40
        assert replays[0].insert(("another", "iss", "j0"), until=100, now=50)
        assert not replays[0].insert(("parents", "iss", "j0"), until=100, now=100)
        assert replays[1].insert(("parents", "iss", "j0"), until=200, now=101)
        assert not replays[2].insert(("parents", "iss", "j0"), until=200, now=101)


def test_what_ended_is_forgotten(address: Address, store: PostgresStore) -> None:
    """The table does not grow with what nothing accepts any more."""
    replay = store.replay()
    for n in range(600):
        assert replay.insert(("v", "i", str(n)), until=n, now=n)
    with closing(address.connect(patience=20)) as db:
        count = db.execute("SELECT count(*) FROM used_jti").fetchone()
    assert count is not None
    assert count[0] < 300


def test_a_database_that_is_away_accepts_no_artifact(own: Address, own_postgres: Server) -> None:
    """Nobody knows whether it was used: it raises, and that is a no."""
    with closing(open_store(own)) as store:
        replay = store.replay()
        own_postgres.stop()
        assert _raises_away(lambda: replay.insert(("v", "i", "j"), until=9, now=1))
        own_postgres.start()


# -- keys --------------------------------------------------------------------------------------------


def _kids(found: dict[str, list[dict[str, str]]]) -> set[str]:
    return {jwk["kid"] for jwk in found["keys"]}


def test_every_replica_publishes_the_keys_of_all(address: Address, store: PostgresStore) -> None:
    """Whoever checks an artifact may ask any replica, whichever signed it; while one changes its key too."""
    one, other = KEY.public, OTHER_KEY.public
    secret = b"s" * 32
    store.keys(secret).say(one.jwk())
    store.keys(secret).say(other.jwk())
    for own in (one, other):
        published = stores.public_keys(store, KeySet([own]), secret)
        assert _kids(published()) == {one.kid, other.kid}
        assert len(KeySet.from_jwks(published())) == 2
    with closing(address.connect(patience=20)) as db:
        db.execute("UPDATE artifact_keys SET until = 0 WHERE kid = %s", (one.kid,))
    assert _kids(stores.public_keys(store, KeySet([other]), secret)()) == {other.kid}


def test_who_writes_to_the_database_cannot_add_a_key(address: Address, store: PostgresStore) -> None:
    """A key counts only with a MAC under what every home has and the database has not."""
    store.keys(b"somebody else's secret").say(OTHER_KEY.public.jwk())
    assert _kids(stores.public_keys(store, KeySet([KEY.public]), b"s" * 32)()) == {KEY.public.kid}
    store.keys(b"s" * 32).say(OTHER_KEY.public.jwk())
    with closing(address.connect(patience=20)) as db:
        db.execute("UPDATE artifact_keys SET jwk = replace(jwk, 'sig', 'gis')")
    assert _kids(stores.public_keys(store, KeySet([KEY.public]), b"s" * 32)()) == {KEY.public.kid}


def test_a_database_that_is_away_hides_no_own_key(own: Address, own_postgres: Server) -> None:
    """What this replica signs can be checked in any case."""
    with closing(open_store(own)) as store:
        published = stores.public_keys(store, KeySet([KEY.public]), b"s" * 32)
        own_postgres.stop()
        assert _kids(published()) == {KEY.public.kid}
        own_postgres.start()


# -- coming back -------------------------------------------------------------------------------------


async def _committed(writer: Log, call: str, instance: str) -> bool:
    try:
        outcome = await writer.commit(granted(call, instance=instance))
    except Refused as refused:
        if refused.reason is not Reason.STORE_UNAVAILABLE:
            raise
        return False
    return isinstance(outcome, Recorded)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_replica_comes_back_by_itself(
    own: Address, own_postgres: Server, tmp_path: Path, how: str
) -> None:
    """While the database is away every commit is refused; then it goes on, and what was open is `unknown`."""
    with closing(open_store(own)) as store:
        lease, writer = begin(store, open_home(tmp_path / "home"))
        assert await _committed(writer, "before", lease.instance)
        await asyncio.to_thread(getattr(own_postgres, how))
        real = store.patience
        store.patience = lambda _: real(0.2)  # type: ignore[method-assign] - the test waits less
        assert not await _committed(writer, "while", lease.instance)
        assert not await _committed(writer, "while it is known", lease.instance)
        assert writer.failure is not None
        await asyncio.to_thread(own_postgres.start)
        end = time.monotonic() + SECONDS
        while not await _committed(writer, f"after-{time.monotonic_ns()}", lease.instance):
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        assert writer.failure is None
        (outcome,) = [await writer.commit(ended("before"))]
        assert isinstance(outcome, Conflict), "it was closed when the replica came back"
        await writer.close()
        lease.release()
    kinds = {leaf.call: leaf.kind for leaf in map(parse, leaves(own))}
    assert kinds["before"] is Kind.UNKNOWN
    report = checked(own)
    assert report.findings == []
    assert len(report.open) == 1


async def test_the_embedded_store_does_not_come_back_by_itself(tmp_path: Path) -> None:
    """A file whose commit failed stays failed until the next start, whatever it says afterwards."""
    with closing(open_store(tmp_path / "db")) as store:
        writer = Log(store)
        real, store.apply = store.apply, _away
        with pytest.raises(Refused):
            await writer.commit(granted("a", where=place()))
        store.apply = real
        await asyncio.sleep(0.1)
        with pytest.raises(Refused):
            await writer.commit(granted("b"))
        await writer.close()


def _away(*_: object) -> list[object]:
    raise Away("on purpose")

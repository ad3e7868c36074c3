"""Single use: one artifact, one run, however many ask at once, and for as long as it could pass."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from artifacts import AUDIENCE, NOW, fault_of, issue, verifier
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.artifact.replay import MemoryReplay, ReplayStore, SqliteReplay
from guard.artifact.verify import ArtifactRefused, Fault

THREADS = 8
ROUNDS = 25
PROCESSES = 6

Store = Callable[[], ReplayStore]


@pytest.fixture(params=["memory", "sqlite"])
def replay(request: pytest.FixtureRequest, tmp_path: Path) -> ReplayStore:
    """Both stores keep the same law."""
    return MemoryReplay() if request.param == "memory" else SqliteReplay(tmp_path / "replay.db")


def test_an_artifact_is_used_once(replay: ReplayStore) -> None:
    """The second time and every later one is refused, until it has expired."""
    token, by = issue().token, verifier(replay=replay)
    assert fault_of(token, by=by) is None
    for later in (0, 1, 59, 60, 69):
        assert fault_of(token, by=by, now=NOW + later) is Fault.REPLAYED
    assert fault_of(token, by=by, now=NOW + 70) is Fault.EXPIRED


def test_at_every_moment_that_it_could_pass_it_is_remembered(replay: ReplayStore) -> None:
    """Others come and go and old ones are forgotten, but none that time would still let through."""
    by = verifier(replay=replay, skew=30)
    token = issue().token
    assert fault_of(token, by=by, now=NOW - 30) is None
    for quarter in range(-120, 4 * 90):
        now = NOW + quarter / 4
        if quarter % 20 == 0:
            replay.insert((AUDIENCE, "another", str(quarter)), until=int(now), now=int(now))
        assert fault_of(token, by=by, now=now) is Fault.REPLAYED
    assert fault_of(token, by=by, now=NOW + 90) is Fault.EXPIRED


def test_of_many_threads_one_wins(replay: ReplayStore) -> None:
    """Eight threads present one artifact at the same moment: one runs, seven are told that it was used."""
    by = verifier(replay=replay)
    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(ROUNDS):
            token = issue(jti=f"jti-{number}").token
            barrier = threading.Barrier(THREADS)

            def present(_: int, token: bytes = token, barrier: threading.Barrier = barrier) -> Fault | None:
                barrier.wait()
                return fault_of(token, by=by)

            found = sorted(pool.map(present, range(THREADS)), key=str)
            assert found == [None, *[Fault.REPLAYED] * (THREADS - 1)]


class SlowSet(set[tuple[str, str, str]]):
    """Lets every other thread in between the look and the insert."""

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        time.sleep(0.02)
        return found


def test_in_memory_the_look_and_the_insert_are_one() -> None:
    """Also where a thread is held up exactly between the two."""
    replay = MemoryReplay()
    replay._seen = SlowSet()
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda _: replay.insert(("v", "i", "j"), until=1, now=0), range(THREADS)))
    assert sorted(found) == [False] * (THREADS - 1) + [True]


CONTENDER = """
import sys, time
from pathlib import Path
from guard.artifact.replay import SqliteReplay

folder, me = Path(sys.argv[1]), sys.argv[2]
(folder / f"ready-{me}").touch()
while not (folder / "go").exists():
    pass
store = SqliteReplay(folder / "replay.db")
print(*(int(store.insert(("bank", "guard.example", str(n)), until=100, now=0)) for n in range(10)))
"""


def test_of_many_processes_one_wins(tmp_path: Path) -> None:
    """Processes that start at once on a file that is not there yet: each key goes to exactly one."""
    with_each: list[subprocess.Popen[str]] = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(tmp_path), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    try:
        while len(list(tmp_path.glob("ready-*"))) < PROCESSES:
            assert all(process.poll() is None for process in with_each)
        (tmp_path / "go").touch()
        said = [process.communicate(timeout=60) for process in with_each]
    finally:
        for process in with_each:
            process.kill()
            process.wait()
    assert [problem for _, problem in said] == [""] * PROCESSES
    wins = [[int(word) for word in out.split()] for out, _ in said]
    assert [sum(column) for column in zip(*wins, strict=True)] == [1] * 10


def test_a_restart_remembers_on_disk(tmp_path: Path) -> None:
    """A new verifier over the same file refuses what the old one took."""
    token = issue().token
    assert fault_of(token, by=verifier(replay=SqliteReplay(tmp_path / "replay.db"))) is None
    assert fault_of(token, by=verifier(replay=SqliteReplay(tmp_path / "replay.db"))) is Fault.REPLAYED


def test_a_restart_forgets_in_memory() -> None:
    """That is why the page tells a server without a file to wait 90 seconds after a start."""
    token = issue().token
    assert fault_of(token, by=verifier()) is None
    assert fault_of(token, by=verifier()) is None
    by = verifier(skew=30)
    assert fault_of(token, by=by, now=NOW + 90) is Fault.EXPIRED


def test_two_verifiers_of_different_names_share_one_store(replay: ReplayStore) -> None:
    """Guard's gate and the tool server each use an artifact once; the same name shares its uses."""
    token = issue().token
    gate, server = verifier(replay=replay, name="gate"), verifier(replay=replay)
    assert fault_of(token, by=gate) is None
    assert fault_of(token, by=server) is None
    assert fault_of(token, by=verifier(replay=replay, name="gate")) is Fault.REPLAYED
    assert fault_of(token, by=verifier(replay=replay, name=AUDIENCE)) is Fault.REPLAYED


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_part_of_the_key_separates(replay: ReplayStore, index: int) -> None:
    """Verifier, issuer and jti: keys that differ in one part are two keys, however they are joined."""
    key = ("a", "b", "c")
    other = (*key[:index], f"{key[index]}x", *key[index + 1 :])
    assert replay.insert(key, until=10, now=0)
    assert replay.insert(other, until=10, now=0)
    assert not replay.insert(key, until=10, now=0)
    assert replay.insert(("ab", "", "c"), until=10, now=0)


def test_a_refused_artifact_is_not_used_up(replay: ReplayStore) -> None:
    """Whoever presents it wrongly, or too early, does not spend it for its owner."""
    token, by = issue().token, verifier(replay=replay)
    assert fault_of(token, by=by, method="tools/list") is Fault.TOOL
    assert fault_of(token, by=by, params={"name": "transfer"}) is Fault.ARGUMENTS
    assert fault_of(token, by=by, now=NOW - 11) is Fault.NOT_YET_VALID
    assert fault_of(token, by=by) is None


class Failing:
    """A store that cannot be written, after or before it took the key."""

    def insert(self, key: tuple[str, str, str], *, until: int, now: int) -> bool:
        raise sqlite3.OperationalError("disk I/O error")


def test_a_store_that_fails_permits_nothing() -> None:
    """The failure goes up; no VerifiedGrant comes back."""
    with pytest.raises(sqlite3.OperationalError):
        fault_of(issue().token, by=verifier(replay=Failing()))


def test_a_file_that_cannot_be_written_permits_nothing(tmp_path: Path) -> None:
    """A store that is damaged between two calls raises, and never answers yes."""
    file = tmp_path / "replay.db"
    by = verifier(replay=SqliteReplay(file))
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        fault_of(issue().token, by=by)


def test_a_busy_file_is_waited_for(tmp_path: Path) -> None:
    """Another process that writes for a moment delays the answer and does not change it."""
    file = tmp_path / "replay.db"
    by = verifier(replay=SqliteReplay(file))
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as db:
        db.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.3, db.execute, ["COMMIT"])
        release.start()
        try:
            assert fault_of(issue().token, by=by) is None
        finally:
            release.join()


def test_what_has_ended_is_forgotten(tmp_path: Path) -> None:
    """A store holds what could still pass and no more."""
    file = tmp_path / "replay.db"
    disk, memory = SqliteReplay(file), MemoryReplay()
    for now in range(0, 1000, 10):
        for store in (disk, memory):
            assert store.insert(("v", "i", str(now)), until=now + 70, now=now)
    with closing(sqlite3.connect(file)) as db:
        [(rows,)] = db.execute("SELECT count(*) FROM used")
    assert rows == 8
    assert len(memory._seen) == len(memory._ends) == 8


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 4)), max_size=30))
def test_memory_agrees_with_a_plain_list(asked: list[tuple[str, int, int]]) -> None:
    """Against the simplest store there is: a list that is searched from the front."""
    store, kept, now = MemoryReplay(), [], 0
    for name, lasts, passes in asked:
        now += passes
        kept = [(key, until) for key, until in kept if until >= now]
        fresh = name not in [key for key, _ in kept]
        assert store.insert(("v", "i", name), until=now + lasts, now=now) is fresh
        if fresh:
            kept.append((name, now + lasts))


def test_a_replay_is_named_as_one() -> None:
    """The fault says what happened, in words that can be shown."""
    by, token = verifier(), issue().token
    fault_of(token, by=by)
    with pytest.raises(ArtifactRefused, match="the artifact was used before"):
        by.verify(
            token, "tools/call", {"name": "transfer", "arguments": {"iban": "DE02", "amount": 25}}, now=NOW
        )

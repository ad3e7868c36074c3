"""Leases: whoever lives ends its own grants, and whoever is dead has them ended for it, once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Self

import pytest

from guard.config.home import close_abandoned
from guard.core.errors import GuardError
from guard.lineage.entry import Kind, parse
from guard.lineage.lease import Lease
from tests.lineage.lineages import checked, ended, granted, leaves, open_store, place, recorded

CONTEXT = multiprocessing.get_context("spawn")


def _hold(folder: Path, grants: int, out: Connection) -> None:
    """Open grants, say so, and live until killed. A child of its own, as a tool server is, lives on."""
    lease = Lease(folder / "run")
    with closing(open_store(folder / "db")) as store:
        recorded(
            store, *(granted(f"{lease.instance[:6]}-{n}", instance=lease.instance) for n in range(grants))
        )
        child = subprocess.Popen(["sleep", "60"])
        out.send((lease.instance, child.pid))
        signal.pause()


class Holder:
    """A process that owes endings."""

    def __init__(self, folder: Path, grants: int) -> None:
        here, there = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_hold, args=(folder, grants, there))
        self._process.start()
        assert here.poll(20)
        self.instance, self._child = here.recv()

    def kill(self) -> None:
        self._process.kill()
        self._process.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        os.kill(self._child, signal.SIGKILL)


def recovered(folder: Path) -> int:
    """What one start closes."""
    lease = Lease(folder / "run")
    try:
        with closing(open_store(folder / "db")) as store:
            return close_abandoned(store, lease)
    finally:
        lease.release()


def test_a_living_instances_grants_are_never_closed(tmp_path: Path) -> None:
    """As long as a process lives its grants stay open; killed, with a child still alive, they are closed."""
    with Holder(tmp_path, 3) as dead, Holder(tmp_path, 2) as living:
        assert recovered(tmp_path) == 0
        dead.kill()
        assert recovered(tmp_path) == 3
        assert recovered(tmp_path) == 0
        with closing(open_store(tmp_path / "db")) as store:
            assert {instance for _, instance, _ in store.open_grants()} == {living.instance}
        living.kill()
        assert recovered(tmp_path) == 2
    report = checked(tmp_path / "db")
    assert (report.findings, report.open, report.ended) == ([], [], 5)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_process_does_not_close_its_own(tmp_path: Path) -> None:
    """Two guards in one process are two instances, and a lease does not take over itself."""
    one, other = Lease(tmp_path / "run"), Lease(tmp_path / "run")
    with closing(open_store(tmp_path / "db")) as store:
        recorded(store, granted("a", instance=one.instance), granted("b", instance=other.instance))
        for lease in (one, other):
            assert close_abandoned(store, lease) == 0
        one.release()
        assert close_abandoned(store, other) == 1
        other.release()
    assert [parse(leaf).kind for leaf in leaves(tmp_path / "db")] == [
        Kind.GRANTED,
        Kind.GRANTED,
        Kind.UNKNOWN,
    ]


def _recover(folder: Path, out: Any, start: Barrier) -> None:
    start.wait()
    out.put(recovered(folder))


def test_recoverers_at_once_close_each_grant_once(tmp_path: Path) -> None:
    """However many start at the same moment, each abandoned grant gets one ending."""
    with closing(open_store(tmp_path / "db")) as store:
        for instance in range(40):
            name = f"{instance:032x}"
            batch = [granted(f"{instance}-{n}", instance=name, where=place(f"c{n}")) for n in range(5)]
            recorded(store, *batch)
        recorded(store, ended("0-0", where=place("c0")))
    processes, counts = 4, CONTEXT.SimpleQueue()
    start = CONTEXT.Barrier(processes)
    running = [CONTEXT.Process(target=_recover, args=(tmp_path, counts, start)) for _ in range(processes)]
    for process in running:
        process.start()
    for process in running:
        process.join(30)
    assert [process.exitcode for process in running] == [0] * processes
    assert sum(counts.get() for _ in running) == 199
    report = checked(tmp_path / "db")
    assert (report.findings, report.open, report.granted, report.ended) == ([], [], 200, 200)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "F" * 32, "0" * 31, "0" * 32 + "\n", "\u0660" * 32])
def test_an_instance_that_no_lease_names_stops_the_start(tmp_path: Path, name: str) -> None:
    """The store's text never becomes a path of somebody's choosing."""
    with closing(open_store(tmp_path / "db")) as store:
        recorded(store, granted("a", instance=name))
    with pytest.raises(GuardError, match="names no instance"):
        recovered(tmp_path)
    assert list((tmp_path / "run").iterdir()) == []


def test_locks_are_private_and_go_when_nothing_is_owed(tmp_path: Path) -> None:
    """Nobody else can hold a lock in our place, and a folder does not fill with dead ones."""
    lease = Lease(tmp_path / "run")
    (path,) = (tmp_path / "run").iterdir()
    assert path.name == f"{lease.instance}.lock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with lease.takeover("f" * 32) as dead:
        assert dead
        with Lease(tmp_path / "run").takeover("f" * 32) as both:
            assert not both
    lease.release()
    assert not path.exists()
    assert not (tmp_path / "run" / f"{'f' * 32}.lock").exists()

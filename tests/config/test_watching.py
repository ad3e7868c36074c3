"""Files that change on disk are read again, whole and once, while calls go on."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from guard.config import run, serve
from guard.config.policies import reads
from guard.config.watching import Watch
from guard.core.errors import Reason, Refused
from guard.core.model import PolicyRef
from guard.lineage.entry import Kind
from guard.policy.rules import Policy
from tests.proxy.features import BYS, ERAS, Estates, servers, until
from tests.proxy.scene import MODERN, Scene
from tests.proxy.test_spent import said

TICK: Final = 0.01
VERSIONS: Final = range(2, 12)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard looks more often than once a second."""
    for module in (run, serve):
        monkeypatch.setattr(module, "Watch", partial(Watch, seconds=TICK))


@asynccontextmanager
async def watched(files: Callable[[], list[Path]], changed: Callable[[], Any]) -> AsyncIterator[Watch]:
    watch = Watch(files, changed, TICK)
    watch.start()
    try:
        yield watch
    finally:
        await watch.stop()


def longer(seen: list[str], than: int) -> bool:
    return len(seen) > than


# -- what is seen ----------------------------------------------------------------------------------


async def test_each_change_is_read_once(tmp_path: Path) -> None:
    """Written, put in its place, removed, made: one reading each, and none where nothing changed."""
    file, seen = tmp_path / "a", list[str]()

    async def changed() -> None:
        seen.append(file.read_text() if file.exists() else "gone")

    file.write_text("one")
    async with watched(lambda: [file], changed):
        for number, text in enumerate(("two", "gone", "new", "put")):
            if text == "gone":
                file.unlink()
            elif text == "put":
                (tmp_path / "b").write_text(text)
                (tmp_path / "b").replace(file)
            else:
                file.write_text(text)
            await until(partial(longer, seen, number))
        await asyncio.sleep(5 * TICK)
    assert seen == ["two", "gone", "new", "put"]


async def test_a_file_of_the_same_size_and_time_is_seen_to_be_another(tmp_path: Path) -> None:
    """Who copies a file into place with its time kept, or sets the time back, does not go unseen."""
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_text("one")
    about = file.stat()
    first = reads([file])
    other.write_text("two")
    os.utime(other, ns=(about.st_atime_ns, about.st_mtime_ns))
    other.replace(file)
    assert file.stat().st_mtime_ns == about.st_mtime_ns
    second = reads([file])
    assert second != first
    file.write_text("six")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert reads([file]) != second


async def test_what_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    """A policy that comes while the one before is loaded is not forgotten: the newest one holds."""
    file, seen = tmp_path / "a", list[str]()

    async def changed() -> None:
        seen.append(file.read_text())
        if len(seen) == 1:
            file.write_text("three")  # after it was read, before the reload has ended
        await asyncio.sleep(TICK)

    file.write_text("one")
    async with watched(lambda: [file], changed):
        file.write_text("two")
        await until(lambda: len(seen) > 1)
    assert seen == ["two", "three"]


async def test_a_file_that_still_changes_is_not_read(tmp_path: Path) -> None:
    """Half of a policy is no policy: it is read once it has stood still."""
    file, seen = tmp_path / "a", list[str]()

    async def changed() -> None:
        seen.append(file.read_text())

    file.write_text("")
    looks = 0

    def files() -> list[Path]:  # asked at each look: it has always changed since the last one
        nonlocal looks
        looks += 1
        if looks < 20:
            file.write_text("x" * looks)
        return [file]

    async with watched(files, changed):
        await until(lambda: looks >= 19)
        assert seen == []
        await until(lambda: seen)
    assert seen == ["x" * 19]


async def test_a_reload_that_breaks_does_not_end_the_watch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next change is read all the same: nobody runs on an old policy because one reading failed."""
    file, seen = tmp_path / "a", list[str]()

    async def changed() -> None:
        seen.append(file.read_text())
        if len(seen) == 1:
            raise Refused(Reason.STORE_UNAVAILABLE, "away")

    file.write_text("one")
    async with watched(lambda: [file], changed):
        file.write_text("two")
        await until(lambda: seen)
        file.write_text("three")
        await until(lambda: len(seen) > 1)
    assert seen == ["two", "three"]
    assert "the old one holds" in capsys.readouterr().err


async def test_what_changed_before_guard_began_to_look_is_read(tmp_path: Path) -> None:
    """A policy that comes while servers start is not missed."""
    found = Estates(tmp_path / "e", *servers(MODERN, "stdio"), policy=rules(1))
    async with found.guarded() as serving:
        found.write_policy(**rules(2))
        task = asyncio.ensure_future(serving.serve())
        await until(lambda: serving.house.generation.policy.ref.version == 2)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_file_that_a_reload_names_is_watched_from_then_on(tmp_path: Path) -> None:
    """The configuration may name another policy: a change of that one counts, too."""
    named, seen = [tmp_path / "a"], list[int]()
    later = tmp_path / "b"
    for path in (*named, later):
        path.write_text("one")

    async def changed() -> None:
        named[1:] = [later]
        seen.append(len(named))

    async with watched(lambda: named, changed):
        named[0].write_text("two")
        await until(lambda: seen)
        await asyncio.sleep(10 * TICK)
        before = len(seen)
        later.write_text("three")
        await until(lambda: len(seen) > before)
    assert before <= 2, "once, and once more for the file that nobody had looked at"


# -- through Guard ---------------------------------------------------------------------------------


def rules(version: int) -> dict[str, Any]:
    """A policy whose rule says which version it is of."""
    tools = [{"id": f"v{version}", "match": "*", "scopes": ["use"]}]
    return {"version": version, "tools": tools}


def at(found: Estates, version: int) -> bool:
    """Whether that version decides."""
    assert found.serving is not None
    return found.serving.house.generation.policy.ref.version == version


def more(told: Counter[str], than: int) -> bool:
    return told.total() > than


@ERAS
@BYS
async def test_ten_policies_come_by_while_calls_run(tmp_path: Path, version: str, by: str) -> None:
    """Nothing but the files changes: no call is dropped, and each was decided by the version it names."""
    found = Estates(tmp_path / "e", *servers(version, "stdio"), policy=rules(1))
    async with found.speaking(version, by) as party:
        assert found.serving is not None
        watch = None
        if by == "http":  # over stdio the client's pipes are served already
            watch = asyncio.ensure_future(found.serving.serve())
        told, done = Counter[str](), asyncio.Event()

        async def call() -> None:
            while not done.is_set():
                told[said(await party.ask("tools/call", {"name": "echo", "arguments": {}}))] += 1

        callers = [asyncio.ensure_future(call()) for _ in range(4)]
        for number in VERSIONS:
            found.write_policy(**rules(number))
            await until(partial(at, found, number))
            await until(partial(more, told, told.total() + 4))
        done.set()
        await asyncio.gather(*callers)
        if watch is not None:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
    assert told.keys() == {"allow"}
    granted = {entry["call"]: entry["fields"] for entry in found.entries(Kind.GRANTED)}
    assert len(granted) == len(found.received()) == told.total()
    names = Counter[int]()
    for grant in found.granted("one", "tools/call"):
        about = grant.claims["tctx"]
        entry = granted[about["decision_id"]]
        assert entry["policy"] == about["policy"]
        assert entry["decision"]["rules"] == [f"v{about['policy']['version']}"]
        names[about["policy"]["version"]] += 1
    assert names.keys() == {1, *VERSIONS} or names.keys() == {*VERSIONS}
    assert {call[-1] for call in found.endings()} == {"returned"}


async def test_guard_run_watches_its_policy(tmp_path: Path) -> None:
    """As `guard serve`: the next call after a change is decided by what the file says."""
    scene = Scene(tmp_path / "s")
    scene.pin()
    guards = list[Any]()
    async with scene.guarded(wrap=guards.append) as client:
        assert "isError" not in (await client.call(text="a"))["result"]
        scene.write_policy(version=2, protected=[{"id": "never", "tools": ["*"]}])
        await until(lambda: guards[0].house.generation.policy.ref.version == 2)
        assert (await client.call(text="a"))["result"]["isError"]
        scene.write_policy(version=1, protected=[])
        await asyncio.sleep(10 * TICK)
        assert (await client.call(text="a"))["result"]["isError"], "an older one is not loaded"
    assert len(scene.received()) == 1


def test_two_policies_are_one_only_if_all_of_them_is() -> None:
    """What is compared at a reload is the digest of the bytes, not the version alone."""
    one, other = (Policy(PolicyRef("p", 1, digest)) for digest in ("a", "b"))
    assert one != other

"""Several workers behind one address: one lineage, sessions that are found, deaths that cost nobody else."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from guard.lineage.entry import Kind
from tests.proxy.estate import Estate, Server
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import LEGACY, MODERN, PATIENCE, reason

GUARD = Path(sys.executable).parent / "guard"
SLOW = [[{"sleep": 1.0}, '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[]}}']]


class Workers:
    """A `guard serve --workers` of its own, and what it said."""

    def __init__(self, estate: Estate, process: subprocess.Popen[bytes], said: Path) -> None:
        self.estate = estate
        self.process = process
        self.said = said

    def heard(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until it said something."""
        end = time.monotonic() + PATIENCE
        while True:
            found = [*re.finditer(pattern, self.said.read_text())]
            if len(found) >= times:
                return found[-1]
            assert time.monotonic() < end, self.said.read_text()
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(0.02)

    @property
    def port(self) -> int:
        return int(self.heard(r"at http://127\.0\.0\.1:(\d+)/mcp with \d+ workers")[1])

    def pids(self) -> list[int]:
        """Its workers, oldest first."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def sockets(self) -> list[Path]:
        return [*self.estate.home.glob("run/w*/*.sock")]

    async def ready(self, count: int) -> None:
        """Wait until so many workers take connections from each other."""
        port = self.port
        end = time.monotonic() + PATIENCE
        while len(self.sockets()) < count or len(self.pids()) < count:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
        assert port

    def client(self, version: str = MODERN, key: str | None = None) -> RawHttp:
        return RawHttp(self.port, version=version, key=key)


@contextmanager
def workers(estate: Estate, count: int = 2, **settings: Any) -> Iterator[Workers]:
    """Guard with several workers; the tool servers over HTTP run."""
    said = estate.folder / "said"
    with estate.running(), said.open("wb") as errors:
        estate.write_config(**settings)
        words = [str(GUARD), "serve", "--workers", str(count), str(estate.config)]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=errors)
        try:
            yield Workers(estate, process, said)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    estate = Estate(tmp_path / "e", Server("one"))
    estate.pin()
    return estate


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").exists()


def permitted(answer: dict[str, Any]) -> bool:
    return "result" in answer and not answer["result"].get("isError")


async def test_two_workers_write_one_lineage(estate: Estate) -> None:
    """Each granted call ran once, has one grant and one ending, and the lineage is whole."""
    key = estate.key()
    with workers(estate) as guard:
        await guard.ready(2)

        async def caller() -> None:
            client = guard.client(key=key)
            for _ in range(10):
                assert permitted(await client.call("echo", n=1))

        await asyncio.gather(*(caller() for _ in range(16)))
        instances = {entry.name for entry in (estate.home / "run").glob("*.lock")}
        assert len(instances) == 2
        guard.process.terminate()
        assert guard.process.wait(PATIENCE) == 0
    granted, returned = (estate.entries(kind) for kind in (Kind.GRANTED, Kind.RETURNED))
    assert len(granted) == len(returned) == len(estate.received()) == 160
    assert len({entry["call"] for entry in granted}) == 160
    assert {entry["call"] for entry in granted} == {entry["call"] for entry in returned}
    estate.settled()
    assert [*(estate.home / "run").iterdir()] == []


async def test_a_session_works_wherever_its_connection_lands(estate: Estate) -> None:
    """Its id names its worker; a request of it is handed on, and all of it belongs to one conversation."""
    key = estate.key()
    with workers(estate, 4) as guard:
        await guard.ready(4)
        client = guard.client(LEGACY, key)
        await client.greet()
        for _ in range(24):
            assert permitted(await client.call("echo", n=1))  # each on a connection of its own
        granted = estate.entries(Kind.GRANTED)
        assert len(granted) == 24
        assert len({entry["fields"]["conversation"]["id"] for entry in granted}) == 1
        assert (await client.delete()).status == 204
        for _ in range(8):
            assert (await client.post(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')).status == 404


async def test_streams_of_a_session_come_through_whichever_worker_was_reached(estate: Estate) -> None:
    """Answers as events, and the stream for what belongs to no request: each event as it comes."""
    key = estate.key()
    with workers(estate, 4) as guard:
        await guard.ready(4)
        client = guard.client(LEGACY, key)
        await client.greet()
        for _ in range(8):
            answer = await client.request("ping", headers={"Accept": "text/event-stream, application/json"})
            assert (answer.kind, answer.message()["result"]) == ("text/event-stream", {})
        await client.request("tools/list")
        scopes = {"use": ["use"], "more": ["use", "more"]}
        for turn in range(1, 5):
            async with client.listen() as events:
                roles = {"caller": {"scopes": scopes["more" if turn % 2 else "use"]}}
                estate.write_policy(version=estate.policy["version"] + 1, roles=roles)
                guard.process.send_signal(signal.SIGHUP)
                guard.heard("guard: reloaded", times=4 * turn)
                assert (await events.next())["method"] == "notifications/tools/list_changed"


async def test_a_session_of_another_is_none_wherever_it_is_asked_for(estate: Estate) -> None:
    """An id that names a worker opens nothing for whoever did not begin the session, nor for nobody."""
    one, other = estate.key("one"), estate.key("other")
    with workers(estate) as guard:
        await guard.ready(2)
        client = guard.client(LEGACY, one)
        await client.greet()
        for key, status in ((other, 404), (None, 401)):
            thief = guard.client(LEGACY, key)
            thief.session = client.session
            for _ in range(8):
                assert (await thief.post(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')).status == status
        assert permitted(await client.call("echo", n=1))


async def test_nobody_else_reaches_the_sockets_of_the_workers(estate: Estate) -> None:
    """They lie in a folder that only Guard's own user may enter."""
    with workers(estate) as guard:
        await guard.ready(2)
        for path in guard.sockets():
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_calls_that_name_no_conversation_share_one_over_all_workers(estate: Estate) -> None:
    """What a conversation did counts wherever its next call lands."""
    key = estate.key()
    with workers(estate, 4) as guard:
        await guard.ready(4)
        for _ in range(24):
            assert permitted(await guard.client(key=key).call("echo", n=1))
    assert len({entry["fields"]["conversation"]["id"] for entry in estate.entries(Kind.GRANTED)}) == 1


async def test_a_killed_worker_is_replaced_and_its_grants_are_closed(tmp_path: Path) -> None:
    """What it had under way ends as unknown, once; nobody else's grants are touched."""
    estate = Estate(tmp_path / "e", Server("one", answers=SLOW))
    estate.pin()
    key = estate.key()
    with workers(estate) as guard:
        await guard.ready(2)
        killed = guard.pids()[0]
        calls = [asyncio.ensure_future(guard.client(key=key).call("echo", n=1)) for n in range(16)]
        end = time.monotonic() + PATIENCE
        while len(estate.entries(Kind.GRANTED)) < 16:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
        os.kill(killed, signal.SIGKILL)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        lost = [answer for answer in answers if isinstance(answer, BaseException)]
        guard.heard(r"worker \d ended by signal 9; the next one starts")
        await guard.ready(2)
        for _ in range(8):
            assert permitted(await guard.client(key=key).call("echo", n=1))
    assert 0 < len(lost) < 16
    granted = [entry["call"] for entry in estate.entries(Kind.GRANTED)]
    unknown = [entry["call"] for entry in estate.entries(Kind.UNKNOWN)]
    returned = [entry["call"] for entry in estate.entries(Kind.RETURNED)]
    assert len(granted) == len({*granted}) == 24
    assert sorted(granted) == sorted(unknown + returned)  # each has exactly one ending
    assert len(unknown) == len(lost)
    estate.settled()


async def test_a_reload_reaches_every_worker(estate: Estate) -> None:
    """After SIGHUP each of them holds the new policy; one that begins later, too."""
    key = estate.key()
    with workers(estate) as guard:
        await guard.ready(2)
        assert permitted(await guard.client(key=key).call("echo", n=1))
        rule = {"id": "never", "tools": ["echo"], "schema": {"required": ["n"]}}
        estate.write_policy(version=estate.policy["version"] + 1, protected=[rule])
        guard.process.send_signal(signal.SIGHUP)
        guard.heard("guard: reloaded", times=2)
        os.kill(guard.pids()[0], signal.SIGKILL)
        guard.heard("worker . ended")
        for _ in range(12):
            try:
                answer = await guard.client(key=key).call("echo", n=1)
            except (OSError, EOFError):
                continue  # it was with the one that was killed
            assert reason(answer) == "protected", answer
        await guard.ready(2)


async def test_a_configuration_that_does_not_load_reaches_no_worker(estate: Estate) -> None:
    """The old one holds, and it is said once."""
    key = estate.key()
    with workers(estate) as guard:
        await guard.ready(2)
        estate.config.write_text("guard: 2\n")
        guard.process.send_signal(signal.SIGHUP)
        guard.heard("not reloaded, the old configuration holds")
        assert permitted(await guard.client(key=key).call("echo", n=1))
        assert guard.said.read_text().count("not reloaded") == 1


async def test_workers_end_with_their_parent(estate: Estate) -> None:
    """A parent that is killed leaves nobody behind at the address."""
    with workers(estate) as guard:
        await guard.ready(2)
        pids = guard.pids()
        guard.process.kill()
        guard.process.wait()
        end = time.monotonic() + PATIENCE
        while any(map(runs, pids)):
            assert time.monotonic() < end
            await asyncio.sleep(0.02)


def test_workers_that_cannot_begin_end_guard(estate: Estate) -> None:
    """What is wrong is told once, and the exit code says that nothing was served."""
    estate.write_config(listen="192.0.2.1:8640", hosts=["guard.example.com"])
    words = [str(GUARD), "serve", "--workers", "2", str(estate.config)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert done.stderr.count("cannot be bound") == 1
    assert "Traceback" not in done.stderr

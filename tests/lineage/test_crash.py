"""Kill -9 at random moments: what a tool server saw, the lineage has, and it stays as it was.

Four homes, five kills each, and ten homes with twenty each under `make faults`: while Guard starts, under
load, and while it shuts down. Even homes are recovered by hand after each kill, odd ones by the next
`guard run`.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from guard.config.home import close_abandoned, open_home
from guard.core.errors import Reason
from guard.lineage.audit import Report, audit, readable
from guard.lineage.checkpoint import parse_vkey
from guard.lineage.database import connect
from guard.lineage.entry import ENDINGS, Kind
from guard.lineage.lease import Lease
from guard.lineage.rows import read_entries
from guard.lineage.store import EntryRow
from tests.faults.verdict import EVERYTHING, WRONG, write_figures

ROOT: Final = Path(__file__).parents[2]
RECORDER: Final = ROOT / "tests" / "servers" / "recorder.py"
HOMES, KILLS = (10, 20) if EVERYTHING else (4, 5)
IN_FLIGHT: Final = 8
PATIENCE: Final = 30.0
TOOLS: Final = ("echo", "slow", "echo", "fail")
META: Final = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
POLICY: Final = {
    "guard": 1,
    "id": "crash",
    "version": 1,
    "roles": {"agent": {"scopes": ["use"]}},
    "tools": [{"match": "*", "scopes": ["use"]}],
}
LIMITED: Final = (
    "import os, resource, sys; size = int(sys.argv[1]);"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)); os.execv(sys.argv[2], sys.argv[2:])"
)


class Client:
    """A client that keeps calls in flight on the raw pipes of one `guard run`.

    Attributes:
        process: Guard.
        answers: every whole answer, in the order it came.
    """

    def __init__(self, command: list[str], numbers: count[int]) -> None:
        # The tool server inherits standard error: its end of file says that both are gone.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()
        self._numbers = numbers
        self._pending: set[int] = set()
        self._rest = b""
        self.answers: list[dict[str, Any]] = []

    def load(self, seconds: float, *, first: bool) -> None:
        """Keep calls in flight for so long; with `first`, from the first answer on."""
        start, end = len(self.answers), time.monotonic() + (PATIENCE if first else seconds)
        while (left := end - time.monotonic()) > 0:
            while len(self._pending) < IN_FLIGHT:
                self._call(next(self._numbers))
            assert self._hear(left), self.process.poll()
            if first and len(self.answers) > start:
                first, end = False, time.monotonic() + seconds
        assert not first, "no answer came"

    def _call(self, number: int) -> None:
        params = {"name": TOOLS[number % len(TOOLS)], "arguments": {"n": number}, "_meta": META}
        line = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        self._pending.add(number)
        os.write(self._in, json.dumps(line).encode() + b"\n")

    def _hear(self, seconds: float) -> bool:
        """Take what comes within so long; False at the end of it."""
        if not select.select([self._out], [], [], max(seconds, 0))[0]:
            return True
        data = os.read(self._out, 65536)
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            answer = json.loads(line)
            self._pending.remove(answer["id"])
            self.answers.append(answer)
        return bool(data)

    def leave(self) -> None:
        """Say goodbye: Guard begins to shut down."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> str:
        """Kill Guard, and wait for the end of its tool server too. What they said on standard error."""
        self.process.send_signal(signal.SIGKILL)
        while self._hear(PATIENCE):
            pass
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode()
        self.process.wait(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return said


@dataclass
class House:
    """A home, a policy and a tool server that writes down what reaches it."""

    folder: Path
    era: str = "both"
    strict: bool = False
    numbers: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.home, self.log = self.folder / "home", self.folder / "log"
        policy = self.folder / "policy.json"
        policy.write_text(json.dumps(POLICY))
        self.log.touch()
        server = [sys.executable, "-I", "-S", str(RECORDER)]
        server += ["--log", str(self.log), "--era", self.era, "--delay", "0.02"]
        guard = [sys.executable, "-m", "guard.cli.main"]
        where = ["--home", str(self.home), "--server", "recorder"]
        subprocess.run([*guard, "pin", "--yes", *where, "--", *server], check=True, capture_output=True)
        durability = ["--durability", "strict" if self.strict else "queued"]
        self.command = [*guard, "run", *where, "--policy", str(policy), "--role", "agent", *durability]
        self.command += ["--", *server]

    def client(self, *before: str) -> Client:
        return Client([*before, *self.command], self.numbers)

    def rows(self) -> list[EntryRow]:
        with closing(connect(self.home / "guard.db", read_only=True)) as db:
            return list(read_entries(db))

    def seen(self) -> list[dict[str, Any]]:
        """What reached the tool server."""
        return [json.loads(line) for line in self.log.read_bytes().splitlines()]

    def recover(self) -> None:
        """What the next start does first."""
        opened = open_home(self.home)
        lease = Lease(self.home / "run")
        with closing(opened.store()) as store:
            close_abandoned(store, lease)
        lease.release()

    def report(self) -> Report:
        vkey = parse_vkey(open_home(self.home).vkey)
        return audit(self.home / "guard.db", [vkey])


def killed(house: House, moments: random.Random, kind: str) -> Client:
    """One life of Guard, ended in its start, under load, or in its shutdown."""
    client = house.client()
    if kind == "start":
        client.load(moments.uniform(0.0, 0.9), first=False)
    else:
        client.load(moments.uniform(0.0, 0.3), first=True)
    if kind == "shutdown":
        if moments.random() < 0.5:
            client.leave()
        else:
            client.process.terminate()
        time.sleep(moments.uniform(0.0, 0.15))
    client.kill()
    return client


def succeeded(answers: list[dict[str, Any]]) -> set[int]:
    """The calls that ran, as the client was told: no denial, nothing withheld."""
    results = {answer["id"]: answer["result"] for answer in answers}
    return {n for n, result in results.items() if "dev.guard-mcp/decision" not in result.get("_meta", {})}


@pytest.mark.parametrize("index", range(HOMES))
def test_kill_9_at_a_random_moment_loses_nothing(tmp_path: Path, index: int) -> None:
    """No call without its grant, one ending for each, no entry changed, all of it sound, after each kill."""
    moments = random.Random(index)  # noqa: S311 - moments of a test
    strict = index % 4 == 3
    house = House(tmp_path, era=("modern", "legacy", "both")[index % 3], strict=strict)
    figures = Counter(kills=0, calls=0, lost=0, changed=0, duplicate_index=0)
    before = house.rows()
    told: set[int] = set()
    owed: set[str] = set()
    kinds = ["start", "start", "shutdown", "shutdown", *["load"] * (KILLS - 4)]
    moments.shuffle(kinds)
    for kind in kinds:
        told |= succeeded(killed(house, moments, kind).answers)
        rows = house.rows()
        figures["kills"] += 1
        figures["changed"] += sum(old != new for old, new in zip(before, rows, strict=False))
        figures["changed"] += max(0, len(before) - len(rows))
        figures["duplicate_index"] += len(rows) - len({row.index for row in rows})
        entries = [readable(row) for row in rows]
        granted = {entry["call"]: entry for entry in entries if entry["kind"] == Kind.GRANTED}
        numbers = {entry["fields"]["arguments"]["n"] for entry in granted.values()}
        figures["lost"] += sum(call["decision_id"] not in granted for call in house.seen())
        figures["lost"] += len(told - numbers)
        report = house.report()
        assert report.findings == []
        if kind != "start":  # it answered, so it had closed what the one before it left open
            assert owed.isdisjoint(report.open)
        if index % 2 == 0:
            house.recover()
        owed, before = set(house.report().open), house.rows()
    house.recover()
    figures["calls"] = len(house.seen())
    figures["jti_reused"] = len(house.seen()) - len({call["jti"] for call in house.seen()})
    write_figures(f"run-sqlite-{index}", figures)
    assert {name: figures[name] for name in WRONG if figures[name]} == {}
    assert house.report().findings == []
    entries = [readable(row) for row in house.rows()]
    assert [entry["index"] for entry in entries] == list(range(len(entries)))
    granted = {entry["call"]: entry for entry in entries if entry["kind"] == Kind.GRANTED}
    ends = {entry["call"]: entry["kind"] for entry in entries if entry["kind"] in ENDINGS}
    assert (
        len(granted) == len(ends) == sum(entry["kind"] in {Kind.GRANTED, *ENDINGS} for entry in entries) / 2
    )
    assert granted.keys() == ends.keys()
    seen = house.seen()
    assert len({call["decision_id"] for call in seen}) == len(seen), "no grant was dispatched twice"
    for call in seen:
        assert granted[call["decision_id"]]["fields"]["arguments"] == call["arguments"]
        assert ends[call["decision_id"]] != Kind.FAILED, "failed says that nothing was sent"
    by_number = {entry["fields"]["arguments"]["n"]: call for call, entry in granted.items()}
    allowed = {Kind.RETURNED} if strict else {Kind.RETURNED, Kind.UNKNOWN}
    assert {ends[by_number[number]] for number in told} <= allowed
    assert len(told) > KILLS, "hardly a call came home: nothing was tested"


def test_a_full_disk_sends_nothing_more(tmp_path: Path) -> None:
    """From the first commit that cannot be made, every call is denied and none reaches the tool server."""
    house = House(tmp_path)
    client = house.client(sys.executable, "-c", LIMITED, str(1_000_000))
    reasons: list[str] = []
    while reasons.count(Reason.STORE_UNAVAILABLE) < 3 * IN_FLIGHT:
        client.load(0.1, first=True)
        metas = [answer["result"].get("_meta", {}) for answer in client.answers]
        reasons = [meta.get("dev.guard-mcp/decision", {}).get("reason", "") for meta in metas]
        assert len(reasons) < 5000, "the disk is never full: nothing was tested"
    client.leave()
    client.process.wait(PATIENCE)
    said = client.kill()
    assert "the lineage cannot be written, every call is denied" in said
    told = succeeded(client.answers)
    assert len(told) > 10
    denied = {answer["id"] for answer in client.answers} - told
    sent = {call["arguments"]["n"] for call in house.seen()}
    withheld = {  # those that were sent before, and whose ending could not be made durable
        answer["id"]
        for answer in client.answers
        if answer["result"].get("_meta", {}).get("dev.guard-mcp/decision", {}).get("outcome")
    }
    assert told <= sent
    assert not (denied - withheld) & sent
    house.recover()
    assert house.report().findings == []
    entries = [readable(row) for row in house.rows()]
    granted = {entry["call"] for entry in entries if entry["kind"] == Kind.GRANTED}
    assert {call["decision_id"] for call in house.seen()} <= granted
    assert Counter(entry["call"] for entry in entries if entry["kind"] in ENDINGS) == dict.fromkeys(
        granted, 1
    )

"""Kill -9 of a Guard under load: what a tool server saw, the lineage has."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from guard.config.home import close_abandoned, open_home
from guard.lineage.audit import audit, readable
from guard.lineage.checkpoint import parse_vkey
from guard.lineage.lease import Lease

ROOT: Final = Path(__file__).parent.parent.parent
RECORDER: Final = ROOT / "tests" / "servers" / "recorder.py"
ROUNDS, KILLS = 10, 10
IN_FLIGHT: Final = 8
META: Final = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
POLICY: Final = {
    "guard": 1,
    "id": "kill",
    "version": 1,
    "roles": {"agent": {"scopes": ["use"]}},
    "tools": [{"match": "*", "scopes": ["use"]}],
}


def guard(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "guard.cli.main", words[0], "--home", str(home), *words[1:]]


def load_and_kill(process: subprocess.Popen[bytes], seconds: float, *, starting: bool) -> int:
    """Keep calls in flight, kill so long after the start or the first answer. Returns how many succeeded."""
    assert process.stdin is not None
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    sent, answered, buffer, replies = 0, 0, b"", []
    end = time.monotonic() + (seconds if starting else 30)
    while time.monotonic() < end:
        while sent - answered < IN_FLIGHT:
            params = {"name": ("echo", "slow")[sent % 2], "arguments": {"n": sent}, "_meta": META}
            line = {"jsonrpc": "2.0", "id": sent, "method": "tools/call", "params": params}
            process.stdin.write(json.dumps(line).encode() + b"\n")
            sent += 1
        process.stdin.flush()
        buffer += process.stdout.read() or b""
        *whole, buffer = buffer.split(b"\n")
        answered += len(whole)
        if whole and not replies and not starting:
            end = time.monotonic() + seconds
        replies += [json.loads(line) for line in whole]
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    return sum(not reply.get("result", {}).get("isError", True) for reply in replies)


def hashes(home: Path) -> list[bytes]:
    with closing(sqlite3.connect(home / "guard.db")) as db:
        return [row[0] for row in db.execute("SELECT hash FROM entries ORDER BY idx")]


def entries(home: Path) -> list[dict[str, Any]]:
    store = open_home(home).store()
    try:
        return [readable(row) for row in store.entries()]
    finally:
        store.close()


def recover(home: Path) -> None:
    """What the next start of Guard does first."""
    opened = open_home(home)
    store, lease = opened.store(), Lease(home / "run")
    close_abandoned(store, lease)
    lease.release()
    store.close()


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_kill_9_at_any_moment_loses_nothing(tmp_path: Path, seed: int) -> None:
    """After each kill: no call without its grant, one ending a grant, no entry changed, all of it sound."""
    moments = random.Random(seed)  # noqa: S311 - moments of a test
    home, log, policy = tmp_path / "home", tmp_path / "log", tmp_path / "policy.json"
    policy.write_text(json.dumps(POLICY))
    server = [sys.executable, str(RECORDER), "--log", str(log), "--delay", "0.02"]
    pin = guard(home, "pin", "--yes", "--server", "s", "--", *server)
    subprocess.run(pin, check=True, capture_output=True)
    command = guard(home, "run", "--policy", str(policy), "--role", "agent", "--server", "s", "--", *server)
    before: list[bytes] = hashes(home)
    answered = 0
    for _ in range(KILLS):
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            starting = moments.random() < 0.2
            seconds = moments.uniform(0.0, 1.0 if starting else 0.3)
            answered += load_and_kill(process, seconds, starting=starting)
        recover(home)
        now = hashes(home)
        assert now[: len(before)] == before
        before = now
    found = entries(home)
    granted = [entry["call"] for entry in found if entry["kind"] == "granted"]
    ended = [entry["call"] for entry in found if entry["kind"] in {"returned", "failed", "unknown"}]
    seen = [json.loads(line)["decision_id"] for line in log.read_text().splitlines()]
    assert answered > 0
    assert set(seen) <= set(granted)
    assert len(seen) == len(set(seen))
    assert sorted(granted) == sorted(ended)
    report = audit(home / "guard.db", [parse_vkey(open_home(home).vkey)])
    assert report.findings == []
    assert report.open == []

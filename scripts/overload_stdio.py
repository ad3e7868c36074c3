"""Twice what one Guard on stdio can do, for minutes: is it honest about the rest, and is nothing lost?

    python scripts/overload_stdio.py --seconds 300

The capacity is what 64 calls in flight get through. Then calls are written to the one pipe at twice that
rate, whether or not those before were answered. Where Guard reads no faster, the pipe holds the client
back: what was due then is counted, and never sent. When the load stops, it is measured how long Guard needs
until a call is as quick as before. Writes build/figures/overload_stdio.json; exits 1 where an answer was
not honest, a call was lost, or memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any, Final

import figures
from bench_parts import machine, messages
from bench_parts.guarded import Guarded
from bench_parts.load import StdioLink

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "build" / "overload-stdio"
"""On a disk, and emptied at each start."""
SERVER: Final = Path(__file__).parent / "bench_parts" / "echo_stdio.py"
IN_FLIGHT: Final = 64
TALKS: Final = 64
BURST_SECONDS: Final = 0.005
PIPE_BYTES: Final = 1 << 18
"""What a client has waiting for the pipe before it holds back."""
DRAIN_SECONDS: Final = 60.0
IN_A_ROW: Final = 20
QUICK: Final = 2.0
"""A call that takes at most so many times what it took before the overload is quick again."""
GROWTH: Final = 1.1
MIB: Final = 1 << 20
HONEST: Final = frozenset({"permitted", "overloaded"})


class Flood(StdioLink):
    """A client that asks whether or not it was answered. `kinds` counts the answers."""

    def __init__(self, guard: Guarded, cores: set[int]) -> None:
        super().__init__(
            guard.command(), env=guard.env, cores=cores, log=FOLDER / "log", tool="echo", era="modern"
        )
        self.kinds: Counter[str] = Counter()
        self.open_calls: set[int] = set()
        self.held_back = 0
        self.flooding = False

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if not self.flooding:
            super().pipe_data_received(fd, data)
            return
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            if (found := messages.answer(line)) is not None:
                self.open_calls.remove(found["id"])  # KeyError: answered twice, or nobody asked
                self.kinds[_kind(found["result"])] += 1

    async def flood(self, rate: float, seconds: float, samples: list[int]) -> float:
        """Calls at a rate for so many seconds; then all answers. Returns the seconds that those took."""
        self.flooding, began, due, looked = True, time.monotonic(), 0, 0.0
        while (now := time.monotonic() - began) < seconds:
            many = int(now * rate) - due
            due += many
            if self._pipe.get_write_buffer_size() > PIPE_BYTES:
                self.held_back += many
            else:
                self._pipe.write(b"".join(self._call() for _ in range(many)))
            if now - looked > 1.0:
                looked = now
                samples.append(machine.rss_bytes(machine.tree(self.pid)))
            await asyncio.sleep(BURST_SECONDS)
        ended = time.monotonic()
        while self.open_calls and time.monotonic() - ended < DRAIN_SECONDS:  # noqa: ASYNC110 - to the burst
            await asyncio.sleep(BURST_SECONDS)
        self.flooding = False
        return time.monotonic() - ended

    def _call(self) -> bytes:
        number, self._ids = self._ids, self._ids + 1
        self.open_calls.add(number)
        return messages.call(number, "echo", "x", "modern", f"talk-{number % TALKS}") + b"\n"


def _kind(result: dict[str, Any]) -> str:
    if not result.get("isError"):
        return "permitted"
    about = result.get("_meta", {}).get("dev.guard-mcp/decision", {})
    return str(about.get("reason", "error of the tool"))


async def drive(guard: Guarded, cores: set[int], seconds: float) -> dict[str, Any]:
    link = Flood(guard, cores)
    await link.open()
    await link.round(IN_FLIGHT, 1000)
    full = await link.round(IN_FLIGHT, 5000)
    capacity = len(full.seconds) / full.wall
    alone = median((await link.round(1, 200)).seconds)
    print(f"  capacity {capacity:.0f} calls/s, alone {alone * 1e3:.2f} ms", flush=True)
    samples: list[int] = []
    rest = await link.flood(2 * capacity, seconds, samples)
    began, row, since = time.monotonic(), 0, time.monotonic()
    while row < IN_A_ROW and time.monotonic() - began < DRAIN_SECONDS:
        quick = (await link.round(1, 1)).seconds[0] <= QUICK * alone
        row, since = (row + 1, since) if quick else (0, time.monotonic())
    await link.close()
    size = max(1, len(samples) // 4)
    return {
        "capacity_calls_per_s": round(capacity),
        "alone_ms": round(alone * 1e3, 2),
        "seconds": seconds,
        "sent": link.kinds.total() + len(link.open_calls),
        "held_back_by_the_pipe": link.held_back,
        "answered": dict(sorted(link.kinds.items())),
        "not_answered": len(link.open_calls),
        "not_honest": {kind: n for kind, n in link.kinds.items() if kind not in HONEST},
        "permitted_per_s": round(link.kinds["permitted"] / (seconds + rest)),
        "drained_after_s": round(rest, 2),
        "recovered_after_s": round(since - began, 2) if row == IN_A_ROW else None,
        "rss_mib_by_quarter": [
            round(median(samples[n * size : (n + 1) * size] or [0]) / MIB, 1) for n in range(4)
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    options = parser.parse_args()
    middle, load = machine.halves()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    command = [sys.executable, str(SERVER), "--cores", machine.shown(load)]
    guard = Guarded(FOLDER / "guard", {"command": command}, port=None, durability=None)
    guard.prepare()
    done = asyncio.run(drive(guard, middle, options.seconds))
    report = guard.verify()
    done |= {"entries": report["entries"], "grants_without_ending": len(report["open"])}
    flat = done["rss_mib_by_quarter"][3] <= GROWTH * done["rss_mib_by_quarter"][1]
    done["flat"] = flat
    wrong = done["not_answered"] or done["not_honest"] or done["grants_without_ending"]
    wrong = wrong or done["recovered_after_s"] is None
    figures.write("overload_stdio", done)
    print(json.dumps(done, indent=2))
    print(f"nothing lost and every answer honest: {not wrong}; memory flat: {flat}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    return 0 if flat and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())

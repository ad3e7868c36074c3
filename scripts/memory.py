"""Is Guard's memory flat over a million calls, and how long does a list of a thousand tools take?

    python scripts/memory.py [--calls 1000000]

One `guard serve` on stdio with everything on. Calls go over 10,000 conversations, 64 in flight, each answer
is checked. Memory is read at every tenth: flat is what grows by at most a tenth after the second. Then
another Guard in front of a server with 1,000 pinned tools is asked for its list, again and again. Prints
figures and writes build/figures/memory.json; exits 1 where memory is not flat.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import figures
from bench_parts import machine, messages
from bench_parts.guarded import Guarded
from bench_parts.load import StdioLink

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "build" / "memory"
"""On a disk, and emptied at each start."""
SERVER: Final = Path(__file__).parent / "bench_parts" / "echo_stdio.py"
IN_FLIGHT: Final = 64
TENTHS: Final = 10
TOOLS: Final = 1000
LISTS: Final = 21
GROWTH: Final = 1.1
MIB: Final = 1 << 20


def guarded(name: str, tools: int, load: set[int]) -> Guarded:
    """A new Guard on stdio in front of a server with that many tools, all pinned."""
    command = [sys.executable, str(SERVER), "--cores", machine.shown(load), "--tools", str(tools)]
    made = Guarded(FOLDER / name, {"command": command}, port=None, durability=None)
    made.prepare()
    return made


def client(guard: Guarded, cores: set[int]) -> StdioLink:
    return StdioLink(
        guard.command(), env=guard.env, cores=cores, log=FOLDER / "log", tool="echo", era="modern"
    )


async def calls(guard: Guarded, cores: set[int], count: int, conversations: int) -> list[float]:
    """Memory in MiB: after a first thousand calls, then after each tenth."""
    link = client(guard, cores)
    await link.open()
    await link.round(IN_FLIGHT, min(1000, count))
    found = [machine.rss_bytes(machine.tree(link.pid)) / MIB]
    for tenth in range(TENTHS):
        first = tenth * count // TENTHS
        size = (tenth + 1) * count // TENTHS - first

        def name(_: int, number: int, first: int = first) -> str:
            return f"talk-{(first + number) % conversations}"

        done = await link.round(IN_FLIGHT, size, name)
        found.append(machine.rss_bytes(machine.tree(link.pid)) / MIB)
        rate = len(done.seconds) / done.wall
        print(f"  {first + size:8d} calls  {found[-1]:7.1f} MiB  {rate:6.0f} calls/s", flush=True)
    await link.close()
    return found


async def lists(guard: Guarded, cores: set[int]) -> tuple[float, float]:
    """Milliseconds of the first list, and the median of those that follow. All tools must be in it."""
    link = client(guard, cores)
    await link.open()
    seconds = []
    for number in range(LISTS):
        cursor, page = "", 0
        names: set[str] = set()
        began = perf_counter()
        while page == 0 or cursor:
            params: dict[str, str] = {"cursor": cursor} if cursor else {}
            answer = await link.ask(messages.request(1000 * number + page, "tools/list", params, "modern"))
            names |= {tool["name"] for tool in answer["result"]["tools"]}
            cursor, page = answer["result"].get("nextCursor", ""), page + 1
        seconds.append(perf_counter() - began)
        if len(names) != TOOLS:
            raise messages.WrongAnswer(f"{len(names)} tools are listed, {TOOLS} are pinned")
    await link.close()
    return seconds[0] * 1e3, median(seconds[1:]) * 1e3


def is_flat(mib: list[float]) -> bool:
    """Whether memory after the last tenth is at most a tenth above that after the second."""
    return mib[-1] <= GROWTH * mib[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--conversations", type=int, default=10_000)
    options = parser.parse_args()
    middle, load = machine.halves()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    first, later = asyncio.run(lists(guarded("list", TOOLS, load), middle))
    print(f"tools/list of {TOOLS} pinned: first {first:.1f} ms, then {later:.2f} ms (median)", flush=True)
    guard = guarded("calls", 1, load)
    mib = asyncio.run(calls(guard, middle, options.calls, options.conversations))
    store = sum(file.stat().st_size for file in guard.folder.rglob("*") if file.is_file()) / MIB
    flat = is_flat(mib)
    print(f"memory, MiB: {[round(one, 1) for one in mib]}; flat: {flat}; on disk {store:.0f} MiB")
    written = figures.write(
        "memory",
        {
            "calls": options.calls,
            "conversations": options.conversations,
            "rss_mib": [round(one, 1) for one in mib[1:]],
            "rss_first_mib": round(mib[0], 1),
            "flat": flat,
            "store_mib": round(store, 1),
            "list_tools": TOOLS,
            "list_first_ms": round(first, 2),
            "list_ms": round(later, 3),
        },
    )
    print(written)
    shutil.rmtree(FOLDER, ignore_errors=True)
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())

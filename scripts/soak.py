"""Mixed load on a real `guard serve` for a long time: is memory flat, and is every answer the right one?

    python scripts/soak.py --seconds 1800

Several principals, both eras of MCP, honest and hostile traffic, sessions and streams that come and go,
a slow tool server and one that dies now and then. Guard's memory and descriptors are read from the
system. Memory is flat if the median of the last quarter is at most a tenth above that of the second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import figures

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.proxy.estate import Estate, Server  # noqa: E402 - the tests' tool servers and client
from tests.proxy.raw_http import RawHttp  # noqa: E402
from tests.proxy.scene import LEGACY, MODERN  # noqa: E402

GUARD = Path(sys.executable).parent / "guard"
ECHO = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[{"type":"text","text":$ARGUMENTS}]}}'
DIES = [[ECHO]] * 200 + [[{"exit": 1}]]
SLOW = [[{"sleep": 0.05}, ECHO]]
MAY_FAIL = {"upstream-unavailable"}
"""What a call to the server that dies may be told."""
GROWTH = 1.1
MORE_FDS = 32
EVERY = 5.0
MAX_SHOWN = 20


@dataclass
class Soak:
    """What was done and seen.

    Attributes:
        port: Guard's.
        keys: an API key of each principal.
        done: how often each kind of traffic was served.
        wrong: what was not as expected.
        samples: seconds, bytes of memory, descriptors.
    """

    port: int
    keys: list[str]
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[tuple[float, int, int]] = field(default_factory=list)

    def client(self, n: int, version: str = MODERN) -> RawHttp:
        return RawHttp(self.port, version=version, key=self.keys[n % len(self.keys)])

    def expect(self, kind: str, found: object, *, holds: bool) -> None:
        self.done[kind] += 1
        if not holds:
            self.wrong.append(f"{kind}: {str(found)[:300]}")
            if len(self.wrong) <= MAX_SHOWN:
                print("  NOT AS EXPECTED", self.wrong[-1], flush=True)


def permitted(response: dict[str, Any]) -> bool:
    return "isError" not in response.get("result", {"isError": True})


def reason(response: dict[str, Any]) -> str:
    meta = response.get("result", {}).get("_meta", {})
    return str(meta.get("dev.guard-mcp/decision", {}).get("reason", ""))


async def honest(soak: Soak, n: int) -> None:
    found = await soak.client(n).call(f"{'one' if n % 2 else 'far'}__echo", text=f"hello {n}")
    soak.expect("honest", found, holds=permitted(found))


async def denied(soak: Soak, n: int) -> None:
    found = await soak.client(n).call("one__echo", n=13)
    soak.expect("denied", found, holds=reason(found) == "protected")


async def hidden(soak: Soak, n: int) -> None:
    found = await soak.client(n).call("far__hidden")
    soak.expect("hidden", found, holds=reason(found) == "unknown-tool")


async def dying(soak: Soak, n: int) -> None:
    found = await soak.client(n).call("dying__echo", text="x")
    soak.expect("dying", found, holds=permitted(found) or reason(found) in MAY_FAIL)


async def slow(soak: Soak, n: int) -> None:
    found = await soak.client(n).call("slow__echo", text="x")
    soak.expect("slow", found, holds=permitted(found))


async def called_off(soak: Soak, n: int) -> None:
    params = {"name": "slow__echo", "arguments": {}, "_meta": {"progressToken": n}}
    work = asyncio.ensure_future(soak.client(n).request("tools/call", params))
    await asyncio.sleep(0.01)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    soak.expect("called off", None, holds=True)


async def listed(soak: Soak, n: int) -> None:
    answer = await soak.client(n).request("tools/list", {})
    names = {tool["name"] for tool in answer.message()["result"]["tools"]}
    soak.expect("listed", names, holds={"one__echo", "far__echo", "slow__echo"} <= names)


async def malformed(soak: Soak, n: int) -> None:
    answer = await soak.client(n).post([b"{", b"[]", b"\xff", b'{"jsonrpc":"1.0"}'][n % 4])
    soak.expect("malformed", answer, holds=answer.status == 400)


async def nobody(soak: Soak, n: int) -> None:
    answer = await RawHttp(soak.port, key="guard_x" if n % 2 else None).request("tools/list", {})
    soak.expect("nobody", answer, holds=answer.status in {401, 429})


async def session(soak: Soak, n: int) -> None:
    client = soak.client(n, LEGACY)
    await client.greet()
    for _ in range(5):
        found = await client.call("one__echo", text="x")
        soak.expect("in a session", found, holds=permitted(found))
    if n % 4:
        soak.expect("session ended", None, holds=(await client.delete()).status == 204)


async def stream(soak: Soak, n: int) -> None:
    wanted = {"notifications": {"toolsListChanged": True}}
    async with soak.client(n).stream("subscriptions/listen", wanted) as events:
        first = await events.next()
        soak.expect("stream", first, holds=first["method"] == "notifications/subscriptions/acknowledged")


KINDS: list[Callable[[Soak, int], Awaitable[None]]] = [
    honest, honest, honest, honest, denied, hidden, dying, slow, called_off, listed, malformed, nobody,
    session, stream,
]  # fmt: skip


async def worker(soak: Soak, number: int, end: float) -> None:
    n = number
    while time.monotonic() < end:
        kind = KINDS[n % len(KINDS)]
        try:
            await kind(soak, n)
        except Exception as error:  # noqa: BLE001 - any transport error is one that a client would see
            soak.expect(kind.__name__, repr(error), holds=False)
        n += 5  # with the number of kinds it has no divisor in common
        await asyncio.sleep(0.02)


async def watch(soak: Soak, pid: int, end: float) -> None:
    began = time.monotonic()
    while time.monotonic() < end:
        soak.samples.append((time.monotonic() - began, *taken(pid)))
        if len(soak.samples) % 12 == 0:
            seconds, rss, fds = soak.samples[-1]
            print(
                f"  {seconds:6.0f} s  {rss / 2**20:7.1f} MiB  {fds:4d} fds  {soak.done.total()} done",
                flush=True,
            )
        await asyncio.sleep(EVERY)


def taken(pid: int) -> tuple[int, int]:
    """Bytes of memory and number of descriptors that a process has now."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found, "no such process"
    return int(found[1]) * 1024, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def quarter(soak: Soak, which: int, column: int) -> float:
    """The median of one quarter of the samples, counted from 0."""
    size = len(soak.samples) // 4
    return statistics.median(sample[column] for sample in soak.samples[which * size : (which + 1) * size])


async def load(estate: Estate, keys: list[str], options: argparse.Namespace) -> Soak:
    """Start Guard, load it, stop it. Returns what came of it."""
    process = await asyncio.create_subprocess_exec(
        GUARD, "serve", estate.config, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        while not (found := re.search(rb":(\d+)/mcp", line := await process.stderr.readline())):
            assert line, "guard serve ended"
        told = asyncio.ensure_future(process.stderr.read())
        soak = Soak(int(found[1]), keys)
        end = time.monotonic() + options.seconds
        workers = [worker(soak, n, end) for n in range(options.workers)]
        await asyncio.gather(watch(soak, process.pid, end), *workers)
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)
    await told
    return soak


def judge(soak: Soak, estate: Estate, seconds: float) -> int:
    """Print and write the figures. Returns the exit code."""
    env = {**os.environ, "GUARD_HOME": str(estate.home)}
    verify = [GUARD, "lineage", "verify", "--json"]
    verified = subprocess.run(verify, env=env, capture_output=True, check=False)
    sound = verified.returncode == 0 and json.loads(verified.stdout)["open"] == []
    memory = [round(quarter(soak, n, 1) / 2**20, 1) for n in range(4)]
    fds = [quarter(soak, n, 2) for n in range(4)]
    flat = memory[3] <= GROWTH * memory[1] and fds[3] <= fds[1] + MORE_FDS
    kinds = dict(sorted(soak.done.items()))
    counted = {"seconds": seconds, "requests": soak.done.total(), "kinds": kinds, "wrong": len(soak.wrong)}
    figures.write("soak", {**counted, "rss_mib": memory, "fds": fds, "flat": flat, "sound": sound})
    print(f"{soak.done.total()} requests in {seconds:.0f} s: {kinds}")
    print(f"memory by quarters, MiB: {memory}; descriptors: {fds}")
    print(f"flat: {flat}; every answer as expected: {not soak.wrong}; the lineage stands: {sound}")
    return 0 if flat and sound and not soak.wrong else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--workers", type=int, default=6)
    options = parser.parse_args()
    estate = Estate(
        Path(tempfile.mkdtemp(prefix="guard-soak-")) / "estate",
        Server("one"),
        Server("far", era="legacy", over="http"),
        Server("slow", answers=SLOW, settings={"shared": True}),
        Server("dying", answers=DIES),
    )
    estate.pin()
    keys = [estate.key(f"principal-{n}") for n in range(4)]
    with estate.running():
        estate.write_config()
        soak = asyncio.run(load(estate, keys, options))
    return judge(soak, estate, options.seconds)


if __name__ == "__main__":
    sys.exit(main())

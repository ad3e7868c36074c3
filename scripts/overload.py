"""Twice what Guard can do, for minutes: is it honest about what it does not do, and is nothing lost?

    python scripts/overload.py --seconds 300

First the capacity is found: as many calls at once as Guard serves best. Then calls come at twice that
rate, whether or not the ones before were answered, as long as no more than MAX_OUT are out. Among them are
clients that do not read what they are sent, and callers of a tool server that takes half a second for each
call: both may cost only themselves. When the load stops, it is measured how long Guard needs until a call
is as quick as before.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import figures

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.proxy.estate import Estate, Server  # noqa: E402 - the tests' tool servers
from tests.proxy.raw_http import RawHttp  # noqa: E402
from tests.proxy.scene import ENVELOPE, MODERN  # noqa: E402

GUARD = Path(sys.executable).parent / "guard"
HALF_A_SECOND = [
    [
        {"sleep": 0.5},
        '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[{"type":"text","text":"late"}]}}',
    ]
]
CALLERS = 8
IN_FLIGHT = 32
"""Calls of one principal at once, as Guard is configured here."""
CONNECTIONS = 512
STEPS = (4, 8, 16, 32, 64)
STEP_SECONDS = 3.0
PART_SECONDS = 10.0
BURST_SECONDS = 0.005
ANSWER_SECONDS = 60.0
MAX_OUT = 2000
"""Calls that are out at most: this script is one process, and would run out of sockets before Guard does."""
LARGE = "x" * 200_000
EVERY = 1.0
QUICK = 2.0
"""A call that takes at most so many times what it took before the overload is quick again."""
IN_A_ROW = 20
ENDINGS = frozenset({"returned", "failed", "unknown", "accepted", "input-required"})


def body(n: int, tool: str, text: str) -> bytes:
    meta = dict(ENVELOPE)
    params = {"name": tool, "arguments": {"text": text}, "_meta": meta}
    return json.dumps({"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": params}).encode()


def request(key: str, tool: str, data: bytes) -> bytes:
    head = (
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Accept: application/json\r\nAuthorization: Bearer {key}\r\nMCP-Protocol-Version: {MODERN}\r\n"
        f"Mcp-Method: tools/call\r\nMcp-Name: {tool}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


class Wire(asyncio.Protocol):
    """One connection, one call at a time, answers with a length."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._early: tuple[int, bytes] | None = None  # whoever is turned away is told before it asks
        self.open = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.open = transport, True  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc or EOFError())

    def data_received(self, data: bytes) -> None:
        self._held += data
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._held[:end]).lower()
        found = re.search(rb"content-length: (\d+)", head)
        assert found, head
        whole = end + 4 + int(found[1])
        if len(self._held) < whole:
            return
        answer = int(head[9:12]), bytes(self._held[end + 4 : whole])
        self._held.clear()
        if b"connection: close" in head:
            self.open = False
            self.transport.close()
        if self._waiter is None:
            self._early = answer
        elif not self._waiter.done():
            self._waiter.set_result(answer)

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        if self._early is not None:
            return self._early
        if not self.open:
            raise EOFError
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return await self._waiter


@dataclass
class Load:
    """What was sent and seen.

    Attributes:
        port: Guard's.
        keys: of the callers.
        kinds: answers by kind.
        took: seconds of each permitted call, with when it was asked.
        sent: calls.
        out: calls that are out.
        held_back: calls that were not made, for MAX_OUT were out.
    """

    port: int
    keys: list[str]
    kinds: Counter[str] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    sent: int = 0
    out: int = 0
    held_back: int = 0
    idle: list[Wire] = field(default_factory=list)

    async def call(self, key: str, tool: str = "one__echo") -> str:
        """One call on a connection that is free, or a new one. Returns what kind of answer came."""
        self.sent += 1
        self.out += 1
        began = time.perf_counter()
        kind = "called off"
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                wire = await self._wire()
                status, data = await wire.ask(request(key, tool, body(self.sent, tool, "x")))
            kind = told(status, data)
            if wire.open:
                self.idle.append(wire)
        except TimeoutError:
            kind = "not answered"
        except (OSError, EOFError) as error:
            kind = f"broken: {errno.errorcode.get(getattr(error, 'errno', None) or 0, type(error).__name__)}"
        finally:
            self.out -= 1
            self.kinds[kind] += 1
        if kind == "permitted":
            self.took.append(time.perf_counter() - began)
        return kind

    async def _wire(self) -> Wire:
        while self.idle:
            if (wire := self.idle.pop()).open:
                return wire
        _, made = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", self.port)
        return made

    def close(self) -> None:
        for wire in self.idle:
            wire.transport.abort()
        self.idle.clear()


def told(status: int, data: bytes) -> str:
    """The kind of an answer."""
    if status == 429:
        return "overloaded (429)"
    if status == 503:
        return "full (503)"
    try:
        result = json.loads(data)["result"]
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
    if not result.get("isError"):
        return "permitted"
    return str(result.get("_meta", {}).get("dev.guard-mcp/decision", {}).get("reason", "error of the tool"))


# -- the parts of the run --------------------------------------------------------------------------------


async def closed_loop(port: int, keys: list[str], at_once: int, seconds: float) -> Load:
    """So many calls at once, each after the other."""
    load, end = Load(port, keys), time.monotonic() + seconds

    async def caller(n: int) -> None:
        while time.monotonic() < end:
            await load.call(keys[n % len(keys)])

    await asyncio.gather(*(caller(n) for n in range(at_once)))
    load.close()
    return load


async def open_loop(load: Load, rate: float, seconds: float) -> None:
    """Calls at a rate, whatever became of those before."""
    began, asked, tasks = time.monotonic(), 0, set()
    while (now := time.monotonic() - began) < seconds:
        for n in range(asked, int(now * rate)):
            if len(tasks) >= MAX_OUT:
                load.held_back += 1
                continue
            task = asyncio.ensure_future(load.call(load.keys[n % len(load.keys)]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        asked = int(now * rate)
        await asyncio.sleep(BURST_SECONDS)
    await asyncio.gather(*tasks)


async def slow_readers(port: int, key: str, count: int) -> None:
    """Ask for large answers again and again, and read none, until called off."""
    loop, socks = asyncio.get_running_loop(), []
    data = request(key, "one__echo", body(1, "one__echo", LARGE))
    try:
        while True:
            while len(socks) < count:
                sock = socket.socket()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.setblocking(False)  # noqa: FBT003 - its signature
                await loop.sock_connect(sock, ("127.0.0.1", port))
                socks.append(sock)
            for sock in [*socks]:
                try:
                    await asyncio.wait_for(loop.sock_sendall(sock, data), 0.5)
                except (TimeoutError, OSError):
                    socks.remove(sock)
                    sock.close()
            await asyncio.sleep(0.5)
    finally:
        for sock in socks:
            sock.close()


async def slow_callers(load: Load, count: int) -> None:
    """Call the slow tool server, so many at once, until called off."""

    async def caller() -> None:
        while True:
            if await load.call(load.keys[0], "slow__echo") != "permitted":
                await asyncio.sleep(0.1)

    await asyncio.gather(*(caller() for _ in range(count)))


async def recovered(port: int, key: str, before: float) -> float:
    """Seconds until so many calls in a row are quick again."""
    began, row, since = time.monotonic(), 0, time.monotonic()
    load = Load(port, [key])
    while row < IN_A_ROW and time.monotonic() - began < ANSWER_SECONDS:
        if not row:
            since = time.monotonic()
        at = time.perf_counter()
        quick = await load.call(key) == "permitted" and time.perf_counter() - at <= QUICK * before
        row = row + 1 if quick else 0
    load.close()
    return since - began if row == IN_A_ROW else float("inf")


def p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)] if values else 0.0


def memory(pid: int) -> int:
    """Bytes of Guard's process, and of its workers where it has some; not of the tool servers."""
    found = 0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in [str(pid), *children]:
        try:
            words = Path(f"/proc/{each}/cmdline").read_bytes()
            status = Path(f"/proc/{each}/status").read_text()
        except OSError:
            continue
        if b"guard" in words and b"serve" in words and (rss := re.search(r"VmRSS:\s+(\d+)", status)):
            found += int(rss[1]) * 1024
    return found


async def watch(pid: int, samples: list[int]) -> None:
    while True:
        samples.append(memory(pid))
        await asyncio.sleep(EVERY)


async def drive(port: int, pid: int, keys: dict[str, list[str]], seconds: float) -> dict[str, object]:
    callers = keys["caller"]
    best, capacity = 0, 0.0
    await closed_loop(port, callers, 8, 1.0)  # warm
    for at_once in STEPS:
        done = await closed_loop(port, callers, at_once, STEP_SECONDS)
        rate = done.kinds["permitted"] / STEP_SECONDS
        print(f"  {at_once:3d} at once: {rate:7.0f} calls/s, p95 {p95(done.took) * 1000:.1f} ms", flush=True)
        if rate > capacity:
            best, capacity = at_once, rate
    if not seconds:
        sys.exit(0)
    alone = await closed_loop(port, callers, 1, STEP_SECONDS)

    # Half of what it can: does it matter to these callers that there are bad ones?
    quiet = Load(port, callers)
    await open_loop(quiet, capacity / 2, PART_SECONDS)
    quiet.close()
    late = Load(port, keys["late"])
    bad = [
        asyncio.ensure_future(slow_readers(port, keys["unread"][0], 16)),
        asyncio.ensure_future(slow_callers(late, 16)),
    ]
    beside = Load(port, callers)
    await open_loop(beside, capacity / 2, PART_SECONDS)
    beside.close()
    for name, part in (("without", quiet), ("with", beside)):
        print(f"  half, {name} slow ones: {dict(part.kinds)}, p95 {p95(part.took) * 1000:.1f} ms", flush=True)

    samples: list[int] = []
    watching = asyncio.ensure_future(watch(pid, samples))
    load = Load(port, callers)
    began = time.monotonic()
    await open_loop(load, 2 * capacity, seconds)
    took = time.monotonic() - began
    for each in (*bad, watching):
        each.cancel()
    await asyncio.gather(*bad, watching, return_exceptions=True)
    load.close()
    again = await recovered(port, callers[0], p95(alone.took))
    late.close()
    size = max(1, len(samples) // 4)
    return {
        "capacity_calls_per_s": round(capacity),
        "capacity_at_once": best,
        "alone_p95_ms": round(p95(alone.took) * 1000, 2),
        "half_p95_ms": round(p95(quiet.took) * 1000, 2),
        "half_beside_slow_ones_p95_ms": round(p95(beside.took) * 1000, 2),
        "half_not_permitted": quiet.sent - quiet.kinds["permitted"],
        "half_beside_slow_ones_not_permitted": beside.sent - beside.kinds["permitted"],
        "seconds": seconds,
        "drained_after_s": round(took - seconds, 2),
        "sent": load.sent,
        "held_back": load.held_back,
        "answered": dict(sorted(load.kinds.items())),
        "permitted_per_s": round(load.kinds["permitted"] / took),
        "permitted_p95_ms": round(p95(load.took) * 1000, 1),
        "slow_server_answered": dict(sorted(late.kinds.items())),
        "rss_mib_by_quarter": [
            round(statistics.median(samples[n * size : (n + 1) * size] or [0]) / 2**20, 1) for n in range(4)
        ],
        "recovered_after_s": round(again, 2),
        "_permitted": sum(each.kinds["permitted"] for each in (quiet, beside, load)),
    }


# -- what the log says ------------------------------------------------------------------------------------


def recorded(estate: Estate) -> dict[str, object]:
    """Does every grant have exactly one ending, does the lineage stand, and did each call run by a grant?"""
    env = {**os.environ, "GUARD_HOME": str(estate.home)}
    verify = [GUARD, "lineage", "verify", "--json"]
    verified = subprocess.run(verify, env=env, capture_output=True, check=False)
    sound = verified.returncode == 0 and json.loads(verified.stdout)["open"] == []
    granted: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for entry in estate.entries():
        kinds[str(entry["kind"])] += 1
        if entry["kind"] == "granted":
            granted[entry["call"]] += 1
        elif entry["call"] and str(entry["kind"]) in ENDINGS:
            ended[entry["call"]] += 1
    received = sum(len(estate.received(name)) for name in ("one", "slow"))
    return {
        "entries": dict(sorted(kinds.items())),
        "granted": granted.total(),
        "granted_twice": sum(n > 1 for n in granted.values()),
        "without_ending": sum(not ended[call] for call in granted),
        "with_more_endings": sum(n > 1 for n in ended.values()),
        "ran_without_grant": max(0, received - granted.total()),
        "ran": received,
        "sound": sound,
    }


async def over_http(
    estate: Estate, keys: dict[str, list[str]], options: argparse.Namespace
) -> dict[str, object]:
    more = ["--workers", str(options.workers)] if options.workers > 1 else []
    process = await asyncio.create_subprocess_exec(
        GUARD, "serve", *more, estate.config, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        while not (found := re.search(rb":(\d+)/mcp", line := await process.stderr.readline())):
            assert line, "guard serve ended"
        told_more = asyncio.ensure_future(process.stderr.read())
        port = int(found[1])
        for name in ("one", "slow"):
            await RawHttp(port, key=keys["caller"][0]).call(f"{name}__echo", text="x")
        await asyncio.sleep(1.0)
        done = await drive(port, process.pid, keys, options.seconds)
    finally:
        process.terminate()
        done_code = await asyncio.wait_for(process.wait(), 60)
    said = (await told_more).decode("utf-8", "replace")
    print("  " + "\n  ".join(said.splitlines()[-20:]))
    return {**done, "exit_code": done_code, "tracebacks": said.count("Traceback")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="0 finds the capacity only")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    estate = Estate(
        Path(tempfile.mkdtemp(prefix="guard-overload-")) / "estate",
        Server("one", settings={"shared": True}),
        Server("slow", answers=HALF_A_SECOND, settings={"shared": True, "timeout": 5.0}),
    )
    estate.pin()
    keys = {"caller": [estate.key(f"caller-{n}") for n in range(CALLERS)]}
    keys |= {name: [estate.key(name)] for name in ("late", "unread")}
    estate.write_config(limits={"in_flight": IN_FLIGHT, "connections": CONNECTIONS})
    done = asyncio.run(over_http(estate, keys, options))
    done["workers"] = options.workers
    permitted = int(str(done.pop("_permitted")))
    done |= recorded(estate)
    honest = {"permitted", "overloaded", "overloaded (429)", "full (503)"}
    done["not_honest"] = {kind: n for kind, n in dict(done["answered"]).items() if kind not in honest}  # type: ignore[call-overload]
    done["answered_without_entry"] = max(0, permitted - int(str(done["granted"])))
    figures.write("overload", done)
    print(json.dumps(done, indent=2))
    quarters = list(done["rss_mib_by_quarter"])  # type: ignore[call-overload]
    right = done["sound"] and not done["not_honest"] and not done["exit_code"]
    right = right and not any(
        done[name]
        for name in (
            "granted_twice", "without_ending", "with_more_endings", "ran_without_grant",
            "answered_without_entry", "tracebacks", "half_beside_slow_ones_not_permitted",
        )
    )  # fmt: skip
    flat = quarters[3] <= quarters[1] * 1.1
    print(f"nothing lost and every answer honest: {bool(right)}; memory flat: {flat}")
    return 0 if right and flat else 1


if __name__ == "__main__":
    sys.exit(main())

"""Where the time of a call goes: each step of its life on the real parts, and a picture of it.

    python scripts/steps.py [PICTURE.png]

A whole Guard is set up as for the benchmark (100 rules, artifact, durable log), and each step of one and the
same call is taken again and again: CPU time in microseconds, the least of several rounds, for the machine may
be busy. What is not here is what carries the messages: reading and writing pipes and the event loop. The
figures go to build/figures/steps.json. The picture needs matplotlib (the dependency group `bench`).
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import figures
from bench_parts.guarded import SERVER, TOOL, Guarded

from guard.config.home import open_home
from guard.config.serve import Serving
from guard.config.settings import load_settings
from guard.core.model import Allow, Conversation
from guard.proxy import eras, records, wire
from guard.proxy.endings import Flight, Returned
from guard.proxy.world import Bound, Gate

ECHO: Final = Path(__file__).parent / "bench_parts" / "echo_stdio.py"
ROUNDS: Final = 9
TIMES: Final = 1000
TOGETHER: Final = 64
"""Calls in one commit: as many as the benchmark has in flight."""
CALL: Final = {
    "jsonrpc": "2.0",
    "id": 7,
    "method": "tools/call",
    "params": {
        "name": TOOL,
        "arguments": {"text": "hello"},
        "_meta": {
            eras.PROTOCOL_VERSION: eras.MODERN[-1],
            eras.CLIENT_INFO: {"name": "steps", "version": "1"},
            eras.CLIENT_CAPABILITIES: {},
            "dev.guard-mcp/conversation": "steps",
        },
    },
}
ANSWER: Final = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"resultType":"complete"}}'


def least(take: Callable[[], Any], times: int = TIMES) -> float:
    """CPU microseconds of one, the least of several rounds of many."""
    found: list[float] = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(times):
            take()
        found.append((time.process_time() - began) / times * 1e6)
    return min(found)


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("it waits")


class _Pipe:
    """Where what is sent goes, for a while: nowhere."""

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return False


async def steps(serving: Serving) -> dict[str, float]:
    """Each step, by name, in the order of a call's life."""
    gate = Gate(serving.house, serving._identify(None), Conversation("steps", "launch"))  # noqa: SLF001
    who = gate.identify()
    await serving.house.generation.servers[SERVER].link(who).fresh()
    line = json.dumps(CALL).encode()
    message = wire.read_message(line)
    assert isinstance(message, wire.Request)
    call = await gate.bind(message, who)
    allow = gate.decide(call)
    assert isinstance(call, Bound)
    assert isinstance(allow, Allow), allow
    assert call.upstream is not None
    ref, ending = serving.house.generation.policy.ref, Returned(b'{"content":[],"resultType":"complete"}')
    grants = iter([gate.issue(call, allow) for _ in range((ROUNDS + 1) * TIMES)])
    grant = next(grants)
    verified = gate.verify(grant, call)
    upstream: Any = call.upstream
    pipe, upstream._stdin = upstream._stdin, _Pipe()  # noqa: SLF001

    def dispatched() -> None:
        work = upstream.dispatch(verified, message.method, message.meta, Flight())
        work.send(None)
        upstream._hear_bytes(ANSWER % upstream._next)  # noqa: SLF001
        try:
            work.send(None)
        except StopIteration:
            return
        raise RuntimeError("it waits")

    def granted(one: Any = call, its: Any = grant) -> Any:
        now, instance = serving.house.clock(), serving.house.instance
        return records.granted(one, allow, its, ref, now=now, instance=instance)

    def ended(one: Any = call) -> Any:
        return records.ended(one, ending, "x", now=serving.house.clock())

    found = {
        "1 receive": least(lambda: wire.read_message(line)),
        "2 identify, 3 bind": least(lambda: at_once(gate.bind(message, who))),
        "4 decide": least(lambda: gate.decide(call)),
        "5 issue": least(lambda: gate.issue(call, allow)),
        "6 record: the entry": least(granted),
        "6 record: the commit": await committed(serving, gate, message, allow, granted=granted, ended=ended),
        "7 verify": least(lambda: gate.verify(next(grants), call)),
        "8 dispatch, and hear": least(dispatched),
        "9 record: the entry": least(ended),
        "10 return": least(lambda: gate.reply(message, call, ending)),
    }
    upstream._stdin = pipe  # noqa: SLF001
    return found


async def committed(
    serving: Serving, gate: Gate, message: wire.Request, allow: Allow, *, granted: Any, ended: Any
) -> float:
    """A call's share of a commit that takes as many grants, and of one that takes their endings."""
    found: list[float] = []
    for _ in range(ROUNDS):
        calls = [await gate.bind(message, gate.identify()) for _ in range(TOGETHER)]
        batches = [[granted(one, gate.issue(one, allow)) for one in calls], [ended(one) for one in calls]]
        began = time.process_time()
        for batch in batches:
            serving.store.apply(batch)
        found.append((time.process_time() - began) / TOGETHER * 1e6)
    return min(found)


def draw(found: dict[str, float], path: Path) -> None:
    """One bar for each step, each where the one before ends."""
    import matplotlib as mpl  # noqa: PLC0415 - only where a picture is wanted

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(9, 4))
    at = 0.0
    for place, cost in enumerate(found.values()):
        axes.barh(place, cost, left=at, color="#3b6ea5")
        axes.text(at + cost + 2, place, f"{cost:.0f} µs", va="center", fontsize=9)
        at += cost
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set_xlim(0, at * 1.1)
    axes.set_xlabel(f"CPU time of a call, µs ({at:.0f} in all, without what carries the messages)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


async def measured(folder: Path) -> dict[str, float]:
    own = Guarded(folder, {"command": [sys.executable, str(ECHO)]}, port=None, durability=None)
    own.prepare()
    home = open_home(folder / "home")
    serving = Serving(own.config, load_settings(own.config), home, home.store())
    await serving.open()
    try:
        return await steps(serving)
    finally:
        await serving.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(measured(Path(name) / "bench"))
    for step, cost in found.items():
        print(f"{step:24}{cost:7.1f} µs")
    print(f"{'in all':24}{sum(found.values()):7.1f} µs")
    figures.write("steps", {f"{step} us": round(cost, 1) for step, cost in found.items()})
    if len(sys.argv) > 1:
        draw(found, Path(sys.argv[1]))


if __name__ == "__main__":
    main()

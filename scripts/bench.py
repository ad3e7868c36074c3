"""What does Guard cost? Latency, calls a second and CPU time, beside a direct connection and other proxies.

    python scripts/bench.py [--quick] [--only stdio|http] [--publish]

All variants run at the same time and are measured in turns, so that a busy machine is slow for all of
them. Ratios are taken inside each repetition; what is shown is their median. Every answer is checked, and
a wrong one fails the run. Writes build/figures/bench.json and a picture. docs/performance.md says how to
read it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import figures
from bench_parts import comparison, machine, plot, ratios, variants
from bench_parts.load import Link
from bench_parts.messages import ERAS, WrongAnswer
from bench_parts.ratios import Cell
from bench_parts.variants import Bench

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "build" / "bench"
PICTURE: Final = ROOT / "docs" / "pictures" / "performance.png"
CONVERSATIONS: Final = (1, 16, 64)
SETTLES: Final = 0.06
"""Seconds after the last answer in which the middle may still write down what it owes."""
WARM: Final = 256


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    repetitions: int
    calls: int
    eras: tuple[str, ...]


async def measured(link: Link, conversations: int, calls: int) -> tuple[list[float], float, float | None]:
    """Latencies, seconds in all, and CPU seconds of the middle. Raises as Round.run."""
    await link.round(conversations, conversations)  # what others let go cold is not measured
    pids = machine.tree(link.pid) if link.pid else []
    await asyncio.sleep(SETTLES)
    before = machine.cpu_seconds(pids)
    gc.collect()
    gc.disable()
    try:
        done = await link.round(conversations, calls)
    finally:
        gc.enable()
    await asyncio.sleep(SETTLES)
    return done.seconds, done.wall, machine.cpu_seconds(pids) - before if pids else None


async def turns(links: Mapping[str, Link], transport: str, era: str, plan: Plan) -> list[Cell]:
    """Every variant in turns, as often as planned. Nobody is always first."""
    cells, order = [], [*links]
    for repetition in range(plan.repetitions):
        for conversations in CONVERSATIONS:
            calls = plan.calls if conversations > 1 else max(1, plan.calls // 3)
            for name in order:
                try:
                    seconds, wall, cpu = await measured(links[name], conversations, calls)
                except (WrongAnswer, OSError, TimeoutError) as error:
                    raise RuntimeError(f"{name}, {transport}, {era} era: {error!r}") from error
                place = transport, era, name, conversations, repetition
                cells.append(Cell(*place, seconds=seconds, wall=wall, cpu=cpu))
        order.append(order.pop(0))
        print(f"  {transport}, {era}: {repetition + 1} of {plan.repetitions}", file=sys.stderr, flush=True)
    return cells


async def over(transport: str, bench: Bench, names: list[str], plan: Plan) -> list[Cell]:
    """Every variant over one transport, in each era.

    Raises:
        RuntimeError: one of ours does not work. A foreign gateway that does not is left out.
    """
    cells: list[Cell] = []
    for era in plan.eras:
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(variants.tool_server(bench)) if transport == "http" else 0
            links = {}
            for name in names:
                start = variants.http(bench, name, era, port) if port else variants.stdio(bench, name, era)
                try:
                    links[name] = await stack.enter_async_context(start)
                    for conversations in CONVERSATIONS:
                        await links[name].round(conversations, min(WARM, plan.calls))
                except (WrongAnswer, OSError, TimeoutError) as error:
                    if name not in bench.others:
                        raise RuntimeError(f"{name}, {transport}, {era} era: {error!r}") from error
                    links.pop(name, None)
                    print(f"{transport}, {era} era: {name} is left out: {str(error)[:200] or repr(error)}")
            cells += await turns(links, transport, era, plan)
    return cells


def verified(bench: Bench) -> int:
    """How many entries the measured Guards wrote. Raises RuntimeError if one of them does not stand."""
    entries = 0
    for guard in bench.guards:
        report = guard.verify()
        if not report["sound"] or report["open"]:
            raise RuntimeError(f"the lineage in {guard.folder} does not stand: {str(report)[:400]}")
        entries += report["entries"]
    return entries


def named(pairs: list[str]) -> dict[str, str]:
    """Reads NAME=REST, each. Raises SystemExit."""
    for pair in pairs:
        if "=" not in pair or not pair.partition("=")[0]:
            sys.exit(f"bench: {pair!r} is not NAME=...")
    return {name: rest for name, _, rest in (pair.partition("=") for pair in pairs)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""further gateways, measured beside the others:
  --also 'NAME=COMMAND ARGS... {server}'
      on stdio. The word {server} becomes the words that start the tool server.
  --also-http 'NAME=URL COMMAND ARGS...'
      over HTTP. {port} is a free port and {upstream} the tool server's URL, in URL and in COMMAND; {server}
      is as above, for one that bridges. Without COMMAND it runs already, and its CPU time is not known.
  Where the tool is not called `echo` behind it, NAME ends in @ and what it is called. A gateway that does
  not work in an era is left out of it.""",
    )
    parser.add_argument("--quick", action="store_true", help="few calls, three repetitions: does it work?")
    parser.add_argument("--repetitions", type=int, default=None, help="default 7")
    parser.add_argument("--calls", type=int, default=None, help="for each figure; a third of it alone (1000)")
    parser.add_argument("--only", choices=("stdio", "http"))
    parser.add_argument("--variants", help="names, separated by commas; direct is always measured")
    parser.add_argument("--eras", default=",".join(ERAS), help="default: %(default)s")
    parser.add_argument("--workers", default="", help="over HTTP also `guard serve --workers N`: 1,2")
    parser.add_argument("--middle-cores", help="of what is measured, such as 0,1 (default: the lower half)")
    parser.add_argument("--load-cores", help="of load and tool server (default: the upper half)")
    parser.add_argument(
        "--sdk-server", action="store_true", help="the tool server is the SDK's, not a raw one"
    )
    parser.add_argument("--publish", action="store_true", help=f"draw {PICTURE.relative_to(ROOT)}")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--also-http", action="append", default=[], metavar="NAME=URL")
    return parser.parse_args()


def chosen(bench: Bench, transport: str, options: argparse.Namespace) -> list[str]:
    """The variants to measure over a transport; says which are left out and why."""
    workers = [int(count) for count in options.workers.split(",") if count]
    names = variants.default_variants(transport, bench, workers)
    if options.variants:
        wanted = {ratios.DIRECT, *options.variants.split(",")}
        names = [name for name in names if name in wanted]
    for name, why in variants.missing(names).items():
        print(f"{transport}: {name} is left out: {why}")
        names.remove(name)
    return names


def plan_of(options: argparse.Namespace) -> Plan:
    eras = tuple(options.eras.split(","))
    if unknown := {*eras} - {*ERAS}:
        sys.exit(f"bench: no such era: {', '.join(unknown)}")
    repetitions = options.repetitions or (3 if options.quick else 7)
    return Plan(repetitions, options.calls or (64 if options.quick else 1000), eras)


def main() -> int:
    options = arguments()
    plan = plan_of(options)
    middle, load = machine.halves()
    middle = machine.cores_of(options.middle_cores) if options.middle_cores else middle
    load = machine.cores_of(options.load_cores) if options.load_cores else load
    os.sched_setaffinity(0, load)
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=FOLDER))  # kept where the run fails
    forward, said = comparison.prepare()
    bench = Bench(
        folder,
        middle,
        load,
        forward,
        sdk=options.sdk_server,
        also=named(options.also),
        also_http=named(options.also_http),
    )
    about = machine.described(middle, load) | {
        "compared_with": said,
        "tool_server": "the SDK's" if options.sdk_server else "raw",
        "measured": f"{plan.repetitions} repetitions of {plan.calls} calls ({plan.calls // 3} alone)",
    }
    for name, value in about.items():
        print(f"{name.replace('_', ' '):<14} {value}")
    began, table = time.monotonic(), []
    for transport in ("stdio", "http"):
        if options.only in {None, transport}:
            names = chosen(bench, transport, options)
            own = ratios.rows(asyncio.run(over(transport, bench, names, plan)))
            print(ratios.shown(own, transport), flush=True)
            table += own
    print(f"\nEvery answer was right. The lineage stands, {verified(bench)} entries.", end=" ")
    print(f"{time.monotonic() - began:.0f} s in all.\nfm: fastmcp. added: p50 beyond the direct one's.")
    publish(table, about, options)
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def publish(table: list[dict[str, Any]], about: dict[str, str], options: argparse.Namespace) -> None:
    """Write the figures and the picture, and print the headline."""
    heads = {transport: ratios.headline(table, transport) for transport in ("stdio", "http")}
    written = figures.write("bench", {**heads, "machine": about, "rows": table})
    for transport, head in heads.items():
        if head:
            print(f"{transport}: " + ", ".join(f"{key} {value:.3g}" for key, value in head.items() if value))
    picture = PICTURE if options.publish else ROOT / "build" / "figures" / "bench.png"
    title = f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, {about['compared_with']}"
    title += f"\nmedians of {about['measured']}, load {about['load_before']} before"
    try:
        plot.draw(table, title, picture)
    except ImportError:
        print("no picture: matplotlib is not installed (make bench installs it)")
    else:
        print(f"{written}\n{picture}")


if __name__ == "__main__":
    sys.exit(main())

"""What an honest agent does: the airline tasks of tau-bench through Guard, under one sensible policy.

Each task's calls are replayed through the wire (a client, `guard serve` with its store, a tool server that
answers as recorded). None of them may be refused, and nobody may be asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import figures
from agentdojo_parts.offline import Offline
from agentdojo_parts.plays import honest
from agentdojo_parts.replay import Replay, front
from agentdojo_parts.suites import ROOT, Suite, load

SHARED: Final = ROOT.parent / "shared" / "data" / "tau-bench"
POLICY: Final = ROOT / "examples" / "tau_bench" / "airline.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(os.environ.get("GUARD_TAU_BENCH", SHARED))
    )
    parser.add_argument("--offline", action="store_true", help="the engine alone: quick, writes no figures")
    options = parser.parse_args()
    if not (options.folder / "airline_test.jsonl").is_file():
        parser.error(f"no airline_test.jsonl in {options.folder}: name its folder, or set GUARD_TAU_BENCH")
    with tempfile.TemporaryDirectory(prefix="tau-bench-") as made:
        suite = as_suite(options.folder, Path(made))
        if options.offline:
            engine = Offline(suite)
            outcomes = [engine.play(play) for play in honest(suite)]
        else:
            (Path(made) / "guard").mkdir()
            guard = front(Path(made) / "guard", suite, 4)
            with guard.serving():
                outcomes = asyncio.run(Replay(suite, guard).outcomes(list(honest(suite))))
    verdicts = [(one.play.task, verdict) for one in outcomes for verdict in one.verdicts]
    wrong = [(task, verdict) for task, verdict in verdicts if not verdict.done]
    for task, verdict in wrong:
        print(f"  {task}: {verdict.tool}: {verdict.why}")
    told = {
        "tasks": len(outcomes),
        "calls": sum(len(task.calls) for task in suite.users.values()),
        "permitted": sum(verdict.done for _, verdict in verdicts),
        "asked": sum(verdict.asked for _, verdict in verdicts),
        "refused": sum(not verdict.done and not verdict.asked for _, verdict in verdicts),
        "tasks_done": sum(one.done for one in outcomes),
    }
    print(", ".join(f"{name} {figure}" for name, figure in told.items()))
    if not options.offline:
        print(figures.write("tau-bench", dict(told)))
    if wrong or told["permitted"] != told["calls"]:
        raise SystemExit("an honest call was not permitted")


def as_suite(folder: Path, made: Path) -> Suite:
    """The tasks as a suite without attacks, written into a folder."""
    lines = (folder / "airline_test.jsonl").read_text().splitlines()
    tasks = [json.loads(line) for line in lines if line.strip()]
    document: dict[str, Any] = {
        "suite": "airline",
        "tools": [
            {"name": one["name"], "description": one["description"], "inputSchema": one["parameters"]}
            for one in json.loads((folder / "tools_airline.json").read_text())
        ],
        "user_tasks": [
            {
                "id": task["id"],
                "prompt": task["instruction"],
                "calls": [_call(call) for call in task["calls"]],
            }
            for task in tasks
        ],
        "injection_tasks": [],
        "injection_vectors": [],
    }
    for path in (POLICY, POLICY.with_name(f"{POLICY.stem}.cases.yaml")):
        if path.is_file():
            (made / path.name).write_bytes(path.read_bytes())
    (made / "airline.json").write_text(json.dumps(document))
    return load(made / "airline.json")


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """A call with its result; what the airline's tools say as JSON is structured content, too."""
    try:
        return {**call, "result_json": json.loads(call["result"])}
    except ValueError:
        return call


if __name__ == "__main__":
    main()

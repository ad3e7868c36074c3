"""AgentDojo through Guard, without a model: what does one static policy a suite permit, ask about, and stop?

Every user task is replayed through the wire (a client, `guard serve` with its store, a tool server that
answers as recorded): is each of its calls permitted? Then every user task with every injection task, in the
worst case: the agent obeys at once whatever a result tells it. docs/agentdojo.md says what is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import figures
from agentdojo_parts.attacks import SETTINGS
from agentdojo_parts.clients import SDK
from agentdojo_parts.offline import Offline
from agentdojo_parts.plays import Play, attacked, honest
from agentdojo_parts.replay import Replay, front
from agentdojo_parts.suites import EXAMPLES, ROOT, Suite, found, load
from agentdojo_parts.verdicts import Outcome, lacks, success, utility

SHARED = ROOT.parent / "shared" / "data" / "agentdojo"
Player = Callable[[Sequence[Play], str], list[Outcome]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        help="folders of suites; default: GUARD_AGENTDOJO, else the shared data, and the examples",
    )
    parser.add_argument("--suite", action="append", default=[], help="only this one; may be given again")
    parser.add_argument("--offline", action="store_true", help="the engine alone: quick, writes no figures")
    parser.add_argument("--agents", type=int, default=8, help="how many principals play at a time")
    parser.add_argument("--show", type=int, default=8, help="how many of what went wrong are shown")
    options = parser.parse_args()
    told: dict[str, dict[str, float]] = {}
    weights: dict[str, tuple[int, int]] = {}
    for suite in suites(options.folders):
        if not options.suite or suite.name in options.suite:
            told[suite.name] = measured(suite, options)
            weights[suite.name] = (len(suite.users), len(suite.users) * len(suite.injections))
    if not told:
        parser.error("no suite there")
    shown(told, weights)
    if not options.offline:
        print(f"\n{figures.write('agentdojo', dict(told))}")


def suites(folders: Sequence[Path]) -> list[Suite]:
    """The suites of these folders; of two of the same name the first."""
    if not folders:
        data = os.environ.get("GUARD_AGENTDOJO")
        folders = [Path(data)] if data else [one for one in (SHARED, EXAMPLES) if one.is_dir()]
    by_name: dict[str, Suite] = {}
    for folder in folders:
        for path in found(folder):
            suite = load(path)
            lacking = lacks(suite.policy)
            if lacking:
                print(f"{path}: {lacking}, so it is left out", file=sys.stderr)
                continue
            by_name.setdefault(suite.name, suite)
    return list(by_name.values())


def measured(suite: Suite, options: argparse.Namespace) -> dict[str, float]:
    """The figures of one suite."""
    print(f"\n{suite.name}: {len(suite.tools)} tools, {len(suite.users)} user tasks, "
          f"{len(suite.injections)} injection tasks, policy {suite.policy}")  # fmt: skip
    if suite.left_out:
        print(f"  left out, as nobody wrote down their calls: {', '.join(suite.left_out)}")
    with ExitStack() as stack:
        if options.offline:
            engine = Offline(suite)
            return _figures(suite, lambda plays, _: [engine.play(play) for play in plays], options, ())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentdojo-")))
        guard = front(folder, suite, options.agents)
        with guard.serving():
            replay = Replay(suite, guard)
            told = _figures(
                suite, lambda plays, kind: asyncio.run(replay.outcomes(plays, kind)), options, tuple(SDK)
            )
        report = guard.verify()
        print(f"  the record stands: {report['sound']}")
        if not report["sound"] or report["open"]:
            raise SystemExit(f"the record does not stand: {report}")
        return told


def _figures(
    suite: Suite, player: Player, options: argparse.Namespace, kinds: Sequence[str]
) -> dict[str, float]:
    began = time.monotonic()
    plays = list(honest(suite))
    outcomes = player(plays, "raw")
    told = utility(outcomes)
    for one in outcomes:
        for verdict in one.verdicts:
            if not verdict.done:
                print(f"  {one.play.id}: {verdict.tool}: {verdict.why}")
    for kind in kinds:  # the same through the SDK must come to the same
        again = player(plays, kind)
        same = [one.verdicts for one in again] == [one.verdicts for one in outcomes]
        print(f"  {kind}: {len(again)} user tasks, {'the same' if same else 'OTHERWISE'}")
        if not same:
            raise SystemExit(f"through {kind} it went otherwise: {again}")
    print(f"  {len(plays)} conversations of users: {time.monotonic() - began:.0f} s")
    for setting in SETTINGS:
        attempts = list(attacked(suite, setting))
        ended = player(attempts, "raw")
        told[f"attack_success_{setting}"] = success(ended)
        _tell(setting, ended, options.show)
    print(f"  in all {time.monotonic() - began:.0f} s")
    return told


def _tell(setting: str, outcomes: Sequence[Outcome], show: int) -> None:
    """Who stopped the attacks, and which got through."""
    stopped = Counter(one.verdicts[-1].why for one in outcomes if one.verdicts and not one.attacked)
    through = [one.play.id for one in outcomes if one.attacked]
    print(f"  {setting}: {len(outcomes)} conversations, {len(through)} attacks got through")
    for why, many in stopped.most_common(show):
        print(f"    {many:6} {why}")
    for play in through[:show]:
        print(f"    through: {play}")


def shown(told: dict[str, dict[str, float]], weights: dict[str, tuple[int, int]]) -> None:
    """The table; the last line is over all suites, each task and each pair counted once.

    Args:
        told: the figures by suite.
        weights: how many user tasks a suite has, and how many pairs with an injection task.
    """
    names = list(next(iter(told.values())))
    if len(told) > 1:
        pooled = {}
        for name in names:
            kind = int(name.startswith("attack_"))
            whole = sum(weights[suite][kind] for suite in told)
            part = sum(its[name] * weights[suite][kind] for suite, its in told.items())
            pooled[name] = part / whole if whole else 0.0
        told = {**told, "all": pooled}
    print(f"\n{'':12}" + "".join(f"{name.replace('attack_success_', 'attack '):>18}" for name in names))
    for suite, its in told.items():
        parts = (f"{its[name]:18.3f}" if name == "asks_per_task" else f"{its[name]:18.1%}" for name in names)
        print(f"{suite:12}{''.join(parts)}")


if __name__ == "__main__":
    main()

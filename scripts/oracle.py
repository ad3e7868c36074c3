"""Two engines that were written apart judge the same policies and calls, and must agree.

    python scripts/oracle.py [--pairs 200000] [--seed N] [--processes N]

One is guard/policy, the other tests/oracle.py, which reads docs/policy.md line by line. Prints how often
they agreed on what, writes build/figures/oracle.json, and on a disagreement a minimal case; exit 1 then.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import figures

from guard.core.model import Allow, Ask, Call, Decision
from guard.policy.decide import decide
from guard.policy.document import load
from guard.policy.layers import layered
from tests import oracle, oracle_compare

sys.path.append(str(Path(__file__).parent.parent / "tests" / "oracle"))
import strategies

CALLS = 5  # for each policy
Case = tuple[Call, list[dict[str, Any]], Decision, Decision]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()

    answers: Counter[str] = Counter()
    found: list[list[int]] = []
    shares = [
        (options.seed + 1_000 * n, -(-options.pairs // options.processes)) for n in range(options.processes)
    ]
    with ProcessPoolExecutor(options.processes) as pool:
        for counted, disagreeing in pool.map(compare, *zip(*shares, strict=True)):
            answers.update(counted)
            found += disagreeing

    for answer, count in answers.most_common():
        print(f"{count:8}  {answer}")
    print(f"{answers.total():8}  pairs with seed {options.seed}, {len(found)} disagreements", flush=True)
    figures.write("oracle", {"pairs": answers.total(), "disagreements": len(found)})
    if found:
        show(reduce(min(found, key=len)))
    return 1 if found else 0


def compare(seed: int, pairs: int) -> tuple[Counter[str], list[list[int]]]:
    """How often the engines gave which answer, and the choices that led to each disagreement."""
    chance = random.Random(seed)  # noqa: S311  not a secret
    answers: Counter[str] = Counter()
    found: list[list[int]] = []
    while answers.total() < pairs:
        choices: list[int] = []
        judged = list(judge(recording(chance, choices), min(CALLS, pairs - answers.total())))
        answers.update(describe(expected) for *_, expected in judged)
        found += [choices for case in judged if oracle_compare.differ(*case)]
    return answers, found


def judge(below: Callable[[int], int], calls: int) -> Iterator[Case]:
    """Policies and calls near them, each with the engine's answer and the oracle's."""
    documents, drawn = strategies.case(below, calls)
    policy = layered([load(json.dumps(one).encode(), name="oracle.json") for one in documents])
    for call in drawn:
        yield call, documents, decide(call, policy), oracle.decide(call, *documents)


def describe(decision: Decision) -> str:
    if isinstance(decision, Allow):
        return " ".join(("allow", decision.mode, *("approved" for _ in decision.approved[:1])))
    if isinstance(decision, Ask):
        return f"ask {decision.approver}"
    return f"deny {decision.reason}"


def recording(chance: random.Random, choices: list[int]) -> Callable[[int], int]:
    def below(n: int) -> int:
        choices.append(chance.randrange(n))
        return choices[-1]

    return below


def reduce(choices: list[int]) -> Case:
    """The plainest disagreement that is reached by lowering a choice and dropping some after it."""
    case = disagreement(choices)
    if case is None:
        raise RuntimeError("the same choices gave another case; a decision must depend on nothing else")
    while plainer := next(plainer_ones(choices), None):
        choices, case = plainer
    return case


def plainer_ones(choices: list[int]) -> Iterator[tuple[list[int], Case]]:
    for at, choice in enumerate(choices):
        for instead in ([], *([lower] for lower in sorted({0, choice // 2, choice - 1} - {choice, -1}))):
            for dropped in (32, 16, 8, 6, 5, 4, 3, 2, 1, 0):
                plainer = [*choices[:at], *instead, *choices[at + 1 + dropped :]]
                if case := disagreement(plainer):
                    yield plainer, case


def disagreement(choices: list[int]) -> Case | None:
    """The first disagreement that these choices give; where they end, the plainest are taken."""
    left = iter(choices)
    judged = judge(lambda n: min(next(left, 0), n - 1), CALLS)
    return next((case for case in judged if oracle_compare.differ(*case)), None)


def show(case: Case) -> None:
    call, documents, ours, theirs = case
    print(json.dumps(documents, indent=1))
    for what in (call.principal, call.tool, call.params, call.facts, call.fault, call.intents, call.parent):
        print(what)
    print(f"guard/policy: {ours}\ntests/oracle: {theirs}")


if __name__ == "__main__":
    sys.exit(main())

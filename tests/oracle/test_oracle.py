"""The engine against a second one that was written from docs/policy.md alone (tests/oracle.py)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import strategies
from hypothesis import HealthCheck, given, seed, settings

from guard.core.errors import Reason
from guard.core.model import Allow, Call
from guard.policy.decide import decide
from guard.policy.document import load
from tests import oracle

SHARDS = 5
DRAWN, SEEDED = 100, 300  # policies, for each shard
CALLS = 5  # for each policy: 10,000 pairs in all

# Every reason that a decision can give.
REASONS = {
    *(Reason.PRINCIPAL_CONTAINED, Reason.CONVERSATION_CONTAINED, Reason.TOOL_CONTAINED),
    *(Reason.STORE_UNAVAILABLE, Reason.ARTIFACT_KEY_UNAVAILABLE, Reason.CLOCK_BEHIND),
    *(Reason.POLICY_SUPERSEDED, Reason.POLICY_EXPIRED, Reason.UNAUTHORIZED_ROLE),
    *(Reason.DEFAULT_DENY, Reason.TOOL_NOT_VISIBLE, Reason.UNKNOWN_TOOL),
    *(Reason.TOOL_UNPINNED, Reason.TOOL_CHANGED, Reason.ARGUMENTS_NOT_IJSON),
    *(Reason.PROTECTED, Reason.MISSING_SCOPE, Reason.INTENT_UNMATCHED, Reason.RULE_FAILED),
    *(Reason.LIMIT_REACHED, Reason.CONVERSATION_SEALED),
}

Judge = Callable[[dict[str, Any], list[Call]], None]


def drawn(judge: Judge, shard: int) -> None:
    """Cases from Hypothesis, which reduces a disagreement. They are the same each time."""

    @seed(shard)
    @settings(
        max_examples=DRAWN,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(strategies.cases(CALLS))
    def run(case: tuple[dict[str, Any], list[Call]]) -> None:
        judge(*case)

    run()


def seeded(judge: Judge, shard: int) -> None:
    """Cases from a plain generator, which repeats itself less. scripts/oracle.py goes on from here."""
    chance = Random(shard)  # noqa: S311  not a secret
    for _ in range(SEEDED):
        judge(*strategies.case(chance.randrange, CALLS))


@pytest.mark.parametrize("source", [drawn, seeded])
@pytest.mark.parametrize("shard", range(SHARDS))
def test_two_engines_agree_on_every_decision(source: Callable[[Judge, int], None], shard: int) -> None:
    """The engine and the oracle give the same decision on the same policy and call."""

    def judge(document: dict[str, Any], calls: list[Call]) -> None:
        policy = load(json.dumps(document).encode(), name="oracle.json")
        allowed: list[tuple[Allow, Allow]] = []
        for call in calls:
            ours, theirs = decide(call, policy), oracle.decide(call, document)
            assert not oracle.differ(call, document, ours, theirs), (ours, theirs, call, document)
            if isinstance(ours, Allow) and isinstance(theirs, Allow):
                allowed.append((ours, theirs))
        assert oracle.same_counters([a for a, _ in allowed], [b for _, b in allowed]), (calls, document)

    source(judge, shard)


@pytest.mark.parametrize("source", [drawn, seeded])
def test_what_is_compared_covers_every_answer(source: Callable[[Judge, int], None]) -> None:
    """A fifth of what the engines compare is allowed; each mode, obligation and reason occurs, and limits."""
    answers: Counter[object] = Counter()
    limited = 0

    def judge(document: dict[str, Any], calls: list[Call]) -> None:
        nonlocal limited
        for call in calls:
            match oracle.decide(call, document):
                case Allow(mode=mode, obligations=obligations, reservations=reservations):
                    answers[mode, *obligations] += 1
                    limited += bool(reservations)
                case denial:
                    answers[denial.reason] += 1

    for shard in range(SHARDS):
        source(judge, shard)

    allowed = {("enforce",), ("observe",), ("observe", "observed")}
    assert answers.keys() == allowed | REASONS
    assert sum(answers[answer] for answer in allowed) >= 0.2 * answers.total()
    assert limited >= 0.02 * answers.total()
    assert answers.total() >= SHARDS * DRAWN * CALLS

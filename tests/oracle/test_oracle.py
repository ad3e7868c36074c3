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
from guard.core.model import Allow, Ask, Call
from guard.policy.decide import decide
from guard.policy.document import load
from guard.policy.layers import layered
from tests import oracle, oracle_compare

SHARDS = 5
DRAWN, SEEDED = 100, 300  # policies, for each shard
CALLS = 5  # for each policy: 10,000 pairs in all

FEW = 10  # of each kind of rule that had a say in what is permitted

# Every reason that a decision can give.
REASONS = {
    *(Reason.PRINCIPAL_CONTAINED, Reason.CONVERSATION_CONTAINED, Reason.TOOL_CONTAINED),
    *(Reason.STORE_UNAVAILABLE, Reason.ARTIFACT_KEY_UNAVAILABLE, Reason.CLOCK_BEHIND),
    *(Reason.POLICY_SUPERSEDED, Reason.POLICY_EXPIRED, Reason.UNAUTHORIZED_ROLE),
    *(Reason.DEFAULT_DENY, Reason.TOOL_NOT_VISIBLE, Reason.UNKNOWN_TOOL),
    *(Reason.TOOL_UNPINNED, Reason.TOOL_CHANGED, Reason.ARGUMENTS_NOT_IJSON),
    *(Reason.PROTECTED, Reason.MISSING_SCOPE, Reason.INTENT_UNMATCHED, Reason.RULE_FAILED),
    *(Reason.LIMIT_REACHED, Reason.CONVERSATION_SEALED, Reason.AMOUNT_UNREADABLE),
    *(Reason.OUTSIDE_HOURS, Reason.OUTSIDE_INTENT, Reason.REQUIRED_FIRST, Reason.FORBIDDEN_AFTER),
    Reason.ORIGIN_REFUSED,
}

Judge = Callable[[list[dict[str, Any]], list[Call]], None]


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
    def run(case: strategies.Case) -> None:
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

    def judge(documents: list[dict[str, Any]], calls: list[Call]) -> None:
        policy = layered([load(json.dumps(one).encode(), name="oracle.json") for one in documents])
        allowed: list[tuple[Allow, Allow]] = []
        for call in calls:
            ours, theirs = decide(call, policy), oracle.decide(call, *documents)
            assert not oracle_compare.differ(call, documents, ours, theirs), (ours, theirs, call, documents)
            if isinstance(ours, Allow) and isinstance(theirs, Allow):
                allowed.append((ours, theirs))
        assert oracle_compare.same_counters([a for a, _ in allowed], [b for _, b in allowed]), (
            calls,
            documents,
        )

    source(judge, shard)


@pytest.mark.parametrize("source", [drawn, seeded])
def test_what_is_compared_covers_every_answer(source: Callable[[Judge, int], None]) -> None:
    """A fifth of what is compared is permitted or asked; every answer occurs, and every kind of rule."""
    answers: Counter[object] = Counter()
    among: Counter[str] = Counter()

    def judge(documents: list[dict[str, Any]], calls: list[Call]) -> None:
        for call in calls:
            among["in layers"] += len(documents) > 1
            match oracle.decide(call, *documents):
                case Allow() as allow:
                    answers[allow.mode, "observed" in allow.obligations] += 1
                    among["counted"] += any(one.amount and not one.held for one in allow.reservations)
                    among["held"] += any(one.held for one in allow.reservations)
                    among["noted"] += bool(allow.marks)
                    among["approved"] += bool(allow.approved)
                    among["declared"] += bool(call.intents)
                    among["bounded"] += any(one.startswith("result-bytes:") for one in allow.obligations)
                case Ask() as ask:
                    answers[ask.approver] += 1
                    among["several ask"] += len(ask.rules) > 1
                    among["about an argument"] += bool(ask.pointers)
                case denial:
                    answers[denial.reason] += 1

    for shard in range(SHARDS):
        source(judge, shard)

    allowed = {("enforce", False), ("observe", False), ("observe", True), "reviewer", "client"}
    assert answers.keys() == allowed | REASONS if source is seeded else answers.keys() <= allowed | REASONS
    assert sum(answers[answer] for answer in allowed) >= 0.2 * answers.total()
    assert among["in layers"] >= 0.25 * answers.total()
    assert source is drawn or min(among.values()) >= FEW, among
    assert answers.total() >= SHARDS * DRAWN * CALLS

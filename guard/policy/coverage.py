"""Which rules of a policy its cases show."""

from __future__ import annotations

from collections.abc import Iterable

from guard.core.model import Allow, Ask
from guard.policy.cases import CaseResult
from guard.policy.rules import Policy


def rules(policy: Policy) -> tuple[str, ...]:
    """The ids of every rule that a case can show, sorted."""
    kinds = (
        policy.tools,
        policy.intents,
        policy.protected,
        policy.limits,
        policy.ceilings,
        policy.hours,
        policy.sequences,
        policy.origins,
        policy.asks,
    )
    return tuple(sorted({rule.id for kind in kinds for rule in kind}))


def shown(policy: Policy, results: Iterable[CaseResult]) -> frozenset[str]:
    """The rules that the cases show, of those that passed.

    A rule that permits is shown by a call that it permits; any other by one that it denies, or asks a person
    about. What bounds a result is shown by a call that is permitted on that term.
    """
    found: set[str] = set()
    for result in results:
        if not result.passed:
            continue
        decision = result.decision
        if isinstance(decision, Allow):
            found.update(decision.rules)
            tool = result.case.call.tool
            about = policy.about(tool.server, tool.name, tool.kind)
            found.update(one.id for one in about.ceilings if one.result_bytes is not None)
        elif isinstance(decision, Ask):
            found.update(decision.rules)
        else:
            found.add(decision.rule)
    return frozenset(found)


def missing(policy: Policy, results: Iterable[CaseResult]) -> tuple[str, ...]:
    """The rules that no case shows, sorted."""
    done = shown(policy, results)
    return tuple(rule for rule in rules(policy) if rule not in done)

"""Policies above one another: each layer must permit, so a lower one can only narrow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from guard.core.model import Allow, Ask, Decision, Deny
from guard.policy.rules import Policy, Remembering


def together(decisions: Iterable[Decision]) -> Decision:
    """What layers say together: the first denial, else every question, else all that was permitted.

    Raises:
        TypeError: something that is no decision; nothing was decided.
    """
    said = list[Decision]()
    for decision in decisions:
        if isinstance(decision, Deny):
            return decision
        said.append(decision)
    if len(said) == 1:
        return said[0]
    asked = [one for one in said if isinstance(one, Ask)]
    if asked:
        return Ask(
            # One approval answers all: the newest is the one that stands.
            _union(one.rules if isinstance(one, Ask) else getattr(one, "approved", ()) for one in said),
            "client" if all(one.approver == "client" for one in asked) else "reviewer",
            min(one.window for one in asked),
            _union(one.pointers for one in asked),
        )
    allowed = [one for one in said if isinstance(one, Allow)]
    if len(allowed) != len(said) or not allowed:
        raise TypeError("not a decision")
    return Allow(
        rules=_union(one.rules for one in allowed),
        scopes=_union(one.scopes for one in allowed),
        obligations=_union(one.obligations for one in allowed),
        mode="observe" if any(one.mode == "observe" for one in allowed) else "enforce",
        reservations=tuple(chain.from_iterable(one.reservations for one in allowed)),
        marks=tuple(sorted({mark for one in allowed for mark in one.marks}, key=lambda mark: mark.counter)),
        approved=_union(one.approved for one in allowed),
        rests_on_seen=any(one.rests_on_seen for one in allowed),
    )


def _union(parts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted(set(chain.from_iterable(parts))))


def layered(policies: Sequence[Policy]) -> Policy:
    """Policies as one, the highest first.

    Ids of rules above the last one begin with the id of their policy and a slash, so that each names one
    rule. What is counted is counted for each policy.

    Returns: the last policy, under the others; the very policy where there is only one.

    Raises:
        ValueError: there is none, or two have the same id.
    """
    if not policies:
        raise ValueError("a policy is needed")
    *above, lowest = policies
    if not above:
        return lowest
    ids = [policy.ref.id for policy in policies]
    if len(set(ids)) != len(ids):
        raise ValueError("two layers have the same id")
    every = [*map(_renamed, above), lowest]
    intents = frozenset(rule.id for policy in every for rule in policy.intents)
    *higher, last = (
        replace(policy, others=intents - {rule.id for rule in policy.intents}) for policy in every
    )
    ref = replace(lowest.ref, layers=tuple(policy.ref for policy in above))
    return replace(last, ref=ref, above=tuple(higher), remembering=_remembering(every))


def _remembering(policies: Sequence[Policy]) -> Remembering:
    """What is remembered for all layers: as long and as much as one of them wants."""
    terms = [policy.remembering for policy in policies if policy.origins]
    if not terms:
        return Remembering()
    return Remembering(
        max(one.window for one in terms),
        max(one.values for one in terms),
        all(one.user_overrides for one in terms),
    )


def _renamed(policy: Policy) -> Policy:
    name: Callable[[Any], Any] = lambda rule: replace(rule, id=f"{policy.ref.id}/{rule.id}")  # noqa: E731
    kinds = (
        "tools",
        "intents",
        "protected",
        "limits",
        "ceilings",
        "hours",
        "sequences",
        "sources",
        "origins",
        "asks",
    )
    renamed: dict[str, Any] = {kind: tuple(map(name, getattr(policy, kind))) for kind in kinds}
    return replace(policy, **renamed)

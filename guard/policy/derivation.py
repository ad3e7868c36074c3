"""What each kind of rule found of a call, in words for the person who writes the policy."""

from __future__ import annotations

from collections.abc import Iterator

from guard.core.model import Call
from guard.policy.counting import Ceiling, Limit, Sequence
from guard.policy.judging import Judging
from guard.policy.rules import Matching

Found = tuple[str, str, str]
"""The kind of a rule, its id, and what it found."""


def counted(call: Call, about: Matching) -> Iterator[Found]:
    """Every rule that counts, with how much of it was used."""
    for sequence in about.sequences:
        yield "sequence", sequence.id, because(_sequence(call, sequence), sequence.because)
    for ceiling in about.ceilings:
        yield "limit", ceiling.id, because(_ceiling(call, ceiling), ceiling.because)
    for limit in about.limits:
        yield "limit", limit.id, because(_limit(call, limit), limit.because)


def origins(judging: Judging) -> Iterator[Found]:
    """Every rule on origins, with where each value comes from."""
    for rule, every in judging.judged():
        for pointer, found in sorted(every.items()):
            kinds = ", ".join(sorted(found.kinds)) or "nowhere"
            accepted = "accepted" if found.accepted_by(rule.accept) else "not accepted"
            words = f"{pointer or 'the whole'} comes from {kinds} ({found.trust}); {accepted}"
            yield "origin", rule.id, because(words, rule.because)


def asks(judging: Judging) -> Iterator[Found]:
    """Every rule that asks a person, and whether one has answered."""
    answered = judging.approved()
    for rule in judging.asking():
        found = "approved" if rule.id in answered else f"asks a person ({rule.approver})"
        yield "ask", rule.id, because(found, rule.because)


def _limit(call: Call, limit: Limit) -> str:
    used = call.facts.used.get(limit.id, "an unknown amount")
    per = " and ".join(sorted(limit.per))
    if limit.held:
        return f"{limit.most} at once per {per}, {used} under way"
    seconds = limit.window // 1000
    if limit.budget is None:
        return f"{limit.most} calls in {seconds} seconds per {per}, {used} used"
    unit = f" {limit.budget.unit}" if limit.budget.unit else ""
    scale = 10**limit.budget.digits
    spent = f"{used / scale:.{limit.budget.digits}f}" if isinstance(used, int) else used
    return (
        f"{limit.most // scale}{unit} of {limit.budget.of} in {seconds} seconds per {per}, {spent}{unit} used"
    )


def _ceiling(call: Call, ceiling: Ceiling) -> str:
    if ceiling.depth is not None:
        return f"at most {ceiling.depth} calls may lead to it, {call.depth} did"
    return f"a result of more than {ceiling.result_bytes} bytes is not shown"


def _sequence(call: Call, sequence: Sequence) -> str:
    seconds = sequence.window // 1000
    names = ", ".join(pattern.match for pattern in sequence.others)
    before = call.facts.used.get(sequence.id, "an unknown number")
    spent = call.facts.used.get(f"{sequence.id}/spent", "an unknown number")
    if sequence.requires:
        words = f"requires that {names} returned in the last {seconds} seconds; {before} did"
        return f"{words}, each good for {sequence.calls} calls, {spent} made" if sequence.calls else words
    words = f"for {seconds} seconds after {names}; {before} were granted"
    return f"{words}, {sequence.calls} calls may follow, {spent} did" if sequence.calls else words


def because(words: str, why: str) -> str:
    """What a rule found, and why it is there where it says so."""
    return f"{words}; {why}" if why else words

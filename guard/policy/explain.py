"""How a decision comes about, step by step, for the person who writes the policy.

The verdict is `decide`'s. The steps are worked out a second time and must lead to the same end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

from guard.core.errors import Reason, printable
from guard.core.model import Allow, Ask, Call, Decision, Deny
from guard.policy import derivation
from guard.policy.conditions import ARGUMENTS, PINS, RUNTIME, fault
from guard.policy.decide import decide, hidden
from guard.policy.judging import Judging
from guard.policy.kinds import Held
from guard.policy.request import Asked
from guard.policy.rules import Intent, Matching, Policy, Protected, RuleFailed
from guard.policy.schema import Failure
from guard.policy.uris import oddity

PASSED: Final = "passed"
DENIED: Final = "denied"
ASKED: Final = "asked"
OBSERVED: Final = "observed"
NOTED: Final = "noted"


class Step(NamedTuple):
    """One thing that was checked.

    Attributes:
        check: what was checked, in words.
        outcome: "passed", "denied", "observed" (would be denied in enforce mode), or "noted".
        rule: id of the rule that it rests on, "" when there is none.
        detail: what was found, in words.
        reason: why the call is denied here, None if it is not.
        pointer: RFC 6901 pointer into the request, "" when there is none.
        steps: what this one consists of.
    """

    check: str
    outcome: str
    rule: str = ""
    detail: str = ""
    reason: Reason | None = None
    pointer: str = ""
    steps: tuple[Step, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; what is empty is left out."""
        members = {
            "check": self.check,
            "outcome": self.outcome,
            "rule": self.rule,
            "detail": self.detail,
            "reason": self.reason and str(self.reason),
            "pointer": self.pointer,
            "steps": [step.as_json() for step in self.steps],
        }
        return {name: value for name, value in members.items() if value}

    def lines(self, depth: int = 0) -> Iterator[str]:
        """For a person, one line a step; everything is escaped."""
        parts = [self.check, f"[{self.rule}]" if self.rule else "", f"- {self.detail}" if self.detail else ""]
        words = " ".join(printable(part) for part in parts if part)
        yield f"{'  ' * depth}{self.outcome:<9} {words}"
        for step in self.steps:
            yield from step.lines(depth + 1)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and the steps that led to it; the first step that denies is the last.

    Attributes:
        decision: what `decide` said.
        steps: how it comes about.
    """

    decision: Decision
    steps: tuple[Step, ...] = field(default=())

    @property
    def conclusion(self) -> tuple[Reason | None, str, str]:
        """Where the steps lead: reason, rule and pointer of the denial; (None, "", "") for an allow."""
        last = self.steps[-1]
        return (last.reason, last.rule, last.pointer) if last.outcome == DENIED else (None, "", "")

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        decision: dict[str, Any]
        if isinstance(self.decision, Allow):
            decision = {
                "decision": "allow",
                "rules": list(self.decision.rules),
                "scopes": list(self.decision.scopes),
                "obligations": list(self.decision.obligations),
                "mode": self.decision.mode,
            }
        elif isinstance(self.decision, Ask):
            decision = {
                "decision": "ask",
                "rules": list(self.decision.rules),
                "approver": self.decision.approver,
                "pointers": list(self.decision.pointers),
            }
        else:
            decision = {
                "decision": "deny",
                "reason": str(self.decision.reason),
                "rule": self.decision.rule,
                "pointer": self.decision.pointer,
            }
        return {**decision, "steps": [step.as_json() for step in self.steps]}

    def __str__(self) -> str:
        verdict = "allowed"
        if isinstance(self.decision, Ask):
            verdict = f"a person must approve: {', '.join(self.decision.rules)}"
        if isinstance(self.decision, Deny):
            at = f" at {self.decision.pointer}" if self.decision.pointer else ""
            rule = f" by {self.decision.rule}" if self.decision.rule else ""
            verdict = f"denied: {self.decision.reason}{rule}{at}"
        return "\n".join([*(line for step in self.steps for line in step.lines()), printable(verdict)])


_SOUND: Final[Mapping[Reason, Step]] = {
    reason: Step(f"not {reason}", PASSED)
    for reason in (*(reason for reason, _ in RUNTIME), Reason.TOOL_CONTAINED)
}
_PLAIN: Final = Step("arguments are an I-JSON object", PASSED)
_ANY_HOUR: Final = Step("the hour is right", PASSED)
_UNFORBIDDEN: Final = Step("nothing forbids", PASSED)


@lru_cache(64)
def _known(policy: Policy) -> str:
    return f"known are {_names(policy.roles)}"


def explain(call: Call, policy: Policy) -> Explanation:
    """Why a call is decided as it is. Pure, as `decide` is."""
    steps: list[Step] = []
    for step in _steps(call, policy):
        steps.append(step)
        if step.outcome in {DENIED, ASKED}:
            break
    return Explanation(decide(call, policy), tuple(steps))


def _steps(call: Call, policy: Policy) -> Iterator[Step]:
    if not policy.above:
        return _layer(call, policy)
    return _layers(call, policy)


def _layers(call: Call, policy: Policy) -> Iterator[Step]:
    for layer in policy.layers:
        steps: list[Step] = []
        for step in _layer(call, layer):
            steps.append(step)
            if step.outcome in {DENIED, ASKED}:
                break
        last = steps[-1]
        outcome = last.outcome if last.outcome in {DENIED, ASKED} else PASSED
        yield Step(
            f"policy {layer.ref.id}",
            outcome,
            last.rule,
            reason=last.reason,
            pointer=last.pointer,
            steps=tuple(steps),
        )


def _layer(call: Call, policy: Policy) -> Iterator[Step]:
    tool = call.tool
    about, held = policy.about(tool.server, tool.name, tool.kind), policy.held(call.principal)
    judging = Judging(call, policy, about)
    for reason, stands in RUNTIME:
        yield _step(f"not {reason}", reason) if stands(call.facts, policy) else _SOUND[reason]
    unknown = Reason.UNAUTHORIZED_ROLE if held is None else None
    yield _step(f"role {call.principal.role}", unknown, detail=_known(policy))
    held = held or Held(frozenset())
    yield _listed(call, policy, about, held)
    yield _step("pin", PINS.get(tool.pin), detail=str(tool.pin))
    contained = "tool" in call.facts.contained
    check = f"not {Reason.TOOL_CONTAINED}"
    yield _step(check, Reason.TOOL_CONTAINED) if contained else _SOUND[Reason.TOOL_CONTAINED]
    pointer = fault(call)
    broken = Reason.ARGUMENTS_NOT_IJSON
    yield _PLAIN if pointer is None else _step(_PLAIN.check, broken, pointer=pointer)
    yield _forbidding(judging.asked, about)
    yield _scopes(call, policy, about, held)
    yield _hours(call, about)
    yield _intents(call, policy, about, judging)
    yield from _said(judging, about)


def _hours(call: Call, about: Matching) -> Step:
    check = _ANY_HOUR.check
    if not about.hours:
        return _ANY_HOUR
    held = [(rule.id, rule.hold(call.facts.now)) for rule in about.hours]
    steps = tuple(Step("hours", NOTED, rule, "inside" if right else "outside") for rule, right in held)
    if any(right for _, right in held):
        return _step(check, None, steps=steps)
    return _step(check, Reason.OUTSIDE_HOURS, rule=about.hours[0].id, steps=steps)


def _said(judging: Judging, about: Matching) -> Iterator[Step]:
    """Counters, origins and questions, as the rules say them."""
    if about.counts:
        steps = _noted(derivation.counted(judging.call, about))
        yield _first("what must come before has come, and every limit has room", judging.counters(), steps)
    if about.origins:
        check = "every value comes from where it may"
        try:
            steps = _noted(derivation.origins(judging))
        except RuleFailed as failed:
            yield _step(check, Reason.RULE_FAILED, rule=failed.rule)
            return
        yield _first(check, judging.origins(), steps)
    if about.questions:
        yield _asks(judging)


def _asks(judging: Judging) -> Step:
    check = "nobody has to approve"
    try:
        asking, steps = judging.questions(), _noted(derivation.asks(judging))
    except RuleFailed as failed:
        return _step(check, Reason.RULE_FAILED, rule=failed.rule)
    if asking is None:
        return _step(check, None, steps=steps)
    return Step(check, ASKED, asking[0][0], ", ".join(asking[0]), steps=steps)


def _noted(found: Iterable[derivation.Found]) -> tuple[Step, ...]:
    return tuple(Step(kind, NOTED, rule, words) for kind, rule, words in found)


def _first(check: str, denials: Iterable[Deny], steps: tuple[Step, ...]) -> Step:
    try:
        found = next(iter(denials), None)
    except RuleFailed as failed:
        found = Deny(Reason.RULE_FAILED, failed.rule)
    if found is None:
        return _step(check, None, steps=steps)
    return _step(check, found.reason, rule=found.rule, pointer=found.pointer, steps=steps)


def _step(check: str, reason: Reason | None, **more: Any) -> Step:
    return Step(check, PASSED if reason is None else DENIED, reason=reason, **more)


def _names(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"


def _listed(call: Call, policy: Policy, about: Matching, held: Held) -> Step:
    check, reason = f"the {call.tool.kind} is listed", hidden(policy, about, held)
    rules = tuple(
        Step(
            "all scopes of the rule are held"
            if held.covers(rule.scopes)
            else "a scope of the rule is not held",
            NOTED,
            rule.id,
            f"requires {_names(rule.scopes)}",
        )
        for rule in about.listing
    )
    if reason is None and not rules:
        return Step(check, OBSERVED, detail="no rule lists it; in enforce mode it is denied")
    detail = held.words
    if about.odd:
        detail = f"the URI has {oddity(call.tool.name)}, so only a rule that spells it out lists it; {detail}"
    return Step(check, PASSED if reason is None else DENIED, reason=reason, detail=detail, steps=rules)


def _forbidding(asked: Asked, about: Matching) -> Step:
    if not about.protected:
        return _UNFORBIDDEN
    judged = [(rule, _says(rule, asked)) for rule in about.protected]
    reasons = {"matches": Reason.PROTECTED, "failed": Reason.RULE_FAILED}
    steps = tuple(
        Step("protected", NOTED, rule.id, derivation.because(verdict, rule.because))
        for rule, verdict in judged
    )
    for rule, verdict in judged:
        if verdict in reasons:
            return _step("nothing forbids", reasons[verdict], rule=rule.id, steps=steps)
    return _step("nothing forbids", None, steps=steps)


def _says(rule: Intent | Protected, asked: Asked) -> str:
    try:
        return "matches" if rule.matches(asked) else "does not match"
    except RuleFailed:
        return "failed"


def _scopes(call: Call, policy: Policy, about: Matching, held: Held) -> Step:
    needed = policy.needs(call.tool)
    if held.covers(needed):
        return Step(
            "every required scope is held", PASSED, detail=f"needed are {_names(needed)}; missing are none"
        )
    detail = f"needed are {_names(needed)}; missing are {_names(held.lacks(needed))}"
    lacking = sorted(rule.id for rule in about.tools if not held.covers(rule.scopes))
    rule = lacking[0] if lacking else f"servers/{call.tool.server}"
    return _step("every required scope is held", Reason.MISSING_SCOPE, rule=rule, detail=detail)


def _intents(call: Call, policy: Policy, about: Matching, judging: Judging) -> Step:
    check = "an intent matches"
    judged = [(rule, _says(rule, judging.asked)) for rule in about.intents]
    steps = tuple(
        Step(
            "intent",
            NOTED,
            rule.id,
            verdict,
            steps=_failures(rule, call) if verdict == "does not match" else (),
        )
        for rule, verdict in judged
    )
    for rule, verdict in judged:
        if verdict == "failed":
            return _step(check, Reason.RULE_FAILED, rule=rule.id, steps=steps)
    for declared in sorted(call.intents - policy.others):
        if declared not in judging.matched:
            known = declared if policy.declares(declared) else ""
            return _step(
                f"the declared intent {declared} matches", Reason.OUTSIDE_INTENT, rule=known, steps=steps
            )
    if not judged or any(verdict == "matches" for _, verdict in judged):
        return _step(check, None, detail="" if judged else f"none names the {call.tool.kind}", steps=steps)
    if policy.observing:
        return Step(check, OBSERVED, detail="none matches; in enforce mode it is denied", steps=steps)
    first = about.intents[0]
    pointer = judging.pointer(first)
    return _step(check, Reason.INTENT_UNMATCHED, rule=first.id, pointer=pointer, steps=steps)


def _failures(rule: Intent, call: Call) -> tuple[Step, ...]:
    at = ARGUMENTS[call.tool.kind]
    return (
        tuple(_failure(found, at) for found in rule.schema.failures(call.arguments))
        if rule.schema is not None
        else ()
    )


def _failure(found: Failure, at: str) -> Step:
    branches = tuple(
        Step(f"branch {index}", NOTED, steps=tuple(_failure(inner, at) for inner in branch))
        for index, branch in enumerate(found.branches)
    )
    where = f"{at}{found.pointer}" or "the whole"
    return Step(where, NOTED, detail=f"not as schema{found.keyword} says", steps=branches)

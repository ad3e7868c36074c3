"""`guard policy explain`, whole: what it says of a policy with one of everything.

The texts are for people, so they stand in files that people read. After a change that is meant:

    python -m tests.policy.test_golden_explanations
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard.core.model import Call, Pin
from guard.policy.cases import Case, in_its_world, read_cases
from guard.policy.document import load
from guard.policy.explain import Explanation, explain
from guard.policy.layers import layered
from guard.policy.rules import Policy
from guard.policy.schema import Schema

HERE = Path(__file__).parent / "golden"


def _policy(name: str) -> Policy:
    return load((HERE / f"{name}.yaml").read_bytes(), name=name)


STUDIO, ABOVE = _policy("studio"), _policy("above")
CASES = {case.name: case for case in read_cases((HERE / "studio.cases.yaml").read_bytes(), name="cases")}
OBSERVING = replace(STUDIO, mode="observe", observe_until=2**50)


class Broken:
    """A schema engine that breaks down."""

    def is_valid(self, arguments: Any) -> bool:
        raise RuntimeError("broken")


ENGINE: Any = Broken()
BREAKS = Schema({}, ENGINE)


def _facts(**more: Any) -> Callable[[Call], Call]:
    return lambda call: replace(call, facts=replace(call.facts, **more))


def _pinned(pin: Pin) -> Callable[[Call], Call]:
    return lambda call: replace(call, tool=replace(call.tool, pin=pin))


def _broken(kind: str, id_: str, **broken: Any) -> Policy:
    rules = (replace(rule, **(broken if rule.id == id_ else {})) for rule in getattr(STUDIO, kind))
    changed: dict[str, Any] = {kind: tuple(rules)}
    return replace(STUDIO, **changed)


OTHERWISE: dict[str, tuple[str, Policy, Callable[[Call], Call]]] = {
    "observing, an unlisted tool": ("an unlisted tool", OBSERVING, _facts()),
    "observing, no intent": ("making too large", OBSERVING, _facts()),
    "observing too long": ("looking", replace(OBSERVING, observe_until=0), _facts()),
    "a tool that is absent": ("looking", STUDIO, _pinned(Pin.ABSENT)),
    "a tool that is not pinned": ("looking", STUDIO, _pinned(Pin.UNPINNED)),
    "a tool that has changed": ("looking", STUDIO, _pinned(Pin.CHANGED)),
    "arguments that are not JSON": ("looking", STUDIO, lambda c: replace(c, fault=("/arguments/a", "twice"))),
    "no store": ("looking", STUDIO, _facts(store_writable=False)),
    "no key": ("looking", STUDIO, _facts(artifact_key=False)),
    "a clock that jumped": ("looking", STUDIO, _facts(last=2**50)),
    "an old policy": ("looking", STUDIO, _facts(versions={STUDIO.ref.versioned: 9})),
    "nobody counted": ("making", STUDIO, _facts(used={})),
    "nobody counted what was spent": ("sending home", STUDIO, _facts(used={})),
    "nobody counted what was paid": ("paying", STUDIO, _facts(used={})),
    "no such hour": ("a nap at noon", STUDIO, _facts(now=10**18)),
    "a rule on origins that breaks": (
        "sending home",
        _broken("origins", "whither", arguments=("no pointer",)),
        _facts(),
    ),
    "an intent that breaks": ("a task", _broken("intents", "by-id", schema=BREAKS), _facts()),
    "a protected rule that breaks": ("making", _broken("protected", "no-knives", schema=BREAKS), _facts()),
    "a question that breaks": ("paying", _broken("asks", "dear", schema=BREAKS), _facts()),
    "no intent at all": ("a task", replace(STUDIO, intents=()), _facts()),
}
LAYERED = [
    "looking",
    "an unknown role",
    "a nap in the morning",
    "sending home",
    "what a tool said",
    "paying dear",
    "making too large",
    "knives",
    "too often",
]


def _told() -> Iterator[tuple[str, Explanation]]:
    for case in CASES.values():
        yield case.name, _explained(case, STUDIO)
    for name, (of, policy, change) in OTHERWISE.items():
        yield name, explain(change(in_its_world(CASES[of], policy)), policy)
    whole = layered([ABOVE, STUDIO])
    lower = layered([ABOVE, OBSERVING])
    yield "in layers, observing", _explained(CASES["making too large"], lower)
    for name in LAYERED:
        yield f"in layers, {name}", _explained(CASES[name], whole)


def _explained(case: Case, policy: Policy) -> Explanation:
    return explain(in_its_world(case, policy), policy)


JSON = [
    "looking",
    "paying dear",
    "sending unseen",
    "arguments that are not JSON",
    "in layers, making too large",
    "in layers, what a tool said",
    "in layers, observing",
]


def as_text() -> str:
    return "\n".join(f"== {name}\n{told}\n" for name, told in _told())


def as_json() -> str:
    told = dict(_told())
    return json.dumps({name: told[name].as_json() for name in JSON}, indent=1) + "\n"


FILES = {"explanations.txt": as_text, "explanations.json": as_json}


def test_every_explanation_reads_as_it_did() -> None:
    """Each step, each word, in order: and of no case less or more."""
    kept, now = ((HERE / "explanations.txt").read_text(), as_text())
    for was, is_ in zip(kept.split("== "), now.split("== "), strict=False):
        assert is_ == was
    assert now == kept


def test_explanations_are_the_same_for_programs() -> None:
    """What is empty is left out; the decision stands beside its steps."""
    assert as_json() == (HERE / "explanations.json").read_text()


@pytest.mark.parametrize("name", CASES)
def test_the_golden_cases_are_decided_as_they_say(name: str) -> None:
    """The texts are of the decisions that they are meant to show."""
    case = CASES[name]
    told = _explained(case, STUDIO)
    assert type(told.decision).__name__.lower() == case.expect
    assert getattr(told.decision, "reason", None) == case.reason
    asked = case.expect == "ask"
    assert asked or told.conclusion[0] == case.reason


if __name__ == "__main__":
    for file, text in FILES.items():
        (HERE / file).write_text(text())

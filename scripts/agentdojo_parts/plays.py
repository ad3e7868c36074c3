"""What happens in one conversation: which calls are made in which order, and what the server answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agentdojo_parts.attacks import SETTINGS, shown, wording
from agentdojo_parts.suites import Recorded, Suite


@dataclass(frozen=True, slots=True)
class Play:
    """One conversation.

    Attributes:
        task: id of the user task.
        injection: id of the injection task, "" where nobody attacks.
        way: how the attack is written: see `attacks.wording`.
    """

    task: str
    injection: str = ""
    way: str = ""

    @property
    def id(self) -> str:
        return f"{self.task} {self.injection} {self.way}".strip()

    @classmethod
    def of(cls, name: str) -> Play:
        return cls(*name.split(" "))


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a conversation: `hostile` where it is the attacker's."""

    call: Recorded
    hostile: bool = False


def honest(suite: Suite) -> Iterator[Play]:
    """Every user task by itself."""
    return (Play(task) for task in suite.users)


def attacked(suite: Suite, setting: str) -> Iterator[Play]:
    """Every user task with every injection task, in every way of a setting."""
    for task in suite.users:
        for injection in suite.injections:
            for way in SETTINGS[setting]:
                yield Play(task, injection, way)


def steps(suite: Suite, play: Play) -> list[Step]:
    """The calls of a conversation.

    With an attack: the user's calls, the attack in every vector that they show, up to the first that shows
    it; then the attacker's. What the agent does afterwards changes nothing about what the attacker got.
    """
    calls = suite.users[play.task].calls
    if not play.injection:
        return [Step(call) for call in calls]
    injection = suite.injections[play.injection]
    text = wording(injection, play.way)
    found: list[Step] = []
    for call in calls:
        found.append(Step(shown(suite, call, text)))
        if call.shows:
            return [*found, *(Step(one, hostile=True) for one in injection.calls)]
    return []

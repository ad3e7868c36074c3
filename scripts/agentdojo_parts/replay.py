"""Conversations through the wire: a client, `guard serve`, and a tool server that answers as recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from agentdojo_parts.clients import DECISION, Caller, Reviewer, WrongAnswer, caller, meta_of
from agentdojo_parts.front import Front
from agentdojo_parts.plays import Play, Step, steps
from agentdojo_parts.suites import Suite
from agentdojo_parts.verdicts import Outcome, Verdict

REFUSED: Final = frozenset({"approval-required", "approval-refused"})


class Replay:
    """Plays a suite's conversations through one Guard.

    Args:
        suite: what is played.
        front: the Guard before its server.
    """

    def __init__(self, suite: Suite, front: Front) -> None:
        self._suite = suite
        self._front = front
        self._numbers = count()
        self._reviewer = Reviewer(front.url, front.reviewer)

    async def outcomes(self, plays: Sequence[Play], kind: str = "raw") -> list[Outcome]:
        """How each conversation went. Several principals play at a time, each one conversation."""
        waiting = list(enumerate(plays))[::-1]
        found: dict[int, Outcome] = {}

        async def work(principal: str, key: str) -> None:
            async with caller(kind, self._front.url, key) as client:
                while waiting:
                    index, play = waiting.pop()
                    found[index] = await self._play(client, principal, play)

        reviewing = asyncio.create_task(self._reviewer.review())
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(*one)) for one in self._front.keys.items()]
            while pending := [task for task in tasks if not task.done()]:
                await asyncio.wait([reviewing, *pending], return_when=asyncio.FIRST_COMPLETED)
                if reviewing.done():
                    reviewing.result()
        reviewing.cancel()
        with suppress(asyncio.CancelledError):
            await reviewing
        return [found[index] for index in range(len(plays))]

    async def _play(self, client: Caller, principal: str, play: Play) -> Outcome:
        conversation = f"conversation-{next(self._numbers)}"
        words = self._suite.users[play.task].words
        verdicts = []
        for at, step in enumerate(steps(self._suite, play)):
            asked = self._reviewer.asked.get(principal, 0)
            self._reviewer.hostile[principal] = step.hostile
            result = await client.call(step, meta_of(play.id, at, words, conversation))
            asked = self._reviewer.asked.get(principal, 0) - asked
            verdict = judged(step, result, asked=asked > 0)
            verdicts.append(verdict)
            if not verdict.done and (step.hostile or not verdict.asked):
                break
        return Outcome(play, tuple(verdicts))


def judged(step: Step, result: dict[str, Any], *, asked: bool) -> Verdict:
    """What the answer says. Raises WrongAnswer: neither a denial nor what was recorded."""
    denied = result.get("_meta", {}).get(DECISION)
    if denied is not None:
        why = f"{denied['reason']} {denied['rule']} {denied['pointer']}".strip()
        return Verdict(step.call.tool, done=False, asked=False, why=why, hostile=step.hostile)
    if [block.get("text") for block in result["content"]] != [step.call.text]:
        raise WrongAnswer(f"{step.call.tool} said {str(result)[:500]}")
    return Verdict(step.call.tool, done=not asked, asked=asked, why="asked" * asked, hostile=step.hostile)


def front(folder: Path, suite: Suite, agents: int) -> Front:
    """A Guard before a server that replays this suite."""
    command = ["-m", "agentdojo_parts.server", str(suite.path)]
    return Front(folder, suite.policy, suite.name, command, agents)

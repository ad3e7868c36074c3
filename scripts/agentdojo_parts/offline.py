"""The engine alone, in one process: quick, for whoever writes a policy. The figures come through the wire."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from agentdojo_parts.answers import result
from agentdojo_parts.plays import Play, steps
from agentdojo_parts.suites import Suite
from agentdojo_parts.verdicts import Outcome, Verdict, agents_role
from guard.core.model import (
    Allow,
    Appearance,
    Approval,
    Ask,
    Call,
    Conversation,
    Facts,
    Pin,
    Principal,
    Seen,
    Tool,
)
from guard.policy.cases import load_checked, unused
from guard.policy.decide import decide
from guard.policy.origins.judge import candidates
from guard.policy.pointers import values_at
from guard.policy.rules import Policy
from guard.proxy.remembering import memory_of, remembered, user_said

_SALT: Final = b"offline"


class Offline:
    """Plays conversations against a suite's policy, without a proxy, a store or a server."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        data = suite.policy.read_bytes()
        cases = suite.policy.with_name(f"{suite.policy.stem}.cases.yaml")
        self.policy = load_checked(data, cases.read_bytes() if cases.is_file() else None, str(suite.policy))
        self.role = agents_role(data)

    def play(self, play: Play) -> Outcome:
        """Play one conversation; a person says yes to the user's calls, and no to the attacker's."""
        memory = _Memory(self.policy, Principal("default", "api-key", "agent", self.role), play.id)
        memory.heard(self.suite.users[play.task].words)
        found = []
        for step in steps(self.suite, play):
            verdict = memory.decided(self.suite.name, step.call.tool, step.call.args)
            found.append(replace(verdict, hostile=step.hostile))
            if not verdict.done and (step.hostile or not verdict.asked):
                break
            memory.answered(result(step.call))
        return Outcome(play, tuple(found))


class _Memory:
    """What was seen in one conversation."""

    def __init__(self, policy: Policy, principal: Principal, conversation: str) -> None:
        self.policy = policy
        self.principal = principal
        self.conversation = Conversation(conversation, "client")
        self.values: dict[bytes, tuple[Appearance, ...]] = {}
        self.call: Call | None = None

    def heard(self, words: str) -> None:
        memory = memory_of(self.policy, self.principal, self.conversation, _SALT)
        if memory is not None:
            self._keep(user_said(memory, words))

    def _keep(self, kept: Any) -> None:
        for glimpse in kept.glimpses if kept is not None else ():
            seen = Appearance(glimpse.source, glimpse.trust, glimpse.field)
            self.values[glimpse.fingerprint] = (*self.values.get(glimpse.fingerprint, ()), seen)

    def decided(self, server: str, name: str, arguments: dict[str, Any]) -> Verdict:
        tool = Tool(server, name, "", Pin.MATCHES)
        wanted = {
            one
            for rule in self.policy.sensitive(tool)
            for argument in rule.arguments
            for _, value in values_at(arguments, argument)
            for one in candidates(value, _SALT)
        }
        seen = Seen({one: self.values[one] for one in wanted if one in self.values}, salt=_SALT)
        facts = Facts(now=1, used=unused(self.policy), seen=seen)
        params = {"name": name, "arguments": arguments}
        call = Call("call", self.principal, tool, server, "tools/call", params, self.conversation, facts)
        self.call = call
        said = decide(call, self.policy)
        asked = isinstance(said, Ask)
        if isinstance(said, Ask):
            yes = Approval("approval", frozenset(said.rules), "reviewer", "reviewer")
            again = decide(replace(call, facts=replace(facts, approval=yes)), self.policy)
            if not isinstance(again, Allow):
                return Verdict(name, done=False, asked=False, why=str(again))
            return Verdict(name, done=False, asked=True, why=f"asked {' '.join(said.rules)}")
        if isinstance(said, Allow):
            return Verdict(name, done=True, asked=asked, why="")
        return Verdict(name, done=False, asked=False, why=f"{said.reason} {said.rule} {said.pointer}")

    def answered(self, told: dict[str, Any]) -> None:
        if self.call is not None:
            self._keep(remembered(self.policy, self.call, json.dumps(told).encode(), _SALT))

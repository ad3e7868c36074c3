"""Rules that count: limits, budgets, what runs at once, and what must or must not come before.

Each says which counters a decision reads, what a grant takes from them, and what a good ending notes.
The counts come as facts and are compared again in the transaction that records the grant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from guard.core.canonical import digest
from guard.core.errors import Reason
from guard.core.model import UNBOUNDED, Call, Conversation, Deny, Mark, Principal, Reservation, Tool
from guard.policy.kinds import Pattern, RuleFailed
from guard.policy.pointers import MISSING, value_at

_AMOUNT: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?", re.ASCII)
_LARGEST: Final = Decimal(10**15)


@dataclass(frozen=True, slots=True)
class Reading:
    """A counter that a decision reads.

    Attributes:
        key: under which `Facts.used` has it.
        counter: its name in the store.
        window: milliseconds.
    """

    key: str
    counter: str
    window: int


@dataclass(frozen=True, slots=True)
class Scope:
    """Who counts: the names that counters are made of.

    Attributes:
        policy: id of the policy.
        principal: who asks.
        tool: what for.
        conversation: None where its id separates nothing.
    """

    policy: str
    principal: Principal
    tool: Tool
    conversation: Conversation | None

    def memory(self) -> str:
        """What is remembered together: the conversation, or all of the principal's."""
        return self.name(frozenset({"conversation"}))

    def name(self, per: frozenset[str]) -> str:
        """Of one length, whatever the names."""
        who = ("principal", self.principal.issuer, self.principal.subject)
        parts = set[tuple[str, ...]]()
        if "principal" in per:
            parts.add(who)
        if "role" in per:
            parts.add(("role", self.principal.role))
        if "tool" in per:
            parts.add(("tool", self.tool.kind, self.tool.server, self.tool.name))
        if "conversation" in per:  # scoped to its principal
            own = self.conversation
            parts.add(who if own is None else ("conversation", *who[1:], own.id))
        return digest([self.policy, *map(list, sorted(parts))])


@dataclass(frozen=True, slots=True)
class Budget:
    """What a limit adds up, where it does not count calls.

    Attributes:
        of: RFC 6901 pointer into the arguments to the amount: a number, or text such as "12.50".
        digits: how many decimals are counted; what lies beyond is rounded up.
        currency: pointer to what must be `unit`, "" where there is none.
        unit: the currency that is counted.
    """

    of: str
    digits: int
    currency: str = ""
    unit: str = ""

    def amount(self, arguments: Mapping[str, Any]) -> int | str:
        """How much a call takes, in units of the last digit; the pointer at fault where nobody can say."""
        if self.currency and value_at(arguments, self.currency) != self.unit:
            return self.currency
        value = value_at(arguments, self.of)
        if value is MISSING or isinstance(value, bool) or not isinstance(value, int | float | str):
            return self.of
        if isinstance(value, str) and not _AMOUNT.fullmatch(value):
            return self.of
        exact = Decimal(value) if isinstance(value, str | int) else Decimal(repr(value))
        if not exact.is_finite() or exact < 0:
            return self.of
        if exact > _LARGEST:
            return UNBOUNDED
        return int((exact * 10**self.digits).to_integral_value(ROUND_CEILING))


@dataclass(frozen=True, slots=True)
class Limit:
    """How much there may be of these tools inside a window that slides.

    Attributes:
        id: its id.
        tools: which tools.
        per: what is counted apart: any of "principal", "role", "tool" and "conversation".
        most: how many calls; of a budget, how much in units of its last digit.
        window: milliseconds; of what runs at once, how long an unknown ending keeps its place.
        because: for reviewers.
        budget: what is added up, None where calls are counted.
        held: whether only what is under way counts.
    """

    id: str
    tools: tuple[Pattern, ...]
    per: frozenset[str]
    most: int
    window: int
    because: str = ""
    budget: Budget | None = None
    held: bool = False

    def reading(self, scope: Scope) -> Reading:
        """The counter."""
        return Reading(self.id, f"{_plain(self.id)}/{scope.name(self.per)}", self.window)

    def takes(self, call: Call, scope: Scope) -> Reservation | Deny:
        """What a call takes of it, or why it may not."""
        amount = 1 if self.budget is None else self.budget.amount(call.arguments)
        if isinstance(amount, str):
            at = "/arguments" if call.tool.kind in {"tool", "prompt"} else ""
            return Deny(Reason.AMOUNT_UNREADABLE, self.id, f"{at}{amount}")
        counter = self.reading(scope).counter
        if amount > self.most or used(call, self.id) + amount > self.most:
            return Deny(Reason.LIMIT_REACHED, self.id)
        return Reservation(self.id, counter, amount, self.most, self.window, self.held)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What is compared without a counter.

    Attributes:
        id: its id.
        tools: which tools.
        depth: how many calls may have led to it, None where that is not bounded.
        result_bytes: how large its result may be, None where that is not bounded.
        because: for reviewers.
    """

    id: str
    tools: tuple[Pattern, ...]
    depth: int | None = None
    result_bytes: int | None = None
    because: str = ""


@dataclass(frozen=True, slots=True)
class Sequence:
    """What must, or must not, have come before these tools.

    Attributes:
        id: its id.
        tools: which tools it governs.
        others: what must have returned before; or after whose grant they are forbidden.
        requires: which of the two.
        window: milliseconds that it looks back.
        calls: how many calls each of `others` is good for, 0 for any number; or how many may follow it.
        because: for reviewers.
    """

    id: str
    tools: tuple[Pattern, ...]
    others: tuple[Pattern, ...]
    requires: bool
    window: int
    calls: int = 0
    because: str = ""

    def readings(self, scope: Scope) -> Iterator[Reading]:
        """The counters that a governed call reads."""
        yield Reading(self.id, self._before(scope), self.window)
        if self.calls:
            yield Reading(f"{self.id}/spent", self._spent(scope), self.window)

    def takes(self, call: Call, scope: Scope) -> tuple[Reservation, ...] | Deny:
        """What a governed call takes, or why it may not."""
        before = used(call, self.id)
        if self.requires:
            if not before:
                return Deny(Reason.REQUIRED_FIRST, self.id)
            most = self.calls * before
            refused = Reason.REQUIRED_FIRST
        else:
            most = self.calls if before else UNBOUNDED
            refused = Reason.FORBIDDEN_AFTER
        taken = list[Reservation]()
        if not self.requires and not before:  # nothing of it may come in between
            taken.append(Reservation(self.id, self._before(scope), 0, 0, self.window))
        elif not self.requires and not self.calls:
            return Deny(refused, self.id)
        if self.calls:
            if used(call, f"{self.id}/spent") + 1 > most:
                return Deny(refused, self.id)
            taken.append(Reservation(self.id, self._spent(scope), 1, most, self.window))
        return tuple(taken)

    def noted(self, scope: Scope) -> Reservation:
        """What the grant of one of `others` notes, where these are forbidden after it."""
        return Reservation(self.id, self._before(scope), 1, UNBOUNDED, self.window)

    def marked(self, scope: Scope) -> Mark:
        """What the return of one of `others` notes, where it is required."""
        return Mark(self._before(scope), self.window)

    def _before(self, scope: Scope) -> str:
        return f"{_plain(self.id)}/before/{scope.memory()}"

    def _spent(self, scope: Scope) -> str:
        return f"{_plain(self.id)}/spent/{scope.memory()}"


def _plain(rule: str) -> str:
    """An id without its layer: counts go on when a policy is put above another, or alone again."""
    return rule.rpartition("/")[2]


def used(call: Call, key: str) -> int:
    """How much was taken.

    Raises:
        RuleFailed: nobody said.
    """
    amount = call.facts.used.get(key)
    if type(amount) is not int or amount < 0:
        raise RuleFailed(key.removesuffix("/spent"))
    return amount

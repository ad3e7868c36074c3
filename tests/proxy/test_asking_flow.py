"""The laws of asking, over a world in memory: nothing but a yes that is decided afresh goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from guard.core.errors import Reason, Refused
from guard.core.model import Ask, Call, Decision, Deny, Principal
from guard.proxy.endings import Returned
from guard.proxy.flow import QUESTIONS, TRIES
from guard.proxy.steps import APPROVED, Approved
from guard.proxy.wire import Request
from tests.proxy.test_flow import NONSENSE, live
from tests.simulate import REPLY, World

ASK = Ask(("person",), "reviewer", 600_000)


@dataclass
class AskingWorld(World):
    """A world whose policy asks.

    Attributes:
        decisions: what is decided, one time after the other; then what the policy says.
        says: what `ask` answers, or raises where it is an exception.
        asked: each call that a person was asked about.
    """

    decisions: Iterator[Decision] = field(default_factory=lambda: iter([ASK]))
    says: Any = APPROVED
    asked: list[Call] = field(default_factory=list)

    def decide(self, call: Call) -> Decision:
        found = super().decide(call)
        return next(self.decisions, found)

    async def ask(
        self, message: Request, principal: Principal, call: Call, ask: Ask
    ) -> Approved | bytes | None:
        self.asked.append(call)
        self.trace.append(("ask", "ok", call))
        if isinstance(self.says, BaseException):
            raise self.says
        return self.says  # type: ignore[no-any-return]


def test_a_yes_binds_and_decides_afresh() -> None:
    """The caller is identified again, and what runs is another call than the one that was asked about."""
    world = AskingWorld()
    assert live(world) == [REPLY]
    first = ["identify", "bind", "decide", "ask"]
    assert world.steps()[:8] == [*first, "identify", "bind", "decide", "issue"]
    (asked,) = world.asked
    assert world.log.of(asked.id) == []
    assert len(world.sent) == 1


@pytest.mark.parametrize("says", [*NONSENSE, "approved", Approved, [APPROVED]])
def test_whatever_is_not_the_one_yes_sends_nothing(says: Any) -> None:
    """It is what the client is told, true or not: nothing of it lets a call through."""
    world = AskingWorld(says=says)
    assert live(world) == [says]
    assert world.sent == []
    assert world.steps()[-1] == "ask"


@pytest.mark.parametrize(
    "error", [Refused(Reason.REVOKED_KEY), ValueError("x"), TimeoutError(), MemoryError()]
)
def test_asking_that_breaks_denies(error: Exception) -> None:
    """A refusal keeps its reason; any other surprise is one."""
    world = AskingWorld(says=error)
    live(world)
    reason = error.reason if isinstance(error, Refused) else Reason.UNEXPECTED
    assert [deny.reason for deny in world.refused] == [reason]
    assert world.sent == []


@pytest.mark.parametrize("then", [Deny(Reason.PROTECTED, "never"), Deny(Reason.LIMIT_REACHED)])
def test_a_yes_removes_no_denial(then: Deny) -> None:
    """What is denied by then is denied."""
    world = AskingWorld(decisions=iter([ASK, then]))
    live(world)
    assert world.refused == [then]
    assert world.sent == []


def test_a_policy_that_never_stops_asking_is_denied() -> None:
    """So often a person is asked about one call, and no more."""
    world = AskingWorld(decisions=iter([ASK] * 100))
    live(world)
    assert len(world.asked) == QUESTIONS
    assert [deny.reason for deny in world.refused] == [Reason.APPROVAL_REQUIRED]
    assert world.sent == []


def test_asking_takes_no_try_away() -> None:
    """A call that was asked about may still find that something moved, as often as any other."""
    world = AskingWorld(moved=TRIES - 1, ending=Returned(b"{}"))
    assert live(world) == [REPLY]
    assert len(world.sent) == 1


def test_who_is_nobody_after_the_yes_is_refused() -> None:
    """A person takes time, and a key may be revoked meanwhile."""
    world = AskingWorld()
    identify: Callable[[Request], Principal] = world.identify
    seen: list[Principal] = []

    def once(message: Request) -> Principal:
        if seen:
            raise Refused(Reason.REVOKED_KEY)
        seen.append(identify(message))
        return seen[0]

    world.identify = once  # type: ignore[method-assign]
    live(world)
    assert [deny.reason for deny in world.refused] == [Reason.REVOKED_KEY]
    assert world.sent == []

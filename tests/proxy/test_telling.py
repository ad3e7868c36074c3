"""What is said outside of answers: remembered first, in order, or not told at all."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from guard.core.errors import Reason, Refused
from guard.core.model import Conversation, Principal
from guard.lineage.store import Conflict, Outcome, Recorded, Remember, Transaction
from guard.proxy.house import House
from guard.proxy.telling import Shown, Telling, shown
from tests.policy.calls import policy

ADA = Principal("default", "api-key", "ada", "reader")
ORIGINS = [{"id": "where", "tools": ["*"], "arguments": ["/to"], "accept": ["user"]}]


class Journal:
    """A log that notes what it is given; the first commits take longest."""

    def __init__(self, *, failing: bool = False) -> None:
        self.kept: list[Remember] = []
        self.failing = failing
        self._pause = 0.02

    async def commit(self, made: Transaction) -> Outcome:
        self._pause /= 2
        await asyncio.sleep(self._pause)
        if self.failing:
            return Conflict(Reason.STORE_UNAVAILABLE, "the test says no")
        assert made.entry is None
        self.kept += [effect for effect in made.effects if isinstance(effect, Remember)]
        return Recorded(-1, "", made.now)


class Someone:
    """A gate with nothing behind it but a journal."""

    def __init__(self, journal: Journal, *, origins: bool = True) -> None:
        rules = policy(origins=ORIGINS) if origins else policy()
        parts: dict[str, Any] = {"generation": SimpleNamespace(policy=rules), "salt": b"s", "heard": {}}
        self.house = cast("House", SimpleNamespace(log=journal, clock=lambda: 1_000, **parts))
        self.house.note_heard = partial(House.note_heard, self.house)  # type: ignore[method-assign]
        self.home = Conversation("c", "launch")

    def identify(self) -> Principal:
        return ADA


async def test_what_is_said_is_told_in_order_however_long_remembering_takes() -> None:
    """The first takes longest, and is told first."""
    journal, told = Journal(), list[int]()
    telling = Telling(Someone(journal))
    for number in range(5):
        telling.after(
            "one", b'{"message": "write to x%d@example.org"}' % number, None, lambda n=number: told.append(n)
        )
    telling.after("one", b'{"progress": 1}', None, lambda: told.append(5))
    assert told == []
    await telling.settled()
    assert told == [0, 1, 2, 3, 4, 5]
    assert len(journal.kept) == 5


async def test_what_cannot_be_remembered_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    """It is dropped, and a request is answered for the client; a list is refused."""
    someone, told, dropped = Someone(Journal(failing=True)), list[int](), list[int]()
    telling = Telling(someone)
    telling.after(
        "one", b'{"data": "write to x@example.org"}', None, lambda: told.append(1), lambda: dropped.append(1)
    )
    await telling.settled()
    assert (told, dropped) == ([], [1])
    assert "is not told" in capsys.readouterr().err
    with pytest.raises(Refused):
        await shown(
            someone, [Shown("one", "hello", "prompt", b'{"description": "x@example.org"}')], pinned=False
        )


async def test_without_rules_on_origins_all_is_told_at_once() -> None:
    """Nothing is kept, and nothing waits."""
    journal, told = Journal(failing=True), list[int]()
    someone = Someone(journal, origins=False)
    Telling(someone).after("one", b'{"data": "x@example.org"}', None, lambda: told.append(1))
    await shown(someone, [Shown("one", "hello", "prompt", b'"x@example.org"')], pinned=False)
    assert told == [1]


async def test_a_list_that_was_remembered_is_not_remembered_again_at_once() -> None:
    """But again when it changed, or after a while."""
    journal = Journal()
    someone = Someone(journal)
    item = Shown("one", "hello", "prompt", b'{"description": "x@example.org"}')
    for _ in range(3):
        await shown(someone, [item], pinned=False)
    assert len(journal.kept) == 1
    await shown(someone, [Shown("one", "hello", "prompt", b'{"description": "y@example.org"}')], pinned=False)
    assert len(journal.kept) == 2
    someone.house.clock = lambda: 24 * 3600 * 1000
    await shown(someone, [item], pinned=False)
    assert len(journal.kept) == 3

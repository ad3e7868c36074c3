"""Calls of a closed conversation: denied, and the attempt is on record where it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guard.config.home import clock
from guard.core.model import Conversation, Principal
from guard.lineage.entry import Kind
from guard.lineage.log import entry
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import Moved, Place, Recorded, Seal, Transaction
from tests.proxy.scene import LEGACY, Scene, reason


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    found = Scene(tmp_path / "s")
    found.pin()
    return found


def seal(store: SqliteStore, given: str = "talk") -> None:
    """Close a conversation as `guard lineage seal` does."""
    (row,) = [row for row in store.conversations() if row.given == given]
    who, total = Principal(row.tenant, row.issuer, row.subject, ""), row.entries + 1
    where = Place(row.tenant, who, Conversation(given, row.source))
    made = entry(Kind.SEALED, "", {"total": total})
    (outcome,) = store.apply([Transaction(where, made, clock(), {}, (Seal(row.id, total),))])
    assert isinstance(outcome, Recorded), outcome


async def test_a_call_of_a_sealed_conversation_is_denied_and_recorded(scene: Scene) -> None:
    """Nothing is sent; the house's own conversation holds the attempt, and the lineage is sound."""
    async with scene.guarded(strict=True) as client:
        assert "isError" not in (await client.call("echo", n=1))["result"]
        with scene.store() as store:
            seal(store)
        for name in ("echo", "hidden", "echo"):
            assert reason(await client.call(name, n=2)) == "conversation-sealed"
    assert len(scene.received()) == 1
    denied = scene.entries(Kind.DENIED)
    assert [one["fields"]["decision"]["reason"] for one in denied] == ["conversation-sealed"] * 3
    assert {one["fields"]["conversation"]["sealed"] for one in denied} == {"talk"}
    with scene.store() as store:
        house = {row.id for row in store.conversations() if row.source == "house"}
    assert {one["conversation"] for one in denied} == house
    scene.settled()


async def test_what_is_sealed_between_decision_and_grant_is_not_granted(scene: Scene) -> None:
    """The seal moves the ground of the decision: it is made anew, and is a no."""
    outcomes: list[Any] = []

    def meanwhile(guarded: Any) -> None:
        log, commit = guarded.log, guarded.log.commit

        async def late(transaction: Transaction) -> Any:
            if transaction.entry.kind is Kind.GRANTED and not outcomes:
                with scene.store() as store:
                    seal(store)
            outcomes.append(await commit(transaction))
            return outcomes[-1]

        armed.append(lambda: setattr(log, "commit", late))

    armed: list[Any] = []
    async with scene.guarded(LEGACY, strict=True, wrap=meanwhile) as client:
        assert "isError" not in (await client.call("echo", n=1))["result"]
        armed[0]()
        assert reason(await client.call("echo", n=2)) == "conversation-sealed"
    assert isinstance(outcomes[0], Moved)
    assert len(scene.received()) == 1
    scene.settled()


async def test_a_denial_that_a_seal_overtakes_is_recorded_in_the_house(scene: Scene) -> None:
    """What was denied for another reason while the conversation closed is on record all the same."""

    def meanwhile(guarded: Any) -> None:
        log, commit = guarded.log, guarded.log.commit

        async def late(transaction: Transaction) -> Any:
            if transaction.entry.kind is Kind.DENIED and transaction.place.principal is not None:
                with scene.store() as store:
                    seal(store)
            return await commit(transaction)

        log.commit = late

    async with scene.guarded(strict=True, wrap=meanwhile) as client:
        await client.call("echo", n=1)
        assert reason(await client.call("echo", n=13)) == "protected"
    (denied,) = scene.entries(Kind.DENIED)
    assert denied["fields"]["decision"]["reason"] == "protected"
    assert denied["fields"]["conversation"] == {"sealed": "talk", "source": "launch"}
    scene.settled()


async def test_another_conversation_of_the_same_caller_is_open(scene: Scene) -> None:
    """A seal closes one conversation and no other."""
    async with scene.guarded(strict=True) as client:
        await client.call("echo", n=1)
        with scene.store() as store:
            seal(store)
        assert reason(await client.call("echo", n=1)) == "conversation-sealed"
    async with scene.guarded(conversation="another") as client:
        assert "isError" not in (await client.call("echo", n=1))["result"]
    scene.settled()

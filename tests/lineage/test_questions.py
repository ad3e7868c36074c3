"""Questions: who may answer them, for how long, and that an approval is used once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from guard.lineage.entry import Kind
from guard.lineage.postgres.connection import Address
from guard.lineage.questions import KEPT
from guard.lineage.store import (
    CONTAINMENT,
    AnswerQuestion,
    Conflict,
    Contain,
    Moved,
    Outcome,
    QuestionRow,
    Recorded,
    Reserve,
    SaveQuestion,
    Store,
    Transaction,
    UseApproval,
)
from tests.lineage.lineages import (
    HOUSE,
    NOW,
    TENANT,
    checked,
    dump,
    granted,
    house,
    open_store,
    place,
    recorded,
    transaction,
)

Where = Path | Address
MINUTE = 60_000
DIGEST = "d" * 43
ID = "question-1"
ASKED = SaveQuestion(ID, "launch", "alice", DIGEST, ("ask-1", "ask-2"), "reviewer", NOW + MINUTE, b'{"x":1}')


def asked(question: SaveQuestion = ASKED, *, now: int = NOW, tenant: str = TENANT) -> Transaction:
    return transaction(Kind.ASKED, question.id, question, where=place(tenant=tenant), now=now)


def answer(
    *, yes: bool = True, subject: str = "rita", issuer: str = "api-key", word: str = "reviewer", **given: Any
) -> Transaction:
    effect = AnswerQuestion(given.pop("id_", ID), yes, issuer, subject, word)
    return transaction(Kind.ANSWERED, effect.id, effect, where=given.pop("where", HOUSE), **given)


def using(call: str = "call", *, id_: str = ID, **given: Any) -> Transaction:
    grant = granted(call, **given)
    return replace(grant, effects=(*grant.effects, UseApproval(id_)))


def refused(store: Store, made: Transaction) -> str:
    (outcome,) = store.apply([made])
    assert isinstance(outcome, Conflict), outcome
    return outcome.what


def approval(store: Store, at: int = NOW, *, subject: str = "alice") -> QuestionRow | None:
    return store.approval(TENANT, "launch", subject, DIGEST, at)


def test_a_question_is_stored_as_it_was_asked(store: Store, where: Where) -> None:
    """Open, of its tenant; by its id, by its digest and in the list."""
    recorded(store, asked())
    expected = QuestionRow(ASKED, TENANT, NOW, "open")
    assert store.question(TENANT, ID) == approval(store) == expected
    assert store.questions(TENANT, NOW) == [expected]
    assert (store.question("elsewhere", ID), store.questions("elsewhere", NOW)) == (None, [])
    assert (store.question(TENANT, "another"), store.question(TENANT, "\0")) == (None, None)
    assert checked(where).findings == []


@pytest.mark.parametrize(("yes", "state"), [(True, "granted"), (False, "denied")])
def test_an_answer_is_stored_with_who_gave_it(store: Store, state: str, *, yes: bool) -> None:
    """And with whose word it is."""
    recorded(store, asked(), answer(yes=yes))
    expected = QuestionRow(ASKED, TENANT, NOW, state, "api-key/rita", "reviewer")
    assert store.question(TENANT, ID) == approval(store) == expected


def test_an_id_is_asked_once(store: Store) -> None:
    """In one batch and later; nothing of the first is changed. Another tenant has its own."""
    again = asked(replace(ASKED, subject="bob", approver="client"))
    assert isinstance(store.apply([asked(), again])[1], Conflict)
    assert refused(store, again) == f"the question {ID} was asked already"
    recorded(store, asked(tenant="elsewhere"))
    assert [row.question for row in store.questions(TENANT, NOW)] == [ASKED]


def test_a_question_is_answered_once(store: Store) -> None:
    """A yes stays a yes, a no a no: in one batch and later."""
    recorded(store, asked())
    outcomes = store.apply([answer(yes=False), answer(yes=True)])
    assert [type(outcome) for outcome in outcomes] == [Recorded, Conflict]
    assert refused(store, answer()) == f"the question {ID} was denied already"
    assert approval(store).state == "denied"  # type: ignore[union-attr]


def test_nobody_answers_what_was_never_asked(store: Store) -> None:
    """Nor what another tenant was asked."""
    assert refused(store, answer()).startswith(f"there is no question {ID}")
    recorded(store, asked(tenant="elsewhere"))
    assert refused(store, answer()).startswith(f"there is no question {ID}")


def test_a_void_question_has_no_answer(store: Store) -> None:
    """From its time on: one millisecond decides."""
    recorded(store, asked(), asked(replace(ASKED, id="other")))
    assert "void" in refused(store, answer(now=NOW + MINUTE))
    recorded(store, answer(id_="other", now=NOW + MINUTE - 1))


def test_the_one_who_asked_cannot_answer(store: Store) -> None:
    """Not as a reviewer, and as a client only where the question takes its word."""
    recorded(store, asked())
    own = {"issuer": "launch", "subject": "alice"}
    assert "somebody else" in refused(store, answer(**own))
    assert "a reviewer only" in refused(store, answer(**own, word="client"))
    assert store.question(TENANT, ID).state == "open"  # type: ignore[union-attr]


def test_the_clients_word_counts_where_the_question_takes_it_and_for_its_own(store: Store) -> None:
    """It is recorded as what it is; a reviewer's word is good there as well."""
    own = {"issuer": "launch", "subject": "alice"}
    for id_ in ("one", "two"):
        recorded(store, asked(replace(ASKED, id=id_, approver="client")))
    assert "another principal's" in refused(store, answer(id_="one", word="client"))
    assert "somebody else" in refused(store, answer(**own, id_="one", word="reviewer"))
    assert refused(store, answer(**own, id_="one", word="boss"))
    recorded(store, answer(**own, id_="one", word="client"), answer(id_="two"))
    assert [(row.state, row.word) for row in store.questions(TENANT, NOW)] == [
        ("granted", "client"),
        ("granted", "reviewer"),
    ]


def test_an_approval_is_used_once(store: Store) -> None:
    """The grant that uses it is the only one; and then there is no approval any more."""
    recorded(store, asked(), answer(), using("one"))
    assert store.apply([using("two")]) == [Moved(f"approval/{ID}")]
    assert approval(store) is None
    assert store.question(TENANT, ID).state == "used"  # type: ignore[union-attr]
    assert refused(store, answer()) == f"the question {ID} was granted and used already"


@pytest.mark.parametrize("state", ["none", "open", "denied", "void", "elsewhere"])
def test_what_is_no_approval_cannot_be_used(store: Store, where: Where, state: str) -> None:
    """It was never asked, not answered, denied, is too old, or another tenant's: nothing is granted."""
    if state != "none":
        recorded(store, asked(tenant=state if state == "elsewhere" else TENANT))
    if state in {"denied", "void"}:
        recorded(store, answer(yes=state == "void"))
    if state == "elsewhere":
        recorded(store, answer(where=replace(HOUSE, tenant="elsewhere")))
    before = dump(where)
    now = NOW + MINUTE if state == "void" else NOW
    assert store.apply([using(now=now)]) == [Moved(f"approval/{ID}")]
    after = dump(where)
    assert (after["entries"], after["questions"]) == (before["entries"], before["questions"])
    assert store.open_grants() == []


def test_a_grant_that_fails_otherwise_uses_nothing(store: Store) -> None:
    """A version that moved, a full counter: the approval stands."""
    recorded(store, asked(), answer(), house(Kind.CONTAINED, Contain("tool", "t")))
    assert store.apply([using(expects={CONTAINMENT: 0})]) == [Moved(CONTAINMENT)]
    grant = using()
    full = replace(grant, effects=(*grant.effects, Reserve("c", "call", 2, 1, MINUTE)))
    assert store.apply([full]) == [Moved("c")]
    recorded(store, using())


def test_the_newest_question_on_a_digest_is_the_one(store: Store) -> None:
    """Of this principal, and neither used nor void."""
    later = replace(ASKED, id="later", until=NOW + 2 * MINUTE)
    other = replace(ASKED, id="other", subject="bob")
    recorded(store, asked(later), asked(now=NOW + 1), asked(other, now=NOW + 2))
    assert approval(store, NOW + 2).question == ASKED  # type: ignore[union-attr]
    assert approval(store, NOW + MINUTE).question == later  # type: ignore[union-attr]
    assert approval(store, NOW + 2 * MINUTE) is None
    assert approval(store, subject="bob").question == other  # type: ignore[union-attr]
    recorded(store, answer(), using())
    assert approval(store, NOW + 2).question == later  # type: ignore[union-attr]
    assert store.approval(TENANT, "launch", "alice", "another", NOW) is None


def test_the_list_has_what_is_not_void_the_oldest_first(store: Store) -> None:
    """Whatever its state."""
    ids = ["b", "a", "c"]
    for n, id_ in enumerate(ids):
        recorded(store, asked(replace(ASKED, id=id_, until=NOW + MINUTE + n), now=NOW + n))
    recorded(store, answer(id_="b"), answer(id_="c", yes=False))
    assert [row.question.id for row in store.questions(TENANT, NOW)] == ids
    assert [row.question.id for row in store.questions(TENANT, NOW + MINUTE)] == ["a", "c"]


def test_open_questions_are_counted_for_each_principal(store: Store) -> None:
    """Those that nobody answered and that are not void; no other principal's, no other tenant's."""
    assert store.open_questions(TENANT, "launch", "alice", NOW) == 0
    for id_, subject in (("a", "alice"), ("b", "alice"), ("c", "alice"), ("d", "bob")):
        until = NOW + MINUTE + (id_ == "c")
        recorded(store, asked(replace(ASKED, id=id_, subject=subject, until=until)))
    recorded(store, asked(tenant="elsewhere"), answer(id_="a"))
    counts = [store.open_questions(TENANT, "launch", who, NOW) for who in ("alice", "bob", "rita")]
    assert counts == [2, 1, 0]
    assert store.open_questions(TENANT, "launch", "alice", NOW + MINUTE) == 1
    assert store.open_questions(TENANT, "api-key", "alice", NOW) == 0


def test_a_question_that_is_long_void_goes(store: Store) -> None:
    """With the next that is asked; until then whoever comes late is told that it is void."""
    recorded(store, asked())
    over = NOW + MINUTE + KEPT
    recorded(store, asked(replace(ASKED, id="next", until=over + MINUTE), now=over - 1))
    assert store.question(TENANT, ID) is not None
    recorded(store, asked(replace(ASKED, id="last", until=over + MINUTE), now=over))
    assert store.question(TENANT, ID) is None


def test_nothing_moves_by_being_asked(store: Store) -> None:
    """No version: others' decisions stand."""
    recorded(store, asked(), answer(), using())
    assert store.versions(TENANT) == {}


def test_of_64_uses_at_once_exactly_one_wins(store: Store) -> None:
    """In one batch."""
    recorded(store, asked(), answer())
    outcomes = store.apply([using(f"call-{n}") for n in range(64)])
    assert _won(outcomes) == 1
    assert len(store.open_grants()) == 1


def _won(outcomes: list[Outcome], id_: str = ID) -> int:
    assert all(one == Moved(f"approval/{id_}") for one in outcomes if not isinstance(one, Recorded))
    return sum(isinstance(one, Recorded) for one in outcomes)


def _hammer(where: Where, name: str, barrier: Barrier, results: Any) -> None:
    with closing(open_store(where)) as store:
        won = 0
        for round_ in range(20):
            barrier.wait()
            id_ = f"q{round_}"
            won += _won(store.apply([using(f"{name}-{round_}", id_=id_)]), id_)
        results.put(won)


def test_of_processes_at_once_exactly_one_uses_each(
    store: Store, where: Where, opener: Callable[[], Store]
) -> None:
    """Four processes race for each of 20 approvals: 20 grants."""
    for n in range(20):
        recorded(store, asked(replace(ASKED, id=f"q{n}")), answer(id_=f"q{n}"))
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_hammer, args=(where, f"p{n}", barrier, results)) for n in range(4)]
    for worker in workers:
        worker.start()
    won = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(won) == 20
    with closing(opener()) as fresh:
        assert {row.state for row in fresh.questions(TENANT, NOW)} == {"used"}
        assert len(fresh.open_grants()) == 20

"""Reviewers: who may say yes or no to a call of another, what they see, and how that is recorded.

One set of rules for the command and for HTTP. A reviewer is known by a credential whose role says
`may_approve`, sees the own tenant only, and never answers a question of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import orjson

from guard.core.errors import GuardError, Reason, Refused
from guard.core.model import Conversation, Facts, Principal
from guard.identity.api_keys import ISSUER
from guard.lineage.entry import Kind
from guard.lineage.log import entry
from guard.lineage.store import (
    CONTAINMENT,
    REVOCATION,
    AnswerQuestion,
    Effect,
    Place,
    QuestionRow,
    Store,
    Transaction,
    UseKey,
)
from guard.policy.conditions import RUNTIME
from guard.policy.rules import Policy

_ANYWHERE: Final = Conversation("", "inferred")
_MAY: Final = "a reviewer's role needs `may_approve: true` in the policy"


class Unanswerable(GuardError):
    """A question that cannot be answered, or not by this reviewer.

    Attributes:
        known: whether there is such a question for this reviewer at all.
    """

    def __init__(self, what: str, *, known: bool = True, remedy: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.known = known


def objection(store: Store, policy: Policy, reviewer: Principal, now: int) -> Reason | None:
    """Why somebody may not review now (UNIX ms), None where they may.

    As for a call of theirs: not contained, under a policy that holds; and their role may approve. Whoever
    the launch names has no credential, and may not.
    """
    if reviewer.issuer != ISSUER:
        return Reason.NO_CREDENTIAL
    snapshot = store.snapshot(reviewer, _ANYWHERE, ("", ""), own_only=False)
    facts = Facts(now=now, contained=snapshot.contained, versions=snapshot.versions)
    for layer in policy.layers:
        for reason, stands in RUNTIME:
            if stands(facts, layer):
                return reason
    return None if policy.may_approve(reviewer.role) else Reason.UNAUTHORIZED_ROLE


def open_to(store: Store, reviewer: Principal, now: int) -> list[QuestionRow]:
    """What waits for a reviewer's answer at a time (UNIX ms), the oldest first; nothing of their own."""
    return [
        row
        for row in newest(store.questions(reviewer.tenant, now))
        if row.state == "open" and row.question.subject != reviewer.subject
    ]


def newest(rows: list[QuestionRow]) -> list[QuestionRow]:
    """Of several questions on one thing only the last: no answer to another has an effect."""
    last = {(row.question.issuer, row.question.subject, row.question.digest): row for row in rows}
    return [
        row for row in rows if last[row.question.issuer, row.question.subject, row.question.digest] is row
    ]


def shown(row: QuestionRow) -> dict[str, Any]:
    """A question as data."""
    asked = row.question
    return {
        "id": asked.id,
        "state": row.state,
        "asked": row.asked,
        "until": asked.until,
        "principal": [asked.issuer, asked.subject],
        "rules": list(asked.rules),
        "approver": asked.approver,
        "digest": asked.digest,
        "answered_by": row.answered_by,
        "word": row.word,
        "call": orjson.loads(asked.shown),
    }


def answer(
    store: Store, policy: Policy, identify: Callable[[], Principal], id_: str, *, yes: bool, now: int
) -> Transaction:
    """What records a reviewer's answer, if nothing moves meanwhile that their right rests on.

    Args:
        store: where the question is.
        policy: says who may approve.
        identify: makes the reviewer of their credential; raises Refused.
        id_: the question's.
        yes: what they say.
        now: UNIX milliseconds.

    Raises:
        Refused: they are nobody, or may not review.
        Unanswerable: no such question in their tenant, their own, or past answering.
    """
    versions = store.versions(identify().tenant)
    reviewer = identify()  # after the versions were read, or a revocation between the two is not seen
    if (reason := objection(store, policy, reviewer, now)) is not None:
        raise Refused(reason, f"{reviewer.subject} may not approve: {reason}", remedy=_MAY)
    row = store.question(reviewer.tenant, id_)
    if row is None or row.tenant != reviewer.tenant:
        raise Unanswerable(
            "there is no such question", known=False, remedy="`guard approvals list` shows what waits"
        )
    asked = row.question
    if asked.subject == reviewer.subject:
        raise Unanswerable(
            "nobody approves a call of their own", remedy="another person that may approve must answer"
        )
    if row.state != "open":
        raise Unanswerable(f"it is answered already: {row.state}", remedy="an answer is never changed")
    latest = store.approval(reviewer.tenant, asked.issuer, asked.subject, asked.digest, now)
    if latest is None or now >= asked.until:
        raise Unanswerable("its time is over", remedy="make the call again to ask anew")
    if latest.question.id != id_:
        raise Unanswerable(f"it was asked anew as {latest.question.id}", remedy="answer that one")
    rests_on = (CONTAINMENT, REVOCATION, *(ref.versioned for ref in policy.ref.all))
    expects = {key: versions.get(key, 0) for key in rests_on}
    return replace(recorded(row, reviewer, yes=yes, word="reviewer", now=now), expects=expects)


def recorded(row: QuestionRow, who: Principal, *, yes: bool, word: str, now: int) -> Transaction:
    """The entry of an answer, with its effect. `now` is UNIX milliseconds."""
    asked = row.question
    fields = {
        "tenant": who.tenant,
        "question": asked.id,
        "answer": "yes" if yes else "no",
        "word": word,
        "approver": [who.issuer, who.subject],
        "role": who.role,
        "credential": who.credential,
        "principal": [asked.issuer, asked.subject],
        "rules": asked.rules,
        "digest": asked.digest,
    }
    effects: tuple[Effect, ...] = (AnswerQuestion(asked.id, yes, who.issuer, who.subject, word),)
    if who.issuer == ISSUER:
        effects += (UseKey(who.credential),)
    return Transaction(Place(who.tenant), entry(Kind.ANSWERED, asked.id, fields), now, effects=effects)

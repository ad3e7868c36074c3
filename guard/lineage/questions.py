"""What people were asked to approve, in the embedded store; and which answers there can be, in any.

A question is open, then granted or denied by somebody else; what was granted is used once. It is void from
its time on, whatever it is by then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson

from guard.lineage.store import QuestionRow
from guard.lineage.transaction import AnswerQuestion, SaveQuestion, UseApproval

CLIENT: Final = "client"
REVIEWER: Final = "reviewer"
OPEN: Final = "open"
GRANTED: Final = "granted"
DENIED: Final = "denied"
USED: Final = "used"
KEPT: Final = 7 * 24 * 60 * 60 * 1000
"""Milliseconds that a question is kept after it is void, so that who comes late is told."""
MAX_FORGOTTEN: Final = 100
"""How many old questions one commit deletes."""
COLUMNS: Final = (
    "tenant, id, issuer, subject, digest, rules, approver, until, shown, asked, state, answered_by, word"
)
_SELECT: Final = f"SELECT {COLUMNS} FROM questions WHERE tenant = ?"  # noqa: S608 - a constant
OPEN_COUNT: Final = (
    "SELECT count(*) FROM questions WHERE tenant = {0} AND until > {0} AND state = {0}"
    " AND issuer = {0} AND subject = {0}"
)


class Stands(NamedTuple):
    """What a question's answer and use depend on."""

    issuer: str
    subject: str
    approver: str
    until: int
    state: str


Asked = SaveQuestion | AnswerQuestion
_STANDS: Final = "SELECT issuer, subject, approver, until, state FROM questions WHERE tenant = ? AND id = ?"


def obstacle(effect: Asked, stands: Stands | None, at: int) -> str:
    """Why a question cannot be asked or answered at `at` (UNIX ms), "" if it can.

    Args:
        stands: the question of that id, None where there is none.
    """
    name = f"the question {effect.id}"
    if isinstance(effect, SaveQuestion):
        return "" if stands is None else f"{name} was asked already"
    if stands is None:
        return f"there is no question {effect.id}; `guard approvals list` shows them"
    if stands.state != OPEN:
        was = "granted and used" if stands.state == USED else stands.state
        return f"{name} was {was} already"
    if stands.until <= at:
        return f"{name} is void: its time is over"
    is_own = (effect.issuer, effect.subject) == (stands.issuer, stands.subject)
    if effect.word == REVIEWER:
        return f"{name} is that principal's own: somebody else must answer it" if is_own else ""
    if effect.word != CLIENT or stands.approver != CLIENT:
        return f"{name} takes the word of a reviewer only"
    return "" if is_own else f"{name} is another principal's: its own client may answer it, or a reviewer"


def is_usable(stands: Stands | None, at: int) -> bool:
    """Whether it was granted, and is neither used nor void at `at` (UNIX ms)."""
    return stands is not None and stands.state == GRANTED and stands.until > at


def approval_key(id_: str) -> str:
    """What has moved where an approval cannot be used."""
    return f"approval/{id_}"


def values(tenant: str, effect: SaveQuestion, at: int) -> tuple[Any, ...]:
    """A new row, in the order of COLUMNS."""
    rules = orjson.dumps(effect.rules).decode()
    return (
        *(tenant, effect.id, effect.issuer, effect.subject, effect.digest, rules),
        *(effect.approver, effect.until, effect.shown, at, OPEN, "", ""),
    )


def answered(effect: AnswerQuestion) -> tuple[str, str, str]:
    """State, by whom and whose word, once it is answered."""
    return GRANTED if effect.yes else DENIED, f"{effect.issuer}/{effect.subject}", effect.word


def question_row(row: Sequence[Any]) -> QuestionRow:
    """A row of COLUMNS."""
    tenant, id_, issuer, subject, digest, rules, approver, until, shown, asked, state, by, word = row
    made = SaveQuestion(
        *(id_, issuer, subject, digest, tuple(orjson.loads(rules)), approver, until, bytes(shown))
    )
    return QuestionRow(made, tenant, asked, state, by, word)


# -- the embedded store ----------------------------------------------------------------------------


def stands(db: sqlite3.Connection, tenant: str, id_: str) -> Stands | None:
    """The question of an id."""
    row = db.execute(_STANDS, (tenant, id_)).fetchone()
    return Stands(*row) if row else None


def apply(db: sqlite3.Connection, tenant: str, effect: Asked | UseApproval, at: int) -> None:
    """Write what can be. `at` is UNIX milliseconds."""
    if isinstance(effect, SaveQuestion):
        db.execute(
            "DELETE FROM questions WHERE (tenant, id) IN"
            " (SELECT tenant, id FROM questions WHERE tenant = ? AND until <= ? LIMIT ?)",
            (tenant, at - KEPT, MAX_FORGOTTEN),
        )
        row = values(tenant, effect, at)
        db.execute(f"INSERT INTO questions ({COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
    elif isinstance(effect, AnswerQuestion):
        db.execute(
            "UPDATE questions SET state = ?, answered_by = ?, word = ? WHERE tenant = ? AND id = ?",
            (*answered(effect), tenant, effect.id),
        )
    else:
        db.execute("UPDATE questions SET state = ? WHERE tenant = ? AND id = ?", (USED, tenant, effect.id))


def question(db: sqlite3.Connection, tenant: str, id_: str) -> QuestionRow | None:
    """As `Store.question`."""
    row = db.execute(f"{_SELECT} AND id = ?", (tenant, id_)).fetchone()
    return question_row(row) if row else None


def approval(
    db: sqlite3.Connection, tenant: str, who: tuple[str, str], digest: str, at: int
) -> QuestionRow | None:
    """As `Store.approval`. `who` is issuer and subject."""
    row = db.execute(
        f"{_SELECT} AND digest = ? AND issuer = ? AND subject = ? AND until > ? AND state <> ?"
        " ORDER BY asked DESC, id DESC LIMIT 1",
        (tenant, digest, *who, at, USED),
    ).fetchone()
    return question_row(row) if row else None


def questions(db: sqlite3.Connection, tenant: str, at: int) -> list[QuestionRow]:
    """As `Store.questions`."""
    rows = db.execute(f"{_SELECT} AND until > ? ORDER BY asked, id", (tenant, at))
    return [question_row(row) for row in rows]


def open_questions(db: sqlite3.Connection, tenant: str, who: tuple[str, str], at: int) -> int:
    """As `Store.open_questions`. `who` is issuer and subject."""
    return int(db.execute(OPEN_COUNT.format("?"), (tenant, at, OPEN, *who)).fetchone()[0])

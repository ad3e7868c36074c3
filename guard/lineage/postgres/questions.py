"""What people were asked to approve, in the shared store: in one commit, and asked for.

Whoever asks, answers or uses holds the question's lock: of several who use one approval at once, one does.
"""

from __future__ import annotations

from typing import Any, Final

from guard.lineage.postgres.connection import Connection
from guard.lineage.postgres.needs import Found
from guard.lineage.postgres.reading import Reader
from guard.lineage.questions import (
    COLUMNS,
    KEPT,
    MAX_FORGOTTEN,
    OPEN,
    OPEN_COUNT,
    USED,
    Asked,
    Stands,
    answered,
    is_usable,
    obstacle,
    question_row,
    values,
)
from guard.lineage.store import QuestionRow
from guard.lineage.transaction import AnswerQuestion, SaveQuestion, UseApproval

_SELECT: Final = f"SELECT {COLUMNS} FROM questions WHERE tenant = %s"  # noqa: S608 - a constant
_SAVE: Final = f"INSERT INTO questions ({COLUMNS}) VALUES ({', '.join(['%s'] * len(COLUMNS.split(',')))})"  # noqa: S608
_ANSWER: Final = "UPDATE questions SET state = %s, answered_by = %s, word = %s WHERE tenant = %s AND id = %s"
_USE: Final = "UPDATE questions SET state = %s WHERE tenant = %s AND id = %s"
_FORGET: Final = (
    "DELETE FROM questions WHERE ctid = ANY (ARRAY(SELECT ctid FROM questions"
    " WHERE tenant = %s AND until <= %s LIMIT %s FOR UPDATE SKIP LOCKED))"
)


class Questions:
    """The questions of one commit.

    Args:
        found: what stands.
    """

    def __init__(self, found: Found) -> None:
        self._stands = dict(found.questions)
        self._gathered: list[tuple[str, tuple[Any, ...]]] = []

    def obstacle(self, tenant: str, effect: Asked, at: int) -> str:
        """Why a question cannot be asked or answered, "" if it can. `at` is UNIX milliseconds."""
        return obstacle(effect, self._stands.get((tenant, effect.id)), at)

    def is_usable(self, tenant: str, effect: UseApproval, at: int) -> bool:
        """Whether it was granted, and is neither used nor void."""
        return is_usable(self._stands.get((tenant, effect.id)), at)

    def apply(self, tenant: str, effect: Asked | UseApproval, at: int) -> None:
        """Gather what can be. `at` is UNIX milliseconds."""
        name = (tenant, effect.id)
        if isinstance(effect, SaveQuestion):
            stands = Stands(effect.issuer, effect.subject, effect.approver, effect.until, OPEN)
            self._gathered.append((_FORGET, (tenant, at - KEPT, MAX_FORGOTTEN)))
            self._gathered.append((_SAVE, values(tenant, effect, at)))
            self._stands[name] = stands
        elif isinstance(effect, AnswerQuestion):
            state = answered(effect)
            self._gathered.append((_ANSWER, (*state, *name)))
            self._stands[name] = self._stands[name]._replace(state=state[0])
        else:
            self._gathered.append((_USE, (USED, *name)))
            self._stands[name] = self._stands[name]._replace(state=USED)

    def write(self, db: Connection) -> None:
        """In a pipeline."""
        for statement, given in self._gathered:
            db.execute(statement.encode(), given)
        self._gathered = []


def question(reader: Reader, tenant: str, id_: str) -> QuestionRow | None:
    """As `Store.question`. Raises Away."""
    row = None if "\0" in id_ else reader.row(f"{_SELECT} AND id = %s", tenant, id_)
    return question_row(row) if row else None


def approval(reader: Reader, tenant: str, who: tuple[str, str], digest: str, at: int) -> QuestionRow | None:
    """As `Store.approval`. `who` is issuer and subject. Raises Away."""
    row = reader.row(
        f"{_SELECT} AND digest = %s AND issuer = %s AND subject = %s AND until > %s AND state <> %s"
        ' ORDER BY asked DESC, id COLLATE "C" DESC LIMIT 1',
        *(tenant, digest, *who, at, USED),
    )
    return question_row(row) if row else None


def questions(reader: Reader, tenant: str, at: int) -> list[QuestionRow]:
    """As `Store.questions`. Raises Away."""
    rows = reader.rows(f'{_SELECT} AND until > %s ORDER BY asked, id COLLATE "C"', tenant, at)
    return [question_row(row) for row in rows]


def open_questions(reader: Reader, tenant: str, who: tuple[str, str], at: int) -> int:
    """As `Store.open_questions`. `who` is issuer and subject. Raises Away."""
    row = reader.row(OPEN_COUNT.format("%s"), tenant, at, OPEN, *who)
    return int((row or (0,))[0])

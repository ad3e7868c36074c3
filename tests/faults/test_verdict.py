"""The verdict itself: what it is there to find, it finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from guard.config.home import open_home
from guard.lineage.entry import Kind
from tests.faults.books import SqliteBook
from tests.faults.verdict import LIMITED, WRONG, Verdict
from tests.lineage.lineages import changed, ended, granted, recorded

LIMIT = 2


class Case:
    """A home with a few calls of one caller, and the record of the tool server that they reached."""

    def __init__(self, folder: Path) -> None:
        self.home, self.log = folder / "home", folder / "log"
        self.seen: list[dict[str, Any]] = []
        self.verdict = Verdict(SqliteBook(self.home), self.log, limit=LIMIT)
        for number in range(LIMIT):
            self.call(number, tool=LIMITED)

    def call(self, number: int, *, tool: str, recorded_too: bool = True) -> None:
        """A call ran; with or without its entries."""
        call, fields = f"{number:032x}", {"arguments": {"n": number}, "tool": tool, "principal": ["a", "b"]}
        self.seen.append({"decision_id": call, "jti": str(number), "tool": tool, "arguments": {"n": number}})
        self.log.write_text("".join(json.dumps(one) + "\n" for one in self.seen))
        if recorded_too:
            with closing(open_home(self.home).store()) as store:
                recorded(store, granted(call, **fields), ended(call, Kind.RETURNED))
        self.verdict.look()

    def used_twice(self) -> None:
        self.call(LIMIT, tool="echo")
        self.seen[-1]["jti"] = self.seen[0]["jti"]
        self.call(LIMIT + 1, tool="echo")

    def altered(self) -> None:
        assert changed(self.home / "guard.db", "UPDATE entries SET seq = seq + 9 WHERE idx = 1") == 1

    def cut(self) -> None:
        assert changed(self.home / "guard.db", "DELETE FROM entries WHERE idx > 2") > 0


def test_what_is_sound_is_found_sound(tmp_path: Path) -> None:
    """Calls up to the limit, each with its entries: nothing is counted."""
    case = Case(tmp_path)
    case.verdict.settle()
    assert case.verdict.wrong() == {}
    assert case.verdict.figures["calls"] == LIMIT


@pytest.mark.parametrize(
    ("name", "hurt"),
    [
        ("lost", lambda case: case.call(9, tool="echo", recorded_too=False)),
        ("changed", Case.altered),
        ("changed", Case.cut),
        ("jti_reused", Case.used_twice),
        ("overspent", lambda case: case.call(9, tool=LIMITED)),
    ],
)
def test_what_is_wrong_is_counted(tmp_path: Path, name: str, hurt: Callable[[Case], None]) -> None:
    """A call without its entry, a row that is altered or gone, an artifact twice, one call too many."""
    case = Case(tmp_path)
    hurt(case)
    with pytest.raises((AssertionError, ValueError)):
        case.verdict.settle()
    assert name in WRONG
    assert name in case.verdict.wrong()

"""What must hold after every fault: the tool server's own record beside the lineage.

The counts are those of build/figures/faults.json, and each of them must be nought but `kills` and
`calls`: calls that reached the tool server without their entry, or were answered without one (`lost`);
entries that are no longer what they were, or are gone (`changed`); two entries in one place
(`duplicate_index`); artifacts that reached the tool server twice (`jti_reused`); calls beyond a limit
(`overspent`).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Final

from guard.lineage.audit import readable
from guard.lineage.entry import ENDINGS, Kind
from tests.faults.books import Book
from tests.faults.load import Load

FIGURES: Final = Path(__file__).parents[2] / "build" / "figures" / "faults"
NAMES: Final = ("kills", "calls", "lost", "changed", "duplicate_index", "jti_reused", "overspent")
WRONG: Final = NAMES[2:]
LIMITED: Final = "fail"
EVERYTHING: Final = os.environ.get("GUARD_FAULTS") == "all"
"""Whether every fault is tried as often as `make faults` does, or a few times as in `make test`."""


class Verdict:
    """Looks at one lineage again and again, and counts.

    Args:
        book: the lineage.
        log: the tool server's own record.
        limit: how many calls of the tool LIMITED each caller may have.
    """

    def __init__(self, book: Book, log: Path, *, limit: int) -> None:
        self.figures: Counter[str] = Counter(dict.fromkeys(NAMES, 0))
        self.granted: dict[str, dict[str, Any]] = {}
        self.ended: dict[str, list[Kind]] = {}
        self._book = book
        self._log = log
        self._limit = limit
        self._leaves: list[tuple[str, int, bytes]] = []

    def seen(self) -> list[dict[str, Any]]:
        """What reached the tool server, oldest first. A line that is still being written is left out."""
        whole, _, _ = self._log.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]

    def look(self, *, whole: bool = False) -> None:
        """Hold what stands now beside what stood before; without `whole` only the last and what is new.

        It may be called under load: what the tool server saw is held beside the lineage by `settle`.
        """
        known = 0 if whole else max(0, len(self._leaves) - 1)
        rows = self._book.rows(known)
        stands = [(row.conversation, row.seq, row.leaf) for row in rows]
        before = self._leaves[known:]
        self.figures["changed"] += sum(a != b for a, b in zip(before, stands, strict=False))
        self.figures["changed"] += max(0, len(before) - len(rows))
        self.figures["duplicate_index"] += len(rows) - len({row.index for row in rows})
        for row in rows[len(before) :]:
            self._read(readable(row))
        self._leaves[known:] = stands

    def _read(self, entry: dict[str, Any]) -> None:
        if entry["kind"] == Kind.GRANTED:
            self.granted[entry["call"]] = entry
        elif entry["kind"] in ENDINGS:
            self.ended.setdefault(entry["call"], []).append(Kind(entry["kind"]))

    def settle(self, *loads: Load, strict: bool = False) -> None:
        """When nobody calls any more, and every replica has ended: everything that must hold.

        Raises:
            AssertionError: something does not.
        """
        self._book.recover()
        self.look(whole=True)
        seen = self.seen()
        self.figures["calls"] += len(seen)
        self.figures["lost"] += sum(call["decision_id"] not in self.granted for call in seen)
        self.figures["jti_reused"] += len(seen) - len({call["jti"] for call in seen})
        numbers = {entry["fields"]["arguments"]["n"]: call for call, entry in self.granted.items()}
        for load in loads:
            self.figures["lost"] += len(load.ran - numbers.keys())
        self._overspent()
        assert self.wrong() == {}, self.wrong()
        report = self._book.report()
        assert report.findings == []
        assert report.open == []
        assert self._book.waiting() == 0
        assert report.entries == len(self._leaves)
        assert self.granted.keys() == self.ended.keys()
        assert all(len(kinds) == 1 for kinds in self.ended.values())
        assert len({call["decision_id"] for call in seen}) == len(seen), "no grant was dispatched twice"
        for call in seen:
            assert self.granted[call["decision_id"]]["fields"]["arguments"] == call["arguments"]
            assert self.ended[call["decision_id"]] != [Kind.FAILED], "failed says that nothing was sent"
        ran = {call["arguments"]["n"] for call in seen}
        allowed = {Kind.RETURNED} if strict else {Kind.RETURNED, Kind.UNKNOWN}
        for load in loads:
            assert load.ran <= ran
            assert not load.refused & ran, "what was denied reached the tool server"
            assert {self.ended[numbers[number]][0] for number in load.ran} <= allowed

    def _overspent(self) -> None:
        """Count the calls beyond the limit, of each caller. What was certainly not sent is not drawn."""
        drawn = Counter(
            tuple(entry["fields"]["principal"])
            for call, entry in self.granted.items()
            if entry["fields"]["tool"] == LIMITED and self.ended.get(call) != [Kind.FAILED]
        )
        self.figures["overspent"] += sum(max(0, count - self._limit) for count in drawn.values())

    def wrong(self) -> dict[str, int]:
        """The counts that must be nought and are not."""
        return {name: self.figures[name] for name in WRONG if self.figures[name]}

    def write(self, name: str) -> None:
        """Keep the figures of one test; `make faults` adds them up."""
        write_figures(name, self.figures)


def write_figures(name: str, figures: Counter[str]) -> None:
    """Keep one test's figures where `scripts/faults.py` finds them."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    own = FIGURES / f".{name}.{os.getpid()}"
    own.write_text(json.dumps({key: figures[key] for key in NAMES}) + "\n")
    own.replace(FIGURES / f"{name}.json")

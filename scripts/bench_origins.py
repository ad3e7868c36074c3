"""What origins cost: the values of a result, and judging an argument. CPU time, the best of several rounds.

python scripts/bench_origins.py
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from guard.core.model import Seen
from guard.policy.origins import judge, values

SALT = b"a salt for the benchmark alone."
TEXT = (
    "the quarterly report was sent to dora@example.net and to Lucas Brown for review before the meeting in "
    "Vienna, see https://files.example.net/q3?id=4711 or call +43 1 234567 about invoice 2024-0815 of "
    "98.70 EUR"
)
ARGUMENTS: tuple[Any, ...] = (
    "dora@example.net",
    ["dora@example.net", "lucas.brown@example.net"],
    "https://files.example.net/q3?id=4711",
    "DE89370400440532013000",
    "Lucas Brown",
    1200,
    "report-2024.pdf",
)


def rows(size: int) -> list[dict[str, Any]]:
    """A result of about so many bytes: half fields, half prose, no two rows alike."""
    found: list[dict[str, Any]] = []
    words = TEXT.split() * 2
    while len(json.dumps(found)) < size:
        number = len(found)
        text = " ".join(f"{word}{number}" if place % 7 == 0 else word for place, word in enumerate(words))
        who = f"person{number}@example.net"
        found.append({"id": number, "from": who, "title": f"Report {number}", "body": text})
    return found


def microseconds(run: Callable[[], object], times: int) -> float:
    """CPU time of one run."""
    best = float("inf")
    for _ in range(7):
        begun = time.process_time()
        for _ in range(times):
            run()
        best = min(best, (time.process_time() - begun) / times)
    return best * 1e6


def main() -> None:
    raw = json.dumps(rows(10_000)).encode()
    for trust, fields in (("untrusted", {}), ("mixed", {}), ("mixed", {"/*/body": "untrusted"})):

        def read(trust: str = trust, fields: dict[str, str] = fields) -> values.Glimpses:
            return values.glimpses(raw, source="tool:a/b", trust=trust, fields=fields, salt=SALT)

        took = microseconds(read, 5) / 1000
        what = f"{trust}{' with fields' if fields else ''}"
        print(f"{len(raw)} bytes, {what}: {len(read())} values, {took:.1f} ms")
    empty = Seen({}, salt=SALT)
    for value in ARGUMENTS:
        asking = microseconds(lambda value=value: judge.candidates(value, SALT), 100)
        judging = microseconds(
            lambda value=value: judge.origin(value, empty, frozenset(), user_overrides=False), 100
        )
        print(f"{value}: {asking:.0f} and {judging:.0f} us")


if __name__ == "__main__":
    main()

"""From single measurements to figures: what is compared is compared inside one repetition, then medians.

On a busy machine all variants are slow at the same time. A ratio of two that were measured one after the
other holds where a ratio of two medians does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

DIRECT: Final = "direct"
FASTMCP: Final = "fastmcp"
GUARD: Final = "guard"
HEADLINE: Final = "modern"


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement.

    Attributes:
        seconds: the latency of each call.
        wall: seconds for all of them.
        cpu: seconds that the middle took; None where there is none, or it is not ours.
    """

    transport: str
    era: str
    variant: str
    conversations: int
    repetition: int
    seconds: Sequence[float]
    wall: float
    cpu: float | None

    @property
    def p50_ms(self) -> float:
        """The median latency."""
        return quantile(self.seconds, 0.5) * 1e3

    @property
    def p99_ms(self) -> float:
        """What 99 of 100 calls stay within."""
        return quantile(self.seconds, 0.99) * 1e3

    @property
    def rps(self) -> float:
        """Calls a second."""
        return len(self.seconds) / self.wall

    @property
    def cpu_ms(self) -> float | None:
        """Of the middle, for one call."""
        return None if self.cpu is None else self.cpu / len(self.seconds) * 1e3


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least `q` of all do not exceed (nearest rank). Raises ValueError: none."""
    if not values:
        raise ValueError("a quantile of nothing")
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]


def middle(values: Iterable[float | None]) -> float | None:
    """The median; None if a value is missing, or there is none."""
    found = [*values]
    there = [value for value in found if value is not None]
    return median(there) if there and len(there) == len(found) else None


def over(one: float | None, other: float | None) -> float | None:
    """A ratio; None where it says nothing."""
    return None if one is None or other is None or other <= 0 else one / other


def rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row for each variant at each concurrency, in each era, over each transport.

    Keys carry their unit. A ratio is the median of the repetitions' ratios; None where there is nothing to
    compare with.
    """
    by = {(one.transport, one.era, one.variant, one.conversations, one.repetition): one for one in cells}
    found = []
    for transport, era, variant, conversations in dict.fromkeys(key[:4] for key in by):
        place = transport, era, variant, conversations
        own = [one for key, one in by.items() if key[:4] == place]

        def beside(one: Cell, name: str) -> Cell | None:
            return by.get((one.transport, one.era, name, one.conversations, one.repetition))

        def added(one: Cell | None, beside: Callable[[Cell, str], Cell | None] = beside) -> float | None:
            direct = None if one is None else beside(one, DIRECT)
            return None if one is None or direct is None else one.p50_ms - direct.p50_ms

        def against(
            name: str,
            figure: Callable[[Cell | None], float | None],
            own: list[Cell] = own,
            beside: Callable[[Cell, str], Cell | None] = beside,
        ) -> list[float | None]:
            return [over(figure(one), figure(beside(one, name))) for one in own]

        ratios = against(FASTMCP, added)
        known = [one for one in ratios if one is not None]
        found.append(
            {
                "transport": transport,
                "era": era,
                "variant": variant,
                "conversations": conversations,
                "repetitions": len(own),
                "calls": sum(len(one.seconds) for one in own),
                "p50_ms": middle(one.p50_ms for one in own),
                "p99_ms": middle(one.p99_ms for one in own),
                "rps": middle(one.rps for one in own),
                "cpu_ms": middle(one.cpu_ms for one in own),
                "added_p50_ms": middle(added(one) for one in own),
                "added_p50_over_fastmcp": middle(ratios),
                "added_p50_over_fastmcp_least": min(known, default=None),
                "added_p50_over_fastmcp_most": max(known, default=None),
                "rps_over_fastmcp": middle(against(FASTMCP, lambda one: one and one.rps)),
                "rps_over_direct": middle(against(DIRECT, lambda one: one and one.rps)),
                "cpu_over_fastmcp": middle(against(FASTMCP, lambda one: one and one.cpu_ms)),
            }
        )
    return found


def headline(table: Sequence[dict[str, Any]], transport: str, era: str = HEADLINE) -> dict[str, Any]:
    """Guard with everything on: latency added to a call that is alone, calls a second and CPU at 64."""
    own = {
        row["conversations"]: row
        for row in table
        if (row["transport"], row["era"], row["variant"]) == (transport, era, GUARD)
    }
    if not own:
        return {}
    alone, crowd = own[min(own)], own[max(own)]
    return {
        "added_p50_ms": alone["added_p50_ms"],
        "added_p50_over_fastmcp": alone["added_p50_over_fastmcp"],
        "rps64": crowd["rps"],
        "rps64_over_fastmcp": crowd["rps_over_fastmcp"],
        "cpu_ms": crowd["cpu_ms"],
        "cpu_over_fastmcp": crowd["cpu_over_fastmcp"],
    }


def shown(table: Sequence[dict[str, Any]], transport: str) -> str:
    """The rows of one transport as text, one block for each era."""
    lines: list[str] = []
    names = ["in flight", "p50 ms", "p99 ms", "calls/s", "CPU ms", "added ms"]
    names += ["added/fm", "calls/fm", "CPU/fm"]
    keys = ("p50_ms", "p99_ms", "rps", "cpu_ms", "added_p50_ms")
    ratios = ("added_p50_over_fastmcp", "rps_over_fastmcp", "cpu_over_fastmcp")
    own = [row for row in table if row["transport"] == transport]
    width = max((len(row["variant"]) for row in own), default=8) + 2
    for era in dict.fromkeys(row["era"] for row in own):
        lines += ["", f"{transport}, {era} era", " " * width + "".join(f"{name:>10}" for name in names)]
        for row in sorted((row for row in own if row["era"] == era), key=lambda row: row["conversations"]):
            cells = [f"{row['conversations']:>10}"]
            cells += [number(row[key], 0 if key == "rps" else 3) for key in keys]
            cells += [number(row[key], 2) for key in ratios]
            lines.append(f"{row['variant']:<{width}}" + "".join(cells))
    return "\n".join(lines)


def number(value: float | None, digits: int) -> str:
    """Ten characters wide."""
    return f"{'-':>10}" if value is None else f"{value:>10.{digits}f}"

"""The tree above ranges that were checked, and its root at each size that a kept checkpoint names."""

from __future__ import annotations

from collections.abc import Iterable

from guard.lineage import merkle
from guard.lineage.ranges import LEVEL, RANGE, Fault, Part, wrong_node
from guard.lineage.sources import Rows


class Grown:
    """The tree as far as it was seen. Ranges are added in order.

    Args:
        rows: where the nodes stand.
        sizes: at which sizes the root is wanted.

    Attributes:
        roots: the root at those of the sizes that the entries reach without a gap.
    """

    def __init__(self, rows: Rows, sizes: Iterable[int]) -> None:
        self._rows = rows
        self._sizes = frozenset(sizes)
        self._left: dict[int, tuple[int, bytes]] = {}
        self._size = 0
        self._tail: tuple[bytes, ...] = ()
        self._whole = True
        self.roots: dict[int, bytes] = {0: merkle.EMPTY_ROOT}

    def add(self, part: Part) -> list[Fault]:
        """Add a range. Returns the nodes above it that are wrong."""
        if part.peaks is None or part.first != self._size:
            self._whole = False
        if self._whole:
            self._note_roots(part)
            self._size += len(part.briefs)
        if part.peaks is None or len(part.briefs) < RANGE:
            self._tail = part.peaks or ()
            return []
        faults: list[Fault] = []
        level, index, digest = LEVEL, part.first >> LEVEL, part.peaks[0]
        while index & 1:
            left = self._left.get(level)
            if left is None or left[0] != index - 1:
                return faults  # what it hangs together with was not seen whole
            digest = merkle.node_hash(left[1], digest)
            level, index = level + 1, index >> 1
            if self._rows.nodes(level, index, index + 1).get(index) != digest:
                faults.append(wrong_node(level, index))
        self._left[level] = (index, digest)
        return faults

    def frontier(self) -> merkle.Frontier | None:
        """The whole tree; None if an entry is missing."""
        return merkle.Frontier(self._size, (*self._above(), *self._tail)) if self._whole else None

    def _above(self) -> list[bytes]:
        """The peaks over all ranges that are full."""
        full = self._size >> LEVEL
        return [self._left[LEVEL + bit][1] for bit in reversed(range(full.bit_length())) if full >> bit & 1]

    def _note_roots(self, part: Part) -> None:
        for size in self._sizes:
            if part.first < size <= part.first + len(part.briefs):
                before = merkle.Frontier(part.first, tuple(self._above()))
                hashes = [brief.hash for brief in part.briefs[: size - part.first]]
                if all(len(digest) == merkle.HASH_BYTES for digest in hashes):
                    self.roots[size] = before.extended(hashes)[0].root()

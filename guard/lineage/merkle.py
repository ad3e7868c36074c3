"""Merkle tree hashing, growing, proving and checking, after RFC 6962 section 2.1.

The tree is never held. A `Frontier` has the few hashes that the next leaf needs; whoever
appends keeps the interior nodes that it hands out, and a proof is then a handful of look-ups.

A node is named (level, index): level 0 is the leaf hashes, and node (l, i) is the root of the
complete subtree over leaves i·2^l up to (i+1)·2^l. Only complete subtrees have names, so a
node never changes once it exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()

Node = tuple[int, int, bytes]
ReadNode = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """The 32-byte hash of one leaf's bytes: SHA-256 over 0x00 and the data (RFC 6962 section 2.1)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The 32-byte hash of an interior node: SHA-256 over 0x01 and both children (RFC 6962 section 2.1)."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree as far as appending needs it.

    Attributes:
        size: how many leaves the tree has.
        peaks: 32-byte roots of the complete subtrees that the tree falls into, widest first: one
            for each bit of `size` that is set.

    Raises:
        ValueError: the peaks cannot be those of a tree of that size.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or self.size.bit_count() != len(self.peaks):
            raise ValueError(f"a tree of size {self.size} does not have {len(self.peaks)} peaks")

    @classmethod
    def empty(cls) -> Frontier:
        """The frontier of the tree without leaves."""
        return cls()

    @classmethod
    def unpacked(cls, size: int, packed: bytes) -> Frontier:
        """The frontier of `size` leaves from the bytes that `packed` gave.

        Raises:
            ValueError: the bytes cannot be the peaks of a tree of that size.
        """
        if len(packed) % HASH_BYTES:
            raise ValueError(f"{len(packed)} bytes are not a number of {HASH_BYTES}-byte hashes")
        return cls(size, tuple(packed[at : at + HASH_BYTES] for at in range(0, len(packed), HASH_BYTES)))

    def packed(self) -> bytes:
        """The peaks, one after the other."""
        return b"".join(self.peaks)

    @classmethod
    def at(cls, size: int, node: ReadNode) -> Frontier:
        """The frontier of the first `size` leaves, from the stored nodes: at most log2(size) + 1 reads."""
        return cls(size, tuple(_peaks(0, size, node)))

    def append(self, leaf: bytes) -> tuple[Frontier, list[Node]]:
        """Add one leaf hash; constant time on average, log2(size) at worst.

        Returns: the new frontier, and the interior nodes (level >= 1) that this leaf completed,
            lowest first. They are final: keep them and the leaf hash, and every proof can be made.

        Raises:
            ValueError: not a 32-byte hash.
        """
        return self.extended((leaf,))

    def extended(self, leaves: Sequence[bytes]) -> tuple[Frontier, list[Node]]:
        """Add leaf hashes one after the other. Returns and raises as `append`."""
        peaks: list[bytes] = list(self.peaks)
        completed: list[Node] = []
        for place, leaf in enumerate(leaves, self.size):
            if len(leaf) != HASH_BYTES:
                raise ValueError(f"a leaf hash has {HASH_BYTES} bytes, not {len(leaf)}")
            digest, level, index = leaf, 0, place
            while index & 1:
                digest = node_hash(peaks.pop(), digest)
                level, index = level + 1, index >> 1
                completed.append((level, index, digest))
            peaks.append(digest)
        return Frontier(self.size + len(leaves), tuple(peaks)), completed

    def root(self) -> bytes:
        """The 32-byte tree hash (RFC 6962 section 2.1); SHA-256 of nothing for the empty tree."""
        return _fold(self.peaks) if self.peaks else EMPTY_ROOT


def inclusion_path(index: int, size: int, node: ReadNode) -> list[bytes]:
    """The audit path of leaf `index` in the tree of the first `size` leaves (RFC 6962 section 2.1.1).

    Args:
        index: zero-based.
        size: number of leaves.
        node: reads the 32-byte hash of a complete subtree.

    Returns: 32-byte hashes, from the leaf's sibling up to the root's child.

    Raises:
        ValueError: there is no such leaf in such a tree.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of size {size} has no leaf {index}")
    path, start, end = [], 0, size
    while end - start > 1:
        split = start + _left_width(end - start)
        if index < split:
            path.append(_root(split, end, node))
            end = split
        else:
            path.append(_root(start, split, node))
            start = split
    return path[::-1]


def consistency_path(old: int, new: int, node: ReadNode) -> list[bytes]:
    """The proof that the first `old` of `new` leaves are unchanged (RFC 6962 section 2.1.2).

    Returns: 32-byte hashes in the RFC's order; none when `old` is 0 or equals `new`.

    Raises:
        ValueError: a tree does not shrink.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of size {old} does not grow into one of size {new}")
    if old == 0:
        return []
    path, start, end = [], 0, new
    while end != old:
        split = start + _left_width(end - start)
        if old <= split:
            path.append(_root(split, end, node))
            end = split
        else:
            path.append(_root(start, split, node))
            start = split
    if start:
        path.append(_root(start, end, node))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether the path leads from the leaf hash at `index` to the root (RFC 9162 section 2.1.3.2).

    Every hash has 32 bytes; a path with any other length of hash, or one hash too many or too
    few, is refused.
    """
    if not (0 <= index < size and _hashes(leaf, root, *path)):
        return False
    at, last, digest = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            digest = node_hash(sibling, digest)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and digest == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the tree of `old` leaves is a beginning of the tree of `new` (RFC 9162 section 2.1.4.2).

    Every tree begins with the empty one, and equals itself: both need an empty path.
    """
    if not (0 <= old <= new and _hashes(old_root, new_root, *path)):
        return False
    if old in (0, new):
        return not path and old_root == (new_root if old else EMPTY_ROOT)
    # A complete old tree is itself the first node, and is then left out of the path.
    hashes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not path:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _hashes(*digests: bytes) -> bool:
    return all(len(digest) == HASH_BYTES for digest in digests)


def _left_width(width: int) -> int:
    """The largest power of two below a width of at least 2: where RFC 6962 section 2.1 splits."""
    return 1 << (width - 1).bit_length() - 1


def _peaks(start: int, end: int, node: ReadNode) -> list[bytes]:
    """Roots of the complete subtrees of [start, end), widest first; `start` must be aligned to them."""
    peaks = []
    while start < end:
        level = (end - start).bit_length() - 1
        peaks.append(node(level, start >> level))
        start += 1 << level
    return peaks


def _root(start: int, end: int, node: ReadNode) -> bytes:
    return _fold(_peaks(start, end, node))


def _fold(peaks: Iterable[bytes]) -> bytes:
    """One hash of several peaks: the narrowest two first."""
    narrowest, *wider = reversed(tuple(peaks))
    for peak in wider:
        narrowest = node_hash(peak, narrowest)
    return narrowest

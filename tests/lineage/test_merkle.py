"""The tree against published hashes, a naive second implementation, and every kind of false proof."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256

import naive_tree
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.lineage.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_path,
    inclusion_path,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

LARGEST = 300

# The eight inputs and the roots over the first 1 to 8 of them that Certificate Transparency's
# implementations test themselves with.
CT_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CT_PATH_0_OF_8 = [
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
]


@dataclass
class Log:
    """What a store keeps: every leaf, every node, and here every frontier."""

    leaves: list[bytes] = field(default_factory=list)
    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict)
    frontiers: list[Frontier] = field(default_factory=lambda: [Frontier.empty()])

    def append(self, leaf: bytes) -> None:
        hashed = leaf_hash(leaf)
        self.nodes[0, len(self.leaves)] = hashed
        frontier, completed = self.frontiers[-1].append(hashed)
        for level, index, digest in completed:
            assert level >= 1
            assert (level, index) not in self.nodes
            self.nodes[level, index] = digest
        self.leaves.append(leaf)
        self.frontiers.append(frontier)

    def node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]

    def root(self, size: int) -> bytes:
        return self.frontiers[size].root()

    def leaf(self, index: int) -> bytes:
        return self.nodes[0, index]


_SHARED = Log()  # LARGEST leaves, all different
for _number in range(LARGEST):
    _SHARED.append(b"leaf %d" % _number)


@pytest.fixture
def log() -> Log:
    """The shared log; property tests name it directly."""
    return _SHARED


sizes = st.integers(1, LARGEST)


@st.composite
def places(draw: st.DrawFn) -> tuple[int, int]:
    """An index and a size with index < size."""
    size = draw(sizes)
    return draw(st.integers(0, size - 1)), size


@st.composite
def growths(draw: st.DrawFn) -> tuple[int, int]:
    """Two sizes, the older first; neither zero."""
    new = draw(sizes)
    return draw(st.integers(1, new)), new


def test_roots_are_those_that_certificate_transparency_publishes() -> None:
    """The eight well-known roots, and the hash of nothing for the empty tree."""
    log = Log()
    for leaf in CT_LEAVES:
        log.append(leaf)
    assert [log.root(size).hex() for size in range(1, 9)] == CT_ROOTS
    assert log.root(0) == EMPTY_ROOT == sha256(b"").digest()
    assert [digest.hex() for digest in inclusion_path(0, 8, log.node)] == CT_PATH_0_OF_8


def test_the_proofs_of_rfc_6962_section_2_1_3() -> None:
    """The seven-leaf tree of the RFC's example: its audit paths and consistency proofs, by name."""
    log = Log()
    for number in range(7):
        log.append(b"d%d" % number)
    a, b, c, d, e, f, j = (log.leaf(n) for n in range(7))
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, tail = node_hash(g, h), node_hash(i, j)
    assert inclusion_path(0, 7, log.node) == [b, h, tail]
    assert inclusion_path(3, 7, log.node) == [c, g, tail]
    assert inclusion_path(4, 7, log.node) == [f, j, k]
    assert inclusion_path(6, 7, log.node) == [i, k]
    assert consistency_path(3, 7, log.node) == [c, d, g, tail]
    assert consistency_path(4, 7, log.node) == [tail]
    assert consistency_path(6, 7, log.node) == [i, j, k]


def test_every_root_is_the_naive_one(log: Log) -> None:
    """For each size up to 300 the frontier's root is the recursive definition's."""
    for size in range(LARGEST + 1):
        assert log.root(size) == naive_tree.tree_hash(log.leaves[:size])


@given(places())
@settings(deadline=None)
def test_inclusion_paths_are_the_naive_ones_and_verify(place: tuple[int, int]) -> None:
    """The path from stored nodes is the recursive definition's, and leads to the root."""
    index, size = place
    path = inclusion_path(index, size, _SHARED.node)
    assert path == naive_tree.path(index, _SHARED.leaves[:size])
    assert verify_inclusion(_SHARED.leaf(index), index, size, path, _SHARED.root(size))


@given(growths())
@settings(deadline=None)
def test_consistency_paths_are_the_naive_ones_and_verify(growth: tuple[int, int]) -> None:
    """The proof from stored nodes is the recursive definition's, and leads to both roots."""
    old, new = growth
    path = consistency_path(old, new, _SHARED.node)
    assert path == naive_tree.proof(old, _SHARED.leaves[:new])
    assert verify_consistency(old, new, _SHARED.root(old), _SHARED.root(new), path)


def test_small_trees_exhaustively(log: Log) -> None:
    """Up to 40 leaves every inclusion and every consistency proof verifies, from stored nodes only."""
    for new in range(41):
        for index in range(new):
            path = inclusion_path(index, new, log.node)
            assert verify_inclusion(log.leaf(index), index, new, path, log.root(new))
        for old in range(new + 1):
            path = consistency_path(old, new, log.node)
            assert verify_consistency(old, new, log.root(old), log.root(new), path)


def _tampered(path: list[bytes]) -> Iterator[list[bytes]]:
    """The path with one thing changed: a hash flipped, dropped, doubled or swapped, or one too many."""
    other = sha256(b"other").digest()
    yield [*path, other]
    yield [other, *path]
    for at, digest in enumerate(path):
        flipped = bytes([digest[0] ^ 1]) + digest[1:]
        yield [*path[:at], flipped, *path[at + 1 :]]
        yield [*path[:at], *path[at + 1 :]]
        yield [*path[:at], digest, *path[at:]]
        yield [*path[:at], digest[:31], *path[at + 1 :]]
        yield [*path[:at], digest + b"\0", *path[at + 1 :]]
        if at:
            yield [*path[: at - 1], digest, path[at - 1], *path[at + 1 :]]


@given(places())
@settings(deadline=None)
def test_a_changed_inclusion_proof_fails(place: tuple[int, int]) -> None:
    """Any change to the path, or to the leaf or the root, ends in False."""
    index, size = place
    leaf, root = _SHARED.leaf(index), _SHARED.root(size)
    path = inclusion_path(index, size, _SHARED.node)
    for tampered in _tampered(path):
        assert not verify_inclusion(leaf, index, size, tampered, root)
    assert not verify_inclusion(leaf_hash(b"other"), index, size, path, root)
    assert not verify_inclusion(leaf, index, size, path, leaf_hash(b"other"))


@given(places(), st.integers(-2, LARGEST + 1))
@settings(deadline=None)
def test_an_inclusion_proof_holds_for_no_other_index(place: tuple[int, int], other: int) -> None:
    """A leaf has one place: the same path proves no other."""
    index, size = place
    path = inclusion_path(index, size, _SHARED.node)
    claim = verify_inclusion(_SHARED.leaf(index), other, size, path, _SHARED.root(size))
    assert claim == (other == index)


@given(growths())
@settings(deadline=None)
def test_a_changed_consistency_proof_fails(growth: tuple[int, int]) -> None:
    """Any change to the path or to one of the roots ends in False."""
    old, new = growth
    before, after = _SHARED.root(old), _SHARED.root(new)
    path = consistency_path(old, new, _SHARED.node)
    other = leaf_hash(b"other")
    for tampered in _tampered(path):
        assert not verify_consistency(old, new, before, after, tampered)
    assert not verify_consistency(old, new, other, after, path)
    assert not verify_consistency(old, new, before, other, path)


@given(growths(), sizes)
@settings(deadline=None)
def test_a_rewritten_log_is_not_consistent(growth: tuple[int, int], changed: int) -> None:
    """If one leaf of the old tree was changed, no proof of the new tree leads to the old root."""
    old, new = growth
    if changed > old:
        return
    forged = Log()
    for number, leaf in enumerate(_SHARED.leaves[:new]):
        forged.append(leaf + b"!" if number == changed - 1 else leaf)
    path = consistency_path(old, new, forged.node)
    assert not verify_consistency(old, new, _SHARED.root(old), forged.root(new), path)


def test_a_path_of_another_length_than_the_size_allows_fails(log: Log) -> None:
    """Hashes that lead to the root do not help where the claimed size needs fewer or more of them."""
    first, second, pair = log.leaf(0), log.leaf(1), log.root(2)
    assert verify_inclusion(first, 0, 2, [second], pair)
    assert not verify_inclusion(first, 0, 1, [second], pair)
    assert not verify_inclusion(second, 0, 1, [first], pair)
    assert not verify_inclusion(first, 0, 4, [second], pair)
    assert verify_consistency(1, 2, first, pair, [second])
    assert not verify_consistency(1, 4, first, pair, [second])
    assert not verify_consistency(2, 3, pair, pair, [])


@pytest.mark.parametrize("digest", [b"", b"short", bytes(31), bytes(33)])
def test_what_is_no_hash_is_never_compared(digest: bytes) -> None:
    """Equal bytes of a wrong length are no proof, in any position."""
    assert not verify_inclusion(digest, 0, 1, [], digest)
    assert not verify_consistency(1, 1, digest, digest, [])
    assert not verify_inclusion(bytes(32), 0, 2, [digest], node_hash(bytes(32), digest))


def test_an_interior_node_is_not_a_leaf(log: Log) -> None:
    """A node's two children, presented as a leaf's data, hash to something else than the node."""
    children = log.leaf(0) + log.leaf(1)
    assert leaf_hash(children) != log.nodes[1, 0]
    assert not verify_inclusion(leaf_hash(children), 0, 1, [], log.root(2))


@pytest.mark.parametrize(
    ("index", "size"), [(0, 0), (1, 1), (-1, 1), (5, 4), (0, -1), (2**70, 2**70)], ids=str
)
def test_an_index_outside_the_tree_fails(log: Log, index: int, size: int) -> None:
    """Neither made nor believed: there is no leaf beyond the size, before zero, or in an empty tree."""
    assert not verify_inclusion(log.leaf(0), index, size, [], log.leaf(0))
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_path(index, size, log.node)


def test_a_tree_does_not_shrink(log: Log) -> None:
    """From more leaves to fewer there is no proof, and none is believed."""
    assert not verify_consistency(5, 4, log.root(5), log.root(4), [])
    assert not verify_consistency(-1, 4, EMPTY_ROOT, log.root(4), [])
    with pytest.raises(ValueError, match="does not grow"):
        consistency_path(5, 4, log.node)


def test_every_tree_begins_with_the_empty_one_only(log: Log) -> None:
    """From size 0 only the empty root is believed, and only without a path."""
    assert verify_consistency(0, 4, EMPTY_ROOT, log.root(4), [])
    assert not verify_consistency(0, 4, log.root(4), log.root(4), [])
    assert not verify_consistency(0, 4, EMPTY_ROOT, log.root(4), [log.leaf(0)])
    assert not verify_consistency(0, 0, log.root(1), log.root(1), [])


def test_two_trees_of_one_size_are_one_tree(log: Log) -> None:
    """Equal sizes need equal roots and no path."""
    assert verify_consistency(4, 4, log.root(4), log.root(4), [])
    assert not verify_consistency(4, 4, log.root(4), leaf_hash(b"other"), [])
    assert not verify_consistency(4, 4, log.root(4), log.root(4), [log.leaf(0)])


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 255, 256, 299])
def test_a_frontier_comes_back_from_storage(log: Log, size: int) -> None:
    """From the nodes, or from its packed bytes, it is the same and grows into the same tree."""
    frontier = log.frontiers[size]
    assert Frontier.at(size, log.node) == frontier
    assert Frontier.unpacked(size, frontier.packed()) == frontier
    assert frontier.append(log.leaf(size))[0] == log.frontiers[size + 1]


@pytest.mark.parametrize(
    ("size", "packed"),
    [(0, bytes(32)), (1, b""), (2, bytes(64)), (3, bytes(32)), (1, bytes(31)), (-1, bytes(32))],
)
def test_peaks_that_do_not_fit_the_size_are_refused(size: int, packed: bytes) -> None:
    """A damaged store does not grow a second tree."""
    with pytest.raises(ValueError, match=r"peaks|bytes"):
        Frontier.unpacked(size, packed)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_only_a_hash_is_appended(length: int) -> None:
    """A leaf's data handed in place of its hash is refused unless it looks like one."""
    with pytest.raises(ValueError, match="32 bytes"):
        Frontier.empty().append(bytes(length))


def test_completed_nodes_are_one_less_than_the_leaves_of_complete_trees(log: Log) -> None:
    """A tree of n leaves has n - popcount(n) complete interior nodes: none is left out or kept twice."""
    interior = [key for key in log.nodes if key[0]]
    assert len(interior) == LARGEST - LARGEST.bit_count()

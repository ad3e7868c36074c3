"""Proofs that travel: verified offline, and false in every way that one field can be false."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.core.keys import SigningKey
from guard.lineage.checkpoint import (
    Checkpoint,
    ForgedNote,
    MalformedNote,
    UntrustedNote,
    VerifierKey,
    sign,
)
from guard.lineage.merkle import Frontier, inclusion_path, leaf_hash
from guard.lineage.proof import FIRST_LINE, NotIncluded, Proof, VerifiedEntry, verify, write

KEY = SigningKey.load(bytes(range(32)))
OTHER = SigningKey.load(bytes(range(1, 33)))
ORIGIN = "guard.example/log"
VKEYS = [VerifierKey.of(ORIGIN, KEY.public)]
LEAVES = [b'{"n":%d}' % n for n in range(13)]
REFUSED = (MalformedNote, ForgedNote, UntrustedNote, NotIncluded)


def _tree(leaves: list[bytes]) -> tuple[Frontier, dict[tuple[int, int], bytes]]:
    frontier, nodes = Frontier.empty(), {}
    for index, leaf in enumerate(leaves):
        nodes[0, index] = leaf_hash(leaf)
        frontier, completed = frontier.append(nodes[0, index])
        nodes.update({(level, at): digest for level, at, digest in completed})
    return frontier, nodes


TREE, NODES = _tree(LEAVES)
CHECKPOINT = Checkpoint(ORIGIN, len(LEAVES), TREE.root())
NOTE = sign(CHECKPOINT, KEY)


def _path(index: int, size: int = len(LEAVES)) -> list[bytes]:
    return inclusion_path(index, size, lambda level, at: NODES[level, at])


INDEX = 5
PROOF = write(INDEX, LEAVES[INDEX], _path(INDEX), NOTE)


@pytest.mark.parametrize("index", range(len(LEAVES)))
def test_every_entry_has_a_proof_that_verifies(index: int) -> None:
    """The leaf's bytes, its index and the checkpoint come out of the proof and a verifier key."""
    proof = write(index, LEAVES[index], _path(index), NOTE)
    assert verify(proof, VKEYS) == VerifiedEntry(index, LEAVES[index], CHECKPOINT)
    assert verify(proof.encode(), VKEYS).leaf == LEAVES[index]


def test_the_only_leaf_needs_no_path() -> None:
    """A tree of one leaf: the proof has no path lines and still its empty line."""
    root = leaf_hash(b"only")
    proof = write(0, b"only", [], sign(Checkpoint(ORIGIN, 1, root), KEY))
    assert proof.startswith(f"{FIRST_LINE}\nextra b25seQ==\nindex 0\n\n{ORIGIN}\n1\n")
    assert verify(proof, VKEYS).leaf == b"only"


@given(st.integers(0, len(PROOF.encode()) - 1), st.integers(1, 255))
@settings(deadline=None)
def test_a_proof_with_one_changed_byte_is_refused(at: int, difference: int) -> None:
    """No byte of a proof is without meaning."""
    data = bytearray(PROOF.encode())
    data[at] ^= difference
    with pytest.raises(REFUSED):
        verify(bytes(data), VKEYS)


@given(st.integers(0, len(PROOF)), st.text(st.characters(), min_size=1, max_size=2))
@settings(deadline=None)
def test_a_proof_with_something_put_in_is_refused(at: int, extra: str) -> None:
    """Insertions anywhere, of any characters, are refused."""
    with pytest.raises(REFUSED):
        verify(PROOF[:at] + extra + PROOF[at:], VKEYS)


@given(st.integers(0, len(PROOF) - 1))
@settings(deadline=None)
def test_a_proof_that_was_cut_off_is_refused(length: int) -> None:
    """No beginning of a proof is a proof."""
    with pytest.raises(REFUSED):
        verify(PROOF[:length], VKEYS)


@pytest.mark.parametrize("index", [*range(5), *range(6, 15), 2**63 - 2])
def test_a_proof_for_another_index_fails(index: int) -> None:
    """An entry has one place in the log."""
    with pytest.raises(NotIncluded):
        verify(write(index, LEAVES[INDEX], _path(INDEX), NOTE), VKEYS)


def test_a_proof_for_another_leaf_fails() -> None:
    """Nothing else was logged at that place: not a neighbour, not a changed leaf, not two children."""
    children = NODES[0, 4] + NODES[0, 5]
    for leaf in (LEAVES[4], LEAVES[INDEX] + b" ", children):
        with pytest.raises(NotIncluded):
            verify(write(INDEX, leaf, _path(INDEX), NOTE), VKEYS)


def test_a_proof_with_a_changed_path_fails() -> None:
    """Each hash counts, and so do their number and order."""
    path = _path(INDEX)
    wrong = [path[:-1], path[1:], [*path, path[0]], path[::-1], [], [bytes(32), *path[1:]]]
    for tampered in wrong:
        with pytest.raises(NotIncluded):
            verify(write(INDEX, LEAVES[INDEX], tampered, NOTE), VKEYS)


def test_a_proof_under_another_checkpoint_fails() -> None:
    """The path belongs to one tree size and one root, even where the log signed both."""
    smaller, _ = _tree(LEAVES[:9])
    for checkpoint in (
        Checkpoint(ORIGIN, 9, smaller.root()),
        Checkpoint(ORIGIN, 13, smaller.root()),
        Checkpoint(ORIGIN, 29, TREE.root()),
    ):
        with pytest.raises(NotIncluded):
            verify(write(INDEX, LEAVES[INDEX], _path(INDEX), sign(checkpoint, KEY)), VKEYS)


def test_a_size_other_than_the_signed_one_fails() -> None:
    """The root is signed together with its size."""
    with pytest.raises(ForgedNote):
        verify(PROOF.replace(f"{ORIGIN}\n13\n", f"{ORIGIN}\n14\n"), VKEYS)


def test_a_checkpoint_that_the_log_did_not_sign_proves_nothing() -> None:
    """A forger can build a tree around any leaf; without the log's key it is worthless."""
    frontier, _ = _tree([b"forged"])
    note = sign(Checkpoint(ORIGIN, 1, frontier.root()), OTHER)
    with pytest.raises(UntrustedNote):
        verify(write(0, b"forged", [], note), VKEYS)


def test_a_trusted_log_cannot_prove_for_another() -> None:
    """Another log's key signing this log's origin is refused although both keys are trusted."""
    other = VerifierKey.of("other.example/log", OTHER.public)
    frontier, _ = _tree([b"forged"])
    note = sign(Checkpoint(ORIGIN, 1, frontier.root()), OTHER, name="other.example/log")
    with pytest.raises(UntrustedNote):
        verify(write(0, b"forged", [], note), [*VKEYS, other])


HEAD, REST = PROOF.split("\n\n", 1)
EXTRA_LINE, INDEX_LINE, *PATH_LINES = HEAD.split("\n")[1:]


def _with(*lines: str) -> str:
    return "\n".join(lines) + "\n\n" + REST


MALFORMED = {
    "nothing": "",
    "a checkpoint": NOTE,
    "another version": PROOF.replace("@v1", "@v2", 1),
    "space after the first line": PROOF.replace("@v1", "@v1 ", 1),
    "newline first": f"\n{PROOF}",
    "byte order mark first": f"\ufeff{PROOF}",
    "carriage returns": PROOF.replace("\n", "\r\n"),
    "bytes that are not utf-8": PROOF.encode() + b"\xff",
    "no leaf": _with(FIRST_LINE, INDEX_LINE, *PATH_LINES),
    "empty extra": _with(FIRST_LINE, "extra ", INDEX_LINE, *PATH_LINES),
    "extra without a space": _with(FIRST_LINE, "extra", INDEX_LINE, *PATH_LINES),
    "extra without padding": _with(FIRST_LINE, "extra YQ", INDEX_LINE, *PATH_LINES),
    "extra with other trailing bits": _with(FIRST_LINE, "extra YR==", INDEX_LINE, *PATH_LINES),
    "extra in base64url": _with(FIRST_LINE, "extra -_-_", INDEX_LINE, *PATH_LINES),
    "two extra lines": _with(FIRST_LINE, EXTRA_LINE, EXTRA_LINE, INDEX_LINE, *PATH_LINES),
    "extra after index": _with(FIRST_LINE, INDEX_LINE, EXTRA_LINE, *PATH_LINES),
    "no index": _with(FIRST_LINE, EXTRA_LINE, *PATH_LINES),
    "nothing after the first line": _with(FIRST_LINE),
    "two index lines": _with(FIRST_LINE, EXTRA_LINE, INDEX_LINE, INDEX_LINE, *PATH_LINES),
    "index with a leading zero": _with(FIRST_LINE, EXTRA_LINE, "index 05", *PATH_LINES),
    "index with a plus sign": _with(FIRST_LINE, EXTRA_LINE, "index +5", *PATH_LINES),
    "index with two spaces": _with(FIRST_LINE, EXTRA_LINE, "index  5", *PATH_LINES),
    "index in other digits": _with(FIRST_LINE, EXTRA_LINE, "index \u0665", *PATH_LINES),
    "negative index": _with(FIRST_LINE, EXTRA_LINE, "index -1", *PATH_LINES),
    "index beyond 63 bits": _with(FIRST_LINE, EXTRA_LINE, f"index {2**63}", *PATH_LINES),
    "index that no tree has": _with(FIRST_LINE, EXTRA_LINE, f"index {2**63 - 1}", *PATH_LINES),
    "short hash": _with(FIRST_LINE, EXTRA_LINE, INDEX_LINE, b64encode(bytes(31)).decode()),
    "long hash": _with(FIRST_LINE, EXTRA_LINE, INDEX_LINE, b64encode(bytes(33)).decode()),
    "hash in hexadecimal": _with(FIRST_LINE, EXTRA_LINE, INDEX_LINE, bytes(32).hex()),
    "too many hashes": _with(FIRST_LINE, EXTRA_LINE, INDEX_LINE, *PATH_LINES * 16),
    "no empty line": f"{HEAD}\n{REST}",
    "no checkpoint": f"{HEAD}\n\n",
    "checkpoint left out": HEAD,
    "something after the checkpoint": f"{PROOF}\n",
    "too long": _with(FIRST_LINE, "extra " + "AAAA" * 300_000, INDEX_LINE, *PATH_LINES),
}


@pytest.mark.parametrize("proof", MALFORMED.values(), ids=MALFORMED)
def test_a_proof_has_one_spelling(proof: str | bytes) -> None:
    """Whatever would not be written that way again is refused."""
    with pytest.raises(MalformedNote):
        verify(proof, VKEYS)


def test_the_head_alone_is_not_parsed() -> None:
    """Without its empty line and checkpoint it would be written differently, so it is refused."""
    with pytest.raises(MalformedNote, match="spelling"):
        Proof.parse(HEAD)


def test_a_foreign_proof_without_a_leaf_is_read_but_not_believed() -> None:
    """The format allows proofs whose leaf is known otherwise; `parse` reads them, `verify` wants the leaf."""
    proof = Proof.parse(_with(FIRST_LINE, INDEX_LINE, *PATH_LINES))
    assert proof.extra is None
    assert proof.index == INDEX
    assert proof.text() == _with(FIRST_LINE, INDEX_LINE, *PATH_LINES)


@pytest.mark.parametrize(
    ("index", "leaf", "path"),
    [
        (-1, b"a", []),
        (2**63, b"a", []),
        (0, b"", []),
        (0, b"a", [b"short"]),
        (0, b"a", [bytes(32)] * 64),
        (0, bytes(2**20), []),
    ],
)
def test_a_proof_that_could_not_be_read_cannot_be_written(index: int, leaf: bytes, path: list[bytes]) -> None:
    """The fields are held to the format when the proof is made."""
    with pytest.raises(MalformedNote):
        write(index, leaf, path, NOTE)


def test_witness_lines_travel_along() -> None:
    """Cosignatures of keys that the reader does not know are kept and do no harm."""
    witness = f"\u2014 witness.example {b64encode(bytes(76)).decode()}\n"
    proof = write(INDEX, LEAVES[INDEX], _path(INDEX), NOTE + witness)
    assert verify(proof, VKEYS).index == INDEX
    assert proof.endswith(witness)

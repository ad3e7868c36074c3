"""Proofs that travel: one entry of the log, checked offline against a verifier key.

The format is C2SP tlog-proof v1. Guard puts the leaf's bytes into the `extra` line, so that a
proof carries what it proves; they count only once the path has led from them to a signed root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from guard.core.errors import GuardError
from guard.lineage.checkpoint import (
    MAX_NOTE_BYTES,
    MAX_TREE_SIZE,
    Checkpoint,
    MalformedNote,
    VerifierKey,
    base64,
    decimal,
    open_checkpoint,
    unbase64,
    utf8,
)
from guard.lineage.merkle import HASH_BYTES, leaf_hash, verify_inclusion

FIRST_LINE: Final = "c2sp.org/tlog-proof@v1"
MAX_PATH: Final = 63
MAX_PROOF_BYTES: Final = 2 * MAX_NOTE_BYTES

_MAKE_AGAIN: Final = "ask for the proof again, and take the file as it is"


class NotIncluded(GuardError):
    """The path does not lead from the leaf to the signed root."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof as it is written: nothing in it has been verified.

    Attributes:
        index: zero-based place of the entry in the log, below 2^63.
        extra: the `extra` line's bytes, the leaf in a proof of Guard's; None where there is no such line.
        path: 32-byte hashes from the leaf's sibling to the root's child (RFC 6962 section 2.1.1).
        checkpoint: the log's signed checkpoint, verbatim.

    Raises:
        MalformedNote: a field that no proof can carry.
    """

    index: int
    extra: bytes | None
    path: tuple[bytes, ...]
    checkpoint: str

    def __post_init__(self) -> None:
        if not 0 <= self.index < MAX_TREE_SIZE:
            raise MalformedNote("an index lies between 0 and 2^63-2", where="index")
        if self.extra == b"":
            raise MalformedNote("an extra line is not empty", where="extra")
        if len(self.path) > MAX_PATH or any(len(digest) != HASH_BYTES for digest in self.path):
            raise MalformedNote(f"a path has at most {MAX_PATH} hashes of {HASH_BYTES} bytes", where="path")

    def text(self) -> str:
        """The proof's one spelling."""
        extra = [] if self.extra is None else [f"extra {base64(self.extra)}"]
        lines = [FIRST_LINE, *extra, f"index {self.index}", *map(base64, self.path)]
        return "\n".join([*lines, "", self.checkpoint])

    @classmethod
    def parse(cls, text: str | bytes) -> Proof:
        """Read a proof strictly: parse, write again, compare. Nothing is verified.

        Raises:
            MalformedNote: not the one spelling of a proof, or more than MAX_PROOF_BYTES.
        """
        whole = utf8(text, MAX_PROOF_BYTES)
        head, _, checkpoint = whole.partition("\n\n")
        first, *lines = head.split("\n")
        if first != FIRST_LINE:
            raise MalformedNote(f"a proof begins with {FIRST_LINE}", where="line 1", remedy=_MAKE_AGAIN)
        extra: bytes | None = None
        if lines and lines[0].startswith("extra "):
            extra = _bytes(lines.pop(0).removeprefix("extra "), "extra")
        word, _, number = lines.pop(0).partition(" ") if lines else ("", "", "")
        index = decimal(number) if word == "index" else None
        if index is None:
            raise MalformedNote("not a decimal without leading zeros", where="index", remedy=_MAKE_AGAIN)
        proof = cls(index, extra, tuple(_bytes(line, "path") for line in lines), checkpoint)
        if proof.text() != whole:
            raise MalformedNote("not the one spelling of this proof", remedy=_MAKE_AGAIN)
        return proof


@dataclass(frozen=True, slots=True)
class VerifiedEntry:
    """An entry that the log committed to.

    Attributes:
        index: its zero-based place.
        leaf: its bytes.
        checkpoint: the signed statement that covers it.
    """

    index: int
    leaf: bytes
    checkpoint: Checkpoint


def write(index: int, leaf: bytes, path: Sequence[bytes], checkpoint: str) -> str:
    """The proof of one entry.

    Args:
        index: zero-based place of the entry.
        leaf: the leaf's bytes, at least one.
        path: what `merkle.inclusion_path` gave for the checkpoint's tree size.
        checkpoint: the signed note, as `checkpoint.sign` gave it.

    Raises:
        MalformedNote: a field that no proof can carry, or more than MAX_PROOF_BYTES in all.
    """
    text = Proof(index, leaf, tuple(path), checkpoint).text()
    utf8(text, MAX_PROOF_BYTES)
    return text


def verify(proof: str | bytes, vkeys: Iterable[VerifierKey]) -> VerifiedEntry:
    """Check a proof offline: spelling, the log's signature, and the path (C2SP tlog-proof).

    Raises:
        MalformedNote: not the one spelling of a proof or of its checkpoint, or no leaf in it.
        ForgedNote: a signature in the name of a trusted key fails.
        UntrustedNote: no trusted key whose name is the checkpoint's origin signed.
        NotIncluded: the path does not lead from the leaf to the root.
    """
    parsed = Proof.parse(proof)
    checkpoint = open_checkpoint(parsed.checkpoint, vkeys)
    leaf = parsed.extra
    if leaf is None:
        raise MalformedNote("the proof carries no leaf", where="extra", remedy=_MAKE_AGAIN)
    if not verify_inclusion(leaf_hash(leaf), parsed.index, checkpoint.size, parsed.path, checkpoint.root):
        raise NotIncluded(
            "the log's checkpoint does not cover this leaf at this place",
            where=f"index {parsed.index}",
            remedy="do not rely on the entry; ask the log's operator for proof and checkpoint again",
        )
    return VerifiedEntry(parsed.index, leaf, checkpoint)


def _bytes(encoded: str, where: str) -> bytes:
    data = unbase64(encoded)
    if data is None:
        raise MalformedNote("not canonical base64", where=where, remedy=_MAKE_AGAIN)
    return data

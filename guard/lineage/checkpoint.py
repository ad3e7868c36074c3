"""Signed notes and checkpoints: what the log says about itself, in the form that witnesses read.

The formats are C2SP signed-note and tlog-checkpoint. Reading is parse, write again, compare: a
note that does not come out as the bytes that went in is refused, so there is one spelling of
each note and no room beside it.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from guard.core.errors import GuardError, printable
from guard.core.keys import KEY_BYTES, BadKey, PublicKey, SigningKey, note_key_id
from guard.core.keys import vkey as format_vkey
from guard.lineage.merkle import EMPTY_ROOT, HASH_BYTES

MAX_NOTE_BYTES: Final = 512 * 1024
MAX_SIGNATURES: Final = 64
MAX_TREE_SIZE: Final = 2**63 - 1

_KEY_ID_BYTES: Final = 4
_ED25519: Final = b"\x01"
_DASH: Final = "\u2014 "
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_ASK_AGAIN: Final = "fetch it again from the log; if it comes the same, keep it as evidence"


class MalformedNote(GuardError):
    """The bytes are not a note, a checkpoint or a proof in their one spelling."""


class UntrustedNote(GuardError):
    """No key that the reader trusts for this note signed it."""


class ForgedNote(GuardError):
    """A signature in the name of a trusted key does not verify."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A trusted Ed25519 key under a name (C2SP signed-note, signature type 0x01).

    Attributes:
        name: non-empty, without spaces and plus signs; for a log, its origin.
        key: the public key.
        id: the 4-byte key ID.
    """

    name: str
    key: PublicKey
    id: bytes

    @classmethod
    def of(cls, name: str, key: PublicKey) -> VerifierKey:
        """The verifier key of a public key under a name.

        Raises:
            BadKey: no note can carry that name.
        """
        if not _is_key_name(name):
            raise BadKey(
                "a key name is not empty and has no spaces, plus signs or control characters",
                where=printable(name),
            )
        return cls(name, key, note_key_id(name, key.raw))

    def __str__(self) -> str:
        return format_vkey(self.name, self.key.raw)


def parse_vkey(text: str) -> VerifierKey:
    """Read a verifier key, `name+hex(key ID)+base64(0x01 || key)` (C2SP signed-note).

    Raises:
        BadKey: another shape or spelling, another signature type than Ed25519, a key ID that is
            not the key's, or a point that `guard.core.keys` refuses.
    """
    name, _, rest = text.partition("+")
    key_id, _, material = rest.partition("+")
    where = f"vkey {printable(name[:80])}"
    decoded = unbase64(material)
    if decoded is None or len(key_id) != 2 * _KEY_ID_BYTES:
        raise BadKey(
            "not a verifier key", where=where, remedy="give one line: name+8 hex digits+44 base64 characters"
        )
    if decoded[:1] != _ED25519 or len(decoded) != 1 + KEY_BYTES:
        raise BadKey("only Ed25519 verifier keys (type 0x01) are taken", where=where)
    key = VerifierKey.of(name, PublicKey.load(decoded[1:]))
    if str(key) != text:
        raise BadKey("the key ID is not that of the name and key", where=where, remedy="copy the line again")
    return key


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log commits to: its first `size` leaves, by their root (C2SP tlog-checkpoint).

    Attributes:
        origin: the log's identity, one line; also the name of the log's key.
        size: number of leaves, 0 to 2^63-1.
        root: the 32-byte RFC 6962 tree hash.

    Raises:
        MalformedNote: a field that no checkpoint can carry.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or "\n" in self.origin or not _is_note_text(self.origin):
            raise MalformedNote("an origin is one line without control characters", where="origin")
        if not 0 <= self.size <= MAX_TREE_SIZE:
            raise MalformedNote("a tree size lies between 0 and 2^63-1", where="size")
        if len(self.root) != HASH_BYTES:
            raise MalformedNote(f"a root hash has {HASH_BYTES} bytes, not {len(self.root)}", where="root")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise MalformedNote("the root of an empty tree is the hash of nothing", where="root")

    def text(self) -> str:
        """The note text: origin, size and root, a line each."""
        return f"{self.origin}\n{self.size}\n{base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read a note text strictly. Check its signature first: `open_checkpoint` does both.

        Extension lines are refused: they would be signed and mean nothing.

        Raises:
            MalformedNote: not the one spelling of a checkpoint.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:  # noqa: PLR2004 - three lines and the end of the last
            raise MalformedNote("a checkpoint is three lines: origin, size, root", remedy=_ASK_AGAIN)
        size, root = decimal(lines[1]), unbase64(lines[2])
        if size is None:
            raise MalformedNote("not a decimal without leading zeros", where="size", remedy=_ASK_AGAIN)
        if root is None:
            raise MalformedNote("not canonical base64", where="root", remedy=_ASK_AGAIN)
        return cls(lines[0], size, root)


def sign(checkpoint: Checkpoint, key: SigningKey, name: str | None = None) -> str:
    """The signed note of a checkpoint, with one Ed25519 signature.

    Args:
        checkpoint: what is signed; the caller makes sure that it extends what was signed before.
        key: the log's key, which signs nothing but checkpoints.
        name: the key's name; the origin unless given.

    Raises:
        BadKey: the name (or an origin used as one) cannot name a key.
    """
    signer = VerifierKey.of(checkpoint.origin if name is None else name, key.public)
    text = checkpoint.text()
    return f"{text}\n{_DASH}{signer.name} {base64(signer.id + key.sign(text.encode()))}\n"


def open_note(note: str | bytes, vkeys: Iterable[VerifierKey]) -> str:
    """The text of a note that at least one of the keys signed (C2SP signed-note).

    Signatures of unknown keys are ignored. Each trusted key signs at most once, and one
    signature in its name that fails refuses the whole note.

    Raises:
        MalformedNote: not the one spelling of a note; more than MAX_NOTE_BYTES or MAX_SIGNATURES;
            or two signatures of one trusted key.
        ForgedNote: a signature in the name of a trusted key fails.
        UntrustedNote: no trusted key signed.
    """
    text, _ = _opened(note, vkeys)
    return text


def open_checkpoint(note: str | bytes, vkeys: Iterable[VerifierKey]) -> Checkpoint:
    """The checkpoint in a note, signed by the key of its own origin.

    A trusted key of another log does not do: a checkpoint with origin A is only A's word.

    Raises:
        MalformedNote, ForgedNote: as `open_note`, or not a checkpoint.
        UntrustedNote: no trusted key whose name is the origin signed.
    """
    text, names = _opened(note, vkeys)
    checkpoint = Checkpoint.parse(text)
    if checkpoint.origin not in names:
        raise UntrustedNote(
            "signed by a trusted key, but not by that of its origin",
            where=f"origin {printable(checkpoint.origin)}",
            remedy="trust the log's own key, or ask who made this",
        )
    return checkpoint


def _opened(note: str | bytes, vkeys: Iterable[VerifierKey]) -> tuple[str, frozenset[str]]:
    """The verified text, and the names of the trusted keys that signed it."""
    known = _by_identity(vkeys)
    text, signatures = _split(note)
    signed: set[tuple[str, bytes]] = set()
    for name, key_id, signature in signatures:
        trusted = known.get((name, key_id))
        if trusted is None:
            continue
        where = f"signature of {printable(name)}"
        if not trusted.key.verifies(signature, text.encode()):
            raise ForgedNote("the signature does not verify", where=where, remedy=_ASK_AGAIN)
        if (name, key_id) in signed:
            raise MalformedNote("a trusted key signed twice", where=where, remedy=_ASK_AGAIN)
        signed.add((name, key_id))
    if not signed:
        raise UntrustedNote(
            "no trusted key signed the note",
            remedy="check that the verifier key is that of the log, as its operator publishes it",
        )
    return text, frozenset(name for name, _ in signed)


def _by_identity(vkeys: Iterable[VerifierKey]) -> dict[tuple[str, bytes], VerifierKey]:
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in vkeys:
        if known.setdefault((key.name, key.id), key).key.raw != key.key.raw:
            raise BadKey("two keys share one name and key ID", where=f"vkey {printable(key.name)}")
    return known


def _split(note: str | bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Text and signatures (name, key ID, signature bytes) of a note, none of them verified."""
    whole = utf8(note, MAX_NOTE_BYTES)
    if not _is_note_text(whole):
        raise MalformedNote("a control character other than newline", remedy=_ASK_AGAIN)
    body, blank, tail = whole.rpartition("\n\n")
    lines = tail.split("\n")[:-1]
    if not blank or not lines:
        raise MalformedNote("a note is text, an empty line and signature lines", remedy=_ASK_AGAIN)
    if len(lines) > MAX_SIGNATURES:
        raise MalformedNote(f"more than {MAX_SIGNATURES} signatures", remedy=_ASK_AGAIN)
    signatures = [_signature(line, number) for number, line in enumerate(lines, 1)]
    written = "".join(f"{_DASH}{name} {base64(key_id + sig)}\n" for name, key_id, sig in signatures)
    if f"{body}\n\n{written}" != whole:
        raise MalformedNote("not the one spelling of this note", remedy=_ASK_AGAIN)
    return f"{body}\n", signatures


def _signature(line: str, number: int) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    decoded = unbase64(encoded)
    if not _is_key_name(name) or decoded is None or len(decoded) <= _KEY_ID_BYTES:
        raise MalformedNote("not a signature line", where=f"signature {number}", remedy=_ASK_AGAIN)
    return name, decoded[:_KEY_ID_BYTES], decoded[_KEY_ID_BYTES:]


def _is_key_name(name: str) -> bool:
    return bool(name) and _is_note_text(name) and not any(c.isspace() or c == "+" for c in name)


def _is_note_text(text: str) -> bool:
    """Whether the text encodes to UTF-8 and has no ASCII control character but newline."""
    return not _CONTROL.search(text) and not any("\ud800" <= c <= "\udfff" for c in text)


def utf8(data: str | bytes, limit: int) -> str:
    """The text of at most `limit` bytes of UTF-8.

    Raises:
        MalformedNote: too long, or not UTF-8.
    """
    try:
        encoded = data.encode() if isinstance(data, str) else data
        if len(encoded) > limit:
            raise MalformedNote(f"longer than {limit} bytes")
        return encoded.decode()
    except UnicodeError:
        raise MalformedNote("not UTF-8", remedy=_ASK_AGAIN) from None


def decimal(text: str) -> int | None:
    """The number that the text spells in its one way, 0 to 2^63-1; else None."""
    number = int(text) if _DECIMAL.fullmatch(text) else -1
    return number if 0 <= number <= MAX_TREE_SIZE else None


def base64(data: bytes) -> str:
    """Base64 with padding (RFC 4648 section 4), the form that C2SP uses."""
    return b64encode(data).decode("ascii")


def unbase64(text: str) -> bytes | None:
    """The bytes that the text spells in the one way of RFC 4648 section 4; else None."""
    try:
        data = b64decode(text, validate=True)
    except (NotBase64, ValueError):
        return None
    return data if base64(data) == text else None

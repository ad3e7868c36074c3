"""Notes and checkpoints: one spelling, the right signer, nothing else."""

from __future__ import annotations

import subprocess
from base64 import b64decode, b64encode
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.core.keys import BadKey, SigningKey, note_key_id
from guard.lineage.checkpoint import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Checkpoint,
    ForgedNote,
    MalformedNote,
    UntrustedNote,
    VerifierKey,
    open_checkpoint,
    open_note,
    parse_vkey,
    sign,
)
from guard.lineage.merkle import EMPTY_ROOT, leaf_hash

KEY = SigningKey.load(bytes(range(32)))
OTHER = SigningKey.load(bytes(range(1, 33)))
ORIGIN = "guard.example/log"
TRUSTED = VerifierKey.of(ORIGIN, KEY.public)
CHECKPOINT = Checkpoint(ORIGIN, 7, leaf_hash(b"root"))
NOTE = sign(CHECKPOINT, KEY)
TEXT, LINE = CHECKPOINT.text(), NOTE.split("\n\n")[1]

# The example of C2SP signed-note.
EXAMPLE_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_NOTE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


def _line(text: str, key: SigningKey = KEY, name: str = ORIGIN) -> str:
    """The signature line of any text."""
    encoded = b64encode(note_key_id(name, key.public.raw) + key.sign(text.encode())).decode()
    return f"\u2014 {name} {encoded}\n"


def _signed(text: str) -> str:
    return f"{text}\n{_line(text)}"


def test_the_example_of_signed_note_verifies() -> None:
    """The note and the verifier key that C2SP publishes."""
    assert open_note(EXAMPLE_NOTE, [parse_vkey(EXAMPLE_VKEY)]) == "This is an example message.\n"
    assert open_note(EXAMPLE_NOTE.encode(), [parse_vkey(EXAMPLE_VKEY)]) == "This is an example message.\n"


def test_a_checkpoint_comes_back_as_it_was_signed() -> None:
    """What `sign` writes, `open_checkpoint` reads."""
    assert open_checkpoint(NOTE, [TRUSTED]) == CHECKPOINT
    empty = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    assert open_checkpoint(sign(empty, KEY), [TRUSTED]) == empty


@given(st.integers(0, len(NOTE.encode()) - 1), st.integers(1, 255))
@settings(deadline=None)
def test_a_note_with_one_changed_byte_is_refused(at: int, difference: int) -> None:
    """No byte of a note is without meaning."""
    data = bytearray(NOTE.encode())
    data[at] ^= difference
    with pytest.raises((MalformedNote, ForgedNote, UntrustedNote)):
        open_checkpoint(bytes(data), [TRUSTED])


@given(st.integers(0, len(NOTE)), st.text(st.characters(), min_size=1, max_size=2))
@settings(deadline=None)
def test_a_note_with_something_put_in_is_refused(at: int, extra: str) -> None:
    """Insertions anywhere, of any characters, are refused."""
    with pytest.raises((MalformedNote, ForgedNote, UntrustedNote)):
        open_checkpoint(NOTE[:at] + extra + NOTE[at:], [TRUSTED])


@given(st.integers(0, len(NOTE) - 1))
@settings(deadline=None)
def test_a_note_that_was_cut_off_is_refused(length: int) -> None:
    """No beginning of a note is a note."""
    with pytest.raises((MalformedNote, UntrustedNote)):
        open_note(NOTE[:length], [TRUSTED])


MALFORMED_NOTES = {
    "nothing": "",
    "text only": TEXT,
    "no empty line": TEXT + LINE,
    "no signature": f"{TEXT}\n",
    "no text": f"\n{LINE}",
    "no newline at the end": NOTE[:-1],
    "two newlines at the end": f"{NOTE}\n",
    "carriage returns": NOTE.replace("\n", "\r\n"),
    "tab in the text": _signed("guard.example/log\t\n7\n"),
    "escape in the text": _signed("guard.example/log\x1b[2J\n"),
    "zero byte in the text": _signed("a\x00\n"),
    "lone surrogate": _signed("a\n").replace("a", "\ud800", 1),
    "bytes that are not utf-8": b"\xff" + NOTE.encode(),
    "byte order mark before the dash": f"{TEXT}\n\ufeff{LINE}",
    "hyphen instead of a dash": f"{TEXT}\n{LINE.replace(chr(0x2014), '-')}",
    "two spaces": f"{TEXT}\n{LINE.replace(' ', '  ', 1)}",
    "space at the end of a signature": f"{TEXT}\n{LINE[:-1]} \n",
    "no name": f"{TEXT}\n\u2014  {LINE.split(' ')[2]}",
    "plus in a name": f"{TEXT}\n{LINE.replace('guard', 'gu+ard')}",
    "no-break space in a name": f"{TEXT}\n{LINE.replace('guard', 'gu' + chr(0xA0) + 'ard')}",
    "no signature in its line": f"{TEXT}\n\u2014 {ORIGIN}\n",
    "signature is not base64": f"{TEXT}\n\u2014 {ORIGIN} !!!!\n",
    "signature in base64url": f"{TEXT}\n\u2014 {ORIGIN} {'-_' * 48}\n",
    "padding left out": f"{TEXT}\n{LINE.replace('=', '')}",
    "other trailing bits": f"{TEXT}\n\u2014 other.example AAAAAAB=\n",
    "a key id and no signature": f"{TEXT}\n\u2014 other.example AAAAAA==\n",
    "text among the signatures": f"{NOTE}hello\n{LINE}",
    "a trusted key twice": NOTE + LINE,
    "too many signatures": NOTE + "\u2014 other.example AAAAAAA=\n" * MAX_SIGNATURES,
    "too long": _signed("a" * MAX_NOTE_BYTES + "\n"),
}


@pytest.mark.parametrize("note", MALFORMED_NOTES.values(), ids=MALFORMED_NOTES)
def test_a_note_has_one_spelling(note: str | bytes) -> None:
    """Whatever would not be written that way again is refused before it is believed."""
    with pytest.raises(MalformedNote):
        open_note(note, [TRUSTED])


MALFORMED_CHECKPOINTS = {
    "leading zero": TEXT.replace("\n7\n", "\n07\n"),
    "zero with a leading zero": TEXT.replace("\n7\n", "\n00\n"),
    "plus sign": TEXT.replace("\n7\n", "\n+7\n"),
    "minus sign": TEXT.replace("\n7\n", "\n-7\n"),
    "spaces": TEXT.replace("\n7\n", "\n 7\n"),
    "underscore": TEXT.replace("\n7\n", "\n1_000\n"),
    "arabic digit": TEXT.replace("\n7\n", "\n\u0667\n"),
    "full-width digit": TEXT.replace("\n7\n", "\n\uff17\n"),
    "hexadecimal": TEXT.replace("\n7\n", "\n0x7\n"),
    "exponent": TEXT.replace("\n7\n", "\n7e0\n"),
    "beyond 63 bits": TEXT.replace("\n7\n", f"\n{2**63}\n"),
    "thirty digits": TEXT.replace("\n7\n", f"\n{'9' * 30}\n"),
    "no size": TEXT.replace("\n7\n", "\n\n"),
    "size left out": TEXT.replace("\n7\n", "\n"),
    "no origin": TEXT.replace(ORIGIN, ""),
    "root left out": f"{ORIGIN}\n7\n",
    "root of 31 bytes": f"{ORIGIN}\n7\n{b64encode(bytes(31)).decode()}\n",
    "root of 33 bytes": f"{ORIGIN}\n7\n{b64encode(bytes(33)).decode()}\n",
    "root in hexadecimal": f"{ORIGIN}\n7\n{bytes(32).hex()}\n",
    "root without padding": TEXT.replace("=\n", "\n"),
    "root with other trailing bits": f"{ORIGIN}\n7\n{'A' * 42}B=\n",
    "empty tree with a root": TEXT.replace("\n7\n", "\n0\n"),
    "extension line": f"{TEXT}extension\n",
    "empty line at the end": f"{TEXT}\n",
    "empty text": "\n",
}


@pytest.mark.parametrize("text", MALFORMED_CHECKPOINTS.values(), ids=MALFORMED_CHECKPOINTS)
def test_a_signed_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    """The log's own signature does not make another spelling of a checkpoint one."""
    note = _signed(text)
    assert open_note(note, [TRUSTED]) == text
    with pytest.raises(MalformedNote):
        open_checkpoint(note, [TRUSTED])


@pytest.mark.parametrize(
    ("origin", "size", "root"),
    [
        ("", 1, bytes(32)),
        ("a\nb", 1, bytes(32)),
        ("a\x1b", 1, bytes(32)),
        ("\ud800", 1, bytes(32)),
        (ORIGIN, -1, bytes(32)),
        (ORIGIN, 2**63, bytes(32)),
        (ORIGIN, 1, bytes(31)),
        (ORIGIN, 0, bytes(32)),
    ],
)
def test_a_checkpoint_that_could_not_be_read_cannot_be_made(origin: str, size: int, root: bytes) -> None:
    """The fields are held to the format when the value is made."""
    with pytest.raises(MalformedNote):
        Checkpoint(origin, size, root)


def test_signatures_of_unknown_keys_are_ignored() -> None:
    """Witnesses and new keys may sign too; sixteen of them at least are taken."""
    unknown = [_line(TEXT, OTHER, f"witness{n}.example") for n in range(MAX_SIGNATURES - 1)]
    assert MAX_SIGNATURES >= 16
    assert open_checkpoint("".join([NOTE, *unknown]), [TRUSTED]) == CHECKPOINT
    assert open_checkpoint("".join([TEXT, "\n", *unknown, LINE]), [TRUSTED]) == CHECKPOINT


def test_sixteen_post_quantum_signatures_fit() -> None:
    """Sixteen signatures of five kilobytes each, which verifiers have to take, are within the bound."""
    big = "".join(
        f"\u2014 witness{n}.example {b64encode(bytes(4) + bytes(5000)).decode()}\n" for n in range(16)
    )
    assert open_checkpoint(NOTE + big, [TRUSTED]) == CHECKPOINT


def test_one_failing_signature_of_a_trusted_key_refuses_all() -> None:
    """A good signature beside it does not help."""
    second = VerifierKey.of("second.example", OTHER.public)
    forged = _line("another text\n", OTHER, "second.example")
    with pytest.raises(ForgedNote, match="does not verify"):
        open_note(NOTE + forged, [TRUSTED, second])
    assert open_note(NOTE + forged, [TRUSTED]) == TEXT


def test_the_name_or_the_id_alone_does_not_make_a_key_known() -> None:
    """A signature with a trusted name and another id, or the reverse, is an unknown key's."""
    same_name = f"\u2014 {ORIGIN} {b64encode(bytes(68)).decode()}\n"
    same_id = f"\u2014 other.example {b64encode(TRUSTED.id + bytes(64)).decode()}\n"
    assert open_note(NOTE + same_name + same_id, [TRUSTED]) == TEXT
    with pytest.raises(UntrustedNote):
        open_note(f"{TEXT}\n{same_name}{same_id}", [TRUSTED])


@pytest.mark.parametrize(
    "keys", [[], [VerifierKey.of(ORIGIN, OTHER.public)], [VerifierKey.of("x", KEY.public)]]
)
def test_a_note_that_no_trusted_key_signed_is_refused(keys: list[VerifierKey]) -> None:
    """No key, another key of the same name, or the same key under another name."""
    with pytest.raises(UntrustedNote):
        open_note(NOTE, keys)


def test_a_trusted_log_cannot_speak_for_another() -> None:
    """A checkpoint with this origin, signed only by another trusted log, is nobody's word."""
    other = VerifierKey.of("other.example/log", OTHER.public)
    note = sign(CHECKPOINT, OTHER, name="other.example/log")
    assert open_note(note, [TRUSTED, other]) == TEXT
    with pytest.raises(UntrustedNote, match="origin"):
        open_checkpoint(note, [TRUSTED, other])


def test_two_keys_under_one_name_and_id_are_refused() -> None:
    """Which of the two is meant could not be told."""
    twin = VerifierKey(TRUSTED.name, OTHER.public, TRUSTED.id)
    with pytest.raises(BadKey):
        open_note(NOTE, [TRUSTED, twin])
    assert open_note(NOTE, [TRUSTED, TRUSTED]) == TEXT


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\nb", "a\x00", "\ud800", "a\u2003"])
def test_a_name_that_a_note_cannot_carry_names_no_key(name: str) -> None:
    """Spaces of any script, plus signs and control characters are refused when a key is named."""
    with pytest.raises(BadKey):
        VerifierKey.of(name, KEY.public)


def test_an_origin_that_cannot_name_a_key_needs_another_name() -> None:
    """Such a checkpoint is not signed under its origin by mistake."""
    checkpoint = Checkpoint("a log with spaces", 7, bytes(32))
    with pytest.raises(BadKey):
        sign(checkpoint, KEY)
    assert open_note(sign(checkpoint, KEY, name="x"), [VerifierKey.of("x", KEY.public)]) == checkpoint.text()


@given(st.binary(min_size=32, max_size=32), st.from_regex(r"[a-z0-9./_-]{1,30}", fullmatch=True))
@settings(deadline=None)
def test_a_vkey_comes_back(seed: bytes, name: str) -> None:
    """What is printed is what is read."""
    key = VerifierKey.of(name, SigningKey.load(seed).public)
    assert parse_vkey(str(key)) == key


_MATERIAL = EXAMPLE_VKEY.rsplit("+", 1)[1]
BAD_VKEYS = {
    "nothing": "",
    "name only": "example.com/foo",
    "two parts": "example.com/foo+530d903a",
    "no name": f"+530d903a+{_MATERIAL}",
    "space in the name": EXAMPLE_VKEY.replace("foo", "f o"),
    "upper-case id": EXAMPLE_VKEY.replace("530d903a", "530D903A"),
    "short id": EXAMPLE_VKEY.replace("530d903a", "530d903"),
    "id of another key": EXAMPLE_VKEY.replace("530d903a", "530d903b"),
    "id of another name": EXAMPLE_VKEY.replace("foo", "bar"),
    "newline at the end": f"{EXAMPLE_VKEY}\n",
    "space before": f" {EXAMPLE_VKEY}",
    "base64url": EXAMPLE_VKEY.replace(_MATERIAL, str(TRUSTED).rsplit("+", 1)[1][:-1] + "_"),
    "padding": f"{EXAMPLE_VKEY}=",
    "no type": f"example.com/foo+530d903a+{b64encode(KEY.public.raw).decode()}",
    "ecdsa type": f"example.com/foo+530d903a+{b64encode(bytes([2]) + KEY.public.raw).decode()}",
    "cosignature type": f"example.com/foo+530d903a+{b64encode(bytes([4]) + KEY.public.raw).decode()}",
    "short key": f"example.com/foo+530d903a+{b64encode(bytes([1]) + bytes(31)).decode()}",
    "point of small order": (
        f"x+{note_key_id('x', bytes(32)).hex()}+{b64encode(bytes([1]) + bytes(32)).decode()}"
    ),
}


@pytest.mark.parametrize("text", BAD_VKEYS.values(), ids=BAD_VKEYS)
def test_a_vkey_has_one_spelling(text: str) -> None:
    """Another type, another spelling, a key ID that is not the key's: none is trusted."""
    with pytest.raises(BadKey):
        parse_vkey(text)


@pytest.mark.parametrize("kind", [0x00, 0x02, 0x04, 0x06, 0xFF])
def test_a_vkey_of_another_signature_type_says_so(kind: int) -> None:
    """A witness's or a post-quantum key is not called a misspelt one."""
    with pytest.raises(BadKey, match="only Ed25519"):
        parse_vkey(f"example.com/foo+530d903a+{b64encode(bytes([kind]) + KEY.public.raw).decode()}")


def test_a_refusal_does_not_steer_the_terminal() -> None:
    """A name or origin that someone else wrote is escaped before it is shown."""
    with pytest.raises(BadKey) as caught:
        parse_vkey("\x1b[2J\u202e+00000000+AAAA")
    assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.skipif(which("openssl") is None, reason="needs the openssl command")
def test_an_openssl_user_can_check_a_checkpoint(tmp_path: Path) -> None:
    """The signature is plain Ed25519 over the text: the `openssl` command verifies it."""
    (tmp_path / "text").write_bytes(TEXT.encode())
    (tmp_path / "sig").write_bytes(b64decode(LINE.split(" ")[2])[4:])
    (tmp_path / "key.der").write_bytes(bytes.fromhex("302a300506032b6570032100") + KEY.public.raw)
    done = subprocess.run(
        [
            "openssl",
            "pkeyutl",
            "-verify",
            "-pubin",
            "-inkey",
            "key.der",
            "-keyform",
            "DER",
            "-rawin",
            "-in",
            "text",
            "-sigfile",
            "sig",
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr

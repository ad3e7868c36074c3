"""Make the test vectors of tests/vectors/: one file a vector, one fault a vector, the same bytes each time.

    python scripts/make_vectors.py            write them
    python scripts/make_vectors.py --check    say which files differ; exit 1 if any does

Every vector is a JSON object:

    fault     what is wrong with it, in words; "none" where nothing is
    input     what a reader is given. A member whose name ends in `_base64` holds bytes that are
              not text; every other string is the text itself
    expected  the class of answer: "ok", or one of the format's refusals
    result    for "ok" only: what the reader gives

A format is a function that yields vectors, registered with `@vectors_of("name")`; its reader is
registered under the same name in tests/vectors/vector_readers.py.
"""

from __future__ import annotations

import json
import runpy
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from guard.core.canonical import canonical, digest, read
from guard.core.keys import SigningKey, note_key_id
from guard.identity.api_keys import ENTROPY_BYTES, mint
from guard.lineage.checkpoint import Checkpoint, VerifierKey, sign
from guard.lineage.merkle import EMPTY_ROOT, Frontier, inclusion_path, leaf_hash
from guard.lineage.proof import write

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "vectors"


@dataclass(frozen=True)
class Vector:
    """One file: its name without the suffix, and what is in it."""

    name: str
    fault: str
    input: dict[str, Any]
    expected: str
    result: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        body: dict[str, Any] = {"fault": self.fault, "input": self.input, "expected": self.expected}
        if self.result:
            body["result"] = self.result
        return json.dumps(body, indent=2, ensure_ascii=True) + "\n"


Generator = Callable[[], Iterator[Vector]]
FORMATS: dict[str, Generator] = {}


def vectors_of(name: str) -> Callable[[Generator], Generator]:
    """Register the generator of the vectors in tests/vectors/<name>/."""

    def register(generator: Generator) -> Generator:
        FORMATS[name] = generator
        return generator

    return register


def seed(purpose: str, length: int = 32) -> bytes:
    """Fixed bytes that look random: at most 32 of them."""
    return sha256(f"guard test vectors: {purpose}".encode()).digest()[:length]


def b64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


# -- checkpoint ------------------------------------------------------------------------------------

ORIGIN = "guard.example/log"
LOG_KEY = SigningKey.load(seed("checkpoint key"))
OTHER_KEY = SigningKey.load(seed("another key"))
LOG_VKEY = str(VerifierKey.of(ORIGIN, LOG_KEY.public))
LEAVES = [canonical({"entry": number}) for number in range(7)]


def _tree(leaves: list[bytes]) -> tuple[Frontier, dict[tuple[int, int], bytes]]:
    frontier, nodes = Frontier.empty(), {}
    for index, leaf in enumerate(leaves):
        nodes[0, index] = leaf_hash(leaf)
        frontier, completed = frontier.append(nodes[0, index])
        nodes.update({(level, at): digest for level, at, digest in completed})
    return frontier, nodes


TREE, NODES = _tree(LEAVES)
CHECKPOINT = Checkpoint(ORIGIN, TREE.size, TREE.root())
NOTE = sign(CHECKPOINT, LOG_KEY)
TEXT, LINE = CHECKPOINT.text(), NOTE.split("\n\n")[1]


def _line(text: str, key: SigningKey, name: str) -> str:
    return f"\u2014 {name} {b64(note_key_id(name, key.public.raw) + key.sign(text.encode()))}\n"


def _signed(text: str) -> str:
    """Any text, signed by the log's key as if it were a checkpoint."""
    return f"{text}\n{_line(text, LOG_KEY, ORIGIN)}"


def _checkpoint_refused(name: str, fault: str, note: str, expected: str = "malformed") -> Vector:
    return Vector(name, fault, {"vkeys": [LOG_VKEY], "note": note}, expected)


def _good_checkpoints() -> Iterator[Vector]:
    def taken(name: str, fault: str, note: str, checkpoint: Checkpoint = CHECKPOINT) -> Vector:
        result = {"origin": checkpoint.origin, "size": checkpoint.size, "root_base64": b64(checkpoint.root)}
        return Vector(name, fault, {"vkeys": [LOG_VKEY], "note": note}, "ok", result)

    cosigned = _line(TEXT, OTHER_KEY, "witness.example")
    yield taken("valid", "none", NOTE)
    empty = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    yield taken("valid-empty-tree", "none", sign(empty, LOG_KEY), empty)
    largest = Checkpoint(ORIGIN, 2**63 - 1, seed("root"))
    yield taken("valid-largest-size", "none", sign(largest, LOG_KEY), largest)
    yield taken("valid-cosigned", "none: an unknown key signed after", NOTE + cosigned)
    yield taken("valid-cosigned-first", "none: an unknown key signed before", f"{TEXT}\n{cosigned}{LINE}")


def _misspelt_texts() -> Iterator[Vector]:
    """Signed by the log, and still no checkpoints."""

    def changed(name: str, fault: str, old: str, new: str) -> Vector:
        return _checkpoint_refused(name, fault, _signed(TEXT.replace(old, new)))

    root = b64(CHECKPOINT.root)
    yield changed("size-leading-zero", "the size has a leading zero", "\n7\n", "\n07\n")
    yield changed("size-plus-sign", "the size has a sign", "\n7\n", "\n+7\n")
    yield changed("size-negative", "the size is below zero", "\n7\n", "\n-7\n")
    yield changed("size-space", "a space before the size", "\n7\n", "\n 7\n")
    yield changed("size-underscore", "an underscore in the size", "\n7\n", "\n1_0\n")
    yield changed("size-other-digits", "the size in Arabic-Indic digits", "\n7\n", "\n\u0667\n")
    yield changed("size-beyond-63-bits", "the size is 2^63", "\n7\n", f"\n{2**63}\n")
    yield changed("size-empty", "the size line is empty", "\n7\n", "\n\n")
    yield changed("empty-tree-other-root", "size 0 with the root of another tree", "\n7\n", "\n0\n")
    yield changed("origin-empty", "the origin line is empty", ORIGIN, "")
    yield changed("control-character", "a TAB in the origin", "log", "lo\tg")
    yield changed("root-hex", "the root in hexadecimal", root, CHECKPOINT.root.hex())
    yield changed("root-unpadded", "the root's padding is left out", root, root.rstrip("="))
    yield changed("root-short", "the root has 31 bytes", root, b64(bytes(31)))
    yield changed("root-long", "the root has 33 bytes", root, b64(bytes(33)))
    yield changed("root-trailing-bits", "the root's last bits are not zero", root, "A" * 42 + "B=")
    yield changed("extension-line", "a fourth line", root, f"{root}\nextension")
    yield changed("two-lines", "the root is missing", f"{root}\n", "")


def _misspelt_notes() -> Iterator[Vector]:
    refused = _checkpoint_refused
    unsigned = f"{TEXT}\n"
    yield refused("no-signature", "there is no signature", unsigned)
    yield refused("no-empty-line", "no empty line before the signatures", TEXT + LINE)
    yield refused("no-last-newline", "the last newline is missing", NOTE[:-1])
    yield refused("extra-last-newline", "an empty line at the end", f"{NOTE}\n")
    yield refused("carriage-returns", "lines end in CR LF", NOTE.replace("\n", "\r\n"))
    yield refused("hyphen", "a hyphen in place of the em dash", unsigned + LINE.replace("\u2014", "-"))
    yield refused(
        "signature-unpadded", "the signature's padding is left out", unsigned + LINE.replace("=", "")
    )
    yield refused("signature-empty", "a key ID without a signature", f"{NOTE}\u2014 other.example AAAAAA==\n")
    yield refused("name-plus", "a plus sign in a key name", f"{NOTE}\u2014 a+b AAAAAAA=\n")
    yield refused("name-space", "a no-break space in a key name", f"{NOTE}\u2014 a\u00a0b AAAAAAA=\n")
    yield refused("signed-twice", "the trusted key signed twice", NOTE + LINE)
    not_text = {"vkeys": [LOG_VKEY], "note_base64": b64(b"\xff" + NOTE.encode())}
    yield Vector("not-utf-8", "a byte that is not UTF-8", not_text, "malformed")


def _unsigned_checkpoints() -> Iterator[Vector]:
    refused = _checkpoint_refused
    signature = LOG_KEY.sign(TEXT.encode())
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    forged = f"\u2014 {ORIGIN} {b64(note_key_id(ORIGIN, LOG_KEY.public.raw) + flipped)}\n"
    yield refused("signature-flipped", "one bit of the signature is flipped", f"{TEXT}\n{forged}", "forged")
    larger = NOTE.replace("\n7\n", "\n8\n")
    yield refused("size-changed", "the size is another than the signed one", larger, "forged")
    yield refused("origin-changed", "the origin is another than the signed one", f"x{NOTE}", "forged")
    imposed = f"{TEXT}\n{_line(TEXT, OTHER_KEY, ORIGIN)}"
    yield refused("another-key", "another key signed under this name", imposed, "untrusted")
    renamed = sign(CHECKPOINT, LOG_KEY, "x.example")
    yield refused("another-name", "the key signed under another name", renamed, "untrusted")
    vkeys = [LOG_VKEY, str(VerifierKey.of("other.example/log", OTHER_KEY.public))]
    foreign = {"vkeys": vkeys, "note": sign(CHECKPOINT, OTHER_KEY, "other.example/log")}
    yield Vector("another-logs-key", "a trusted key signed, but it is another log's", foreign, "untrusted")


@vectors_of("checkpoint")
def checkpoints() -> Iterator[Vector]:
    yield from _good_checkpoints()
    yield from _misspelt_texts()
    yield from _misspelt_notes()
    yield from _unsigned_checkpoints()


# -- proof -----------------------------------------------------------------------------------------


@vectors_of("proof")
def proofs() -> Iterator[Vector]:
    index = 5
    leaf = LEAVES[index]
    path = inclusion_path(index, TREE.size, lambda level, at: NODES[level, at])
    valid = write(index, leaf, path, NOTE)
    head, _, _ = valid.partition("\n\n")
    first, extra, place, *hashes = head.split("\n")

    def taken(name: str, proof: str, index: int, leaf: bytes, size: int) -> Vector:
        result = {"index": index, "leaf": leaf.decode(), "size": size}
        return Vector(name, "none", {"vkeys": [LOG_VKEY], "proof": proof}, "ok", result)

    def refused(name: str, fault: str, proof: str, expected: str = "malformed") -> Vector:
        return Vector(name, fault, {"vkeys": [LOG_VKEY], "proof": proof}, expected)

    def lines(name: str, fault: str, *changed: str) -> Vector:
        return refused(name, fault, "\n".join([*changed, "", NOTE]))

    def built(name: str, fault: str, index: int, leaf: bytes, path: list[bytes]) -> Vector:
        return refused(name, fault, write(index, leaf, path, NOTE), "not-included")

    yield taken("valid", valid, index, leaf, 7)
    last = inclusion_path(6, 7, lambda level, at: NODES[level, at])
    yield taken("valid-last-leaf", write(6, LEAVES[6], last, NOTE), 6, LEAVES[6], 7)
    single = sign(Checkpoint(ORIGIN, 1, leaf_hash(leaf)), LOG_KEY)
    yield taken("valid-single-leaf", write(0, leaf, [], single), 0, leaf, 1)

    yield lines("version", "another version", "c2sp.org/tlog-proof@v2", extra, place, *hashes)
    yield lines("no-leaf", "there is no extra line, and so no leaf", first, place, *hashes)
    yield lines("empty-leaf", "the extra line is empty", first, "extra ", place, *hashes)
    yield lines("two-leaves", "two extra lines", first, extra, extra, place, *hashes)
    yield lines("leaf-after-index", "the extra line comes after the index", first, place, extra, *hashes)
    yield lines(
        "leaf-trailing-bits", "the leaf's last bits are not zero", first, "extra YR==", place, *hashes
    )
    yield lines("no-index", "there is no index", first, extra, *hashes)
    yield lines("index-leading-zero", "the index has a leading zero", first, extra, "index 05", *hashes)
    yield lines("index-plus-sign", "the index has a sign", first, extra, "index +5", *hashes)
    yield lines("index-beyond-63-bits", "the index is 2^63", first, extra, f"index {2**63}", *hashes)
    yield lines("hash-short", "a path hash has 31 bytes", first, extra, place, b64(bytes(31)), *hashes[1:])
    yield lines("hash-hex", "a path hash in hexadecimal", first, extra, place, path[0].hex(), *hashes[1:])
    yield lines("too-many-hashes", "64 path hashes", first, extra, place, *[hashes[0]] * 64)
    yield refused("no-checkpoint", "there is no checkpoint", f"{head}\n\n")
    yield refused("carriage-returns", "lines end in CR LF", valid.replace("\n", "\r\n"))
    yield refused("last-newline", "an empty line at the end", f"{valid}\n")

    yield built("another-index", "the index of a neighbour", 4, leaf, path)
    yield built("index-beyond-tree", "an index that the tree does not have", 7, leaf, path)
    yield built("another-leaf", "the leaf is another", index, LEAVES[4], path)
    yield built(
        "interior-node-as-leaf", "two child hashes posing as a leaf", 2, NODES[0, 4] + NODES[0, 5], path[1:]
    )
    yield built("path-short", "the last path hash is missing", index, leaf, path[:-1])
    yield built("path-long", "one path hash too many", index, leaf, [*path, path[0]])
    yield built("path-order", "the path is upside down", index, leaf, path[::-1])
    smaller, _ = _tree(LEAVES[:6])
    note = sign(Checkpoint(ORIGIN, 6, smaller.root()), LOG_KEY)
    earlier = write(index, leaf, path, note)
    yield refused("another-checkpoint", "the path belongs to a later checkpoint", earlier, "not-included")

    yield refused(
        "size-changed", "the size is another than the signed one", valid.replace("\n7\n", "\n8\n"), "forged"
    )
    forged = sign(Checkpoint(ORIGIN, 1, leaf_hash(b"forged")), OTHER_KEY)
    yield refused(
        "another-key", "the checkpoint is signed by another key", write(0, b"forged", [], forged), "untrusted"
    )


# -- API keys --------------------------------------------------------------------------------------


@vectors_of("api-key")
def api_keys() -> Iterator[Vector]:
    now = 1_800_000_000
    text, record = mint(
        seed("api key", ENTROPY_BYTES),
        tenant="acme",
        principal="ada",
        role="reader",
        scopes=frozenset({"files:read"}),
        created=now - 1000,
    )
    kept = {
        "key_id": record.key_id,
        "secret_sha256": record.secret_sha256,
        "tenant": record.tenant,
        "principal": record.principal,
        "role": record.role,
        "scopes": sorted(record.scopes or ()),
        "created": record.created,
        "expires": None,
        "revoked_at": None,
    }

    def asked(presented: str | None, **changes: Any) -> dict[str, Any]:
        return {"key": presented, "now": now, "records": [{**kept, **changes}]}

    def refused(
        name: str, fault: str, presented: str | None, expected: str = "invalid-key", **changes: Any
    ) -> Vector:
        return Vector(name, fault, asked(presented, **changes), expected)

    def taken(name: str, fault: str, **changes: Any) -> Vector:
        result = {"tenant": "acme", "subject": "ada", "role": "reader", "credential": record.key_id}
        return Vector(name, fault, asked(text, **changes), "ok", result)

    yield taken("valid", "none")
    yield taken("valid-last-second", "none: it expires a second later", expires=now + 1)
    yield refused("expired-first-second", "it expires now", text, "expired-key", expires=now)
    yield refused("revoked", "it was revoked", text, "revoked-key", revoked_at=now - 1)
    yield refused(
        "revoked-ahead-of-the-clock",
        "its revocation bears a later time",
        text,
        "revoked-key",
        revoked_at=now + 9,
    )
    yield refused(
        "revoked-and-expired",
        "it was revoked and has expired",
        text,
        "revoked-key",
        revoked_at=now - 9,
        expires=now - 5,
    )
    yield refused("nothing", "no key is given", None, "no-credential")
    yield refused("empty", "the key is empty", "", "no-credential")
    body = seed("api key", ENTROPY_BYTES)
    other_secret, _ = mint(body[:10] + bytes(20), tenant="t", principal="p", role="r", created=0)
    unknown, _ = mint(seed("unknown", ENTROPY_BYTES), tenant="t", principal="p", role="r", created=0)
    yield refused("unknown", "no record has its id", unknown)
    yield refused("another-secret", "the id is known, the secret is another", other_secret)
    yield refused(
        "hash-of-another-key", "the record holds another key's hash", text, secret_sha256=digest("other")
    )
    yield refused(
        "wrong-character", "one character of the secret is another", text[:30] + _next(text[30]) + text[31:]
    )
    yield refused(
        "wrong-id-character", "one character of the id is another", text[:8] + _next(text[8]) + text[9:]
    )
    yield refused("wrong-checksum", "the last character is another", text[:-1] + _next(text[-1]))
    at = next(n for n in range(23, 50) if text[n] != text[n + 1])
    yield refused(
        "swapped", "two neighbours are swapped", text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    )
    yield refused("upper-case", "upper case", text.upper())
    yield refused("cut-off", "the last character is missing", text[:-1])
    yield refused("too-long", "one character more", text + "a")
    yield refused("newline", "a newline at the end", text + "\n")
    yield refused("space", "a space before it", " " + text)
    yield refused("prefix", "another prefix", "token_" + text.removeprefix("guard_"))
    yield refused(
        "not-ascii", "a Cyrillic letter that looks like a Latin one", text.replace("a", "\u0430", 1)
    )


def _next(char: str) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    return alphabet[(alphabet.index(char) + 1) % 32]


# -- canonical JSON --------------------------------------------------------------------------------

CANONICAL_OK = {
    "empty-object": b"{}",
    "literals": b"[null, true, false]",
    "keys-sorted": b'{"b": 2, "a": 1, "": 0}',
    "keys-by-utf-16": rb'{"\ufb33": 1, "\ud83d\ude00": 2, "\u20ac": 3}',
    "keys-nested": b'{"z": {"b": 1, "a": [{"d": 1, "c": 2}]}}',
    "escapes": rb'"\u0000\u001f\b\t\n\f\r\"\\\/\u007f\u0041"',
    "line-separators": rb'"\u2028\u2029"',
    "not-normalised": rb'["\u00e9", "e\u0301"]',
    "surrogate-pair": rb'"\ud83d\ude00"',
    "integers": b"[0, -0, 9007199254740991, -9007199254740991]",
    "doubles": b"[1.0, -0.0, 4.50, 2e-3, 1E30, 0.000001, 1e-7, 1e20, 1e21, 333333333.33333329]",
    "smallest-and-largest": b"[5e-324, 1.7976931348623157e308]",
    "double-rounded-to-zero": b"1e-400",
    "long-fraction": b"0.1000000000000000055511151231257827021181583404541015625",
    "depth-128": b"[" * 128 + b"]" * 128,
    "space": b" \t\r\n[ 1 , 2 ]\n",
}

NOT_IJSON = {
    "duplicate-key": ("a key twice in one object", b'{"a": 1, "a": 1}', "/a"),
    "duplicate-key-escaped": ("a key twice, once with an escape", rb'{"a": 1, "\u0061": 1}', "/a"),
    "duplicate-key-nested": ("a key twice, two levels down", b'{"x": [{"a": 1, "a": 2}]}', "/x/0/a"),
    "integer-2-to-53": ("an integer of 2^53", b'{"n": 9007199254740992}', "/n"),
    "integer-minus-2-to-53": ("an integer of -2^53", b"[-9007199254740992]", "/0"),
    "integer-30-digits": ("an integer of 30 digits", b"123456789012345678901234567890", ""),
    "double-overflow": ("a number beyond the doubles", b"[1e400]", "/0"),
    "lone-high-surrogate": ("a high surrogate alone", rb'["\ud800"]', "/0"),
    "lone-low-surrogate": ("a low surrogate alone", rb'["\udc00"]', "/0"),
    "depth-129": ("129 levels", b"[" * 129 + b"]" * 129, "/0" * 128),
    "digits-4301": ("a double with 4301 digits before the point", b"1" * 4301 + b"e-4300", ""),
}

NOT_JSON = {
    "nothing": ("nothing at all", b""),
    "byte-order-mark": ("a byte order mark", b"\xef\xbb\xbf{}"),
    "not-utf-8": ("a byte that is not UTF-8", b'"\xff"'),
    "overlong-utf-8": ("an overlong encoding of U+0000", b'"\xc0\x80"'),
    "utf-8-surrogate": ("a surrogate encoded in UTF-8", b'"\xed\xa0\x80"'),
    "nan": ("NaN", b"[NaN]"),
    "infinity": ("Infinity", b"[-Infinity]"),
    "leading-zero": ("a number with a leading zero", b"[01]"),
    "plus-sign": ("a number with a plus sign", b"[+1]"),
    "trailing-comma": ("a comma at the end", b"[1,]"),
    "trailing-bytes": ("a zero byte after the end", b"{}\x00"),
    "two-values": ("a second value", b"{} {}"),
    "cut-off": ("the end is missing", b'{"a": [1'),
    "raw-control-character": ("a newline inside a string", b'"a\nb"'),
    "single-quotes": ("single quotes", b"{'a': 1}"),
    "comment": ("a comment", b"[1] // one"),
}


def _json(data: bytes) -> dict[str, Any]:
    """The input member: text where the bytes are printable, else base64."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"json_base64": b64(data)}
    return {"json": text} if text.isascii() else {"json_base64": b64(data)}


@vectors_of("canonical")
def canonical_json() -> Iterator[Vector]:
    for name, data in CANONICAL_OK.items():
        value = read(data)
        result = {"canonical_base64": b64(canonical(value)), "sha256": digest(value)}
        yield Vector(f"valid-{name}", "none", _json(data), "ok", result)
    for name, (fault, data, pointer) in NOT_IJSON.items():
        yield Vector(name, fault, {**_json(data), "pointer": pointer}, "not-ijson")
    for name, (fault, data) in NOT_JSON.items():
        yield Vector(name, fault, _json(data), "not-json")


# -- artifact --------------------------------------------------------------------------------------


@vectors_of("artifact")
def artifacts() -> Iterator[Vector]:
    made_by = runpy.run_path(str(Path(__file__).with_name("vectors_artifact.py")))
    for row in made_by["artifacts"](seed):
        yield Vector(*row)


# -- origin ----------------------------------------------------------------------------------------


@vectors_of("origin")
def origins() -> Iterator[Vector]:
    made_by = runpy.run_path(str(Path(__file__).with_name("vectors_origin.py")))
    for row in made_by["origins"]():
        yield Vector(*row)


# -- policy signature ------------------------------------------------------------------------------


@vectors_of("policy-signature")
def policy_signatures() -> Iterator[Vector]:
    made_by = runpy.run_path(str(Path(__file__).with_name("vectors_policy_signature.py")))
    for row in made_by["signatures"](seed):
        yield Vector(*row)


# --------------------------------------------------------------------------------------------------


def made() -> dict[str, str]:
    """Every file: its path below tests/vectors/, and its text."""
    files: dict[str, str] = {}
    for name, generator in FORMATS.items():
        for vector in generator():
            path = f"{name}/{vector.name}.json"
            if path in files:
                raise ValueError(f"{path} is made twice")
            files[path] = vector.text()
    return files


def differing(folder: Path = FOLDER) -> list[str]:
    """Paths whose committed file is missing, different, or made by nobody."""
    files = made()
    there = {str(path.relative_to(folder)) for name in FORMATS for path in (folder / name).glob("*.json")}
    wrong = {path for path in files if path in there and (folder / path).read_text("utf-8") != files[path]}
    return sorted(wrong | (files.keys() ^ there))


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        for path in (wrong := differing()):
            print(f"{path}: not what this script makes")
        return 1 if wrong else 0
    for path in differing():
        (FOLDER / path).unlink(missing_ok=True)
    for path, text in made().items():
        (FOLDER / path).parent.mkdir(exist_ok=True)
        (FOLDER / path).write_text(text, "utf-8")
    print(f"{len(made())} vectors in {len(FORMATS)} formats")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

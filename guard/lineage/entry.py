"""One entry of the lineage: a leaf of commitments, and beside it the disclosures that open them.

A leaf never holds personal data in clear. Each field is a salted commitment in the form of
RFC 9901 (SD-JWT) section 4.2: a disclosure is base64url([salt, name, value]), the leaf holds
its SHA-256. Erasing a disclosure later changes no leaf.
"""

from __future__ import annotations

import hashlib
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from guard.core.canonical import NotIJson, NotJson, b64, canonical, read, unb64

VERSION: Final = 1
SALT_BYTES: Final = 16
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
GENESIS: Final = ""
"""The `prev` of a conversation's first entry."""


class Kind(StrEnum):
    """What an entry says. Closed."""

    GRANTED = "granted"
    DENIED = "denied"
    RETURNED = "returned"
    FAILED = "failed"
    UNKNOWN = "unknown"
    POLICY = "policy"
    PIN = "pin"
    KEY_SET = "key-set"
    API_KEY = "api-key"
    REVOKED = "revoked"
    CONTAINED = "contained"
    RELEASED = "released"
    SEALED = "sealed"
    ASKED = "asked"
    ANSWERED = "answered"


ENDINGS: Final = frozenset({Kind.RETURNED, Kind.FAILED, Kind.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry before the log gave it its place.

    Attributes:
        kind: what it says.
        call: the `decision_id` that it is about, "" for none.
        digests: the commitments, sorted, base64url.
        disclosures: the opened fields, in the order given.
    """

    kind: Kind
    call: str
    digests: tuple[str, ...]
    disclosures: tuple[str, ...]


def draft(kind: Kind, call: str, fields: Mapping[str, Any], salts: bytes) -> Draft:
    """Commit to fields.

    Args:
        salts: SALT_BYTES random bytes for each field that is not None.

    Raises:
        ValueError: too few salts.
        TypeError: a value that JSON does not have.
    """
    present = [(name, value) for name, value in fields.items() if value is not None]
    if len(salts) < SALT_BYTES * len(present):
        raise ValueError("each field needs its own salt")
    count = range(0, SALT_BYTES * len(present), SALT_BYTES)
    fresh = _base64_lines([salts[at : at + SALT_BYTES] for at in count]).decode("ascii").split()
    opened_by = _base64_lines(
        [orjson.dumps((salt, *field)) for salt, field in zip(fresh, present, strict=True)]
    )
    digests = _base64_lines([hashlib.sha256(disclosure).digest() for disclosure in opened_by.split()])
    return Draft(
        kind,
        call,
        tuple(sorted(digests.decode("ascii").split())),
        tuple(opened_by.decode("ascii").split()),
    )


def _base64_lines(parts: Sequence[bytes]) -> bytes:
    """`b64_ascii` of each part and a line end; the alphabet is changed once for all."""
    return b"".join([b2a_base64(part) for part in parts]).translate(_URL_SAFE, b"=")


def commitment(disclosure: str) -> str:
    """SHA-256 over the disclosure's ASCII bytes, base64url (RFC 9901 section 4.2.3)."""
    return b64(hashlib.sha256(disclosure.encode("ascii")).digest())


def disclose(disclosure: str) -> tuple[str, Any]:
    """The name and value that a disclosure opens.

    Raises:
        ValueError: not a disclosure.
    """
    try:
        found = orjson.loads(unb64(disclosure))
    except ValueError:
        found = None
    match found:
        case [str(), str(name), value]:
            return name, value
        case _:
            raise ValueError("not a disclosure")


def leaf(entry: Draft, *, conversation: str, seq: int, prev: str, at: int) -> bytes:
    """The leaf's bytes: RFC 8785 JSON, so that there is one encoding of one entry.

    Args:
        conversation: the log's own random id of the conversation.
        seq: the place in the conversation, from 0 without gaps.
        prev: base64url SHA-256 leaf hash of the conversation's entry before, GENESIS for the first.
        at: UNIX milliseconds.
    """
    # RFC 8785 of texts and safe integers under these keys, written in the RFC's order already
    return orjson.dumps(
        {
            "_sd": entry.digests,
            "_sd_alg": "sha-256",
            "at": at,
            "call": entry.call,
            "conv": conversation,
            "kind": entry.kind.value,
            "prev": prev,
            "seq": seq,
            "v": VERSION,
        },
        option=orjson.OPT_STRICT_INTEGER,
    )


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf that was read. Attributes as the arguments of `leaf`."""

    kind: Kind
    call: str
    conversation: str
    seq: int
    prev: str
    at: int
    digests: frozenset[str]


_MEMBERS: Final = frozenset({"_sd", "_sd_alg", "at", "call", "conv", "kind", "prev", "seq", "v"})


def parse(data: bytes) -> Leaf:
    """Read a leaf strictly: parse, write again, compare.

    Raises:
        ValueError: anything that `leaf` does not write.
    """
    try:
        value = read(data)
    except (NotJson, NotIJson) as error:
        raise ValueError(f"not a leaf: {error}") from None
    if not isinstance(value, dict) or value.keys() != _MEMBERS or canonical(value) != data:
        raise ValueError("not a leaf: other members, or not canonical")
    texts = [value[name] for name in ("call", "conv", "kind", "prev")]
    numbers = [value[name] for name in ("at", "seq")]
    if (
        type(value["v"]) is not int
        or value["v"] != VERSION
        or value["_sd_alg"] != "sha-256"
        or not all(isinstance(text, str) for text in texts)
        or not all(type(number) is int and number >= 0 for number in numbers)
        or not _digests(value["_sd"])
    ):
        raise ValueError("not a leaf: a member has another type or version")
    return Leaf(
        Kind(value["kind"]),
        value["call"],
        value["conv"],
        value["seq"],
        value["prev"],
        value["at"],
        frozenset(value["_sd"]),
    )


def _digests(value: Any) -> bool:
    """Whether these are texts in their one order, none twice."""
    return (
        isinstance(value, list)
        and all(isinstance(item, str) for item in value)
        and value == sorted(set(value))
    )


def opened(found: Leaf, disclosures: Sequence[str]) -> dict[str, Any]:
    """The fields of a leaf.

    Raises:
        ValueError: a disclosure that the leaf does not commit to, or the same name twice.
    """
    fields: dict[str, Any] = {}
    if not isinstance(disclosures, list | tuple) or not all(isinstance(each, str) for each in disclosures):
        raise ValueError("not a list of disclosures")
    for disclosure in disclosures:
        if commitment(disclosure) not in found.digests:
            raise ValueError("a disclosure that the leaf does not commit to")
        name, value = disclose(disclosure)
        if name in fields:
            raise ValueError(f"the field {name!r} twice")
        fields[name] = value
    return fields

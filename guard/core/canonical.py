"""One strict reader and one canonical writer of JSON.

Reading follows I-JSON (RFC 7493): no duplicate keys, no NaN, no lone surrogates, integers
within ±(2^53-1), finite doubles, bounded depth. Writing follows RFC 8785 (JCS).

The fast way is two C libraries: `jiter` reads, `orjson` writes. `orjson`'s sorted output is
byte-equal to RFC 8785 only for a tree of strings, booleans, null and safe integers whose keys
lie below U+D800 (above it, code point order and UTF-16 order part); everything else goes
through `rfc8785`.
"""

from __future__ import annotations

import hashlib
from binascii import a2b_base64, b2a_base64
from math import isfinite
from typing import Any, Final

import jiter
import orjson
import rfc8785

MAX_SAFE_INTEGER: Final = 2**53 - 1
MAX_DEPTH: Final = 128
_FIRST_SURROGATE: Final = "\ud800"
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL_SAFE: Final = bytes.maketrans(b"-_+/=", b"+/!!!")  # what base64url lacks is made illegal
_LAST: Final = (bytes(range(256)), b"", b"AQgw", b"AEIMQUYcgkosw048")
"""What a text may end in, by its length modulo 4: trailing bits are zero (RFC 4648 section 3.5)."""
_PADDING: Final = (b"", b"", b"==", b"=")


class NotJson(ValueError):
    """The bytes are not JSON at all (RFC 8259): answered with -32700."""


class NotIJson(ValueError):
    """JSON, but outside I-JSON (RFC 7493).

    Attributes:
        what: the fault, in words.
        pointer: RFC 6901 pointer to where it is.
    """

    def __init__(self, what: str, pointer: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.pointer = pointer

    def __str__(self) -> str:
        return f"{self.what} at {self.pointer or 'the top'}"


def read(data: bytes) -> Any:
    """Read one JSON text strictly.

    Raises:
        NotJson: not JSON, or not I-JSON in a way that the fast reader meets first; `diagnose`
            tells which.
        NotIJson: JSON that I-JSON forbids.
    """
    try:
        value = jiter.from_json(data, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError as error:
        raise NotJson(str(error)) from error
    check(value)
    return value


def check(value: Any) -> bool:
    """Walk a value that was read; True if `orjson` writes it canonically.

    Raises:
        NotIJson: an unsafe integer, a double that is not finite, a lone surrogate, or more than
            MAX_DEPTH levels.
    """
    return _walk(value, MAX_DEPTH)


def _walk(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is str:
        return value.isascii() or _whole(value)
    if kind is dict or kind is list:
        if depth == 0:
            raise NotIJson(f"nested deeper than {MAX_DEPTH} levels")
        return _members(value, depth) if kind is dict else _items(value, depth)
    if kind is int:
        if not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            raise NotIJson("integer beyond ±(2^53-1)")
        return True
    if kind is float:
        if not isfinite(value):
            raise NotIJson("number beyond the range of a double")
        return False
    if value is None or kind is bool:
        return True
    raise TypeError(f"{kind.__name__} is not a JSON type")


def _members(value: dict[str, Any], depth: int) -> bool:
    plain, key = True, ""
    try:
        for key, member in value.items():
            if type(key) is not str:
                raise TypeError("a JSON object has string keys only")
            if not key.isascii():
                plain = _whole(key) and plain and max(key) < _FIRST_SURROGATE
            kind = type(member)  # what is most frequent is judged here, all else by `_walk`
            if kind is str:
                if not member.isascii():
                    _whole(member)
            elif kind is not int or not -MAX_SAFE_INTEGER <= member <= MAX_SAFE_INTEGER:
                plain = _walk(member, depth - 1) and plain
    except NotIJson as fault:
        shown = key.encode(errors="backslashreplace").decode()  # the key itself may be the fault
        fault.pointer = f"/{escape(shown)}{fault.pointer}"
        raise
    return plain


def _items(value: list[Any], depth: int) -> bool:
    plain, index = True, 0
    try:
        for index, member in enumerate(value):  # noqa: B007 - read by the handler below
            if not (type(member) is str and member.isascii()):
                plain = _walk(member, depth - 1) and plain
    except NotIJson as fault:
        fault.pointer = f"/{index}{fault.pointer}"
        raise
    return plain


def _whole(text: str) -> bool:
    """True; a lone surrogate raises NotIJson."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotIJson("lone surrogate") from None
    return True


def escape(token: str) -> str:
    """One reference token of a JSON pointer (RFC 6901 section 3)."""
    return token.replace("~", "~0").replace("/", "~1")


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a value.

    Raises:
        NotIJson: the value has no canonical form.
    """
    if check(value):
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return rfc8785.dumps(value)


def write(value: Any) -> bytes:
    """Plain JSON bytes of a value that `read` gave (key order kept)."""
    return orjson.dumps(value)


def sha256(data: bytes) -> str:
    """SHA-256 as base64url without padding, the form that every format of Guard uses."""
    return b64(hashlib.sha256(data).digest())


def digest(value: Any) -> str:
    """SHA-256 over the RFC 8785 bytes of a value."""
    return sha256(canonical(value))


def b64(data: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return b64_ascii(data).decode("ascii")


def b64_ascii(data: bytes) -> bytes:
    """The ASCII bytes of `b64`."""
    return b2a_base64(data, newline=False).translate(_URL_SAFE, b"=")


def unb64(text: str) -> bytes:
    """The one reading of canonical base64url without padding.

    Raises:
        ValueError: other characters, padding, or trailing bits that are not zero.
    """
    return unb64_ascii(str.encode(text, "ascii"))


def unb64_ascii(text: bytes) -> bytes:
    """`unb64` of ASCII bytes; raises as it does."""
    over = len(text) & 3
    if text and text[-1] not in _LAST[over]:
        raise ValueError("not canonical base64url")
    return a2b_base64(text.translate(_FROM_URL_SAFE) + _PADDING[over], strict_mode=True)

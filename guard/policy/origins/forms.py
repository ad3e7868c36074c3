"""Normal forms: many ways to write a value, one way to compare it.

`clean` undoes what the eye does not see: Unicode compatibility forms (NFKC, UAX 15), characters that draw
nothing. `folded` takes away case and spacing as well. `unwrapped` undoes encodings: percent (RFC 3986),
HTML entities, JSON escapes, quoted-printable (RFC 2045), base64 in both alphabets (RFC 4648), hex, letters
that stand apart, signs in words; each once, and bounded in number and size.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import Final
from urllib.parse import unquote

MOST_ENCODED: Final = 64  # encoded pieces of one text that are looked into
REACH: Final = 64  # characters before and after an escape that are read with it
LONGEST_ENCODED: Final = 65_536  # characters of one such piece

_DRAWS_NOTHING: Final = dict.fromkeys(
    [
        *range(9),
        *range(0x0E, 0x20),
        *range(0x7F, 0x85),
        *range(0x86, 0xA0),
        0xAD,
        0x34F,
        0x61C,
        0x115F,
        0x1160,
        0x17B4,
        0x17B5,
        *range(0x180B, 0x1810),
        *range(0x200B, 0x2010),
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2070),
        0x2800,
        0x3164,
        *range(0xFE00, 0xFE10),
        0xFEFF,
        0xFFA0,
        *range(0xFFF0, 0xFFFC),
        *range(0x1BCA0, 0x1BCA4),
        *range(0x1D173, 0x1D17B),
        *range(0xE0000, 0xE1000),
    ],
)
_PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_ENTITY: Final = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|([nrt/]))")
_LETTERS: Final = {"n": "\n", "r": "\r", "t": "\t", "/": "/"}
_QUOTED: Final = re.compile(r"(?:=[0-9A-F]{2}){2,}|=[0-9A-F]{2}(?![0-9A-F])|=\r?\n")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_HEX: Final = re.compile(r"(?<![0-9A-Za-z])(?:0[xX])?((?:[0-9A-Fa-f]{2}[ :]?){4,})(?![0-9A-Za-z])")
_SPELLED: Final = re.compile(
    r"(?<![^\s\"'`(\[<{:=])[^\s\"'`(\[<{](?: {1,6}\S){2,}(?![^\s\"'`)\]>}.,;:!?])"
    r"|(?<!\w)\w(?:([-_.*|,~+\u00b7\u2022])[^\n])(?:\1[^\n]){2,}(?!\w)"
)
_GAPS: Final = re.compile(" +")
_IN_WORDS: Final = re.compile(
    r"\s?[\[({<]\s?(?:(\.|dot|punkt)|(@|at))\s?[\])}>]\s?|(?<=\w) (?:(dot)|(at)) (?=\w)| ?(@) ?",
    re.IGNORECASE,
)
_IS_SAID: Final = re.compile(r"[\[({<]\s?(?:\.|dot|punkt|@|at)\s?[\])}>]| dot | @|@ |hxxp", re.IGNORECASE)
_JOINS: Final = re.compile(r"[@\d/.]")
_WORD: Final = re.compile(r"[A-Za-z]?[a-z]+|[A-Z]+")
_ENDS: Final = ("", " ", ".", ",", ":", ";", "!", "?")
LONGEST_BROKEN: Final = 256  # characters on either side of the end of a line
_LONGEST_SPELLED: Final = 4_096  # characters
_READABLE: Final = 0.9  # share of a decoded piece that must be letters, digits, signs or spaces


def clean(text: str) -> str:
    """NFKC without what draws nothing. Case, spaces and lines stay."""
    if text.isascii():
        return text if text.isprintable() else text.translate(_DRAWS_NOTHING)
    return unicodedata.normalize("NFKC", text.translate(_DRAWS_NOTHING)).translate(_DRAWS_NOTHING)


def folded(text: str) -> str:
    """Of a clean text: without case and without any spacing."""
    return "".join(text.casefold().split())


def unwrapped(text: str) -> Iterator[str]:
    """What a text says if its encodings are undone once: the whole text, and each encoded piece of it."""
    for sign, escape, decoded in _ESCAPED:
        if sign in text:
            yield from map(decoded, _around(text, escape))
    if _IS_SAID.search(text):
        yield _IN_WORDS.sub(_sign, text).replace("hxxp", "http")
    if "\n" in text:
        yield from _rejoined(text)
    for spelled in islice(_SPELLED.finditer(text), MOST_ENCODED):
        yield _joined(spelled.group()[:_LONGEST_SPELLED], spelled.group(1))
    yield from _decoded(text)


def _decoded(text: str) -> Iterator[str]:
    """Pieces in base64 and hexadecimal, as far as they are text."""
    for piece in islice(_BASE64.finditer(text), MOST_ENCODED):
        if (said := _from_base64(piece.group()[:LONGEST_ENCODED])) is not None:
            yield said
    for piece in islice(_HEX.finditer(text), MOST_ENCODED):
        digits = re.sub("[ :]", "", piece.group(1)[:LONGEST_ENCODED])
        if (said := _readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))) is not None:
            yield said


def _around(text: str, escape: re.Pattern[str]) -> Iterator[str]:
    """The stretches of a text that have such escapes in them, each with a little of what stands around it."""
    start = end = -1
    for number, found in enumerate(escape.finditer(text)):
        if number == 0:
            start = found.start()
        elif found.start() - end > 2 * REACH:
            yield text[max(0, start - REACH) : end + REACH]
            start = found.start()
        end = found.end()
    if start >= 0:
        yield text[max(0, start - REACH) : end + REACH]


def wrapped(text: str) -> Iterator[str]:
    """A short text as somebody may have hidden it whole, so that it is found where the other way fails."""
    data = text.encode("utf-8", "surrogatepass")
    yield base64.b64encode(data).decode().rstrip("=")
    yield base64.urlsafe_b64encode(data).decode().rstrip("=")
    yield data.hex()
    yield text[::-1]
    yield codecs.encode(text, "rot13")


def _sign(said: re.Match[str]) -> str:
    return "." if said.group(1) or said.group(3) else "@"


def _joined(spelled: str, separator: str | None) -> str:
    """Letters that stood apart, together; where they stood apart by spaces, wider gaps are spaces."""
    if separator:
        return spelled[::2]
    gap = min(map(len, _GAPS.findall(spelled)))
    return _GAPS.sub(lambda found: " " if len(found.group()) > gap else "", spelled)


def _unescaped(escape: re.Match[str]) -> str:
    digits = escape.group(1) or escape.group(2)
    return chr(int(digits, 16)) if digits else _LETTERS[escape.group(3)]


def _rejoined(text: str) -> Iterator[str]:
    """What a line ends with and what the next begins with, together: a long value may be broken there."""
    lines = text.split("\n")
    for first, second in pairwise(lines):
        before, after = first[-LONGEST_BROKEN:].rstrip("\r"), second[:LONGEST_BROKEN].partition(" ")[0]
        joined = before[before.rfind(" ") + 1 :] + after.rstrip("\r")
        if after and before[-1:] not in _ENDS and _JOINS.search(joined):
            yield joined


def _from_base64(piece: str) -> str | None:
    if _WORD.fullmatch(piece):
        return None
    letters = piece.rstrip("=").replace("-", "+").replace("_", "/")
    if len(letters) % 4 == 1:
        letters = letters[:-1]
    try:
        return _readable(base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True))
    except (binascii.Error, ValueError):
        return None


def _readable(data: bytes) -> str | None:
    """The data as text, if somebody could have meant it as text."""
    try:
        said = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    fine = sum(1 for sign in said if sign.isprintable() or sign in "\t\r\n")
    return said if said and fine >= _READABLE * len(said) else None


def _unquoted(text: str) -> str:
    return binascii.a2b_qp(text.encode("utf-8", "replace")).decode("utf-8", "replace")


_ESCAPED: Final[tuple[tuple[str, re.Pattern[str], Callable[[str], str]], ...]] = (
    ("%", _PERCENT, unquote),
    ("&", _ENTITY, html.unescape),
    ("\\", _ESCAPE, lambda text: _ESCAPE.sub(_unescaped, text)),
    ("=", _QUOTED, _unquoted),
)

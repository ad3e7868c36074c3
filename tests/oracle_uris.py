"""A second reading of which URIs a glob lists: docs/policy.md, "A URI is text", character by character."""

from __future__ import annotations

import unicodedata

DELIMITERS = ":/?#[]@!$&'()*+,;="
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"


def is_odd(uri: str) -> bool:
    """Whether the URI has one of the things in the section "A URI is text" that a glob does not list."""
    try:
        text = _unescaped(uri)
    except ValueError:
        return True
    before, colon, _ = text.partition(":")
    scheme = before if colon and not any(char in "/?#" for char in before) else ""
    return (
        any(_is_invisible(char) or _resembles(char) for char in text)
        or any(segment.strip(" ") and not segment.strip(" .") for segment in _segments(text))
        or "//" in text.replace(":///", ":|/").replace("://", ":|")
        or any(char in LETTERS.upper() for char in scheme)
    )


def _unescaped(uri: str) -> str:
    """The text of a URI. Raises ValueError where an escape is broken, needless, steering or not UTF-8."""
    raw = bytearray()
    at = 0
    while at < len(uri):
        if uri[at] != "%":
            raw += uri[at].encode("utf-8", "surrogatepass")
            at += 1
            continue
        pair = uri[at + 1 : at + 3].lower()
        if len(pair) != 2 or pair[0] not in DIGITS + "abcdef" or pair[1] not in DIGITS + "abcdef":
            raise ValueError("a broken escape")
        if chr(int(pair, 16)).lower() in LETTERS + DIGITS + "-._~/\\%":
            raise ValueError("an escape that steers, or that nobody needs")
        raw.append(int(pair, 16))
        at += 3
    return raw.decode("utf-8")


def _is_invisible(char: str) -> bool:
    category = unicodedata.category(char)
    return char != " " and (category[0] == "C" or category[0] == "Z")


def _resembles(char: str) -> bool:
    if char in "./%":
        return False
    return any(plain in unicodedata.normalize("NFKC", char) for plain in "./\\%")


def _segments(text: str) -> list[str]:
    for delimiter in DELIMITERS:
        text = text.replace(delimiter, "/")
    return text.split("/")

"""A memory in a dict, and texts in disguise."""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from guard.core.model import Appearance, Seen
from guard.policy.origins import judge, values

SALT = b"a salt of the tests, as long as it is"
PAGE = "tool:web/read"
NOTHING: frozenset[str] = frozenset()
EVERYTHING = frozenset({"user", "policy", "trusted", "mixed", "unseen"})
RANK = {"untrusted": 0, "unseen": 1, "mixed": 2, "trusted": 3}

VALUES = {
    "email": "mark.black-2134@gmail.com",
    "url": "https://www.secure-systems-252.com/login?x=1",
    "host": "www.true-informations.com",
    "iban": "US133000000121212121212",
    "token": "new_password",
    "phone": "+49 170 1234567",
    "number": "463820",
    "name": "Riverside View Hotel",
    "word": "Fredrik",
    "file": "sales-report-Q1-2024.xlsx",
    "path": "/etc/passwd",
    "secret": "1j1l-2k3j",
}
DISGUISES: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "capitals": str.upper,
    "small": str.lower,
    "zero-width": "\u200b".join,
    "soft-hyphen": "\u00ad".join,
    "full-width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "percent": lambda text: quote(text, safe=""),
    "percent-all": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "percent-twice": lambda text: quote(quote(text, safe=""), safe=""),
    "html-decimal": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "html-hexadecimal": lambda text: "".join(f"&#x{ord(c):x};" for c in text),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64-twice": lambda text: base64.b64encode(base64.b64encode(text.encode())).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "json-escapes": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "quoted-printable": lambda text: "".join(f"={ord(c):02X}" for c in text),
    "spelled": " ".join,
    "spelled-wide": "  ".join,
}


def memory(*seen: values.Glimpses, whole: bool = True) -> Seen:
    rows: dict[bytes, list[Appearance]] = {}
    for glimpses in seen:
        for key, appearance in glimpses:
            rows.setdefault(key, []).append(appearance)
    return Seen({key: tuple(found) for key, found in rows.items()}, whole, SALT)


def page(
    text: Any, trust: str = "untrusted", source: str = PAGE, fields: Mapping[str, str] | None = None
) -> values.Glimpses:
    """What a tool said: prose where it is a string, else a document."""
    raw = text if isinstance(text, str) else json.dumps(text)
    return values.glimpses(raw.encode(), source=source, trust=trust, fields=fields or {}, salt=SALT)


def user(text: str) -> values.Glimpses:
    return values.spoken(text, SALT)


def asked(value: Any, seen: Seen) -> Seen:
    """The part of a memory that a store would hand out: only what was asked for."""
    wanted = judge.candidates(value, SALT)
    return Seen({key: seen.values[key] for key in wanted if key in seen.values}, seen.whole, SALT)


def origin(
    value: Any,
    *seen: values.Glimpses,
    whole: bool = True,
    constants: frozenset[str] = NOTHING,
    overrides: bool = False,
) -> judge.Origin:
    return judge.origin(value, asked(value, memory(*seen, whole=whole)), constants, overrides)


def rotated(text: str) -> str:
    return codecs.encode(text, "rot13")

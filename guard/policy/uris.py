"""Which URIs a glob may list.

A URI is sent as it was asked for, and what the tool server makes of it is the server's affair: it may
decode it, resolve `..`, or join a part of it to a path. So `file:///docs/*` must not list
`file:///docs/../secret`. A URI that servers could read in more than one way is listed only by a rule
that spells it out.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote

_BROKEN: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_STEERING: Final = re.compile(r"%(?:2[EeFf5]|5[Cc])")
_NEEDLESS: Final = re.compile(r"%(?:3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|2[Dd]|5[Ff]|7[Ee])")
_EMPTY: Final = re.compile(r"(?<!:)(?<!:/)//")
_DELIMITERS: Final = re.compile(r"[:/?#\[\]@!$&'()*+,;=]")
_CAPITAL: Final = re.compile(r"[^:/?#]*[A-Z][^:/?#]*:")


def oddity(uri: str) -> str:
    r"""What could be read in more than one way, in words; "" if nothing could.

    Escapes of `.`, `/`, `\\` and `%`, and of what needs none (RFC 3986, sections 2.1 and 2.3); what is no
    UTF-8; control and invisible characters; backslashes and what Unicode's compatibility forms (UAX 15)
    make of them; segments of dots (section 3.3); empty segments; capitals in the scheme (section 3.1).
    """
    if _BROKEN.search(uri):
        return "a `%` that begins no escape"
    if _STEERING.search(uri):
        return "an escaped dot, slash, backslash or `%`"
    if _NEEDLESS.search(uri):
        return "an escaped letter, digit, `-`, `_` or `~`"
    try:
        text = unquote(uri, errors="strict")
    except UnicodeDecodeError:
        return "an escape that is not UTF-8"
    if not text.isprintable():
        return "a control or an invisible character"
    if "\\" in text or any(_resembles(char) for char in text if char > "\x7f"):
        return "a backslash, or a character that resembles a dot, slash, backslash or `%`"
    if any("." in part and not part.strip(". ") for part in _DELIMITERS.split(text)):
        return "a segment of dots"
    if _EMPTY.search(text):
        return "an empty segment"
    return "a capital letter in the scheme" if _CAPITAL.match(text) else ""


def _resembles(char: str) -> bool:
    return not {*"./\\%"}.isdisjoint(unicodedata.normalize("NFKC", char))

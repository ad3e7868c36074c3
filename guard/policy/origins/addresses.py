"""Hosts, URLs and file paths in one spelling each.

Readers of URLs disagree, so this one is generous: whatever any of them might take for the host is the host.
Nothing is decided here about what is allowed; that is `guard/policy/boundaries/`.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from typing import Final
from urllib.parse import unquote

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,30}:(?=[/\\])[/\\]*|(?:https?|ftp|mailto|tel|file):[/\\]*")
_DOTTED: Final = re.compile(
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,10}(?:[^\W\d_]{2,24}|xn--[a-z0-9-]{2,59})\.?"
)
_END: Final = re.compile(r"[/?#]")
_PORT: Final = re.compile(r":[0-9]{0,5}$")
_DOTS: Final = str.maketrans("\u3002\uff0e\uff61\\", ".../")
_NUMBERLIKE: Final = re.compile(r"(?:0x[0-9a-f]{1,8}|[0-9]{1,10})(?:\.(?:0x[0-9a-f]{1,8}|[0-9]{1,10})){0,3}")
_BYTE: Final = 255
_WEB: Final = ("", "http://", "https://")
_DEFAULT_PORTS: Final = (":80", ":443", ":")
_SECOND: Final = frozenset(("ac", "co", "com", "edu", "gov", "gv", "mil", "ne", "net", "nom", "or", "org"))
_SHARED: Final = frozenset(
    """
    amazonaws.com appspot.com azureedge.net azurewebsites.net blogspot.com cloudfront.net fly.dev github.io
    gitlab.io herokuapp.com netlify.app ngrok.io onrender.com pages.dev vercel.app web.app workers.dev
    """.split()  # noqa: SIM905
)
"""Names below which everybody may have one: what is registered there is one label longer."""
_EXTENSIONS: Final = frozenset(
    """
        avi bak bat bin bmp bz2 c cfg cmd conf cpp css csv dat db dll doc docx eml env exe gif gz h htm
    html ics ini     java jpeg jpg js json jsonl key lock log md mov mp3 mp4 mpeg msg odt old ods pdf
    pem php png ppt pptx py rar     rb rst rtf sh sql svg tar tgz tiff tmp toml ts tsv txt wav webp xls
    xlsx xml yaml yml zip
    """.split()  # noqa: SIM905
)


def is_name(text: str) -> bool:
    """Whether a text in small letters looks like a domain name and not like a file."""
    return bool(_DOTTED.fullmatch(text)) and text.rstrip(".").rpartition(".")[2] not in _EXTENSIONS


def is_file(text: str) -> bool:
    """Whether a text in small letters ends like a file's name."""
    stem, dot, extension = text.rpartition(".")
    return bool(stem and dot) and extension in _EXTENSIONS


def host(written: str) -> str:
    """A host in one spelling: no final dot, no `www.`, names as Unicode, addresses as four numbers."""
    name = written.translate(_DOTS).strip(".")
    if name.startswith("["):
        try:
            six = ipaddress.IPv6Address(name.strip("[]").partition("%")[0])
        except ValueError:
            return name
        return str(six.ipv4_mapped or six)
    if _NUMBERLIKE.fullmatch(name):
        return _four(name)
    if "xn--" in name:
        name = ".".join(map(_label, name.split(".")))
    return name.removeprefix("www.")


def registered(name: str) -> str:
    """The part of a host name that somebody registered, as far as that shows without a list of suffixes."""
    labels = name.split(".")
    if len(labels) <= 2 or name[-1:].isdigit():  # noqa: PLR2004 -- name and suffix
        return name
    suffix = ".".join(labels[-2:])
    longer = suffix in _SHARED or (len(labels[-1]) == 2 and labels[-2] in _SECOND)  # noqa: PLR2004 -- a country
    return ".".join(labels[-3:]) if longer else suffix


def url(written: str) -> tuple[str, str] | None:
    """Host and normal form of a URL, in small letters; None for what is none.

    `http` and `https`, `www.`, the usual ports, the fragment and a final slash are no part of the form.
    """
    found = _SCHEME.match(written)
    scheme = found.group().partition(":")[0] + "://" if found else ""
    rest = (written[found.end() :] if found else written).translate(_DOTS)
    end = _END.search(rest)
    authority, path = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    user, at, name = authority.rpartition("@")
    name = unquote(name)
    port = _PORT.search(name)
    if port:
        name = name[: port.start()]
    if not found and not _DOTTED.fullmatch(name):
        return None
    if not name:
        return None
    known = host(name)
    kept = "" if port is None or port.group() in _DEFAULT_PORTS else port.group()
    before = ("" if scheme in _WEB else scheme) + user + at
    return known, before + known + kept + unquote(path.partition("#")[0]).rstrip("/?")


def path(written: str) -> str:
    """A path in small letters: slashes forward and single, `.` and `..` resolved, percent undone."""
    plain = unquote(written).replace("\\", "/")
    return posixpath.normpath(plain) if plain else ""


def _label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode").casefold()
    except UnicodeError:
        return label


def _four(name: str) -> str:
    """An IPv4 address as `inet_aton` reads it: octal, hexadecimal, fewer than four parts."""
    try:
        *first, last = [
            int(part, 16 if part.startswith("0x") else 8 if part[0] == "0" else 10)
            for part in name.split(".")
        ]
    except ValueError:
        return name
    if any(part > _BYTE for part in first) or last >= 1 << 8 * (4 - len(first)):
        return name
    value = sum(part << (24 - 8 * place) for place, part in enumerate(first))
    return str(ipaddress.IPv4Address(value + last))

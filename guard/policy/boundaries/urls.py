"""`urlWithin`: a URL that leads to one of some hosts, whoever reads it.

The value is an absolute URI of RFC 3986 with an authority, in ASCII, and spelled so that RFC 3986, the
WHATWG's URL standard and naive readers find the same host and port. No name is resolved: a name that
is permitted may lead to any address, and only who connects can hold that.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from guard.core.errors import printable
from guard.policy.boundaries.hosts import PATTERN, Host, Names, Networks, names, networks, read
from guard.policy.boundaries.paths import fold
from guard.policy.boundaries.verdict import Judge, Keyword, Misstated, NotUnderstood, text

LONGEST: Final = 8192  # characters
HIGHEST_PORT: Final = 65535
DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<host>\[[^\[\]/?#@]*\]|[A-Za-z0-9.-]+)"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*)"
    r"(?:\?(?P<query>[A-Za-z0-9._~!$&'()*+,;=:@%/?\[\]-]*))?"
    r"(?:#[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
)
_BROKEN: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%[01][0-9A-Fa-f]|%7[Ff]")
_SLIPPERY: Final = re.compile(
    r"//|/(?:%20)*\.(?:\.|%20)*(?=/|$)|;|%(?:2[DdEeFf5]|5[CcFf]|7[Ee]|3[0-9Bb]|[46][1-9A-Fa-f]|[57][0-9Aa])"
)
"""In a path: empty segments, dots, parameters, and escapes that some servers decode before they route."""
_ROUTING: Final = frozenset("./\\%;")

SHAPE: Final[dict[str, Any]] = {
    "description": "the value is a URL to one of these hosts or networks",
    "type": "object",
    "additionalProperties": False,
    "required": ["schemes"],
    "anyOf": [{"required": ["hosts"]}, {"required": ["networks"]}],
    "properties": {
        "schemes": {
            "description": "schemes such as `https`",
            "type": "array",
            "items": {"type": "string", "pattern": "^[a-z][a-z0-9+.-]{0,31}$"},
            "minItems": 1,
            "maxItems": 16,
        },
        "hosts": {
            "description": "names; `*.example.com` is every name below, `*` every name that can be public",
            "type": "array",
            "items": {"type": "string", "pattern": PATTERN},
            "minItems": 1,
            "maxItems": 1000,
        },
        "networks": {
            "description": "addresses: `public`, `private`, or ranges such as `10.0.0.0/8`",
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": 64},
            "minItems": 1,
            "maxItems": 256,
        },
        "ports": {
            "description": "ports; without it the one that the scheme has by default",
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": HIGHEST_PORT},
            "minItems": 1,
            "maxItems": 64,
        },
        "paths": {
            "description": "paths, each with all below it; without it all",
            "type": "array",
            "items": {"type": "string", "pattern": "^/"},
            "minItems": 1,
            "maxItems": 256,
        },
    },
}


@dataclass(frozen=True, slots=True)
class Url:
    """Where a URL leads.

    Attributes:
        scheme: in small letters.
        host: name or address.
        port: what it says, or what the scheme has; None if neither says.
        path: as it stands.
    """

    scheme: str
    host: Host
    port: int | None
    path: str


def split(value: str) -> Url:
    """Read a URL. Raises NotUnderstood."""
    match = _URL.fullmatch(value)
    if match is None or _BROKEN.search(value) or (not match["path"] and "@" in value):
        raise NotUnderstood  # some readers look for the host behind the last `@`, also after `?` and `#`
    scheme = match["scheme"].lower()
    port = int(match["port"]) if match["port"] else DEFAULT_PORTS.get(scheme)
    if port is not None and port > HIGHEST_PORT:
        raise NotUnderstood
    return Url(scheme, read(match["host"]), port, match["path"] or "/")


def judge(stated: Any) -> Judge:
    """A judge of URLs. Raises Misstated."""
    schemes = frozenset(stated["schemes"])
    meant = names(stated.get("hosts", ()), "/hosts")
    ranges = networks(stated.get("networks", ()), "/networks")
    ports = frozenset(stated.get("ports", ()))
    if not ports and not schemes <= DEFAULT_PORTS.keys():
        what = f"no default port is known for `{printable(min(schemes - DEFAULT_PORTS.keys()))}`"
        raise Misstated(what, "/schemes", "add `ports`")
    paths = tuple(_prefix(path, f"/paths/{index}") for index, path in enumerate(stated.get("paths", ())))

    def within(value: Any) -> bool:
        url = split(text(value, LONGEST))
        led = url.scheme in schemes and _leads(url.host, meant, ranges) and _port(url, ports)
        return led and (not paths or _below(url.path, paths))

    return within


def _leads(host: Host, meant: Names, ranges: Networks) -> bool:
    if host.address is not None:
        return ranges.hold(host.address)
    return meant.hold(host.name) or ranges.hold_name(host.name)


def _port(url: Url, ports: frozenset[int]) -> bool:
    return url.port in ports if ports else url.port == DEFAULT_PORTS[url.scheme]


def _prefix(path: str, at: str) -> str:
    if _slips(path) or not _URL.fullmatch(f"x://x{path}") or "?" in path or "#" in path:
        raise Misstated(f"`{printable(path)}` is not a plain path", at, "write a path such as `/api/v1`")
    return path.rstrip("/")


def _below(path: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a path is one of these or below one; not understood where servers would differ."""
    if _slips(path):
        raise NotUnderstood
    plainly = _starts(path, prefixes)
    if _starts(_loose(path), tuple(map(_loose, prefixes))) != plainly:
        raise NotUnderstood
    return plainly


def _loose(path: str) -> str:
    """A path for a server that tells neither escapes, capitals nor compatibility forms apart."""
    return fold(unquote(path))


def _slips(path: str) -> bool:
    """Whether servers could route it in more than one way."""
    if _SLIPPERY.search(path):
        return True
    try:
        decoded = unquote(path, errors="strict")
    except UnicodeDecodeError:
        return True
    return not decoded.isprintable() or any(
        not _ROUTING.isdisjoint(unicodedata.normalize("NFKC", char)) for char in decoded if not char.isascii()
    )


def _starts(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)


KEYWORD: Final = Keyword("urlWithin", SHAPE, judge)

"""Hosts as they stand in URLs and e-mail addresses: names, and addresses of RFC 791 and RFC 4291.

Readers disagree on much: `127.1`, `0x7f.1`, `2130706433`, trailing dots, names that are not ASCII. Here
a host has one spelling only, and whatever else a reader might accept is not understood.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from guard.core.errors import printable
from guard.policy.boundaries.verdict import Misstated, NotUnderstood

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBERLIKE: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
LONGEST_NAME: Final = 253
PATTERN: Final = r"^(\*|(\*\.)?[A-Za-z0-9][A-Za-z0-9.-]{0,251}[A-Za-z0-9]|[A-Za-z0-9])$"

LOCAL_SUFFIXES: Final = frozenset(
    {
        *("alt", "arpa", "corp", "example", "home", "internal", "intranet", "invalid", "lan", "local"),
        *("localdomain", "localhost", "mail", "onion", "private", "test"),
    }
)
"""Last labels that name no public host: special-use names (RFC 6761), and what networks use inside."""

_SPECIAL: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
            *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
            *("224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
        ),
    )
)
"""IPv4 that is not public: IANA's special-purpose registry, multicast, and Azure's host address."""

_GLOBAL_6: Final = ipaddress.IPv6Network("2000::/3")
_SPECIAL_6: Final = tuple(
    map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20"))
)
_CARRIERS: Final = tuple(
    map(
        ipaddress.IPv6Network,
        ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"),
    )
)
"""IPv6 that carries an IPv4 address: what is reached is another host than the text says."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host.

    Attributes:
        name: in small letters; "" for an address.
        address: None for a name.
    """

    name: str
    address: Address | None = None


def read(host: str) -> Host:
    """A host as RFC 3986 writes it, an IPv6 address in brackets. Raises NotUnderstood."""
    if host.startswith("["):
        return Host("", _six(host))
    name = host.lower()
    labels = name.split(".")
    if len(name) > LONGEST_NAME or not host.isascii() or not all(map(_LABEL.fullmatch, labels)):
        raise NotUnderstood
    if _NUMBERLIKE.fullmatch(labels[-1]):  # then every reader takes it for an address, each in its way
        return Host("", _four(name))
    return Host(name)


def _four(host: str) -> Address:
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        raise NotUnderstood from None
    if str(address) != host:
        raise NotUnderstood
    return address


def _six(host: str) -> Address:
    if not re.fullmatch(r"\[[0-9A-Fa-f:]+\]", host):  # no zone (RFC 6874), no dotted tail
        raise NotUnderstood
    try:
        address = ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        raise NotUnderstood from None
    if any(address in carrier for carrier in _CARRIERS) or 1 < int(address) < 1 << 32:
        raise NotUnderstood
    return address


def is_public(address: Address) -> bool:
    """Whether an address can be reached over the Internet, by IANA's registries of special purposes."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL)
    return address in _GLOBAL_6 and not any(address in network for network in _SPECIAL_6)


def is_local(name: str) -> bool:
    """Whether a name can be none of the public name system's: one label, or a local suffix."""
    return "." not in name or name.rpartition(".")[2] in LOCAL_SUFFIXES


@dataclass(frozen=True, slots=True)
class Names:
    """Which names are meant.

    Attributes:
        exact: names.
        below: names under which every name is meant, themselves not.
        anything: whether every name is that could be public: two labels at least, and no local suffix.
    """

    exact: frozenset[str]
    below: tuple[str, ...]
    anything: bool

    def hold(self, name: str) -> bool:
        """Whether this name is meant."""
        if name in self.exact or any(name.endswith(f".{suffix}") for suffix in self.below):
            return True
        return self.anything and not is_local(name)


def names(patterns: Sequence[str], at: str) -> Names:
    """What `example.com`, `*.example.com` and `*` mean. Raises Misstated."""
    exact, below = set[str](), list[str]()
    for index, pattern in enumerate(patterns):
        if pattern == "*":
            continue
        bare = pattern.removeprefix("*.")
        try:
            host: Host | None = read(bare)
        except NotUnderstood:
            host = None
        if host is None or host.address is not None:
            what = f"`{printable(pattern)}` is not a host name"
            remedy = (
                "write an ASCII name, `api.example.com` or `*.example.com`; addresses go under `networks`"
            )
            raise Misstated(what, f"{at}/{index}", remedy)
        if bare == pattern:
            exact.add(host.name)
        else:
            below.append(host.name)
    return Names(frozenset(exact), tuple(below), "*" in patterns)


@dataclass(frozen=True, slots=True)
class Networks:
    """Which addresses are meant.

    Attributes:
        ranges: networks.
        public: whether every public address is.
        private: whether every other address is, and every name with a local suffix or of one label.
    """

    ranges: tuple[Network, ...]
    public: bool
    private: bool

    def hold(self, address: Address) -> bool:
        """Whether this address is meant."""
        if any(address in network for network in self.ranges):
            return True
        return self.public if is_public(address) else self.private

    def hold_name(self, name: str) -> bool:
        """Whether this name says by itself that it is private."""
        return self.private and is_local(name)


def networks(stated: Sequence[str], at: str) -> Networks:
    """What `public`, `private` and ranges such as `10.0.0.0/8` mean. Raises Misstated."""
    ranges = list[Network]()
    for index, one in enumerate(stated):
        if one not in ("public", "private"):
            try:
                ranges.append(ipaddress.ip_network(one))
            except ValueError:
                what = f"`{printable(one)}` is not a network"
                remedy = "write `public`, `private`, an address, or a range such as `10.0.0.0/8`"
                raise Misstated(what, f"{at}/{index}", remedy) from None
    return Networks(tuple(ranges), "public" in stated, "private" in stated)

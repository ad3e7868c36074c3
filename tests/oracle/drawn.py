"""What policies and calls are drawn from: small vocabularies, so that they meet, and what chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")
Document = dict[str, Any]
Schema = dict[str, Any] | bool

NOON = 1_800_000_000_000  # UNIX milliseconds
DAY = 86_400_000
HOUR = 3_600_000
ROLES = ("reader", "Writer", "admin", "0")
SCOPES = ("a:read", "a:write", "b/x", "c")
WILDCARDS = ("*", "a:*", "b/x:*", "a:read:*", "c:*")
SERVERS = ("git", "bank", "g")
TOOLS = ("read", "read_all", "write", "r", "réad", "[rw]ead")
# Globs, each with something that it matches; the last ones match nothing that is usually called.
SERVER_GLOBS = {
    "*": "git",
    "git": "git",
    "bank": "bank",
    "g*": "g",
    "?": "g",
    "b??k": "bank",
    "[gb]*": "[gb]",
}
TOOL_GLOBS = {name: name for name in TOOLS} | {
    "*": "write",
    "read*": "read_all",
    "r?ad": "réad",
    "*_all": "read_all",
    "w*e": "write",
    "r*": "read",
    "?": "r",
    "**a*d*": "read",
    "*r*e*": "write",
    "[rw]*": "[rw]ead",
    "re?d": "read",
    "READ*": "READ",
    "r.*": "r.",
}
# Likewise; behind each glob a URI that it matches, now and then one that no glob lists.
RESOURCE_GLOBS = {
    "file:///d/*": "file:///d/a",
    "*": "memo:one",
    "file:///d/a": "file:///d/a",
    "file:///*": "file:///d/../e",
    "file:///d/..": "file:///d/..",
    "file:///d/%2e%2e/*": "file:///d/%2e%2e/e",
    "memo:?*": "memo:a",
    "memo:*": "memo:..",
    "file:///d/*a": "file:///d/%C3%A9a",
}
URIS = (
    *("file:///d/a", "memo:one", "file:///d/b.c", "file:///d/%C3%A9a", "file:///d/\u00e9", "file:///d/.a"),
    *("file:///d/../e", "file:///d/./a", "file:///d/..", "file:///d/%2e%2E/e", "file:///d/.%2e", "memo:."),
    *("file:///d/..%2fe", "file:///d/%5c", "file:///d/..\\e", "file:///d/a\n", "file:///d/%00", "memo:%7f"),
    *("file:///d/%252e%252e/e", "file:///d/%c0%ae", "file:///d/%", "file:///d/%u002e", "file:///d/%6"),
    *("file:///d/..;a/e", "file:///d/a?b=..", "file:///d/..#a", "file:///d/. ./e", "file:///d/.../e"),
    *("file:///d/%61", "file:///d/%7Ea", "file:///d/%20", "FILE:///d/a", "memo:A", "file:///d//a", "//d"),
    *(
        "file:///d/\uff0e\uff0e/e",
        "file:///d/\u2025/e",
        "file:///d/a\u202eb",
        "file:///d/\ud800",
        "",
        "a:b//c",
    ),
    *("file:///d/a b", "file:///d/ /a", "file:///d/%3F%23", "file:///d/%C2%A0", "file:///d/\uff3cx"),
)
FIELD_OF = {"tool": "tools", "prompt": "prompts", "resource": "resources", "method": "methods"}
URI_SCHEMAS: tuple[Schema, ...] = (
    {"properties": {"uri": {"pattern": "^file:"}}},
    {"properties": {"uri": {"maxLength": 12}}},
    {"required": ["uri"]},
    {"properties": {"uri": {"pattern": "a$"}}, "required": ["uri"]},
)
# They sort otherwise than in a dictionary, and around "servers/git" and "tools/*:read".
IDS = (
    *("a", "a-b", "a.b", "a_b", "ab", "servers.x", "tools.x", "tools-x", "tools0", "u"),
    *("resources.x", "prompts0", "methods-x", "m"),
    *(f"{letter}{number}" for letter in "ztb" for number in range(8)),
)

APART = ("principal", "tool", "conversation", "role")
AMOUNTS = (
    *(
        1,
        "2",
        0,
        "0",
        0.29,
        "12.50",
        "0.001",
        3,
        "3.00",
        2.001,
        "0.000000001",
        "007",
        19.99,
        1e300,
        2**53 - 1,
    ),
    *("1.", ".5", "1e2", "-1", "+1", "\uff11", "0.0000000001", " 1", "1_0", "1,5", "", "-0", -1, -0.5, -0.0),
    *(True, None, [], {}, 1e-12, "9" * 40, "9" * 400),
)
POINTERS = ("/n", "/s", "/l/0", "/o/n", "/a~1b", "/m~0n", "/l", "/o", "", "/l/00", "/n/0")

NUMBERS = (1, 0, 2, 3, -1, 10, 0.5, 1.0, 2.5, -0.0, 0.29, 1.005, 1e300, 2**53 - 1, -(2**53 - 1))
TEXTS = (
    *("a", "", "b", "ab", "abc", "A1", "é", "\U0001f600", "a/b", "~", "agent/x"),
    *("2024-02-29", "2023-02-29", "me@example.com", "nobody", "1.2.3.4", "1.2.3.400", "::1", ":::"),
    *("2eb8aa08-aa98-11ea-b4aa-73b441d16380", "2eb8aa08"),
)
SCALARS = (None, True, False, *NUMBERS, *TEXTS)
PATTERNS = ("^a", "b$", "^[a-z]+$", "[0-9]", "^(a|b)?$", "^agent/[a-z0-9-]{1,8}$", "a.c")
FORMATS = ("date", "email", "ipv4", "ipv6", "uuid")
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
FIELDS = ("n", "s", "l", "o", "a/b", "m~n")


@dataclass(frozen=True)
class Dice:
    """What chooses.

    Attributes:
        below: gives a number from 0, below its argument.
    """

    below: Callable[[int], int]

    def one(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def once_in(self, n: int) -> bool:
        return self.below(n) == n - 1

    def some(self, options: Sequence[T], low: int, high: int) -> list[T]:
        """From `low` to `high` of the options, none twice, in any order."""
        return list(islice(self.each(options), low + self.below(high - low + 1)))

    def each(self, options: Sequence[T]) -> Iterator[T]:
        """All options in any order, each chosen when it is asked for."""
        left = list(options)
        while left:
            yield left.pop(self.below(len(left)))


def globs(field: str) -> dict[str, str]:
    return RESOURCE_GLOBS if field == "resources" else TOOL_GLOBS

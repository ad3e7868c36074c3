"""What a policy is made of: its kinds of rules, as frozen values.

Each names what it is about with patterns. None knows of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, TypeVar

from guard.policy.globs import fits
from guard.policy.request import Asked
from guard.policy.schema import Schema

ANY: Final = "*"
_T = TypeVar("_T")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = 24 * 60


class RuleFailed(Exception):
    """A rule could not be evaluated. It denies.

    Attributes:
        rule: its id.
    """

    def __init__(self, rule: str) -> None:
        super().__init__(f"{rule} could not be evaluated")
        self.rule = rule


@dataclass(frozen=True, slots=True, order=True)
class Pattern:
    """Which tools a rule is about, or which prompts, resources or methods.

    Attributes:
        match: exact name or glob of the tool; of a resource, of its URI exactly as it will be sent.
        server: exact id or glob of the server.
        kind: "tool", "prompt", "resource" or "method": a rule for one kind says nothing of the others.
    """

    match: str
    server: str = "*"
    kind: str = "tool"

    def covers(self, server: str, name: str, kind: str = "tool") -> bool:
        """Whether this tool of this server is meant."""
        return kind == self.kind and fits(self.match, name) and fits(self.server, server)

    def spells(self, server: str, name: str, kind: str) -> bool:
        """Whether this tool of this server is meant, and its name written out."""
        return self.match == name and self.covers(server, name, kind)


@dataclass(frozen=True, slots=True)
class Role:
    """What a role grants.

    Attributes:
        scopes: its own and every inherited one; `x:*` stands for each scope that begins with `x:`.
        may_assert_conversations: whether a conversation id that it names separates facts.
        may_assert_user: whether it may hand over the user's own words.
        may_approve: whether it may answer what other principals are asked.

    The last three are never inherited.
    """

    scopes: frozenset[str]
    may_assert_conversations: bool = False
    may_assert_user: bool = False
    may_approve: bool = False


class Held:
    """The scopes that a principal has here: those that each side grants.

    Args:
        sides: what the role grants, and what the credential names where it narrows. In each, `x:*`
            stands for every scope that begins with `x:`, and `*` for all.

    Attributes:
        exact: what every side names.
        words: what each side grants, for people.
    """

    __slots__ = ("_open", "_sides", "exact", "words")

    def __init__(self, *sides: frozenset[str]) -> None:
        self.exact: frozenset[str] = frozenset.intersection(*sides)
        self._sides = sides
        self.words = f"held are {' and '.join(' '.join(sorted(side)) or 'nothing' for side in sides)}"
        self._open = any(_is_wide(scope) for side in sides for scope in side)

    def covers(self, scopes: Iterable[str]) -> bool:
        """Whether each of these scopes is granted by every side."""
        if self.exact.issuperset(scopes):
            return True
        return self._open and all(grants(side, scope) for side in self._sides for scope in scopes)

    def lacks(self, scopes: Iterable[str]) -> frozenset[str]:
        """Those that are not."""
        return frozenset(scope for scope in scopes if not self.covers((scope,)))


def grants(side: frozenset[str], scope: str) -> bool:
    """Whether one side grants a scope, by name or by a wildcard."""
    return scope in side or any(_is_wide(wide) and scope.startswith(wide[:-1]) for wide in side)


def _is_wide(scope: str) -> bool:
    """Whether it stands for more than itself: a star stands alone, or after a colon, and nowhere else."""
    return scope == ANY or scope.endswith(f":{ANY}")


@dataclass(frozen=True, slots=True)
class ToolRule:
    """Lists tools and the scopes that they require."""

    id: str
    tools: tuple[Pattern, ...]
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Intent:
    """What a permitted call of these tools looks like: its arguments, and the whole request."""

    id: str
    tools: tuple[Pattern, ...]
    schema: Schema | None
    because: str = ""
    request: Schema | None = None

    def matches(self, asked: Asked) -> bool:
        """Whether the call is surely as the intent says. Raises RuleFailed."""
        return (self.schema is None or judged(self.id, self.schema.surely, asked.arguments)) and (
            self.request is None or judged(self.id, self.request.surely, asked.request)
        )

    def first_failure(self, asked: Asked) -> str | None:
        """Pointer into the arguments to the first place that is not as the intent says; None if none is.

        Raises:
            RuleFailed: it cannot be found.
        """
        if self.schema is None or judged(self.id, self.schema.surely, asked.arguments):
            return None
        return judged(self.id, self.schema.first_failure, asked.arguments)


@dataclass(frozen=True, slots=True)
class Protected:
    """Forbids: always where there is no schema, else where every one that there is matches."""

    id: str
    tools: tuple[Pattern, ...]
    schema: Schema | None = None
    because: str = ""
    request: Schema | None = None

    def matches(self, asked: Asked) -> bool:
        """Whether the call is one that the rule is about. Raises RuleFailed."""
        return (self.schema is None or judged(self.id, self.schema.matches, asked.arguments)) and (
            self.request is None or judged(self.id, self.request.matches, asked.request)
        )


@dataclass(frozen=True, slots=True)
class AskRule(Protected):
    """A person must approve what it matches.

    Attributes:
        approver: "reviewer", or "client" where the word of the requester's own client counts.
        window: milliseconds that question and approval stand.
    """

    approver: str = "reviewer"
    window: int = 600_000


@dataclass(frozen=True, slots=True)
class Hours:
    """When these may be called. Where such rules name a tool, the time lies inside one of them.

    Attributes:
        id: its id.
        tools: which tools.
        days: 0 for Monday to 6 for Sunday: on which a stretch begins.
        begin: minutes after midnight.
        end: minutes after midnight, up to 1440, excluded; not after `begin`: on the day that follows.
        zone: the rules of the time zone, read when the policy was.
        because: for reviewers.
    """

    id: str
    tools: tuple[Pattern, ...]
    days: frozenset[int]
    begin: int
    end: int
    zone: tzinfo = field(compare=False)
    because: str = ""

    def hold(self, now: int) -> bool:
        """Whether it may be called at `now`, UNIX milliseconds. Raises RuleFailed."""
        return judged(self.id, self._hold, now)

    def _hold(self, now: int) -> bool:
        at = (_EPOCH + timedelta(milliseconds=now)).astimezone(self.zone)
        minute, day = at.hour * 60 + at.minute, at.weekday()
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        if minute >= self.begin:
            return day in self.days
        return minute < self.end and (day - 1) % 7 in self.days


@dataclass(frozen=True, slots=True)
class Source:
    """How far what these say is trusted.

    Attributes:
        id: its place in the policy.
        tools: which tools, prompts or resources.
        trust: "trusted", "mixed" or "untrusted".
        fields: other trust, by RFC 6901 pointer into the structured result.
    """

    id: str
    tools: tuple[Pattern, ...]
    trust: str
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OriginRule:
    """Where the values of these arguments may come from.

    Attributes:
        id: its id.
        tools: which tools.
        arguments: RFC 6901 pointers into the arguments; a segment `*` stands for each member or item.
        accept: any of "user", "policy", "trusted", "mixed", "unseen" and "tool:SERVER/NAME".
        constants: values whose origin is the policy itself.
        asks: whether a person is asked where it is another; else it is denied.
        approver: as in AskRule.
        window: as in AskRule.
        because: for reviewers.
    """

    id: str
    tools: tuple[Pattern, ...]
    arguments: tuple[str, ...]
    accept: frozenset[str]
    constants: frozenset[str] = frozenset()
    asks: bool = False
    approver: str = "reviewer"
    window: int = 600_000
    because: str = ""


@dataclass(frozen=True, slots=True)
class Strikes:
    """How many denials inside a window put something out of use."""

    denials: int
    window: int


def judged(rule: str, evaluate: Callable[[Any], _T], value: Any) -> _T:
    """What a rule's own judgement says; whatever breaks in it is RuleFailed."""
    try:
        return evaluate(value)
    except Exception as error:
        raise RuleFailed(rule) from error

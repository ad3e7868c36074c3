"""A policy, compiled: small frozen values, and an index by tool. Prompts, resources and methods are alike.

What a decision costs depends on the rules that name its tool, not on how many there are: exact
names stand in a dict, globs in a list that is walked once for each (server, tool) and remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from guard.core.canonical import digest
from guard.core.model import Conversation, PolicyRef, Principal, Reservation, Tool
from guard.policy.globs import fits, is_glob
from guard.policy.schema import Schema
from guard.policy.uris import oddity

_REMEMBERED: Final = 4096
_LONGEST_REMEMBERED: Final = 512  # characters of a name; a URI may be much longer


class RuleFailed(Exception):
    """A rule could not be evaluated: nobody knows what it would have said, so the call is denied.

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
        scopes: its own and every inherited one.
        may_assert_conversations: whether a conversation id that it names separates facts; never inherited.
    """

    scopes: frozenset[str]
    may_assert_conversations: bool = False


@dataclass(frozen=True, slots=True)
class ToolRule:
    """Lists tools and the scopes that they require."""

    id: str
    tools: tuple[Pattern, ...]
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Intent:
    """What a permitted call of these tools looks like."""

    id: str
    tools: tuple[Pattern, ...]
    schema: Schema

    def matches(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the arguments are surely as the intent says. Raises RuleFailed."""
        return _matches(self.id, self.schema.surely, arguments)

    def first_failure(self, arguments: Mapping[str, Any]) -> str:
        """Pointer into the arguments to the first place that is not as the intent says. Raises RuleFailed."""
        try:
            return self.schema.first_failure(arguments)
        except Exception as error:
            raise RuleFailed(self.id) from error


@dataclass(frozen=True, slots=True)
class Protected:
    """Forbids: always where `schema` is None, else where the arguments match it."""

    id: str
    tools: tuple[Pattern, ...]
    schema: Schema | None = None
    because: str = ""

    def matches(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the call is one that the rule forbids. Raises RuleFailed."""
        return self.schema is None or _matches(self.id, self.schema.matches, arguments)


@dataclass(frozen=True, slots=True)
class Limit:
    """How many calls of these tools there may be inside a window that slides.

    Attributes:
        id: its id.
        tools: which tools.
        per: what is counted apart: any of "principal", "tool" and "conversation".
        most: how many calls.
        window: milliseconds.
        because: for reviewers.
    """

    id: str
    tools: tuple[Pattern, ...]
    per: frozenset[str]
    most: int
    window: int
    because: str = ""

    def reservation(
        self, policy: str, principal: Principal, tool: Tool, conversation: Conversation | None
    ) -> Reservation:
        """What a call must take. `conversation` is None where its id separates nothing."""
        who = ("principal", principal.issuer, principal.subject)
        parts = set[tuple[str, ...]]()
        if "principal" in self.per:
            parts.add(who)
        if "tool" in self.per:
            parts.add(("tool", tool.kind, tool.server, tool.name))
        if "conversation" in self.per:  # scoped to its principal
            parts.add(who if conversation is None else ("conversation", *who[1:], conversation.id))
        named = digest([policy, *map(list, sorted(parts))])  # of one length, whatever the names
        return Reservation(self.id, f"{self.id}/{named}", 1, self.most, self.window)


def _matches(rule: str, matches: Callable[[Mapping[str, Any]], bool], arguments: Mapping[str, Any]) -> bool:
    try:
        return matches(arguments)
    except Exception as error:
        raise RuleFailed(rule) from error


@dataclass(frozen=True, slots=True)
class Matching:
    """Every rule about one tool of one server, each kind in the order of the ids.

    Attributes:
        tools: the tool rules: what they require is required.
        intents: the intents.
        protected: the rules that forbid.
        required: every scope that the tool rules require together.
        listing: the tool rules that list it: all, but for a URI that is odd only those that spell it out.
        odd: whether it is a URI that a server could read in more than one way.
        limits: how often it may be called.
    """

    tools: tuple[ToolRule, ...]
    intents: tuple[Intent, ...]
    protected: tuple[Protected, ...]
    required: frozenset[str]
    listing: tuple[ToolRule, ...]
    odd: bool = False
    limits: tuple[Limit, ...] = ()


class _Index:
    """Rules of one kind by the exact name of the tool, and the globs in a list."""

    def __init__(self, rules: Iterable[Any]) -> None:
        self._exact: dict[str, list[tuple[Pattern, Any]]] = {}
        self._globs: list[tuple[Pattern, Any]] = []
        for rule in rules:
            for pattern in rule.tools:
                home = self._globs if is_glob(pattern.match) else self._exact.setdefault(pattern.match, [])
                home.append((pattern, rule))

    def about(self, server: str, name: str, kind: str) -> tuple[Any, ...]:
        """The rules about a tool, each once, sorted by id."""
        candidates = [*self._exact.get(name, ()), *self._globs]
        found = {id(rule): rule for pattern, rule in candidates if pattern.covers(server, name, kind)}
        return tuple(sorted(found.values(), key=lambda rule: rule.id))


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, ready to decide. Two are equal only if they are the same bytes.

    Attributes:
        ref: id, version and digest: what goes into artifact and entry.
        mode: "enforce" or "observe".
        roles: by name.
        tools: the tool rules.
        intents: the intents.
        protected: the rules that forbid.
        limits: how often what they name may be called.
        trusted: ids of the servers whose declared scopes count.
        expires: UNIX milliseconds from which on everything is denied, None for never.
        observe_until: UNIX milliseconds at which observing ends, None in enforce mode.
    """

    ref: PolicyRef
    mode: str = "enforce"
    roles: Mapping[str, Role] = field(default_factory=dict, compare=False)
    tools: tuple[ToolRule, ...] = field(default=(), compare=False)
    intents: tuple[Intent, ...] = field(default=(), compare=False)
    protected: tuple[Protected, ...] = field(default=(), compare=False)
    limits: tuple[Limit, ...] = field(default=(), compare=False)
    trusted: frozenset[str] = field(default=frozenset(), compare=False)
    expires: int | None = field(default=None, compare=False)
    observe_until: int | None = field(default=None, compare=False)
    _indexes: tuple[_Index, ...] = field(init=False, repr=False, compare=False)
    _memo: dict[tuple[str, str, str], Matching] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        kinds = (self.tools, self.intents, self.protected, self.limits)
        object.__setattr__(self, "_indexes", tuple(_Index(rules) for rules in kinds))
        object.__setattr__(self, "_memo", {})

    @property
    def observing(self) -> bool:
        """Whether a default deny and an unmatched intent are let through and noted."""
        return self.mode == "observe"

    def about(self, server: str, name: str, kind: str = "tool") -> Matching:
        """Every rule about one tool. What is remembered is only a cache, and bounded."""
        matching = self._memo.get((kind, server, name))
        if matching is None:
            tools, intents, protected, limits = (i.about(server, name, kind) for i in self._indexes)
            required = frozenset().union(*(rule.scopes for rule in tools))
            odd = kind == "resource" and oddity(name) != ""
            # A glob lists nothing odd; what it requires or forbids holds all the same.
            listing = tuple(
                rule for rule in tools if not odd or any(p.spells(server, name, kind) for p in rule.tools)
            )
            matching = Matching(tools, intents, protected, required, listing, odd, limits)
            if len(self._memo) >= _REMEMBERED:
                self._memo.clear()
            if len(name) <= _LONGEST_REMEMBERED:
                self._memo[kind, server, name] = matching
        return matching

    def held(self, principal: Principal) -> frozenset[str] | None:
        """The scopes that a principal has here, narrowed by its credential; None if its role is unknown."""
        role = self.roles.get(principal.role)
        if role is None:
            return None
        return role.scopes if principal.scopes is None else role.scopes & principal.scopes

    def needs(self, tool: Tool) -> frozenset[str]:
        """Every scope that a tool requires: its rules', and its author's where the server is trusted."""
        required = self.about(tool.server, tool.name, tool.kind).required
        return required | tool.declared if tool.server in self.trusted else required

    def reservations(
        self, principal: Principal, tool: Tool, conversation: Conversation
    ) -> tuple[Reservation, ...]:
        """What a call must take from counters, sorted by limit: () where no limit names the tool.

        A new conversation id sheds nothing: it separates only where the role may assert conversations.
        """
        limits = self.about(tool.server, tool.name, tool.kind).limits
        if not limits:
            return ()
        own = conversation if self.may_assert_conversations(principal.role) else None
        return tuple(limit.reservation(self.ref.id, principal, tool, own) for limit in limits)

    def role_exists(self, role: str) -> bool:
        """Whether the policy knows the role."""
        return role in self.roles

    def may_assert_conversations(self, role: str) -> bool:
        """Whether conversation ids that this role names separate facts; False for an unknown role."""
        return role in self.roles and self.roles[role].may_assert_conversations

"""A policy as it decides: frozen values, and an index by the name of the tool.

The index changes nothing about what a policy says, only how fast the rules about one tool are found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from guard.core.model import Conversation, PolicyRef, Principal, Tool
from guard.policy.counting import Ceiling, Limit, Reading, Scope, Sequence
from guard.policy.globs import is_glob
from guard.policy.kinds import (
    ANY,
    AskRule,
    Held,
    Hours,
    Intent,
    OriginRule,
    Pattern,
    Protected,
    Role,
    RuleFailed,
    Source,
    Strikes,
    ToolRule,
)
from guard.policy.uris import oddity

__all__ = [
    "Held",
    "Intent",
    "Limit",
    "Matching",
    "Pattern",
    "Policy",
    "Protected",
    "Role",
    "RuleFailed",
    "ToolRule",
]

_REMEMBERED: Final = 4096
_LONGEST_REMEMBERED: Final = 256
_TRUST: Final = ("untrusted", "mixed", "trusted")
_EMPTY: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Matching:
    """Every rule about one tool of one server, each kind in the order of the ids.

    Attributes:
        tools: the tool rules: what they require is required.
        intents: the intents.
        protected: the rules that forbid.
        required: every scope that the tool rules and its server require together.
        listing: the tool rules that list it: all, but for a URI that is odd only those that spell it out.
        odd: whether it is a URI that a server could read in more than one way.
        limits: how often it may be called.
        ceilings: how deep, and how large its results.
        hours: when.
        sequences: what must come before it, or must not.
        opening: the sequences that its own call matters to.
        origins: where its arguments' values may come from.
        asks: when a person must approve.
        sources: how far its results are trusted.
        server: the scopes that its server requires.
        counts: whether anything is counted or bounded.
        questions: whether a person may have to be asked.
    """

    tools: tuple[ToolRule, ...]
    intents: tuple[Intent, ...]
    protected: tuple[Protected, ...]
    required: frozenset[str]
    listing: tuple[ToolRule, ...]
    odd: bool = False
    limits: tuple[Limit, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    hours: tuple[Hours, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    opening: tuple[Sequence, ...] = ()
    origins: tuple[OriginRule, ...] = ()
    asks: tuple[AskRule, ...] = ()
    sources: tuple[Source, ...] = ()
    server: frozenset[str] = _EMPTY

    counts: bool = field(init=False, default=False)
    questions: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        counts = bool(self.limits or self.sequences or self.opening or self.ceilings)
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "questions", bool(self.asks or self.origins))


class _Index:
    """Rules of one kind by the exact name of the tool, and the globs in a list."""

    def __init__(self, rules: Iterable[tuple[Any, Iterable[Pattern]]]) -> None:
        self._exact: dict[str, list[tuple[Pattern, Any]]] = {}
        self._globs: list[tuple[Pattern, Any]] = []
        for rule, patterns in rules:
            for pattern in patterns:
                home = self._globs if is_glob(pattern.match) else self._exact.setdefault(pattern.match, [])
                home.append((pattern, rule))

    def about(self, server: str, name: str, kind: str) -> tuple[Any, ...]:
        """The rules about a tool, each once, sorted by id."""
        candidates = [*self._exact.get(name, ()), *self._globs]
        found = {id(rule): rule for pattern, rule in candidates if pattern.covers(server, name, kind)}
        return tuple(sorted(found.values(), key=lambda rule: rule.id))


@dataclass(frozen=True, slots=True)
class Remembering:
    """How long, and how much, what servers said is remembered.

    Attributes:
        window: milliseconds.
        values: how many values a memory may have.
        user_overrides: whether the user's word beats that a value was seen in something untrusted.
    """

    window: int = 86_400_000
    values: int = 20_000
    user_overrides: bool = False


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
        ceilings: how deep calls may lead to calls, and how large results may be.
        hours: when what they name may be called.
        sequences: what must come before what, or must not.
        sources: how far what servers say is trusted.
        origins: where values may come from.
        asks: when a person must approve.
        servers: the scopes that everything of a server requires, by its id.
        trusted: ids of the servers whose declared scopes count.
        remembering: how long, and how much, is remembered for `origins`.
        strikes: how many denials put a "conversation" or a "principal" out of use.
        expires: UNIX milliseconds from which on everything is denied, None for never.
        observe_until: UNIX milliseconds at which observing ends, None in enforce mode.
        above: the policies above this one, the highest first: each of them must permit, too.
        others: ids of the intents of the other layers.
        layers: every layer, the highest first, this one last.
        versions: what the store must hold, for every layer: version by `PolicyRef.versioned`.
    """

    ref: PolicyRef
    mode: str = "enforce"
    roles: Mapping[str, Role] = field(default_factory=dict, compare=False)
    tools: tuple[ToolRule, ...] = field(default=(), compare=False)
    intents: tuple[Intent, ...] = field(default=(), compare=False)
    protected: tuple[Protected, ...] = field(default=(), compare=False)
    limits: tuple[Limit, ...] = field(default=(), compare=False)
    ceilings: tuple[Ceiling, ...] = field(default=(), compare=False)
    hours: tuple[Hours, ...] = field(default=(), compare=False)
    sequences: tuple[Sequence, ...] = field(default=(), compare=False)
    sources: tuple[Source, ...] = field(default=(), compare=False)
    origins: tuple[OriginRule, ...] = field(default=(), compare=False)
    asks: tuple[AskRule, ...] = field(default=(), compare=False)
    servers: Mapping[str, frozenset[str]] = field(default_factory=dict, compare=False)
    trusted: frozenset[str] = field(default=frozenset(), compare=False)
    remembering: Remembering = field(default=Remembering(), compare=False)
    strikes: Mapping[str, Strikes] = field(default_factory=dict, compare=False)
    expires: int | None = field(default=None, compare=False)
    observe_until: int | None = field(default=None, compare=False)
    above: tuple[Policy, ...] = field(default=(), compare=False)
    others: frozenset[str] = field(default=frozenset(), compare=False)
    layers: tuple[Policy, ...] = field(init=False, repr=False, compare=False)
    versions: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _indexes: tuple[_Index, ...] = field(init=False, repr=False, compare=False)
    _memo: dict[tuple[str, str, str], Matching] = field(init=False, repr=False, compare=False)
    _held: dict[tuple[str, frozenset[str] | None], Held] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        kinds = (
            self.tools,
            self.intents,
            self.protected,
            self.limits,
            self.ceilings,
            self.hours,
            self.sequences,
            self.origins,
            self.asks,
            self.sources,
        )
        by_tool = [_Index((rule, rule.tools) for rule in rules) for rules in kinds]
        opening = _Index((rule, rule.others) for rule in self.sequences)
        object.__setattr__(self, "_indexes", (*by_tool, opening))
        object.__setattr__(self, "_memo", {})
        object.__setattr__(self, "_held", {})
        object.__setattr__(self, "layers", (*self.above, self))
        object.__setattr__(self, "versions", {ref.versioned: ref.version for ref in self.ref.all})

    @property
    def observing(self) -> bool:
        """Whether a default deny and an unmatched intent are let through and noted."""
        return self.mode == "observe"

    def about(self, server: str, name: str, kind: str = "tool") -> Matching:
        """Every rule of this layer about one tool. What is remembered is only a cache, and bounded."""
        matching = self._memo.get((kind, server, name))
        if matching is None:
            matching = self._matching(server, name, kind)
            if len(self._memo) >= _REMEMBERED:
                self._memo.clear()
            if len(name) <= _LONGEST_REMEMBERED:
                self._memo[kind, server, name] = matching
        return matching

    def _matching(self, server: str, name: str, kind: str) -> Matching:
        tools, intents, protected, limits, ceilings, hours, sequences, origins, asks, sources, opening = (
            index.about(server, name, kind) for index in self._indexes
        )
        of_server = self.servers.get(server, _EMPTY)
        odd = kind == "resource" and oddity(name) != ""
        # A glob lists nothing odd; what it requires or forbids holds all the same.
        listing = tuple(
            rule for rule in tools if not odd or any(p.spells(server, name, kind) for p in rule.tools)
        )
        return Matching(
            tools=tools,
            intents=intents,
            protected=protected,
            required=of_server.union(*(rule.scopes for rule in tools)),
            listing=listing,
            odd=odd,
            limits=limits,
            ceilings=ceilings,
            hours=hours,
            sequences=sequences,
            opening=opening,
            origins=origins,
            asks=asks,
            sources=sources,
            server=of_server,
        )

    def held(self, principal: Principal) -> Held | None:
        """The scopes that a principal has here, narrowed by its credential; None if its role is unknown."""
        found = self._held.get((principal.role, principal.scopes))
        if found is None:
            role = self.roles.get(principal.role)
            if role is None:
                return None
            found = Held(role.scopes) if principal.scopes is None else Held(role.scopes, principal.scopes)
            if len(self._held) >= _REMEMBERED:
                self._held.clear()
            self._held[principal.role, principal.scopes] = found
        return found

    def needs(self, tool: Tool) -> frozenset[str]:
        """Every scope that a tool requires: its rules', its server's, and its author's where that counts."""
        required = self.about(tool.server, tool.name, tool.kind).required
        return required | tool.declared if tool.server in self.trusted else required

    def declares(self, intent: str) -> bool:
        """Whether this layer has an intent of that id."""
        return any(rule.id == intent for rule in self.intents)

    # -- what a decision reads ---------------------------------------------------------------------

    def scope(self, principal: Principal, tool: Tool, conversation: Conversation) -> Scope:
        """Whose counters a call has to do with, in this layer.

        A new conversation id sheds nothing: it separates only where the role may assert conversations.
        """
        own = conversation if self.may_assert_conversations(principal.role) else None
        return Scope(self.ref.id, principal, tool, own)

    def readings(self, principal: Principal, tool: Tool, conversation: Conversation) -> tuple[Reading, ...]:
        """Every counter that a decision reads, of all layers: `Facts.used` has each under its key."""
        return tuple(
            reading for layer in self.layers for reading in layer.own_readings(principal, tool, conversation)
        )

    def own_readings(self, principal: Principal, tool: Tool, conversation: Conversation) -> Iterator[Reading]:
        """Those of this layer."""
        about = self.about(tool.server, tool.name, tool.kind)
        if about.limits or about.sequences:
            scope = self.scope(principal, tool, conversation)
            yield from (limit.reading(scope) for limit in about.limits)
            for sequence in about.sequences:
                yield from sequence.readings(scope)

    def memory(self, principal: Principal, conversation: Conversation) -> str:
        """What names the memory that this call reads and adds to; "" where no layer has rules on origins."""
        if not any(layer.origins for layer in self.layers):
            return ""
        own = conversation if self.may_assert_conversations(principal.role) else None
        return Scope("", principal, Tool("", ""), own).memory()

    def sensitive(self, tool: Tool) -> tuple[OriginRule, ...]:
        """The rules on the origins of what this tool is given, of all layers."""
        return tuple(
            rule for layer in self.layers for rule in layer.about(tool.server, tool.name, tool.kind).origins
        )

    def asks_about(self, tool: Tool) -> bool:
        """Whether a person may be asked about this tool, by any layer."""
        return any(
            about.asks or any(rule.asks for rule in about.origins)
            for about in (layer.about(tool.server, tool.name, tool.kind) for layer in self.layers)
        )

    def trust(self, tool: Tool) -> tuple[str, Mapping[str, str]]:
        """How far what this tool says is trusted, and otherwise by pointer: the least of what layers say.

        A layer that has rules on origins, and names no source for it, says that it is untrusted.
        """
        labels: list[str] = []
        every: list[Source] = []
        for layer in self.layers:
            sources = layer.about(tool.server, tool.name, tool.kind).sources
            labels += [source.trust for source in sources]
            if not sources and layer.origins:
                labels.append("untrusted")
            every += sources
        pointers = {pointer for source in every for pointer in source.fields}
        fields = {
            pointer: least_trusted(*(_trust_at(pointer, source) for source in every))
            for pointer in sorted(pointers)
        }
        whole = least_trusted(*labels) if labels else "untrusted"
        if len(self.layers) > 1:  # what one layer says of a part lifts nothing that another says of the whole
            fields = {pointer: least_trusted(trust, whole) for pointer, trust in fields.items()}
        return whole, fields

    # -- roles -------------------------------------------------------------------------------------

    def role_exists(self, role: str) -> bool:
        """Whether every layer knows the role."""
        return all(role in layer.roles for layer in self.layers)

    def may_assert_conversations(self, role: str) -> bool:
        """Whether conversation ids that this role names separate facts; False for an unknown role."""
        return self._may(role, "may_assert_conversations")

    def may_assert_user(self, role: str) -> bool:
        """Whether this role may hand over the user's own words."""
        return self._may(role, "may_assert_user")

    def may_approve(self, role: str) -> bool:
        """Whether this role may answer what other principals are asked."""
        return self._may(role, "may_approve")

    def _may(self, role: str, what: str) -> bool:
        return all(role in layer.roles and getattr(layer.roles[role], what) for layer in self.layers)


def least_trusted(*labels: str) -> str:
    """The least of these: "untrusted" before "mixed" before "trusted"; any other word is the least."""
    return min(labels, key=lambda label: _TRUST.index(label) if label in _TRUST else -1)


def _trust_at(pointer: str, source: Source) -> str:
    """The least trust that a source may mean of what lies at a pointer, where `*` is any one segment."""
    if pointer in source.fields:
        return source.fields[pointer]
    at = pointer.split("/")[1:]
    deepest, covering, crossing = -1, [source.trust], list[tuple[int, str]]()
    for field_pointer, trust in source.fields.items():
        path = field_pointer.split("/")[1:]
        steps = [*zip(path, at, strict=False)]
        if len(path) > len(at) or any(one != other and ANY not in (one, other) for one, other in steps):
            continue
        if any(one not in (other, ANY) for one, other in steps):  # it may be on the way, and may not
            crossing.append((len(path), trust))
        elif len(path) >= deepest:
            covering = [*(covering if len(path) == deepest else ()), trust]
            deepest = len(path)
    return least_trusted(*covering, *(trust for depth, trust in crossing if depth >= deepest))

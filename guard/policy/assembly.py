"""From a well-formed document to a sound policy: names resolve, ids are unique, schemas compile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from guard.core.canonical import escape
from guard.core.model import SUBJECTS, PolicyRef
from guard.policy.counting import Budget, Ceiling, Limit, Sequence
from guard.policy.findings import invalid, nearest
from guard.policy.grammar import KINDS, About, ToolMatch
from guard.policy.instants import milliseconds, span
from guard.policy.kinds import (
    AskRule,
    Hours,
    Intent,
    OriginRule,
    Pattern,
    Protected,
    Role,
    Source,
    Strikes,
    ToolRule,
)
from guard.policy.language import (
    HoursDocument,
    LimitDocument,
    PolicyDocument,
    SequenceDocument,
    StrikesDocument,
)
from guard.policy.reading import Text
from guard.policy.rules import Policy, Remembering
from guard.policy.schema import Schema, compile_schema
from guard.policy.vocabulary import SchemaRefused
from guard.policy.zones import zone

MAX_INHERITANCE: Final = 64
_ABOUT: Final = ("intents", "protected", "limits", "hours", "sequences", "sources", "origins", "asks")
"""The fields whose rules name what they are about."""
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MIDNIGHT: Final = 24 * 60
_LONGEST_UNKNOWN: Final = 3_600_000  # milliseconds that a call whose ending nobody knows keeps its place


def assemble(document: PolicyDocument, text: Text, sha256: str) -> Policy:
    """Compile a document.

    Args:
        document: the document, well formed.
        text: what it was read from, for lines.
        sha256: digest of the bytes, base64url.

    Raises:
        GuardError: an unknown or circular inheritance, an id used twice, a schema that is not
            taken, an observe mode without its end.
    """
    _check_mode(document, text)
    _check_ids(document, text)
    _check_named(document, text)
    roles = _Roles(document, text)
    return Policy(
        ref=PolicyRef(document.id, document.version, sha256),
        mode=document.mode,
        roles={
            name: Role(
                roles.scopes(name), role.may_assert_conversations, role.may_assert_user, role.may_approve
            )
            for name, role in document.roles.items()
        },
        tools=tuple(
            ToolRule(
                rule.id or f"{field}/{rule.server}:{rule.match}",
                (Pattern(rule.match, rule.server, kind),),
                frozenset(rule.scopes),
            )
            for field, kind in KINDS.items()
            for rule in getattr(document, field)
        ),
        intents=tuple(
            Intent(rule.id, _patterns(rule), schema, rule.because, request)
            for rule, schema, request in _with_schemas(document, "intents", text)
        ),
        protected=tuple(
            Protected(rule.id, _patterns(rule), schema, rule.because, request)
            for rule, schema, request in _with_schemas(document, "protected", text)
        ),
        asks=tuple(
            AskRule(rule.id, _patterns(rule), schema, rule.because, request, rule.approver, span(rule.ttl))
            for rule, schema, request in _with_schemas(document, "asks", text)
        ),
        limits=tuple(_limit(rule) for rule in document.limits if rule.per),
        ceilings=tuple(
            Ceiling(rule.id, _patterns(rule), rule.depth, rule.result_bytes, rule.because)
            for rule in document.limits
            if not rule.per
        ),
        hours=tuple(_hours(rule, text, f"/hours/{index}") for index, rule in enumerate(document.hours)),
        sequences=tuple(_sequence(rule) for rule in document.sequences),
        sources=tuple(
            Source(f"sources/{index}", _patterns(rule), rule.trust, dict(rule.fields))
            for index, rule in enumerate(document.sources)
        ),
        origins=tuple(
            OriginRule(
                rule.id,
                _patterns(rule),
                tuple(rule.arguments),
                frozenset(rule.accept),
                frozenset(rule.constants),
                rule.otherwise == "ask",
                rule.approver,
                span(rule.ttl),
                rule.because,
            )
            for rule in document.origins
        ),
        servers={name: frozenset(server.scopes) for name, server in document.servers.items()},
        trusted=frozenset(name for name, server in document.servers.items() if server.trust_declared_scopes),
        remembering=Remembering(
            span(document.memory.window), document.memory.values, document.memory.user_overrides
        ),
        strikes=_strikes(
            conversation=document.containment.conversation, principal=document.containment.principal
        ),
        expires=_instant(document.expires),
        observe_until=_instant(document.observe_until),
    )


def _with_schemas(
    document: PolicyDocument, field: str, text: Text
) -> Iterator[tuple[Any, Schema | None, Schema | None]]:
    """Each rule of a field with its schemas over arguments and request, compiled."""
    for index, rule in enumerate(getattr(document, field)):
        schema, request = (
            None if source is None else _compiled(source, text, f"/{field}/{index}/{name}")
            for name, source in (("schema", rule.schema_), ("request", rule.request))
        )
        if field == "intents" and schema is None and request is None:
            raise invalid(text, f"/{field}/{index}", "says nothing", "add `schema`, or `request`, or both")
        yield rule, schema, request


def _limit(rule: LimitDocument) -> Limit:
    """A limit with a counter."""
    most = rule.calls or rule.at_once or 0
    budget = None
    if rule.sum is not None and rule.of is not None:
        most = rule.sum * 10**rule.digits
        currency = rule.currency
        budget = Budget(
            rule.of, rule.digits, *((currency.at, currency.is_) if currency is not None else ("", ""))
        )
    window = _LONGEST_UNKNOWN if rule.window is None else span(rule.window)
    held = rule.at_once is not None
    return Limit(rule.id, _patterns(rule), frozenset(rule.per), most, window, rule.because, budget, held)


def _hours(rule: HoursDocument, text: Text, at: str) -> Hours:
    try:
        rules = zone(rule.zone)
    except ValueError as error:
        raise invalid(text, f"{at}/zone", str(error), "use a name of the IANA time zone database") from None
    begin, end = (int(time[:2]) * 60 + int(time[3:]) for time in (rule.from_, rule.to))
    if begin == _MIDNIGHT:
        raise invalid(text, f"{at}/from", "24:00 begins nothing", "write 00:00")
    days = frozenset(map(_DAYS.index, rule.days))
    return Hours(rule.id, _patterns(rule), days, begin, end, rules, rule.because)


def _sequence(rule: SequenceDocument) -> Sequence:
    others = rule.requires or rule.after or []
    requires = rule.requires is not None
    return Sequence(
        rule.id,
        _patterns(rule),
        tuple(sorted({Pattern(one.match, one.server) for one in others})),
        requires,
        span(rule.within if requires else rule.for_),
        rule.calls,
        rule.because,
    )


def _strikes(**every: StrikesDocument | None) -> dict[str, Strikes]:
    return {kind: Strikes(one.denials, span(one.window)) for kind, one in every.items() if one is not None}


def _instant(text: str | None) -> int | None:
    return None if text is None else milliseconds(text)


def _patterns(rule: About) -> tuple[Pattern, ...]:
    named = {Pattern(one.match, one.server, kind) for kind, one in _named(rule)}
    return tuple(sorted(named))


def _named(rule: About | PolicyDocument) -> Iterator[tuple[str, Any]]:
    """What a rule names, or what a document lists, with its kind."""
    for field, kind in KINDS.items():
        yield from ((kind, one) for one in getattr(rule, field))


def _check_named(document: PolicyDocument, text: Text) -> None:
    """Each rule is about something, and about nothing that another field speaks of."""
    for field in _ABOUT:
        for index, rule in enumerate(getattr(document, field)):
            at = f"/{field}/{index}"
            if not any(_named(rule)):
                remedy = f"add {', '.join(f'`{name}`' for name in KINDS)}"
                raise invalid(text, at, "names nothing", remedy)
            _check_methods(rule.methods, f"{at}/methods", text)
    _check_methods(document.methods, "/methods", text)


def _check_methods(methods: Iterable[ToolMatch], at: str, text: Text) -> None:
    for index, method in enumerate(methods):
        if method.match in SUBJECTS:
            field = next(field for field, kind in KINDS.items() if kind == SUBJECTS[method.match][0])
            what = f"`{method.match}` is not judged as a method"
            raise invalid(text, f"{at}/{index}", what, f"use `{field}`")


def _check_mode(document: PolicyDocument, text: Text) -> None:
    if document.mode == "observe" and document.observe_until is None:
        raise invalid(text, "/mode", "observing needs an end", "add `observe_until`, an RFC 3339 date-time")
    if document.mode == "enforce" and document.observe_until is not None:
        remedy = "remove it, or write `mode: observe`"
        raise invalid(text, "/observe_until", "has no effect in enforce mode", remedy)


def _ids(document: PolicyDocument) -> Iterator[tuple[str, str]]:
    for field in KINDS:
        for index, one in enumerate(getattr(document, field)):
            if one.id is not None:
                yield f"/{field}/{index}/id", one.id
    for field in _ABOUT:
        if field != "sources":  # what they say is named by what says it
            yield from ((f"/{field}/{i}/id", rule.id) for i, rule in enumerate(getattr(document, field)))


def _check_ids(document: PolicyDocument, text: Text) -> None:
    """An id names one rule in answers and in the lineage, whatever its kind."""
    seen: dict[str, str] = {}
    for pointer, rule in _ids(document):
        if rule in seen:
            what = f"the id `{rule}` already stands at {text.where(seen[rule])}"
            raise invalid(text, pointer, what, "give each rule its own id")
        seen[rule] = pointer


class _Roles:
    """Resolves what roles inherit, each role once."""

    def __init__(self, document: PolicyDocument, text: Text) -> None:
        self.roles = document.roles
        self.text = text
        self.done: dict[str, frozenset[str]] = {}

    def scopes(self, name: str, below: tuple[str, ...] = ()) -> frozenset[str]:
        """The scopes of a role with those that it inherits; `below` are the roles that led here."""
        if name not in self.done:
            role, below = self.roles[name], (*below, name)
            scopes = set(role.scopes)
            for index, parent in enumerate(role.inherits):
                self.check(f"/roles/{escape(name)}/inherits/{index}", parent, below)
                scopes |= self.scopes(parent, below)
            self.done[name] = frozenset(scopes)
        return self.done[name]

    def check(self, pointer: str, parent: str, below: tuple[str, ...]) -> None:
        if parent not in self.roles:
            raise invalid(self.text, pointer, f"no role is called `{parent}`", nearest(parent, self.roles))
        if parent in below:
            circle = " -> ".join((*below[below.index(parent) :], parent))
            raise invalid(
                self.text, pointer, f"the roles inherit in a circle: {circle}", "remove one of the steps"
            )
        if len(below) > MAX_INHERITANCE:
            what = f"roles inherit over more than {MAX_INHERITANCE} steps"
            raise invalid(self.text, pointer, what, "name the scopes directly")


def _compiled(source: Any, text: Text, pointer: str) -> Schema:
    try:
        return compile_schema(source)
    except SchemaRefused as refused:
        raise invalid(text, f"{pointer}{refused.pointer}", refused.what, refused.remedy) from None

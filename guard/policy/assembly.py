"""From a well-formed document to a sound policy: names resolve, ids are unique, schemas compile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from guard.core.canonical import escape
from guard.core.model import SUBJECTS, PolicyRef
from guard.policy.findings import invalid, nearest
from guard.policy.instants import milliseconds, span
from guard.policy.language import KINDS, About, PolicyDocument, ToolMatch
from guard.policy.reading import Text
from guard.policy.rules import Intent, Limit, Pattern, Policy, Protected, Role, ToolRule
from guard.policy.schema import Schema, compile_schema
from guard.policy.vocabulary import SchemaRefused

MAX_INHERITANCE: Final = 64
_ABOUT: Final = ("intents", "protected", "limits")
"""The fields whose rules name what they are about."""


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
            name: Role(roles.scopes(name), role.may_assert_conversations)
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
            Intent(rule.id, _patterns(rule), _compiled(rule.schema_, text, f"/intents/{index}/schema"))
            for index, rule in enumerate(document.intents)
        ),
        protected=tuple(
            Protected(
                rule.id,
                _patterns(rule),
                None if rule.schema_ is None else _compiled(rule.schema_, text, f"/protected/{index}/schema"),
                rule.because,
            )
            for index, rule in enumerate(document.protected)
        ),
        limits=tuple(
            Limit(rule.id, _patterns(rule), frozenset(rule.per), rule.calls, span(rule.window), rule.because)
            for rule in document.limits
        ),
        trusted=frozenset(name for name, server in document.servers.items() if server.trust_declared_scopes),
        expires=_instant(document.expires),
        observe_until=_instant(document.observe_until),
    )


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

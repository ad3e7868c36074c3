"""What a policy says but may not mean: true to the language, and yet likely a mistake.

These are warnings for `guard policy check`. They decide nothing. Each has an id and a page in docs/findings/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from guard.core.canonical import escape
from guard.policy.cases import CaseResult
from guard.policy.coverage import missing
from guard.policy.globs import fits, is_glob, overlap
from guard.policy.kinds import AskRule, OriginRule, Pattern, grants
from guard.policy.rules import Limit, Policy
from guard.policy.uris import oddity
from guard.policy.vocabulary import subschemas

_HOST: Final = re.compile(r"https?://[^/]*[*?]", re.IGNORECASE)
_OF_TYPE: Final[Mapping[str, str]] = {
    "maximum": "number",
    "minimum": "number",
    "exclusiveMaximum": "number",
    "exclusiveMinimum": "number",
    "multipleOf": "number",
    "maxLength": "string",
    "minLength": "string",
    "pattern": "string",
    "format": "string",
    "maxItems": "array",
    "items": "array",
}


class Finding(StrEnum):
    """What a policy may not mean. Closed; one page each in docs/findings/."""

    LEFT_OUT = "GP001"
    UNTYPED = "GP002"
    OPEN_PATTERN = "GP003"
    LISTS_NO_URI = "GP004"
    ANY_CHARACTER = "GP005"
    ANY_HOST = "GP006"
    NOBODY_GRANTS = "GP007"
    ABOUT_NOTHING = "GP008"
    COUNTED_APART = "GP009"
    NOBODY_ASSERTS = "GP010"
    UNREACHABLE = "GP011"
    SHADOWED = "GP012"
    ACCEPTS_EVERYTHING = "GP013"
    NO_SUCH_TOOL = "GP014"
    FORBID_UNSHOWN = "GP015"
    ASK_UNSHOWN = "GP016"
    NO_CASES = "GP017"
    UNSHOWN = "GP018"
    NOBODY_APPROVES = "GP019"
    UNUSED_SOURCE = "GP020"
    NEVER_ACCEPTED = "GP021"
    NOBODY_SPEAKS = "GP022"


@dataclass(frozen=True, slots=True)
class Caution:
    """A warning.

    Attributes:
        id: which finding.
        rule: id of the rule, "" for the policy as a whole.
        what: one sentence.
    """

    id: Finding
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.id} {self.rule}: {self.what}" if self.rule else f"{self.id} {self.what}"


def cautions(
    policy: Policy,
    results: Iterable[CaseResult] | None = None,
    tools: Iterable[tuple[str, str]] | None = None,
) -> Iterator[Caution]:
    """Warnings about a policy, in the order of its parts.

    Args:
        policy: one layer.
        results: how its cases went; None where they are not to be looked at.
        tools: server id and name of every tool that there is; None where nobody knows.
    """
    yield from _of_intents(policy)
    yield from _of_tools(policy)
    for limit in sorted(policy.limits, key=lambda limit: limit.id):
        yield from _of_limit(limit, policy)
    yield from _about_nothing(policy)
    yield from _of_origins(policy)
    yield from _of_asks(policy)
    if tools is not None:
        yield from _no_such_tool(policy, [*tools])
    if results is not None:
        yield from _of_cases(policy, [*results])


def _of_intents(policy: Policy) -> Iterator[Caution]:
    for intent in policy.intents:
        source = True if intent.schema is None else intent.schema.source
        for pointer, part in subschemas(source):
            if isinstance(part, dict):
                for id_, what in _of_part(part):
                    yield Caution(id_, intent.id, f"schema{pointer}: {what}")
        if source in (True, {}) and (intent.request is None or intent.request.source in (True, {})):
            yield Caution(Finding.ACCEPTS_EVERYTHING, intent.id, "its schema accepts every call")
    for intent in policy.intents:
        for other in policy.intents:
            if other.id < intent.id and _covers(other.tools, intent.tools) and _wider(other, intent):
                yield Caution(Finding.SHADOWED, intent.id, f"`{other.id}` accepts whatever it accepts")


def _wider(one: Any, other: Any) -> bool:
    """Whether an intent surely accepts all that another does: it says nothing, or the same."""
    pairs = ((one.schema, other.schema), (one.request, other.request))
    return all(
        mine is None or mine.source in (True, {}) or (its is not None and mine.source == its.source)
        for mine, its in pairs
    )


def _covers(wide: Iterable[Pattern], narrow: Iterable[Pattern]) -> bool:
    """Whether each of these patterns is inside one of those: equal, or an exact name that fits."""
    return all(
        any(
            one == other
            or (
                one.kind == other.kind
                and (one.match == other.match or (not is_glob(other.match) and fits(one.match, other.match)))
                and (one.server == other.server or fits(one.server, other.server))
            )
            for one in wide
        )
        for other in narrow
    )


def _of_tools(policy: Policy) -> Iterator[Caution]:
    sides = [role.scopes for role in policy.roles.values()]
    always = [pattern for rule in policy.protected if _always(rule) for pattern in rule.tools]
    for rule in sorted(policy.tools, key=lambda rule: rule.id):
        for pattern in rule.tools:
            if pattern.kind == "resource" and is_glob(pattern.match):
                for id_, what in _of_uri(pattern.match):
                    yield Caution(id_, rule.id, what)
        lacking = sorted(scope for scope in rule.scopes if not any(grants(side, scope) for side in sides))
        if lacking:
            yield Caution(Finding.NOBODY_GRANTS, rule.id, f"no role grants {', '.join(lacking)}")
        if always and _covers(always, rule.tools):
            yield Caution(Finding.UNREACHABLE, rule.id, "a protected rule forbids all that it lists")


def _always(rule: Any) -> bool:
    return rule.schema is None and rule.request is None


def _listed(pattern: Pattern, policy: Policy) -> bool:
    return any(
        pattern.kind == other.kind
        and overlap(pattern.match, other.match)
        and overlap(pattern.server, other.server)
        for rule in policy.tools
        for other in rule.tools
    )


def _about_nothing(policy: Policy) -> Iterator[Caution]:
    if policy.observing:
        return
    kinds: tuple[tuple[Any, ...], ...] = (
        policy.intents,
        policy.hours,
        policy.sequences,
        policy.origins,
        policy.asks,
        policy.limits,
    )
    for rules in kinds:
        for rule in sorted(rules, key=lambda rule: rule.id):
            for pattern in (*rule.tools, *getattr(rule, "others", ())):
                if not _listed(pattern, policy):
                    what = f"no rule lists a {pattern.kind} that fits `{pattern.match}`"
                    yield Caution(Finding.ABOUT_NOTHING, rule.id, what)


def _of_limit(limit: Limit, policy: Policy) -> Iterator[Caution]:
    for pattern in limit.tools:
        if pattern.kind == "resource" and is_glob(pattern.match) and "tool" in limit.per:
            what = f"each URI that fits `{pattern.match}` is counted apart, and a caller may know many"
            yield Caution(Finding.COUNTED_APART, limit.id, what)
    if "conversation" in limit.per and not any(
        role.may_assert_conversations for role in policy.roles.values()
    ):
        what = "no role may assert conversations, so `per: conversation` counts per principal"
        yield Caution(Finding.NOBODY_ASSERTS, limit.id, what)


def _of_origins(policy: Policy) -> Iterator[Caution]:
    trust = {source.trust for source in policy.sources}
    trust |= {label for source in policy.sources for label in source.fields.values()}
    if policy.sources and not policy.origins:
        yield Caution(Finding.UNUSED_SOURCE, "", "there are sources, and no rule on origins asks for them")
    for rule in sorted(policy.origins, key=lambda rule: rule.id):
        for label in sorted({"trusted", "mixed"} & rule.accept - trust):
            what = f"it accepts `{label}`, and no source has that trust"
            yield Caution(Finding.NEVER_ACCEPTED, rule.id, what)
        if "policy" in rule.accept and not rule.constants:
            what = "it accepts `policy`, and has no constants"
            yield Caution(Finding.NEVER_ACCEPTED, rule.id, what)
        for word in sorted(word for word in rule.accept if word.startswith("tool:")):
            server, _, name = word.removeprefix("tool:").partition("/")
            if not _listed(Pattern(name, server), policy):
                yield Caution(Finding.NEVER_ACCEPTED, rule.id, f"it accepts `{word}`, and no rule lists it")
        if "user" in rule.accept and not any(role.may_assert_user for role in policy.roles.values()):
            what = "it accepts `user`, and no role may hand over the user's words"
            yield Caution(Finding.NOBODY_SPEAKS, rule.id, what)


def _of_asks(policy: Policy) -> Iterator[Caution]:
    asking: list[AskRule | OriginRule] = [*policy.asks, *(rule for rule in policy.origins if rule.asks)]
    if any(role.may_approve for role in policy.roles.values()):
        return
    for rule in sorted(asking, key=lambda rule: rule.id):
        if rule.approver == "reviewer":
            yield Caution(Finding.NOBODY_APPROVES, rule.id, "no role may approve what it asks")


def _no_such_tool(policy: Policy, tools: list[tuple[str, str]]) -> Iterator[Caution]:
    servers = {server for server, _ in tools}
    for rule in sorted(policy.tools, key=lambda rule: rule.id):
        for pattern in rule.tools:
            known = any(pattern.covers(server, name) for server, name in tools)
            meant = any(fits(pattern.server, server) for server in servers)
            if pattern.kind == "tool" and meant and not known:
                yield Caution(Finding.NO_SUCH_TOOL, rule.id, f"no tool of these fits `{pattern.match}`")


def _of_cases(policy: Policy, results: list[CaseResult]) -> Iterator[Caution]:
    if not results:
        yield Caution(Finding.NO_CASES, "", "there are no cases beside it")
        return
    forbids = {rule.id for rule in policy.protected}
    asks = {rule.id for rule in policy.asks} | {rule.id for rule in policy.origins if rule.asks}
    for rule in missing(policy, results):
        if rule in forbids:
            yield Caution(Finding.FORBID_UNSHOWN, rule, "no case shows that it forbids")
        elif rule in asks:
            yield Caution(Finding.ASK_UNSHOWN, rule, "no case shows that it asks")
        else:
            yield Caution(Finding.UNSHOWN, rule, "no case shows it")


def _of_uri(match: str) -> Iterator[tuple[Finding, str]]:
    if found := oddity(match.replace("*", "x").replace("?", "x")):
        yield (
            Finding.LISTS_NO_URI,
            f"it has {found}, and a glob lists no such URI; spell it out, or remove it",
        )
    if "?" in match:
        yield Finding.ANY_CHARACTER, "`?` stands for any one character, also in a URI"
    if _HOST.match(match):
        yield Finding.ANY_HOST, "a `*` or `?` before the path also stands for other hosts"


def _of_part(part: Mapping[str, Any]) -> Iterator[tuple[Finding, str]]:
    required = part.get("required", ())
    for name, schema in part.get("properties", {}).items():
        if not isinstance(schema, dict):
            continue
        if name not in required and schema:
            what = f"`{name}` may be left out and is then not checked; else add it to `required`"
            yield Finding.LEFT_OUT, what
        for keyword in sorted(_OF_TYPE.keys() & schema.keys()):
            if not {"type", "const", "enum"} & schema.keys():
                at = f"/properties/{escape(name)}/{keyword}"
                of = _OF_TYPE[keyword]
                yield Finding.UNTYPED, f"{at} checks nothing but {of}s; add `type: {of}`"
    pattern = part.get("pattern")
    if isinstance(pattern, str) and not (pattern.startswith("^") and "$" in pattern):
        yield (
            Finding.OPEN_PATTERN,
            f"the pattern {pattern} need not match the whole text; begin it with ^ and end it with $",
        )

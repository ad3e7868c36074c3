"""What changes between two policies: by their cases, by calls that were made, by calls at the edges of both.

No engine here compares texts: every difference is a call that the two decide differently. Nothing is drawn by
chance, so that the same two policies have the same differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from typing import Any, Final

from guard.core.canonical import canonical
from guard.core.model import (
    UNBOUNDED,
    Allow,
    Ask,
    Call,
    Conversation,
    Decision,
    Facts,
    Pin,
    Principal,
    Reservation,
    Seen,
    Tool,
)
from guard.policy.cases import Case, asked, unused
from guard.policy.decide import decide
from guard.policy.globs import is_glob
from guard.policy.pointers import segments
from guard.policy.rules import Policy
from guard.policy.schema import Schema

MOST: Final = 50_000
"""Calls at the edges that are tried in all."""
MOST_OF_A_TOOL: Final = 400
KINDS: Final = ("newly permitted", "newly asked", "newly denied", "other terms")
_STRANGE: Final = "x"  # what a star stands for
_TEXTS: Final = ("", "a", "x" * 300)
_STATEMENTS: Final = {
    "select": "SELECT 1 FROM {}",
    "insert": "INSERT INTO {} VALUES (1)",
    "update": "UPDATE {} SET a = 1",
    "delete": "DELETE FROM {}",
}


@dataclass(frozen=True, slots=True)
class Change:
    """A call that the two policies decide differently.

    Attributes:
        kind: one of KINDS; "other terms" where the answer is of the same kind, and its reason, rules, scopes,
            obligations, counters or windows are not.
        origin: "case NAME", "call ID" of a lineage, or "edge".
        call: what is asked.
        before: what the first policy says, in words.
        after: what the second one says.
    """

    kind: str
    origin: str
    call: Call
    before: str
    after: str

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "kind": self.kind,
            "origin": self.origin,
            "role": self.call.principal.role,
            "server": self.call.tool.server,
            self.call.tool.kind: self.call.tool.name,
            "arguments": dict(self.call.arguments),
            "before": self.before,
            "after": self.after,
        }

    def __str__(self) -> str:
        arguments = canonical(dict(self.call.arguments)).decode()
        who, tool = self.call.principal.role, self.call.tool
        call = f"{who} {tool.kind} {tool.server}/{tool.name} {arguments}"
        return f"{self.kind} ({self.origin}): {call}: {self.before} -> {self.after}"


def changes(before: Policy, after: Policy, calls: Iterable[tuple[str, Call]]) -> Iterator[Change]:
    """Each of the calls that the two decide differently, once.

    Args:
        before: the policy that holds.
        after: the one that is to hold.
        calls: where each call comes from, and the call.
    """
    seen: set[bytes] = set()
    old, new = _enforced(before), _enforced(after)
    alike = before.ref.id == after.ref.id  # else no counter has the name that it has in the other
    for origin, call in calls:
        said, says = _decided(call, old), _decided(call, new)
        if _terms(said, counters=alike) == _terms(says, counters=alike):
            continue
        tool = call.tool
        key = canonical(
            [
                call.principal.role,
                tool.kind,
                tool.server,
                tool.name,
                dict(call.arguments),
                *map(words, (said, says)),
            ]
        )
        if key not in seen:
            seen.add(key)
            yield Change(_kind(said, says), origin, call, words(said), words(says))


def _enforced(policy: Policy) -> Policy:
    return replace(policy, mode="enforce")


def _decided(call: Call, policy: Policy) -> Decision:
    facts = replace(call.facts, used=unused(policy) | dict(call.facts.used), versions={})
    return decide(replace(call, facts=facts), policy)


def _terms(decision: Decision, *, counters: bool) -> Any:
    if isinstance(decision, Allow):
        taken = [replace(one, counter=one.counter if counters else "") for one in decision.reservations]
        noted = [(mark.counter if counters else "", mark.window) for mark in decision.marks]
        return ("allow", decision.rules, decision.scopes, decision.obligations, taken, noted)
    if isinstance(decision, Ask):
        return ("ask", decision.rules, decision.approver, decision.window, decision.pointers)
    return ("deny", decision.reason, decision.rule)


def _kind(before: Decision, after: Decision) -> str:
    if type(before) is type(after):
        return "other terms"
    if isinstance(after, Allow):
        return "newly permitted"
    return "newly asked" if isinstance(after, Ask) else "newly denied"


def words(decision: Decision) -> str:
    """A decision in words."""
    if isinstance(decision, Allow):
        taken = "".join(map(_taken, decision.reservations))
        return f"allow by {', '.join(decision.rules) or 'no rule'}{taken}"
    if isinstance(decision, Ask):
        return f"ask by {', '.join(decision.rules)} within {decision.window // 1000} seconds"
    return f"deny {decision.reason}" + (f" by {decision.rule}" if decision.rule else "")


def _taken(one: Reservation) -> str:
    most = "" if one.most == UNBOUNDED else f" of {one.most}"
    return f"; {one.limit} takes {one.amount}{most} in {one.window // 1000} seconds"


def of_cases(cases: Iterable[Case]) -> Iterator[tuple[str, Call]]:
    """The calls of cases."""
    for case in cases:
        yield f"case {case.name}", case.call


# -- calls at the edges ------------------------------------------------------------------------------


def edges(policies: Iterable[Policy], now: int) -> Iterator[tuple[str, Call]]:
    """Calls at the edges of what the policies say: each role, each tool, each bound and hour from both sides.

    Nothing was used before them and nothing is remembered.

    Args:
        policies: the two.
        now: UNIX milliseconds of the calls.
    """
    return islice(_edges([*policies], now), MOST)


def _edges(policies: list[Policy], now: int) -> Iterator[tuple[str, Call]]:
    roles = sorted({role for policy in policies for role in policy.roles})
    for kind, server, name in sorted(set(_subjects(policies))):
        schemas = [schema for policy in policies for schema in _schemas(policy, kind, server, name)]
        tried = [{}] if kind == "resource" else [*islice(_arguments(schemas), MOST_OF_A_TOOL)]
        times = sorted({time for policy in policies for time in _times(policy, kind, server, name, now)})
        for role in (*roles, "nobody-knows-this-role"):
            for arguments in tried:
                yield "edge", _call(role, (kind, server, name), arguments, now)
            for arguments, time in product(tried[:2], times):
                yield "edge", _call(role, (kind, server, name), arguments, time)


def _subjects(policies: list[Policy]) -> Iterator[tuple[str, str, str]]:
    for policy in policies:
        kinds: tuple[tuple[Any, ...], ...] = (
            *(policy.tools, policy.intents, policy.protected, policy.limits, policy.ceilings),
            *(policy.hours, policy.sequences, policy.asks, policy.origins),
        )
        for rules in kinds:
            for rule in rules:
                for pattern in rule.tools:
                    yield pattern.kind, _spelled(pattern.server), _spelled(pattern.match)
    yield "tool", "server", "a-tool-that-nothing-lists"


def _spelled(pattern: str) -> str:
    if pattern == "*":
        return "server"
    return pattern.replace("*", _STRANGE).replace("?", _STRANGE) if is_glob(pattern) else pattern


def _times(policy: Policy, kind: str, server: str, name: str, now: int) -> Iterator[int]:
    """The minutes, of the days from `now` on, at which hours begin and end, and those before them."""
    for rule in policy.about(server, name, kind).hours:
        here = datetime.fromtimestamp(now / 1000, UTC).astimezone(rule.zone)
        midnight = here.replace(hour=0, minute=0, second=0, microsecond=0)
        for day, minute in product(range(8), (rule.begin - 1, rule.begin, rule.end - 1, rule.end)):
            yield int((midnight + timedelta(days=day, minutes=minute)).timestamp()) * 1000


def _schemas(policy: Policy, kind: str, server: str, name: str) -> Iterator[Any]:
    about = policy.about(server, name, kind)
    schemas: list[Schema | None] = [rule.schema for rule in about.intents]
    schemas += [rule.schema for rule in (*about.protected, *about.asks)]
    for schema in schemas:
        if schema is not None and isinstance(schema.source, dict):
            yield schema.source
    for rule in about.origins:
        yield {"required": [name for name in map(_member, rule.arguments) if name]}
    for budget in (limit.budget for limit in about.limits):
        if budget is not None:
            parts = {_member(budget.of): {"type": "number"}, _member(budget.currency): {"const": budget.unit}}
            parts.pop("", None)
            yield {"required": [*parts], "properties": parts}


def _member(pointer: str) -> str:
    """The member of the arguments that a pointer names, "" where it leads deeper or anywhere."""
    parts = segments(pointer)
    return parts[0] if len(parts) == 1 and parts[0] != "*" else ""


def _arguments(schemas: list[Any]) -> Iterator[dict[str, Any]]:
    """Nothing; for each schema an object as it wants it, then one member moved, taken away or added."""
    yield {}
    known: dict[str, list[Any]] = {}
    for schema in schemas:
        for name, part in _properties(schema).items():
            values = known.setdefault(name, [])
            values += [value for value in _values(part) if value not in values or isinstance(value, bool)]
    for schema in schemas:
        named = [
            *_properties(schema),
            *(name for name in schema.get("required", ()) if isinstance(name, str)),
        ]
        whole = {name: _first(known.get(name)) for name in dict.fromkeys(named)}
        yield whole
        for name in whole:
            yield {one: value for one, value in whole.items() if one != name}
            for value in known.get(name, [])[1:]:
                yield {**whole, name: value}
        yield {**whole, "a-member-that-nothing-names": 1}


def _first(values: list[Any] | None) -> Any:
    return values[0] if values else "a"


def _properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(schema.get("properties", {}))
    for keyword in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(keyword, ()):
            if isinstance(part, dict):
                found |= _properties(part)
    return found


def _values(part: Any) -> Iterator[Any]:
    """Values on both sides of each bound, what is inside first."""
    if not isinstance(part, dict):
        yield "a"
        return
    if "const" in part:
        yield part["const"]
    yield from part.get("enum", ())
    yield from _within(part)
    for keyword, inside, outside in (
        ("minimum", 0, -1),
        ("maximum", 0, 1),
        ("exclusiveMinimum", 1, 0),
        ("exclusiveMaximum", -1, 0),
    ):
        bound = part.get(keyword)
        if isinstance(bound, int | float) and not isinstance(bound, bool):
            yield from (bound + inside, bound + outside)
    for keyword, step in (("minLength", -1), ("maxLength", 1)):
        length = part.get(keyword)
        if isinstance(length, int) and 0 <= length <= 5000:  # noqa: PLR2004 - longer texts show no more
            yield from ("a" * length, "a" * max(0, length + step))
    match part.get("type"):
        case "integer" | "number":
            yield from (1, 0, -1, 10**9, "1")
        case "boolean":
            yield from (True, False, "true")
        case "array":
            yield from ([], ["a"], "a")
        case "object":
            yield from ({}, "a")
        case _:
            yield from (*_TEXTS, 1)


def _within(part: Mapping[str, Any]) -> Iterator[str]:
    """What lies within boundary keywords: each root, domain, host, account, table, command and amount."""
    yield from part.get("pathWithin", {}).get("roots", ())
    yield from part.get("iban", {}).get("accounts", ())
    for domain in part.get("emailDomain", {}).get("domains", ()):
        yield f"a@{domain.replace('*', _STRANGE)}"
    url = part.get("urlWithin", {})
    ends = product(
        url.get("schemes", ()), url.get("hosts", ()), url.get("ports", ("",)), url.get("paths", ("",))
    )
    for scheme, host, port, path in ends:
        name = host.replace("*", _STRANGE) if len(host) > 1 else "example.com"
        yield f"{scheme}://{name}{port and f':{port}'}{path}"
    sql = part.get("sql", {})
    for kind, table in product(sql.get("statements", ()), sql.get("tables", ())):
        yield _STATEMENTS[kind].format(table.replace("*", _STRANGE))
    for command in part.get("shellCommand", {}).get("commands", ()):
        yield " ".join(command["words"])
        yield from (" ".join((*command["words"], option)) for option in command.get("options", ()))
    for currency, amount in part.get("money", {}).get("maximum", {}).items():
        yield f"{amount} {currency}"


def _call(role: str, about: tuple[str, str, str], arguments: Mapping[str, Any], now: int) -> Call:
    kind, server, name = about
    method, params = asked(kind, name, arguments)
    return Call(
        id="edge",
        principal=Principal("default", "launch", "someone", role),
        tool=Tool(server, name, "", Pin.MATCHES, frozenset(), kind),
        audience=server,
        method=method,
        params=params,
        conversation=Conversation("edge", "launch"),
        facts=Facts(now=now, seen=Seen({})),
    )

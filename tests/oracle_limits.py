"""A second reading of docs/policy.md on how much, when and in which order: "Limits", "Hours", "Sequences"."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from fractions import Fraction
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

from guard.core.errors import Reason
from guard.core.model import UNBOUNDED, Call, Deny, Mark, Reservation
from tests.oracle_rules import Layer, Rule, is_about, milliseconds, naming, places, root
from tests.oracle_schemas import EPOCH

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DIGITS = frozenset("0123456789")
MOST_DIGITS, MOST_DECIMALS = 15, 9  # before and after the point; docs: silent on 15
Taken = tuple[int, int, int, bool]  # amount, most, window, held


# 8. Is it the hour?


def hours(call: Call, layer: Layer) -> Iterator[Deny]:
    named = naming(call, layer, "hours")
    if named and not any(_lies_inside(call.facts.now, rule) for rule in named):
        yield Deny(Reason.OUTSIDE_HOURS, layer.prefix + named[0]["id"])


def _lies_inside(now: int, rule: Rule) -> bool:
    """Whether the wall clock of the zone shows a time inside: today's, or what began yesterday."""
    wall = (EPOCH + timedelta(milliseconds=now)).astimezone(_zone(rule["zone"])).replace(tzinfo=None)
    midnight = wall.replace(hour=0, minute=0, second=0, microsecond=0)
    for began in (midnight, midnight - timedelta(days=1)):
        start, end = began + _time(rule["from"]), began + _time(rule["to"])
        if end <= start:
            end += timedelta(days=1)
        if DAYS[began.weekday()] in rule.get("days", DAYS) and start <= wall < end:
            return True
    return False


def _zone(name: str) -> ZoneInfo:
    with files("tzdata.zoneinfo").joinpath(*name.split("/")).open("rb") as rules:
        return ZoneInfo.from_file(rules, key=name)


def _time(text: str) -> timedelta:
    hour, minute = text.split(":")
    return timedelta(hours=int(hour), minutes=int(minute))


# 11. Has come before what must, and nothing that must not?


def sequences(call: Call, layer: Layer) -> Iterator[Deny]:
    for rule in naming(call, layer, "sequences"):
        said = layer.prefix + rule["id"]
        before, spent = call.facts.used.get(said), call.facts.used.get(f"{said}/spent")
        calls = rule.get("calls", 0)
        required = rule.get("requires") is not None
        if required and before == 0:
            yield Deny(Reason.REQUIRED_FIRST, said)
        elif before is None or (calls and spent is None):
            yield Deny(Reason.RULE_FAILED, said)
        elif required:
            if calls and (spent or 0) >= before * calls:
                yield Deny(Reason.REQUIRED_FIRST, said)
        elif before > 0 and (spent or 0) >= calls:
            yield Deny(Reason.FORBIDDEN_AFTER, said)


# 12. Is it not too deep, then has every limit on it room?


def limits(call: Call, layer: Layer) -> Iterator[Deny]:
    named = naming(call, layer, "limits")
    for rule in named:
        if rule.get("depth") is not None and call.depth > rule["depth"]:
            yield Deny(Reason.LIMIT_REACHED, layer.prefix + rule["id"])
    for rule in named:
        if "depth" not in rule and "result_bytes" not in rule:
            yield from _room(call, layer, rule)


def _room(call: Call, layer: Layer, rule: Rule) -> Iterator[Deny]:
    said = layer.prefix + rule["id"]
    used = call.facts.used.get(said)
    amount, most = 1, rule.get("calls", rule.get("at_once"))
    if "sum" in rule:
        unreadable = _unreadable(call, rule)
        if unreadable is not None:
            # docs: silent. It is said also where nobody knows how much was used.
            yield Deny(Reason.AMOUNT_UNREADABLE, said, unreadable)
            return
        amount, most = _amount(call, rule), rule["sum"] * 10 ** rule.get("digits", 2)
    if used is None:
        yield Deny(Reason.RULE_FAILED, said)
    elif used + amount > most:
        yield Deny(Reason.LIMIT_REACHED, said)


def obligations(call: Call, layer: Layer) -> set[str]:
    named = naming(call, layer, "limits")
    return {f"result-bytes:{rule['result_bytes']}" for rule in named if "result_bytes" in rule}


def _unreadable(call: Call, rule: Rule) -> str | None:
    """Where stands what cannot be read: the currency, else the amount. None where both can be."""
    if "currency" in rule:
        at = rule["currency"]["at"]
        if [value for _, value in places(call.arguments, at)] != [rule["currency"]["is"]]:
            return root(call) + str(at)
    found = [value for _, value in places(call.arguments, rule["of"])]
    return None if found and _number(found[0]) is not None else root(call) + str(rule["of"])


def _amount(call: Call, rule: Rule) -> int:
    """In units of the last decimal that counts; what lies beyond is rounded up."""
    ((_, value),) = places(call.arguments, rule["of"])
    number = _number(value)
    if number is None:
        raise ValueError(value)
    return math.ceil(number * 10 ** rule.get("digits", 2))


def _number(value: Any) -> Fraction | None:
    """A number that is not negative, or text: digits, and after a point at most nine more."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return Fraction(repr(value)) if value >= 0 else None
    if not isinstance(value, str):
        return None
    whole, point, decimals = value.partition(".")
    if not whole or (point and not decimals) or len(whole) > MOST_DIGITS or len(decimals) > MOST_DECIMALS:
        return None
    return Fraction(value) if set(whole + decimals) <= DIGITS else None


# What an allowed call takes, and what is noted of it. The page names no counters: they are spelled out here.


def taken(call: Call, layer: Layer, together: list[Layer]) -> tuple[Reservation, ...]:
    """What each limit and sequence on the call counts, in the order of their ids."""
    counted: list[tuple[str, str, Taken]] = []
    for rule in naming(call, layer, "limits"):
        counter = _counter(call, layer, rule, _apart(call, together, rule["per"])) if "per" in rule else ""
        counted.extend((rule["id"], counter, one) for one in _by_limit(call, rule))
    for rule in layer.list("sequences"):
        for what, one in _by_sequence(call, layer, rule):
            counter = f"{what} {_counter(call, layer, rule, _whose(call, together))}"
            counted.append((rule["id"], counter, one))
    return tuple(
        Reservation(layer.prefix + said, counter, amount, most, window, held)
        for said, counter, (amount, most, window, held) in sorted(counted)
    )


def _by_limit(call: Call, rule: Rule) -> Iterator[Taken]:
    window = milliseconds(rule.get("window", "1h"))
    if "calls" in rule:
        yield 1, rule["calls"], window, False
    if "at_once" in rule:
        yield 1, rule["at_once"], window, True
    if "sum" in rule:
        yield _amount(call, rule), rule["sum"] * 10 ** rule.get("digits", 2), window, False


def _by_sequence(call: Call, layer: Layer, rule: Rule) -> Iterator[tuple[str, Taken]]:
    """What a sequence looks at, what it counts of its calls, and the grants that others come after."""
    about = any(one is rule for one in naming(call, layer, "sequences"))
    calls = rule.get("calls", 0)
    before = call.facts.used.get(layer.prefix + rule["id"], 0)
    if rule.get("requires") is not None:
        if about and calls:
            yield "spent", (1, before * calls, milliseconds(rule.get("within", "24h")), False)
        return
    window = milliseconds(rule.get("for", "24h"))
    if about and before == 0:
        yield "before", (0, 0, window, False)  # still nothing, when the grant is recorded
    if about and calls:
        yield "spent", (1, calls if before else UNBOUNDED, window, False)
    if _is_among(call, rule["after"]):
        yield "before", (1, UNBOUNDED, window, False)


def marks(call: Call, layer: Layer, together: list[Layer]) -> tuple[Mark, ...]:
    """One for each sequence that asks for a return of this tool."""
    return tuple(
        Mark(
            f"before {_counter(call, layer, rule, _whose(call, together))}",
            milliseconds(rule.get("within", "24h")),
        )
        for rule in layer.list("sequences")
        if rule.get("requires") is not None and _is_among(call, rule["requires"])
    )


def _counter(call: Call, layer: Layer, rule: Rule, apart: dict[str, object]) -> str:
    return f"{layer.document['id']} {rule['id']} {call.principal.tenant} {sorted(apart.items())}"


def _apart(call: Call, together: list[Layer], per: str | list[str]) -> dict[str, object]:
    """What a limit counts apart."""
    apart = [per] if isinstance(per, str) else per
    names: dict[str, object] = {}
    if "role" in apart:
        names["role"] = call.principal.role
    if "tool" in apart:
        names["tool"] = (call.tool.kind, call.tool.server, call.tool.name)
    if "principal" in apart:
        names["principal"] = (call.principal.issuer, call.principal.subject)
    if "conversation" in apart:
        names.update(_whose(call, together))
    return names


def _whose(call: Call, together: list[Layer]) -> dict[str, object]:
    """The conversation of the principal where its role may say which it is, else all of the principal."""
    names: dict[str, object] = {"principal": (call.principal.issuer, call.principal.subject)}
    roles = [layer.document["roles"].get(call.principal.role, {}) for layer in together]
    if all(role.get("may_assert_conversations", False) for role in roles):
        names["conversation"] = call.conversation.id
    return names


def _is_among(call: Call, named: list[Any]) -> bool:
    """`requires` and `after` name tools only."""
    return call.tool.kind == "tool" and any(is_about(one, call) for one in named)

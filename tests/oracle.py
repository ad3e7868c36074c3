"""A second opinion on every decision: docs/policy.md, read line by line, with no regard for speed.

It works on the policy as plain data, the dict that the YAML gives, and shares no code with guard/policy.
Where two engines that were written apart agree, the page says what it seems to say.
A remark `docs: silent` marks what the page leaves open; there the first engine was asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators

from guard.core.errors import Reason
from guard.core.model import Allow, Call, Deny, Pin, Reservation
from tests import oracle_uris

Schema = dict[str, Any] | bool

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CLOCK_TOLERANCE_MS = 10_000  # docs: silent
LARGEST_INTEGER = 2**53 - 1
DEEPEST = 128  # docs: silent; the arguments object is level 1
FIELDS = {"tool": "tools", "prompt": "prompts", "resource": "resources", "method": "methods"}


def decide(call: Call, document: dict[str, Any]) -> Allow | Deny:
    """The decision that docs/policy.md gives: the first no, in the order of its section "The order"."""
    observes = document.get("mode", "enforce") == "observe"
    obligations = set()
    for no in _noes(call, document):
        if observes and (
            no.reason == Reason.INTENT_UNMATCHED or (no.reason == Reason.DEFAULT_DENY and not _is_odd(call))
        ):
            obligations.add("observed")
        else:
            return no
    return Allow(
        rules=_permitting(call, document),
        scopes=_required(call, document),
        obligations=tuple(obligations),
        mode="observe" if observes else "enforce",
        reservations=_counted(call, document),
    )


def _noes(call: Call, document: dict[str, Any]) -> Iterator[Deny]:
    """Every no, the first one first. A step is taken only if those before it let the call through."""
    yield from _world(call, document)
    yield from _role(call, document)
    yield from _visibility(call, document)
    yield from _pin(call)
    yield from _arguments(call)
    yield from _protected(call, document)
    yield from _scopes(call, document)
    yield from _intents(call, document)
    yield from _limits(call, document)


# 1. Is the world sound?


def _world(call: Call, document: dict[str, Any]) -> Iterator[Deny]:
    facts = call.facts
    contained = set(facts.contained)
    # docs: silent on what "all" is called. A word that is not in the list stops everything, as "all" does.
    if contained - {"conversation", "sealed", "tool"}:
        yield Deny(Reason.PRINCIPAL_CONTAINED)
    if "conversation" in contained:
        yield Deny(Reason.CONVERSATION_CONTAINED)
    if "sealed" in contained:
        yield Deny(Reason.CONVERSATION_SEALED)
    # A contained tool is said after step 4; see _pin.
    if not facts.store_writable:
        yield Deny(Reason.STORE_UNAVAILABLE)
    if not facts.artifact_key:
        yield Deny(Reason.ARTIFACT_KEY_UNAVAILABLE)
    if facts.now + CLOCK_TOLERANCE_MS < facts.last:
        yield Deny(Reason.CLOCK_BEHIND)
    # docs: silent on policy-superseded. Any other version than this one counts, an older one too.
    newest = facts.versions.get(f"policy/{document['id']}")
    if newest is not None and newest != document["version"]:
        yield Deny(Reason.POLICY_SUPERSEDED)
    for end in (document.get("expires"), document.get("observe_until")):
        if end is not None and facts.now >= _milliseconds(end):
            yield Deny(Reason.POLICY_EXPIRED)


def _milliseconds(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


# 2. Is the role known?


def _role(call: Call, document: dict[str, Any]) -> Iterator[Deny]:
    if call.principal.role not in document.get("roles", {}):
        yield Deny(Reason.UNAUTHORIZED_ROLE)


def _held(call: Call, document: dict[str, Any]) -> set[str]:
    """What the role grants, with all that it inherits, cut to what the credential leaves."""
    scopes = _granted(call.principal.role, document)
    if call.principal.scopes is None:
        return scopes
    return scopes & set(call.principal.scopes)


def _granted(role: str, document: dict[str, Any]) -> set[str]:
    described = document["roles"][role]
    scopes = set(described.get("scopes", []))
    for inherited in described.get("inherits", []):
        scopes |= _granted(inherited, document)
    return scopes


# 3. Is the tool listed and visible?


def _visibility(call: Call, document: dict[str, Any]) -> Iterator[Deny]:
    rules = _listing(call, document)
    if not rules:
        yield Deny(Reason.DEFAULT_DENY)
    elif not any(set(rule["scopes"]) <= _held(call, document) for rule in rules):
        yield Deny(Reason.TOOL_NOT_VISIBLE)
    if call.tool.pin == Pin.ABSENT:
        yield Deny(Reason.UNKNOWN_TOOL)


def _listing(call: Call, document: dict[str, Any]) -> list[dict[str, Any]]:
    """The rules that list it: of an odd URI, those that spell it out."""
    rules = _tool_rules(call, document)
    if _is_odd(call):
        return [rule for rule in rules if rule["match"] == call.tool.name]
    return rules


def _tool_rules(call: Call, document: dict[str, Any]) -> list[dict[str, Any]]:
    """The rules in the list for this kind of thing that match, whatever they are good for."""
    return [rule for rule in document.get(FIELDS[call.tool.kind], []) if _is_about(rule, call)]


def _name(rule: dict[str, Any], call: Call) -> str:
    if rule.get("id") is not None:
        return str(rule["id"])
    return f"{FIELDS[call.tool.kind]}/{rule.get('server', '*')}:{rule['match']}"


def _is_about(match: str | dict[str, Any], call: Call) -> bool:
    if isinstance(match, str):
        match = {"match": match}
    return _glob(match["match"], call.tool.name) and _glob(match.get("server", "*"), call.tool.server)


def _is_odd(call: Call) -> bool:
    return call.tool.kind == "resource" and oracle_uris.is_odd(call.tool.name)


def _glob(pattern: str, text: str) -> bool:
    if pattern == "":
        return text == ""
    if pattern[0] == "*":
        return any(_glob(pattern[1:], text[skipped:]) for skipped in range(len(text) + 1))
    return text != "" and pattern[0] in ("?", text[0]) and _glob(pattern[1:], text[1:])


# 4. Is it pinned and unchanged?


def _pin(call: Call) -> Iterator[Deny]:
    if call.tool.pin == Pin.UNPINNED:
        yield Deny(Reason.TOOL_UNPINNED)
    if call.tool.pin == Pin.CHANGED:
        yield Deny(Reason.TOOL_CHANGED)
    # The page has containment in step 1. A tool's is said here, so that who does not see it learns nothing.
    if "tool" in call.facts.contained:
        yield Deny(Reason.TOOL_CONTAINED)


# 5. Are the arguments an I-JSON object?


def _arguments(call: Call) -> Iterator[Deny]:
    if call.fault is not None:
        yield Deny(Reason.ARGUMENTS_NOT_IJSON, pointer=call.fault[0])
    if not isinstance(call.arguments, dict):
        yield Deny(Reason.ARGUMENTS_NOT_IJSON, pointer=_root(call))
    else:
        yield from _unfit(call.arguments, _root(call), 1)


def _root(call: Call) -> str:
    """Where in the params stands what is judged: of a resource and of a method that is all of them."""
    return "" if call.tool.kind in ("resource", "method") else "/arguments"


def _unfit(value: Any, pointer: str, level: int) -> Iterator[Deny]:
    """What is not I-JSON in a value, depth first."""
    not_ijson = Deny(Reason.ARGUMENTS_NOT_IJSON, pointer=pointer)
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if _has_surrogate(value):
            yield not_ijson
    elif isinstance(value, int):
        if abs(value) > LARGEST_INTEGER:
            yield not_ijson
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield not_ijson
    elif isinstance(value, dict | list):
        if level > DEEPEST:
            yield not_ijson
        else:
            yield from _unfit_inside(value, pointer, level)
    else:
        # docs: silent. No JSON text gives such a value, so Guard itself is at fault and not the caller.
        yield Deny(Reason.RULE_FAILED)


def _unfit_inside(value: dict[Any, Any] | list[Any], pointer: str, level: int) -> Iterator[Deny]:
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in members:
        inner = f"{pointer}/{_token(name)}"
        if isinstance(value, dict) and not isinstance(name, str):
            yield Deny(Reason.RULE_FAILED)
        if isinstance(value, dict) and isinstance(name, str) and _has_surrogate(name):
            yield Deny(Reason.ARGUMENTS_NOT_IJSON, pointer=inner)
        yield from _unfit(item, inner, level + 1)


def _has_surrogate(text: str) -> bool:
    return any(0xD800 <= ord(char) <= 0xDFFF for char in text)


def _token(name: object) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")


# 6. Does a protected rule forbid?


def _protected(call: Call, document: dict[str, Any]) -> Iterator[Deny]:
    for rule in _by_name(_naming(call, document, "protected"), call):
        schema = rule.get("schema")
        if schema is None or not faults(call, schema):
            yield Deny(Reason.PROTECTED, rule["id"])


def _naming(call: Call, document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The intents or protected rules that name the tool, the prompt, the resource or the method."""
    field = FIELDS[call.tool.kind]
    return [
        rule for rule in document.get(kind, []) if any(_is_about(one, call) for one in rule.get(field, []))
    ]


def _by_name(rules: list[dict[str, Any]], call: Call) -> list[dict[str, Any]]:
    return sorted(rules, key=lambda rule: _name(rule, call))


def faults(call: Call, schema: Schema) -> set[str]:
    """Pointers to where the arguments do not match the schema; none where they match.

    Of the formats, the library checks date, email, ipv4, ipv6 and uuid; patterns are read as Python does.
    """
    validator = Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return {
        _root(call) + "".join(f"/{_token(step)}" for step in error.absolute_path)
        for error in validator.iter_errors(call.arguments)
    }


def _properties(validator: Any, properties: Any, value: Any, _: Any) -> Iterator[ValidationError]:
    """The keyword as the library has it, which forgets the field if its schema is `false`."""
    if isinstance(value, dict):
        for name, schema in properties.items():
            if name in value:
                said = {"not": {}} if schema is False else schema
                yield from validator.descend(value[name], said, path=name, schema_path=name)


def _multiple_of(_: Any, unit: Any, value: Any, __: Any) -> Iterator[ValidationError]:
    """The keyword in decimal, as the digits stand: 19.99 is a multiple of 0.01. docs: silent."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        times = Fraction(repr(value)) / Fraction(repr(unit))
        if times.denominator != 1:
            yield ValidationError("not a multiple")


Validator = validators.extend(Draft202012Validator, {"properties": _properties, "multipleOf": _multiple_of})


# 7. Are all scopes held?


def _scopes(call: Call, document: dict[str, Any]) -> Iterator[Deny]:
    held = _held(call, document)
    for rule in _by_name(_tool_rules(call, document), call):
        if not set(rule["scopes"]) <= held:
            yield Deny(Reason.MISSING_SCOPE, _name(rule, call))
    # docs: silent on the name, and on its place: it comes after the rules, wherever it would sort.
    if not _declared(call, document) <= held:
        yield Deny(Reason.MISSING_SCOPE, f"servers/{call.tool.server}")


def _declared(call: Call, document: dict[str, Any]) -> set[str]:
    server = document.get("servers", {}).get(call.tool.server, {})
    if server.get("trust_declared_scopes", False):
        return set(call.tool.declared)
    return set()


def _required(call: Call, document: dict[str, Any]) -> tuple[str, ...]:
    scopes = _declared(call, document)
    for rule in _tool_rules(call, document):
        scopes |= set(rule["scopes"])
    return tuple(sorted(scopes))


# 8. Does an intent match, where some name the tool?


def _intents(call: Call, document: dict[str, Any]) -> Iterator[Deny]:
    intents = _by_name(_naming(call, document, "intents"), call)
    if intents and not _matching(call, document):
        first = intents[0]
        yield Deny(Reason.INTENT_UNMATCHED, first["id"], min(faults(call, first["schema"])))


def _matching(call: Call, document: dict[str, Any]) -> list[dict[str, Any]]:
    intents = _naming(call, document, "intents")
    return [intent for intent in intents if not faults(call, intent["schema"])]


def _permitting(call: Call, document: dict[str, Any]) -> tuple[str, ...]:
    rules = _tool_rules(call, document) + _matching(call, document)
    return tuple(sorted({_name(rule, call) for rule in rules}))


# 9. Has every limit on it room?


def _limits(call: Call, document: dict[str, Any]) -> Iterator[Deny]:
    for limit in _by_name(_naming(call, document, "limits"), call):
        used = call.facts.used.get(limit["id"])
        if used is None:
            yield Deny(Reason.RULE_FAILED, limit["id"])
        elif used >= limit["calls"]:
            yield Deny(Reason.LIMIT_REACHED, limit["id"])


def _counted(call: Call, document: dict[str, Any]) -> tuple[Reservation, ...]:
    """One call more for each limit on it. The page names no counters, so they are spelled out here."""
    return tuple(
        Reservation(limit["id"], _counter(call, document, limit), 1, limit["calls"], _window(limit))
        for limit in _by_name(_naming(call, document, "limits"), call)
    )


def _counter(call: Call, document: dict[str, Any], limit: dict[str, Any]) -> str:
    apart = [limit["per"]] if isinstance(limit["per"], str) else limit["per"]
    may_assert = document["roles"][call.principal.role].get("may_assert_conversations", False)
    names: dict[str, object] = {}
    if "tool" in apart:
        names["tool"] = (call.tool.kind, call.tool.server, call.tool.name)
    if "principal" in apart or "conversation" in apart:
        names["principal"] = (call.principal.issuer, call.principal.subject)
    if "conversation" in apart and may_assert:
        names["conversation"] = call.conversation.id
    return f"{document['id']} {limit['id']} {sorted(names.items())}"


def _window(limit: dict[str, Any]) -> int:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    window = timedelta(**{units[limit["window"][-1]]: int(limit["window"][:-1])})
    return window // timedelta(milliseconds=1)


# Whether two opinions are one.


def differ(call: Call, document: dict[str, Any], one: Allow | Deny, other: Allow | Deny) -> bool:
    """Whether a decision differs from the oracle's. Which of several fields a pointer names is left open.

    So is what a counter is called: `same_counters` says which calls have the same ones.
    """
    if isinstance(one, Allow) and isinstance(other, Allow):
        return _unnamed(one) != _unnamed(other)
    if isinstance(one, Allow) or isinstance(other, Allow):
        return True
    if (one.reason, one.rule) != (other.reason, other.rule):
        return True
    if one.reason != Reason.INTENT_UNMATCHED:
        return _place(one.pointer) != _place(other.pointer)
    (intent,) = (intent for intent in document["intents"] if intent["id"] == one.rule)
    places = {_place(pointer) for pointer in faults(call, intent["schema"])}
    return not {_place(one.pointer), _place(other.pointer)} <= places


def _unnamed(allow: Allow) -> Allow:
    return replace(allow, reservations=tuple(replace(one, counter="") for one in allow.reservations))


def same_counters(one: list[Allow], other: list[Allow]) -> bool:
    """Whether two opinions on several calls count together what the other counts together."""
    pairs = {
        (mine.counter, theirs.counter)
        for a, b in zip(one, other, strict=True)
        for mine, theirs in zip(a.reservations, b.reservations, strict=True)
    }
    return len({mine for mine, _ in pairs}) == len({theirs for _, theirs in pairs}) == len(pairs)


def _place(pointer: str) -> tuple[str, ...]:
    return tuple(pointer.split("/")[:3])

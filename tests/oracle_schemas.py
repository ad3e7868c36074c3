"""Whether a call matches what a rule says of it: `schema` over its arguments, `request` over all of it.

The schemas are read by jsonschema. What a request looks like stands in docs/policy.md, "Intents".
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators

from guard.core.model import Call
from tests import oracle_origins
from tests.oracle_rules import Layer, Rule, root, token

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Unknowable(Exception):
    """Nobody can say whether a rule matches: it wants to know where values came from, and nobody looked.

    Attributes:
        rule: the first rule on origins that wanted to know.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule["id"])
        self.rule = rule


def matches(call: Call, layer: Layer, rule: Rule) -> bool:
    """Whether all that the rule says holds; without `schema` and `request` it speaks of every call.

    Raises:
        Unknowable: it speaks of the request, and nobody looked where its values come from.
    """
    schema, asked = rule.get("schema"), rule.get("request")
    if schema is not None and faults(call, schema):
        return False
    return asked is None or _validator(asked).is_valid(request(call, layer))


def faults(call: Call, schema: Any) -> set[str]:
    """Pointers to where the arguments do not match the schema; none where they match.

    Of the formats, the library checks date, email, ipv4, ipv6 and uuid; patterns are read as Python does.
    """
    return {
        root(call) + "".join(f"/{token(step)}" for step in error.absolute_path)
        for error in _validator(schema).iter_errors(call.arguments)
    }


def request(call: Call, layer: Layer) -> dict[str, Any]:
    """The whole request, as the table in "Intents" lists its members.

    Raises:
        Unknowable: a rule on origins names the call, and nobody looked at the memory.
    """
    who, scopes = call.principal, call.principal.scopes
    if blind := oracle_origins.blind(call, layer):
        raise Unknowable(blind[0])
    return {
        "principal": {
            "tenant": who.tenant,
            "issuer": who.issuer,
            "subject": who.subject,
            "role": who.role,
            "scopes": None if scopes is None else sorted(scopes),
        },
        "tool": {"server": call.tool.server, "name": call.tool.name, "kind": call.tool.kind},
        "conversation": {"id": call.conversation.id, "source": call.conversation.source},
        "context": {
            "now": _rfc3339(call.facts.now),
            "depth": call.depth,
            "intents": sorted(call.intents),
            "method": call.method,
        },
        "origin": oracle_origins.of_arguments(call, layer),
        "arguments": call.arguments,
    }


def _rfc3339(now: int) -> str:
    moment = EPOCH + timedelta(milliseconds=now)
    return moment.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def _validator(schema: Any) -> Any:
    return Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def _properties(validator: Any, properties: Any, value: Any, _: Any) -> Iterator[ValidationError]:
    """The keyword as the library has it, which forgets the field if its schema is `false`."""
    if isinstance(value, dict):
        for field, schema in properties.items():
            if field in value:
                said = {"not": {}} if schema is False else schema
                yield from validator.descend(value[field], said, path=field, schema_path=field)


def _multiple_of(_: Any, unit: Any, value: Any, __: Any) -> Iterator[ValidationError]:
    """The keyword in decimal, as the digits stand: 19.99 is a multiple of 0.01."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        times = Fraction(repr(value)) / Fraction(repr(unit))
        if times.denominator != 1:
            yield ValidationError("not a multiple")


Validator = validators.extend(Draft202012Validator, {"properties": _properties, "multipleOf": _multiple_of})

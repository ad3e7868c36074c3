"""The schemas of rules: JSON Schema 2020-12 over the arguments of a call.

Two doors. At load `vocabulary.survey` refuses whatever would be silently without effect, could
reach the network, or could cost without bound. On the way of a call the compiled schema answers
through a regular-expression engine that takes linear time (no look-around, no backreferences).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import jsonschema_rs
import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from guard.core import canonical
from guard.core.errors import printable
from guard.policy.boundaries import polarity, watch
from guard.policy.boundaries.verdict import NotUnderstood
from guard.policy.vocabulary import SchemaRefused, children, subschemas, survey

_T = TypeVar("_T")

_PATTERN_BYTES: Final = 1 << 20
_POINTED_BYTES: Final = 1 << 12
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES)
_META: Final = Draft202012Validator(Draft202012Validator.META_SCHEMA)
_LONGEST_MESSAGE: Final = 200
_PATTERN_REMEDY: Final = (
    "use a pattern without look-around, backreferences or very large repetitions; they can cost without bound"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One place where arguments are not as a schema says.

    Attributes:
        pointer: RFC 6901 pointer into the arguments.
        keyword: RFC 6901 pointer into the schema, to the keyword that failed.
        branches: the failures of each branch, under anyOf and oneOf.
    """

    pointer: str
    keyword: str
    branches: tuple[tuple[Failure, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema that passed every check of `compile_schema`.

    Attributes:
        source: the schema as it was written: a dict or a boolean.
    """

    source: Any
    _engine: jsonschema_rs.Draft202012Validator = field(repr=False, compare=False)
    _branches: bool = field(default=True, repr=False, compare=False)
    _sides: Mapping[str, polarity.Side] | None = field(default=None, repr=False, compare=False)

    def matches(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the arguments (I-JSON) match. Raises whatever the engine raises, panics as RuntimeError.

        Raises:
            NotUnderstood: that rests on a value that a boundary keyword does not understand.
        """
        if self._sides is None:
            return self._unbroken(self._engine.is_valid, arguments)
        surely, unsure = self._pass(arguments, high=False)
        if surely or not unsure:
            return surely
        if self._pass(arguments, high=True)[0]:
            raise NotUnderstood
        return False

    def surely(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the arguments match, whatever the values mean that boundary keywords do not understand.

        Raises as `matches`, NotUnderstood only where such a keyword stands on both sides of a negation.
        """
        if self._sides is None:
            return self._unbroken(self._engine.is_valid, arguments)
        return self._pass(arguments, high=False)[0]

    def _pass(self, arguments: Mapping[str, Any], *, high: bool) -> tuple[bool, bool]:
        """What the schema says, and whether something was not understood on the way.

        Where that matters more than once it rests on what is looked at first: members in sorted order.
        """
        judged = arguments
        if polarity.Side.BOTH in (self._sides or {}).values():
            judged = canonical.read(orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS))
        said, found = watch.run(lambda: self._unbroken(self._engine.is_valid, judged), high=high)
        if found.lost:
            raise NotUnderstood
        return said, found.unsure

    def _unbroken(self, evaluate: Callable[[Any], _T], arguments: Any) -> _T:
        try:
            return evaluate(arguments)
        except (Exception, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as panic:
            raise RuntimeError("the schema engine broke down") from panic

    def first_failure(self, arguments: Mapping[str, Any]) -> str:
        """Pointer to the first place that does not match, "" when it is the whole or too dear to find.

        It is the same for arguments that are the same JSON: members are taken in sorted order. Under
        anyOf and oneOf the engine notes every failure of every branch, so that large arguments that a
        schema with these refuses get no nearer pointer: a denial must not cost more than a permit.
        """
        ordered = orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS)
        if self._branches and len(ordered) > _POINTED_BYTES:
            return ""
        try:
            watch.run(lambda: self._engine.validate(canonical.read(ordered)), high=False)
        except jsonschema_rs.ValidationError as first:
            return _pointer(first.instance_path)
        return ""

    def failures(self, arguments: Mapping[str, Any]) -> tuple[Failure, ...]:
        """Everything that does not match, as a tree: for the author of the rule, not on the way of a call."""
        return watch.run(lambda: tuple(map(_failure, self._engine.iter_errors(arguments))), high=False)[0]


def compile_schema(source: Any) -> Schema:
    """Make a schema ready.

    Args:
        source: plain JSON values.

    Raises:
        SchemaRefused: not a JSON Schema 2020-12, or one that Guard does not take; `pointer` says
            where in the schema.
    """
    survey(source)
    every = dict(subschemas(source))
    sides = polarity.sides(
        every, {at: tuple(step for step, _ in children(part)) for at, part in every.items()}
    )
    try:
        engine = jsonschema_rs.Draft202012Validator(
            source,
            validate_formats=True,
            ignore_unknown_formats=False,
            pattern_options=_PATTERNS,
            offline=True,
            keywords=watch.keywords(sides) if sides else None,
        )
    except ValueError as error:
        raise _explained(source, error) from error
    parts = (part for part in every.values() if isinstance(part, dict))
    return Schema(source, engine, any({"anyOf", "oneOf"} & part.keys() for part in parts), sides or None)


def _explained(source: Any, error: ValueError) -> SchemaRefused:
    """The slow library says best what is wrong with a schema; its patterns are those of the specification."""
    worst = best_match(_META.iter_errors(source))
    if worst is not None:
        return SchemaRefused(
            f"not JSON Schema 2020-12: {printable(worst.message[:_LONGEST_MESSAGE])}",
            _pointer(list(worst.absolute_path)),
            "correct it; json-schema.org/draft/2020-12/json-schema-validation says what each keyword takes",
        )
    path = getattr(error, "instance_path", [])
    if path and ("pattern" in path[-1:] or "patternProperties" in path[-2:-1]):
        return SchemaRefused(
            f"the pattern {printable(str(getattr(error, 'instance', '')))} is not taken",
            _pointer(path),
            _PATTERN_REMEDY,
        )
    return SchemaRefused(
        f"not taken: {printable(str(error).partition(chr(10))[0])}", _pointer(path), "correct it"
    )


def _failure(error: jsonschema_rs.ValidationError) -> Failure:
    branches = getattr(error.kind, "context", ())
    return Failure(
        _pointer(error.instance_path),
        _pointer(error.schema_path),
        tuple(tuple(map(_failure, branch)) for branch in branches),
    )


def _pointer(path: list[str | int]) -> str:
    return "".join(f"/{canonical.escape(str(token))}" for token in path)

"""Hostile and mistaken schemas, refused at load; and what the others say."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from guard.core.canonical import MAX_SAFE_INTEGER
from guard.core.errors import GuardError
from guard.policy.schema import compile_schema
from guard.policy.vocabulary import MAX_DEPTH, MAX_SUBSCHEMAS, SchemaRefused
from tests.policy.calls import policy
from tests.policy.worlds import SCHEMAS, arguments

CIRCLE = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}


def refusal(schema: Any) -> SchemaRefused:
    with pytest.raises(SchemaRefused) as raised:
        compile_schema(schema)
    assert raised.value.remedy
    return raised.value


def deep(levels: int, keyword: str = "allOf") -> Any:
    schema: Any = {"type": "object"}
    for _ in range(levels):
        schema = {keyword: [schema]} if keyword == "allOf" else {keyword: schema}
    return schema


def doubling(levels: int) -> Any:
    """Every definition refers twice to the one before: small to write, exponential to evaluate."""
    defs: dict[str, Any] = {"d0": {"type": "object"}}
    for level in range(1, levels):
        defs[f"d{level}"] = {"allOf": [{"$ref": f"#/$defs/d{level - 1}"}] * 2}
    return {"$defs": defs, "$ref": f"#/$defs/d{levels - 1}"}


def chain(levels: int) -> Any:
    defs: dict[str, Any] = {"d0": True}
    defs |= {f"d{level}": {"$ref": f"#/$defs/d{level - 1}"} for level in range(1, levels)}
    return {"$defs": defs, "$ref": f"#/$defs/d{levels - 1}"}


@pytest.mark.parametrize(
    ("schema", "pointer", "what"),
    [
        ({"$ref": "https://example.com/schema"}, "/$ref", "leaves the document"),
        ({"$ref": "file:///etc/passwd"}, "/$ref", "leaves the document"),
        ({"$ref": "other.json#/a"}, "/$ref", "leaves the document"),
        ({"not": {"$dynamicRef": "https://a.example#x"}}, "/not/$dynamicRef", "leaves the document"),
        ({"$ref": 3}, "/$ref", "leaves the document"),
        ({"$ref": "#/$defs/gone"}, "/$ref", "no schema"),
        ({"$ref": "#/examples/0", "examples": [{"requierd": []}]}, "/$ref", "no schema"),
        ({"$ref": "#gone"}, "/$ref", "no schema"),
        ({"$ref": "#"}, "/$ref", "contains itself"),
        ({"allOf": [{"$ref": "#"}]}, "/allOf/0/$ref", "contains itself"),
        ({"properties": {"a": {"$ref": "#"}}}, "/properties/a/$ref", "contains itself"),
        ({"$anchor": "me", "not": {"$dynamicRef": "#me"}}, "/not/$dynamicRef", "contains itself"),
        (CIRCLE, "/$defs/b/$ref", "contains itself"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema", "another dialect"),
        ({"$id": "https://example.com/x"}, "/$id", "not taken"),
        ({"requierd": ["a"]}, "/requierd", "unknown keyword"),
        ({"properties": {"a": {"maxLenght": 3}}}, "/properties/a/maxLenght", "unknown keyword"),
        ({"if": {"x": 1}}, "/if/x", "unknown keyword"),
        ({"dependencies": {}}, "/dependencies", "not taken"),
        ({"contentMediaType": "text/html"}, "/contentMediaType", "not taken"),
        ({"then": {}}, "/then", "no effect without `if`"),
        ({"minContains": 1}, "/minContains", "no effect without `contains`"),
        ({"format": "iban"}, "/format", "unknown format"),
        ({"format": "e-mail"}, "/format", "unknown format"),
        ({"type": "strin"}, "/type", "2020-12"),
        ({"maximum": "3"}, "/maximum", "2020-12"),
        ({"items": [{}]}, "/items", "a schema is"),
        ({"properties": {"a": None}}, "/properties/a", "a schema is"),
        ([], "", "a schema is"),
        (deep(MAX_DEPTH + 1), "/allOf/0" * (MAX_DEPTH + 1), "deeper"),
        (deep(5_000), "/allOf/0" * (MAX_DEPTH + 1), "deeper"),
        (deep(200, "not"), "/not" * (MAX_DEPTH + 1), "deeper"),
        (chain(1_900), None, "deeper"),
        (doubling(40), None, "written out"),
        ({"anyOf": [True] * MAX_SUBSCHEMAS}, None, "more than 2000 subschemas"),
        ({"enum": list(range(10_001))}, "/enum", "more than 10000"),
        ({"pattern": "(?=a)b"}, "/pattern", "(?=a)b is not taken"),
        ({"pattern": "(?<!a)b"}, "/pattern", "not taken"),
        ({"properties": {"a": {"pattern": r"(a)\1"}}}, "/properties/a/pattern", "not taken"),
        ({"patternProperties": {"(?!a)": True}}, "/patternProperties/(?!a)", "not taken"),
        ({"pattern": "(a{1000}){1000}"}, "/pattern", "not taken"),
        ({"pattern": "["}, "/pattern", "not taken"),
    ],
)  # fmt: skip
def test_hostile_and_mistaken_schemas(schema: Any, pointer: str | None, what: str) -> None:
    """What would reach out, cost without bound or silently never match is refused with its place."""
    error = refusal(schema)
    assert what in error.what
    assert pointer in (None, error.pointer)


def test_a_typo_is_answered_with_the_nearest_keyword() -> None:
    """A keyword that JSON Schema would ignore is an error that names the right one."""
    assert refusal({"requierd": ["a"]}).remedy == "did you mean `required`?"
    assert refusal({"format": "datetime"}).remedy == "did you mean `date-time`?"


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No schema makes the loader open a connection."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    refusal({"$ref": "http://127.0.0.1:9/schema"})
    refusal({"$schema": "http://127.0.0.1:9/schema"})
    compile_schema({"properties": {"a": {"format": "uri", "const": "http://127.0.0.1:9/"}}})


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^(.*a){12}$", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_an_exponential_pattern_takes_linear_time(pattern: str) -> None:
    """Patterns on which a backtracking engine would run for years answer at once."""
    schema = compile_schema({"properties": {"s": {"pattern": pattern}}})
    start = time.perf_counter()
    assert not schema.matches({"s": "a" * 50_000 + "!"})
    assert schema.first_failure({"s": "a" * 50_000 + "!"}) == "/s"
    assert time.perf_counter() - start < 2


def test_a_schema_just_inside_the_bounds_is_quick() -> None:
    """The largest schema that is taken is evaluated, and its failures found, in bounded time."""
    schema = compile_schema({**doubling(10), "type": "array"})
    start = time.perf_counter()
    assert not schema.matches({})
    assert schema.first_failure({}) == ""
    assert time.perf_counter() - start < 2


def test_a_denial_of_large_arguments_is_quick() -> None:
    """A caller cannot make the search for the first failing place cost seconds."""
    items = {"properties": {"a": {"items": {"type": "string"}}}}
    large = {"a": [1] * 400_000}
    start = time.perf_counter()
    assert compile_schema(items).first_failure(large) == "/a/0"
    assert compile_schema({"anyOf": [items, {"required": ["b"]}]}).first_failure(large) == ""
    assert time.perf_counter() - start < 2


def test_local_references_are_followed() -> None:
    """`$ref` to `$defs` and to an anchor of the same document works."""
    both = {"properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#n"}}}
    schema = compile_schema({"$defs": {"n": {"$anchor": "n", "type": "integer"}}, **both})
    assert schema.matches({"a": 1, "b": 2})
    assert schema.first_failure({"a": 1, "b": "x"}) == "/b"


@pytest.mark.parametrize(
    ("schema", "value", "matches"),
    [
        ({"type": "integer"}, 1.0, True),
        ({"type": "integer"}, True, False),
        ({"const": 1}, 1.0, True),
        ({"const": 1}, True, False),
        ({"const": {"a": 1, "b": 2}}, {"b": 2.0, "a": 1}, True),
        ({"enum": [0]}, False, False),
        ({"uniqueItems": True}, [1, 1.0], False),
        ({"uniqueItems": True}, [1, True], True),
        ({"multipleOf": 0.01}, 19.99, True),
        ({"multipleOf": 0.01}, 1.005, False),
        ({"maximum": 10}, 10.000000000000002, False),
        ({"maximum": MAX_SAFE_INTEGER}, MAX_SAFE_INTEGER, True),
        ({"maxLength": 1}, "\U0001f600", True),
        ({"pattern": "^a$"}, "a\n", False),
        ({"pattern": r"^[0-9]$"}, "\u0663", False),
        ({"format": "email"}, "nobody", False),
        ({"format": "date-time"}, "2027-01-01T00:00:00Z", True),
        ({"format": "uuid"}, "x", False),
        ({"items": {"type": "string"}}, ["a", 1], False),
    ],
)
def test_values_mean_what_2020_12_says(schema: Any, value: Any, matches: bool) -> None:  # noqa: FBT001
    """Numbers are compared as numbers, booleans are none, formats assert, and lengths count code points."""
    assert compile_schema({"properties": {"v": schema}}).matches({"v": value}) is matches


@given(st.sampled_from(SCHEMAS), arguments)
def test_the_fast_engine_agrees_with_the_slow_one(schema: Any, value: dict[str, Any]) -> None:
    """Two libraries say the same, and a failure is found exactly where there is one."""
    compiled = compile_schema(schema)
    matches = compiled.matches(value)
    assert matches == Draft202012Validator(schema).is_valid(value)
    assert bool(compiled.failures(value)) != matches
    assert compiled.first_failure(value) == compiled.first_failure(dict(reversed(value.items())))


def test_a_refused_schema_names_the_line_of_the_policy() -> None:
    """A schema's fault is told with the place in the policy."""
    with pytest.raises(GuardError, match=r"intents\.0\.schema\.requierd: unknown keyword"):
        policy(intents=[{"id": "a", "tools": ["x"], "schema": {"requierd": []}}])


def test_failures_under_anyof_have_branches() -> None:
    """The tree of failures shows each alternative and why it did not match."""
    schema = compile_schema({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]})
    (failure,) = schema.failures({})
    assert [[leaf.keyword for leaf in branch] for branch in failure.branches] == [
        ["/anyOf/0/required"],
        ["/anyOf/1/required"],
    ]
    assert json.dumps(schema.source)

"""Schemas and values made to cost without bound: each is stopped by a limit that the error names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from guard.core.canonical import MAX_SAFE_INTEGER
from guard.core.errors import GuardError
from guard.policy.document import load
from guard.policy.schema import compile_schema
from guard.policy.vocabulary import (
    MAX_DEPTH,
    MAX_ENUM,
    MAX_SUBSCHEMAS,
    MAX_UNROLLED,
    MAX_UNROLLED_DEPTH,
    SchemaRefused,
)
from tests.policy.calls import policy


def refusal(schema: Any) -> SchemaRefused:
    with pytest.raises(SchemaRefused) as raised:
        compile_schema(schema)
    assert raised.value.remedy
    return raised.value


def nested(keyword: str, levels: int) -> Any:
    schema: Any = {"type": "object"}
    for _ in range(levels):
        schema = {keyword: [schema] if keyword in ("allOf", "anyOf", "oneOf", "prefixItems") else schema}
    return schema


def doubling(keyword: str, levels: int) -> Any:
    """Each definition refers twice to the one before: 2 ** levels once written out."""
    defs: dict[str, Any] = {"d0": {"type": "object"}}
    for level in range(1, levels):
        defs[f"d{level}"] = {keyword: [{"$ref": f"#/$defs/d{level - 1}"}] * 2}
    return {"$defs": defs, "$ref": f"#/$defs/d{levels - 1}"}


@pytest.mark.parametrize(
    "keyword", ["allOf", "anyOf", "oneOf", "not", "items", "if", "prefixItems", "contains"]
)
def test_nesting_is_bounded_and_the_bound_is_named(keyword: str) -> None:
    """The deepest schema that is taken is taken; one level more is refused with the limit."""
    compile_schema(nested(keyword, MAX_DEPTH))
    assert str(MAX_DEPTH) in refusal(nested(keyword, MAX_DEPTH + 1)).what


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf", "prefixItems"])
def test_doubling_by_reference_is_bounded_and_the_bound_is_named(keyword: str) -> None:
    """Small to write, exponential to evaluate: counted as if every reference were written out."""
    compile_schema(doubling(keyword, 9))
    error = refusal(doubling(keyword, 40))
    assert str(MAX_UNROLLED) in error.what


def test_a_chain_of_references_is_bounded_and_the_bound_is_named() -> None:
    """Each definition refers to the next: no nesting to see, and as deep as there are definitions."""
    defs = {"d0": True} | {f"d{n}": {"$ref": f"#/$defs/d{n - 1}"} for n in range(1, 200)}
    assert str(MAX_UNROLLED_DEPTH) in refusal({"$defs": defs, "$ref": "#/$defs/d199"}).what


@pytest.mark.parametrize("reference", ["$ref", "$dynamicRef"])
@pytest.mark.parametrize(
    "wrap", ["items", "additionalProperties", "not", "contains", "unevaluatedProperties"]
)
def test_a_schema_that_contains_itself_is_refused_wherever_it_does(reference: str, wrap: str) -> None:
    """Recursion has no bound at load, also where each round would take one level of the value."""
    assert "contains itself" in refusal({wrap: {reference: "#"}}).what
    assert (
        "contains itself"
        in refusal({"$defs": {"a": {wrap: {reference: "#/$defs/a"}}}, reference: "#/$defs/a"}).what
    )


@pytest.mark.parametrize("keyword", ["anyOf", "allOf", "prefixItems"])
def test_breadth_is_bounded_and_the_bound_is_named(keyword: str) -> None:
    """As many branches as are allowed are taken, with the schema around them; one more is refused."""
    compile_schema({keyword: [True] * (MAX_SUBSCHEMAS - 1)})
    assert str(MAX_SUBSCHEMAS) in refusal({keyword: [True] * MAX_SUBSCHEMAS}).what


def test_an_enum_is_bounded_and_the_bound_is_named() -> None:
    """The longest list that is taken is taken; one value more is refused."""
    assert compile_schema({"enum": list(range(MAX_ENUM))}).matches(MAX_ENUM - 1)
    assert str(MAX_ENUM) in refusal({"enum": list(range(MAX_ENUM + 1))}).what


@pytest.mark.parametrize(
    "pattern",
    [
        "(a{1000}){1000}",
        "((a{100}){100}){100}",
        "(((a{30}){30}){30}){30}{30}",
        "(\\p{L}{500}){500}",
        "|".join(f"a{n}.{{1000}}" for n in range(1_000)),
        "a{1000000000}",
    ],
)
@pytest.mark.parametrize("where", ["pattern", "patternProperties"])
def test_a_pattern_that_grows_when_compiled_is_refused(pattern: str, where: str) -> None:
    """Short to write, gigabytes as an automaton: refused at load, at its place."""
    error = refusal({where: pattern if where == "pattern" else {pattern: True}})
    assert "not taken" in error.what
    assert error.pointer.startswith(f"/{where}")


@pytest.mark.parametrize("number", ["9007199254740992", "-9007199254740992", "1e400", "9" * 5_000])
@pytest.mark.parametrize("keyword", ["maximum", "minimum", "const", "multipleOf", "minLength"])
def test_a_number_that_is_not_the_same_everywhere_loads_nowhere(number: str, keyword: str) -> None:
    """Beyond 2^53-1 and beyond a double, a bound would be another one for each reader."""
    text = json.dumps(
        {
            "guard": 1,
            "id": "p",
            "version": 1,
            "intents": [{"id": "i", "tools": ["t"], "schema": {keyword: 7}}],
        }
    )
    load(text.encode(), name="p.json")
    with pytest.raises(GuardError):
        load(text.replace(": 7}", f": {number}}}").encode(), name="p.json")


def test_the_largest_number_bounds_exactly() -> None:
    """At the edge of what is the same everywhere a bound still tells neighbours apart."""
    schema = compile_schema({"exclusiveMaximum": MAX_SAFE_INTEGER})
    assert schema.matches(MAX_SAFE_INTEGER - 1)
    assert not schema.matches(MAX_SAFE_INTEGER)


def test_a_refused_schema_is_told_with_its_rule_and_its_limit() -> None:
    """Whoever loads the policy reads which rule it is and what the limit is."""
    with pytest.raises(GuardError, match=rf"intents\.0\.schema.*nested deeper than {MAX_DEPTH}"):
        policy(intents=[{"id": "a", "tools": ["x"], "schema": nested("not", MAX_DEPTH + 1)}])

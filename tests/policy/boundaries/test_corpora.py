"""The corpora: what is refused, what is accepted, and that no combinator turns one into the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from guard.policy.boundaries.verdict import NotUnderstood
from guard.policy.boundaries.words import KEYWORDS, judge
from guard.policy.schema import compile_schema
from tests.policy.boundaries.corpus import Entry, corpus

CORPUS = corpus()
each = pytest.mark.parametrize("entry", CORPUS, ids=str)


def verdict(ask: Callable[[Any], bool], value: Any) -> str:
    try:
        return "inside" if ask(value) else "outside"
    except NotUnderstood:
        return "unclear"


@each
def test_the_judge_says_what_the_corpus_says(entry: Entry) -> None:
    """Each value is inside, outside or not understood, as its file says."""
    assert verdict(judge(entry.keyword, entry.stated), entry.value) == entry.section


def test_every_keyword_has_a_corpus() -> None:
    """At least thirty values that are refused and ten that are accepted, for each keyword."""
    refused = Counter(entry.keyword for entry in CORPUS if entry.section != "inside")
    accepted = Counter(entry.keyword for entry in CORPUS if entry.section == "inside")
    assert {name for name in KEYWORDS if refused[name] >= 30 and accepted[name] >= 10} == set(KEYWORDS)


def test_every_value_of_a_corpus_is_there_once() -> None:
    """No value is counted twice."""
    seen = Counter((entry.file, repr(entry.value)) for entry in CORPUS)
    assert [value for value, times in seen.items() if times > 1] == []


TRUE: dict[str, Any] = {"type": ["object", "array", "string", "number", "boolean", "null"]}
POSITIVE: dict[str, Callable[[Any], Any]] = {
    "alone": lambda k: k,
    "allOf": lambda k: {"allOf": [TRUE, k]},
    "anyOf": lambda k: {"anyOf": [{"not": TRUE}, k]},
    "not not": lambda k: {"not": {"not": k}},
    "$ref": lambda k: {"$ref": "#/$defs/k", "$defs": {"k": k}},
    "$ref under not not": lambda k: {"not": {"not": {"$ref": "#k"}}, "$defs": {"k": {"$anchor": "k", **k}}},
    "then": lambda k: {"if": TRUE, "then": k},
    "else": lambda k: {"if": {"not": TRUE}, "else": k},
}
NEGATIVE: dict[str, Callable[[Any], Any]] = {
    "not": lambda k: {"not": k},
    "not allOf": lambda k: {"not": {"allOf": [TRUE, k]}},
    "not anyOf": lambda k: {"not": {"anyOf": [{"not": TRUE}, k]}},
    "allOf not": lambda k: {"allOf": [{"not": k}]},
    "not not not": lambda k: {"not": {"not": {"not": k}}},
    "not $ref": lambda k: {"not": {"$ref": "#/$defs/k"}, "$defs": {"k": k}},
    "then not": lambda k: {"if": TRUE, "then": {"not": k}},
}
BOTH: dict[str, Callable[[Any], Any]] = {
    "if then": lambda k: {"if": k, "then": True, "else": False},
    "if else": lambda k: {"if": k, "then": False, "else": True},
    "if alone": lambda k: {"if": k, "then": TRUE, "else": TRUE},
    "oneOf": lambda k: {"oneOf": [k, {"not": TRUE}]},
    "oneOf with its opposite": lambda k: {"oneOf": [k, {"not": k}]},
    "both by $ref": lambda k: {
        "anyOf": [{"$ref": "#/$defs/k"}, {"not": {"$ref": "#/$defs/k"}}],
        "$defs": {"k": k},
    },
    "$dynamicRef": lambda k: {"not": {"$dynamicRef": "#k"}, "$defs": {"k": {"$dynamicAnchor": "k", **k}}},
}


def wrapped(schema: Any, place: str) -> tuple[Any, Callable[[Any], Any]]:
    """A schema for one value, put where values can be, and the arguments that hold one."""
    defs = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
    if place == "properties":
        return {**defs, "properties": {"v": schema}}, lambda value: {"v": value}
    if place == "additionalProperties":
        return {**defs, "additionalProperties": schema}, lambda value: {"v": value}
    if place == "patternProperties":
        return {**defs, "patternProperties": {"^v$": schema}}, lambda value: {"v": value}
    if place == "items":
        return {**defs, "properties": {"v": {"items": schema}}}, lambda value: {"v": [value]}
    if place == "prefixItems":
        return {**defs, "properties": {"v": {"prefixItems": [schema]}}}, lambda value: {"v": [value]}
    if place == "contains":
        return {**defs, "properties": {"v": {"contains": schema}}}, lambda value: {"v": [value]}
    return {**defs, "dependentSchemas": {"v": {"properties": {"v": schema}}}}, lambda value: {"v": value}


PLACES = (
    "properties",
    "additionalProperties",
    "patternProperties",
    "items",
    "prefixItems",
    "contains",
    "dependentSchemas",
)


def one_of_each() -> list[Entry]:
    """Of every file and section, the first value and the last."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in CORPUS:
        found.setdefault((entry.file, entry.section), []).append(entry)
    return [entry for entries in found.values() for entry in (entries[0], entries[-1])]


SOME = one_of_each()
TURNED = {"inside": "outside", "outside": "inside", "unclear": "unclear"}


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("entry", SOME, ids=str)
def test_where_nothing_is_negated_only_what_is_inside_passes(entry: Entry, name: str) -> None:
    """An intent permits what is inside; a rule that forbids fails where it does not understand."""
    for place in PLACES:
        source, arguments = wrapped(POSITIVE[name](entry.schema), place)
        schema = compile_schema(source)
        assert schema.surely(arguments(entry.value)) is (entry.section == "inside")
        assert verdict(schema.matches, arguments(entry.value)) == entry.section


@pytest.mark.parametrize("name", NEGATIVE)
@pytest.mark.parametrize("entry", SOME, ids=str)
def test_under_a_negation_only_what_is_outside_passes(entry: Entry, name: str) -> None:
    """What is not understood matches neither the keyword nor its negation."""
    for place in PLACES:
        source, arguments = wrapped(NEGATIVE[name](entry.schema), place)
        schema = compile_schema(source)
        assert schema.surely(arguments(entry.value)) is (entry.section == "outside")
        assert verdict(schema.matches, arguments(entry.value)) == TURNED[entry.section]


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("entry", [entry for entry in SOME if entry.section == "unclear"], ids=str)
def test_where_both_sides_count_the_rule_fails(entry: Entry, name: str) -> None:
    """Under if, oneOf and the like a value that is not understood fails the rule, whatever it is for."""
    for place in PLACES:
        source, arguments = wrapped(BOTH[name](entry.schema), place)
        schema = compile_schema(source)
        for ask in (schema.surely, schema.matches):
            with pytest.raises(NotUnderstood):
                ask(arguments(entry.value))

"""A rule on a property that the tool does not have is refused, not silently never matched."""

from __future__ import annotations

from typing import Any

import pytest

from guard.core.errors import GuardError
from guard.policy.fit import check_against
from tests.policy.calls import policy

TOOL = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "options": {"type": "object", "properties": {"force": {"type": "boolean"}}},
        "free": {"type": "object"},
        "edits": {"type": "array", "items": {"$ref": "#/$defs/edit"}},
    },
    "$defs": {"edit": {"type": "object", "properties": {"text": {"type": "string"}}}},
}


def check(schema: Any, tool: Any = None, *, match: str = "write", kind: str = "intents", **more: Any) -> None:
    rule = {"id": "rule", "tools": [match], "schema": schema}
    tools = {("files", "write"): {"inputSchema": TOOL if tool is None else tool}}
    tools |= {("files", name): {"inputSchema": other} for name, other in more.items()}
    check_against(policy(**{kind: [rule]}), tools)


def has(name: str) -> Any:
    return {"properties": {name: {"type": "string"}}}


@pytest.mark.parametrize("kind", ["intents", "protected"])
@pytest.mark.parametrize(
    ("schema", "where"),
    [
        (has("pat"), "schema/properties/pat"),
        ({"required": ["path", "pat"]}, "schema/required/1"),
        ({"dependentRequired": {"path": ["pat"]}}, "schema/dependentRequired/path/0"),
        ({"dependentSchemas": {"pat": True}}, "schema/dependentSchemas/pat"),
        ({"dependentSchemas": {"path": has("pat")}}, "schema/dependentSchemas/path/properties/pat"),
        ({"allOf": [has("pat")]}, "schema/allOf/0/properties/pat"),
        ({"anyOf": [True, has("pat")]}, "schema/anyOf/1/properties/pat"),
        ({"oneOf": [has("pat")]}, "schema/oneOf/0/properties/pat"),
        ({"not": {"required": ["pat"]}}, "schema/not/required/0"),
        ({"if": has("pat"), "then": False}, "schema/if/properties/pat"),
        ({"if": True, "then": has("pat"), "else": True}, "schema/then/properties/pat"),
        ({"$ref": "#/$defs/p", "$defs": {"p": has("pat")}}, "schema/$ref/properties/pat"),
        ({"$ref": "#p", "$defs": {"p": {"$anchor": "p", **has("pat")}}}, "schema/$ref/properties/pat"),
        ({"properties": {"options": has("froce")}}, "schema/properties/options/properties/froce"),
        ({"properties": {"edits": {"items": has("txt")}}}, "schema/properties/edits/items/properties/txt"),
        (
            {"properties": {"edits": {"contains": has("txt")}}},
            "schema/properties/edits/contains/properties/txt",
        ),
    ],
)
def test_a_property_that_the_tool_does_not_have(kind: str, schema: Any, where: str) -> None:
    """Wherever the rule mentions it, the place and the nearest name are told."""
    with pytest.raises(GuardError) as raised:
        check(schema, kind=kind)
    assert raised.value.where == f"rule: {where}"
    assert raised.value.remedy.startswith("did you mean")
    assert "the tool `write` of `files` does not have" in raised.value.what


@pytest.mark.parametrize(
    "schema",
    [
        has("path"),
        {"required": ["path"], "properties": {"options": {"required": ["force"]}}},
        {"properties": {"free": has("anything")}},
        {"properties": {"path": has("never")}},
        {"properties": {"edits": {"items": has("text")}}},
        {"$defs": {"unused": has("pat")}},
        True,
    ],
)
def test_a_rule_that_fits(schema: Any) -> None:
    """What the tool has, and what it says nothing about, is fine."""
    check(schema)


@pytest.mark.parametrize(
    "tool",
    [
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"pat": {}}}]},
        {"anyOf": [{"properties": {"pat": {}}}]},
        {"oneOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"properties": {"pat": {}}}}},
        {
            "$ref": "#/definitions/x",
            "definitions": {"x": {"properties": {"pat": {}}, "allOf": [{"$ref": "#"}]}},
        },
        {"properties": {"a": {}}, "additionalProperties": True},
        {"properties": {"a": {}}, "additionalProperties": {"type": "string"}},
        {"properties": {"a": {}}, "patternProperties": {"^x": {}}},
        True,
    ],
)
def test_where_the_tool_has_or_takes_the_property(tool: Any) -> None:
    """References and combinations are followed, and a schema that says it is open takes anything."""
    check(has("pat"), tool)


@pytest.mark.parametrize(
    "tool",
    [
        {"properties": {"a": {}}},
        {"type": "object"},
        {},
        {"properties": {"a": {}}, "additionalProperties": False},
        {"properties": 3, "allOf": {}, "$ref": 7},
        {"$ref": "https://example.com/x"},
        {"$ref": "#/properties/99999999999999999999"},
    ],
)
def test_a_schema_that_is_silent_is_not_open(tool: Any) -> None:
    """No additionalProperties is no permission for a rule to guess, and odd schemas do no harm."""
    with pytest.raises(GuardError):
        check(has("pat"), tool)


def test_an_exact_name_must_fit_every_tool_and_a_glob_one() -> None:
    """A glob rule is about what its tools share or one of them has; an exact rule is about each."""
    check(has("path"), match="wr*", wrong={"properties": {}})
    with pytest.raises(GuardError, match=r"no tool that fits `wr\*` has"):
        check(has("pat"), match="wr*", wrong={"properties": {}})
    rule = {"id": "rule", "tools": ["write"], "schema": has("path")}
    tools = {("one", "write"): {"inputSchema": TOOL}, ("two", "write"): {"inputSchema": {"properties": {}}}}
    with pytest.raises(GuardError, match="`write` of `two`"):
        check_against(policy(intents=[rule]), tools)


def test_a_rule_about_tools_that_are_not_there_is_no_fault() -> None:
    """A policy may govern servers that this Guard does not front."""
    check(has("pat"), match="elsewhere")

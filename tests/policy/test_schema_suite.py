"""The official JSON-Schema-Test-Suite, through the validator as Guard configures it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from guard.policy.schema import compile_schema
from guard.policy.vocabulary import SchemaRefused

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
import schema_suite


@pytest.fixture(scope="module")
def suite() -> list[schema_suite.Test]:
    try:
        return list(schema_suite.read(schema_suite.fetched()))
    except (OSError, subprocess.SubprocessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the source distribution that carries the suite cannot be had: {error}")


def test_every_difference_from_the_official_suite_has_its_reason(suite: list[schema_suite.Test]) -> None:
    """Required, optional and format tests answer as the suite says, or stand in the list."""
    assert len(suite) > 1_900
    assert schema_suite.unexplained(schema_suite.differences(suite)) == []


def test_no_difference_from_the_official_suite_permits(suite: list[schema_suite.Test]) -> None:
    """Where Guard answers otherwise, it refuses what the suite lets pass, never the reverse."""
    found = schema_suite.differences(suite)
    other = [test for test in suite if found.get(test.id) == schema_suite.OTHER_ANSWER]
    assert other
    assert all(test.valid for test in other)


def test_a_difference_without_a_reason_is_told() -> None:
    """The list is compared both ways: what is new is told, and so is a reason that explains nothing."""
    explained = {
        f"{group}/{number}": entry["what"]
        for entry in yaml.safe_load(schema_suite.REASONS.read_text())
        for group, numbers in entry["tests"].items()
        for number in numbers
    }
    assert schema_suite.unexplained(explained) == []
    first = next(iter(explained))
    assert "no reason" in schema_suite.unexplained({**explained, "type/0/0": "another answer"})[0]
    assert first in schema_suite.unexplained({**explained, first: "something else"})[0]
    assert first in schema_suite.unexplained({k: v for k, v in explained.items() if k != first})[0]


PINNED: list[tuple[str, Any, Any, bool]] = [
    ("type/0", {"type": "integer"}, 1.0, True),
    ("type/0", {"type": "integer"}, "1", False),
    ("uniqueItems/0", {"uniqueItems": True}, [{"foo": {"bar": {"baz": True}}}] * 2, False),
    ("const/false is not 0", {"const": False}, 0, False),
    ("enum/true is not 1", {"enum": [[True]]}, [1], False),
    ("multipleOf/small number", {"multipleOf": 0.0001}, 0.0075, True),
    ("multipleOf/small number", {"multipleOf": 0.0001}, 0.00751, False),
    ("minLength/graphemes", {"minLength": 2}, "\U0001f4a9", False),
    ("optional/format/time", {"format": "time"}, "22:59:60Z", False),
    ("optional/format/hostname", {"format": "hostname"}, "-host", False),
    ("optional/format/email", {"format": "email"}, "te..st@example.com", False),
    ("unevaluatedProperties", {"properties": {"a": True}, "unevaluatedProperties": False}, {"b": 1}, False),
]  # fmt: skip


@pytest.mark.parametrize(("where", "schema", "value", "valid"), PINNED)
def test_a_pinned_part_of_the_suite(where: str, schema: Any, value: Any, valid: bool) -> None:  # noqa: FBT001
    """What the engines of others get wrong is tested wherever the suite cannot be had, too."""
    assert compile_schema(schema).matches(value) is valid


@pytest.mark.parametrize(
    "word", ["d", "D", "w", "W", "s", "S", "b", "B", "p{Letter}", "P{Letter}", "cA", "a"]
)
@pytest.mark.parametrize("around", ["^{}$", "[{}-]", "a\\\\{}", "(x|{}+)"])
def test_what_engines_read_differently_is_refused_at_load(word: str, around: str) -> None:
    """Escapes on which the two engines differ in the suite are no part of a pattern, wherever they stand."""
    pattern = around.format(f"\\{word}")
    for schema in ({"pattern": pattern}, {"patternProperties": {pattern: True}}):
        with pytest.raises(SchemaRefused, match="engines differ") as raised:
            compile_schema({"not": schema})
        assert raised.value.pointer.startswith("/not/pattern")


@pytest.mark.parametrize("pattern", [r"^\\d$", r"^[\\]w$", r"^\.\-\\s$", "^d$"])
def test_an_escaped_backslash_before_a_letter_is_no_such_escape(pattern: str) -> None:
    """`\\\\d` is a backslash and a letter, for every engine."""
    compile_schema({"pattern": pattern})


def test_where_two_engines_differ_on_a_pattern_of_the_suite_the_schema_is_refused(
    suite: list[schema_suite.Test],
) -> None:
    """Every test of patterns that Guard takes is answered by `jsonschema` and `jsonschema-rs` alike."""
    judged = 0
    for test in suite:
        if schema_suite.difference(test) or "attern" not in json.dumps(test.schema):
            continue
        assert Draft202012Validator(test.schema).is_valid(test.value) is test.valid, test.id
        judged += 1
    assert judged > 50

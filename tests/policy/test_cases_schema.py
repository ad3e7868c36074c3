"""The JSON Schema of case files, for editors: it is the one that is published, and it knows what loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from guard.policy.cases import cases_schema

ROOT = Path(__file__).parents[2]
CASE_FILES = sorted((*ROOT.glob("policies/*.cases.yaml"), *ROOT.glob("examples/*/*.cases.yaml")))
CASE = {"name": "a", "role": "dev", "tool": "read", "expect": "allow"}


def test_the_published_schema_of_cases_is_current() -> None:
    """docs/cases.schema.json is what `cases_schema` gives."""
    published = json.loads((ROOT / "docs" / "cases.schema.json").read_text(encoding="utf-8"))
    assert published == cases_schema(), "write json.dumps(cases_schema(), indent=2) to docs/cases.schema.json"


@pytest.mark.parametrize("file", CASE_FILES, ids=lambda file: file.name)
def test_cases_name_their_schema_and_are_valid_under_it(file: Path) -> None:
    """The first line leads an editor to the schema, and the schema takes what Guard takes."""
    first, _, _ = file.read_text(encoding="utf-8").partition("\n")
    assert first.startswith("# yaml-language-server: $schema=")
    named = (file.parent / first.partition("=")[2]).resolve()
    assert named == ROOT / "docs" / "cases.schema.json"
    Draft202012Validator(cases_schema()).validate(yaml.safe_load(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "wrong",
    [
        {"cases": []},
        {"cases": [{**CASE, "roles": "dev"}]},
        {"cases": [{**CASE, "expect": "permit"}]},
        {"cases": [{**CASE, "expect": "deny", "reason": "because"}]},
        {"cases": [{**CASE, "facts": {"used": {"few": -1}}}]},
        {"cases": [{**CASE, "facts": {"said": [{"by": "nobody"}]}}]},
    ],
)
def test_what_no_case_may_say_is_marked(wrong: object) -> None:
    """A field, an answer or a reason that does not exist is marked where it is written."""
    validator = Draft202012Validator(cases_schema())
    assert validator.is_valid({"cases": [CASE]})
    assert not validator.is_valid(wrong)

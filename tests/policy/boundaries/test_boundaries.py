"""Boundary keywords in policies: how they are stated, and what follows when a value is not understood."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from guard.core.errors import GuardError
from guard.core.model import Allow, Deny
from guard.policy.boundaries import words
from guard.policy.boundaries.verdict import Keyword, NotUnderstood
from guard.policy.decide import decide
from guard.policy.document import load
from guard.policy.explain import explain
from guard.policy.schema import compile_schema
from guard.policy.vocabulary import SchemaRefused
from tests.policy.boundaries.corpus import Entry, corpus
from tests.policy.calls import call

DOCS = Path(__file__).parents[3] / "docs"
CORPUS = corpus()
SHAPE = words.KEYWORDS["pathWithin"].shape
WITHIN = {"pathWithin": {"roots": ["/srv/data"]}}


def policy(rules: dict[str, Any]) -> Any:
    document = {
        "guard": 1,
        "id": "p",
        "version": 1,
        "roles": {"r": {"scopes": []}},
        "tools": [{"match": "t", "scopes": []}],
        **rules,
    }
    return load(json.dumps(document).encode(), name="p")


def said(rules: dict[str, Any], value: Any) -> str:
    """The decision on a call with one argument; what explains it says the same."""
    asked = call("t", {"v": value}, role="r")
    decision = decide(asked, policy(rules))
    explained = explain(asked, policy(rules))
    assert explained.decision == decision
    assert explained.conclusion[0] == (decision.reason if isinstance(decision, Deny) else None)
    return "allow" if isinstance(decision, Allow) else str(decision.reason)


def rule(schema: Any) -> list[dict[str, Any]]:
    return [{"id": "x", "tools": ["t"], "schema": {"required": ["v"], "properties": {"v": schema}}}]


@pytest.mark.parametrize("entry", CORPUS, ids=str)
def test_no_rule_permits_what_is_not_understood(entry: Entry) -> None:
    """Each value under an intent, its negation, a rule that forbids it and one that forbids the rest."""
    keyword, negated = entry.schema, {"not": entry.schema}
    found = {
        "intent": said({"intents": rule(keyword)}, entry.value),
        "negated intent": said({"intents": rule(negated)}, entry.value),
        "forbidden": said({"protected": rule(keyword)}, entry.value),
        "rest forbidden": said({"protected": rule(negated)}, entry.value),
    }
    assert (
        found
        == {
            "inside": dict(zip(found, ["allow", "intent-unmatched", "protected", "allow"], strict=True)),
            "outside": dict(zip(found, ["intent-unmatched", "allow", "allow", "protected"], strict=True)),
            "unclear": dict(
                zip(
                    found, ["intent-unmatched", "intent-unmatched", "rule-failed", "rule-failed"], strict=True
                )
            ),
        }[entry.section]
    )


def test_what_is_not_understood_counts_only_where_it_matters() -> None:
    """Beside a condition that decides alone, a rule neither fails nor turns, whatever comes first."""
    both = {"required": ["v", "k"], "properties": {"v": WITHIN, "k": {"const": 1}}}
    schema = compile_schema(both)
    for arguments in ({"v": "..", "k": 2}, {"k": 2, "v": ".."}):
        assert schema.matches(arguments) is False
    either = compile_schema({"anyOf": [{"properties": {"v": WITHIN}}, {"properties": {"k": {"const": 1}}}]})
    for arguments in ({"v": "..", "k": 1}, {"k": 1, "v": ".."}):
        assert either.matches(arguments) is True
        assert either.surely(arguments) is True


@pytest.mark.parametrize("beside", ["unevaluatedProperties", "unevaluatedItems"])
def test_beside_unevaluated_keywords_what_is_not_understood_fails_the_rule(beside: str) -> None:
    """What counts as evaluated rests on what matched, so no answer may be supposed there."""
    schema = compile_schema({"properties": {"v": WITHIN}, beside: False})
    with pytest.raises(NotUnderstood):
        schema.surely({"v": ".."})


@pytest.mark.parametrize("fault", [KeyError("x"), RecursionError(), KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("wrap", [lambda k: k, lambda k: {"not": k}, lambda k: {"anyOf": [k, True]}])
def test_a_fault_inside_a_keyword_is_no_answer(
    fault: BaseException, wrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever breaks in a keyword comes out of the engine again, and no schema matches by it."""

    def judge(_: Any) -> Any:
        def within(_: Any) -> bool:
            raise fault

        return within

    monkeypatch.setitem(words.KEYWORDS, "pathWithin", Keyword("pathWithin", SHAPE, judge))
    schema = compile_schema(wrap(WITHIN))
    for ask in (schema.surely, schema.matches, schema.failures):
        with pytest.raises(type(fault)):
            ask({"v": "x"})


def test_counting_matches_is_on_both_sides() -> None:
    """With maxContains one match more can be one too many, so the rule fails."""
    counted = compile_schema({"properties": {"v": {"contains": WITHIN, "maxContains": 1}}})
    with pytest.raises(NotUnderstood):
        counted.surely({"v": [".."]})


MISSTATED: dict[str, list[tuple[Any, str]]] = {
    "emailDomain": [
        ({}, ""),
        ({"domains": []}, "/domains"),
        ({"domains": ["*"]}, "/domains/0"),
        ({"domains": ["a b"]}, "/domains/0"),
        ({"domains": ["1.2.3.4"]}, "/domains/0"),
    ],
    "iban": [
        ({}, ""),
        ({"countries": ["XX"]}, "/countries/0"),
        ({"accounts": ["DE00"]}, "/accounts/0"),
        ({"countries": ["DE"], "accounts": ["DE89370400440532013000"]}, ""),
    ],
    "money": [
        ({}, ""),
        ({"maximum": {"EUR": 500}}, "/maximum/EUR"),
        ({"maximum": {"EUR": "0"}}, "/maximum/EUR"),
        ({"maximum": {"XXX": "1"}}, "/maximum"),
        ({"maximum": {"EUR": "5"}, "minimum": {"USD": "1"}}, "/minimum/USD"),
        ({"maximum": {"EUR": "5"}, "minimum": {"EUR": "6"}}, "/maximum/EUR"),
    ],
    "pathWithin": [
        ({}, ""),
        ("/srv", ""),
        ({"roots": []}, "/roots"),
        ({"roots": ["srv"]}, "/roots/0"),
        ({"roots": ["/srv", "/srv/../etc"]}, "/roots/1"),
        ({"roots": ["/srv"], "base": "x"}, "/base"),
        ({"roots": ["C:\\x"]}, "/roots/0"),
        ({"roots": ["/srv"], "style": "windows"}, "/roots/0"),
        ({"roots": ["/srv"], "follow": True}, ""),
    ],
    "shellCommand": [
        ({}, ""),
        ({"commands": [{"words": []}]}, "/commands/0/words"),
        ({"commands": [{"words": ["-x"]}]}, "/commands/0/words/0"),
        ({"commands": [{"words": ["X=1"]}]}, "/commands/0/words/0"),
        ({"commands": [{"words": ["ls"], "options": ["x"]}]}, "/commands/0/options/0"),
        (
            {"commands": [{"words": ["ls"], "operands": {"pathWithin": {"roots": ["x"]}}}]},
            "/commands/0/operands/pathWithin/roots/0",
        ),
    ],
    "sql": [
        ({}, ""),
        ({"dialect": "oracle", "statements": ["select"], "tables": []}, "/dialect"),
        ({"dialect": "mysql", "statements": ["drop"], "tables": []}, "/statements/0"),
        ({"dialect": "mysql", "statements": ["select"], "tables": ["*"]}, "/tables/0"),
    ],
    "urlWithin": [
        ({}, ""),
        ({"schemes": ["https"]}, ""),
        ({"schemes": ["git"], "hosts": ["a.example"]}, "/schemes"),
        ({"schemes": ["https"], "hosts": ["10.0.0.1"]}, "/hosts/0"),
        ({"schemes": ["https"], "hosts": ["a*.example"]}, "/hosts/0"),
        ({"schemes": ["https"], "networks": ["10.0.0.1/8"]}, "/networks/0"),
        ({"schemes": ["https"], "networks": ["inside"]}, "/networks/0"),
        ({"schemes": ["https"], "hosts": ["a.example"], "paths": ["/a/../b"]}, "/paths/0"),
        ({"schemes": ["https"], "hosts": ["a.example"], "ports": [0]}, "/ports/0"),
    ],
}


@pytest.mark.parametrize(
    ("name", "stated", "pointer"),
    [(name, stated, pointer) for name, cases in MISSTATED.items() for stated, pointer in cases],
)
def test_a_misstated_keyword_does_not_load(name: str, stated: Any, pointer: str) -> None:
    """A keyword whose value says nothing sensible is refused at load, with its place."""
    with pytest.raises(SchemaRefused) as refused:
        compile_schema({"properties": {"v": {name: stated}}})
    assert refused.value.pointer == f"/properties/v/{name}{pointer}"
    assert refused.value.remedy
    with pytest.raises(GuardError):
        policy({"intents": rule({name: stated})})


def test_each_keyword_has_its_misstatements() -> None:
    """No keyword is left out above."""
    assert set(MISSTATED) == set(words.KEYWORDS)


def test_the_published_vocabulary_is_current_and_sound() -> None:
    """docs/boundaries.schema.json is what `meta_schema` gives, and every corpus is stated as it says."""
    published = json.loads((DOCS / "boundaries.schema.json").read_text(encoding="utf-8"))
    assert published == words.meta_schema(), (
        "write json.dumps(meta_schema(), indent=2) to docs/boundaries.schema.json"
    )
    Draft202012Validator.check_schema(published)
    for entry in CORPUS:
        Draft202012Validator(published).validate(entry.schema)


def test_the_parser_is_not_loaded_before_a_policy_asks_for_it() -> None:
    """sqlglot is imported by the first SQL that is judged, and by nothing before."""
    script = (
        "import sys, guard.policy.document, guard.policy.boundaries.words as w\n"
        "w.judge('pathWithin', {'roots': ['/a']})('/a/b')\n"
        "assert 'sqlglot' not in sys.modules\n"
        "w.judge('sql', {'dialect': 'sqlite', 'statements': ['select'], 'tables': []})('SELECT 1')\n"
        "assert 'sqlglot' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_a_statement_that_is_refused_is_repeated_nowhere() -> None:
    """The parser's own warnings would write what callers send to standard error."""
    script = (
        "import guard.policy.boundaries.words as w\n"
        "judge = w.judge('sql', {'dialect': 'postgres', 'statements': ['select'], 'tables': []})\n"
        "from guard.policy.boundaries.sql_tree import _parsed\n"
        "try:\n    _parsed('DISCARD secret_plans', 'postgres')\nexcept ValueError:\n    pass\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, timeout=120, capture_output=True)
    assert ran.stdout == ran.stderr == b""

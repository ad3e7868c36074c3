"""Attacks on boundary keywords: texts that cost without bound, and spellings that slip past a path."""

from __future__ import annotations

import pytest

from guard.core.errors import Reason
from guard.core.model import Allow, Deny
from guard.policy.boundaries import sql_text, sql_tree
from guard.policy.boundaries.sql_text import DEEPEST_TYPES, DIALECTS
from guard.policy.boundaries.verdict import NotUnderstood
from guard.policy.boundaries.words import judge
from guard.policy.decide import decide
from guard.policy.rules import Policy
from tests.policy.calls import call, policy

EACH = pytest.mark.parametrize("dialect", DIALECTS)
DOUBLING = ("date", "decimal", "timestamp", "text", "binary", "uuid", "year", "union", "a_name", "DATE")


@EACH
@pytest.mark.parametrize("word", DOUBLING)
@pytest.mark.parametrize("between", ["", " ", "(", "abs("])
def test_nested_types_do_not_make_the_parser_work_without_end(dialect: str, word: str, between: str) -> None:
    """Each level doubles what the parser does, so that a short line would hold a call for hours."""
    levels = 8 if between else 31
    ends = ")" * (levels * (2 if "(" in between else 1))
    with pytest.raises(NotUnderstood):
        sql_tree.read(f"SELECT {f'{word}({between}' * levels}1{ends}", dialect)


@EACH
def test_nested_types_are_bounded_and_neighbours_are_not(dialect: str) -> None:
    """It is the depth that costs: so many inside each other, however many beside each other."""
    deepest = f"{'date(' * DEEPEST_TYPES}1{')' * DEEPEST_TYPES}"
    assert sql_text.split(f"SELECT {deepest}, {deepest}", dialect).called == frozenset()
    with pytest.raises(NotUnderstood):
        sql_text.split(f"SELECT date({deepest})", dialect)
    quote = "`" if dialect == "mysql" else '"'
    with pytest.raises(NotUnderstood):
        sql_text.split(f"SELECT {quote}f{quote}({deepest})", dialect)


@EACH
def test_known_functions_may_still_stand_deep_inside_each_other(dialect: str) -> None:
    """What the parser reads once costs nothing, and is read as before."""
    levels = 30
    nested = "coalesce(" * levels + "1" + ", 2)" * levels
    read = sql_tree.read(f"SELECT {nested} FROM orders", dialect)  # noqa: S608 - nothing runs it
    assert read.tables == {("orders",)}


def paths(*prefixes: str) -> dict[str, object]:
    return {"urlWithin": {"schemes": ["https"], "hosts": ["api.example.com"], "paths": [*prefixes]}}


def forbidding(prefix: str) -> Policy:
    schema = {"required": ["url"], "properties": {"url": paths(prefix)}}
    return policy(
        roles={"r": {"scopes": ["x"]}},
        tools=[{"match": "fetch", "scopes": ["x"]}],
        protected=[{"id": "kept", "tools": ["fetch"], "schema": schema}],
    )


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("/users/@me", "/users/%40me"),
        ("/users/%40me", "/users/@me/keys"),
        ("/a!b", "/a%21b"),
        ("/v1:admin", "/v1%3Aadmin"),
        ("/v1:admin", "/v1%3aADMIN/x"),
        ("/caf%C3%A9", "/cafe%CC%81"),
        ("/admin", "/%EF%BD%81dmin"),
        ("/admin", "/admin%20"),
        ("/admin", "/admin."),
    ],
)
def test_a_forbidden_path_is_not_reached_by_another_spelling(prefix: str, path: str) -> None:
    """A server that undoes an escape routes it to what is forbidden: nobody may say that it is outside."""
    decided = decide(call("fetch", {"url": f"https://api.example.com{path}"}, role="r"), forbidding(prefix))
    assert isinstance(decided, Deny)
    assert (decided.reason, decided.rule) == (Reason.RULE_FAILED, "kept")


def test_another_path_is_not_forbidden() -> None:
    """What is elsewhere in every reading is outside."""
    other = decide(
        call("fetch", {"url": "https://api.example.com/%40you"}, role="r"), forbidding("/users/@me")
    )
    assert isinstance(other, Allow)


@pytest.mark.parametrize("segment", ["..%20", "%20..", "%20.", ".%20", "...", ".%20.", "....", "..%20%20."])
@pytest.mark.parametrize("behind", ["", "/admin"])
def test_dots_with_spaces_do_not_climb_out_of_a_path(segment: str, behind: str) -> None:
    """Some disks cut spaces and dots off the end of a name, and what is left climbs."""
    with pytest.raises(NotUnderstood):
        judge("urlWithin", paths("/v1")["urlWithin"])(f"https://api.example.com/v1/{segment}{behind}")


@pytest.mark.parametrize("segment", [".well-known", "a..b", "a.", "v1.2", "a%20.b", "%20a"])
def test_dots_in_names_are_inside(segment: str) -> None:
    """A name with a dot in it climbs nowhere."""
    assert judge("urlWithin", paths("/v1")["urlWithin"])(f"https://api.example.com/v1/{segment}/x")

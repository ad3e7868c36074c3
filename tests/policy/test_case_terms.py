"""A case as the call that it stands for, member for member; and a schema that breaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest

from guard.core.canonical import write
from guard.core.errors import GuardError
from guard.core.model import (
    Allow,
    Approval,
    Call,
    Conversation,
    Facts,
    Parent,
    Pin,
    Principal,
    Seen,
    Tool,
)
from guard.policy.cases import asked, load_checked, read_cases, run
from guard.policy.origins.values import glimpses, spoken
from guard.policy.schema import compile_schema
from guard.policy.vocabulary import SchemaRefused
from tests.policy.calls import policy

FULL = """cases:
- {name: full, role: r, tool: t, server: s, principal: ada, scopes: [a], declared: [b], arguments: {n: 1},
   intents: [i], depth: 3, expect: allow,
   facts: {now: "1970-01-01T00:00:05Z", contained: [tool], used: {few: 2}, whole: false,
           approved: {rules: [x, y], word: client},
           said: [{by: user, text: "to a@example.com"}, {by: "tool:s/u", trust: mixed, value: {m: word},
                   fields: {/m: trusted}}]}}
"""
PLAIN = "cases: [{name: plain, role: r, resource: 'file:///a', expect: allow}]"
SALT = b"cases beside a policy"


def one(text: str) -> Any:
    (case,) = read_cases(text.encode(), name="c")
    return case


def test_a_case_is_the_call_that_it_says() -> None:
    """Who, what, where from, under which facts: nothing else, and nothing left out."""
    user = spoken("to a@example.com", SALT)
    tool = glimpses(
        write({"m": "word"}), source="tool:s/u", trust="mixed", fields={"/m": "trusted"}, salt=SALT
    )
    values: dict[bytes, Any] = {}
    for fingerprint, appearance in [*user, *tool]:
        values[fingerprint] = (*values.get(fingerprint, ()), appearance)
    assert one(FULL).call == Call(
        id="case",
        principal=Principal("default", "launch", "ada", "r", frozenset({"a"})),
        tool=Tool("s", "t", "", Pin.MATCHES, frozenset({"b"}), "tool"),
        audience="s",
        method="tools/call",
        params={"name": "t", "arguments": {"n": 1}},
        conversation=Conversation("case", "launch"),
        facts=Facts(
            now=5000,
            contained=frozenset({"tool"}),
            used={"few": 2},
            seen=Seen(values, False, SALT),  # noqa: FBT003 - as it is defined
            approval=Approval("case", frozenset({"x", "y"}), "case/reviewer", "client"),
        ),
        parent=Parent("verified", "", depth=2),
        intents=frozenset({"i"}),
    )


def test_what_a_case_does_not_say_is_plain() -> None:
    """Somebody, with all that the role has, in the first second, in a conversation where nothing was said."""
    assert one(PLAIN).call == Call(
        id="case",
        principal=Principal("default", "launch", "someone", "r"),
        tool=Tool("server", "file:///a", "", Pin.MATCHES, frozenset(), "resource"),
        audience="server",
        method="resources/read",
        params={"uri": "file:///a"},
        conversation=Conversation("case", "launch"),
        facts=Facts(now=0, used={}, seen=Seen({}, True, SALT)),  # noqa: FBT003 - as it is defined
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("tool", ("tools/call", {"name": "x", "arguments": {"a": 1}})),
        ("prompt", ("prompts/get", {"name": "x", "arguments": {"a": 1}})),
        ("resource", ("resources/read", {"uri": "x"})),
        ("method", ("x", {"a": 1})),
    ],
)
def test_each_kind_is_asked_for_by_its_own_method(kind: str, expected: Any) -> None:
    """A resource has no arguments; a method's are its params."""
    assert asked(kind, "x", {"a": 1}) == expected


def test_a_case_is_answered_as_in_enforce_mode() -> None:
    """Also where the policy observes: what permits says so."""
    found = policy(roles={"r": {}}, resources=[{"match": "file:///a", "scopes": []}])
    (result,) = run(replace(found, mode="observe", observe_until=2**50), [one(PLAIN)])
    assert isinstance(result.decision, Allow)
    assert result.decision.mode == "enforce"


def test_a_policy_that_does_not_load_says_its_name() -> None:
    """With its cases, or without."""
    for cases in (None, PLAIN.encode()):
        with pytest.raises(GuardError) as raised:
            load_checked(b"guard: 1\n", cases, "p.yaml")
        assert raised.value.where == "p.yaml:1"


# -- schemas -------------------------------------------------------------------------------------------


def test_formats_are_asserted() -> None:
    """A value that is not of its format does not match: 2020-12 leaves that to whoever validates."""
    found = compile_schema({"properties": {"to": {"format": "email"}, "at": {"format": "date-time"}}})
    assert found.matches({"to": "a@example.com", "at": "2027-01-01T00:00:00Z"})
    assert not found.matches({"to": "nobody"})
    assert not found.matches({"at": "yesterday"})


class Panic(BaseException):
    """What a library written in another language raises where it gives up."""


def test_an_engine_that_gives_up_is_an_error_like_others() -> None:
    """A panic is no reason to end the process; an interrupt is."""
    cases = ((Panic, RuntimeError), (KeyboardInterrupt, KeyboardInterrupt), (ValueError, ValueError))
    for raised, expected in cases:
        engine: Any = _Raising(raised)
        with pytest.raises(expected) as told:
            replace(compile_schema({}), _engine=engine).matches({})
        assert expected is not RuntimeError or str(told.value) == "the schema engine broke down"


class _Raising:
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def is_valid(self, arguments: Any) -> bool:
        raise self.error


@pytest.mark.parametrize(
    ("path", "what", "pointer", "remedy"),
    [
        ([], "not taken: no more", "", "correct it"),
        (["a", 0], "not taken: no more", "/a/0", "correct it"),
        (["pattern", "b"], "not taken: no more", "/pattern/b", "correct it"),
        (["patternProperties", "b", "c"], "not taken: no more", "/patternProperties/b/c", "correct it"),
        (["b", "patternProperties"], "not taken: no more", "/b/patternProperties", "correct it"),
        (["b", "pattern"], "the pattern  is not taken", "/b/pattern", None),
        (["patternProperties", "b"], "the pattern  is not taken", "/patternProperties/b", None),
    ],
)
def test_what_only_the_engine_refuses_is_refused_in_its_words(
    monkeypatch: pytest.MonkeyPatch, path: list[Any], what: str, pointer: str, remedy: str | None
) -> None:
    """The first line of them, at its place."""

    class Odd(ValueError):
        instance_path = path

    def refuse(*_: Any, **__: Any) -> None:
        raise Odd("no more\nand more")

    monkeypatch.setattr(jsonschema_rs, "Draft202012Validator", refuse)
    with pytest.raises(SchemaRefused) as raised:
        compile_schema({"type": "object"})
    assert (raised.value.what, raised.value.pointer) == (what, pointer)
    assert str(raised.value) == what
    assert remedy in (None, raised.value.remedy)


def test_an_engine_that_names_no_place_is_refused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the whole."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("no more")

    monkeypatch.setattr(jsonschema_rs, "Draft202012Validator", refuse)
    with pytest.raises(SchemaRefused) as raised:
        compile_schema({"type": "object"})
    assert (raised.value.what, raised.value.pointer) == ("not taken: no more", "")


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
def test_large_arguments_get_no_pointer_under_branches(keyword: str) -> None:
    """A denial must not cost more than a permit; at the bound there still is one."""
    found = compile_schema({"properties": {"a": {keyword: [{"maxLength": 1}]}}})
    plain = compile_schema({"properties": {"a": {"maxLength": 1}}})
    largest = 4096 - len('{"a":""}')
    assert found.first_failure({"a": "x" * largest}) == "/a"
    assert found.first_failure({"a": "x" * (largest + 1)}) == ""
    assert plain.first_failure({"a": "x" * (largest + 1)}) == "/a"
    assert found.first_failure({"a": "xx"}) == "/a"
    assert found.first_failure({"a": "x"}) == ""

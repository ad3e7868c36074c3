"""Prompts, resources and methods are judged as tools are, and nothing said of one kind holds for another."""

from __future__ import annotations

from typing import Any

import pytest

from guard.core.errors import GuardError, Reason
from guard.core.model import Allow, Call, Deny
from guard.policy.cautions import cautions
from guard.policy.decide import decide, visible
from guard.policy.document import load
from guard.policy.explain import explain
from guard.policy.fit import check_against, misfits
from guard.policy.grammar import KINDS
from tests.policy.calls import call, document, of_kind, policy, resource

ROLES = {"committer": {"scopes": ["s"]}}
FIELDS = {kind: field for field, kind in KINDS.items()}
EVERY = tuple(FIELDS)


def listing(kind: str, **more: Any) -> Any:
    return policy(roles=ROLES, **{FIELDS[kind]: [{"match": "x", "scopes": ["s"]}]}, **more)


def asked(kind: str, name: str = "x", **more: Any) -> Call:
    return of_kind(kind, name, **more)


@pytest.mark.parametrize("kind", EVERY)
def test_what_no_rule_lists_is_denied_whatever_its_kind(kind: str) -> None:
    """Default deny holds for each kind, in an empty policy and beside rules for another name."""
    assert decide(asked(kind), policy(roles=ROLES)) == Deny(Reason.DEFAULT_DENY)
    assert decide(asked(kind, "y"), listing(kind)) == Deny(Reason.DEFAULT_DENY)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("other", EVERY)
def test_a_rule_for_one_kind_says_nothing_of_the_others(kind: str, other: str) -> None:
    """Listing, intending and forbidding `x` as one kind leaves `x` of another kind as it was."""
    allowed = Allow((f"{FIELDS[kind]}/*:x",), ("s",))
    expected = allowed if kind == other else Deny(Reason.DEFAULT_DENY)
    assert decide(asked(other), listing(kind)) == expected
    assert visible(asked(other).principal, "git", "x", frozenset(), listing(kind), kind=other) == (
        kind == other
    )
    forbid = {"id": "no", FIELDS[other]: ["*"]}
    intent = {**forbid, "schema": False}
    for field, rule, said in (
        ("protected", forbid, Deny(Reason.PROTECTED, "no")),
        ("intents", intent, Deny(Reason.INTENT_UNMATCHED, "no", "/arguments")),
    ):
        found = decide(asked(kind), listing(kind, **{field: [rule]}))
        assert found == allowed if kind != other else isinstance(found, Deny) and found.rule == said.rule


@pytest.mark.parametrize("kind", EVERY)
def test_scopes_are_needed_for_each_kind(kind: str) -> None:
    """Who lacks the scope of the one rule does not see it; who lacks one of two is told so."""
    assert decide(asked(kind, scopes=set()), listing(kind)) == Deny(Reason.TOOL_NOT_VISIBLE)
    two = [{"match": "x", "scopes": ["s"]}, {"match": "*", "scopes": ["t"]}]
    both = policy(roles=ROLES, **{FIELDS[kind]: two})
    assert decide(asked(kind), both) == Deny(Reason.MISSING_SCOPE, f"{FIELDS[kind]}/*:*")


def test_a_pointer_leads_into_the_params() -> None:
    """Of a tool and a prompt to an argument, of a resource to its URI, of a method to a member."""
    schema = {"properties": {"uri": {"maxLength": 0}, "n": {"maximum": 1}}}
    for kind, params, pointer in (
        ("tool", {"n": 2}, "/arguments/n"),
        ("prompt", {"n": 2}, "/arguments/n"),
        ("resource", {}, "/uri"),
        ("method", {"n": 2}, "/n"),
    ):
        judging = listing(kind, intents=[{"id": "i", FIELDS[kind]: ["x"], "schema": schema}])
        made = asked(kind, arguments=params)
        assert decide(made, judging) == Deny(Reason.INTENT_UNMATCHED, "i", pointer)
        assert explain(made, judging).conclusion == (Reason.INTENT_UNMATCHED, "i", pointer)
    bad = asked("method", arguments={"n": float("inf")})
    assert decide(bad, listing("method")) == Deny(Reason.ARGUMENTS_NOT_IJSON, pointer="/n")


def test_one_rule_may_name_several_kinds() -> None:
    """A protected rule forbids whatever it names."""
    rules = {field: [{"match": "*", "scopes": []}] for field in KINDS}
    forbidding = policy(roles=ROLES, **rules, protected=[{"id": "no", **{field: ["x"] for field in KINDS}}])
    for kind in EVERY:
        assert decide(asked(kind), forbidding) == Deny(Reason.PROTECTED, "no")
        assert isinstance(decide(asked(kind, "y"), forbidding), Allow)


@pytest.mark.parametrize("name", ["tools/call", "prompts/get", "resources/read"])
@pytest.mark.parametrize("where", ["methods", "intents", "protected"])
def test_a_method_with_a_field_of_its_own_is_not_listed_as_a_method(name: str, where: str) -> None:
    """Such a rule would be without effect, so it is refused with the field to use."""
    rule: dict[str, Any] = {"id": "r", "methods": [name], "schema": {}}
    members = {"methods": [{"match": name, "scopes": []}]} if where == "methods" else {where: [rule]}
    with pytest.raises(GuardError, match="is not judged as a method") as raised:
        load(document(**members), name="p")
    assert raised.value.remedy == f"use `{name.partition('/')[0]}`"


@pytest.mark.parametrize("where", ["intents", "protected"])
def test_a_rule_that_names_nothing_is_refused(where: str) -> None:
    """It could never speak, and nobody would notice."""
    with pytest.raises(GuardError, match="names nothing") as raised:
        load(document(**{where: [{"id": "r", "schema": {}}]}), name="p")
    assert "`resources`" in raised.value.remedy
    for field in KINDS:
        with pytest.raises(GuardError, match="at least 1"):
            load(document(**{where: [{"id": "r", "schema": {}, field: []}]}), name="p")


def test_ids_are_unique_over_all_kinds() -> None:
    """An id names one rule, whatever it lists."""
    two = {field: [{"match": "x", "scopes": [], "id": "a"}] for field in ("tools", "resources")}
    with pytest.raises(GuardError, match="already stands"):
        load(document(**two), name="p")


def test_a_rule_on_what_no_resource_has_is_a_misfit() -> None:
    """Of a resource a rule judges `uri` and nothing else; a prompt's arguments are not pinned."""
    rule: dict[str, Any] = {"id": "r", "resources": ["*"], "schema": {"required": ["url"]}}
    with pytest.raises(GuardError, match="`url`, which no resource has") as raised:
        check_against(policy(intents=[rule]), {})
    assert raised.value.remedy == "did you mean `uri`?"
    check_against(policy(intents=[{**rule, "schema": {"required": ["uri"]}}]), {})
    check_against(policy(intents=[{"id": "r", "prompts": ["*"], "schema": {"required": ["url"]}}]), {})
    tools = {("git", "x"): {"inputSchema": {"properties": {}}}}
    other = policy(protected=[{"id": "r", "prompts": ["x"], "methods": ["x"], "schema": {"required": ["q"]}}])
    assert not [*misfits(other, tools)]


def test_cautions_about_globs_over_uris() -> None:
    """A glob that lists nothing, a `?` that is no question mark, and a host that anyone can choose."""
    found = [
        str(one)
        for one in cautions(
            policy(
                resources=[
                    {"match": match, "scopes": []}
                    for match in (
                        "file:///../*",
                        "http://*.a.example/x",
                        "memo:a?b=c",
                        "file:///*",
                        "memo:..",
                    )
                ]
            )
        )
    ]
    assert len(found) == 3
    assert "lists no such URI" in found[0]
    assert "other hosts" in found[1]
    assert "any one character" in found[2]


def test_the_explanation_says_why_a_glob_does_not_list_a_uri() -> None:
    """The author of the policy is told what is odd about it; the verdict is that of `decide`."""
    made = resource("file:///docs/../a")
    told = explain(made, policy(roles=ROLES, resources=[{"match": "file:///docs/*", "scopes": []}]))
    assert "the URI has a segment of dots, so only a rule that spells it out lists it" in str(told)
    assert told.conclusion == (Reason.DEFAULT_DENY, "", "")


def test_long_uris_do_not_fill_the_memory() -> None:
    """What is remembered is bounded in number and in length."""
    everything = policy(roles=ROLES, resources=[{"match": "*", "scopes": []}])
    assert isinstance(decide(resource("memo:" + "a" * 8000), everything), Allow)
    assert not everything._memo


def test_a_policy_about_tools_reads_as_before() -> None:
    """The fields for other kinds are absent, and nothing about tools or the digest depends on them."""
    plain = policy(roles=ROLES, tools=[{"match": "x", "scopes": ["s"]}])
    assert [(rule.id, rule.tools[0].kind) for rule in plain.tools] == [("tools/*:x", "tool")]
    assert decide(call("x"), plain) == Allow(("tools/*:x",), ("s",))

"""What a policy knows of its rules: their names where they break, what it remembers, what it counts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from guard.core.model import Conversation, Principal, Tool
from guard.policy import rules as rules_module
from guard.policy.document import load
from guard.policy.kinds import AskRule, Intent, Pattern, Protected, RuleFailed
from guard.policy.layers import layered
from guard.policy.request import Asked
from guard.policy.schema import Schema, compile_schema
from tests.policy.calls import call, document, policy

EVERYWHERE = (Pattern("*"),)
YES, NO = map(compile_schema, (True, False))
OWN = compile_schema({"properties": {"tool": {"properties": {"name": {"const": "git_commit"}}}}})
ROLE: dict[str, Any] = {"r": {"scopes": ["*"], "may_assert_conversations": True}}
WHO, TALK = Principal("default", "launch", "someone", "r"), Conversation("one", "launch")


class Broken:
    """A schema engine that breaks down, once it has answered so often."""

    def __init__(self, answers: int = 0) -> None:
        self.answers = answers

    def is_valid(self, arguments: Any) -> bool:
        self.answers -= 1
        if self.answers < 0:
            raise RuntimeError("broken")
        return False


def breaks(answers: int = 0) -> Schema:
    engine: Any = Broken(answers)
    return Schema({}, engine)


def asked() -> Asked:
    return Asked(call(), dict)


@pytest.mark.parametrize("kind", [Intent, Protected, AskRule])
@pytest.mark.parametrize("of", ["schema", "request"])
def test_a_rule_that_breaks_says_which(kind: Any, of: str) -> None:
    """In its view of the arguments, and of the request."""
    rule = kind("mine", EVERYWHERE, **{"schema": YES, of: breaks()})
    with pytest.raises(RuleFailed) as failed:
        rule.matches(asked())
    assert failed.value.rule == "mine"


@pytest.mark.parametrize("answers", [0, 1])
def test_an_intent_whose_fault_cannot_be_found_says_which(answers: int) -> None:
    """When it is judged again, and when the place is looked for."""
    with pytest.raises(RuleFailed) as failed:
        Intent("mine", EVERYWHERE, breaks(answers)).first_failure(asked())
    assert failed.value.rule == "mine"


@pytest.mark.parametrize("kind", [Intent, Protected, AskRule])
@pytest.mark.parametrize(
    ("schema", "request_", "expected"),
    [
        (YES, None, True),
        (NO, None, False),
        (None, YES, True),
        (None, OWN, True),
        (YES, NO, False),
        (NO, YES, False),
        (YES, OWN, True),
        (OWN, compile_schema({"required": ["principal", "tool", "arguments"]}), True),
        (YES, compile_schema({"required": ["message"]}), False),
    ],
)
def test_arguments_and_request_must_both_match(
    kind: Any, schema: Schema | None, request_: Schema | None, *, expected: bool
) -> None:
    """Each schema judges its own part."""
    assert kind("x", EVERYWHERE, schema=schema, request=request_).matches(asked()) is expected


def test_a_policy_is_known_by_the_digest_of_its_bytes() -> None:
    """SHA-256 of the file as it was read, in base64url without padding or in hex, and of no other."""
    data = document(roles=ROLE)
    shown = load(data, name="p").ref.sha256
    digest = hashlib.sha256(data)
    assert shown in (digest.hexdigest(), _url_safe(digest.digest()))
    assert load(data + b"\n", name="p").ref.sha256 != shown


def _url_safe(data: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def test_what_is_remembered_of_tools_is_bounded_and_the_same() -> None:
    """The memory is a cache: full, it begins anew, and a very long name is not kept at all."""
    found = policy(roles=ROLE, tools=[{"match": "*", "scopes": []}])
    first = found.about("s", "t")
    assert found.about("s", "t") is first
    assert found.about("s", "t", "prompt") is not first
    longest = "x" * rules_module._LONGEST_REMEMBERED
    assert found.about("s", longest) is found.about("s", longest)
    assert found.about("s", longest + "x") is not found.about("s", longest + "x")
    for number in range(rules_module._REMEMBERED - 3):
        found.about("s", f"t{number}")
    assert found.about("s", "t") is first
    assert len(found._memo) == rules_module._REMEMBERED
    found.about("s", "one more")
    assert len(found._memo) == 1
    assert found.about("s", "t") is not first
    assert found.about("s", "t") == first


def test_what_is_remembered_of_callers_is_bounded_and_the_same() -> None:
    """By role and by what the credential narrows it to."""
    found = policy(roles=ROLE)
    first = found.held(WHO)
    assert found.held(WHO) is first is not None
    for number in range(rules_module._REMEMBERED - 1):
        found.held(replace(WHO, scopes=frozenset({f"s{number}"})))
    assert found.held(WHO) is first
    assert len(found._held) == rules_module._REMEMBERED
    found.held(replace(WHO, scopes=frozenset({"one more"})))
    assert len(found._held) == 1
    assert found.held(WHO) is not first
    assert found.held(replace(WHO, role="stranger")) is None


COUNTS: dict[str, Any] = {
    "roles": ROLE,
    "tools": [{"match": "*", "scopes": []}],
    "limits": [
        {"id": "each", "tools": ["t"], "per": ["tool", "conversation"], "calls": 3, "window": "1h"},
        {"id": "all", "tools": ["t"], "per": "role", "at_once": 2, "window": "5m"},
    ],
    "sequences": [{"id": "s", "tools": ["t"], "requires": ["u"], "within": "10m", "calls": 2}],
}


def test_each_counter_that_a_decision_reads_is_named_for_whom_it_counts() -> None:
    """Another tool, conversation or principal has another; the role's is one for all of them."""
    found, tool = policy(**COUNTS), Tool("server", "t")
    read = {one.key: one.counter for one in found.readings(WHO, tool, TALK)}
    assert [*read] == ["all", "each", "s", "s/spent"]
    other = {one.key: one.counter for one in found.readings(WHO, tool, Conversation("two", "launch"))}
    assert read["all"] == other["all"]
    assert read["each"] != other["each"]
    assert len({*read.values()}) == len(read)
    elsewhere = {one.key: one.counter for one in found.readings(WHO, Tool("else", "t"), TALK)}
    assert elsewhere["each"] != read["each"]
    assert elsewhere["all"] == read["all"]
    assert found.readings(WHO, Tool("server", "t", kind="prompt"), TALK) == ()
    assert found.readings(WHO, Tool("server", "v"), TALK) == ()


def test_layers_count_for_themselves() -> None:
    """The same rule in two layers has two counters, under two names."""
    whole = layered([policy(**COUNTS), replace(policy(**COUNTS), ref=replace(policy().ref, id="low"))])
    read = {one.key: one.counter for one in whole.readings(WHO, Tool("server", "t"), TALK)}
    assert [*read] == ["p/all", "p/each", "p/s", "p/s/spent", "all", "each", "s", "s/spent"]
    assert len({*read.values()}) == len(read)
    other = whole.readings(WHO, Tool("server", "t"), Conversation("two", "launch"))
    assert {one.key for one in other if one.counter != read[one.key]} >= {"p/each", "each"}


def test_a_servers_own_scopes_stand_beside_those_of_its_tools() -> None:
    """Only that server's; and what the tool's author declares where the server is trusted to."""
    servers = {"s": {"scopes": ["of-s"], "trust_declared_scopes": True}, "q": {"scopes": ["of-q"]}}
    found = policy(roles=ROLE, servers=servers, tools=[{"match": "t", "scopes": ["of-t"]}])
    assert found.about("s", "t").server == {"of-s"}
    assert found.about("z", "t").server == frozenset()
    declared = frozenset({"of-author"})
    assert found.needs(Tool("s", "t", declared=declared)) == {"of-s", "of-t", "of-author"}
    assert found.needs(Tool("q", "t", declared=declared)) == {"of-q", "of-t"}
    assert found.needs(Tool("z", "t", declared=declared)) == {"of-t"}
    assert found.needs(Tool("z", "t", kind="prompt")) == frozenset()

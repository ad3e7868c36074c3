"""What decide answers, condition by condition, and which of two beats the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard.core.errors import Reason
from guard.core.model import Allow, Deny, Pin
from guard.policy import decide as module
from guard.policy.decide import decide, visible
from guard.policy.rules import Policy
from tests.policy.calls import NO_RESET, ROLES, SHORT, TOOLS, call, git

FINE = {"message": "a word"}
BOTH = ("git:read", "git:write")


def test_a_permitted_call_names_its_rules_and_scopes() -> None:
    """An Allow carries what permitted it and what the tool required, sorted, and no more."""
    rules = ("short-message", "tools/*:git_commit", "tools/git:git_*")
    assert decide(call(arguments=FINE), git()) == Allow(rules, BOTH)
    assert decide(call("git_log"), git()) == Allow(("tools/git:git_*",), ("git:read",))


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        ({"contained": frozenset({"all"})}, Reason.PRINCIPAL_CONTAINED),
        ({"contained": frozenset({"principal", "tool"})}, Reason.PRINCIPAL_CONTAINED),
        ({"contained": frozenset({"conversation", "tool"})}, Reason.CONVERSATION_CONTAINED),
        ({"contained": frozenset({"sealed", "tool"})}, Reason.CONVERSATION_SEALED),
        ({"contained": frozenset({"sealed", "conversation"})}, Reason.CONVERSATION_CONTAINED),
        ({"contained": frozenset({"sealed", "else"})}, Reason.PRINCIPAL_CONTAINED),
        ({"contained": frozenset({"a-word-of-a-later-version"})}, Reason.PRINCIPAL_CONTAINED),
        ({"store_writable": False, "artifact_key": False}, Reason.STORE_UNAVAILABLE),
        ({"artifact_key": False}, Reason.ARTIFACT_KEY_UNAVAILABLE),
        ({"now": 0, "last": 10_001}, Reason.CLOCK_BEHIND),
        ({"versions": {"policy/p": 2}}, Reason.POLICY_SUPERSEDED),
        ({"versions": {"policy/p": 0}}, Reason.POLICY_SUPERSEDED),
        ({"now": 1_000_000_000_000}, Reason.POLICY_EXPIRED),
        ({"now": 1_000_000_000_001}, Reason.POLICY_EXPIRED),
    ],
)
def test_an_unsound_world_beats_every_rule(world: dict[str, Any], reason: Reason) -> None:
    """A runtime condition denies before roles, tools and protected rules are looked at."""
    policy = git(expires="2001-09-09T01:46:40Z")
    for asked in (call(arguments=FINE, **world), call("git_reset", role="nobody", pin=Pin.ABSENT, **world)):
        assert decide(asked, policy) == Deny(reason)


def test_a_contained_tool_is_told_only_to_those_who_see_it() -> None:
    """Containment of a tool denies its calls, and tells nobody else that there is such a tool."""
    contained: dict[str, Any] = {"contained": frozenset({"tool"})}
    assert decide(call(arguments=FINE, **contained), git()) == Deny(Reason.TOOL_CONTAINED)
    assert decide(call("git_reset", **contained), git()) == Deny(Reason.TOOL_CONTAINED)
    assert decide(call(scopes=set(), **contained), git()) == Deny(Reason.TOOL_NOT_VISIBLE)
    assert decide(call("push", **contained), git()) == Deny(Reason.DEFAULT_DENY)


def test_the_edges_of_time() -> None:
    """A clock ten seconds behind is tolerated, and a policy lives to the millisecond before its end."""
    policy = git(expires="2001-09-09T01:46:40Z")
    assert isinstance(decide(call(arguments=FINE, now=0, last=10_000), policy), Allow)
    assert isinstance(decide(call(arguments=FINE, now=999_999_999_999), policy), Allow)


def test_an_unknown_role_is_denied() -> None:
    """A role that the policy does not know has nothing, not even what requires no scope."""
    open_to_all = git(tools=[{"match": "*", "scopes": []}], intents=[])
    assert decide(call(role="visitor"), open_to_all) == Deny(Reason.UNAUTHORIZED_ROLE)
    assert not visible(call(role="visitor").principal, "git", "git_log", frozenset(), open_to_all)


def test_listed_hidden_absent() -> None:
    """The lineage tells apart what the client must not: unlisted, not visible, and not there."""
    assert decide(call("push", pin=Pin.ABSENT), git()) == Deny(Reason.DEFAULT_DENY)
    assert decide(call(scopes=set(), pin=Pin.ABSENT), git()) == Deny(Reason.TOOL_NOT_VISIBLE)
    assert decide(call("git_gone", pin=Pin.ABSENT), git()) == Deny(Reason.UNKNOWN_TOOL)


def test_a_pin_is_asked_for_only_where_the_tool_is_visible() -> None:
    """Whether a tool is pinned is not told to who may not see it."""
    assert decide(call(arguments=FINE, pin=Pin.UNPINNED), git()) == Deny(Reason.TOOL_UNPINNED)
    assert decide(call(arguments=FINE, pin=Pin.CHANGED), git()) == Deny(Reason.TOOL_CHANGED)
    assert decide(call(scopes=set(), pin=Pin.CHANGED), git()) == Deny(Reason.TOOL_NOT_VISIBLE)


def test_a_fault_beats_the_rules() -> None:
    """Arguments that are not I-JSON are denied before any rule looks at them."""
    asked = call("git_reset", fault=("/arguments/a", "duplicate key"))
    assert decide(asked, git()) == Deny(Reason.ARGUMENTS_NOT_IJSON, pointer="/arguments/a")


@pytest.mark.parametrize(
    ("arguments", "pointer"),
    [
        ({"n": [1, float("inf")]}, "/arguments/n/1"),
        ({"n": float("nan")}, "/arguments/n"),
        ({"n": 2**60}, "/arguments/n"),
        ({"s": "\ud800"}, "/arguments/s"),
        ([], "/arguments"),
        ("text", "/arguments"),
    ],
)
def test_a_value_that_slipped_past_the_reader_is_denied(arguments: Any, pointer: str) -> None:
    """Infinity passes `maximum` in the schema engine, so decide looks for itself."""
    assert decide(call(arguments=arguments), git()) == Deny(Reason.ARGUMENTS_NOT_IJSON, pointer=pointer)


def test_a_protected_rule_beats_scope_and_intent() -> None:
    """What is forbidden is said to be forbidden, also to who lacks the scope."""
    policy = git(protected=[{"id": "none", "tools": ["git_commit"]}])
    assert decide(call(role="reader"), policy) == Deny(Reason.PROTECTED, "none")


def test_a_protected_schema_forbids_what_matches() -> None:
    """A protected rule with a schema forbids the calls that match it and no others."""
    rule = {"id": "no-force", "tools": ["git_*"], "schema": {"required": ["force"]}}
    policy = git(protected=[rule], intents=[])
    assert decide(call("git_log", {"force": False}), policy) == Deny(Reason.PROTECTED, "no-force")
    assert isinstance(decide(call("git_log", {}), policy), Allow)


def test_the_first_id_speaks_for_several() -> None:
    """Of several rules that deny, the one whose id sorts first is named."""
    two = [{"id": "b", "tools": ["*"]}, {"id": "a", "tools": ["git_commit"]}]
    assert decide(call(), git(protected=two)) == Deny(Reason.PROTECTED, "a")
    intents = [{**SHORT, "id": "b"}, {**SHORT, "id": "a"}]
    assert decide(call(), git(intents=intents)) == Deny(Reason.INTENT_UNMATCHED, "a", "/arguments")


def test_a_missing_scope_is_said_only_of_a_visible_tool() -> None:
    """Who sees the tool learns that a scope is missing, and by which rule."""
    assert decide(call(role="reader"), git()) == Deny(Reason.MISSING_SCOPE, "tools/*:git_commit")


def test_a_key_narrows_its_role() -> None:
    """Scopes on the credential take away and never give."""
    asked = call(arguments=FINE, scopes={"git:read", "other:all"})
    assert decide(asked, git()) == Deny(Reason.MISSING_SCOPE, "tools/*:git_commit")
    assert decide(replace(asked, tool=replace(asked.tool, name="git_log")), git()) == Allow(
        ("tools/git:git_*",), ("git:read",)
    )
    admin = git(tools=[{"match": "*", "scopes": ["other:all"]}], intents=[])
    assert decide(asked, admin) == Deny(Reason.TOOL_NOT_VISIBLE)


def test_declared_scopes_count_on_a_trusted_server_only() -> None:
    """An author's scope is one more requirement where the policy trusts the server; it hides nothing."""
    trusting = git(servers={"git": {"trust_declared_scopes": True}})
    asked = call("git_log", declared={"git:audit"})
    assert decide(asked, trusting) == Deny(Reason.MISSING_SCOPE, "servers/git")
    assert visible(asked.principal, "git", "git_log", frozenset({"git:audit"}), trusting)
    assert isinstance(decide(asked, git()), Allow)
    held = decide(call("git_log", declared={"git:write"}), trusting)
    assert held == Allow(("tools/git:git_*",), BOTH)


def test_one_of_several_intents_is_enough() -> None:
    """Intents are alternatives; those that match are named."""
    other = {"id": "other", "tools": [{"match": "git_commit", "server": "g*"}], "schema": {"required": ["x"]}}
    policy = git(intents=[SHORT, other])
    decision = decide(call(arguments={"x": 1}), policy)
    assert isinstance(decision, Allow)
    assert decision.rules == ("other", "tools/*:git_commit", "tools/git:git_*")


def test_the_pointer_leads_to_the_field_at_fault() -> None:
    """An unmatched intent says where, whatever the order of the members."""
    schema = {"properties": {"a": {"items": {"type": "integer"}}, "z": {"type": "string"}}}
    policy = git(intents=[{"id": "i", "tools": ["git_commit"], "schema": schema}])
    for arguments in ({"a": [1, "x"], "z": 1}, {"z": 1, "a": [1, "x"]}):
        decision = decide(call(arguments=arguments), policy)
        assert decision == Deny(Reason.INTENT_UNMATCHED, "i", "/arguments/a/1")


def test_roles_inherit_scopes_but_not_who_may_assert() -> None:
    """Scopes add up along the inheritance; asserting conversations is said of each role itself."""
    roles = {"base": {"scopes": ["a"], "may_assert_conversations": True}, "heir": {"inherits": ["base"]}}
    policy = git(roles=roles)
    assert policy.roles["heir"].scopes == {"a"}
    assert policy.may_assert_conversations("base")
    assert not policy.may_assert_conversations("heir")
    assert not policy.may_assert_conversations("nobody")
    assert policy.role_exists("heir")
    assert not policy.role_exists("nobody")


class TestObserving:
    """Observe mode turns a default deny and an unmatched intent, and nothing else."""

    until = "2001-09-09T01:46:40Z"

    def policy(self, **members: Any) -> Policy:
        return git(mode="observe", observe_until=self.until, **members)

    def test_what_would_be_denied_is_let_through_and_marked(self) -> None:
        """An unlisted tool and an unmatched intent are allowed with the obligation `observed`."""
        assert decide(call("push"), self.policy()) == Allow((), (), ("observed",), "observe")
        rules = ("tools/*:git_commit", "tools/git:git_*")
        assert decide(call(), self.policy()) == Allow(rules, BOTH, ("observed",), "observe")

    def test_what_is_permitted_anyway_is_not_marked(self) -> None:
        """The mode is carried, the obligation only where a denial was turned."""
        decision = decide(call(arguments=FINE), self.policy())
        assert isinstance(decision, Allow)
        assert (decision.mode, decision.obligations) == ("observe", ())

    @pytest.mark.parametrize(
        ("asked", "reason"),
        [
            (call("git_reset"), Reason.PROTECTED),
            (call(role="reader"), Reason.MISSING_SCOPE),
            (call(scopes=set()), Reason.TOOL_NOT_VISIBLE),
            (call(role="visitor"), Reason.UNAUTHORIZED_ROLE),
            (call("push", pin=Pin.ABSENT), Reason.UNKNOWN_TOOL),
            (call("push", pin=Pin.UNPINNED), Reason.TOOL_UNPINNED),
            (call("push", pin=Pin.CHANGED), Reason.TOOL_CHANGED),
            (call("push", fault=("/arguments", "")), Reason.ARGUMENTS_NOT_IJSON),
            (call("push", artifact_key=False), Reason.ARTIFACT_KEY_UNAVAILABLE),
            (call("push", now=1_000_000_000_000), Reason.POLICY_EXPIRED),
        ],
    )
    def test_everything_else_still_denies(self, asked: Any, reason: Reason) -> None:
        """Observing lets no other denial through, and ends at its date."""
        decision = decide(asked, self.policy())
        assert isinstance(decision, Deny)
        assert decision.reason is reason

    def test_a_protected_rule_denies_an_unlisted_tool_too(self) -> None:
        """Nothing lists the tool, something forbids it: forbidden."""
        policy = self.policy(protected=[{"id": "no-push", "tools": ["push"]}])
        assert decide(call("push"), policy) == Deny(Reason.PROTECTED, "no-push")

    def test_an_unlisted_tool_is_visible(self) -> None:
        """What may be called is listed, else nobody would call it and nothing would be observed."""
        assert visible(call().principal, "git", "push", frozenset(), self.policy())
        assert not visible(call().principal, "git", "push", frozenset(), git())


def test_the_one_function_that_says_yes_fits_on_a_page() -> None:
    """decide.py stays below a hundred lines."""
    assert len(Path(module.__file__).read_text(encoding="utf-8").splitlines()) < 100


def test_the_floor_is_pure() -> None:
    """The policy floor opens no file, reads no clock, draws no random number and asks no environment."""
    banned = (
        "open(",
        "time.time",
        "datetime.now",
        "os.environ",
        "secrets",
        "import random",
        "import os",
        "import socket",
    )
    for file in Path(module.__file__).parent.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not [word for word in banned if word in text], file.name


def test_what_is_remembered_is_bounded() -> None:
    """A client that asks for ever new names does not fill the memory."""
    policy = git()
    for index in range(10_000):
        decide(call(f"git_{index}", pin=Pin.ABSENT), policy)
    assert len(policy._memo) <= 4096


def test_rules_about_other_tools_cost_nothing() -> None:
    """A tool's rules are found without walking those of other tools."""
    many = [{"match": f"other_{index}", "scopes": []} for index in range(500)]
    policy = git(roles=ROLES, tools=[*TOOLS, *many], protected=[NO_RESET])
    assert len(policy.about("git", "git_commit").tools) == 2
    assert len(policy.about("git", "other_7").tools) == 1

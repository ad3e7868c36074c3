"""What a policy may say, and how it is told that it may not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from guard.core.canonical import b64
from guard.core.errors import GuardError
from guard.policy.document import load
from guard.policy.language import document_schema
from guard.policy.rules import ToolRule

SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "policy.schema.json"
FULL = """\
# yaml-language-server: $schema=policy.schema.json
guard: 1
id: coding-agent
version: 3
expires: 2027-01-01T00:00:00Z
mode: enforce
roles:
  reader:    {scopes: ["git:read"]}
  committer: {inherits: [reader], scopes: ["git:write"], may_assert_conversations: true}
servers:
  git: {trust_declared_scopes: true}
tools:
  - match: git_*
    server: git
    scopes: ["git:read"]
  - match: git_commit
    scopes: ["git:write"]
  - id: named
    match: git_push
    scopes: []
intents:
  - id: short-message
    tools: [git_commit, {match: "git_c*", server: git}]
    schema: {properties: {message: {maxLength: 50}}}
protected:
  - id: no-reset
    tools: [git_reset]
    because: work would be lost
limits:
  - id: few-commits
    tools: [git_commit, {match: "git_p*", server: git}]
    per: [principal, conversation]
    calls: 10
    window: 15m
    because: nobody commits more often
"""


def refusal(old: str, new: str) -> GuardError:
    assert FULL.count(old) >= 1
    with pytest.raises(GuardError) as raised:
        load(FULL.replace(old, new, 1).encode(), name="p.yaml")
    return raised.value


def test_a_whole_policy() -> None:
    """Every field of the language arrives where it decides."""
    policy = load(FULL.encode(), name="p.yaml")
    assert (policy.ref.id, policy.ref.version, policy.mode) == ("coding-agent", 3, "enforce")
    assert policy.ref.sha256 == b64(hashlib.sha256(FULL.encode()).digest())
    assert policy.expires == 1_798_761_600_000
    assert policy.roles["committer"].scopes == {"git:read", "git:write"}
    assert policy.may_assert_conversations("committer")
    assert not policy.may_assert_conversations("reader")
    assert policy.trusted == {"git"}
    assert [rule.id for rule in policy.tools] == ["tools/git:git_*", "tools/*:git_commit", "named"]
    assert isinstance(policy.tools[0], ToolRule)
    assert policy.protected[0].because == "work would be lost"
    assert {rule.id for rule in policy.about("git", "git_commit").intents} == {"short-message"}
    (limit,) = policy.about("git", "git_push").limits
    assert policy.about("git", "git_commit").limits == policy.limits == (limit,)
    assert (limit.id, limit.most, limit.window) == ("few-commits", 10, 900_000)
    assert limit.per == {"principal", "conversation"}
    assert limit.because == "nobody commits more often"


@pytest.mark.parametrize(
    ("old", "new", "where", "what", "remedy"),
    [
        ("protected:", "protcted:", "p.yaml:25", "protcted", "did you mean `protected`?"),
        ('scopes: ["git:write"]\n', "scope: []\n", "p.yaml:17", "scope", "did you mean `scopes`?"),
        (
            "trust_declared_scopes",
            "trust_declared",
            "p.yaml:11",
            "no field",
            "did you mean `trust_declared_scopes`?",
        ),
        (
            '{match: "git_c*", server',
            '{match: "git_c*", sever',
            "p.yaml:23",
            "sever",
            "did you mean `server`?",
        ),
        ("may_assert_conversations", "may_say", "p.yaml:9", "no field", "known here: inherits"),
        (
            "inherits: [reader]",
            "inherits: [readr]",
            "p.yaml:9",
            "no role is called `readr`",
            "did you mean `reader`?",
        ),
        ("id: no-reset", "id: short-message", "p.yaml:26", "already stands at p.yaml:22", "its own id"),
        ("id: no-reset", "id: named", "p.yaml:26", "already stands at p.yaml:18", "its own id"),
        ('{scopes: ["git:read"]}', "{inherits: [committer]}", "p.yaml:9", "circle", "remove"),
        ('{scopes: ["git:read"]}', "{inherits: [reader]}", "p.yaml:8", "circle", "remove"),
        ('["git:read"]}', '["Git Read"]}', "p.yaml:8", "form", "must match"),
        ("version: 3", "version: 0", "p.yaml:4", "greater than", ""),
        ("version: 3", 'version: "3"', "p.yaml:4", "integer", ""),
        ("version: 3", "version: 3.0", "p.yaml:4", "integer", ""),
        ("guard: 1", "guard: 2", "p.yaml:2", "version 1", ""),
        ("guard: 1", "guard: true", "p.yaml:2", "integer", ""),
        ("id: coding-agent\n", "", "p.yaml:2", "id: is missing", "add `id`"),
        ("id: coding-agent", "id: Coding", "p.yaml:3", "form", "must match"),
        ("2027-01-01T00:00:00Z", "2027-01-01", "p.yaml:5", "RFC 3339", ""),
        ("mode: enforce", "mode: observe", "p.yaml:6", "needs an end", "observe_until"),
        ("mode: enforce", "observe_until: 2027-01-01T00:00:00Z", "p.yaml:6", "no effect", "mode: observe"),
        ("mode: enforce", "mode: obsrve", "p.yaml:6", "enforce", ""),
        ("maxLength", "maxLenght", "p.yaml:24", "maxLenght", "did you mean `maxLength`?"),
        ("maxLength: 50", "maxLength: x", "p.yaml:24", "not of type", ""),
        ("tools: [git_reset]", "tools: []", "p.yaml:27", "at least 1", ""),
        ("tools: [git_reset]", "tools: [3]", "p.yaml:27", "", ""),
        ("  git: {", "  g*: {", "p.yaml:11", "form", "must match"),
        ("match: git_push", "match: git push", "p.yaml:19", "form", "must match"),
    ],
)
def test_a_mistake_is_told_with_its_line(old: str, new: str, where: str, what: str, remedy: str) -> None:
    """Each error says what failed, the line and the field, and what to do next."""
    error = refusal(old, new)
    assert error.where == where
    assert what in error.what
    assert remedy in error.remedy
    assert error.remedy


def test_a_deep_or_wide_inheritance_ends() -> None:
    """A long chain is refused and a lattice of roles is resolved once each, not once a path."""
    chain = {f"r{i}": {"inherits": [f"r{i + 1}"]} for i in range(500)} | {"r500": {}}
    with pytest.raises(GuardError, match="more than 64 steps"):
        load(json.dumps({"guard": 1, "id": "p", "version": 1, "roles": chain}).encode(), name="p")
    lattice = {f"r{i}": {"inherits": [f"r{i + 1}", f"r{i + 2}"]} for i in range(60)}
    lattice |= {"r60": {"scopes": ["a"]}, "r61": {"scopes": ["b"]}}
    policy = load(json.dumps({"guard": 1, "id": "p", "version": 1, "roles": lattice}).encode(), name="p")
    assert policy.roles["r0"].scopes == {"a", "b"}


def test_rules_that_read_the_same_may_stand_twice() -> None:
    """Tool rules without an id are not told apart, so saying one twice is no mistake."""
    doubled = FULL.replace("intents:", '  - {match: git_push, scopes: ["git:write"]}\n' * 2 + "intents:")
    policy = load(doubled.encode(), name="p.yaml")
    assert len(policy.about("git", "git_push").tools) == 4


def test_a_json_policy_may_name_its_schema() -> None:
    """`$schema` is for editors and decides nothing."""
    data = b'{"$schema": "policy.schema.json", "guard": 1, "id": "p", "version": 1}'
    assert load(data, name="p.json").ref.id == "p"


def test_the_digest_is_of_the_bytes() -> None:
    """A comment more is another policy, and equal bytes are an equal one."""
    first, second = load(FULL.encode(), name="a"), load(FULL.encode() + b"# more\n", name="a")
    assert first.ref.sha256 != second.ref.sha256
    assert first != second
    assert first == load(FULL.encode(), name="b")


def test_the_published_schema_is_current() -> None:
    """docs/policy.schema.json is what `document_schema` gives."""
    published = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert published == document_schema(), (
        "write json.dumps(document_schema(), indent=2) to docs/policy.schema.json"
    )

"""From a document to a policy: every field arrives where it decides, and mistakes are told whole."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from guard.core.errors import GuardError
from guard.core.model import PolicyRef
from guard.policy.assembly import MAX_INHERITANCE, assemble
from guard.policy.counting import Budget, Ceiling, Limit, Sequence
from guard.policy.document import load
from guard.policy.kinds import (
    AskRule,
    Intent,
    OriginRule,
    Pattern,
    Protected,
    Role,
    Source,
    Strikes,
    ToolRule,
)
from guard.policy.language import PolicyDocument
from guard.policy.reading import read
from guard.policy.rules import Policy, Remembering
from guard.policy.schema import compile_schema

ARGUMENTS: dict[str, Any] = {"required": ["a"]}
REQUEST: dict[str, Any] = {"required": ["b"]}
HEAD = "guard: 1\nid: p\nversion: 1\n"
WHOLE = """\
guard: 1
id: whole
version: 7
expires: 2030-01-01T00:00:00Z
mode: observe
observe_until: 2029-01-01T00:00:00.5Z
roles:
  plain: {scopes: [a, b]}
  conversing: {scopes: [c], inherits: [plain], may_assert_conversations: true}
  speaking: {may_assert_user: true}
  approving: {inherits: [conversing, speaking], may_approve: true}
servers:
  trusted: {trust_declared_scopes: true}
  wanting: {scopes: [s, t]}
tools:
  - {match: pay, scopes: [a, b]}
  - {id: named, match: "p*", server: one, scopes: []}
prompts:
  - {match: ask, scopes: [p]}
resources:
  - {match: "memo:a", server: "o*", scopes: [r]}
methods:
  - {match: "tasks/*", scopes: [m]}
intents:
  - {id: i1, tools: [pay, {match: read, server: one}], prompts: [ask], schema: {required: [a]}, because: B1}
  - {id: i2, methods: ["tasks/get"], request: {required: [b]}}
protected:
  - {id: f1, tools: [pay], because: B2}
  - {id: f2, resources: ["memo:*"], schema: {required: [a]}, request: {required: [b]}}
asks:
  - {id: q1, tools: [pay], schema: {required: [a]}, request: {required: [b]}, approver: client, ttl: 3m,
     because: B3}
  - {id: q2, tools: [pay]}
limits:
  - {id: l1, tools: [pay], per: [principal, tool], calls: 4, window: 60s, because: B4}
  - {id: l2, tools: [pay], per: role, sum: 5, of: /n, digits: 1, currency: {at: /c, is: EUR}, window: 2m}
  - {id: l3, tools: [pay], per: role, sum: 5, of: /n, window: 2m}
  - {id: l4, tools: [pay], per: role, at_once: 3}
  - {id: l5, tools: [pay], per: role, at_once: 3, window: 9s}
  - {id: c1, tools: [pay], depth: 2, because: B5}
  - {id: c2, tools: [read], result_bytes: 99}
hours:
  - {id: h1, tools: [pay], days: [mon, sun], from: "08:05", to: "24:00", zone: Europe/Berlin, because: B6}
  - {id: h2, tools: [pay], from: "23:59", to: "00:01", zone: UTC}
sequences:
  - {id: s1, tools: [pay], requires: [read, {match: look, server: one}], within: 5m, for: 6m, calls: 2,
     because: B7}
  - {id: s2, tools: [pay], after: [read, read], within: 5m, for: 6m}
sources:
  - {tools: [read], trust: mixed, fields: {/x: untrusted}}
  - {resources: ["memo:*"], trust: trusted}
origins:
  - id: o1
    tools: [pay]
    arguments: [/to, /n]
    accept: [user, policy]
    constants: [x, y]
    otherwise: ask
    approver: client
    ttl: 8m
    because: B8
  - {id: o2, tools: [read], arguments: [/to], accept: [unseen]}
memory: {window: 3h, values: 500, user_overrides: true}
containment:
  conversation: {denials: 3, window: 10m}
  principal: {denials: 5, window: 1h}
"""


def compiled(text: str) -> Policy:
    return load(text.encode(), name="p.yaml")


def refusal(text: str) -> tuple[str, str, str]:
    """Where, what and what to do next, of the first thing that is wrong."""
    with pytest.raises(GuardError) as caught:
        compiled(text)
    return caught.value.where, caught.value.what, caught.value.remedy


PAY = (Pattern("pay"),)
MINUTE = 60_000


def test_every_field_arrives_where_it_decides() -> None:
    """Rule by rule, in the order in which they stand; what is not said has its default."""
    text = read(WHOLE.encode(), name="p.yaml")
    policy = assemble(PolicyDocument.model_validate(text.value), text, "digest")
    assert policy.ref == PolicyRef("whole", 7, "digest")
    assert (policy.mode, policy.expires, policy.observe_until) == (
        "observe",
        1_893_456_000_000,
        1_861_920_000_500,
    )
    assert policy.roles == {
        "plain": Role(frozenset("ab")),
        "conversing": Role(frozenset("abc"), may_assert_conversations=True),
        "speaking": Role(frozenset(), may_assert_user=True),
        "approving": Role(frozenset("abc"), may_approve=True),
    }
    assert policy.tools == (
        ToolRule("tools/*:pay", PAY, frozenset("ab")),
        ToolRule("named", (Pattern("p*", "one"),), frozenset()),
        ToolRule("prompts/*:ask", (Pattern("ask", "*", "prompt"),), frozenset("p")),
        ToolRule("resources/o*:memo:a", (Pattern("memo:a", "o*", "resource"),), frozenset("r")),
        ToolRule("methods/*:tasks/*", (Pattern("tasks/*", "*", "method"),), frozenset("m")),
    )
    arguments, request = compile_schema(ARGUMENTS), compile_schema(REQUEST)
    named = (Pattern("ask", "*", "prompt"), Pattern("pay"), Pattern("read", "one"))
    assert policy.intents == (
        Intent("i1", named, arguments, "B1", None),
        Intent("i2", (Pattern("tasks/get", "*", "method"),), None, "", request),
    )
    assert policy.protected == (
        Protected("f1", PAY, None, "B2", None),
        Protected("f2", (Pattern("memo:*", "*", "resource"),), arguments, "", request),
    )
    assert policy.asks == (
        AskRule("q1", PAY, arguments, "B3", request, "client", 3 * MINUTE),
        AskRule("q2", PAY, None, "", None, "reviewer", 10 * MINUTE),
    )
    role = frozenset({"role"})
    assert policy.limits == (
        Limit("l1", PAY, frozenset({"principal", "tool"}), 4, MINUTE, "B4"),
        Limit("l2", PAY, role, 50, 2 * MINUTE, "", Budget("/n", 1, "/c", "EUR")),
        Limit("l3", PAY, role, 500, 2 * MINUTE, "", Budget("/n", 2)),
        Limit("l4", PAY, role, 3, 60 * MINUTE, "", None, held=True),
        Limit("l5", PAY, role, 3, 9000, "", None, held=True),
    )
    assert policy.ceilings == (
        Ceiling("c1", PAY, 2, None, "B5"),
        Ceiling("c2", (Pattern("read"),), None, 99, ""),
    )
    assert policy.sources == (
        Source("sources/0", (Pattern("read"),), "mixed", {"/x": "untrusted"}),
        Source("sources/1", (Pattern("memo:*", "*", "resource"),), "trusted", {}),
    )
    accepted, constants = frozenset({"user", "policy"}), frozenset("xy")
    assert policy.origins == (
        OriginRule("o1", PAY, ("/to", "/n"), accepted, constants, True, "client", 8 * MINUTE, "B8"),  # noqa: FBT003
        OriginRule("o2", (Pattern("read"),), ("/to",), frozenset({"unseen"})),
    )
    assert policy.servers == {"trusted": frozenset(), "wanting": frozenset("st")}
    assert policy.trusted == {"trusted"}
    assert policy.remembering == Remembering(180 * MINUTE, 500, user_overrides=True)
    assert policy.strikes == {"conversation": Strikes(3, 10 * MINUTE), "principal": Strikes(5, 60 * MINUTE)}


def test_hours_and_sequences_arrive_where_they_decide() -> None:
    """Minutes after midnight, days from Monday on, the zone's own rules; of `requires` its `within`."""
    policy = compiled(WHOLE)
    first, second = policy.hours
    assert (first.id, first.tools, first.because) == ("h1", PAY, "B6")
    assert (first.days, first.begin, first.end) == ({0, 6}, 485, 1440)
    assert (second.days, second.begin, second.end, second.because) == ({*range(7)}, 1439, 1, "")
    summer = datetime(2027, 7, 1, tzinfo=UTC)
    assert summer.astimezone(first.zone).hour == 2
    assert summer.astimezone(second.zone).hour == 0
    others = (Pattern("look", "one"), Pattern("read"))
    assert policy.sequences == (
        Sequence("s1", PAY, others, True, 5 * MINUTE, 2, "B7"),  # noqa: FBT003
        Sequence("s2", PAY, (Pattern("read"),), False, 6 * MINUTE, 0, ""),  # noqa: FBT003
    )


def test_what_is_not_said_is_nothing() -> None:
    """The smallest policy: nothing ends, nothing is counted, nothing is put out of use."""
    policy = compiled(HEAD)
    assert (policy.mode, policy.expires, policy.observe_until) == ("enforce", None, None)
    assert policy.remembering == Remembering(1440 * MINUTE, 20_000, user_overrides=False)
    for empty in (policy.roles, policy.tools, policy.intents, policy.limits, policy.strikes, policy.servers):
        assert not empty
    assert policy.trusted == frozenset()
    only = compiled(HEAD + "containment: {principal: {denials: 5, window: 1h}}\n")
    assert only.strikes == {"principal": Strikes(5, 60 * MINUTE)}


ROLES = "roles:\n"
LISTED_X = "{id: x, match: a, scopes: []}"
NAMES_NOTHING = "add `tools`, `prompts`, `resources`, `methods`"
HOURS = 'hours: [{id: h, tools: [t], from: "%s", to: "08:00", zone: %s}]\n'
CASES: list[tuple[str, str, str, str]] = [
    (
        "mode: observe",
        "p.yaml:4",
        "mode: observing needs an end",
        "add `observe_until`, an RFC 3339 date-time",
    ),
    (
        "observe_until: 2029-01-01T00:00:00Z",
        "p.yaml:4",
        "observe_until: has no effect in enforce mode",
        "remove it, or write `mode: observe`",
    ),
    (
        f"tools:\n  - {LISTED_X}\nprompts:\n  - {{match: a, scopes: []}}\n  - {LISTED_X}",
        "p.yaml:8",
        "prompts.1.id: the id `x` already stands at p.yaml:5",
        "give each rule its own id",
    ),
    (
        f"methods:\n  - {LISTED_X}\nasks:\n  - {{id: y, tools: [a]}}\n  - {{id: x, tools: [a]}}",
        "p.yaml:8",
        "asks.1.id: the id `x` already stands at p.yaml:5",
        "give each rule its own id",
    ),
    *(
        (f"{field}:\n  - {rest}", "p.yaml:5", f"{field}.0: names nothing", NAMES_NOTHING)
        for field, rest in (
            ("intents", "{id: x, schema: true}"),
            ("protected", "{id: x}"),
            ("limits", "{id: x, depth: 1}"),
            ("hours", '{id: x, from: "08:00", to: "09:00", zone: UTC}'),
            ("sequences", "{id: x, requires: [a]}"),
            ("sources", "{trust: mixed}"),
            ("origins", "{id: x, arguments: [/a], accept: [user]}"),
            ("asks", "{id: x}"),
        )
    ),
    (
        "protected:\n  - {id: x, tools: [a]}\n  - {id: y}",
        "p.yaml:6",
        "protected.1: names nothing",
        NAMES_NOTHING,
    ),
    (
        "methods:\n  - {match: a, scopes: []}\n  - {match: tools/call, scopes: []}",
        "p.yaml:6",
        "methods.1: `tools/call` is not judged as a method",
        "use `tools`",
    ),
    (
        "protected:\n  - id: x\n    methods:\n      - a\n      - prompts/get",
        "p.yaml:8",
        "protected.0.methods.1: `prompts/get` is not judged as a method",
        "use `prompts`",
    ),
    (
        "asks:\n  - {id: w, tools: [a]}\n  - id: x\n    methods:\n      - resources/read",
        "p.yaml:8",
        "asks.1.methods.0: `resources/read` is not judged as a method",
        "use `resources`",
    ),
    (
        "intents:\n  - {id: x, tools: [a], schema: true}\n  - {id: y, tools: [a]}",
        "p.yaml:6",
        "intents.1: says nothing",
        "add `schema`, or `request`, or both",
    ),
    (
        "protected:\n  - id: x\n    tools: [a]\n    schema:\n      properties:\n        n: {maxLenght: 1}",
        "p.yaml:9",
        "protected.0.schema.properties.n.maxLenght: unknown keyword `maxLenght`",
        "did you mean `maxLength`?",
    ),
    (
        "asks:\n  - id: x\n    tools: [a]\n    request:\n      properties:\n        n: {maxLenght: 1}",
        "p.yaml:9",
        "asks.0.request.properties.n.maxLenght: unknown keyword `maxLenght`",
        "did you mean `maxLength`?",
    ),
    (
        HOURS % ("07:00", "Europe/Nowhere"),
        "p.yaml:4",
        "hours.0.zone: no time zone is called `Europe/Nowhere`, such as Europe/Berlin or UTC",
        "use a name of the IANA time zone database",
    ),
    (HOURS % ("24:00", "UTC"), "p.yaml:4", "hours.0.from: 24:00 begins nothing", "write 00:00"),
    (
        ROLES + "  one: {}\n  two:\n    inherits:\n      - one\n      - onee",
        "p.yaml:9",
        "roles.two.inherits.1: no role is called `onee`",
        "did you mean `one`?",
    ),
    (
        ROLES + "  a: {inherits: [b]}\n  b: {inherits: [c]}\n  c: {inherits: [b]}",
        "p.yaml:7",
        "roles.c.inherits.0: the roles inherit in a circle: b -> c -> b",
        "remove one of the steps",
    ),
    (
        ROLES + "  a: {inherits: [a]}",
        "p.yaml:5",
        "roles.a.inherits.0: the roles inherit in a circle: a -> a",
        "remove one of the steps",
    ),
]


def test_a_mistake_is_told_with_its_line_its_field_and_a_remedy() -> None:
    """The whole of each."""
    for text, *told in CASES:
        assert refusal(HEAD + text) == tuple(told), text


def chain(steps: int) -> str:
    return (
        HEAD
        + ROLES
        + "".join(f"  r{n}: {{inherits: [r{n + 1}]}}\n" for n in range(steps))
        + f"  r{steps}: {{scopes: [s]}}"
    )


def test_roles_inherit_over_sixty_four_steps_and_no_more() -> None:
    """To the step; who needs more is told to name the scopes."""
    assert MAX_INHERITANCE == 64
    assert compiled(chain(64)).roles["r0"].scopes == {"s"}
    assert refusal(chain(65)) == (
        "p.yaml:69",
        "roles.r64.inherits.0: roles inherit over more than 64 steps",
        "name the scopes directly",
    )


def test_rules_of_all_kinds_share_their_ids_but_sources_have_none() -> None:
    """A source is named by its place, and two that are equal may stand."""
    policy = compiled(HEAD + "sources: [{tools: [a], trust: mixed}, {tools: [a], trust: mixed}]")
    assert [source.id for source in policy.sources] == ["sources/0", "sources/1"]

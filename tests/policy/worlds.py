"""Hypothesis strategies: small policies over few names, so that rules and calls meet often."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from guard.core.model import Call, Pin
from guard.policy.rules import Policy
from tests.policy.calls import of_kind, policy

SCOPES = ("a:read", "a:write", "b:read")
NAMES = ("get", "put", "get_all")
SERVERS = ("one", "two")
PATTERNS = ("get", "put", "get*", "*", "?et", "*_all")
SCHEMAS: tuple[Any, ...] = (
    True,
    False,
    {"required": ["n"]},
    {"properties": {"n": {"type": "integer", "maximum": 3}}},
    {"properties": {"s": {"pattern": "^x"}}},
    {"not": {"required": ["s"]}},
    {"anyOf": [{"required": ["n"]}, {"required": ["s"]}]},
    {"additionalProperties": {"type": "integer"}},
)

KINDS = {"tool": "tools", "prompt": "prompts", "resource": "resources", "method": "methods"}
everything = st.just(list(SCOPES))
scopes = st.lists(st.sampled_from(SCOPES), unique=True, max_size=2)
matches = st.one_of(
    st.sampled_from(PATTERNS),
    st.fixed_dictionaries({"match": st.sampled_from(PATTERNS), "server": st.sampled_from(("*", *SERVERS))}),
)
tool_rules = st.fixed_dictionaries(
    {"match": st.sampled_from(PATTERNS), "scopes": scopes},
    optional={"server": st.sampled_from(("*", *SERVERS))},
)
named = st.lists(matches, min_size=1, max_size=2)
rules = st.one_of(
    st.fixed_dictionaries(
        {"tools": named, "schema": st.sampled_from(SCHEMAS)},
        optional={field: named for field in KINDS.values() if field != "tools"},
    ),
    st.sampled_from(list(KINDS.values())).flatmap(
        lambda field: st.fixed_dictionaries({field: named, "schema": st.sampled_from(SCHEMAS)})
    ),
)


limit_rules = st.sampled_from(list(KINDS.values())).flatmap(
    lambda field: st.fixed_dictionaries(
        {
            field: named,
            "per": st.sampled_from(("principal", "tool", ["tool", "conversation"])),
            "calls": st.integers(1, 3),
            "window": st.sampled_from(("60s", "1h")),
        }
    )
)


def _named(prefix: str, drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": f"{prefix}-{index}", **rule} for index, rule in enumerate(drawn)]


documents = st.fixed_dictionaries(
    {
        "roles": st.fixed_dictionaries(
            {
                "low": st.fixed_dictionaries({"scopes": scopes}),
                "high": st.fixed_dictionaries(
                    {"scopes": st.one_of(everything, scopes), "inherits": st.just(["low"])}
                ),
            }
        ),
        "servers": st.fixed_dictionaries(
            {"one": st.fixed_dictionaries({"trust_declared_scopes": st.booleans()})}
        ),
        "tools": st.lists(tool_rules, max_size=4).map(lambda drawn: [*drawn, {"match": "?et", "scopes": []}]),
        **{
            field: st.lists(tool_rules, max_size=2).map(
                lambda drawn: [*drawn, {"match": "?et", "scopes": []}]
            )
            for field in KINDS.values()
            if field != "tools"
        },
        "intents": st.one_of(st.just([]), st.lists(rules, max_size=3)).map(
            lambda drawn: _named("intent", drawn)
        ),
        "protected": st.one_of(st.just([]), st.lists(rules, max_size=2)).map(
            lambda drawn: _named("protected", drawn)
        ),
        "limits": st.one_of(st.just([]), st.lists(limit_rules, max_size=2)).map(
            lambda drawn: _named("limit", drawn)
        ),
    }
)
modes = st.sampled_from(
    (
        {},
        {},
        {},
        {},
        {"mode": "observe", "observe_until": "2030-01-01T00:00:00Z"},
        {"expires": "2001-01-01T00:00:00Z"},
    )
)
arguments = st.dictionaries(
    st.sampled_from(("n", "s", "other")),
    st.one_of(st.integers(0, 6), st.sampled_from(("x1", "y", None))),
    max_size=3,
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    return policy(**draw(documents), **draw(modes))


@st.composite
def calls(draw: st.DrawFn) -> Call:
    narrowed = draw(st.one_of(st.none(), everything, scopes))
    sound = draw(st.sampled_from((True, True, True, True, False)))
    return of_kind(
        draw(st.sampled_from(("tool", "tool", "tool", *KINDS))),
        draw(st.sampled_from(("get", *NAMES, "unlisted"))),
        draw(arguments),
        role=draw(st.sampled_from(("low", "high", "high", "nobody"))),
        server=draw(st.sampled_from(SERVERS)),
        scopes=None if narrowed is None else set(narrowed),
        declared=set(draw(scopes)),
        pin=Pin.MATCHES if sound else draw(st.sampled_from(list(Pin))),
        fault=None if sound else draw(st.sampled_from((None, ("/arguments/n", "duplicate key")))),
        contained=frozenset() if sound else frozenset(draw(st.sets(st.sampled_from(("all", "tool"))))),
        now=draw(st.sampled_from((1_000_000, 1_000_000, 1_893_456_000_000))) if sound else 1_000_000,
        last=1_000_000,
        used={f"limit-{n}": draw(st.sampled_from((0, 0, 0, 1, 2, 3))) for n in range(2)},
    )

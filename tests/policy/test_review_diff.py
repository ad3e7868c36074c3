"""`guard policy diff` says no "no difference" where a call is decided differently, or on other terms."""

from __future__ import annotations

from typing import Any

import pytest

from guard.policy.diff import changes, edges
from tests.policy.calls import policy

NOW = 1_800_000_000_000
OPEN: dict[str, Any] = {"roles": {"r": {"scopes": ["x"]}}, "tools": [{"match": "*", "scopes": ["x"]}]}


def found(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    old, new = policy(**OPEN, **before), policy(**OPEN, **after)
    return [f"{one.kind}: {one.before} -> {one.after}" for one in changes(old, new, edges([old, new], NOW))]


def limit(**more: Any) -> dict[str, Any]:
    return {
        "limits": [{"id": "l", "tools": ["send"], "per": "principal", "calls": 10, "window": "60s"} | more]
    }


def hours(**more: Any) -> dict[str, Any]:
    office = {"id": "h", "tools": ["send"], "from": "08:00", "to": "18:00", "zone": "Europe/Berlin"}
    return {"hours": [office | more]}


def asks(**more: Any) -> dict[str, Any]:
    return {"asks": [{"id": "a", "tools": ["send"], **more}]}


def origins(*accept: str) -> dict[str, Any]:
    return {"origins": [{"id": "o", "tools": ["send"], "arguments": ["/to"], "accept": [*accept]}]}


def budget(most: int) -> dict[str, Any]:
    spent = {"sum": most, "of": "/amount", "currency": {"at": "/unit", "is": "EUR"}}
    return {"limits": [{"id": "b", "tools": ["send"], "per": "principal", "window": "1d", **spent}]}


def within(keyword: str, stated: dict[str, Any]) -> dict[str, Any]:
    schema = {"required": ["v"], "properties": {"v": {keyword: stated}}}
    return {"intents": [{"id": "i", "tools": ["send"], "schema": schema}]}


NOTHING: dict[str, Any] = {}
AFTER = {"sequences": [{"id": "s", "tools": ["send"], "after": ["read"]}]}
REQUIRED = {"sequences": [{"id": "s", "tools": ["send"], "requires": ["read"]}]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(limit(), limit(calls=10_000), id="more calls"),
        pytest.param(limit(), limit(per="tool"), id="counted apart"),
        pytest.param(limit(), limit(window="1s"), id="a shorter window"),
        pytest.param(budget(10), budget(1000), id="more money"),
        pytest.param(NOTHING, {"limits": [{"id": "c", "tools": ["send"], "result_bytes": 9}]}, id="size"),
        pytest.param(NOTHING, hours(), id="hours"),
        pytest.param(hours(), hours(to="18:01"), id="a minute longer"),
        pytest.param(hours(), hours(days=["mon", "tue", "wed", "thu", "fri", "sat"]), id="one day fewer"),
        pytest.param(hours(), hours(zone="Asia/Tokyo"), id="another zone"),
        pytest.param(NOTHING, AFTER, id="forbidden after"),
        pytest.param(NOTHING, REQUIRED, id="required before"),
        pytest.param(asks(ttl="1m"), asks(ttl="10m"), id="an approval that stands longer"),
        pytest.param(origins("user"), origins("user", "unseen"), id="where values come from"),
        pytest.param(
            within("pathWithin", {"roots": ["/srv/a"]}), within("pathWithin", {"roots": ["/"]}), id="folders"
        ),
        pytest.param(
            within("emailDomain", {"domains": ["a.com"]}),
            within("emailDomain", {"domains": ["a.com", "*.b.com"]}),
            id="domains",
        ),
        pytest.param(
            within("urlWithin", {"schemes": ["https"], "hosts": ["a.com"]}),
            within("urlWithin", {"schemes": ["https"], "hosts": ["*"]}),
            id="hosts",
        ),
        pytest.param(
            within("sql", {"dialect": "sqlite", "statements": ["select"], "tables": ["a"]}),
            within("sql", {"dialect": "sqlite", "statements": ["select", "delete"], "tables": ["a"]}),
            id="statements",
        ),
        pytest.param(
            within("shellCommand", {"commands": [{"words": ["ls"]}]}),
            within("shellCommand", {"commands": [{"words": ["ls"], "options": ["-l"]}]}),
            id="options",
        ),
        pytest.param(
            within("money", {"maximum": {"EUR": "5.00"}}),
            within("money", {"maximum": {"EUR": "500.00"}}),
            id="amounts",
        ),
    ],
)
def test_a_rule_that_moved_is_no_silence(before: dict[str, Any], after: dict[str, Any]) -> None:
    """In both directions there is a call that shows it, and the same policy twice differs in none."""
    assert found(before, after)
    assert found(after, before)
    assert not found(before, before)
    assert not found(after, after)


def test_a_raised_limit_is_told_in_words() -> None:
    """The reviewer reads how much there may be, before and after."""
    assert found(limit(), limit(calls=10_000))[0] == (
        "other terms: allow by tools/*:*; l takes 1 of 10 in 60 seconds"
        " -> allow by tools/*:*; l takes 1 of 10000 in 60 seconds"
    )


def test_an_approval_that_stands_longer_is_told_in_words() -> None:
    """So does how long a question stands."""
    assert found(asks(ttl="1m"), asks(ttl="10m"))[0] == (
        "other terms: ask by a within 60 seconds -> ask by a within 600 seconds"
    )

"""The nouns keep their promises."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.errors import Reason
from guard.core.model import (
    DIGESTED_MEMBERS,
    Allow,
    Call,
    Conversation,
    Decision,
    Deny,
    Facts,
    Principal,
    Tool,
    args_sha256,
)


@pytest.mark.parametrize("decision", [Allow((), ()), Deny(Reason.DEFAULT_DENY)])
def test_a_decision_has_no_truth_value(decision: Decision) -> None:
    """`if decision:` raises for a permission and a denial alike."""
    with pytest.raises(TypeError):
        bool(decision)


def test_an_allow_cannot_be_changed() -> None:
    """What was decided stays decided: the values are frozen."""
    allow = Allow(("r",), ("s",))
    with pytest.raises(dataclasses.FrozenInstanceError):
        allow.mode = "observe"  # type: ignore[misc]


def test_principals_of_two_issuers_or_tenants_never_share_a_key() -> None:
    """An API key's subject and an OAuth subject of the same name are two principals."""
    keys = {
        Principal(tenant, issuer, "ada", "r").key
        for tenant in ("a", "b")
        for issuer in ("api-key", "https://as")
    }
    assert len(keys) == 4


@given(st.dictionaries(st.sampled_from([*DIGESTED_MEMBERS, "_meta", "other"]), st.integers(0, 9)))
def test_the_digest_covers_the_listed_members_and_no_others(params: dict[str, int]) -> None:
    """A change to `_meta` leaves the digest; a change to any listed member changes it."""
    before = args_sha256(params)
    assert args_sha256({**params, "_meta": {"traceparent": "x"}, "other": 10}) == before
    for name in DIGESTED_MEMBERS:
        assert args_sha256({**params, name: "changed"}) != before


def test_a_call_without_arguments_is_judged_as_one_with_none() -> None:
    """Rules over arguments see an empty object where the client sent no member."""
    call = Call(
        id="d",
        principal=Principal("t", "api-key", "ada", "r"),
        tool=Tool("s", "t"),
        audience="s",
        method="tools/call",
        params={"name": "t"},
        conversation=Conversation("c", "launch"),
        facts=Facts(now=0),
    )
    assert call.arguments == {}


def test_absent_and_null_arguments_are_two_things() -> None:
    """A member that is there with null is sent, so it is digested."""
    assert args_sha256({"name": "t"}) != args_sha256({"name": "t", "arguments": None})

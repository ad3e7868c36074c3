"""What layers say together, member for member, and what the house asks a policy about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from guard.core.errors import Reason
from guard.core.model import Allow, Ask, Conversation, Deny, Mark, Principal, Reservation, Tool
from guard.policy.layers import layered, together
from guard.policy.rules import Policy, Remembering, least_trusted
from tests.policy.calls import policy

WHO = Principal("default", "launch", "someone", "r")
TALK, OTHER = Conversation("one", "launch"), Conversation("two", "launch")
TAKEN = [Reservation(name, f"c-{name}", 1, 5, 1000) for name in ("a", "b")]
FIRST = Allow(
    ("r2",), ("s2",), ("o2",), reservations=(TAKEN[1],), marks=(Mark("m2", 5), Mark("m1", 5)), approved=("y",)
)
SECOND = Allow(
    ("r1", "r2"), ("s1",), ("o1",), "observe", (TAKEN[0],), (Mark("m1", 5),), ("x",), rests_on_seen=True
)


def test_permits_of_layers_are_put_together_member_for_member() -> None:
    """Names are sorted and stand once; reservations keep their order; one that observes makes all observe."""
    assert together(iter([FIRST, SECOND])) == Allow(
        rules=("r1", "r2"),
        scopes=("s1", "s2"),
        obligations=("o1", "o2"),
        mode="observe",
        reservations=(TAKEN[1], TAKEN[0]),
        marks=(Mark("m1", 5), Mark("m2", 5)),
        approved=("x", "y"),
        rests_on_seen=True,
    )
    enforcing = together([FIRST, FIRST])
    assert isinstance(enforcing, Allow)
    assert (enforcing.mode, enforcing.rests_on_seen) == ("enforce", False)
    assert together([SECOND]) is SECOND


def test_questions_of_layers_are_one_question() -> None:
    """Of all rules, and of those answered before; the shortest time; one reviewer beats clients."""
    client, short = Ask(("b",), "client", 900, ("/x", "/z")), Ask(("a",), "client", 500, ("/y",))
    assert together([client, short]) == Ask(("a", "b"), "client", 500, ("/x", "/y", "/z"))
    assert together([client, FIRST]) == Ask(("b", "y"), "client", 900, ("/x", "/z"))
    assert together([SECOND, replace(short, approver="reviewer"), client]) == Ask(
        ("a", "b", "x"), "reviewer", 500, ("/x", "/y", "/z")
    )
    assert together([client]) is client


def test_the_first_denial_is_the_answer_and_nothing_below_it_is_asked() -> None:
    """A layer that is not reached may not break the answer either."""

    def layers() -> Any:
        yield FIRST
        yield Deny(Reason.PROTECTED, "p")
        raise AssertionError

    assert together(layers()) == Deny(Reason.PROTECTED, "p")


@pytest.mark.parametrize("said", [[], [FIRST, None], [None, None], ["allow", FIRST]])
def test_what_is_no_decision_permits_nothing(said: Any) -> None:
    """Nor does no decision at all."""
    with pytest.raises(TypeError, match=r"^not a decision$"):
        together(said)


# -- layered -------------------------------------------------------------------------------------------

ROLE: dict[str, Any] = {"scopes": ["*"]}


def one(id_: str, **members: Any) -> Policy:
    return policy(**{"id": id_, "roles": {"r": ROLE}, "tools": [{"match": "t", "scopes": []}], **members})


def origin(**more: Any) -> dict[str, Any]:
    return {"id": "o", "tools": ["t"], "arguments": ["/a"], "accept": ["user"], **more}


def intent(id_: str) -> dict[str, Any]:
    return {"id": id_, "tools": ["t"], "schema": True}


def test_layers_need_a_policy_and_names_of_their_own() -> None:
    """And one policy alone is itself."""
    alone = one("a")
    assert layered([alone]) is alone
    with pytest.raises(ValueError, match=r"^a policy is needed$"):
        layered([])
    with pytest.raises(ValueError, match=r"^two layers have the same id$"):
        layered([alone, one("b"), alone])


def test_the_lowest_layer_carries_the_others() -> None:
    """Its id is its own; rules above are named by their policy; each knows the intents of the others."""
    top, mid, low = (one(name, intents=[intent(f"of-{name}"), intent("same")]) for name in ("a", "b", "c"))
    whole = layered([top, mid, low])
    assert (whole.ref.id, whole.ref.sha256) == (low.ref.id, low.ref.sha256)
    assert whole.ref.layers == (top.ref, mid.ref)
    assert [layer.ref.id for layer in whole.layers] == ["a", "b", "c"]
    assert [sorted(rule.id for rule in layer.intents) for layer in whole.layers] == [
        ["a/of-a", "a/same"],
        ["b/of-b", "b/same"],
        ["of-c", "same"],
    ]
    assert [sorted(layer.others) for layer in whole.layers] == [
        ["b/of-b", "b/same", "of-c", "same"],
        ["a/of-a", "a/same", "of-c", "same"],
        ["a/of-a", "a/same", "b/of-b", "b/same"],
    ]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {}, Remembering()),
        (
            {"memory": {"window": "1h", "values": 2000}, "origins": [origin()]},
            {"memory": {"window": "2h", "values": 1000}, "origins": [origin()]},
            Remembering(7_200_000, 2000, user_overrides=False),
        ),
        (
            {"memory": {"window": "1h", "values": 2000, "user_overrides": True}, "origins": [origin()]},
            {"memory": {"window": "2h"}},
            Remembering(3_600_000, 2000, user_overrides=True),
        ),
        (
            {"memory": {"user_overrides": True}, "origins": [origin()]},
            {"memory": {"user_overrides": False}, "origins": [origin()]},
            Remembering(),
        ),
    ],
)
def test_what_is_remembered_is_the_most_that_a_layer_with_origins_wants(
    first: Any, second: Any, expected: Remembering
) -> None:
    """And the user's word beats only where each of them says so."""
    assert layered([one("a", **first), one("b", **second)]).remembering == expected


# -- what the house asks -------------------------------------------------------------------------------


def test_memory_is_named_only_where_values_origins_matter() -> None:
    """It is the principal's, and the conversation's only where the role may assert conversations."""
    plain, asking = one("a"), one("a", origins=[origin()])
    assert plain.memory(WHO, TALK) == ""
    assert asking.memory(WHO, TALK) == asking.memory(WHO, OTHER) != ""
    assert asking.memory(replace(WHO, subject="else"), TALK) != asking.memory(WHO, TALK)
    said = one("a", origins=[origin()], roles={"r": {**ROLE, "may_assert_conversations": True}})
    assert len({said.memory(WHO, TALK), said.memory(WHO, OTHER), asking.memory(WHO, TALK)}) == 3
    assert layered([asking, one("b")]).memory(WHO, TALK) == asking.memory(WHO, TALK)
    assert layered([said, one("b")]).memory(WHO, TALK) == asking.memory(WHO, TALK)


def test_a_tool_is_sensitive_where_any_layer_says_so() -> None:
    """The rules of all layers, the highest first; of that tool and no other."""
    whole = layered([one("a", origins=[origin()]), one("b", origins=[origin(id="p"), origin(tools=["u"])])])
    assert [rule.id for rule in whole.sensitive(Tool("s", "t"))] == ["a/o", "p"]
    assert [rule.id for rule in whole.sensitive(Tool("s", "u"))] == ["o"]
    assert whole.sensitive(Tool("s", "t", "", kind="prompt")) == ()
    asks = [{"id": "q", "tools": [{"match": "t", "server": "s"}]}]
    for found, expected in (
        (one("a"), False),
        (one("a", asks=asks), True),
        (one("a", origins=[origin()]), False),
        (one("a", origins=[origin(otherwise="ask")]), True),
        (layered([one("a", asks=asks), one("b")]), True),
        (layered([one("a"), one("b", origins=[origin(otherwise="ask")])]), True),
    ):
        assert found.asks_about(Tool("s", "t")) is expected
        assert not found.asks_about(Tool("s", "v"))
    assert not one("a", asks=asks).asks_about(Tool("z", "t"))


def source(trust: str, **fields: str) -> dict[str, Any]:
    found: dict[str, Any] = {"tools": [{"match": "t", "server": "s"}], "trust": trust}
    return found | ({"fields": {f"/{name}": label for name, label in fields.items()}} if fields else {})


TRUSTED, MIXED, UNTRUSTED = "trusted", "mixed", "untrusted"


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([{}], (UNTRUSTED, {})),
        ([{"sources": [source(TRUSTED)]}], (TRUSTED, {})),
        ([{"sources": [source(TRUSTED), source(MIXED)]}], (MIXED, {})),
        ([{"sources": [source(MIXED, a=TRUSTED, b=UNTRUSTED)]}], (MIXED, {"/a": TRUSTED, "/b": UNTRUSTED})),
        (
            [{"sources": [source(TRUSTED, a=MIXED), source(TRUSTED, a=TRUSTED)]}],
            (TRUSTED, {"/a": MIXED}),
        ),
        ([{"sources": [source(TRUSTED)]}, {}], (TRUSTED, {})),
        ([{"sources": [source(TRUSTED)]}, {"origins": [origin()]}], (UNTRUSTED, {})),
        (
            [{"origins": [origin()]}, {"sources": [source(TRUSTED, a=TRUSTED)]}],
            (UNTRUSTED, {"/a": UNTRUSTED}),
        ),
        (
            [{"sources": [source(MIXED)]}, {"sources": [source(TRUSTED, a=TRUSTED, b=UNTRUSTED)]}],
            (MIXED, {"/a": MIXED, "/b": UNTRUSTED}),
        ),
    ],
)
def test_what_a_tool_says_is_trusted_as_the_layer_that_trusts_it_least(layers: Any, expected: Any) -> None:
    """As a whole and in its parts; a layer with rules on origins and no source for it trusts nothing."""
    whole = layered([one(name, **members) for name, members in zip("abc", layers, strict=False)])
    assert whole.trust(Tool("s", "t")) == expected
    assert whole.trust(Tool("z", "t"))[1] == {}


def test_an_unknown_word_is_trusted_least() -> None:
    """Whatever stands beside it."""
    assert least_trusted("trusted", "mixed") == "mixed"
    assert least_trusted("mixed", "untrusted") == "untrusted"
    assert least_trusted("untrusted", "whatever", "trusted") == "whatever"


@pytest.mark.parametrize("what", ["may_assert_conversations", "may_assert_user", "may_approve"])
def test_a_role_may_only_what_every_layer_lets_it(what: str) -> None:
    """An unknown role may nothing, and exists nowhere that a layer does not know it."""
    may, not_ = one("a", roles={"r": {**ROLE, what: True}}), one("b")
    assert getattr(may, what)("r") is True
    assert getattr(not_, what)("r") is False
    assert getattr(may, what)("q") is False
    both = layered([may, one("b", roles={"r": {**ROLE, what: True}, "q": ROLE})])
    assert getattr(both, what)("r") is True
    assert getattr(layered([may, not_]), what)("r") is False
    assert (both.role_exists("r"), both.role_exists("q")) == (True, False)

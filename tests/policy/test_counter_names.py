"""Names of counters stand in stores: they do not change; and other small things that must hold."""

from __future__ import annotations

import pytest

from guard.core.errors import Reason
from guard.core.model import Call, Conversation, Deny, Facts, Pin, Principal, Seen, Tool
from guard.policy.counting import Scope
from guard.policy.diff import _call, _edges, _enforced, edges
from guard.policy.grammar import each_once
from guard.policy.places import Places
from tests.policy.calls import of_kind, policy

WHO, TOOL = Principal("default", "launch", "someone", "r"), Tool("s", "t")
SCOPE = Scope("p", WHO, TOOL, Conversation("c", "launch"))
NAMES = {
    frozenset({"principal"}): "I6DwF-lzXF-ac6v9vLgm92N_EWctVyV8LShq_k0OXa8",
    frozenset({"role"}): "_Uv3Qmtf7jEDvErOCTtCrS_PHejU-lxOWCSKem-N8ZA",
    frozenset({"tool"}): "Aeqbi78jxjfQ3W_dmmm8VH04j0gsA33QVzvvUVF8lWc",
    frozenset({"conversation"}): "OYNDq18QmKKcCyLT3iSarXlogK5MHg0jwS4To8hEvcA",
    frozenset({"principal", "tool", "role", "conversation"}): "wzk40-xp7fnIoHhVPJcj7Q5KHC2JiZZLObeTqDz-2yI",
}


@pytest.mark.parametrize("per", NAMES)
def test_a_counters_name_is_what_it_was(per: frozenset[str]) -> None:
    """A store that goes on counts on."""
    assert SCOPE.name(per) == NAMES[per]


def test_a_memorys_name_is_what_it_was() -> None:
    """Of a conversation, or of all that a principal does."""
    found = policy(
        roles={"r": {"scopes": [], "may_assert_conversations": True}, "q": {}},
        tools=[{"match": "t", "scopes": []}],
        origins=[{"id": "o", "tools": ["t"], "arguments": ["/a"], "accept": ["user"]}],
    )
    assert found.memory(WHO, Conversation("c", "launch")) == "yY1iLJlysDMafEF8zyLHXaiMaIaKHmqcfPcmTAmmkl4"
    assert (
        found.memory(Principal("default", "launch", "someone", "q"), Conversation("c", "x"))
        == "2p-XSmmnYBeipxY_0afELKoeYWDGFscKKdfrdsb0wwg"
    )


@pytest.mark.parametrize(
    ("kind", "pointer"), [("tool", "/arguments/n"), ("prompt", "/arguments/n"), ("method", "/n")]
)
def test_an_unreadable_amount_is_pointed_to_in_the_params(kind: str, pointer: str) -> None:
    """A method's params are its arguments."""
    limit = {"id": "l", f"{kind}s": ["x"], "per": "role", "sum": 1, "of": "/n", "window": "1h"}
    found = policy(roles={"committer": {}}, limits=[limit])
    (rule,) = found.limits
    taken = rule.takes(of_kind(kind, "x", {"n": "much"}), SCOPE)
    assert taken == Deny(Reason.AMOUNT_UNREADABLE, "l", pointer)


# -- calls at the edges --------------------------------------------------------------------------------


def test_a_call_at_an_edge_is_a_plain_one() -> None:
    """Of somebody, with all that the role has, in a conversation where nothing was said."""
    assert _call("r", ("tool", "s", "t"), {"a": 1}, 5) == Call(
        id="edge",
        principal=Principal("default", "launch", "someone", "r"),
        tool=Tool("s", "t", "", Pin.MATCHES, frozenset(), "tool"),
        audience="s",
        method="tools/call",
        params={"name": "t", "arguments": {"a": 1}},
        conversation=Conversation("edge", "launch"),
        facts=Facts(now=5, seen=Seen({})),
    )


def test_calls_at_the_edges_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one tool, and in all; a resource has one."""
    many = {"properties": {f"p{n}": {"enum": [*range(9)]} for n in range(9)}}
    found = policy(
        roles={"r": {}},
        intents=[
            {"id": "i", "tools": ["t"], "schema": many},
            {"id": "j", "resources": ["a:b"], "schema": many},
        ],
    )
    monkeypatch.setattr("guard.policy.diff.MOST_OF_A_TOOL", 7)
    of_tool = [call for _, call in _edges([found], 1) if (call.tool.name, call.principal.role) == ("t", "r")]
    assert len(of_tool) == 7
    of_resource = [call for _, call in _edges([found], 1) if call.tool.kind == "resource"]
    assert [call.principal.role for call in of_resource] == ["r", "nobody-knows-this-role"]
    monkeypatch.setattr("guard.policy.diff.MOST", 3)
    assert len([*edges([found], 1)]) == 3
    assert _enforced(found).mode == "enforce"


# -- small things --------------------------------------------------------------------------------------


def test_what_stands_twice_is_named() -> None:
    """Once is enough."""
    assert each_once(["a", "b"]) == ["a", "b"]
    with pytest.raises(ValueError, match=r"^`b` stands here twice$"):
        each_once(["a", "b", "c", "b"])


def test_every_value_of_a_text_has_its_line() -> None:
    """Also in lists of objects in lists; and the depth is counted."""
    text = '{"a": [\n1,\n{"b": [\n[2],\n3]}],\n"c": {}}'
    places = Places(text)
    assert places.lines == {
        "": 1, "/a": 1, "/a/0": 2, "/a/1": 3, "/a/1/b": 3, "/a/1/b/0": 4, "/a/1/b/0/0": 4, "/a/1/b/1": 5,
        "/c": 6,
    }  # fmt: skip
    assert places.depth == 5
    assert Places("{}").depth == 1

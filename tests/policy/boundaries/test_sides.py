"""Where each boundary keyword of a schema stands, and what the engine makes of its answers there."""

from __future__ import annotations

from typing import Any

import pytest

from guard.policy.boundaries import watch
from guard.policy.boundaries.polarity import Side, sides
from guard.policy.boundaries.verdict import NotUnderstood
from guard.policy.boundaries.watch import Pass
from guard.policy.vocabulary import children, subschemas

K: Any = {"pathWithin": {"roots": ["/r"]}}
YES, NO, BOTH, NOWHERE = Side.POSITIVE, Side.NEGATIVE, Side.BOTH, Side.NOWHERE


class Counted(dict[str, Any]):
    """It tells how often it was asked."""

    asked = 0

    def __getitem__(self, key: str) -> Any:
        self.asked += 1
        return super().__getitem__(key)


def found(schema: Any) -> dict[str, Side]:
    """The sides of a schema's keywords, without the name of the one that is used here."""
    parts = Counted(subschemas(schema))
    steps = {at: tuple(step for step, _ in children(part)) for at, part in parts.items()}
    said = sides(parts, steps)
    assert parts.asked <= 4 * len(parts), "each part twice for each side, however many ways lead there"
    assert all(pointer.endswith("/pathWithin") for pointer in said)
    return {pointer.removesuffix("/pathWithin"): side for pointer, side in said.items()}


SIDES: list[tuple[Any, dict[str, Side]]] = [
    (True, {}),
    ({"type": "object"}, {}),
    (K, {"": YES}),
    ({"not": K}, {"/not": NO}),
    ({"not": {"not": K}}, {"/not/not": YES}),
    ({"allOf": [K, {"not": K}]}, {"/allOf/0": YES, "/allOf/1/not": NO}),
    ({"anyOf": [True, K]}, {"/anyOf/1": YES}),
    ({"if": K, "then": K, "else": K}, {"/if": BOTH, "/then": YES, "/else": YES}),
    ({"oneOf": [K]}, {"/oneOf/0": BOTH}),
    ({"not": {"oneOf": [K]}}, {"/not/oneOf/0": BOTH}),
    ({"contains": K}, {"/contains": YES}),
    ({"contains": K, "minContains": 2}, {"/contains": YES}),
    ({"contains": K, "maxContains": 2}, {"/contains": BOTH}),
    ({"items": K, "contains": True, "maxContains": 2}, {"/items": YES}),
    ({"not": {"contains": K}}, {"/not/contains": NO}),
    ({"properties": {"a/b": K}}, {"/properties/a~1b": YES}),
    ({"$defs": {"k": K}}, {"/$defs/k": NOWHERE}),
    ({"$defs": {"k": K}, "$ref": "#/$defs/k"}, {"/$defs/k": YES}),
    ({"$defs": {"k": K}, "not": {"$ref": "#/$defs/k"}}, {"/$defs/k": NO}),
    ({"$defs": {"k": K}, "$ref": "#/$defs/k", "not": {"$ref": "#/$defs/k"}}, {"/$defs/k": BOTH}),
    ({"$defs": {"x": {"$anchor": "k", **K}}, "not": {"$ref": "#k"}}, {"/$defs/x": NO}),
    ({"$defs": {"x": {"$anchor": "k"}, "y": K}, "not": {"$ref": "#k"}}, {"/$defs/y": NOWHERE}),
    ({"$defs": {"x": {"$dynamicAnchor": "k", **K}}, "$ref": "#k"}, {"/$defs/x": YES}),
    ({"$defs": {"a b": {"not": K}}, "$ref": "#/$defs/a%20b"}, {"/$defs/a b/not": NO}),
    ({"allOf": [K], "unevaluatedProperties": False}, {"/allOf/0": BOTH}),
    ({"allOf": [K, {"unevaluatedItems": False}]}, {"/allOf/0": BOTH}),
    ({"$defs": {"x": {"$dynamicAnchor": "k", **K}}, "$dynamicRef": "#k"}, {"/$defs/x": BOTH}),
    ({"properties": {"pathWithin": K}, "const": K}, {"/properties/pathWithin": YES}),
]  # fmt: skip


# Four definitions that each name the next one twice: sixteen ways, and one thing to look at.
TWICE = {f"{n}": {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(4)}
SIDES.append(({"$ref": "#/$defs/0", "$defs": {**TWICE, "4": K}}, {"/$defs/4": YES}))


@pytest.mark.parametrize(("schema", "expected"), SIDES)
def test_each_keyword_stands_where_a_change_of_its_answer_leads(schema: Any, expected: Any) -> None:
    """Positive: one yes more can only make the schema match; negative: only keep it from matching."""
    assert found(schema) == expected


def keyword(side: Side | None) -> Any:
    """`pathWithin` as the engine makes it; None: at a place that nobody told of."""
    told = {} if side is None else {"/properties/a~1b/pathWithin": side}
    path: list[str | int] = ["properties", "a/b", "pathWithin"]
    made: Any = watch.keywords(told)["pathWithin"]
    return made({}, K["pathWithin"], path)


def says(side: Side | None, value: Any) -> bool:
    try:
        keyword(side).validate(value)
    except ValueError as no:
        return str(no) != "pathWithin"  # another error is none of its answers
    return True


@pytest.mark.parametrize(
    ("side", "high", "answer"),
    [(YES, True, True), (YES, False, False), (NO, True, False), (NO, False, True)],
)
def test_what_is_not_understood_is_answered_as_the_pass_wants_it(
    side: Side, *, high: bool, answer: bool
) -> None:
    """In the low pass so that the schema is the less likely to match, in the high one the more."""
    assert watch.run(lambda: says(side, ".."), high=high) == (answer, Pass(high, unsure=True))
    assert watch.run(lambda: says(side, "/r/x"), high=high) == (True, Pass(high))
    assert watch.run(lambda: says(side, "/e"), high=high) == (False, Pass(high))


@pytest.mark.parametrize("side", [BOTH, NOWHERE, None])
@pytest.mark.parametrize("high", [True, False])
def test_a_keyword_on_both_sides_or_on_none_that_is_known_loses_the_pass(
    side: Side | None, *, high: bool
) -> None:
    """No answer is harmless there, and what is understood is answered all the same."""
    assert watch.run(lambda: says(side, ".."), high=high)[1] == Pass(high, unsure=True, lost=True)
    assert watch.run(lambda: says(side, "/r/x"), high=high) == (True, Pass(high))


def test_outside_of_a_pass_a_keyword_answers_as_in_the_low_one() -> None:
    """Whoever asks the engine past `run` gets the answer that permits the less."""

    def unclear(_: Any) -> bool:
        raise NotUnderstood

    assert watch._answer(unclear, YES, "") is False
    assert watch._answer(unclear, NO, "") is True
    assert watch.run(lambda: None, high=True) == (None, Pass(high=True))
    assert watch._answer(unclear, YES, "") is False


@pytest.mark.parametrize("fault", [KeyError("x"), KeyboardInterrupt()])
def test_a_keyword_that_breaks_says_no_and_the_first_fault_comes_out(fault: BaseException) -> None:
    """The engine hears a no, which is no permit where it stands alone; `run` raises what broke first."""
    heard: list[bool] = []

    def broken(_: Any) -> bool:
        raise fault

    def later(_: Any) -> bool:
        raise RuntimeError

    def evaluate() -> None:
        heard.extend(watch._answer(one, YES, "") for one in (broken, later))

    with pytest.raises(type(fault)) as raised:
        watch.run(evaluate, high=True)
    assert raised.value is fault
    assert heard == [False, False]


def test_a_pass_that_breaks_leaves_nothing_behind() -> None:
    """The next question is not answered as the broken one wanted it."""

    def evaluate() -> None:
        raise NotUnderstood

    with pytest.raises(NotUnderstood):
        watch.run(evaluate, high=True)
    assert says(YES, "..") is False

"""Schemas with boundary keywords are reckoned as Kleene's logic of three values reckons them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from guard.policy.boundaries.verdict import NotUnderstood
from guard.policy.schema import compile_schema

WITHIN = {"pathWithin": {"roots": ["/r"]}}
VALUES = {"/r/x": True, "/e": False, "..": None}

SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.booleans(), st.sampled_from(["a", "b"]).map(lambda name: {"properties": {name: WITHIN}})),
    lambda inner: st.one_of(
        inner.map(lambda schema: {"not": schema}),
        st.lists(inner, min_size=1, max_size=3).map(lambda schemas: {"allOf": schemas}),
        st.lists(inner, min_size=1, max_size=3).map(lambda schemas: {"anyOf": schemas}),
    ),
    max_leaves=8,
)


def truth(schema: Any, values: dict[str, str]) -> bool | None:
    """Whether a schema matches; None where nobody knows."""
    if isinstance(schema, bool):
        return schema
    if "properties" in schema:
        (name,) = schema["properties"]
        return VALUES[values[name]]
    if "not" in schema:
        inner = truth(schema["not"], values)
        return None if inner is None else not inner
    decisive = "anyOf" in schema
    parts = [truth(part, values) for part in schema["anyOf" if decisive else "allOf"]]
    if decisive in parts:
        return decisive
    return None if None in parts else not decisive


@given(SCHEMAS, st.sampled_from([*VALUES]), st.sampled_from([*VALUES]))
def test_what_is_not_understood_is_reckoned_as_the_third_value(source: Any, first: str, second: str) -> None:
    """A rule that forbids knows what the logic knows, else it fails; an intent matches only what is true."""
    schema = compile_schema(source)
    expected = truth(source, {"a": first, "b": second})
    for arguments in ({"a": first, "b": second}, {"b": second, "a": first}):
        try:
            found = schema.matches(arguments)
        except NotUnderstood:
            found = None
        assert found is expected
        assert schema.surely(arguments) is (expected is True)

"""JSON pointers into arguments: each finds one place, and no spelling finds another one's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.canonical import escape
from guard.policy.pointers import MISSING, segments, value_at, values_at

DOCUMENT: dict[str, Any] = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}
RFC = {
    "": DOCUMENT, "/foo": ["bar", "baz"], "/foo/0": "bar", "/": 0, "/a~1b": 1, "/c%d": 2, "/e^f": 3,
    "/g|h": 4, "/i\\j": 5, '/k"l': 6, "/ ": 7, "/m~0n": 8,
}  # fmt: skip
documents = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("a/~*01-", max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("pointer", RFC)
def test_the_examples_of_rfc_6901(pointer: str) -> None:
    """Section 5, as it stands there."""
    assert value_at(DOCUMENT, pointer) == RFC[pointer]


@pytest.mark.parametrize("pointer", ["a", "#/a", "/~", "/~2", "/a~", "/~~0", "~0"])
def test_what_is_no_pointer_is_an_error(pointer: str) -> None:
    """A tilde escapes `0` or `1`; a pointer begins with a slash."""
    with pytest.raises(ValueError, match="not a JSON pointer"):
        segments(pointer)


@pytest.mark.parametrize(
    "pointer",
    ["/foo/2", "/foo/-", "/foo/00", "/foo/01", "/foo/-1", "/foo/+0", "/foo/\u0660", "/foo/1e0", "/foo/0.0",
     "/foo/ 0", "/foo/bar", "/foo/0/0", "/foo/", "/nothing", "/0", "/foo/9999999999999999999999"],
)  # fmt: skip
def test_what_is_not_there_is_missing(pointer: str) -> None:
    """No index but digits without a leading zero, and nothing inside a text."""
    assert value_at(DOCUMENT, pointer) is MISSING
    assert [*values_at(DOCUMENT, pointer)] == []


def test_a_star_is_each_member_or_item_and_plain_where_it_is_not_wild() -> None:
    """A member that is called `*` is one of them; `value_at` finds only that one."""
    document = {"to": [{"name": "a"}, {"name": "b"}, "c", {"*": "d"}], "*": 1}
    assert [*values_at(document, "/to/*/name")] == [("/to/0/name", "a"), ("/to/1/name", "b")]
    assert [value for _, value in values_at(document, "/*")] == [document["to"], 1]
    assert value_at(document, "/*") == 1
    assert value_at(document, "/to/*") is MISSING
    assert value_at(document, "/to/3/*") == "d"


@given(documents, st.data())
def test_every_place_has_one_pointer_and_no_other_finds_it(document: Any, data: st.DataObject) -> None:
    """Each is found by its own; one step further there is what stands there, or nothing."""
    found = dict(_everything(document, ""))
    assert found
    pointer = data.draw(st.sampled_from(sorted(found)))
    assert value_at(document, pointer) is found[pointer]
    beyond = pointer + "/" + escape(data.draw(st.text("a/~*01-", max_size=3)))
    assert (value_at(document, beyond) is MISSING) == (beyond not in found)


@given(documents)
def test_what_a_star_finds_says_where_it_stands(document: Any) -> None:
    """Each value comes with the one pointer that finds it again."""
    for pattern in ("/*", "/*/*", "/a/*", "/*/0"):
        for pointer, value in values_at(document, pattern):
            assert value_at(document, pointer) is value


def _everything(document: Any, at: str) -> list[tuple[str, Any]]:
    inside = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    return [
        (at, document),
        *(one for name, value in inside for one in _everything(value, f"{at}/{escape(str(name))}")),
    ]

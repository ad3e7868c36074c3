"""The traps of YAML, each refused with its line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.errors import GuardError
from guard.policy.globs import fits
from guard.policy.instants import milliseconds
from guard.policy.reading import MAX_BYTES, read


def refusal(text: str) -> GuardError:
    with pytest.raises(GuardError) as raised:
        read(text.encode(), name="f.yaml")
    return raised.value


@pytest.mark.parametrize(
    "word",
    """no No NO yes on OFF True FALSE Null ~ = .inf -.Inf .nan 012 0o17 0x1F 0b1 1_000 +1 1. .5 12:30
    190:20:30""".split(),  # noqa: SIM905 - a list of words
)
def test_norway(word: str) -> None:
    """A plain word that readers of YAML disagree on is refused; quoted it is a string."""
    error = refusal(f"a: 1\nb: {word}\n")
    assert error.where == "f.yaml:2"
    assert error.remedy
    assert read(f"b: '{word}'".encode(), name="f").value == {"b": word}


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "twice"),
        ("a:\n  b: 1\n  'b': 2\n", 3, "twice"),
        ("a: &x 1\nb: *x\n", 1, "anchors"),
        ("a: 1\nb:\n  <<: {c: 1}\n", 3, "different things"),
        ("a: 1\nb: !!str 1\n", 2, "tags"),
        ("a: 1\nb: !<tag:x> 1\n", 2, "tags"),
        ("a: 1\nb: ! 1\n", 2, "tags"),
        ("a: 1\n---\nb: 1\n", 2, "second document"),
        ("%YAML 1.1\n---\na: 1\n", 1, "directive"),
        ("a: 1\n1: 2\n", 2, "not a string"),
        ("a: 1\nnull: 2\n", 2, "not a string"),
        ("a: 1\n? [x]\n: 2\n", 2, "not a string"),
        ("a: 1\nb:\nc: 2\n", 2, "missing"),
        ("a: 9007199254740992\n", 1, "2^53"),
        (f"a: {'9' * 10_000}\n", 1, "2^53"),
        ("a: 1e999\n", 1, "double"),
        ("a: 1\n\tb: 2\n", 2, "not YAML"),
        ('a: 1\nb: "\\ud800"\n', 2, ""),
        ("a: 1\nb: \x07\n", 2, "not YAML"),
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ('{"a": 1,\n "a": 2}', 2, "duplicate"),
        ('{"a": 1,\n "b": 12345678901234567890}', 2, "2^53"),
        ('{"a": 1,\n "b": NaN}', 2, "not JSON"),
        ('{"a": 1,\n}', 2, "not JSON"),
        ('{"a": 1}\n// end', 2, "not JSON"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(text: str, line: int, word: str) -> None:
    """Duplicates, aliases, merge keys, tags, odd keys and unsafe numbers are refused with their line."""
    error = refusal(text)
    assert error.where == f"f.yaml:{line}"
    assert word in error.what


def test_an_alias_bomb_is_refused_at_its_first_anchor() -> None:
    """The billion laughs end before the second."""
    bomb = "a: &a [x]\n" + "".join(f"k{i}: &k{i} [*a, *a, *a]\n" for i in range(50))
    assert "anchors" in refusal(bomb).what


@pytest.mark.parametrize(
    "text", ["[" * 100, "- " * 100 + "x", '{"a":' * 100 + "1" + "}" * 100, "{" + '"a": [' + "[" * 99]
)
def test_depth_is_bounded(text: str) -> None:
    """A document that nests deeper than 64 levels is refused before it is built."""
    assert "deeper" in refusal(text).what


def test_size_is_bounded() -> None:
    """More than a mebibyte is not looked at."""
    with pytest.raises(GuardError, match="1048577 bytes"):
        read(b"#" * (MAX_BYTES + 1), name="f.yaml")


def test_not_utf8() -> None:
    """Bytes that are not UTF-8 name their line."""
    with pytest.raises(GuardError) as raised:
        read(b"a: 1\nb: \xff\n", name="f.yaml")
    assert raised.value.where == "f.yaml:2"


def test_a_hostile_name_is_escaped() -> None:
    """The name of a file cannot steer a terminal."""
    with pytest.raises(GuardError) as raised:
        read(b"", name="\x1b[31mred")
    assert "\x1b" not in str(raised.value)


def test_plain_values_are_those_of_json() -> None:
    """null, booleans and numbers in the spelling of JSON; times and everything else are strings."""
    text = b"# comment\na: [null, true, false, 0, -7, 1.5, 2e3]\n"
    text += b"b: 2027-01-01T00:00:00Z\nc: git:read\nd: |\n  x\n"
    read_text = read(text, name="f")
    assert read_text.value == {
        "a": [None, True, False, 0, -7, 1.5, 2000.0],
        "b": "2027-01-01T00:00:00Z",
        "c": "git:read",
        "d": "x\n",
    }
    assert [type(item) for item in read_text.value["a"]] == [type(None), bool, bool, int, int, float, float]
    assert (read_text.lines["/a/3"], read_text.lines["/d"], read_text.where("/b/gone")) == (2, 5, "f:3")


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53) + 1, 2**53 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values, max_size=5), st.sampled_from((None, 1)))
def test_json_reads_as_json(value: dict[str, Any], indent: int | None) -> None:
    """A JSON document gives the values that JSON says, and every one of them has a line."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    found = read(text.encode(), name="f.json")
    assert found.value == value
    assert set(found.lines) == set(_pointers(value, ""))
    assert max(found.lines.values()) <= text.count("\n") + 1


def _pointers(value: Any, pointer: str) -> list[str]:
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    below = [_pointers(v, f"{pointer}/{str(k).replace('~', '~0').replace('/', '~1')}") for k, v in members]
    return [pointer, *(inner for found in below for inner in found)]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Whatever the bytes, there is a value or a GuardError that says where."""
    refused: GuardError | None = None
    try:
        read(data, name="f")
    except GuardError as error:
        refused = error
    assert refused is None or (refused.where.startswith("f:") and refused.remedy)


@pytest.mark.parametrize(
    ("pattern", "name", "fitting"),
    [
        ("git_*", "git_", True),
        ("git_*", "git", False),
        ("*", "", True),
        ("**", "x", True),
        ("?", "", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("*.read", "x.read", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "acb", False),
        ("ab*ba", "aba", False),
        ("*?b?*", "abc", True),
        ("*?b?*", "ab", False),
        ("Git", "git", False),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("a.c", "abc", False),
        ("é*", "e\u0301x", False),
    ],
)
def test_globs(pattern: str, name: str, fitting: bool) -> None:  # noqa: FBT001
    """`*` and `?` and nothing else; case and code points count."""
    assert fits(pattern, name) is fitting


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_globs_agree_with_the_plain_definition(pattern: str, name: str) -> None:
    """The linear matcher says what the recursive definition says."""

    def fitting(p: str, n: str) -> bool:
        if not p:
            return not n
        if p[0] == "*":
            return any(fitting(p[1:], n[i:]) for i in range(len(n) + 1))
        return bool(n) and p[0] in ("?", n[0]) and fitting(p[1:], n[1:])

    assert fits(pattern, name) == fitting(pattern, name)


@pytest.mark.parametrize(
    "text",
    [
        "2027-01-01",
        "2027-01-01T00:00:00",
        "2027-02-30T00:00:00Z",
        "2027-01-01 00:00:00Z",
        "٢027-01-01T00:00:00Z",
        "2027-W01-1T00:00:00Z",
    ],
)
def test_a_time_without_an_offset_is_refused(text: str) -> None:
    """Only RFC 3339 with an offset says when."""
    with pytest.raises(ValueError, match=r"RFC 3339|day|range"):
        milliseconds(text)


def test_times_are_milliseconds() -> None:
    """Offsets and fractions count; what is finer than a millisecond is cut off."""
    assert milliseconds("1970-01-01T01:00:00.0019+01:00") == 1

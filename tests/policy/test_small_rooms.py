"""The small rooms below the policy, asked directly: lines, references, zones, globs, pointers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from guard.policy.globs import fits, is_glob, overlap
from guard.policy.instants import milliseconds, span
from guard.policy.places import Places
from guard.policy.pointers import MISSING, segments, value_at, values_at
from guard.policy.references import resolve
from guard.policy.zones import zone

# -- lines of a JSON text --------------------------------------------------------------------------------

TEXT = """{
  "a": [1,
    {"b": "x,\\n:{",
     "c/d~": null}, [],
    true],

  "a": 2, "e": {}
}
"""


def test_every_value_stands_on_its_line() -> None:
    """Objects and lists on the line on which they open, of a name that stands twice the last."""
    places = Places(TEXT)
    assert places.lines == {
        "": 1,
        "/a": 7,
        "/a/0": 2,
        "/a/1": 3,
        "/a/1/b": 3,
        "/a/1/c~1d~0": 4,
        "/a/2": 4,
        "/a/3": 5,
        "/e": 7,
    }
    assert places.depth == 3


@pytest.mark.parametrize(
    ("text", "lines", "depth"),
    [
        ("", {}, 0),
        ("\n\n7", {"": 3}, 0),
        ("[]", {"": 1}, 1),
        ("[[\n1],\n2]", {"": 1, "/0": 1, "/0/0": 2, "/1": 3}, 2),
        ('{"x":{"y":\n1},"z":2}', {"": 1, "/x": 1, "/x/y": 2, "/z": 2}, 2),
        (
            '{"x":[{"y":1}],"z":[3,4]}',
            dict.fromkeys(["", "/x", "/x/0", "/x/0/y", "/z", "/z/0", "/z/1"], 1),
            3,
        ),
        ('{"\\u0061\\"":1}', {"": 1, '/a"': 1}, 1),
        ('{"a\nb": 1}', {"": 1, '/"a\nb"': 1}, 1),
        ('{"\\x": 1}', {"": 1, '/"\\x"': 1}, 1),
        ("{a: 1}", {"": 1, "/a": 1}, 1),
        ("{:1}", {"": 1, "/": 1}, 1),
        ("{ab: 12}", {"": 1, "/ab": 1}, 1),
        ('[a{"x":\n1}]', {"": 1, "/0": 1, "/0/x": 2}, 2),
        ("[a[\n1]]", {"": 1, "/0": 1, "/0/0": 2}, 2),
        ('[1"a\n,", 2]', {"": 1, "/0": 1, "/1": 1}, 1),
        ('["a\\\\", "b\\"]",\n3]', {"": 1, "/0": 1, "/1": 1, "/2": 2}, 1),
        ("[X,\nXX,\n1]", {"": 1, "/0": 1, "/1": 2, "/2": 3}, 1),
        (",]}:,\n1", {"": 2}, 0),
        ("1\n2", {"": 2}, 0),
        ("]]\n[1,\n2]", {"": 2, "/0": 2, "/1": 3}, 1),
        ('{"a":1]\n,[1]', {"": 2, "/a": 1, "/0": 2}, 1),
    ],
)
def test_what_is_no_json_gets_the_lines_it_gets(text: str, lines: dict[str, int], depth: int) -> None:
    """It only counts, and breaks at nothing."""
    places = Places(text)
    assert places.lines == lines
    assert places.depth == depth


# -- references inside one schema ------------------------------------------------------------------------

ROOT: dict[str, Any] = {
    "$defs": {
        "a/b": {"x": 1},
        "m~n": {"x": 2},
        "p q": {"x": 3},
        "~1": {"x": 4},
        "": {"x": 5},
        "named": {"$anchor": "here"},
        "moving": [{"$dynamicAnchor": "there"}, {"allOf": [{"$anchor": "deep"}]}],
    },
    "allOf": [{"y": 1}, {"y": 2}],
    "word": "text",
    "$anchor": "top",
}


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("#", ROOT),
        ("#top", ROOT),
        ("#/$defs/a~1b", {"x": 1}),
        ("#/$defs/m~0n", {"x": 2}),
        ("#/$defs/p%20q", {"x": 3}),
        ("#/$defs/~01", {"x": 4}),
        ("#/$defs/", {"x": 5}),
        ("#/allOf/0", {"y": 1}),
        ("#/allOf/1", {"y": 2}),
        ("#/allOf/1/y", 2),
        ("#/word", "text"),
        ("#here", {"$anchor": "here"}),
        ("#there", {"$dynamicAnchor": "there"}),
        ("#deep", {"$anchor": "deep"}),
        ("#h%65re", {"$anchor": "here"}),
        *(
            (nowhere, None)
            for nowhere in (
                *(
                    "",
                    "/word",
                    "word",
                    "other.json#/word",
                    "https://example.com/#top",
                    "#nowhere",
                    "#/nowhere",
                ),
                *(
                    "#/allOf/2",
                    "#/allOf/-1",
                    "#/allOf/01",
                    "#/allOf/y",
                    "#/word/0",
                    "#/word/x",
                    "#/allOf/0/y/z",
                ),
            )
        ),
    ],
)
def test_a_reference_finds_its_place_or_nothing(reference: str, found: Any) -> None:
    """JSON pointers, anchors of both kinds, escapes of URIs; nothing outside of the document."""
    assert resolve(ROOT, reference) is found or resolve(ROOT, reference) == found
    assert (resolve(ROOT, reference) is None) is (found is None)


def test_the_first_anchor_is_searched_through_lists_and_objects_and_past_plain_values() -> None:
    """What is neither is passed over, before and after."""
    assert resolve([1, {"n": "x"}, [{"$anchor": "a", "n": 1}], None], "#a") == {"$anchor": "a", "n": 1}
    assert resolve("text", "#a") is None
    assert resolve([{"$anchor": "other"}], "#a") is None


# -- zones -----------------------------------------------------------------------------------------------


def test_a_zone_has_its_rules_and_its_name() -> None:
    """Summer and winter; a name in several parts."""
    berlin = zone("Europe/Berlin")
    assert (berlin.key, zone("UTC").key) == ("Europe/Berlin", "UTC")
    assert [datetime(2027, month, 1, tzinfo=UTC).astimezone(berlin).hour for month in (1, 7)] == [1, 2]
    assert zone("America/Argentina/Ushuaia").key == "America/Argentina/Ushuaia"


@pytest.mark.parametrize(
    "name", ["", "../zones", "Europe/../UTC", "Europe", "europe/nowhere", "zones", "__init__.py"]
)
def test_a_name_of_no_zone_is_repeated_with_two_that_are(name: str) -> None:
    """The whole sentence."""
    with pytest.raises(ValueError) as failed:  # noqa: PT011 - the whole text is compared
        zone(name)
    assert str(failed.value) == f"no time zone is called `{name}`, such as Europe/Berlin or UTC"


# -- times -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00-01:30", 5_400_000),
        ("1970-01-01T00:00:00+00:30", -1_800_000),
        ("1970-01-01T00:00:00.1Z", 100),
        ("1970-01-01T00:00:00.123456Z", 123),
    ],
)
def test_offsets_count_in_both_directions_and_parts_of_a_second_to_the_sixth(
    text: str, expected: int
) -> None:
    """West of Greenwich it is later in UTC."""
    assert milliseconds(text) == expected


@pytest.mark.parametrize(
    "end", [",5Z", ".Z", ".1234567Z", "x5Z", "z", "+0130", "+01", "+01:30:00", " Z", "Z\n", ""]
)
def test_what_another_reader_takes_for_a_time_is_none_here(end: str) -> None:
    """ISO 8601 has more forms than RFC 3339, and Python reads them."""
    with pytest.raises(ValueError, match=r"^not an RFC 3339 date-time with an offset"):
        milliseconds(f"1970-01-01T00:00:00{end}")


def test_a_span_of_any_length_is_refused_in_the_same_words() -> None:
    """Also one of more digits than Python reads as a number."""
    for text in ("9999999d", "10000000s", f"{'1' * 5000}s"):
        with pytest.raises(ValueError, match=r"^not a time from 1s to 31d, such as 90s, 15m, 24h or 7d$"):
            span(text)


# -- globs and pointers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "glob"), [("", False), ("a", False), ("*", True), ("?", True), ("a?*", True)]
)
def test_a_glob_has_a_star_or_a_question_mark(pattern: str, glob: bool) -> None:  # noqa: FBT001
    """Brackets are letters."""
    assert is_glob(pattern) is glob
    assert not is_glob("[ab]")


@pytest.mark.parametrize(
    ("pattern", "name", "fitting"),
    [
        ("ab*bc", "abc", False),
        ("ab*bc", "abbc", True),
        ("a*b*b", "ab", False),
        ("a*?*b", "ab", False),
        ("a*?*b", "axb", True),
        ("*ab*", "xabx", True),
        ("*a?*", "xa", False),
        ("*a?*", "xab", True),
        ("*a*b*", "ba", False),
        ("*a*b*", "bba", False),
        ("*aa*aa*", "aaa", False),
        ("*aa*aa*", "aaaa", True),
        ("*a?*a?*", "aba", False),
        ("*a?*a?*", "abab", True),
        ("a?", "ab", True),
        ("a?", "abc", False),
        ("a?", "bb", False),
        ("?*?", "a", False),
        ("?*?", "ab", True),
        ("x*", "ax", False),
        ("*x", "xa", False),
        ("X*", "XX", True),
    ],
)
def test_pieces_of_a_glob_stand_one_after_the_other(pattern: str, name: str, fitting: bool) -> None:  # noqa: FBT001
    """None overlaps its neighbour, the first begins the name and the last ends it."""
    assert fits(pattern, name) is fitting


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("a*", "*b", True),
        ("a*", "b*", False),
        ("X", "X", True),
        ("X", "?", True),
        ("a", "b", False),
        ("a", "", False),
        ("", "", True),
        ("", "*", True),
        ("", "**", True),
        ("*", "", True),
        ("a", "a*", True),
        ("ab", "a", False),
        ("ab", "a*b*", True),
        ("a?c", "ab*", True),
        ("*a", "*b", False),
        ("a*b", "a?", True),
        ("a*b", "a", False),
    ],
)
def test_two_globs_share_a_name_or_do_not(one: str, other: str, both: bool) -> None:  # noqa: FBT001
    """Whichever of them is asked first."""
    assert overlap(one, other) is both
    assert overlap(other, one) is both


def test_a_pointer_finds_what_stands_there_and_says_where() -> None:
    """Members, items, the whole document; each with the pointer that was meant."""
    document = {"a": [{"b/c": 1}, {"b/c": 2}], "*": [0]}
    assert list(values_at(document, "")) == [("", document)]
    assert list(values_at(document, "/a/*/b~1c")) == [("/a/0/b~1c", 1), ("/a/1/b~1c", 2)]
    assert list(values_at(document, "/a/1/b~1c")) == [("/a/1/b~1c", 2)]
    assert list(values_at(document, "/*/0", wild=False)) == [("/*/0", 0)]
    assert list(values_at(document, "/a/*", wild=False)) == []
    assert list(values_at([[1], 2], "/*/*")) == [("/0/0", 1)]
    assert value_at(None, "") is None
    assert value_at(document, "/a/2") is MISSING
    assert [value_at(list(range(300)), f"/{at}") for at in (0, 9, 10, 15, 99, 258)] == [0, 9, 10, 15, 99, 258]
    assert value_at([0, 1], f"/{'1' * 5000}") is MISSING
    assert value_at([0, 1], "/\u0661") is MISSING
    assert segments("") == []
    assert segments("/") == [""]
    assert segments("/a~1b/m~0n//~01") == ["a/b", "m~n", "", "~1"]

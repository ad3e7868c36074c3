"""Bounds of what origins look at: what lies at one is seen, what lies beyond is said to be missing."""

from __future__ import annotations

import base64

import pytest

from guard.core.model import Appearance
from guard.policy.origins import forms, shapes, values
from guard.policy.origins.fingerprints import keyed
from guard.policy.origins.identities import LONGEST, is_identity, is_name, standing
from guard.policy.origins.leaves import Leaf
from guard.policy.origins.values import OVERFLOW, Found, spoken

MAIL = "me@example.com"


def leaf(text: str | float, at: str = "/a", *, trust: str = "untrusted", whole: bool = True) -> Leaf:
    return Leaf(at, text, trust, whole)


@pytest.mark.parametrize("before", [2, 1000, 2034, 2035, 2047, 2048, 2050, 3840, 4000, 9000])
def test_an_address_in_a_long_piece_is_found_at_its_place(before: int) -> None:
    """Wherever the pieces of the piece end: they overlap."""
    text = f"see {'y/' * (before // 2)}{MAIL} end"
    found = [shape for shape in shapes.shapes(text) if ("text", MAIL) in shape.exact]
    places = {(shape.start, shape.end) for shape in found}
    assert places == {(text.index(MAIL), text.index(MAIL) + len(MAIL))}
    keys = {key for shape in shapes.shapes(text) for key in (*shape.exact, *shape.parts)}
    assert set(shapes.shown(text)) == keys


def test_a_piece_of_just_the_length_is_looked_at_whole() -> None:
    """And one that is longer in parts: its whole is no path."""
    name = "a" * (shapes.LONGEST - 4)
    assert ("path", f"{name}/b.c") in set(shapes.shown(f"{name}/b.c"))
    assert ("path", f"x{name}/b.c") not in set(shapes.shown(f"x{name}/b.c"))
    assert [shape.exact for shape in shapes.shapes(f"{name}/b.c")] == [(("path", f"{name}/b.c"),)]
    assert [*shapes.shown("plain words say nothing")] == []


def test_characters_are_counted_over_all_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last that fits is read; with one more the memory is not whole."""
    monkeypatch.setattr(values, "LONGEST", 10)
    found = Found()
    found.take(leaf("abcde"))
    found.take(leaf("fghij"))
    assert not found.is_full
    assert {("text", "abcde"), ("text", "fghij")} <= found.keys
    found.take(leaf("abcde"))  # known already
    assert not found.is_full
    found.take(leaf("k"))
    assert found.is_full
    assert ("text", "k") not in found.keys


def test_a_text_that_does_not_fit_is_read_as_far_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the memory is not whole."""
    monkeypatch.setattr(values, "LONGEST", 5)
    found = Found()
    found.take(leaf("abcdefgh"))
    assert found.is_full
    assert ("text", "abcde") in found.keys


def test_values_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there may be, and a known one again; one more, and the memory is not whole."""
    monkeypatch.setattr(values, "MOST", 2)
    found = Found()
    found.add(leaf("x"), [("text", "a"), ("text", "b"), ("text", "a")])
    assert (set(found.keys), found.is_full) == ({("text", "a"), ("text", "b")}, False)
    found.add(leaf("x"), [("text", "c")])
    assert (set(found.keys), found.is_full) == ({("text", "a"), ("text", "b")}, True)
    mark = keyed(b"s")(*OVERFLOW)
    assert (mark, Appearance("tool:s/t", "untrusted")) in found.as_glimpses("tool:s/t", b"s")


def test_of_several_leaves_the_first_of_the_least_trusted_shows_a_value() -> None:
    """Also where two founds are put together; what is full stays full."""
    found, other = Found(), Found()
    for at, trust in (("/1", "trusted"), ("/2", "mixed"), ("/3", "mixed"), ("/4", "trusted")):
        found.add(leaf("x", at, trust=trust), [("text", "a")])
    assert found._places["text", "a"].at == "/2"
    other.add(leaf("x", "/5"), [("text", "a"), ("text", "b")])
    found.merge(other, but={("text", "b")})
    assert (found._places["text", "a"].at, ("text", "b") in found.keys) == ("/5", False)
    assert not found.is_full
    for one, two in ((True, False), (False, True)):
        found.is_full, other.is_full = one, two
        found.merge(other, but=set())
        assert found.is_full


def test_encodings_are_undone_as_often_as_is_said() -> None:
    """DEPTH times, one within the other; not once more."""
    text = MAIL
    for depth in range(values.DEPTH + 2):
        found = Found()
        found.take(leaf(text))
        assert (("text", MAIL) in found.keys) is (depth <= values.DEPTH), depth
        text = base64.b64encode(text.encode()).decode().rstrip("=")


def test_what_the_user_says_does_not_stand_for_itself() -> None:
    """A number alone is no identity because the user said it: it is what was said."""
    fingerprint = keyed(b"s")
    said = dict(spoken("12", b"s"))
    assert fingerprint("text", "12") in said
    assert fingerprint("identity", "12") not in said


@pytest.mark.parametrize("length", [LONGEST, LONGEST + 1])
def test_an_identity_and_a_name_are_short(length: int) -> None:
    """A longer text says no thing's name."""
    text = "a" * length
    assert is_identity(leaf(text, "/id")) is (length == LONGEST)
    assert is_name(leaf(text, "/name"), text, text) is (length == LONGEST)
    assert standing(leaf("x", "/name")) == (False, True)
    assert standing(leaf("x", "/other")) == (False, False)
    assert standing(Leaf("/other", "x", "trusted", name=True)) == (False, True)


# -- encodings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["base64", "hex", "spelled"])
def test_only_so_many_encoded_pieces_are_looked_into(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones."""
    monkeypatch.setattr(forms, "MOST_ENCODED", 2)
    names = ["one at home", "two at home", "six at home"]
    form = {
        "base64": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
        "hex": lambda text: text.encode().hex(),
        "spelled": lambda text: "-".join(text.replace(" ", "_")),
    }[kind]
    said = {one.replace("_", " ") for one in forms.unwrapped(" , ".join(map(form, names)))}
    assert {name for name in names if name in said} == set(names[:2])


@pytest.mark.parametrize("gap", [0, 1, 2 * forms.REACH, 2 * forms.REACH + 1, 3 * forms.REACH + 1])
def test_escapes_that_are_near_are_read_together(gap: int) -> None:
    """With what stands around them, and no more of it than is said."""
    text = f"{'x' * 100}%41{'y' * gap}%42{'z' * 100}"
    found = [*forms._around(text, forms._PERCENT)]
    reach = forms.REACH
    if gap <= 2 * reach:
        assert found == [f"{'x' * reach}%41{'y' * gap}%42{'z' * reach}"]
    else:
        assert found == [f"{'x' * reach}%41{'y' * reach}", f"{'y' * reach}%42{'z' * reach}"]
    assert [*forms._around("%41", forms._PERCENT)] == ["%41"]
    assert [*forms._around("none", forms._PERCENT)] == []


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        ("aGVsbG8gd29ybGQ", "hello world"),
        ("aGVsbG8gd29ybGQx", "hello world1"),
        ("aGVsbG8gd29ybGQxa", "hello world1"),
        ("w78-w78_", "\u00ff>\u00ff?"),
        ("helloworld", None),
        ("HELLOWORLD", None),
        ("Helloworld", None),
        ("////////", None),
    ],
)
def test_base64_is_read_in_both_alphabets_and_cut_anywhere(piece: str, expected: str | None) -> None:
    """What is a word is none, nor is what nobody could have meant as text."""
    assert forms._from_base64(piece) == expected


@pytest.mark.parametrize(
    ("data", "readable"),
    [
        (b"a" * 9 + b"\x00", True),
        (b"a" * 8 + b"\x00", False),
        (b"\t\r\n", True),
        (b"", False),
        (b"\xff", False),
    ],
)
def test_a_tenth_of_what_somebody_meant_may_be_unreadable(data: bytes, readable: bool) -> None:  # noqa: FBT001
    """Not more."""
    assert (forms._readable(data) is not None) is readable


def test_a_surrogate_breaks_nothing() -> None:
    """Neither where a text is wrapped nor where it is quoted-printable."""
    assert "\ud800"[::-1] in [*forms.wrapped("\ud800")]
    assert [*forms.unwrapped("=41\ud800")] == ["A?"]
    assert "\ufffd" in "".join(forms.unwrapped("=FF=FE x"))

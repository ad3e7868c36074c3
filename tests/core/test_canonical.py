"""The strict reader and the canonical writer against RFC 8785, RFC 7493 and hostile bytes."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
import rfc8785
from hostile_json import NOT_IJSON, NOT_JSON
from hypothesis import example, given
from hypothesis import strategies as st

from guard.core.canonical import (
    MAX_DEPTH,
    MAX_SAFE_INTEGER,
    NotIJson,
    NotJson,
    b64,
    canonical,
    check,
    digest,
    read,
    sha256,
    unb64,
    write,
)

whole_text = st.text(st.characters(exclude_categories=["Cs"]))
safe_integers = st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
finite = st.floats(allow_nan=False, allow_infinity=False)
ijson = st.recursive(
    st.none() | st.booleans() | safe_integers | finite | whole_text,
    lambda members: st.lists(members, max_size=5) | st.dictionaries(whole_text, members, max_size=5),
    max_leaves=20,
)

# RFC 8785 appendix B: the bits of a double, and how ECMAScript writes it.
NUMBERS = {
    0x0000000000000000: "0",
    0x8000000000000000: "0",
    0x0000000000000001: "5e-324",
    0x8000000000000001: "-5e-324",
    0x7FEFFFFFFFFFFFFF: "1.7976931348623157e+308",
    0xFFEFFFFFFFFFFFFF: "-1.7976931348623157e+308",
    0x4340000000000000: "9007199254740992",
    0xC340000000000000: "-9007199254740992",
    0x4430000000000000: "295147905179352830000",
    0x44B52D02C7E14AF5: "9.999999999999997e+22",
    0x44B52D02C7E14AF6: "1e+23",
    0x44B52D02C7E14AF7: "1.0000000000000001e+23",
    0x444B1AE4D6E2EF4E: "999999999999999700000",
    0x444B1AE4D6E2EF4F: "999999999999999900000",
    0x444B1AE4D6E2EF50: "1e+21",
    0x3EB0C6F7A0B5ED8C: "9.999999999999997e-7",
    0x3EB0C6F7A0B5ED8D: "0.000001",
    0x41B3DE4355555553: "333333333.3333332",
    0x41B3DE4355555554: "333333333.33333325",
    0x41B3DE4355555555: "333333333.3333333",
    0x41B3DE4355555556: "333333333.3333334",
    0x41B3DE4355555557: "333333333.33333343",
    0xBECBF647612F3696: "-0.0000033333333333333333",
    0x43143FF3C1CB0959: "1424953923781206.2",
}


@given(ijson)
@example({"\ue000": 1, "\U0001f600": 2})
@example({"\ud7ff": 1, "\ue000": 2, "a": [1.0, -0.0, 1e21, 1e-7]})
@example('\x7f\u0080\u2028\u2029\b\f\n\r\t"\\/\x00\x1f')
def test_canonical_bytes_are_those_of_rfc8785(value: Any) -> None:
    """Whichever way the writer takes, its bytes are those of an independent RFC 8785 library."""
    assert canonical(value) == rfc8785.dumps(value)


@given(ijson)
def test_key_order_does_not_change_the_digest(value: Any) -> None:
    """Two texts of one value that differ in key order and spacing have one digest."""
    shuffled = json.dumps(_reversed(value), indent=2).encode()
    assert digest(read(shuffled)) == digest(value)


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [_reversed(member) for member in value]
    return value


@given(ijson)
def test_reading_what_was_written_gives_the_same_value(value: Any) -> None:
    """`read` after `write` is the value itself, with types and key order."""
    assert repr(read(write(value))) == repr(value)


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items(), ids=NUMBERS.values())
def test_numbers_are_written_as_in_rfc8785_appendix_b(bits: int, text: str) -> None:
    """Each double of the RFC's table comes out as the table says."""
    (number,) = struct.unpack(">d", bits.to_bytes(8, "big"))
    assert canonical(number) == text.encode()


@pytest.mark.parametrize("bits", [0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000, 0xFFF0000000000000])
def test_numbers_that_are_not_finite_have_no_canonical_form(bits: int) -> None:
    """NaN and both infinities are refused, as RFC 8785 section 3.2.2.3 demands."""
    (number,) = struct.unpack(">d", bits.to_bytes(8, "big"))
    with pytest.raises(NotIJson):
        canonical(number)


def test_keys_are_sorted_by_utf16_code_units() -> None:
    """The sample of RFC 8785 section 3.2.3: an emoji sorts before U+FB33 although it is above it."""
    text = rb"""{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh",
        "1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control",
        "\u00f6":"Latin Small Letter O With Diaeresis"}"""
    values = [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]
    assert list(json.loads(canonical(read(text))).values()) == values


def test_the_sample_of_rfc8785_section_3_2_gives_its_bytes() -> None:
    """Numbers, escapes and literals of the RFC's sample object come out as its section 3.2.4 says."""
    text = rb"""{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"""
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical(read(text)) == expected.encode()


@pytest.mark.parametrize("data", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_refused(data: bytes) -> None:
    """Bytes outside RFC 8259 never give a value."""
    with pytest.raises(NotJson):
        read(data)


@pytest.mark.parametrize("data", [data for data, _ in NOT_IJSON.values()], ids=NOT_IJSON)
def test_what_is_json_but_not_ijson_is_refused(data: bytes) -> None:
    """JSON that two readers could understand differently never gives a value."""
    with pytest.raises((NotJson, NotIJson)):
        read(data)


@pytest.mark.parametrize("data", [b"[" * 10_000, b'{"a":' * 100_000, b"[" * 10_000 + b"}" * 10_000])
def test_depth_cannot_exhaust_the_stack(data: bytes) -> None:
    """Ten thousand open containers end in a refusal, not in a RecursionError."""
    with pytest.raises(NotJson):
        read(data)


def test_the_deepest_allowed_value_has_a_canonical_form() -> None:
    """MAX_DEPTH levels are read and written, through either writer."""
    for leaf in (b"1", b"0.5"):
        data = b"[" * MAX_DEPTH + leaf + b"]" * MAX_DEPTH
        assert canonical(read(data)) == data


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({"a": [1, float("nan")]}, "/a/1"),
        ({"a": {"b/c": 2**53}}, "/a/b~1c"),
        (["\ud800"], "/0"),
        ({"x": {"\udc00": 1}}, "/x/\\udc00"),
        (10**30, ""),
    ],
)
def test_the_pointer_names_the_place(value: Any, pointer: str) -> None:
    """A value made in Python that has no canonical form is refused with the place, in encodable text."""
    with pytest.raises(NotIJson) as caught:
        canonical(value)
    assert caught.value.pointer == pointer
    assert caught.value.pointer.encode().decode() == pointer
    assert (pointer or "the top") in str(caught.value)


@pytest.mark.parametrize("value", [(1,), {1: 2}, {"a": b"x"}, {"a": {1}}, object()])
def test_what_is_no_json_type_is_an_error_of_the_programmer(value: Any) -> None:
    """Python values that JSON does not have raise TypeError and are never guessed at."""
    with pytest.raises(TypeError):
        check(value)


def test_a_subclass_of_a_json_type_is_not_taken_for_it() -> None:
    """A str or int subclass could print differently from how it compares."""

    class Sly(str):
        __slots__ = ()

    with pytest.raises(TypeError):
        canonical([Sly("a")])


@given(st.binary(max_size=100))
def test_base64url_has_one_spelling(data: bytes) -> None:
    """`unb64` undoes `b64`, and only that spelling."""
    text = b64(data)
    assert unb64(text) == data
    assert not set(text) & set("+/=")


@given(st.text("AEQgwZaz09-_+/=.\n ", max_size=12) | st.text(max_size=8))
@example("AAAA=")
@example("=")
@example("A===")
def test_base64url_is_read_as_a_slow_reader_reads_it(text: str) -> None:
    """What is taken is what comes out again, written by the standard library; nothing else is."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        slow = base64.urlsafe_b64decode(padded)
        good = base64.urlsafe_b64encode(slow).decode().rstrip("=") == text
    except ValueError:
        good = False
    if good:
        assert unb64(text) == slow
    else:
        with pytest.raises(ValueError, match=r".*"):
            unb64(text)


@pytest.mark.parametrize("text", [7, None, b"AAAA", ["AAAA"]])
def test_what_is_no_text_is_no_base64url(text: Any) -> None:
    """A value of another type is an error of the programmer."""
    with pytest.raises(TypeError):
        unb64(text)


@pytest.mark.parametrize("text", ["A", "AB", "AA==", "AAA=", "+/+/", "A A=", "AAAA\n", "AA.A", "\u0410AAA"])
def test_another_spelling_of_base64url_is_refused(text: str) -> None:
    """Padding, other alphabets, space and trailing bits that are not zero are no base64url."""
    with pytest.raises(ValueError, match=r".+"):
        unb64(text)


def test_sha256_is_base64url_of_the_digest() -> None:
    """The digest of nothing, in the form that every format of Guard uses."""
    assert sha256(b"") == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"

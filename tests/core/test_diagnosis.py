"""The slow reader agrees with the fast one, and names the place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hostile_json import NOT_IJSON, NOT_JSON
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guard.core.canonical import NotIJson, NotJson, read
from guard.core.diagnosis import diagnose

text = st.text(max_size=4)
any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**53 - 3, 2**53 + 3)
    | st.floats()
    | text
    | st.sampled_from(["\ud800", "\udc00", "\U0001f600"]),
    lambda members: st.lists(members, max_size=4) | st.dictionaries(text, members, max_size=4),
    max_leaves=12,
)
tokens = st.sampled_from(
    [
        *"{}[],:",
        " ",
        '""',
        '"a"',
        '"\\u0061"',
        '"\\ud800"',
        "0",
        "-0",
        "-1",
        "1.5",
        "1e5",
        "1e400",
        "-0.0",
        "9007199254740992",
        "true",
        "null",
        "NaN",
        "01",
        "\ufeff",
    ]
)
json_bytes = st.one_of(
    any_json.map(lambda value: json.dumps(value).encode()),
    any_json.map(
        lambda value: json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
    st.lists(tokens, max_size=12).map(lambda parts: "".join(parts).encode()),
    st.lists(st.tuples(text, any_json), max_size=4).map(
        lambda pairs: f"{{{','.join(f'{json.dumps(k)}:{json.dumps(v)}' for k, v in pairs)}}}".encode()
    ),
    st.binary(max_size=20),
)


def _fast(data: bytes) -> tuple[bool, Any]:
    try:
        return True, read(data)
    except (NotJson, NotIJson):
        return False, None


def _slow(data: bytes) -> tuple[bool, Any]:
    try:
        value, fault = diagnose(data)
    except NotJson:
        return False, None
    return fault is None, value if fault is None else None


@settings(max_examples=500)
@given(json_bytes)
@example(b"[" * 128 + b"]" * 128)
@example(b"[" * 129 + b"]" * 129)
@example(b"[" * 128 + b"{}" + b"]" * 128)
@example(b"1" * 4300 + b"e-4299")
@example(b"1" * 4301 + b"e-4300")
@example(b"-" + b"1" * 4301 + b".0e-4300")
@example(b"0." + b"1" * 5000)
@example(b"1e-" + b"0" * 5000 + b"1")
def test_the_two_readers_agree(data: bytes) -> None:
    """The fast reader takes exactly what the slow one finds no fault in, and reads the same value."""
    assert repr(_fast(data)) == repr(_slow(data))


@pytest.mark.parametrize("data", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_called_not_json(data: bytes) -> None:
    """The diagnosis of bytes outside RFC 8259 is NotJson, never a fault with a place."""
    with pytest.raises(NotJson):
        diagnose(data)


@pytest.mark.parametrize(("data", "pointer"), NOT_IJSON.values(), ids=NOT_IJSON)
def test_the_diagnosis_names_the_place(data: bytes, pointer: str) -> None:
    """The pointer leads to the member at fault, or to the object that has a key at fault."""
    _, fault = diagnose(data)
    assert fault is not None
    assert fault.pointer == pointer


def test_the_first_of_several_faults_is_named() -> None:
    """A reader who mends the fault finds the next one at the next try."""
    _, fault = diagnose(b'{"a":1e400,"b":"\\ud800","a":2}')
    assert fault is not None
    assert fault.pointer == "/a"
    assert "double" in fault.what


def test_a_duplicate_keeps_its_first_value() -> None:
    """What the message was about is told from the first of two values, as documented."""
    value, _ = diagnose(b'{"method":"tools/call","id":1,"method":"ping"}')
    assert value == {"method": "tools/call", "id": 1}


def test_a_number_out_of_range_is_none() -> None:
    """A number that has no safe value is not rounded into one."""
    value, _ = diagnose(b'{"id":123456789012345678901234567890,"n":1e400}')
    assert value == {"id": None, "n": None}

"""What is printed cannot steer the terminal that prints it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.errors import GuardError, Reason, Refused, printable

STEERING = {
    "escape": "\x1b",
    "8-bit control sequence introducer": "\x9b",
    "bell": "\x07",
    "backspace": "\x08",
    "carriage return": "\r",
    "newline": "\n",
    "delete": "\x7f",
    "next line": "\x85",
    "soft hyphen": "\u00ad",
    "grapheme joiner": "\u034f",
    "arabic letter mark": "\u061c",
    "hangul filler": "\u3164",
    "half-width hangul filler": "\uffa0",
    "hangul choseong filler": "\u115f",
    "khmer inherent vowel": "\u17b4",
    "mongolian variation selector": "\u180b",
    "mongolian vowel separator": "\u180e",
    "mongolian variation selector four": "\u180f",
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "left-to-right mark": "\u200e",
    "right-to-left override": "\u202e",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "word joiner": "\u2060",
    "invisible times": "\u2062",
    "right-to-left isolate": "\u2067",
    "pop directional isolate": "\u2069",
    "braille blank": "\u2800",
    "ideographic space": "\u3000",
    "no-break space": "\u00a0",
    "variation selector": "\ufe0f",
    "byte order mark": "\ufeff",
    "interlinear annotation": "\ufff9",
    "private use": "\ue000",
    "lone surrogate": "\ud800",
    "khitan filler": "\U00016fe4",
    "shorthand overlap": "\U0001bca0",
    "musical begin beam": "\U0001d173",
    "tag letter": "\U000e0041",
    "supplementary variation selector": "\U000e0100",
    "last supplementary variation selector": "\U000e01ef",
    "unassigned": "\U000e0fff",
    "noncharacter": "\uffff",
}


@pytest.mark.parametrize("char", STEERING.values(), ids=STEERING)
def test_what_steers_or_hides_is_escaped(char: str) -> None:
    """No control, bidirectional, zero-width or blank character reaches a terminal."""
    shown = printable(f"a{char}b")
    assert char not in shown
    assert shown.isascii()
    assert shown.startswith("a\\")


@given(st.text(st.characters()))
def test_the_shown_text_is_always_printable(text: str) -> None:
    """Whatever goes in, what comes out is printable, encodable, and escaping it again changes nothing."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert printable(shown) == shown


@pytest.mark.parametrize(
    "text", ["", "plain text, 1 + 1 = 2", "Grüße, 你好, שלום, नमस्ते", "e\u0301", "😀", "a\\b"]
)
def test_ordinary_writing_is_left_alone(text: str) -> None:
    """Letters, marks, digits and punctuation of any script are shown as they are."""
    assert printable(text) == text


def test_an_error_says_what_where_and_next() -> None:
    """The three parts stand in one order, and the hint has a line of its own."""
    error = GuardError("the key is gone", where="/keys/0", remedy="make another")
    assert str(error) == "/keys/0: the key is gone\n  next: make another"
    assert str(GuardError("the key is gone")) == "the key is gone"


def test_a_refusal_without_words_says_its_reason() -> None:
    """A Refused always has text, the closed id at least."""
    assert str(Refused(Reason.DEFAULT_DENY)) == "default-deny"
    assert Refused(Reason.PROTECTED, pointer="/a").pointer == "/a"


def test_reason_ids_are_kebab_case_and_distinct() -> None:
    """Each id is also the name of a page and of a metric label."""
    assert all(set(reason) <= set("abcdefghijklmnopqrstuvwxyz-") for reason in Reason)
    assert len({str(reason) for reason in Reason}) == len(Reason)

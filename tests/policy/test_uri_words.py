"""What is odd about a URI, in words: every escape, every delimiter, every pair of slashes."""

from __future__ import annotations

import pytest

from guard.policy.uris import oddity

BACKSLASH = "a backslash, or a character that resembles a dot, slash, backslash or `%`"
STEERING = "an escaped dot, slash, backslash or `%`"
NEEDLESS = "an escaped letter, digit, `-`, `_` or `~`"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("memo:a/%zz", "a `%` that begins no escape"),
        ("memo:a%", "a `%` that begins no escape"),
        *((f"memo:%{code}", STEERING) for code in ("2e", "2E", "2f", "2F", "25", "5c", "5C")),
        *((f"memo:%{code}", NEEDLESS) for code in ("30", "39", "41", "5A", "61", "7a", "2D", "5f", "7E")),
        ("memo:%ff", "an escape that is not UTF-8"),
        ("memo:%00", "a control or an invisible character"),
        ("memo:\u200b", "a control or an invisible character"),
        ("memo:\\", BACKSLASH),
        ("memo:\uff0e", BACKSLASH),
        ("memo:\uff05", BACKSLASH),
        ("memo:\uff0f", BACKSLASH),
        ("memo:\uff3c", BACKSLASH),
        ("memo:/a/. ./b", "a segment of dots"),
        ("memo:a//b", "an empty segment"),
        ("Memo:a", "a capital letter in the scheme"),
        ("memo:a%20b%21", ""),
        ("memo:a2e2f255c30", ""),
        ("memo:\u00e9", ""),
        ("memo:\uff38", ""),
        ("memo:/X.X/", ""),
        ("memo://a", ""),
        ("memo:///a", ""),
        ("a/B:", ""),
    ],
)
def test_what_is_odd_about_a_uri_is_said_in_words(uri: str, words: str) -> None:
    """`guard policy explain` shows them."""
    assert oddity(uri) == words


def expected_of_an_escape(code: int) -> str:
    """By RFC 3986, sections 2.1 and 2.3, and what is steered with."""
    if code >= 0x80:
        return "an escape that is not UTF-8"
    if chr(code) in "./\\%":
        return STEERING
    if chr(code).isalnum() or chr(code) in "-_~":
        return NEEDLESS
    return "" if chr(code).isprintable() else "a control or an invisible character"


def test_every_escape_of_one_byte_is_judged_by_what_it_stands_for() -> None:
    """In capitals, in small letters, and in both."""
    for code in range(256):
        high, low = f"{code:02X}"
        for digits in (high + low, (high + low).lower(), high.lower() + low, high + low.lower()):
            assert oddity(f"memo:a%{digits}b") == expected_of_an_escape(code), digits


@pytest.mark.parametrize(
    "digits", ["", "2", "g0", "0g", "2 ", " 2", "x2", "G1", "1G", "@1", "1`", "\uff11\uff11"]
)
def test_an_escape_has_two_hexadecimal_digits(digits: str) -> None:
    """Of ASCII; wherever it stands."""
    assert oddity(f"memo:a%{digits}") == oddity(f"memo:%{digits}/b") == "a `%` that begins no escape"


@pytest.mark.parametrize("delimiter", [*":/?#[]@!$&'()*+,;="])
def test_a_segment_of_dots_ends_at_every_delimiter(delimiter: str) -> None:
    """A server may cut a URI there (RFC 3986, section 2.2); what else stands in a segment makes it a name."""
    for dots in (".", "..", "...", ". .", " .."):
        for uri in (
            f"memo:a{delimiter}{dots}",
            f"memo:{dots}{delimiter}a",
            f"memo:a{delimiter}{dots}{delimiter}b",
        ):
            assert oddity(uri) == "a segment of dots", uri
    for name in ("a.", ".a", "..a", "-.", "._", "~..", "X."):
        assert oddity(f"memo:a{delimiter}{name}{delimiter}b") == "", name


@pytest.mark.parametrize(
    ("uri", "odd"),
    [
        ("a//b", True),
        ("//a", True),
        ("memo:a//", True),
        ("file:////a", True),
        ("file:///a//b", True),
        ("file:/a//b", True),
        ("file://a", False),
        ("file:///a", False),
        ("a://b:///c", False),
        ("memo:a/b/", False),
    ],
)
def test_an_empty_segment_stands_only_after_the_scheme(uri: str, odd: bool) -> None:  # noqa: FBT001
    """`://` and `:///` begin a place; all other pairs of slashes are left out by some and kept by others."""
    assert oddity(uri) == ("an empty segment" if odd else "")


@pytest.mark.parametrize(
    ("uri", "odd"),
    [
        ("A:b", True),
        ("aZ:b", True),
        ("Az:b", True),
        ("a+M-1.x:b", True),
        ("A", False),
        ("a:B", False),
        ("a/B:c", False),
        ("a?B:c", False),
        ("a#B:c", False),
        ("a:b:C:d", False),
        ("A/b:c", False),
        ("A?b:c", False),
        ("A#b:c", False),
        ("\u00c4:b", False),
    ],
)
def test_a_capital_is_odd_in_the_scheme_only(uri: str, odd: bool) -> None:  # noqa: FBT001
    """Before the first colon, where no path, query or fragment began."""
    assert oddity(uri) == ("a capital letter in the scheme" if odd else "")


def test_the_first_thing_that_is_odd_is_said() -> None:
    """In the order of the list, what is said first is looked for first."""
    uri, said = "MEMO://a//../\\\u200b%ff%61%2e%", []
    for cut in ("%", "%2e", "%61", "%ff", "\u200b", "\\", "..", "//"):
        said.append(oddity(uri))
        uri = uri.removesuffix(cut) if uri.endswith(cut) else uri.replace(cut, "x")
    assert [*said, oddity(uri)] == [
        "a `%` that begins no escape",
        STEERING,
        NEEDLESS,
        "an escape that is not UTF-8",
        "a control or an invisible character",
        BACKSLASH,
        "a segment of dots",
        "an empty segment",
        "a capital letter in the scheme",
    ]

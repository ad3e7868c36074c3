"""Hosts, URLs, paths and words in one spelling each, whoever wrote them."""

from __future__ import annotations

import pytest
from memories import origin, page

from guard.policy.origins import addresses, forms, words


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("example.org", "example.org"),
        ("www.example.org.", "example.org"),
        ("www2.example.org", "www2.example.org"),
        ("example\u3002org", "example.org"),
        ("xn--bcher-kva.example", "b\u00fccher.example"),
        ("a.xn--bcher-kva.example", "a.b\u00fccher.example"),
        ("xn--\u00fc.example", "xn--\u00fc.example"),
        ("xn--99999999.example", "xn--99999999.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("10.1.2", "10.1.0.2"),
        ("0177.0.0.1", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("1", "0.0.0.1"),
        ("256.1", "256.1"),
        ("1.16777216", "1.16777216"),
        ("1.16777215", "1.255.255.255"),
        ("1.2.3.99999", "1.2.3.99999"),
        ("09.1.1.1", "09.1.1.1"),
        ("[::1]", "::1"),
        ("[0:0::1%eth0]", "::1"),
        ("[::ffff:10.0.0.1]", "10.0.0.1"),
        ("[zz]", "[zz]"),
    ],
)
def test_a_host_has_one_spelling(written: str, name: str) -> None:
    """Names, and addresses as `inet_aton` and RFC 4291 read them."""
    assert addresses.host(written) == name


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("example.org", "example.org"),
        ("localhost", "localhost"),
        ("a.example.org", "example.org"),
        ("b.a.example.org", "example.org"),
        ("shop.example.co.uk", "example.co.uk"),
        ("a.shop.example.co.uk", "example.co.uk"),
        ("example.co.uk", "example.co.uk"),
        ("a.co.example", "co.example"),
        ("a.example.uk", "example.uk"),
        ("me.github.io", "me.github.io"),
        ("x.me.github.io", "me.github.io"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_what_was_registered_of_a_name(name: str, short: str) -> None:
    """One label below a suffix, as far as that shows."""
    assert addresses.registered(name) == short


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("https://example.org", ("example.org", "example.org")),
        ("http://www.example.org:80/", ("example.org", "example.org")),
        ("https://example.org:443/a/", ("example.org", "example.org/a")),
        ("https://example.org:/a", ("example.org", "example.org/a")),
        ("https://example.org:8443/a", ("example.org", "example.org:8443/a")),
        ("https://example.org/a%20b?c=%41#d", ("example.org", "example.org/a b?c=a".replace("=a", "=A"))),
        ("https://example.org?x", ("example.org", "example.org?x")),
        ("https:/\\example.org\\a", ("example.org", "example.org/a")),
        ("ftp://example.org/a", ("example.org", "ftp://example.org/a")),
        ("https://me@example.org/a", ("example.org", "me@example.org/a")),
        ("https://%65xample.org", ("example.org", "example.org")),
        ("example.org/a", ("example.org", "example.org/a")),
        ("https:///", None),
        ("nothing", None),
        ("a b", None),
    ],
)
def test_a_url_has_one_spelling(written: str, found: tuple[str, str] | None) -> None:
    """Where it leads, and what is asked for there."""
    assert addresses.url(written) == found


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("a//b/./c/../d", "a/b/d"),
        ("\\a\\b", "/a/b"),
        ("/a/%2e%2e/b", "/b"),
        ("./a", "a"),
        ("a/", "a"),
        ("", ""),
    ],
)
def test_a_path_has_one_spelling(written: str, plain: str) -> None:
    """As it would be resolved."""
    assert addresses.path(written) == plain


def test_a_name_is_no_file_and_a_file_is_no_name() -> None:
    """They look alike; the end tells."""
    assert addresses.is_name("example.org")
    assert addresses.is_name("a.example.org.")
    assert not addresses.is_name("report.pdf")
    assert not addresses.is_name("example")
    assert not addresses.is_name("-a.org")
    assert addresses.is_file("report.pdf")
    assert not addresses.is_file(".pdf")
    assert not addresses.is_file("pdf")
    assert not addresses.is_file("example.org")


def test_words_and_their_neighbours_leave_the_little_ones_out() -> None:
    """The rest is as it was."""
    told = words.content("the bank of america branch")
    assert told == ["bank", "america", "branch"]
    assert [*words.pairs(told)] == ["bank america", "america branch"]
    assert sorted(words.telling(["bank", "ab", "zebra", "zebra"])) == ["zebra"]


@pytest.mark.parametrize(
    ("text", "weak"),
    [("ab", True), ("abc", False), ("yes", True), ("123", True), ("1234", False), ("zebra", False)],
)
def test_what_is_weak(text: str, *, weak: bool) -> None:
    """Short, or common."""
    assert words.is_weak(text) is weak


@pytest.mark.parametrize(
    ("text", "strictly", "found"),
    [
        ("file 12", False, ["12"]),
        ("file 12", True, []),
        ("id 12 and number 007", True, ["12", "7"]),
        ("id 000", True, ["0"]),
        ("'1 3' and '1  3 4'", False, ["13", "134", "1", "1"]),
        ("'1 3'", True, []),
        ("id 1.5 or 12:30, 1/2", False, []),
        ("we are 12", False, []),
        (f"id {' ' * 40}12", False, []),
    ],
)
def test_short_numbers_that_are_pointed_at(text: str, found: list[str], *, strictly: bool) -> None:
    """By what stands right before them."""
    assert [*words.cued(text, strictly=strictly)] == found


def test_runs_of_words_are_bounded() -> None:
    """All runs of a short text; of a long one only the short runs."""
    assert {"a", "bc", "a,bc"} <= set(words.runs("a, b c", 100))
    assert "abcdefgh" in set(words.runs("a b c d e f g h i", 1000))
    assert "abcdefghi" not in set(words.runs("a b c d e f g h i", 1000))
    assert set(words.runs("a b c d", 4)) == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a%20b", "a b"),
        ("&lt;a&gt;", "<a>"),
        ("\\u0041\\n\\/\\x42", "A\n/B"),
        ("=41=42", "AB"),
        ("x [at] y [dot] z", "x@y.z"),
        ("hxxp://a", "http://a"),
        ("ab1-\ncd2 e", "ab1-cd2"),
        ("a b c d", "abcd"),
        ("a-b-c-d", "abcd"),
        ("'a b c'", "abc"),
        ("aGVsbG8gd29ybGQ", "hello world"),
        ("68656c6c6f20776f726c64", "hello world"),
        ("68 65 6c 6c 6f", "hello"),
    ],
)
def test_an_encoding_is_undone(text: str, said: str) -> None:
    """Each once."""
    assert said in list(forms.unwrapped(text))


@pytest.mark.parametrize(
    "text", ["plain words only", "50% of it", "this & that", "id=4711", "Bank of Austria", "a b", "x-y", ""]
)
def test_what_is_no_encoding_is_left_alone(text: str) -> None:
    """Else everything would be read twice."""
    assert list(forms.unwrapped(text)) == []


def test_encodings_inside_encodings_are_undone_three_deep() -> None:
    """And no deeper."""
    value = "eve@evil.example"
    for times, found in ((3, "untrusted"), (5, "unseen")):
        told = value.replace("@", "%" + "25" * (times - 1) + "40")
        assert origin(value, page(f"write to {told} now")).trust == found, told

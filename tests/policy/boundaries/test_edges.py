"""Values at the very edge of what a boundary keyword takes, one step before it and one behind it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from guard.policy.boundaries import hosts, paths, urls
from guard.policy.boundaries.hosts import Host
from guard.policy.boundaries.ibans import pattern
from guard.policy.boundaries.paths import Path
from guard.policy.boundaries.urls import Url
from guard.policy.boundaries.verdict import NotUnderstood, text
from guard.policy.boundaries.words import judge

IN, OUT, UNCLEAR = "inside", "outside", "unclear"
MAIL = ("emailDomain", {"domains": ["example.com", "*.example.org"]})
ALL_HOSTS = (
    "urlWithin",
    {"schemes": ["https"], "hosts": ["*", "intranet", "*.corp"], "networks": ["public"]},
)
PRIVATE = ("urlWithin", {"schemes": ["https"], "networks": ["private"]})
RANGES = ("urlWithin", {"schemes": ["https"], "networks": ["10.0.0.0/8", "8.8.8.8", "2001:4860::/32"]})
ROUTES = ("urlWithin", {"schemes": ["https"], "hosts": ["a.example"], "paths": ["/v1/", "/X"]})
FROM_ROOT = ("urlWithin", {"schemes": ["https"], "hosts": ["a.example"], "paths": ["/"]})
ONE = ("money", {"maximum": {"EUR": "5"}, "minimum": {"EUR": "5.00"}})
NAMED = ("money", {"maximum": {"EUR": "5", "JPY": "500"}, "amount": "sum", "currency": "unit"})
FOLDER = ("pathWithin", {"roots": ["/srv/data"], "base": "/srv/data"})
WINDOWS = ("pathWithin", {"roots": ["C:\\Ä"], "base": "C:\\Ä", "style": "windows"})
GIT = ("shellCommand", {"commands": [
    {"words": ["git", "add"], "operands": {"pathWithin": {"roots": ["/r"], "base": "/r"}}},
    {"words": ["ls"], "options": ["-l", "--sort="], "operands": True},
    {"words": ["id"]},
]})  # fmt: skip
ACCOUNT = ("iban", {"accounts": ["DE89 3704 0044 0532 0130 00"]})
GERMAN = ("iban", {"countries": ["DE"]})

EDGES: list[tuple[tuple[str, Any], Any, str]] = [
    # The local part has at most 64 characters, the whole 254; a Kelvin sign is no k.
    (MAIL, "a" * 64 + "@example.com", IN),
    (MAIL, "a" * 65 + "@example.com", UNCLEAR),
    (MAIL, "a" * 65, UNCLEAR),
    (MAIL, "a@" + "b" * 60 + ("." + "c" * 59) * 3 + ".example.org", IN),
    (MAIL, "a@" + "b" * 61 + ("." + "c" * 59) * 3 + ".example.org", UNCLEAR),
    (MAIL, "a@\u212aelvin.example.org", UNCLEAR),
    # What stands beside `*` counts too; a private name only where it is named.
    (ALL_HOSTS, "https://intranet/", IN),
    (ALL_HOSTS, "https://wiki.corp/", IN),
    (ALL_HOSTS, "https://a.example.net/", IN),
    (ALL_HOSTS, "https://extranet/", OUT),
    (ALL_HOSTS, "https://wiki.lan/", OUT),
    (ALL_HOSTS, "https://local.example.net/", IN),
    (ALL_HOSTS, "https://a.b.local/", OUT),
    # `private` is exactly what is not public.
    (PRIVATE, "https://intranet/", IN),
    (PRIVATE, "https://localhost/", IN),
    (PRIVATE, "https://a.b.internal/", IN),
    (PRIVATE, "https://10.0.0.1/", IN),
    (PRIVATE, "https://[::1]/", IN),
    (PRIVATE, "https://a.example.net/", OUT),
    (PRIVATE, "https://internal.example.net/", OUT),
    (PRIVATE, "https://8.8.8.8/", OUT),
    (PRIVATE, "https://[2606:4700:4700::1111]/", OUT),
    # Ranges hold addresses of their own kind and nothing beside them.
    (RANGES, "https://10.255.255.255/", IN),
    (RANGES, "https://8.8.8.8/", IN),
    (RANGES, "https://[2001:4860:FFFF::ABCD]/", IN),
    (RANGES, "https://11.0.0.0/", OUT),
    (RANGES, "https://9.255.255.255/", OUT),
    (RANGES, "https://8.8.8.9/", OUT),
    (RANGES, "https://192.168.0.1/", OUT),
    (RANGES, "https://[2001:4861::]/", OUT),
    (RANGES, "https://intranet/", OUT),
    (RANGES, "https://a.example.net/", OUT),
    # Paths: a slash at the end of what is stated means nothing, and a capital letter at its end stays.
    (ROUTES, "https://a.example/v1", IN),
    (ROUTES, "https://a.example/v1/x@y", IN),
    (ROUTES, "https://a.example/X/y", IN),
    (ROUTES, "https://a.example/X/%E2%85%A9", IN),
    (ROUTES, "https://a.example/other", OUT),
    (ROUTES, "https://a.example", OUT),
    (ROUTES, "https://a.example/v1/%7f", UNCLEAR),
    (ROUTES, "https://a.example/v1/%ef%bc%85", UNCLEAR),
    (FROM_ROOT, "https://a.example", IN),
    (FROM_ROOT, "https://a.example/anything", IN),
    (FROM_ROOT, "https://b.example/", OUT),
    # Money: the bounds themselves are inside, and one amount may be all there is.
    (ONE, 5, IN),
    (ONE, 5.0, IN),
    (ONE, "5", IN),
    (ONE, "5.00 EUR", IN),
    (ONE, "4.99", OUT),
    (ONE, 5.01, OUT),
    (ONE, 4.999, UNCLEAR),
    (NAMED, {"sum": 5, "unit": "EUR"}, IN),
    (NAMED, {"sum": 300.0, "unit": "JPY"}, IN),
    (NAMED, {"sum": 6, "unit": "EUR", "amount": 1, "currency": "JPY"}, OUT),
    (NAMED, {"amount": 5, "currency": "EUR"}, UNCLEAR),
    (NAMED, {"sum": 5, "currency": "EUR"}, UNCLEAR),
    (NAMED, {"amount": 5, "unit": "EUR"}, UNCLEAR),
    (NAMED, 5, UNCLEAR),
    (NAMED, {"sum": float("inf"), "unit": "EUR"}, UNCLEAR),
    (NAMED, {"sum": float("nan"), "unit": "EUR"}, UNCLEAR),
    # Names of one letter are names; only ASCII capitals count for nothing on Windows.
    (FOLDER, "X", IN),
    (FOLDER, "/srv/data/X.X", IN),
    (FOLDER, "X-ray/x-ray", IN),
    (FOLDER, "-x", UNCLEAR),
    (FOLDER, "x/-y", IN),
    (WINDOWS, "c:\\Ä\\x", IN),
    (WINDOWS, "C:\\ä\\x", UNCLEAR),
    (WINDOWS, "C:\\\\Ä\\x", UNCLEAR),
    (WINDOWS, "C:/X/y", OUT),
    # Behind `--` a word is an operand, whatever it looks like.
    (GIT, "git add -- x", IN),
    (GIT, "git add -- -x", UNCLEAR),
    (GIT, "git add --", IN),
    (GIT, "git add -x", OUT),
    (GIT, "ls -- x", IN),
    (GIT, "ls -l x --sort=name y", IN),
    (GIT, "ls -- -l", OUT),
    (GIT, "ls -- --", OUT),
    (GIT, "ls --sort=", IN),
    (GIT, "ls x -- y", IN),
    (GIT, "ls x -- y -l", OUT),
    (GIT, "id", IN),
    (GIT, "id --", IN),
    (GIT, "id x", OUT),
    (GIT, "id -- x", OUT),
    # Check digits begin at 02 and end at 98.
    (GERMAN, "DE02120300000000202051", IN),
    (GERMAN, "DE98370400440000000042", IN),
    (GERMAN, "DE99370400440000000042", UNCLEAR),
    (ACCOUNT, "DE89370400440532013000", IN),
    (ACCOUNT, "DE89 3704 0044 0532 0130 00", IN),
    (ACCOUNT, "DE02120300000000202051", OUT),
]


@pytest.mark.parametrize(("keyword", "value", "section"), EDGES)
def test_the_edge_is_where_it_is_said_to_be(keyword: tuple[str, Any], value: Any, section: str) -> None:
    """One step further is the other answer."""
    ask = judge(*keyword)
    if section == UNCLEAR:
        with pytest.raises(NotUnderstood):
            ask(value)
    else:
        assert ask(value) is (section == IN)


@pytest.mark.parametrize(
    ("name", "stated", "longest"),
    [
        ("emailDomain", {"domains": ["example.com"]}, 254),
        ("iban", {"countries": ["DE"]}, 42),
        ("money", {"maximum": {"EUR": "5"}}, 40),
        ("pathWithin", {"roots": ["/r"]}, 4096),
        ("shellCommand", {"commands": [{"words": ["ls"]}]}, 8192),
        ("sql", {"dialect": "sqlite", "statements": ["select"], "tables": []}, 16_384),
        ("urlWithin", {"schemes": ["https"], "hosts": ["*"]}, 8192),
    ],
)
def test_what_is_longer_than_it_may_be_is_not_read_at_all(name: str, stated: Any, longest: int) -> None:
    """The bound comes before any parser, so that no value costs more than a value of that length."""
    fitting = {
        "pathWithin": "/" + "a" * (longest - 1),
        "shellCommand": "ls".ljust(longest),
        "sql": "SELECT 1".ljust(longest),
        "urlWithin": "https://a.example/".ljust(longest, "a"),
    }
    if name in fitting:
        assert judge(name, stated)(fitting[name]) in (True, False)
        with pytest.raises(NotUnderstood):
            judge(name, stated)(fitting[name] + fitting[name][-1])
    else:
        with pytest.raises(NotUnderstood):
            judge(name, stated)("1" * (longest + 1))


def test_a_text_may_be_as_long_as_is_said_and_no_longer() -> None:
    """Nothing is no text, and neither is one character too many, or anything that is no string."""
    assert text("abc", 3) == "abc"
    assert text("a", 1) == "a"
    for value in ("abcd", "", None, 3, b"abc", ["abc"], True):
        with pytest.raises(NotUnderstood):
            text(value, 3)


LONG = ".".join(["a" * 63] * 3)


@pytest.mark.parametrize(
    ("host", "read"),
    [
        ("EXAMPLE.com", Host("example.com")),
        ("a", Host("a")),
        ("127.0.0.1", Host("", ip_address("127.0.0.1"))),
        ("[2606:4700::ABCD]", Host("", ip_address("2606:4700::abcd"))),
        ("[::]", Host("", ip_address("::"))),
        ("[::1]", Host("", ip_address("::1"))),
        ("[::1:0:0]", Host("", ip_address("::1:0:0"))),
        (f"{LONG}.{'a' * 61}", Host(f"{LONG}.{'a' * 61}")),
    ],
)
def test_a_host_is_a_name_or_an_address(host: str, read: Host) -> None:
    """A name in small letters, or an address and no name."""
    assert hosts.read(host) == read
    assert len(host) <= hosts.LONGEST_NAME == 253


@pytest.mark.parametrize(
    "host",
    [
        f"{LONG}.{'a' * 62}",
        "a" * 64,
        "",
        "\u212aelvin.example",
        "[::2]",
        "[::ffff:ffff]",
        "[::ffff:0:1]",
        "[::ffff:0:0:1]",
        "[64:ff9b:1:ffff::]",
        "[2001:0:1::]",
        "[fe80::1%1]",
        "[::1",
        "[v1.a]",
        "[]",
        "1.2.3",
        "0x1",
        "a.0x",
        "1.2.3.04",
    ],
)
def test_a_host_that_readers_take_for_different_ones_is_none(host: str) -> None:
    """A letter that only becomes ASCII in small letters, an address inside an address, half an address."""
    with pytest.raises(NotUnderstood):
        hosts.read(host)


def test_a_path_is_read_into_its_names() -> None:
    """What is compared: the folder it starts from, and its names; on Windows ASCII in small letters."""
    assert paths.posix("/a//./B/") == Path("/", ("a", "B"))
    assert paths.posix("a/b") == Path("", ("a", "b"))
    assert paths.windows("c:\\Data\\.\\Ä") == Path("C:", ("data", "Ä"))
    assert paths.windows("Sub/X") == Path("", ("sub", "x"))


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("Data. .", "data"),
        ("\uff24\uff41ta", "data"),
        ("\u017fhared", "shared"),
        ("stra\u00dfe", "strasse"),
        ("\u2160", "i"),
        ("A\u030a", "\u00e5"),
        ("\u03b1\u0345\u0301", "\u03ac\u03b9"),
        ("X", "x"),
        ("\u01f0", "\u01f0"),
    ],
)
def test_a_disk_that_tells_less_apart_takes_these_names_for_one(name: str, folded: str) -> None:
    """Capitals, wide letters, ligatures, marks on their own, and what is cut off at the end."""
    assert paths.fold(name) == folded


def test_a_url_is_read_into_where_it_leads() -> None:
    """The default port, the root where no path is, and the last port that there is."""
    assert urls.split("HTTPS://A.example") == Url("https", Host("a.example"), 443, "/")
    assert urls.split("git://a.example/b@c?d#e") == Url("git", Host("a.example"), None, "/b@c")
    assert urls.split("http://a.example:65535/") == Url("http", Host("a.example"), 65535, "/")
    for value in ("http://a.example:65536/", "http://a.example?@b", "http://a.example#@b"):
        with pytest.raises(NotUnderstood):
            urls.split(value)


def test_schemes_that_have_a_port_need_none() -> None:
    """All of them together load without `ports`; with `ports` any scheme does."""
    known = {"schemes": sorted(urls.DEFAULT_PORTS), "hosts": ["a.example"]}
    assert judge("urlWithin", known)("ftp://a.example:21/") is True
    other = {"schemes": ["git"], "hosts": ["a.example"], "ports": [9418]}
    assert judge("urlWithin", other)("git://a.example:9418/") is True
    assert judge("urlWithin", other)("git://a.example/") is False


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("2n", ["XX0012"], ["XX001", "XX00123", "XX00A1", "xX0012", "X00012", "XXA012", "XX0A12"]),
        ("1n+2a+3c", ["XX001AB1A2", "AB120ZZ999"], ["XX00AAB1A2", "XX0011B1A2", "XX001AB1a2", "XX001AB1A"]),
        ("10n", ["XX000123456789"], ["XX00012345678", "XX0001234567890"]),
    ],
)
def test_an_iban_has_the_form_of_its_country(form: str, good: list[str], bad: list[str]) -> None:
    """Digits, capitals or either, as many as the registry says, behind country and check digits."""
    assert all(map(pattern(form).fullmatch, good))
    assert not any(map(pattern(form).fullmatch, bad))

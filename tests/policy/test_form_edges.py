"""Signatures, pointers, times and the whole request, at the edges of their forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from guard.core.canonical import b64, write
from guard.core.keys import KeySet, SigningKey
from guard.core.model import Parent
from guard.policy.instants import MAX_SPAN, milliseconds, span
from guard.policy.origins.judge import Origin
from guard.policy.pointers import MISSING, segments, value_at, values_at
from guard.policy.request import MEMBERS, Asked, instant
from guard.policy.signing import MAX_BYTES, TYPE, Unsigned, check, sign
from guard.policy.zones import zone
from tests.policy.calls import call

KEY: Final = SigningKey.load(b"k" * 32)
KEYS: Final = KeySet([KEY.public])
DATA: Final = b"guard: 1\n"
HEADER: Final = {"alg": "EdDSA", "kid": KEY.public.kid, "typ": TYPE}
REMEDY: Final = "sign it again: guard policy sign FILE --key KEY"


# -- signatures ------------------------------------------------------------------------------------------


def signed(header: Any) -> bytes:
    head = b64(write(header))
    return f"{head}..{b64(KEY.sign(f'{head}.{b64(DATA)}'.encode()))}".encode()


def refusal(signature: bytes, name: str = "p\n.yaml") -> tuple[str, str]:
    with pytest.raises(Unsigned) as caught:
        check(DATA, signature, KEYS, name=name)
    assert caught.value.where == "p\\n.yaml"
    assert caught.value.remedy == REMEDY
    return caught.value.fault, caught.value.what


def test_a_signature_may_be_as_long_as_its_bound() -> None:
    """With white space around it; a byte more is refused."""
    good = sign(DATA, KEY)
    assert check(DATA, good + b" " * (MAX_BYTES - len(good)), KEYS, name="p") == KEY.public.kid
    assert check(DATA, b"\n" + good + b"\r\n", KEYS, name="p") == KEY.public.kid
    said = refusal(good + b" " * (MAX_BYTES + 1 - len(good)))
    assert said == ("malformed", "the signature has more than 4096 bytes")


@pytest.mark.parametrize(
    "change",
    [
        lambda head, tag: head + b"." + tag,
        lambda head, tag: head + b"..." + tag,
        lambda head, tag: head + b"." + b64(DATA).encode() + b"." + tag,
        lambda head, _: head,
        lambda _head, _tag: b"",
    ],
)
def test_what_does_not_have_two_dots_side_by_side_is_no_detached_signature(
    change: Callable[[bytes, bytes], bytes],
) -> None:
    """Not even with the right payload between them."""
    head, _, tag = sign(DATA, KEY).partition(b"..")
    words = "the signature is no compact JWS without its payload: `HEADER..SIGNATURE`"
    assert refusal(change(head, tag)) == ("malformed", words)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("broken", [b"\xff", b"=", b"!!!!", b"QQ=="])
def test_what_is_no_base64url_is_no_jws(part: int, broken: bytes) -> None:
    """In the header as in the signature."""
    parts = sign(DATA, KEY).split(b"..")
    parts[part] = broken
    assert refusal(b"..".join(parts)) == ("malformed", "the signature is no JWS")


def test_a_header_that_is_no_strict_json_is_no_jws() -> None:
    """A member that is there twice, or what is no JSON at all."""
    tag = sign(DATA, KEY).partition(b"..")[2]
    for header in (b'{"alg":"EdDSA","alg":"EdDSA"}', b"{", b""):
        assert refusal(f"{b64(header)}..".encode() + tag) == ("malformed", "the signature is no JWS")


@pytest.mark.parametrize(
    ("header", "fault", "words"),
    [
        *(
            (header, "header", "the header of the signature holds other than `alg`, `kid` and `typ`")
            for header in ([], "x", {**HEADER, "b64": False}, {"alg": "EdDSA", "typ": TYPE})
        ),
        *(
            ({**HEADER, **other}, "header", f"the signature is not an Ed25519 signature of type {TYPE}")
            for other in ({"alg": "none"}, {"alg": "HS256"}, {"alg": "eddsa"}, {"typ": "JWT"}, {"typ": None})
        ),
        ({**HEADER, "kid": "a\nb" + "c" * 90}, "key", "no trusted key is called a\\nb" + "c" * 77),
        ({**HEADER, "kid": 7}, "key", "no trusted key is called 7"),
        ({**HEADER, "kid": None}, "key", "no trusted key is called None"),
    ],
)
def test_a_header_that_says_something_else_is_refused_for_that(header: Any, fault: str, words: str) -> None:
    """Though a trusted key signed it; what it says is made printable, and not at length."""
    assert refusal(signed(header)) == (fault, words)


def test_other_bytes_are_refused_and_both_names_of_the_algorithm_are_taken() -> None:
    """RFC 8037 calls it EdDSA and RFC 9864 Ed25519."""
    for alg in ("EdDSA", "Ed25519"):
        assert check(DATA, signed({**HEADER, "alg": alg}), KEYS, name="p") == KEY.public.kid
    said = refusal(sign(DATA + b"#", KEY))
    assert said == ("signature", "the signature is not of these bytes")
    assert Unsigned.fault == "missing"


# -- pointers --------------------------------------------------------------------------------------------


def test_escapes_are_undone_once_and_in_their_order() -> None:
    """`~01` is `~1` and no slash (RFC 6901, section 4)."""
    assert segments("/~01/~10/~0~1/") == ["~1", "/0", "~/", ""]
    for wrong in ("a", "/~", "/~2", "/a~", "~0"):
        with pytest.raises(
            ValueError, match=r"^not a JSON pointer such as `/recipient` or `/items/0/price`$"
        ):
            segments(wrong)


def test_a_star_is_a_name_where_a_single_value_is_asked_for() -> None:
    """In objects, and in lists, where it is no index."""
    assert value_at({"*": 1, "a": 2}, "/*") == 1
    assert value_at({"x": {"a": 2}}, "/x/*") is MISSING
    assert value_at({"x": [{"a": 2}]}, "/x/*/a") is MISSING
    assert value_at({"x": {"y": {"a": 2}}}, "/x/*/a") is MISSING
    assert list(values_at({"x": [[1], [2]], "y": 3}, "/x/*/*")) == [("/x/0/0", 1), ("/x/1/0", 2)]
    assert list(values_at({"a/b": {"~": 1}}, "/*/*")) == [("/a~1b/~0", 1)]


@pytest.mark.parametrize(
    ("part", "found"), [("0", True), ("9", True), ("10", False), ("01", False), ("-", False), ("-1", False)]
)
def test_an_index_is_digits_without_a_leading_zero_inside_the_list(part: str, found: bool) -> None:  # noqa: FBT001
    """RFC 6901, section 4."""
    assert (value_at(list(range(10)), f"/{part}") is not MISSING) is found


# -- times -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-02T00:00:01.5Z", 86_401_500),
        ("1970-01-01T00:00:00.001999Z", 1),
        ("1970-01-01T00:00:00.999999Z", 999),
        ("1970-01-01T02:00:00+01:30", 1_800_000),
        ("1969-12-31T23:59:59.5Z", -500),
        ("2027-01-01T08:30:00Z", 1_798_792_200_000),
    ],
)
def test_an_instant_is_its_milliseconds(text: str, expected: int) -> None:
    """Parts of one are cut off, never rounded up."""
    assert milliseconds(text) == expected


@pytest.mark.parametrize("text", ["", "2027-01-01", "2027-01-01T00:00:00", "2027-01-01 00:00:00Z", "now"])
def test_what_is_no_instant_says_what_is_one(text: str) -> None:
    """A time without an offset is another time on every machine."""
    words = r"^not an RFC 3339 date-time with an offset, such as 2027-01-01T00:00:00Z$"
    with pytest.raises(ValueError, match=words):
        milliseconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1s", 1000),
        ("90s", 90_000),
        ("15m", 900_000),
        ("24h", 86_400_000),
        ("31d", MAX_SPAN),
        ("744h", MAX_SPAN),
    ],
)
def test_a_span_is_its_milliseconds_up_to_a_month(text: str, expected: int) -> None:
    """The longest is one."""
    assert span(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0s", "1", "s", "01s", "1ms", "1 s", "-1s", "32d", "745h", "1S", "2678401s"]
)
def test_what_is_no_span_says_what_is_one(text: str) -> None:
    """Longer than what is kept would count too little."""
    with pytest.raises(ValueError, match=r"^not a time from 1s to 31d, such as 90s, 15m, 24h or 7d$"):
        span(text)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "Europe", "Europe/", "../zones", "Nowhere/Town", "tzdata.zi"]
)
def test_what_is_no_time_zone_is_refused_by_its_name(name: str) -> None:
    """Folders, other files of the package and ways out of it are none."""
    with pytest.raises(ValueError, match=r"^no time zone is called `.*`, such as Europe/Berlin or UTC$"):
        zone(name)
    assert zone("Europe/Berlin").key == "Europe/Berlin"


# -- the whole request -----------------------------------------------------------------------------------


def test_a_schema_over_the_request_sees_all_of_it() -> None:
    """Every member by its name, sets as sorted lists, and nothing else."""
    made = call("git_commit", {"n": 1}, scopes={"z", "a"}, now=1_798_792_200_999)
    made = replace(made, intents=frozenset({"y", "b"}), parent=Parent("verified", "d", depth=2))
    asks: list[int] = []

    def origins() -> dict[str, Origin]:
        asks.append(1)
        return {"/n": Origin(frozenset({"user", "policy"}), "trusted"), "/a": Origin(frozenset(), "unseen")}

    asked = Asked(made, origins)
    assert asked.arguments == {"n": 1}
    assert asks == []
    expected = {
        "principal": {
            "tenant": "default",
            "issuer": "launch",
            "subject": "someone",
            "role": "committer",
            "scopes": ["a", "z"],
        },
        "tool": {"server": "git", "name": "git_commit", "kind": "tool"},
        "conversation": {"id": "c", "source": "launch"},
        "context": {"now": "2027-01-01T08:30:00Z", "depth": 3, "intents": ["b", "y"], "method": "tools/call"},
        "origin": {
            "/a": {"kinds": [], "trust": "unseen"},
            "/n": {"kinds": ["policy", "user"], "trust": "trusted"},
        },
        "arguments": {"n": 1},
    }
    assert asked.request == expected
    assert tuple(asked.request) == MEMBERS
    assert list(asked.request["origin"]) == ["/a", "/n"]
    assert asked.request is asked.request
    assert asks == [1]
    assert Asked(call(), dict).request["principal"]["scopes"] is None


def test_an_instant_is_written_in_whole_seconds() -> None:
    """In UTC, whatever the machine's own zone."""
    assert instant(0) == "1970-01-01T00:00:00Z"
    assert instant(86_399_999) == "1970-01-01T23:59:59Z"

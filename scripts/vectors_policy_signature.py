"""The vectors of tests/vectors/policy-signature/: one policy and its signature a vector, one fault a vector.

`make_vectors.py` runs this file and writes what `signatures` yields: name, fault, input, expected answer
(`ok`, or the fault that the signature is refused for), result.

    input.policy      the policy's bytes
    input.signature   what stands beside it
    input.jwks        whose signatures count
"""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Any, Final

from guard.core.keys import KeySet, SigningKey

Row = tuple[str, str, dict[str, Any], str, dict[str, Any]]
POLICY: Final = """\
guard: 1
id: handbook
version: 7
roles:
  reader: {scopes: ["docs:read"]}
tools:
  - {match: read_page, scopes: ["docs:read"]}
"""
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""Of the group of Ed25519 (RFC 8032, section 5.1)."""


class _Hand:
    """What signs, and what it made."""

    def __init__(self, seed: Callable[[str], bytes]) -> None:
        self.key = SigningKey.load(seed("policy key"))
        self.other = SigningKey.load(seed("another policy key"))
        self.both = KeySet([self.key.public, self.other.public]).jwks()
        self.head = {"alg": "EdDSA", "kid": self.key.public.kid, "typ": "guard-policy+jws"}
        self.good = self.jws()
        self.first, _, self.tag = self.good.split(".")

    def jws(
        self,
        header: Any = None,
        policy: str | bytes = POLICY,
        by: SigningKey | None = None,
        *,
        attached: bool = False,
    ) -> str:
        text = _text(self.head if header is None else header)
        payload = _b64(policy.encode() if isinstance(policy, str) else policy)
        tag = (by or self.key).sign(f"{text}.{payload}".encode())
        return f"{text}.{payload if attached else ''}.{_b64(tag)}"

    def given(self, signature: str, policy: str | bytes = POLICY, keys: Any = None) -> dict[str, Any]:
        what = (
            {"policy": policy} if isinstance(policy, str) else {"policy_base64": b64encode(policy).decode()}
        )
        jwks = keys or KeySet([self.key.public]).jwks()
        return {**what, "signature": signature, "jwks": jwks}

    def taken(self, name: str, fault: str, signature: str, *more: Any) -> Row:
        return (name, fault, self.given(signature, *more), "ok", {"kid": self.key.public.kid})

    def refused(self, name: str, fault: str, signature: str, expected: str, *more: Any) -> Row:
        return (name, fault, self.given(signature, *more), expected, {})


def signatures(seed: Callable[[str], bytes]) -> Iterator[Row]:
    """Every row."""
    hand = _Hand(seed)
    for part in (_good, _misspelt, _headers, _strangers, _forged):
        yield from part(hand)


def _good(hand: _Hand) -> Iterator[Row]:
    yield hand.taken("valid", "none", hand.good)
    yield hand.taken("valid-last-newline", "none: an end of line follows", f"{hand.good}\n")
    yield hand.taken(
        "valid-ed25519",
        "none: the other name of the algorithm",
        hand.jws({**hand.head, "alg": "Ed25519"}),
    )
    yield hand.taken("valid-two-keys", "none: two keys are trusted", hand.good, POLICY, hand.both)
    yield hand.taken(
        "valid-member-order", "none: members in another order", hand.jws(dict(reversed(hand.head.items())))
    )
    raw = b"\xff\x00 no text"
    yield hand.taken("valid-bytes", "none: any bytes can be signed", hand.jws(policy=raw), raw)
    yield hand.taken("valid-empty", "none: a file of no bytes", hand.jws(policy=""), "")


def _misspelt(hand: _Hand) -> Iterator[Row]:
    yield hand.refused("empty", "the signature is empty", "", "malformed")
    yield hand.refused("two-parts", "one dot is missing", f"{hand.first}.{hand.tag}", "malformed")
    yield hand.refused("four-parts", "a part too many", f"{hand.good}.", "malformed")
    yield hand.refused("attached", "the payload stands in it", hand.jws(attached=True), "malformed")
    yield hand.refused("padded", "a part is padded", f"{hand.good}==", "malformed")
    yield hand.refused(
        "not-ascii", "a letter that is not ASCII", f"{hand.first}..{hand.tag}\u00e4", "malformed"
    )
    yield hand.refused("space-inside", "a space inside", f"{hand.first}. .{hand.tag}", "malformed")
    yield hand.refused(
        "spare-bits", "the last bits are not zero", hand.good[:-1] + _spare(hand.good[-1]), "malformed"
    )
    yield hand.refused("two-lines", "the signature stands twice", f"{hand.good}\n{hand.good}", "malformed")
    yield hand.refused("too-large", "more than 4096 bytes", hand.good + " " * 4096, "malformed")
    yield hand.refused("header-not-json", "the header is no JSON", hand.jws("not JSON"), "malformed")
    twice = json.dumps(hand.head)[:-1] + ', "alg": "EdDSA"}'
    yield hand.refused("header-member-twice", "a member stands twice", hand.jws(twice), "malformed")


def _headers(hand: _Hand) -> Iterator[Row]:
    yield hand.refused("header-array", "the header is a list", hand.jws([hand.head]), "header")
    for member in hand.head:
        rest = {name: value for name, value in hand.head.items() if name != member}
        yield hand.refused(f"header-no-{member}", f"`{member}` is missing", hand.jws(rest), "header")
    for member, value in (
        ("jwk", hand.key.public.jwk()),
        ("jku", "https://example.com/keys"),
        ("x5c", []),
        ("crit", ["b64"]),
        ("b64", False),
        ("cty", "yaml"),
    ):
        yield hand.refused(
            f"header-{member}", f"the header has `{member}`", hand.jws({**hand.head, member: value}), "header"
        )
    for name, alg in (("none", "none"), ("hs256", "HS256"), ("lower-case", "eddsa"), ("ed448", "Ed448")):
        yield hand.refused(f"alg-{name}", f"`alg` is {alg}", hand.jws({**hand.head, "alg": alg}), "header")
    yield hand.refused("alg-list", "`alg` is a list", hand.jws({**hand.head, "alg": ["EdDSA"]}), "header")
    for name, typ in (("artifact", "guard-authz+jwt"), ("jwt", "JWT"), ("upper-case", "GUARD-POLICY+JWS")):
        yield hand.refused(f"typ-{name}", f"`typ` is {typ}", hand.jws({**hand.head, "typ": typ}), "header")


def _strangers(hand: _Hand) -> Iterator[Row]:
    stranger = hand.jws({**hand.head, "kid": hand.other.public.kid}, by=hand.other)
    yield hand.refused("another-key", "a key that nobody trusts signed it", stranger, "key")
    yield hand.refused("kid-number", "`kid` is a number", hand.jws({**hand.head, "kid": 1}), "key")
    yield hand.refused("kid-null", "`kid` is null", hand.jws({**hand.head, "kid": None}), "key")
    yield hand.refused("no-keys", "no key is trusted", hand.good, "key", POLICY, {"keys": []})

    yield hand.refused(
        "another-key-its-name", "another key signed under this name", hand.jws(by=hand.other), "signature"
    )
    forged = hand.jws({**hand.head, "kid": hand.other.public.kid})
    yield hand.refused(
        "the-key-anothers-name", "the key signed under another's name", forged, "signature", POLICY, hand.both
    )


def _forged(hand: _Hand) -> Iterator[Row]:
    yield hand.refused(
        "one-byte", "one byte of the policy changed", hand.good, "signature", POLICY.replace("7", "8")
    )
    yield hand.refused(
        "last-newline-gone", "the last end of line is gone", hand.good, "signature", POLICY[:-1]
    )
    ends = POLICY.replace("\n", "\r\n")
    yield hand.refused("carriage-returns", "lines end in CR LF", hand.good, "signature", ends)
    yield hand.refused(
        "byte-order-mark", "a byte order mark came before", hand.good, "signature", f"\ufeff{POLICY}"
    )
    yield hand.refused(
        "another-file", "the signature is of another policy", hand.jws(policy="guard: 1\n"), "signature"
    )
    yield hand.refused("signature-empty", "no bytes of a signature", f"{hand.first}..", "signature")
    sign = hand.key.sign(f"{hand.first}.{_b64(POLICY.encode())}".encode())
    for name, fault, value in (
        ("flipped", "one bit is another", bytes([sign[0] ^ 1]) + sign[1:]),
        ("short", "63 bytes", sign[:-1]),
        ("long", "65 bytes", sign + b"\0"),
        ("s-plus-order", "S is not below the order", sign[:32] + _plus_order(sign[32:])),
    ):
        yield hand.refused(f"signature-{name}", fault, f"{hand.first}..{_b64(value)}", "signature")
    swapped = _text({**hand.head, "alg": "Ed25519"})
    yield hand.refused(
        "header-changed", "the header was changed after", f"{swapped}..{hand.tag}", "signature"
    )
    raw_payload = hand.key.sign(f"{hand.first}.{POLICY}".encode())
    yield hand.refused(
        "not-encoded",
        "the bytes were signed as with `b64` false",
        f"{hand.first}..{_b64(raw_payload)}",
        "signature",
    )


def _text(header: Any) -> str:
    text = header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))
    return _b64(text.encode())


def _b64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _spare(last: str) -> str:
    """The same six bits but for the last, which are spare after 64 bytes."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return letters[letters.index(last) ^ 1]


def _plus_order(scalar: bytes) -> bytes:
    return (int.from_bytes(scalar, "little") + ORDER).to_bytes(32, "little")

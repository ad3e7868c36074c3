"""Signatures of policies: each refusal is told in full, and each bound is where it is said to be."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Any, Final

import pytest

from guard.core.canonical import b64, write
from guard.core.keys import KeySet, SigningKey
from guard.policy.signing import MAX_BYTES, TYPE, Unsigned, check, sign

KEY: Final = SigningKey.load(b"k" * 32)
KID: Final = KEY.public.kid
KEYS: Final = KeySet([KEY.public])
DATA: Final = b"guard: 1\nid: p\nversion: 1\n"
GOOD: Final = {"alg": "EdDSA", "kid": KID, "typ": TYPE}


def signed(header: Any, data: bytes = DATA, key: SigningKey = KEY) -> bytes:
    """A detached JWS with any header, signed by a key."""
    first = urlsafe_b64encode(header if isinstance(header, bytes) else write(header)).rstrip(b"=")
    return first + b".." + b64(key.sign(first + b"." + b64(data).encode())).encode()


HEAD, _, TAG = signed(GOOD).partition(b"..")
SHAPE: Final = "the signature is no compact JWS without its payload: `HEADER..SIGNATURE`"
NO_JWS: Final = "the signature is no JWS"
MEMBERS: Final = "the header of the signature holds other than `alg`, `kid` and `typ`"
KIND: Final = "the signature is not an Ed25519 signature of type guard-policy+jws"
REFUSED: Final[dict[str, tuple[bytes, str, str]]] = {
    "more than its bound": (b"x" * 4097, "malformed", "the signature has more than 4096 bytes"),
    "empty": (b"", "malformed", SHAPE),
    "one dot": (HEAD + b"." + TAG, "malformed", SHAPE),
    "three dots": (HEAD + b"..." + TAG, "malformed", SHAPE),
    "its payload inside": (HEAD + b"." + b64(DATA).encode() + b"." + TAG, "malformed", SHAPE),
    "four parts, one empty": (HEAD + b".." + TAG + b".x", "malformed", SHAPE),
    "padded": (HEAD + b".." + TAG + b"==", "malformed", NO_JWS),
    "a header that is not base64url": (b"!!.." + TAG, "malformed", NO_JWS),
    "a header that is not ASCII": (b"\xff.." + TAG, "malformed", NO_JWS),
    "a tag that is not ASCII": (HEAD + b"..\xc3\xa9", "malformed", NO_JWS),
    "a header that is not JSON": (signed(b"{"), "malformed", NO_JWS),
    "a member twice": (
        signed(f'{{"alg":"EdDSA","alg":"EdDSA","kid":"{KID}","typ":"{TYPE}"}}'.encode()),
        "malformed",
        NO_JWS,
    ),
    "a list": (signed(list(GOOD)), "header", MEMBERS),
    "a member more": (signed({**GOOD, "crit": ["x"]}), "header", MEMBERS),
    "a member less": (signed({"alg": "EdDSA", "kid": KID}), "header", MEMBERS),
    "no algorithm": (signed({**GOOD, "alg": "none"}), "header", KIND),
    "another algorithm": (signed({**GOOD, "alg": "HS256"}), "header", KIND),
    "small letters": (signed({**GOOD, "alg": "eddsa"}), "header", KIND),
    "another type": (signed({**GOOD, "typ": "JWT"}), "header", KIND),
    "a key that nobody trusts": (
        signed({**GOOD, "kid": "stranger\x07"}),
        "key",
        "no trusted key is called stranger\\x07",
    ),
    "a name too long to repeat": (
        signed({**GOOD, "kid": "k" * 81}),
        "key",
        f"no trusted key is called {'k' * 80}",
    ),
    "a number for a key": (signed({**GOOD, "kid": 7}), "key", "no trusted key is called 7"),
    "a list for a key": (signed({**GOOD, "kid": [KID]}), "key", f"no trusted key is called ['{KID}']"),
    "other bytes": (signed(GOOD, DATA + b"\n"), "signature", "the signature is not of these bytes"),
    "no tag": (HEAD + b"..", "signature", "the signature is not of these bytes"),
    "another header's tag": (
        HEAD + b".." + signed({**GOOD, "alg": "Ed25519"}).partition(b"..")[2],
        "signature",
        "the signature is not of these bytes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_signature_that_does_not_count_is_told_in_full(case: str) -> None:
    """What is wrong, for people and for programs, of which file, and what to do."""
    signature, fault, what = REFUSED[case]
    with pytest.raises(Unsigned) as told:
        check(DATA, signature, KEYS, name="poli\x07cy.yaml")
    said = told.value
    assert (said.fault, said.what) == (fault, what)
    assert said.where == "poli\\x07cy.yaml"
    assert said.remedy == "sign it again: guard policy sign FILE --key KEY"


def test_a_signature_is_one_line_with_the_canonical_header() -> None:
    """The same bytes for the same policy and key, whoever signs: RFC 8785 before base64url."""
    header = f'{{"alg":"EdDSA","kid":"{KID}","typ":"guard-policy+jws"}}'.encode()
    first, _, tag = sign(DATA, KEY).partition(b"..")
    assert first == urlsafe_b64encode(header).rstrip(b"=")
    assert tag == urlsafe_b64encode(KEY.sign(first + b"." + urlsafe_b64encode(DATA).rstrip(b"="))).rstrip(
        b"="
    )


@pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
def test_a_signature_is_good_up_to_its_bound(alg: str) -> None:
    """White space around it counts as bytes and means nothing; both names of the algorithm are good."""
    signature = signed({**GOOD, "alg": alg})
    padded = b" \n" + signature.ljust(MAX_BYTES - 2)
    assert len(padded) == MAX_BYTES == 4096
    assert check(DATA, padded, KEYS, name="p") == KID


def test_a_policy_without_its_signature_is_missing_it() -> None:
    """Who finds no signature raises the error as it is: `missing`, for programs."""
    assert Unsigned("x").fault == "missing"

"""Signatures of policies: others verify what Guard signs, Guard what others sign, and nothing else."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws as jose
from joserfc.errors import BadSignatureError
from joserfc.jwk import OKPKey

from guard.core.keys import KeySet, SigningKey
from guard.policy.signing import TYPE, Unsigned, check, sign

KEY: Final = SigningKey.load(b"k" * 32)
OTHER: Final = SigningKey.load(b"o" * 32)
KEYS: Final = KeySet([KEY.public])
DATA: Final = b"guard: 1\nid: p\nversion: 1\n"
VECTORS: Final = Path(__file__).parents[1] / "vectors" / "policy-signature"
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated:joserfc.errors.SecurityWarning")


def refused(data: bytes, signature: bytes, keys: KeySet = KEYS) -> str:
    with pytest.raises(Unsigned) as caught:
        check(data, signature, keys, name="policy.yaml")
    return caught.value.fault


def private() -> OKPKey:
    """The key as a stranger's program has it."""
    seed = urlsafe_b64encode(b"k" * 32).decode().rstrip("=")
    return OKPKey.import_key({**KEY.public.jwk(), "d": seed})


def by_joserfc(data: bytes, signature: bytes) -> dict[str, Any]:
    """As a stranger with joserfc would; the header."""
    key = OKPKey.import_key(KEY.public.jwk())
    found = jose.deserialize_compact(signature, key, algorithms=["EdDSA", "Ed25519"], payload=data)
    return dict(found.headers())


def by_pyjwt(data: bytes, signature: bytes) -> dict[str, Any]:
    """As a stranger with PyJWT would, with the payload put back where RFC 7515, appendix F, took it out."""
    header, _, tag = signature.split(b".")
    whole = b".".join((header, urlsafe_b64encode(data).rstrip(b"="), tag))
    found = jwt.PyJWS().decode_complete(whole, jwt.PyJWK(KEY.public.jwk()), algorithms=["EdDSA"])
    assert found["payload"] == data
    return dict(found["header"])


@pytest.mark.parametrize("data", [DATA, b"", b"\xff\x00", b"a.b"], ids=["policy", "empty", "bytes", "dot"])
def test_others_verify_what_guard_signs(data: bytes) -> None:
    """A detached JWS, as RFC 7515 says, of exactly the file's bytes."""
    signature = sign(data, KEY)
    want = {"alg": "EdDSA", "kid": KEY.public.kid, "typ": TYPE}
    assert by_pyjwt(data, signature) == want
    if data:  # joserfc takes an empty payload for none
        assert by_joserfc(data, signature) == want
    with pytest.raises(jwt.InvalidSignatureError):
        by_pyjwt(data + b" ", signature)
    with pytest.raises(BadSignatureError):
        by_joserfc(data + b" ", signature)


@pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
def test_guard_verifies_what_others_sign(alg: str) -> None:
    """With the payload taken out of a compact JWS of joserfc's, and of PyJWT's."""
    head = {"alg": alg, "kid": KEY.public.kid, "typ": TYPE}
    whole = jose.serialize_compact(head, DATA, private(), algorithms=[alg])
    first, _, tag = whole.split(".")
    assert check(DATA, f"{first}..{tag}\n".encode(), KEYS, name="p") == KEY.public.kid
    assert refused(DATA, whole.encode()) == "malformed"
    if alg == "EdDSA":
        signed = jwt.PyJWS().encode(
            DATA, jwt.PyJWK(private().as_dict(private=True)), "EdDSA", {"kid": KEY.public.kid, "typ": TYPE}
        )
        first, _, tag = signed.split(".")
        assert check(DATA, f"{first}..{tag}".encode(), KEYS, name="p") == KEY.public.kid


def test_a_stranger_refuses_the_forged_vectors_too() -> None:
    """What Guard calls forged joserfc does not verify either: the fault is in the bytes, not in Guard."""
    found = 0
    for path in sorted(VECTORS.glob("*.json")):
        vector = json.loads(path.read_text())
        given = vector["input"]
        if vector["expected"] == "signature" and "one-byte" in path.stem:
            found += 1
            with pytest.raises(BadSignatureError):
                jose.deserialize_compact(
                    given["signature"],
                    OKPKey.import_key(given["jwks"]["keys"][0]),
                    algorithms=["EdDSA"],
                    payload=given["policy"].encode(),
                )
        if path.stem in {"valid", "valid-last-newline"}:
            found += 1
            key = OKPKey.import_key(given["jwks"]["keys"][0])
            assert jose.deserialize_compact(
                given["signature"].strip(), key, algorithms=["EdDSA"], payload=given["policy"].encode()
            )
    assert found == 3


@given(st.binary(max_size=200), st.data())
def test_one_changed_byte_is_another_policy(data: bytes, draw: st.DataObject) -> None:
    """One bit of the file or of the signature, a byte more, a byte less: it does not load."""
    signature = sign(data, KEY)
    assert check(data, signature, KEYS, name="p") == KEY.public.kid
    assert refused(data + b"\n", signature) == "signature"
    if data:
        at, bit = draw.draw(st.integers(0, len(data) * 8 - 1).map(lambda n: divmod(n, 8)))
        changed = bytes([*data[:at], data[at] ^ 1 << bit, *data[at + 1 :]])
        assert refused(changed, signature) == "signature"
        assert refused(data[:-1], signature) == "signature"
    first, _, tag = signature.partition(b"..")
    raw = urlsafe_b64decode(tag + b"==")
    at, bit = draw.draw(st.integers(0, 511).map(lambda n: divmod(n, 8)))
    forged = bytes([*raw[:at], raw[at] ^ 1 << bit, *raw[at + 1 :]])
    assert refused(data, first + b".." + urlsafe_b64encode(forged).rstrip(b"=")) == "signature"


@given(st.binary(max_size=120))
def test_what_is_no_signature_is_refused_as_that(noise: bytes) -> None:
    """Any bytes at all: an `Unsigned`, and no other exception."""
    assert refused(DATA, noise) in {"malformed", "header", "key", "signature"}
    head = sign(DATA, KEY).partition(b".")[0]
    assert refused(DATA, head + b".." + noise) in {"malformed", "signature"}


def test_only_trusted_keys_count() -> None:
    """Not the key that signed, if the operator does not trust it; not under a trusted name either."""
    assert refused(DATA, sign(DATA, OTHER)) == "key"
    assert refused(DATA, sign(DATA, KEY), KeySet([])) == "key"
    both = KeySet([KEY.public, OTHER.public])
    assert check(DATA, sign(DATA, OTHER), both, name="p") == OTHER.public.kid
    first, _, _ = sign(DATA, KEY).partition(b"..")
    _, _, tag = sign(DATA, OTHER).partition(b"..")
    assert refused(DATA, first + b".." + tag, both) == "signature"


def test_a_signature_of_another_kind_is_none() -> None:
    """The same key may sign artifacts: no artifact's signature is taken for a policy's."""
    head = urlsafe_b64encode(
        json.dumps({"alg": "EdDSA", "kid": KEY.public.kid, "typ": "guard-authz+jwt"}).encode()
    )
    first = head.rstrip(b"=").decode()
    body = urlsafe_b64encode(DATA).rstrip(b"=").decode()
    tag = urlsafe_b64encode(KEY.sign(f"{first}.{body}".encode())).rstrip(b"=").decode()
    assert refused(DATA, f"{first}..{tag}".encode()) == "header"

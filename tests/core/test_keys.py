"""Ed25519 keys: what is refused when one is loaded, and the RFCs' own examples."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from guard.core.canonical import b64, unb64
from guard.core.keys import BadKey, KeySet, PublicKey, SigningKey, note_key_id, thumbprint, vkey

P = 2**255 - 19
SIGN = 1 << 255

# The y-coordinates of the eight points whose order divides 8, by order.
ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
LOW_ORDER = {
    "order 1": 1,
    "order 2": P - 1,
    "order 4": 0,
    "order 4, negative": 0 | SIGN,
    "order 8 a": ORDER_8,
    "order 8 a, negative": ORDER_8 | SIGN,
    "order 8 b": P - ORDER_8,
    "order 8 b, negative": (P - ORDER_8) | SIGN,
}
TWINS = {
    "order 1 with a sign": 1 | SIGN,
    "order 1 plus p": P + 1,
    "order 1 plus p with a sign": (P + 1) | SIGN,
    "order 2 with a sign": (P - 1) | SIGN,
    "order 4 plus p": P,
    "order 4 plus p, negative": P | SIGN,
}

# RFC 8037 appendix A.
SEED = unb64("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
SIGNING_INPUT = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
SIGNATURE = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"


def _raw(number: int) -> bytes:
    return number.to_bytes(32, "little")


@pytest.mark.parametrize("number", LOW_ORDER.values(), ids=LOW_ORDER)
def test_a_key_of_small_order_is_refused(number: int) -> None:
    """Under such a key one signature fits many messages, and libraries disagree about it."""
    with pytest.raises(BadKey, match="small order"):
        PublicKey.load(_raw(number))


@pytest.mark.parametrize("number", TWINS.values(), ids=TWINS)
def test_the_other_encodings_of_small_order_points_are_refused(number: int) -> None:
    """A list of eight bad keys would let these six through."""
    with pytest.raises(BadKey, match=r"canonically|not a point"):
        PublicKey.load(_raw(number))


@pytest.mark.parametrize("sign", [0, SIGN])
@pytest.mark.parametrize("excess", range(19))
def test_no_coordinate_beyond_the_field_is_taken(excess: int, sign: int) -> None:
    """Each of the 19 values from p to 2^255-1 is refused, on the curve or not."""
    with pytest.raises(BadKey, match="canonically"):
        PublicKey.load(_raw(P + excess | sign))


def test_a_point_off_the_curve_is_refused() -> None:
    """y = 2 has no x on the curve."""
    with pytest.raises(BadKey, match="not a point"):
        PublicKey.load(_raw(2))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    """Public keys and seeds have 32 bytes."""
    with pytest.raises(BadKey):
        PublicKey.load(bytes(length))
    with pytest.raises(BadKey):
        SigningKey.load(bytes(length))


@given(st.binary(min_size=32, max_size=32))
def test_every_key_that_a_seed_gives_is_taken(seed: bytes) -> None:
    """The checks refuse no honest key, and its signature verifies, also by the library alone."""
    key = SigningKey.load(seed)
    signature = key.sign(b"message")
    assert key.public.verifies(signature, b"message")
    assert PublicKey.load(key.public.raw) == key.public
    Ed25519PublicKey.from_public_bytes(key.public.raw).verify(signature, b"message")


def test_rfc_8037_key_thumbprint_and_signature() -> None:
    """The key of RFC 8037 appendix A has the public key, thumbprint and JWS signature given there."""
    key = SigningKey.load(SEED)
    assert b64(key.public.raw) == X
    assert key.public.kid == thumbprint(unb64(X)) == THUMBPRINT
    assert b64(key.sign(SIGNING_INPUT)) == SIGNATURE
    assert key.public.verifies(unb64(SIGNATURE), SIGNING_INPUT)


@given(st.integers(0, 511))
def test_a_signature_with_one_flipped_bit_fails(bit: int) -> None:
    """Every bit of the 64 bytes counts."""
    signature = bytearray(unb64(SIGNATURE))
    signature[bit // 8] ^= 1 << bit % 8
    assert not PublicKey.load(unb64(X)).verifies(bytes(signature), SIGNING_INPUT)


@pytest.mark.parametrize("length", [0, 63, 65, 128])
def test_a_signature_of_another_length_fails(length: int) -> None:
    """Nothing but 64 bytes is looked at."""
    padded = (unb64(SIGNATURE) * 2)[:length]
    assert not PublicKey.load(unb64(X)).verifies(padded, SIGNING_INPUT)


def test_the_same_signature_with_a_larger_scalar_fails() -> None:
    """S + L verifies in a lax library: a second signature of one message (RFC 8032 section 5.1.7)."""
    order = 2**252 + 27742317777372353535851937790883648493
    signature = unb64(SIGNATURE)
    larger = int.from_bytes(signature[32:], "little") + order
    assert not PublicKey.load(unb64(X)).verifies(
        signature[:32] + larger.to_bytes(32, "little"), SIGNING_INPUT
    )


def _by_openssl(raw: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
    except InvalidSignature:
        return False
    return True


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.data())
def test_another_library_agrees_about_every_signature(
    seed: bytes, message: bytes, data: st.DataObject
) -> None:
    """Right, tampered or of something else: libsodium and OpenSSL say the same."""
    key = SigningKey.load(seed)
    signature = key.sign(message)
    assert signature == Ed25519PrivateKey.from_private_bytes(seed).sign(message)
    raw = key.public.raw
    assert key.public.verifies(signature, message)
    assert _by_openssl(raw, signature, message)
    forged = bytearray(signature)
    forged[data.draw(st.integers(0, 63))] ^= data.draw(st.integers(1, 255))
    other = data.draw(st.binary(max_size=200))
    random = data.draw(st.binary(min_size=64, max_size=64))
    for sig, text in ((bytes(forged), message), (signature, other), (random, message)):
        assert (
            key.public.verifies(sig, text)
            == _by_openssl(raw, sig, text)
            == (sig == signature and text == message)
        )


ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize("point", LOW_ORDER.values(), ids=LOW_ORDER)
def test_a_signature_whose_r_has_small_order_is_refused(point: int) -> None:
    """Only who holds the key can make one; OpenSSL takes that over the neutral element, Guard none."""
    key = SigningKey.load(SEED)
    half = bytearray(hashlib.sha512(SEED).digest()[:32])
    half[0], half[31] = half[0] & 248, half[31] & 127 | 64
    r, message = _raw(point), b"message"
    h = int.from_bytes(hashlib.sha512(r + key.public.raw + message).digest(), "little")
    signature = r + _raw(h * int.from_bytes(half, "little") % ORDER)
    assert not key.public.verifies(signature, message)
    assert _by_openssl(key.public.raw, signature, message) == (point == LOW_ORDER["order 1"])


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_that_was_not_loaded_verifies_nothing(length: int) -> None:
    """The C library reads 32 bytes whatever it is given; it is given nothing else."""
    assert not PublicKey(bytes(length), "kid").verifies(unb64(SIGNATURE), SIGNING_INPUT)


def test_a_private_key_is_never_shown() -> None:
    """Neither repr nor str of a signing key contains its seed or the library's key."""
    shown = repr(SigningKey.load(SEED)) + str(SigningKey.load(SEED))
    assert "_key" not in shown
    assert repr(SEED) not in shown


GOOD: dict[str, Any] = {"kty": "OKP", "crv": "Ed25519", "x": X}
BAD_JWKS: dict[str, Any] = {
    "null": None,
    "a list": [],
    "a key instead of a set": GOOD,
    "keys is an object": {"keys": {}},
    "a key is text": {"keys": ["x"]},
    "no kty": {"keys": [{"crv": "Ed25519", "x": X}]},
    "rsa": {"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]},
    "oct": {"keys": [{"kty": "oct", "k": X}]},
    "ec": {"keys": [{**GOOD, "kty": "EC", "crv": "P-256"}]},
    "x25519": {"keys": [{**GOOD, "crv": "X25519"}]},
    "ed448": {"keys": [{**GOOD, "crv": "Ed448"}]},
    "another case": {"keys": [{**GOOD, "crv": "ed25519"}]},
    "private key": {"keys": [{**GOOD, "d": b64(SEED)}]},
    "no x": {"keys": [{"kty": "OKP", "crv": "Ed25519"}]},
    "x is a number": {"keys": [{**GOOD, "x": 7}]},
    "x is null": {"keys": [{**GOOD, "x": None}]},
    "x is padded": {"keys": [{**GOOD, "x": X + "="}]},
    "x has other trailing bits": {"keys": [{**GOOD, "x": X[:-1] + "p"}]},
    "x is not ascii": {"keys": [{**GOOD, "x": X[:-1] + "\u043e"}]},
    "x is short": {"keys": [{**GOOD, "x": X[:40]}]},
    "x is of small order": {"keys": [{**GOOD, "x": b64(_raw(1))}]},
    "kid of another key": {"keys": [{**GOOD, "kid": "key-1"}]},
    "kid is null": {"keys": [{**GOOD, "kid": None}]},
    "exp is text": {"keys": [{**GOOD, "exp": "soon"}]},
    "exp is true": {"keys": [{**GOOD, "exp": True}]},
    "exp is a fraction": {"keys": [{**GOOD, "exp": 1.5}]},
    "one key twice": {"keys": [{**GOOD, "exp": 5}, GOOD]},
}


@pytest.mark.parametrize("jwks", BAD_JWKS.values(), ids=BAD_JWKS)
def test_a_key_set_with_one_fault_is_refused_whole(jwks: Any) -> None:
    """A reader that skips the bad key would let an operator believe that it is in use."""
    with pytest.raises(BadKey):
        KeySet.from_jwks(jwks)


def test_a_key_set_reads_what_it_writes() -> None:
    """The JWK set of a key set gives the same keys, with their ends, in the order of thumbprints."""
    keys = [SigningKey.load(bytes([n]) * 32, not_after=n or None).public for n in range(4)]
    again = KeySet.from_jwks(KeySet(keys).jwks())
    assert len(again) == 4
    assert sorted(again, key=lambda key: key.kid) == sorted(keys, key=lambda key: key.kid)
    assert [jwk["kid"] for jwk in again.jwks()["keys"]] == sorted(key.kid for key in keys)
    assert again.get(keys[2].kid) == keys[2]
    assert again.get("unknown") is None


def test_the_fault_names_the_key() -> None:
    """The place is a JSON pointer into the set."""
    with pytest.raises(BadKey) as caught:
        KeySet.from_jwks({"keys": [GOOD, {**GOOD, "x": X + "="}]})
    assert caught.value.where == "/keys/1/x"


def test_the_vkey_of_signed_note_has_its_key_id() -> None:
    """The example of C2SP signed-note: key ID and verifier key of example.com/foo."""
    raw = unb64("6TJ5GubnqECkYWTJBHhkJtXngh3YspoA1hyucq_dTaQ")
    assert note_key_id("example.com/foo", raw).hex() == "530d903a"
    assert (
        vkey("example.com/foo", raw)
        == "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    )

"""Ed25519 keys: signing, verifying, names, and the two formats others read them in.

The library is libsodium, by PyNaCl: it signs and verifies in half of the time that OpenSSL takes.
Libraries differ about public keys of small order and points that are not canonically encoded, so
both are refused when a key is loaded: two verifiers must never disagree about one signature. What
libsodium takes OpenSSL takes too; it refuses one kind more, which no honest signer makes: those
whose R has small order.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from guard.core.canonical import b64, canonical, sha256, unb64
from guard.core.errors import GuardError

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
_P: Final = 2**255 - 19


class BadKey(GuardError):
    """A key that Guard will not use; the message says why."""


def checked_public_bytes(raw: bytes) -> bytes:
    """The 32 bytes of an Ed25519 public key, if every library reads them alike.

    Raises:
        BadKey: wrong length, not canonically encoded (RFC 8032 section 5.1.3), not on the curve,
            or of small order.
    """
    if len(raw) != KEY_BYTES:
        raise BadKey(f"an Ed25519 public key has {KEY_BYTES} bytes, not {len(raw)}")
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    sign = raw[31] >> 7
    if y >= _P:
        raise BadKey("the Ed25519 public key is not canonically encoded")
    x = _recover_x(y, sign)
    if x is None:
        raise BadKey("the Ed25519 public key is not a point of the curve")
    if _is_low_order(x, y):
        raise BadKey("the Ed25519 public key has small order")
    return raw


def _recover_x(y: int, sign: int) -> int | None:
    """The x-coordinate (RFC 8032 section 5.1.3), None where there is none."""
    d = -121665 * pow(121666, _P - 2, _P) % _P
    u, v = (y * y - 1) % _P, (d * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if v * x * x % _P == -u % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if v * x * x % _P != u:
        return None
    if x == 0 and sign == 1:
        return None
    return _P - x if x & 1 != sign else x


def _is_low_order(x: int, y: int) -> bool:
    """Whether 8·P is the neutral element, by three doublings on the curve."""
    d = -121665 * pow(121666, _P - 2, _P) % _P
    for _ in range(3):
        product = d * x * x % _P * y * y % _P
        x, y = (
            2 * x * y * pow(1 + product, _P - 2, _P) % _P,
            (y * y + x * x) * pow(1 - product, _P - 2, _P) % _P,
        )
    return (x, y) == (0, 1)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key.

    Attributes:
        raw: the 32 bytes of RFC 8032 section 5.1.5, checked.
        kid: the RFC 7638 thumbprint of its JWK.
        not_after: UNIX seconds after which it signs and verifies nothing; None for no end.
    """

    raw: bytes
    kid: str
    not_after: int | None = None

    @classmethod
    def load(cls, raw: bytes, not_after: int | None = None) -> PublicKey:
        """Check 32 bytes and make a key of them. Raises BadKey."""
        raw = bytes(checked_public_bytes(raw))
        return cls(raw, thumbprint(raw), not_after)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the 64-byte signature is this key's over the message (RFC 8032 section 5.1.7)."""
        if len(signature) != SIGNATURE_BYTES or len(self.raw) != KEY_BYTES:
            return False  # the C library takes both lengths for granted
        try:
            opened = crypto_sign_open(signature + message, self.raw)
        except BadSignatureError:
            return False
        return opened == message

    def jwk(self) -> dict[str, Any]:
        """The key as a JWK (RFC 8037 section 2)."""
        end = {} if self.not_after is None else {"exp": self.not_after}
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(self.raw), "kid": self.kid, "use": "sig", **end}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key. It is never printed or pickled."""

    public: PublicKey
    _key: bytes = field(repr=False, compare=False)

    @classmethod
    def load(cls, seed: bytes, not_after: int | None = None) -> SigningKey:
        """Make a key of its 32-byte seed (RFC 8032 section 5.1.5). Raises BadKey."""
        if len(seed) != KEY_BYTES:
            raise BadKey(f"an Ed25519 seed has {KEY_BYTES} bytes, not {len(seed)}")
        public, key = crypto_sign_seed_keypair(bytes(seed))
        return cls(PublicKey.load(public, not_after), key)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over the message."""
        return crypto_sign(message, self._key)[:SIGNATURE_BYTES]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled")


def thumbprint(raw: bytes) -> str:
    """The RFC 7638 thumbprint of an OKP key: SHA-256 over its required members (RFC 8037 appendix A.3)."""
    return sha256(canonical({"crv": "Ed25519", "kty": "OKP", "x": b64(raw)}))


class KeySet:
    """Public keys by `kid`: a JWK set (RFC 7517 section 5) read strictly."""

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        self._keys = {key.kid: key for key in keys}

    def __iter__(self) -> Iterator[PublicKey]:
        return iter(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, kid: str) -> PublicKey | None:
        """The key of that thumbprint, None if the set has none."""
        return self._keys.get(kid)

    def jwks(self) -> dict[str, Any]:
        """The JWK set, keys in the order of their thumbprints."""
        return {"keys": [self._keys[kid].jwk() for kid in sorted(self._keys)]}

    @classmethod
    def from_jwks(cls, jwks: Any) -> KeySet:
        """Read a JWK set that `read` or a JSON library gave.

        Raises:
            BadKey: not a JWK set, a key that is not OKP/Ed25519, a bad point, a `kid` that is not
                the key's thumbprint, or one key twice.
        """
        if not isinstance(jwks, Mapping) or not isinstance(jwks.get("keys"), list):
            raise BadKey("not a JWK set", remedy="give the JSON that `guard jwks` prints")
        keys = [_from_jwk(jwk, index) for index, jwk in enumerate(jwks["keys"])]
        if len({key.kid for key in keys}) != len(keys):
            raise BadKey("one key stands twice in the set", where="/keys", remedy="keep one of the two")
        return cls(keys)


def _from_jwk(jwk: Any, index: int) -> PublicKey:
    where = f"/keys/{index}"
    if not isinstance(jwk, Mapping) or jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
        raise BadKey("only OKP/Ed25519 keys are taken", where=where)
    if jwk.get("use", "sig") != "sig":
        raise BadKey("the key is not for signatures", where=f"{where}/use")
    if "d" in jwk:
        raise BadKey(
            "a private key in a public key set", where=where, remedy="revoke that key, it has leaked"
        )
    try:
        raw = unb64(jwk["x"])
    except (KeyError, TypeError, ValueError):
        raise BadKey("`x` is not canonical base64url", where=f"{where}/x") from None
    end = jwk.get("exp")
    if end is not None and type(end) is not int:
        raise BadKey("`exp` is not an integer", where=f"{where}/exp")
    key = PublicKey.load(raw, end)
    if jwk.get("kid", key.kid) != key.kid:
        raise BadKey("`kid` is not the RFC 7638 thumbprint of the key", where=f"{where}/kid")
    return key


def note_key_id(name: str, raw: bytes) -> bytes:
    """The 4-byte key ID of C2SP signed-note, Ed25519 (type 0x01)."""
    return hashlib.sha256(name.encode() + b"\n\x01" + raw).digest()[:4]


def vkey(name: str, raw: bytes) -> str:
    """A C2SP verifier key: `name+hex(key ID)+base64(0x01 || key)`."""
    return f"{name}+{note_key_id(name, raw).hex()}+{b64encode(bytes([1]) + raw).decode()}"

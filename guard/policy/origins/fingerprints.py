"""What a memory keeps of a value: 16 bytes that say nothing without the salt.

HMAC-SHA256 (RFC 2104, FIPS 180-4) over `kind`, a zero byte and the normal form, cut to 16 bytes. The two
states that the key leaves behind are kept, because a result has thousands of values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Final

LENGTH: Final = 16  # bytes
_BLOCK: Final = 64  # bytes; of SHA-256

Fingerprint = Callable[[str, str], bytes]


@lru_cache(maxsize=64)
def keyed(salt: bytes) -> Fingerprint:
    """A function from kind and normal form to the fingerprint under this salt."""
    key = hashlib.sha256(salt).digest() if len(salt) > _BLOCK else salt
    padded = key.ljust(_BLOCK, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def fingerprint(kind: str, normal: str) -> bytes:
        message = inner.copy()
        message.update(f"{kind}\0{normal}".encode("utf-8", "surrogatepass"))
        sealed = outer.copy()
        sealed.update(message.digest())
        return sealed.digest()[:LENGTH]

    return fingerprint

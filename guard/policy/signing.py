"""A policy's signature: a detached JWS (RFC 7515, appendix F) over exactly the bytes of the file.

Header: `alg` `EdDSA` (RFC 8037), `kid` the RFC 7638 thumbprint, `typ` `guard-policy+jws`. Nothing stands
between the two dots: the payload is the policy's file.
"""

from __future__ import annotations

from typing import Final

from guard.core.canonical import NotIJson, NotJson, b64, read, unb64, write
from guard.core.errors import GuardError, printable
from guard.core.keys import KeySet, SigningKey

TYPE: Final = "guard-policy+jws"
SUFFIX: Final = ".jws"
"""What is added to the policy's name to name the file of its signature."""
MAX_BYTES: Final = 4096
_PARTS: Final = 3
_MEMBERS: Final = frozenset({"alg", "kid", "typ"})
_ALGORITHMS: Final = ("EdDSA", "Ed25519")  # RFC 8037; RFC 9864


class Unsigned(GuardError):
    """A policy is not signed by a key that the operator trusts for that.

    Attributes:
        fault: "missing", "malformed", "header", "key" or "signature": what is wrong, for programs.
    """

    fault: str = "missing"


def sign(data: bytes, key: SigningKey) -> bytes:
    """The signature of a policy's bytes, one line without its end."""
    header = b64(write({"alg": "EdDSA", "kid": key.public.kid, "typ": TYPE}))
    return f"{header}..{b64(key.sign(f'{header}.{b64(data)}'.encode()))}".encode()


def check(data: bytes, signature: bytes, keys: KeySet, *, name: str) -> str:
    """Hold a policy's bytes against its signature.

    Args:
        data: the policy, as it will be read.
        signature: the detached JWS; white space around it is ignored.
        keys: whose signatures count.
        name: what the policy is called in messages.

    Returns: the `kid` of the key that signed it.

    Raises:
        Unsigned: not one of these keys signed these bytes.
    """
    if len(signature) > MAX_BYTES:
        raise _refused("malformed", f"the signature has more than {MAX_BYTES} bytes", name)
    parts = signature.strip().split(b".")
    if len(parts) != _PARTS or parts[1]:
        raise _refused(
            "malformed", "the signature is no compact JWS without its payload: `HEADER..SIGNATURE`", name
        )
    try:
        header, tag = read(unb64(parts[0].decode("ascii"))), unb64(parts[2].decode("ascii"))
    except (ValueError, NotJson, NotIJson):
        raise _refused("malformed", "the signature is no JWS", name) from None
    if not isinstance(header, dict) or header.keys() != _MEMBERS:
        raise _refused("header", "the header of the signature holds other than `alg`, `kid` and `typ`", name)
    if header["alg"] not in _ALGORITHMS or header["typ"] != TYPE:
        raise _refused("header", f"the signature is not an Ed25519 signature of type {TYPE}", name)
    key = keys.get(header["kid"]) if isinstance(header["kid"], str) else None
    if key is None:
        raise _refused("key", f"no trusted key is called {printable(str(header['kid'])[:80])}", name)
    if not key.verifies(tag, parts[0] + b"." + b64(data).encode()):
        raise _refused("signature", "the signature is not of these bytes", name)
    return key.kid


def _refused(fault: str, what: str, name: str) -> Unsigned:
    error = Unsigned(what, where=printable(name), remedy="sign it again: guard policy sign FILE --key KEY")
    error.fault = fault
    return error

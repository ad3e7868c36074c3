"""API keys: what one looks like, what is kept of it, and whom it stands for.

A key is `guard_<id>_<secret><checksum>`: 62 characters of lower-case base32 (RFC 4648 section 6)
and underscores. The prefix lets a secret scanner find it; nothing in it needs quoting in a URL
or a shell; a double click selects all of it; and the checksum tells a typing error from an
unknown key without asking the store.

Kept is only SHA-256 over the whole text. A slow hash would add nothing: the secret has 160
random bits. Hashing the id with it ties the hash to its record.

Nothing here reads a clock, a file or a source of randomness: all three are arguments.
"""

from __future__ import annotations

import re
import zlib
from base64 import b32encode
from collections.abc import Callable
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Final

from guard.core.canonical import sha256
from guard.core.errors import GuardError, Reason, Refused, printable
from guard.core.model import Principal

ISSUER: Final = "api-key"
PREFIX: Final = "guard_"
ID_BYTES: Final = 10
SECRET_BYTES: Final = 20
ENTROPY_BYTES: Final = ID_BYTES + SECRET_BYTES
KEY_CHARS: Final = 62

_CHECKSUM_CHARS: Final = 7
_SHAPE: Final = re.compile(rf"{PREFIX}([a-z2-7]{{16}})_[a-z2-7]{{{32 + _CHECKSUM_CHARS}}}")
_NOBODY: Final = sha256(b"no key has this text")
_COPY_WHOLE: Final = "copy the whole key, without quotes or spaces, or mint one with `guard key new`"


class BadRecord(GuardError):
    """A key cannot be minted for what was asked."""


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    """What is kept of an API key. The secret is not.

    Attributes:
        key_id: 16 characters of base32, public.
        secret_sha256: base64url SHA-256 over the key's whole text.
        tenant: the tenant that the key belongs to.
        principal: the principal's name under the tenant; the subject of its Principal.
        role: the one role that the key acts in.
        scopes: what the key narrows its role to; None narrows nothing.
        created: UNIX seconds.
        expires: UNIX seconds from which it is refused; None for no end.
        revoked_at: UNIX seconds of its revocation, which holds from then on whatever the clock
            says; None while it stands.
        last_used: UNIX seconds of the last call that it identified; None before the first.
    """

    key_id: str
    secret_sha256: str = field(repr=False)
    tenant: str
    principal: str
    role: str
    scopes: frozenset[str] | None
    created: int
    expires: int | None = None
    revoked_at: int | None = None
    last_used: int | None = None


@dataclass(frozen=True, slots=True)
class Presented:
    """A well-formed key that someone presented. It no longer holds the secret.

    Attributes:
        key_id: the public part.
        secret_sha256: base64url SHA-256 over the whole text.
    """

    key_id: str
    secret_sha256: str = field(repr=False)


def mint(
    entropy: bytes,
    *,
    tenant: str,
    principal: str,
    role: str,
    created: int,
    scopes: frozenset[str] | None = None,
    expires: int | None = None,
) -> tuple[str, ApiKeyRecord]:
    """Make a key of ENTROPY_BYTES random bytes: 10 for the id, 20 for the secret.

    Args:
        entropy: from the system's random source, used for nothing else.
        tenant: the tenant's name.
        principal: the principal's name under the tenant.
        role: the role it acts in.
        created: UNIX seconds.
        scopes: what the key narrows its role to; None narrows nothing, an empty set narrows to nothing.
        expires: UNIX seconds from which it is refused; None for no end.

    Returns: the key's text, to be shown once and kept nowhere, and the record to keep.

    Raises:
        BadRecord: too few or too many random bytes, an empty name or one with hidden characters,
            or an end that is not after the beginning.
    """
    if len(entropy) != ENTROPY_BYTES:
        raise BadRecord(f"a key is made of {ENTROPY_BYTES} random bytes, not {len(entropy)}")
    for where, name in (("tenant", tenant), ("principal", principal), ("role", role)):
        if not name or name != name.strip() or printable(name) != name:
            raise BadRecord(
                "not a name: empty, or with hidden or surrounding blank characters",
                where=where,
                remedy="give a name of visible characters",
            )
    if expires is not None and expires <= created:
        raise BadRecord("the key would have expired before it was made", where="expires")
    key_id = _base32(entropy[:ID_BYTES])
    body = f"{PREFIX}{key_id}_{_base32(entropy[ID_BYTES:])}"
    text = body + _checksum(body)
    return text, ApiKeyRecord(
        key_id, sha256(text.encode()), tenant, principal, role, scopes, created, expires
    )


_MOST_KNOWN: Final = 1024
_known: dict[str, Presented] = {}
"""Keys that were read well, by digest: the form of a key never changes, and no key is kept."""


def parse(text: str) -> Presented:
    """Read a key strictly: its exact length, its alphabet and its checksum.

    Raises:
        Refused: INVALID_KEY. The message never repeats any of the text.
    """
    digest = sha256(text.encode("utf-8", "replace"))
    if (known := _known.get(digest)) is not None:
        return known
    if len(text) != KEY_CHARS or not (shape := _SHAPE.fullmatch(text)):
        raise Refused(Reason.INVALID_KEY, "not an API key of Guard's", remedy=_COPY_WHOLE)
    if _checksum(text[:-_CHECKSUM_CHARS]) != text[-_CHECKSUM_CHARS:]:
        raise Refused(
            Reason.INVALID_KEY, "the API key's checksum is wrong: a character was changed", remedy=_COPY_WHOLE
        )
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[digest] = found = Presented(shape[1], digest)
    return found


def authenticate(text: str | None, lookup: Callable[[str], ApiKeyRecord | None], now: int) -> Principal:
    """Whom the key stands for.

    An unknown id and a wrong secret are one answer, and cost one look-up, one hash and one
    comparison alike. Only the holder of the secret learns that a key was revoked or has expired.

    Args:
        text: the key as it came, None or "" if nothing came.
        lookup: reads a record by key id.
        now: UNIX seconds.

    Raises:
        Refused: NO_CREDENTIAL, INVALID_KEY, REVOKED_KEY or EXPIRED_KEY.
    """
    if not text:
        raise Refused(
            Reason.NO_CREDENTIAL,
            "no API key was given",
            remedy="mint one with `guard key new`, and give it as GUARD_API_KEY",
        )
    presented = parse(text)
    record = lookup(presented.key_id)
    kept = _NOBODY if record is None else record.secret_sha256
    same = compare_digest(kept.encode(), presented.secret_sha256.encode())
    if record is None or not same:
        raise Refused(
            Reason.INVALID_KEY, "the API key is unknown", remedy="`guard key list` shows the keys that exist"
        )
    if record.revoked_at is not None:
        raise Refused(
            Reason.REVOKED_KEY,
            "the API key was revoked",
            where=f"key {record.key_id}",
            remedy="mint another with `guard key new`",
        )
    if record.expires is not None and now >= record.expires:
        raise Refused(
            Reason.EXPIRED_KEY,
            "the API key has expired",
            where=f"key {record.key_id}",
            remedy="mint another with `guard key new`",
        )
    return Principal(record.tenant, ISSUER, record.principal, record.role, record.scopes, record.key_id)


def _base32(data: bytes) -> str:
    return b32encode(data).decode("ascii").rstrip("=").lower()


def _checksum(body: str) -> str:
    """CRC-32 (as in zlib, RFC 1952 section 8) of everything before it, big-endian: 7 characters."""
    return _base32(zlib.crc32(body.encode()).to_bytes(4, "big"))

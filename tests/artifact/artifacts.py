"""Artifacts to test with: issued as Guard issues them, or put together by hand to be wrong."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final

from guard.artifact.grant import Grant, Issuer
from guard.artifact.replay import MemoryReplay, ReplayStore
from guard.artifact.verify import ArtifactRefused, Fault, VerifiedGrant, Verifier
from guard.core.canonical import b64
from guard.core.keys import KeySet, SigningKey
from guard.core.model import Allow, Call, Conversation, Facts, Parent, PolicyRef, Principal, Tool

NOW: Final = 1_800_000_000
NAME: Final = "guard.example"
AUDIENCE: Final = "bank"
METHOD: Final = "tools/call"
SEED: Final = bytes(range(32))
KEY: Final = SigningKey.load(SEED)
OTHER_KEY: Final = SigningKey.load(bytes(range(1, 33)))
KEYS: Final = KeySet([KEY.public])
SECRET: Final = bytes(range(2, 34))
JTI: Final = b64(bytes(16))
DEFINITION: Final = b64(bytes(32))
PARAMS: Final[Mapping[str, Any]] = {"name": "transfer", "arguments": {"iban": "DE02", "amount": 25}}
PERMIT: Final = Allow(("small-sum",), ("payments:transfer",))
POLICY: Final = PolicyRef("payments", 3, b64(bytes(32)))


def call(
    params: Mapping[str, Any] = PARAMS,
    *,
    principal: Principal = Principal("default", "api-key", "ada", "payer", credential="key-1"),  # noqa: B008 - frozen
    audience: str = AUDIENCE,
    conversation: str = "c-1",
    method: str = METHOD,
    definition: str = DEFINITION,
    parent: Parent | None = None,
    traceparent: str | None = None,
) -> Call:
    """A bound call."""
    return Call(
        id="decision-1",
        principal=principal,
        tool=Tool("bank", params["name"], definition),
        audience=audience,
        method=method,
        params=params,
        conversation=Conversation(conversation, "launch"),
        facts=Facts(now=NOW * 1000),
        traceparent=traceparent,
        parent=parent,
    )


def issuer(key: SigningKey = KEY, *, lifetime: int = 60, secret: bytes = SECRET) -> Issuer:
    """Guard's side."""
    return Issuer(name=NAME, key=key, pairwise_secret=secret, lifetime=lifetime)


def issue(bound: Call | None = None, *, jti: str = JTI, now: int = NOW, lifetime: int = 60) -> Grant:
    """One artifact, as Guard issues it."""
    return issuer(lifetime=lifetime).issue(bound or call(), PERMIT, POLICY, now=now, jti=jti)


def verifier(
    *, keys: KeySet = KEYS, replay: ReplayStore | None = None, audience: str = AUDIENCE, **more: Any
) -> Verifier:
    """The tool server's side, with a replay store of its own."""
    return Verifier(issuer=NAME, keys=keys, audience=audience, replay=replay or MemoryReplay(), **more)


def signed(
    header: Mapping[str, Any] | bytes, claims: Mapping[str, Any] | bytes, key: SigningKey = KEY
) -> bytes:
    """Any header and any claims, signed; bytes stand as they are."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    return joined(*parts, key=key)


def joined(header: bytes, claims: bytes, *, key: SigningKey = KEY) -> bytes:
    """The compact form of two octet sequences, signed."""
    body = f"{b64(header)}.{b64(claims)}".encode()
    return body + b"." + b64(key.sign(body)).encode()


def opened(token: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, unchecked, by nothing of Guard's."""
    header, claims, _ = token.decode().split(".")
    padded = [urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in (header, claims)]
    return json.loads(padded[0]), json.loads(padded[1])


def forged(change: Callable[[dict[str, Any], dict[str, Any]], object], *, key: SigningKey = KEY) -> bytes:
    """A good artifact's header and claims, changed in place and signed again."""
    header, claims = opened(issue().token)
    change(header, claims)
    return signed(header, claims, key)


def verify(
    token: bytes,
    *,
    by: Verifier | None = None,
    params: Mapping[str, Any] = PARAMS,
    method: str = METHOD,
    now: float = NOW,
    definition: str = "",
) -> VerifiedGrant:
    """Verify as a tool server would."""
    return (by or verifier()).verify(token, method, params, now=now, definition_sha256=definition)


def fault_of(token: bytes, **more: Any) -> Fault | None:
    """What a tool server refuses it for; None if it takes it."""
    try:
        verify(token, **more)
    except ArtifactRefused as refused:
        return refused.fault
    return None

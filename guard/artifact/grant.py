"""Issue the signed permission for exactly one call.

One compact JWS (RFC 7515) with Ed25519 (RFC 8037), claims after
draft-ietf-oauth-transaction-tokens. The page docs/formats/artifact.md is its description.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from guard.artifact.verify import MAX_LIFETIME, TYPE
from guard.core.canonical import b64, b64_ascii, canonical, sha256, write
from guard.core.errors import Reason, Refused
from guard.core.keys import SigningKey
from guard.core.model import Allow, Call, PolicyRef, args_sha256

MAX_NAMES: Final = 8192
"""How many pairwise names an issuer remembers."""


@dataclass(frozen=True, slots=True)
class Grant:
    """An artifact, issued and not yet used.

    Attributes:
        token: the compact JWS.
        jti: its 128 random bits, base64url.
        sha256: digest of the token's bytes; the entry in the lineage holds this.
        args_sha256: digest of the params that it permits.
        expires: UNIX seconds.
    """

    token: bytes
    jti: str
    sha256: str
    args_sha256: str
    expires: int


class Issuer:
    """Whoever signs: a key, the name it signs under, and the secret behind pairwise names.

    Args:
        name: the `iss` claim.
        key: the artifact key; never a checkpoint key.
        pairwise_secret: 32 bytes; with it each audience sees another name for one subject.
        lifetime: seconds, at most MAX_LIFETIME.
    """

    def __init__(
        self, *, name: str, key: SigningKey, pairwise_secret: bytes, lifetime: int = MAX_LIFETIME
    ) -> None:
        if not 0 < lifetime <= MAX_LIFETIME:
            raise ValueError(f"an artifact lives 1 to {MAX_LIFETIME} seconds, not {lifetime}")
        self.name = name
        self.public = key.public
        self._key = key
        self._secret = pairwise_secret
        self._lifetime = lifetime
        header = write({"alg": "EdDSA", "kid": key.public.kid, "typ": TYPE})
        self._header = b64_ascii(header) + b"."
        self._pairwise = lru_cache(MAX_NAMES)(self._make_pairwise)  # it depends on its arguments alone

    def usable(self, now: int) -> bool:
        """Whether the key is inside its validity at `now`, UNIX seconds."""
        return self.public.not_after is None or now < self.public.not_after

    def issue(self, call: Call, allow: Allow, policy: PolicyRef, *, now: int, jti: str) -> Grant:
        """Sign the permission for this call.

        Args:
            now: UNIX seconds.
            jti: 128 random bits, base64url.

        Raises:
            Refused: ISSUE_FAILED where the decision is not an Allow, ARTIFACT_KEY_UNAVAILABLE
                where the key has expired.
            NotIJson: the params have no canonical form.
        """
        if not isinstance(allow, Allow):
            raise Refused(Reason.ISSUE_FAILED, "an artifact is issued from an Allow only")
        if not self.usable(now):
            raise Refused(Reason.ARTIFACT_KEY_UNAVAILABLE, "the artifact key has expired")
        digest = args_sha256(call.params, call.method)
        expires = now + self._lifetime
        if self.public.not_after is not None:
            expires = min(expires, self.public.not_after)
        claims = self._claims(call, allow, policy, digest)
        claims |= {"iat": now, "nbf": now, "exp": expires, "jti": jti}
        signed = self._header + b64_ascii(write(claims))
        token = signed + b"." + b64_ascii(self._key.sign(signed))
        return Grant(token, jti, sha256(token), digest, expires)

    def _claims(self, call: Call, allow: Allow, policy: PolicyRef, digest: str) -> dict[str, Any]:
        who, audience, name = call.principal, call.audience, self._pairwise
        context: dict[str, Any] = {"cid": name("cid", audience, who.key, call.conversation.id)}
        if call.parent is not None:
            context["parent"] = call.parent.sha256
        if call.traceparent is not None:
            context["traceparent"] = call.traceparent
        if call.depth:
            context["depth"] = call.depth
        approval = call.facts.approval
        approved = (
            {"approval": {"id": approval.id, "approver": approval.approver, "word": approval.word}}
            if allow.approved and approval is not None
            else {}
        )
        return {
            "iss": self.name,
            "aud": audience,
            "sub": name("sub", audience, who.key),
            "act": {"sub": name("act", audience, who.key, who.credential)},
            "role": who.role,
            "scope": " ".join(allow.scopes),
            "req_wl": self.name,
            "txn": call.parent.txn if call.parent and call.parent.txn else call.id,
            "tctx": {
                "method": call.method,
                "tool": call.tool.name,
                "args_sha256": digest,
                "tool_def_sha256": call.tool.sha256,
                "policy": policy.as_json(),
                "mode": allow.mode,
                "decision_id": call.id,
                **approved,
            },
            "rctx": context,
        }

    def _make_pairwise(self, kind: str, audience: str, principal: tuple[str, str, str], *more: str) -> str:
        """A name that two audiences cannot compare: HMAC-SHA-256 over kind, audience and principal."""
        text = canonical([kind, audience, *principal, *more])
        return b64(hmac.digest(self._secret, text, "sha256"))

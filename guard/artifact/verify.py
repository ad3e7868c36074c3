"""Check an artifact with public keys only: what a tool server runs before it acts, and the gate.

Nothing here can sign, and nothing here reads a clock, a disk or a network: time, keys and the
replay store are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from guard.artifact.replay import ReplayStore
from guard.core.canonical import NotIJson, NotJson, read, unb64_ascii
from guard.core.errors import GuardError, printable
from guard.core.keys import KeySet
from guard.core.model import ARTIFACT_META, UNBOUNDED, args_sha256, subject

TYPE: Final = "guard-authz+jwt"
ALGORITHMS: Final = frozenset({"EdDSA", "Ed25519"})
MAX_BYTES: Final = 8192
MAX_LIFETIME: Final = 60
"""Seconds that an artifact may live at most."""
MAX_SKEW: Final = 30
_PARTS: Final = 3
_HEADER: Final = frozenset({"alg", "typ", "kid"})
_HEADERS: Final = 64
"""How many headers are remembered: an issuer writes one for each of its keys."""
_TEXT_CLAIMS: Final = ("iss", "aud", "sub", "scope", "req_wl", "txn", "jti", "role")
_TIME_CLAIMS: Final = ("iat", "nbf", "exp")
_OBJECT_CLAIMS: Final = ("act", "rctx")
_TEXT_CONTEXT: Final = ("method", "tool", "args_sha256", "tool_def_sha256", "mode", "decision_id")
_MADE_HERE: Final = object()


class Fault(StrEnum):
    """What is wrong with an artifact. Closed, in the order in which it is looked for."""

    MISSING = "missing"
    TOO_LARGE = "too-large"
    MALFORMED = "malformed"
    TYPE = "typ"
    ALGORITHM = "alg"
    UNKNOWN_KEY = "kid"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    LIFETIME = "lifetime"
    NOT_YET_VALID = "not-yet-valid"
    EXPIRED = "expired"
    TOOL = "tool"
    ARGUMENTS = "arguments"
    DEFINITION = "definition"
    OBSERVED = "observed"
    REVOKED = "revoked"
    REPLAYED = "replayed"


class ArtifactRefused(GuardError):
    """The artifact does not permit this call.

    Attributes:
        fault: which check said no.
    """

    def __init__(self, fault: Fault, what: str) -> None:
        super().__init__(what, remedy="call the tool through Guard; each call needs its own artifact")
        self.fault = fault


@dataclass(frozen=True, slots=True)
class VerifiedGrant:
    """An artifact that passed every check. Only `Verifier` makes one, and dispatch takes nothing else.

    Attributes:
        token: the compact JWS, to be attached.
        claims: its claims.
        params: the params that it was checked against, without `_meta`.
    """

    token: bytes
    claims: Mapping[str, Any]
    params: Mapping[str, Any]
    made: InitVar[object] = None  # no field: a copy with other params cannot carry it along

    def __post_init__(self, made: object) -> None:
        if made is not _MADE_HERE:
            raise TypeError("a VerifiedGrant comes from Verifier.verify only")

    @property
    def depth(self) -> int:
        """How many calls led to the one that it is for; more than any where that is not said as a number."""
        said = self.claims["rctx"].get("depth", 0)
        return said if type(said) is int and said >= 0 else UNBOUNDED


def authentic(token: bytes, keys: KeySet) -> tuple[dict[str, Any], str]:
    """Read the JWS and check its signature; nothing in it is believed before.

    Returns: the claims, and the `kid` of the key. Whether they permit anything is another question.

    Raises:
        ArtifactRefused: not an artifact of these keys.
    """
    if len(token) > MAX_BYTES:
        raise ArtifactRefused(Fault.TOO_LARGE, f"the artifact has more than {MAX_BYTES} bytes")
    parts = token.split(b".")
    if len(parts) != _PARTS:
        raise ArtifactRefused(Fault.MALFORMED, "not a compact JWS of three parts")
    key = keys.get(_kid(parts[0]))
    if key is None:
        raise ArtifactRefused(Fault.UNKNOWN_KEY, "kid names no key of this issuer")
    signature = _decoded(parts[2], "signature")
    if not key.verifies(signature, parts[0] + b"." + parts[1]):
        raise ArtifactRefused(Fault.SIGNATURE, "the signature does not verify")
    claims = _object(parts[1], "claims")
    _typed(claims)
    if key.not_after is not None and claims["exp"] > key.not_after:
        raise ArtifactRefused(Fault.UNKNOWN_KEY, "the artifact outlives its key")
    return claims, key.kid


@lru_cache(_HEADERS)  # what raises is not remembered
def _kid(part: bytes) -> str:
    """The `kid` of a header that says nothing else than it should. Raises ArtifactRefused."""
    header = _object(part, "header")
    if header.keys() != _HEADER or not all(isinstance(v, str) for v in header.values()):
        raise ArtifactRefused(Fault.MALFORMED, "the header holds alg, typ and kid and nothing else")
    if header["typ"] != TYPE:
        raise ArtifactRefused(Fault.TYPE, f"typ is not {TYPE}")
    if header["alg"] not in ALGORITHMS:
        raise ArtifactRefused(Fault.ALGORITHM, "alg is neither EdDSA nor Ed25519")
    kid: str = header["kid"]
    return kid


class Verifier:
    """One place where artifacts are presented.

    Args:
        issuer: the `iss` that is trusted.
        keys: that issuer's public keys.
        audience: the `aud` that this place answers to.
        replay: where used `jti` are kept; atomically, and shared by everything that answers to
            this name.
        name: this verifier's own name in the replay store; the audience where there is only one.
        skew: seconds that clocks may part, at most MAX_SKEW.
        accept_observed: take artifacts that a policy in observe mode let through.
        revoked: tells from `kid` and `jti` whether an artifact was revoked.
    """

    def __init__(
        self,
        *,
        issuer: str,
        keys: KeySet,
        audience: str,
        replay: ReplayStore,
        name: str = "",
        skew: int = 10,
        accept_observed: bool = False,
        revoked: Callable[[str, str], bool] | None = None,
    ) -> None:
        if not 0 <= skew <= MAX_SKEW:
            raise ValueError(f"skew is 0 to {MAX_SKEW} seconds, not {skew}")
        if not issuer or not audience or not len(keys):
            raise ValueError("issuer, audience and at least one key are needed")
        self._issuer = issuer
        self._keys = keys
        self._audience = audience
        self._replay = replay
        self._name = name or audience
        self._skew = skew
        self._accept_observed = accept_observed
        self._revoked = revoked

    def admit(
        self, method: str, params: Mapping[str, Any] | None, *, now: float, definition_sha256: str = ""
    ) -> VerifiedGrant:
        """Check the artifact that a request carries in its `_meta`, and use it up.

        Args:
            method: the JSON-RPC method of the request.
            params: its params as they arrived, `_meta` included.
            now: UNIX seconds.
            definition_sha256: digest of the tool's definition; "" where the server does not know it.

        Raises:
            ArtifactRefused: the request must not run.
        """
        meta = (params or {}).get("_meta")
        token = meta.get(ARTIFACT_META) if isinstance(meta, Mapping) else None
        if not isinstance(token, str) or not token.isascii():
            raise ArtifactRefused(Fault.MISSING, "the request carries no artifact")
        return self.verify(token.encode(), method, params or {}, now=now, definition_sha256=definition_sha256)

    def verify(
        self,
        token: bytes,
        method: str,
        params: Mapping[str, Any],
        *,
        now: float,
        definition_sha256: str = "",
    ) -> VerifiedGrant:
        """Check one artifact for one request, cheapest and least trusting first, and use it up.

        Args and raises as `admit`. Order: size, form, header, signature, issuer, audience, time,
        tool, arguments, definition, mode, revocation, and only then the `jti`.
        """
        claims, kid = authentic(token, self._keys)
        self._for_me(claims)
        self._in_time(claims, now)
        self._for_this(claims["tctx"], method, params, definition_sha256)
        if claims["tctx"]["mode"] != "enforce" and not self._accept_observed:
            raise ArtifactRefused(Fault.OBSERVED, "the policy only observed this call")
        if self._revoked is not None and self._revoked(kid, claims["jti"]):
            raise ArtifactRefused(Fault.REVOKED, "the artifact was revoked")
        key = (self._name, claims["iss"], claims["jti"])
        # as long as any verifier of that name may accept it: another one's skew may be larger
        if not self._replay.insert(key, until=claims["exp"] + MAX_SKEW, now=int(now)):
            raise ArtifactRefused(Fault.REPLAYED, "the artifact was used before")
        sent = {name: value for name, value in params.items() if name != "_meta"}
        return VerifiedGrant(token, claims, sent, _MADE_HERE)

    def _for_me(self, claims: dict[str, Any]) -> None:
        if claims["iss"] != self._issuer:
            raise ArtifactRefused(Fault.ISSUER, "iss is not the issuer trusted here")
        if claims["aud"] != self._audience:
            raise ArtifactRefused(Fault.AUDIENCE, "aud is another server")

    def _in_time(self, claims: dict[str, Any], now: float) -> None:
        if claims["exp"] - claims["iat"] > MAX_LIFETIME or claims["exp"] <= claims["iat"]:
            raise ArtifactRefused(Fault.LIFETIME, f"an artifact lives 1 to {MAX_LIFETIME} seconds")
        if now < max(claims["nbf"], claims["iat"]) - self._skew:
            raise ArtifactRefused(Fault.NOT_YET_VALID, "the artifact is not valid yet")
        if now >= claims["exp"] + self._skew:
            raise ArtifactRefused(Fault.EXPIRED, "the artifact has expired")

    def _for_this(
        self, context: dict[str, Any], method: str, params: Mapping[str, Any], definition_sha256: str
    ) -> None:
        if context["method"] != method or context["tool"] != subject(method, params)[1]:
            raise ArtifactRefused(Fault.TOOL, "the artifact is for another tool")
        try:
            digest = args_sha256(params, method)
        except NotIJson as fault:
            raise ArtifactRefused(
                Fault.ARGUMENTS, f"the params have no digest: {printable(str(fault))}"
            ) from None
        if context["args_sha256"] != digest:
            raise ArtifactRefused(Fault.ARGUMENTS, "the artifact is for other arguments")
        if definition_sha256 and context["tool_def_sha256"] != definition_sha256:
            raise ArtifactRefused(Fault.DEFINITION, "the artifact is for another definition of the tool")


def _decoded(part: bytes, what: str) -> bytes:
    try:
        return unb64_ascii(part)
    except ValueError:
        raise ArtifactRefused(Fault.MALFORMED, f"the {what} is not canonical base64url") from None


def _object(part: bytes, what: str) -> dict[str, Any]:
    try:
        value = read(_decoded(part, what))
    except (NotJson, NotIJson):
        raise ArtifactRefused(Fault.MALFORMED, f"the {what} is not strict JSON") from None
    if not isinstance(value, dict):
        raise ArtifactRefused(Fault.MALFORMED, f"the {what} is not an object")
    return value


def _typed(claims: dict[str, Any]) -> None:
    """Every claim that Guard reads is there and of its type; others are ignored (RFC 7519 section 4)."""
    context = claims.get("tctx")
    if not (
        _all_of(str, claims, _TEXT_CLAIMS)
        and _all_of(int, claims, _TIME_CLAIMS)
        and claims["jti"]
        and _all_of(dict, claims, _OBJECT_CLAIMS)
        and isinstance(context, dict)
        and _all_of(str, context, _TEXT_CONTEXT)
        and isinstance(context.get("policy"), dict)
    ):
        raise ArtifactRefused(Fault.MALFORMED, "a claim is missing or of another type")


def _all_of(kind: type, members: dict[str, Any], names: tuple[str, ...]) -> bool:
    """Whether these members are there and exactly of this type: True is no number."""
    for name in names:  # noqa: SIM110 - a generator costs more than what it asks
        if type(members.get(name)) is not kind:
            return False
    return True

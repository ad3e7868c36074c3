"""The vectors of tests/vectors/artifact/: one request a vector, one fault a vector.

`make_vectors.py` runs this file and writes what `artifacts` yields: name, fault, input, expected
answer (`ok`, or a member of guard.artifact.verify.Fault), result. Everything is made from the fixed
seeds that it hands in.

    input.issuer, audience, jwks     what the verifier trusts
    input.skew, accept_observed      its settings, where they are not the default ones
    input.used, revoked              `jti` that were used, or revoked, before
    input.definition_sha256          the digest of the tool's definition, where the server knows it
    input.now                        UNIX seconds
    input.method, params             the request; the artifact is in params._meta
"""

from __future__ import annotations

import copy
import hmac
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from typing import Any

from guard.artifact.grant import Issuer
from guard.artifact.verify import Fault
from guard.core.canonical import b64, digest
from guard.core.keys import KeySet, PublicKey, SigningKey
from guard.core.model import ARTIFACT_META, Allow, Call, Conversation, Facts, PolicyRef, Principal, Tool

Row = tuple[str, str, dict[str, Any], str, dict[str, Any]]
Change = Callable[[dict[str, Any], dict[str, Any]], object]
OK = "ok"
NOW = 1_800_000_000
ORDER = 2**252 + 27742317777372353535851937790883648493
PARAMS = {
    "name": "transfer",
    "arguments": {"iban": "DE02120300000000202051", "amount": 25, "currency": "EUR"},
}


class Maker:
    """The fixed keys, and what is built with them.

    Args:
        seed: fixed bytes for a purpose.
    """

    def __init__(self, seed: Callable[..., bytes]) -> None:
        self.key = SigningKey.load(seed("artifact key"))
        self.other = SigningKey.load(seed("another artifact key"))
        self.definition = b64(seed("definition"))
        self.jti = b64(seed("jti", 16))
        issuer = Issuer(name="guard.example", key=self.key, pairwise_secret=seed("pairwise secret"))
        call = Call(
            id=b64(seed("decision", 16)),
            principal=Principal("default", "api-key", "ada", "payer", credential="key-1"),
            tool=Tool("bank", "transfer", self.definition),
            audience="bank",
            method="tools/call",
            params=PARAMS,
            conversation=Conversation("c-1", "launch"),
            facts=Facts(now=NOW * 1000),
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        allow = Allow(("small-sum",), ("payments:transfer",))
        policy = PolicyRef("bank-example", 1, b64(seed("policy")))
        self.token = issuer.issue(call, allow, policy, now=NOW, jti=self.jti).token.decode()
        header, claims, _ = (urlsafe_b64decode(part + "==") for part in self.token.split("."))
        self.header, self.claims = json.loads(header), json.loads(claims)

    def input(self, token: Any = None, **more: Any) -> dict[str, Any]:
        """A verifier and a request with this token."""
        params = {**copy.deepcopy(PARAMS), "_meta": {ARTIFACT_META: self.token if token is None else token}}
        return {
            "issuer": "guard.example",
            "audience": "bank",
            "jwks": KeySet([self.key.public]).jwks(),
            "now": NOW + 1,
            "method": "tools/call",
            "params": params,
            **more,
        }

    def joined(self, header: str | bytes, claims: str | bytes, key: SigningKey | None = None) -> str:
        """Two parts as they stand, signed."""
        parts = [part.encode() if isinstance(part, str) else part for part in (header, claims)]
        return self.signed(".".join(b64(part) for part in parts), key)

    def signed(self, body: str, key: SigningKey | None = None) -> str:
        """Two coded parts as they stand, signed."""
        return f"{body}.{b64((key or self.key).sign(body.encode()))}"

    def forged(self, change: Change, key: SigningKey | None = None) -> str:
        """The good artifact, changed and signed again."""
        header, claims = copy.deepcopy((self.header, self.claims))
        change(header, claims)
        return self.joined(_json(header), _json(claims), key)

    def valid(self, name: str, fault: str = "none", token: str | None = None, **more: Any) -> Row:
        """A request that is admitted."""
        return name, fault, self.input(token, **more), OK, {"jti": self.jti, "tool": "transfer"}

    def refused(self, name: str, fault: str, expected: Fault, token: Any = None, **more: Any) -> Row:
        """A request that is refused."""
        return name, fault, self.input(token, **more), str(expected), {}

    def claimed(self, name: str, fault: str, expected: Fault, /, **claims: Any) -> Row:
        """An artifact with other claims, signed by the issuer."""
        return self.refused(name, fault, expected, self.forged(lambda _, found: found.update(claims)))

    def headed(self, name: str, fault: str, expected: Fault, /, **header: Any) -> Row:
        """An artifact with another header, signed by the issuer."""
        return self.refused(name, fault, expected, self.forged(lambda found, _: found.update(header)))

    def sent(self, name: str, fault: str, expected: Fault, /, **params: Any) -> Row:
        """The good artifact with other params."""
        given = self.input()
        given["params"].update(params)
        return name, fault, given, str(expected), {}


def artifacts(seed: Callable[..., bytes]) -> Iterator[Row]:
    """Every vector of the format."""
    make = Maker(seed)
    for part in (valid, missing, malformed, headers, keys, signatures, claims, times, calls, states):
        yield from part(make)


def valid(make: Maker) -> Iterator[Row]:
    """Admitted, each at the edge of something."""
    yield make.valid("valid-eddsa")
    yield make.valid("valid-ed25519", token=make.forged(lambda header, _: header.update(alg="Ed25519")))
    yield make.valid("valid-definition-known", definition_sha256=make.definition)
    yield make.valid("valid-first-second", "none: the clock is 10 s behind", now=NOW - 10)
    yield make.valid("valid-last-second", "none: it expired 9 s ago", now=NOW + 69)
    yield make.valid("valid-largest-skew", "none: it expired 29 s ago, skew 30", now=NOW + 89, skew=30)
    further = make.forged(lambda _, claims: claims.update(later={"x": [1]}))
    yield make.valid("valid-further-claim", "none: a claim that is not known", further)
    observed = make.forged(lambda _, claims: claims["tctx"].update(mode="observe"))
    yield make.valid(
        "valid-observed", "none: the verifier takes mode observe", observed, accept_observed=True
    )
    yield make.valid("valid-other-artifact-used", "none: another jti was used", used=["another"])
    two = KeySet([make.other.public, make.key.public]).jwks()
    yield make.valid("valid-two-keys", "none: the second key of the set", jwks=two)
    ends = KeySet([PublicKey.load(make.key.public.raw, NOW + 60)]).jwks()
    yield make.valid("valid-key-ends-with-it", "none: its key ends when it does", jwks=ends)
    given = make.input()
    given["params"]["_meta"] |= {"progressToken": 7, "traceparent": "00-1-1-01"}
    yield "valid-more-meta", "none: a hop added to _meta", given, OK, {"jti": make.jti, "tool": "transfer"}
    given = make.input()
    given["params"]["arguments"] = {"currency": "EUR", "amount": 25.0, "iban": "DE02120300000000202051"}
    spelled = "none: another key order, 25 as 25.0"
    yield "valid-spelled-otherwise", spelled, given, OK, {"jti": make.jti, "tool": "transfer"}


def missing(make: Maker) -> Iterator[Row]:
    """No artifact."""
    bare = {**make.input(), "params": PARAMS}
    yield "missing", "the request has no _meta", bare, str(Fault.MISSING), {}
    yield make.refused("missing-number", "a number in place of the artifact", Fault.MISSING, 7)
    yield make.refused(
        "missing-not-ascii", "a letter that is not ASCII", Fault.MISSING, f"{make.token}\u00e9"
    )
    large = make.forged(lambda _, claims: claims.update(more="x" * 8192))
    yield make.refused("too-large", "more than 8192 bytes", Fault.TOO_LARGE, large)


def malformed(make: Maker) -> Iterator[Row]:
    """No compact JWS of strict JSON."""
    head, body, signature = make.token.split(".")
    header, claims = _json(make.header), _json(make.claims)
    spare = chr(ord(signature[-1]) + 1)
    for name, fault, token in (
        ("empty", "an empty string", ""),
        ("two-parts", "the signature and its dot are missing", f"{head}.{body}"),
        ("four-parts", "a fourth part", f"{make.token}.AA"),
        ("newline", "a newline at the end", f"{make.token}\n"),
        ("signature-padded", "the signature is padded", f"{make.token}=="),
        ("signature-spare-bits", "the signature's spare bits are not zero", f"{make.token[:-1]}{spare}"),
        ("header-padded", "the header is padded", make.signed(f"{_padded(header)}.{body}")),
        ("claims-padded", "the claims are padded", make.signed(f"{head}.{_padded(claims)}")),
        ("header-array", "the header is an array", make.joined(f"[{header}]", claims)),
        ("header-not-json", "the header is not JSON", make.joined("{", claims)),
        ("header-not-utf-8", "the header is not UTF-8", make.joined(b'{"alg":"\xff"}', claims)),
        ("header-alg-twice", "alg stands twice", make.joined('{"alg":"none",' + header[1:], claims)),
        ("claims-array", "the claims are an array", make.joined(header, f"[{claims}]")),
        ("claims-aud-twice", "aud stands twice", make.joined(header, claims[:-1] + ',"aud":"bank"}')),
        ("claims-exp-large", "exp is beyond 2^53", make.forged(lambda _, c: c.update(exp=2**53))),
        ("claims-deep", "130 levels", make.joined(header, '{"a":' * 130 + "0" + "}" * 130)),
    ):
        yield make.refused(name, fault, Fault.MALFORMED, token)


def headers(make: Maker) -> Iterator[Row]:
    """A header that says something else."""
    for name, value in (
        ("jwk", make.key.public.jwk()),
        ("jku", "https://guard.example/jwks.json"),
        ("x5u", "https://guard.example/key.pem"),
        ("x5c", ["AA=="]),
        ("crit", ["exp"]),
        ("b64", True),
        ("cty", "JWT"),
    ):
        yield make.headed(f"header-{name}", f"the header has `{name}`", Fault.MALFORMED, **{name: value})
    for name in ("alg", "typ", "kid"):
        token = make.forged(lambda header, _, name=name: header.pop(name))
        yield make.refused(f"header-no-{name}", f"the header has no `{name}`", Fault.MALFORMED, token)
    yield make.headed("header-kid-number", "kid is a number", Fault.MALFORMED, kid=1)
    yield make.headed("typ-jwt", "typ is JWT", Fault.TYPE, typ="JWT")
    yield make.headed("typ-upper-case", "typ in upper case", Fault.TYPE, typ="GUARD-AUTHZ+JWT")
    long = "application/guard-authz+jwt"
    yield make.headed("typ-application", "typ with application/ before it", Fault.TYPE, typ=long)
    unsigned = make.forged(lambda header, _: header.update(alg="none")).rpartition(".")[0] + "."
    yield make.refused("alg-none", "alg is none, without a signature", Fault.ALGORITHM, unsigned)
    yield make.headed("alg-ed448", "alg is Ed448", Fault.ALGORITHM, alg="Ed448")
    yield make.headed("alg-lower-case", "alg in lower case", Fault.ALGORITHM, alg="eddsa")
    body = make.forged(lambda header, _: header.update(alg="HS256")).rpartition(".")[0]
    mac = b64(hmac.digest(make.key.public.raw, body.encode(), "sha256"))
    yield make.refused(
        "alg-hs256", "a MAC with the public key as its secret", Fault.ALGORITHM, f"{body}.{mac}"
    )


def keys(make: Maker) -> Iterator[Row]:
    """A key that the verifier does not trust for this."""
    kid = make.other.public.kid
    unknown = make.forged(lambda header, _: header.update(kid=kid), make.other)
    yield make.refused("kid-unknown", "another issuer's key", Fault.UNKNOWN_KEY, unknown)
    ends = KeySet([PublicKey.load(make.key.public.raw, NOW + 59)]).jwks()
    yield make.refused("kid-ended", "it outlives its key by a second", Fault.UNKNOWN_KEY, jwks=ends)


def signatures(make: Maker) -> Iterator[Row]:
    """A signature that is not this key's over these bytes."""
    body, _, signature = make.token.rpartition(".")
    raw = urlsafe_b64decode(signature + "==")
    s = int.from_bytes(raw[32:], "little")
    for name, fault, changed in (
        ("flipped", "one bit of the signature is flipped", bytes([raw[0] ^ 1]) + raw[1:]),
        (
            "s-plus-order",
            "S is larger by the order of the group",
            raw[:32] + (s + ORDER).to_bytes(32, "little"),
        ),
        ("empty", "the signature is empty", b""),
        ("short", "the signature has 63 bytes", raw[:-1]),
        ("long", "the signature has 65 bytes", raw + b"\0"),
    ):
        yield make.refused(f"signature-{name}", fault, Fault.SIGNATURE, f"{body}.{b64(changed)}")
    imposed = make.forged(lambda *_: None, make.other)
    yield make.refused("signature-another-key", "another key signed under this kid", Fault.SIGNATURE, imposed)
    head = make.token.partition(".")[0]
    other = b64(_json({**make.claims, "aud": "elsewhere"}).encode())
    swapped = f"{head}.{other}.{signature}"
    yield make.refused(
        "signature-claims-changed", "the claims are others than the signed", Fault.SIGNATURE, swapped
    )
    renamed = b64(_json({**make.header, "alg": "Ed25519"}).encode())
    changed_alg = f"{renamed}.{make.token.partition('.')[2]}"
    yield make.refused(
        "signature-alg-changed", "alg is the other name of the signed", Fault.SIGNATURE, changed_alg
    )


def claims(make: Maker) -> Iterator[Row]:
    """Claims that are missing, of another type, or somebody else's."""
    for name in make.claims:
        token = make.forged(lambda _, claims, name=name: claims.pop(name))
        yield make.refused(f"claim-no-{name}", f"the claim `{name}` is missing", Fault.MALFORMED, token)
    for name in make.claims["tctx"]:
        token = make.forged(lambda _, claims, name=name: claims["tctx"].pop(name))
        fault = f"`{name}` is missing in tctx"
        yield make.refused(f"claim-tctx-no-{name}", fault, Fault.MALFORMED, token)
    yield make.claimed("claim-aud-array", "aud is an array", Fault.MALFORMED, aud=["bank"])
    yield make.claimed("claim-exp-text", "exp is text", Fault.MALFORMED, exp=str(NOW + 60))
    yield make.claimed("claim-exp-double", "exp is a double", Fault.MALFORMED, exp=NOW + 59.5)
    yield make.claimed("claim-iat-true", "iat is true", Fault.MALFORMED, iat=True)
    yield make.claimed("claim-jti-empty", "jti is empty", Fault.MALFORMED, jti="")
    yield make.claimed("issuer-another", "iss is another", Fault.ISSUER, iss="guard.other")
    yield make.refused(
        "issuer-another-trusted", "the verifier trusts another iss", Fault.ISSUER, issuer="guard.other"
    )
    yield make.claimed("audience-another", "aud is another", Fault.AUDIENCE, aud="elsewhere")
    yield make.claimed("audience-upper-case", "aud in upper case", Fault.AUDIENCE, aud="BANK")
    yield make.refused(
        "audience-another-server", "the verifier is another server", Fault.AUDIENCE, audience="elsewhere"
    )


def times(make: Maker) -> Iterator[Row]:
    """A lifetime, or a clock, that does not fit."""
    yield make.claimed("lifetime-61", "it lives 61 s", Fault.LIFETIME, exp=NOW + 61)
    yield make.claimed("lifetime-none", "it ends when it begins", Fault.LIFETIME, exp=NOW)
    yield make.claimed("lifetime-backwards", "it ends before it begins", Fault.LIFETIME, exp=NOW - 1)
    yield make.refused("not-yet-valid", "the clock is 11 s behind", Fault.NOT_YET_VALID, now=NOW - 11)
    yield make.refused(
        "not-yet-valid-no-skew", "the clock is 1 s behind, skew 0", Fault.NOT_YET_VALID, now=NOW - 1, skew=0
    )
    yield make.claimed("not-yet-valid-nbf", "nbf is later than iat", Fault.NOT_YET_VALID, nbf=NOW + 12)
    yield make.refused("expired", "it expired 10 s ago", Fault.EXPIRED, now=NOW + 70)
    yield make.refused("expired-no-skew", "it expires now, skew 0", Fault.EXPIRED, now=NOW + 60, skew=0)
    yield make.refused("expired-largest-skew", "30 s ago, skew 30", Fault.EXPIRED, now=NOW + 90, skew=30)


def calls(make: Maker) -> Iterator[Row]:
    """The artifact is good, and for another call."""
    arguments = PARAMS["arguments"]
    yield make.sent("tool-another", "another tool", Fault.TOOL, name="balance")
    yield make.sent("tool-upper-case", "the tool's name in upper case", Fault.TOOL, name="Transfer")
    yield make.refused("tool-another-method", "another method", Fault.TOOL, method="prompts/get")
    for name, fault, changed in (
        ("value", "25 is 26", {**arguments, "amount": 26}),
        ("type", "25 is text", {**arguments, "amount": "25"}),
        ("true", "25 is true", {**arguments, "amount": True}),
        ("added", "an argument more", {**arguments, "memo": ""}),
        ("removed", "an argument less", {"iban": arguments["iban"], "amount": 25}),
        ("key-case", "a key in upper case", {**arguments, "IBAN": arguments["iban"]}),
        ("none", "no arguments", {}),
        ("null", "null in place of the arguments", None),
        ("surrogate", "a lone surrogate", {**arguments, "memo": "\ud800"}),
        ("large-integer", "an integer of 2^53", {**arguments, "memo": 2**53}),
    ):
        yield make.sent(f"arguments-{name}", fault, Fault.ARGUMENTS, arguments=changed)
    for member in ("inputResponses", "requestState", "task"):
        fault = f"`{member}` was added"
        yield make.sent(f"arguments-{member}", fault, Fault.ARGUMENTS, **{member: {}})
    yield make.refused(
        "definition-another", "another definition", Fault.DEFINITION, definition_sha256=digest({})
    )


def states(make: Maker) -> Iterator[Row]:
    """The artifact is good, and the policy or the verifier says no."""
    observed = make.forged(lambda _, claims: claims["tctx"].update(mode="observe"))
    yield make.refused("observed", "the policy only observed", Fault.OBSERVED, observed)
    unknown = make.forged(lambda _, claims: claims["tctx"].update(mode="later"))
    yield make.refused("observed-unknown-mode", "a mode that is not known", Fault.OBSERVED, unknown)
    yield make.refused("revoked", "it was revoked", Fault.REVOKED, revoked=[make.jti])
    yield make.refused("replayed", "it was used before", Fault.REPLAYED, used=[make.jti])
    late = {"used": [make.jti], "now": NOW + 69}
    yield make.refused("replayed-last-second", "used before, 9 s after it expired", Fault.REPLAYED, **late)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _padded(text: str) -> str:
    """A part with spaces until base64 needs padding, and with that padding."""
    data = text.encode()
    while len(data) % 3 == 0:
        data += b" "
    return b64(data) + "=" * (-len(b64(data)) % 4)

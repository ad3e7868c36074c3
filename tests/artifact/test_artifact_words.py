"""What a refused artifact says, in whole sentences; and what an issuer writes, byte by byte."""

from __future__ import annotations

import hmac
import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from artifacts import (
    AUDIENCE,
    DEFINITION,
    JTI,
    KEY,
    KEYS,
    NAME,
    NOW,
    PARAMS,
    PERMIT,
    POLICY,
    SECRET,
    SEED,
    fault_of,
    forged,
    issue,
    issuer,
    joined,
    opened,
    verifier,
    verify,
)
from artifacts import call as bound

from guard.artifact.replay import MemoryReplay
from guard.artifact.verify import ArtifactRefused, Fault, Verifier, authentic
from guard.core.canonical import b64
from guard.core.errors import Refused
from guard.core.keys import KeySet, SigningKey
from guard.core.model import UNBOUNDED, Allow, Approval, Deny, Parent, PolicyRef

NEXT = "call the tool through Guard; each call needs its own artifact"
GOOD = issue().token
HEADER, CLAIMS, SIGNATURE = GOOD.split(b".")


def raw(header: bytes, claims: bytes = CLAIMS, signature: bytes | None = None) -> bytes:
    """Parts as they stand, signed unless a signature is given."""
    body = header + b"." + claims
    return body + b"." + (b64(KEY.sign(body)).encode() if signature is None else signature)


def told(header: dict[str, Any]) -> bytes:
    """A good artifact whose header says something else besides."""
    found = {**opened(GOOD)[0], **header}
    return joined(json.dumps(found).encode(), json.dumps(opened(GOOD)[1]).encode())


def claiming(**members: Any) -> bytes:
    return forged(lambda _, claims: claims.update(members))


def speaking(**members: Any) -> bytes:
    return forged(lambda _, claims: claims["tctx"].update(members))


def good_header(claims: bytes) -> bytes:
    return raw(HEADER, b64(claims).encode())


WORDS: list[tuple[bytes, Fault, str]] = [
    (b"." * 8193, Fault.TOO_LARGE, "the artifact has more than 8192 bytes"),
    (b"." * 8192, Fault.MALFORMED, "not a compact JWS of three parts"),
    (b"a.b", Fault.MALFORMED, "not a compact JWS of three parts"),
    (raw(b"="), Fault.MALFORMED, "the header is not canonical base64url"),
    (raw(b64(b"{").encode()), Fault.MALFORMED, "the header is not strict JSON"),
    (raw(b64(b'{"alg":1e400}').encode()), Fault.MALFORMED, "the header is not strict JSON"),
    (raw(b64(b"[]").encode()), Fault.MALFORMED, "the header is not an object"),
    (told({"jku": "x"}), Fault.MALFORMED, "the header holds alg, typ and kid and nothing else"),
    (told({"alg": 1}), Fault.MALFORMED, "the header holds alg, typ and kid and nothing else"),
    (told({"typ": "JWT"}), Fault.TYPE, "typ is not guard-authz+jwt"),
    (told({"alg": "none"}), Fault.ALGORITHM, "alg is neither EdDSA nor Ed25519"),
    (told({"kid": "x"}), Fault.UNKNOWN_KEY, "kid names no key of this issuer"),
    (raw(HEADER, CLAIMS, b"="), Fault.MALFORMED, "the signature is not canonical base64url"),
    (raw(HEADER, CLAIMS, b"AAAA"), Fault.SIGNATURE, "the signature does not verify"),
    (raw(HEADER, b"="), Fault.MALFORMED, "the claims is not canonical base64url"),
    (good_header(b"{"), Fault.MALFORMED, "the claims is not strict JSON"),
    (good_header(b"[]"), Fault.MALFORMED, "the claims is not an object"),
    (good_header(b"{}"), Fault.MALFORMED, "a claim is missing or of another type"),
    (claiming(jti=""), Fault.MALFORMED, "a claim is missing or of another type"),
    (claiming(iss="x"), Fault.ISSUER, "iss is not the issuer trusted here"),
    (claiming(aud="x"), Fault.AUDIENCE, "aud is another server"),
    (claiming(exp=NOW + 61), Fault.LIFETIME, "an artifact lives 1 to 60 seconds"),
    (claiming(exp=NOW), Fault.LIFETIME, "an artifact lives 1 to 60 seconds"),
    (claiming(nbf=NOW + 11), Fault.NOT_YET_VALID, "the artifact is not valid yet"),
    (claiming(iat=NOW - 70, nbf=NOW - 70, exp=NOW - 10), Fault.EXPIRED, "the artifact has expired"),
    (speaking(tool="x"), Fault.TOOL, "the artifact is for another tool"),
    (speaking(method="x"), Fault.TOOL, "the artifact is for another tool"),
    (speaking(args_sha256="x"), Fault.ARGUMENTS, "the artifact is for other arguments"),
    (
        speaking(tool_def_sha256="x"),
        Fault.DEFINITION,
        "the artifact is for another definition of the tool",
    ),
    (speaking(mode="observe"), Fault.OBSERVED, "the policy only observed this call"),
    (claiming(jti="revoked"), Fault.REVOKED, "the artifact was revoked"),
    (claiming(jti="used"), Fault.REPLAYED, "the artifact was used before"),
]


def test_a_refusal_says_which_check_said_no_in_these_words() -> None:
    """The whole sentence, and the next step, which is one and the same."""
    replay = MemoryReplay()
    replay.insert((AUDIENCE, NAME, "used"), until=NOW + 99, now=NOW)
    by = verifier(replay=replay, revoked=lambda _, jti: jti == "revoked")
    for token, fault, words in WORDS:
        with pytest.raises(ArtifactRefused) as refused:
            verify(token, by=by, definition=DEFINITION)
        assert (refused.value.fault, refused.value.what, refused.value.remedy) == (fault, words, NEXT)
        assert refused.value.where == ""


def test_every_fault_has_its_words() -> None:
    """None is without a row above, but for the missing artifact, which no token shows."""
    assert {fault for _, fault, _ in WORDS} == {*Fault} - {Fault.MISSING}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"\x1b": 2**60}, "integer beyond \u00b1(2^53-1) at /arguments/\\x1b"),
        ({"x": "\ud800"}, "lone surrogate at /arguments/x"),
        ({"x": float("nan")}, "number beyond the range of a double at /arguments/x"),
    ],
)
def test_params_without_a_digest_say_where_they_have_none(arguments: dict[str, Any], words: str) -> None:
    """The place is named, escaped."""
    with pytest.raises(ArtifactRefused) as refused:
        verify(GOOD, params={**PARAMS, "arguments": arguments})
    assert refused.value.fault is Fault.ARGUMENTS
    assert refused.value.what == f"the params have no digest: {words}"


def test_an_artifact_that_outlives_its_key_is_told_so() -> None:
    """To the second: what ends with its key is taken."""
    for end, taken in ((NOW + 60, True), (NOW + 59, False)):
        keys = KeySet([SigningKey.load(SEED, end).public])
        if taken:
            assert authentic(GOOD, keys)[1] == KEY.public.kid
        else:
            with pytest.raises(ArtifactRefused) as refused:
                authentic(GOOD, keys)
            assert (refused.value.fault, refused.value.what) == (
                Fault.UNKNOWN_KEY,
                "the artifact outlives its key",
            )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"skew": 31}, "skew is 0 to 30 seconds, not 31"),
        ({"skew": -1}, "skew is 0 to 30 seconds, not -1"),
        ({"issuer": ""}, "issuer, audience and at least one key are needed"),
        ({"audience": ""}, "issuer, audience and at least one key are needed"),
        ({"keys": KeySet([])}, "issuer, audience and at least one key are needed"),
    ],
)
def test_a_verifier_that_is_set_up_wrongly_says_how(settings: dict[str, Any], words: str) -> None:
    """Whoever sets it up reads this."""
    good = {"issuer": NAME, "keys": KEYS, "audience": AUDIENCE, "replay": MemoryReplay()}
    with pytest.raises(ValueError) as failed:  # noqa: PT011 - the whole text is compared
        Verifier(**{**good, **settings})
    assert str(failed.value) == words
    assert Verifier(**{**good, "skew": 30})
    assert Verifier(**{**good, "skew": 0})


class Ledger:
    """A replay store that tells what it was asked, and answers as it is told."""

    def __init__(self, *, answer: bool = True) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answer = answer

    def insert(self, key: tuple[str, str, str], *, until: int, now: int) -> bool:
        self.asked.append((key, until, now))
        return self.answer


@pytest.mark.parametrize(("name", "first"), [("", AUDIENCE), ("gate", "gate")])
def test_a_use_is_remembered_under_verifier_issuer_and_jti_until_nobody_would_take_it(
    name: str, first: str
) -> None:
    """Until its end and the largest skew; the verifier's name is the audience's where it has no other."""
    ledger = Ledger()
    verify(GOOD, by=verifier(replay=ledger, name=name, skew=7), now=NOW + 3.9)
    assert ledger.asked == [((first, NAME, JTI), NOW + 90, NOW + 3)]
    assert type(ledger.asked[0][2]) is int


def test_a_verified_grant_carries_what_was_checked() -> None:
    """The token's own bytes, all claims, and the params without `_meta`."""
    meta = {**PARAMS, "_meta": {"x": 1}}
    verified = verify(GOOD, params=meta)
    assert (verified.token, verified.claims, verified.params) == (GOOD, opened(GOOD)[1], PARAMS)
    with pytest.raises(TypeError) as failed:
        replace(verified, made=object())
    assert str(failed.value) == "a VerifiedGrant comes from Verifier.verify only"


@pytest.mark.parametrize(
    ("said", "depth"),
    [
        ({}, 0),
        ({"depth": 0}, 0),
        ({"depth": 1}, 1),
        ({"depth": 7}, 7),
        *(({"depth": wrong}, UNBOUNDED) for wrong in (-1, True, False, 1.0, "1", None, [])),
    ],
)
def test_a_depth_that_is_no_count_is_deeper_than_any(said: dict[str, Any], depth: int) -> None:
    """What is not said is no call before; what is said wrongly must not pass under a limit."""
    token = forged(lambda _, claims: claims["rctx"].update(said))
    assert verify(token).depth == depth


def test_a_definition_that_the_server_does_not_know_is_not_compared() -> None:
    """Through `admit` as through `verify`, unless it says one."""
    params = {**PARAMS, "_meta": {"dev.guard-mcp/authorization": GOOD.decode()}}
    assert verifier().admit("tools/call", params, now=NOW).token == GOOD
    assert verifier().verify(GOOD, "tools/call", PARAMS, now=NOW).token == GOOD
    assert verifier().admit("tools/call", params, now=NOW, definition_sha256=DEFINITION).token == GOOD
    with pytest.raises(ArtifactRefused) as refused:
        verifier().admit("tools/call", params, now=NOW, definition_sha256="another")
    assert refused.value.fault is Fault.DEFINITION


def test_a_missing_artifact_is_told_so() -> None:
    """Whatever else the request holds."""
    with pytest.raises(ArtifactRefused) as refused:
        verifier().admit("tools/call", {**PARAMS, "_meta": {}}, now=NOW)
    assert (refused.value.fault, refused.value.what) == (Fault.MISSING, "the request carries no artifact")


def test_only_enforced_calls_pass_whatever_the_mode_is_called() -> None:
    """A mode that nobody knows is none, and is taken only by who takes what was observed."""
    for mode in ("observe", "Enforce", "", "enforced"):
        assert fault_of(speaking(mode=mode)) is Fault.OBSERVED
        assert fault_of(speaking(mode=mode), by=verifier(accept_observed=True)) is None


# -- what an issuer writes -------------------------------------------------------------------------------


def pairwise(*parts: str) -> str:
    """By the page: HMAC-SHA-256 under the secret, over the JSON of the list."""
    text = json.dumps(list(parts), separators=(",", ":")).encode()
    return b64(hmac.new(SECRET, text, sha256).digest())


def test_the_claims_stand_in_this_order_with_these_names() -> None:
    """Byte by byte, with all that a call may bring: a parent, a trace, an approval, layers."""
    layered = PolicyRef("payments", 3, "digest")
    approval = Approval("question", frozenset({"r"}), "launch/boss", "reviewer")
    call = bound(parent=Parent("verified", "parent-digest", "txn", depth=4), traceparent="00-0-0-01")
    call = replace(call, facts=replace(call.facts, approval=approval))
    allow = Allow(("r",), ("a", "b"), mode="observe", approved=("r",))
    grant = issuer(lifetime=9).issue(call, allow, layered, now=NOW, jti="jti")
    header, claims, signature = grant.token.split(b".")
    assert b64(KEY.sign(header + b"." + claims)).encode() == signature
    assert list(opened(grant.token)[0].items()) == [
        ("alg", "EdDSA"),
        ("kid", KEY.public.kid),
        ("typ", "guard-authz+jwt"),
    ]
    who = ("default", "api-key", "ada")
    expected = {
        "iss": NAME,
        "aud": AUDIENCE,
        "sub": pairwise("sub", AUDIENCE, *who),
        "act": {"sub": pairwise("act", AUDIENCE, *who, "key-1")},
        "role": "payer",
        "scope": "a b",
        "req_wl": NAME,
        "txn": "txn",
        "tctx": {
            "method": "tools/call",
            "tool": "transfer",
            "args_sha256": grant.args_sha256,
            "tool_def_sha256": DEFINITION,
            "policy": {"id": "payments", "version": 3, "sha256": "digest"},
            "mode": "observe",
            "decision_id": "decision-1",
            "approval": {"id": "question", "approver": "launch/boss", "word": "reviewer"},
        },
        "rctx": {
            "cid": pairwise("cid", AUDIENCE, *who, "c-1"),
            "parent": "parent-digest",
            "traceparent": "00-0-0-01",
            "depth": 5,
        },
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 9,
        "jti": "jti",
    }
    assert json.dumps(opened(grant.token)[1]) == json.dumps(expected)
    assert (grant.jti, grant.expires) == ("jti", NOW + 9)


@pytest.mark.parametrize(
    ("approval", "approved"),
    [
        (None, ("r",)),
        (Approval("question", frozenset({"r"}), "launch/boss", "reviewer"), ()),
        (None, ()),
    ],
)
def test_an_approval_stands_only_where_one_was_needed_and_given(
    approval: Approval | None, approved: tuple[str, ...]
) -> None:
    """An answer that the decision did not rest on is not written down as one."""
    call = bound()
    call = replace(call, facts=replace(call.facts, approval=approval))
    grant = issuer().issue(call, Allow((), (), approved=approved), POLICY, now=NOW, jti=JTI)
    assert "approval" not in opened(grant.token)[1]["tctx"]


@pytest.mark.parametrize(
    ("key", "allow", "words"),
    [
        (KEY, Deny, "an artifact is issued from an Allow only"),
        (SigningKey.load(SEED, NOW), PERMIT, "the artifact key has expired"),
    ],
)
def test_what_is_not_issued_says_why(key: SigningKey, allow: Any, words: str) -> None:
    """Without an Allow, or at the key's end."""
    with pytest.raises(Refused) as refused:
        issuer(key).issue(bound(), allow, POLICY, now=NOW, jti=JTI)
    assert refused.value.what == words


@pytest.mark.parametrize("lifetime", [0, -1, 61])
def test_a_lifetime_that_is_none_says_which_are(lifetime: int) -> None:
    """When the issuer is made; both ends are taken."""
    with pytest.raises(ValueError) as failed:  # noqa: PT011 - the whole text is compared
        issuer(lifetime=lifetime)
    assert str(failed.value) == f"an artifact lives 1 to 60 seconds, not {lifetime}"
    for good in (1, 60):
        assert issue(lifetime=good).expires == NOW + good

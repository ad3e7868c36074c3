"""Who issues, from what, and what an artifact tells; and who cannot make one."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
from typing import Any

import pytest
from artifacts import (
    AUDIENCE,
    DEFINITION,
    JTI,
    KEY,
    KEYS,
    METHOD,
    NAME,
    NOW,
    PARAMS,
    PERMIT,
    POLICY,
    SECRET,
    SEED,
    fault_of,
    issue,
    issuer,
    opened,
    verifier,
    verify,
)
from artifacts import call as bound
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.artifact import grant as grant_module
from guard.artifact import verify as verify_module
from guard.artifact.grant import Grant, Issuer
from guard.artifact.replay import MemoryReplay
from guard.artifact.verify import MAX_LIFETIME, VerifiedGrant, Verifier
from guard.core.canonical import b64, sha256
from guard.core.errors import Reason, Refused
from guard.core.keys import KeySet, SigningKey
from guard.core.model import Allow, Deny, Parent, Principal, args_sha256

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ADA = Principal("default", "api-key", "ada", "payer", credential="key-1")


def claims(grant: Grant) -> dict[str, Any]:
    return opened(grant.token)[1]


# -- issued from an Allow ----------------------------------------------------------------------


class LooksLikeAllow:
    """Everything an Allow has, and is none."""

    rules = ("rule",)
    scopes = ("scope",)
    obligations = ()
    mode = "enforce"


@pytest.mark.parametrize(
    "decision", [Deny(Reason.DEFAULT_DENY), None, True, object(), LooksLikeAllow(), Allow]
)
def test_an_artifact_is_issued_from_an_allow_only(decision: Any) -> None:
    """A denial, nothing, a yes of another kind: no bytes come out."""
    with pytest.raises(Refused) as refused:
        issuer().issue(bound(), decision, POLICY, now=NOW, jti=JTI)
    assert refused.value.reason is Reason.ISSUE_FAILED


def test_an_expired_key_issues_nothing() -> None:
    """At its end and after it; a second before, it does."""
    signer = issuer(SigningKey.load(SEED, NOW + 30))
    assert signer.issue(bound(), PERMIT, POLICY, now=NOW + 29, jti=JTI).expires == NOW + 30
    for later in (30, 31, 3600):
        assert not signer.usable(NOW + later)
        with pytest.raises(Refused) as refused:
            signer.issue(bound(), PERMIT, POLICY, now=NOW + later, jti=JTI)
        assert refused.value.reason is Reason.ARTIFACT_KEY_UNAVAILABLE


@settings(deadline=None)
@given(end=st.integers(1, 200), lifetime=st.integers(1, 60), at=st.integers(0, 199))
def test_no_artifact_is_issued_beyond_its_key(end: int, lifetime: int, at: int) -> None:
    """Whatever is issued ends with the key at the latest, and a verifier that knows the end takes it."""
    key = SigningKey.load(SEED, NOW + end)
    signer = issuer(key, lifetime=lifetime)
    if at >= end:
        assert not signer.usable(NOW + at)
        return
    grant = signer.issue(bound(), PERMIT, POLICY, now=NOW + at, jti=JTI)
    assert grant.expires == min(NOW + at + lifetime, NOW + end)
    by = verifier(keys=KeySet.from_jwks(KeySet([key.public]).jwks()))
    assert fault_of(grant.token, by=by, now=NOW + at) is None


@pytest.mark.parametrize("lifetime", [0, -1, 61, 3600])
def test_nobody_issues_for_longer_than_a_minute(lifetime: int) -> None:
    """Refused when the issuer is made."""
    with pytest.raises(ValueError, match="1 to 60 seconds"):
        issuer(lifetime=lifetime)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**40))
def test_an_artifact_never_lives_longer_than_sixty_seconds(lifetime: int, now: int) -> None:
    """Whatever the settings and the clock."""
    found = claims(issuer(lifetime=lifetime).issue(bound(), PERMIT, POLICY, now=now, jti=JTI))
    assert found["nbf"] == found["iat"] == now
    assert 0 < found["exp"] - found["iat"] == lifetime <= MAX_LIFETIME == 60


# -- what it says ------------------------------------------------------------------------------


def test_the_bytes_say_this_and_nothing_else() -> None:
    """Header and claims, member by member: no argument, no name of a person, no key."""
    parent = Parent("verified", "parent-digest", "txn-of-the-parent")
    grant = issue(bound(parent=parent, traceparent="00-0-0-01"))
    header, found = opened(grant.token)
    assert header == {"alg": "EdDSA", "kid": KEY.public.kid, "typ": "guard-authz+jwt"}
    names = {"sub": found.pop("sub"), "act": found.pop("act")["sub"], "cid": found["rctx"].pop("cid")}
    assert len(set(names.values())) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", name) for name in names.values())
    assert found == {
        "iss": NAME,
        "aud": AUDIENCE,
        "role": "payer",
        "scope": "payments:transfer",
        "req_wl": NAME,
        "txn": "txn-of-the-parent",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 60,
        "jti": JTI,
        "tctx": {
            "method": METHOD,
            "tool": "transfer",
            "args_sha256": args_sha256(PARAMS),
            "tool_def_sha256": DEFINITION,
            "policy": {"id": POLICY.id, "version": POLICY.version, "sha256": POLICY.sha256},
            "mode": "enforce",
            "decision_id": "decision-1",
        },
        "rctx": {"parent": "parent-digest", "traceparent": "00-0-0-01", "depth": 1},
    }
    for secret in (b"ada", b"key-1", b"DE02", b"c-1", b64(SEED).encode(), SECRET.hex().encode()):
        assert secret not in b64_opened(grant.token)


def b64_opened(token: bytes) -> bytes:
    header, found = opened(token)
    return f"{header}{found}".encode()


def test_without_a_parent_a_call_begins_its_own_transaction() -> None:
    """`txn` is the decision's id; there is neither a parent nor a trace."""
    found = claims(issue())
    assert found["txn"] == "decision-1"
    assert found["rctx"].keys() == {"cid"}
    claimed = claims(issue(bound(parent=Parent("claimed", "digest"))))
    assert claimed["txn"] == "decision-1"


def test_the_grant_names_its_own_bytes() -> None:
    """What the lineage records is the digest of what is sent."""
    grant = issue()
    assert grant.sha256 == sha256(grant.token)
    assert grant.args_sha256 == claims(grant)["tctx"]["args_sha256"]
    assert grant.jti == claims(grant)["jti"]
    assert grant.expires == claims(grant)["exp"]


def test_an_observed_permission_says_so() -> None:
    """The mode of the decision stands in the artifact."""
    observed = Allow((), (), ("observed",), mode="observe")
    grant = issuer().issue(bound(), observed, POLICY, now=NOW, jti=JTI)
    assert claims(grant)["tctx"]["mode"] == "observe"
    assert claims(grant)["scope"] == ""


def test_the_scopes_stand_with_spaces_between() -> None:
    """As RFC 8693 section 4.2 has it, in the decision's order."""
    two = Allow(("rule",), ("a:read", "b:write"))
    assert claims(issuer().issue(bound(), two, POLICY, now=NOW, jti=JTI))["scope"] == "a:read b:write"


# -- pairwise names ----------------------------------------------------------------------------


def named(grant: Grant) -> list[str]:
    found = claims(grant)
    return [found["sub"], found["act"]["sub"], found["rctx"]["cid"]]


@settings(deadline=None)
@given(texts.filter(bool), texts.filter(bool), texts, texts)
def test_names_are_pairwise(one: str, other: str, subject: str, conversation: str) -> None:
    """Equal at one audience, call after call; different at any two audiences, all three of them."""
    who = dataclasses.replace(ADA, subject=subject)

    def names(audience: str, jti: str) -> list[str]:
        return named(issue(bound(principal=who, audience=audience, conversation=conversation), jti=jti))

    assert names(one, "a") == names(one, "b")
    if one != other:
        assert not set(names(one, "a")) & set(names(other, "a"))


@pytest.mark.parametrize(
    "changed",
    [
        {"tenant": "another"},
        {"issuer": "https://idp.example"},
        {"subject": "bob"},
        {"tenant": "defaulta", "issuer": "pi-key"},
        {"tenant": "default\x00api-key", "issuer": ""},
    ],
)
def test_two_principals_have_two_names(changed: dict[str, str]) -> None:
    """Tenant, issuer and subject each count, and no joining of them is ambiguous."""
    other = dataclasses.replace(ADA, **changed)
    assert not set(named(issue(bound(principal=ADA)))) & set(named(issue(bound(principal=other))))


def test_a_credential_and_a_conversation_have_their_own_names() -> None:
    """Another key of one principal changes `act` only, another conversation `cid` only."""
    base = named(issue())
    key = named(issue(bound(principal=dataclasses.replace(ADA, credential="key-2"))))
    conversation = named(issue(bound(conversation="c-2")))
    assert [a == b for a, b in zip(base, key, strict=True)] == [True, False, True]
    assert [a == b for a, b in zip(base, conversation, strict=True)] == [True, True, False]


@given(st.lists(st.tuples(*[st.sampled_from("ab")] * 5), min_size=1, max_size=12))
def test_a_name_that_is_remembered_is_the_one_that_would_be_made(asked: list[tuple[str, ...]]) -> None:
    """An issuer that has named others before gives the same names as one that never has."""
    old = issuer()
    for tenant, subject, credential, audience, conversation in asked:
        who = Principal(tenant, "api-key", subject, "payer", credential=credential)
        one = bound(principal=who, audience=audience, conversation=conversation)
        grants = [by.issue(one, PERMIT, POLICY, now=NOW, jti=JTI) for by in (old, issuer(), old)]
        assert len({grant.token for grant in grants}) == 1


def test_what_an_issuer_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More conversations than are remembered, and no more names are."""
    monkeypatch.setattr(grant_module, "MAX_NAMES", 16)
    signer = issuer()
    for n in range(100):
        signer.issue(bound(conversation=f"c-{n}"), PERMIT, POLICY, now=NOW, jti=JTI)
    assert signer._pairwise.cache_info().currsize == 16


def test_without_the_secret_nobody_computes_a_name() -> None:
    """Another Guard with another secret names the same principal otherwise."""
    other = issuer(secret=bytes(32)).issue(bound(), PERMIT, POLICY, now=NOW, jti=JTI)
    assert not set(named(issue())) & set(named(other))


# -- who cannot make one -----------------------------------------------------------------------


def test_a_verified_grant_comes_from_the_verifier_only() -> None:
    """Neither its constructor, nor a copy with other params, nor its own members make another."""
    good = verify(issue().token)
    fields = {field.name: getattr(good, field.name) for field in dataclasses.fields(good)}
    for attempt in (
        lambda: VerifiedGrant(b"", {}, {}),
        lambda: VerifiedGrant(b"", {}, {}, None),
        lambda: VerifiedGrant(b"", {}, {}, object()),
        lambda: VerifiedGrant(**fields),
        lambda: VerifiedGrant(**{**fields, "params": {"name": "other"}}),
        lambda: dataclasses.replace(good, params={"name": "other"}),
        lambda: dataclasses.replace(good),
        lambda: VerifiedGrant(b"", {}, {}, good),
        lambda: VerifiedGrant(b"", {}, {}, getattr(good, "made", None)),
    ):
        with pytest.raises((TypeError, ValueError)):
            attempt()


def test_a_verified_grant_cannot_be_changed() -> None:
    """It is frozen, and has no place for anything more."""
    good = verify(issue().token)
    for name in ("token", "claims", "params", "made", "more"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(good, name, b"")


def test_no_class_can_be_made_to_look_like_one() -> None:
    """Dispatch asks for the very type: a subclass, which could skip the check, is another type."""
    made = type("Fake", (VerifiedGrant,), {"__post_init__": lambda *_: None})(b"", {}, {})
    assert type(made) is not VerifiedGrant


def test_the_verifier_cannot_sign() -> None:
    """The module that a tool server imports knows no private key."""
    assert not [name for name in vars(verify_module) if "Signing" in name or "Private" in name]
    assert "sign(" not in inspect.getsource(verify_module)


# -- a verifier without its settings -----------------------------------------------------------

SETTINGS: dict[str, Any] = {"issuer": NAME, "keys": KEYS, "audience": AUDIENCE, "replay": MemoryReplay()}


@pytest.mark.parametrize("left_out", SETTINGS)
def test_a_verifier_needs_all_four_settings(left_out: str) -> None:
    """Issuer, keys, audience and replay store have no defaults."""
    assert Verifier(**SETTINGS)
    with pytest.raises(TypeError, match=left_out):
        Verifier(**{name: value for name, value in SETTINGS.items() if name != left_out})


@pytest.mark.parametrize(
    "empty", [{"issuer": ""}, {"issuer": None}, {"audience": ""}, {"audience": None}, {"keys": KeySet([])}]
)
def test_a_verifier_with_an_empty_setting_is_refused(empty: dict[str, Any]) -> None:
    """An empty name would match an empty claim; an empty key set is a mistake in the set-up."""
    with pytest.raises(ValueError, match="needed"):
        Verifier(**SETTINGS | empty)


# -- nothing printed contains a private key ----------------------------------------------------


def _things() -> dict[str, Any]:
    grant = issue()
    return {
        "key": KEY,
        "issuer": issuer(),
        "public": KEY.public,
        "key set": KEYS,
        "jwks": KEYS.jwks(),
        "grant": grant,
        "verified": verify(grant.token),
        "verifier": verifier(),
    }


@pytest.mark.parametrize("thing", _things())
def test_nothing_printed_contains_a_private_key(thing: str) -> None:
    """Neither repr nor str shows the seed or the pairwise secret, in any usual spelling."""
    value = _things()[thing]
    for shown in (repr(value), str(value), f"{value!a}"):
        for secret in (SEED, SECRET):
            forms = (secret.hex(), b64(secret), repr(secret)[2:-1], str(list(secret))[1:-1])
            assert not any(form in shown for form in forms)


@pytest.mark.parametrize("thing", ["key", "issuer"])
def test_a_private_key_is_not_pickled(thing: str) -> None:
    """It does not slip into a queue, a cache or another process."""
    with pytest.raises(TypeError):
        pickle.dumps(_things()[thing])


def test_a_failure_to_load_a_key_does_not_repeat_it() -> None:
    """The message says how long it was, and nothing of what it was."""
    with pytest.raises(Exception, match="31") as failed:
        SigningKey.load(SEED[:31])
    assert b64(SEED[:31]) not in repr(failed.value)
    assert SEED[:31].hex() not in repr(failed.value)


def test_what_is_judged_is_copied() -> None:
    """A member added to the caller's params afterwards is not in the verified ones."""
    params = copy.deepcopy(dict(PARAMS))
    verified = verify(issue().token, params=params)
    params["task"] = {"ttl": 1}
    assert verified.params == PARAMS


def test_the_issuer_shows_its_public_side() -> None:
    """Its name and public key are all that a caller needs."""
    signer = Issuer(name=NAME, key=KEY, pairwise_secret=SECRET)
    assert (signer.name, signer.public) == (NAME, KEY.public)

"""Laws of the artifact: it permits exactly one call, once, for a while, at one server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from artifacts import (
    AUDIENCE,
    DEFINITION,
    KEY,
    NAME,
    NOW,
    PARAMS,
    fault_of,
    forged,
    issue,
    opened,
    signed,
    verifier,
    verify,
)
from artifacts import call as bound
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guard.artifact.replay import MemoryReplay
from guard.artifact.verify import ArtifactRefused, Fault
from guard.core.canonical import MAX_SAFE_INTEGER, b64
from guard.core.model import ARTIFACT_META, DIGESTED_MEMBERS

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, values, max_size=4)


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are one: a number is its value, everything else its type and content."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


# -- exactly one call --------------------------------------------------------------------------


@settings(deadline=None)
@given(objects)
def test_an_artifact_verifies_for_exactly_its_call(arguments: dict[str, Any]) -> None:
    """What was judged verifies, through JSON and back, with any key order and spacing."""
    params = {"name": "transfer", "arguments": arguments}
    token = issue(bound(params)).token
    spelled = json.loads(json.dumps(dict(reversed(params.items())), indent=3, sort_keys=True))
    assert verify(token, params=spelled).claims["tctx"]["tool"] == "transfer"


@settings(deadline=None)
@given(objects, objects)
@example({"n": 1}, {"n": True})
@example({"n": 0}, {"n": False})
@example({"n": 1}, {"n": "1"})
@example({"n": None}, {})
@example({"n": []}, {"n": {}})
@example({"n": 1}, {"n": 1.0000000000000002})
@example({"\ufb33": 1, "\U0001f600": 2}, {"\ufb33": 2, "\U0001f600": 1})
@example({"e\u0301": 1}, {"\u00e9": 1})
def test_other_arguments_are_refused(judged: dict[str, Any], sent: dict[str, Any]) -> None:
    """Two arguments that differ as JSON values never share an artifact; equal ones do."""
    token = issue(bound({"name": "transfer", "arguments": judged})).token
    found = fault_of(token, params={"name": "transfer", "arguments": sent})
    assert found == (None if same(judged, sent) else Fault.ARGUMENTS)


@settings(deadline=None)
@given(objects, st.data())
def test_one_changed_place_is_refused(arguments: dict[str, Any], data: st.DataObject) -> None:
    """A single leaf that is replaced, or a member that is added or taken away, is found."""
    changed = json.loads(json.dumps(arguments))
    key = data.draw(st.sampled_from([*changed, "a new member"]), "place")
    if key in changed and data.draw(st.booleans(), "take away"):
        del changed[key]
    else:
        changed[key] = data.draw(values, "value")
    token = issue(bound({"name": "transfer", "arguments": arguments})).token
    found = fault_of(token, params={"name": "transfer", "arguments": changed})
    assert found == (None if same(arguments, changed) else Fault.ARGUMENTS)


@pytest.mark.parametrize("member", sorted({*DIGESTED_MEMBERS} - {"name"}))
def test_every_member_that_acts_is_covered(member: str) -> None:
    """Arguments, answers to questions, state and task: each added, changed or left out is refused."""
    token = issue(bound({**PARAMS, member: {"x": 1}})).token
    assert fault_of(token, params={**PARAMS, member: {"x": 1}}) is None
    assert fault_of(token, params={**PARAMS, member: {"x": 2}}) is Fault.ARGUMENTS
    assert fault_of(token, params={k: v for k, v in PARAMS.items() if k != member}) is Fault.ARGUMENTS
    if member not in PARAMS:
        assert fault_of(issue().token, params={**PARAMS, member: {}}) is Fault.ARGUMENTS


@settings(deadline=None)
@given(objects)
def test_meta_is_no_part_of_the_call(meta: dict[str, Any]) -> None:
    """Every hop may add to `_meta`: it neither spoils an artifact nor reaches the verified params."""
    verified = verify(issue().token, params={**PARAMS, "_meta": meta})
    assert verified.params == PARAMS


@settings(deadline=None)
@given(texts)
def test_another_tool_is_refused(name: str) -> None:
    """The name is compared whole: no case folding, no normal form, no prefix."""
    expected = None if name == PARAMS["name"] else Fault.TOOL
    assert fault_of(issue().token, params={**PARAMS, "name": name}) == expected


@pytest.mark.parametrize("name", ["Transfer", "transfer ", "transfe", "transfer\x00", None, ["transfer"], 1])
def test_a_name_that_is_nearly_the_tools_is_refused(name: Any) -> None:
    """Neither a look-alike nor another type."""
    assert fault_of(issue().token, params={**PARAMS, "name": name}) is Fault.TOOL


@pytest.mark.parametrize("method", ["tools/list", "resources/read", "Tools/call", "tools/call ", ""])
def test_another_method_is_refused(method: str) -> None:
    """An artifact for a call opens nothing else."""
    assert fault_of(issue().token, method=method) is Fault.TOOL


def test_another_definition_is_refused() -> None:
    """Where the server knows its tool's definition, the artifact must be for that one."""
    assert fault_of(issue().token, definition=DEFINITION) is None
    assert fault_of(issue().token, definition=b64(bytes([1] * 32))) is Fault.DEFINITION
    assert fault_of(issue(bound(definition="")).token, definition=DEFINITION) is Fault.DEFINITION


@pytest.mark.parametrize(
    "arguments", [{"x": "\ud800"}, {"\udfff": 1}, {"x": 2**53}, {"x": float("inf")}, {"x": float("nan")}]
)
def test_params_without_a_digest_are_refused(arguments: dict[str, Any]) -> None:
    """What has no canonical form matches no digest, and the refusal can be printed."""
    with pytest.raises(ArtifactRefused) as refused:
        verify(issue().token, params={"name": "transfer", "arguments": arguments})
    assert refused.value.fault is Fault.ARGUMENTS
    assert str(refused.value).encode()


def test_a_refusal_repeats_nothing_that_steers_a_terminal() -> None:
    """The place of a fault comes from the caller, and is escaped."""
    arguments = {"\x1b[2J\u202e": 2**60}
    with pytest.raises(ArtifactRefused) as refused:
        verify(issue().token, params={"name": "transfer", "arguments": arguments})
    assert "\\x1b[2J\\u202e" in str(refused.value)
    assert "\x1b" not in str(refused.value)


# -- the bytes of the token --------------------------------------------------------------------


@settings(deadline=None)
@given(st.data())
def test_a_changed_byte_is_refused(data: st.DataObject) -> None:
    """Any byte of the token replaced by any other."""
    token = issue().token
    at = data.draw(st.integers(0, len(token) - 1), "at")
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != token[at]), "byte")
    assert fault_of(token[:at] + bytes([byte]) + token[at + 1 :]) is not None


def test_every_flipped_bit_is_refused() -> None:
    """Each of the token's bits, one by one."""
    token, by = issue().token, verifier()
    for at in range(len(token)):
        for bit in range(8):
            flipped = token[:at] + bytes([token[at] ^ 1 << bit]) + token[at + 1 :]
            assert fault_of(flipped, by=by) is not None, (at, bit)
    assert fault_of(token, by=by) is None


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=4), st.data())
def test_bytes_added_or_cut_off_are_refused(more: bytes, data: st.DataObject) -> None:
    """At any place, at the end and at the beginning."""
    token = issue().token
    at = data.draw(st.integers(0, len(token)), "at")
    assert fault_of(token[:at] + more + token[at:]) is not None
    assert fault_of(token[:at] + token[at + len(more) :]) is not None or at == len(token)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_rubbish_is_refused_and_nothing_else_happens(token: bytes) -> None:
    """Whatever the bytes, the answer is ArtifactRefused and no other exception."""
    assert fault_of(token) is not None
    assert fault_of(b".".join([token] * 3)) is not None


@settings(deadline=None)
@given(objects, objects)
def test_signed_rubbish_is_refused_and_nothing_else_happens(
    header: dict[str, Any], claims: dict[str, Any]
) -> None:
    """The issuer's own key over other members: refused as malformed, never an error."""
    assert fault_of(signed(header, claims)) is Fault.MALFORMED
    good, _ = opened(issue().token)
    assert fault_of(signed(good, claims)) is Fault.MALFORMED


@settings(deadline=None)
@given(st.sampled_from(sorted(opened(issue().token)[1])), values)
def test_a_claim_of_another_type_never_raises(name: str, value: Any) -> None:
    """Any one claim replaced by any JSON value: taken or refused, nothing else."""
    verify_or_refuse = fault_of(forged(lambda _, claims: claims.update({name: value})))
    assert verify_or_refuse is None or isinstance(verify_or_refuse, Fault)


# -- time --------------------------------------------------------------------------------------

TICK = 2**-20
"""A power of two: sums with it are exact at this size."""


@settings(deadline=None)
@given(skew=st.integers(0, 30), lifetime=st.integers(1, 60))
def test_the_edges_of_time_are_exact(skew: int, lifetime: int) -> None:
    """From nbf - skew on, and up to but not at exp + skew."""
    token = issue(lifetime=lifetime).token
    end = NOW + lifetime + skew

    def at(now: float) -> Fault | None:
        return fault_of(token, by=verifier(skew=skew), now=now)

    assert at(NOW - skew - TICK) is Fault.NOT_YET_VALID
    assert at(NOW - skew) is None
    assert at(end - TICK) is None
    assert at(end) is Fault.EXPIRED


@pytest.mark.parametrize("skew", [-1, 31, 3600])
def test_no_verifier_is_laxer_than_thirty_seconds(skew: int) -> None:
    """More skew is refused at construction, and so is less than none."""
    with pytest.raises(ValueError, match="skew"):
        verifier(skew=skew)


def test_the_default_skew_is_ten_seconds() -> None:
    """As the page says."""
    assert fault_of(issue().token, now=NOW - 10) is None
    assert fault_of(issue().token, now=NOW - 11) is Fault.NOT_YET_VALID


def test_a_later_nbf_and_a_later_iat_both_count() -> None:
    """Neither of the two may lie ahead of the clock."""
    assert fault_of(forged(lambda _, claims: claims.update(nbf=NOW + 11))) is Fault.NOT_YET_VALID
    ahead = forged(lambda _, claims: claims.update(iat=NOW + 11, nbf=NOW))
    assert fault_of(ahead) is Fault.NOT_YET_VALID


@pytest.mark.parametrize("lives", [61, 3600, 0, -1])
def test_an_artifact_lives_one_to_sixty_seconds(lives: int) -> None:
    """Signed or not, what lives longer is refused at any time; so is what ends before it begins."""
    token = forged(lambda _, claims: claims.update(exp=NOW + lives))
    assert all(fault_of(token, now=NOW + after) is Fault.LIFETIME for after in (-100, 0, 30, 100, 4000))


def test_a_time_that_is_no_number_permits_nothing() -> None:
    """NaN compares false with everything; it must not slip through."""
    with pytest.raises(ValueError, match="NaN"):
        verify(issue().token, now=float("nan"))


# -- one server --------------------------------------------------------------------------------


@settings(deadline=None)
@given(texts.filter(bool))
def test_another_audience_is_refused(audience: str) -> None:
    """An artifact is for the server that it names, letter by letter."""
    expected = None if audience == AUDIENCE else Fault.AUDIENCE
    assert fault_of(issue(bound(audience=audience)).token) == expected


@pytest.mark.parametrize("name", ["guard.other", NAME.upper(), f"{NAME}.", ""])
def test_another_issuer_is_refused(name: str) -> None:
    """Even with the key of the trusted one."""
    assert fault_of(forged(lambda _, claims: claims.update(iss=name))) is Fault.ISSUER


def test_an_observed_artifact_is_refused_unless_told() -> None:
    """A policy that only observes opens no tool server; a gate may be told to take it."""
    token = forged(lambda _, claims: claims["tctx"].update(mode="observe"))
    assert fault_of(token) is Fault.OBSERVED
    assert fault_of(token, by=verifier(accept_observed=True)) is None


def test_a_revoked_artifact_is_refused() -> None:
    """The verifier asks with the key's id and the `jti`, and only about what is otherwise good."""
    asked: list[tuple[str, str]] = []

    def revoked(kid: str, jti: str) -> bool:
        asked.append((kid, jti))
        return True

    by = verifier(revoked=revoked)
    assert fault_of(issue().token, by=by, now=NOW + 100) is Fault.EXPIRED
    assert asked == []
    grant = issue()
    assert fault_of(grant.token, by=by) is Fault.REVOKED
    assert asked == [(KEY.public.kid, grant.jti)]


# -- the order ---------------------------------------------------------------------------------

Change = Callable[[dict[str, Any], dict[str, Any]], object]
CHANGES: dict[Fault, Change] = {
    Fault.TOO_LARGE: lambda _, claims: claims.update(more="x" * 8192),
    Fault.MALFORMED: lambda header, _: header.update(jku="https://example.com/keys"),
    Fault.TYPE: lambda header, _: header.update(typ="JWT"),
    Fault.ALGORITHM: lambda header, _: header.update(alg="none"),
    Fault.UNKNOWN_KEY: lambda header, _: header.update(kid="another"),
    Fault.ISSUER: lambda _, claims: claims.update(iss="guard.other"),
    Fault.AUDIENCE: lambda _, claims: claims.update(aud="elsewhere"),
    Fault.LIFETIME: lambda _, claims: claims.update(iat=claims["iat"] - 200),
    Fault.NOT_YET_VALID: lambda _, claims: claims.update(nbf=NOW + 100),
    Fault.EXPIRED: lambda _, claims: claims.update(iat=claims["iat"] - 100, exp=claims["exp"] - 100),
    Fault.TOOL: lambda _, claims: claims["tctx"].update(tool="balance"),
    Fault.ARGUMENTS: lambda _, claims: claims["tctx"].update(args_sha256="another"),
    Fault.DEFINITION: lambda _, claims: claims["tctx"].update(tool_def_sha256="another"),
    Fault.OBSERVED: lambda _, claims: claims["tctx"].update(mode="observe"),
    Fault.REVOKED: lambda _, claims: claims.update(jti="revoked"),
}


def _presented(faults: set[Fault]) -> Fault | None:
    replay = MemoryReplay()
    by = verifier(replay=replay, revoked=lambda _, jti: jti == "revoked")
    token = forged(lambda header, claims: [CHANGES[f](header, claims) for f in faults & {*CHANGES}])
    if Fault.SIGNATURE in faults:
        token = token[:-4] + (b"AAAA" if token[-4:] != b"AAAA" else b"BBBA")
    if Fault.REPLAYED in faults:
        replay.insert((AUDIENCE, opened(token)[1]["iss"], opened(token)[1]["jti"]), until=NOW + 999, now=NOW)
    return fault_of(token, by=by, definition=DEFINITION)


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.MISSING])
def test_each_fault_alone_is_named(fault: Fault) -> None:
    """One thing wrong, one name for it; nothing wrong, no fault."""
    assert _presented({fault}) is fault
    assert _presented(set()) is None


PAIRS = [
    pair
    for pair in combinations([fault for fault in Fault if fault is not Fault.MISSING], 2)
    if pair != (Fault.NOT_YET_VALID, Fault.EXPIRED)  # no clock shows both
]


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=str)
def test_of_two_faults_the_first_in_the_order_is_named(first: Fault, second: Fault) -> None:
    """The closed list of faults is the order of verification: cheapest and least trusting first."""
    assert _presented({first, second}) is first


# -- what a request carries --------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        PARAMS,
        {**PARAMS, "_meta": None},
        {**PARAMS, "_meta": []},
        {**PARAMS, "_meta": {}},
        {**PARAMS, "_meta": {ARTIFACT_META: None}},
        {**PARAMS, "_meta": {ARTIFACT_META: ["token"]}},
        {**PARAMS, "_meta": {ARTIFACT_META: "tok\u00e9n"}},
        {**PARAMS, ARTIFACT_META: "beside _meta"},
    ],
)
def test_a_request_without_an_artifact_is_refused_as_missing(params: Any) -> None:
    """No `_meta`, no member, or a member that is no token."""
    with pytest.raises(ArtifactRefused) as refused:
        verifier().admit("tools/call", params, now=NOW)
    assert refused.value.fault is Fault.MISSING


def test_a_request_is_admitted_with_the_artifact_in_its_meta() -> None:
    """`admit` is `verify` with the token from `_meta`, and uses it up."""
    by, token = verifier(), issue().token
    params = {**PARAMS, "_meta": {ARTIFACT_META: token.decode(), "progressToken": 1}}
    assert by.admit("tools/call", params, now=NOW).token == token
    with pytest.raises(ArtifactRefused) as refused:
        by.admit("tools/call", params, now=NOW)
    assert refused.value.fault is Fault.REPLAYED


def test_a_refusal_names_a_next_step() -> None:
    """What failed, and what to do, on a line of its own."""
    with pytest.raises(ArtifactRefused) as refused:
        verifier().admit("tools/call", None, now=NOW)
    assert str(refused.value).splitlines() == [
        "the request carries no artifact",
        "  next: call the tool through Guard; each call needs its own artifact",
    ]


def test_one_principals_artifact_is_not_anothers_excuse() -> None:
    """Two principals' artifacts for one call differ in everything that names them, and each verifies."""
    ada = bound()
    bob = replace(ada, principal=replace(ada.principal, subject="bob"))
    one, other = (verify(issue(who, jti=jti).token).claims for who, jti in ((ada, "a"), (bob, "b")))
    assert one["sub"] != other["sub"]
    assert one["rctx"]["cid"] != other["rctx"]["cid"]
    assert one["tctx"]["args_sha256"] == other["tctx"]["args_sha256"]

"""Attacks on the JWS itself: each is known from another library, and each is refused here."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from artifacts import KEY, NOW, OTHER_KEY, SEED, fault_of, forged, issue, joined, opened, signed, verifier
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from guard.artifact.verify import MAX_BYTES, Fault
from guard.core.canonical import b64
from guard.core.keys import BadKey, KeySet, PublicKey

HEADER, CLAIMS = opened(issue().token)
PUBLIC = KEY.public.raw
ORDER = 2**252 + 27742317777372353535851937790883648493
"""L of RFC 8032 section 5.1."""


def with_header(**members: Any) -> bytes:
    """A good artifact with other header members, signed again by the issuer's own key."""
    return signed({**HEADER, **members}, CLAIMS)


def header_bytes(text: str) -> bytes:
    """A good artifact under a header that is spelled by hand."""
    return joined(text.encode(), json.dumps(CLAIMS).encode())


def test_the_material_is_good() -> None:
    """What the attacks start from verifies: header and claims put together by hand, signed again."""
    assert fault_of(with_header()) is None
    assert fault_of(header_bytes(json.dumps(HEADER))) is None


# -- algorithms --------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("signature", [b"", b"AA"])
def test_alg_none_is_refused(alg: str, signature: bytes) -> None:
    """RFC 7518 section 3.6 in any spelling, with no signature or some bytes."""
    head, claims, _ = with_header(alg=alg).split(b".")
    assert fault_of(b".".join([head, claims, signature])) is Fault.ALGORITHM


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize(
    "secret",
    [
        PUBLIC,
        b64(PUBLIC).encode(),
        json.dumps(KEY.public.jwk()).encode(),
        b"",
    ],
    ids=["raw", "x", "jwk", "empty"],
)
def test_a_mac_with_the_public_key_is_refused(alg: str, secret: bytes) -> None:
    """The public key is no secret, whatever the header says it is (RFC 8725 section 2.1)."""
    body = b".".join(with_header(alg=alg).split(b".")[:2])
    mac = hmac.digest(secret, body, f"sha{alg[2:]}")
    assert fault_of(body + b"." + b64(mac).encode()) is Fault.ALGORITHM


@pytest.mark.parametrize(
    "alg", ["ES256", "RS256", "PS256", "Ed448", "eddsa", "ED25519", "EdDSA ", "Ed25519ph"]
)
def test_every_other_algorithm_is_refused(alg: str) -> None:
    """Two names and no third, compared whole."""
    assert fault_of(with_header(alg=alg)) is Fault.ALGORITHM


@pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
def test_both_names_of_the_algorithm_are_taken(alg: str) -> None:
    """RFC 8037's name and RFC 9864's are one algorithm."""
    assert fault_of(with_header(alg=alg)) is None


def test_the_name_of_the_algorithm_is_signed() -> None:
    """One of the two names in place of the other needs a new signature."""
    token = issue().token
    _, claims, signature = token.split(b".")
    renamed = with_header(alg="Ed25519").split(b".")[0]
    assert fault_of(b".".join([renamed, claims, signature])) is Fault.SIGNATURE


# -- the header --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("jwk", OTHER_KEY.public.jwk()),
        ("jwk", KEY.public.jwk()),
        ("jku", "https://attacker.example/jwks.json"),
        ("x5u", "https://attacker.example/cert.pem"),
        ("x5c", ["MIIB"]),
        ("x5t", "AA"),
        ("x5t#S256", "AA"),
        ("crit", ["b64"]),
        ("crit", ["exp"]),
        ("crit", []),
        ("b64", False),
        ("b64", True),
        ("cty", "JWT"),
        ("zip", "DEF"),
        ("iss", "guard.example"),
        ("nonce", "x"),
    ],
)
def test_a_header_that_brings_more_is_refused(member: str, value: Any) -> None:
    """Keys, addresses, extensions: nothing but alg, typ and kid is read (RFC 7515 section 4.1)."""
    assert fault_of(with_header(**{member: value})) is Fault.MALFORMED


@pytest.mark.parametrize("member", ["jwk", "jku"])
def test_a_key_that_the_message_brings_is_not_used(member: str) -> None:
    """Signed by the attacker's key that stands in the header or behind its address."""
    brought = {"jwk": OTHER_KEY.public.jwk(), "jku": "https://attacker.example/"}[member]
    header = {**HEADER, "kid": OTHER_KEY.public.kid, member: brought}
    assert fault_of(signed(header, CLAIMS, OTHER_KEY)) is Fault.MALFORMED


@pytest.mark.parametrize("left_out", ["alg", "typ", "kid"])
def test_a_header_that_lacks_a_member_is_refused(left_out: str) -> None:
    """All three are there, and there is no default."""
    assert fault_of(signed({k: v for k, v in HEADER.items() if k != left_out}, CLAIMS)) is Fault.MALFORMED


@pytest.mark.parametrize("member", ["alg", "typ", "kid"])
@pytest.mark.parametrize("value", [None, True, 1, [], ["EdDSA"], {}])
def test_a_header_member_of_another_type_is_refused(member: str, value: Any) -> None:
    """Strings, all three."""
    assert fault_of(with_header(**{member: value})) is Fault.MALFORMED


@pytest.mark.parametrize(
    "typ", ["JWT", "jwt", "", "guard-authz", "GUARD-AUTHZ+JWT", "application/guard-authz+jwt", "txntoken+jwt"]
)
def test_a_token_of_another_type_is_refused(typ: str) -> None:
    """Another kind of token by the same key is no artifact (RFC 8725 section 3.11)."""
    assert fault_of(with_header(typ=typ)) is Fault.TYPE


@pytest.mark.parametrize(
    "again", ['"alg": "none"', '"typ": "JWT"', '"kid": "x"', '"\\u0061lg": "EdDSA"', '"alg": "EdDSA"']
)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_header_key_that_stands_twice_is_refused(again: str, first: bool) -> None:  # noqa: FBT001
    """Two readers would take one each; also spelled with an escape, also with the same value."""
    rest = json.dumps(HEADER)[1:-1]
    text = f"{{{again}, {rest}}}" if first else f"{{{rest}, {again}}}"
    assert set(json.loads(text)) == set(HEADER)
    assert fault_of(header_bytes(text)) is Fault.MALFORMED


@pytest.mark.parametrize("again", ['"aud": "bank"', '"exp": 9999999999', '"tctx": {}'])
def test_a_claim_that_stands_twice_is_refused(again: str) -> None:
    """RFC 7519 section 4 lets a parser take the last; this one takes none."""
    text = json.dumps(CLAIMS)[:-1] + f", {again}}}"
    assert fault_of(joined(json.dumps(HEADER).encode(), text.encode())) is Fault.MALFORMED


@pytest.mark.parametrize(
    "header",
    [b"", b"null", b"[]", b'"EdDSA"', b"{", b"\xff", b"\xef\xbb\xbf" + json.dumps(HEADER).encode()],
)
def test_a_header_that_is_no_object_is_refused(header: bytes) -> None:
    """Neither nothing, nor another JSON value, nor bytes that are not JSON, nor a byte order mark."""
    assert fault_of(joined(header, json.dumps(CLAIMS).encode())) is Fault.MALFORMED


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_deep_header_is_refused(opening: bytes) -> None:
    """As deep as the size allows: an answer, and no RecursionError."""
    deep = opening * (MAX_BYTES // 2 // len(opening))
    assert fault_of(joined(deep, b"{}")) is Fault.MALFORMED


# -- keys --------------------------------------------------------------------------------------


def test_an_unknown_key_is_refused() -> None:
    """A key that the verifier was not given, however well it signs."""
    header = {**HEADER, "kid": OTHER_KEY.public.kid}
    assert fault_of(signed(header, CLAIMS, OTHER_KEY)) is Fault.UNKNOWN_KEY


@pytest.mark.parametrize(
    "kid", ["", "../../etc/passwd", "' OR 1=1 --", KEY.public.kid.lower(), f"{KEY.public.kid}="]
)
def test_a_kid_is_a_name_and_nothing_else(kid: str) -> None:
    """It is looked up in the set, never opened, queried or normalised."""
    assert fault_of(with_header(kid=kid)) is Fault.UNKNOWN_KEY


def test_another_keys_signature_under_the_kid_is_refused() -> None:
    """The kid of the trusted key, the signature of another."""
    assert fault_of(signed(HEADER, CLAIMS, OTHER_KEY)) is Fault.SIGNATURE


def test_the_kid_chooses_among_the_keys_and_no_other_is_tried() -> None:
    """With both keys trusted, each verifies under its own name only."""
    by = verifier(keys=KeySet([KEY.public, OTHER_KEY.public]))
    header = {**HEADER, "kid": OTHER_KEY.public.kid}
    assert fault_of(signed(header, CLAIMS, KEY), by=by) is Fault.SIGNATURE
    assert fault_of(signed(header, CLAIMS, OTHER_KEY), by=by) is None


@pytest.mark.parametrize("after", [0, 1, 60])
def test_no_artifact_outlives_its_key(after: int) -> None:
    """A key in the set with an end vouches for nothing beyond it, even while the end lies ahead."""
    token = issue(lifetime=30).token
    by = verifier(keys=KeySet([PublicKey.load(PUBLIC, NOW + 30 + after)]))
    assert fault_of(token, by=by) is None
    by = verifier(keys=KeySet([PublicKey.load(PUBLIC, NOW + 29 - after)]))
    assert fault_of(token, by=by) is Fault.UNKNOWN_KEY


def test_an_old_key_cannot_be_used_with_an_earlier_date() -> None:
    """Whoever finds a key after its end signs nothing that still verifies then."""
    end = NOW + 100
    by = verifier(keys=KeySet([PublicKey.load(PUBLIC, end)]), skew=0)
    for iat in range(end - 61, end + 2):
        token = forged(lambda _, claims, iat=iat: claims.update(iat=iat, nbf=iat, exp=iat + 60))
        assert fault_of(token, by=by, now=end) is not None


@pytest.mark.parametrize(
    "raw",
    [
        b"\1" + bytes(31),
        bytes(32),
        b"\xec" + b"\xff" * 30 + b"\x7f",
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    ],
)
def test_a_key_of_small_order_is_no_key(raw: bytes) -> None:
    """Under such a key one signature fits many messages; it does not enter a key set."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}
    with pytest.raises(BadKey, match="small order"):
        KeySet.from_jwks({"keys": [jwk]})


# -- signatures --------------------------------------------------------------------------------


def changed_signature(change: Callable[[bytes], bytes]) -> bytes:
    """A good artifact with another signature."""
    head, claims, signature = issue().token.split(b".")
    raw = base64.urlsafe_b64decode(signature + b"==")
    return b".".join([head, claims, b64(change(raw)).encode()])


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda _: b"",
    "zero": lambda _: bytes(64),
    "cut": lambda raw: raw[:-1],
    "longer": lambda raw: raw + b"\0",
    "twice": lambda raw: raw + raw,
    "swapped": lambda raw: raw[32:] + raw[:32],
    "r-flipped": lambda raw: bytes([raw[0] ^ 1]) + raw[1:],
    "s-flipped": lambda raw: raw[:32] + bytes([raw[32] ^ 1]) + raw[33:],
    "s-plus-order": lambda raw: (
        raw[:32] + (int.from_bytes(raw[32:], "little") + ORDER).to_bytes(32, "little")
    ),
    "s-minus": lambda raw: raw[:32] + (ORDER - int.from_bytes(raw[32:], "little")).to_bytes(32, "little"),
    "neutral": lambda _: b"\1" + bytes(63),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_signature_is_refused(change: str) -> None:
    """Also the second spelling of the same one, S + L (RFC 8032 section 5.1.7)."""
    assert fault_of(changed_signature(CHANGES[change])) is Fault.SIGNATURE


def test_the_same_signature_is_taken() -> None:
    """The change is what is refused above."""
    assert fault_of(changed_signature(lambda raw: raw)) is None


def test_an_artifact_is_the_same_bytes_each_time() -> None:
    """Ed25519 is deterministic (RFC 8032 section 5.1.6), so one decision never has two spellings."""
    token = issue().token
    assert issue().token == token
    body, _, signature = token.rpartition(b".")
    raw = base64.urlsafe_b64decode(signature + b"==")
    assert int.from_bytes(raw[32:], "little") < ORDER
    assert Ed25519PrivateKey.from_private_bytes(SEED).sign(body) == raw


# -- the compact form --------------------------------------------------------------------------

FORMS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "dots": lambda _: b"..",
    "two-parts": lambda token: token.rpartition(b".")[0],
    "four-parts": lambda token: token + b".AA",
    "leading-dot": lambda token: b"." + token,
    "newline-after": lambda token: token + b"\n",
    "newline-inside": lambda token: token[:9] + b"\n" + token[9:],
    "space-before": lambda token: b" " + token,
    "bearer": lambda token: b"Bearer " + token,
    "quoted": lambda token: b'"' + token + b'"',
    "zero-byte": lambda token: token + b"\0",
    "json-form": lambda token: json.dumps(
        dict(zip(("protected", "payload", "signature"), token.decode().split("."), strict=True))
    ).encode(),
    "unsecured": lambda token: token.rpartition(b".")[0] + b".",
}


@pytest.mark.parametrize("form", [form for form in FORMS if form != "unsecured"])
def test_another_form_is_refused(form: str) -> None:
    """One compact form (RFC 7515 section 7.1), nothing before it, after it or inside."""
    assert fault_of(FORMS[form](issue().token)) is Fault.MALFORMED


def test_an_empty_signature_is_refused() -> None:
    """Three parts, the last with nothing in it."""
    assert fault_of(FORMS["unsecured"](issue().token)) is Fault.SIGNATURE


def padded(part: bytes) -> bytes:
    """With the `=` that RFC 7515 section 2 leaves out."""
    return part + b"=" * (-len(part) % 4)


def loose(part: bytes) -> bytes:
    """The same octets to a lax reader: another last character, whose spare bits are not zero."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spare = {0: 0, 2: 4, 3: 2}[len(part) % 4]
    if not spare:
        return part
    return part[:-1] + bytes([alphabet[alphabet.index(part[-1]) | 1]])


@pytest.mark.parametrize("index", [0, 1, 2], ids=["header", "claims", "signature"])
@pytest.mark.parametrize("spell", [padded, loose], ids=["padded", "spare-bits"])
def test_a_second_spelling_of_base64_is_refused(index: int, spell: Callable[[bytes], bytes]) -> None:
    """Padding or spare bits that decode to the same octets: signed as it stands, still refused."""
    found = []
    for more in range(4):  # one of these lengths leaves spare bits
        header = json.dumps(HEADER).encode() + b" " * more
        parts = [header, json.dumps({**CLAIMS, "more": "x" * more}).encode()]
        coded = [b64(part).encode() for part in parts]
        if index < 2:
            coded[index] = spell(coded[index])
        body = b".".join(coded)
        signature = b64(KEY.sign(body)).encode()
        token = body + b"." + (spell(signature) if index == 2 else signature)
        plain = body + b"." + signature if index == 2 else joined(*parts)
        if token != plain:
            found.append(fault_of(token))
    assert found
    assert set(found) == {Fault.MALFORMED}


def test_the_other_base64_alphabet_is_refused() -> None:
    """`+` and `/` are not base64url, also where the changed spelling is what was signed."""
    found = []
    for more in range(20):
        head, claims, signature = issue(jti=f"jti-{more}").token.split(b".")
        other = signature.replace(b"-", b"+").replace(b"_", b"/")
        if other != signature:
            found.append(fault_of(b".".join([head, claims, other])))
        body = head + b"." + b64(json.dumps({**CLAIMS, "more": f"{'x' * more}???>>>"}).encode()).encode()
        changed = body.replace(b"-", b"+").replace(b"_", b"/")
        if changed != body:
            found.append(fault_of(changed + b"." + b64(KEY.sign(changed)).encode()))
    assert len(found) > 10
    assert set(found) == {Fault.MALFORMED}


def test_a_large_artifact_is_refused_before_it_is_read() -> None:
    """The bound is exact, and holds for a token that would verify."""
    spare = MAX_BYTES - len(forged(lambda _, claims: claims.update(more="")))
    sizes = {}
    for length in range(spare * 3 // 4 - 4, spare * 3 // 4 + 5):
        token = forged(lambda _, claims, length=length: claims.update(more="x" * length))
        sizes[len(token)] = fault_of(token)
    assert min(sizes) <= MAX_BYTES < max(sizes)
    assert all((fault is Fault.TOO_LARGE) == (size > MAX_BYTES) for size, fault in sizes.items())
    assert sizes[min(sizes)] is None
    assert fault_of(b"." * (MAX_BYTES + 1)) is Fault.TOO_LARGE


# -- the claims --------------------------------------------------------------------------------

REQUIRED = [
    *(
        "iss",
        "aud",
        "sub",
        "scope",
        "req_wl",
        "txn",
        "jti",
        "role",
        "iat",
        "nbf",
        "exp",
        "act",
        "tctx",
        "rctx",
    ),
    *(f"tctx.{name}" for name in CLAIMS["tctx"]),
]


@pytest.mark.parametrize("claim", REQUIRED)
@pytest.mark.parametrize("value", [..., None, True, [], ["bank"], 1.5])
def test_a_claim_that_is_missing_or_of_another_type_is_refused(claim: str, value: Any) -> None:
    """Every claim that Guard writes is there, of its type: an `aud` is one string, a time an integer."""
    name, _, inner = claim.partition(".")

    def change(_: dict[str, Any], claims: dict[str, Any]) -> None:
        place, key = (claims[name], inner) if inner else (claims, name)
        del place[key]
        if value is not ...:
            place[key] = value

    assert fault_of(forged(change)) is Fault.MALFORMED


def test_a_jti_is_not_empty() -> None:
    """Without it, single use has no name."""
    assert fault_of(forged(lambda _, claims: claims.update(jti=""))) is Fault.MALFORMED


def test_further_claims_are_ignored() -> None:
    """As RFC 7519 section 4 asks: also inside tctx and rctx."""

    def more(_: dict[str, Any], claims: dict[str, Any]) -> None:
        claims["later"] = claims["tctx"]["later"] = claims["rctx"]["later"] = {"x": [1]}

    assert fault_of(forged(more)) is None


def test_claims_changed_after_signing_are_refused() -> None:
    """Another audience, the old signature."""
    head, _, signature = issue().token.split(b".")
    claims = b64(json.dumps({**CLAIMS, "aud": "elsewhere"}).encode()).encode()
    assert fault_of(b".".join([head, claims, signature])) is Fault.SIGNATURE


def test_a_checkpoint_signature_is_no_artifact() -> None:
    """The bytes that Guard signs elsewhere never have the form of an artifact's."""
    note = b"guard.example/log\n7\n" + base64.b64encode(sha256(b"").digest()) + b"\n"
    assert fault_of(note + b"." + b64(KEY.sign(note)).encode() + b".") is Fault.MALFORMED

"""Others read the same bytes: PyJWT and joserfc verify an artifact from what `guard jwks` prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joserfc.errors
import jwt
import pytest
from artifacts import PERMIT, POLICY, call, forged, issue, signed
from joserfc import jwt as jose
from joserfc.jwk import KeySet as JoseKeys

from guard.artifact.verify import Fault, authentic
from guard.config.home import open_home
from guard.core.canonical import b64
from guard.core.keys import KeySet

VECTORS = Path(__file__).parent.parent / "vectors" / "artifact"
TYPE = "guard-authz+jwt"
REQUIRED = ["iss", "aud", "iat", "nbf", "exp", "jti"]
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated:joserfc.errors.SecurityWarning")

Check = Callable[..., dict[str, Any]]


def by_pyjwt(
    token: str, jwks: Any, *, audience: str = "bank", issuer: str, typ: str = TYPE
) -> dict[str, Any]:
    """As a stranger with PyJWT would, by the real clock."""
    keys = jwt.PyJWKSet.from_dict(jwks)
    found = jwt.decode_complete(
        token,
        keys[jwt.get_unverified_header(token)["kid"]],
        algorithms=["EdDSA"],
        audience=audience,
        issuer=issuer,
        options={"require": REQUIRED, "strict_aud": True},
    )
    if found["header"]["typ"] != typ:
        raise jwt.InvalidTokenError("typ")
    claims: dict[str, Any] = found["payload"]
    return claims


def by_joserfc(
    token: str, jwks: Any, *, audience: str = "bank", issuer: str, typ: str = TYPE
) -> dict[str, Any]:
    """As a stranger with joserfc would, by the real clock."""
    found = jose.decode(token, JoseKeys.import_key_set(jwks), algorithms=["EdDSA", "Ed25519"])
    if found.header["typ"] != typ:
        raise joserfc.errors.InvalidClaimError("typ")
    options: dict[str, Any] = {name: {"essential": True} for name in REQUIRED}
    options["iss"]["value"], options["aud"]["value"] = issuer, audience
    jose.JWTClaimsRegistry(**options).validate(found.claims)
    return found.claims


CHECKS = pytest.mark.parametrize("check", [by_pyjwt, by_joserfc])
REFUSALS = (jwt.PyJWTError, joserfc.errors.JoseError, KeyError)


class Home:
    """A Guard's folder, and what its command prints."""

    def __init__(self, folder: Path) -> None:
        self.home = open_home(folder)
        environment = {**os.environ, "GUARD_HOME": str(folder)}
        guard = Path(sys.executable).with_name("guard")
        done = subprocess.run([guard, "jwks"], env=environment, capture_output=True, text=True, check=True)
        self.printed = done.stdout
        self.jwks = json.loads(done.stdout)

    def token(self, *, ago: int = 0, audience: str = "bank") -> str:
        now = int(time.time()) - ago
        grant = self.home.issuer().issue(
            call(audience=audience), PERMIT, POLICY, now=now, jti=b64(os.urandom(16))
        )
        return grant.token.decode()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("outsiders") / "home")


@CHECKS
def test_an_outsider_verifies_from_the_jwks_alone(home: Home, check: Check) -> None:
    """Signature, typ, aud, iss and exp, with no code of Guard's; and the claims read the same."""
    token = home.token()
    found = check(token, home.jwks, issuer=home.home.name)
    assert found == authentic(token.encode(), home.home.keys)[0]
    assert found["aud"] == "bank"
    assert found["iss"] == home.home.name


@CHECKS
@pytest.mark.parametrize(
    "wrong", [{"issuer": "guard.other"}, {"audience": "elsewhere"}, {"typ": "JWT"}], ids=["iss", "aud", "typ"]
)
def test_an_outsider_refuses_what_does_not_fit(home: Home, check: Check, wrong: dict[str, str]) -> None:
    """Each of the expectations counts."""
    settings = {"issuer": home.home.name, **wrong}
    with pytest.raises(REFUSALS):
        check(home.token(), home.jwks, **settings)


@CHECKS
@pytest.mark.parametrize("ago", [61, 3600, -3600], ids=["just-expired", "expired", "not-yet"])
def test_an_outsider_refuses_the_wrong_time(home: Home, check: Check, ago: int) -> None:
    """`exp` and `nbf` mean to others what they mean to Guard."""
    with pytest.raises(REFUSALS):
        check(home.token(ago=ago), home.jwks, issuer=home.home.name)


@CHECKS
def test_an_outsider_refuses_another_guards_artifact(home: Home, check: Check) -> None:
    """Another key, under its own kid and under this one's."""
    for change in (None, {"kid": home.jwks["keys"][0]["kid"]}):
        token = issue().token if change is None else forged(lambda header, _, new=change: header.update(new))
        with pytest.raises(REFUSALS):
            check(token.decode(), home.jwks, issuer="guard.example")


def test_what_jwks_prints_is_public(home: Home) -> None:
    """One Ed25519 key with its thumbprint; no private part, and not the checkpoint's key."""
    [key] = home.jwks["keys"]
    assert key.keys() == {"kty", "crv", "x", "kid", "use"}
    assert (key["kty"], key["crv"], key["use"]) == ("OKP", "Ed25519", "sig")
    assert JoseKeys.import_key_set(home.jwks).keys[0].thumbprint() == key["kid"]
    assert KeySet.from_jwks(home.jwks).get(key["kid"]) == home.home.artifact_key.public
    private = json.loads((home.home.path / "keys" / "artifact.json").read_text())["d"]
    checkpoint = json.loads((home.home.path / "keys" / "checkpoint.json").read_text())
    for secret in (private, checkpoint["d"], checkpoint["x"]):
        assert secret not in home.printed


# -- the vectors -------------------------------------------------------------------------------


def _vectors() -> dict[str, dict[str, Any]]:
    return {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(VECTORS.glob("*.json"))}


def test_every_fault_has_a_vector() -> None:
    """No member of the closed list is left without one, and none has a name outside it."""
    assert {vector["expected"] for vector in _vectors().values()} == {"ok", *map(str, Fault)}


def test_both_names_of_the_algorithm_have_a_valid_vector() -> None:
    """One permission, signed under each."""
    vectors = _vectors()
    tokens = [vectors[f"valid-{alg}"]["input"]["params"]["_meta"] for alg in ("eddsa", "ed25519")]
    headers = [jwt.get_unverified_header(*token.values()) for token in tokens]
    assert [header["alg"] for header in headers] == ["EdDSA", "Ed25519"]
    claims = [jwt.decode(*token.values(), options={"verify_signature": False}) for token in tokens]
    assert claims[0] == claims[1]


GOOD = [name for name, vector in _vectors().items() if vector["expected"] == "ok"]
UNSIGNED = [name for name, vector in _vectors().items() if vector["expected"] in {"signature", "alg", "kid"}]


@pytest.mark.parametrize("name", GOOD)
def test_joserfc_agrees_that_a_good_vector_is_signed(name: str) -> None:
    """Two implementations, one answer."""
    asked = _vectors()[name]["input"]
    [token] = [value for key, value in asked["params"]["_meta"].items() if key.endswith("/authorization")]
    keys = JoseKeys.import_key_set(asked["jwks"])
    found = jose.decode(token, keys, algorithms=["EdDSA", "Ed25519"])
    assert found.claims["aud"] == asked["audience"]


@pytest.mark.parametrize("name", [name for name in UNSIGNED if name != "kid-ended"])
def test_joserfc_agrees_that_an_unsigned_vector_is_not(name: str) -> None:
    """What Guard refuses for its signature, algorithm or key, others refuse as well."""
    asked = _vectors()[name]["input"]
    [token] = asked["params"]["_meta"].values()
    keys = JoseKeys.import_key_set(asked["jwks"])
    with pytest.raises((*REFUSALS, ValueError)):
        jose.decode(token, keys, algorithms=["EdDSA", "Ed25519"])


def test_a_header_that_is_signed_by_hand_is_read_alike() -> None:
    """What the attacks in this folder start from is an artifact to others too."""
    header, claims = {"alg": "EdDSA", "typ": TYPE, "kid": "any"}, {"aud": "bank"}
    token = signed(header, claims).decode()
    assert jwt.decode(token, options={"verify_signature": False}) == claims
    assert jwt.get_unverified_header(token) == header

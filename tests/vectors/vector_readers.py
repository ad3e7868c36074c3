"""One reader a format: given a vector's input, it says the class of answer and the result."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, Final

from guard.artifact.replay import MemoryReplay
from guard.artifact.verify import ArtifactRefused, Verifier
from guard.core.canonical import NotIJson, NotJson, canonical, digest, read, write
from guard.core.diagnosis import diagnose
from guard.core.errors import Refused
from guard.core.keys import KeySet
from guard.core.model import Appearance, Seen
from guard.identity.api_keys import ApiKeyRecord, authenticate
from guard.lineage.checkpoint import ForgedNote, MalformedNote, UntrustedNote, open_checkpoint, parse_vkey
from guard.lineage.proof import NotIncluded, verify
from guard.policy.origins import judge, values
from guard.policy.signing import Unsigned, check

Answer = tuple[str, dict[str, Any]]

_SALT: Final = b"any salt will do"
CLASSES: Final = {
    MalformedNote: "malformed",
    ForgedNote: "forged",
    UntrustedNote: "untrusted",
    NotIncluded: "not-included",
}


def given(given: dict[str, Any], name: str) -> bytes:
    """The bytes of one member of an input, from `name` or `name_base64`."""
    return given[name].encode() if name in given else b64decode(given[f"{name}_base64"])


def read_checkpoint(asked: dict[str, Any]) -> Answer:
    try:
        checkpoint = open_checkpoint(given(asked, "note"), map(parse_vkey, asked["vkeys"]))
    except tuple(CLASSES) as error:
        return CLASSES[type(error)], {}
    root = b64encode(checkpoint.root).decode()
    return "ok", {"origin": checkpoint.origin, "size": checkpoint.size, "root_base64": root}


def read_proof(asked: dict[str, Any]) -> Answer:
    try:
        entry = verify(given(asked, "proof"), map(parse_vkey, asked["vkeys"]))
    except tuple(CLASSES) as error:
        return CLASSES[type(error)], {}
    return "ok", {"index": entry.index, "leaf": entry.leaf.decode(), "size": entry.checkpoint.size}


def read_api_key(asked: dict[str, Any]) -> Answer:
    records = {
        record["key_id"]: ApiKeyRecord(**{**record, "scopes": frozenset(record["scopes"])})
        for record in asked["records"]
    }
    try:
        who = authenticate(asked["key"], records.get, asked["now"])
    except Refused as refusal:
        return str(refusal.reason), {}
    result = {"tenant": who.tenant, "subject": who.subject, "role": who.role, "credential": who.credential}
    return "ok", result


def read_canonical(asked: dict[str, Any]) -> Answer:
    data = given(asked, "json")
    try:
        value = read(data)
    except (NotJson, NotIJson):
        try:
            _, fault = diagnose(data)
        except NotJson:
            return "not-json", {}
        assert fault is not None
        assert fault.pointer == asked["pointer"]
        return "not-ijson", {}
    return "ok", {"canonical_base64": b64encode(canonical(value)).decode(), "sha256": digest(value)}


def read_artifact(asked: dict[str, Any]) -> Answer:
    replay = MemoryReplay()
    for jti in asked.get("used", ()):
        replay.insert((asked["audience"], asked["issuer"], jti), until=asked["now"] + 1, now=asked["now"])
    verifier = Verifier(
        issuer=asked["issuer"],
        keys=KeySet.from_jwks(asked["jwks"]),
        audience=asked["audience"],
        replay=replay,
        revoked=lambda _, jti: jti in asked.get("revoked", ()),
        **{name: asked[name] for name in ("skew", "accept_observed") if name in asked},
    )
    definition = asked.get("definition_sha256", "")
    try:
        verified = verifier.admit(
            asked["method"], asked["params"], now=asked["now"], definition_sha256=definition
        )
    except ArtifactRefused as refused:
        return str(refused.fault), {}
    return "ok", {"jti": verified.claims["jti"], "tool": verified.claims["tctx"]["tool"]}


def read_origin(asked: dict[str, Any]) -> Answer:
    """Accepted, or else the trust that it has: judged as a store would hand out what it knows."""
    seen: dict[bytes, tuple[Appearance, ...]] = {}
    for heard in asked["heard"]:
        if heard["source"] == "user":
            found = values.spoken(heard["said"], _SALT)
        else:
            raw = heard["said"].encode() if "said" in heard else write(heard["json"])
            source, trust, fields = heard["source"], heard["trust"], heard.get("fields", {})
            found = values.glimpses(raw, source=source, trust=trust, fields=fields, salt=_SALT)
        for key, appearance in found:
            seen[key] = (*seen.get(key, ()), appearance)
    wanted = judge.candidates(asked["argument"], _SALT)
    known = {key: seen[key] for key in wanted if key in seen}
    constants = frozenset(asked.get("constants", ()))
    memory = Seen(known, asked.get("whole", True), _SALT)
    found_origin = judge.origin(asked["argument"], memory, constants, asked.get("user_overrides", False))
    if not found_origin.accepted_by(frozenset(asked["accept"])):
        return found_origin.trust, {}
    return "ok", {"kinds": sorted(found_origin.kinds), "trust": found_origin.trust}


def read_policy_signature(asked: dict[str, Any]) -> Answer:
    keys = KeySet.from_jwks(asked["jwks"])
    try:
        kid = check(given(asked, "policy"), given(asked, "signature"), keys, name="policy.yaml")
    except Unsigned as refused:
        return refused.fault, {}
    return "ok", {"kid": kid}


READERS: Final[dict[str, Callable[[dict[str, Any]], Answer]]] = {
    "checkpoint": read_checkpoint,
    "proof": read_proof,
    "api-key": read_api_key,
    "canonical": read_canonical,
    "artifact": read_artifact,
    "origin": read_origin,
    "policy-signature": read_policy_signature,
}

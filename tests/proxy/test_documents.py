"""What Guard says of itself: `/health`, `/proof` and its key set, which give no secret away."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from guard.config.home import open_home, record
from guard.config.wiring import tenants
from guard.core.model import ARTIFACT_META
from guard.lineage.checkpoint import ForgedNote, open_checkpoint, parse_vkey
from guard.lineage.entry import Kind
from guard.lineage.store import SavePolicy
from guard.proxy import documents
from tests.proxy.estate import Estate, Server
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import LEGACY, MODERN, reason

PATHS = ("/health", "/proof", "/.well-known/jwks.json")
SECRET = "hunter2-hunter2"
WHO = "ada-lovelace"


async def shown(client: RawHttp, path: str) -> dict[str, Any]:
    answer = await client.send("GET", path=path)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.kind == "application/json"
    found = answer.json()
    assert isinstance(found, dict)
    return found


async def unready(client: RawHttp) -> str:
    """Why Guard is not ready; nothing else may be wrong."""
    answer = await client.send("GET", path="/health")
    found = answer.json()
    assert (answer.status, found["live"], found["ready"]) == (503, True, False)
    return str(found["reason"])


async def test_health_says_who_is_there(tmp_path: Path) -> None:
    """Ready, the version, and each server's state: up, down, or idle where nobody wanted it."""
    estate = Estate(
        tmp_path / "estate", Server("one"), Server("gone", settings={"command": ["/no/such/program"]})
    )
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client = estate.client(MODERN, key)
        await client.call("one__echo")
        assert reason(await client.call("gone__echo")) == "upstream-unavailable"
        answer = await client.send("GET", path="/health")
    assert answer.status == 200
    found = answer.json()
    assert found.keys() == {"live", "ready", "version", "servers"}
    assert (found["live"], found["ready"]) == (True, True)
    assert found["servers"] == {"one": {"state": "up", "links": 1}, "gone": {"state": "down", "links": 0}}


async def test_a_log_that_failed_is_not_ready(tmp_path: Path) -> None:
    """Nothing can be recorded, so nothing is permitted, and calls say the same."""
    estate = Estate(tmp_path / "estate")
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        serving.log._fail(OSError("no space left on device"))
        answer = await client.send("GET", path="/health")
        assert await unready(client) == "store-unavailable"
        assert b"space" not in answer.body
        assert reason(await client.call("echo")) == "store-unavailable"
    assert estate.received() == []


async def test_an_artifact_key_past_its_time_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be signed, and calls say the same."""
    estate = Estate(tmp_path / "estate")
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        assert (await client.send("GET", path="/health")).status == 200
        monkeypatch.setattr(type(serving.house.issuer), "usable", lambda self, now: False)
        assert await unready(client) == "artifact-key-unavailable"
        assert reason(await client.call("echo")) == "artifact-key-unavailable"


@pytest.mark.parametrize(
    "mode",
    [
        {"expires": "2030-01-01T00:00:00Z"},
        {"mode": "observe", "observe_until": "2030-01-01T00:00:00Z"},
    ],
)
async def test_a_policy_past_its_time_is_not_ready(tmp_path: Path, mode: dict[str, str]) -> None:
    """From the very millisecond on."""
    estate = Estate(tmp_path / "estate")
    estate.write_policy(**mode)
    async with estate.guarded() as serving:
        client = estate.client(MODERN)
        policy = serving.house.generation.policy
        end = policy.observe_until if "observe_until" in mode else policy.expires
        assert end is not None
        serving.house.clock = lambda: end - 1
        assert documents.not_ready(serving.house) is None
        serving.house.clock = lambda: end
        assert await unready(client) == "policy-expired"


async def test_a_policy_that_another_guard_superseded_is_not_ready(tmp_path: Path) -> None:
    """Two that share a home: the one with the older policy permits nothing, and says so."""
    estate = Estate(tmp_path / "estate")
    estate.pin()
    key = estate.key()
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        with estate.store() as store:
            assert tenants(store) == ["default"]
            record(store, Kind.POLICY, {"id": "scene"}, SavePolicy("scene", 2, "x" * 43))
        assert await unready(client) == "policy-superseded"
        assert reason(await client.call("echo")) == "policy-superseded"
        estate.write_policy(version=3)
        assert await serving.reload()
        assert (await client.send("GET", path="/health")).status == 200


async def test_no_secret_is_shown_to_anyone(tmp_path: Path) -> None:
    """No key, caller, command, environment, header or argument, whether all is well or nothing is."""
    one = Server("one", settings={"env": {"TOKEN": SECRET}})
    far = Server("far", over="http", settings={"headers": {"X-Key": SECRET}})
    estate = Estate(tmp_path / "estate", one, far, Server("gone", settings={"command": ["/no/such", SECRET]}))
    estate.pin()
    key = estate.key(WHO)
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        for name in ("one__echo", "far__echo", "gone__echo", "one__nonsense"):
            await client.call(name, text=SECRET)
        await client.request("tools/list", headers={"Authorization": f"Bearer {key[:-1]}_"})
        bodies = [(await client.send("GET", path=path)).body for path in PATHS]
        serving.log._fail(OSError(f"{SECRET} {estate.home}"))
        bodies += [(await client.send("GET", path=path)).body for path in PATHS]
    private = json.loads((estate.home / "keys" / "artifact.json").read_text())
    secrets = [
        SECRET,
        WHO,
        key,
        *key.split("_")[1:],
        "scripted",
        "/no/such",
        str(tmp_path),
        "nonsense",
        '"d"',
    ]
    secrets += [value for name, value in _strings(private) if name == "d"]
    assert len(secrets) > 9
    for body in bodies:
        assert [secret for secret in secrets if secret.encode() in body] == []
    assert estate.received("far")[0]["_headers"]["x-key"] == SECRET  # it was there to be shown


def _strings(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in _strings(item, key)]
    if isinstance(value, list):
        return [found for item in value for found in _strings(item, name)]
    return [(name, value)] if isinstance(value, str) else []


async def test_proof_shows_the_newest_checkpoint_and_what_checks_it(tmp_path: Path) -> None:
    """It verifies with the key that is shown, grows with each call, and is the store's."""
    estate = Estate(tmp_path / "estate")
    estate.pin()
    key = estate.key()
    sizes = []
    async with estate.guarded() as serving:
        client = estate.client(MODERN, key)
        for _ in range(2):
            await client.call("echo")
            await client.call("nonsense")
            found = await shown(client, "/proof")
            checkpoint = open_checkpoint(found["checkpoint"], [parse_vkey(found["vkey"])])
            sizes.append(checkpoint.size)
        policy = serving.house.generation.policy.ref
    home = open_home(estate.home)
    assert (found["issuer"], found["vkey"]) == (home.name, home.vkey)
    assert found["policy"] == {
        "id": "scene", "version": 1, "sha256": policy.sha256, "mode": "enforce",
    }  # fmt: skip
    assert sizes[1] > sizes[0]
    with estate.store() as store:
        kept = open_checkpoint(store.checkpoint() or "", [parse_vkey(home.vkey)])
    assert kept.size >= sizes[1]
    with pytest.raises(ForgedNote):
        open_checkpoint(
            found["checkpoint"].replace(f"\n{sizes[1]}\n", f"\n{sizes[1] + 1}\n"), [parse_vkey(home.vkey)]
        )


async def test_proof_is_the_stores_newest_checkpoint(tmp_path: Path) -> None:
    """While nothing is written, both are the same text."""
    estate = Estate(tmp_path / "estate")
    estate.pin()
    key = estate.key()
    async with estate.guarded(durability="strict") as serving:
        client = estate.client(MODERN, key)
        await client.call("echo")
        assert (await shown(client, "/proof"))["checkpoint"] == serving.store.checkpoint()


async def test_proof_counts_each_decision_once_by_its_reason(tmp_path: Path) -> None:
    """Permitted and denied calls, and refusals before anybody was identified; since the start.

    Which of the reasons it was that a tool is out of sight is told to nobody, here neither.
    """
    estate = Estate(tmp_path / "estate", Server("one"), Server("two"))
    estate.pin()
    key = estate.key()
    before = time.time_ns() // 1_000_000
    async with estate.guarded():
        client = estate.client(MODERN, key)
        for _ in range(3):
            await client.call("one__echo")
        await client.call("one__echo", n=13)
        await client.call("two__nonsense")
        await client.call("nowhere__echo")
        await client.post(b"{")
        for wrong in (None, "Bearer guard_x", "Basic x"):
            await client.request("tools/list", headers={"Authorization": wrong})
        await client.send("GET", headers={"Host": "evil.example"})
        await client.send("GET", headers={"Origin": "https://evil.example"}, path="/health")
        found = await shown(client, "/proof")
    assert found["decisions"] == {"allow": 3, "protected": 1, "unknown-tool": 2}  # as callers are told
    refused = {"malformed": 1, "host": 1, "origin": 1}
    assert refused.items() <= found["refusals"].items()
    assert sum(found["refusals"].values()) == 6
    assert before <= found["since"] <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("version", [MODERN, LEGACY])
async def test_the_key_set_verifies_an_artifact_that_a_server_received(tmp_path: Path, version: str) -> None:
    """With a library of somebody else's, and nothing but what is shown to everyone."""
    estate = Estate(
        tmp_path / "estate", Server("one"), Server("far", over="http", settings={"audience": "urn:far"})
    )
    estate.pin()
    key = estate.key(WHO)
    async with estate.guarded():
        client = estate.client(version, key)
        if version == LEGACY:
            await client.greet()
        for name in ("one__echo", "far__echo"):
            await client.call(name, text="hi")
        jwks = await shown(client, "/.well-known/jwks.json")
        proof = await shown(client, "/proof")
    assert proof["jwks"] == jwks
    for server, audience in (("one", "one"), ("far", "urn:far")):
        (message,) = estate.received(server)
        token = message["params"]["_meta"][ARTIFACT_META]
        keys = jwt.PyJWKSet.from_dict(jwks)
        signing = keys[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(token, signing, algorithms=["EdDSA"], audience=audience, issuer=proof["issuer"])
        assert claims["aud"] == audience
        with pytest.raises(jwt.InvalidTokenError):
            jwt.decode(token, signing, algorithms=["EdDSA"], audience="other", issuer=proof["issuer"])


@pytest.mark.parametrize("path", PATHS)
async def test_each_document_is_read_without_a_key_and_with_get_or_head_only(
    tmp_path: Path, path: str
) -> None:
    """HEAD is GET without the body; everything else is 405 and says what is allowed."""
    estate = Estate(tmp_path / "estate")
    async with estate.guarded():
        client = estate.client(MODERN)
        before = await client.send("GET", path=path)
        head = await client.send("HEAD", path=path)
        got = await client.send("GET", path=path)  # meanwhile a server may have come up, which /health tells
        assert (got.status, head.status) == (200, 200)
        assert head.body == b""
        assert head.headers["content-length"] in {str(len(before.body)), str(len(got.body))}
        assert got.headers["content-length"] == str(len(got.body))
        assert got.headers["x-content-type-options"] == "nosniff"
        for verb in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            answer = await client.send(verb, path=path)
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", PATHS)
async def test_no_document_is_shown_to_a_page_under_another_name(tmp_path: Path, path: str) -> None:
    """A page in a browser must not read a local Guard by rebinding a name of its own."""
    estate = Estate(tmp_path / "estate")
    async with estate.guarded():
        client = estate.client(MODERN)
        for headers, status in (
            ({"Host": "evil.example"}, 421),
            ({"Host": f"evil.example:{client.port}"}, 421),
            ({"Origin": "https://evil.example"}, 403),
            ({"Host": "localhost"}, 200),
        ):
            answer = await client.send("GET", path=path, headers=headers)
            assert answer.status == status
            assert status == 200 or b"jwks" not in answer.body

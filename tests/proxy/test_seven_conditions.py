"""The seven conditions of failing closed, each over real pipes, a real store and a real server.

Each ends in no artifact or none dispatched; where integrity is hurt, in a contained conversation.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from guard.artifact.grant import Grant, Issuer
from guard.cli.main import main
from guard.config.home import record
from guard.config.run import Guarded
from guard.core.canonical import b64, unb64
from guard.core.errors import GuardError, Refused
from guard.core.keys import SigningKey
from guard.lineage.entry import Kind
from guard.lineage.store import RevokeKey, SavePolicy
from guard.proxy.wire import NOT_AUTHENTICATED
from tests.proxy.scene import SERVER, Client, Scene, decision, reason, tool

Wrap = Callable[[Guarded], None]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    found = Scene(tmp_path / "scene")
    found.pin()
    return found


def guard(scene: Scene, *words: str) -> Any:
    """A command of the CLI; what it prints as JSON."""
    done = CliRunner().invoke(main, [*words, "--home", str(scene.home), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def nothing_happened(scene: Scene) -> None:
    """No artifact, no dispatch: neither the server nor the lineage knows of any."""
    assert scene.received() == []
    assert scene.entries(Kind.GRANTED) == []
    assert scene.report().sound


@asynccontextmanager
async def contained_afterwards(scene: Scene, wrap: Wrap, *reasons: str) -> AsyncIterator[Client]:
    """One call that hurts integrity, then one that is refused for it; open again after `guard release`."""
    mended: list[Callable[[], None]] = []

    def wrapped(guarded: Guarded) -> None:
        before = dict(vars(guarded.gate))
        wrap(guarded)
        changed = [name for name in vars(guarded.gate) if name not in before]
        mended.append(lambda: [delattr(guarded.gate, name) for name in changed])  # type: ignore[arg-type,return-value]

    async with scene.guarded(wrap=wrapped) as client:
        about = decision(await client.call(text="first"))
        assert about["decision"] == "deny"
        assert about["reason"] in reasons
        assert about["retryable"] is False
        assert scene.received() == []
        mended[0]()
        assert reason(await client.call(text="second")) == "conversation-contained"
        assert scene.received() == []
        yield client
        with scene.store() as store:
            (row,) = store.contained("default")
        assert row["kind"] == "conversation"
        guard(scene, "release", row["target"])
        assert "isError" not in (await client.call(text="third"))["result"]
    assert [message["params"]["arguments"] for message in scene.received()] == [{"text": "third"}]
    assert [*scene.settled().values()] == [["granted", "failed"], ["denied"], ["granted", "returned"]]


# -- 1 -------------------------------------------------------------------------------------------


def a_key(scene: Scene, **changes: str) -> tuple[str, str]:
    options = {"--principal": "someone", "--role": "caller"} | changes
    made = guard(scene, "key", "new", *(word for pair in options.items() for word in pair))
    return made["key"], made["key_id"]


def ends_now(scene: Scene, key_id: str) -> None:
    with closing(sqlite3.connect(scene.home / "guard.db")) as db, db:
        db.execute("UPDATE api_keys SET expires = 1 WHERE key_id = ?", (key_id,))


async def test_invalid_api_key(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is none, unknown, altered, expired or revoked: Guard does not start, and starts nothing."""
    text = a_key(scene)[0]
    unknown = a_key(Scene(scene.folder / "other"))[0]
    revoked, revoked_id = a_key(scene)
    with scene.store() as store:
        record(store, Kind.REVOKED, {"key_id": revoked_id}, RevokeKey(revoked_id))
    expired, expired_id = a_key(scene)
    ends_now(scene, expired_id)
    altered = text[:-1] + ("a" if text[-1] != "a" else "b")
    bad = ["", " ", "Bearer x", text[:-1], text + "\n", text.upper(), altered, unknown, revoked, expired]
    for key in bad:
        monkeypatch.setenv("GUARD_API_KEY", key)
        with pytest.raises(Refused) as refused:
            async with scene.guarded(role=None):
                pytest.fail("served with a bad key")
        assert str(refused.value.reason) in {"no-credential", "invalid-key", "revoked-key", "expired-key"}
        assert text[22:] not in str(refused.value)
    assert scene.log.read_bytes() == b""
    nothing_happened(scene)


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_invalid_api_key_from_the_next_call_on(
    scene: Scene, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that ends while a connection lives is refused at the next call, with no entry in its name."""
    text, key_id = a_key(scene)
    monkeypatch.setenv("GUARD_API_KEY", text)
    async with scene.guarded(role=None) as client:
        assert "isError" not in (await client.call(text="while valid"))["result"]
        if how == "revoked":
            guard(scene, "key", "revoke", key_id)
        else:
            ends_now(scene, key_id)
        for method in ("tools/call", "tools/list"):
            params = {"name": "echo"} if method == "tools/call" else {}
            error = (await client.ask(method, params))["error"]
            assert error["code"] == NOT_AUTHENTICATED
            assert error["data"] == {"reason": f"{how}-key"}
    assert len(scene.received()) == 1
    assert [*scene.settled().values()] == [["granted", "returned"]]


async def test_invalid_api_key_that_was_revoked_while_the_tools_were_listed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key ends after the caller was identified and before the facts were read: nothing is sent."""
    text, key_id = a_key(scene)
    monkeypatch.setenv("GUARD_API_KEY", text)
    caught: list[Guarded] = []
    async with scene.guarded(role=None, wrap=caught.append) as client:
        assert "isError" not in (await client.call(text="while valid"))["result"]
        (link,) = caught[0].server._links.values()
        catalog = link.catalog
        listing = catalog._list_tools

        async def slow() -> list[dict[str, Any]]:
            with scene.store() as store:
                record(store, Kind.REVOKED, {"key_id": key_id}, RevokeKey(key_id))
            return await listing()

        catalog._list_tools = slow
        catalog.forget()
        assert reason(await client.call(text="after the revocation")) == "revoked-key"
    assert len(scene.received()) == 1


# -- 2 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["stranger", "Caller", "caller ", "", "*"])
async def test_unauthorized_role(scene: Scene, role: str) -> None:
    """A role that the policy does not name sees no tool and calls none."""
    async with scene.guarded(role=role) as client:
        assert (await client.ask("tools/list"))["result"]["tools"] == []
        assert reason(await client.call(text="x")) == "unauthorized-role"
    nothing_happened(scene)
    assert [entry["fields"]["role"] for entry in scene.entries(Kind.DENIED)] == [role]


async def test_unauthorized_role_of_a_key(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key's role comes from its record: nothing in a message gives it another."""
    monkeypatch.setenv("GUARD_API_KEY", a_key(scene, **{"--role": "stranger"})[0])
    async with scene.guarded(role=None) as client:
        params = {
            "name": "echo",
            "arguments": {},
            "_meta": {"role": "powerful", "dev.guard-mcp/role": "caller"},
        }
        assert reason(await client.ask("tools/call", params)) == "unauthorized-role"
    nothing_happened(scene)


# -- 3 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "told", "recorded"),
    [
        ("echo", {"n": 13}, "protected", "protected"),
        ("echo", {"text": "x" * 100_001}, "intent-unmatched", "intent-unmatched"),
        ("hidden", {}, "unknown-tool", "tool-not-visible"),
        ("unlisted", {}, "unknown-tool", "default-deny"),
        ("no such tool", {}, "unknown-tool", "default-deny"),
    ],
)
async def test_policy_violation(
    scene: Scene, name: str, arguments: dict[str, Any], told: str, recorded: str
) -> None:
    """What the policy does not permit is denied, recorded under its real reason, and goes nowhere."""
    async with scene.guarded() as client:
        assert reason(await client.call(name, **arguments)) == told
    nothing_happened(scene)
    (entry,) = scene.entries(Kind.DENIED)
    assert entry["fields"]["decision"]["reason"] == recorded
    assert scene.contained() == []


async def test_policy_violation_for_a_missing_scope(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that is visible but needs a further scope says so."""
    rules = [*scene.policy["tools"], {"match": "echo", "scopes": ["more"], "id": "echo-more"}]
    scene.write_policy(tools=rules)
    async with scene.guarded() as client:
        about = decision(await client.call(text="x"))
        assert (about["reason"], about["rule"]) == ("missing-scope", "echo-more")
    nothing_happened(scene)


# -- 4 -------------------------------------------------------------------------------------------


def clock_at(seconds: float) -> Wrap:
    """Guard's clock, so much off."""

    def wrap(guarded: Guarded) -> None:
        guarded.gate._clock = lambda: int((time.time() + seconds) * 1000)

    return wrap


def read_only_store(guarded: Guarded) -> None:
    guarded.store._db.execute("PRAGMA query_only = ON")


def newer_policy(guarded: Guarded) -> None:
    """Another process adopts the next version of the policy."""
    with_other = guarded.home.store()
    record(with_other, Kind.POLICY, {"id": "scene", "version": 2}, SavePolicy("scene", 2, "another digest"))
    with_other.close()


def unpinned(scene: Scene) -> None:
    scene.show([*scene.tools, tool("echo2")])
    scene.pin([each for each in scene.tools if each["name"] != "echo"])


def changed(scene: Scene) -> None:
    scene.show([tool("echo", annotations={"readOnlyHint": True}), *scene.tools[1:]])


def twice(scene: Scene) -> None:
    scene.show([scene.tools[0], *scene.tools])


def gone(scene: Scene) -> None:
    scene.show(scene.tools[1:])


def expired_key(scene: Scene) -> None:
    path = scene.home / "keys" / "artifact.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"exp": int(time.time()) - 5}))


def expired_policy(scene: Scene) -> None:
    scene.write_policy(expires="2020-01-01T00:00:00Z")


def observed_long_enough(scene: Scene) -> None:
    scene.write_policy(mode="observe", observe_until="2020-01-01T00:00:00Z")


def contained(*words: str) -> Callable[[Scene], None]:
    return lambda scene: guard(scene, "contain", *words)


CONDITIONS: dict[str, tuple[Callable[[Scene], None] | None, Wrap | None, str]] = {
    "unpinned tool": (unpinned, None, "tool-unpinned"),
    "changed tool": (changed, None, "tool-changed"),
    "tool listed twice": (twice, None, "tool-changed"),
    "tool gone": (gone, None, "unknown-tool"),
    "artifact key expired": (expired_key, None, "artifact-key-unavailable"),
    "store not writable": (None, read_only_store, "store-unavailable"),
    "clock behind": (None, clock_at(-60), "clock-behind"),
    "policy expired": (expired_policy, None, "policy-expired"),
    "observation ended": (observed_long_enough, None, "policy-expired"),
    "superseded policy": (None, newer_policy, "policy-superseded"),
    "principal contained": (
        contained("--principal", "someone", "--issuer", "launch"),
        None,
        "principal-contained",
    ),
    "tool contained": (contained("--tool", "echo", "--server", SERVER), None, "tool-contained"),
    "everything contained": (contained("--all"), None, "principal-contained"),
}


@pytest.mark.parametrize("condition", CONDITIONS)
async def test_invalid_runtime_conditions(scene: Scene, condition: str) -> None:
    """Whatever of the world is not sound, the call is denied for just that, and nothing is issued."""
    prepare, wrap, expected = CONDITIONS[condition]
    if prepare is not None:
        prepare(scene)
    async with scene.guarded(wrap=wrap or (lambda _: None)) as client:
        answer = await client.call(text="x")
        assert reason(answer) == expected
        if expected in {"tool-unpinned", "tool-changed"}:
            assert "guard pin --server server" in answer["result"]["content"][0]["text"]
            names = [each["name"] for each in (await client.ask("tools/list"))["result"]["tools"]]
            assert ("echo" in names) == (expected == "tool-changed")
    nothing_happened(scene)
    assert len(scene.entries(Kind.DENIED)) == (condition != "store not writable")


async def test_invalid_runtime_conditions_conversation_contained(scene: Scene) -> None:
    """A contained conversation is refused, also under the next id, until `guard release`."""
    async with scene.guarded() as client:
        assert "isError" not in (await client.call(text="x"))["result"]
    (row,) = [row for row in guard(scene, "lineage", "list") if row["source"] != "house"]
    guard(scene, "contain", row["id"])
    for conversation in ("talk", "another id sheds nothing"):
        async with scene.guarded(conversation=conversation) as client:
            assert reason(await client.call(text="y")) == "conversation-contained"
    guard(scene, "release", row["id"])
    async with scene.guarded() as client:
        assert "isError" not in (await client.call(text="z"))["result"]
    assert [message["params"]["arguments"]["text"] for message in scene.received()] == ["x", "z"]


async def test_invalid_runtime_conditions_tool_changed_while_running(scene: Scene) -> None:
    """A server that lists another definition later, and says so, is not called with it."""
    scene.answers = None
    async with scene.guarded() as client:
        assert "isError" not in (await client.call(text="x"))["result"]
        changed(scene)
        assert "result" in await client.ask("tools/list")
        assert reason(await client.call(text="y")) == "tool-changed"
        scene.show(scene.tools)
        await client.ask("tools/list")
        assert "isError" not in (await client.call(text="z"))["result"]
    assert [message["params"]["arguments"]["text"] for message in scene.received()] == ["x", "z"]


@pytest.mark.parametrize("name", ["artifact.json", "checkpoint.json", "pairwise.json"])
@pytest.mark.parametrize("fault", ["readable by others", "not a key", "empty"])
async def test_invalid_runtime_conditions_key_file(scene: Scene, name: str, fault: str) -> None:
    """A key file that others can read, or that holds no key: nothing starts."""
    path = scene.home / "keys" / name
    if fault == "readable by others":
        path.chmod(0o644)
    else:
        path.write_text("{}" if fault == "not a key" else "")
    with pytest.raises(GuardError):
        async with scene.guarded():
            pytest.fail("served")
    assert scene.log.read_bytes() == b""


async def test_invalid_runtime_conditions_key_expires_while_running(scene: Scene) -> None:
    """An artifact never outlives its key, and a key that ended signs nothing."""
    path = scene.home / "keys" / "artifact.json"
    end = int(time.time()) + 100
    path.write_text(json.dumps(json.loads(path.read_text()) | {"exp": end}))
    guarded: list[Guarded] = []
    async with scene.guarded(wrap=guarded.append) as client:
        guarded[0].gate._clock = lambda: (end - 20) * 1000
        assert "isError" not in (await client.call(text="x"))["result"]
        guarded[0].gate._clock = lambda: end * 1000
        assert reason(await client.call(text="y")) == "artifact-key-unavailable"
    (grant,) = scene.entries(Kind.GRANTED)
    assert grant["fields"]["artifact"]["exp"] == end
    assert len(scene.received()) == 1


async def test_invalid_runtime_conditions_policy_that_is_older(scene: Scene) -> None:
    """The version only grows: an old policy, or other bytes under the same version, does not start."""
    scene.write_policy(version=2)
    async with scene.guarded():
        pass
    for members in ({"version": 1}, {"version": 2, "protected": []}):
        scene.write_policy(**members)
        with pytest.raises(GuardError):
            async with scene.guarded():
                pytest.fail("served under an old policy")
    scene.write_policy(version=3)
    async with scene.guarded() as client:
        assert "isError" not in (await client.call(text="x"))["result"]


# -- 5 -------------------------------------------------------------------------------------------


def arguments_altered(guarded: Guarded) -> None:
    """The arguments are changed after the grant was recorded."""
    gate, real = guarded.gate, guarded.gate.record

    async def altered(call: Any, allow: Any, grant: Grant) -> bool:
        done = await real(call, allow, grant)
        call.params["arguments"]["text"] = "altered"
        return done

    gate.record = altered  # type: ignore[method-assign]


def another_tool(guarded: Guarded) -> None:
    """The grant is presented for another tool."""
    gate, real = guarded.gate, guarded.gate.verify
    gate.verify = lambda grant, call: real(  # type: ignore[method-assign]
        grant, replace(call, params={**call.params, "name": "slow"})
    )


def another_definition(guarded: Guarded) -> None:
    """The tool's definition is another one than the grant was made for."""
    gate, real = guarded.gate, guarded.gate.verify
    gate.verify = lambda grant, call: real(  # type: ignore[method-assign]
        grant, replace(call, tool=replace(call.tool, sha256="A" * 43))
    )


@pytest.mark.parametrize("attack", [arguments_altered, another_tool, another_definition])
async def test_integrity_verification_failure(scene: Scene, attack: Wrap) -> None:
    """What is about to be sent is not what was granted: nothing is sent, the conversation is contained."""
    async with contained_afterwards(scene, attack, "integrity"):
        pass


# -- 6 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [None, True, b"", object()])
async def test_missing_artifact(scene: Scene, nothing: Any) -> None:
    """A grant whose artifact did not come through verification: nothing is sent, and it is contained."""

    def wrap(guarded: Guarded) -> None:
        guarded.gate.verify = lambda grant, call: nothing  # type: ignore[method-assign]

    async with contained_afterwards(scene, wrap, "artifact-missing"):
        pass


@pytest.mark.parametrize("nothing", [None, True, b""])
async def test_missing_artifact_that_was_never_issued(scene: Scene, nothing: Any) -> None:
    """Without an artifact there is nothing to record, and so nothing is sent."""

    def wrap(guarded: Guarded) -> None:
        guarded.gate.issue = lambda call, allow: nothing  # type: ignore[method-assign]

    async with scene.guarded(wrap=wrap) as client:
        assert decision(await client.call(text="x"))["decision"] == "deny"
    nothing_happened(scene)


# -- 7 -------------------------------------------------------------------------------------------


def token(change: Callable[[bytes], bytes]) -> Wrap:
    """Between the record and the check, the artifact's bytes are changed."""

    def wrap(guarded: Guarded) -> None:
        gate, real = guarded.gate, guarded.gate.verify
        gate.verify = lambda grant, call: real(  # type: ignore[method-assign]
            replace(grant, token=change(grant.token)), call
        )

    return wrap


def flipped(data: bytes) -> bytes:
    head, claims, signature = data.split(b".")
    raw = bytearray(unb64(signature.decode()))
    raw[0] ^= 1
    return b".".join((head, claims, b64(bytes(raw)).encode()))


def claims_changed(data: bytes) -> bytes:
    head, claims, signature = data.split(b".")
    value = json.loads(unb64(claims.decode())) | {"scope": "use more"}
    return b".".join((head, b64(json.dumps(value).encode()).encode(), signature))


def header(**members: Any) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        head, claims, signature = data.split(b".")
        value = json.loads(unb64(head.decode())) | members
        return b".".join((b64(json.dumps(value).encode()).encode(), claims, signature))

    return change


def another_signer(guarded: Guarded) -> None:
    """Signed by a key that is not Guard's, under Guard's name."""
    stranger = Issuer(name=guarded.home.name, key=SigningKey.load(os.urandom(32)), pairwise_secret=bytes(32))
    own = guarded.gate._issuer

    def issue(call: Any, allow: Any) -> Grant:
        guarded.gate._issuer = stranger
        try:
            return type(guarded.gate).issue(guarded.gate, call, allow)
        finally:
            guarded.gate._issuer = own

    guarded.gate.issue = issue  # type: ignore[method-assign]


def used_before(guarded: Guarded) -> None:
    """The same artifact a second time."""
    gate, real = guarded.gate, guarded.gate.verify

    def twice(grant: Grant, call: Any) -> Any:
        real(grant, call)
        return real(grant, call)

    gate.verify = twice  # type: ignore[method-assign]


def too_late(guarded: Guarded) -> None:
    """The check happens after the artifact's end."""
    gate, real = guarded.gate, guarded.gate.verify
    now = gate._clock

    def later(grant: Grant, call: Any) -> Any:
        gate._clock = lambda: now() + 90_000
        try:
            return real(grant, call)
        finally:
            gate._clock = now

    gate.verify = later  # type: ignore[method-assign]


ATTACKS: dict[str, Wrap] = {
    "a bit of the signature": token(flipped),
    "a claim": token(claims_changed),
    "alg none": token(header(alg="none")),
    "another typ": token(header(typ="JWT")),
    "another kid": token(header(kid="A" * 43)),
    "a key inside": token(header(jwk={})),
    "cut off": token(lambda data: data[:-10]),
    "no signature": token(lambda data: data.rpartition(b".")[0] + b"."),
    "garbage": token(lambda data: b"\xff" * 100),
    "another signer": another_signer,
    "used before": used_before,
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_cryptographic_verification_failure(scene: Scene, attack: str) -> None:
    """An artifact that does not verify with public keys alone: nothing is sent, and it is contained."""
    async with contained_afterwards(scene, ATTACKS[attack], "artifact-invalid"):
        pass


async def test_an_artifact_that_came_too_late_contains_nothing(scene: Scene) -> None:
    """A clock that jumps between signing and checking: nothing is sent, and nobody is put out of use."""
    async with scene.guarded(wrap=too_late) as client:
        assert reason(await client.call(text="late")) == "artifact-invalid"
        assert scene.received() == []
        assert scene.contained() == []
    assert [*scene.settled().values()] == [["granted", "failed"]]

"""Signed policies: what was not signed by a trusted key loads neither at the start nor at a reload."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from guard.cli.main import main
from guard.config.home import signing_key
from guard.config.policies import Policies
from guard.core.canonical import b64, write
from guard.core.errors import GuardError
from guard.core.keys import KeySet, SigningKey
from guard.policy.signing import sign
from tests.proxy.features import BYS, Estates, servers
from tests.proxy.scene import MODERN, Scene
from tests.proxy.test_spent import said

KEY: Final = SigningKey.load(b"k" * 32)
OTHER: Final = SigningKey.load(b"o" * 32)
GOOD: Final = {"name": "echo", "arguments": {"n": 1}}
NEVER: Final = {"id": "never", "tools": ["echo"]}


class Signed(Estates):
    """An estate whose policies must be signed, with one that is."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, *servers(MODERN, "stdio"), policy_keys="keys.json", require_signed=True)
        self.trust(KEY)
        self.put()

    @property
    def path(self) -> Path:
        return self.folder / "policy.json"

    def trust(self, *keys: SigningKey) -> None:
        jwks = KeySet([key.public for key in keys]).jwks()
        (self.folder / "keys.json").write_text(json.dumps(jwks))

    def put(self, by: SigningKey = KEY, **members: Any) -> None:
        """Write a policy and its signature."""
        self.write_policy(**members)
        self.beside(sign(self.path.read_bytes(), by))

    def beside(self, signature: bytes | None) -> None:
        path = self.path.with_name("policy.json.jws")
        path.unlink(missing_ok=True)
        if signature is not None:
            path.write_bytes(signature)

    def load(self) -> None:
        Policies((self.path,), self.folder / "keys.json", require_signed=True).load()


def one_byte(found: Signed) -> None:
    found.path.write_bytes(found.path.read_bytes() + b"\n")


def another_key(found: Signed) -> None:
    found.put(OTHER)


def another_key_under_a_trusted_name(found: Signed) -> None:
    data = found.path.read_bytes()
    head = sign(data, KEY).partition(b"..")[0]
    tag = OTHER.sign(head + b"." + b64(data).encode())
    found.beside(head + b".." + b64(tag).encode())


def no_signature(found: Signed) -> None:
    found.beside(None)


def an_empty_signature(found: Signed) -> None:
    found.beside(b"")


def a_folder(found: Signed) -> None:
    found.beside(None)
    found.path.with_name("policy.json.jws").mkdir()


def of_another_file(found: Signed) -> None:
    found.beside(sign(write({**found.policy, "id": "another"}), KEY))


def the_older_signature(found: Signed) -> None:
    found.beside(sign(write({**found.policy, "version": found.policy["version"] - 1}), KEY))


def keys_that_are_none(found: Signed) -> None:
    (found.folder / "keys.json").write_text("{}")


def keys_that_ended(found: Signed) -> None:
    ended = {**KEY.public.jwk(), "exp": int(time.time()) - 1}
    (found.folder / "keys.json").write_text(json.dumps({"keys": [ended]}))


def no_keys(found: Signed) -> None:
    found.trust()


ATTACKS: Final[list[Callable[[Signed], None]]] = [
    one_byte,
    another_key,
    another_key_under_a_trusted_name,
    no_signature,
    an_empty_signature,
    a_folder,
    of_another_file,
    the_older_signature,
    keys_that_are_none,
    keys_that_ended,
    no_keys,
]
EACH: Final = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)


@EACH
def test_a_policy_that_is_not_signed_so_does_not_load(
    tmp_path: Path, attack: Callable[[Signed], None]
) -> None:
    """At the start: no decision is ever made by it."""
    found = Signed(tmp_path / "e")
    found.put(version=2)
    found.load()
    attack(found)
    with pytest.raises(GuardError):
        found.load()


async def test_guard_does_not_start_with_it(tmp_path: Path) -> None:
    """The configuration that asks for signatures is obeyed by what serves."""
    found = Signed(tmp_path / "e")
    no_signature(found)
    with pytest.raises(GuardError, match="is not signed"):
        async with found.guarded():
            pass
    found.put()
    async with found.speaking(MODERN, "http") as party:
        assert said(await party.ask("tools/call", GOOD)) == "allow"


@EACH
async def test_at_a_reload_the_old_one_holds(
    tmp_path: Path, attack: Callable[[Signed], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The next version was tampered with: it decides nothing, and once it is right it does."""
    found = Signed(tmp_path / "e")
    async with found.speaking(MODERN, "stdio") as party:
        assert found.serving is not None
        found.put(version=2, protected=[NEVER])
        attack(found)
        assert not await found.serving.reload()
        assert "the old configuration holds" in capsys.readouterr().err
        assert found.serving.house.generation.policy.ref.version == 1
        assert said(await party.ask("tools/call", GOOD)) == "allow"
        beside = found.path.with_name("policy.json.jws")
        if beside.is_dir():
            beside.rmdir()
        found.trust(KEY)
        found.put(version=2)
        assert await found.serving.reload()
        assert said(await party.ask("tools/call", GOOD)) == "protected"


@BYS
async def test_an_older_policy_with_a_good_signature_is_not_loaded(tmp_path: Path, by: str) -> None:
    """Who kept an old file and its signature cannot bring it back: at a reload, nor at the next start."""
    found = Signed(tmp_path / "e")
    old = found.path.read_bytes(), sign(found.path.read_bytes(), KEY)
    async with found.speaking(MODERN, by) as party:
        assert found.serving is not None
        found.put(version=2, protected=[NEVER])
        assert await found.serving.reload()
        found.path.write_bytes(old[0])
        found.beside(old[1])
        found.load()  # well signed it is
        assert not await found.serving.reload()
        assert said(await party.ask("tools/call", GOOD)) == "protected"
    with pytest.raises(GuardError, match="version 1 is older"):
        async with found.guarded():
            pass


async def test_a_rotated_key_ends_what_it_signed(tmp_path: Path) -> None:
    """First both keys are trusted, then only the new one: what the old one signed loads no more."""
    found = Signed(tmp_path / "e")
    async with found.speaking(MODERN, "stdio"):
        assert found.serving is not None
        found.trust(KEY, OTHER)
        assert await found.serving.reload()
        found.put(OTHER, version=2)
        assert await found.serving.reload()
        found.trust(OTHER)
        assert await found.serving.reload()
        found.put(KEY, version=3)
        assert not await found.serving.reload()
        found.put(OTHER, version=3)
        assert await found.serving.reload()


async def test_guard_run_asks_for_signatures_too(tmp_path: Path) -> None:
    """`guard run` as `guard serve`: at its start and at its reload."""
    scene = Scene(tmp_path / "s")
    scene.pin()
    path, keys = scene.folder / "policy.json", scene.folder / "keys.json"
    keys.write_text(json.dumps(KeySet([KEY.public]).jwks()))
    policies = Policies((path,), keys, require_signed=True)
    with pytest.raises(GuardError, match="is not signed"):
        async with scene.guarded(policies=policies):
            pass
    beside = path.with_name("policy.json.jws")
    beside.write_bytes(sign(path.read_bytes(), KEY))
    guards = list[Any]()
    async with scene.guarded(policies=policies, wrap=guards.append) as client:
        assert "isError" not in (await client.call(text="a"))["result"]
        scene.write_policy(version=2, protected=[NEVER])
        assert not await guards[0].reload()
        assert "isError" not in (await client.call(text="a"))["result"]
        beside.write_bytes(sign(path.read_bytes(), KEY))
        assert await guards[0].reload()
        assert (await client.call(text="a"))["result"]["isError"]


# -- what an author does ---------------------------------------------------------------------------


def guard(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["policy", *map(str, words)])


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text("guard: 1\nid: p\nversion: 1\nroles: {r: {scopes: []}}\ntools: []\n")
    return path


def test_keygen_sign_and_verify(tmp_path: Path, policy: Path) -> None:
    """What one command makes the next one takes; a changed file is a plain no."""
    key, keys = tmp_path / "policy.key", tmp_path / "keys.json"
    keys.write_text(guard("keygen", key).stdout)
    assert guard("keygen", key).stdout == keys.read_text(), "a key that is there is not made anew"
    assert (key.stat().st_mode & 0o777) == 0o600
    assert '"d"' not in keys.read_text()
    assert guard("verify", policy, "--keys", keys).exit_code == 1
    assert guard("sign", policy, "--key", key).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "keys.json", "policy.key", "policy.yaml", "policy.yaml.jws",
    ]  # fmt: skip
    assert guard("verify", policy, "--keys", keys).exit_code == 0
    assert signing_key(key).public.kid in guard("sign", policy, "--key", key, "--json").stdout
    with policy.open("a") as file:
        file.write("# x\n")
    done = guard("verify", policy, "--keys", keys, "--json")
    assert (done.exit_code, json.loads(done.stdout)["signed"]) == (1, False)


def test_a_key_that_is_not_there_is_not_made_by_signing(tmp_path: Path, policy: Path) -> None:
    """A mistyped name would else sign with a key that nobody trusts, and leave it lying about."""
    done = guard("sign", policy, "--key", tmp_path / "polciy.key")
    assert done.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["policy.yaml"]


def test_what_is_no_policy_is_not_signed(tmp_path: Path, policy: Path) -> None:
    """Nor one whose cases fail; what stood beside it before stays."""
    key = tmp_path / "policy.key"
    guard("keygen", key)
    guard("sign", policy, "--key", key)
    before = policy.with_name("policy.yaml.jws").read_bytes()
    case = "cases: [{name: c, role: r, tool: t, expect: allow}]\n"
    (tmp_path / "policy.cases.yaml").write_text(case)
    assert guard("sign", policy, "--key", key).exit_code == 2
    (tmp_path / "policy.cases.yaml").unlink()
    policy.write_text("guard: 2\n")
    assert guard("sign", policy, "--key", key).exit_code == 2
    assert policy.with_name("policy.yaml.jws").read_bytes() == before


def test_what_is_read_is_what_was_signed(tmp_path: Path, policy: Path) -> None:
    """The file is read once: whoever swaps it between check and use swaps nothing."""
    keys, fifo = tmp_path / "keys.json", tmp_path / "late.yaml"
    keys.write_text(json.dumps(KeySet([KEY.public]).jwks()))
    data = policy.read_bytes()
    os.mkfifo(fifo)  # which gives its bytes once, and no second time
    fifo.with_name("late.yaml.jws").write_bytes(sign(data, KEY))
    with subprocess.Popen(["/bin/sh", "-c", 'cat "$0" > "$1"', str(policy), str(fifo)]):
        loaded = Policies((fifo,), keys, require_signed=True).load()
    assert loaded.ref.id == "p"

"""On stdio: what a launch's key began ends with it. The pipe stays, and says that nobody is known."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from guard.config import home
from guard.config.home import record
from guard.config.launch import KEY_VARIABLE
from guard.config.run import Guarded
from guard.identity.api_keys import ISSUER
from guard.lineage.effects import principal_target
from guard.lineage.entry import Kind
from guard.lineage.store import Contain, RevokeKey, SaveKey
from tests.proxy.features import ERAS, until
from tests.proxy.scene import MODERN, Client, Scene
from tests.proxy.wards import Clock, about, minted

GUARD = Path(sys.executable).parent / "guard"
ECHO = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[{"type":"text","text":$ARGUMENTS}]}}'
HELD = [{"wait": "notifications/cancelled"}, ECHO]
"""What a server makes of a call: it answers once it was called off."""


def scene_with_key(folder: Path, version: str, *, ends: bool = False) -> tuple[Scene, str]:
    scene = Scene(folder, era="modern" if version == MODERN else "legacy", answers=[[ECHO], HELD, [ECHO]])
    scene.pin()
    text, made = minted("someone", ends=ends)
    with scene.store() as store:
        record(store, Kind.API_KEY, {"key_id": made.key_id}, SaveKey(made))
    return scene, text


def end(scene: Scene, how: str, text: str) -> None:
    with scene.store() as store:
        if how == "containment":
            target = principal_target(ISSUER, "someone")
            record(
                store, Kind.CONTAINED, {"kind": "principal", "target": target}, Contain("principal", target)
            )
        else:
            key_id = text.split("_")[1]
            record(store, Kind.REVOKED, {"key_id": key_id}, RevokeKey(key_id))


async def started(words: list[str], key: str) -> tuple[asyncio.subprocess.Process, Client]:
    """A `guard run` of its own, and its client."""
    env = {**os.environ, KEY_VARIABLE: key}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, env=env)
    assert process.stdin is not None
    assert process.stdout is not None
    return process, Client(process.stdout, process.stdin.transport, MODERN)  # type: ignore[arg-type]


REASONS = {"revocation": "revoked-key", "expiry": "expired-key", "containment": "principal-contained"}


@ERAS
@pytest.mark.parametrize("how", [*REASONS])
async def test_what_a_key_began_ends_with_it(
    tmp_path: Path, version: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`guard run`: the call, the subscription and the server's process; its late answer is told to nobody."""
    scene, text = scene_with_key(tmp_path / "scene", version, ends=how == "expiry")
    monkeypatch.setenv(KEY_VARIABLE, text)
    caught: list[Guarded] = []
    clock = Clock()
    monkeypatch.setattr(home, "time", clock)
    async with scene.guarded(version, role=None, wrap=caught.append) as client:
        assert "isError" not in (await client.call(text="first"))["result"]
        (link,) = caught[0].server.links
        process = link.upstream._process  # type: ignore[union-attr]
        listen = None
        if version == MODERN:
            wanted = {"notifications": {"toolsListChanged": True}}
            listen = client.request("subscriptions/listen", wanted)
            assert (await client.hear())["method"].endswith("acknowledged")
        call = client.request("tools/call", {"name": "echo", "arguments": {"text": "secret"}})
        await until(lambda: len(scene.received()) == 2)
        if how == "expiry":
            clock.run_out()
        else:
            end(scene, how, text)
        found = about(await client.answer(call))
        assert (found["reason"], found["outcome"]) == (REASONS[how], "unknown")
        if listen is not None:
            error = (await client.answer(listen))["error"]
            assert error["data"] == {"reason": REASONS[how]}
        await until(lambda: process.get_returncode() is not None)
        answer = await client.ask("tools/call", {"name": "echo", "arguments": {}})
        if how == "containment":
            assert about(answer)["reason"] == REASONS[how]
        else:
            assert (answer["error"]["code"], answer["error"]["data"]) == (4401, {"reason": REASONS[how]})
        assert b"secret" not in b"".join(client.raw)
    granted = [kinds for kinds in scene.settled().values() if kinds[0] == "granted"]
    assert sorted(granted) == [["granted", "returned"], ["granted", "unknown"]]


@pytest.mark.parametrize("how", ["key", "contain"])
async def test_two_processes_on_one_file(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Guard that runs by itself hears what the command line did to its file; another's client does not."""
    scene, text = scene_with_key(tmp_path / "scene", MODERN)
    other, beside = minted("honest")
    with scene.store() as store:
        record(store, Kind.API_KEY, {"key_id": beside.key_id}, SaveKey(beside))
    words = [str(GUARD), "run", "--home", str(scene.home), "--policy", str(scene.folder / "policy.json")]
    words += ["--server", "server", "--", *scene.command]
    guards = [await started(words, key) for key in (text, other)]
    try:
        calls = []
        for _, client in guards:
            assert "isError" not in (await client.call(text="first"))["result"]
            calls.append(client.request("tools/call", {"name": "echo", "arguments": {"text": "second"}}))
        await until(lambda: len(scene.received()) == 4)
        act = {"key": ["key", "revoke", text.split("_")[1]], "contain": ["contain", "--principal", "someone"]}
        done = await asyncio.to_thread(
            subprocess.run,
            [str(GUARD), *act[how], "--home", str(scene.home)],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        reason = {"key": "revoked-key", "contain": "principal-contained"}[how]
        assert about(await guards[0][1].answer(calls[0]))["reason"] == reason
        guards[1][1].say(
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": calls[1]}}
        )
        assert "isError" not in (await guards[1][1].call("fail"))["result"]
    finally:
        for process, client in guards:
            client.leave()
            await asyncio.wait_for(process.wait(), 20)
    kinds = [entry["kind"] for entry in scene.entries() if entry["call"]]
    assert kinds.count("granted") == kinds.count("returned") + kinds.count("unknown")
    scene.settled()

"""Client and server each in either era: all four pairs, and nothing that is not understood."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client as SdkClient
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent

from guard.lineage.entry import Kind
from guard.proxy import eras
from guard.proxy.upstream import ServerError
from tests.interop.node import installed
from tests.proxy.scene import ENVELOPE, LEGACY, MODERN, PYTHON, SERVER, Scene, decision, reason

ROOT = Path(__file__).parents[2]
OLDER = "2025-06-18"
CLIENTS = (MODERN, LEGACY, OLDER)
SERVED = ("modern", f"legacy {LEGACY}", f"legacy {OLDER}")
TALK = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":$TOKEN,%s}}'
DONE = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[{"type":"text","text":"done"}]}}'
PROGRESS = [TALK % '"progress":1,"total":2', TALK % '"progress":2,"total":2,"message":"m"', DONE]


def a_scene(tmp_path: Path, served: str, answers: Sequence[Sequence[Any]] | None = None) -> Scene:
    era, _, version = served.partition(" ")
    scene = Scene(tmp_path / "scene", era=era, version=version or None, answers=answers)
    scene.pin()
    return scene


# -- raw, all pairs ------------------------------------------------------------------------------


@pytest.mark.parametrize("served", SERVED)
@pytest.mark.parametrize("version", CLIENTS)
async def test_the_tools_are_listed_in_every_pair(tmp_path: Path, version: str, served: str) -> None:
    """The same pinned definitions, in the form of the client's era."""
    scene = a_scene(tmp_path, served)
    async with scene.guarded(version) as client:
        found = (await client.ask("tools/list"))["result"]
    assert found["tools"] == [each for each in scene.tools if each["name"] in {"echo", "slow", "fail"}]
    if client.modern:
        assert (found["resultType"], found["cacheScope"]) == ("complete", "private")
        assert isinstance(found["ttlMs"], int)
        assert found["_meta"][eras.SERVER_INFO]["name"] == "scripted"
    else:
        assert found.keys() == {"tools"}


@pytest.mark.parametrize("served", SERVED)
@pytest.mark.parametrize("version", CLIENTS)
async def test_a_tool_is_called_in_every_pair(tmp_path: Path, version: str, served: str) -> None:
    """The server is asked in its era and the client is answered in its own."""
    scene = a_scene(tmp_path, served)
    async with scene.guarded(version) as client:
        found = (await client.call(text="hello"))["result"]
        denied = await client.call(n=13)
    assert json.loads(found["content"][0]["text"]) == {"text": "hello"}
    if client.modern or served != "modern":  # what a modern server writes is not taken from it
        assert found.get("resultType") == ("complete" if client.modern else None)
    assert denied["result"].get("resultType") == ("complete" if client.modern else None)
    assert reason(denied) == "protected"
    (sent,) = scene.received()
    envelope = {name for name in sent["params"]["_meta"] if name.startswith(eras.META)}
    assert envelope == (set(ENVELOPE) if served == "modern" else set())
    probed, greeted = scene.received("server/discover"), scene.received("initialize")
    # in the client's own era first: a server may hold a connection to the first that it hears
    assert len(probed) == (client.modern or served == "modern")
    assert len(greeted) == (not client.modern or served != "modern")
    assert [*scene.settled().values()] == [["granted", "returned"], ["denied"]]


@pytest.mark.parametrize("token", ["a token", "7", 7, -1, 0, ""])
@pytest.mark.parametrize("served", SERVED[:2])
@pytest.mark.parametrize("version", CLIENTS[:2])
async def test_progress_comes_back_under_the_clients_own_token(
    tmp_path: Path, version: str, served: str, token: str | int
) -> None:
    """The server never sees the client's token, and the client never another one."""
    scene = a_scene(tmp_path, served, [PROGRESS])
    async with scene.guarded(version) as client:
        params = {"name": "slow", "arguments": {}, "_meta": {"progressToken": token}}
        assert (await client.ask("tools/call", params))["result"]["content"]
        assert [message["method"] for message in client.notifications] == ["notifications/progress"] * 2
        assert [message["params"] for message in client.notifications] == [
            {"progressToken": token, "progress": 1, "total": 2},
            {"progressToken": token, "progress": 2, "total": 2, "message": "m"},
        ]
        assert all(
            type(message["params"]["progressToken"]) is type(token) for message in client.notifications
        )
    (sent,) = scene.received()
    assert sent["params"]["_meta"]["progressToken"] == sent["id"]


async def test_two_calls_with_one_progress_token_stay_apart(tmp_path: Path) -> None:
    """Guard's own tokens keep them apart for the server, even where the client repeats its own."""
    scene = a_scene(tmp_path, "modern", [PROGRESS])
    async with scene.guarded() as client:
        params = {"name": "slow", "arguments": {}, "_meta": {"progressToken": "same"}}
        ids = [client.request("tools/call", params) for _ in range(2)]
        for id_ in ids:
            await client.answer(id_)
        assert len(client.notifications) == 4
    assert len({message["params"]["_meta"]["progressToken"] for message in scene.received()}) == 2


async def test_progress_that_nobody_asked_for_is_dropped(tmp_path: Path) -> None:
    """A server cannot write to the client under a token that it made up."""
    stray = [
        TALK.replace("$TOKEN", made_up) % '"progress":1' for made_up in ("1", "99", '"x"', "true", "null")
    ]
    scene = a_scene(tmp_path, "modern", [[*stray, DONE, *PROGRESS[:1]], [DONE]])
    async with scene.guarded() as client:
        await client.call(text="no token")
        await client.call(text="and after the end")
        await client.silent()
        assert client.notifications == []


@pytest.mark.parametrize("served", SERVED[:2])
@pytest.mark.parametrize("version", CLIENTS[:2])
async def test_cancellation_reaches_the_server_and_silences_the_answer(
    tmp_path: Path, version: str, served: str
) -> None:
    """The server is told under its own id, the client hears nothing more, the lineage says unknown."""
    late = [*PROGRESS[:1], {"wait": "notifications/cancelled"}, *PROGRESS[1:]]
    scene = a_scene(tmp_path, served, [late, [DONE]])
    async with scene.guarded(version) as client:
        params = {"name": "slow", "arguments": {}, "_meta": {"progressToken": "p"}}
        id_ = client.request("tools/call", params, id_="the client's id")
        assert (await client.hear())["method"] == "notifications/progress"
        for stranger in ("another", 1, True, None, [id_], {}):
            client.say(
                {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": stranger}}
            )
        await client.silent()
        assert scene.received("notifications/cancelled") == []
        client.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id_}})
        assert (await client.call(text="next"))["result"]["content"][0]["text"] == "done"
        await client.silent()
        assert client.notifications == []
    first, _ = scene.received()
    (told,) = scene.received("notifications/cancelled")
    assert told["params"] == {"requestId": first["id"]}
    (entry,) = scene.entries(Kind.UNKNOWN)
    assert entry["fields"] == {"reason": "cancelled"}
    scene.settled()


async def test_only_the_very_id_cancels(tmp_path: Path) -> None:
    """`true`, `1.0` and "1" are not the request 1."""
    held = [*PROGRESS[:1], {"wait": "notifications/cancelled"}, DONE]
    scene = a_scene(tmp_path, "modern", [held])
    async with scene.guarded() as client:
        params = {"name": "slow", "arguments": {}, "_meta": {"progressToken": "p"}}
        await client.silent()  # under the id 1, which is free again
        client.request("tools/call", params, id_=1)
        assert (await client.hear())["method"] == "notifications/progress"
        for stranger in ("true", "1.0", '"1"', "[1]", "null"):
            told = '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%s}}\n'
            client.say((told % stranger).encode())
        await client.silent()
        assert scene.received("notifications/cancelled") == []
        client.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
    (entry,) = scene.entries(Kind.UNKNOWN)
    assert entry["fields"] == {"reason": "cancelled"}


async def test_what_is_cancelled_before_dispatch_is_not_sent(tmp_path: Path) -> None:
    """A call that is called off while it is being recorded never reaches the server."""
    scene = a_scene(tmp_path, "modern")
    async with scene.guarded() as client:
        for number in range(20):
            request = {"name": "echo", "arguments": {"n": number}, "_meta": ENVELOPE}
            call = {"jsonrpc": "2.0", "id": 1000 + number, "method": "tools/call", "params": request}
            off = {
                "jsonrpc": "2.0",
                "method": "notifications/cancelled",
                "params": {"requestId": 1000 + number},
            }
            client.say(json.dumps(call).encode() + b"\n" + json.dumps(off).encode() + b"\n")
        await client.silent()
    assert scene.received() == []
    scene.settled()


@pytest.mark.parametrize("served", SERVED)
async def test_ping_is_answered_in_the_handshake_era_only(tmp_path: Path, served: str) -> None:
    """Guard answers a ping itself, before and after the handshake; 2026-07-28 has none."""
    scene = a_scene(tmp_path, served)
    async with scene.guarded() as client:
        client.say({"jsonrpc": "2.0", "id": "early", "method": "ping"})
        assert (await client.answer("early"))["result"] == {}
        assert (await client.ask("ping"))["error"]["code"] == -32601
    async with scene.guarded(LEGACY) as client:
        assert (await client.ask("ping"))["result"] == {}
    assert scene.received("ping") == []


async def test_a_server_that_pings_is_answered(tmp_path: Path) -> None:
    """What the client did not say it can do is refused, and it sees none of it; a log message it sees."""
    asks = [
        '{"jsonrpc":"2.0","id":"s1","method":"ping"}',
        '{"jsonrpc":"2.0","id":"s2","method":"sampling/createMessage","params":{"messages":[]}}',
        '{"jsonrpc":"2.0","id":3,"method":"elicitation/create","params":{}}',
        '{"jsonrpc":"2.0","id":4,"method":"roots/list"}',
        '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}',
        '{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"x:y"}}',
        DONE,
    ]
    scene = a_scene(tmp_path, f"legacy {LEGACY}", [asks])
    async with scene.guarded(LEGACY) as client:
        await client.call(text="x")
        await client.call(text="y")
        assert {message["method"] for message in client.notifications} == {"notifications/message"}
    heard = [json.loads(line) for line in scene.log.read_bytes().splitlines()]
    answers = {message["id"]: message for message in heard if "method" not in message}
    assert answers["s1"]["result"] == {}
    assert {id_: answers[id_]["error"]["code"] for id_ in ("s2", 3, 4)} == {
        "s2": -32601,
        3: -32601,
        4: -32601,
    }


async def test_a_change_of_tools_is_told_to_the_handshake_era(tmp_path: Path) -> None:
    """The client hears of it only if what it may see changed, and is shown pinned definitions only."""
    changed = '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
    scene = a_scene(tmp_path, f"legacy {LEGACY}", [[changed, DONE]])
    async with scene.guarded(LEGACY) as client:
        assert len((await client.ask("tools/list"))["result"]["tools"]) == 3
        await client.call(text="nothing changed")
        await client.silent()
        assert client.notifications == []
        scene.show(scene.tools[1:])
        await client.call("slow")
        told = client.notifications or [await client.hear()]  # before its answer, or after it
        assert [message["method"] for message in told] == ["notifications/tools/list_changed"]
        assert [each["name"] for each in (await client.ask("tools/list"))["result"]["tools"]] == [
            "slow",
            "fail",
        ]


@pytest.mark.parametrize("kind", ['"input_required"', '"task"', "null", '"\\u0063omplete"', "1"])
@pytest.mark.parametrize("version", CLIENTS[:2])
async def test_a_result_of_a_kind_that_guard_does_not_know_is_withheld(
    tmp_path: Path, version: str, kind: str
) -> None:
    """A server that asks for what the client cannot do, or answers in an unknown way, gets nowhere."""
    more = DONE.replace(
        "$COMPLETE", f'"resultType":{kind},"inputRequests":{{"x":{{"method":"roots/list"}}}},'
    )
    scene = a_scene(tmp_path, "modern", [[more]])
    async with scene.guarded(version) as client:
        about = decision(await client.call(text="x"))
    assert (about["outcome"], about["retryable"]) == ("executed", False)
    assert "inputRequests" not in str(client.raw)
    understood = kind == '"input_required"' and version == MODERN
    assert [*scene.settled().values()] == [["granted", "returned" if understood else "unknown"]]


# -- how an era is agreed on ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("2025-11-25", "2025-11-25"),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("1900-01-01", "2025-11-25"),
        ("", "2025-11-25"),
    ],
)
async def test_initialize_answers_with_a_version_that_guard_speaks(
    tmp_path: Path, asked: str, answered: str
) -> None:
    """The one that was asked for, else the newest of that era; and it says who serves, and what for."""
    scene = a_scene(tmp_path, "modern")
    async with scene.guarded() as client:
        client.version = asked
        if asked == MODERN:
            client.say(
                {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": MODERN}}
            )
            found = (await client.answer(1))["result"]
        else:
            found = (await client.greet())["result"]
        assert found["protocolVersion"] == answered
        assert found["serverInfo"] == {"name": "scripted", "version": "1"}
        assert found["capabilities"]["tools"] == {"listChanged": True}
        assert "dev.guard-mcp/authorization" in found["capabilities"]["extensions"]
        assert "resultType" not in found


async def test_initialize_without_a_version_is_refused(tmp_path: Path) -> None:
    """A handshake that names no version opens nothing."""
    scene = a_scene(tmp_path, "modern")
    async with scene.guarded() as client:
        for version in (None, 20251125, ["2025-11-25"]):
            client.say(
                {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": version}}
            )
            assert (await client.answer(1))["error"]["code"] == -32602
        client.say({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}})
        assert "error" in await client.answer(2)


async def test_both_eras_at_once_on_one_connection(tmp_path: Path) -> None:
    """The era is the request's: `initialize` after modern requests, and modern ones after it, both work."""
    scene = a_scene(tmp_path, f"legacy {LEGACY}")
    async with scene.guarded() as client:
        assert "resultType" in (await client.call(text="modern"))["result"]
        client.version = LEGACY
        assert (await client.greet())["result"]["protocolVersion"] == LEGACY
        assert "resultType" not in (await client.call(text="legacy"))["result"]
        client.version = MODERN
        assert "resultType" in (await client.call(text="modern again"))["result"]
        assert (await client.ask("initialize", {"protocolVersion": LEGACY}))["result"]
    assert len(scene.received()) == 3


async def test_a_request_before_any_handshake_and_without_an_envelope_is_refused(tmp_path: Path) -> None:
    """Whoever says neither hello nor a version is told so, and nothing is sent."""
    scene = a_scene(tmp_path, f"legacy {LEGACY}")
    before = len(scene.log.read_bytes())
    async with scene.guarded() as client:
        for id_, method in enumerate(("tools/list", "tools/call", "server/discover", "resources/list")):
            params = {"name": "echo", "arguments": {}} if method == "tools/call" else {}
            client.say({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
            assert (await client.answer(id_))["error"]["code"] in {-32602, -32601}
    assert scene.received() == []
    assert before == 0


@pytest.mark.parametrize(
    ("meta", "code"),
    [
        ({eras.PROTOCOL_VERSION: "2027-01-01"}, -32022),
        ({eras.PROTOCOL_VERSION: LEGACY}, -32022),
        ({eras.PROTOCOL_VERSION: 20260728}, -32602),
        ({eras.PROTOCOL_VERSION: None}, -32602),
        ({eras.CLIENT_CAPABILITIES: None}, -32602),
        ({eras.CLIENT_CAPABILITIES: []}, -32602),
    ],
)
async def test_an_envelope_that_is_wrong_is_refused(tmp_path: Path, meta: dict[str, Any], code: int) -> None:
    """An unknown version is answered with those that Guard speaks; nothing is sent."""
    scene = a_scene(tmp_path, "modern")
    async with scene.guarded() as client:
        params = {"name": "echo", "arguments": {}, "_meta": meta}
        error = (await client.ask("tools/call", params))["error"]
        assert error["code"] == code
        if code == -32022:
            assert error["data"]["supported"] == [MODERN, LEGACY, OLDER]
            assert error["data"]["requested"] == meta[eras.PROTOCOL_VERSION]
    assert scene.received() == []
    assert scene.entries(Kind.GRANTED, Kind.DENIED) == []


async def test_discover_says_what_guard_speaks(tmp_path: Path) -> None:
    """`server/discover` names versions, capabilities and the server behind, and belongs to its era."""
    scene = a_scene(tmp_path, f"legacy {LEGACY}")
    async with scene.guarded() as client:
        found = (await client.ask("server/discover"))["result"]
        assert found["supportedVersions"] == [*eras.MODERN, *eras.HANDSHAKE]
        assert found["resultType"] == "complete"
        assert "dev.guard-mcp/authorization" in found["capabilities"]["extensions"]
        assert found["_meta"][eras.SERVER_INFO]["name"] == "scripted"
    async with scene.guarded(LEGACY) as client:
        assert (await client.ask("server/discover"))["error"]["code"] == -32601


@pytest.mark.parametrize(
    "words",
    [
        ("-c", "pass"),
        ("-c", "print('hello'); input()"),
        ("-c", "import sys; sys.stdin.readline(); sys.exit(3)"),
    ],
)
async def test_a_server_that_speaks_no_mcp_is_not_served(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Guard says so and ends, rather than serving a client on behalf of nothing."""
    scene = Scene(tmp_path / "scene", command=(*PYTHON, *words))
    with pytest.raises(ServerError):
        async with scene.guarded(timeout=1.0):
            pytest.fail("served")


async def test_a_server_that_does_not_exist_is_not_served(tmp_path: Path) -> None:
    """A command that cannot be started is named."""
    scene = Scene(tmp_path / "scene", command=(str(tmp_path / "no such program"),))
    with pytest.raises(ServerError, match="does not start"):
        async with scene.guarded():
            pytest.fail("served")


# -- what is not understood ----------------------------------------------------------------------

LATER = (
    "resources/list", "resources/templates/list", "prompts/list", "logging/setLevel",
    "resources/write", "prompts/set", "completion/completed",
    "tasks/get", "tasks/result", "tasks/update", "tasks/cancel", "tasks/list",
    "roots/list", "sampling/createMessage", "elicitation/create", "tools/Call", "tools/call ", "Tools/call",
    "notifications/initialized", "notifications/cancelled", "rpc.discover", "x",
)  # fmt: skip


@pytest.mark.parametrize("served", SERVED[:2])
@pytest.mark.parametrize("version", CLIENTS[:2])
async def test_what_guard_does_not_understand_does_not_pass(
    tmp_path: Path, version: str, served: str
) -> None:
    """Every other method, and what no server here has, is not found; every other notification is dropped."""
    scene = a_scene(tmp_path, served)
    async with scene.guarded(version) as client:
        await client.call(text="the server is awake")
        before = scene.log.read_bytes()
        for method in LATER:
            params = {"uri": "file:///etc/passwd", "name": "echo", "taskId": "1", "level": "debug"}
            error = (await client.ask(method, params))["error"]
            assert error["code"] == -32601, method
            client.say({"jsonrpc": "2.0", "method": method, "params": params})
        await client.silent()
        assert client.notifications == []
        assert scene.log.read_bytes() == before


# -- the SDK's client, real servers --------------------------------------------------------------


def environment(home: Path) -> dict[str, str]:
    """The child's: warnings there are its own affair, coverage goes on."""
    return {"GUARD_HOME": str(home), **{k: v for k, v in os.environ.items() if k.startswith("COV")}}


def behind_guard(scene: Scene, *words: str, policy: Path, role: str, server: str) -> StdioServerParameters:
    args = ["-m", "guard.cli.main", "run", "--policy", str(policy), "--role", role, "--server", server]
    env = environment(scene.home)
    return StdioServerParameters(command=sys.executable, args=[*args, "--", *words], env=env)


def pin(scene: Scene, server: str, words: Sequence[str]) -> list[str]:
    """`guard pin`, as an operator runs it; the tools that it accepted."""
    command = [
        sys.executable,
        "-m",
        "guard.cli.main",
        "pin",
        "--yes",
        "--json",
        "--server",
        server,
        "--",
        *words,
    ]
    done = subprocess.run(
        command, env=os.environ | environment(scene.home), capture_output=True, text=True, check=True
    )
    return [each["name"] for each in json.loads(done.stdout)["tools"]]


def text_of(result: Any) -> str:
    assert isinstance(result.content[0], TextContent)
    return str(result.content[0].text)


@pytest.mark.parametrize("served", SERVED[:2])
@pytest.mark.parametrize("mode", ["legacy", "auto", MODERN])
async def test_the_sdks_client_in_every_pair(tmp_path: Path, mode: str, served: str) -> None:
    """List, call, progress, cancellation and ping as the SDK does them, through `guard run`."""
    answers = [[DONE], PROGRESS, [{"wait": "notifications/cancelled"}], [DONE]]
    scene = a_scene(tmp_path, served, answers)
    launch = behind_guard(
        scene, *scene.command, policy=scene.folder / "policy.json", role="caller", server=SERVER
    )
    heard: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with SdkClient(launch, mode=mode) as client:
        assert client.protocol_version == (LEGACY if mode == "legacy" else MODERN)
        assert [each.name for each in (await client.list_tools()).tools] == ["echo", "slow", "fail"]
        assert text_of(await client.call_tool("echo", {"text": "x"})) == "done"
        await client.call_tool("slow", {}, progress_callback=on_progress)
        assert heard == [(1, 2, None), (2, 2, "m")]
        with anyio.move_on_after(0.3) as scope:
            await client.call_tool("slow", {})
        assert scope.cancelled_caught
        assert text_of(await client.call_tool("echo", {"text": "y"})) == "done"
        denied = await client.call_tool("echo", {"n": 13})
        assert denied.is_error
        assert (denied.meta or {})["dev.guard-mcp/decision"]["reason"] == "protected"
        with pytest.raises(MCPError) as missing:
            await client.list_prompts()
        assert missing.value.error.code == -32601
        if mode == "legacy":
            await client.session.send_ping()
    assert len(scene.received("notifications/cancelled")) == 1
    assert len(scene.received()) == 4
    kinds = [kinds[-1] for kinds in scene.settled().values()]
    assert kinds == ["returned", "returned", "unknown", "returned", "denied"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    git = ["git", "-C", str(folder), "-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    (folder / "notes.txt").write_text("one\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "Begin the notes"], check=True)
    (folder / "notes.txt").write_text("one\ntwo\n")
    return folder


def subjects(repository: Path) -> list[str]:
    log = ["git", "-C", str(repository), "log", "--format=%s"]
    return subprocess.run(log, capture_output=True, text=True, check=True).stdout.splitlines()


async def test_mcp_server_git_in_both_client_eras(tmp_path: Path, repository: Path) -> None:
    """A real tool server from PyPI, under the coding agent's policy, by two roles."""
    scene = Scene(tmp_path / "scene")
    words = [str(Path(sys.executable).parent / "mcp-server-git"), "--repository", str(repository)]
    assert "git_status" in pin(scene, "git", words)
    policy, repo = ROOT / "policies" / "coding-agent.yaml", {"repo_path": str(repository)}
    for mode, role in (("legacy", "reader"), ("auto", "committer")):
        launch = behind_guard(scene, *words, policy=policy, role=role, server="git")
        async with SdkClient(launch, mode=mode) as client:
            names = {each.name for each in (await client.list_tools()).tools}
            assert ("git_add" in names) == (role == "committer")
            assert "notes.txt" in text_of(await client.call_tool("git_status", repo))
            assert "two" in text_of(await client.call_tool("git_diff_unstaged", repo))
            denied = await client.call_tool("git_reset", repo)
            told = (denied.meta or {})["dev.guard-mcp/decision"]["reason"]
            assert told == ("protected" if role == "committer" else "unknown-tool")
            if role == "committer":
                await client.call_tool("git_add", {**repo, "files": ["notes.txt"]})
                done = await client.call_tool("git_commit", {**repo, "message": "Add a second line"})
                assert not done.is_error
    assert subjects(repository) == ["Add a second line", "Begin the notes"]
    scene.settled()


@pytest.mark.node
async def test_the_filesystem_server_from_npm_in_both_client_eras(tmp_path: Path) -> None:
    """A real tool server on another SDK, of the handshake era, under the read-only policy."""
    words = [*installed().server("filesystem"), str(tmp_path / "data")]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a line\n")
    (tmp_path / "data" / "key.pem").write_text("secret\n")
    scene = Scene(tmp_path / "scene")
    assert "write_file" in pin(scene, "files", words)
    policy = ROOT / "policies" / "read-only-files.yaml"
    for mode, role in (("legacy", "reader"), ("auto", "reader"), (MODERN, "browser")):
        launch = behind_guard(scene, *words, policy=policy, role=role, server="files")
        async with SdkClient(launch, mode=mode) as client:
            names = {each.name for each in (await client.list_tools()).tools}
            assert "list_directory" in names
            assert "write_file" not in names
            listing = await client.call_tool("list_directory", {"path": str(tmp_path / "data")})
            assert "a.txt" in text_of(listing)
            read = await client.call_tool("read_text_file", {"path": str(tmp_path / "data" / "a.txt")})
            secret = await client.call_tool("read_text_file", {"path": str(tmp_path / "data" / "key.pem")})
            wrote = await client.call_tool(
                "write_file", {"path": str(tmp_path / "data" / "b"), "content": ""}
            )
            told = [
                (each.meta or {}).get("dev.guard-mcp/decision", {}).get("reason")
                for each in (read, secret, wrote)
            ]
            hidden = ["unknown-tool", "unknown-tool", "unknown-tool"]
            assert told == ([None, "protected", "unknown-tool"] if role == "reader" else hidden)
            if role == "reader":
                assert text_of(read) == "a line\n"
    assert sorted(each.name for each in (tmp_path / "data").iterdir()) == ["a.txt", "key.pem"]
    scene.settled()

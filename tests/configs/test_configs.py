"""The configuration files that clients write, before and after `guard run` is put in front."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from guard.cli.main import main

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Kind:
    """One client's configuration.

    Attributes:
        file: where it lies in a project or home.
        servers: the member that holds the servers.
        server: the one server in it.
        mode: how such a client opens a connection.
    """

    file: str
    servers: str
    server: str
    mode: str


CLIENTS = {
    "claude-code": Kind(".mcp.json", "mcpServers", "git", "legacy"),
    "claude-desktop": Kind("claude_desktop_config.json", "mcpServers", "git", "auto"),
    "cursor": Kind(".cursor/mcp.json", "mcpServers", "notes", "legacy"),
    "vscode": Kind(".vscode/mcp.json", "servers", "notes", "auto"),
}


def read(client: str, when: str) -> dict[str, Any]:
    found = json.loads((HERE / client / when / CLIENTS[client].file).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("client", CLIENTS)
def test_only_the_command_is_prefixed(client: str) -> None:
    """Take `guard run … --` away, and the file is the one from before."""
    kind, before, after = CLIENTS[client], read(client, "before"), read(client, "after")
    plain, guarded = before[kind.servers][kind.server], after[kind.servers][kind.server]
    assert guarded["command"].endswith("/guard")
    assert guarded["args"][0] == "run"
    place = guarded["args"].index("--")
    assert guarded["args"][place + 1 :] == [plain["command"], *plain["args"]]
    key = guarded.get("env", {}).pop("GUARD_API_KEY", None)
    if key is not None:  # the key says who calls, and the client asks its user for it
        assert "--role" not in guarded["args"]
        assert after.pop("inputs")[0]["password"] is True
        guarded.pop("env")
    guarded |= {"command": plain["command"], "args": plain["args"]}
    assert after == before


class Setting:
    """Where the placeholders point to on the machine that runs the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values = {
            "<bin>": str(BIN),
            "<python>": sys.executable,
            "<recorder>": str(HERE.parent / "servers" / "recorder.py"),
            "<policy>": str(HERE / "everything.yaml"),
            "<repository>": str(folder / "repository"),
            "<log>": str(folder / "log.jsonl"),
        }

    def fill(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self.fill(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self.fill(member) for member in value]
        if isinstance(value, str):
            for placeholder, found in self.values.items():
                value = value.replace(placeholder, found)
            assert "<" not in value
        return value

    def launch(self, client: str, when: str) -> StdioServerParameters:
        """Exactly what the file says: command, args and env."""
        kind = CLIENTS[client]
        entry = self.fill(read(client, when))[kind.servers][kind.server]
        return StdioServerParameters(
            command=entry["command"], args=entry["args"], env=entry.get("env"), cwd=self.folder
        )

    def guard(self, *words: str) -> Any:
        done = CliRunner().invoke(main, [*words])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """A home of its own, and a repository to read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GUARD_HOME", raising=False)
    subprocess.run(["git", "init", "-q", "-b", "main", str(tmp_path / "repository")], check=True)
    (tmp_path / "repository" / "notes.txt").write_text("one\n")
    return Setting(tmp_path)


async def seen(launch: StdioServerParameters, kind: Kind, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """What such a client sees: the tools, and the result of a call."""
    async with Client(launch, mode=kind.mode) as client:
        tools = (await client.list_tools()).tools
        result = await client.call_tool("git_status" if kind.server == "git" else "echo", arguments)
        return [each.model_dump() for each in tools], [each.model_dump() for each in result.content]


@pytest.mark.parametrize("client", CLIENTS)
def test_what_a_client_sees_is_the_same_before_and_after(setting: Setting, client: str) -> None:
    """Started exactly as the file says: the same tools, in the same order, and the same result."""
    kind, plain = CLIENTS[client], setting.launch(client, "before")
    report = setting.guard("pin", "--yes", "--json", "--", plain.command, *plain.args)
    assert report["accepted"]
    if client == "vscode":
        made = setting.guard("key", "new", "--principal", "ada", "--role", "developer", "--json")
        setting.values["${input:guard-api-key}"] = made["key"]
    arguments = {"repo_path": setting.values["<repository>"]} if kind.server == "git" else {"text": "hello"}

    async def both() -> tuple[Any, Any]:
        return (
            await seen(plain, kind, arguments),
            await seen(setting.launch(client, "after"), kind, arguments),
        )

    before, after = asyncio.run(both())
    assert after == before
    assert len(before[0]) >= 3
    rows = setting.guard("lineage", "list", "--json")
    (talk,) = [row for row in rows if row["source"] != "house"]
    assert talk["entries"] == 2

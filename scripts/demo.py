"""The main job on real input: Guard in front of real tool servers, agents in several roles.

First one server for each Guard over stdio, then several behind one Guard over HTTP (`demo_http.py`).

Every expectation is checked; the exit code is 0 only if all of them held.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import figures
from demo_http import over_http
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
GIT_POLICY = ROOT / "policies" / "coding-agent.yaml"
BANK = ROOT / "examples" / "tool_author"
DECISION = "dev.guard-mcp/decision"
ARTIFACT = "dev.guard-mcp/authorization"


class Demo:
    """Counts what was expected and what came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.repository = folder / "repository"
        self.used = folder / "used-artifacts"
        self.calls = self.permitted = self.denied = 0
        self.wrong: list[str] = []

    def title(self, text: str) -> None:
        print(f"\n{text}")

    def expect(self, what: str, found: object, wanted: object = True) -> None:  # noqa: FBT002 - what is wanted is often just so
        if found != wanted:
            self.wrong.append(f"{what}: expected {wanted!r}, found {found!r}")
            print(f"      NOT AS EXPECTED: {found!r} instead of {wanted!r}")

    def guard(self, *words: str, code: int = 0) -> str:
        """Run one command of Guard's, as a reader would."""
        done = subprocess.run(
            [BIN / "guard", *words], env=self.env(), capture_output=True, text=True, check=False
        )
        if done.returncode != code:
            print(done.stdout, done.stderr)
        self.expect(f"exit code of guard {' '.join(words[:2])}", done.returncode, code)
        return done.stdout

    def env(self, **more: str) -> dict[str, str]:
        return {**os.environ, "GUARD_HOME": str(self.home), **more}

    @asynccontextmanager
    async def agent(self, key: str, server: str, policy: Path, command: list[str]) -> AsyncIterator[Client]:
        """A scripted agent: an MCP client of the SDK, with Guard in front of a tool server."""
        args = ["run", "--policy", str(policy), "--server", server, "--audience", server, "--", *command]
        launch = StdioServerParameters(command=str(BIN / "guard"), args=args, env=self.env(GUARD_API_KEY=key))
        async with Client(launch) as client:
            yield client

    async def call(
        self, who: str, client: Client, tool: str, arguments: dict[str, Any], reason: str | None = None
    ) -> dict[str, Any]:
        """Call a tool, show the decision with its reason, and hold it against what was expected."""
        shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items() if name != "repo_path")
        print(f"  {who}: {tool}({shown})")
        result = await client.call_tool(tool, arguments)
        decision = (result.meta or {}).get(DECISION)
        self.count(permitted=decision is None)
        if decision is None:
            first = result.content[0].text.strip().splitlines() or [""]
            print(f"      PERMITTED  {first[0][:90]}")
            self.expect(f"{tool} is permitted", None, reason)
            return {}
        rule = f"  rule {decision['rule']}" if decision["rule"] else ""
        field = f"  field {decision['pointer']}" if decision["pointer"] else ""
        print(f"      DENIED     {decision['reason']}{rule}{field}")
        self.expect(f"{tool} is denied", decision["reason"], reason)
        return decision

    def count(self, *, permitted: bool) -> None:
        self.calls += 1
        self.permitted += permitted
        self.denied += not permitted

    def key(self, principal: str, role: str) -> str:
        made = json.loads(self.guard("key", "new", "--principal", principal, "--role", role, "--json"))
        print(f"  key {made['key_id']} for {principal}, role {role}")
        return made["key"]

    def bank(self, server: Path = BANK / "server.py") -> list[str]:
        issuer = self.guard("issuer").strip()
        return [
            sys.executable, str(server), "--issuer", issuer, "--jwks", str(self.folder / "jwks.json"),
            "--audience", "bank", "--replay", str(self.folder / "replay.db"), "--log", str(self.used),
        ]  # fmt: skip


def prepare(demo: Demo) -> tuple[list[str], dict[str, str]]:
    """A git repository, two keys, and the tools of both servers accepted."""
    demo.title("Set up: a git repository, API keys, and the tools of two servers pinned")
    git = ["git", "-C", str(demo.repository), "-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    subprocess.run(["git", "init", "-q", str(demo.repository)], check=True)
    for key, value in (("user.name", "Ada"), ("user.email", "ada@example.com")):
        subprocess.run([*git[:3], "config", key, value], check=True)
    (demo.repository / "notes.txt").write_text("first line\n")
    subprocess.run([*git, "add", "notes.txt"], check=True)
    subprocess.run([*git, "commit", "-qm", "Start the notes"], check=True)
    (demo.repository / "notes.txt").write_text("first line\nsecond line\n")
    subprocess.run([*git, "add", "notes.txt"], check=True)
    keys = {
        "reader": demo.key("rita", "reader"),
        "committer": demo.key("carl", "committer"),
        "payer": demo.key("pat", "payer"),
    }
    (demo.folder / "jwks.json").write_text(demo.guard("jwks"))
    command = [str(BIN / "mcp-server-git"), "--repository", str(demo.repository)]
    for server, its in (("git", command), ("bank", demo.bank())):
        report = json.loads(demo.guard("pin", "--yes", "--json", "--server", server, "--", *its))
        print(f"  pinned {len(report['tools'])} tools of {server}")
    return command, keys


async def git_calls(demo: Demo, command: list[str], keys: dict[str, str]) -> None:
    repo = {"repo_path": str(demo.repository)}
    demo.title("Guard in front of mcp-server-git, an agent in the role of a reader")
    async with demo.agent(keys["reader"], "git", GIT_POLICY, command) as client:
        await demo.call("reader", client, "git_status", repo)
        await demo.call(
            "reader", client, "git_commit", {**repo, "message": "Add a second line"}, "missing-scope"
        )
    demo.title("The same agent in the role of a committer")
    async with demo.agent(keys["committer"], "git", GIT_POLICY, command) as client:
        await demo.call("committer", client, "git_commit", {**repo, "message": "wip"}, "intent-unmatched")
        await demo.call("committer", client, "git_commit", {**repo, "message": "Add a second line"})
        await demo.call("committer", client, "git_reset", repo, "protected")
        await demo.call("committer", client, "git_log", {**repo, "max_count": 1})


async def bank_calls(demo: Demo, keys: dict[str, str]) -> None:
    demo.title("Guard in front of a protected tool server, which checks artifacts itself")
    transfer = {"iban": "DE02120300000000202051", "amount": 25.0, "currency": "EUR"}
    async with demo.agent(keys["payer"], "bank", BANK / "policy.yaml", demo.bank()) as client:
        await demo.call("payer", client, "transfer", transfer)
    used = demo.used.read_text().split()[-1]
    (demo.folder / "artifact.jwt").write_text(used)
    demo.title("Past Guard, straight to the protected tool server")
    direct = StdioServerParameters(command=sys.executable, args=demo.bank()[1:])
    async with Client(direct) as client:
        for name, meta in (("the used artifact again", {ARTIFACT: used}), ("no artifact", None)):
            print(f"  straight: transfer with {name}")
            said = await refused(client, transfer, meta)
            demo.count(permitted=said is None)
            print(f"      {'RAN' if said is None else f'REFUSED    {said}'}")
            wanted = "used before" if meta else "no artifact"
            demo.expect(f"transfer with {name} is refused", wanted in (said or ""))
    demo.title("The tool server is replaced by one that describes `transfer` in other words")
    changed = demo.folder / "changed_server.py"
    text = (BANK / "server.py").read_text()
    changed.write_text(text.replace('"""Send money', '"""Send all the money', 1))
    demo.expect("the definition was changed", changed.read_text() != text)
    async with demo.agent(keys["payer"], "bank", BANK / "policy.yaml", demo.bank(changed)) as client:
        await demo.call("payer", client, "transfer", transfer, "tool-changed")


async def refused(client: Client, arguments: dict[str, Any], meta: dict[str, Any] | None) -> str | None:
    """What the server said no with, None if it ran."""
    try:
        result = await client.call_tool("transfer", arguments, meta=meta)
    except MCPError as error:
        return str(error)
    return result.content[0].text if result.is_error else None


async def containment(demo: Demo, command: list[str], keys: dict[str, str]) -> str:
    """Contain a conversation while it goes on. Returns its id."""
    repo = {"repo_path": str(demo.repository)}
    demo.title("A conversation is put out of use while it goes on")
    async with demo.agent(keys["reader"], "git", GIT_POLICY, command) as client:
        await demo.call("reader", client, "git_log", {**repo, "max_count": 1})
        newest = json.loads(demo.guard("lineage", "list", "--json"))[-1]["id"]
        demo.guard("contain", newest)
        print(f"  $ guard contain {newest}")
        await demo.call("reader", client, "git_status", repo, "conversation-contained")
    return newest


def check(demo: Demo, conversation: str) -> bool:
    """Show the lineage, verify it, then flip one byte in a copy. Returns whether all stood."""
    listed = json.loads(demo.guard("lineage", "list", "--json"))
    committer = next(row for row in listed if row["principal"].endswith("carl"))
    demo.title(f"What the committer's conversation did, and why: guard lineage show {committer['id']}")
    print(demo.guard("lineage", "show", committer["id"]), end="")
    demo.title("Does the record stand? guard lineage verify")
    report = json.loads(demo.guard("lineage", "verify", "--json"))
    print(demo.guard("lineage", "verify"), end="")
    demo.expect("nothing is open", report["open"], [])
    demo.title("The used artifact, checked offline: guard verify artifact.jwt")
    print(demo.guard("verify", str(demo.folder / "artifact.jwt")).splitlines()[-1])
    demo.title("One byte of a copy of the store is flipped: guard verify COPY")
    copy, entry = flip(demo, conversation)
    told = json.loads(demo.guard("verify", "--json", str(copy), code=1))
    for found in told["findings"]:
        print(f"  WRONG entry {found['entry']}: {found['what']}")
    demo.expect("the flipped entry is named", [found["entry"] for found in told["findings"]][:1], [entry])
    return report["sound"]


def flip(demo: Demo, conversation: str) -> tuple[Path, int]:
    """Flip one bit in the bytes of one leaf, in a copy of the file. Returns the copy and the entry."""
    copy = demo.folder / "copy.db"
    with closing(sqlite3.connect(demo.home / "guard.db")) as db, closing(sqlite3.connect(copy)) as into:
        db.backup(into)
        entry, leaf = into.execute(
            "SELECT idx, leaf FROM entries WHERE conversation = ? ORDER BY seq", (conversation,)
        ).fetchone()
    data = bytearray(copy.read_bytes())
    place = data.index(leaf) + len(leaf) // 2
    data[place] ^= 1
    copy.write_bytes(data)
    print(f"  byte {place} of {copy.name}, inside entry {entry}")
    return copy, entry


async def main() -> int:
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="guard-demo-"))
    demo = Demo(folder)
    command, keys = prepare(demo)
    await git_calls(demo, command, keys)
    await bank_calls(demo, keys)
    contained = await containment(demo, command, keys)
    verified = check(demo, contained)
    verified = await over_http(demo, command) and verified
    seconds = round(time.monotonic() - started, 1)
    counted = {"calls": demo.calls, "permitted": demo.permitted, "denied": demo.denied}
    figures.write("demo", {**counted, "verified": verified and not demo.wrong, "seconds": seconds})
    print(f"\n{demo.calls} calls: {demo.permitted} permitted, {demo.denied} denied, in {seconds} s")
    if demo.wrong:
        print("\nNot as expected:", *demo.wrong, sep="\n  ")
        return 1
    kept = ROOT / "build" / "demo"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    shutil.rmtree(folder)
    print("\nEverything was as expected. Go on from here:")
    print(f"  GUARD_HOME=build/demo/home {BIN.relative_to(ROOT)}/guard lineage list")
    print(f"  GUARD_HOME=build/demo/home {BIN.relative_to(ROOT)}/guard lineage show {contained}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

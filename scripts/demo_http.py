"""The demo's second half: three tool servers behind one `guard serve`, over HTTP, for two agents."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

if TYPE_CHECKING:
    from demo import Demo

NOTES = Path(__file__).parent.parent / "examples" / "many_servers" / "notes_server.py"
PATIENCE = 30.0
MODERN = "2026-07-28"
NO_KEY = 401
TRANSFER = {"iban": "DE02120300000000202051", "amount": 25.0, "currency": "EUR"}


def policy(version: int, largest: int) -> dict[str, Any]:
    """What both agents may do; sums up to `largest` are sent."""
    sum_ = {"type": "number", "exclusiveMinimum": 0, "maximum": largest}
    return {
        "guard": 1,
        "id": "office",
        "version": version,
        "roles": {
            "reader": {"scopes": ["git:read", "notes:read"]},
            "clerk": {"inherits": ["reader"], "scopes": ["notes:write", "payments:transfer"]},
        },
        "tools": [
            {"server": "git", "match": "git_log", "scopes": ["git:read"]},
            {"server": "notes", "match": "read_note", "scopes": ["notes:read"]},
            # a reader sees it, and needs notes:write as well to call it
            {"server": "notes", "match": "add_note", "scopes": ["notes:read"]},
            {"server": "notes", "match": "add_note", "scopes": ["notes:write"], "id": "adding-writes"},
            {"server": "bank", "match": "transfer", "scopes": ["payments:transfer"]},
        ],
        "intents": [
            {
                "id": "small-sum",
                "tools": [{"server": "bank", "match": "transfer"}],
                "schema": {"required": ["amount"], "properties": {"amount": sum_}},
            }
        ],
    }


class Office:
    """One `guard serve` with its configuration and its policy.

    Args:
        demo: whose home, keys and servers these are.
        git: the words that start the git server.
    """

    def __init__(self, demo: Demo, git: list[str]) -> None:
        self.demo = demo
        self.config = demo.folder / "guard.yaml"
        self.log = demo.folder / "serve.log"
        self.url = ""
        servers = {
            "git": {"command": git},
            "bank": {"command": demo.bank()},
            "notes": {"command": [sys.executable, str(NOTES)], "shared": True},
        }
        settings = {"guard": 1, "home": "home", "policy": "office.json", "listen": "127.0.0.1:0"}
        self.config.write_text(json.dumps(settings | {"servers": servers}))
        self.write_policy(version=1, largest=500)

    def write_policy(self, *, version: int, largest: int) -> None:
        (self.demo.folder / "office.json").write_text(json.dumps(policy(version, largest)))

    @contextmanager
    def serving(self) -> Iterator[subprocess.Popen[bytes]]:
        """Guard serves, and ends when it is told to."""
        with self.log.open("w") as errors:
            words = [Path(sys.executable).with_name("guard"), "serve", self.config]
            guard = subprocess.Popen(words, env=self.demo.env(), stderr=errors)
        try:
            self.url = self.said(guard, r" at (http://\S+)")
            print(f"  {self.log.read_text().strip()}")
            yield guard
        finally:
            guard.send_signal(signal.SIGTERM)
            self.demo.expect("exit code of guard serve", guard.wait(PATIENCE), 0)

    def said(self, guard: subprocess.Popen[bytes], pattern: str) -> str:
        """What Guard says on standard error, as soon as it is there."""
        end = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.log.read_text())) is None:
            if guard.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"guard serve did not say {pattern}: {self.log.read_text()}")
            time.sleep(0.01)
        return found[1]

    @asynccontextmanager
    async def agent(self, key: str, mode: str) -> AsyncIterator[Client]:
        """An MCP client of the SDK, over HTTP."""
        headers = {"Authorization": f"Bearer {key}"}
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(self.url, http_client=http), mode=mode) as client,
        ):
            yield client

    async def get(self, path: str) -> Any:
        async with httpx2.AsyncClient() as http:
            return (await http.get(self.url.removesuffix("/mcp") + path)).json()


async def over_http(demo: Demo, git: list[str]) -> bool:
    """Show it. Returns whether the record stands in the end."""
    demo.title("Three tool servers behind one Guard over HTTP: guard serve guard.yaml")
    office = Office(demo, git)
    keys = {"clerk": demo.key("olga", "clerk"), "reader": demo.key("rob", "reader")}
    for report in json.loads(demo.guard("pin", "--yes", "--json", "--config", str(office.config)))["servers"]:
        state = "pinned already" if report["same"] else "pinned now"
        print(f"  {len(report['tools'])} tools of {report['server']}, {state}")
    with office.serving() as guard:
        await without_key(office)
        await agents(office, keys, guard)
        await shown(office)
    demo.title("Does the record still stand? guard lineage verify")
    report = json.loads(demo.guard("lineage", "verify", "--json"))
    print(demo.guard("lineage", "verify"), end="")
    demo.expect("nothing is open after HTTP", report["open"], [])
    return bool(report["sound"])


async def without_key(office: Office) -> None:
    print("  nobody: a request without a key")
    async with httpx2.AsyncClient() as http:
        answer = await http.post(office.url, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    print(f"      REFUSED    {answer.status_code} {answer.json()['error']['data']['reason']}")
    office.demo.expect("a request without a key", answer.status_code, NO_KEY)


async def agents(office: Office, keys: dict[str, str], guard: subprocess.Popen[bytes]) -> None:
    """Two agents at the same time, one in each era; the policy changes while both are connected."""
    demo = office.demo
    repo = {"repo_path": str(demo.repository)}
    async with office.agent(keys["clerk"], MODERN) as clerk, office.agent(keys["reader"], "legacy") as reader:
        for who, client in (("clerk", clerk), ("reader", reader)):
            tools = [tool.name for tool in (await client.list_tools()).tools]
            print(f"  {who}, MCP {client.protocol_version}, sees {', '.join(tools)}")
            demo.expect(f"{who} sees transfer", "bank__transfer" in tools, who == "clerk")
        await demo.call("clerk", clerk, "notes__add_note", {"title": "tuesday", "text": "Bread and tea"})
        await demo.call("reader", reader, "notes__read_note", {"title": "tuesday"})
        await demo.call(
            "reader", reader, "notes__add_note", {"title": "wednesday", "text": "Jam"}, "missing-scope"
        )
        await demo.call("reader", reader, "git__git_log", {**repo, "max_count": 1})
        await demo.call("reader", reader, "bank__transfer", TRANSFER, "unknown-tool")
        await demo.call("clerk", clerk, "bank__transfer", TRANSFER)
        demo.title("The policy's next version, while Guard runs: sums up to 20 only (SIGHUP)")
        office.write_policy(version=2, largest=20)
        guard.send_signal(signal.SIGHUP)
        print(f"  {office.said(guard, r'(guard: reloaded)')}")
        await demo.call("clerk", clerk, "bank__transfer", TRANSFER, "intent-unmatched")
        await demo.call("clerk", clerk, "bank__transfer", {**TRANSFER, "amount": 20.0})


async def shown(office: Office) -> None:
    """What anyone may read: whether Guard works, and what it is checked with."""
    demo = office.demo
    demo.title("What Guard shows to everyone: /health and /proof")
    health, proof = await office.get("/health"), await office.get("/proof")
    states = ", ".join(f"{name} {one['state']}" for name, one in health["servers"].items())
    print(f"  /health  ready {health['ready']}: {states}")
    print(f"  /proof   decisions {proof['decisions']}, refusals {proof['refusals']}")
    print(f"           policy {proof['policy']['id']} {proof['policy']['version']}")
    for line in filter(None, proof["checkpoint"].splitlines()):
        print(f"           {line[:90]}")
    demo.expect("Guard is ready", health["ready"])
    wanted = {"allow": 5, "intent-unmatched": 1, "missing-scope": 1, "unknown-tool": 1}
    demo.expect("the decisions are counted", proof["decisions"], wanted)
    demo.expect("the refusal is counted", proof["refusals"], {"no-credential": 1})
    checkpoint = demo.folder / "checkpoint"
    checkpoint.write_text(proof["checkpoint"])
    print(f"  {demo.guard('verify', str(checkpoint)).splitlines()[-1]}")

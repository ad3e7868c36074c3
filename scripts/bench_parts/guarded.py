"""A Guard with everything on: its folder, its policy of a hundred rules, its pin and its key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

GUARD: Final = Path(sys.executable).with_name("guard")
SERVER: Final = "bench"
TOOL: Final = "echo"
RULES: Final = 100
_ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if not name.startswith("GUARD_")}


def policy() -> dict[str, Any]:
    """A hundred rules: 60 of tools, 38 intents, 2 that forbid. Seven of them are about the tool called."""
    text = {"type": "string", "maxLength": 1000}
    tools: list[dict[str, Any]] = [
        {"server": SERVER, "match": "echo", "scopes": ["echo:use"]},
        {"server": SERVER, "match": "e*", "scopes": ["bench:use"], "id": "all-that-begin-with-e"},
        {"match": "*", "server": SERVER, "scopes": ["bench:use"], "id": "all"},
    ]
    intents: list[dict[str, Any]] = [
        {
            "id": "short",
            "tools": [{"server": SERVER, "match": "echo"}],
            "schema": {"required": ["text"], "properties": {"text": text}},
        },
        {
            "id": "shout",
            "tools": [{"server": SERVER, "match": "echo"}],
            "schema": {
                "required": ["text"],
                "properties": {"text": {"type": "string", "pattern": "^[A-Z]+$"}},
            },
        },
    ]
    word = {"properties": {"text": {"type": "string", "pattern": "(?i)password"}}, "required": ["text"]}
    protected = [
        {"id": "no-passwords", "tools": [{"server": SERVER, "match": "echo"}], "schema": word},
        {
            "id": "no-words",
            "tools": [{"server": SERVER, "match": "e*"}],
            "schema": {**word, "minProperties": 9},
        },
    ]
    tools += [
        {"server": f"other-{n % 9}", "match": f"tool_{n}", "scopes": [f"other:{n % 7}"]}
        for n in range(60 - len(tools))
    ]
    intents += [
        {
            "id": f"other-{n}",
            "tools": [{"server": f"other-{n % 9}", "match": f"tool_{n}"}],
            "schema": {"required": ["text"], "properties": {"text": text}},
        }
        for n in range(RULES - len(tools) - len(intents) - len(protected))
    ]
    scopes = ["bench:use", "echo:use", *(f"other:{n}" for n in range(7))]
    return {
        "guard": 1,
        "id": "bench",
        "version": 1,
        "roles": {"agent": {"scopes": scopes}},
        "tools": tools,
        "intents": intents,
        "protected": protected,
    }


class Guarded:
    """One Guard's folder.

    Args:
        folder: does not exist yet; on a disk, for what is durable has to be.
        server: the tool server's entry in the configuration.
        port: where it listens; None for stdio.
        durability: of the configuration; None for Guard's default.
    """

    def __init__(
        self, folder: Path, server: dict[str, Any], *, port: int | None, durability: str | None
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.config = folder / "guard.yaml"
        self.bench = durability == "normal"
        settings: dict[str, Any] = {"guard": 1, "home": "home", "policy": "policy.json"}
        if port is None:
            settings |= {"listen": "stdio", "identity": {"role": "agent", "principal": "bench"}}
        else:
            settings["listen"] = f"127.0.0.1:{port}"
        if durability is not None:
            settings["durability"] = durability
        self.config.write_text(json.dumps(settings | {"servers": {SERVER: server}}))
        (folder / "policy.json").write_text(json.dumps(policy()))

    @property
    def env(self) -> dict[str, str]:
        """What its commands run with."""
        return {**_ENVIRONMENT, "GUARD_HOME": str(self.folder / "home")}

    def command(self, *more: str) -> list[str]:
        """The words that serve it. A durability that is for measurements only has to be asked for twice."""
        return [str(GUARD), "serve", *(["--bench"] if self.bench else []), *more, str(self.config)]

    def prepare(self) -> str:
        """Pin the tools. Returns a new API key. Raises CalledProcessError."""
        self._run("pin", "--yes", "--config", str(self.config))
        return self._run("key", "new", "--principal", "bench", "--role", "agent").strip()

    def verify(self) -> dict[str, Any]:
        """What `guard lineage verify` says of all that was recorded."""
        report: dict[str, Any] = json.loads(self._run("lineage", "verify", "--json"))
        return report

    def _run(self, *words: str) -> str:
        done = subprocess.run([GUARD, *words], env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"guard {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout


def options() -> str:
    """The help of `guard serve`: which options this Guard has."""
    return subprocess.run([GUARD, "serve", "--help"], capture_output=True, text=True, check=True).stdout

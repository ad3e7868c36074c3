"""`guard serve` as an operator runs it: a process, a configuration, keys, and tool servers behind it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
EXAMPLE: Final = ROOT / "examples" / "many_servers"
BIN: Final = Path(sys.executable).parent
PATIENCE: Final = 60.0
CLEAN: Final = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("GUARD_", "COV_", "GIT_", "MCP_"))
} | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


class Served:
    """The example in a folder of its own, for as long as a test wants it.

    Args:
        folder: everything is in here. Relative paths of the example hold: the folder is its repository.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.example = folder / "examples" / "many_servers"
        self.home = folder / "build" / "many_servers" / "home"
        self.environment = CLEAN | {"HOME": str(folder), "GUARD_HOME": str(self.home)}
        self.url = ""
        shutil.copytree(EXAMPLE, self.example)
        repository = folder / "build" / "many_servers" / "repository"
        git = ["git", "-C", str(repository), "-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
        subprocess.run(["git", "init", "-q", str(repository)], check=True, env=self.environment)
        words = [*git, "commit", "-q", "--allow-empty", "-m", "Start the notes"]
        subprocess.run(words, check=True, env=self.environment)

    def config(self, name: str = "guard.yaml", **changed: Any) -> Path:
        """Write the example's configuration with some fields changed; `servers` are added to its own."""
        said = yaml.safe_load((EXAMPLE / "guard.yaml").read_text())
        said["servers"] |= changed.pop("servers", {})
        path = self.example / name
        path.write_text(yaml.safe_dump(said | changed))
        return path

    def policy(self, scopes: Mapping[str, list[str]], tools: list[dict[str, Any]]) -> None:
        """Add scopes to roles, and rules for tools, to the example's policy."""
        path = self.example / "policy.yaml"
        said = yaml.safe_load(path.read_text())
        for role, more in scopes.items():
            said["roles"][role]["scopes"] += more
        said["tools"] += tools
        path.write_text(yaml.safe_dump(said))

    def guard(self, *words: str | Path) -> str:
        """Run one command. Returns its standard output."""
        done = subprocess.run(
            [BIN / "guard", *words], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def key(self, principal: str, role: str) -> str:
        return self.guard("key", "new", "--principal", principal, "--role", role).strip()

    @contextmanager
    def running(self, config: Path) -> Iterator[None]:
        """Guard serves; `url` is what it says on standard error. It ends by itself when it is told to."""
        log = self.folder / "guard.log"
        with log.open("w") as errors:
            guard = subprocess.Popen(
                [BIN / "guard", "serve", config], env=self.environment, cwd=self.folder, stderr=errors
            )
        try:
            self.url = said(guard, log, r" at (http://\S+)")
            yield
        finally:
            guard.send_signal(signal.SIGTERM)
            try:
                code = guard.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                guard.kill()
                code = guard.wait()
        assert code == 0, log.read_text()

    def settled(self) -> None:
        """The record stands, and every granted call has its ending."""
        report = json.loads(self.guard("lineage", "verify", "--json"))
        assert report["sound"], report
        assert report["open"] == [], report


def said(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    """What a process writes to its log, as soon as it is there."""
    end = time.monotonic() + PATIENCE
    while (found := re.search(pattern, log.read_text())) is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, f"it never said {pattern}"
        time.sleep(0.01)
    return found[1]


@contextmanager
def over_http(words: list[str], log: Path, pattern: str, env: Mapping[str, str]) -> Iterator[str]:
    """A tool server that serves HTTP for a while, and what it says of itself."""
    with log.open("w") as out:
        process = subprocess.Popen(words, env=dict(env), stdout=out, stderr=out)
    try:
        yield said(process, log, pattern)
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that is free now; for a server that cannot be told to take any."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])

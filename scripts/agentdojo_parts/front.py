"""One `guard serve` in front of a suite's tool server, with the suite's policy, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from agentdojo_parts.server import PLAY
from agentdojo_parts.verdicts import agents_role, reviewers_role

GUARD: Final = Path(sys.executable).with_name("guard")
SCRIPTS: Final = Path(__file__).parent.parent
PATIENCE: Final = 60.0


class Front:
    """Guard with its configuration, keys and pins.

    Args:
        folder: is empty.
        policy: the suite's; its cases, where it has some, are copied with it.
        server: id of the tool server.
        command: the words that start it, after the interpreter.
        agents: how many principals call.

    Attributes:
        url: where it listens, once it serves.
        keys: of the agents, by principal.
        reviewer: the key of one who may approve.
    """

    def __init__(self, folder: Path, policy: Path, server: str, command: list[str], agents: int) -> None:
        self.folder = folder
        self.config = folder / "guard.yaml"
        self.url = ""
        data = policy.read_bytes()
        (folder / "policy.yaml").write_bytes(data)
        cases = policy.with_name(f"{policy.stem}.cases.yaml")
        if cases.is_file():
            (folder / "policy.cases.yaml").write_bytes(cases.read_bytes())
        environment = {"PYTHONPATH": str(SCRIPTS)}
        entry = {"command": [sys.executable, *command], "env": environment, "shared": True, "meta": [PLAY]}
        settings: dict[str, Any] = {
            "guard": 1,
            "home": "home",
            "policy": "policy.yaml",
            "listen": "127.0.0.1:0",
        }
        self.config.write_text(json.dumps(settings | {"servers": {server: entry}}))
        self.guard("pin", "--yes", "--config", str(self.config))
        role, reviewing = agents_role(data), reviewers_role(data)
        self.keys = {f"agent-{n}": self._key(f"agent-{n}", role) for n in range(agents)}
        self.reviewer = self._key("reviewer", reviewing)

    def _key(self, principal: str, role: str) -> str:
        return self.guard("key", "new", "--principal", principal, "--role", role).strip()

    @property
    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GUARD_")}
        return {**kept, "GUARD_HOME": str(self.folder / "home")}

    def guard(self, *words: str) -> str:
        """What a command of Guard says. Raises RuntimeError where it fails."""
        done = subprocess.run([GUARD, *words], env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"guard {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Guard serves; it must end well when it is told to. Raises RuntimeError."""
        log = self.folder / "serve.log"
        with log.open("w") as errors:
            guard = subprocess.Popen([GUARD, "serve", self.config], env=self.env, stderr=errors)
        try:
            end = time.monotonic() + PATIENCE
            while (found := re.search(r" at (http://\S+)", log.read_text())) is None:
                if guard.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"guard serve did not start: {log.read_text()}")
                time.sleep(0.02)
            self.url = found[1]
            yield
        finally:
            guard.send_signal(signal.SIGTERM)
            code = guard.wait(PATIENCE)
        if code:
            raise RuntimeError(f"guard serve ended with {code}: {log.read_text()}")

    def verify(self) -> dict[str, Any]:
        """What `guard lineage verify` says of all that was recorded."""
        report: dict[str, Any] = json.loads(self.guard("lineage", "verify", "--json"))
        return report

"""One replica: a `guard serve` in a process of its own, which may be killed, stopped and started again."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.faults.ways import Way

GUARD: Final = Path(sys.executable).parent / "guard"
PATIENCE: Final = 60.0


class Replica:
    """One `guard serve`.

    Args:
        folder: where its configuration and what it says are.
        config: what it is told; it listens on a port that it chooses.
        before: words before the command.
        way: its way to the database, where a test may cut it.

    Attributes:
        name: which one it is.
        address: where it serves; None while it does not.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], before: Sequence[str] = (), way: Way | None = None
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.name = folder.name
        self.way = way
        self.config = config
        self.file = folder / "guard.json"
        self.said = folder / "said"
        self.before = before
        self.process: subprocess.Popen[bytes] | None = None
        self.address: tuple[str, int] | None = None

    def begin(self) -> None:
        """Start it, without waiting."""
        self.file.write_text(json.dumps(self.config))
        with self.said.open("wb") as said:
            words = [*self.before, str(GUARD), "serve", str(self.file)]
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    async def serving(self) -> None:
        """Wait until it serves."""
        end = time.monotonic() + PATIENCE
        while (found := re.search(r"at http://127\.0\.0\.1:(\d+)/mcp", self.heard())) is None:
            assert self.process is not None
            assert self.process.poll() is None, self.heard()
            assert time.monotonic() < end, self.heard()
            await asyncio.sleep(0.02)
        self.address = ("127.0.0.1", int(found[1]))

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        self.begin()
        await self.serving()

    @property
    def runs(self) -> bool:
        """Whether it is still the process that was started."""
        return self.process is not None and self.process.poll() is None

    def heard(self) -> str:
        """What it said since it was started last."""
        return self.said.read_text(errors="replace")

    def kill(self) -> None:
        """Kill -9."""
        self.address = None
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    async def stop(self, patience: float = PATIENCE) -> int:
        """Ask it to end; its exit code."""
        assert self.process is not None
        self.address = None
        self.process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(self.process.wait, patience)
        self.process = None
        return code

    def send(self, signum: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(signum)

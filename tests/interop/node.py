"""The Node.js packages that the tests put before and behind Guard, installed once and kept in build/.

`package.json` beside this file pins them. Node itself is one of them: the inspector needs 22.19 or later.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "build"
PACKAGES = Path(__file__).with_name("package.json")
INSTALL_SECONDS = 300


@dataclass(frozen=True)
class Node:
    """Installed packages.

    Attributes:
        folder: their `node_modules`.
    """

    folder: Path

    @property
    def program(self) -> str:
        """Node itself."""
        return str(self.folder / ".bin" / "node")

    def server(self, name: str) -> list[str]:
        """The words that start a tool server of the protocol's own packages."""
        return [self.program, str(self.folder / "@modelcontextprotocol" / f"server-{name}" / "dist/index.js")]

    def inspector(self) -> list[str]:
        """The words that start the inspector's command line."""
        return [self.program, str((self.folder / ".bin" / "mcp-inspector").resolve()), "--cli"]


def installed() -> Node:
    """The packages, installed if they are not yet. Skips the test, with the reason, where that cannot be."""
    folder = BUILD / f"node-{hashlib.sha256(PACKAGES.read_bytes()).hexdigest()[:12]}"
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers come at the same time
        if not folder.exists():
            _install(folder)
    return Node(folder / "node_modules")


def _install(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    fresh = folder.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    shutil.copy(PACKAGES, fresh)
    words = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            words, cwd=fresh, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm installed nothing within {INSTALL_SECONDS} seconds")
    if done.returncode != 0:
        pytest.skip(
            f"npm cannot install the packages: {(done.stderr.splitlines() or ['it does not say why'])[0]}"
        )
    program = Node(fresh / "node_modules").program
    if not os.access(program, os.X_OK):
        pytest.skip("the package `node` has no program for this machine")
    fresh.rename(folder)

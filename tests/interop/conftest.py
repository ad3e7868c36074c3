"""Node.js packages, and a Guard in front of five real tool servers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.interop.clients import Place
from tests.interop.node import Node, installed
from tests.interop.served import BIN, CLEAN, EXAMPLE, Served, free_port, over_http


@pytest.fixture(scope="session")
def node() -> Node:
    """Node.js 22 with the inspector and two tool servers."""
    return installed()


class Five(Served):
    """The example with two servers more, and two of the five behind a URL.

    Args:
        folder: everything is in here.
        node: where the two others come from.
    """

    def __init__(self, folder: Path, node: Node) -> None:
        super().__init__(folder)
        self.files = folder / "files"
        self.files.mkdir()
        (self.files / "hello.txt").write_text("hello from a file")
        self._node = node
        self._ends = ExitStack()
        self.policy(
            {"reader": ["files:read", "everything:use"], "writer": ["files:write"]},
            [
                {"server": "files", "match": "read_text_file", "scopes": ["files:read"]},
                {"server": "files", "match": "list_directory", "scopes": ["files:read"]},
                {"server": "files", "match": "write_file", "scopes": ["files:write"]},
                {"server": "everything", "match": "echo", "scopes": ["everything:use"]},
                {"server": "everything", "match": "get-sum", "scopes": ["everything:use"]},
                {"server": "everything", "match": "trigger-long-*", "scopes": ["everything:use"]},
            ],
        )
        (self.example / "policy.cases.yaml").unlink()  # they are about the example's own policy

    def start(self) -> None:
        """Start what is behind a URL, pin all five, and serve."""
        notes = [sys.executable, str(EXAMPLE / "notes_server.py"), "--port", "0"]
        at = over_http(notes, self.folder / "notes.log", r"notes: (http://\S+)", CLEAN)
        port = free_port()
        words = [*self._node.server("everything"), "streamableHttp"]
        everything = over_http(
            words, self.folder / "everything.log", r"listening on port (\d+)", CLEAN | {"PORT": str(port)}
        )
        servers: dict[str, Any] = {
            "notes": {"url": self._ends.enter_context(at), "shared": True},
            "files": {"command": [*self._node.server("filesystem"), str(self.files)]},
            "everything": {"url": f"http://127.0.0.1:{self._ends.enter_context(everything)}/mcp"},
        }
        config = self.config(listen="127.0.0.1:0", home=str(self.home), servers=servers)
        self.config("stdio.yaml", listen="stdio", home=str(self.home), servers=servers)
        self.guard("pin", "--config", config, "--yes")
        self.keys = {role: self.key(f"a-{role}", role) for role in ("reader", "writer")}
        self._ends.enter_context(self.running(config))

    def stop(self) -> None:
        self._ends.close()

    def place(self, over: str, role: str) -> Place:
        """Where a client in a role finds this Guard, over "http" or "stdio"."""
        command = [str(BIN / "guard"), "serve", str(self.example / "stdio.yaml")]
        return Place(self.keys[role], self.url if over == "http" else None, command, self.environment)


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory, node: Node) -> Iterator[Five]:
    """Five servers behind one Guard. In the end its record stands."""
    found = Five(tmp_path_factory.mktemp("five"), node)
    try:
        found.start()
        yield found
    finally:
        found.stop()
    found.settled()

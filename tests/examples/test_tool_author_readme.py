"""The tool author's README: the lines that it shows are the server's, and its commands do what it says."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "examples" / "tool_author"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEN = 10


def _blocks(kind: str) -> list[str]:
    text = (FOLDER / "README.md").read_text("utf-8")
    return [body for found, body in BLOCK.findall(text) if found == kind]


def _tree() -> ast.Module:
    return ast.parse((FOLDER / "server.py").read_text("utf-8"))


def test_the_shown_lines_are_the_servers() -> None:
    """Statement by statement: the blocks of the page stand in server.py, whatever the indentation."""
    server = {ast.unparse(node) for node in ast.walk(_tree()) if isinstance(node, ast.stmt)}
    shown = [ast.unparse(node) for block in _blocks("python") for node in ast.parse(block).body]
    assert len(shown) == 3
    assert server.issuperset(shown)


def test_a_tool_author_writes_less_than_ten_lines() -> None:
    """Without the demo's line, what protects the server and the line that makes the verifier are nine."""
    gate, made = _blocks("python")[:2]
    lines = [line for line in f"{gate}{made}".splitlines() if line.strip() and "accepted(" not in line]
    assert len(lines) < TEN


def test_only_the_gate_and_the_settings_know_of_guard() -> None:
    """The tools use no name that comes from Guard: a tool is written as it would be without it."""
    tree = _tree()
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("guard.")
        for alias in node.names
    }
    tools = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "bank")
    used = {node.id for node in ast.walk(tools) if isinstance(node, ast.Name)}
    assert imported
    assert not used & imported


def test_the_commands_by_hand_do_what_the_page_says(tmp_path: Path) -> None:
    """Copied into a shell they permit the call through Guard and refuse both calls past it."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-eu"],
        input="\n".join(_blocks("sh")),
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"jsonrpc"')]
    texts = [answer["result"]["content"][0]["text"].splitlines()[0] for answer in answers]
    assert texts == [
        "Sent 25.00 EUR to DE02120300000000202051.",
        "Refused: the request carries no artifact",
        "Refused: the artifact was used before",
    ]
    assert [answer["result"].get("isError", False) for answer in answers] == [False, True, True]

"""The commands, as a dialogue: each *.txt beside this file is typed in as a reader would.

A script is made of lines: `#` says which law or habit it holds; `$` is a command (a leading
`NAME=VALUE` sets its environment, `{NAME}` is replaced by what was captured); `>` a regular
expression that a further line of the output must match, its named groups are captured; `!` one
that no line may match; `?` the exit code, 0 where nothing is said. `{bin}`, `{tmp}` and `{root}`
stand for the programs' folder, a fresh folder with a git repository `repo`, and the checkout.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCRIPTS = sorted(HERE.glob("*.txt"))


class Script:
    def __init__(self, folder: Path) -> None:
        self.known = {
            "user": "someone",
            "bin": str(Path(sys.executable).parent),
            "tmp": str(folder),
            "root": str(ROOT),
        }
        self.env = {**os.environ, "GUARD_HOME": str(folder / "home"), "NO_COLOR": "1"}
        self.env.pop("GUARD_API_KEY", None)
        self.output: list[str] = []
        self.whole: list[str] = []
        self.code = 0
        self.command = ""

    def fill(self, text: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda name: self.known[name[1]], text)

    def line(self, text: str) -> None:
        mark, rest = text[:1], text[2:]
        match mark:
            case "$":
                self.run(rest)
            case ">":
                self.expect(rest)
            case "!":
                found = [line for line in self.whole if re.search(self.fill_pattern(rest), line)]
                assert not found, f"{self.command}\nmust not say {rest!r}, says {found!r}"
            case "?":
                assert self.code == int(rest), f"{self.command}\nends with {self.code}:\n{self.said()}"
            case "#" | "":
                pass
            case _:
                pytest.fail(f"not a line of a script: {text!r}")

    def run(self, command: str) -> None:
        words = shlex.split(self.fill(command))
        env = dict(self.env)
        while re.match(r"[A-Z_]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        if words[0] == "guard":
            words[:1] = [sys.executable, "-m", "guard.cli.main"]
        done = subprocess.run(
            words, env=env, cwd=self.known["tmp"], capture_output=True, text=True, check=False, timeout=60
        )
        self.command, self.code = command, done.returncode
        self.whole = (done.stdout + done.stderr).splitlines()
        self.output = list(self.whole)

    def fill_pattern(self, pattern: str) -> str:
        return re.sub(r"\{([a-z_]\w*)\}", lambda name: re.escape(self.known[name[1]]), pattern)

    def expect(self, pattern: str) -> None:
        while self.output:
            if found := re.search(self.fill_pattern(pattern), self.output.pop(0)):
                self.known |= {name: value for name, value in found.groupdict().items() if value}
                return
        pytest.fail(f"{self.command}\nno further line matches {pattern!r} in:\n{self.said()}")

    def said(self) -> str:
        return "\n".join(self.whole)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path, tmp_path: Path) -> None:
    """Every command says and ends as its script says."""
    subprocess.run(["git", "init", "-q", str(tmp_path / "repo")], check=True)
    script = Script(tmp_path)
    checked = True
    for line in path.read_text().splitlines():
        # A command whose exit code nobody looks at is expected to succeed.
        if line.startswith(("$", "#")) and not checked:
            script.line("? 0")
        script.line(line)
        checked = line.startswith("?") or (checked and not line.startswith("$"))
    if not checked:
        script.line("? 0")


def test_there_are_scripts() -> None:
    """A folder without scripts must not look like one where all pass."""
    assert len(SCRIPTS) >= 7

"""Commands on paper are commands that exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from guard.cli.main import main
from tests.docs.commands_page import PAGE, commands, options, render
from tests.docs.pages import ROOT, blocks, pages

_ENDS = {"|", ">", "<", "<<", ">>", "&&", "||", ";", "2>&1", "&"}
_SUBSTITUTED = re.compile(r'"?\$\((?P<inner>guard [^()]*)\)"?')


def lines(page: Path) -> Iterator[list[str]]:
    """The words after `guard` of each command line in a page's shell blocks, substitutions too."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            found = [match["inner"] for match in _SUBSTITUTED.finditer(line)]
            for text in (*found, _SUBSTITUTED.sub("X", line)):
                words = _words(text)
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words = words[1:]
                if words and Path(words[0]).name == "guard":
                    yield words[1:]


def _words(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|<>&;")
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        for word in lexer:
            if word in _ENDS:
                break
            words.append(word)
    except ValueError:
        return []
    return words


def parse(words: list[str]) -> click.Context:
    """Resolve a command and parse its options, without running it. Raises click.UsageError."""
    command: click.Command = main
    context = click.Context(main, info_name="guard")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
        context = click.Context(command, info_name=command.name, parent=context)
    if isinstance(command, click.Group):
        assert words in ([], ["--help"], ["--version"], ["-h"]), f"{words} is no command"
        return context
    return command.make_context(command.name, list(words), parent=context.parent)


@pytest.mark.parametrize("page", [page for page in pages() if any(lines(page))], ids=lambda page: page.name)
def test_every_command_line_in_a_page_parses(page: Path) -> None:
    """Command, options and arguments of each `guard ...` in a shell block are real ones."""
    for words in lines(page):
        try:
            parse(words)
        except click.UsageError as error:
            pytest.fail(f"guard {shlex.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("wrong", ["guard nosuch", "guard key new --role x", "guard pin --nosuch -- x"])
def test_a_command_line_that_is_wrong_is_found(wrong: str) -> None:
    """The test above is not kept by accepting everything."""
    with pytest.raises(click.UsageError):
        parse(_words(wrong)[1:])


def test_the_readme_shows_every_command() -> None:
    """A new user meets each command in the README."""
    shown = {parse(words).command.callback for words in lines(ROOT / "README.md")}
    every = {command for _, command in commands() if not isinstance(command, click.Group)}
    assert [command.name for command in every if command.callback not in shown] == []


def test_client_configurations_in_the_readme_parse() -> None:
    """In each configuration that starts Guard, the arguments are ones that `guard run` takes."""
    configurations = [json.loads(text) for text in blocks(ROOT / "README.md", "json")]
    servers = [value.get("mcpServers") or value["servers"] for value in configurations]
    guarded = [one["git"]["args"] for one in servers if one["git"]["command"].endswith("/guard")]
    assert len(guarded) > 1
    for args in guarded:
        context = parse(args)
        assert context.params["command"] == tuple(args[args.index("--") + 1 :])


def test_the_page_of_commands_is_the_commands_own_help() -> None:
    """docs/commands.md is what is made from the commands; else `python -m tests.docs.commands_page`."""
    assert PAGE.read_text(encoding="utf-8") == render()


def test_the_page_of_commands_lists_every_option() -> None:
    """Each command has its heading in docs/commands.md, and each option its row under it."""
    sections = dict(
        re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    )
    for context, command in commands():
        if not isinstance(command, click.Group):
            section = sections[context.command_path]
            for option in options(command):
                assert all(f"`{name}`" in section for name in option.opts), option.name


def test_the_readmes_commands_by_hand_run(tmp_path: Path) -> None:
    """The shell blocks under "By hand" run one after the other in a scratch folder, each with exit code 0."""
    by_hand = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## By hand\n")[1].split("\n## ")[0]
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", by_hand, re.MULTILINE | re.DOTALL))
    bin_ = Path(sys.executable).parent
    script = script.replace("$PWD/.venv/bin", str(bin_))
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("GUARD_", "COV_", "GIT_"))
    }
    env = kept | {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Start the notes" in done.stdout
    assert "intent-unmatched" in done.stdout
    assert "reason: missing-scope;" in done.stdout + done.stderr  # over HTTP, said by another's client
    assert "field: /arguments/max_count;" in done.stdout + done.stderr
    assert "everything stands as it was recorded" in done.stdout
    assert "the proof verifies" in done.stdout

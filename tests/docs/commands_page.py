"""The page of all commands, made from the commands themselves.

`python -m tests.docs.commands_page` writes docs/commands.md anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from guard.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
HEAD = """# Commands

This page is made from the commands' own help. `.venv/bin/python -m tests.docs.commands_page` writes it
anew.

Every command also takes `-h` and `--help`. Every command that opens Guard's folder takes `--home`;
without it `GUARD_HOME` counts, else `~/.guard`. Data goes to standard output, everything else to
standard error.

| exit code | meaning |
|---|---|
| 0 | done, or yes |
| 1 | the answer is no |
| 2 | wrong usage, or something cannot be used |
| 3 | the tool server could not be started, or ended |
"""


def commands(
    command: click.Command = main, name: str = "guard", parent: click.Context | None = None
) -> Iterator[tuple[click.Context, click.Command]]:
    """Every command with its context, groups before what is in them."""
    context = click.Context(command, info_name=name, parent=parent)
    yield context, command
    if isinstance(command, click.Group):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            assert child is not None, f"{name} lists {child_name} and does not have it"
            yield from commands(child, child_name, context)


def options(command: click.Command) -> list[click.Option]:
    """The options of a command, by name; `--help` is everybody's."""
    found = [one for one in command.params if isinstance(one, click.Option)]
    return sorted(found, key=lambda option: option.opts[0].lstrip("-"))


def _row(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len, reverse=True))
    metavar = "" if option.is_flag else option.make_metavar(context)
    value = f" `{metavar}`" if metavar else ""
    notes = []
    if option.required:
        notes.append("required")
    if option.show_default and isinstance(option.default, str | int | float):
        notes.append(f"default `{option.default}`")
    tail = f" ({', '.join(notes)})" if notes else ""
    cells = (f"{names}{value}", f"{option.help or ''}{tail}")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for context, command in commands():
        if isinstance(command, click.Group):
            continue
        parts.append(f"\n## {context.command_path}\n")
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        parts.append(f"\n```text\n{usage}\n```\n")
        parts.append(f"\n{inspect.cleandoc(command.help or '')}\n")
        if rows := [_row(option, context) for option in options(command)]:
            parts.append("\n| option | |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")

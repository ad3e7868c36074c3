"""`guard`: the commands. Each is imported when it is asked for, so that none pays for the others."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from guard import __version__

COMMANDS: Final = {
    "run": "guard.cli.run:run",
    "serve": "guard.cli.serve:serve",
    "pin": "guard.cli.pin:pin",
    "key": "guard.cli.key:key",
    "jwks": "guard.cli.key:jwks",
    "issuer": "guard.cli.key:issuer",
    "policy": "guard.cli.policy:policy",
    "lineage": "guard.cli.lineage:lineage",
    "store": "guard.cli.store:store",
    "approvals": "guard.cli.approvals:approvals",
    "verify": "guard.cli.verify:verify",
    "contain": "guard.cli.containment:contain",
    "release": "guard.cli.containment:release",
}
EPILOG: Final = (
    "Exit codes: 0 done, or yes; 1 the answer is no; 2 wrong usage, or something cannot be used; "
    "3 the tool server could not be started, or ended."
)


class Lazy(click.Group):
    """A group whose commands are names of modules until one is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every command, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)  # noqa: S101 - the table is ours
        return command


@click.group(cls=Lazy, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="guard")
def main() -> None:
    """No tool call runs until it is authorized."""


if __name__ == "__main__":
    main()

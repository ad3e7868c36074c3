"""`guard`: the commands."""

from __future__ import annotations

import click

from guard import __version__
from guard.cli.containment import contain, release
from guard.cli.key import jwks, key
from guard.cli.lineage import lineage
from guard.cli.pin import pin
from guard.cli.policy import policy
from guard.cli.run import run
from guard.cli.shared import EPILOG
from guard.cli.verify import verify


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="guard")
def main() -> None:
    """No tool call runs until it is authorized."""


for command in (run, pin, key, jwks, policy, lineage, verify, contain, release):
    main.add_command(command)

if __name__ == "__main__":
    main()

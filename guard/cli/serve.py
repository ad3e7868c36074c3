"""`guard serve`: put Guard in front of the tool servers of a configuration."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from guard.cli.shared import EPILOG, told
from guard.config.launch import load_policy
from guard.config.serve import serve as run
from guard.config.settings import load_settings


@click.command(epilog=EPILOG)
@click.option(
    "--check", is_flag=True, help="Read configuration and policy, say what is wrong, serve nothing."
)
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
def serve(*, check: bool, config: Path) -> None:
    """Guard the tool servers of a configuration: guard serve CONFIG.

    Over Streamable HTTP, or over stdio with `listen: stdio`. SIGHUP reads configuration and policy again.
    """
    with told():
        if check:
            settings = load_settings(config)
            policy = load_policy(settings.policy)
            names = ", ".join(settings.servers)
            click.echo(
                f"{config}: {settings.listen}, policy {policy.ref.id} {policy.ref.version}, servers {names}"
            )
            return
        asyncio.run(run(config))

"""`guard serve`: put Guard in front of the tool servers of a configuration."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click
import uvloop

from guard.cli.shared import EPILOG, told
from guard.config.loaded import Loaded, load
from guard.config.serve import Worker
from guard.config.serve import serve as run
from guard.config.workers import MOST, Parent


@click.command(epilog=EPILOG)
@click.option(
    "--check", is_flag=True, help="Read configuration and policy, say what is wrong, serve nothing."
)
@click.option(
    "--workers",
    type=click.IntRange(1, MOST),
    default=1,
    show_default=True,
    help="Processes that serve the one address, over HTTP.",
)
@click.option("--bench", is_flag=True, help="Let `durability: normal` through: for benchmarks only.")
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
def serve(*, check: bool, workers: int, bench: bool, config: Path) -> None:
    """Guard the tool servers of a configuration: guard serve CONFIG.

    Over Streamable HTTP, or over stdio with `listen: stdio`. SIGHUP reads configuration and policy again.
    """
    with told():
        again = partial(load, config, bench=bench)
        loaded = again()
        settings, ref = loaded.settings, loaded.policy.ref
        if check:
            names = ", ".join(settings.servers)
            click.echo(f"{config}: {settings.listen}, policy {ref.id} {ref.version}, servers {names}")
            return
        if workers == 1:
            uvloop.run(run(config, loaded))
            return

        def work(worker: Worker, loaded: Loaded) -> None:
            uvloop.run(run(config, loaded, worker))

        sys.exit(Parent(workers, loaded, again, work).run())

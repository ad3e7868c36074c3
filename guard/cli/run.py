"""`guard run`: wrap one stdio tool server."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import uvloop

from guard.cli.shared import EPILOG, home_option, printable_lines, told
from guard.config.home import default_home
from guard.config.policies import Policies
from guard.config.run import SERVER_GONE, Launch
from guard.config.run import run as serve
from guard.proxy.upstream import ServerError


@click.command(epilog=EPILOG)
@click.option(
    "--policy",
    "policies",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="The policy that decides; repeatable, the highest first.",
)
@click.option(
    "--policy-keys", type=click.Path(path_type=Path), help="A JWK set: whose signatures of policies count."
)
@click.option("--require-signed", is_flag=True, help="Nothing unsigned decides.")
@click.option(
    "--intent", "intents", multiple=True, metavar="ID", help="What every call declares; repeatable."
)
@click.option("--role", help="The role of whoever calls; without it GUARD_API_KEY says who calls.")
@click.option("--principal", help="Who calls (default: the user's name).")
@click.option("--server", help="Your name for the tool server (default: made of the command).")
@click.option("--audience", help="`aud` of the artifacts (default: the server's name).")
@click.option("--conversation", help="The conversation's id (default: a fresh one).")
@click.option(
    "--env", multiple=True, metavar="NAME[=VALUE]", help="Pass a variable on to the server; repeatable."
)
@click.option(
    "--durability",
    type=click.Choice(["queued", "strict"]),
    default="queued",
    show_default=True,
    help="strict: a result waits until its ending is on disk.",
)
@click.option("--timeout", type=click.FloatRange(min=0.1), default=300.0, show_default=True, help="Seconds.")
@click.option(
    "--trust",
    multiple=True,
    metavar="ISSUER=JWKS-FILE",
    help="Believe artifacts that the client presents, if this issuer signed them for this Guard; repeatable.",
)
@home_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    *,
    policies: tuple[Path, ...],
    policy_keys: Path | None,
    require_signed: bool,
    intents: tuple[str, ...],
    role: str | None,
    principal: str | None,
    server: str | None,
    audience: str | None,
    conversation: str | None,
    env: tuple[str, ...],
    durability: str,
    timeout: float,
    trust: tuple[str, ...],
    home: Path,
    command: tuple[str, ...],
) -> None:
    """Guard one stdio tool server: guard run --policy FILE --role ROLE -- COMMAND ARGS...

    Put it in front of the command in a client's MCP configuration; nothing else changes there.
    """
    _standard_descriptors()
    launch = Launch(
        home=home,
        policies=Policies(policies, policy_keys, require_signed),
        intents=intents,
        command=command,
        role=role,
        principal=principal,
        server=server,
        audience=audience,
        conversation=conversation,
        env=env,
        strict=durability == "strict",
        timeout=timeout,
        pin=pin_words(server=server, home=home, env=env),
        trust=trust,
    )
    with told():
        try:
            code = uvloop.run(serve(launch))
        except ServerError as error:
            click.echo(f"guard: {printable_lines(str(error))}", err=True)
            code = SERVER_GONE
    sys.exit(code)


def pin_words(*, server: str | None, home: Path, env: tuple[str, ...]) -> tuple[str, ...]:
    """How this server's tools are accepted. Values given to `--env` are left out."""
    words = ["guard", "pin"]
    if server is not None:
        words += ["--server", server]
    if home != default_home():
        words += ["--home", str(home)]
    for item in env:
        words += ["--env", item.partition("=")[0]]
    return tuple(words)


def _standard_descriptors() -> None:
    """A closed 0, 1 or 2 would be given to the next file that is opened: put the null device there."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)

"""`guard contain` and `guard release`: put something out of use until a person releases it."""

from __future__ import annotations

from pathlib import Path

import click

from guard.cli.shared import EPILOG, emit, home_option, json_option, opened, tenant_option
from guard.config.home import record
from guard.lineage.effects import principal_target, tool_target
from guard.lineage.entry import Kind
from guard.lineage.store import Contain, Release


def _target(
    *,
    conversation: str | None,
    principal: str | None,
    issuer: str,
    tool: str | None,
    server: str,
    every: bool,
) -> tuple[str, str]:
    """Kind and target of exactly one thing."""
    named = [
        ("conversation", conversation),
        ("principal", None if principal is None else principal_target(issuer, principal)),
        ("tool", None if tool is None else tool_target(server, tool)),
        ("all", "" if every else None),
    ]
    found = [(kind, target) for kind, target in named if target is not None]
    if len(found) != 1:
        raise click.UsageError("name exactly one of CONVERSATION, --principal, --tool and --all")
    if tool is not None and not server:
        raise click.UsageError("--tool needs --server")
    return found[0]


def _what(command: click.decorators.FC) -> click.decorators.FC:
    for decorate in (
        click.argument("conversation", required=False),
        click.option("--principal", help="A principal, by its name."),
        click.option(
            "--issuer",
            default="api-key",
            show_default=True,
            type=click.Choice(["api-key", "launch"]),
            help="Who vouches for the principal.",
        ),
        click.option("--tool", help="A tool, by the server's own name for it."),
        click.option("--server", default="", help="The tool's server."),
        click.option("--all", "every", is_flag=True, help="Everything of the tenant."),
        tenant_option,
        home_option,
        json_option,
    ):
        command = decorate(command)
    return command


@click.command(epilog=EPILOG)
@_what
def contain(
    *,
    conversation: str | None,
    principal: str | None,
    issuer: str,
    tool: str | None,
    server: str,
    every: bool,
    tenant: str,
    home: Path,
    as_json: bool,
) -> None:
    """Deny every call of a conversation, a principal or to a tool, from the next one on.

    CONVERSATION is an id that `guard lineage list` shows.
    """
    kind, target = _target(
        conversation=conversation, principal=principal, issuer=issuer, tool=tool, server=server, every=every
    )
    with opened(home) as (_, store):
        record(store, Kind.CONTAINED, {"kind": kind, "target": target}, Contain(kind, target), tenant=tenant)
        emit({"contained": kind, "target": target}, [f"contained: {kind} {target}"], as_json=as_json)


@click.command(epilog=EPILOG)
@_what
def release(
    *,
    conversation: str | None,
    principal: str | None,
    issuer: str,
    tool: str | None,
    server: str,
    every: bool,
    tenant: str,
    home: Path,
    as_json: bool,
) -> None:
    """Take a containment back."""
    kind, target = _target(
        conversation=conversation, principal=principal, issuer=issuer, tool=tool, server=server, every=every
    )
    with opened(home) as (_, store):
        record(store, Kind.RELEASED, {"kind": kind, "target": target}, Release(kind, target), tenant=tenant)
        emit({"released": kind, "target": target}, [f"released: {kind} {target}"], as_json=as_json)

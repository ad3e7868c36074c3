"""`guard contain` and `guard release`: put something out of use until a person releases it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from guard.cli.shared import EPILOG, emit, home_option, json_option, opened, tenant_option, when
from guard.config.home import record
from guard.core.errors import GuardError
from guard.lineage.audit import readable
from guard.lineage.effects import principal_target, tool_target
from guard.lineage.entry import Kind
from guard.lineage.store import Contain, Release, Store

ISSUERS: Final = ("api-key", "launch")


@dataclass(frozen=True, slots=True)
class What:
    """What a person named: exactly one thing."""

    conversation: str | None
    principal: str | None
    issuer: str | None
    tool: str | None
    server: str
    every: bool

    def __post_init__(self) -> None:
        named = [self.conversation, self.principal, self.tool, self.every or None]
        if sum(name is not None for name in named) != 1:
            raise click.UsageError("name exactly one of CONVERSATION, --principal, --tool and --all")
        if self.tool is not None and not self.server:
            raise click.UsageError("--tool needs --server")

    def kind(self) -> str:
        """The kind of thing that was named."""
        if self.every:
            return "all"
        if self.conversation is not None:
            return "conversation"
        return "principal" if self.principal is not None else "tool"

    def target(self, store: Store, tenant: str) -> str:
        """How the store names it.

        Raises:
            GuardError: nothing of that name is known, so that a slip of the hand would contain nothing.
        """
        if self.every:
            return ""
        if self.conversation is not None:
            return self.conversation
        if self.principal is not None:
            return principal_target(self.issuer or self._only_issuer(store, tenant), self.principal)
        if self.tool not in {pin.name for pin in store.pins(tenant, self.server)}:
            known = ", ".join(store.servers(tenant)) or "none"
            raise GuardError(
                f"no tool {self.tool} of a server {self.server} is pinned",
                remedy=f"servers with pinned tools: {known}; `guard pin` shows their tools",
            )
        return tool_target(self.server, self.tool or "")

    def _only_issuer(self, store: Store, tenant: str) -> str:
        """Who vouches for the principal, if that is plain from keys and conversations."""
        found = {
            row.issuer
            for row in store.conversations()
            if (row.tenant, row.subject) == (tenant, self.principal) and row.issuer in ISSUERS
        }
        if any((made.tenant, made.principal) == (tenant, self.principal) for made in store.api_keys()):
            found.add("api-key")
        if len(found) != 1:
            how = "under both issuers" if found else "to nobody"
            raise GuardError(
                f"the principal {self.principal} is known {how}",
                remedy=f"say which with --issuer {' or --issuer '.join(ISSUERS)}",
            )
        return found.pop()

    def told(self, target: str) -> str:
        """The thing in words."""
        return " ".join(part for part in (self.kind(), target) if part)


def why(store: Store, tenant: str, standing: Mapping[str, Any]) -> str:
    """What brought a containment about, as the lineage says it."""
    told = _entries(store, tenant, standing)
    if not told:
        return "the lineage does not say"
    newest = max(told, key=lambda entry: int(entry["index"]))
    fields, call = newest["fields"], newest["call"]
    if newest["kind"] == Kind.FAILED:
        return f"integrity was hurt: call {call} failed with {fields['reason']}"
    if "denials" in fields:
        seconds = fields["window"] // 1000
        return f"{fields['denials']} denials within {seconds} s, the last of them of call {call}"
    return "by hand"


def _entries(store: Store, tenant: str, standing: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every entry that can be read and says that this was contained."""
    house = [row.id for row in store.conversations() if (row.tenant, row.source) == (tenant, "house")]
    own = [standing["target"]] if standing["kind"] == "conversation" else []
    found: list[dict[str, Any]] = []
    for row in (row for conversation in (*house, *own) for row in store.entries(conversation)):
        with contextlib.suppress(ValueError):
            entry = readable(row)
            fields = entry["fields"] or {}
            same = (fields.get("kind"), fields.get("target")) == (standing["kind"], standing["target"])
            if (entry["kind"] == Kind.CONTAINED and same) or (
                entry["kind"] == Kind.FAILED and "contained" in fields
            ):
                found.append(entry)
    return found


def _options(command: click.decorators.FC) -> click.decorators.FC:
    for decorate in reversed(
        (
            click.argument("conversation", required=False),
            click.option("--principal", help="A principal, by its name."),
            click.option(
                "--issuer",
                type=click.Choice(ISSUERS),
                help="Who vouches for the principal. Needed where Guard cannot tell.",
            ),
            click.option("--tool", help="A tool, by the server's own name for it."),
            click.option("--server", default="", help="The tool's server."),
            click.option("--all", "every", is_flag=True, help="Everything of the tenant."),
            tenant_option,
            home_option,
            json_option,
        )
    ):
        command = decorate(command)
    return command


@click.command(epilog=EPILOG)
@click.option("--list", "listing", is_flag=True, help="Show what is contained now, and why; change nothing.")
@_options
def contain(*, listing: bool, tenant: str, home: Path, as_json: bool, **named: Any) -> None:
    """Deny every call of a conversation, a principal or to a tool, from the next one on.

    CONVERSATION is an id that `guard lineage list` shows.
    """
    if listing:
        with opened(home) as (_, store):
            standing = [{**row, "why": why(store, tenant, row)} for row in store.contained(tenant)]
            lines = [
                f"{when(row['since'])}  {' '.join(filter(None, (row['kind'], row['target'])))}: {row['why']}"
                for row in standing
            ]
            emit(standing, lines or ["nothing is contained"], as_json=as_json)
        return
    what = What(**named)
    with opened(home) as (_, store):
        kind, target = what.kind(), what.target(store, tenant)
        fields = {"kind": kind, "target": target}
        record(store, Kind.CONTAINED, fields, Contain(kind, target), tenant=tenant)
        emit({"contained": kind, "target": target}, [f"contained: {what.told(target)}"], as_json=as_json)


@click.command(epilog=EPILOG)
@_options
def release(*, tenant: str, home: Path, as_json: bool, **named: Any) -> None:
    """Take a containment back. `guard contain --list` shows what stands."""
    what = What(**named)
    with opened(home) as (_, store):
        kind, target = what.kind(), what.target(store, tenant)
        fields = {"kind": kind, "target": target}
        record(store, Kind.RELEASED, fields, Release(kind, target), tenant=tenant)
        emit({"released": kind, "target": target}, [f"released: {what.told(target)}"], as_json=as_json)

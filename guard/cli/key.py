"""`guard key`, `guard jwks` and `guard issuer`: who may call, and what others check artifacts with."""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from guard.cli.shared import (
    EPILOG,
    emit,
    home_option,
    json_option,
    opened,
    tenant_option,
    told,
    when,
)
from guard.config.home import clock, open_home, record
from guard.identity.api_keys import ENTROPY_BYTES, ApiKeyRecord, mint
from guard.lineage.entry import Kind
from guard.lineage.store import RevokeKey, SaveKey

_PERIOD: Final = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@click.group(epilog=EPILOG)
def key() -> None:
    """Make, list and revoke API keys."""


@key.command(epilog=EPILOG)
@click.option("--principal", required=True, help="Whose key it is.")
@click.option("--role", required=True, help="The one role it has.")
@tenant_option
@click.option("--scope", "scopes", multiple=True, help="Narrow the role to these scopes; repeatable.")
@click.option("--expires", help="When it ends: a period (90d, 12h) or an RFC 3339 time. Default: never.")
@home_option
@json_option
def new(
    *,
    principal: str,
    role: str,
    tenant: str,
    scopes: tuple[str, ...],
    expires: str | None,
    home: Path,
    as_json: bool,
) -> None:
    """Make a key and print it, once. Only a hash of it is kept."""
    now = clock() // 1000
    end = None if expires is None else _end(expires, now)
    with opened(home, make=True) as (_, store):
        text, made = mint(
            os.urandom(ENTROPY_BYTES),
            tenant=tenant,
            principal=principal,
            role=role,
            scopes=frozenset(scopes) if scopes else None,
            created=now,
            expires=end,
        )
        about = _public(made)
        fields = {name: about[name] for name in ("key_id", "principal", "role", "scopes", "expires")}
        record(store, Kind.API_KEY, fields, SaveKey(made), tenant=tenant)
        emit({**_public(made), "key": text}, [text], as_json=as_json)
    if not as_json:
        click.echo("Keep it now, it is not shown again. Give it to Guard as GUARD_API_KEY.", err=True)


@key.command("list", epilog=EPILOG)
@click.option("--tenant", help="Only the keys of this tenant.")
@home_option
@json_option
def list_keys(*, tenant: str | None, home: Path, as_json: bool) -> None:
    """List keys; never their secrets."""
    with opened(home) as (_, store):
        records = [made for made in store.api_keys() if tenant in {None, made.tenant}]
        now = clock() // 1000
        lines = [
            f"{made.key_id}  {_state(made, now):8} {made.tenant}/{made.principal}  role {made.role}"
            f"  scopes {'(all of the role)' if made.scopes is None else ' '.join(sorted(made.scopes))}"
            f"  last used {'never' if made.last_used is None else when(made.last_used * 1000)}"
            for made in records
        ]
        emit([{**_public(made), "state": _state(made, now)} for made in records], lines, as_json=as_json)


@key.command(epilog=EPILOG)
@click.argument("key_id")
@tenant_option
@home_option
@json_option
def revoke(*, key_id: str, tenant: str, home: Path, as_json: bool) -> None:
    """End a key. It takes effect on the next call, in every process."""
    with opened(home) as (_, store):
        record(store, Kind.REVOKED, {"key_id": key_id}, RevokeKey(key_id), tenant=tenant)
        emit({"key_id": key_id, "state": "revoked"}, [f"revoked {key_id}"], as_json=as_json)


@click.command(epilog=EPILOG)
@home_option
def jwks(*, home: Path) -> None:
    """Print the key set that artifacts are checked with (RFC 7517)."""
    with told():
        emit(open_home(home, make=False).keys.jwks(), [], as_json=True)


@click.command(epilog=EPILOG)
@home_option
def issuer(*, home: Path) -> None:
    """Print this Guard's name: the `iss` of its artifacts."""
    with told():
        click.echo(open_home(home, make=False).name)


def _end(text: str, now: int) -> int:
    """UNIX seconds of a period from now, or of an RFC 3339 time."""
    if match := _PERIOD.fullmatch(text):
        return now + int(match[1]) * _SECONDS[match[2]]
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        click.echo(f"guard: --expires {text!r} is neither a period nor a time with an offset", err=True)
        click.echo("  next: write 90d, 12h or 2027-01-01T00:00:00Z", err=True)
        sys.exit(2)
    return int(found.astimezone(UTC).timestamp())


def _state(made: ApiKeyRecord, now: int) -> str:
    if made.revoked_at is not None:
        return "revoked"
    return "expired" if made.expires is not None and now >= made.expires else "valid"


def _public(made: ApiKeyRecord) -> dict[str, Any]:
    return {
        "key_id": made.key_id,
        "tenant": made.tenant,
        "principal": made.principal,
        "role": made.role,
        "scopes": None if made.scopes is None else sorted(made.scopes),
        "created": made.created,
        "expires": made.expires,
        "revoked_at": made.revoked_at,
        "last_used": made.last_used,
    }

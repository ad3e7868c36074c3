"""`guard store`: the shared store, a PostgreSQL database."""

from __future__ import annotations

from pathlib import Path

import click

from guard.cli.shared import EPILOG, emit, home_option, json_option, told
from guard.config.home import open_home
from guard.config.settings import SharedStore, load_settings
from guard.core.errors import GuardError, printable
from guard.lineage.postgres.address import Address, missing


@click.group(epilog=EPILOG)
def store() -> None:
    """Make and upgrade a store that several Guards share."""


@store.command(epilog=EPILOG)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take the store of this configuration, and the password that it names.",
)
@click.option("--role", default="", help="The role that Guard works as: it gets the rights that it needs.")
@json_option
@click.argument("url", required=False)
def upgrade(*, config: Path | None, role: str, url: str | None, as_json: bool) -> None:
    """Make a PostgreSQL database (15 or later) a store, or bring an older store up to this Guard.

    URL is that of the role that owns the store, postgresql://OWNER@HOST/DATABASE; libpq finds its
    password (PGPASSWORD, PGPASSFILE, ~/.pgpass). Guard itself should work as another role, which --role
    names: it may add to the record, and change or remove nothing in it. Safe to run again, and while Guard
    runs.
    """
    with told():
        address = _address(url, config)
        try:
            from guard.lineage.postgres import schema  # noqa: PLC0415 - for those who use it only
        except ImportError:
            raise missing(str(address)) from None
        before, after = schema.upgrade(address, role)
    what = "made" if not before else "as it was" if before == after else f"upgraded from format {before}"
    line = f"{address}: format {after}, {what}" + (f"; {role} may work with it" if role else "")
    emit({"store": str(address), "before": before, "format": after, "role": role}, [line], as_json=as_json)


@store.command(epilog=EPILOG)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, resolve_path=True),
    help="A file whose first line is the password.",
)
@click.option("--password-env", default="", help="The variable that holds the password.")
@home_option
@click.argument("url")
def use(*, password_file: Path | None, password_env: str, home: Path, url: str) -> None:
    """Let a home use the store at URL from now on, as `store` in a configuration does.

    For `guard run`, which has no configuration. The home must not have begun a record of its own.
    """
    with told():
        given = _given(url)
        address = Address(given.url, password_file, password_env)
        open_home(home).store(address=address).close()
        click.echo(f"{printable(str(home))} uses {address}")


def _given(url: str) -> SharedStore:
    try:
        return SharedStore(url=url)
    except ValueError:
        raise GuardError(
            "is no URL of a PostgreSQL database without a password",
            where="URL",
            remedy="write postgresql://USER@HOST/DATABASE, and say elsewhere what the password is",
        ) from None


def _address(url: str | None, config: Path | None) -> Address:
    if (url is None) == (config is None):
        raise click.UsageError("Give the URL of the database, or --config: one of the two.")
    if url is not None:
        return Address(_given(url).url)
    assert config is not None  # noqa: S101 - one of the two is
    address = load_settings(config).address
    if address is None:
        raise GuardError("names no store", where=str(config), remedy="write `store: postgresql://…` in it")
    return address

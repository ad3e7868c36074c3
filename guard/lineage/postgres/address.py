"""Where a shared store is, and how to get in. Nothing here needs the database's library until it connects."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from guard.core.errors import printable
from guard.lineage.database import StoreError

if TYPE_CHECKING:
    from guard.lineage.postgres.connection import Bounded

SCHEMES: Final = ("postgresql", "postgres")
_SECRET: Final = frozenset(
    {"password", "sslpassword", "passfile", "oauth_client_secret", "scram_client_key", "scram_server_key"}
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a shared store is, and how to get in.

    Attributes:
        url: `postgresql://[USER@][HOST][:PORT]/DATABASE[?…]`, any form that libpq takes.
        password_file: a file whose first line is the password; None for what libpq does by itself
            (PGPASSWORD, PGPASSFILE, ~/.pgpass).
        password_env: the variable that holds the password; "" for none.
        lax: commits do not wait for the disk. For benchmarks.
    """

    url: str = field(repr=False)
    password_file: Path | None = None
    password_env: str = ""
    lax: bool = False

    def __str__(self) -> str:
        """The address without any password."""
        return shown(self.url)

    def connect(self, *, patience: float, name: str = "guard", manual: bool = False) -> Bounded:
        """A new connection, in autocommit unless `manual`.

        Args:
            patience: seconds that an answer may take; 0 for as long as it takes.
            name: what the server's list of sessions shows.
            manual: whether transactions begin by themselves.

        Raises:
            psycopg.Error: it cannot be made.
            StoreError: the password's file cannot be read, the server is too old, or psycopg is missing.
        """
        try:
            from guard.lineage.postgres.connection import connect  # noqa: PLC0415 - for those who use it only
        except ImportError:
            raise missing(str(self)) from None
        return connect(self, patience=patience, name=name, manual=manual)

    def password(self) -> str | None:
        """The password, None where libpq is to find one. Raises StoreError."""
        if self.password_env:
            if self.password_env not in os.environ:
                name = printable(self.password_env)
                what = f"the environment has no variable {name}"
                raise StoreError(what, where=str(self), remedy=f"set {name} where Guard is started")
            return os.environ[self.password_env]
        if self.password_file is None:
            return None
        try:
            lines = self.password_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            where = printable(str(self.password_file))
            raise StoreError("the password's file cannot be read", where=where) from None
        return lines[0] if lines else ""


def missing(where: str) -> StoreError:
    """What is told where the libraries are not installed."""
    return StoreError(
        "this installation cannot use PostgreSQL",
        where=where,
        remedy="pip install 'guard-mcp[postgres]'",
    )


def shown(url: str) -> str:
    """A URL as it may be shown: without a password, wherever libpq takes one."""
    try:
        if _hides_credentials(url):
            return "postgresql://…"
        parts = urlsplit(url)
        who, at, place = parts.netloc.rpartition("@")
        query = "&".join(part for part in parts.query.split("&") if "=" in part and not _is_secret(part))
        clean = parts._replace(netloc=f"{who.partition(':')[0]}{at}{place}", query=query, fragment="")
        return printable(urlunsplit(clean))
    except ValueError:
        return "postgresql://…"


def holds_secret(url: str) -> bool:
    """Whether a password stands in the URL itself, or may. Raises ValueError: it is no URL."""
    parts = urlsplit(url)
    who, _, _ = parts.netloc.rpartition("@")
    return ":" in who or _hides_credentials(url) or any(map(_is_secret, parts.query.split("&")))


def _hides_credentials(url: str) -> bool:
    """Whether an `@` stands where URLs (RFC 3986, section 3.2) have none, and libpq or a person may see one.

    libpq ends credentials at the first `@` before a `/`, whatever `?` and `#` stand before it.
    """
    _, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    misplaced = "@" in place and bool({"?", "#"} & set(place[: place.rindex("@")]))
    return misplaced or bool(slash and "@" in path.partition("?")[0])


def _is_secret(part: str) -> bool:
    return unquote(part.partition("=")[0]).lower() in _SECRET

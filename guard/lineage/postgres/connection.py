"""Connections to the shared store: how long each may take, and what nobody is shown.

Every wait ends: for the connection, for an answer, for a lock. A server that stopped answering without
closing, or a network that drops everything, is found out by this side's own clock.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from guard.core.errors import GuardError, printable
from guard.lineage.database import StoreError
from guard.lineage.postgres.address import Address as Address  # noqa: PLC0414 - handed on

CONNECT_SECONDS: Final = 2
"""libpq takes no less."""
OLDEST: Final = 150000
"""PostgreSQL 15."""
_SESSION: Final = (
    "SET search_path = guard, pg_temp",
    "SET TIME ZONE 'UTC'",
    "SET default_transaction_isolation = 'read committed'",
    "SET default_transaction_read_only = off",
    # Durable before dispatch, whatever the role's or the server's own default says.
    """SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')
        WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)""",
    # The server finds out as soon as this side does that the other end is gone: it holds locks for it.
    "SET tcp_keepalives_idle = 5",
    "SET tcp_keepalives_interval = 2",
    "SET tcp_keepalives_count = 3",
    "SET tcp_user_timeout = 10000",
    "SET client_connection_check_interval = 2000",
    "SET idle_session_timeout = 0",  # a session is a lease, or hears what moves
    # Statistics of tables that grow from nothing are never new enough: every look-up has its index.
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET jit = off",
)
Connection = psycopg.Connection[Any]


class Bounded(psycopg.Connection[Any]):
    """A connection of which no answer is awaited for longer than its patience.

    Attributes:
        patience: seconds; 0 for as long as it takes.
    """

    patience: float = 0.0

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's. Raises OperationalError after `patience`; the connection is then closed."""
        if timeout is not None or not self.patience:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.patience)
        except errors._WaitTimeout:  # noqa: SLF001 - there is no other name for it
            self.pgconn.finish()
            raise errors.OperationalError(f"no answer within {self.patience:g} s") from None


def connect(address: Address, *, patience: float, name: str, manual: bool) -> Bounded:
    """As `Address.connect`."""
    milliseconds = int(patience * 1000)
    given: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": name,
        "client_encoding": "utf8",
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
    }
    if milliseconds:
        given["tcp_user_timeout"] = milliseconds
    if _is_on_one_of_many(address.url):
        given["target_session_attrs"] = "read-write"
    if (password := address.password()) is not None:
        given["password"] = password
    db = Bounded.connect(make_conninfo(address.url, **given), autocommit=True)
    try:
        _check_version(db.info.server_version, address)
        db.patience = patience
        session = [*_SESSION, f"SET statement_timeout = {milliseconds}"]
        if address.lax:
            session.append("SET synchronous_commit = off")
        db.execute("; ".join(session).encode())
        db.autocommit = not manual
    except BaseException:
        db.close()
        raise
    return db


def _is_on_one_of_many(url: str) -> bool:
    """Whether several hosts are named, and not which of them is wanted: never one that only reads."""
    named = conninfo_to_dict(url)
    return "," in str(named.get("host") or "") and "target_session_attrs" not in named


def again(address: Address, *, patience: float, name: str, known: bool) -> Bounded:
    """As `Address.connect`; what is wrong on this side is a lost connection too, where there was one before.

    A password's file that is being written anew must not stop a replica for ever. At the start it is told.
    """
    try:
        return address.connect(patience=patience, name=name)
    except StoreError as error:
        if not known:
            raise
        raise errors.OperationalError(error.what) from None


def _check_version(version: int, address: Address) -> None:
    if version < OLDEST:
        what = f"the server is PostgreSQL {version // 10000}"
        raise StoreError(what, where=str(address), remedy="use version 15 or later")


def reason(error: BaseException) -> str:
    """What a database's error says, on one line; no statement and no value of the store is in it."""
    if isinstance(error, GuardError):
        return error.what
    diagnosed = getattr(error, "diag", None)
    text = (diagnosed.message_primary if diagnosed else None) or str(error) or type(error).__name__
    return printable(" ".join(text.split()))[:400]

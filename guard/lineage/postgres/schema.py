"""The schema of the shared store: which format a database has, and what makes it this Guard's.

Alembic keeps the format in `guard.format` and takes the steps (migrations/steps) in order, all in one
transaction. Two roles: the owner, who upgrades, and the one that Guard works as, which may insert, read,
and change only what it must. Without a second role the traps alone keep the log's rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy.pool import NullPool

from guard.core.errors import printable
from guard.lineage.database import StoreError
from guard.lineage.postgres.connection import Address, reason

SCHEMA: Final = "guard"
VERSION_TABLE: Final = "format"
FORMAT: Final = "2"
"""The step that this Guard was written for."""
KNOWN: Final = ("1", "2")
"""Every step, in order."""
_COMMAND: Final = "guard store upgrade"
_ONE_AT_A_TIME: Final = 0x6775617264_00_00_00
"""Key of the advisory lock that an upgrade holds: "guard" and three zero bytes."""
APPENDED: Final = ("entries", "payloads", "nodes")
CHANGED: Final[dict[str, str]] = {
    "inbox": "SELECT, INSERT, DELETE",
    "heads": "SELECT, INSERT, UPDATE",
    "chains": "SELECT, INSERT, UPDATE",
    "sequencer": "SELECT, UPDATE",
    "conversations": "SELECT, INSERT, UPDATE (sealed)",
    "versions": "SELECT, INSERT, UPDATE (version)",
    "moves": "SELECT, UPDATE",
    "open_grants": "SELECT, INSERT, UPDATE (instance), DELETE",
    "contained": "SELECT, INSERT, DELETE",
    "policies": "SELECT, INSERT, UPDATE (version, sha256)",
    "pins": "SELECT, INSERT, DELETE",
    "api_keys": "SELECT, INSERT, UPDATE (revoked, last_used)",
    "settings": "SELECT, INSERT, UPDATE (value)",
    "reservations": "SELECT, INSERT, UPDATE (amount, until, held), DELETE",
    "memories": "SELECT, INSERT, UPDATE (version, size, lost, until)",
    "seen": "SELECT, INSERT, UPDATE (trust, field, until), DELETE",
    "questions": "SELECT, INSERT, UPDATE (state, answered_by, word), DELETE",
    "used_jti": "SELECT, INSERT, UPDATE (until), DELETE",
    "artifact_keys": "SELECT, INSERT, UPDATE, DELETE",
    "instances": "SELECT, INSERT, DELETE",
    "writers": "SELECT, INSERT, UPDATE, DELETE",
    VERSION_TABLE: "SELECT",
}
"""What the role that Guard works as may do with each table; with APPENDED it may only read and insert."""


def upgrade(address: Address, role: str = "") -> tuple[str, str]:
    """Make a database a store, or an older store one of this format.

    Args:
        address: of somebody who may create a schema in it, and owns the store's tables if they stand.
        role: a role that is to work with it, besides the owner; "" for none.

    Returns: the format before ("" for none) and after.

    Raises:
        StoreError: it cannot be reached, is newer than this Guard, is owned by somebody else, or the role is
            missing or could undo what is kept from it.
    """
    try:
        with address.connect(patience=0) as held:
            held.execute("SELECT pg_advisory_lock(%s)", (_ONE_AT_A_TIME,))
            before = found(held)
            if before not in {"", *KNOWN}:
                raise _newer(address, before)
            held.execute("CREATE SCHEMA IF NOT EXISTS guard")
            _be_owner(held, address)
            _take_steps(address)
            if role:
                _grant(held, role)
            return before, found(held)
    except psycopg.Error as error:
        raise StoreError(f"cannot be upgraded: {reason(error)}", where=str(address)) from None


def check(db: psycopg.Connection, address: Address) -> None:
    """Raises StoreError: the database has no store, or one of another format; it says what to run."""
    has = found(db)
    if has == FORMAT:
        return
    if has and has not in KNOWN:
        raise _newer(address, has)
    what = f"the store has format {has}, this Guard needs {FORMAT}" if has else "there is no store yet"
    raise StoreError(what, where=str(address), remedy=f"{_COMMAND}, as the role that owns the database")


def found(db: psycopg.Connection) -> str:
    """The format of a database; "" for none."""
    row = db.execute("SELECT to_regclass('guard.format') IS NOT NULL").fetchone()
    if row is None or not row[0]:
        return ""
    row = db.execute("SELECT version_num FROM guard.format").fetchone()
    return "" if row is None else str(row[0])


def _newer(address: Address, has: str) -> StoreError:
    return StoreError(
        f"the store has format {printable(has)}, this Guard knows {FORMAT} and older",
        where=str(address),
        remedy="use a newer Guard: the store is not changed back",
    )


def _take_steps(address: Address, last: str = "head") -> None:
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: address.connect(patience=0, manual=True), poolclass=NullPool
    )
    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("version_locations", str(folder / "steps").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, last)
        connection.commit()


def _be_owner(db: psycopg.Connection, address: Address) -> None:
    """Raises StoreError: the schema, or what stands in it, is another's, who may do anything with it."""
    row = db.execute(
        "SELECT n.nspowner = r.oid AND NOT EXISTS"
        " (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relowner <> r.oid)"
        " FROM pg_namespace n, pg_roles r WHERE n.nspname = 'guard' AND r.rolname = current_user"
    ).fetchone()
    if row is None or not row[0]:
        raise StoreError(
            "the schema `guard` there, or a table in it, is another role's",
            where=str(address),
            remedy="upgrade as the role that owns all of it; if nobody uses it, remove it",
        )


def _power(db: psycopg.Connection, role: str) -> str | None:
    """What a role may that Guard's own must not: words for a person, None for nothing."""
    row = db.execute(
        "SELECT CASE WHEN r.rolsuper THEN 'is a superuser'"
        " WHEN r.rolcreaterole THEN 'may make itself a member of any role'"
        " WHEN EXISTS (SELECT FROM pg_roles p WHERE p.rolname IN"
        " ('pg_write_all_data', 'pg_execute_server_program', 'pg_write_server_files')"
        " AND pg_has_role(r.oid, p.oid, 'MEMBER')) THEN 'may write everywhere'"
        " WHEN pg_has_role(r.oid, n.nspowner, 'MEMBER') THEN 'is, or may become, the owner of the store'"
        " WHEN pg_has_role(r.oid, d.datdba, 'MEMBER') THEN 'is, or may become, the owner of the database'"
        " END FROM pg_roles r, pg_namespace n, pg_database d"
        " WHERE r.rolname = %s AND n.nspname = 'guard' AND d.datname = current_database()",
        (role,),
    ).fetchone()
    return str(row[0]) if row and row[0] else None


def _grant(db: psycopg.Connection, role: str) -> None:
    """What the role may do, and nothing else: what it had before is taken first."""
    known = db.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    if known is None:
        raise StoreError(
            f"there is no role {printable(role)}",
            where="--role",
            remedy="make it first, with CREATE ROLE … LOGIN",
        )
    if (power := _power(db, role)) is not None:
        raise StoreError(
            f"the role {printable(role)} {power}: it could change what Guard recorded",
            where="--role",
            remedy="make another for Guard, with CREATE ROLE … LOGIN and nothing more",
        )
    name = sql.Identifier(role)
    rights = dict.fromkeys(APPENDED, "SELECT, INSERT") | CHANGED
    with db.transaction():
        for what in ("SCHEMA guard", "ALL TABLES IN SCHEMA guard", "ALL SEQUENCES IN SCHEMA guard"):
            db.execute(sql.SQL("REVOKE ALL ON {} FROM PUBLIC, {}").format(sql.SQL(what), name))
        db.execute(sql.SQL("GRANT USAGE ON SCHEMA guard TO {}").format(name))
        for table, may in rights.items():
            statement = sql.SQL("GRANT {} ON guard.{} TO {}")
            db.execute(statement.format(sql.SQL(may), sql.Identifier(table), name))

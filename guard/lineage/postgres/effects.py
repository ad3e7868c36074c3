"""What is rare of what a transaction does, in the shared store: each effect's obstacle, and its SQL.

All of it happens under the exclusive lock of its tenant: no grant of the tenant is being committed, so
that a version which moved is never passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import orjson

from guard.core.model import PolicyRef
from guard.identity.api_keys import ApiKeyRecord
from guard.lineage.effects import KEY_COLUMNS, Rare, key_record
from guard.lineage.postgres.connection import Connection
from guard.lineage.store import (
    CONTAINMENT,
    REVOCATION,
    Contain,
    Release,
    RevokeKey,
    SaveKey,
    SavePins,
    SavePolicy,
    SaveSetting,
    Seal,
    pins_version,
)

CHANNEL = "guard_moved"
"""Where replicas hear that something moved; the payload is the tenant."""


def versions(db: Connection, tenant: str) -> Mapping[str, int]:
    """Every version that ever moved; any other is 0."""
    return dict(db.execute("SELECT key, version FROM versions WHERE tenant = %s", (tenant,)).fetchall())


def _one(db: Connection, sql: str, *values: Any) -> Any:
    return db.execute(sql.encode(), values).fetchone()


def obstacle(db: Connection, tenant: str, effect: Rare) -> str:
    """Why an effect cannot be, "" if it can. The texts are those of the embedded store."""
    match effect:
        case Contain(kind, target):
            known = "SELECT 1 FROM conversations WHERE tenant = %s AND id = %s"
            if kind == "conversation" and not _one(db, known, tenant, target):
                return f"there is no conversation {target}; `guard lineage list` shows them"
            return ""
        case Release(kind, target):
            standing = "SELECT 1 FROM contained WHERE tenant = %s AND kind = %s AND target = %s"
            is_standing = _one(db, standing, tenant, kind, target)
            return "" if is_standing else f"the {kind} {target} is not contained"
        case RevokeKey(key_id):
            record = read_key(db, key_id)
            if record is None or record.tenant != tenant:
                return f"there is no key {key_id}"
            return "" if record.revoked_at is None else f"the key {key_id} is revoked already"
        case SavePolicy():
            return _older_policy(db, tenant, effect)
        case SaveKey(record):
            return f"there is a key {record.key_id} already" if read_key(db, record.key_id) else ""
        case Seal() | SavePins() | SaveSetting():  # whether a seal can be, the batch knows
            return ""
        case _:
            assert_never(effect)


def _older_policy(db: Connection, tenant: str, policy: SavePolicy) -> str:
    row = _one(db, "SELECT version, sha256 FROM policies WHERE tenant = %s AND id = %s", tenant, policy.id)
    if row is None or policy.version > row[0]:
        return ""
    if policy.version < row[0]:
        return f"policy {policy.id} is at version {row[0]}, version {policy.version} is older"
    return "" if policy.sha256 == row[1] else f"policy {policy.id} version {row[0]} had other bytes"


def apply(db: Connection, tenant: str, effect: Rare, at: int) -> None:
    """Write an effect whose obstacle was "". `at` is UNIX milliseconds."""
    match effect:
        case Contain(kind, target):
            sql = "INSERT INTO contained VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING"
            db.execute(sql, (tenant, kind, target, at))
            _bump(db, tenant, CONTAINMENT)
        case Release(kind, target):
            sql = "DELETE FROM contained WHERE tenant = %s AND kind = %s AND target = %s"
            db.execute(sql, (tenant, kind, target))
            _bump(db, tenant, CONTAINMENT)
        case Seal(conversation):
            db.execute("UPDATE conversations SET sealed = %s WHERE id = %s", (at, conversation))
            _bump(db, tenant, CONTAINMENT)
        case SavePolicy():
            _save_policy(db, tenant, effect)
        case SavePins():
            _save_pins(db, tenant, effect)
        case SaveKey(record):
            _save_key(db, record)
        case RevokeKey(key_id):
            db.execute("UPDATE api_keys SET revoked = %s WHERE key_id = %s", (at // 1000, key_id))
            _bump(db, tenant, REVOCATION)
        case SaveSetting(key, value):
            sql = (
                "INSERT INTO settings VALUES (%s, %s, %s)"
                " ON CONFLICT (tenant, key) DO UPDATE SET value = excluded.value"
            )
            db.execute(sql, (tenant, key, value))
        case _:
            assert_never(effect)


def tell(db: Connection, tenants: list[str]) -> None:
    """Last of what a transaction does: every replica learns of it once it is committed.

    The row of `moves` is held until then, so that whoever sees its number sees all that it counts.
    """
    db.execute("UPDATE moves SET moves = moves + 1")
    db.execute("SELECT pg_notify(%s, t) FROM unnest(%s::text[]) AS t", (CHANNEL, tenants))


def _bump(db: Connection, tenant: str, key: str) -> None:
    db.execute(
        "INSERT INTO versions AS v VALUES (%s, %s, 1)"
        " ON CONFLICT (tenant, key) DO UPDATE SET version = v.version + 1",
        (tenant, key),
    )


def _save_policy(db: Connection, tenant: str, policy: SavePolicy) -> None:
    db.execute(
        "INSERT INTO policies VALUES (%s, %s, %s, %s) ON CONFLICT (tenant, id)"
        " DO UPDATE SET version = excluded.version, sha256 = excluded.sha256",
        (tenant, policy.id, policy.version, policy.sha256),
    )
    db.execute(
        "INSERT INTO versions VALUES (%s, %s, %s)"
        " ON CONFLICT (tenant, key) DO UPDATE SET version = excluded.version",
        (tenant, PolicyRef(policy.id, policy.version, policy.sha256).versioned, policy.version),
    )


def _save_pins(db: Connection, tenant: str, saved: SavePins) -> None:
    db.execute("DELETE FROM pins WHERE tenant = %s AND server = %s", (tenant, saved.server))
    for position, (name, sha256, definition) in enumerate(saved.pins):
        db.execute(
            "INSERT INTO pins VALUES (%s, %s, %s, %s, %s, %s)",
            (tenant, saved.server, name, position, sha256, definition),
        )
    _bump(db, tenant, pins_version(saved.server))


def _save_key(db: Connection, record: ApiKeyRecord) -> None:
    scopes = None if record.scopes is None else orjson.dumps(sorted(record.scopes)).decode()
    db.execute(
        f"INSERT INTO api_keys ({KEY_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)".encode(),  # noqa: S608
        (
            record.key_id,
            record.secret_sha256,
            record.tenant,
            record.principal,
            record.role,
            scopes,
            record.created,
            record.expires,
            record.revoked_at,
            record.last_used,
        ),
    )


def read_key(db: Connection, key_id: str) -> ApiKeyRecord | None:
    """The record of a key, None where there is none."""
    row = _one(db, f"SELECT {KEY_COLUMNS} FROM api_keys WHERE key_id = %s", key_id)  # noqa: S608 - a constant
    return key_record(row) if row else None


def read_keys(db: Connection) -> list[ApiKeyRecord]:
    """Every key, in the order of their making."""
    rows = db.execute(f"SELECT {KEY_COLUMNS} FROM api_keys ORDER BY created, key_id".encode())  # noqa: S608
    return [key_record(row) for row in rows]

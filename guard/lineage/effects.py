"""What is rare of what a transaction does beside appending: each effect's obstacle, and its SQL.

What every call does is in `batch`.

`obstacle` is asked for every effect before anything is written, so that a refused transaction
leaves no trace in its batch.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final, assert_never

import orjson

from guard.core.canonical import canonical
from guard.core.model import PolicyRef
from guard.identity.api_keys import ApiKeyRecord
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


def principal_target(issuer: str, subject: str) -> str:
    """How a containment names a principal: no two principals share the text."""
    return canonical([issuer, subject]).decode()


def tool_target(server: str, name: str) -> str:
    """How a containment names a tool."""
    return canonical([server, name]).decode()


Rare = Contain | Release | Seal | RevokeKey | SavePolicy | SavePins | SaveKey | SaveSetting
"""What `batch` does not gather."""


def versions(db: sqlite3.Connection, tenant: str) -> dict[str, int]:
    """Every version that ever moved; any other is 0."""
    rows = db.execute("SELECT key, version FROM versions WHERE tenant = ?", (tenant,))
    return dict(rows.fetchall())


def _bump(db: sqlite3.Connection, tenant: str, key: str) -> None:
    db.execute(
        "INSERT INTO versions VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET version = version + 1",
        (tenant, key),
    )


def _exists(db: sqlite3.Connection, sql: str, *values: Any) -> bool:
    return db.execute(sql, values).fetchone() is not None


def obstacle(db: sqlite3.Connection, tenant: str, effect: Rare) -> str:
    """Why an effect cannot be, "" if it can."""
    match effect:
        case Contain(kind, target):
            return _cannot_contain(db, tenant, kind, target)
        case Release(kind, target):
            standing = _is_contained(db, tenant, kind, target)
            return "" if standing else f"the {kind} {target} is not contained"
        case RevokeKey(key_id):
            return _cannot_revoke(db, tenant, key_id)
        case SavePolicy():
            return _older_policy(db, tenant, effect)
        case SaveKey(record):
            return f"there is a key {record.key_id} already" if read_key(db, record.key_id) else ""
        case Seal() | SavePins() | SaveSetting():  # whether a seal can be, `batch` knows
            return ""
        case _:
            assert_never(effect)


def _cannot_contain(db: sqlite3.Connection, tenant: str, kind: str, target: str) -> str:
    known = "SELECT 1 FROM conversations WHERE tenant = ? AND id = ?"
    if kind == "conversation" and not _exists(db, known, tenant, target):
        return f"there is no conversation {target}; `guard lineage list` shows them"
    return ""


def _cannot_revoke(db: sqlite3.Connection, tenant: str, key_id: str) -> str:
    record = read_key(db, key_id)
    if record is None or record.tenant != tenant:
        return f"there is no key {key_id}"
    return "" if record.revoked_at is None else f"the key {key_id} is revoked already"


def stands(db: sqlite3.Connection, tenant: str, what: Contain) -> bool:
    """Whether it is out of use."""
    return _is_contained(db, tenant, what.kind, what.target)


def _is_contained(db: sqlite3.Connection, tenant: str, kind: str, target: str) -> bool:
    return _exists(
        db, "SELECT 1 FROM contained WHERE tenant = ? AND kind = ? AND target = ?", tenant, kind, target
    )


def _older_policy(db: sqlite3.Connection, tenant: str, policy: SavePolicy) -> str:
    row = db.execute(
        "SELECT version, sha256 FROM policies WHERE tenant = ? AND id = ?", (tenant, policy.id)
    ).fetchone()
    if row is None or policy.version > row[0]:
        return ""
    if policy.version < row[0]:
        return f"policy {policy.id} is at version {row[0]}, version {policy.version} is older"
    return "" if policy.sha256 == row[1] else f"policy {policy.id} version {row[0]} had other bytes"


def _save_policy(db: sqlite3.Connection, tenant: str, policy: SavePolicy) -> None:
    values = (tenant, policy.id, policy.version, policy.sha256)
    db.execute("INSERT OR REPLACE INTO policies VALUES (?, ?, ?, ?)", values)
    db.execute(
        "INSERT OR REPLACE INTO versions VALUES (?, ?, ?)",
        (tenant, PolicyRef(policy.id, policy.version, policy.sha256).versioned, policy.version),
    )


def _save_pins(db: sqlite3.Connection, tenant: str, saved: SavePins) -> None:
    db.execute("DELETE FROM pins WHERE tenant = ? AND server = ?", (tenant, saved.server))
    db.executemany(
        "INSERT INTO pins VALUES (?, ?, ?, ?, ?, ?)",
        [
            (tenant, saved.server, name, position, sha256, definition)
            for position, (name, sha256, definition) in enumerate(saved.pins)
        ],
    )
    _bump(db, tenant, pins_version(saved.server))


def apply(db: sqlite3.Connection, tenant: str, effect: Rare, at: int) -> None:
    """Write an effect whose obstacle was "". `at` is UNIX milliseconds."""
    match effect:
        case Contain(kind, target):
            db.execute("INSERT OR IGNORE INTO contained VALUES (?, ?, ?, ?)", (tenant, kind, target, at))
            _bump(db, tenant, CONTAINMENT)
        case Release(kind, target):
            db.execute(
                "DELETE FROM contained WHERE tenant = ? AND kind = ? AND target = ?",
                (tenant, kind, target),
            )
            _bump(db, tenant, CONTAINMENT)
        case Seal(conversation):
            db.execute("UPDATE conversations SET sealed = ? WHERE id = ?", (at, conversation))
            _bump(db, tenant, CONTAINMENT)
        case SavePolicy():
            _save_policy(db, tenant, effect)
        case SavePins():
            _save_pins(db, tenant, effect)
        case SaveKey(record):
            _save_key(db, record)
        case RevokeKey(key_id):
            db.execute("UPDATE api_keys SET revoked = ? WHERE key_id = ?", (at // 1000, key_id))
            _bump(db, tenant, REVOCATION)
        case SaveSetting(key, value):
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", (tenant, key, value))
        case _:
            assert_never(effect)


KEY_COLUMNS: Final = (
    "key_id, secret_sha256, tenant, principal, role, scopes, created, expires, revoked, last_used"
)


def _save_key(db: sqlite3.Connection, record: ApiKeyRecord) -> None:
    scopes = None if record.scopes is None else orjson.dumps(sorted(record.scopes)).decode()
    db.execute(
        f"INSERT INTO api_keys ({KEY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
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


def key_record(row: tuple[Any, ...]) -> ApiKeyRecord:
    """A row of KEY_COLUMNS."""
    key_id, secret, tenant, principal, role, scopes, created, expires, revoked, used = row
    return ApiKeyRecord(
        key_id=key_id,
        secret_sha256=secret,
        tenant=tenant,
        principal=principal,
        role=role,
        scopes=None if scopes is None else frozenset(orjson.loads(scopes)),
        created=created,
        expires=expires,
        revoked_at=revoked,
        last_used=used,
    )


def read_key(db: sqlite3.Connection, key_id: str) -> ApiKeyRecord | None:
    """The record of a key, None where there is none."""
    row = db.execute(
        f"SELECT {KEY_COLUMNS} FROM api_keys WHERE key_id = ?",  # noqa: S608 - a constant
        (key_id,),
    ).fetchone()
    return key_record(row) if row else None


def read_keys(db: sqlite3.Connection) -> list[ApiKeyRecord]:
    """Every key, in the order of their making."""
    rows = db.execute(f"SELECT {KEY_COLUMNS} FROM api_keys ORDER BY created, key_id")  # noqa: S608 - a constant
    return [key_record(row) for row in rows]

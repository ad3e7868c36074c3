"""The tables of the embedded store. Every key begins with the tenant, or with the log."""

from collections.abc import Mapping
from typing import Final

SCHEMA_VERSION: Final = 3

_HELD: Final = "held INTEGER NOT NULL DEFAULT 0"
_RESERVATIONS: Final = (
    # What grants took from counters: `until` says when a row may be deleted, and nothing else.
    """CREATE TABLE reservations (
        tenant TEXT NOT NULL, counter TEXT NOT NULL, at INTEGER NOT NULL, call TEXT NOT NULL,
        amount INTEGER NOT NULL, until INTEGER NOT NULL,
        PRIMARY KEY (tenant, counter, at, call)) WITHOUT ROWID""",
    "CREATE INDEX taken_by ON reservations (tenant, call)",
    "CREATE INDEX lapsing ON reservations (until)",
)
_SEEN: Final = (
    # What memories hold: `size` counts those in `seen`; not whole until `lost`; nothing of it counts from
    # `until` on. A trust is 0 for untrusted, 1 for mixed, 2 for trusted.
    """CREATE TABLE memories (
        tenant TEXT NOT NULL, memory TEXT NOT NULL, version INTEGER NOT NULL, size INTEGER NOT NULL,
        lost INTEGER NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (tenant, memory)) WITHOUT ROWID""",
    "CREATE INDEX over ON memories (until) WHERE size > 0",
    """CREATE TABLE seen (
        tenant TEXT NOT NULL, memory TEXT NOT NULL, fingerprint BLOB NOT NULL, source TEXT NOT NULL,
        trust INTEGER NOT NULL, field TEXT NOT NULL, until INTEGER NOT NULL,
        PRIMARY KEY (tenant, memory, fingerprint, source)) WITHOUT ROWID""",
    "CREATE INDEX fading ON seen (tenant, memory, until)",
)
_QUESTIONS: Final = (
    # What people were asked: void from `until` on, kept a while longer.
    """CREATE TABLE questions (
        tenant TEXT NOT NULL, id TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL,
        digest TEXT NOT NULL, rules TEXT NOT NULL, approver TEXT NOT NULL, until INTEGER NOT NULL,
        shown BLOB NOT NULL, asked INTEGER NOT NULL, state TEXT NOT NULL,
        answered_by TEXT NOT NULL, word TEXT NOT NULL, PRIMARY KEY (tenant, id)) WITHOUT ROWID""",
    "CREATE INDEX asked_of ON questions (tenant, digest)",
    "CREATE INDEX standing ON questions (tenant, until)",
)
_CLOSED: Final = "CREATE INDEX closed ON conversations (tenant) WHERE sealed != 0"

SCHEMA: Final = (
    # The log: leaves, what opens them, the complete subtrees above them, and the head.
    """CREATE TABLE entries (
        log INTEGER NOT NULL, idx INTEGER NOT NULL,
        conversation TEXT NOT NULL, seq INTEGER NOT NULL,
        hash BLOB NOT NULL, leaf BLOB NOT NULL,
        PRIMARY KEY (log, idx)) WITHOUT ROWID""",
    "CREATE UNIQUE INDEX chain ON entries (conversation, seq)",
    """CREATE TABLE payloads (
        log INTEGER NOT NULL, idx INTEGER NOT NULL, disclosures BLOB NOT NULL,
        PRIMARY KEY (log, idx)) WITHOUT ROWID""",
    """CREATE TABLE nodes (
        log INTEGER NOT NULL, level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL,
        PRIMARY KEY (log, level, idx)) WITHOUT ROWID""",
    """CREATE TABLE heads (
        log INTEGER PRIMARY KEY, origin TEXT NOT NULL, size INTEGER NOT NULL,
        peaks BLOB NOT NULL, at INTEGER NOT NULL, checkpoint TEXT NOT NULL)""",
    """CREATE TABLE conversations (
        id TEXT NOT NULL UNIQUE,
        tenant TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL, given TEXT NOT NULL,
        source TEXT NOT NULL, entries INTEGER NOT NULL, head BLOB NOT NULL, opened INTEGER NOT NULL,
        sealed INTEGER NOT NULL DEFAULT 0,
        UNIQUE (tenant, issuer, subject, given))""",
    _CLOSED,
    # What decisions rest on: versions that step 6 compares, and the state behind them.
    """CREATE TABLE versions (
        tenant TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL,
        PRIMARY KEY (tenant, key)) WITHOUT ROWID""",
    """CREATE TABLE open_grants (
        tenant TEXT NOT NULL, call TEXT NOT NULL, conversation TEXT NOT NULL, instance TEXT NOT NULL,
        PRIMARY KEY (tenant, call)) WITHOUT ROWID""",
    """CREATE TABLE contained (
        tenant TEXT NOT NULL, kind TEXT NOT NULL, target TEXT NOT NULL, since INTEGER NOT NULL,
        PRIMARY KEY (tenant, kind, target)) WITHOUT ROWID""",
    """CREATE TABLE policies (
        tenant TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, sha256 TEXT NOT NULL,
        PRIMARY KEY (tenant, id)) WITHOUT ROWID""",
    """CREATE TABLE pins (
        tenant TEXT NOT NULL, server TEXT NOT NULL, name TEXT NOT NULL,
        position INTEGER NOT NULL, sha256 TEXT NOT NULL, definition BLOB NOT NULL,
        PRIMARY KEY (tenant, server, name)) WITHOUT ROWID""",
    """CREATE TABLE api_keys (
        tenant TEXT NOT NULL, key_id TEXT NOT NULL UNIQUE, secret_sha256 TEXT NOT NULL,
        principal TEXT NOT NULL, role TEXT NOT NULL, scopes TEXT,
        created INTEGER NOT NULL, expires INTEGER, revoked INTEGER, last_used INTEGER,
        PRIMARY KEY (tenant, key_id)) WITHOUT ROWID""",
    """CREATE TABLE settings (
        tenant TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
        PRIMARY KEY (tenant, key)) WITHOUT ROWID""",
    *_RESERVATIONS,
    f"ALTER TABLE reservations ADD COLUMN {_HELD}",
    *_SEEN,
    *_QUESTIONS,
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

UPGRADES: Final[Mapping[int, tuple[str, ...]]] = {
    1: (
        *_RESERVATIONS,
        "ALTER TABLE conversations ADD COLUMN sealed INTEGER NOT NULL DEFAULT 0",
        _CLOSED,
        "PRAGMA user_version = 2",
    ),
    2: (
        f"ALTER TABLE reservations ADD COLUMN {_HELD}",
        *_SEEN,
        *_QUESTIONS,
        "PRAGMA user_version = 3",
    ),
}
"""What makes a file of an older format one of the next. Nothing of the log's own rows changes in it."""

"""Step 1: every table, what may never be changed in them, and the traps that see to it."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "1"
down_revision = None
branch_labels = None
depends_on = None

TABLES: Final = (
    # Who is owed which entries: durable here before anything is dispatched, then moved into the log.
    """CREATE TABLE guard.inbox (
        ticket bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        conversation text NOT NULL, at bigint NOT NULL, kind text NOT NULL, call text NOT NULL,
        digests text[] NOT NULL, disclosures bytea NOT NULL)""",
    "CREATE INDEX inbox_conversation ON guard.inbox (conversation)",
    """ALTER TABLE guard.inbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0)""",
    # The log: leaves, what opens them, the complete subtrees above them, and the head.
    """CREATE TABLE guard.entries (
        log integer NOT NULL, idx bigint NOT NULL, conversation text NOT NULL, seq bigint NOT NULL,
        hash bytea NOT NULL, leaf bytea NOT NULL, ticket bigint NOT NULL UNIQUE,
        PRIMARY KEY (log, idx), UNIQUE (conversation, seq))""",
    """CREATE TABLE guard.payloads (
        log integer NOT NULL, idx bigint NOT NULL, disclosures bytea NOT NULL, PRIMARY KEY (log, idx))""",
    """CREATE TABLE guard.nodes (
        log integer NOT NULL, level integer NOT NULL, idx bigint NOT NULL, hash bytea NOT NULL,
        PRIMARY KEY (log, level, idx))""",
    """CREATE TABLE guard.heads (
        log integer PRIMARY KEY, origin text NOT NULL, size bigint NOT NULL, peaks bytea NOT NULL,
        at bigint NOT NULL, checkpoint text NOT NULL)""",
    """CREATE TABLE guard.chains (
        conversation text PRIMARY KEY, entries bigint NOT NULL, head bytea NOT NULL)
        WITH (fillfactor = 70)""",
    # Whoever moves the inbox holds an advisory lock and the newest token; the token only grows.
    """CREATE TABLE guard.sequencer (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        token bigint NOT NULL, holder text NOT NULL, since bigint NOT NULL)""",
    "INSERT INTO guard.sequencer (token, holder, since) VALUES (0, '', 0)",
    # `key` is the SHA-256 of whose conversation it is: four texts together may be too long for an index.
    """CREATE TABLE guard.conversations (
        id text PRIMARY KEY, tenant text NOT NULL, issuer text NOT NULL, subject text NOT NULL,
        given text NOT NULL, source text NOT NULL, opened bigint NOT NULL,
        sealed bigint NOT NULL DEFAULT 0, key bytea NOT NULL UNIQUE)""",
    "CREATE INDEX closed ON guard.conversations (tenant) WHERE sealed <> 0",
    # What decisions rest on: versions that step 6 compares, and the state behind them.
    """CREATE TABLE guard.versions (
        tenant text NOT NULL, key text NOT NULL, version bigint NOT NULL, PRIMARY KEY (tenant, key))""",
    """CREATE TABLE guard.moves (one boolean PRIMARY KEY DEFAULT true CHECK (one), moves bigint NOT NULL)""",
    "INSERT INTO guard.moves (moves) VALUES (0)",
    """CREATE TABLE guard.open_grants (
        tenant text NOT NULL, call text NOT NULL, conversation text NOT NULL, instance text NOT NULL,
        PRIMARY KEY (tenant, call))""",
    "CREATE INDEX owed ON guard.open_grants (instance)",
    "CREATE INDEX open_in ON guard.open_grants (conversation)",
    """CREATE TABLE guard.contained (
        tenant text NOT NULL, kind text NOT NULL, target text NOT NULL, since bigint NOT NULL,
        PRIMARY KEY (tenant, kind, target))""",
    """CREATE TABLE guard.policies (
        tenant text NOT NULL, id text NOT NULL, version bigint NOT NULL, sha256 text NOT NULL,
        PRIMARY KEY (tenant, id))""",
    """CREATE TABLE guard.pins (
        tenant text NOT NULL, server text NOT NULL, name text NOT NULL, position integer NOT NULL,
        sha256 text NOT NULL, definition bytea NOT NULL, PRIMARY KEY (tenant, server, name))""",
    """CREATE TABLE guard.api_keys (
        tenant text NOT NULL, key_id text PRIMARY KEY, secret_sha256 text NOT NULL,
        principal text NOT NULL, role text NOT NULL, scopes text,
        created bigint NOT NULL, expires bigint, revoked bigint, last_used bigint) WITH (fillfactor = 70)""",
    """CREATE TABLE guard.settings (
        tenant text NOT NULL, key text NOT NULL, value text NOT NULL, PRIMARY KEY (tenant, key))""",
    # What grants took from counters: `until` says when a row may be deleted, and nothing else.
    """CREATE TABLE guard.reservations (
        tenant text NOT NULL, counter text NOT NULL, at bigint NOT NULL, call text NOT NULL,
        amount bigint NOT NULL, until bigint NOT NULL, PRIMARY KEY (tenant, counter, at, call))""",
    "CREATE INDEX taken_by ON guard.reservations (tenant, call)",
    "CREATE INDEX lapsing ON guard.reservations (until)",
    # Used artifacts, by verifier; public parts of the keys that sign them.
    """CREATE TABLE guard.used_jti (
        verifier text NOT NULL, iss text NOT NULL, jti text NOT NULL, until bigint NOT NULL,
        PRIMARY KEY (verifier, iss, jti))""",
    "CREATE INDEX used_until ON guard.used_jti (until)",
    """CREATE TABLE guard.artifact_keys (
        kid text PRIMARY KEY, jwk text NOT NULL, mac bytea NOT NULL, until bigint NOT NULL)""",
    # Processes: which of them live, and what each committed last.
    "CREATE TABLE guard.instances (instance text PRIMARY KEY, since bigint NOT NULL)",
    """CREATE TABLE guard.writers (
        writer text PRIMARY KEY, batch bytea NOT NULL, since bigint NOT NULL) WITH (fillfactor = 50)""",
)

TRAPS: Final = (
    """CREATE FUNCTION guard.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'what is in guard.% is never changed and never removed', TG_TABLE_NAME
                USING ERRCODE = 'integrity_constraint_violation';
        END $$""",
    """CREATE FUNCTION guard.refuse_loss() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM gone g WHERE NOT EXISTS (
                    SELECT FROM guard.entries e WHERE e.ticket = g.ticket)) THEN
                RAISE EXCEPTION 'an entry leaves guard.inbox only once it is in guard.entries'
                    USING ERRCODE = 'integrity_constraint_violation';
            END IF;
            RETURN NULL;
        END $$""",
    *(
        f"CREATE TRIGGER never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON guard.{table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION guard.refuse_change()"
        for table in ("entries", "payloads", "nodes")
    ),
    """CREATE TRIGGER never_changed BEFORE UPDATE OR TRUNCATE ON guard.inbox
        FOR EACH STATEMENT EXECUTE FUNCTION guard.refuse_change()""",
    """CREATE TRIGGER never_lost AFTER DELETE ON guard.inbox REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION guard.refuse_loss()""",
    # Always: no session setting switches them off.
    *(
        f"ALTER TABLE guard.{table} ENABLE ALWAYS TRIGGER {trigger}"
        for table, trigger in (
            ("entries", "never_changed"),
            ("payloads", "never_changed"),
            ("nodes", "never_changed"),
            ("inbox", "never_changed"),
            ("inbox", "never_lost"),
        )
    ),
)


def upgrade() -> None:
    """Make everything."""
    for statement in (*TABLES, *TRAPS):
        op.execute(statement.replace(":", r"\:"))  # a colon would begin a parameter

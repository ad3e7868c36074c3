"""Step 2: what grants hold while they are open, what memories keep, what people were asked, further traps."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "2"
down_revision = "1"
branch_labels = None
depends_on = None

CHANGES: Final = (
    "ALTER TABLE guard.reservations ADD COLUMN held boolean NOT NULL DEFAULT false",
    # `size` counts the rows in `seen`; not whole until `lost`; nothing of it counts from `until` on. A trust
    # is 0 for untrusted, 1 for mixed, 2 for trusted.
    """CREATE TABLE guard.memories (
        tenant text NOT NULL, memory text NOT NULL, version bigint NOT NULL, size bigint NOT NULL,
        lost bigint NOT NULL, until bigint NOT NULL, PRIMARY KEY (tenant, memory)) WITH (fillfactor = 70)""",
    "CREATE INDEX over ON guard.memories (until) WHERE size > 0",
    """CREATE TABLE guard.seen (
        tenant text NOT NULL, memory text NOT NULL, fingerprint bytea NOT NULL, source text NOT NULL,
        trust smallint NOT NULL, field text NOT NULL, until bigint NOT NULL,
        PRIMARY KEY (tenant, memory, fingerprint, source))""",
    "CREATE INDEX fading ON guard.seen (tenant, memory, until)",
    # Void from `until` on, kept a while longer.
    """CREATE TABLE guard.questions (
        tenant text NOT NULL, id text NOT NULL, issuer text NOT NULL, subject text NOT NULL,
        digest text NOT NULL, rules text NOT NULL, approver text NOT NULL, until bigint NOT NULL,
        shown bytea NOT NULL, asked bigint NOT NULL, state text NOT NULL,
        answered_by text NOT NULL, word text NOT NULL, PRIMARY KEY (tenant, id))""",
    "CREATE INDEX asked_of ON guard.questions (tenant, digest)",
    "CREATE INDEX standing ON guard.questions (tenant, until)",
)

# What only ever goes one way. The conditions are bound to their operators here, for whoever comes later.
_ONE_WAY: Final = (
    ("versions", "NEW.version < OLD.version"),
    ("policies", "NEW.version < OLD.version"),
    ("sequencer", "NEW.token < OLD.token"),
    ("api_keys", "OLD.revoked IS NOT NULL AND NEW.revoked IS DISTINCT FROM OLD.revoked"),
)
TRAPS: Final = (
    # Whoever sets off a trap may not say what `=` means in it.
    "ALTER FUNCTION guard.refuse_change() SET search_path = pg_catalog, pg_temp",
    "ALTER FUNCTION guard.refuse_loss() SET search_path = pg_catalog, pg_temp",
    """CREATE FUNCTION guard.refuse_return() RETURNS trigger LANGUAGE plpgsql
        SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            RAISE EXCEPTION 'what is in guard.% only goes forward', TG_TABLE_NAME
                USING ERRCODE = 'integrity_constraint_violation';
        END $$""",
    *(
        statement
        for table, back in _ONE_WAY
        for statement in (
            f"""CREATE TRIGGER never_back BEFORE UPDATE ON guard.{table} FOR EACH ROW WHEN ({back})
                EXECUTE FUNCTION guard.refuse_return()""",
            f"ALTER TABLE guard.{table} ENABLE ALWAYS TRIGGER never_back",
        )
    ),
)


def upgrade() -> None:
    """Make them."""
    for statement in (*CHANGES, *TRAPS):
        op.execute(statement)

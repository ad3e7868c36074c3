"""How alembic takes the steps: over the connection that it is handed, in one transaction."""

from __future__ import annotations

from alembic import context

from guard.lineage.postgres.schema import SCHEMA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    version_table_schema=SCHEMA,
)
with context.begin_transaction():
    context.run_migrations()

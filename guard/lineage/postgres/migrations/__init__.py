"""What makes a database a store, and an older one a newer: steps that alembic takes in order."""

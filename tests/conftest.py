"""What holds for every test: Hypothesis never fails for slowness, only for what it found."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.postgres import database, own_postgres, postgres

__all__ = ["database", "own_postgres", "postgres"]

settings.register_profile("guard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Mutation testing asks the same questions of every mutant: few, and always the same ones.
settings.register_profile(
    "mutants",
    deadline=None,
    suppress_health_check=list(HealthCheck),
    max_examples=20,
    derandomize=True,
    database=None,
)
settings.load_profile("guard")

"""What holds for every test: Hypothesis never fails for slowness, only for what it found."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.postgres import database, own_postgres, postgres

__all__ = ["database", "own_postgres", "postgres"]

settings.register_profile("guard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("guard")

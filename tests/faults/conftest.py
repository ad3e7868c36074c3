"""Both stores: what holds of one must hold of the other."""

from __future__ import annotations

import pytest

STORES = ("sqlite", "postgres")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str | None:
    """Where a fleet keeps its lineage: the URL of a database of its own, or None for a file."""
    if request.param == "sqlite":
        return None
    url = request.getfixturevalue("database")
    assert isinstance(url, str)
    return url

"""One store after the other: what both must hold is asked of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from guard.lineage.postgres import schema
from guard.lineage.postgres.connection import Address
from guard.lineage.store import Store
from tests.lineage.lineages import open_store

Opener = Callable[[], Store]


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | Address:
    """A file that is not there yet, or an empty database with the tables."""
    if request.param == "sqlite":
        return tmp_path / "db"
    address = Address(request.getfixturevalue("database"))
    schema.upgrade(address)
    return address


@pytest.fixture
def opener(where: Path | Address) -> Opener:
    """Opens one store, each time anew, as another process would."""
    return lambda: open_store(where)


@pytest.fixture
def store(opener: Opener) -> Iterator[Store]:
    with closing(opener()) as found:
        yield found

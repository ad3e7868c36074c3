"""Both stores over one sequence of transactions: the same outcomes, word for word, and the same state.

The clock only goes forward here: where it runs backwards inside one batch the shared store may count a
little more than it must (tests/lineage/test_postgres_model.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from guard.lineage.audit import audit, readable
from guard.lineage.postgres import schema
from guard.lineage.postgres.address import Address
from guard.lineage.postgres.sequencer import Sequencer
from guard.lineage.postgres.source import PostgresSource
from guard.lineage.store import Outcome, Recorded
from tests.lineage.lineages import KEY, ORIGIN, VKEY, open_store
from tests.lineage.test_store_model import Stores
from tests.postgres import Databases


class Both(Stores):
    """The embedded store and the shared one: each is asked everything, and told everything."""

    databases: Databases
    template: str
    restart = reopen = None  # type: ignore[assignment]

    @initialize()
    def start(self) -> None:
        self.url = self.databases.make(self.template)
        self.address = Address(self.url)
        shared = open_store(self.address)
        shared.settle = lambda: True  # the test's own sequencer places what was committed, at the end
        self.stores = [self._opened(), shared]

    def teardown(self) -> None:
        super().teardown()
        if self.stores:
            self.databases.drop(self.url)

    @rule(seconds=st.integers(0, 30))
    def time_passes(self, seconds: int) -> None:
        self.clock += seconds * 1000

    @rule()
    def commit(self) -> None:
        batch, self.queue = self.queue, []
        expected = [self._verdict(*step) for step in batch]
        made = [step[0] for step in batch]
        embedded, shared = (store.apply(made) for store in self.stores)
        assert [self._told(outcome) for outcome in embedded] == expected
        assert [_said(outcome) for outcome in shared] == [_said(outcome) for outcome in embedded]

    def _settled(self) -> None:
        super()._settled()
        sequencer = Sequencer(self.address, key=KEY, origin=ORIGIN, holder="test")
        with self.address.connect(patience=20) as db:
            sequencer._take_office(db)
            while sequencer.step(db):
                pass
        report = audit(PostgresSource(self.address), [VKEY])
        assert (report.findings, report.entries) == ([], len(self.model.entries))
        embedded, shared = ([readable(row) for row in store.entries()] for store in self.stores)
        for one, other in zip(embedded, shared, strict=True):
            assert [one[name] for name in ("seq", "at", "kind", "call", "fields")] == [
                other[name] for name in ("seq", "at", "kind", "call", "fields")
            ]


def _said(outcome: Outcome) -> Any:
    """What both must say alike: ids of conversations are random."""
    return outcome.at if isinstance(outcome, Recorded) else outcome


@pytest.fixture
def template(postgres: Databases) -> Iterator[str]:
    """The name of a database with an empty store in it."""
    url = postgres.make()
    schema.upgrade(Address(url))
    yield url.rpartition("/")[2].partition("?")[0]
    postgres.drop(url)


def test_both_stores_say_the_same(postgres: Databases, template: str) -> None:
    """Whatever is committed, in whatever batches: outcome for outcome, row for row, entry for entry."""
    kind = type("Both", (Both,), {"databases": postgres, "template": template})
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=12,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )

"""The shared store against the naive one in memory, as the embedded one is, over two replicas.

What draws on counters is left out: where clocks run backwards inside one batch the shared store may count
a little more than it must (never less), and tests/lineage/test_counters.py asks it what it must hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from guard.config.home import close_abandoned
from guard.lineage.audit import audit, readable
from guard.lineage.postgres import schema
from guard.lineage.postgres.address import Address
from guard.lineage.postgres.sequencer import Sequencer
from guard.lineage.postgres.source import PostgresSource
from guard.lineage.store import Outcome, Place, Recorded, Transaction
from tests.lineage.lineages import KEY, ORIGIN, VKEY, open_store
from tests.lineage.test_store_model import CALL, PLACES, TENANTS, Model, Stores, Verdict
from tests.postgres import Databases


class Replicas(Stores):
    """Two replicas over one database, and a sequencer that moves what they committed."""

    databases: Databases
    template: str

    @initialize()
    def start(self) -> None:
        self.url = self.databases.make(self.template)
        self.address = Address(self.url)
        self.sequencer = Sequencer(self.address, key=KEY, origin=ORIGIN, holder="test")
        self.db = self.address.connect(patience=20)
        super().start()
        self.sequencer._take_office(self.db)

    def _opened(self) -> Any:
        store = open_store(self.address)
        store.settle = lambda: True  # the test's own sequencer is in office
        return store

    def teardown(self) -> None:
        super().teardown()
        if self.stores:
            self.db.close()
            self.databases.drop(self.url)

    @rule(call=CALL, where=PLACES)
    def take(self, call: str, where: Place) -> None:
        """Left out."""

    @rule(where=PLACES)
    def strike(self, where: Place) -> None:
        """Left out."""

    @rule(writer=st.integers(0, 1))
    def commit(self, writer: int) -> None:
        super().commit(writer)
        while self.sequencer.step(self.db):
            pass

    def _told(self, outcome: Outcome) -> Verdict:
        """Where it is shows later."""
        return (-1, outcome.at) if isinstance(outcome, Recorded) else type(outcome)

    def _verdict(self, of: Transaction, effect: Callable[[Model], bool | None]) -> Verdict:
        verdict = super()._verdict(of, effect)
        return (-1, verdict[1]) if isinstance(verdict, tuple) else verdict

    @rule()
    def restart(self) -> None:
        """All writers are dead: the next start ends what is open."""
        store, before = self.stores[0], len(self.model.entries)
        lease = store.lease()
        closed = close_abandoned(store, lease)
        lease.release()
        while self.sequencer.step(self.db):
            pass
        left = {(name, call) for name in TENANTS for call in self.model.tenants[name].open}
        ends = [readable(row) for row in store.entries()][before:]
        assert {entry["kind"] for entry in ends} <= {"unknown"}
        assert (closed, sorted(entry["call"] for entry in ends)) == (
            len(left),
            sorted(call for _, call in left),
        )
        given = {row.id: (row.tenant, row.subject, row.given) for row in store.conversations()}
        for entry in ends:
            where = given[entry["conversation"]]
            assert self.model.tenants[where[0]].open.pop(entry["call"]) is not None
            self.model.entries.append((where, "unknown", entry["call"], entry["at"]))

    def _audited(self) -> Any:
        return audit(PostgresSource(self.address), [VKEY])


@pytest.fixture
def template(postgres: Databases) -> Iterator[str]:
    """The name of a database with an empty store in it."""
    url = postgres.make()
    schema.upgrade(Address(url))
    yield url.rpartition("/")[2].partition("?")[0]
    postgres.drop(url)


def test_the_shared_store_is_the_naive_one(postgres: Databases, template: str) -> None:
    """Whatever two replicas commit, in whatever order: verdicts, state and log are those of the model."""
    kind = type("Replicas", (Replicas,), {"databases": postgres, "template": template})
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=8,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )

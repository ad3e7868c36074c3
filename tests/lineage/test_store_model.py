"""The store against a naive one in memory, over whatever order of transactions Hypothesis finds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from guard.config.home import close_abandoned
from guard.identity.api_keys import ApiKeyRecord
from guard.lineage.audit import Report, audit, readable
from guard.lineage.entry import ENDINGS, Kind
from guard.lineage.lease import Lease
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import (
    CONTAINMENT,
    REVOCATION,
    CloseGrant,
    Conflict,
    Contain,
    Moved,
    Place,
    Recorded,
    Release,
    Reserve,
    RevokeKey,
    SaveKey,
    SavePins,
    SavePolicy,
    Transaction,
    pins_version,
)
from tests.lineage.lineages import NOW, TENANT, VKEY, ended, granted, house, open_store, place, transaction

TENANTS = (TENANT, "elsewhere")
SERVER = "server"
TENANT_OF = st.sampled_from(TENANTS)
CALL = st.sampled_from([f"call-{n}" for n in range(6)])
PLACES = st.builds(
    lambda tenant, subject, given: place(given, subject, tenant=tenant),
    TENANT_OF,
    st.sampled_from(["alice", "bob"]),
    st.sampled_from(["c1", "c2"]),
)
TARGET = st.sampled_from([("all", ""), ("principal", "p"), ("tool", "t")])
WINDOWS = {"c1": 5_000, "c2": 20_000}
EXPECTED = st.sampled_from(["none", "now", "stale"])

Verdict = type[Recorded] | type[Moved] | type[Conflict]


@dataclass
class Tenant:
    versions: dict[str, int] = field(default_factory=dict)
    open: dict[str, Place] = field(default_factory=dict)
    contained: set[tuple[str, str]] = field(default_factory=set)
    policies: dict[str, tuple[int, str]] = field(default_factory=dict)
    pins: list[tuple[str, str]] = field(default_factory=list)
    taken: list[tuple[str, int, str, int]] = field(default_factory=list)

    def used(self, counter: str, since: int) -> int:
        return sum(amount for name, at, _, amount in self.taken if name == counter and at > since)

    def bump(self, key: str) -> None:
        self.versions[key] = self.versions.get(key, 0) + 1


@dataclass
class Model:
    """What a store is, in the plainest words.

    Attributes:
        entries: (place, kind, call, time) in order.
        keys: key id → (tenant, revoked).
    """

    entries: list[tuple[Any, str, str, int]] = field(default_factory=list)
    tenants: dict[str, Tenant] = field(default_factory=lambda: {name: Tenant() for name in TENANTS})
    keys: dict[str, tuple[str, bool]] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return self.entries[-1][3] if self.entries else 0

    def append(self, of: Transaction) -> None:
        who = of.place.principal
        where = (of.place.tenant, who and who.subject, of.place.conversation and of.place.conversation.id)
        self.entries.append((where, of.entry.kind.value, of.entry.call, max(self.last, of.now)))


Step = tuple[Transaction, Callable[[Model], bool | None]]
"""A transaction, and what it does to a model: False where it cannot be, None where a counter is full."""


class Stores(RuleBasedStateMachine):
    """Two writers over one file, a queue of transactions between commits, and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model = Model()
        self.stores: list[SqliteStore] = []
        self.queue: list[Step] = []
        self.clock = NOW
        self.fresh = 0

    @initialize()
    def start(self) -> None:
        self.stores = [self._opened(), self._opened()]

    def _opened(self) -> SqliteStore:
        store = open_store(self.folder / "db")
        store._db.execute("PRAGMA synchronous=OFF")  # many small commits: durability is tested elsewhere
        return store

    def teardown(self) -> None:
        try:
            if self.stores:
                self._settled()
        finally:
            for store in self.stores:
                store.close()
            shutil.rmtree(self.folder)

    # -- what is asked for ---------------------------------------------------------------------

    @rule(seconds=st.integers(-5, 30))
    def time_passes(self, seconds: int) -> None:
        self.clock += seconds * 1000

    @rule(call=CALL, where=PLACES, expected=EXPECTED)
    def grant(self, call: str, where: Place, expected: str) -> None:
        call = f"{where.tenant} {call}"  # real ones are 128 random bits: no two tenants share one
        of = self.model.tenants[where.tenant]
        keys = (CONTAINMENT, REVOCATION, "policy/p", pins_version(SERVER))
        expects = {} if expected == "none" else {key: of.versions.get(key, 0) for key in keys}
        if expected == "stale":
            expects[CONTAINMENT] += 1

        def effect(model: Model) -> bool:
            tenant = model.tenants[where.tenant]
            if call in tenant.open:
                return False
            tenant.open[call] = where
            return True

        self.queue.append((granted(call, where=where, now=self.clock, expects=expects), effect))

    @rule(
        call=CALL,
        where=PLACES,
        counters=st.lists(st.sampled_from(sorted(WINDOWS)), min_size=1, max_size=3),
        amount=st.integers(0, 3),
        most=st.integers(1, 6),
    )
    def take(self, call: str, where: Place, counters: list[str], amount: int, most: int) -> None:
        call = f"{where.tenant} {call}"
        now = self.clock

        def effect(model: Model) -> bool | None:
            tenant, at = model.tenants[where.tenant], max(model.last, now)
            if call in tenant.open:
                return False
            for counter in counters:
                wanted = amount * counters.count(counter)
                if tenant.used(counter, at - WINDOWS[counter]) + wanted > most:
                    return None
            tenant.taken += [(counter, at, call, amount) for counter in counters]
            tenant.open[call] = where
            return True

        wanted = tuple(Reserve(counter, call, amount, most, WINDOWS[counter]) for counter in counters)
        grant = granted(call, where=where, now=now)
        self.queue.append((replace(grant, effects=(*grant.effects, *wanted)), effect))

    @rule(call=CALL, where=PLACES, kind=st.sampled_from(sorted(ENDINGS)), nothing_sent=st.booleans())
    def end(self, call: str, where: Place, kind: Kind, nothing_sent: bool) -> None:  # noqa: FBT001
        call = f"{where.tenant} {call}"

        def effect(model: Model) -> bool:
            tenant = model.tenants[where.tenant]
            if tenant.open.pop(call, None) is None:
                return False
            if nothing_sent:
                tenant.taken = [taken for taken in tenant.taken if taken[2] != call]
            return True

        end = ended(call, kind, where=where, now=self.clock)
        self.queue.append((replace(end, effects=(CloseGrant(call, nothing_sent),)), effect))

    @rule(where=PLACES)
    def deny(self, where: Place) -> None:
        self.fresh += 1
        made = transaction(Kind.DENIED, f"denied-{self.fresh}", where=where, now=self.clock)
        self.queue.append((made, lambda _: True))

    @rule(name=TENANT_OF, what=TARGET)
    def contain(self, name: str, what: tuple[str, str]) -> None:
        def effect(model: Model) -> bool:
            model.tenants[name].contained.add(what)
            model.tenants[name].bump(CONTAINMENT)
            return True

        self.queue.append((house(Kind.CONTAINED, Contain(*what), tenant=name, now=self.clock), effect))

    @rule(name=TENANT_OF, what=TARGET)
    def release(self, name: str, what: tuple[str, str]) -> None:
        def effect(model: Model) -> bool:
            tenant = model.tenants[name]
            if what not in tenant.contained:
                return False
            tenant.contained.remove(what)
            tenant.bump(CONTAINMENT)
            return True

        self.queue.append((house(Kind.RELEASED, Release(*what), tenant=name, now=self.clock), effect))

    @rule(name=TENANT_OF, tools=st.lists(st.sampled_from("abc"), unique=True))
    def pin(self, name: str, tools: list[str]) -> None:
        pins = [(tool, f"sha-{tool}") for tool in tools]

        def effect(model: Model) -> bool:
            model.tenants[name].pins = pins
            model.tenants[name].bump(pins_version(SERVER))
            return True

        saved = SavePins(SERVER, tuple((tool, sha256, b"{}") for tool, sha256 in pins))
        self.queue.append((house(Kind.PIN, saved, tenant=name, now=self.clock), effect))

    @rule(name=TENANT_OF, version=st.integers(1, 3), sha256=st.sampled_from(["one", "two"]))
    def adopt(self, name: str, version: int, sha256: str) -> None:
        def effect(model: Model) -> bool:
            tenant = model.tenants[name]
            stands = tenant.policies.get("p", (0, ""))
            if version < stands[0] or (version == stands[0] and sha256 != stands[1]):
                return False
            tenant.policies["p"] = (version, sha256)
            tenant.versions["policy/p"] = version
            return True

        saved = SavePolicy("p", version, sha256)
        self.queue.append((house(Kind.POLICY, saved, tenant=name, now=self.clock), effect))

    @rule(name=TENANT_OF, key_id=st.sampled_from(["k1", "k2"]))
    def make_key(self, name: str, key_id: str) -> None:
        def effect(model: Model) -> bool:
            return model.keys.setdefault(key_id, made) is made

        made = (name, False)
        record = ApiKeyRecord(key_id, "s", name, "alice", "caller", None, 1)
        self.queue.append((house(Kind.API_KEY, SaveKey(record), tenant=name, now=self.clock), effect))

    @rule(name=TENANT_OF, key_id=st.sampled_from(["k1", "k2"]))
    def revoke(self, name: str, key_id: str) -> None:
        def effect(model: Model) -> bool:
            if model.keys.get(key_id) != (name, False):
                return False
            model.keys[key_id] = (name, True)
            model.tenants[name].bump(REVOCATION)
            return True

        self.queue.append((house(Kind.REVOKED, RevokeKey(key_id), tenant=name, now=self.clock), effect))

    # -- and what comes of it --------------------------------------------------------------------

    @rule(writer=st.integers(0, 1))
    def commit(self, writer: int) -> None:
        batch, self.queue = self.queue, []
        expected = [self._verdict(*step) for step in batch]
        outcomes = self.stores[writer].apply([step[0] for step in batch])
        assert [type(outcome) for outcome in outcomes] == expected
        first = len(self.model.entries) - expected.count(Recorded)
        found = [outcome for outcome in outcomes if isinstance(outcome, Recorded)]
        assert [outcome.index for outcome in found] == list(range(first, len(self.model.entries)))
        assert [outcome.at for outcome in found] == [entry[3] for entry in self.model.entries[first:]]

    def _verdict(self, of: Transaction, effect: Callable[[Model], bool]) -> Verdict:
        versions = self.model.tenants[of.place.tenant].versions
        if any(versions.get(key, 0) != expected for key, expected in of.expects.items()):
            return Moved
        possible = effect(self.model)
        if not possible:
            return Moved if possible is None else Conflict
        self.model.append(of)
        return Recorded

    @rule(writer=st.integers(0, 1))
    def reopen(self, writer: int) -> None:
        self.stores[writer].close()
        self.stores[writer] = self._opened()

    @rule()
    def restart(self) -> None:
        """All writers are dead: the next start ends what is open. Restarts need the clock of today."""
        store, lease = self.stores[0], Lease(self.folder / "run")
        closed = close_abandoned(store, lease)
        lease.release()
        left = {(name, call) for name in TENANTS for call in self.model.tenants[name].open}
        assert closed == len(left)
        ends = [readable(row) for row in store.entries()][len(self.model.entries) :]
        assert {entry["kind"] for entry in ends} <= {"unknown"}
        assert sorted(entry["call"] for entry in ends) == sorted(call for _, call in left)
        given = {row.id: (row.tenant, row.subject, row.given) for row in store.conversations()}
        for entry in ends:
            where = given[entry["conversation"]]
            assert self.model.tenants[where[0]].open.pop(entry["call"]) is not None
            self.model.entries.append((where, "unknown", entry["call"], entry["at"]))

    @invariant()
    def state_is_the_models(self) -> None:
        for store in self.stores:
            for name, tenant in self.model.tenants.items():
                assert store.versions(name) == tenant.versions
                assert {(row["kind"], row["target"]) for row in store.contained(name)} == tenant.contained
                assert store.policy(name, "p") == tenant.policies.get("p")
                assert [(row.name, row.sha256) for row in store.pins(name, SERVER)] == tenant.pins
                last = self.model.last
                asked = [(name, since) for name in WINDOWS for since in (last - WINDOWS[name], last - 1)]
                assert store.used(name, asked) == [tenant.used(*each) for each in asked]
            opened = {(where.tenant, call) for call, _, where in store.open_grants()}
            assert opened == {(name, call) for name in TENANTS for call in self.model.tenants[name].open}
            keys = {key.key_id: (key.tenant, key.revoked_at is not None) for key in store.api_keys()}
            assert keys == self.model.keys

    def _audited(self) -> Report:
        return audit(self.folder / "db", [VKEY])

    def _settled(self) -> None:
        """The file is sound, and says what the model says."""
        report = self._audited()
        assert report.findings == []
        assert report.entries == report.size == len(self.model.entries)
        given = {
            row.id: (row.tenant, *((None, None) if row.source == "house" else (row.subject, row.given)))
            for row in self.stores[0].conversations()
        }
        found = [readable(row) for row in self.stores[0].entries()]
        assert [
            (given[entry["conversation"]], entry["kind"], entry["call"], entry["at"]) for entry in found
        ] == self.model.entries
        by_conversation: dict[str, int] = {}
        for entry in found:
            assert entry["seq"] == by_conversation.get(entry["conversation"], 0)
            by_conversation[entry["conversation"]] = entry["seq"] + 1


TestTheStoreIsTheNaiveOne = Stores.TestCase
TestTheStoreIsTheNaiveOne.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

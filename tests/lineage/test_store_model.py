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
from guard.core.model import UNBOUNDED
from guard.identity.api_keys import ApiKeyRecord
from guard.lineage.audit import Report, audit, readable
from guard.lineage.entry import ENDINGS, Kind
from guard.lineage.lease import Lease
from guard.lineage.questions import KEPT
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import (
    CONTAINMENT,
    REVOCATION,
    AnswerQuestion,
    CloseGrant,
    Conflict,
    Contain,
    Glimpse,
    Memory,
    Moved,
    Outcome,
    Place,
    Recorded,
    Release,
    Remember,
    Reserve,
    RevokeKey,
    SaveKey,
    SavePins,
    SavePolicy,
    SaveQuestion,
    Strike,
    Transaction,
    Unmoved,
    UseApproval,
    pins_version,
)
from tests.lineage.lineages import NOW, TENANT, VKEY, ended, granted, house, open_store, place, transaction

TENANTS = (TENANT, "elsewhere")
SERVER = "server"
TENANT_OF = st.sampled_from((*TENANTS, TENANT, TENANT))
CALL = st.sampled_from([f"call-{n}" for n in range(4)])
PLACES = st.builds(
    lambda tenant, subject, given: place(given, subject, tenant=tenant),
    TENANT_OF,
    st.sampled_from(["alice", "bob"]),
    st.sampled_from(["c1", "c2"]),
)
TARGET = st.sampled_from([("all", ""), ("principal", "p"), ("tool", "t")])
WINDOWS = {"c1": 5_000, "c2": 20_000}
EXPECTED = st.sampled_from(["none", "now", "stale"])
MEMORIES = ("m1", "m2")
PENDING = {memory: f"pending/{memory}" for memory in MEMORIES}
PRINTS = [bytes([n]) * 16 for n in range(6)]
GLIMPSES = st.lists(
    st.builds(
        Glimpse,
        st.sampled_from(PRINTS),
        st.sampled_from(["user", "tool:s/t"]),
        st.sampled_from(["untrusted", "mixed", "trusted"]),
        st.sampled_from(["", "/a"]),
    ),
    max_size=5,
)
RANKS = {"untrusted": 0, "mixed": 1, "trusted": 2}
SPAN = 20_000
"""Milliseconds that a memory keeps what was seen, that denials count, that a question stands."""
QUESTIONS = st.sampled_from(["q1", "q2", "q3"])
PEOPLE = st.sampled_from(["alice", "bob"])

Verdict = tuple[int, int] | type[Moved] | type[Conflict]
"""Place and time of what is recorded; place -1 for what is nowhere."""


@dataclass
class Tenant:
    versions: dict[str, int] = field(default_factory=dict)
    open: dict[str, Place] = field(default_factory=dict)
    contained: set[tuple[str, str]] = field(default_factory=set)
    policies: dict[str, tuple[int, str]] = field(default_factory=dict)
    pins: list[tuple[str, str]] = field(default_factory=list)
    taken: list[tuple[str, int, str, int, bool]] = field(default_factory=list)
    seen: dict[str, list[tuple[Glimpse, int]]] = field(default_factory=dict)
    memories: dict[str, tuple[int, int]] = field(default_factory=dict)
    questions: dict[str, tuple[SaveQuestion, str]] = field(default_factory=dict)

    def remember(self, memory: str, glimpses: list[Glimpse], most: int, at: int) -> None:
        """One after the other, each into a list of what is still seen."""
        if not glimpses:
            return
        version, lost = self.memories.get(memory, (0, 0))
        rows = [row for row in self.seen.get(memory, ()) if row[1] > at]
        known = {(row[0].fingerprint, row[0].source) for row in rows}
        for one in glimpses:
            name = (one.fingerprint, one.source)
            stood = next((row[0] for row in rows if (row[0].fingerprint, row[0].source) == name), None)
            if stood is None and len(known) >= most:
                lost = max(lost, at + SPAN)
                continue
            worse = stood is None or RANKS[one.trust] < RANKS[stood.trust]
            rows = [row for row in rows if row[0] is not stood]
            rows.append((one if worse or stood is None else stood, at + SPAN))
            known.add(name)
        self.seen[memory] = rows
        self.memories[memory] = (version + 1, lost)

    def recall(self, memory: str, last: int) -> Memory:
        version, lost = self.memories.get(memory, (0, 0))
        rows = [row[0] for row in self.seen.get(memory, ()) if row[1] > last]
        owed = any(
            name == PENDING[memory] and at + SPAN > last and call not in self.open
            for name, at, call, _, _ in self.taken
        )
        found = sorted(rows, key=lambda one: (one.fingerprint, one.source))
        return Memory(tuple(found), lost <= last and not owed, version)

    def answer(self, effect: AnswerQuestion, at: int) -> bool:
        stood = self.questions.get(effect.id)
        if stood is None or stood[1] != "open" or stood[0].until <= at:
            return False
        own = stood[0].subject == effect.subject
        if own != (effect.word == "client") or (own and stood[0].approver != "client"):
            return False
        self.questions[effect.id] = (stood[0], "granted" if effect.yes else "denied")
        return True

    def use(self, id_: str, at: int) -> bool | None:
        stood = self.questions.get(id_)
        if stood is None or stood[1] != "granted" or stood[0].until <= at:
            return None
        self.questions[id_] = (stood[0], "used")
        return True

    def used(self, counter: str, since: int) -> int:
        return sum(amount for name, at, _, amount, _ in self.taken if name == counter and at > since)

    def bump(self, key: str) -> None:
        self.versions[key] = self.versions.get(key, 0) + 1


@dataclass
class Model:
    """What a store is, in the plainest words.

    Attributes:
        entries: (place, kind, call, time) in order.
        keys: key id → (tenant, revoked).
        contained: (tenant, call) of containments that the next entry brings about.
    """

    entries: list[tuple[Any, str, str, int]] = field(default_factory=list)
    tenants: dict[str, Tenant] = field(default_factory=lambda: {name: Tenant() for name in TENANTS})
    keys: dict[str, tuple[str, bool]] = field(default_factory=dict)
    contained: list[tuple[str, str]] = field(default_factory=list)

    @property
    def last(self) -> int:
        return self.entries[-1][3] if self.entries else 0

    def append(self, of: Transaction) -> tuple[int, int]:
        """Where it then is, and when."""
        at = max(self.last, of.now)
        if of.entry is None:
            return -1, at
        who = of.place.principal
        where = (of.place.tenant, who and who.subject, of.place.conversation and of.place.conversation.id)
        self.entries.append((where, of.entry.kind.value, of.entry.call, at))
        index = len(self.entries) - 1
        for tenant, call in self.contained:  # told after what brought it about
            self.entries.append(((tenant, None, None), "contained", call, at))
        self.contained.clear()
        return index, at


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
        most=st.sampled_from([0, 1, 2, 3, 4, 5, 6, UNBOUNDED]),
        held=st.booleans(),
    )
    def take(  # noqa: PLR0917
        self,
        call: str,
        where: Place,
        counters: list[str],
        amount: int,
        most: int,
        held: bool,  # noqa: FBT001
    ) -> None:
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
            tenant.taken += [(counter, at, call, amount, held) for counter in counters]
            tenant.open[call] = where
            return True

        wanted = tuple(Reserve(name, call, amount, most, WINDOWS[name], held) for name in counters)
        grant = granted(call, where=where, now=now)
        self.queue.append((replace(grant, effects=(*grant.effects, *wanted)), effect))

    @rule(call=CALL, where=PLACES, memory=st.sampled_from(MEMORIES), stale=st.booleans())
    def grant_with_memory(self, call: str, where: Place, memory: str, stale: bool) -> None:  # noqa: FBT001
        """It rests on what was seen, and owes what its server will say."""
        call, now = f"{where.tenant} {call}", self.clock
        stands = self.model.tenants[where.tenant].memories.get(memory, (0, 0))[0] + stale

        def effect(model: Model) -> bool | None:
            tenant = model.tenants[where.tenant]
            if call in tenant.open:
                return False
            if tenant.memories.get(memory, (0, 0))[0] != stands:
                return None
            tenant.open[call] = where
            tenant.taken.append((PENDING[memory], max(model.last, now), call, 1, True))
            return True

        owed = Reserve(PENDING[memory], call, 1, UNBOUNDED, SPAN, held=True)
        grant = granted(call, where=where, now=now)
        self.queue.append((replace(grant, effects=(*grant.effects, Unmoved(memory, stands), owed)), effect))

    @rule(
        call=CALL,
        where=PLACES,
        kind=st.sampled_from(sorted(ENDINGS)),
        how=st.sampled_from([(), ("nothing_sent",), ("known",), ("told",), ("known", "told")]),
        glimpses=GLIMPSES,
    )
    def end(self, call: str, where: Place, kind: Kind, how: tuple[str, ...], glimpses: list[Glimpse]) -> None:
        call, now = f"{where.tenant} {call}", self.clock

        def stays(counter: str, held: bool) -> bool:  # noqa: FBT001
            freed = held and ("told" if counter.startswith("pending/") else "known") in how
            return not freed and "nothing_sent" not in how

        def effect(model: Model) -> bool:
            tenant = model.tenants[where.tenant]
            if tenant.open.pop(call, None) is None:
                return False
            tenant.taken = [row for row in tenant.taken if row[2] != call or stays(row[0], row[4])]
            tenant.remember("m1", glimpses, 4, max(model.last, now))
            return True

        end = ended(call, kind, where=where, now=now)
        effects = (CloseGrant(call, **dict.fromkeys(how, True)), Remember("m1", tuple(glimpses), SPAN, 4))
        self.queue.append((replace(end, effects=effects), effect))

    @rule(name=TENANT_OF, memory=st.sampled_from(MEMORIES), glimpses=GLIMPSES, most=st.integers(0, 6))
    def remember(self, name: str, memory: str, glimpses: list[Glimpse], most: int) -> None:
        """What a server says outside a call."""
        now = self.clock

        def effect(model: Model) -> bool:
            model.tenants[name].remember(memory, glimpses, most, max(model.last, now))
            return True

        kept = Remember(memory, tuple(glimpses), SPAN, most)
        self.queue.append((Transaction(Place(name), None, now, effects=(kept,)), effect))

    @rule(where=PLACES, most=st.integers(1, 3))
    def strike(self, where: Place, most: int) -> None:
        """A denial that counts against its principal."""
        self.fresh += 1
        call, now = f"struck-{self.fresh}", self.clock
        target = where.principal.subject if where.principal else ""
        counter = f"denials/{target}"

        def effect(model: Model) -> bool:
            tenant, at = model.tenants[where.tenant], max(model.last, now)
            if ("principal", target) in tenant.contained:
                return True
            tenant.taken.append((counter, at, call, 1, False))
            if tenant.used(counter, at - SPAN) >= most:
                tenant.taken = [row for row in tenant.taken if row[0] != counter]
                tenant.contained.add(("principal", target))
                tenant.bump(CONTAINMENT)
                model.contained.append((where.tenant, call))
            return True

        one = Strike(counter, call, most, SPAN, "principal", target)
        self.queue.append((transaction(Kind.DENIED, call, one, where=where, now=now), effect))

    @rule(where=PLACES, id_=QUESTIONS, approver=st.sampled_from(["reviewer", "client"]))
    def ask(self, where: Place, id_: str, approver: str) -> None:
        who, now = where.principal, self.clock
        assert who is not None
        question = SaveQuestion(id_, who.issuer, who.subject, "digest", ("r",), approver, now + SPAN, b"{}")

        def effect(model: Model) -> bool:
            tenant, at = model.tenants[where.tenant], max(model.last, now)
            if id_ in tenant.questions:
                return False
            kept = {name: row for name, row in tenant.questions.items() if row[0].until > at - KEPT}
            tenant.questions = kept | {id_: (question, "open")}
            return True

        self.queue.append((transaction(Kind.ASKED, id_, question, where=where, now=now), effect))

    @rule(
        name=TENANT_OF,
        id_=QUESTIONS,
        yes=st.booleans(),
        who=PEOPLE,
        word=st.sampled_from(["reviewer", "client"]),
    )
    def answer(self, name: str, id_: str, yes: bool, who: str, word: str) -> None:  # noqa: FBT001
        now = self.clock
        one = AnswerQuestion(id_, yes, "launch", who, word)

        def effect(model: Model) -> bool:
            return model.tenants[name].answer(one, max(model.last, now))

        self.queue.append((house(Kind.ANSWERED, one, tenant=name, now=now), effect))

    @rule(call=CALL, where=PLACES, id_=QUESTIONS)
    def use(self, call: str, where: Place, id_: str) -> None:
        call, now = f"{where.tenant} {call}", self.clock

        def effect(model: Model) -> bool | None:
            tenant = model.tenants[where.tenant]
            if call in tenant.open:
                return False
            used = tenant.use(id_, max(model.last, now))
            if used:
                tenant.open[call] = where
            return used

        grant = granted(call, where=where, now=now)
        self.queue.append((replace(grant, effects=(*grant.effects, UseApproval(id_))), effect))

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
        assert [self._told(outcome) for outcome in outcomes] == expected

    def _told(self, outcome: Outcome) -> Verdict:
        """What the model can say of an outcome."""
        return (outcome.index, outcome.at) if isinstance(outcome, Recorded) else type(outcome)

    def _verdict(self, of: Transaction, effect: Callable[[Model], bool | None]) -> Verdict:
        versions = self.model.tenants[of.place.tenant].versions
        if any(versions.get(key, 0) != expected for key, expected in of.expects.items()):
            return Moved
        possible = effect(self.model)
        if not possible:
            return Moved if possible is None else Conflict
        return self.model.append(of)

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
                for memory in MEMORIES:
                    assert store.recall(name, memory, PENDING[memory], PRINTS) == tenant.recall(memory, last)
                found = {row.question.id: (row.question, row.state) for row in store.questions(name, 0)}
                assert found == tenant.questions
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


class WhatCallsDo(Stores):
    """The same without what persons do: more of the rest in as many steps."""

    grant = contain = release = pin = adopt = make_key = revoke = deny = restart = reopen = None  # type: ignore[assignment]


TestTheStoreIsTheNaiveOne = Stores.TestCase
TestWhatCallsDoIsTheNaiveOne = WhatCallsDo.TestCase
TestTheStoreIsTheNaiveOne.settings = TestWhatCallsDoIsTheNaiveOne.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

"""What is remembered of the file: never older than the last commit, whoever made it, and bounded."""

from __future__ import annotations

import multiprocessing
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.core.model import Conversation
from guard.identity.api_keys import ApiKeyRecord
from guard.lineage import batch, standing
from guard.lineage.batch import Known
from guard.lineage.effects import principal_target, read_key, tool_target
from guard.lineage.entry import Kind, parse
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import (
    CONTAINMENT,
    Contain,
    Effect,
    Moved,
    OpenGrant,
    Release,
    RevokeKey,
    SaveKey,
    SavePins,
    SavePolicy,
    Snapshot,
    UseKey,
)
from tests.lineage.lineages import (
    INSTANCE,
    NOW,
    TENANT,
    checked,
    ended,
    granted,
    house,
    leaves,
    open_store,
    person,
    place,
    recorded,
    transaction,
)

TENANTS = (TENANT, "elsewhere")
TALKS = ("one", "two")
TOOL = ("server", "echo")
KEYS = ("k1", "k2")


def key(key_id: str) -> ApiKeyRecord:
    return ApiKeyRecord(key_id, "s" * 43, TENANT, "alice", "caller", None, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "guard.db"


# -- reading ---------------------------------------------------------------------------------------


def naive(path: Path, tenant: str, subject: str, talk: str, *, own_only: bool) -> Snapshot:
    """The same answer, read by a connection that remembers nothing."""
    who = person(subject, tenant=tenant)
    with closing(sqlite3.connect(path)) as db:
        versions = dict(
            db.execute("SELECT key, version FROM versions WHERE tenant = ?", (tenant,)).fetchall()
        )
        last = db.execute("SELECT at FROM heads").fetchone()[0]
        targets = {"all": "", "principal": principal_target(who.issuer, subject), "tool": tool_target(*TOOL)}
        touching = set()
        for kind, target in db.execute("SELECT kind, target FROM contained WHERE tenant = ?", (tenant,)):
            if kind != "conversation":
                if targets[kind] == target:
                    touching.add(kind)
                continue
            row = db.execute(
                "SELECT tenant, issuer, subject, given FROM conversations WHERE id = ?", (target,)
            )
            *owner, given_id = row.fetchone()
            if tuple(owner) == who.key and (given_id == talk or not own_only):
                touching.add(kind)
    return Snapshot(versions, last, frozenset(touching))


def contained_conversation(tenant: str, subject: str, talk: str) -> Callable[[SqliteStore], Effect]:
    def effect(store: SqliteStore) -> Effect:
        (row,) = recorded(store, granted("c", where=place(talk, subject, tenant=tenant)))
        recorded(store, ended("c", where=place(talk, subject, tenant=tenant)))
        return Contain("conversation", row.conversation)

    return effect


def plain(effect: Effect) -> Callable[[SqliteStore], Effect]:
    return lambda _: effect


TARGETS = [("all", ""), ("principal", principal_target("launch", "alice")), ("tool", tool_target(*TOOL))]
EFFECTS = st.one_of(
    st.sampled_from([plain(make(*target)) for make in (Contain, Release) for target in TARGETS]),
    st.builds(
        contained_conversation,
        st.sampled_from(TENANTS),
        st.sampled_from(["alice", "bob"]),
        st.sampled_from(TALKS),
    ),
    st.sampled_from([plain(make) for k in KEYS for make in (SaveKey(key(k)), RevokeKey(k), UseKey(k))]),
    st.sampled_from([plain(SavePins("server", ((n, "s", b"{}"),))) for n in "ab"]),
    st.integers(1, 3).map(lambda version: plain(SavePolicy("p", version, "sha"))),
)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(TENANTS), EFFECTS), max_size=12))
@settings(max_examples=60, deadline=None)
def test_what_is_read_is_what_was_committed_last(
    moves: list[tuple[int, str, Callable[[SqliteStore], Effect]]],
) -> None:
    """Whichever of three stores on one file wrote, each reads at once what a fresh connection reads."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "guard.db"
        with (
            closing(open_store(path)) as one,
            closing(open_store(path)) as two,
            closing(open_store(path)) as three,
        ):
            stores = (one, two, three)
            for n, (writer, tenant, made) in enumerate(moves):
                store = stores[writer]
                store.apply([house(Kind.CONTAINED, made(store), tenant=tenant, now=NOW + 2 * n)])
                recorded(store, granted(f"g{n}", where=place(tenant=tenant), now=NOW + 2 * n + 1))
                for reader in stores:
                    _reads_what_stands(reader, path)


def _reads_what_stands(store: SqliteStore, path: Path) -> None:
    for tenant in TENANTS:
        for subject in ("alice", "bob"):
            for talk in TALKS:
                for own_only in (True, False):
                    who, where = person(subject, tenant=tenant), Conversation(talk, "meta")
                    found = store.snapshot(who, where, TOOL, own_only=own_only)
                    assert found == naive(path, tenant, subject, talk, own_only=own_only)
                    assert found == store.snapshot(who, where, TOOL, own_only=own_only)
        assert store.versions(tenant) == naive(path, tenant, "alice", "one", own_only=True).versions
    with closing(sqlite3.connect(path)) as db:
        for key_id in (*KEYS, "nobody's"):
            assert store.api_key(key_id) == read_key(db, key_id)


def _contain(path: Path) -> None:
    with closing(open_store(path)) as store:
        recorded(store, house(Kind.CONTAINED, Contain("all", "")))


def test_another_process_is_seen_by_the_next_read(path: Path) -> None:
    """What a process of its own committed is read at once, and step 6 sees that a version moved."""
    with closing(open_store(path)) as store:
        recorded(store, granted("a", expects={CONTAINMENT: 0}))
        who, where = person(), Conversation("talk", "meta")
        assert store.snapshot(who, where, TOOL, own_only=True).contained == frozenset()
        process = multiprocessing.get_context("spawn").Process(target=_contain, args=(path,))
        process.start()
        process.join(30)
        assert process.exitcode == 0
        assert store.apply([granted("b", expects={CONTAINMENT: 0})]) == [Moved(CONTAINMENT)]
        found = store.snapshot(who, where, TOOL, own_only=True)
        assert (found.contained, found.versions[CONTAINMENT]) == (frozenset({"all"}), 1)


def test_an_unchanged_file_is_asked_one_question(path: Path) -> None:
    """Reading again what nobody changed costs one question: whether anybody did."""
    with closing(open_store(path)) as store:
        recorded(store, granted("a"))
        asked: list[str] = []
        who, where = person(), Conversation("talk", "meta")
        store.snapshot(who, where, TOOL, own_only=True)
        store._reader.set_trace_callback(asked.append)
        store.snapshot(who, where, TOOL, own_only=True)
        assert asked == ["PRAGMA data_version"]


def test_an_own_commit_that_moves_nothing_is_carried_over(path: Path) -> None:
    """After a grant or an ending the next read asks the one question, and knows the newest time."""
    with closing(open_store(path)) as store:
        recorded(store, house(Kind.CONTAINED, Contain("all", "")))
        who, where = person(), Conversation("talk", "meta")
        store.snapshot(who, where, TOOL, own_only=True)
        recorded(store, granted("a", now=NOW + 5), ended("a", now=NOW + 7))
        asked: list[str] = []
        store._reader.set_trace_callback(asked.append)
        found = store.snapshot(who, where, TOOL, own_only=True)
        assert (found.last, found.contained) == (NOW + 7, frozenset({"all"}))
        assert asked == ["PRAGMA data_version"]
        store._reader.set_trace_callback(None)
        recorded(store, house(Kind.RELEASED, Release("all", "")))
        assert store.snapshot(who, where, TOOL, own_only=True).contained == frozenset()


@pytest.mark.parametrize("moment", ["before", "within"])
def test_nothing_is_carried_over_what_another_wrote(
    path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Another writer commits right before, or between the own commit and the carrying: it is seen."""
    with closing(open_store(path)) as store, closing(open_store(path)) as other:
        recorded(store, granted("a"))
        who, where = person(), Conversation("talk", "meta")
        store.snapshot(who, where, TOOL, own_only=True)
        contain = house(Kind.CONTAINED, Contain("all", ""))
        if moment == "before":
            recorded(other, contain)
            recorded(store, ended("a"))
        else:
            real = store._standing.carry

            def late(*args: Any) -> None:
                recorded(other, contain)
                real(*args)

            monkeypatch.setattr(store._standing, "carry", late)
            recorded(store, ended("a"))
        assert store.snapshot(who, where, TOOL, own_only=True) == naive(
            path, TENANT, "alice", "talk", own_only=True
        )


def test_what_is_handed_out_cannot_be_changed(path: Path) -> None:
    """Every reader gets the same versions: none may write into another's."""
    with closing(open_store(path)) as store:
        versions: Any = store.versions(TENANT)
        with pytest.raises(TypeError):
            versions["policy/p"] = 7


def test_what_is_read_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for keys and tenants that nobody has fills nothing."""
    monkeypatch.setattr(standing, "MAX_REMEMBERED", 8)
    with closing(open_store(path)) as store:
        recorded(store, house(Kind.API_KEY, SaveKey(key("k1"))))
        for n in range(100):
            assert store.api_key(f"guess-{n}") is None
            assert store.versions(f"tenant-{n}") == {}
            assert store.api_key("k1") == key("k1")
        assert len(store._standing._keys) <= 8
        assert len(store._standing._tenants) <= 8


# -- writing ---------------------------------------------------------------------------------------

STEP = st.tuples(
    st.integers(0, 1), st.lists(st.sampled_from([f"c{n}" for n in range(6)]), min_size=1, max_size=5)
)


@given(st.lists(STEP, max_size=12))
@settings(max_examples=60, deadline=None)
def test_chains_that_are_remembered_are_those_of_the_file(steps: list[tuple[int, list[str]]]) -> None:
    """Two writers that remember two conversations each, of six, never fork a chain or leave a gap."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "guard.db"
        with closing(open_store(path)) as one, closing(open_store(path)) as two:
            for store in (one, two):
                store._known = Known(2)
            for n, (writer, talks) in enumerate(steps):
                store = (one, two)[writer]
                calls = [granted(f"{n}-{m}", where=place(talk)) for m, talk in enumerate(talks)]
                recorded(store, *calls)
                assert len(store._known._chains) <= 2
        report = checked(path)
        assert report.findings == []
        assert report.entries == sum(len(talks) for _, talks in steps)


def test_a_commit_that_fails_is_not_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken and not committed leaves no trace in what the writer knows."""
    with closing(open_store(path)) as store:
        recorded(store, granted("a"))
        with monkeypatch.context() as patch:
            patch.setattr(store, "_checkpoint", lambda _: 1 / 0)
            contain = house(Kind.CONTAINED, Contain("all", ""))
            with pytest.raises(ZeroDivisionError):
                store.apply([ended("a"), contain, granted("b", expects={CONTAINMENT: 1})])
        recorded(store, granted("c", expects={CONTAINMENT: 0}), ended("a"), ended("c"))
        assert [parse(leaf).seq for leaf in leaves(path)] == [0, 1, 2, 3]
    assert checked(path).findings == []


def test_what_a_batch_moves_the_same_batch_sees(path: Path) -> None:
    """A version that was remembered is read again as soon as the same commit moves it."""
    with closing(open_store(path)) as store:
        recorded(store, granted("a", expects={CONTAINMENT: 0}))
        outcomes = store.apply(
            [
                granted("b", expects={CONTAINMENT: 0}),
                house(Kind.CONTAINED, Contain("all", "")),
                granted("c", expects={CONTAINMENT: 0}),
                granted("d", expects={CONTAINMENT: 1}),
            ]
        )
        assert [type(outcome).__name__ for outcome in outcomes] == [
            "Recorded",
            "Recorded",
            "Moved",
            "Recorded",
        ]


def test_a_grant_that_ends_in_its_own_batch_leaves_nothing_open(path: Path) -> None:
    """Opened and closed before anything was written, opened again, closed again."""
    with closing(open_store(path)) as store:
        recorded(store, granted("a"), ended("a"), granted("a"), granted("b"), ended("a"))
        assert [call for call, *_ in store.open_grants()] == ["b"]
        recorded(store, ended("b"), granted("b"), ended("b"))
        assert store.open_grants() == []
    assert checked(path).findings == []


def test_a_key_is_used_at_the_last_of_its_times(path: Path) -> None:
    """Of many uses in one commit the last stands."""
    with closing(open_store(path)) as store:
        recorded(store, house(Kind.API_KEY, SaveKey(key("k1"))))
        uses = [
            transaction(Kind.GRANTED, f"g{n}", OpenGrant(f"g{n}", INSTANCE), UseKey("k1"), now=NOW + 1000 * n)
            for n in range(5)
        ]
        recorded(store, *uses)
        found = store.api_key("k1")
        assert found is not None
        assert found.last_used == NOW // 1000 + 4


def test_an_append_reads_as_much_of_a_large_log_as_of_a_small_one(path: Path) -> None:
    """However many entries there are, a commit asks the same few questions."""
    asked: list[list[str]] = []
    with closing(open_store(path)) as store:
        for n in range(60):
            own: list[str] = []
            store._db.set_trace_callback(own.append)
            recorded(store, *(granted(f"{n}-{m}", where=place(f"c{m}")) for m in range(8)))
            asked.append([sql for sql in own if sql.startswith(("SELECT", "PRAGMA"))])
    assert len({len(questions) for questions in asked[1:]}) == 1
    assert len(asked[-1]) <= 4


def test_what_the_writer_knows_is_bounded(path: Path) -> None:
    """Ten times as many conversations and tenants as are remembered, and no more are remembered."""
    assert batch.MAX_KNOWN <= 10_000
    with closing(open_store(path)) as store:
        store._known = Known(16)
        for n in range(160):
            recorded(store, granted(f"g{n}", where=place(f"c{n}", tenant=f"t{n}"), expects={CONTAINMENT: 0}))
        assert len(store._known._chains) == 16
        assert len(store._known.versions) <= 16
    assert checked(path).findings == []


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small commits: durability is tested elsewhere."""
    real = SqliteStore.__init__

    def quick(self: SqliteStore, *args: Any, **more: Any) -> None:
        real(self, *args, **more)
        self._db.execute("PRAGMA synchronous=OFF")

    monkeypatch.setattr(SqliteStore, "__init__", quick)

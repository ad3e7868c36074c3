"""The store: one conditional transaction, of which all happens or nothing."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from guard.config.home import open_home
from guard.core.canonical import b64
from guard.core.model import Conversation
from guard.identity.api_keys import ApiKeyRecord
from guard.lineage.checkpoint import open_checkpoint
from guard.lineage.database import StoreError, connect
from guard.lineage.entry import Kind, parse
from guard.lineage.merkle import Frontier
from guard.lineage.postgres import schema
from guard.lineage.postgres.batch import Batch
from guard.lineage.postgres.connection import Address
from guard.lineage.sqlite import HOUSE as HOUSE_NAME
from guard.lineage.store import (
    CONTAINMENT,
    REVOCATION,
    CloseGrant,
    Conflict,
    Contain,
    Effect,
    Moved,
    OpenGrant,
    Release,
    RevokeKey,
    SaveKey,
    SavePins,
    SavePolicy,
    SaveSetting,
    Store,
    UseKey,
)
from tests.lineage.lineages import (
    HOUSE,
    INSTANCE,
    NOW,
    OTHER_KEY,
    TENANT,
    VKEY,
    changed,
    checked,
    dump,
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
from tests.lineage.naive_tree import tree_hash
from tests.postgres import Databases


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Of an embedded store."""
    return tmp_path / "guard.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | Address:
    """Where a store is, of either kind: what is asked of one is asked of the other."""
    if request.param == "sqlite":
        return tmp_path / "guard.db"
    address = Address(request.getfixturevalue("database"))
    schema.upgrade(address)
    return address


@pytest.fixture
def store(path: Path | Address) -> Iterator[Store]:
    with closing(open_store(path)) as opened:
        yield opened


def elsewhere(path: Path | Address, postgres: Databases) -> Path | Address:
    """Another empty store of the same kind."""
    if isinstance(path, Path):
        return path.with_name("other.db")
    address = Address(postgres.make())
    schema.upgrade(address)
    return address


def key_record(key_id: str = "k1", *, tenant: str = TENANT, revoked: int | None = None) -> ApiKeyRecord:
    return ApiKeyRecord(
        key_id=key_id,
        secret_sha256="s" * 43,
        tenant=tenant,
        principal="alice",
        role="caller",
        scopes=frozenset({"b", "a"}),
        created=1,
        expires=None,
        revoked_at=revoked,
        last_used=None,
    )


# -- all or nothing ------------------------------------------------------------------------------

BUMPS: list[tuple[str, Effect]] = [
    (CONTAINMENT, Contain("all", "")),
    (REVOCATION, RevokeKey("k1")),
    ("policy/p", SavePolicy("p", 2, "other")),
    ("pins/server", SavePins("server", (("echo", "sha", b"{}"),))),
]


@pytest.mark.parametrize(("key", "effect"), BUMPS, ids=[key for key, _ in BUMPS])
def test_a_moved_version_writes_nothing(store: Store, path: Path | Address, key: str, effect: Effect) -> None:
    """If a version that the decision rested on has moved, not one row of one table changes."""
    recorded(store, house(Kind.API_KEY, SaveKey(key_record())), house(Kind.POLICY, SavePolicy("p", 1, "one")))
    rested = {name: store.versions(TENANT).get(name, 0) for name, _ in BUMPS}
    recorded(store, granted("before", expects=rested))
    recorded(store, house(Kind.PIN, effect))
    before = dump(path)
    call = granted("after", expects=rested, where=place("a new conversation"), now=NOW + 5)
    assert store.apply([call]) == [Moved(key)]
    assert dump(path) == before
    now = {name: store.versions(TENANT).get(name, 0) for name, _ in BUMPS}
    recorded(store, granted("after", expects=now))


def test_another_tenants_versions_are_not_ours(store: Store) -> None:
    """What one tenant contains or revokes moves nothing under another."""
    recorded(store, house(Kind.CONTAINED, Contain("all", ""), tenant="elsewhere"))
    recorded(store, granted("g", expects={CONTAINMENT: 0}))
    assert store.apply([granted("h", expects={CONTAINMENT: 0}, where=place(tenant="elsewhere"))]) == [
        Moved(CONTAINMENT)
    ]


CONFLICTS: list[tuple[str, Effect]] = [
    ("open already", OpenGrant("open", INSTANCE)),
    ("has its ending already", CloseGrant("ended")),
    ("has its ending already", CloseGrant("never granted")),
    ("no conversation", Contain("conversation", "nowhere")),
    ("not contained", Release("tool", "nothing")),
    ("no key", RevokeKey("nobody's")),
    ("no key", RevokeKey("theirs")),
    ("revoked already", RevokeKey("revoked")),
    ("is older", SavePolicy("p", 1, "one")),
    ("had other bytes", SavePolicy("p", 2, "other")),
    ("a key k1 already", SaveKey(key_record("k1"))),
    ("a key theirs already", SaveKey(key_record("theirs"))),
]


@pytest.mark.parametrize(
    ("why", "effect"), CONFLICTS, ids=[f"{type(effect).__name__}: {why}" for why, effect in CONFLICTS]
)
def test_an_effect_that_cannot_be_writes_nothing(
    store: Store, path: Path | Address, why: str, effect: Effect
) -> None:
    """If one effect of a transaction has an obstacle, not one row of one table changes."""
    recorded(
        store, granted("open"), granted("ended"), ended("ended"), house(Kind.API_KEY, SaveKey(key_record()))
    )
    recorded(store, house(Kind.POLICY, SavePolicy("p", 2, "two")))
    recorded(store, house(Kind.API_KEY, SaveKey(key_record("revoked", revoked=1))))
    recorded(
        store, house(Kind.API_KEY, SaveKey(key_record("theirs", tenant="elsewhere")), tenant="elsewhere")
    )
    before = dump(path)
    others: tuple[Effect, ...] = (OpenGrant("fresh", INSTANCE), SaveSetting("a", "b"), UseKey("k1"))
    made = transaction(Kind.GRANTED, "fresh", *others, effect, where=place("new"), now=NOW + 5)
    (outcome,) = store.apply([made])
    assert isinstance(outcome, Conflict)
    assert why in outcome.what
    assert dump(path) == before


def test_what_is_refused_in_a_batch_leaves_the_others_standing(store: Store, path: Path | Address) -> None:
    """One commit, each transaction judged after the ones before it in the same batch."""
    outcomes = store.apply(
        [
            granted("a"),
            granted("a"),
            house(Kind.CONTAINED, Contain("all", "")),
            granted("b", expects={CONTAINMENT: 0}),
            ended("a"),
            ended("a"),
        ]
    )
    kinds = [type(outcome).__name__ for outcome in outcomes]
    assert kinds == ["Recorded", "Conflict", "Recorded", "Moved", "Recorded", "Conflict"]
    report = checked(path)
    assert report.findings == []
    assert (report.entries, report.granted, report.ended) == (3, 1, 1)


def test_an_ending_for_a_grant_that_is_not_open_is_refused(store: Store) -> None:
    """Every granted has exactly one ending: neither before it, nor twice, nor from another tenant."""
    assert isinstance(store.apply([ended("a")])[0], Conflict)
    recorded(store, granted("a"))
    assert isinstance(store.apply([ended("a", where=place(tenant="elsewhere"))])[0], Conflict)
    recorded(store, ended("a"))
    assert isinstance(store.apply([ended("a", Kind.UNKNOWN)])[0], Conflict)


def test_a_batch_that_breaks_leaves_nothing(path: Path | Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the commit cannot be made nothing of the batch stands, and the next one follows what does."""

    def broken(*_: object) -> str:
        raise ValueError("broken on purpose")

    with closing(open_store(path)) as store:
        recorded(store, granted("a"))
        before = dump(path)
        with monkeypatch.context() as patch:
            if isinstance(path, Address):
                patch.setattr(Batch, "write", broken)
            else:
                patch.setattr(store, "_checkpoint", broken)
            with pytest.raises(ValueError, match="on purpose"):
                store.apply([ended("a"), granted("b")])
        assert dump(path) == before
        recorded(store, ended("a"), granted("b"))
    assert checked(path).findings == []


# -- what an entry gets from the log ---------------------------------------------------------------


def test_time_never_runs_backwards(store: Store) -> None:
    """The time of an entry is the clock's or that of the entry before, whichever is later."""
    times = [NOW, NOW + 10, NOW - 5_000, NOW + 9, NOW + 11]
    batch = [granted(f"g{n}", now=now) for n, now in enumerate(times)]
    assert [outcome.at for outcome in recorded(store, *batch[:3])] == [NOW, NOW + 10, NOW + 10]
    assert [outcome.at for outcome in recorded(store, *batch[3:])] == [NOW + 10, NOW + 11]
    snapshot = store.snapshot(person(), Conversation("talk", "meta"), ("server", "echo"), own_only=True)
    assert snapshot.last == NOW + 11


def test_a_policys_version_only_grows(store: Store) -> None:
    """An older policy is refused, and so are other bytes under the same version; the same again is fine."""
    recorded(store, house(Kind.POLICY, SavePolicy("p", 3, "three")))
    assert isinstance(store.apply([house(Kind.POLICY, SavePolicy("p", 2, "two"))])[0], Conflict)
    assert isinstance(store.apply([house(Kind.POLICY, SavePolicy("p", 3, "other"))])[0], Conflict)
    recorded(store, house(Kind.POLICY, SavePolicy("p", 3, "three")))
    recorded(store, house(Kind.POLICY, SavePolicy("q", 1, "one")))
    recorded(store, house(Kind.POLICY, SavePolicy("p", 1, "one"), tenant="elsewhere"))
    recorded(store, house(Kind.POLICY, SavePolicy("p", 9, "nine")))
    assert store.policy(TENANT, "p") == (9, "nine")
    assert store.versions(TENANT)["policy/p"] == 9


def test_a_conversation_is_its_principals(store: Store, path: Path | Address) -> None:
    """The same id from another principal or tenant is another conversation: nobody writes into theirs."""
    where = [place("c", "alice"), place("c", "bob"), place("c", "alice", tenant="elsewhere"), HOUSE]
    found = [recorded(store, granted(f"g{n}", where=each))[0].conversation for n, each in enumerate(where)]
    assert len(set(found)) == 4
    assert recorded(store, ended("g0", where=place("c", "alice")))[0].conversation == found[0]
    assert [parse(leaf).seq for leaf in leaves(path)] == [0, 0, 0, 0, 1]


def test_a_client_cannot_name_the_houses_conversation(store: Store) -> None:
    """The house's own entries stand under an issuer that no credential has."""
    recorded(store, house(Kind.POLICY, SavePolicy("p", 1, "one")))
    (row,) = store.conversations()
    assert (row.issuer, row.subject, row.given) == (*HOUSE_NAME, "")
    assert person().issuer != HOUSE_NAME[0]


def test_the_checkpoint_signs_the_tree_of_all_leaves(store: Store, path: Path | Address) -> None:
    """After each commit the signed root is the one that RFC 6962 defines over the leaves in the file."""
    for n in range(20):
        recorded(store, *(granted(f"g{n}-{m}") for m in range(n % 4 + 1)))
        stand = leaves(path)
        signed = open_checkpoint(store.checkpoint(), [VKEY])
        assert (signed.size, signed.root) == (len(stand), tree_hash(stand))


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 1, 6], [4, 8]], ids=str)
def test_how_entries_were_batched_cannot_be_seen(
    path: Path | Address, postgres: Databases, sizes: list[int]
) -> None:
    """However many were committed together, places, chains and times are the same."""
    shapes = []
    for where, batches in ((path, [12]), (elsewhere(path, postgres), sizes)):
        with closing(open_store(where)) as store:
            batch = [granted(f"g{n}", where=place(f"c{n % 3}"), now=NOW + n) for n in range(12)]
            for size in batches:
                recorded(store, *batch[:size])
                del batch[:size]
        found = [parse(leaf) for leaf in leaves(where)]
        shapes.append([(leaf.call, leaf.seq, leaf.at) for leaf in found])
        assert checked(where).findings == []
    assert shapes[0] == shapes[1]


# -- two processes on one file ---------------------------------------------------------------------

PROCESSES, ROUNDS = 3, 120


def _writer(path: Path, name: str, start: Barrier) -> None:
    start.wait()
    with closing(open_store(path)) as store:
        for n in range(ROUNDS):
            own, shared = f"{name}-{n}", place("shared", "everyone")
            recorded(store, granted(own, where=shared), granted(f"{own}b", where=place(name)))
            time.sleep(0.002)  # SQLite's lock is not fair: let the others have it
            recorded(store, ended(own, where=shared), ended(f"{own}b", where=place(name)))
            time.sleep(0.002)


def _run_together(*targets: tuple[Any, ...]) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(len(targets))
    processes = [context.Process(target=target, args=(*args, start)) for target, *args in targets]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_processes_on_one_file_leave_no_gap_and_no_fork(file: Path) -> None:
    """Writers that know nothing of each other make one log: contiguous, chained, signed."""
    _run_together(*((_writer, file, f"p{n}") for n in range(PROCESSES)))
    report = checked(file)
    assert report.findings == []
    assert report.open == []
    assert report.entries == report.size == PROCESSES * ROUNDS * 4
    with closing(sqlite3.connect(file)) as db:
        indexes = [row[0] for row in db.execute("SELECT idx FROM entries ORDER BY idx")]
    assert indexes == list(range(report.entries))
    found = [parse(leaf) for leaf in leaves(file)]
    lengths = sorted(Counter(leaf.conversation for leaf in found).values())
    assert lengths == [2 * ROUNDS] * PROCESSES + [2 * ROUNDS * PROCESSES]
    shared = max(Counter(leaf.conversation for leaf in found).items(), key=lambda item: item[1])[0]
    order = [leaf.call.partition("-")[0] for leaf in found if leaf.conversation == shared]
    switches = sum(one != other for one, other in pairwise(order))
    assert switches >= PROCESSES, "they did not run at the same time: nothing was tested"


def _opener(path: Path, start: Barrier) -> None:
    start.wait()
    home = open_home(path)
    with closing(home.store()) as store:
        recorded(store, granted(str(os.getpid())))


def test_processes_that_start_at_once_make_one_home(tmp_path: Path) -> None:
    """The first start of all may happen several times at once: one set of keys, one store."""
    _run_together(*((_opener, tmp_path / "home") for _ in range(4)))
    home = open_home(tmp_path / "home")
    with closing(home.store()) as store:
        assert len(store.open_grants()) == 4
        assert sum(parse(row.leaf).kind is Kind.KEY_SET for row in store.entries()) >= 1
    assert sorted(path.name for path in (tmp_path / "home" / "keys").iterdir()) == [
        "artifact.json",
        "checkpoint.json",
        "name.json",
        "pairwise.json",
    ]


# -- whose file it is ------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [0, 5])
def test_another_logs_store_is_refused(file: Path, entries: int) -> None:
    """A file is opened under its own origin and by its own key only, empty or not."""
    with closing(open_store(file)) as store:
        for n in range(entries):
            recorded(store, granted(f"g{n}"))
    before = dump(file)
    with pytest.raises(StoreError, match=r"belongs to the log guard\.example/lineage"):
        open_store(file, origin="guard.example/other")
    with pytest.raises(StoreError, match="did not sign"):
        open_store(file, key=OTHER_KEY)
    assert dump(file) == before
    open_store(file).close()


def test_a_rewritten_tree_gets_no_fresh_signature(file: Path) -> None:
    """Who rewrites a leaf, and everything that follows from it, is not helped by the next start."""
    with closing(open_store(file)) as store:
        recorded(store, granted("g0"), ended("g0"), granted("g1"))
    forged = [leaf.replace(b'"returned"', b'"unknown"') for leaf in leaves(file)]
    frontier = Frontier.empty()
    for leaf in forged:
        frontier, _ = frontier.append(tree_hash([leaf]))
    for index, leaf in enumerate(forged):
        changed(
            file, ("UPDATE entries SET leaf = ?, hash = ? WHERE idx = ?", (leaf, tree_hash([leaf]), index))
        )
    assert changed(file, ("UPDATE heads SET peaks = ?", (frontier.packed(),))) == 1
    with pytest.raises(StoreError, match="signs another tree"):
        open_store(file)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE heads SET size = size - 1",
        "UPDATE heads SET size = 'x'",
        "UPDATE heads SET peaks = substr(peaks, 2)",
        "UPDATE heads SET peaks = zeroblob(length(peaks))",
        "UPDATE heads SET checkpoint = replace(checkpoint, char(10) || '7', char(10) || '6')",
        "UPDATE heads SET checkpoint = ''",
        "DELETE FROM heads",
    ],
)
def test_a_damaged_head_is_not_built_upon(file: Path, statement: str) -> None:
    """A head that the store's own key did not sign is refused at the start, and under a running writer."""
    with closing(open_store(file)) as store:
        recorded(store, granted("a"), granted("b"), granted("c"))
    with closing(open_store(file)) as running:
        with closing(open_store(file)) as other:
            recorded(other, granted("d"), ended("a"), ended("b"), granted("e"))
        assert changed(file, statement) == 1
        before = dump(file)
        with pytest.raises(StoreError):
            running.apply([granted("f")])
        assert dump(file) == before
    with pytest.raises(StoreError):
        open_store(file)


@pytest.mark.parametrize(
    "content", [b"not a database, whatever it is" * 100, b"SQLite format 3\x00" + bytes(84)]
)
def test_what_is_no_store_is_refused(file: Path, content: bytes) -> None:
    """Another file is not overwritten."""
    file.write_bytes(content)
    with pytest.raises(StoreError):
        open_store(file)
    assert file.read_bytes() == content


def test_a_store_of_another_version_is_refused(file: Path) -> None:
    """A format that this Guard does not write is neither read nor changed."""
    open_store(file).close()
    changed(file, "PRAGMA user_version = 9")
    for read_only in (True, False):
        with pytest.raises(StoreError, match="format 9"):
            connect(file, read_only=read_only)


def test_a_missing_store_is_not_made_by_reading(file: Path) -> None:
    """To look is not to create."""
    with pytest.raises(StoreError, match="no store"):
        connect(file, read_only=True)
    assert not file.exists()


# -- containments ----------------------------------------------------------------------------------


def _touched(store: Store, given: str = "talk", subject: str = "alice", *, own_only: bool) -> set[str]:
    found = store.snapshot(
        person(subject), Conversation(given, "meta"), ("server", "echo"), own_only=own_only
    )
    return set(found.contained)


def test_a_new_conversation_id_sheds_no_containment(store: Store) -> None:
    """Unless the role may assert conversations, one contained conversation stops the whole principal."""
    (opened,) = recorded(store, granted("g"))
    recorded(store, house(Kind.CONTAINED, Contain("conversation", opened.conversation)))
    assert _touched(store, own_only=True) == {"conversation"}
    assert _touched(store, "fresh", own_only=True) == set()
    assert _touched(store, "fresh", own_only=False) == {"conversation"}
    assert _touched(store, "talk", "bob", own_only=False) == set()
    recorded(store, house(Kind.RELEASED, Release("conversation", opened.conversation)))
    assert _touched(store, own_only=True) == set()


def test_twice_contained_is_released_at_once(store: Store) -> None:
    """Containing twice is as once; each of them moves the version, so that a decision is made anew."""
    for n in range(2):
        recorded(store, house(Kind.CONTAINED, Contain("all", "")))
        assert store.versions(TENANT)[CONTAINMENT] == n + 1
    assert _touched(store, own_only=True) == {"all"}
    recorded(store, house(Kind.RELEASED, Release("all", "")))
    assert _touched(store, own_only=True) == set()
    assert store.versions(TENANT)[CONTAINMENT] == 3


def test_keys_come_back_as_they_were_saved(store: Store) -> None:
    """A key's record, its last use and its end are read as they were written."""
    recorded(store, house(Kind.API_KEY, SaveKey(key_record())))
    assert store.api_key("k1") == key_record()
    recorded(store, transaction(Kind.DENIED, "d", UseKey("k1"), now=NOW + 1999))
    found = store.api_key("k1")
    assert found is not None
    assert found.last_used == NOW // 1000 + 1
    recorded(store, house(Kind.REVOKED, RevokeKey("k1"), now=NOW + 5000))
    found = store.api_key("k1")
    assert found is not None
    assert found.revoked_at == NOW // 1000 + 5
    assert store.api_keys() == [found]
    assert store.api_key("k2") is None


def test_an_open_grant_leads_back_to_its_place(store: Store) -> None:
    """What a restart needs to end a grant in the conversation that it was made in."""
    (one,) = recorded(store, granted("g", where=place("c", "bob", tenant="elsewhere"), instance="f" * 32))
    ((call, instance, where),) = store.open_grants()
    assert (call, instance, where.tenant) == ("g", "f" * 32, "elsewhere")
    (other,) = recorded(store, ended(call, Kind.UNKNOWN, where=where))
    assert other.conversation == one.conversation
    assert store.open_grants() == []


def test_the_chain_is_the_leaf_hash_of_the_entry_before(store: Store, path: Path | Address) -> None:
    """`prev` of each entry is the RFC 6962 leaf hash of the conversation's entry before it."""
    for n in range(6):
        recorded(store, granted(f"g{n}", where=place(f"c{n % 2}")))
    for at, leaf in enumerate(leaves(path)):
        expected = b64(tree_hash([leaves(path)[at - 2]])) if at >= 2 else ""
        assert parse(leaf).prev == expected

"""The shared store: its rows cannot be changed, its commits are made once, and it says when it cannot say."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from guard.core.model import Conversation
from guard.lineage.database import StoreError
from guard.lineage.entry import Kind, parse
from guard.lineage.postgres import schema
from guard.lineage.postgres.address import Address, holds_secret, shown
from guard.lineage.postgres.schema import APPENDED
from guard.lineage.postgres.store import PostgresStore
from guard.lineage.store import (
    CONTAINMENT,
    AnswerQuestion,
    CloseGrant,
    Conflict,
    Contain,
    Glimpse,
    Moved,
    OpenGrant,
    Outcome,
    Recorded,
    Release,
    Remember,
    Reserve,
    RevokeKey,
    SaveKey,
    SavePins,
    SavePolicy,
    SaveQuestion,
    SaveSetting,
    Seal,
    Strike,
    Unmoved,
    UseApproval,
    UseKey,
)
from tests.lineage.lineages import (
    NOW,
    OTHER_KEY,
    TENANT,
    checked,
    dump,
    ended,
    granted,
    house,
    leaves,
    open_store,
    person,
    place,
    placed,
    recorded,
    transaction,
)
from tests.lineage.test_store import key_record
from tests.postgres import Databases, with_parts

CHANCE = random.Random()  # noqa: S311 - moments, not secrets


@pytest.fixture
def address(database: str) -> Address:
    made = Address(database)
    schema.upgrade(made)
    return made


@pytest.fixture
def store(address: Address) -> Iterator[PostgresStore]:
    with closing(open_store(address)) as opened:
        yield opened


@pytest.fixture
def role(postgres: Databases, database: str) -> Iterator[str]:
    """A role that Guard works as, of this test's own."""
    name = f"app_{database.rpartition('guard_test_')[2].partition('?')[0]}"
    postgres.run(f"CREATE ROLE {name} LOGIN")
    yield name
    with psycopg.connect(database, autocommit=True) as db:
        db.execute(f"DROP OWNED BY {name}".encode())
    postgres.run(f"DROP ROLE {name}")


def kill(address: Address, name: str = "guard %") -> int:
    """End sessions at the server, as an operator, a crash or a failover does."""
    with closing(address.connect(patience=20, name="killer")) as db:
        sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE %s"
        return len(db.execute(sql, (name,)).fetchall())


# -- the rows --------------------------------------------------------------------------------------


def _filled(address: Address) -> None:
    with closing(open_store(address)) as store:
        recorded(store, granted("a"), ended("a"), granted("b"))
    placed(address)


CHANGES = [
    *(f"UPDATE {table} SET log = log" for table in APPENDED),  # noqa: S608 - names of tables
    *(f"DELETE FROM {table}" for table in (*APPENDED, "inbox")),  # noqa: S608
    *(f"TRUNCATE {table} CASCADE" for table in (*APPENDED, "inbox")),
    "UPDATE inbox SET at = 0",
    "DELETE FROM entries WHERE false",
]


def _with_one_that_waits(address: Address) -> None:
    """Entries in the log, and one in the inbox."""
    _filled(address)
    with closing(open_store(address)) as store:
        recorded(store, granted("waits"))
        store._committed = False  # it stays in the inbox


def test_not_even_the_owner_changes_what_stands(address: Address) -> None:
    """UPDATE, DELETE and TRUNCATE of the record's rows fail for everybody, and change nothing."""
    _with_one_that_waits(address)
    before = dump(address)
    for session in ("origin", "replica"):  # as a replica the ordinary triggers are silent
        with closing(address.connect(patience=20)) as db:
            db.execute(f"SET session_replication_role = {session}".encode())
            for statement in CHANGES:
                with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
                    db.execute(statement.encode())
    assert dump(address) == before


def test_guards_own_role_may_not_even_try(address: Address, role: str) -> None:
    """The role that Guard works as has no right to change the record's rows, or to switch the traps off."""
    _with_one_that_waits(address)
    schema.upgrade(address, role)
    before = dump(address)
    own = Address(with_parts(address.url, user=role))
    with closing(own.connect(patience=20)) as db:
        for statement in CHANGES:
            is_trapped = statement == "DELETE FROM inbox"  # its rows go once they have their place
            kind = (
                psycopg.errors.IntegrityConstraintViolation
                if is_trapped
                else psycopg.errors.InsufficientPrivilege
            )
            with pytest.raises(kind):
                db.execute(statement.encode())
        for table in (*APPENDED, "inbox"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute("SET session_replication_role = replica")
    assert dump(address) == before


def test_guards_own_role_can_do_all_that_guard_does(address: Address, role: str) -> None:
    """Every effect, the lease, used artifacts, the log and its audit work with what is granted."""
    schema.upgrade(address, role)
    own = Address(with_parts(address.url, user=role))
    with closing(open_store(own)) as store:
        lease = store.lease()
        store.serve(lease.instance, lambda error: pytest.fail(str(error)))
        recorded(
            store, house(Kind.API_KEY, SaveKey(key_record())), house(Kind.KEY_SET, SaveSetting("a", "b"))
        )
        recorded(
            store, house(Kind.POLICY, SavePolicy("p", 1, "x")), house(Kind.POLICY, SavePolicy("p", 2, "y"))
        )
        recorded(store, *(house(Kind.PIN, SavePins("s", (("t", n, b"{}"),))) for n in "ab"))
        recorded(store, house(Kind.CONTAINED, Contain("all", "")), house(Kind.RELEASED, Release("all", "")))
        call = (OpenGrant("g", lease.instance), UseKey("k1"), Reserve("c", "g", 1, 9, 1000))
        (one,) = recorded(store, transaction(Kind.GRANTED, "g", *call))
        kept = Remember("m", (Glimpse(b"f" * 16, "user", "trusted"),), 1000, 9)
        question = SaveQuestion("q", "i", "s", "d", ("r",), "reviewer", NOW + 1000, b"{}")
        answer = AnswerQuestion("q", yes=True, issuer="i", subject="another", word="reviewer")
        strike = Strike("s", "no", 1, 1000, "principal", "p")
        recorded(store, *(house(Kind.ASKED, effect) for effect in (question, answer, UseApproval("q"))))
        recorded(store, house(Kind.DENIED, strike), *(house(Kind.DENIED, kept) for _ in range(2)))
        over = replace(kept, memory="other")
        recorded(store, house(Kind.DENIED, over, now=NOW + 10**6), house(Kind.DENIED, Unmoved("m", 2)))
        assert store.recall(TENANT, "m", "c", [b"f" * 16]).version == 2
        assert [row.state for row in store.questions(TENANT, NOW)] == ["used"]
        recorded(
            store,
            transaction(Kind.RETURNED, "g", CloseGrant("g", known=True)),
            house(Kind.REVOKED, RevokeKey("k1")),
            house(Kind.KEY_SET, SaveSetting("a", "c")),
        )
        recorded(store, transaction(Kind.SEALED, "", Seal(one.conversation, 3), total=3))
        assert store.replay().insert(("v", "i", "j"), until=9, now=1)
        assert store.settle(20)
        lease.release()
    assert checked(own).findings == []


def test_a_waiting_entry_leaves_the_inbox_only_into_the_log(address: Address) -> None:
    """A row of the inbox may be deleted once an entry holds its ticket, and not with others that wait."""
    with closing(open_store(address)) as store:
        recorded(store, granted("a"), ended("a"))
        store._committed = False
        with closing(address.connect(patience=20, manual=True)) as db:
            first, second = [row[0] for row in db.execute("SELECT ticket FROM inbox ORDER BY ticket")]
            put = "INSERT INTO entries VALUES (0, 0, 'c', 0, '', '', %s)"
            db.execute(put, (first,))
            with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
                db.execute("DELETE FROM inbox WHERE ticket IN (%s, %s)", (first, second))
            db.rollback()
            db.execute(put, (first,))
            assert db.execute("DELETE FROM inbox WHERE ticket = %s", (first,)).rowcount == 1
            db.rollback()


# -- the one transaction -----------------------------------------------------------------------------


def _at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """All jobs, each on a thread, begun together."""
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        start.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


def test_64_calls_at_once_over_8_replicas_take_exactly_10(address: Address) -> None:
    """However they interleave: no more than the limit, and no fewer where there is room."""
    with ExitStack() as stack:
        stores = [stack.enter_context(closing(open_store(address))) for _ in range(8)]

        def take(number: int) -> list[Outcome]:
            found: list[Outcome] = []
            for n in range(8):
                call = f"{number}-{n}"
                wanted = (OpenGrant(call, "0" * 32), Reserve("few", call, 1, 10, 60_000))
                where = place(f"talk-{call}")
                found += stores[number].apply([transaction(Kind.GRANTED, call, *wanted, where=where)])
            return found

        found = _at_once(*(lambda number=number: take(number) for number in range(8)))
        outcomes = [outcome for each in found for outcome in each]
        assert sum(isinstance(outcome, Recorded) for outcome in outcomes) == 10
        assert sum(outcome == Moved("few") for outcome in outcomes) == 54
        assert stores[0].used(TENANT, [("few", 0)]) == [10]
    report = checked(address)
    assert (report.findings, report.granted) == ([], 10)


def test_a_revocation_that_was_told_is_never_passed(address: Address) -> None:
    """No grant on the old version is committed after what moved it: not one ticket, whoever commits."""
    rounds, writers = 12, 3
    with ExitStack() as stack:
        mover = stack.enter_context(closing(open_store(address)))
        stores = [stack.enter_context(closing(open_store(address))) for _ in range(writers)]
        stop = threading.Event()

        def grant(number: int) -> None:
            n = 0
            while not stop.is_set():
                now = stores[number].versions(TENANT).get(CONTAINMENT, 0)
                stores[number].apply([granted(f"{number}-{n}-{now}", expects={CONTAINMENT: now})])
                n += 1

        def move() -> None:
            for n in range(rounds):
                time.sleep(CHANCE.uniform(0, 0.02))
                change = Contain("all", "") if n % 2 == 0 else Release("all", "")
                recorded(mover, house(Kind.CONTAINED, change))
            stop.set()

        _at_once(move, *(lambda number=number: grant(number) for number in range(writers)))
    version, passed = 0, 0
    for leaf in map(parse, leaves(address)):
        if leaf.kind is Kind.CONTAINED:
            version += 1
        elif leaf.kind is Kind.GRANTED:
            assert int(leaf.call.rpartition("-")[2]) == version
            passed += 1
    assert version == rounds
    assert passed > writers, "nobody granted meanwhile: nothing was tested"


def test_two_that_end_the_same_grant_end_it_once(address: Address) -> None:
    """The process that owes an ending and the one that takes over may write it at once."""
    with ExitStack() as stack:
        stores = [stack.enter_context(closing(open_store(address))) for _ in range(4)]
        recorded(stores[0], *(granted(f"g{n}") for n in range(30)))

        def end(store: PostgresStore) -> list[Outcome]:
            return [store.apply([ended(f"g{n}", Kind.UNKNOWN)])[0] for n in range(30)]

        found = _at_once(*(lambda store=store: end(store) for store in stores))
        for each in zip(*found, strict=True):
            assert sum(isinstance(outcome, Recorded) for outcome in each) == 1
    report = checked(address)
    assert (report.findings, report.ended) == ([], 30)


def test_one_conversation_that_begins_everywhere_is_one(address: Address) -> None:
    """Replicas that open the same conversation, and the same grants, at the same moment agree."""
    with ExitStack() as stack:
        stores = [stack.enter_context(closing(open_store(address))) for _ in range(4)]

        def begin(store: PostgresStore, number: int) -> list[Outcome]:
            batches = [
                [
                    granted(f"same-{n}", where=place(f"c{n}")),
                    granted(f"own-{number}-{n}", where=place(f"c{n + 1}")),
                ]
                for n in range(20)
            ]
            return [outcome for batch in batches for outcome in store.apply(batch)]

        found = _at_once(*(lambda pair=pair: begin(*pair) for pair in zip(stores, range(4), strict=True)))
        names = {outcome.conversation for each in found for outcome in each if isinstance(outcome, Recorded)}
        assert len(names) == 21
    report = checked(address)
    assert (report.findings, report.granted) == ([], 20 + 80)


def test_what_the_database_cannot_hold_harms_nobody_else(store: PostgresStore) -> None:
    """A NUL or half a character in a client's id is refused alone: the rest of the batch stands."""
    batch = [
        granted("a"),
        granted("b", where=place("x\0y")),
        granted("c", where=place("\ud800")),
        granted("d"),
    ]
    kinds = [type(outcome) for outcome in store.apply(batch)]
    assert kinds == [Recorded, Conflict, Conflict, Recorded]
    assert store.api_key("k\0") is None


@pytest.mark.parametrize("given", ["x" * 256, "\U0001f512" * 256])
def test_the_longest_names_fit(store: PostgresStore, given: str) -> None:
    """Whatever a client may call its conversation has an index row."""
    recorded(store, granted("a", where=place(given, "s" * 1024)), ended("a", where=place(given, "s" * 1024)))


# -- lost connections --------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_connection_that_is_lost_around_the_commit(
    address: Address, store: PostgresStore, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Lost right before the commit is made or right after: neither lost nor made twice."""
    recorded(store, granted("a"))
    real, cuts = type(store._writer)._finish, []

    def finish(self: Any, db: Any, taken: Any) -> None:
        if moment == "after":
            real(self, db, taken)
        if len(cuts) < 2:
            cuts.append(kill(address, f"guard {self._name}"))
            if moment == "after":
                raise psycopg.OperationalError("the answer was lost")
        if moment == "before":
            real(self, db, taken)

    monkeypatch.setattr(type(store._writer), "_finish", finish)
    recorded(store, ended("a"), granted("b"))
    recorded(store, ended("b"), granted("c"))
    assert cuts == [1, 1]
    calls = [(leaf.kind, leaf.call) for leaf in map(parse, leaves(address))]
    begins, ends = Kind.GRANTED, Kind.RETURNED
    assert calls == [(begins, "a"), (ends, "a"), (begins, "b"), (ends, "b"), (begins, "c")]
    assert checked(address).findings == []


def test_sessions_that_are_killed_all_the_time_lose_and_double_nothing(address: Address) -> None:
    """Every answer that was given stands once, whatever the server did to the sessions meanwhile."""
    stop, killed, calls = threading.Event(), [0], [0]

    def killer() -> None:
        while not stop.is_set():
            time.sleep(CHANCE.uniform(0.001, 0.02))
            killed.append(kill(address))

    def work() -> None:
        end = time.monotonic() + 60
        try:
            while (calls[0] < 60 or sum(killed) < 10) and time.monotonic() < end:
                call, where = f"g{calls[0]}", place(f"c{calls[0] % 5}")
                recorded(store, granted(call, where=where))
                recorded(store, ended(call, where=where))
                calls[0] += 1
        finally:
            stop.set()

    with closing(open_store(address)) as store:
        _at_once(killer, work)
    assert sum(killed) >= 10, "hardly anything was killed: nothing was tested"
    report = checked(address)
    assert report.findings == []
    assert (report.granted, report.ended, report.open) == (calls[0], calls[0], [])
    assert report.entries == 2 * calls[0]


def test_a_frozen_writer_keeps_nobody_waiting_for_long(address: Address) -> None:
    """Whoever stops inside a transaction, with its locks, is thrown out by the server; the others go on."""
    with closing(open_store(address)) as frozen, closing(open_store(address)) as store:
        db = frozen._writer.connection()
        db.execute("BEGIN")
        from guard.lineage.postgres.needs import lock_key

        db.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key("tenant", TENANT),))
        recorded(store, granted("a"))
        recorded(frozen, ended("a"))
    assert checked(address).findings == []


# -- whose database it is ------------------------------------------------------------------------------


def test_a_database_without_a_store_says_what_to_run(database: str) -> None:
    """The message names the command; nothing is made by looking."""
    with pytest.raises(StoreError, match="there is no store yet") as caught:
        open_store(Address(database))
    assert "guard store upgrade" in str(caught.value)


@pytest.mark.parametrize(
    ("has", "says"), [("0", f"knows {schema.FORMAT} and older"), ("99", "use a newer Guard")]
)
def test_a_database_of_another_format_says_what_to_do(address: Address, has: str, says: str) -> None:
    """A format that this Guard does not know is neither read nor changed, not even by an upgrade."""
    with closing(address.connect(patience=20)) as db:
        db.execute("UPDATE guard.format SET version_num = %s", (has,))
    for opener in (open_store, schema.upgrade):
        with pytest.raises(StoreError, match=says):
            opener(address)


def test_upgrading_twice_changes_nothing(address: Address) -> None:
    """An upgrade is safe to repeat, and several at once make one store."""
    _filled(address)
    before = dump(address)
    found = _at_once(*(lambda: schema.upgrade(address) for _ in range(3)))
    assert found == [(schema.FORMAT, schema.FORMAT)] * 3
    assert dump(address) == before


def test_an_older_store_is_refused_until_it_is_upgraded(database: str, role: str) -> None:
    """By the command and by nothing else; what stands there stays, and Guard's role may work with it."""
    address = Address(database)
    with closing(address.connect(patience=20)) as db:
        db.execute("CREATE SCHEMA guard")
        schema._take_steps(address, "1")
        row = "INSERT INTO guard.reservations VALUES (%s, 'few/counter', %s, 'old', 3, %s)"
        db.execute(row, (TENANT, NOW, NOW + 1000))
        db.execute("INSERT INTO guard.versions VALUES (%s, 'containment', 7)", (TENANT,))
    with pytest.raises(StoreError, match="format 1, this Guard needs 2"):
        open_store(address)
    assert schema.upgrade(address, role) == ("1", schema.FORMAT)
    with closing(open_store(Address(with_parts(database, user=role)))) as store:
        assert store.used(TENANT, [("few/counter", 0)]) == [3]
        assert store.versions(TENANT) == {CONTAINMENT: 7}
        place_ = Reserve("few/counter", "new", 1, 4, 1000, held=True)
        recorded(store, transaction(Kind.GRANTED, "new", OpenGrant("new", "0" * 32), place_))
        recorded(store, transaction(Kind.RETURNED, "new", CloseGrant("new", known=True)))
        assert store.used(TENANT, [("few/counter", 0)]) == [3]


def test_upgrades_at_once_make_one_store(database: str) -> None:
    """The first start of all may happen several times."""
    made = _at_once(*(lambda: schema.upgrade(Address(database)) for _ in range(4)))
    assert sorted(made) == [("", schema.FORMAT), *[(schema.FORMAT, schema.FORMAT)] * 3]


def test_a_role_that_is_missing_is_named(address: Address) -> None:
    """A typing error in the role's name grants nothing to anybody."""
    with pytest.raises(StoreError, match="there is no role nobody-at-all"):
        schema.upgrade(address, "nobody-at-all")


def test_another_logs_database_is_refused(address: Address) -> None:
    """A database is used under its own origin and with its own key only."""
    _filled(address)
    before = dump(address)
    with pytest.raises(StoreError, match=r"belongs to the log guard\.example/lineage"):
        open_store(address, origin="guard.example/other")
    with pytest.raises(StoreError, match="did not sign"):
        open_store(address, key=OTHER_KEY)
    assert dump(address) == before


def test_a_database_that_is_not_there_is_told_without_the_password(tmp_path: Path) -> None:
    """The message names the address and what to do, and no password."""
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    address = Address(f"postgresql://guard:hunter2@/guard?host={tmp_path}", secret)
    with pytest.raises(StoreError) as caught:
        open_store(address)
    assert "hunter2" not in f"{caught.value}{caught.value!r}{address}{address!r}"
    assert "is it running" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("postgresql://u:secret@h:1/d?sslmode=require", "postgresql://u@h:1/d?sslmode=require"),
        ("postgresql://h/d?user=u&password=secret", "postgresql://h/d?user=u"),
        ("postgresql://h/d?%70assword=secret&a=b", "postgresql://h/d?a=b"),
        ("postgresql://u:s@x@h/d", "postgresql://u@h/d"),
        ("postgresql://[::1/secret", "postgresql://…"),
        ("postgresql://u:se?cret@h/d", "postgresql://…"),
        ("postgresql://u:se#cret@h/d", "postgresql://…"),
        ("postgresql://u?:secret@h/d", "postgresql://…"),
        ("postgresql://u:se/cret@h/d", "postgresql://…"),
        ("postgresql://h/d?passWord=secret&a=b", "postgresql://h/d?a=b"),
    ],
)
def test_no_form_of_a_url_shows_its_password(url: str, clean: str) -> None:
    """Wherever libpq takes a password, it is not shown."""
    assert shown(url) == clean
    assert clean == "postgresql://…" or (holds_secret(url) and not holds_secret(clean))


def test_the_password_comes_from_where_it_is_said(
    address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file's first line, or a variable; read anew at each connection, so that it can be changed."""
    secret = tmp_path / "password"
    secret.write_text("first\nnot this\n")
    by_file = Address(address.url, password_file=secret)
    with closing(by_file.connect(patience=20)) as db:
        assert db.info.password == "first"
    secret.write_text("second")
    with closing(by_file.connect(patience=20)) as db:
        assert db.info.password == "second"
    monkeypatch.setenv("DATABASE_PASSWORD", "third")
    by_variable = Address(address.url, password_env="DATABASE_PASSWORD")
    with closing(by_variable.connect(patience=20)) as db:
        assert db.info.password == "third"
    monkeypatch.delenv("DATABASE_PASSWORD")
    with pytest.raises(StoreError, match="no variable DATABASE_PASSWORD"):
        by_variable.connect(patience=20)


def test_a_session_is_as_durable_as_it_must_be(address: Address) -> None:
    """A default of the role that gives durability up is not taken over; a stronger one is."""
    with closing(address.connect(patience=20)) as db:
        name = str(db.info.user)
        for default, got in (("off", "on"), ("remote_apply", "remote_apply")):
            db.execute(
                f"ALTER ROLE {name} IN DATABASE {db.info.dbname} SET synchronous_commit = {default}".encode()
            )
            with closing(address.connect(patience=20)) as fresh:
                assert fresh.execute("SHOW synchronous_commit").fetchone() == (got,)


def test_snapshots_read_what_was_committed_last(address: Address) -> None:
    """Without a watcher each question is answered by the database as it stands."""
    with closing(open_store(address)) as one, closing(open_store(address)) as other:
        ask = (person(), Conversation("talk", "meta"), ("server", "echo"))
        for n in range(3):
            recorded(one, house(Kind.CONTAINED, Contain("all", ""), now=NOW + n))
            assert other.snapshot(*ask, own_only=True).contained == {"all"}
            recorded(other, house(Kind.RELEASED, Release("all", ""), now=NOW + n))
            assert one.snapshot(*ask, own_only=True).contained == frozenset()
            assert one.versions(TENANT)[CONTAINMENT] == 2 * n + 2

"""The sequencer: one log, contiguous, in order, signed by whoever is in office, and by nobody else."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from guard.core.keys import SigningKey
from guard.lineage.audit import Report, audit
from guard.lineage.entry import Kind, parse
from guard.lineage.log import entry
from guard.lineage.postgres import schema
from guard.lineage.postgres.connection import Address
from guard.lineage.postgres.floor import Floor
from guard.lineage.postgres.sequencer import LOCK, Deposed, Sequencer
from guard.lineage.postgres.source import PostgresSource
from tests.lineage.lineages import INSTANCE, KEY, NOW, ORIGIN, OTHER_KEY, VKEY
from tests.postgres import Server, with_parts

ROOT = Path(__file__).parents[2]
SECONDS = 60


@pytest.fixture
def address(database: str) -> Address:
    made = Address(database)
    schema.upgrade(made)
    return made


@pytest.fixture
def db(address: Address) -> Iterator[psycopg.Connection[Any]]:
    with closing(address.connect(patience=30)) as made:
        yield made


def open_conversation(db: psycopg.Connection[Any], name: str) -> None:
    db.execute(
        "INSERT INTO guard.conversations (id, tenant, issuer, subject, given, source, opened, key)"
        " VALUES (%s, 'default', 'launch', 'alice', %s, 'meta', 0, %s) ON CONFLICT DO NOTHING",
        (name, name, name.encode()),
    )


def put(db: psycopg.Connection[Any], conversation: str, kind: Kind, call: str, at: int = NOW) -> None:
    """What a replica commits: an entry in the inbox, with the grant that it opens or ends."""
    made = entry(kind, call, {"note": f"{kind} {call}"})
    with db.transaction():
        open_conversation(db, conversation)
        if kind is Kind.GRANTED:
            db.execute(
                "INSERT INTO guard.open_grants VALUES ('default', %s, %s, %s)", (call, conversation, INSTANCE)
            )
        elif kind is Kind.RETURNED:
            db.execute("DELETE FROM guard.open_grants WHERE call = %s", (call,))
        db.execute(
            "INSERT INTO guard.inbox (conversation, at, kind, call, digests, disclosures)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (conversation, at, kind.value, call, list(made.digests), orjson.dumps(made.disclosures)),
        )


def calls(db: psycopg.Connection[Any], first: int, count: int, talks: int = 3) -> None:
    for n in range(first, first + count):
        put(db, f"talk-{n % talks}", Kind.GRANTED, f"call-{n}", NOW + n)
        put(db, f"talk-{n % talks}", Kind.RETURNED, f"call-{n}", NOW + n)


def candidate(address: Address, *, key: SigningKey = KEY, holder: str = "one", **more: Any) -> Sequencer:
    return Sequencer(address, key=key, origin=ORIGIN, holder=holder, **more)


@contextmanager
def running(*candidates: Sequencer) -> Iterator[None]:
    with ExitStack() as stack:
        for one in candidates:
            one.start()
            stack.callback(one.stop)
        yield


def until(what: Callable[[], object], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def settled(db: psycopg.Connection[Any], entries: int) -> Callable[[], bool]:
    return lambda: (
        db.execute(
            "SELECT (SELECT count(*) FROM guard.entries), (SELECT count(*) FROM guard.inbox)"
        ).fetchone()
        == (entries, 0)
    )


def checked(address: Address) -> Report:
    return audit(PostgresSource(address), [VKEY])


def log_of(db: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return db.execute(
        "SELECT idx, conversation, seq, leaf, ticket FROM guard.entries ORDER BY idx"
    ).fetchall()


# -- moving ----------------------------------------------------------------------------------------


def test_what_was_committed_stands_in_the_log_in_order(address: Address, db: psycopg.Connection[Any]) -> None:
    """Each once, indexes and chains without a gap, a grant before its ending, signed and sound."""
    one = candidate(address)
    calls(db, 0, 40)
    with running(one):
        until(settled(db, 80))
        calls(db, 40, 40)
        until(settled(db, 160))
    report = checked(address)
    assert report.findings == []
    assert (report.entries, report.granted, report.ended, report.open) == (160, 80, 80, [])
    rows = log_of(db)
    assert [row[0] for row in rows] == list(range(160))
    assert [row[4] for row in rows] == sorted(row[4] for row in rows)
    assert one.moved == 160


def test_an_empty_log_is_signed(address: Address, db: psycopg.Connection[Any]) -> None:
    """The first in office signs the tree without leaves."""
    one = candidate(address)
    with running(one):
        until(one.elected.is_set)
    report = checked(address)
    assert (report.findings, report.entries, report.size) == ([], 0, 0)


def test_more_than_one_transaction_takes(address: Address, db: psycopg.Connection[Any]) -> None:
    """A long inbox is moved in several steps, without a seam."""
    made = entry(Kind.DENIED, "d", {"note": "x"})
    open_conversation(db, "talk")
    db.execute(
        "INSERT INTO guard.inbox (conversation, at, kind, call, digests, disclosures)"
        " SELECT 'talk', %s, 'denied', 'd' || n, %s, %s FROM generate_series(1, 2500) n",
        (NOW, list(made.digests), orjson.dumps(made.disclosures)),
    )
    with running(candidate(address)):
        until(settled(db, 2500))
    report = checked(address)
    assert (report.findings, report.chains) == ([], {"talk": 2500})


def test_a_clock_that_jumps_back_makes_no_entry_older(address: Address, db: psycopg.Connection[Any]) -> None:
    """Replicas' clocks differ, and are set back: time in the log does not run backwards."""
    with running(candidate(address)):
        for n, at in enumerate((NOW, NOW + 5000, NOW - 3_600_000, NOW + 1, 0)):
            put(db, "talk", Kind.DENIED, f"d{n}", at)
        until(settled(db, 5))
    put(db, "talk", Kind.DENIED, "later", NOW - 1)
    with running(candidate(address, holder="two")):
        until(settled(db, 6))
    times = [parse(row[3]).at for row in log_of(db)]
    assert times == [NOW] + [NOW + 5000] * 5
    assert checked(address).findings == []


def test_a_restart_goes_on_where_it_was(address: Address, db: psycopg.Connection[Any]) -> None:
    """Tokens only grow, and the log of one is the beginning of the next one's."""
    tokens, before = [], []
    for n in range(4):
        calls(db, 10 * n, 5)
        one = candidate(address, holder=f"holder-{n}")
        with running(one):
            until(settled(db, 10 * (n + 1)))
        tokens.append(one.token)
        rows = log_of(db)
        assert rows[: len(before)] == before
        before = rows
    assert tokens == [1, 2, 3, 4]
    assert checked(address).findings == []


def test_a_conversation_is_ordered_though_its_tickets_come_late(
    address: Address, db: psycopg.Connection[Any]
) -> None:
    """A lower ticket that becomes visible after a higher one was moved is neither lost nor doubled."""
    made = entry(Kind.DENIED, "slow", {"note": "x"})
    with closing(address.connect(patience=30, manual=True)) as slow, running(candidate(address)):
        slow.execute(
            "INSERT INTO guard.inbox (conversation, at, kind, call, digests, disclosures)"
            " VALUES ('talk', %s, 'denied', 'slow', %s, %s)",
            (NOW, list(made.digests), orjson.dumps(made.disclosures)),
        )
        put(db, "talk", Kind.DENIED, "quick")
        until(settled(db, 1))
        slow.commit()
        until(settled(db, 2))
    assert [parse(row[3]).call for row in log_of(db)] == ["quick", "slow"]
    assert checked(address).findings == []


def test_no_look_passes_over_a_ticket_that_may_still_come(
    address: Address, db: psycopg.Connection[Any]
) -> None:
    """The inbox is read from a floor on; a commit that is slow holds the floor down, and is not lost."""
    one = candidate(address)
    with (
        closing(one._connected()) as session,
        closing(address.connect(patience=30, manual=True)) as slow,
    ):
        assert one._is_elected(session)
        one._take_office(session)
        one._floor = Floor(seconds=0)
        calls(db, 0, 3)
        for _ in range(4):
            one.step(session)
        high = db.execute("SELECT max(ticket) FROM guard.entries").fetchone()
        assert (one._floor.at,) == high
        made = entry(Kind.GRANTED, "slow", {"note": "x"})
        slow.execute("INSERT INTO guard.open_grants VALUES ('default', 'slow', 'talk-0', %s)", (INSTANCE,))
        row = slow.execute(
            "INSERT INTO guard.inbox (conversation, at, kind, call, digests, disclosures)"
            " VALUES ('talk-0', %s, 'granted', 'slow', %s, %s) RETURNING ticket",
            (NOW, list(made.digests), orjson.dumps(made.disclosures)),
        ).fetchone()
        assert row is not None
        for n in range(3, 9):
            calls(db, n, 1)
            for _ in range(4):
                one.step(session)
            assert one._floor.at < row[0]
        slow.commit()
        put(db, "talk-0", Kind.RETURNED, "slow")
        for _ in range(6):
            one.step(session)
        assert one._floor.at > row[0]
    assert settled(db, 20)()
    assert checked(address).findings == []


def test_many_replicas_keep_the_order_of_each_call(address: Address, db: psycopg.Connection[Any]) -> None:
    """Eight that commit at once into the same conversations: each grant stands before its ending."""

    def replica(number: int) -> None:
        with closing(address.connect(patience=30)) as own:
            calls(own, 100 * number, 25)

    with running(candidate(address)):
        threads = [threading.Thread(target=replica, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(settled(db, 400))
    report = checked(address)
    assert (report.findings, report.granted, report.ended) == ([], 200, 200)
    placed: dict[str, list[Kind]] = {}
    for row in log_of(db):
        found = parse(row[3])
        placed.setdefault(found.call, []).append(found.kind)
    assert set(map(tuple, placed.values())) == {(Kind.GRANTED, Kind.RETURNED)}


def test_the_role_that_guard_works_as_suffices(address: Address, db: psycopg.Connection[Any]) -> None:
    """Whoever may not change an entry may still move, sign and audit."""
    role = f"works_{os.urandom(4).hex()}"
    db.execute(f"CREATE ROLE {role} LOGIN")
    try:
        schema.upgrade(address, role)
        working = Address(with_parts(address.url, user=role))
        calls(db, 0, 5)
        with running(candidate(working)):
            until(settled(db, 10))
        assert checked(working).findings == []
        with closing(working.connect(patience=30)) as own:
            for statement in (
                "UPDATE guard.entries SET seq = 9",
                "DELETE FROM guard.entries",
                "DELETE FROM guard.nodes",
                "UPDATE guard.payloads SET disclosures = ''",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    own.execute(statement)
    finally:
        db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


# -- who is in office ------------------------------------------------------------------------------


def test_only_one_is_in_office(address: Address, db: psycopg.Connection[Any]) -> None:
    """Of four only one moves; when it stops, another does."""
    four = [candidate(address, holder=f"holder-{n}") for n in range(4)]
    with running(*four):
        until(lambda: any(one.elected.is_set() for one in four))
        calls(db, 0, 20)
        until(settled(db, 40))
        (first,) = [one for one in four if one.elected.is_set()]
        assert [one.moved for one in four if one is not first] == [0, 0, 0]
        assert db.execute("SELECT holder FROM guard.sequencer").fetchone() == (first._holder,)
        first.stop()
        calls(db, 20, 20)
        until(settled(db, 80))
        assert first.moved == 40
        assert sum(one.moved for one in four) == 80
    assert checked(address).findings == []


def terminate(db: psycopg.Connection[Any]) -> None:
    """The server ends the session of whoever holds the office."""
    db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        " AND (classid::bigint << 32 | objid::bigint) = %s",
        (LOCK,),
    )


def test_the_deposed_writes_nothing(address: Address, db: psycopg.Connection[Any]) -> None:
    """Paused with rows in its hands, its lock gone, another elected: what it had is not written by it."""
    deposed = candidate(address, holder="deposed")
    with closing(deposed._connected()) as session:
        assert deposed._is_elected(session)
        deposed._take_office(session)
        calls(db, 0, 3)
        assert deposed.step(session) == 6
        session.execute("SELECT pg_advisory_unlock_all()")  # the office goes, the session stays
        other = candidate(address, holder="other")
        with running(other):
            calls(db, 3, 3)
            until(settled(db, 12))
            before = log_of(db)
            head = db.execute("SELECT * FROM guard.heads").fetchall()
        calls(db, 6, 1)
        with pytest.raises(Deposed):
            deposed.step(session)
        assert log_of(db) == before
        assert db.execute("SELECT * FROM guard.heads").fetchall() == head
    with running(candidate(address, holder="third")):
        until(settled(db, 14))
    assert checked(address).findings == []


def test_the_token_alone_does_not_let_it_write_over_another_head(
    address: Address, db: psycopg.Connection[Any]
) -> None:
    """Should a head move under the token that holds, it is compared, and nothing is signed over it."""
    one = candidate(address)
    with closing(one._connected()) as session:
        assert one._is_elected(session)
        one._take_office(session)
        calls(db, 0, 1)
        db.execute("UPDATE guard.heads SET size = 1, peaks = %s", (bytes(32),))
        with pytest.raises(Deposed):
            one.step(session)
    assert log_of(db) == []
    assert db.execute("SELECT count(*) FROM guard.inbox").fetchone() == (2,)


def test_a_session_that_the_server_ends_ends_the_office(
    address: Address, db: psycopg.Connection[Any]
) -> None:
    """Again and again under load: somebody is elected anew, and nothing is lost or doubled."""
    two = [candidate(address, holder=f"holder-{n}") for n in range(2)]
    with running(*two):
        for n in range(6):
            until(
                lambda n=n: db.execute("SELECT token > %s FROM guard.sequencer", (n,)).fetchone() == (True,)
            )
            calls(db, 20 * n, 10)
            terminate(db)
            calls(db, 20 * n + 10, 10)
        until(settled(db, 240))
    report = checked(address)
    assert (report.findings, report.granted, report.ended) == ([], 120, 120)
    assert max(one.token for one in two) >= 6


class Bold(Sequencer):
    """One that works as if it held the lock, whoever does."""

    def _is_elected(self, db: psycopg.Connection[Any]) -> bool:
        super()._is_elected(db)
        return True


def test_without_the_lock_the_token_still_keeps_them_apart(
    address: Address, db: psycopg.Connection[Any]
) -> None:
    """Three at once that ignore who is elected: each deposes the others, and nothing is lost or doubled."""
    three = [Bold(address, key=KEY, origin=ORIGIN, holder=f"holder-{n}") for n in range(3)]
    with running(*three):
        for n in range(0, 300, 20):
            calls(db, n, 20)
            time.sleep(0.05)
        until(settled(db, 600))
    report = checked(address)
    assert (report.findings, report.granted, report.ended) == ([], 300, 300)
    assert max(one.token for one in three) > 3
    assert sum(one.moved for one in three) == 600


@pytest.mark.parametrize("damage", ["another key", "another root", "no signature"])
def test_a_head_of_others_is_not_built_upon(
    address: Address, db: psycopg.Connection[Any], damage: str
) -> None:
    """A changed tree gets no fresh signature: it is said, nothing moves, and nothing is lost."""
    calls(db, 0, 2)
    with running(candidate(address)):
        until(settled(db, 4))
    if damage == "another root":
        db.execute("UPDATE guard.heads SET peaks = %s", (bytes(32),))
    elif damage == "no signature":
        db.execute("UPDATE guard.heads SET checkpoint = ''")
    head = db.execute("SELECT * FROM guard.heads").fetchall()
    said: list[BaseException] = []
    key = OTHER_KEY if damage == "another key" else KEY
    one = candidate(address, key=key, on_failure=said.append)
    calls(db, 2, 1)
    with running(one):
        until(lambda: said)
        assert "did not sign the lineage" in str(said[0])
        assert one.failure is not None
    assert one.moved == 0
    assert db.execute("SELECT * FROM guard.heads").fetchall() == head
    assert db.execute("SELECT count(*) FROM guard.inbox").fetchone() == (2,)


# -- processes that die ----------------------------------------------------------------------------

SCRIPT = (
    "import sys, time; from tests.lineage.test_sequencer import candidate;"
    "from guard.lineage.postgres.connection import Address;"
    "one = candidate(Address(sys.argv[1]), holder=sys.argv[2], idle_seconds=float(sys.argv[3])); one.start();"
    "one.elected.wait(); print('elected', flush=True); time.sleep(600)"
)


@contextmanager
def process(address: Address, holder: str, idle: float = 5.0) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, address.url, holder, str(idle)], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        assert started.stdout is not None
        started.stdout.close()


def elected(started: subprocess.Popen[bytes]) -> None:
    assert started.stdout is not None
    assert started.stdout.readline() == b"elected\n"


def test_kill_9_of_the_sequencer_loses_nothing(address: Address, db: psycopg.Connection[Any]) -> None:
    """At random moments in the middle of its work: the next one goes on, each entry once."""
    chance, count = random.Random(5), 0  # noqa: S311
    for n in range(5):
        with process(address, f"holder-{n}") as started:
            elected(started)
            end = time.monotonic() + chance.uniform(0.05, 0.4)
            while time.monotonic() < end:
                calls(db, count, 5)
                count += 5
            os.kill(started.pid, signal.SIGKILL)
    with running(candidate(address, holder="last")):
        until(settled(db, 2 * count))
    report = checked(address)
    assert (report.findings, report.granted, report.ended) == ([], count, count)


def test_a_paused_sequencer_loses_its_office_and_writes_nothing(
    address: Address, db: psycopg.Connection[Any]
) -> None:
    """SIGSTOP, until the server ends the silent session and another is elected; then SIGCONT."""
    with process(address, "paused", idle=1.0) as paused:
        elected(paused)
        calls(db, 0, 5)
        until(settled(db, 10))
        os.kill(paused.pid, signal.SIGSTOP)
        calls(db, 5, 5)
        other = candidate(address, holder="other")
        with running(other):
            until(settled(db, 20))
            os.kill(paused.pid, signal.SIGCONT)
            calls(db, 10, 20)
            until(settled(db, 60))
            assert other.moved == 50
            assert db.execute("SELECT holder FROM guard.sequencer").fetchone() == ("other",)
    report = checked(address)
    assert (report.findings, report.entries) == ([], 60)


def test_a_database_that_dies_comes_back(own_postgres: Server) -> None:
    """Kill -9 of the server: the same sequencer takes office again by itself, and goes on."""
    address = Address(own_postgres.url)
    schema.upgrade(address)
    one = candidate(address)
    with running(one):
        for n in range(3):
            with closing(address.connect(patience=30)) as db:
                calls(db, 10 * n, 5)
                until(settled(db, 20 * n + 10))
                calls(db, 10 * n + 5, 5)
            own_postgres.kill()
            own_postgres.start()
            with closing(address.connect(patience=30)) as db:
                until(settled(db, 20 * n + 20))
    report = checked(address)
    assert (report.findings, report.entries) == ([], 60)
    assert one.token == 4

"""Replicas whose clocks differ: the database's counts, and none of them takes, frees or keeps too much."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from guard.core.errors import Reason
from guard.lineage.entry import Kind
from guard.lineage.postgres import schema
from guard.lineage.postgres.address import Address
from guard.lineage.postgres.keys import SAID_SECONDS
from guard.lineage.postgres.store import PostgresStore
from guard.lineage.store import Conflict, OpenGrant, Outcome, Recorded, Reserve, Transaction
from tests.lineage.lineages import INSTANCE, KEY, ORIGIN, ended, granted, recorded, transaction

HOUR = 3600


@pytest.fixture
def address(database: str) -> Address:
    made = Address(database)
    schema.upgrade(made)
    return made


@pytest.fixture
def store(address: Address) -> Iterator[PostgresStore]:
    with closing(PostgresStore(address, key=KEY, origin=ORIGIN)) as opened:
        yield opened


@pytest.fixture
def other(address: Address) -> Iterator[PostgresStore]:
    with closing(PostgresStore(address, key=KEY, origin=ORIGIN)) as opened:
        yield opened


def _now(seconds: float = 0) -> int:
    return time.time_ns() // 1_000_000 + int(seconds * 1000)


def _taking(call: str, now: int, window: int = 60_000) -> Transaction:
    wanted = (OpenGrant(call, INSTANCE), Reserve("few", call, 1, 10, window))
    return transaction(Kind.GRANTED, call, *wanted, now=now)


def _granted(outcomes: list[Outcome]) -> int:
    return sum(isinstance(outcome, Recorded) for outcome in outcomes)


def test_a_clock_that_is_ahead_grants_nothing(store: PostgresStore) -> None:
    """More than 10 seconds before the database's clock: no grant; what must be written has its time."""
    recorded(store, granted("a", now=_now()))
    for refused in (granted("b", now=_now(60)), _taking("b", _now(60))):
        (outcome,) = store.apply([refused])
        assert isinstance(outcome, Conflict)
        assert outcome.reason is Reason.CLOCK_AHEAD
    (late,) = recorded(store, ended("a", now=_now(HOUR)))
    assert abs(late.at - _now()) < 30_000
    recorded(store, granted("c", now=_now(1)))


def test_a_clock_that_is_behind_doubles_no_limit(store: PostgresStore, other: PostgresStore) -> None:
    """On a log that was idle too: a slow replica grants nothing, and still ends what is open."""
    recorded(store, granted("a", now=_now()))
    for refused in (granted("b", now=_now(-300)), *(_taking(f"L{n}", _now(-300)) for n in range(11))):
        (outcome,) = store.apply([refused])
        assert isinstance(outcome, Conflict)
        assert outcome.reason is Reason.CLOCK_BEHIND
    assert _granted([other.apply([_taking(f"R{n}", _now())])[0] for n in range(12)]) == 10
    (late,) = recorded(store, ended("a", now=_now(-HOUR)))
    assert abs(late.at - _now()) < 30_000


@pytest.mark.parametrize("skew", [-5, 5])
def test_a_clock_that_is_a_little_astray_doubles_no_limit(
    store: PostgresStore, other: PostgresStore, skew: int
) -> None:
    """Less than what is refused, and more than the window: what one took the other finds."""
    window = 4_000
    began = time.monotonic()
    first = [store.apply([_taking(f"a{n}", _now(skew), window)])[0] for n in range(7)]
    second = [other.apply([_taking(f"b{n}", _now(), window)])[0] for n in range(7)]
    third = [store.apply([_taking(f"c{n}", _now(skew), window)])[0] for n in range(7)]
    if time.monotonic() - began > window / 1000:
        pytest.skip("this machine was too slow for the window")
    assert _granted(first + second + third) == 10


def test_a_replica_that_is_ahead_frees_no_used_artifact(store: PostgresStore, other: PostgresStore) -> None:
    """What it deletes, and what it takes for ended, has ended by the database's clock as well."""
    now, key = _now() // 1000, ("verifier", "issuer", "jti")
    right, ahead = store.replay(), other.replay()
    assert right.insert(key, until=now + 70, now=now)
    assert ahead.insert(("verifier", "issuer", "another"), until=now + HOUR + 70, now=now + HOUR)
    assert not right.insert(key, until=now + 70, now=now)
    assert not ahead.insert(key, until=now + HOUR + 70, now=now + HOUR)


def test_a_published_key_is_not_kept_beyond_its_time(address: Address, store: PostgresStore) -> None:
    """Who can write to the database cannot bring back a key that leaked, nor one of the older form."""
    secret, jwk = b"s" * 32, KEY.public.jwk()
    store.keys(secret).say(jwk)
    assert store.keys(secret).known() == [jwk]
    with closing(address.connect(patience=20)) as db:
        for until in ("until - 1", f"until + {SAID_SECONDS}", "2 ^ 60"):
            db.execute("BEGIN")
            db.execute(f"UPDATE artifact_keys SET until = {until}".encode())  # noqa: S608 - constants
            db.execute("COMMIT")
            assert store.keys(secret).known() == []
    store.keys(secret).say(jwk)
    assert store.keys(secret).known() == [jwk]

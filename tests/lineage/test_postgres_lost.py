"""What a replica does while its way into the database, or the database's standby, is lost."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from guard.lineage.entry import parse
from guard.lineage.postgres import connection, schema, writing
from guard.lineage.postgres.address import Address
from guard.lineage.store import Away
from tests.lineage.lineages import checked, granted, leaves, open_store, recorded
from tests.lineage.test_postgres import kill
from tests.postgres import Server


def test_a_password_file_that_is_away_for_a_moment_stops_nobody(database: str, tmp_path: Path) -> None:
    """At a reconnect it is as a database that is away: refused now, and well again once the file is back."""
    secret = tmp_path / "password"
    secret.write_text("guard\n")
    schema.upgrade(Address(database))
    address = Address(database, password_file=secret)
    with closing(open_store(address)) as store:
        recorded(store, granted("before"))
        secret.unlink()
        kill(Address(database))
        store.patience(0.2)
        with pytest.raises(Away, match="password's file"):
            store.apply([granted("while")])
        with pytest.raises(Away):
            store.used("default", [("few", 0)])
        secret.write_text("guard\n")
        recorded(store, granted("after"))
    assert [leaf.call for leaf in map(parse, leaves(Address(database)))] == ["before", "after"]


def test_a_standby_that_hangs_makes_no_commit_durable(
    own_postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for it is committed on one machine alone: told as away, however often it is looked for."""
    monkeypatch.setattr(writing, "PATIENCE", 0.5)
    address = Address(own_postgres.url)
    schema.upgrade(address)
    with closing(open_store(address)) as store:
        recorded(store, granted("before"))
        _standby(own_postgres, "nobody")
        store.patience(4)
        with pytest.raises(Away):
            store.apply([granted("alone")])
        _standby(own_postgres, "")
        recorded(store, granted("after"))
    calls = [leaf.call for leaf in map(parse, leaves(address))]
    assert (calls[0], calls[-1], calls.count("alone") <= 1) == ("before", "after", True)
    assert checked(address).findings == []


def _standby(server: Server, name: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as db:
        db.execute("SET synchronous_commit = local")
        db.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'".encode())
        db.execute("SELECT pg_reload_conf()")
        while db.execute("SHOW synchronous_standby_names").fetchone() != (name,):
            db.execute("SELECT pg_sleep(0.01)")


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgresql://a,b/d", True),
        ("postgresql:///d?host=a,b", True),
        ("postgresql://a/d", False),
        ("postgresql://a,b/d?target_session_attrs=any", False),
    ],
)
def test_of_many_hosts_the_one_that_writes_is_wanted(url: str, wanted: object) -> None:
    """Never a standby that only reads, unless the URL says so."""
    assert connection._is_on_one_of_many(url) is wanted

"""The tests' own PostgreSQL: it is there, it is killed, and what was committed is still there."""

from __future__ import annotations

import psycopg
import pytest

from tests.postgres import Databases, Server, address, name_of, through, with_parts


def test_each_test_has_a_database_of_its_own(database: str) -> None:
    """It is empty, and whoever has its URL may do everything in it."""
    with psycopg.connect(database) as db:
        found = db.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert found == (0,)
        db.execute("CREATE TABLE one (n integer)")


def test_a_role_may_do_nothing_that_it_was_not_given(postgres: Databases) -> None:
    """A test of what a role may not do would test nothing as the owner. It ends with its database."""
    url = postgres.make()
    try:
        with psycopg.connect(postgres.role(url, "one")) as db:
            assert db.execute("SELECT current_user").fetchone() == (f"{name_of(url)}_one",)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute("CREATE TABLE public.one (n integer)")
    finally:
        postgres.drop(url)
    with psycopg.connect(postgres.url) as db:
        left = db.execute("SELECT FROM pg_roles WHERE starts_with(rolname, %s)", (name_of(url),))
        assert left.fetchall() == []


def test_what_was_committed_survives_a_kill(own_postgres: Server) -> None:
    """Kill -9 of every process of the server; it recovers, and loses no commit."""
    with psycopg.connect(own_postgres.url, autocommit=True) as db:
        db.execute("CREATE TABLE one (n integer)")
        db.execute("INSERT INTO one VALUES (7)")
        own_postgres.kill()
        with pytest.raises(psycopg.OperationalError):
            db.execute("SELECT 1")
    own_postgres.start()
    with psycopg.connect(own_postgres.url) as db:
        assert db.execute("SELECT n FROM one").fetchone() == (7,)


def test_it_syncs_as_a_real_one_does(postgres: object, database: str) -> None:
    """A test of durability on a server that does not sync would test nothing."""
    with psycopg.connect(database) as db:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert db.execute(f"SHOW {name}".encode()).fetchone() == ("on",)


def test_urls_name_what_is_asked_for() -> None:
    """Another database, another user, another way to the same server."""
    url = "postgresql://postgres@/postgres?host=%2Fsrv%2Fx&port=5432"
    assert with_parts(url, database="a") == "postgresql://postgres@/a?host=%2Fsrv%2Fx&port=5432"
    assert with_parts("postgresql://a:b@h:1/d", user="c") == "postgresql://c@h:1/d"
    assert with_parts("postgresql://a:b@h:1/d", user="c", password="e") == "postgresql://c:e@h:1/d"
    assert address(url) == "/srv/x/.s.PGSQL.5432"
    assert address("postgresql://a:b@h:1/d") == ("h", 1)
    assert through(url, 7) == "postgresql://postgres@127.0.0.1:7/postgres"
    assert (
        through("postgresql://a:b@h:1/d?sslmode=disable", 7)
        == "postgresql://a:b@127.0.0.1:7/d?sslmode=disable"
    )

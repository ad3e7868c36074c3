"""SQL that reads or changes a table that its rule does not name, and what SQLite itself says of it."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.policy.boundaries.sql_text import DIALECTS
from guard.policy.boundaries.verdict import NotUnderstood
from guard.policy.boundaries.words import judge

EVERY = ["select", "insert", "update", "delete"]
HIDDEN = "WITH secrets AS (SELECT 1 AS a)"


def answer(statement: str, dialect: str, **more: Any) -> str:
    """What the keyword says where only `orders` and the schema `s` are listed."""
    stated = {"dialect": dialect, "statements": EVERY, "tables": ["orders", "s.*"], **more}
    try:
        return "inside" if judge("sql", stated)(statement) else "outside"
    except NotUnderstood:
        return "unclear"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM secrets",
        "DELETE FROM secrets WHERE a = 1",
        "UPDATE secrets SET a = 2",
        "INSERT INTO secrets VALUES (2)",
        "INSERT INTO secrets (a) VALUES (2)",
        "INSERT INTO secrets (a) SELECT a FROM secrets",
        ", x AS (DELETE FROM secrets RETURNING a) SELECT * FROM x",
        "DELETE secrets FROM orders JOIN secrets ON true",
    ],
)
def test_a_name_in_with_does_not_hide_the_table_that_is_changed(statement: str, dialect: str) -> None:
    """Databases change the real table of that name: DELETE, UPDATE and INSERT do not look into WITH."""
    assert answer(f"{HIDDEN} {statement}", dialect) == "outside"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM orders WHERE a IN (SELECT a FROM secrets)",
        "DELETE FROM orders USING secrets WHERE orders.a = secrets.a",
        "INSERT INTO orders (a) SELECT a FROM secrets",
        "UPDATE orders SET a = (SELECT max(a) FROM secrets)",
        "SELECT * FROM (orders JOIN secrets ON true)",
        "SELECT * FROM (secrets JOIN orders ON true)",
        "SELECT * FROM orders, secrets",
        ", x AS (SELECT a FROM secrets) SELECT * FROM x",
    ],
)
def test_where_it_is_read_it_is_what_with_says(statement: str, dialect: str) -> None:
    """An honest statement may use what it defines, whatever it changes beside that."""
    assert answer(f"{HIDDEN} {statement}", dialect) == "inside"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 IN secrets",
        "SELECT * FROM orders WHERE a NOT IN secrets",
        "SELECT 1 IN main.secrets",
        "DELETE FROM orders WHERE a IN secrets",
        "SELECT a FROM orders WHERE a IN orders",
        'WITH "values" AS (SELECT 1) SELECT * FROM values, secrets',
        "SELECT * FROM orders, values, secrets",
        "SELECT * FROM values x, secrets",
        "SELECT * FROM values secrets",
        "DELETE FROM orders USING values, secrets",
        "UPDATE orders SET a = 1 FROM values, secrets",
        "INSERT INTO values (a) VALUES (1)",
        "SELECT a FROM orders UNION TABLE secrets",
        "SELECT a FROM (TABLE secrets) x",
        "SELECT current_role",
        "SELECT session_user FROM orders",
        "SELECT system_user",
        "SELECT current_catalog",
        "SELECT current_schema",
        "SELECT a COLLATE x FROM orders",
        'SELECT a COLLATE "x" FROM orders',
        "SELECT a FROM orders FOR UPDATE",
        "SELECT a FROM ONLY secrets x",
        "INSERT INTO orders SELECT a INTO x FROM orders",
    ],
)
def test_a_table_that_the_parser_does_not_see_is_not_understood(statement: str, dialect: str) -> None:
    """SQLite reads a table in `IN secrets`, others in `TABLE secrets`; to one `values` is a name as any."""
    assert answer(statement, dialect, functions=["collate"]) != "inside"
    assert answer(statement, dialect, tables=["orders", "only"], functions=["x"]) == "unclear"


@pytest.mark.parametrize(
    ("statement", "answers"),
    [
        # mysql, postgres, sqlite
        ("SELECT user FROM orders", ("inside", "unclear", "inside")),
        ("SELECT * FROM Orders", ("unclear", "inside", "inside")),
        ("SELECT * FROM S.x", ("unclear", "inside", "inside")),
        ("SELECT * FROM s.X", ("inside", "inside", "inside")),
        ("SELECT * FROM s", ("outside", "outside", "outside")),
        ("SELECT * FROM x.s", ("outside", "outside", "outside")),
        ("SELECT * FROM x.orders", ("outside", "outside", "outside")),
        ("WITH X AS (SELECT 1) SELECT * FROM x", ("outside", "inside", "inside")),
        ('SELECT * FROM "orders"', ("unclear", "inside", "inside")),
        ('SELECT * FROM "Orders"', ("unclear", "unclear", "inside")),
        ("SELECT * FROM `orders`", ("inside", "unclear", "unclear")),
        ('WITH "X" AS (SELECT 1) SELECT * FROM x', ("unclear", "outside", "inside")),
        ('SELECT "values" FROM orders', ("unclear", "inside", "inside")),
        ("INSERT INTO orders (a) VALUES\n (1), (2)", ("inside", "inside", "inside")),
        ('SELECT "left"(a, 1) FROM orders', ("unclear", "inside", "inside")),
        ('SELECT "select"(a) FROM orders', ("unclear", "unclear", "unclear")),
        ("SELECT a::int FROM orders", ("unclear", "inside", "unclear")),
        ("SELECT CAST(a AS int) FROM orders", ("inside", "inside", "inside")),
        ("SELECT CAST(a AS xml) FROM orders", ("unclear", "unclear", "unclear")),
        ('SELECT CAST(a AS "xml") FROM orders', ("unclear", "unclear", "unclear")),
        ('SELECT "a"::"regclass" FROM orders', ("unclear", "unclear", "unclear")),
        ("SELECT f(a) FROM orders", ("inside", "inside", "inside")),
        ("SELECT F (a) FROM orders", ("inside", "inside", "inside")),
        ("SELECT g (a) FROM orders", ("unclear", "unclear", "unclear")),
        ("SELECT * FROM f(a)", ("unclear", "unclear", "unclear")),
        ("SELECT s.f(a) FROM orders", ("unclear", "unclear", "unclear")),
        ("SELECT * FROM a.s.x", ("unclear", "unclear", "unclear")),
    ],
)
def test_each_dialect_reads_names_as_its_database_does(statement: str, answers: tuple[str, ...]) -> None:
    """Capitals, quotes and casts: what counts as the same name differs from one to the other."""
    assert tuple(answer(statement, dialect, functions=["f"]) for dialect in DIALECTS) == answers


@pytest.mark.parametrize(
    ("statement", "answers"),
    [
        ("SELECT * FROM Orders", ("inside", "unclear", "inside")),
        ("SELECT * FROM orders", ("unclear", "unclear", "inside")),
        ("SELECT * FROM Rep.x", ("inside", "unclear", "inside")),
        ("SELECT * FROM rep.x", ("unclear", "unclear", "inside")),
        ('SELECT * FROM "Orders"', ("unclear", "inside", "inside")),
        ('SELECT * FROM "Rep".x', ("unclear", "inside", "inside")),
        ("SELECT * FROM other", ("outside", "outside", "outside")),
    ],
)
def test_a_table_that_is_listed_with_capitals_is_the_one_with_capitals(
    statement: str, answers: tuple[str, ...]
) -> None:
    """But to SQLite, for which all spellings are one table."""
    tables = ["Orders", "Rep.*"]
    assert tuple(answer(statement, dialect, tables=tables) for dialect in DIALECTS) == answers


TABLES = ("orders", "secrets")


def touched(statement: str) -> set[str] | None:
    """The tables that SQLite reads or changes for a statement, as itself says; None if it takes none."""
    found: set[str] = set()

    def authorize(_: int, first: str | None, _2: str | None, base: str | None, _4: str | None) -> int:
        if base is not None:  # else it is a name in WITH
            found.update({str(first).lower()} & set(TABLES))
        return sqlite3.SQLITE_OK

    with sqlite3.connect(":memory:") as database:
        for table in TABLES:
            database.execute(f"CREATE TABLE {table} (a)")
        database.set_authorizer(authorize)
        try:
            database.execute(statement)
        except (sqlite3.Error, sqlite3.Warning):
            return None
        finally:
            database.set_authorizer(None)
    return found


WORDS = [
    *("orders", "secrets", '"secrets"', "a", "1", "*", "(", ")", ",", "x", "AS", "IN", "NOT", "="),
    *("FROM", "FROM secrets", "JOIN", "USING (a)", "WHERE", "UNION", "UNION ALL", "SELECT", "SELECT a FROM"),
    *("(SELECT a FROM secrets)", "DELETE FROM", "INSERT INTO", "UPDATE", "SET a = 1", "VALUES (1)", "main."),
]
BEGINNINGS = [
    *("SELECT", "SELECT a FROM orders", "DELETE FROM orders", "INSERT INTO orders", "UPDATE orders SET a ="),
    *(f"{HIDDEN} {rest}" for rest in ("DELETE FROM", "SELECT a FROM", "UPDATE", "INSERT INTO")),
    *("WITH x AS (", "WITH orders AS (SELECT a FROM", "SELECT a FROM orders WHERE a IN"),
]


@given(st.sampled_from(BEGINNINGS), st.lists(st.sampled_from(WORDS), max_size=8))
def test_sqlite_touches_no_other_table_than_those_that_are_listed(first: str, rest: list[str]) -> None:
    """Whatever is accepted, SQLite's own authorizer sees no table but the listed one."""
    statement = " ".join([first, *rest]).replace("main. ", "main.")
    if answer(statement, "sqlite") == "inside":
        assert (touched(statement) or set()) <= {"orders"}


@pytest.mark.parametrize(
    ("statement", "tables"),
    [
        ("WITH secrets AS (SELECT 1) DELETE FROM secrets", {"secrets"}),
        ("SELECT 1 IN secrets", {"secrets"}),
        ("WITH secrets AS (SELECT 1) SELECT * FROM secrets", set()),
        ("SELECT a FROM orders WHERE a IN (SELECT a FROM secrets)", {"orders", "secrets"}),
    ],
)
def test_sqlite_tells_which_tables_it_touches(statement: str, tables: set[str]) -> None:
    """The reckoning that the test above relies on sees both attacks."""
    assert touched(statement) == tables

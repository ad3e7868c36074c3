"""Each fence around the SQL parser alone: the text before it, and the tree behind it."""

from __future__ import annotations

from typing import Any

import pytest
import sqlglot

from guard.policy.boundaries import sql_text, sql_tree
from guard.policy.boundaries.sql_text import DIALECTS, splitter
from guard.policy.boundaries.sql_tree import Statement
from guard.policy.boundaries.sql_words import _words
from guard.policy.boundaries.verdict import NotUnderstood

EACH = pytest.mark.parametrize("dialect", DIALECTS)


@EACH
@pytest.mark.parametrize(
    ("statement", "plain"),
    [
        ("\n\t SELECT X \t\n;\t ", "SELECT X"),
        ("X; ", "X"),
        ("SELECT 1;", "SELECT 1"),
        ("SELECT 1", "SELECT 1"),
    ],
)
def test_one_semicolon_and_the_space_around_are_dropped(statement: str, plain: str, dialect: str) -> None:
    """What is left is what the parser reads, letter by letter."""
    assert sql_text.split(statement, dialect).plain == plain


@EACH
@pytest.mark.parametrize(
    "statement",
    ["SELECT 1\r", "\rSELECT 1", "SELECT 1\f;", "\u00a0SELECT 1", "SELECT 1;;", ";SELECT 1", "SELECT 1 ; ;"],
)
def test_other_space_and_more_semicolons_are_not_dropped(statement: str, dialect: str) -> None:
    """Databases disagree about what else is space."""
    with pytest.raises(NotUnderstood):
        sql_text.split(statement, dialect)


@EACH
def test_words_are_told_from_names_and_calls(dialect: str) -> None:
    """What stands bare, what is called, also with a space before its parenthesis or between quotes."""
    quote = "`" if dialect == "mysql" else '"'
    text = "select F(a) , G\n ( 1 ) + ((2)) `H`(3) 'i'(4) 5(6) IN (7) FROM `J`"
    words = sql_text.split(text.replace("`", quote), dialect)
    assert words.first == "select"
    assert words.bare == {"select", "f", "a", "g", "in", "from"}
    assert words.called == {"f", "g", "h"}
    assert sql_text.split("(SELECT 1)", dialect).called == frozenset()
    assert sql_text.split("(SELECT 1)", dialect).first == "select"


@EACH
@pytest.mark.parametrize(
    ("fits", "too_much"),
    [
        (f"SELECT {'(' * 32}1{')' * 32}", f"SELECT {'(' * 33}1{')' * 33}"),
        (f"SELECT {'CASE ' * 32}{'END ' * 32}", f"SELECT {'CASE ' * 33}{'END ' * 33}"),
        (f"SELECT {'(CASE ' * 16}{'END) ' * 16}", f"SELECT {'(CASE ' * 17}{'END) ' * 17}"),
        (f"SELECT {'(1) ' * 99}{'CASE END ' * 99}", "SELECT (1))"),
        ("SELECT 'a b'", "SELECT 'a\tb'"),
        ("SELECT 'é'", "SELECT 'a\nb'"),
        ("SELECT ''''", "SELECT '\u202e'"),
        ("SELECT 1" + " , 1" * 999, "SELECT 1" + " , 1" * 999 + " +"),
        ("SELECT CASE END", "SELECT END CASE"),
    ],
)
def test_a_statement_has_a_depth_and_a_length(fits: str, too_much: str, dialect: str) -> None:
    """32 levels of parentheses and CASE, none that was not opened, 2,000 words, texts that print."""
    assert sql_text.split(fits, dialect).plain == fits.rstrip()
    with pytest.raises(NotUnderstood):
        sql_text.split(too_much, dialect)


@EACH
def test_each_dialect_has_its_quotes_and_one_has_casts(dialect: str) -> None:
    """A piece of another dialect is no piece at all, and each piece is of its kind."""
    find = splitter(dialect)
    kinds = {
        "'a''b'": "text",
        "ab_1": "word",
        "10.5": "number",
        " \n\t": "space",
        "<>": "sign",
        "::": "cast" if dialect == "postgres" else None,
        '"a"': None if dialect == "mysql" else "quoted",
        "`a`": "quoted" if dialect == "mysql" else None,
        "[a]": None,
        "--": None,
        "/*": None,
        "E'x'": None,
        "01": None,
        "1e3": None,
        "\\": None,
    }
    found = {piece: find.match(piece) for piece in kinds}
    assert {piece: match and match.lastgroup for piece, match in found.items()} == kinds
    assert all(match is None or match.group() == piece for piece, match in found.items())


def test_the_lists_of_words_are_words() -> None:
    """They are written as text, on as many lines as it takes."""
    assert _words(" a b\n  c ") == {"a", "b", "c"}


def tree(statement: str) -> list[Any]:
    return list(sqlglot.parse_one(statement, dialect="postgres").walk())


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 FOR UPDATE",
        "SELECT 1 INTO x",
        "UPDATE ONLY t SET a = 1",
        "SELECT * FROM ONLY t",
        "INSERT INTO t DEFAULT VALUES",
        "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
        "SELECT CAST(a AS xml)",
        "SELECT CAST(a AS regclass)",
        "SELECT CAST(a AS mood)",
        "SELECT a[1]",
        "SELECT a -> 'b'",
        "SELECT pg_catalog.f(1)",
        'SELECT "f"(1)',
        "SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x) AS y",
        "SELECT a IN t",
        "INSERT INTO values (a) VALUES (1)",
        "SELECT current_user",
        "SELECT * FROM t TABLESAMPLE SYSTEM (1)",
        "SELECT * FROM t, LATERAL (SELECT 1) AS x",
    ],
)
def test_the_tree_refuses_by_itself_what_the_text_refuses_too(statement: str) -> None:
    """Two fences: a parser that learns new words opens only one of them."""
    with pytest.raises(NotUnderstood):
        [*(name for node in tree(statement) for name in sql_tree._checked(node, frozenset({"f", "g"})))]


@pytest.mark.parametrize(
    ("statement", "called", "names"),
    [
        ("SELECT St_X(a), sum(b) FROM t", {"st_x", "sum"}, ["st_x"]),
        ("SELECT regexp_replace(a, 'b', 'c')", {"regexp_replace"}, ["regexp_replace"]),
        ("SELECT CAST(a AS int), b::text, CAST(c AS numeric(3, 2)) FROM t AS x (y)", set(), []),
        ("UPDATE t SET a = 1 WHERE b IN (1, 2) OR c IN (SELECT 1) RETURNING a", set(), []),
        ("INSERT INTO t (a, b) VALUES (1, NULL), (2, 3)", {"t"}, []),
        ("WITH x AS (SELECT 1) DELETE FROM t USING x", set(), []),
    ],
)
def test_a_tree_of_known_nodes_tells_its_functions(
    statement: str, called: set[str], names: list[str]
) -> None:
    """What is harmless is not told; everything else by its name in small letters, as it was called."""
    assert [name for node in tree(statement) for name in sql_tree._checked(node, frozenset(called))] == names


SELECTS = frozenset({"select"})


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT Pg_Sleep (1)", Statement(SELECTS, frozenset(), frozenset({"pg_sleep"}))),
        ("SELECT sum(a) FROM S.T", Statement(SELECTS, frozenset({("s", "t")}), frozenset())),
        (
            "WITH x AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM x, c UNION SELECT 1",
            Statement(
                frozenset({"select", "insert", "delete"}), frozenset({("a",), ("b",), ("c",)}), frozenset()
            ),
        ),
        (
            "UPDATE a SET b = 1 FROM c",
            Statement(frozenset({"update"}), frozenset({("a",), ("c",)}), frozenset()),
        ),
        (
            "SELECT * FROM a EXCEPT SELECT * FROM b",
            Statement(SELECTS, frozenset({("a",), ("b",)}), frozenset()),
        ),
        ("SELECT * FROM a INTERSECT SELECT 1", Statement(SELECTS, frozenset({("a",)}), frozenset())),
        (
            "INSERT INTO a (b, c) VALUES (1, 2)",
            Statement(frozenset({"insert"}), frozenset({("a",)}), frozenset()),
        ),
        ("WITH x (y) AS (SELECT 1) SELECT * FROM x", Statement(SELECTS, frozenset(), frozenset())),
    ],
)
def test_a_statement_is_what_it_does_and_what_it_names(statement: str, said: Statement) -> None:
    """Kinds, tables and functions, those inside included."""
    assert sql_tree.read(statement, "postgres") == said


@pytest.mark.parametrize(
    "statement",
    [
        "WITH a AS (SELECT 1), a AS (SELECT 2) SELECT * FROM a",
        "(SELECT 1)",
        "VALUES (1)",
        "SELECT FROM WHERE",
        "SELECT 1 1",
        "SELECT * FROM a.b.c",
        "SELECT * FROM f(1)",
        "SELECT * FROM a (b)",
        "SELECT a FROM t WHERE only",
    ],
)
def test_what_is_no_one_plain_statement_is_not_understood(statement: str) -> None:
    """Words that the tree does not account for, rows from functions, a name that is defined twice."""
    with pytest.raises(NotUnderstood):
        sql_tree.read(statement, "postgres")

"""SQL through a real parser: what kind of statement it is, and every table in it.

The parser is lenient, and it is not the database. So its tree may consist of known nodes only, no flag
may be set on a statement, and every word of the text must be accounted for: by the tree, or as a word
that is harmless wherever it stands.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from guard.policy.boundaries import sql_text
from guard.policy.boundaries.sql_words import BARE, FUNCTIONS, KEYWORDS, NODES, TYPE_NODES, TYPES
from guard.policy.boundaries.verdict import NotUnderstood

Name = tuple[str, ...]
_STATEMENTS = {
    "Select": "select",
    "Union": "select",
    "Except": "select",
    "Intersect": "select",
    "Insert": "insert",
    "Update": "update",
    "Delete": "delete",
}
_CHANGES = frozenset({"Insert", "Update", "Delete"})
_SOURCES = frozenset({"From", "Join", "Subquery"})
"""What reads the table in it. Elsewhere databases change the real one, whatever WITH calls so."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What one statement does.

    Attributes:
        kinds: "select", "insert", "update", "delete": its own, and those inside it.
        tables: every table that it names, each with its schema where it says one.
        functions: the functions that it calls and that are not known to be harmless.
    """

    kinds: frozenset[str]
    tables: frozenset[Name]
    functions: frozenset[str]


@cache
def _sqlglot() -> Any:
    import sqlglot  # noqa: PLC0415 - slow to import, and few policies ask for it

    logging.getLogger("sqlglot").disabled = True  # its warnings repeat the statement
    return sqlglot


@lru_cache(maxsize=64)
def read(statement: str, dialect: str) -> Statement:
    """One statement. Raises NotUnderstood."""
    words = sql_text.split(statement, dialect)
    tree = _parsed(words.plain, dialect)
    nodes = list(tree.walk())
    functions = frozenset(name for node in nodes for name in _checked(node, words.called))
    tables = frozenset(_tables(tree, nodes, dialect))
    named = {node.name.lower() for node in nodes if _kind(node) == "Identifier"}
    if not words.bare <= KEYWORDS | TYPES | FUNCTIONS | functions | named:
        raise NotUnderstood
    listed = {name for node in nodes if _kind(node) in ("Schema", "TableAlias") for name in _heads(node)}
    unknown = words.called - TYPES - FUNCTIONS - listed
    kinds = frozenset(_STATEMENTS[_kind(node)] for node in nodes if _kind(node) in _STATEMENTS)
    if words.first not in ("with", _STATEMENTS[_kind(tree)]) or (
        "into" in words.bare and "insert" not in kinds
    ):
        raise NotUnderstood
    return Statement(kinds, tables, functions | unknown)


def _parsed(plain: str, dialect: str) -> Any:
    library = _sqlglot()
    try:
        trees = library.parse(plain, dialect=dialect, error_level=library.ErrorLevel.IMMEDIATE)
    except (library.errors.SqlglotError, RecursionError):
        raise NotUnderstood from None
    if len(trees) != 1 or _kind(trees[0]) not in _STATEMENTS:
        raise NotUnderstood
    return trees[0]


def _kind(node: Any) -> str:
    return type(node).__name__


def _checked(node: Any, called: frozenset[str]) -> Iterator[str]:
    """Refuse a node that is not known; the name of a function that is not."""
    kind = _kind(node)
    if kind == "Anonymous":
        if type(node.this) is not str:
            raise NotUnderstood
        yield node.this.lower()
    elif kind not in NODES:
        spelled = {name.lower() for name in getattr(node, "sql_names", list)()} & called
        if not spelled:
            raise NotUnderstood
        yield from spelled
    if kind == "DataType" and node.this.name not in TYPE_NODES:
        raise NotUnderstood
    if kind in BARE and any(_is_flag(value) for value in node.args.values()):
        raise NotUnderstood
    if kind in _CHANGES and _kind(node.this) not in ("Table", "Schema"):
        raise NotUnderstood  # a name that the parser took for something else
    if kind == "In" and node.args.get("field") is not None:
        raise NotUnderstood  # without parentheses it is a table: SQLite
    if kind == "With" and node.parent is not node.root():
        raise NotUnderstood  # inside, a name means one thing here and another there


def _is_flag(value: Any) -> bool:
    """Whether a node's argument is neither empty nor other nodes, which are looked at by themselves."""
    if isinstance(value, list):
        return not all(hasattr(one, "walk") for one in value)
    return bool(value) and not hasattr(value, "walk")


def _heads(node: Any) -> Iterator[str]:
    """The name before a list of columns in parentheses."""
    head = node.this
    if head is not None:
        yield head.name.lower()


def _tables(tree: Any, nodes: list[Any], dialect: str) -> Iterator[Name]:
    """Every table; a name that stands for an earlier part of WITH is none, but where it is changed."""
    common = tree.args.get("with_")
    parts = common.expressions if common is not None else []
    names = [_folded(part.args["alias"].this, dialect) for part in parts]
    if len(set(names)) != len(names):
        raise NotUnderstood
    within = {id(node): index for index, part in enumerate(parts) for node in part.walk()}
    recursive = common is not None and bool(common.args.get("recursive"))
    for node in nodes:
        if _kind(node) != "Table":
            continue
        if any(node.args.get(name) for name in node.args if name not in ("this", "db", "alias", "joins")):
            raise NotUnderstood
        spelled = [part for part in (node.args.get("db"), node.this) if part is not None]
        if any(_kind(part) != "Identifier" for part in spelled):
            raise NotUnderstood  # a function that gives rows
        name = tuple(_folded(part, dialect) for part in spelled)
        index = within.get(id(node), len(parts))
        earlier = names[: index + 1 if recursive else index]
        read = _kind(node.parent) in _SOURCES or node.arg_key == "using"
        if not (read and len(name) == 1 and name[0] in earlier):
            yield name


def _folded(identifier: Any, dialect: str) -> str:
    """A name as the database keeps it."""
    name = str(identifier.this)
    if not name.isascii():
        raise NotUnderstood
    if dialect == "sqlite" or (dialect == "postgres" and not identifier.args.get("quoted")):
        return name.lower()
    return name

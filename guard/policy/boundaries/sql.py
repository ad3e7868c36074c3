"""`sql`: one statement of some kinds, on some tables, read by a real parser.

Everything that the statement names must be listed. What is not a plain SELECT, INSERT, UPDATE or DELETE is
not understood, and neither is anything that the parser and the database might read differently.
"""

from __future__ import annotations

from typing import Any, Final

from guard.policy.boundaries import sql_tree
from guard.policy.boundaries.sql_text import DIALECTS, LONGEST
from guard.policy.boundaries.verdict import Judge, Keyword, NotUnderstood, text

_NAME: Final = "[A-Za-z_][A-Za-z0-9_]{0,62}"
SHAPE: Final[dict[str, Any]] = {
    "description": "the value is one SQL statement of these kinds, on these tables only",
    "type": "object",
    "additionalProperties": False,
    "required": ["dialect", "statements", "tables"],
    "properties": {
        "dialect": {"enum": list(DIALECTS)},
        "statements": {
            "type": "array",
            "items": {"enum": ["delete", "insert", "select", "update"]},
            "minItems": 1,
            "maxItems": 4,
        },
        "tables": {
            "description": "each as statements must write it: `orders`, `public.orders`, or `reporting.*`",
            "type": "array",
            "items": {"type": "string", "pattern": rf"^{_NAME}(\.({_NAME}|\*))?$"},
            "maxItems": 10_000,
        },
        "functions": {
            "description": "further functions, in small letters, that may be called",
            "type": "array",
            "items": {"type": "string", "pattern": "^[a-z_][a-z0-9_]{0,62}$"},
            "maxItems": 1_000,
        },
    },
}


def judge(stated: Any) -> Judge:
    """A judge of SQL."""
    dialect = stated["dialect"]
    kinds = frozenset(stated["statements"])
    loose = frozenset(tuple(name.lower().split(".")) for name in stated["tables"])
    exact = frozenset(tuple(name.split(".")) for name in stated["tables"])
    if dialect == "sqlite":
        exact = loose
    functions = frozenset(stated.get("functions", ()))

    def listed(table: sql_tree.Name) -> bool:
        plainly = _named(table, exact)
        if plainly != _named(tuple(map(str.lower, table)), loose):
            raise NotUnderstood  # capitals count on some systems only
        return plainly

    def within(value: Any) -> bool:
        statement = sql_tree.read(text(value, LONGEST), dialect)
        if not statement.functions <= functions:
            raise NotUnderstood  # nobody knows what it does
        answers = [listed(table) for table in sorted(statement.tables)]
        return statement.kinds <= kinds and all(answers)

    return within


def _named(table: sql_tree.Name, names: frozenset[sql_tree.Name]) -> bool:
    """Whether a table is one of these, or its schema is there with a star, which no table is called."""
    return table in names or (*table[:-1], "*") in names


KEYWORD: Final = Keyword("sql", SHAPE, judge)

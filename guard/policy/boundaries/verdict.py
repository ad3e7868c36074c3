"""What a boundary keyword may answer: yes, no, or that it does not understand the value.

The third answer is never a permit, wherever the keyword stands: see `watch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Judge: TypeAlias = Callable[[Any], bool]
"""Whether a value (JSON) lies within. Raises NotUnderstood."""


class NotUnderstood(ValueError):
    """A value that could be read in more than one way, or in none: it is neither within nor without."""


class Misstated(ValueError):
    """A keyword's value in a schema that says nothing sensible.

    Attributes:
        what: what is wrong, one sentence without a full stop.
        pointer: RFC 6901 pointer into the keyword's value.
        remedy: what to do about it.
    """

    def __init__(self, what: str, pointer: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.pointer = pointer
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Keyword:
    """One keyword of the vocabulary.

    Attributes:
        name: as it stands in a schema.
        shape: JSON Schema 2020-12 of its value.
        judge: makes a judge of a value of that shape. Raises Misstated.
    """

    name: str
    shape: Mapping[str, Any]
    judge: Callable[[Any], Judge]


def text(value: Any, longest: int) -> str:
    """The value, if it is a text that a keyword can be about.

    Raises:
        NotUnderstood: no string, an empty one, or more than `longest` characters.
    """
    if type(value) is not str or not 0 < len(value) <= longest:
        raise NotUnderstood
    return value

"""Boundary keywords inside the schema engine, and what becomes of "not understood".

The engine takes every exception of a keyword of ours for "does not match"; under `not` that would be a
yes. So a keyword never answers by raising. What it does not understand it answers as the pass wants it:
in the low pass so that the schema is the less likely to match, in the high pass so that it is the more
likely. The truth lies between the two. A keyword that stands on both sides of a negation cannot do
that: there the passes fail.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from guard.core.canonical import escape
from guard.policy.boundaries.polarity import Side
from guard.policy.boundaries.verdict import Judge, NotUnderstood
from guard.policy.boundaries.words import NAMES, judge

_T = TypeVar("_T")


@dataclass(slots=True)
class Pass:
    """One evaluation of a schema.

    Attributes:
        high: what is not understood is answered so that the schema is the more likely to match.
        unsure: whether something was not understood.
        lost: whether that stands on both sides of a negation.
        broken: the first fault of a keyword, or what interrupted it.
    """

    high: bool
    unsure: bool = False
    lost: bool = False
    broken: BaseException | None = None


class _Running(threading.local):
    this: Pass | None = None


_RUNNING = _Running()


class EngineKeyword(Protocol):
    """What the engine wants of a keyword."""

    def validate(self, instance: Any) -> None:
        """Raise to say no."""


def run(evaluate: Callable[[], _T], *, high: bool) -> tuple[_T, Pass]:
    """Evaluate a schema once.

    Raises:
        BaseException: whatever a keyword raised that is not an answer, or the engine.
    """
    this = Pass(high)
    _RUNNING.this = this
    try:
        result = evaluate()
    finally:
        _RUNNING.this = None
        if this.broken is not None:
            raise this.broken
    return result, this


def keywords(sides: Mapping[str, Side]) -> dict[str, type[EngineKeyword]]:
    """The keywords for one schema, as the engine takes them.

    Args:
        sides: the side of each boundary keyword in it, by its pointer.
    """
    return {name: _class(name, sides) for name in sorted(NAMES)}


def _class(name: str, sides: Mapping[str, Side]) -> type[EngineKeyword]:
    class _Keyword:
        def __init__(self, _parent: Any, stated: Any, path: list[str | int]) -> None:
            pointer = "".join(f"/{escape(str(token))}" for token in path)
            self._judge = judge(name, stated)
            self._side = sides.get(pointer, Side.BOTH)

        def validate(self, instance: Any) -> None:
            if not _answer(self._judge, self._side, instance):
                raise ValueError(name)

    return _Keyword


def _answer(within: Judge, side: Side, value: Any) -> bool:
    this = _RUNNING.this or Pass(high=False)
    try:
        return within(value)
    except NotUnderstood:
        this.unsure = True
        if side not in (Side.POSITIVE, Side.NEGATIVE):
            this.lost = True
        return this.high == (side is Side.POSITIVE)
    except BaseException as fault:  # noqa: BLE001 - the engine would take it for an answer; `run` raises it
        this.broken = this.broken or fault
        return False

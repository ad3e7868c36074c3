"""Policies, and calls near them: small vocabularies, so that rules and calls meet, and often at an edge.

All is built from one kind of choice, a number below n. Hypothesis makes it in the tests, a seeded
generator in scripts/oracle.py. The first of several options is the plainest.
"""

from __future__ import annotations

from collections.abc import Callable

import drawn_calls
import drawn_policies
from drawn import Dice, Document
from hypothesis import strategies as st

from guard.core.model import Call

Case = tuple[list[Document], list[Call]]


def cases(size: int) -> st.SearchStrategy[Case]:
    """Policies in layers, with `size` calls near them."""

    @st.composite
    def _cases(draw: st.DrawFn) -> Case:
        return case(lambda n: draw(_BELOW[n]), size)

    return _cases()


_BELOW = [st.nothing(), *(st.integers(0, n - 1) for n in range(1, 100))]


def case(below: Callable[[int], int], size: int) -> Case:
    """Policies in layers, the highest first, with `size` calls near them."""
    dice = Dice(below)
    documents = drawn_policies.documents(dice)
    return documents, [drawn_calls.call(dice, documents) for _ in range(size)]

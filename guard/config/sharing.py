"""A store that several workers write to: whoever finds it taken looks again very soon.

SQLite's own waiting sleeps longer each time, up to a tenth of a second, and a commit takes about one
thousandth: most of that time nobody would write.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from guard.lineage.store import Busy, Outcome, Store, Transaction

AT_LEAST: Final = 0.005
"""Seconds that a writer waits for the others even where it may not wait: several commits of theirs."""
LOOK_SECONDS: Final = 0.0002


class Shared:
    """As the store, to the log's writer.

    Args:
        store: what is shared.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._patience = 0.0

    def patience(self, seconds: float) -> None:
        """How long `apply` may wait for the other writers."""
        self._patience = max(seconds, AT_LEAST)

    def apply(self, batch: Sequence[Transaction]) -> list[Outcome]:
        """As the store's. Raises Busy: the others did not let go in time. Nothing happened."""
        self._store.patience(0)
        end = time.monotonic() + self._patience
        while True:
            try:
                return self._store.apply(batch)
            except Busy:
                if time.monotonic() >= end:
                    raise
            time.sleep(LOOK_SECONDS)

    def __getattr__(self, name: str) -> object:
        """Everything else is the store's."""
        return getattr(self._store, name)

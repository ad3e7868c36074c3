"""What a dead process left open is closed as `unknown`, by whoever can take its lease."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Protocol

from guard.lineage.entry import Kind
from guard.lineage.log import entry
from guard.lineage.store import CloseGrant, Place, Recorded, Store, Transaction


class Lease(Protocol):
    """A process's own lock, held until `release` or its death.

    Attributes:
        instance: 128 random bits, hex.
    """

    @property
    def instance(self) -> str:
        """128 random bits, hex."""
        ...

    def release(self) -> None:
        """Let go, since nothing is owed any more."""
        ...

    def takeover(self, instance: str) -> AbstractContextManager[bool]:
        """Try to take a dead instance's lock: True while held, False where it lives."""
        ...


def close_abandoned(store: Store, lease: Lease, reason: str = "restart") -> int:
    """Close as `unknown` every grant whose process is dead. Returns how many there were.

    Raises:
        GuardError: an open grant names no instance.
        Exception: as `Store.apply`.
    """
    closed = 0
    owed: dict[str, list[tuple[str, Place]]] = {}
    for call, instance, place in store.open_grants():
        owed.setdefault(instance, []).append((call, place))
    for instance, grants in owed.items():
        with lease.takeover(instance) as dead:
            if dead:
                now = time.time_ns() // 1_000_000
                outcomes = store.apply(
                    [
                        Transaction(
                            place,
                            entry(Kind.UNKNOWN, call, {"reason": reason}),
                            now,
                            effects=(CloseGrant(call),),
                        )
                        for call, place in grants
                    ]
                )
                closed += sum(isinstance(outcome, Recorded) for outcome in outcomes)
    return closed

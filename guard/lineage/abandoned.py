"""What a dead process left open is closed as `unknown`, by whoever can take its lease."""

from __future__ import annotations

import time
from collections.abc import Callable
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


class HeldLease(Lease, Protocol):
    """A lease that may be lost with its session while its process lives."""

    def hold(self) -> None:
        """See that it is held, and take it again where its session was lost. Raises Away."""
        ...

    def lives(self, instance: str) -> bool:
        """Whether somebody holds this lease now. Raises Away."""
        ...


class Tending:
    """Closes what other processes left open, while they may only have lost their sessions for a moment.

    Args:
        store: where.
        lease: this process's own.
    """

    def __init__(self, store: Store, lease: HeldLease) -> None:
        self._store = store
        self._lease = lease
        self._suspected: set[str] = set()

    def __call__(self) -> None:
        """Look; who was dead the last time too is. Raises as `close_abandoned`."""
        self._lease.hold()
        owing = {instance for _, instance, _ in self._store.open_grants()}
        dead = {instance for instance in owing if not self._lease.lives(instance)}
        before, self._suspected = self._suspected, dead
        if surely := dead & before:
            close_abandoned(self._store, self._lease, only=surely.__contains__)


def close_abandoned(
    store: Store,
    lease: Lease,
    reason: str = "restart",
    only: Callable[[str], bool] = lambda _: True,
) -> int:
    """Close as `unknown` every grant whose process is dead. Returns how many there were.

    Args:
        store: where.
        lease: this process's own.
        reason: what their entries say.
        only: of which instances.

    Raises:
        GuardError: an open grant names no instance.
        Exception: as `Store.apply`.
    """
    closed = 0
    owed: dict[str, list[tuple[str, Place]]] = {}
    for call, instance, place in store.open_grants():
        if only(instance):
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

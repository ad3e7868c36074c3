"""The log's writer: group commit in one thread, and a log that fails stops granting.

What waits together is committed together: one transaction, one sync, one checkpoint. Nothing is
dropped: a transaction is durable, or its future carries the reason why not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Thread
from typing import Any, Final

from guard.core.errors import Reason, Refused
from guard.lineage.entry import SALT_BYTES, Draft, Kind, draft
from guard.lineage.store import Outcome, Store, Transaction

MAX_BATCH: Final = 256
PATIENCE: Final = 0.02
"""Seconds that an entry nobody waits for may wait for company."""


def entry(kind: Kind, call: str, fields: Mapping[str, Any]) -> Draft:
    """Commit to fields under fresh salts; arguments as `draft`."""
    return draft(kind, call, fields, os.urandom(SALT_BYTES * len(fields)))


_Item = tuple[Transaction, "Future[Outcome]", bool]
"""A transaction, who waits for it, and whether anyone does."""


class Log:
    """One writer over one store.

    Args:
        store: where entries go. Its `apply` is called by the writer's thread only.
        on_failure: told once, in the writer's thread, what stopped the log.

    Attributes:
        failure: what stopped the log; None while it works. Once set it stays: what the failed
            commit left behind is settled at the next start.
    """

    def __init__(self, store: Store, on_failure: Callable[[BaseException], None] = lambda _: None) -> None:
        self.store = store
        self._on_failure = on_failure
        self.failure: BaseException | None = None
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = Thread(target=self._run, name="guard-log", daemon=True)
        self._thread.start()

    async def commit(self, transaction: Transaction) -> Outcome:
        """Durable when this returns.

        Raises:
            Refused: STORE_UNAVAILABLE; what became of the transaction is settled at the next start.
        """
        # A waiter that is cancelled must not cancel the commit: shield it.
        return await asyncio.shield(asyncio.wrap_future(self._put(transaction, waited_for=True)))

    def enqueue(self, transaction: Transaction) -> Future[Outcome]:
        """Queue a transaction for the next group commit, at most PATIENCE away.

        Nobody waits for it, so it does not make a commit of its own while one is likely to come:
        the next grant takes it along.
        """
        return self._put(transaction, waited_for=False)

    def _put(self, transaction: Transaction, *, waited_for: bool) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        future.set_running_or_notify_cancel()
        if self.failure is not None:
            future.set_exception(self._refusal())
        else:
            self._queue.put((transaction, future, waited_for))
        return future

    async def close(self) -> None:
        """Commit what is queued, then stop the writer. The store stays open."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self.failure = self.failure or RuntimeError("the log is closed")
        with contextlib.suppress(queue.Empty):
            while True:  # what came after the end has no writer
                if (late := self._queue.get_nowait()) is not None:
                    _refuse(late[1], self._refusal())

    def _refusal(self) -> Refused:
        return Refused(
            Reason.STORE_UNAVAILABLE,
            f"the lineage cannot be written: {self.failure}",
            remedy="mend the disk or the file, then start Guard again",
        )

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            batch, last = self._gather(item)
            if batch:
                self._commit(batch)
            if last:
                return

    def _gather(self, item: _Item | None) -> tuple[list[_Item], bool]:
        """What to commit together, at most MAX_BATCH; and whether the end was among it."""
        batch: list[_Item] = []
        urgent, end = False, time.monotonic() + PATIENCE
        while item is not None:
            batch.append(item)
            urgent = urgent or item[2]
            if len(batch) == MAX_BATCH:
                return batch, False
            try:
                item = (
                    self._queue.get_nowait()
                    if urgent
                    else self._queue.get(timeout=max(0.0, end - time.monotonic()))
                )
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: list[_Item]) -> None:
        if self.failure is None:
            try:
                outcomes = self.store.apply([transaction for transaction, _, _ in batch])
            except BaseException as error:  # noqa: BLE001 - whatever it is, the log has failed
                self.failure = error
                with contextlib.suppress(Exception):  # who cannot be told must not keep others waiting
                    self._on_failure(error)
            else:
                for (_, future, _), outcome in zip(batch, outcomes, strict=True):
                    _settle(future, outcome)
                return
        for _, future, _ in batch:
            _refuse(future, self._refusal())


def _settle(future: Future[Outcome], outcome: Outcome) -> None:
    with contextlib.suppress(Exception):  # the loop that waited is gone
        future.set_result(outcome)


def _refuse(future: Future[Outcome], refusal: Refused) -> None:
    with contextlib.suppress(Exception):  # the loop that waited is gone
        future.set_exception(refusal)

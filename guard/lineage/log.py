"""The log's writer: group commit in one thread, and a log that fails stops granting.

What waits together is committed together: one transaction, one sync, one checkpoint. Nothing is
dropped: a transaction is durable, or its future carries the reason why not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Thread
from typing import Any, Final

from guard.core.errors import Reason, Refused
from guard.lineage.entry import SALT_BYTES, Draft, Kind, draft
from guard.lineage.store import Outcome, Store, Transaction

MAX_BATCH: Final = 256


def entry(kind: Kind, call: str, fields: Mapping[str, Any]) -> Draft:
    """Commit to fields under fresh salts; arguments as `draft`."""
    return draft(kind, call, fields, os.urandom(SALT_BYTES * len(fields)))


_Item = tuple[Transaction, "Future[Outcome]"]


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
        return await asyncio.shield(asyncio.wrap_future(self.enqueue(transaction)))

    def enqueue(self, transaction: Transaction) -> Future[Outcome]:
        """Queue a transaction for the next group commit."""
        future: Future[Outcome] = Future()
        future.set_running_or_notify_cancel()
        if self.failure is not None:
            future.set_exception(self._refusal())
        else:
            self._queue.put((transaction, future))
        return future

    async def close(self) -> None:
        """Commit what is queued, then stop the writer. The store stays open."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

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
        """What waits now, at most MAX_BATCH; and whether the end was among it."""
        batch: list[_Item] = []
        while item is not None:
            batch.append(item)
            if len(batch) == MAX_BATCH:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: list[_Item]) -> None:
        if self.failure is None:
            try:
                outcomes = self.store.apply([transaction for transaction, _ in batch])
            except BaseException as error:  # noqa: BLE001 - whatever it is, the log has failed
                self.failure = error
                self._on_failure(error)
            else:
                for (_, future), outcome in zip(batch, outcomes, strict=True):
                    _settle(future, outcome)
                return
        for _, future in batch:
            with contextlib.suppress(Exception):  # the loop that waited is gone
                future.set_exception(self._refusal())


def _settle(future: Future[Outcome], outcome: Outcome) -> None:
    with contextlib.suppress(Exception):  # the loop that waited is gone
        future.set_result(outcome)

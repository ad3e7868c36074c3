"""The log's writer: group commit, and a log that fails stops granting.

What waits together is committed together: one transaction, one sync, one checkpoint. Nothing is
dropped: a transaction is durable, or its future carries the reason why not.

While commits are quick they are made on the event loop itself, once a turn: two threads that both
want the interpreter cost several times what the commit does. A slow disk, or another process that
holds the file, sends them to a thread, so that nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Thread, current_thread
from typing import Any, Final

from guard.core.errors import Reason, Refused
from guard.lineage.entry import SALT_BYTES, Draft, Kind, draft
from guard.lineage.store import Away, Busy, CloseGrant, OpenGrant, Outcome, Recorded, Store, Transaction

MAX_BATCH: Final = 256
PATIENCE: Final = 0.02
"""Seconds that an entry nobody waits for may wait for company."""
IN_PLACE: Final = 0.01
"""Seconds that a commit may wait for the disk on the loop: more than a quick disk needs."""
COMPANY_SECONDS: Final = 0.0001
MAX_COMPANY: Final = 16
"""A commit waits so long for each grant that is under way, of so many at most: they soon want one too."""
THREAD_SECONDS: Final = 0.25
"""How long commits are left to the thread after one was slow."""
BUSY_SECONDS: Final = 10.0
"""How long the thread waits for another process to let go of the store."""
MEND_SECONDS: Final = 0.5
"""How long the thread waits before it asks again whether a store that was away is back."""
TEND_SECONDS: Final = 5.0
"""How often the thread tends a store that is shared with others."""
_NAME: Final = "guard-log"


def entry(kind: Kind, call: str, fields: Mapping[str, Any]) -> Draft:
    """Commit to fields under fresh salts; arguments as `draft`."""
    return draft(kind, call, fields, os.urandom(SALT_BYTES * len(fields)))


Waiting = Future[Outcome] | asyncio.Future[Outcome]
_Item = tuple[Transaction, Waiting, bool]
"""A transaction, who waits for it, and whether anyone does."""


class Log:
    """One writer over one store. It belongs to one event loop.

    Args:
        store: where entries go. Its `apply` is called by the writer only.
        on_failure: told once what stopped the log, on whichever thread noticed.
        in_place: seconds that a commit may wait for the disk and the next still be made on the loop; 0
            for never.
        mend: makes a store that was away usable again, and settles what the failed commit left behind;
            it raises while it cannot. None for a store that cannot say what happened: a next start can.
        on_mended: told when it did.
        tend: called now and then on the thread that writes; that it fails is nobody's matter.

    Attributes:
        failure: what stopped the log; None while it works. Once set it stays, unless the store was away
            and was mended: what the failed commit left behind is settled then, or at the next start.
    """

    def __init__(
        self,
        store: Store,
        on_failure: Callable[[BaseException], None] = lambda _: None,
        *,
        in_place: float = 0.0,
        mend: Callable[[], object] | None = None,
        on_mended: Callable[[], object] = lambda: None,
        tend: Callable[[], object] | None = None,
    ) -> None:
        self.store = store
        self._on_failure = on_failure
        self._mend = mend
        self._on_mended = on_mended
        self._tend = tend
        self._tended = time.monotonic()
        self.failure: BaseException | None = None
        self._in_place = in_place
        self._thread_until = 0.0
        self._here: list[_Item] = []
        self._turn: asyncio.Handle | None = None
        self._late: asyncio.TimerHandle | None = None
        self._put_away = self._done_away = 0
        self._under_way = 0
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = Thread(target=self._run, name=_NAME, daemon=True)
        self._thread.start()

    async def commit(self, transaction: Transaction) -> Outcome:
        """Durable when this returns.

        Raises:
            Refused: STORE_UNAVAILABLE; what became of the transaction is settled at the next start.
        """
        # A waiter that is cancelled must not cancel the commit: its future is not the transaction's.
        future = self._put(transaction, waited_for=True)
        if isinstance(future, asyncio.Future):
            return await future
        return await asyncio.shield(asyncio.wrap_future(future))

    def enqueue(self, transaction: Transaction) -> Waiting:
        """Queue a transaction for the next group commit, at most PATIENCE away.

        Nobody waits for it, so it does not make a commit of its own while one is likely to come:
        the next grant takes it along.
        """
        return self._put(transaction, waited_for=False)

    def _put(self, transaction: Transaction, *, waited_for: bool) -> Waiting:
        if self.failure is None and self._is_quick():
            return self._put_here(transaction, waited_for=waited_for)
        future: Future[Outcome] = Future()
        future.set_running_or_notify_cancel()
        if self.failure is not None:
            future.set_exception(self._refusal())
        else:
            self._put_away += 1
            self._queue.put((transaction, future, waited_for))
        return future

    # -- on the loop ---------------------------------------------------------------------------

    def _is_quick(self) -> bool:
        """Whether commits are made on the loop now. Never while the thread still has some."""
        return (
            self._in_place > 0
            and self._put_away == self._done_away
            and (bool(self._here) or time.monotonic() >= self._thread_until)
        )

    def _put_here(self, transaction: Transaction, *, waited_for: bool) -> asyncio.Future[Outcome]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._here.append((transaction, future, waited_for))
        if waited_for and self._turn is None:
            # Alone: at once. Else others come soon, and a commit for each would cost them all more.
            company = min(self._under_way, MAX_COMPANY)
            later = company * COMPANY_SECONDS
            self._turn = (
                loop.call_soon(self._commit_here)
                if company <= 0
                else loop.call_later(later, self._commit_here)
            )
        elif not waited_for and self._late is None:
            self._late = loop.call_later(PATIENCE, self._commit_here)
        return future

    def _commit_here(self) -> None:
        """Commit what came in this turn of the loop."""
        for handle in (self._turn, self._late):
            if handle is not None:
                handle.cancel()
        self._turn = self._late = None
        while self._here:
            batch, self._here = self._here[:MAX_BATCH], self._here[MAX_BATCH:]
            began = time.monotonic() - time.thread_time()
            try:
                self._commit(batch, patience=0)
            except Busy:  # another process writes, and may take its time
                self._hand_over([*batch, *self._here])
                return
            if time.monotonic() - time.thread_time() - began > self._in_place:  # waiting, not working
                self._thread_until = time.monotonic() + THREAD_SECONDS

    def _hand_over(self, batch: list[_Item]) -> None:
        self._here = []
        self._thread_until = time.monotonic() + THREAD_SECONDS
        self._put_away += len(batch)
        for item in batch:
            self._queue.put(item)

    # -- the end -------------------------------------------------------------------------------

    async def close(self) -> None:
        """Commit what is queued, then stop the writer. The store stays open."""
        self._commit_here()
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
            remedy="make the database reachable again"
            if self._is_away
            else "mend the disk or the file, then start Guard again",
        )

    @property
    def _is_away(self) -> bool:
        """Whether the log may work again by itself."""
        return self._mend is not None and isinstance(self.failure, Away)

    def _run(self) -> None:
        while True:
            if self._is_away and self._queue.empty():  # who waits is refused first
                self._try_to_mend()
            self._tend_store()
            try:
                item = self._queue.get(timeout=self._pause())
            except queue.Empty:
                continue
            batch, last = self._gather(item)
            if batch:
                try:
                    self._commit(batch, patience=BUSY_SECONDS)
                finally:
                    self._done_away += len(batch)  # the store is free again
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

    def _commit(self, batch: list[_Item], patience: float) -> None:
        """Raises Busy: another process writes, and nothing happened."""
        if self.failure is None:
            try:
                self.store.patience(patience)
                outcomes = self.store.apply([transaction for transaction, _, _ in batch])
            except Busy as error:
                if not patience:
                    raise
                self._fail(error)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the log has failed
                self._fail(error)
            else:
                for (transaction, future, _), outcome in zip(batch, outcomes, strict=True):
                    if isinstance(outcome, Recorded):
                        self._under_way = max(0, self._under_way + _opened(transaction))
                    _settle(future, outcome)
                return
        for _, future, _ in batch:
            _refuse(future, self._refusal())

    def _pause(self) -> float | None:
        """How long the thread may wait for something to write; None for as long as it takes."""
        if self._is_away:
            return MEND_SECONDS
        return None if self._tend is None else TEND_SECONDS

    def _tend_store(self) -> None:
        now = time.monotonic()
        if self._tend is None or self.failure is not None or now - self._tended < TEND_SECONDS:
            return
        self._tended = now
        with contextlib.suppress(Exception):  # the next commit says what is wrong
            self._tend()

    def _try_to_mend(self) -> None:
        """On the thread, which alone writes: nothing is committed meanwhile."""
        assert self._mend is not None  # noqa: S101 - `_is_away` says so
        try:
            self.store.patience(BUSY_SECONDS)
            self._mend()
        except Exception:  # noqa: BLE001 - it is still away, or not what it was
            return
        self._under_way = 0
        self.failure = None
        with contextlib.suppress(Exception):
            self._on_mended()

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        with contextlib.suppress(Exception):  # who cannot be told must not keep others waiting
            self._on_failure(error)


def _opened(transaction: Transaction) -> int:
    """How many grants are more under way with it; nothing but the wait for company depends on it."""
    return sum((type(effect) is OpenGrant) - (type(effect) is CloseGrant) for effect in transaction.effects)


def _settle(future: Waiting, outcome: Outcome) -> None:
    if isinstance(future, asyncio.Future):
        if future.done():
            return  # whoever waited was called off
        if current_thread().name != _NAME:
            future.set_result(outcome)
            return
    with contextlib.suppress(Exception):  # the loop that waited is gone
        _on_its_loop(future, lambda: future.done() or future.set_result(outcome))


def _refuse(future: Waiting, refusal: Refused) -> None:
    def settle() -> None:
        if not future.done():
            future.set_exception(refusal)
            future.exception()  # nobody may ask, and that is no fault

    with contextlib.suppress(Exception):  # the loop that waited is gone
        _on_its_loop(future, settle)


def _on_its_loop(future: Waiting, settle: Callable[[], object]) -> None:
    """An asyncio future that was handed over is settled where it belongs."""
    if isinstance(future, asyncio.Future) and current_thread().name == _NAME:
        future.get_loop().call_soon_threadsafe(settle)
    else:
        settle()

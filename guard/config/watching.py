"""Files that are read again when they change: looked at every second, off the way of any call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from guard.config.policies import Looks, reads
from guard.config.wiring import say

SECONDS: Final = 1.0


class Watch:
    """Looks at files, and says when they have changed and then stood still.

    Args:
        files: which ones, asked anew at each look: what is read may name others.
        changed: called once for each change, after two looks in a row found the same.
        seconds: between two looks.
        since: what they looked like before they were read the first time; None to look now.
    """

    def __init__(
        self,
        files: Callable[[], Sequence[Path]],
        changed: Callable[[], Awaitable[object]],
        seconds: float = SECONDS,
        *,
        since: Looks | None = None,
    ) -> None:
        self._files = files
        self._changed = changed
        self._seconds = seconds
        self._known = reads(files()) if since is None else since
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Look no more; a reload under way ends."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        last = self._known
        while True:
            await asyncio.sleep(self._seconds)
            now = await asyncio.to_thread(reads, self._files())
            if now == last != self._known:  # it changed, and stands still
                try:
                    await self._changed()
                except Exception as error:  # noqa: BLE001 - the old one holds, and the next change is seen
                    say(f"not reloaded, the old one holds: {type(error).__name__}")
                # As they stood before they were read: what changed meanwhile is read once more.
                self._known = {path: now.get(path) for path in self._files()}
            last = now

"""Which process owes which endings: a lock file that the system lets go of when a process dies.

A grant names the instance that opened it. An instance whose lock can be taken is dead, however it
died, and whoever takes the lock closes its grants as `unknown`.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from guard.core.errors import GuardError

_INSTANCE: Final = re.compile(r"[0-9a-f]{32}")


class Lease:
    """This process's own lock, held until `release` or death.

    Args:
        folder: where the lock files are; made where there is none.

    Attributes:
        instance: 128 random bits, hex.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self.instance = os.urandom(16).hex()
        self._path = folder / f"{self.instance}.lock"
        self._fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let go; the file goes too, since nothing is owed any more."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._fd)

    @contextmanager
    def takeover(self, instance: str) -> Iterator[bool]:
        """Try to take a dead instance's lock: True while held, False where it lives.

        A missing lock file belongs to nobody and counts as dead.

        Raises:
            GuardError: the instance is not one that `Lease` names.
        """
        if not _INSTANCE.fullmatch(instance):
            raise GuardError("an open grant names no instance", where=instance)
        path = self._folder / f"{instance}.lock"
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
            with suppress(OSError):
                path.unlink()
        finally:
            os.close(fd)

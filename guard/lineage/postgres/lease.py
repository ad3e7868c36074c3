"""Which process owes which endings, where replicas share a store: a lock of the writer's own session.

The server lets go of it when the session ends, however it ends. As guard.lineage.lease, for a store that
knows by itself who lives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from guard.core.errors import GuardError
from guard.lineage.postgres.writing import Writer

_INSTANCE: Final = re.compile(r"[0-9a-f]{32}")


class SessionLease:
    """This process's own lock, held until `release` or the session's end.

    Args:
        writer: whose session it is.

    Attributes:
        instance: 128 random bits, hex. It stays the process's name to itself; under which name its
            grants stand after a lost session the writer knows.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.instance = writer.lease()

    def renew(self) -> None:
        """Owe endings under a new name from now on; the old one's are for whoever takes it over."""
        self._writer.lease()

    def hold(self) -> None:
        """See that the lease is held, and take it again where its session was lost. Raises Away."""
        self._writer.hold()

    def lives(self, instance: str) -> bool:
        """Whether somebody holds this lease now. Raises Away."""
        return self._writer.lives(instance)

    def was_mine(self, instance: str) -> bool:
        """Whether this process had the name, or has it."""
        return self._writer.was_mine(instance)

    def release(self) -> None:
        """Let go, since nothing is owed any more."""
        self._writer.release()

    @contextmanager
    def takeover(self, instance: str) -> Iterator[bool]:
        """Try to take a dead instance's lock: True while held, False where it lives.

        Raises:
            GuardError: the instance is not one that a lease names.
        """
        if not _INSTANCE.fullmatch(instance):
            raise GuardError("an open grant names no instance", where=instance)
        with self._writer.takeover(instance) as dead:
            yield dead

"""Files that nobody but Guard's own user may read: made once, and refused where others can."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from guard.core.errors import GuardError


def make_once(path: Path, data: bytes) -> None:
    """Make a private file, durably. Whoever links first wins; the others read what stands."""
    own = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    fd = os.open(own, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(own, path)
        except FileExistsError:
            return
    finally:
        own.unlink()


def be_private(path: Path, what: str, mode: int) -> None:
    """Raises GuardError: others can read it, or it is somebody else's."""
    found = path.stat()
    if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.geteuid():
        raise GuardError(
            f"the {what} can be read by others",
            where=str(path),
            remedy=f"chmod {mode:o} {path} (and make new keys if others may have read them)",
        )

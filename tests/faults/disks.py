"""A small disk that a test can fill: a tmpfs of its own, where the tests may mount one."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _mount(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *words], capture_output=True, text=True, check=False)


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A disk of so many megabytes. A test that needs one is skipped where nothing may be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder = Path(tempfile.mkdtemp(prefix="guard-disk-"))  # not pytest's own: other users get to it
    folder.chmod(0o755)
    made = _mount("-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(folder))
    if made.returncode:
        folder.rmdir()
        pytest.skip(f"no small disk may be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def enlarge(folder: Path, megabytes: int) -> None:
    """Somebody has made room."""
    assert _mount("-o", f"remount,size={megabytes}m", str(folder)).returncode == 0

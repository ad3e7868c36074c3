"""Run a command of Guard's with a clock that is wrong: `python shifted.py FILE guard ARGS...`

FILE holds how many milliseconds the clock is off, and may change at any time. It is the clock that
processes ask for the time of day (`time.time_ns`, `time.time`); how long something takes is not touched.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path


def shift(file: Path) -> None:
    """From here on this process reads a wrong clock."""
    right = time.time_ns

    def wrong() -> int:
        return right() + int(file.read_text() or "0") * 1_000_000

    time.time_ns = wrong
    time.time = lambda: wrong() / 1e9


if __name__ == "__main__":
    shift(Path(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")

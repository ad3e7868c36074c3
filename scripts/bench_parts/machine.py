"""What the figures were measured on, and what processes took of it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
TOOL_SERVER: Final = "bench_parts/echo_"
"""Stands in the program of every tool server: what they take is not the middle's."""
_LIBRARIES: Final = ("mcp", "uvicorn", "httptools", "orjson", "msgspec", "pynacl", "uvloop")


def halves() -> tuple[set[int], set[int]]:
    """Cores for the middle, and for load and tool server; the same for both where there are fewer than 4."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 4:
        return set(cores), set(cores)
    half = len(cores) // 2
    return set(cores[:half]), set(cores[half:])


def cores_of(text: str) -> set[int]:
    """Reads `0,1` or `0-3,6`. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def shown(cores: set[int]) -> str:
    """As `cores_of` reads it."""
    return ",".join(map(str, sorted(cores)))


def described(middle: set[int], load: set[int]) -> dict[str, str]:
    """CPU, kernel, Python and libraries, for the head of the table."""
    found = re.search(r"model name\s*:\s*(.+)", (PROC / "cpuinfo").read_text())
    libraries = []
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            libraries.append(f"{name} {version(name)}")
    return {
        "cpu": found[1].strip() if found else platform.machine(),
        "cores": str(os.cpu_count()),
        "middle_cores": shown(middle),
        "load_cores": shown(load),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "libraries": ", ".join(libraries),
        "load_before": f"{os.getloadavg()[0]:.2f}",
    }


def parent_of(stat: str) -> int:
    """The parent in a line of /proc/PID/stat; the name in it may hold blanks and brackets (proc(5))."""
    return int(stat.rpartition(")")[2].split()[1])


def is_tool_server(cmdline: bytes) -> bool:
    """Whether this is `python TOOL-SERVER ...`; a middle names it too, among its own arguments."""
    words = cmdline.decode(errors="replace").split("\0")
    return len(words) > 1 and TOOL_SERVER in words[1]


def tree(pid: int) -> list[int]:
    """A process and its descendants, without tool servers and what they started."""
    children: dict[int, list[int]] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(parent_of((folder / "stat").read_text()), []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        with contextlib.suppress(OSError):
            if not is_tool_server((PROC / str(one) / "cmdline").read_bytes()):
                found.append(one)
                waiting += children.get(one, [])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """Seconds on a CPU of all their threads that live, from the scheduler in nanoseconds.

    Source: /proc/PID/task/TID/schedstat, first field (Documentation/scheduler/sched-stats.rst).
    """
    total = 0
    for pid in pids:
        for task in (PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def rss_bytes(pids: list[int]) -> int:
    """Resident memory of processes, shared pages counted in each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int((PROC / str(pid) / "statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE")

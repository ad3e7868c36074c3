"""The environment of the proxy to compare with: its pinned version, apart from Guard's own packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[2] / "build" / "bench-venv"
PINNED: Final = "4.1.6"
_SHOW: Final = "from importlib.metadata import version as v; print(v('fastmcp'), v('mcp'))"


def installed() -> str:
    """FastMCP's version and the SDK's in that environment; "" if there is none."""
    program = FOLDER / "bin" / "python"
    if not program.exists():
        return ""
    done = subprocess.run([program, "-c", _SHOW], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def prepare() -> tuple[Path, str]:
    """Make the environment where it is missing. Returns its Python and a sentence about what is in it.

    The pinned version where the package index has all that it needs, else the newest that installs.

    Raises:
        RuntimeError: none can be installed.
    """
    if not installed():
        subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
        pip = [FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for wanted in (f"fastmcp=={PINNED}", "fastmcp>=4,<5"):
            if subprocess.run([*pip, wanted], capture_output=True, check=False).returncode == 0:
                break
    version, _, sdk = installed().partition(" ")
    if not version:
        raise RuntimeError("no version of fastmcp can be installed")
    said = f"fastmcp {version}, mcp {sdk}"
    if version != PINNED:
        said += f" ({PINNED} is pinned and cannot be installed here: the newest that installs)"
    return FOLDER / "bin" / "python", said

"""Measured figures go to the screen and to build/figures/NAME.json: flat keys, the unit in the key."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "build" / "figures"


def write(name: str, figures: dict[str, object]) -> Path:
    """Write one script's figures. Returns the file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(figures, indent=2) + "\n")
    return path

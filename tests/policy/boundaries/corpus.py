"""What each boundary keyword must accept and refuse, as written down in the files beside this one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.yaml"))


@dataclass(frozen=True)
class Entry:
    """One value: `section` is inside, outside or unclear."""

    file: str
    keyword: str
    stated: Any
    section: str
    value: Any
    why: str

    @property
    def schema(self) -> dict[str, Any]:
        """The keyword alone."""
        return {self.keyword: self.stated}

    def __str__(self) -> str:
        return f"{self.file}: {self.section}: {self.why}"


def corpus() -> list[Entry]:
    """Every entry of every file."""
    return [entry for file in FILES for entry in _entries(file)]


def _entries(file: Path) -> Iterator[Entry]:
    read = yaml.safe_load(file.read_text(encoding="utf-8"))
    for section in ("inside", "outside", "unclear"):
        for value, why in read[section]:
            yield Entry(file.stem, read["keyword"], read["stated"], section, value, why)

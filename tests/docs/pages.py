"""The pages of the project, and what stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_TICKED = re.compile(r"`([^`]+)`")


def pages() -> list[Path]:
    """Every page in Markdown that belongs to the project."""
    found = [*ROOT.glob("*.md")]
    for folder in ("docs", "examples", "policies", "tests"):
        found += (ROOT / folder).rglob("*.md")
    return sorted(found)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return [text for name, text in _FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Every relative link of a page: path ("" for the page itself) and fragment."""
    for target in _LINK.findall(prose(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, fragment = target.partition("#")
            yield path, fragment


def anchors(page: Path) -> set[str]:
    """What a fragment may name: the headings, as GitHub makes anchors of them."""
    plain = (re.sub(r"[^\w\- ]", "", text.lower()) for text in _HEADING.findall(prose(page)))
    return {text.strip().replace(" ", "-") for text in plain}


def headings(page: Path, level: int) -> list[str]:
    """The headings of one level, in order."""
    return re.findall(rf"^{'#' * level} (.+)$", prose(page), re.MULTILINE)


def ticked(page: Path) -> list[str]:
    """Everything between backticks in a page's prose."""
    return _TICKED.findall(prose(page))

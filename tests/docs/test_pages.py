"""Links lead somewhere, laws have their tests, and the house stands as its page says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, anchors, links, pages, ticked

_FILE = re.compile(r"(?:guard|docs|tests|scripts|policies|examples)/[\w./-]*|\w[\w-]*\.(?:toml|md)")
_TEST = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_every_relative_link_resolves(page: Path) -> None:
    """A link within the project leads to a file that exists, and to a heading that it has."""
    for path, fragment in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{path} does not exist"
        if fragment:
            assert fragment in anchors(target), f"{path}#{fragment}: no such heading"


def test_every_law_has_its_test() -> None:
    """Each row of docs/laws.md names a test function that exists."""
    page = ROOT / "docs" / "laws.md"
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    laws = [line for line in rows if not line.startswith(("| law |", "| condition |"))]
    assert laws
    for law in laws:
        named = _TEST.search(law)
        assert named is not None, f"no test is named: {law}"
        tree = ast.parse((ROOT / named[1]).read_text(encoding="utf-8"))
        functions = {
            node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert named[2] in functions, f"{named[1]} has no {named[2]}"


def test_every_file_named_in_the_structure_exists() -> None:
    """docs/structure.md names no file and no folder that is not there."""
    named = [text for text in ticked(ROOT / "docs" / "structure.md") if "/" in text and _FILE.fullmatch(text)]
    assert named
    assert [text for text in named if not (ROOT / text).exists()] == []


def test_every_module_stands_in_the_structure() -> None:
    """A newcomer finds each file of the package in docs/structure.md."""
    named = set(ticked(ROOT / "docs" / "structure.md"))
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "guard").rglob("*.py")}
    modules = {name for name in modules if not name.endswith("__init__.py")}
    assert modules - named == set()


def test_every_page_is_reached_from_the_readme() -> None:
    """From the README a reader comes to every page of the documentation by links."""
    reached: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            targets = ((page.parent / path).resolve() for path, _ in links(page) if path.endswith(".md"))
            ahead += [target for target in targets if target.exists()]
    assert {_name(page) for page in (ROOT / "docs").rglob("*.md")} - {
        _name(page) for page in reached
    } == set()


def test_every_decision_is_listed() -> None:
    """docs/adr/README.md lists each decision, and their numbers have no gap."""
    folder = ROOT / "docs" / "adr"
    written = sorted(path.name for path in folder.glob("[0-9]*.md"))
    listed = sorted({path for path, _ in links(folder / "README.md") if path[:1].isdigit()})
    assert written == listed
    assert [int(name[:4]) for name in written] == list(range(1, len(written) + 1))

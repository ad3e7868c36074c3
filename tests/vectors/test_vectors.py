"""The committed vectors are the ones that the script makes, and Guard's readers answer them as expected."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from vector_readers import READERS

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("*/*.json"))
SCRIPT = runpy.run_path(str(FOLDER.parent.parent / "scripts" / "make_vectors.py"))


def _vector(path: Path) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return vector


def test_the_script_makes_the_committed_files_byte_for_byte() -> None:
    """No file is missing, edited by hand, or left over from an earlier script."""
    assert SCRIPT["differing"](FOLDER) == []


def test_every_format_has_a_generator_and_a_reader() -> None:
    """A folder without one of the two would be vectors that nobody checks."""
    folders = {path.parent.name for path in FILES}
    assert folders == set(SCRIPT["FORMATS"]) == set(READERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_vector_is_answered_with_its_class(path: Path) -> None:
    """A good input gives its result, a faulty one the refusal that names its fault."""
    vector = _vector(path)
    answer, result = READERS[path.parent.name](vector["input"])
    assert answer == vector["expected"]
    assert result == vector.get("result", {})


@pytest.mark.parametrize("name", sorted(READERS))
def test_every_format_has_good_and_faulty_vectors(name: str) -> None:
    """A reader that takes everything, or nothing, fails; and a fault is "none" exactly where all is well."""
    vectors = [_vector(path) for path in FILES if path.parent.name == name]
    assert {"ok"} < {vector["expected"] for vector in vectors}
    assert all(vector["fault"].startswith("none") == (vector["expected"] == "ok") for vector in vectors)


@pytest.mark.parametrize("name", sorted(READERS))
def test_no_two_vectors_are_one(name: str) -> None:
    """Each has an input and a name for its fault of its own."""
    vectors = [_vector(path) for path in FILES if path.parent.name == name]
    faulty = [vector["fault"] for vector in vectors if vector["expected"] != "ok"]
    inputs = [json.dumps(vector["input"], sort_keys=True) for vector in vectors]
    assert len(set(faulty)) == len(faulty)
    assert len(set(inputs)) == len(inputs)

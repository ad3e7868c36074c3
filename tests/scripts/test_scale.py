"""The script that fills a million entries: what it says of a few thousand, on both stores, is true."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.lineage.lineages import changed

SCRIPTS = Path(__file__).parents[2] / "scripts"
NEEDED = ("entries", "append_us_first", "append_us_last", "lookup_ms", "prove_ms", "rss_mb", "verify_s")


@pytest.fixture
def scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    module = import_module("scale")
    monkeypatch.setattr(module, "FOLDER", tmp_path / "store")
    monkeypatch.setattr(module.figures, "FOLDER", tmp_path / "figures")
    return module


def written(tmp_path: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "figures" / f"{name}.json").read_text())
    return found


def test_the_embedded_store_is_filled_and_measured(scale: Any, tmp_path: Path) -> None:
    """As many entries as were asked for, audited, every figure there."""
    assert scale.sqlite(3000)
    found = written(tmp_path, "scale")
    assert (found["entries"], found["conversations"]) == (3000, 192)
    assert all(found[name] > 0 for name in NEEDED)
    assert not (tmp_path / "store").exists()


def test_the_shared_store_is_filled_and_measured(scale: Any, tmp_path: Path, database: str) -> None:
    """The same in PostgreSQL, with a sequencer beside."""
    assert scale.postgres(3000, database)
    found = written(tmp_path, "scale_postgres")
    assert (found["entries"], found["conversations"]) == (3000, 192)
    assert all(found[name] > 0 for name in NEEDED)


def test_what_grows_is_not_flat(scale: Any) -> None:
    """Each of what must stay flat counts, by itself."""
    first = {"append_us": 10.0, "lookup_cpu_ms": 1.0, "prove_cpu_ms": 1.0, "rss_mb": 50.0}
    assert scale.is_flat(first, {name: 1.9 * value for name, value in first.items()})
    for name, value in first.items():
        assert not scale.is_flat(first, first | {name: 2.1 * value})


def test_a_wrong_entry_is_no_success(
    scale: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the audit finds is told, and the script fails."""
    told = scale.told

    def tampered(name: str, filled: Any, where: str, **more: object) -> object:
        changed(Path(where), "UPDATE entries SET leaf = leaf || x'20' WHERE idx = 7")
        return told(name, filled, where, **more)

    monkeypatch.setattr(scale, "told", tampered)
    assert not scale.sqlite(1000)
    assert "WRONG: Finding(entry=7" in capfd.readouterr().out


def test_a_database_that_is_used_is_not_filled(scale: Any, database: str) -> None:
    """Figures of another log are none."""
    scale.postgres(300, database)
    with pytest.raises(SystemExit, match="has a lineage already"):
        scale.postgres(300, database)

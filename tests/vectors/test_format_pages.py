"""The worked examples in docs/formats/ are vectors, and the checks that the pages give to outsiders run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).parent
PAGES = VECTORS.parent.parent / "docs" / "formats"
NAMES = ["artifact", "checkpoint", "proof", "api-key", "canonical-json", "policy-signature"]
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(page: str) -> tuple[dict[str, str], list[str]]:
    """Files and programs of a page."""
    found = BLOCK.findall((PAGES / f"{page}.md").read_text("utf-8"))
    files = {name: text for kind, name, text in found if kind == "text"}
    return files, [text for kind, _, text in found if kind == "python"]


def _vector(path: str) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads((VECTORS / f"{path}.json").read_text("utf-8"))
    return vector


def test_the_examples_are_the_vectors() -> None:
    """What a page shows is byte for byte what the vectors hold."""
    note, proof, key = (_vector(f"{name}/valid")["input"] for name in ("checkpoint", "proof", "api-key"))
    nested = _vector("canonical/valid-keys-nested")
    policy = _vector("policy-signature/valid")["input"]
    assert _blocks("policy-signature")[0] == {
        "policy.yaml.jws": policy["signature"] + "\n",
        "policy.yaml": policy["policy"],
        "keys.json": json.dumps(policy["jwks"]) + "\n",
    }
    vkey = note["vkeys"][0] + "\n"
    assert _blocks("checkpoint")[0] == {"checkpoint.txt": note["note"], "vkey.txt": vkey}
    assert _blocks("proof")[0] == {"entry.tlog-proof": proof["proof"], "vkey.txt": vkey}
    assert _blocks("api-key")[0] == {
        "key.txt": key["key"] + "\n",
        "secret_sha256.txt": key["records"][0]["secret_sha256"] + "\n",
    }
    assert _blocks("canonical-json")[0] == {
        "value.json": nested["input"]["json"] + "\n",
        "canonical.json": b64decode(nested["result"]["canonical_base64"]).decode() + "\n",
        "digest.txt": nested["result"]["sha256"] + "\n",
    }


@pytest.mark.parametrize("page", NAMES)
def test_the_outsiders_check_runs_without_guard(page: str, tmp_path: Path) -> None:
    """The page's program takes the page's files, and imports nothing of Guard's."""
    files, programs = _blocks(page)
    assert files
    assert programs
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    for program in programs:
        assert not any(name.startswith("guard") for name in _imported(program))
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("page", NAMES)
def test_the_outsiders_check_fails_on_a_changed_file(page: str, tmp_path: Path) -> None:
    """A changed character in the example ends the page's program with an error."""
    files, programs = _blocks(page)
    changed, *others = files
    text = files[changed]
    at = len(text) // 2
    wrong = text[:at] + ("b" if text[at] == "a" else "a") + text[at + 1 :]
    for name, right in [*((other, files[other]) for other in others), (changed, wrong)]:
        (tmp_path / name).write_text(right, "utf-8")
    done = subprocess.run([sys.executable, "-c", programs[0]], cwd=tmp_path, check=False, capture_output=True)
    assert done.returncode != 0


def _imported(program: str) -> list[str]:
    tree = ast.walk(ast.parse(program))
    return [
        name
        for node in tree
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    ]

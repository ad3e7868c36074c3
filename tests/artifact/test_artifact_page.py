"""docs/formats/artifact.md: its example is a vector, its tables are the code's, its programs run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from artifacts import opened

from guard.artifact.verify import _HEADER, MAX_BYTES, MAX_LIFETIME, MAX_SKEW, Fault
from guard.core.model import ARTIFACT_META, DIGESTED_MEMBERS

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "formats" / "artifact.md").read_text("utf-8")
BLOCKS = {
    f"{kind} {name}".strip(): body
    for kind, name, body in re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
}


def _vector(name: str) -> dict[str, Any]:
    file = ROOT / "tests" / "vectors" / "artifact" / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))["input"]
    return found


def _claims_in_the_table() -> set[str]:
    section = PAGE.split("## The claims")[1].split("## The digest")[0]
    return {
        name
        for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        for name in re.findall(r"`(\S+?)`", row)
    }


def test_the_example_is_the_vector() -> None:
    """Token, keys and params are those of valid-eddsa, and the JSON shown is what the token holds."""
    vector = _vector("valid-eddsa")
    token = vector["params"].pop("_meta")[ARTIFACT_META]
    assert BLOCKS["text artifact.jwt"] == f"{token}\n"
    assert json.loads(BLOCKS["text jwks.json"]) == vector["jwks"]
    assert json.loads(BLOCKS["text params.json"]) == vector["params"]
    assert (json.loads(BLOCKS["json header"]), json.loads(BLOCKS["json claims"])) == opened(token.encode())


def test_the_faults_are_listed_in_the_order_of_verification() -> None:
    """The numbered rows are the members of Fault, all of them, in their order."""
    rows = re.findall(r"^\| (\d+) \| `([\w-]+)` \|", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(Fault) + 1))
    assert [name for _, name in rows] == [fault.value for fault in Fault]


def test_every_claim_is_explained() -> None:
    """What the example holds is in the table, and in it is nothing else but what only some calls have."""
    claims = json.loads(BLOCKS["json claims"])
    held = {name for name in claims if name not in {"act", "tctx", "rctx"}}
    held |= {f"{outer}.{name}" for outer in ("act", "tctx", "rctx") for name in claims[outer]}
    assert held | {"rctx.parent", "rctx.depth", "tctx.approval"} == _claims_in_the_table() - {
        "id",
        "version",
        "sha256",
        "enforce",
        "observe",
    }


def test_the_figures_are_the_codes() -> None:
    """Header members, digested members and bounds."""
    assert json.loads(BLOCKS["json header"]).keys() == _HEADER
    assert ", ".join(f"`{name}`" for name in DIGESTED_MEMBERS) in " ".join(PAGE.split())
    assert f"at most {MAX_BYTES} bytes" in PAGE
    assert f"`exp` is 1 to {MAX_LIFETIME} after `iat`" in PAGE
    assert f"at most {MAX_SKEW}." in PAGE


def test_the_tool_authors_lines_run(tmp_path: Path) -> None:
    """They admit the example at its time, once, and refuse it the second time."""
    vector = _vector("valid-eddsa")
    (tmp_path / "jwks.json").write_text(BLOCKS["text jwks.json"])
    (tmp_path / "request.json").write_text(json.dumps(vector))
    program = BLOCKS["py"] + (
        "\nimport json\n"
        "request = json.loads(Path('request.json').read_text())\n"
        "time.time = lambda: request['now']\n"
        "print(may_run(request['method'], request['params']))\n"
        "print(may_run(request['method'], request['params']))\n"
        "print(may_run(request['method'], {}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    said = [line for line in done.stdout.splitlines() if not line.startswith("  next:")]
    assert said == [
        "True",
        "replayed the artifact was used before",
        "False",
        "missing the request carries no artifact",
        "False",
    ]

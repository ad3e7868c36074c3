"""The page for operators: its commands run, one after the other, as an operator types them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, blocks
from tests.postgres import Server, binaries, with_parts

PAGE = ROOT / "docs" / "operations.md"
DATABASE = re.compile(r"postgresql://(?P<role>\w+)@db\.example\.com/(?P<name>\w+)")
FETCH = """#!{python}
import sys, urllib.request
sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[-1], timeout=10).read())
"""


def _programs(folder: Path) -> str:
    """The PATH of a machine that has Guard, curl and psql."""
    if shutil.which("curl") is None:
        folder.mkdir()
        fetch = folder / "curl"
        fetch.write_text(FETCH.format(python=sys.executable))
        fetch.chmod(fetch.stat().st_mode | stat.S_IXUSR)
    return os.pathsep.join(
        [str(folder), str(Path(sys.executable).parent), os.environ["PATH"], str(binaries())]
    )


def test_the_commands_on_the_page_run(tmp_path: Path, own_postgres: Server) -> None:
    """Deploy, back up, restore, upgrade, rotate, watch: each shell block ends with exit code 0."""
    folder = tmp_path / "here"
    folder.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GUARD_", "COV_"))}
    env |= {"HOME": str(tmp_path), "PATH": _programs(tmp_path / "bin")}
    script = DATABASE.sub(
        lambda at: with_parts(own_postgres.url, user=at["role"], database=at["name"]),
        "\n".join(blocks(PAGE, "sh")),
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, env=env, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert done.stdout.count("everything stands as it was recorded") > 2
    assert "the record was changed" in done.stdout
    assert '"ready":true' in done.stdout.replace(" ", "")

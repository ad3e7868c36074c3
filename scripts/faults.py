"""Every fault, as often as it takes to believe it: kills, full disks, torn pages, cut networks, wrong clocks.

    python scripts/faults.py

`make test` runs the same tests a few times each. Here each count is added up over all of them, printed, and
written to build/figures/faults.json: `kills` and `calls` say how much was tried; everything else must be
nought. The exit code is 0 only if it is, and if every test passed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import figures

ROOT = Path(__file__).parent.parent
PARTS = figures.FOLDER / "faults"
TESTS = ("tests/faults", "tests/lineage/test_crash.py")
TRIED = ("kills", "calls")
WRONG = ("lost", "changed", "duplicate_index", "jti_reused", "overspent")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", default="2", help="tests at once, or `auto`")
    parser.add_argument("--keep", metavar="EXPRESSION", help="only the tests that pytest -k selects")
    options = parser.parse_args()
    shutil.rmtree(PARTS, ignore_errors=True)
    words = [sys.executable, "-m", "pytest", "-q", "-n", options.processes, "--dist", "worksteal"]
    words += ["-o", "faulthandler_timeout=3600", *TESTS]
    words += ["-k", options.keep] if options.keep else []
    code = subprocess.run(words, cwd=ROOT, env={**os.environ, "GUARD_FAULTS": "all"}, check=False).returncode
    parts = {path.stem: json.loads(path.read_text()) for path in sorted(PARTS.glob("*.json"))}
    total: Counter[str] = Counter(dict.fromkeys((*TRIED, *WRONG), 0))
    for part in parts.values():
        total.update(part)
    width = max(map(len, parts), default=0)
    print(f"\n{'':{width}}  " + "  ".join(total))
    for name, part in [*parts.items(), ("all", total)]:
        print(f"{name:{width}}  " + "  ".join(f"{part[key]:{len(key)}}" for key in total))
    figures.write("faults", dict(total))
    return code or int(any(total[name] for name in WRONG))


if __name__ == "__main__":
    sys.exit(main())

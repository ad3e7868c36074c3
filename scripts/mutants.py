"""Mutation testing of the floors that say yes: does some test notice each small change of the code?

    python scripts/mutants.py [--processes 4] [--only guard/policy/decide.py ...]

Runs mutmut on a copy in build/mutants, with the tests of those floors and a Hypothesis profile of its own
(few examples, always the same). A mutant that no test notices must stand in tests/policy/mutants.yaml with
the reason why it means the same. Writes build/figures/mutants.json. Exit 1 under 95 % killed, or where
mutants survive without a reason.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path

import figures
import yaml

ROOT = Path(__file__).parent.parent
COPY = ROOT / "build" / "mutants"
EQUIVALENT = ROOT / "tests" / "policy" / "mutants.yaml"
COPIED = (
    "guard",
    "tests",
    "scripts",
    "policies",
    "docs",
    "examples",
    "Makefile",
    "README.md",
    "pyproject.toml",
)
MUTATED = ("guard/policy/*", "guard/artifact/*")
TESTS = ("tests/policy", "tests/artifact")
NOT_RUN = (
    "tests/policy/test_cli.py",
    "tests/policy/test_schema_suite.py",
    "tests/policy/origins/test_origin_bounds.py",
)
"""The first starts processes, which know of no mutant. The others are slow: to load, or by the megabyte."""
ABOUT_THE_TEXT = ("tests/policy/test_decide.py::test_the_one_function_that_says_yes_fits_on_a_page",)
LEAST_KILLED = 95.0
KILLED = frozenset({"killed", "timeout", "segfault", "suspicious", "caught by type check"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="*", default=list(MUTATED), help="files or globs to change")
    parser.add_argument("--tests", nargs="*", default=list(TESTS), help="files or folders of tests")
    options = parser.parse_args()
    prepare(options.only, options.tests)
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(COPY / "scripts")}
    mutmut = (str(Path(sys.executable).parent / "mutmut"), "run", "--max-children", str(options.processes))
    subprocess.run(mutmut, cwd=COPY, check=True, env=environment)
    results = outcomes(environment)
    return report(results, options.only, time.monotonic() - began)


def prepare(only: list[str], tests: list[str]) -> None:
    """A fresh copy of what the tests need, with mutmut's settings."""
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, COPY / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, COPY / name)
    # mutmut reads the first that has a table for it; pyproject.toml has none
    assert "mutmut" not in tomllib.loads((COPY / "pyproject.toml").read_text())["tool"]
    arguments = [
        "--hypothesis-profile=mutants",
        "-p",
        "no:cacheprovider",
        *(f"--ignore={t}" for t in NOT_RUN),
    ]
    arguments += [f"--deselect={test}" for test in ABOUT_THE_TEXT]
    lists = {
        "source_paths": ["guard"],
        "only_mutate": only,
        "also_copy": [name for name in COPIED if name != "guard"],
        "pytest_add_cli_args": arguments,
        "pytest_add_cli_args_test_selection": tests,
    }
    lines = ["[mutmut]"]
    for key, values in lists.items():
        lines += [f"{key} =", *(f"    {value}" for value in values)]
    (COPY / "setup.cfg").write_text("\n".join(lines) + "\n")


def outcomes(environment: dict[str, str]) -> dict[str, str]:
    """What became of each mutant, by its name."""
    mutmut = (str(Path(sys.executable).parent / "mutmut"), "results", "--all", "true")
    said = subprocess.run(mutmut, cwd=COPY, check=True, env=environment, capture_output=True, text=True)
    return dict(re.findall(r"^\s*(\S+): (.+?)\s*$", said.stdout, re.MULTILINE))


def report(results: dict[str, str], only: list[str], seconds: float) -> int:
    """Print and write the figures."""
    equivalent: dict[str, str] = yaml.safe_load(EQUIVALENT.read_text()) or {}
    counts = Counter(results.values())
    survivors = sorted(name for name, outcome in results.items() if outcome not in KILLED)
    killed = len(results) - len(survivors)
    percent = round(100 * killed / len(results), 2) if results else 0.0
    unexplained = [name for name in survivors if name not in equivalent]
    for name in survivors:
        print(f"{name}: {results[name]}: {equivalent.get(name, 'no reason is given')}")
    print(f"{killed} of {len(results)} mutants killed, {percent} %, in {seconds:.0f} s: {dict(counts)}")
    figures.write(
        "mutants",
        {
            "killed_percent": percent,
            "mutants": len(results),
            "killed": killed,
            "seconds": round(seconds),
            "files": only,
            "survivors": {name: equivalent.get(name, "") for name in survivors},
            "unexplained": len(unexplained),
        },
    )
    return 1 if percent < LEAST_KILLED or unexplained else 0


if __name__ == "__main__":
    sys.exit(main())

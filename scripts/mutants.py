"""Mutation testing of the floors that say yes: does some test notice each small change of the code?

    python scripts/mutants.py [--processes 4] [--only guard/policy/decide.py ...] [--again] [--show NAME ...]

mutmut makes the mutants, in a copy in build/mutants; `mutant_parts/judge.py` runs the tests of those floors
on each, under a Hypothesis profile of their own (few examples, always the same). A mutant that no test
notices must stand in tests/policy/mutants.yaml with the reason why it means the same. Writes
build/figures/mutants.json. Exit 1 under 95 % killed, where mutants survive without a reason, or where a
test is red as it is.
`--show` prints what those mutants change, and does nothing else.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import figures
import yaml
from mutmut.mutation.file_mutation import mutate_file_contents

ROOT = Path(__file__).parent.parent
COPY = ROOT / "build" / "mutants"
JUDGE = Path(__file__).parent / "mutant_parts" / "judge.py"
FIGURES = ROOT / "build" / "figures" / "mutants.json"
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
KILLED = frozenset({"killed", "timeout"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="*", default=list(MUTATED), help="files or globs to change")
    parser.add_argument("--tests", nargs="*", default=list(TESTS), help="files or folders of tests")
    parser.add_argument("--copy", type=Path, default=COPY, help="the folder of the copy, made anew")
    parser.add_argument("--again", action="store_true", help="only what survived in the run before")
    parser.add_argument("--show", nargs="*", default=[], metavar="NAME", help="what these mutants change")
    options = parser.parse_args()
    os.chdir(ROOT)  # mutmut reads its settings there
    for name in options.show:
        print(difference(name))
    if options.show:
        return 0
    began = time.monotonic()
    prepare(options.copy, options.only)
    names = list(json.loads(FIGURES.read_text())["survivors"]) if options.again else None
    results, red = outcomes(options.copy, options.processes, options.tests, names)
    only = [] if options.again else options.only
    return report(results, only, time.monotonic() - began) or bool(red)


def prepare(copy: Path, only: list[str]) -> None:
    """A fresh copy of what the tests need, in which the code that is tried stands beside its mutants."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, copy / name)
    files = sorted(copy.glob("guard/**/*.py"))
    tried = [file for file in files if any(fnmatch(str(file.relative_to(copy)), one) for one in only)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(mutate, tried))


def mutate(file: Path) -> None:
    """Write every function of a file beside its mutants."""
    file.write_text(mutate_file_contents(str(file), file.read_text()).code)


def outcomes(
    copy: Path, processes: int, tests: list[str], names: list[str] | None
) -> tuple[dict[str, str], list[str]]:
    """What became of each mutant, or of these, by its name; and the tests that are red without any."""
    (copy / "names.json").write_text(json.dumps(names))
    said = copy / "results.json"
    leave_out = [f"--ignore={test}" for test in NOT_RUN] + [f"--deselect={test}" for test in ABOUT_THE_TEXT]
    told = ["-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants", *leave_out, *tests]
    subprocess.run(
        (sys.executable, str(JUDGE), str(said), str(processes), str(copy / "names.json"), *told),
        cwd=copy,
        check=True,
    )
    found = json.loads(said.read_text())
    return found["outcomes"], found["red"]


def difference(name: str) -> str:
    """What a mutant changes, as a diff."""
    module, _, function = name.rpartition(".")
    file = ROOT / (module.replace(".", "/") + ".py")
    code = mutate_file_contents(str(file), file.read_text()).code
    original = re.sub(r"__mutmut_\d+$", "__mutmut_orig", function)
    was, is_ = (_body(code, one).replace(one, "it") for one in (original, function))
    return "\n".join(difflib.unified_diff(was.split("\n"), is_.split("\n"), name, name, n=2, lineterm=""))


def _body(code: str, function: str) -> str:
    found = re.search(
        rf"^( *)(?:async )?def {function}\(.*?(?=^\1(?:\S)(?<!\)))", code + "\nend", re.MULTILINE | re.DOTALL
    )
    if found is None:
        raise SystemExit(f"there is no mutant {function}")
    return found.group()


def report(results: dict[str, str], only: list[str], seconds: float) -> int:
    """Print the figures, and write those of a run over files."""
    equivalent: dict[str, str] = yaml.safe_load(EQUIVALENT.read_text()) or {}
    counts = Counter(results.values())
    survivors = sorted(name for name, outcome in results.items() if outcome not in KILLED)
    killed = len(results) - len(survivors)
    percent = round(100 * killed / len(results), 2) if results else 0.0
    unexplained = [name for name in survivors if name not in equivalent]
    for name in survivors:
        print(f"{name}: {results[name]}: {equivalent.get(name, 'no reason is given')}")
    modules: dict[str, list[str]] = {}
    for name, outcome in results.items():
        modules.setdefault(name.rpartition(".")[0], []).append(outcome)
    for module, each in sorted(modules.items()):
        print(f"{module}: {sum(one in KILLED for one in each)} of {len(each)}")
    print(f"{killed} of {len(results)} mutants killed, {percent} %, in {seconds:.0f} s: {dict(counts)}")
    failed = percent < LEAST_KILLED or bool(unexplained)
    if not only:
        return int(failed)
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
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""The official JSON-Schema-Test-Suite for 2020-12, through the validator as Guard configures it.

    python scripts/schema_suite.py [--list]

The suite comes with the source distribution of `jsonschema`, is fetched into build/ and never kept in the
repository. A test differs when the schema is refused at load, when a schema or a value is no I-JSON (such a
call is denied before a schema sees it), or when the answer is another one. Each difference must stand in
tests/policy/schema_suite.yaml with its reason, and what stands there must differ. Writes
build/figures/schema-suite.json. Exit 1 where something is unexplained; --list prints all differences.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import figures
import yaml

from guard.core import canonical
from guard.policy.schema import compile_schema
from guard.policy.vocabulary import SchemaRefused

ROOT = Path(__file__).parent.parent
REASONS = ROOT / "tests" / "policy" / "schema_suite.yaml"
FOLDER = ROOT / "build" / "schema-suite"
VERSION = "4.26.0"
DRAFT = "json/tests/draft2020-12/"
NO_IJSON = "no I-JSON"
OTHER_ANSWER = "another answer"


@dataclass(frozen=True, slots=True)
class Test:
    """One test: its id is FILE/GROUP/TEST, counted from 0, which is what the data file names."""

    id: str
    description: str
    schema: Any
    value: Any
    valid: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="print every difference")
    options = parser.parse_args()
    tests = list(read(fetched()))
    found = differences(tests)
    if options.list:
        names = {test.id: test.description for test in tests}
        for test, what in found.items():
            print(f"{test}: {what} ({names[test]})")
    wrong = unexplained(found)
    for complaint in wrong:
        print(complaint)
    for what, count in Counter(found.values()).most_common():
        print(f"{count:6}  {what}")
    print(f"{len(tests):6}  tests, {len(found)} differences, {len(wrong)} unexplained")
    figures.write(
        "schema-suite",
        {
            "tests": len(tests),
            "as_the_suite_says": len(tests) - len(found),
            "refused_at_load": sum(what not in (NO_IJSON, OTHER_ANSWER) for what in found.values()),
            "another_answer": sum(what == OTHER_ANSWER for what in found.values()),
            "unexplained": len(wrong),
        },
    )
    return 1 if wrong or not tests else 0


def fetched() -> Path:
    """The source distribution, downloaded if it is not there.

    Raises:
        OSError, subprocess.CalledProcessError: it cannot be had.
    """
    path = FOLDER / f"jsonschema-{VERSION}.tar.gz"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        wanted = ("--no-deps", "--no-binary", "jsonschema", f"jsonschema=={VERSION}")
        command = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *wanted)
        subprocess.run((*command, "--dest", str(FOLDER)), check=True, capture_output=True, timeout=120)
    return path


def read(path: Path) -> Iterator[Test]:
    """Every test for 2020-12: required, optional and format, in the order of their files."""
    with tarfile.open(path) as archive:
        members = sorted((m for m in archive if DRAFT in m.name and m.isfile()), key=lambda m: m.name)
        for member in members:
            content = archive.extractfile(member)
            assert content is not None
            name = member.name.partition(DRAFT)[2].removesuffix(".json")
            for at, group in enumerate(json.load(content)):
                for number, test in enumerate(group["tests"]):
                    said = f"{group['description']}: {test['description']}"
                    yield Test(f"{name}/{at}/{number}", said, group["schema"], test["data"], test["valid"])


def differences(tests: list[Test]) -> dict[str, str]:
    """What differs, by id of the test, and how."""
    return {test.id: what for test in tests if (what := difference(test))}


def difference(test: Test) -> str:
    """How Guard differs from the suite, "" where it does not."""
    if not (plain(test.schema) and plain(test.value)):
        return NO_IJSON
    try:
        schema = compile_schema(test.schema)
    except SchemaRefused as refused:
        return refused.what
    return "" if schema.matches(test.value) == test.valid else OTHER_ANSWER


def plain(value: Any) -> bool:
    """Whether Guard would read this JSON at all."""
    try:
        canonical.read(json.dumps(value).encode())
    except (canonical.NotIJson, canonical.NotJson):
        return False
    return True


def unexplained(found: Mapping[str, str]) -> list[str]:
    """Differences without a reason, and reasons without their difference."""
    explained: dict[str, str] = {}
    for entry in yaml.safe_load(REASONS.read_text()):
        assert entry["because"]
        for group, numbers in entry["tests"].items():
            explained |= {f"{group}/{number}": entry["what"] for number in numbers}
    new = [f"{test}: {what}: no reason is given" for test, what in found.items() if test not in explained]
    other = [
        f"{test}: {found.get(test, 'no difference')}, but the reason is for: {what}"
        for test, what in explained.items()
        if found.get(test) != what
    ]
    return [*new, *other]


if __name__ == "__main__":
    sys.exit(main())

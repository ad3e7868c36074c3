"""What is refused, whole: where, what and what to do next, of everything that a policy can get wrong.

The texts are for people, so they stand in a file that people read. After a change that is meant:

    python -m tests.policy.test_golden_refusals
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from guard.core.canonical import canonical, write
from guard.core.errors import GuardError
from guard.policy.cases import load_checked, read_cases, run
from guard.policy.document import load
from guard.policy.fit import misfits
from guard.policy.reading import read
from guard.policy.rules import Policy
from guard.policy.schema import compile_schema
from guard.policy.vocabulary import SchemaRefused
from tests.policy.golden.refused import (
    CASES,
    FAILING,
    FIT,
    GOOD,
    POLICIES,
    READ,
    SCHEMAS,
    TEXTS,
    TOOLS,
    WORLD,
)

FILE = Path(__file__).parent / "golden" / "refusals.txt"


def _of(work: Callable[..., Any], *given: Any, **named: Any) -> str:
    try:
        work(*given, **named)
    except GuardError as error:
        return str(error)
    except SchemaRefused as refused:
        return f"{refused.pointer or 'the whole'}: {refused.what}\n  next: {refused.remedy}"
    return "taken"


def _document(members: dict[str, Any]) -> bytes:
    whole = {"guard": 1, "id": "p", "version": 1, **GOOD, **members}
    return write({name: value for name, value in whole.items() if value is not None})


def _policy(members: dict[str, Any], name: str = "p.json") -> Policy:
    return load(_document(members), name=name)


def _read(data: bytes) -> str:
    text = read(data, name="f")
    value = canonical(text.value).decode() if len(data) < 1000 else "much"
    return f"{value} {dict(text.lines) if len(data) < 200 else ''} {text.where('/a/9')} {text.where('/zz')}"


def _results(cases: str) -> str:
    world = _policy(WORLD)
    results = run(world, read_cases(cases.encode(), name="c.yaml"))
    return "\n".join(
        f"{one.case.where} {one.passed}: expected {one.expected}, got {one.got}" for one in results
    )


def refusals() -> Iterator[tuple[str, str]]:
    for name, data in TEXTS.items():
        yield f"text: {name}", _of(read, data, name="f\x1b")
    for name, data in READ.items():
        yield f"text that is taken: {name}", _read(data)
    for name, schema in SCHEMAS.items():
        yield f"schema: {name}", _of(compile_schema, schema)
    for name, members in POLICIES.items():
        yield f"policy: {name}", _of(_policy, members)
    for name, cases in CASES.items():
        yield f"cases: {name}", _of(read_cases, cases.encode(), name="c.yaml")
    for name, cases in FAILING.items():
        checked = _of(load_checked, _document(WORLD), cases.encode(), "p", "c.yaml")
        unnamed = _of(load_checked, _document(WORLD), cases.encode(), "p")
        yield f"cases that fail: {name}", f"{checked}\n{unnamed}"
        if "used" not in cases:
            yield f"what is said of them: {name}", _results(cases)
    for name, members in FIT.items():
        found = [*misfits(_policy({"tools": [], **members}), TOOLS)]
        yield f"misfit: {name}", "\n".join(map(str, found)) or "fits"


def as_text() -> str:
    return "\n".join(f"== {name}\n{said}\n" for name, said in refusals())


def test_every_refusal_reads_as_it_did() -> None:
    """Its place, its fault and its remedy: and nothing that was taken is refused, or the other way round."""
    kept, now = FILE.read_text(), as_text()
    for was, is_ in zip(kept.split("== "), now.split("== "), strict=False):
        assert is_ == was
    assert now == kept


if __name__ == "__main__":
    FILE.write_text(as_text())

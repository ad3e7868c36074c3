"""`guard policy diff`: what would change."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from guard.cli.shared import EPILOG, NO, emit, home_option, json_option, opened, told
from guard.config.home import clock
from guard.config.policies import cases_beside, read_file
from guard.core.model import Call, Conversation, Facts, Pin, Principal, Seen, Tool
from guard.lineage.audit import readable
from guard.lineage.entry import Kind
from guard.lineage.store import Store
from guard.policy.cases import asked, read_cases
from guard.policy.diff import KINDS, changes, edges, of_cases
from guard.policy.document import load
from guard.policy.instants import milliseconds

FILE: Final = click.Path(path_type=Path)
DECIDED: Final = frozenset({Kind.GRANTED, Kind.DENIED})
_KINDS: Final = {None: "tool", "resources/read": "resource", "prompts/get": "prompt"}


@click.command("diff", epilog=EPILOG)
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
@click.option("--lineage", is_flag=True, help="Decide the recorded calls anew, too.")
@click.option("--terms", is_flag=True, help="Show where only the reason or the rules differ, too.")
@click.option("--now", help="The time of calls that have none, RFC 3339 (default: now).")
@home_option
@json_option
def diff(
    *, before: Path, after: Path, lineage: bool, terms: bool, now: str | None, home: Path, as_json: bool
) -> None:
    """Say which calls two policies decide differently.

    They are asked the cases of both, calls at the edges of both, and with --lineage every recorded call whose
    arguments were kept. Exit code 0: no difference was found; 1: one was.
    """
    try:
        time = clock() if now is None else milliseconds(now)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--now") from None
    with told():
        old, new = (load(read_file(file), name=str(file)) for file in (before, after))
        calls = [call for file in (before, after) for call in _cases(file)]
        if lineage:
            with opened(home) as (_, store):
                calls += recorded(store)
        found = [*changes(old, new, [*calls, *edges((old, new), time)])]
    counts = Counter(change.kind for change in found)
    found.sort(key=lambda change: KINDS.index(change.kind))
    shown = [str(change) for change in found if terms or change.kind != KINDS[-1]]
    summary = (
        ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "no difference was found"
    )
    value: dict[str, Any] = {"changes": [change.as_json() for change in found], "counts": dict(counts)}
    emit(value, [*shown, summary], as_json=as_json)
    sys.exit(NO if found else 0)


def _cases(file: Path) -> Iterator[tuple[str, Call]]:
    if (cases := cases_beside(file)) is not None:
        yield from of_cases(read_cases(read_file(cases), name=str(cases)))


def recorded(store: Store) -> Iterator[tuple[str, Call]]:
    """Every call of a lineage that was decided and whose arguments were kept, as it was asked."""
    for row in store.entries():
        entry = readable(row)
        fields = entry["fields"]
        if entry["kind"] in DECIDED and fields is not None and fields.get("arguments") is not None:
            yield f"call {entry['call']}", _call(fields, entry["at"])


def _call(fields: dict[str, Any], at: int) -> Call:
    kind = _KINDS.get(fields.get("method"), "method")
    issuer, subject = fields["principal"]
    name, arguments = fields["tool"], fields["arguments"]
    method, params = asked(kind, name, {} if kind == "resource" else arguments)
    return Call(
        id="recorded",
        principal=Principal(fields["tenant"], issuer, subject, fields["role"]),
        tool=Tool(fields["server"], name, "", Pin.MATCHES, frozenset(), kind),
        audience=fields["server"],
        method=method,
        params=params,
        conversation=Conversation(fields["conversation"].get("id", ""), fields["conversation"]["source"]),
        facts=Facts(now=at, seen=Seen({})),
    )

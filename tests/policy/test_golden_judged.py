# ruff: noqa: E501 - one result a line
"""Where values come from, whole: what is asked about each, and what is answered, for memories of all kinds.

They stand in a file that people read. After a change that is meant:

    python -m tests.policy.test_golden_judged
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guard.core.model import Appearance, Seen
from guard.policy.origins import judge
from guard.policy.origins.results import answered
from guard.policy.origins.values import glimpses, spoken
from tests.policy.test_golden_origins import DOCUMENTS, TEXTS

HERE = Path(__file__).parent / "golden"
SALT = b"golden"
NONE = "none"
VALUES: tuple[Any, ...] = (
    "a@example.com",
    "Write to a@example.com, now",
    "b@elsewhere.org",
    "https://example.com/a?b=c",
    "DE89 3704 0044 0532 0130 00",
    "general",
    "Ada Lovelace",
    "the quick brown fox jumps over the lazy dog and more",
    "yes",
    "5",
    "12345",
    5,
    12345.0,
    0.5,
    True,
    None,
    "",
    {"to": ["a@example.com", "b@elsewhere.org"], "a@example.com": 1},
    ["general", "YUBleGFtcGxlLmNvbQ"],
    {"deep": [[[{"x": "Ada"}]]]},
    "moc.elpmaxe@a",
    "quick brown",
    "a@example.com b@elsewhere.org",
)
TOLD = "Write to a@example.com or ask Ada Lovelace in the channel general about order 5 and 12345. YUBleGFtcGxlLmNvbQ"
WORDS = "the quick brown fox jumps over the lazy dog and more"


def _said(source: str, trust: str, text: Any, fields: Any = None) -> Any:
    data = text if isinstance(text, str) else json.dumps(text)
    return glimpses(data.encode(), source=source, trust=trust, fields=fields or {}, salt=SALT)


def _memory(*said: Any, whole: bool = True) -> Seen:
    found: dict[bytes, tuple[Appearance, ...]] = {}
    for fingerprint, appearance in (one for part in said for one in part):
        found[fingerprint] = (*found.get(fingerprint, ()), appearance)
    return Seen(found, whole, SALT)


MAIL = {"to": "a@example.com", "name": "Ada Lovelace", "channels": ["general"], "id": 5, "n": 12345}
LABELS = {"/to": "trusted", "/name": "mixed"}


def _memories() -> Iterator[tuple[str, Seen]]:
    user = spoken(TOLD, SALT)
    yield "nothing", _memory()
    yield "nothing whole", _memory(whole=False)
    yield "the user", _memory(user)
    yield "the user, not whole", _memory(user, whole=False)
    yield "a trusted tool", _memory(_said("tool:s/t", "trusted", TOLD))
    yield "an untrusted tool", _memory(_said("tool:s/t", "untrusted", TOLD))
    yield "an untrusted tool's prose", _memory(_said("tool:s/t", "untrusted", WORDS))
    yield "fields", _memory(_said("tool:s/t", "untrusted", MAIL, LABELS))
    yield "the user and a tool", _memory(user, _said("tool:s/t", "untrusted", MAIL))
    yield "what was sent", _memory(_said("sent:tool:s/t", "untrusted", MAIL))
    yield (
        "what was sent and came back",
        _memory(_said("sent:tool:s/t", "untrusted", MAIL), _said("tool:s/u", "trusted", MAIL)),
    )
    yield "what was sent and the user said", _memory(_said("sent:tool:s/t", "untrusted", MAIL), user)


def _origin(value: Any, seen: Seen, constants: frozenset[str], *, overrides: bool) -> str:
    asked = set(judge.candidates(value, SALT))
    known = Seen({key: found for key, found in seen.values.items() if key in asked}, seen.whole, SALT)
    found = judge.origin(value, known, constants, overrides)
    parts = [
        (part.trust, sorted({(a.source, a.trust, a.field) for a in part.appearances})) for part in found.parts
    ]
    return f"{sorted(found.kinds)} {found.trust} {parts}"


def as_judged() -> str:
    lines: list[str] = []
    for text in (*TEXTS, *DOCUMENTS):
        lines.append(f"== asked about {text!r:.150}")
        for one in judge._parts(text):
            lines.append(
                f"  {one.exact} quoted {one.quoted} leading {one.leading} weak {one.weak} phrases {one.phrases}"
            )
            lines.append(f"    disguised {sorted(one.disguised)}")
    for name, seen in _memories():
        for overrides in (False, True):
            lines.append(f"== {name}{', the user overrides' if overrides else ''}")
            lines += [
                f"  {value!r}: {_origin(value, seen, frozenset(), overrides=overrides)}" for value in VALUES
            ]
    constants = frozenset({"a@example.com", "Ada Lovelace", "12345"})
    lines.append("== with constants")
    seen = _memory(_said("tool:s/t", "untrusted", MAIL))
    lines += [f"  {value!r}: {_origin(value, seen, constants, overrides=False)}" for value in VALUES]
    return "\n".join([*lines, ""])


RESULTS: tuple[Any, ...] = (
    {"content": [{"type": "text", "text": TOLD}]},
    {"content": [{"type": "text", "text": json.dumps(MAIL)}], "structuredContent": MAIL},
    {"content": [{"type": "text", "text": json.dumps([MAIL])}], "structuredContent": MAIL},
    {
        "content": [{"type": "text", "text": "{broken"}, {"type": "text", "text": "a@b.com"}],
        "structuredContent": {"x": "y"},
    },
    {
        "content": [
            5,
            {"type": "image", "data": "QUJD", "mimeType": "image/png"},
            {"type": "text", "text": 7},
            {"type": "text", "text": "last one"},
        ]
    },
    {
        "content": [
            {"type": "resource", "resource": {"uri": "file:///a", "text": "inner text", "blob": "QUJDRA=="}}
        ]
    },
    {
        "content": [{"type": "resource_link", "uri": "https://example.com/x", "name": "a link"}],
        "_meta": {"k": "meta value"},
    },
    {"content": "no list", "isError": True, "more": ["other member"]},
    {"structuredContent": {"to": "a@example.com", "id": 5}},
    {"messages": [{"role": "user", "content": {"type": "text", "text": "a prompt of words"}}]},
    {"contents": [{"uri": "file:///a", "text": "the text of it", "blob": "QUJD"}]},
    [1, "a list"],
    "a text",
    {},
)


def as_results() -> str:
    lines: list[str] = []
    for result in RESULTS:
        raw = json.dumps(result).encode()
        for trust, fields, tool in (
            ("untrusted", {}, True),
            ("trusted", {"/to": "mixed"}, True),
            ("mixed", {}, False),
        ):
            found = answered(raw, trust, fields, tool=tool)
            lines.append(f"== {trust} {'tool' if tool else 'other'} {raw.decode()[:160]}")
            lines += [
                f"  {key} {leaf.trust} {leaf.at!r}" for key, leaf in sorted(found._places.items(), key=str)
            ]
    for raw in (b"not json", b"\xff\xfe", b"", b"[" * 100_000):
        found = answered(raw, "mixed", {"/a": "trusted"})
        lines.append(f"== {raw[:20]!r} {found.is_full}")
        lines += [f"  {key} {leaf.trust} {leaf.at!r}" for key, leaf in sorted(found._places.items(), key=str)]
    return "\n".join([*lines, ""])


FILES = {"origins-judged.txt": as_judged, "origins-results.txt": as_results}


@pytest.mark.parametrize("name", FILES)
def test_a_value_comes_from_where_it_came_from(name: str) -> None:
    """Each key that is asked for, each appearance that counts, each label."""
    kept, now = (HERE / name).read_text(encoding="utf-8"), FILES[name]()
    for was, is_ in zip(kept.split("\n"), now.split("\n"), strict=False):
        assert is_ == was
    assert now == kept


if __name__ == "__main__":
    for name, text in FILES.items():
        (HERE / name).write_text(text(), encoding="utf-8")

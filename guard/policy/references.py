"""Local references inside one schema document (JSON Schema 2020-12 core, section 8.2)."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote

REFERENCES: Final = frozenset({"$ref", "$dynamicRef"})
ANCHORS: Final = ("$anchor", "$dynamicAnchor")


def resolve(root: Any, reference: str) -> Any:
    """What a local reference points to: `#`, `#/pointer` or `#anchor`. None if it points nowhere."""
    if not reference.startswith("#"):
        return None
    fragment = unquote(reference[1:])
    if fragment and not fragment.startswith("/"):
        return _anchored(root, fragment)
    here = root
    for raw in fragment.split("/")[1:]:
        token = raw.replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict) and token in here:
            here = here[token]
        elif isinstance(here, list) and token in map(str, range(len(here))):
            here = here[int(token)]
        else:
            return None
    return here


def _anchored(root: Any, anchor: str) -> Any:
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if any(part.get(keyword) == anchor for keyword in ANCHORS):
                return part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return None

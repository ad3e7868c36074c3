"""A second reading of what I-JSON can say: docs/policy.md, "The order", step 5."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from guard.core.errors import Reason
from guard.core.model import Deny
from tests.oracle_rules import token

LARGEST_INTEGER = 2**53 - 1
DEEPEST = 128  # the arguments object is level 1


def unfit(value: Any, pointer: str, level: int = 1) -> Iterator[Deny]:
    """What is not I-JSON in a value, depth first."""
    not_ijson = Deny(Reason.ARGUMENTS_NOT_IJSON, pointer=pointer)
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if _has_surrogate(value):
            yield not_ijson
    elif isinstance(value, int):
        if abs(value) > LARGEST_INTEGER:
            yield not_ijson
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield not_ijson
    elif isinstance(value, dict | list):
        if level > DEEPEST:
            yield not_ijson
        else:
            yield from _unfit_inside(value, pointer, level)
    else:
        # docs: silent. No JSON text gives such a value, so Guard itself is at fault and not the caller.
        yield Deny(Reason.RULE_FAILED)


def _unfit_inside(value: dict[Any, Any] | list[Any], pointer: str, level: int) -> Iterator[Deny]:
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in members:
        inner = f"{pointer}/{token(key)}"
        if isinstance(value, dict) and not isinstance(key, str):
            yield Deny(Reason.RULE_FAILED)
        if isinstance(value, dict) and isinstance(key, str) and _has_surrogate(key):
            yield Deny(Reason.ARGUMENTS_NOT_IJSON, pointer=inner)
        yield from unfit(item, inner, level + 1)


def _has_surrogate(text: str) -> bool:
    return any(0xD800 <= ord(char) <= 0xDFFF for char in text)

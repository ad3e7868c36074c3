"""What a client is told: a denial, an ending, a result.

Denials are a fixed text: reason, field, whom to ask. They never say what would be permitted and
never repeat the caller's text unescaped. A tool that the caller may not see is answered exactly
as one that does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from guard.core.errors import Reason, printable
from guard.core.model import DECISION_META, Deny
from guard.proxy import wire
from guard.proxy.endings import Ending, Failed, Returned, Unknown
from guard.proxy.replies import Garbage, completed

_ALIKE: Final = frozenset({Reason.DEFAULT_DENY, Reason.TOOL_NOT_VISIBLE, Reason.UNKNOWN_TOOL})
_RETRYABLE: Final = frozenset(
    {Reason.CONTENDED, Reason.CLOCK_BEHIND, Reason.UPSTREAM_UNAVAILABLE, Reason.OVERLOADED}
)
_PIN: Final = frozenset({Reason.TOOL_UNPINNED, Reason.TOOL_CHANGED})


@dataclass(frozen=True, slots=True)
class Served:
    """What an answer needs to know of who serves.

    Attributes:
        info: its `serverInfo`.
        modern: whether it speaks 2026-07-28.
    """

    info: Mapping[str, Any]
    modern: bool


def told(reason: Reason) -> Reason:
    """The reason that is told to others: a tool that is out of sight is one that does not exist."""
    return Reason.UNKNOWN_TOOL if reason in _ALIKE else reason


def denial(
    message: wire.Request, decision_id: str, deny: Deny, *, server: Served, pin_command: str = ""
) -> bytes:
    """A tool result that says no, for people and in `_meta` for programs."""
    if deny.reason in _ALIKE:
        deny = Deny(told(deny.reason))
    field = printable(deny.pointer)
    where = f"; field: {field}" if field else ""
    text = f"Denied by Guard (reason: {deny.reason}{where}; decision: {decision_id}). Nothing was sent. "
    if deny.reason in _PIN:
        text += f"The operator accepts the tool with: {pin_command}"
    else:
        text += "Ask whoever operates Guard."
    about = {
        "decision": "deny",
        "reason": deny.reason,
        "rule": deny.rule,
        "pointer": field,
        "decision_id": decision_id,
        "retryable": deny.reason in _RETRYABLE,
    }
    return _error_result(message, text, about, server)


def ending(message: wire.Request, decision_id: str, found: Ending, *, server: Served) -> bytes:
    """What became of a granted call."""
    match found:
        case Returned(raw, is_error=True):
            return wire.error_of(message.id, raw)
        case Returned(raw):
            try:
                raw = completed(raw) if message.modern and not server.modern else raw
            except Garbage:
                return _lost(message, decision_id, Unknown(Reason.UNEXPECTED, executed=True), server)
            return wire.result(message.id, orjson.Fragment(raw))
        case Failed(reason):
            return denial(message, decision_id, Deny(reason), server=server)
        case Unknown():
            return _lost(message, decision_id, found, server)


def _lost(message: wire.Request, decision_id: str, found: Unknown, server: Served) -> bytes:
    """After dispatch: a lost reply must not become a second execution."""
    outcome = "executed" if found.executed else "unknown"
    text = (
        f"The call was sent, but its result is not available (reason: {found.reason}; "
        f"outcome: {outcome}; decision: {decision_id}). Do not repeat it without checking what it did."
    )
    about = {
        "decision": "allow",
        "reason": found.reason,
        "outcome": outcome,
        "retryable": False,
        "decision_id": decision_id,
    }
    return _error_result(message, text, about, server)


def _error_result(message: wire.Request, text: str, about: Mapping[str, Any], server: Served) -> bytes:
    value = {
        "content": [{"type": "text", "text": text}],
        "isError": True,
        "_meta": {DECISION_META: about},
    }
    return wire.result(message.id, wire.stamped(value, server.info, modern=message.modern))

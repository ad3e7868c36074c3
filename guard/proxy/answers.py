"""What a client is told: a denial, an ending, a result.

Denials are a fixed text: reason, field, whom to ask. They never say what would be permitted and
never repeat the caller's text unescaped. A tool that the caller may not see is answered exactly
as one that does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from guard.core.errors import Reason, printable
from guard.core.model import DECISION_META, Deny
from guard.proxy import eras, wire
from guard.proxy.asker import ASKED
from guard.proxy.endings import Ending, Failed, Returned, Unknown
from guard.proxy.replies import Garbage, completed, read_object, value_of

_ALIKE: Final = frozenset({Reason.DEFAULT_DENY, Reason.TOOL_NOT_VISIBLE, Reason.UNKNOWN_TOOL})
_RETRYABLE: Final = frozenset(
    {
        Reason.CONTENDED,
        Reason.CLOCK_BEHIND,
        Reason.CLOCK_AHEAD,
        Reason.LIMIT_REACHED,
        Reason.APPROVAL_REQUIRED,
        Reason.UPSTREAM_UNAVAILABLE,
        Reason.OVERLOADED,
    }
)
_UNKNOWN: Final[Mapping[str, Reason]] = {
    "tool": Reason.UNKNOWN_TOOL,
    "prompt": Reason.UNKNOWN_PROMPT,
    "resource": Reason.UNKNOWN_RESOURCE,
    "method": Reason.UNKNOWN_METHOD,
}
_INPUT: Final = b'"input_required"'
_READ: Final = "resources/read"
_PERSON: Final = frozenset({Reason.APPROVAL_REQUIRED, Reason.APPROVAL_REFUSED})
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


def told(reason: Reason, kind: str = "tool") -> Reason:
    """The reason that is told to others: what is out of sight is what does not exist."""
    return _UNKNOWN[kind] if reason in _ALIKE else reason


def no_method(message: wire.Request) -> wire.Malformed:
    """What is said of a method that is not there, or that the caller may not see."""
    text = f"method not found: {printable(message.method)}"
    return wire.Malformed(wire.METHOD_NOT_FOUND, text, message.id)


def denial(
    message: wire.Request,
    decision_id: str,
    deny: Deny,
    *,
    server: Served,
    pin_command: str = "",
    kind: str = "tool",
    hint: str = "",
    more: Mapping[str, Any] | None = None,
) -> bytes:
    """An answer that says no, for people and for programs: a tool's result, or else an error.

    Args:
        message: what is answered.
        decision_id: the call's.
        deny: why.
        server: who serves.
        pin_command: what accepts a tool that is not as it was pinned.
        kind: what was called.
        hint: what to do next where a person must approve, or did not.
        more: what else programs are told of that.
    """
    if deny.reason in _ALIKE:
        deny = Deny(told(deny.reason, kind))
    if deny.reason not in _PERSON:  # by now it is denied for another reason than was said
        hint, more = "", None
    field = printable(deny.pointer)
    where = f"; field: {field}" if field else ""
    text = f"Denied by Guard (reason: {deny.reason}{where}; decision: {decision_id}). Nothing was sent. "
    if deny.reason in _PIN:
        text += f"The operator accepts the tool with: {pin_command}"
    else:
        text += hint or "Ask whoever operates Guard."
    about = {
        "decision": "deny",
        "reason": deny.reason,
        "rule": deny.rule,
        "pointer": field,
        "decision_id": decision_id,
        "retryable": deny.reason in _RETRYABLE,
        **(more or {}),
    }
    if deny.reason is Reason.STATE_INVALID:  # 2026-07-28: such a state must be answered with an error
        return wire.error(message.id, wire.DENIED, text, {DECISION_META: about})
    return _no(message, wire.DENIED, text, about, server)


def ending(
    message: wire.Request,
    decision_id: str,
    found: Ending,
    *,
    server: Served,
    seal: Callable[[str], str],
    kind: str = "tool",
) -> bytes:
    """What became of a granted call.

    Args:
        seal: seals the state of a request for input, so that only this call's answer brings it back.
    """
    match found:
        case Returned(raw, is_error=True):
            return wire.error_of(message.id, raw)
        case Returned(raw):
            try:
                shown = _shown(message, raw, server, seal)
            except Garbage:
                return _lost(message, decision_id, Unknown(Reason.UNEXPECTED, executed=True), server)
            return wire.result(message.id, shown)
        case Failed(reason):
            return denial(message, decision_id, Deny(reason), server=server, kind=kind)
        case Unknown(reason, executed):
            return _lost(message, decision_id, Unknown(told(reason, kind), executed), server)


def _shown(message: wire.Request, raw: bytes, server: Served, seal: Callable[[str], str]) -> Any:
    """A result as the client gets it: its bytes, but for what its era adds and what must be sealed.

    Raises:
        Garbage: not readable.
    """
    if message.modern and not server.modern:
        raw = completed(raw, caches=message.method == _READ)
    # A name may be written with escapes, so a result that has any is looked into as well.
    caches = message.method == _READ and (b"cacheScope" in raw or b"\\u00" in raw)
    if caches or (server.modern and _INPUT in raw):
        members = read_object(raw)
        shown: dict[str, Any] = {name: orjson.Fragment(bytes(part)) for name, part in members.items()}
        if bytes(members.get("resultType", b"")) == _INPUT:
            _check_input(members.get("inputRequests", b"{}"), message.meta.get(eras.CLIENT_CAPABILITIES))
            if not {"inputRequests", "requestState"} & members.keys():
                raise Garbage("it asks for input, and for none")
            if "requestState" in members:
                shown["requestState"] = seal(str(value_of(members["requestState"])))
        if "cacheScope" in members:
            shown["cacheScope"] = "private"  # what one principal may read, another may not
        return shown
    return orjson.Fragment(raw)


def _check_input(requests: Any, declared: Any) -> None:
    """A client is asked for nothing that it did not say it can give. Raises Garbage."""
    asked, able = value_of(requests), declared if isinstance(declared, dict) else {}
    for one in asked.values() if isinstance(asked, dict) else [None]:
        needed = ASKED.get(str(one.get("method")), "") if isinstance(one, dict) else ""
        if not isinstance(able.get(needed), dict):
            raise Garbage("it asks for input that the client cannot give")


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
    return _no(message, wire.LOST, text, about, server)


def _no(message: wire.Request, code: int, text: str, about: Mapping[str, Any], server: Served) -> bytes:
    """A tool's result that is an error, which an agent reads; of all else, a JSON-RPC error."""
    if message.method != wire.CALL:
        return wire.error(message.id, code, text, {DECISION_META: about})
    value = {
        "content": [{"type": "text", "text": text}],
        "isError": True,
        "_meta": {DECISION_META: about},
    }
    return wire.result(message.id, wire.stamped(value, server.info, modern=message.modern))

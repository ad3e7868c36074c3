"""The conditions of the world that a call needs, as tables: what is denied, and when.

They beat every rule, and they come first: what stands higher is said first. Beside them stands what
arguments must be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from guard.core.canonical import NotIJson, check
from guard.core.errors import Reason
from guard.core.model import Call, Facts, Pin
from guard.policy.rules import Policy

CLOCK_TOLERANCE: Final = 10_000  # milliseconds


def _version(facts: Facts, policy: Policy) -> int:
    """The version of this policy that the store has seen; a policy that it has not seen is the newest."""
    return facts.versions.get(policy.ref.versioned, policy.ref.version)


RUNTIME: Final[tuple[tuple[Reason, Callable[[Facts, Policy], bool]], ...]] = (
    # "all", "principal", and any word that is not understood
    (Reason.PRINCIPAL_CONTAINED, lambda facts, _: bool(facts.contained - {"conversation", "sealed", "tool"})),
    (Reason.CONVERSATION_CONTAINED, lambda facts, _: "conversation" in facts.contained),
    (Reason.CONVERSATION_SEALED, lambda facts, _: "sealed" in facts.contained),
    (Reason.STORE_UNAVAILABLE, lambda facts, _: not facts.store_writable),
    (Reason.ARTIFACT_KEY_UNAVAILABLE, lambda facts, _: not facts.artifact_key),
    (Reason.CLOCK_BEHIND, lambda facts, _: facts.now < facts.last - CLOCK_TOLERANCE),
    (Reason.POLICY_SUPERSEDED, lambda facts, policy: _version(facts, policy) != policy.ref.version),
    (Reason.POLICY_EXPIRED, lambda facts, policy: policy.expires is not None and facts.now >= policy.expires),
    (
        Reason.POLICY_EXPIRED,
        lambda facts, policy: policy.observing and facts.now >= (policy.observe_until or 0),
    ),
)

PINS: Final[Mapping[Pin, Reason]] = {
    Pin.ABSENT: Reason.UNKNOWN_TOOL,
    Pin.UNPINNED: Reason.TOOL_UNPINNED,
    Pin.CHANGED: Reason.TOOL_CHANGED,
}

ARGUMENTS: Final[Mapping[str, str]] = {
    "tool": "/arguments",
    "prompt": "/arguments",
    "resource": "",
    "method": "",
}
"""Where in the params stands what rules judge, by the kind of what is called."""


def fault(call: Call) -> str | None:
    """Pointer to what in the arguments is not an I-JSON object (RFC 7493), None if nothing is."""
    if call.fault is not None:
        return call.fault[0]
    if type(call.arguments) is not dict:
        return ARGUMENTS[call.tool.kind]
    try:
        check(call.arguments)
    except NotIJson as found:
        return f"{ARGUMENTS[call.tool.kind]}{found.pointer}"
    return None

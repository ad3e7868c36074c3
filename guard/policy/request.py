"""A call as rules see it: its arguments, and the whole request as one JSON document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from guard.core.model import Call

MEMBERS: Final = ("principal", "tool", "conversation", "context", "origin", "arguments")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Asked:
    """A call, looked at by the rules of one policy. What few rules ask for is made once, when one does.

    Args:
        call: the call.
        origins: says where each sensitive argument's value comes from, by pointer into the arguments.

    Attributes:
        arguments: what schemas over arguments judge.
    """

    __slots__ = ("_call", "_origins", "_request", "arguments")

    def __init__(self, call: Call, origins: Callable[[], Mapping[str, Any]]) -> None:
        self.arguments = call.arguments
        self._call = call
        self._origins = origins
        self._request: dict[str, Any] | None = None

    @property
    def request(self) -> dict[str, Any]:
        """What schemas over the whole request judge: an object with MEMBERS, nothing left out.

        `origin` has a member for each argument that an origin rule names and that is there.
        """
        if self._request is None:
            self._request = _request(self._call, self._origins())
        return self._request


def _request(call: Call, origins: Mapping[str, Any]) -> dict[str, Any]:
    who, tool = call.principal, call.tool
    return {
        "principal": {
            "tenant": who.tenant,
            "issuer": who.issuer,
            "subject": who.subject,
            "role": who.role,
            "scopes": None if who.scopes is None else sorted(who.scopes),
        },
        "tool": {"server": tool.server, "name": tool.name, "kind": tool.kind},
        "conversation": {"id": call.conversation.id, "source": call.conversation.source},
        "context": {
            "now": instant(call.facts.now),
            "depth": call.depth,
            "intents": sorted(call.intents),
            "method": call.method,
        },
        "origin": {
            pointer: {"kinds": sorted(origin.kinds), "trust": origin.trust}
            for pointer, origin in sorted(origins.items())
        },
        "arguments": call.arguments,
    }


def instant(now: int) -> str:
    """UNIX milliseconds as RFC 3339, UTC, seconds: `2027-01-01T08:30:00Z`."""
    at = _EPOCH + timedelta(milliseconds=now)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")

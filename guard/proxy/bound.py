"""A call, bound: with the generation that it was bound in, and the very server that it would be sent to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from guard.core.errors import Reason, Refused, printable
from guard.core.model import SUBJECTS, Allow, Call, Principal
from guard.policy.decide import visible
from guard.proxy import eras, wire
from guard.proxy.endings import Flight
from guard.proxy.house import Generation
from guard.proxy.links import ToolServer
from guard.proxy.upstream import Upstream


@dataclass(slots=True)
class Trail:
    """What becomes known of a call on its way.

    Attributes:
        conversation: the log's own id of its conversation, once its grant stands.
        allow: what it was granted, once it was asked for.
        flight: the request that it came in, None for an attempt.
    """

    conversation: str = ""
    allow: Allow | None = None
    flight: Flight | None = None


@dataclass(frozen=True, slots=True)
class Bound(Call):
    """A call, with the generation that it was bound in and the server that it would be sent to."""

    generation: Generation | None = None
    server: ToolServer | None = None
    upstream: Upstream | None = None
    trail: Trail = field(default_factory=Trail, compare=False, repr=False)


def check_mirrored(message: wire.Request, schema: Any, headers: Mapping[str, str]) -> None:
    """`Mcp-Param-*` headers agree with the arguments (2026-07-28, Streamable HTTP). Raises Malformed."""
    if schema is not None and message.fault is None:
        wrong = eras.param_mismatch(schema, message.params.get("arguments", {}), headers)
        if wrong is not None:
            raise wire.Malformed(eras.HEADER_MISMATCH, printable(wrong), message.id)


def bound_to(call: Call) -> tuple[Generation, ToolServer]:
    """What the call was bound to.

    Raises:
        Refused: UNEXPECTED; it was bound to no server, so nothing may be granted.
    """
    if not isinstance(call, Bound) or call.generation is None or call.server is None:
        raise Refused(Reason.UNEXPECTED, "the call is bound to no server")
    return call.generation, call.server


def sees(principal: Principal, call: Call) -> bool:
    """Whether the policy that the call was bound to shows its subject to the principal."""
    policy = call.generation.policy if isinstance(call, Bound) and call.generation else None
    return policy is not None and visible(
        principal, call.tool.server, call.tool.name, frozenset(), policy, kind=call.tool.kind
    )


def trail_of(call: Call) -> Trail:
    """What becomes known of the call."""
    return call.trail if isinstance(call, Bound) else Trail()


def server_named(generation: Generation, kind: str, exposed: str) -> tuple[ToolServer | None, str]:
    """The server of a tool, prompt or method, and its own name for it; None where nobody is meant."""
    if kind == "method":
        servers = generation.servers.values()
        return next((server for server in servers if exposed in server.about.methods), None), exposed
    if kind == "resource":
        return generation.only, exposed
    return generation.find(exposed) or (None, exposed)


def params_for(message: wire.Request, name: str) -> Mapping[str, Any]:
    """The params as they would be sent: the server's own name for it, all else as judged."""
    if message.fault:
        return {"name": name}
    if SUBJECTS.get(message.method, ("", ""))[1] != "name" or message.params["name"] == name:
        return message.params
    return {**message.params, "name": name}

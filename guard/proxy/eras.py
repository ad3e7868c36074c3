"""The two eras of MCP: their versions, the envelope of the newer one, and the SDK's ladder for it.

The names below are the specification's; a test holds them against the SDK's. The SDK itself takes
most of a second to import, so it is not imported where a module loads: `warm` does it while the
tool server starts, and nobody waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

META: Final = "io.modelcontextprotocol/"
PROTOCOL_VERSION: Final = f"{META}protocolVersion"
CLIENT_INFO: Final = f"{META}clientInfo"
CLIENT_CAPABILITIES: Final = f"{META}clientCapabilities"
SERVER_INFO: Final = f"{META}serverInfo"
UNSUPPORTED_VERSION: Final = -32022

MODERN: Final = ("2026-07-28",)
"""Revisions that carry their envelope on every request."""
HANDSHAKE: Final = ("2025-11-25", "2025-06-18")
"""Revisions that begin with `initialize`, newest first, as far as Guard speaks them."""


@cache
def _ladder() -> tuple[Callable[..., Any], type]:
    from mcp.shared.inbound import (  # noqa: PLC0415 - see above
        InboundLadderRejection,
        classify_inbound_request,
    )

    return classify_inbound_request, InboundLadderRejection


def warm() -> None:
    """Import the SDK's ladder, so that the first request does not wait for it."""
    _ladder()


def refusal(body: Mapping[str, Any]) -> tuple[int, str, Any] | None:
    """What is wrong with a request's 2026-07-28 envelope: code, message, data; None if nothing is.

    The first rung that fails speaks (2026-07-28, basic/index, "Per-request protocol fields").
    """
    classify, rejection = _ladder()
    route = classify(body, supported_modern_versions=MODERN)
    if isinstance(route, rejection):
        data = route.data  # type: ignore[attr-defined]  # the SDK's class, imported late
        if isinstance(data, dict) and "supported" in data:
            data = {**data, "supported": [*MODERN, *HANDSHAKE]}
        return route.code, route.message, data  # type: ignore[attr-defined]
    if not isinstance(route.client_capabilities, dict):
        return -32602, "the client capabilities are not an object", None
    return None

"""The two eras of MCP: their versions, the envelope of the newer one, and the SDK's ladder for it.

The names below are the specification's; a test holds them against the SDK's. The SDK itself takes
most of a second to import, so it is not imported where a module loads: `warm` does it while the
tool server starts, and nobody waits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

META: Final = "io.modelcontextprotocol/"
PROTOCOL_VERSION: Final = f"{META}protocolVersion"
CLIENT_INFO: Final = f"{META}clientInfo"
CLIENT_CAPABILITIES: Final = f"{META}clientCapabilities"
SERVER_INFO: Final = f"{META}serverInfo"
LOG_LEVEL: Final = f"{META}logLevel"
SUBSCRIPTION: Final = f"{META}subscriptionId"
UNSUPPORTED_VERSION: Final = -32022

MODERN: Final = ("2026-07-28",)
"""Revisions that carry their envelope on every request."""
HANDSHAKE: Final = ("2025-11-25", "2025-06-18")
"""Revisions that begin with `initialize`, newest first, as far as Guard speaks them."""
ASSUMED: Final = "2025-03-26"
"""What a server assumes where no revision is named (2025-11-25, Streamable HTTP, "Protocol Version Header"):
a client that names it has said no more. What was agreed on holds."""
HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
VERSION_HEADER: Final = "mcp-protocol-version"
_SHAKING: Final = frozenset({*HANDSHAKE, ASSUMED})
_PLAIN: Final = re.compile(r"(?!=\?base64\?)[!-~](?:[ -~]*[!-~])?")


@cache
def _sdk() -> Any:
    from mcp.shared import inbound  # noqa: PLC0415 - see above

    return inbound


def warm() -> None:
    """Import the SDK's ladder, so that the first request does not wait for it."""
    _sdk()


def says_modern(headers: Mapping[str, str] | None) -> bool:
    """Whether the headers of a request name a revision that has no handshake, or one that is not known."""
    return headers is not None and headers.get(VERSION_HEADER, HANDSHAKE[0]) not in _SHAKING


def refusal(body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> tuple[int, str, Any] | None:
    """What is wrong with a request's 2026-07-28 envelope: code, message, data; None if nothing is.

    The first rung that fails speaks (2026-07-28, basic/index, "Per-request protocol fields"; with
    headers also Streamable HTTP, "Server Validation").
    """
    route = _sdk().classify_inbound_request(body, headers=headers, supported_modern_versions=MODERN)
    if isinstance(route, _sdk().InboundLadderRejection):
        data = route.data
        if isinstance(data, dict) and "supported" in data:
            data = {**data, "supported": [*MODERN, *HANDSHAKE]}
        return route.code, route.message, data
    if not isinstance(route.client_capabilities, dict):
        return -32602, "the client capabilities are not an object", None
    return None


def mirrored(schema: Any) -> Mapping[tuple[str, ...], str] | None:
    """Which arguments are mirrored in `Mcp-Param-*` headers, by path; None if the schema says it wrongly."""
    return None if _sdk().find_invalid_x_mcp_header(schema) else dict(_sdk().x_mcp_header_map(schema))


def param_headers(found: Mapping[tuple[str, ...], str], arguments: Mapping[str, Any]) -> dict[str, str]:
    """The `Mcp-Param-*` headers of a call, values encoded."""
    return dict(_sdk().mcp_param_headers(found, arguments))


def param_mismatch(schema: Any, arguments: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """Where `Mcp-Param-*` headers and arguments disagree; None if they do not."""
    rejection = _sdk().validate_mcp_param_headers(schema, arguments, headers)
    return None if rejection is None else str(rejection.message)


def header_value(text: str) -> str:
    """A name as a header's value (Streamable HTTP, "Value Encoding")."""
    return text if _PLAIN.fullmatch(text) else str(_sdk().encode_header_value(text))

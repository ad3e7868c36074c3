"""What the tool server of the measurements says, whatever carries it: one tool that echoes."""

from __future__ import annotations

from typing import Any, Final

INFO: Final = {"name": "echo", "version": "1"}
_SCHEMA: Final = {"type": "object", "properties": {"text": {"type": "string"}}}


def tools(count: int) -> list[dict[str, Any]]:
    """`echo`, and others with names of their own, `count` in all."""
    named = ["echo", *(f"tool_{n:04d}" for n in range(1, count))]
    return [
        {"name": name, "description": f"Says what {name} is told.", "inputSchema": _SCHEMA} for name in named
    ]


def result(message: dict[str, Any], offered: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The result for a request; None for a notification."""
    if "id" not in message:
        return None
    params = message.get("params", {})
    match message["method"]:
        case "tools/call":
            text = params["arguments"]["text"]
            return {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": False}
        case "tools/list":
            return {"resultType": "complete", "tools": offered, "ttlMs": 60_000, "cacheScope": "private"}
        case "initialize":
            version = params["protocolVersion"]
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": INFO}
        case "server/discover":
            return {
                "resultType": "complete",
                "supportedVersions": ["2026-07-28", "2025-11-25"],
                "capabilities": {"tools": {}},
                "ttlMs": 0,
                "cacheScope": "private",
                "_meta": {"io.modelcontextprotocol/serverInfo": INFO},
            }
        case _:
            return {"resultType": "complete"}

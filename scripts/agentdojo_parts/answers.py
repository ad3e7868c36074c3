"""A recorded result as a tool server says it."""

from __future__ import annotations

from typing import Any

from agentdojo_parts.suites import Recorded


def result(call: Recorded) -> dict[str, Any]:
    """The result of `tools/call`: the recorded text, and beside it the same as structured content.

    As SDKs do, what is no object is wrapped: `{"result": ...}`.
    """
    said: dict[str, Any] = {"content": [{"type": "text", "text": call.text}]}
    if call.value is not None:
        value = call.value if isinstance(call.value, dict) else {"result": call.value}
        said["structuredContent"] = value
    return said

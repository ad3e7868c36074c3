"""The bytes that the load sends, in both eras of MCP, and the check of what comes back."""

from __future__ import annotations

from typing import Any, Final

import orjson

ERAS: Final = {"modern": "2026-07-28", "handshake": "2025-11-25"}
CONVERSATION: Final = "dev.guard-mcp/conversation"
CLIENT: Final = {"name": "bench", "version": "1"}
_META: Final = "io.modelcontextprotocol/"
_ENVELOPE: Final[dict[str, Any]] = {
    f"{_META}protocolVersion": ERAS["modern"],
    f"{_META}clientInfo": CLIENT,
    f"{_META}clientCapabilities": {},
}
INITIALIZED: Final = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


class WrongAnswer(Exception):
    """The answer is not the one to this call. It fails the whole run: its figure would say nothing."""


def request(id_: int, method: str, params: dict[str, Any], era: str, conversation: str = "") -> bytes:
    """One request, with the envelope of its era; `conversation` is said where there is one."""
    meta = dict(_ENVELOPE) if era == "modern" else {}
    if conversation:
        meta[CONVERSATION] = conversation
    whole = {**params, "_meta": meta} if meta else params
    return orjson.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": whole})


def initialize(id_: int) -> bytes:
    """The first request of the handshake era."""
    params = {"protocolVersion": ERAS["handshake"], "capabilities": {}, "clientInfo": CLIENT}
    return request(id_, "initialize", params, "handshake")


def call(id_: int, tool: str, text: str, era: str, conversation: str) -> bytes:
    """`tools/call` of a tool that says what it is told."""
    return request(id_, "tools/call", {"name": tool, "arguments": {"text": text}}, era, conversation)


def answer(message: bytes) -> dict[str, Any] | None:
    """A response; None for a notification. Raises WrongAnswer for all else."""
    try:
        found = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise WrongAnswer(f"{error}: {message[:200]!r}") from None
    if isinstance(found, dict) and "method" in found and "id" not in found:
        return None
    if not isinstance(found, dict) or type(found.get("id")) is not int or "result" not in found:
        raise WrongAnswer(f"no result: {message[:400]!r}")
    return found


def check(found: dict[str, Any], text: str) -> None:
    """Raises WrongAnswer unless the tool said exactly this."""
    result = found["result"]
    try:
        content = result["content"]
        good = len(content) == 1 and content[0]["text"] == text and not result.get("isError", False)
    except (KeyError, TypeError, IndexError):
        good = False
    if not good:
        raise WrongAnswer(f"not the answer to {text!r}: {str(found)[:400]}")


def last_event(body: bytes) -> bytes:
    """The data of the last event of an SSE stream that has any. Raises WrongAnswer: there is none."""
    found = b""
    for event in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
        found = b"\n".join(lines) or found
    if not found:
        raise WrongAnswer(f"a stream without an event: {body[:200]!r}")
    return found

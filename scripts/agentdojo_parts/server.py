"""A tool server on stdio that has a suite's tools and answers each call as it was recorded.

    python -m agentdojo_parts.server SUITE.json

Which conversation is replayed, and the how many-th of its calls this is, the client says in `_meta`: one
result may differ between conversations in nothing but the attack that it shows. A call that is not the one
that was recorded there is an error.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson

from agentdojo_parts.answers import result
from agentdojo_parts.plays import Play, Step, steps
from agentdojo_parts.suites import Suite, load

PLAY: Final = "agentdojo/play"
"""The key of `_meta`: the conversation, and after a comma which of its calls this is, from 0."""

INFO: Final = {"name": "agentdojo", "version": "1"}


class Server:
    """Answers requests for one suite."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._steps = lru_cache(64)(self._played)

    def _played(self, name: str) -> list[Step]:
        return steps(self._suite, Play.of(name))

    def answer(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """The response to one message; None to a notification."""
        if "id" not in message:
            return None
        said = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            return {**said, "result": {"resultType": "complete", **self._result(message)}}
        except (LookupError, ValueError) as error:
            return {**said, "error": {"code": -32602, "message": f"not recorded: {error}"}}

    def _result(self, message: dict[str, Any]) -> dict[str, Any]:
        params = message.get("params", {})
        match message["method"]:
            case "tools/call":
                name, _, at = params["_meta"][PLAY].partition(",")
                call = self._steps(name)[int(at)].call
                if (params["name"], params.get("arguments", {})) != (call.tool, call.args):
                    raise ValueError(f"{params['name']} is not what {name} calls there")
                return result(call)
            case "tools/list":
                return {"tools": self._suite.tools, "ttlMs": 60_000, "cacheScope": "private"}
            case "initialize":
                version = params["protocolVersion"]
                return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": INFO}
            case "server/discover":
                return {
                    "supportedVersions": ["2026-07-28", "2025-11-25"],
                    "capabilities": {"tools": {}},
                    "ttlMs": 0,
                    "cacheScope": "private",
                    "_meta": {"io.modelcontextprotocol/serverInfo": INFO},
                }
        return {}


def main() -> None:
    server = Server(load(Path(sys.argv[1])))
    held = b""
    while more := os.read(0, 1 << 16):
        *lines, held = (held + more).split(b"\n")
        answers = [answer for line in lines if (answer := server.answer(orjson.loads(line))) is not None]
        sys.stdout.buffer.write(b"".join(orjson.dumps(answer) + b"\n" for answer in answers))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

"""A tool server that writes down every `tools/call` before it acts on it. Standard library only.

Raw JSON lines on standard input and output, in either era. Of each call it receives it appends one
line of JSON to `--log` and syncs it: {"decision_id", "jti", "tool", "arguments"}, the ids taken from
the claims of the artifact that came along, null where none did. `echo` answers at once, `slow` after
`--delay` seconds without holding up the others, `fail` with a tool's error. `--tools` names a file
with other definitions, read again at every `tools/list`. It ends at the end of its input, when
everything that reached it is answered.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from base64 import urlsafe_b64decode
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Final

ARTIFACT: Final = "dev.guard-mcp/authorization"
SERVER: Final = {"name": "recorder", "version": "1"}
MODERN: Final = "2026-07-28"
VERSION: Final = "io.modelcontextprotocol/protocolVersion"
METHOD_NOT_FOUND: Final = -32601
SCHEMA: Final = {"type": "object", "properties": {"text": {"type": "string"}, "n": {"type": "integer"}}}
TOOLS: Final = [
    {"name": name, "description": f"The tool {name}.", "inputSchema": SCHEMA}
    for name in ("echo", "slow", "fail")
]


def ids(params: dict[str, Any]) -> tuple[str | None, str | None]:
    """The decision that the call's artifact names, and the artifact's own id; nothing is verified."""
    try:
        payload = params["_meta"][ARTIFACT].split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["tctx"]["decision_id"]), str(claims["jti"])
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        return None, None


class Recorder:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._log = os.open(options.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._writing = Lock()
        self._slow: list[Thread] = []

    def run(self) -> None:
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if "method" in message and message.get("id") is not None:
                self._hear(message["method"], message["id"], message.get("params", {}))
        for thread in self._slow:
            thread.join()

    def _hear(self, method: str, id_: Any, params: dict[str, Any]) -> None:
        modern = params.get("_meta", {}).get(VERSION) == MODERN
        if method == "server/discover" and self._options.era != "legacy":
            self._result(
                id_,
                {
                    "supportedVersions": [MODERN],
                    "capabilities": {"tools": {}},
                    "ttlMs": 0,
                    "cacheScope": "private",
                    "_meta": {"io.modelcontextprotocol/serverInfo": SERVER},
                },
                modern=True,
            )
        elif method == "initialize" and self._options.era != "modern":
            version = params["protocolVersion"]
            capabilities = {"tools": {"listChanged": True}}
            about = {"protocolVersion": version, "capabilities": capabilities, "serverInfo": SERVER}
            self._result(id_, about, modern=False)
        elif method == "tools/list":
            tools = json.loads(self._options.tools.read_bytes()) if self._options.tools else TOOLS
            caching = {"ttlMs": 0, "cacheScope": "private"} if modern else {}
            self._result(id_, {"tools": tools, **caching}, modern=modern)
        elif method == "ping":
            self._result(id_, {}, modern=False)
        elif method == "tools/call":
            self._call(id_, params, modern=modern)
        else:
            error = {"code": METHOD_NOT_FOUND, "message": "method not found"}
            self._write({"jsonrpc": "2.0", "id": id_, "error": error})

    def _call(self, id_: Any, params: dict[str, Any], *, modern: bool) -> None:
        name, arguments = params["name"], params.get("arguments", {})
        decision_id, jti = ids(params)
        entry = {"decision_id": decision_id, "jti": jti, "tool": name, "arguments": arguments}
        os.write(self._log, json.dumps(entry).encode() + b"\n")
        os.fsync(self._log)
        content = [{"type": "text", "text": json.dumps(arguments)}]
        result = {"content": content, "isError": name == "fail"}
        if name == "slow":
            thread = Thread(target=self._later, args=(id_, result, modern))
            thread.start()
            self._slow.append(thread)
        else:
            self._result(id_, result, modern=modern)

    def _later(self, id_: Any, result: dict[str, Any], modern: bool) -> None:  # noqa: FBT001 - a thread's target
        time.sleep(self._options.delay)
        self._result(id_, result, modern=modern)

    def _result(self, id_: Any, result: dict[str, Any], *, modern: bool) -> None:
        whole = {"resultType": "complete", **result} if modern else result
        self._write({"jsonrpc": "2.0", "id": id_, "result": whole})

    def _write(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self._writing:
            while data:
                try:
                    data = data[os.write(1, data) :]
                except BrokenPipeError:  # nobody listens any more: go on writing down
                    return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--era", choices=["modern", "legacy", "both"], default="both")
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--tools", type=Path)
    Recorder(parser.parse_args()).run()


if __name__ == "__main__":
    main()

"""A tool server that answers as it is told, raw, in either era. Standard library only.

Everything that it receives is appended to `--log`, one line of JSON each. `--answers` is a JSON
list with one item for each `tools/call` (the last one serves all further ones); an item is a list
of acts: a string is written as a line, its code points as bytes, with `$ID`, `$TOKEN` and
`$ARGUMENTS` put in as JSON, and `$COMPLETE` as what the era's results begin with; {"sleep": s},
{"wait": "METHOD"} until such a message was received, {"exit": code}, and {"mute": true}, which
closes standard output. `--tools` is read again at every `tools/list`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

SERVER: Final = {"name": "scripted", "version": "1"}
MODERN: Final = "2026-07-28"


class Scripted:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.calls = 0
        self.answers = json.loads(options.answers.read_text()) if options.answers else []
        self.heard: list[str] = []

    def run(self) -> None:
        for line in sys.stdin.buffer:
            message = json.loads(line)
            with self.options.log.open("ab") as log:
                log.write(line)
            self.hear(message)

    def hear(self, message: dict[str, Any]) -> None:
        method, id_ = message.get("method"), message.get("id")
        if method is None or id_ is None:
            return
        if method == "tools/call":
            self.call(message)
        elif method == "tools/list":
            tools = json.loads(self.options.tools.read_text())
            caching = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
            self.result(id_, {"tools": tools, **(caching if self.options.era == "modern" else {})})
        elif method == "ping" and self.options.era == "legacy":
            self.result(id_, {})
        elif method == "server/discover" and self.options.era == "modern":
            self.result(
                id_,
                {
                    "resultType": "complete",
                    "supportedVersions": [MODERN],
                    "capabilities": {"tools": {}},
                    "ttlMs": 0,
                    "cacheScope": "private",
                    "_meta": {"io.modelcontextprotocol/serverInfo": SERVER},
                },
            )
        elif method == "initialize" and self.options.era == "legacy":
            version = self.options.version or message["params"]["protocolVersion"]
            capabilities = {"tools": {"listChanged": True}}
            self.result(id_, {"protocolVersion": version, "capabilities": capabilities, "serverInfo": SERVER})
        else:
            self.write(
                {"jsonrpc": "2.0", "id": id_, "error": {"code": -32601, "message": "method not found"}}
            )

    def call(self, message: dict[str, Any]) -> None:
        acts = self.answers[min(self.calls, len(self.answers) - 1)] if self.answers else [ECHO]
        self.calls += 1
        token = message["params"].get("_meta", {}).get("progressToken")
        for act in acts:
            if isinstance(act, str):
                text = act.replace("$ID", json.dumps(message["id"])).replace("$TOKEN", json.dumps(token))
                text = text.replace("$COMPLETE", COMPLETE if self.options.era == "modern" else "")
                text = text.replace("$ARGUMENTS", json.dumps(json.dumps(message["params"].get("arguments"))))
                self.raw(text.encode("latin-1") + b"\n")
            elif "sleep" in act:
                time.sleep(act["sleep"])
            elif "wait" in act:
                self.wait(act["wait"])
            elif "mute" in act:
                os.close(1)
            else:
                os._exit(act["exit"])

    def wait(self, method: str) -> None:
        for line in sys.stdin.buffer:
            with self.options.log.open("ab") as log:
                log.write(line)
            if json.loads(line).get("method") == method:
                return

    def result(self, id_: Any, value: dict[str, Any]) -> None:
        self.write({"jsonrpc": "2.0", "id": id_, "result": value})

    def write(self, message: dict[str, Any]) -> None:
        self.raw(json.dumps(message).encode() + b"\n")

    def raw(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


COMPLETE: Final = '"resultType":"complete",'
ECHO: Final = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[{"type":"text","text":$ARGUMENTS}]}}'


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("--era", choices=["modern", "legacy"], default="modern")
    parser.add_argument("--version")
    parser.add_argument("--answers", type=Path)
    Scripted(parser.parse_args()).run()


if __name__ == "__main__":
    main()

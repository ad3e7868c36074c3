"""The raw tool server on stdio: it reads, echoes, and does nothing else that takes time."""

from __future__ import annotations

import argparse
import os
import sys

import orjson
from tools import result, tools


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cores", default="")
    parser.add_argument("--tools", type=int, default=1)
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    offered = tools(options.tools)
    held = b""
    while more := os.read(0, 1 << 16):
        *lines, held = (held + more).split(b"\n")
        out = []
        for line in lines:
            message = orjson.loads(line)
            if (found := result(message, offered)) is not None:
                out.append(orjson.dumps({"jsonrpc": "2.0", "id": message["id"], "result": found}) + b"\n")
        sys.stdout.buffer.write(b"".join(out))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

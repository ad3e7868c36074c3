"""The SDK's tool server, to see how much a usual server's own time hides: stdio, or HTTP with `--port`."""

from __future__ import annotations

import argparse
import os

from mcp.server import MCPServer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cores", default="")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    server = MCPServer("echo", log_level="ERROR")

    @server.tool(structured_output=False)
    def echo(text: str) -> str:
        """Says what it is told."""
        return text

    if options.port is None:
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=options.port, json_response=True)


if __name__ == "__main__":
    main()

"""The proxy to compare with: FastMCP's, on one connected client. It forwards and does nothing else.

    python forward.py MODE [--port N --url URL] [-- COMMAND ARGS...]

It runs in an environment of its own, with the FastMCP that is pinned for the comparison.
"""

from __future__ import annotations

import argparse
import asyncio

from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from fastmcp.server import create_proxy


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode")
    parser.add_argument("--port", type=int)
    parser.add_argument("--url")
    parser.add_argument("command", nargs="*")
    options = parser.parse_args()
    if options.url:
        transport = StreamableHttpTransport(options.url)
    else:
        transport = StdioTransport(options.command[0], options.command[1:])
    async with Client(transport, mode=options.mode) as client:
        proxy = create_proxy(client, name="forward")
        if options.port is None:
            await proxy.run_stdio_async(show_banner=False, log_level="ERROR")
            return
        # by host and port, for a socket that is handed in has Nagle's algorithm on: 40 ms for each answer
        await proxy.run_http_async(
            show_banner=False, log_level="ERROR", host="127.0.0.1", port=options.port, json_response=True
        )


if __name__ == "__main__":
    asyncio.run(main())

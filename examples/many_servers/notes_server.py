"""The notes of a team, as an MCP tool server on FastMCP: over stdio, or over HTTP with `--port`.

The notes live in this process, and end with it. Nothing here knows of Guard.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys

from fastmcp import FastMCP
from fastmcp.exceptions import ToolError


def notes() -> FastMCP:
    """The tools, and the notes that they keep."""
    server = FastMCP("notes")
    kept: dict[str, str] = {}

    @server.tool
    def add_note(title: str, text: str) -> str:
        """Write a note under a title that none has yet."""
        if title in kept:
            raise ToolError("There is a note with this title.")
        kept[title] = text
        return f"Wrote {title}."

    @server.tool
    def list_notes() -> list[str]:
        """List the titles of all notes."""
        return sorted(kept)

    @server.tool
    def read_note(title: str) -> str:
        """Read one note."""
        if title not in kept:
            raise ToolError("There is no note with this title.")
        return kept[title]

    @server.tool
    def delete_all_notes() -> str:
        """Delete every note."""
        kept.clear()
        return "Deleted every note."

    return server


async def over_http(server: FastMCP, port: int) -> None:
    """Serve on the loopback address, and say where. Port 0 is any free one."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        print(f"notes: http://127.0.0.1:{listening.getsockname()[1]}/mcp", file=sys.stderr, flush=True)
        await server.run_http_async(show_banner=False, log_level="ERROR", sockets=[listening])


def main() -> None:
    """Serve until the input ends, or until a signal comes."""
    parser = argparse.ArgumentParser(description="The notes of a team.")
    parser.add_argument("--port", type=int, help="serve Streamable HTTP on this port of 127.0.0.1, not stdio")
    port = parser.parse_args().port
    if port is None:
        notes().run("stdio", show_banner=False, log_level="ERROR")
    else:
        asyncio.run(over_http(notes(), port))


if __name__ == "__main__":
    main()

"""A bank as an MCP tool server that runs no tool without Guard's signed permission for that very call.

It speaks MCP on its standard input and output. README.md tells how to run it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent

from guard.artifact.replay import MemoryReplay, ReplayStore, SqliteReplay
from guard.artifact.verify import ArtifactRefused, Verifier
from guard.core.canonical import read
from guard.core.errors import GuardError
from guard.core.keys import KeySet

Write = Callable[[str], None]


def protect(server: MCPServer, verifier: Verifier, accepted: Write) -> None:
    """Refuse every `tools/call` that does not carry a valid artifact, and use up the one it carries."""

    async def gate(context: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if context.method == "tools/call":
            try:
                grant = verifier.admit(context.method, context.params, now=time.time())
            except ArtifactRefused as refusal:
                return CallToolResult(content=[TextContent(text=f"Refused: {refusal}")], is_error=True)
            accepted(grant.token.decode())
        return await call_next(context)

    server.middleware.insert(0, gate)  # outermost: it sees the params as they came over the wire


def bank(did: Write) -> MCPServer:
    """The tools. They know nothing of artifacts.

    Args:
        did: told of everything that a tool does.
    """
    server = MCPServer("bank")
    accounts = {"DE89370400440532013000": 1250.0, "FR7630006000011234567890189": 80.0}

    @server.tool(meta={"dev.guard-mcp/scopes": ["payments:read"]})
    def balance(iban: str) -> str:
        """Tell what is on an account of this bank."""
        did(json.dumps({"tool": "balance", "iban": iban}))
        if iban not in accounts:
            raise ToolError("This bank has no such account.")
        return f"{accounts[iban]:.2f} EUR"

    @server.tool(meta={"dev.guard-mcp/scopes": ["payments:transfer"]})
    def transfer(iban: str, amount: float, currency: str) -> str:
        """Send money to an account of any bank."""
        did(json.dumps({"tool": "transfer", "iban": iban, "amount": amount, "currency": currency}))
        return f"Sent {amount:.2f} {currency} to {iban}."

    return server


def appender(file: Path | None) -> Write:
    """Appends lines to a file that only its owner can read; does nothing where there is no file."""
    if file is None:
        return lambda _: None
    file.touch(mode=0o600)

    def append(line: str) -> None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(f"{line}\n")

    return append


def main() -> None:
    """Read the settings and serve until the input ends."""
    parser = argparse.ArgumentParser(description="A bank that runs no tool without an artifact of Guard's.")
    parser.add_argument("--issuer", required=True, help="the `iss` to trust")
    parser.add_argument("--jwks", required=True, type=Path, help="its keys, as `guard jwks` prints them")
    parser.add_argument("--audience", required=True, help="the `aud` that is this server")
    parser.add_argument("--replay", type=Path, help="where used artifacts are kept (default: in memory)")
    parser.add_argument("--ledger", type=Path, help="append a line for everything that a tool does")
    parser.add_argument("--log", type=Path, help="for the demo only: append every accepted artifact")
    settings = parser.parse_args()
    try:
        keys = KeySet.from_jwks(read(settings.jwks.read_bytes()))
        replay: ReplayStore = SqliteReplay(settings.replay) if settings.replay else MemoryReplay()
        verifier = Verifier(issuer=settings.issuer, keys=keys, audience=settings.audience, replay=replay)
    except (GuardError, ValueError, OSError) as error:
        sys.exit(f"bank: {error}")
    if settings.replay is None:
        print("bank: used artifacts are kept in memory: one process, and no restarts", file=sys.stderr)
    server = bank(appender(settings.ledger))
    protect(server, verifier, appender(settings.log))
    server.run("stdio")


if __name__ == "__main__":
    main()

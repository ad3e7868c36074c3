"""Clients that play conversations through Guard: raw 2026-07-28 over HTTP, and the SDK's in both eras."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final, Protocol

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from agentdojo_parts.plays import Step
from agentdojo_parts.server import PLAY

MODERN: Final = "2026-07-28"
SDK: Final = {"sdk-modern": MODERN, "sdk-handshake": "legacy"}
CONVERSATION: Final = "dev.guard-mcp/conversation"
USER_MESSAGE: Final = "dev.guard-mcp/user-message"
DECISION: Final = "dev.guard-mcp/decision"
PATIENCE: Final = 120.0
_ENVELOPE: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "agentdojo", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class WrongAnswer(Exception):
    """What came is no answer to this call: figures of it would say nothing."""


class Caller(Protocol):
    """Whoever can call a tool."""

    async def call(self, step: Step, meta: dict[str, Any]) -> dict[str, Any]:
        """Call it; the result as JSON."""
        ...


class Raw:
    """Says 2026-07-28 itself, over one connection."""

    def __init__(self, http: httpx2.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url
        self._ids = count(1)

    async def call(self, step: Step, meta: dict[str, Any]) -> dict[str, Any]:
        params = {"name": step.call.tool, "arguments": step.call.args, "_meta": {**_ENVELOPE, **meta}}
        message = {"jsonrpc": "2.0", "id": next(self._ids), "method": "tools/call", "params": params}
        headers = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": MODERN,
            "Mcp-Method": "tools/call",
            "Mcp-Name": step.call.tool,
        }
        answer = await self._http.post(self._url, json=message, headers=headers)
        told = answer.json()
        if not isinstance(told, dict) or told.get("id") != message["id"] or "result" not in told:
            raise WrongAnswer(f"{step.call.tool}: {answer.status_code} {answer.text[:500]}")
        result: dict[str, Any] = told["result"]
        return result


class Sdk:
    """The protocol's own client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, step: Step, meta: dict[str, Any]) -> dict[str, Any]:
        result = await self._client.call_tool(step.call.tool, step.call.args, meta=meta)
        told: dict[str, Any] = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        return told


@asynccontextmanager
async def caller(kind: str, url: str, key: str) -> AsyncIterator[Caller]:
    """A client of one principal: "raw", or one of SDK."""
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http:
        if kind == "raw":
            yield Raw(http, url)
        else:
            async with Client(streamable_http_client(url, http_client=http), mode=SDK[kind]) as client:
                yield Sdk(client)


def meta_of(play: str, at: int, words: str, conversation: str) -> dict[str, Any]:
    """What goes with a call; the user's words only with the first."""
    meta = {CONVERSATION: conversation, PLAY: f"{play},{at}"}
    return {**meta, USER_MESSAGE: words} if at == 0 else meta


class Reviewer:
    """Answers what Guard asks: yes to the users' calls, no to the attacker's.

    Args:
        url: of the MCP endpoint.
        key: of one who may approve.

    Attributes:
        hostile: by principal, whether the call that it has under way is the attacker's.
        asked: how often each principal was asked about so far.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url = url.removesuffix("/mcp") + "/approvals"
        self._headers = {"Authorization": f"Bearer {key}"}
        self.hostile: dict[str, bool] = {}
        self.asked: dict[str, int] = {}

    async def review(self) -> None:
        """Until it is called off."""
        async with httpx2.AsyncClient(headers=self._headers, timeout=PATIENCE) as http:
            while True:
                listed = (await http.get(self._url)).json()
                for one in listed["questions"]:
                    await self._answer(http, one)
                await asyncio.sleep(0.05)

    async def _answer(self, http: httpx2.AsyncClient, question: dict[str, Any]) -> None:
        who = question["principal"][1]
        yes = not self.hostile[who]
        answer = await http.post(f"{self._url}/{question['id']}", json={"approve": yes})
        if answer.status_code != 200:
            raise WrongAnswer(f"an answer to {question['id']}: {answer.status_code} {answer.text}")
        self.asked[who] = self.asked.get(who, 0) + 1

"""Clients that others wrote, each seen in the same way: the tools that it lists, the calls that it makes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2
from fastmcp import Client as FastClient
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from mcp import Client as SdkClient
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests.interop.node import Node

DECISION = "dev.guard-mcp/decision"


@dataclass(frozen=True)
class Answer:
    """What a client made of an answer.

    Attributes:
        error: whether it takes it for a failure.
        text: the text content, joined.
        structured: the structured content.
        decision: what Guard said of a denial, None if it let the call through.
    """

    error: bool
    text: str
    structured: Any
    decision: dict[str, Any] | None


class NotListed(Exception):
    """The client looks a tool up in the list, and does not call what is not there."""


class Agent(Protocol):
    """An open client.

    Attributes:
        looks_up: whether it calls listed tools only, and raises NotListed for others.
    """

    looks_up: bool

    async def tools(self) -> list[str]: ...

    async def call(self, name: str, arguments: dict[str, Any]) -> Answer: ...


@dataclass(frozen=True)
class Place:
    """Where Guard is for a client.

    Attributes:
        key: the caller's API key.
        url: over HTTP.
        command: over stdio; the words that start Guard.
        env: the environment to start it with.
    """

    key: str
    url: str | None
    command: list[str]
    env: dict[str, str]


Opens = Callable[[Place], AbstractAsyncContextManager[Agent]]


class _Sdk:
    looks_up = False

    def __init__(self, client: SdkClient) -> None:
        self._client = client

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self._client.list_tools()).tools]

    async def call(self, name: str, arguments: dict[str, Any]) -> Answer:
        result = await self._client.call_tool(name, arguments)
        text = "".join(part.text for part in result.content)
        return Answer(result.is_error, text, result.structured_content, (result.meta or {}).get(DECISION))


def sdk(mode: str) -> Opens:
    """The client of the protocol's Python SDK."""

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Agent]:
        async with sdk_client(place, mode) as client:
            yield _Sdk(client)

    return opened


@asynccontextmanager
async def sdk_client(place: Place, mode: str) -> AsyncIterator[SdkClient]:
    """As `sdk`, the client itself."""
    if place.url is None:
        env = place.env | {"GUARD_API_KEY": place.key}
        launch = StdioServerParameters(command=place.command[0], args=place.command[1:], env=env)
        async with SdkClient(launch, mode=mode) as client:
            yield client
        return
    headers = {"Authorization": f"Bearer {place.key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        SdkClient(streamable_http_client(place.url, http_client=http), mode=mode) as client,
    ):
        yield client


class _Fast:
    looks_up = False

    def __init__(self, client: FastClient[Any]) -> None:
        self._client = client

    async def tools(self) -> list[str]:
        return [tool.name for tool in await self._client.list_tools()]

    async def call(self, name: str, arguments: dict[str, Any]) -> Answer:
        result = await self._client.call_tool(name, arguments, raise_on_error=False)
        text = "".join(part.text for part in result.content)
        return Answer(result.is_error, text, result.structured_content, (result.meta or {}).get(DECISION))


def fast(mode: str) -> Opens:
    """FastMCP's client."""

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Agent]:
        transport: Any
        if place.url is None:
            env = place.env | {"GUARD_API_KEY": place.key}
            transport = StdioTransport(place.command[0], place.command[1:], env=env, keep_alive=False)
        else:
            transport = StreamableHttpTransport(place.url, auth=place.key)  # a string is a bearer token
        async with FastClient(transport, mode=mode) as client:
            yield _Fast(client)

    return opened


class _Inspector:
    """Each request is a process of its own, with a connection of its own."""

    looks_up = True

    def __init__(self, node: Node, place: Place) -> None:
        self._node = node
        self._place = place

    async def _said(self, method: str, *words: str) -> Any:
        place = self._place
        if place.url is None:
            where = ["-e", f"GUARD_API_KEY={place.key}", *place.command]
        else:
            where = [place.url, "--transport", "http", "--header", f"Authorization: Bearer {place.key}"]
        program = Path(self._node.program)
        process = await asyncio.create_subprocess_exec(
            *self._node.inspector(), *where, "--connect-timeout", "50000", "--method", method, *words,
            env=place.env | {"PATH": f"{program.parent}{os.pathsep}{place.env['PATH']}"},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, errors = await asyncio.wait_for(process.communicate(), 60)
        result = json.loads(out or b"{}")
        failed = 5 if result.get("isError") else 0  # its exit code for a result with `isError`
        if b'"code":"tool_not_found"' in errors:
            raise NotListed
        assert process.returncode == failed, errors.decode()
        return result

    async def tools(self) -> list[str]:
        return [tool["name"] for tool in (await self._said("tools/list"))["tools"]]

    async def call(self, name: str, arguments: dict[str, Any]) -> Answer:
        pairs = [word for key, value in arguments.items() for word in ("--tool-arg", f"{key}={value}")]
        found = await self._said("tools/call", "--tool-name", name, *pairs)
        text = "".join(part["text"] for part in found["content"])
        decision = found.get("_meta", {}).get(DECISION)
        return Answer(found.get("isError", False), text, found.get("structuredContent"), decision)


def inspector(node: Node) -> Opens:
    """The MCP inspector, from the command line."""

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Agent]:
        yield _Inspector(node, place)

    return opened

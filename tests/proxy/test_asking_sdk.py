"""A person must approve, with the protocol's own SDK on both sides of Guard; its server asks in its turn."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client as SdkClient
from mcp import StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from guard.config.reach import look, reached
from guard.config.settings import ServerSettings
from guard.lineage.entry import Kind
from tests.proxy.asked import asking, grant, kinds, question
from tests.proxy.estate import Estate, Server
from tests.proxy.scene import PATIENCE
from tests.proxy.wards import GUARD

MODES = pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
PROGRAM = '''
from pathlib import Path
from typing import Annotated
import sys

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from pydantic import BaseModel

server = MCPServer("bank")

class Purpose(BaseModel):
    purpose: str

async def purpose() -> Elicit[Purpose]:
    return Elicit("What for?", Purpose)

@server.tool()
def pay(amount: int) -> str:
    """Pay."""
    with open(sys.argv[1], "a") as file:
        file.write(f"{amount}\\n")
    return f"paid {amount}"

@server.tool()
def ask(amount: int, what: Annotated[Purpose, Resolve(purpose)]) -> str:
    """Pay for something that the client says."""
    with open(sys.argv[1], "a") as file:
        file.write(f"{amount} for {what.purpose}\\n")
    return f"paid {amount} for {what.purpose}"

server.run()
'''
POLICY: dict[str, Any] = {
    **asking("client"),
    "tools": [{"match": "pay", "scopes": ["use"]}, {"match": "ask", "scopes": ["use"]}],
    "asks": [{"id": "person", "tools": ["*"], "approver": "client"}],
}


class Bank(Estate):
    """An estate with one server of the SDK's, over stdio.

    Attributes:
        paid: what ran.
        asked: what the client's person was asked.
        approve: what that person says to Guard.
    """

    def __init__(self, folder: Path, **policy: Any) -> None:
        super().__init__(folder, Server("bank", "modern", "stdio"), policy={**POLICY, **policy})
        self.ledger = folder / "ledger"
        self.ledger.touch()
        (folder / "bank.py").write_text(PROGRAM)
        self.asked: list[str] = []
        self.approve: dict[str, Any] = {"action": "accept", "content": {"approve": True}}

    @property
    def paid(self) -> list[str]:
        return self.ledger.read_text().splitlines()

    def _words(self, server: Server) -> list[str]:
        return [sys.executable, str(self.folder / "bank.py"), str(self.ledger)]

    async def accept(self) -> None:
        """Pin what it lists."""
        settings = ServerSettings(command=self._words(self.servers["bank"]))
        _, tools = await look(*reached(settings))
        self.pin("bank", tools)

    async def person(self, _: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        """Answers whatever the client is asked."""
        self.asked.append(params.message)
        if params.message == "What for?":
            return types.ElicitResult(action="accept", content={"purpose": "tea"})
        return types.ElicitResult.model_validate(self.approve)


@asynccontextmanager
async def banking(bank: Bank, mode: str, by: str = "http") -> AsyncIterator[SdkClient]:
    """The SDK's client at Guard, over HTTP in this process or on the pipes of a Guard of its own."""
    await bank.accept()
    key = bank.key()
    if by == "http":
        async with (
            bank.guarded() as serving,
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE) as http,
            SdkClient(
                streamable_http_client(serving.url, http_client=http),
                mode=mode,
                elicitation_callback=bank.person,
            ) as client,
        ):
            yield client
        return
    bank.write_config(listen="stdio")
    command = StdioServerParameters(
        command=str(GUARD), args=["serve", str(bank.config)], env={"GUARD_API_KEY": key}
    )
    async with SdkClient(stdio_client(command), mode=mode, elicitation_callback=bank.person) as client:
        yield client


def text(result: Any) -> str:
    return "".join(part.text for part in result.content)


@MODES
@pytest.mark.parametrize("by", ["http", "stdio"])
async def test_the_sdks_client_is_asked_and_its_person_decides(tmp_path: Path, mode: str, by: str) -> None:
    """A yes runs the call once; a no runs nothing, and the agent reads why."""
    bank = Bank(tmp_path / "bank")
    async with banking(bank, mode, by) as client:
        found = await client.call_tool("pay", {"amount": 5})
        assert (found.is_error, text(found)) == (False, "paid 5")
        bank.approve = {"action": "decline"}
        found = await client.call_tool("pay", {"amount": 6})
        assert found.is_error
        assert "approval-refused" in text(found)
        bank.approve = {"action": "cancel"}
        found = await client.call_tool("pay", {"amount": 7})
        assert found.is_error
        assert "approval-required" in text(found)
    assert bank.paid == ["5"]
    assert len(bank.asked) == 3
    assert all(message.startswith("Guard holds a call") for message in bank.asked)
    assert [one["answer"] for one in (entry["fields"] for entry in bank.entries(Kind.ANSWERED))] == [
        "yes",
        "no",
    ]


@MODES
async def test_a_real_server_asks_in_its_turn(tmp_path: Path, mode: str) -> None:
    """The two nest: Guard asks before each thing that is sent, the server gets its own answers only."""
    bank = Bank(tmp_path / "bank")
    async with banking(bank, mode) as client:
        found = await client.call_tool("ask", {"amount": 9})
        assert (found.is_error, text(found)) == (False, "paid 9 for tea")
    rounds = 2 if mode == "2026-07-28" else 1
    assert bank.paid == ["9 for tea"]
    assert [message == "What for?" for message in bank.asked] == [False, True, False][: rounds + 1]
    assert bank.report().findings == []
    calls = [kind for kind in kinds(bank) if kind in {"asked", "answered", "granted", "returned"}]
    assert calls == ["asked", "answered", "granted", "returned"] * rounds


@MODES
async def test_a_reviewer_lets_the_sdks_call_run(tmp_path: Path, mode: str) -> None:
    """The client is not asked; its call waits, and returns as any other."""
    bank = Bank(tmp_path / "bank", asks=[{"id": "person", "tools": ["*"]}])
    reviewer = bank.key("rita", "reviewer")
    async with banking(bank, mode) as client:
        call = asyncio.ensure_future(client.call_tool("pay", {"amount": 5}))
        await grant(bank, reviewer, (await question(bank)).question.id)
        assert text(await call) == "paid 5"
    assert bank.paid == ["5"]
    assert bank.asked == []

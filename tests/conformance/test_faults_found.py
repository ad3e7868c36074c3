"""What the conformance suite found out about Guard, as laws of their own: they hold without the suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from guard.proxy.eras import PROTOCOL_VERSION
from tests.proxy.estate import Estate, Server
from tests.proxy.scene import MODERN

NEEDS_SAMPLING = (
    '{"jsonrpc":"2.0","id":$ID,"error":{"code":-32021,"message":"no sampling",'
    '"data":{"requiredCapabilities":{"sampling":{}}}}}'
)


@pytest.mark.parametrize("blanks", [" ", "\t", "  \t "])
async def test_blanks_around_a_header_are_no_part_of_it(tmp_path: Path, blanks: str) -> None:
    """RFC 9110 section 5.5: what mirrors the message is compared without the blanks at its ends."""
    estate = Estate(tmp_path / "estate", Server("one"))
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client = estate.client(MODERN, key)
        params = {"name": "echo", "arguments": {"text": "hi"}}
        for name, value in (
            ("Mcp-Name", "echo"),
            ("Mcp-Method", "tools/call"),
            ("Authorization", f"Bearer {key}"),
        ):
            headers = {name: f"{blanks}{value}{blanks}"}
            answer = await client.request("tools/call", params, headers=headers)
            assert answer.status == 200, (name, answer.json())
            assert "isError" not in answer.message()["result"]
        other = await client.request("tools/call", params, headers={"Mcp-Name": f"{blanks}other{blanks}"})
        assert other.status == 400
    assert len(estate.received("one")) == 3
    estate.settled()


async def test_a_missing_client_capability_is_answered_with_400(tmp_path: Path) -> None:
    """2026-07-28, basic/index: over HTTP the status MUST be 400, whoever found the capability missing."""
    estate = Estate(tmp_path / "estate", Server("one", answers=[[NEEDS_SAMPLING]]))
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client = estate.client(MODERN, key)
        answer = await client.request("tools/call", {"name": "echo", "arguments": {"text": "hi"}})
        assert answer.message()["error"]["code"] == -32021
        assert answer.status == 400


async def test_the_versions_in_the_error_are_those_that_discover_names(tmp_path: Path) -> None:
    """2026-07-28, versioning: a client may choose from either list, so both say the same."""
    estate = Estate(tmp_path / "estate", Server("one"))
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client = estate.client(MODERN, key)
        found = (await client.request("server/discover")).message()["result"]
        future = "2099-01-01"
        params, headers = {"_meta": {PROTOCOL_VERSION: future}}, {"MCP-Protocol-Version": future}
        error = (await client.request("server/discover", params, headers=headers)).message()["error"]
        assert error["code"] == -32022
        assert {*error["data"]["supported"]} <= {*found["supportedVersions"]}


async def test_a_tool_server_cannot_say_that_the_caller_is_not_authenticated(tmp_path: Path) -> None:
    """Guard's own codes are Guard's: with one of them a server changes no HTTP status (RFC 9110, 15.5.2)."""
    answer_with = '{"jsonrpc":"2.0","id":$ID,"error":{"code":4401,"message":"not authenticated"}}'
    estate = Estate(tmp_path / "estate", Server("one", answers=[[answer_with]]))
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client = estate.client(MODERN, key)
        answer = await client.request("tools/call", {"name": "echo", "arguments": {"text": "hi"}})
        assert answer.message()["error"]["code"] == 4401
        assert answer.status == 200

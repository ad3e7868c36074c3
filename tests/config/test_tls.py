"""`tls:` towards clients: keys travel encrypted, and nothing is served in the clear beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from guard.core.errors import GuardError
from guard.proxy.http1 import Broken, Client, NotSent
from tests.proxy.estate import Estate
from tests.proxy.scene import ENVELOPE, MODERN
from tests.proxy.test_http1 import certificate as certificate  # noqa: PLC0414 - a fixture


def fields(key: str) -> Sequence[tuple[str, str]]:
    return [
        ("authorization", f"Bearer {key}"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tools/call"),
        ("mcp-name", "echo"),
    ]


async def test_a_call_over_tls(tmp_path: Path, certificate: Path) -> None:
    """A client that trusts the certificate is served; one that does not sends nothing; nothing is plain."""
    estate = Estate(tmp_path / "estate")
    estate.pin()
    key = estate.key()
    params = {"name": "echo", "arguments": {"text": "x"}, "_meta": ENVELOPE}
    said = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    async with estate.guarded(tls={"certificate": str(certificate), "key": str(certificate)}) as found:
        assert found.url.startswith("https://127.0.0.1:")
        trusting = Client(found.url, ca=str(certificate))
        response = await trusting.request("POST", fields(key), said)
        answer = json.loads(await response.read(65536))
        assert (response.status, "isError" in answer["result"]) == (200, False)
        await trusting.close()
        stranger = Client(found.url)
        with pytest.raises(NotSent):
            await stranger.request("POST", fields(key), said)
        await stranger.close()
        plain = Client(found.url.replace("https:", "http:"))
        with pytest.raises(Broken):
            await plain.request("POST", fields(key), said)
        await plain.close()
    assert len(estate.received()) == 1
    estate.settled()


async def test_a_certificate_that_is_none_serves_nothing(tmp_path: Path) -> None:
    """Guard does not start without what it was told to show."""
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    estate = Estate(tmp_path / "estate")
    with pytest.raises(GuardError, match="cannot be used"):
        async with estate.guarded(tls={"certificate": str(bad), "key": str(bad)}):
            pytest.fail("served")

"""What `/proof` counts."""

from __future__ import annotations

from pathlib import Path

from tests.proxy.estate import Estate
from tests.proxy.scene import MODERN


async def test_proof_counts_denials_and_refusals_by_reason(tmp_path: Path) -> None:
    """After a permitted call, a denied one and one without a key: all three, and nothing of hidden tools."""
    estate = Estate(tmp_path / "estate")
    estate.pin()
    key = estate.key()
    async with estate.guarded():
        client = estate.client(MODERN, key)
        await client.call("echo", text="hi")
        await client.call("unlisted", text="hi")
        assert (await estate.client(MODERN).post({})).status == 401
        shown = await client.send("GET", path="/proof")
    assert shown.status == 200
    assert shown.json()["decisions"] == {"allow": 1, "unknown-tool": 1}
    assert shown.json()["refusals"] == {"no-credential": 1}

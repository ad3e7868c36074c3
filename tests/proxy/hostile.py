"""A bad tool server beside a good one behind one Guard, and what must hold whatever the bad one does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.proxy.estate import Estate, Server
from tests.proxy.pairs import until
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import MODERN, PYTHON, decision

MEGABYTE: Final = 1024 * 1024
LINUX: Final = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs proc(5)")
HARMLESS: Final = 5.0
"""Seconds that the bad server may take, where a test does not wait for the end of them."""


@dataclass
class Suffered:
    """What came of a call.

    Attributes:
        response: what the client was told.
        notifications: what it was sent on the way.
    """

    response: dict[str, Any]
    notifications: list[dict[str, Any]] = field(default_factory=list)

    def outcome(self) -> tuple[str, str]:
        """The outcome that the client was told, and the reason; it is never invited to repeat the call."""
        about = decision(self.response)
        assert (about["decision"], about["retryable"]) == ("allow", False)
        assert "Do not repeat it" in self.response["result"]["content"][0]["text"]
        return about["outcome"], about["reason"]

    def text(self) -> str:
        """The text of a result that came through."""
        assert "isError" not in self.response["result"]
        return str(self.response["result"]["content"][0]["text"])


class Bad(Estate):
    """An estate with the servers `bad` and `good`.

    Args:
        folder: where its files are made.
        era: the bad server's.
        over: what carries its messages.
        answers: what it does at each call.
        timeout: seconds that Guard waits for it.
        flags: further ones of the scripted server.
        script: what runs in place of the scripted server.
    """

    def __init__(
        self,
        folder: Path,
        era: str,
        over: str,
        answers: Sequence[Sequence[Any]],
        *,
        timeout: float = HARMLESS,
        flags: tuple[str, ...] = (),
        script: Path | None = None,
    ) -> None:
        self._script = script
        settings = {"timeout": timeout}
        bad = Server("bad", era, over, answers or None, settings=settings, flags=flags)
        super().__init__(folder / "estate", bad, Server("good"))
        self.pin()

    def _words(self, server: Server) -> list[str]:
        words = super()._words(server)
        if self._script is not None and server.name == "bad":
            words[len(PYTHON)] = str(self._script)
        return words

    async def open(self, version: str) -> RawHttp:
        """A client that has said hello."""
        client = self.client(version, self.key_text)
        if not client.modern:
            await client.greet()
        return client

    async def suffer(self, version: str = MODERN, *, calls: int = 1) -> list[Suffered]:
        """Call the bad server, one call after the other; meanwhile and afterwards the good one answers.

        Everything holds in the end: one ending for each grant, no call sent twice.
        """
        self.key_text = self.key()
        async with self.guarded():
            client = await self.open(version)
            assert "isError" not in (await client.call("good__echo"))["result"]
            found = [await self._one(client, number) for number in range(1, calls + 1)]
        assert len(self.received("bad")) == calls, "it was sent twice"
        assert len(self.received("good")) == 2 * calls + 1
        kinds = self.settled()
        assert len(kinds) == 3 * calls + 1
        assert {each[0] for each in kinds.values()} == {"granted"}
        return found

    async def _one(self, client: RawHttp, number: int) -> Suffered:
        client.notifications.clear()
        params = {"name": "bad__echo", "arguments": {"text": "x"}, "_meta": {"progressToken": "mine"}}
        call = asyncio.ensure_future(client.request("tools/call", params))
        await until(lambda: len(self.received("bad")) >= number or call.done())
        assert "isError" not in (await client.call("good__echo"))["result"]
        answer = await call
        assert answer.status == 200
        found = Suffered(answer.message(), [*client.notifications])
        assert "isError" not in (await client.call("good__echo"))["result"]
        return found


def peak() -> int:
    """The most memory that this process held since `forget_peak`, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak() -> int:
    """Begin anew; what it holds now, in bytes (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()

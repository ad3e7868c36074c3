"""Load: conversations that call all the time, each with one call under way, and what they are told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from tests.proxy.raw_http import RawHttp

CONVERSATION: Final = "dev.guard-mcp/conversation"
DECISION: Final = "dev.guard-mcp/decision"
TOOLS: Final = ("echo", "slow", "echo", "fail")
PAUSE: Final = 0.02
"""Seconds before a conversation that got no answer, or a no, calls again."""
AWAY: Final = "store-unavailable"
TIMEOUT: Final = 30.0
PATIENCE: Final = 120.0
HOST: Final = {"Host": "127.0.0.1"}
"""A replica answers to its own address; that of the round-robin in front of it has another port."""


class Load:
    """Conversations of some callers. Each call has a number that no other has.

    Args:
        port: where to call, asked at each call.
        keys: of the callers; conversations are dealt to them in turn.
        conversations: how many.
        think: seconds between an answer and the conversation's next call.
        turns: after so many calls all conversations go on as the next caller; 0 where each has its own.
        numbers: where the calls' numbers come from, so that two loads share none.

    Attributes:
        ran: numbers of calls whose result came.
        refused: numbers of calls that were denied, as their callers were told.
        unknown: numbers of calls that ran or not, as their callers were told.
        lost: numbers of calls that got no answer.
        denied: how often each reason was told.
        errors: how often a call was answered with each JSON-RPC error. Such a call ran or not.
    """

    def __init__(
        self,
        port: Callable[[], int],
        keys: Sequence[str],
        conversations: int,
        *,
        think: float,
        turns: int,
        numbers: Iterator[int],
    ) -> None:
        self._port = port
        self._think = think
        self._keys = keys
        self._turns = turns
        self._conversations = conversations
        self._numbers = numbers
        self.ran: set[int] = set()
        self.unknown: set[int] = set()
        self.lost: set[int] = set()
        self.denied: Counter[str] = Counter()
        self.refused: set[int] = set()
        self.errors: Counter[str] = Counter()
        self._stopping = False
        self._news = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Call all the time; at the end wait for the calls that are under way."""
        tasks = [asyncio.ensure_future(self._converse(each)) for each in range(self._conversations)]
        try:
            yield self
        finally:
            self._stopping = True
            await asyncio.gather(*tasks)

    async def answered(self, more: int) -> None:
        """Wait until so many further calls ran."""
        wanted = len(self.ran) + more
        await self._until(lambda: len(self.ran) >= wanted)

    async def told(self, reason: str, more: int) -> None:
        """Wait until so many further calls were denied for this reason."""
        wanted = self.denied[reason] + more
        await self._until(lambda: self.denied[reason] >= wanted)

    async def refusals(self, more: int) -> None:
        """Wait until so many further calls were denied, for whatever reason."""
        wanted = len(self.refused) + more
        await self._until(lambda: len(self.refused) >= wanted)

    async def turned_away(self, more: int) -> None:
        """Wait until so many further calls were refused because the store cannot be reached."""

        def count() -> int:
            return self.denied[AWAY] + sum(self.errors.values())

        wanted = count() + more
        await self._until(lambda: count() >= wanted)

    async def _until(self, reached: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not reached():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            told = {**self.denied, **self.errors, "ran": len(self.ran), "no answer": len(self.lost)}
            raise AssertionError(f"not in time: {told}") from None

    async def _converse(self, conversation: int) -> None:
        while not self._stopping:
            number = next(self._numbers)
            whose = number // self._turns if self._turns else conversation
            key = self._keys[whose % len(self._keys)]
            ran = await self.call(number, key, f"c{conversation}", TOOLS[number % len(TOOLS)])
            await asyncio.sleep(self._think if ran else max(self._think, PAUSE))

    async def call(self, number: int, key: str, conversation: str, tool: str) -> bool:
        """Make one call; whether it ran."""
        client = RawHttp(self._port(), key=key)
        params = {"name": tool, "arguments": {"n": number}, "_meta": {CONVERSATION: conversation}}
        try:
            async with asyncio.timeout(TIMEOUT):
                answer = (await client.request("tools/call", params, headers=HOST)).message()
        except (OSError, EOFError):  # a TimeoutError is an OSError
            self.lost.add(number)
            return False
        self._take(number, answer)
        self._news.set()
        return number in self.ran

    def _take(self, number: int, answer: dict[str, Any]) -> None:
        if "error" in answer:
            self.errors[f"{answer['error']['code']} {answer['error']['message']}"] += 1
            return
        said = answer["result"].get("_meta", {}).get(DECISION)
        if said is None:
            self.ran.add(number)
        elif "outcome" in said:
            self.unknown.add(number)
        else:
            self.refused.add(number)
            self.denied[said["reason"]] += 1

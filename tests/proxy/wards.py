"""Two callers of one Guard, one of whom may go on no longer; and everything by which that can come."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from guard.config import home
from guard.config.home import record
from guard.identity.api_keys import ISSUER, ApiKeyRecord, mint
from guard.lineage.effects import principal_target, tool_target
from guard.lineage.entry import Kind
from guard.lineage.store import Contain, Release, SaveKey
from tests.proxy.features import POLICY, Estates, Web, servers
from tests.proxy.scene import MODERN, Kept

GUARD: Final = Path(sys.executable).parent / "guard"
LIFE: Final = 3600
"""Seconds that something lives which is to end while it is used."""
UPDATED: Final = "notifications/resources/updated"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
ONE: Final = "test://shown/text"


class Clock:
    """The time module, as Guard's clock reads it: it can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0

    def time_ns(self) -> int:
        return time.time_ns() + self.ahead * 1_000_000_000

    def run_out(self) -> None:
        """Whatever lives for LIFE seconds is over."""
        self.ahead = LIFE + 1


@contextmanager
def clocked() -> Iterator[Clock]:
    """Guard's clock in the test's hand."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(home, "time", clock)
        yield clock


@dataclass
class Two:
    """Everybody around one Guard.

    Attributes:
        estate: the Guard, and its servers.
        ended: the caller who may go on no longer.
        honest: the caller beside, whom that does not concern.
        key: the first one's.
        version: the revision that both speak.
        clock: Guard's own.
    """

    estate: Estates
    ended: Web
    honest: Web
    key: str
    version: str
    clock: Clock

    def gate(self, name: str) -> Path:
        """A file for which a tool server waits."""
        return self.estate.folder / name


def contain(estate: Kept, kind: str, target: str) -> None:
    with estate.store() as store:
        record(store, Kind.CONTAINED, {"kind": kind, "target": target}, Contain(kind, target))


def release(estate: Kept, kind: str, target: str) -> None:
    with estate.store() as store:
        record(store, Kind.RELEASED, {"kind": kind, "target": target}, Release(kind, target))


def someone(name: str = "someone") -> str:
    """How a containment names a principal with an API key."""
    return principal_target(ISSUER, name)


def minted(principal: str, *, ends: bool = False) -> tuple[str, ApiKeyRecord]:
    """A fresh API key; one that ends after LIFE seconds, if it is to end."""
    expires = int(time.time()) + LIFE if ends else None
    return mint(
        os.urandom(30), tenant="default", principal=principal, role="caller", created=0, expires=expires
    )


def brief_key(estate: Estates, principal: str = "someone") -> str:
    """An API key that ends after LIFE seconds."""
    text, made = minted(principal, ends=True)
    with estate.store() as store:
        record(store, Kind.API_KEY, {"key_id": made.key_id}, SaveKey(made))
    return text


async def command(estate: Estates, *words: str) -> None:
    """Another process, on the same file."""
    words = (str(GUARD), *words, "--home", str(estate.home))
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


async def revoke(two: Two) -> None:
    two.estate.revoke(two.key)


async def expire(two: Two) -> None:
    """Nothing moves in the store; the key's time is over."""
    two.clock.run_out()


async def reload(two: Two) -> None:
    """The role is gone; the honest one has another."""
    roles = {name: role for name, role in POLICY["roles"].items() if name != "caller"}
    two.estate.write_policy(version=2, roles=roles)
    assert two.estate.serving is not None
    assert await two.estate.serving.reload()


async def contained(two: Two) -> None:
    contain(two.estate, "principal", someone())


async def revoke_elsewhere(two: Two) -> None:
    await command(two.estate, "key", "revoke", two.key.split("_")[1])


async def contain_elsewhere(two: Two) -> None:
    await command(two.estate, "contain", "--principal", "someone")


CAUSES: Final[dict[str, tuple[Callable[[Two], Awaitable[None]], str]]] = {
    "revocation": (revoke, "revoked-key"),
    "expiry": (expire, "expired-key"),
    "reload": (reload, "unauthorized-role"),
    "containment": (contained, "principal-contained"),
    "revocation-elsewhere": (revoke_elsewhere, "revoked-key"),
    "containment-elsewhere": (contain_elsewhere, "principal-contained"),
}
"""How it ends, and the reason that is told."""
ANYWHERE: Final = pytest.mark.parametrize("cause", [*CAUSES])
BY: Final = pytest.mark.parametrize("cause", [cause for cause in CAUSES if "elsewhere" not in cause])
NOBODY: Final = frozenset({"revoked-key", "expired-key"})
"""Reasons after which the caller is nobody."""


@asynccontextmanager
async def two(
    folder: Path, version: str, cause: str, over: str = "stdio", **settings: Any
) -> AsyncIterator[Two]:
    """Guard, and two callers that said hello."""
    estate = Estates(folder / "estate", *servers(version, over))
    key = brief_key(estate) if cause == "expiry" else estate.key()
    beside = estate.key("honest", "powerful")
    with clocked() as clock:
        async with (
            estate.guarded(**settings),
            estate.party(version, key) as ended,
            estate.party(version, beside) as honest,
        ):
            yield Two(estate, ended, honest, key, version, clock)


async def listening(party: Web, **wanted: Any) -> asyncio.Task[dict[str, Any]]:
    """2026-07-28: open a subscription; its end to come."""
    count = len(party.heard(ACKNOWLEDGED))
    _, task = party.start("subscriptions/listen", {"notifications": wanted})
    await party.hears(ACKNOWLEDGED, count + 1)
    return task


async def subscribed(party: Web, uri: str = ONE) -> None:
    """Hear of a resource, in either era."""
    if party.version == MODERN:
        await listening(party, resourceSubscriptions=[uri])
    else:
        assert (await party.ask("resources/subscribe", {"uri": uri}))["result"] == {}


def about(answer: dict[str, Any]) -> dict[str, Any]:
    """What Guard says of a call."""
    found = answer["result"]["_meta"]["dev.guard-mcp/decision"]
    assert isinstance(found, dict)
    return found


def told(answer: dict[str, Any]) -> tuple[int, str]:
    """The code and the reason of an error."""
    return answer["error"]["code"], answer["error"]["data"]["reason"]


def tool(name: str, server: str = "one") -> str:
    return tool_target(server, name)

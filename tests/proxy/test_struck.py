"""Denials that put their caller out of use, and the switch that stops everything; what a person releases."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from guard.artifact.verify import ArtifactRefused, Fault
from guard.core.errors import Reason
from guard.lineage.entry import Kind
from guard.lineage.postgres import schema
from guard.lineage.postgres.address import Address
from guard.proxy.records import BLAMED
from guard.proxy.world import Gate
from tests.config.test_workers import workers
from tests.proxy.features import ERAS, OWN, Estates, Party, servers
from tests.proxy.scene import MODERN, PATIENCE
from tests.proxy.test_asking_replicas import replica
from tests.proxy.test_spent import WAYS, WHERE, home, said
from tests.proxy.wards import GUARD

__all__ = ["home"]

GOOD: Final = {"name": "echo", "arguments": {"n": 1}}
BAD: Final = {"name": "echo", "arguments": {"n": 13}}
FORBIDDEN: Final[Mapping[str, Any]] = {
    "protected": [
        {"id": "never", "tools": ["echo"], "schema": {"required": ["n"], "properties": {"n": {"const": 13}}}}
    ]
}
TALK: Final = f"{OWN}conversation"


def estate(folder: Path, version: str, **strikes: int) -> Estates:
    containment = {kind: {"denials": most, "window": "1h"} for kind, most in strikes.items()}
    return Estates(folder, *servers(version, "stdio"), policy={**FORBIDDEN, "containment": containment})


def guard(found: Estates, *words: str) -> Any:
    """What an operator does, in a process of its own; what it said as JSON."""
    done = subprocess.run(
        [str(GUARD), *words, "--home", str(found.home), "--json"], capture_output=True, check=True, text=True
    )
    return json.loads(done.stdout)


async def call(party: Party, params: Mapping[str, Any] = GOOD, **meta: Any) -> str:
    return said(await party.ask("tools/call", params, **meta))


# -- by denials ------------------------------------------------------------------------------------


@WAYS
async def test_repeated_denials_contain_the_conversation(home: Path, version: str, by: str) -> None:
    """The third denial does it; the lineage says after which call; a person takes it back."""
    found = estate(home, version, conversation=3)
    async with found.speaking(version, by) as party:
        assert [await call(party, BAD) for _ in range(2)] == ["protected"] * 2
        assert await call(party) == "allow"
        assert await call(party, BAD) == "protected"
        assert [await call(party) for _ in range(2)] == ["conversation-contained"] * 2
        (contained,) = found.entries(Kind.CONTAINED)
        assert contained["call"] == found.entries(Kind.DENIED)[2]["call"]
        assert (contained["fields"]["kind"], contained["fields"]["denials"]) == ("conversation", 3)
        (standing,) = guard(found, "contain", "--list")
        assert standing["kind"] == "conversation"
        assert standing["why"] == f"3 denials within 3600 s, the last of them of call {contained['call']}"
        guard(found, "release", standing["target"])
        assert await call(party) == "allow"
    assert len(found.received()) == 2


@ERAS
@WHERE
async def test_repeated_denials_contain_the_principal(home: Path, version: str) -> None:
    """In whichever conversation, with whichever key; nobody else is touched."""
    found = estate(home, version, principal=4)
    keys = [found.key("alice"), found.key("alice"), found.key("bob")]
    async with found.guarded():
        for number in range(4):
            async with found.party(version, keys[number % 2], deaf=True) as party:
                assert await call(party, BAD, **{TALK: f"talk-{number}"}) == "protected"
        async with (
            found.party(version, keys[0], deaf=True) as one,
            found.party(version, keys[1], deaf=True) as two,
            found.party(version, keys[2], deaf=True) as bob,
        ):
            assert [await call(each) for each in (one, two)] == ["principal-contained"] * 2
            assert [await call(bob, BAD), await call(bob)] == ["protected", "allow"]
            (standing,) = guard(found, "contain", "--list")
            assert (standing["kind"], json.loads(standing["target"])[-1]) == ("principal", "alice")
            assert standing["why"].startswith("4 denials within 3600 s")
            guard(found, "release", "--principal", "alice", "--issuer", "api-key")
            assert [await call(each) for each in (one, two)] == ["allow"] * 2


@WHERE
async def test_64_denials_at_once_contain_once(home: Path) -> None:
    """Whoever comes too late is denied for that, and does not count again."""
    found = estate(home, MODERN, conversation=5)
    async with found.speaking(MODERN, "http") as party:
        tasks = [party.start("tools/call", BAD)[1] for _ in range(64)]
        told = Counter(said(answer) for answer in await asyncio.gather(*tasks))
        assert told.keys() <= {"protected", "conversation-contained"}
        assert told["protected"] >= 5
        assert await call(party) == "conversation-contained"
    assert len(found.entries(Kind.CONTAINED)) == 1
    assert found.received() == []


async def test_what_is_no_fault_of_the_caller_counts_nothing(tmp_path: Path) -> None:
    """A server that cannot be reached, and what an operator did: however often, nobody is contained."""
    once = {"denials": 1, "window": "1h"}
    found = Estates(
        tmp_path / "e",
        *servers(MODERN, "http"),
        policy={**FORBIDDEN, "containment": {"conversation": once, "principal": once}},
    )
    async with found.speaking(MODERN, "http") as party:
        guard(found, "contain", "--all")
        assert [await call(party) for _ in range(3)] == ["principal-contained"] * 3
        guard(found, "release", "--all")
        assert await call(party) == "allow"
        found.kill("one")
        assert [await call(party) for _ in range(3)] == ["upstream-unavailable"] * 3
    assert [entry["fields"]["kind"] for entry in found.entries(Kind.CONTAINED)] == ["all"]


BLAMELESS: Final = {
    Reason.NO_CREDENTIAL, Reason.INVALID_KEY, Reason.EXPIRED_KEY, Reason.REVOKED_KEY, Reason.TOOL_UNPINNED,
    Reason.TOOL_CHANGED, Reason.RULE_FAILED, Reason.APPROVAL_REQUIRED, Reason.POLICY_EXPIRED,
    Reason.POLICY_SUPERSEDED, Reason.ARTIFACT_KEY_UNAVAILABLE, Reason.STORE_UNAVAILABLE, Reason.CLOCK_BEHIND,
    Reason.CLOCK_AHEAD, Reason.CONVERSATION_CONTAINED, Reason.CONVERSATION_SEALED, Reason.PRINCIPAL_CONTAINED,
    Reason.TOOL_CONTAINED, Reason.UNKNOWN_OBLIGATION, Reason.ISSUE_FAILED, Reason.CONTENDED,
    Reason.OVERLOADED, Reason.ARTIFACT_MISSING, Reason.ARTIFACT_INVALID, Reason.INTEGRITY,
    Reason.UPSTREAM_UNAVAILABLE,
    Reason.CANCELLED, Reason.TIMED_OUT, Reason.RESULT_TOO_LARGE, Reason.UNEXPECTED,
}  # fmt: skip


def test_every_reason_is_either_the_callers_fault_or_not() -> None:
    """The list is closed: a new reason has to be put on one side."""
    assert set(Reason) == BLAMED | BLAMELESS
    assert not BLAMED & BLAMELESS


async def test_a_new_conversation_sheds_no_denial(tmp_path: Path) -> None:
    """Where the role may not assert conversations its denials count together, whatever it calls itself."""
    found = estate(tmp_path / "e", MODERN, conversation=3)
    async with found.speaking(MODERN, "http") as party:
        assert [await call(party, BAD, **{TALK: f"talk-{n}"}) for n in range(3)] == ["protected"] * 3
        assert len(found.entries(Kind.CONTAINED)) == 1
        assert await call(party, **{TALK: "talk-2"}) == "conversation-contained"


# -- the switch ------------------------------------------------------------------------------------


@WAYS
async def test_the_switch_holds_from_the_next_call_on(home: Path, version: str, by: str) -> None:
    """`guard contain --all` by another process; `guard release --all` takes it back at once."""
    found = estate(home, version)
    async with found.speaking(version, by) as party:
        assert await call(party) == "allow"
        guard(found, "contain", "--all")
        assert await call(party) == "principal-contained"
        guard(found, "release", "--all")
        assert await call(party) == "allow"
    assert len(found.received()) == 2


async def test_the_switch_holds_in_every_worker(tmp_path: Path) -> None:
    """`guard serve --workers 2`: whichever process a call reaches."""
    found = estate(tmp_path / "e", MODERN)
    key = found.key()
    with workers(found) as serving:
        await serving.ready(2)

        async def every() -> Counter[str]:
            clients = [serving.client(key=key) for _ in range(16)]
            answers = await asyncio.gather(*(one.request("tools/call", GOOD) for one in clients))
            return Counter(said(answer.message()) for answer in answers)

        assert await every() == {"allow": 16}
        guard(found, "contain", "--all")
        assert await every() == {"principal-contained": 16}
        guard(found, "release", "--all")
        assert await every() == {"allow": 16}
        serving.process.terminate()
        assert serving.process.wait(PATIENCE) == 0


@asynccontextmanager
async def replicas(tmp_path: Path, url: str, version: str) -> AsyncIterator[tuple[Estates, Estates]]:
    """Two Guards on one database."""
    schema.upgrade(Address(url))
    here = replica(tmp_path / "here", url, version, "reviewer")
    there = replica(tmp_path / "there", url, version, "reviewer", here.home / "keys")
    for found in (here, there):
        found.write_policy(asks=[], **FORBIDDEN, containment={"conversation": {"denials": 4, "window": "1h"}})
    async with here.guarded(), there.guarded():
        yield here, there


@ERAS
async def test_the_switch_holds_in_every_replica(tmp_path: Path, database: str, version: str) -> None:
    """Thrown at one, it holds at the other's next call; denials at either count together."""
    async with replicas(tmp_path, database, version) as (here, there):
        key = here.key()
        async with here.party(version, key, deaf=True) as one, there.party(version, key, deaf=True) as other:
            guard(here, "contain", "--all")
            assert [await call(party) for party in (one, other)] == ["principal-contained"] * 2
            guard(there, "release", "--all")
            assert [await call(party) for party in (one, other)] == ["allow"] * 2
            talk = {TALK: "both"}
            for party in (one, other, one, other):
                assert await call(party, BAD, **talk) == "protected"
            assert await call(other, **talk) == "conversation-contained"


@pytest.mark.parametrize("by", ["stdio", "http"])
async def test_integrity_contains_at_once(tmp_path: Path, by: str) -> None:
    """No policy has to ask for it, and no count is waited for."""
    found = Estates(tmp_path / "e", *servers(MODERN, "stdio"))
    async with found.speaking(MODERN, by) as party:
        with pytest.MonkeyPatch.context() as patch:

            def refuse(*_: Any) -> None:
                raise ArtifactRefused(Fault.ARGUMENTS, "on purpose")

            patch.setattr(Gate, "verify", refuse)
            assert await call(party) == "integrity"
        assert await call(party) == "conversation-contained"
        (standing,) = guard(found, "contain", "--list")
        assert "integrity" in standing["why"]
        guard(found, "release", standing["target"])
        assert await call(party) == "allow"

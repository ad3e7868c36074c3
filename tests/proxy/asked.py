"""Calls that a person must approve: the policy, the people, and what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from guard.config.serve import Serving
from guard.lineage.entry import Kind
from guard.lineage.store import QuestionRow
from tests.proxy.estate import Estate
from tests.proxy.features import POLICY, Estates, Party, name, servers, until
from tests.proxy.raw_http import Answer
from tests.proxy.scene import decision

NAME: Final = "dev.guard-mcp/approval"
YES: Final = {"action": "accept", "content": {"approve": True}}
NO: Final = {"action": "decline"}
DISMISSED: Final = {"action": "cancel"}
ROLES: Final[Mapping[str, Any]] = {
    **POLICY["roles"],
    "caller": {"scopes": ["use", "more"]},
    "reviewer": {"scopes": ["use"], "may_approve": True},
}
DO: Final[Mapping[str, Any]] = {"name": "do", "arguments": {"acts": []}}


def asking(approver: str, **more: Any) -> dict[str, Any]:
    """A policy under which a person must approve each call of `do`."""
    return {
        **POLICY,
        "roles": ROLES,
        "asks": [{"id": "person", "tools": ["*do"], "approver": approver, "ttl": "10m", **more}],
    }


def estate(folder: Path, version: str, over: str, approver: str, *, many: bool = False) -> Estates:
    return Estates(folder / "estate", *servers(version, over, many=many), policy=asking(approver))


def do(*acts: Mapping[str, Any], many: bool = False) -> dict[str, Any]:
    return {"name": name("do", many=many), "arguments": {"acts": list(acts)}}


def park(serving: Serving | None, seconds: float) -> None:
    """How long a call waits for a reviewer."""
    assert serving is not None
    house = serving.house
    house.generation = replace(house.generation, park=seconds)


async def asked(party: Party, params: Mapping[str, Any] = DO, method: str = "tools/call") -> dict[str, Any]:
    """Make a call for which the client is asked, in 2026-07-28; the result that asks."""
    found = (await party.ask(method, params))["result"]
    assert found["resultType"] == "input_required", found
    assert found["inputRequests"].keys() == {NAME}
    assert isinstance(found, dict)
    return found


def retry(
    found: Mapping[str, Any], params: Mapping[str, Any] = DO, answer: Any = YES, **more: Any
) -> dict[str, Any]:
    """The same call with the client's answer, and the state that came with the question."""
    return {**params, "requestState": found["requestState"], "inputResponses": {NAME: answer}, **more}


def about(response: Mapping[str, Any]) -> dict[str, Any]:
    """What Guard says of a call that it did not let through: of a tool a result, else an error."""
    if "error" in response:
        found = response["error"]["data"]["dev.guard-mcp/decision"]
        assert isinstance(found, dict)
        return found
    return decision(response)


def reason(response: Mapping[str, Any]) -> str:
    return str(about(response)["reason"])


def questions(estate: Estate) -> list[QuestionRow]:
    """Every question that is not void."""
    with estate.store() as store:
        return store.questions("default", 0)


async def question(estate: Estate, count: int = 1) -> QuestionRow:
    """Wait until so many were asked; the newest."""
    found = await until(lambda: rows if len(rows := questions(estate)) >= count else None)
    assert isinstance(found[-1], QuestionRow)
    return found[-1]


async def answer(estate: Estate, key: str | None, id_: str, value: Any, **headers: Any) -> Answer:
    """A reviewer's answer over HTTP."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    client = estate.client(key=key)
    return await client.post(body, path=f"/approvals/{id_}", headers=headers)


async def grant(estate: Estate, key: str, id_: str, *, yes: bool = True) -> None:
    """A reviewer says yes, or no, over HTTP."""
    found = await answer(estate, key, id_, {"approve": yes})
    assert (found.status, found.json()) == (200, {"id": id_, "state": "granted" if yes else "denied"})


def kinds(estate: Estate) -> list[str]:
    """What was written down, but for the house's own affairs."""
    ours = {Kind.ASKED, Kind.ANSWERED, Kind.DENIED, Kind.GRANTED, Kind.RETURNED, Kind.FAILED, Kind.UNKNOWN}
    return [entry["kind"] for entry in estate.entries() if entry["kind"] in ours]


def ran(estate: Estates, times: int = 1) -> None:
    """So many calls reached the server, and each is in the log with its ending; the lineage is sound."""
    assert len(estate.received()) == times
    found = estate.endings()
    assert found.count(["granted", "returned"]) == times, found


async def waits(party: Party, params: Mapping[str, Any] = DO) -> asyncio.Task[dict[str, Any]]:
    """Make a call that will wait."""
    return party.start("tools/call", params)[1]

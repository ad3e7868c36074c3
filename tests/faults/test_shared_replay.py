"""One artifact of a trusted issuer, presented to many replicas at once: it is believed once."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from guard.config.home import open_home
from tests.artifact.artifacts import KEYS, NAME, call, issue
from tests.faults.fleet import Fleet
from tests.faults.load import HOST
from tests.proxy.raw_http import RawHttp

ARTIFACT = "dev.guard-mcp/authorization"
TIMES = 12


async def test_one_artifact_is_believed_by_one_replica(tmp_path: Path, store: str | None) -> None:
    """Each call that brings it runs by its own right; one of them names it as its verified parent."""
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps(KEYS.jwks()))
    trust = [{"issuer": NAME, "jwks": str(jwks)}]
    fleet = Fleet(tmp_path / "fleet", database=store, callers=1, trust=trust)
    params = {"name": "echo", "arguments": {"n": 0}}
    bound = call(params, audience=open_home(fleet.home).name)
    parent = issue(bound, now=int(time.time())).token.decode()
    async with fleet.running():
        ports = [replica.address[1] for replica in fleet.replicas if replica.address]
        clients = [RawHttp(ports[number % len(ports)], key=fleet.keys[0]) for number in range(TIMES)]
        asked = {**params, "_meta": {ARTIFACT: parent}}
        calls = [client.request("tools/call", asked, headers=HOST) for client in clients]
        answers = [answer.message() for answer in await asyncio.gather(*calls)]
    assert all("isError" not in answer["result"] or not answer["result"]["isError"] for answer in answers)
    fleet.settle("replay")
    edges = [entry["fields"]["parent"]["edge"] for entry in fleet.verdict.granted.values()]
    assert sorted(edges) == ["claimed"] * (TIMES - 1) + ["verified"]

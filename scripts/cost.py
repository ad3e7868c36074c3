"""What Guard's own record of one granted call costs: CPU time of each step, on this machine.

    python scripts/cost.py [ROUNDS]

Each step is measured alone and many times; the figures are medians in microseconds of CPU time a
call, whole process. `commit n` is a call's share of a commit that takes n grants and n endings
together, through `Log` on an event loop. `snapshot` is what each call reads of an unchanged store,
`snapshot, moved` what the first call after a commit reads. `bare` is the signature alone, a yardstick for
how busy the machine is: signing is in `issue`, verifying in `verify`. Figures go to build/figures/cost.json.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from statistics import median

import figures

from guard.artifact.grant import Grant, Issuer
from guard.config.home import Home, open_home, record
from guard.core.canonical import b64
from guard.core.model import Allow, Call, Conversation, Facts, Pin, PolicyRef, Principal, Tool
from guard.identity.api_keys import ENTROPY_BYTES, ISSUER, mint
from guard.lineage.entry import Kind
from guard.lineage.log import Log
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import (
    CONTAINMENT,
    REVOCATION,
    Recorded,
    SaveKey,
    SavePins,
    SavePolicy,
    Transaction,
    pins_version,
)
from guard.proxy import records
from guard.proxy.endings import Returned

SERVER, AUDIENCE, TOOL = "bank", "https://bank.example/mcp", "transfer"
POLICY = PolicyRef("payments", 3, b64(bytes(32)))
ALLOW = Allow(("small-sums",), ("payments:transfer",))
ARGUMENTS = {"iban": "DE02120300000000202051", "amount": 25, "currency": "EUR", "note": "Rent for May"}
RESULT = Returned(b'{"content":[{"type":"text","text":"transferred"}],"isError":false}' * 2)
BATCHES = (1, 16, 64)
CONVERSATIONS = 50
WARM = 5
"""Rounds before the first that counts."""


class Steps:
    """The CPU time of each step: microseconds a call, one figure for each time it was measured."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}

    @contextmanager
    def timed(self, step: str, calls: int) -> Iterator[None]:
        began = time.process_time_ns()
        yield
        self.found.setdefault(step, []).append((time.process_time_ns() - began) / 1000 / calls)

    def median(self, step: str) -> float:
        return median(self.found[step])


def clock() -> int:
    return time.time_ns() // 1_000_000


class Scene:
    """A home with a policy, pins and a key, and calls of one principal in many conversations."""

    def __init__(self, home: Home, store: SqliteStore) -> None:
        self.home, self.store = home, store
        self.issuer: Issuer = home.issuer()
        self.verifier = home.gate_verifier(AUDIENCE)
        _, key = mint(os.urandom(ENTROPY_BYTES), tenant="default", principal="ada", role="payer", created=1)
        record(store, Kind.POLICY, {"id": POLICY.id}, SavePolicy(POLICY.id, POLICY.version, POLICY.sha256))
        record(store, Kind.PIN, {"server": SERVER}, SavePins(SERVER, ((TOOL, b64(bytes(32)), b"{}"),)))
        record(store, Kind.API_KEY, {"principal": "ada"}, SaveKey(key))
        self.principal = Principal("default", ISSUER, "ada", "payer", credential=key.key_id)
        self._numbers = count()

    def calls(self, many: int) -> list[Call]:
        numbers = [next(self._numbers) for _ in range(many)]
        tool = Tool(SERVER, TOOL, b64(bytes(32)), Pin.MATCHES)
        return [
            Call(
                id=b64(os.urandom(16)),
                principal=self.principal,
                tool=tool,
                audience=AUDIENCE,
                method="tools/call",
                params={"name": TOOL, "arguments": {**ARGUMENTS, "n": number}},
                conversation=Conversation(f"conversation-{number % CONVERSATIONS}", "meta"),
                facts=Facts(clock(), versions=self.snapshot(f"conversation-{number % CONVERSATIONS}")),
            )
            for number in numbers
        ]

    def snapshot(self, conversation: str) -> dict[str, int]:
        found = self.store.snapshot(
            self.principal, Conversation(conversation, "meta"), (SERVER, TOOL), own_only=True
        )
        return dict(found.versions)

    def issue(self, call: Call) -> Grant:
        return self.issuer.issue(call, ALLOW, POLICY, now=clock() // 1000, jti=b64(os.urandom(16)))

    def granted(self, call: Call, grant: Grant) -> Transaction:
        versions, pins = call.facts.versions, pins_version(SERVER)
        expects = {
            CONTAINMENT: versions.get(CONTAINMENT, 0),
            REVOCATION: versions.get(REVOCATION, 0),
            POLICY.versioned: POLICY.version,
            pins: versions.get(pins, 0),
        }
        return records.granted(call, ALLOW, grant, POLICY, now=clock(), instance="0" * 32, expects=expects)

    def verify(self, call: Call, grant: Grant) -> None:
        self.verifier.verify(
            grant.token,
            call.method,
            call.params,
            now=clock() / 1000,
            definition_sha256=call.tool.sha256,
        )

    def ended(self, call: Call) -> Transaction:
        return records.ended(call, RESULT, "0" * 24, now=clock())


async def one_round(scene: Scene, log: Log, steps: Steps, batch: int, owed: list[Call]) -> list[Call]:
    """One batch of calls through every step. Returns them: their endings go with the next batch."""
    calls = scene.calls(batch)
    with steps.timed("issue", batch):
        grants = [scene.issue(call) for call in calls]
    with steps.timed("granted draft", batch):
        begun = [scene.granted(call, grant) for call, grant in zip(calls, grants, strict=True)]
    with steps.timed("ended draft", max(1, len(owed))):
        over = [scene.ended(call) for call in owed]
    with steps.timed(f"commit {batch}", batch):
        for transaction in over:
            log.enqueue(transaction)
        outcomes = await asyncio.gather(*(log.commit(transaction) for transaction in begun))
    assert all(isinstance(outcome, Recorded) for outcome in outcomes)
    with steps.timed("verify", batch):
        for call, grant in zip(calls, grants, strict=True):
            scene.verify(call, grant)
    key, message = scene.home.artifact_key, bytes(900)
    signature = key.sign(message)
    with steps.timed("bare sign", batch):
        for _ in calls:
            key.sign(message)
    with steps.timed("bare verify", batch):
        for _ in calls:
            key.public.verifies(signature, message)
    with steps.timed("snapshot, moved", 1):
        scene.store.versions("default")
        scene.store.snapshot(scene.principal, calls[0].conversation, (SERVER, TOOL), own_only=True)
    with steps.timed("snapshot", batch):
        for call in calls:
            scene.store.snapshot(scene.principal, call.conversation, (SERVER, TOOL), own_only=True)
    return calls


async def measure(folder: Path, rounds: int) -> Steps:
    """Interleave the batch sizes, so that a busy machine is as unfair to one as to another."""
    home = open_home(folder / "home")
    with closing(home.store()) as store:
        scene, log, steps = Scene(home, store), Log(store, in_place=10.0), Steps()
        owed: dict[int, list[Call]] = {batch: [] for batch in BATCHES}
        for n in range(rounds + WARM):
            if n == WARM:
                steps = Steps()
            for batch in BATCHES:
                owed[batch] = await one_round(scene, log, steps, batch, owed[batch])
        await log.close()
    return steps


def table(steps: Steps) -> dict[str, float]:
    """Every step, and what a call costs in all with each size of batch."""
    each = {step: round(steps.median(step), 1) for step in sorted(steps.found)}
    alone: Callable[[str], float] = each.__getitem__
    own = sum(map(alone, ("issue", "granted draft", "verify", "ended draft")))
    for batch in BATCHES:
        reads = alone("snapshot") + alone("snapshot, moved") / batch
        each[f"all, {batch} at once"] = round(own + reads + alone(f"commit {batch}"), 1)
    return each


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory() as folder:
        found = table(asyncio.run(measure(Path(folder), rounds)))
    for step, cost in found.items():
        print(f"{step:20} {cost:8.1f} µs")
    figures.write("cost", {f"{step} (µs)": cost for step, cost in found.items()})


if __name__ == "__main__":
    main()

"""Each step of the life of a call broken on purpose, over real pipes, a real store and a real server.

Both ways: it fails, and it fails after it happened.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from guard.artifact.verify import ArtifactRefused, Fault
from guard.config.home import record
from guard.config.run import Guarded
from guard.core.errors import Reason, Refused
from guard.core.model import Allow
from guard.identity.api_keys import mint
from guard.lineage.entry import Kind
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import Contain, Release, RevokeKey, SaveKey, SavePins, SavePolicy
from guard.proxy.catalog import listed, rows
from guard.proxy.wire import INTERNAL_ERROR
from tests.proxy.scene import LEGACY, MODERN, SERVER, Client, Scene, decision, reason, tool
from tests.simulate import STEPS

FAILURES: dict[str, Callable[[], BaseException]] = {
    "surprise": lambda: ValueError("broken on purpose"),
    "disk": lambda: OSError(28, "No space left on device"),
}


def breaking(step: str, raises: Callable[[], BaseException], *, after: bool) -> Callable[[Guarded], None]:
    """Wrap one step of the gate so that it raises, before or after the real one ran."""

    def wrap(guarded: Guarded) -> None:
        real = getattr(guarded.gate, step)

        def broken(*given: Any) -> Any:
            if after:
                real(*given)
            raise raises()

        async def broken_later(*given: Any) -> Any:
            if after:
                await real(*given)
            raise raises()

        setattr(guarded.gate, step, broken_later if inspect.iscoroutinefunction(real) else broken)

    return wrap


@dataclass(frozen=True)
class Outcome:
    """What must have come of one call.

    Attributes:
        reached: how many calls the server saw.
        told: "error" for a JSON-RPC error, else the decision's "deny" or "allow".
        kinds: the call's entries at once, and after a restart.
        reason: what the client is told, "" for a JSON-RPC error.
        outcome: "executed" or "unknown" where the call was sent.
    """

    reached: int
    told: str
    kinds: tuple[str, ...]
    settled: tuple[str, ...]
    reason: str = "unexpected"
    outcome: str | None = None


DENIED = Outcome(0, "deny", ("denied",), ("denied",))
FAILED = Outcome(0, "deny", ("granted", "failed"), ("granted", "failed"))
EXPECTED: dict[tuple[str, bool], Outcome] = {
    ("identify", False): Outcome(0, "error", (), (), ""),
    ("identify", True): Outcome(0, "error", (), (), ""),
    ("bind", False): DENIED,
    ("bind", True): DENIED,
    ("decide", False): DENIED,
    ("decide", True): DENIED,
    ("issue", False): DENIED,
    ("issue", True): DENIED,
    ("record", False): DENIED,
    ("record", True): FAILED,
    ("verify", False): FAILED,
    ("verify", True): FAILED,
    ("dispatch", False): Outcome(
        0, "allow", ("granted", "unknown"), ("granted", "unknown"), outcome="unknown"
    ),
    ("dispatch", True): Outcome(
        1, "allow", ("granted", "unknown"), ("granted", "unknown"), outcome="unknown"
    ),
    ("end", False): Outcome(
        1, "allow", ("granted",), ("granted", "unknown"), "store-unavailable", outcome="executed"
    ),
    ("end", True): Outcome(
        1,
        "allow",
        ("granted", "returned"),
        ("granted", "returned"),
        "store-unavailable",
        outcome="executed",
    ),
    ("reply", False): Outcome(1, "error", ("granted", "returned"), ("granted", "returned"), ""),
    ("reply", True): Outcome(1, "error", ("granted", "returned"), ("granted", "returned"), ""),
}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    found = Scene(tmp_path / "scene")
    found.pin()
    return found


async def released(scene: Scene, client: Client) -> None:
    """The conversation stays contained until it is released, and is open again after that."""
    assert scene.contained() == ["conversation"]
    before = len(scene.received())
    assert reason(await client.call(text="while contained")) == "conversation-contained"
    assert len(scene.received()) == before
    with scene.store() as store:
        (row,) = store.contained("default")
        record(store, Kind.RELEASED, row, Release(row["kind"], row["target"]))


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("after", [False, True], ids=["fails", "fails-after-it-happened"])
@pytest.mark.parametrize("step", [step for step in STEPS if step != "refuse"])
async def test_a_broken_step(scene: Scene, step: str, after: bool, failure: str) -> None:  # noqa: FBT001
    """The server sees nothing unless dispatch happened; the client and the lineage hear the truth."""
    expected = EXPECTED[step, after]
    async with scene.guarded(wrap=breaking(step, FAILURES[failure], after=after)) as client:
        answer = await client.call(text="broken on the way")
        await client.silent()
    if expected.told == "error":
        assert answer["error"]["code"] == INTERNAL_ERROR
        assert "broken on purpose" not in str(answer)
        if expected.reached:
            assert answer["error"]["data"] == {"outcome": "unknown", "retryable": False}
        call = ""
    else:
        about = decision(answer)
        assert about["decision"] == expected.told
        assert about["reason"] == expected.reason
        assert about.get("outcome") == expected.outcome
        assert about["retryable"] is False
        call = about["decision_id"]
    reached = scene.received()
    assert len(reached) == expected.reached
    kinds = tuple(entry["kind"] for entry in scene.entries() if entry["call"] and call in {"", entry["call"]})
    assert kinds == expected.kinds
    settled = scene.settled()
    assert [tuple(found) for found in settled.values()] == [expected.settled] * bool(expected.settled)
    assert not call or [*settled] == [call]
    assert scene.contained() == []


@pytest.mark.parametrize("after", [False, True], ids=["fails", "fails-after-it-happened"])
async def test_a_denial_that_cannot_be_recorded_is_still_a_denial(scene: Scene, after: bool) -> None:  # noqa: FBT001
    """`refuse` itself broken: an error, nothing sent, no grant."""
    async with scene.guarded(wrap=breaking("refuse", FAILURES["disk"], after=after)) as client:
        answer = await client.call(n=13)
    assert answer["error"]["code"] == INTERNAL_ERROR
    assert scene.received() == []
    assert all(set(kinds) == {"denied"} for kinds in scene.settled().values())


@pytest.mark.parametrize("after", [False, True], ids=["fails", "fails-after-it-happened"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_step_whose_task_is_torn_down(scene: Scene, step: str, after: bool) -> None:  # noqa: FBT001
    """Cancelled in the middle of any step: no answer, no call without its grant, one ending each."""
    async with scene.guarded(wrap=breaking(step, asyncio.CancelledError, after=after)) as client:
        client.request("tools/call", {"name": "echo", "arguments": {"text": "torn"}})
        await client.silent()
    calls = scene.settled()
    granted = [kinds for kinds in calls.values() if "granted" in kinds]
    assert len(scene.received()) <= len(granted)


@pytest.mark.parametrize("version", [MODERN, LEGACY])
@pytest.mark.parametrize("fault", [Fault.SIGNATURE, Fault.ARGUMENTS])
async def test_a_verifier_that_says_no_contains_the_conversation(
    scene: Scene, fault: Fault, version: str
) -> None:
    """An artifact that fails its check: nothing sent, the conversation contained until released."""
    mend: list[Callable[[], None]] = []

    def wrap(guarded: Guarded) -> None:
        real = guarded.gate.verify
        breaking("verify", lambda: ArtifactRefused(fault, "on purpose"), after=True)(guarded)
        mend.append(lambda: setattr(guarded.gate, "verify", real))

    async with scene.guarded(version, wrap=wrap) as client:
        expected = "integrity" if fault is Fault.ARGUMENTS else "artifact-invalid"
        assert reason(await client.call(text="tampered")) == expected
        assert scene.received() == []
        mend[0]()
        await released(scene, client)
        assert "isError" not in (await client.call(text="released"))["result"]
    (ended,) = scene.entries(Kind.FAILED)
    assert ended["fields"] == {"reason": expected, "contained": "conversation"}
    scene.settled()


async def test_a_grant_that_no_verifier_made_is_never_dispatched(scene: Scene) -> None:
    """A verify step that hands back something else: an artifact is missing, and integrity is hurt."""

    def wrap(guarded: Guarded) -> None:
        guarded.gate.verify = lambda grant, call: grant  # type: ignore[assignment,return-value]

    async with scene.guarded(wrap=wrap) as client:
        assert reason(await client.call(text="unverified")) == "artifact-missing"
        await released(scene, client)
    assert scene.received() == []
    assert [*scene.settled().values()] == [["granted", "failed"], ["denied"]]


async def test_the_upstream_itself_takes_nothing_but_a_verified_grant(scene: Scene) -> None:
    """Even a flow that passed on the wrong thing could not send it."""

    def wrap(guarded: Guarded) -> None:
        real: Any = guarded.gate.dispatch
        guarded.gate.dispatch = lambda verified, message, call: real(object(), message, call)  # type: ignore[method-assign]

    async with scene.guarded(wrap=wrap) as client:
        assert reason(await client.call(text="unverified")) == "artifact-missing"
        await released(scene, client)
    assert scene.received() == []


@pytest.mark.parametrize("strict", [False, True])
async def test_a_store_that_fails_between_grant_and_ending(scene: Scene, strict: bool) -> None:  # noqa: FBT001
    """The log breaks while the server works: no further grant; under `strict` the result is withheld."""

    def wrap(guarded: Guarded) -> None:
        real = guarded.store.apply

        def apply(batch: Any) -> Any:
            if any(transaction.entry.kind is Kind.RETURNED for transaction in batch):
                raise OSError(28, "No space left on device")
            return real(batch)

        guarded.store.apply = apply  # type: ignore[method-assign]

    async with scene.guarded(wrap=wrap, strict=strict) as client:
        first = await client.call(text="before")
        if strict:
            assert decision(first)["outcome"] == "executed"
            assert decision(first)["reason"] == "store-unavailable"
            assert decision(first)["retryable"] is False
        else:
            assert "isError" not in first["result"]
            await asyncio.sleep(0.1)
        assert reason(await client.call(text="after")) == "store-unavailable"
    assert len(scene.received()) == 1
    assert [*scene.settled().values()] == [["granted", "unknown"]]


@pytest.mark.parametrize("applied", [False, True], ids=["lost", "done-but-unsaid"])
async def test_a_commit_that_fails_both_ways(scene: Scene, applied: bool) -> None:  # noqa: FBT001
    """The grant's commit raises, whether or not it is on disk: nothing is sent, a restart ends it."""

    def wrap(guarded: Guarded) -> None:
        real = guarded.store.apply

        def apply(batch: Any) -> Any:
            if applied:
                real(batch)
            raise OSError(5, "Input/output error")

        guarded.store.apply = apply  # type: ignore[method-assign]

    async with scene.guarded(wrap=wrap) as client:
        assert reason(await client.call(text="lost")) == "store-unavailable"
        assert reason(await client.call(text="again")) == "store-unavailable"
    assert scene.received() == []
    assert [*scene.settled().values()] == ([["granted", "unknown"]] if applied else [])


async def test_refused_by_any_step_is_the_reason_told(scene: Scene) -> None:
    """A step that says no with a reason of its own is quoted, not translated."""
    wrap = breaking("issue", lambda: Refused(Reason.UNKNOWN_OBLIGATION), after=False)
    async with scene.guarded(wrap=wrap) as client:
        assert reason(await client.call(text="x")) == "unknown-obligation"
    assert scene.received() == []


def contained(guarded: Guarded, store: SqliteStore) -> None:
    record(store, Kind.CONTAINED, {"kind": "all"}, Contain("all", ""))


def pinned_anew(guarded: Guarded, store: SqliteStore) -> None:
    pins = rows(listed([tool("echo", title="another"), tool("slow")]).values(), None)
    record(store, Kind.PIN, {"server": SERVER}, SavePins(SERVER, pins))


def superseded(guarded: Guarded, store: SqliteStore) -> None:
    record(store, Kind.POLICY, {"id": "scene", "version": 2}, SavePolicy("scene", 2, "another digest"))


def revoked(guarded: Guarded, store: SqliteStore) -> None:
    (key,) = store.api_keys()
    record(store, Kind.REVOKED, {"key_id": key.key_id}, RevokeKey(key.key_id))


MOVES = {
    contained: "principal-contained",
    pinned_anew: "tool-changed",
    superseded: "policy-superseded",
    revoked: "revoked-key",
}


@pytest.mark.parametrize("move", MOVES)
async def test_what_moves_between_decision_and_grant_is_decided_anew(
    scene: Scene, move: Callable[[Guarded, SqliteStore], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process contains, pins, supersedes or revokes after `decide` said yes: nothing is sent."""
    text, made = mint(os.urandom(30), tenant="default", principal="someone", role="caller", created=0)
    with scene.store() as store:
        record(store, Kind.API_KEY, {"key_id": made.key_id}, SaveKey(made))
    monkeypatch.setenv("GUARD_API_KEY", text)
    moved: list[bool] = []

    def wrap(guarded: Guarded) -> None:
        real = guarded.gate.decide

        def decide(call: Any) -> Any:
            found = real(call)
            if not moved:
                assert isinstance(found, Allow)
                moved.append(True)
                with scene.store() as store:
                    move(guarded, store)
            return found

        guarded.gate.decide = decide  # type: ignore[method-assign]

    async with scene.guarded(wrap=wrap, role=None) as client:
        assert reason(await client.call(text="in between")) == MOVES[move]
    assert scene.received() == []
    assert scene.entries(Kind.GRANTED) == []
    assert [*scene.settled().values()] == [["denied"]]

"""The laws of the life of a call, over a world in memory that breaks at any step."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.artifact.verify import ArtifactRefused, Fault
from guard.core.errors import Reason, Refused
from guard.core.model import Allow, Deny, Pin, args_sha256
from guard.proxy import flow, steps
from guard.proxy.endings import Failed, Returned, Unknown
from guard.proxy.flow import TRIES, authorize
from tests.simulate import (
    BEFORE_DISPATCH,
    REPLY,
    STEPS,
    Break,
    MemoryLog,
    Torn,
    World,
    mimic,
    request,
    verified,
)

RAISED = (
    lambda: Refused(Reason.TOOL_CHANGED),
    lambda: Refused(Reason.ARTIFACT_MISSING),
    lambda: Refused(Reason.STORE_UNAVAILABLE),
    lambda: ArtifactRefused(Fault.SIGNATURE, "broken"),
    lambda: ArtifactRefused(Fault.ARGUMENTS, "broken"),
    lambda: ValueError("broken"),
    lambda: OSError(28, "no space left on device"),
    RecursionError,
    MemoryError,
    TimeoutError,
    asyncio.CancelledError,
    Torn,
)
NONSENSE = (
    None, False, 0, 1, "", "yes", b"yes", (), [], {}, {"decision": "allow"}, object(), Allow, Deny,
    Deny(Reason.UNEXPECTED), Ellipsis, NotImplemented, mimic(verified()),
)  # fmt: skip
breaks = st.builds(
    Break,
    step=st.sampled_from((*STEPS, "ask")),
    after=st.booleans(),
    raises=st.one_of(st.none(), st.sampled_from(RAISED)),
    returns=st.sampled_from(NONSENSE),
    visit=st.one_of(st.none(), st.integers(0, 2)),
)
endings = st.sampled_from(
    (
        Returned(b"{}"),
        Returned(b"{}", is_error=True),
        Failed(Reason.UPSTREAM_UNAVAILABLE),
        Failed(Reason.ARTIFACT_MISSING, integrity=True),
        Unknown(Reason.TIMED_OUT),
        Unknown(Reason.UNEXPECTED, executed=True),
    )
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def worlds(draw: st.DrawFn, log: MemoryLog | None = None) -> World:
    return World(
        log=log or MemoryLog(),
        breaks=tuple(draw(st.lists(breaks, max_size=3))),
        moved=draw(st.sampled_from((0, 0, 0, 1, 2, 3))),
        asks=draw(st.sampled_from((0, 0, 0, 1, 2, 3, 4))),
        ending=draw(endings),
        tamper=draw(st.sampled_from(("", "", "", "issue", "record"))),
        role=draw(st.sampled_from(("caller", "caller", "caller", "stranger"))),
        pin=draw(st.sampled_from((Pin.MATCHES, Pin.MATCHES, Pin.MATCHES, Pin.CHANGED))),
    )


def live(*worlds: World, arguments: dict[str, Any] | None = None) -> Sequence[object]:
    """Every world's call at once; what each came to, its answer or what it raised."""

    async def one(world: World) -> object:
        try:
            return await authorize(request(arguments), world)
        except (Exception, Torn, asyncio.CancelledError) as error:  # noqa: BLE001 - what it came to
            return error

    async def every() -> Sequence[object]:
        return await asyncio.gather(*(one(world) for world in worlds))

    return asyncio.run(every())


@given(worlds())
def test_nothing_is_dispatched_unless_steps_1_to_7_all_succeeded(world: World) -> None:
    """Before a dispatch stand six steps that succeeded, in order, the last try's about one call."""
    live(world)
    dispatched = [place for place, step in enumerate(world.steps()) if step == "dispatch"]
    assert len(dispatched) <= 1
    for place in dispatched:
        *_, bound, decided, issued, recorded, checked = world.trace[:place]
        assert world.trace[0] == ("identify", "ok", None)
        assert bound[:2] == ("bind", "ok")
        assert (decided[:2], issued[:2]) == (("decide", "ok"), ("issue", "ok"))
        assert (recorded[:2], checked[:2]) == (("record", "ok"), ("verify", "ok"))
        assert decided[2] is issued[2] is recorded[2] is checked[2]
        assert world.log.of(decided[2].id)[0] == "granted"
        assert world.refused == []
        assert world.role == "caller"
        assert world.pin is Pin.MATCHES


@pytest.mark.parametrize("ending", [Returned(b"{}"), Unknown(Reason.TIMED_OUT)])
def test_an_unbroken_world_dispatches_once(ending: Returned | Unknown) -> None:
    """The laws below are not kept by never sending anything."""
    world = World(ending=ending)
    assert live(world) == [REPLY]
    assert world.steps() == [*STEPS[:9]]
    assert len(world.sent) == 1


@given(st.sampled_from(NONSENSE), st.one_of(st.none(), st.sampled_from(RAISED)), st.booleans())
def test_a_question_that_breaks_never_permits(answer: object, raises: Any, after: bool) -> None:  # noqa: FBT001
    """Both ways: it fails, and it fails after a person said yes."""
    world = World(asks=1, breaks=(Break("ask", after=after, raises=raises, returns=answer),))
    live(world)
    assert "ask" in world.steps()
    assert world.sent == []
    assert world.log.open == []


@given(st.data())
def test_every_granted_has_exactly_one_ending(data: st.DataObject) -> None:
    """Whatever breaks, and however many calls run at once: after a restart each grant has one ending."""
    log = MemoryLog()
    many = [data.draw(worlds(log)) for _ in range(data.draw(st.integers(1, 4)))]
    live(*many)
    log.restart()
    calls = {call for _, call in log.entries}
    for call in calls:
        kinds = log.of(call)
        opened, closed = kinds.count("granted"), [kind for kind in kinds if kind not in {"granted", "denied"}]
        assert len(closed) == opened <= 1, kinds
    for world in many:
        for step, _, about in world.trace:
            if step == "verify":
                assert log.of(about.id)[0] == "granted"
        if world.sent:
            assert not any(isinstance(ending, Failed) for ending in world.endings)


@given(st.dictionaries(st.text(max_size=6), json_values, max_size=4), worlds())
def test_what_was_judged_is_what_is_sent(arguments: dict[str, Any], world: World) -> None:
    """What reaches the server is what was decided on, and the artifact beside it says so."""
    live(world, arguments=arguments)
    for sent, _ in world.sent:
        call = next(about for step, _, about in reversed(world.trace) if step == "verify")
        assert sent == world.judged[call.id] == {"name": "echo", "arguments": arguments}
        checked = next(about for step, _, about in world.trace if step == "dispatch")
        assert checked.claims["tctx"]["args_sha256"] == args_sha256(sent)
        assert checked.claims["tctx"]["decision_id"] == call.id


@pytest.mark.parametrize("step", ["issue", "record"])
def test_arguments_changed_after_the_decision_are_an_integrity_failure(step: str) -> None:
    """Whoever changes the arguments behind the decision's back gets nothing sent, and is noticed."""
    world = World(tamper=step)
    live(world)
    assert world.sent == []
    assert world.endings == [Failed(Reason.INTEGRITY, integrity=True)]


@given(st.sampled_from(BEFORE_DISPATCH), st.sampled_from(NONSENSE), st.booleans(), st.booleans())
def test_default_deny(step: str, answer: object, after: bool, every: bool) -> None:  # noqa: FBT001
    """A world that answers nonsense never dispatches: only the one right answer goes on."""
    names = BEFORE_DISPATCH if every else (step,)
    world = World(breaks=tuple(Break(name, after=after, returns=answer) for name in names))
    live(world)
    assert world.sent == []
    assert "dispatch" not in world.steps()


@given(st.sampled_from(BEFORE_DISPATCH), st.sampled_from(RAISED), st.booleans())
def test_a_step_that_raises_never_permits(step: str, raises: Any, after: bool) -> None:  # noqa: FBT001
    """However a step before dispatch fails, and whether or not it happened: nothing is sent."""
    world = World(breaks=(Break(step, after=after, raises=raises),))
    live(world)
    assert world.sent == []


@given(st.integers(0, 6))
def test_contended_after_three_tries(moved: int) -> None:
    """A decision whose ground moved is made again, three times at most, then denied `contended`."""
    world = World(moved=moved)
    live(world)
    tries = min(moved + 1, TRIES)
    assert TRIES == 3
    for step in ("bind", "decide", "issue", "record"):
        assert world.steps().count(step) == tries
    if moved < TRIES:
        assert len(world.sent) == 1
        assert world.refused == []
    else:
        assert world.sent == []
        assert world.refused == [Deny(Reason.CONTENDED)]
        assert [kind for kind, _ in world.log.entries] == ["denied"]


def test_a_limit_that_is_full_at_each_try_is_told_as_such() -> None:
    """Not `contended`: the transaction itself found no room, three times."""
    world = World(moved=TRIES, told=Deny(Reason.LIMIT_REACHED, "few"))
    live(world)
    assert world.sent == []
    assert world.refused == [Deny(Reason.LIMIT_REACHED, "few")]
    world = World(moved=TRIES - 1, told=Deny(Reason.LIMIT_REACHED, "few"))
    live(world)
    assert (len(world.sent), world.refused) == (1, [])


def test_a_denial_is_refused_as_it_was_decided() -> None:
    """Nothing is issued for it, and its reason is the policy's."""
    world = World(role="stranger")
    live(world)
    assert world.steps() == ["identify", "bind", "decide", "refuse"]
    assert world.refused == [Deny(Reason.UNAUTHORIZED_ROLE)]


def test_a_caller_who_is_no_longer_one_is_not_tried_again() -> None:
    """What moved under the decision may be the revocation of the caller's own key."""
    gone = Break("identify", raises=lambda: Refused(Reason.REVOKED_KEY), visit=1)
    world = World(moved=1, breaks=(gone,))
    live(world)
    assert world.sent == []
    assert world.refused == [Deny(Reason.REVOKED_KEY)]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.SIGNATURE, Reason.ARTIFACT_INVALID),
        (Fault.REPLAYED, Reason.ARTIFACT_INVALID),
        (Fault.ARGUMENTS, Reason.INTEGRITY),
        (Fault.TOOL, Reason.INTEGRITY),
        (Fault.DEFINITION, Reason.INTEGRITY),
    ],
)
def test_an_artifact_that_does_not_verify_hurts_integrity(fault: Fault, reason: Reason) -> None:
    """A grant that the verifier refuses ends as failed, and its conversation is to be contained."""
    world = World(breaks=(Break("verify", raises=lambda: ArtifactRefused(fault, "broken")),))
    live(world)
    assert world.endings == [Failed(reason, integrity=True)]


@pytest.mark.parametrize("fault", [Fault.EXPIRED, Fault.NOT_YET_VALID])
def test_a_clock_that_jumps_hurts_no_integrity(fault: Fault) -> None:
    """An artifact that is not of its time is not sent, and contains nothing."""
    world = World(breaks=(Break("verify", raises=lambda: ArtifactRefused(fault, "broken")),))
    live(world)
    assert world.endings == [Failed(Reason.ARTIFACT_INVALID, integrity=False)]


@pytest.mark.parametrize("after", [False, True])
def test_what_cannot_be_recorded_is_not_shown(after: bool) -> None:  # noqa: FBT001
    """A result whose ending could not be recorded is withheld, and said to be executed."""
    world = World(breaks=(Break("end", after=after, raises=lambda: OSError("disk")),))
    live(world)
    assert len(world.sent) == 1
    shown = [about[1] for step, _, about in world.trace if step == "reply"]
    assert shown == [Unknown(Reason.STORE_UNAVAILABLE, executed=True)]


@pytest.mark.parametrize("after", [False, True])
def test_a_dispatch_that_breaks_is_unknown(after: bool) -> None:  # noqa: FBT001
    """Nobody knows whether a dispatch that raised sent anything: never failed, never retried."""
    world = World(breaks=(Break("dispatch", after=after, raises=lambda: OSError("pipe")),))
    live(world)
    assert world.steps().count("dispatch") == 1
    assert world.endings == [Unknown(Reason.UNEXPECTED)]


def test_the_world_has_at_most_twelve_methods() -> None:
    """The interface between the flow and the world stays small enough to hold in one's head."""
    methods = [name for name, _ in inspect.getmembers(steps.World, inspect.isfunction) if name[0] != "_"]
    assert set(methods) == {*STEPS, "ask"}
    assert len(methods) <= 12


def test_the_flow_is_one_page() -> None:
    """The ten steps are read at one sight."""
    assert len(Path(flow.__file__).read_text(encoding="utf-8").splitlines()) <= 110

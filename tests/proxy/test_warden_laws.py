"""What the warden closed gets nothing more, whatever is said to it; and a blind warden closes all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.errors import Reason
from guard.proxy import warden, wire
from guard.proxy.callbacks import Callbacks
from guard.proxy.endings import Flight, Unknown
from guard.proxy.resumption import Streams
from guard.proxy.wishes import SUBSCRIBE, Wishes
from tests.proxy.features import ERAS, Estates, servers, until
from tests.proxy.scene import LEGACY, MODERN
from tests.proxy.test_resumption import Clock, asked, begun
from tests.proxy.wards import ONE, UPDATED, about, contain, listening, someone, subscribed, told, tool, two

ACTS = ("progress", "note", "tell", "away", "life", "lost", "resume", "old")


def act(name: str, flight: Flight, stream: Any, streams: Streams, wires: list[Any]) -> None:
    """What a server, a client or a clock does to an answer that is under way."""
    if name == "progress" and flight.on_progress is not None:
        flight.on_progress({})
    elif name == "note" and flight.on_note is not None:
        flight.on_note("notifications/message", b"{}")
    elif name == "tell" and flight.tell is not None:
        flight.tell(b'{"secret":1}\n')
    elif name == "away" and flight.on_away is not None:
        flight.on_away(5)
    elif name == "life":
        stream.show_life()
    elif name == "lost" and stream.exchange is not None:
        stream.exchange.lost()
    elif name in {"resume", "old"}:
        after = 0 if name == "old" else stream.next - 1
        if (found := streams.find(f"{stream.number}-{after}")) is not None:
            wire_, other = asked()
            wires.append(wire_)
            found[0].resume(other, found[1])


@given(st.lists(st.sampled_from(ACTS)), st.lists(st.sampled_from(ACTS)), st.booleans())
def test_what_is_closed_never_gets_another_byte(before: list[str], after: list[str], whole: bool) -> None:  # noqa: FBT001
    """Whatever was told before, and whatever is said afterwards: signs of life and its own end, no more."""

    async def play() -> None:
        streams = Streams(Clock())
        first, _, stream = begun(streams)
        wires, flight = [first], Flight(tell=stream.tell, on_away=stream.away, on_bar=stream.clear)
        flight.ending = asyncio.get_running_loop().create_future()
        flight.on_progress = lambda _: stream.tell(b'{"secret":2}\n')
        flight.on_note = lambda *_: stream.tell(b'{"secret":3}\n')
        for name in before:
            act(name, flight, stream, streams, wires)
        flight.bar(Reason.REVOKED_KEY)
        if whole:
            streams.withhold()
        told_before = [wire_.written.count(b"secret") for wire_ in wires]
        for name in after:
            act(name, flight, stream, streams, wires)
        stream.finish(b'{"end":1}\n')
        told_after = [wire_.written.count(b"secret") for wire_ in wires]
        assert told_after == [*told_before, *[0] * (len(wires) - len(told_before))]
        assert await flight.ending == Unknown(Reason.REVOKED_KEY)

    asyncio.run(play())


@given(st.lists(st.tuples(st.sampled_from(["wish", "turn"]), st.integers(0, 3))))
def test_a_server_is_asked_for_what_is_wished_and_seen(steps: list[tuple[str, int]]) -> None:
    """However sight comes and goes: what stands at the server is what the client asked for and may see."""
    wishes, asker = Wishes(), object()
    wished: set[str] = set()
    stands: set[str] = set()
    sight: dict[str, bool] = {}
    for what, number in steps:
        uri = f"test://{number}"
        if what == "wish":
            wishes.note(asker, SUBSCRIBE, {"uri": uri})  # type: ignore[arg-type]
            wished.add(uri)
            stands.add(uri)
        else:
            sight[uri] = not sight.get(uri, True)
        for method, params in wishes.review(asker, lambda one: sight.get(one, True)):  # type: ignore[arg-type]
            (stands.add if method == SUBSCRIBE else stands.discard)(params["uri"])
        assert stands == {one for one in wished if sight.get(one, True)}
        assert {params["uri"] for _, params in wishes.standing(asker)} == stands  # type: ignore[arg-type]


async def test_a_question_is_closed_with_its_call_and_with_what_may_belong_to_it() -> None:
    """Of two calls the other one's question stays; what came out of the blue goes with either."""
    sent: list[bytes] = []
    answers: dict[str, Any] = {}
    callbacks = Callbacks(lambda line, _: sent.append(line) is None)
    flights: dict[str, Flight | None] = {"one": Flight(), "two": Flight(), "none": None}
    for name, flight in flights.items():

        def answer(value: Any, is_error: bool, name: str = name) -> None:  # noqa: FBT001
            answers[name] = (value, is_error)

        callbacks.ask("sampling/createMessage", b"{}", answer, flight, lambda *_: None)
    callbacks.bar(flights["one"])
    assert {name: found[1] for name, found in answers.items()} == {"one": True, "none": True}
    callbacks.hear(wire.Response("guard-2", {"fine": 1}))
    assert answers["two"] == ({"fine": 1}, False)
    callbacks.hear(wire.Response("guard-1", {"late": 1}))
    assert answers["one"][1] is True


@ERAS
async def test_who_cannot_see_what_stands_closes_everything(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that does not say what was revoked: everything ends, nothing begins, until it says it again."""
    monkeypatch.setattr(warden, "BLIND_SECONDS", 0.5)
    async with two(tmp_path, version, "revocation") as at:
        acts = [{"appears": str(at.gate("go"))}, {"answer": {"content": [], "secret": "x"}}]
        _, call = at.ended.start("tools/call", {"name": "do", "arguments": {"acts": acts}})
        end = await listening(at.ended, resourceSubscriptions=[ONE]) if version == MODERN else None
        await until(lambda: at.estate.received(method="tools/call"))
        assert at.estate.serving is not None
        store = at.estate.serving.house.log.store
        with monkeypatch.context() as broken:
            broken.setattr(store, "versions", _fails)
            assert about(await asyncio.wait_for(call, 20))["reason"] == "store-unavailable"
            if end is None:
                await asyncio.wait_for(at.ended.ended.wait(), 20)
                assert (await at.ended.raw.send("GET")).status == 403
            else:
                assert told(await asyncio.wait_for(end, 20)) == (4403, "store-unavailable")
                answer = await at.ended.ask("subscriptions/listen", {"notifications": {}})
                assert told(answer) == (4403, "store-unavailable")
        at.gate("go").touch()
        look = at.estate.serving.house.warden
        await until(lambda: look._blind is None)
        if version == LEGACY:
            await subscribed(at.ended)
            async with at.ended.raw.listen() as stream:
                await at.ended.do({"update": ONE})
                assert (await stream.next())["params"] == {"uri": ONE}
        else:
            await listening(at.ended, resourceSubscriptions=[ONE])
            await at.ended.do({"update": ONE})
            await at.ended.hears(UPDATED)
    assert ["granted", "unknown"] in at.estate.endings()


def _fails(tenant: str) -> Any:
    raise OSError("the disk is gone")


async def test_one_that_breaks_keeps_no_other_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that cannot be closed is told of on standard error, and the next one is closed."""
    async with two(tmp_path, MODERN, "containment") as at:
        ends = [await listening(party, toolsListChanged=True) for party in (at.ended, at.honest)]
        assert at.estate.serving is not None
        first, second = [*at.estate.serving.house.warden._known, *at.estate.serving.house.warden._new]
        assert first is not second
        monkeypatch.setattr(first, "bar", _fails)
        contain(at.estate, "all", "")
        done, _ = await asyncio.wait(ends, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert [told(end.result()) for end in done] == [(4403, "principal-contained")]


@pytest.mark.parametrize(("kind", "target"), [("principal", someone()), ("tool", tool("do"))])
async def test_what_moved_before_the_first_look_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, target: str
) -> None:
    """Nobody had asked for the versions when the call was granted: it is judged all the same."""
    monkeypatch.setattr(warden, "LOOK_SECONDS", 3600.0)
    estate = Estates(tmp_path / "estate", *servers(MODERN, "stdio", shared=True))  # nobody's link
    async with estate.speaking(MODERN, "http") as party:
        acts = [{"appears": str(tmp_path / "go")}]
        _, call = party.start("tools/call", {"name": "do", "arguments": {"acts": acts}})
        await until(lambda: estate.received(method="tools/call"))
        contain(estate, kind, target)
        assert estate.serving is not None
        estate.serving.house.warden._look()
        assert about(await asyncio.wait_for(call, 20))["reason"] == f"{kind}-contained"
        (tmp_path / "go").touch()

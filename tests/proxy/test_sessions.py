"""Handshake-era sessions and inferred conversations: whose they are, how many, how long."""

from __future__ import annotations

from typing import Any, cast

import pytest

from guard.core.model import Principal
from guard.proxy.server import Session
from guard.proxy.sessions import QUIET_SECONDS, SWEEP_SECONDS, Held, Sessions, new_session
from tests.proxy.test_resumption import asked, begun

ADA = Principal("default", "api-key", "ada", "reader")
BOB = Principal("default", "api-key", "bob", "reader")
STRANGERS = [
    BOB,
    Principal("other", "api-key", "ada", "reader"),
    Principal("default", "launch", "ada", "reader"),
]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """What Sessions asks of a session."""

    def __init__(self) -> None:
        self.in_flight: dict[Any, Any] = {}
        self.closed = 0
        self.notify: Any = None

    def attach(self, notify: Any) -> None:
        self.notify = notify

    def close(self) -> None:
        self.closed += 1


class Hall:
    """Sessions on a clock of the test's."""

    def __init__(self, most: int = 3, idle: float = 600.0) -> None:
        self.clock = Clock()
        self.sessions = Sessions(most, idle, self.clock)

    def begin(self, id_: str, principal: Principal = ADA) -> tuple[Held, Fake]:
        fake = Fake()
        return self.sessions.begin(id_, principal, cast("Session", fake)), fake

    def later(self, seconds: float) -> None:
        self.clock.now += seconds


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_session_is_nobody_elses(stranger: Principal) -> None:
    """Another name, tenant or issuer finds nothing under the very same id, and holds nothing up."""
    hall = Hall()
    held, _ = hall.begin("id")
    assert hall.sessions.find("id", stranger) is None
    hall.later(1)
    assert hall.sessions.find("id", stranger) is None
    assert held.used == 1000.0
    assert hall.sessions.find("id", ADA) is held
    assert held.used == 1001.0


async def test_a_session_that_was_ended_is_found_no_more() -> None:
    """It is closed once, however often it is ended, and its stream with it."""
    hall = Hall()
    held, fake = hall.begin("id")
    _, exchange, held.listening = begun(held.streams)
    hall.sessions.end(held)
    hall.sessions.end(held)
    assert (fake.closed, exchange.finished, len(hall.sessions)) == (1, True, 0)
    assert hall.sessions.find("id", ADA) is None


def test_an_idle_session_is_let_go_of_and_a_used_one_stays() -> None:
    """After its idle time, measured from its last use."""
    hall = Hall(idle=600)
    hall.begin("idle")
    hall.begin("used")
    hall.later(599)
    assert hall.sessions.find("used", ADA) is not None
    hall.later(SWEEP_SECONDS)
    assert hall.sessions.find("idle", ADA) is None
    assert hall.sessions.find("used", ADA) is not None


async def test_a_session_with_work_or_an_open_stream_is_not_idle() -> None:
    """Neither a long call nor a client that only listens is cut off."""
    hall = Hall(idle=600)
    _, working = hall.begin("working")
    listening, fake = hall.begin("listening")
    working.in_flight[1] = object()
    _, _, listening.listening = begun(listening.streams)
    hall.later(10_000)
    assert hall.sessions.find("other", BOB) is None  # whoever asks sweeps
    assert (working.closed, fake.closed, len(hall.sessions)) == (0, 0, 2)


def test_one_more_session_than_allowed_ends_the_idlest_of_the_same_principal() -> None:
    """Nobody's sessions make room for those of another."""
    hall = Hall(most=2)
    _, bobs = hall.begin("bob's", BOB)
    hall.later(1)
    _, old = hall.begin("old")
    hall.later(1)
    _, young = hall.begin("young")
    hall.later(1)
    assert hall.sessions.find("old", ADA) is not None  # now `young` is the idlest
    hall.begin("new")
    assert [bobs.closed, old.closed, young.closed] == [0, 0, 1]
    assert hall.sessions.find("young", ADA) is None
    for number in range(50):
        hall.begin(f"more-{number}")
    assert len(hall.sessions) == 2 + 1
    assert hall.sessions.find("bob's", BOB) is not None


def test_a_lower_bound_holds_from_the_next_session_on() -> None:
    """Lowered by a reload: the newest stays, all others make room."""
    hall = Hall(most=3)
    fakes = []
    for id_ in ("a", "b", "c"):
        fakes.append(hall.begin(id_)[1])
        hall.later(1)
    hall.sessions.most = 1
    held, _ = hall.begin("d")
    assert hall.sessions.each() == [held]
    assert [fake.closed for fake in fakes] == [1, 1, 1]


def test_closing_ends_every_session() -> None:
    """All are closed, none is left."""
    hall = Hall()
    fakes = [hall.begin(str(number), principal)[1] for number, principal in enumerate((ADA, BOB))]
    hall.sessions.close()
    assert [fake.closed for fake in fakes] == [1, 1]
    assert hall.sessions.each() == []


async def test_a_notification_goes_to_the_open_stream_or_nowhere() -> None:
    """Without a stream it is dropped: nothing piles up for a client that does not listen."""
    hall = Hall()
    held, fake = hall.begin("id")
    assert fake.notify(b'{"lost":1}\n') is False
    wire, _, held.listening = begun(held.streams)
    assert fake.notify(b'{"heard":1}\n') is True
    assert wire.messages == [b'{"heard":1}']


async def test_what_comes_while_the_stream_is_lost_is_kept_unless_it_is_a_request() -> None:
    """The client hears of it when it comes back; a server that asks is told at once that nobody is there."""
    hall = Hall()
    held, fake = hall.begin("id")
    _, exchange, stream = begun(held.streams)
    held.listening = stream
    exchange.lost()
    assert fake.notify(b'{"jsonrpc":"2.0","id":"guard-1","method":"ping"}\n') is False
    assert fake.notify(b'{"jsonrpc":"2.0","method":"changed"}\n') is True
    again, other = asked()
    stream.resume(other, 0)
    assert again.messages == [b'{"jsonrpc":"2.0","method":"changed"}']


def test_calls_without_a_conversation_belong_together_until_it_was_quiet() -> None:
    """One conversation for each principal; after the quiet a new one."""
    hall = Hall()
    first = hall.sessions.inferred(ADA)
    assert first.source == "inferred"
    for _ in range(3):
        hall.later(QUIET_SECONDS - 1)
        assert hall.sessions.inferred(ADA) == first
    assert all(hall.sessions.inferred(stranger) != first for stranger in STRANGERS)
    hall.later(QUIET_SECONDS)
    again = hall.sessions.inferred(ADA)
    assert again.id != first.id


def test_conversations_of_principals_that_are_gone_are_forgotten() -> None:
    """Two hundred callers come, and one stays."""
    hall = Hall()
    for number in range(200):
        hall.sessions.inferred(Principal("default", "api-key", str(number), "reader"))
    hall.later(QUIET_SECONDS)
    hall.sessions.inferred(ADA)
    assert len(hall.sessions._inferred) == 1


def test_a_session_id_is_not_in_its_conversation() -> None:
    """The conversation is written down, the id is what opens the session: one does not tell the other."""
    made = [new_session() for _ in range(100)]
    assert len({id_ for id_, _ in made}) == len({conversation.id for _, conversation in made}) == 100
    for id_, conversation in made:
        assert len(id_) == 22  # 128 bits, base64url
        assert conversation.source == "session"
        assert id_ not in conversation.id
        assert conversation.id.removeprefix("session-") not in id_

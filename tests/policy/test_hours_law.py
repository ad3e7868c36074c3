"""Hours: inside or outside, by the clock on the wall, held against the page written down once more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.errors import GuardError, Reason
from guard.core.model import Allow, Deny
from guard.policy.decide import decide
from guard.policy.kinds import Hours
from guard.policy.zones import zone
from tests.policy.calls import ROLES, TOOLS, call, policy

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ZONES: Final = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
)
MS: Final = 60_000


def hours(begin: int, end: int, days: frozenset[int], name: str) -> Hours:
    return Hours("h", (), days, begin, end, zone(name))


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@given(
    st.integers(0, 24 * 60 - 1),
    st.integers(0, 24 * 60),
    st.frozensets(st.integers(0, 6), min_size=1),
    st.sampled_from(ZONES),
    st.integers(at("2015-01-01T00:00:00+00:00"), at("2036-12-31T00:00:00+00:00")),
)
def test_it_is_inside_by_the_clock_on_the_wall(
    begin: int, end: int, days: frozenset[int], name: str, now: int
) -> None:
    """Which day the stretch began on, and whether it has ended."""
    wall = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=now)).astimezone(ZoneInfo(name))
    minute = wall.hour * 60 + wall.minute
    began_today = minute >= begin and (begin >= end or minute < end) and wall.weekday() in days
    began_yesterday = begin >= end and minute < end and (wall - timedelta(days=1)).weekday() in days
    assert hours(begin, end, days, name).hold(now) == (began_today or began_yesterday)


def rule(**more: Any) -> dict[str, Any]:
    return {
        "id": "office",
        "tools": ["git_commit"],
        "from": "08:00",
        "to": "18:00",
        "zone": "Europe/Berlin",
        **more,
    }


def open_at(text: str, *rules: dict[str, Any]) -> bool:
    found = decide(call(now=at(text), last=0), policy(roles=ROLES, tools=TOOLS, hours=list(rules)))
    assert isinstance(found, Allow) or (found == Deny(Reason.OUTSIDE_HOURS, min(one["id"] for one in rules)))
    return isinstance(found, Allow)


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("2026-11-23T07:59:59.999+01:00", False),
        ("2026-11-23T08:00:00+01:00", True),
        ("2026-11-23T17:59:59.999+01:00", True),
        ("2026-11-23T18:00:00+01:00", False),
        ("2026-11-23T07:00:00+00:00", True),
        ("2026-07-23T06:00:00+00:00", True),
        ("2026-07-23T16:00:00+00:00", False),
    ],
)
def test_the_end_is_excluded_and_summer_time_counts(text: str, inside: bool) -> None:  # noqa: FBT001
    """To the millisecond, and by the wall clock of the zone."""
    assert open_at(text, rule()) is inside


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("2026-11-23T22:00:00+01:00", True),
        ("2026-11-24T05:59:00+01:00", True),
        ("2026-11-24T06:00:00+01:00", False),
        ("2026-11-24T22:00:00+01:00", False),
        ("2026-11-23T05:00:00+01:00", False),
    ],
)
def test_a_night_belongs_to_the_day_it_began_on(text: str, inside: bool) -> None:  # noqa: FBT001
    """Monday night ends on Tuesday morning, and no other night is open."""
    assert open_at(text, rule(**{"from": "22:00", "to": "06:00", "days": ["mon"]})) is inside


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("2026-10-25T02:30:00+02:00", True),
        ("2026-10-25T02:30:00+01:00", True),
        ("2026-10-25T03:00:00+01:00", False),
        ("2026-03-29T01:59:00+01:00", False),
        ("2026-03-29T03:00:00+02:00", False),
    ],
)
def test_an_hour_that_occurs_twice_is_inside_twice(text: str, inside: bool) -> None:  # noqa: FBT001
    """As the wall clock shows; one that is left out never is."""
    assert open_at(text, rule(**{"from": "02:00", "to": "03:00"})) is inside


def test_the_end_of_the_day_and_the_whole_of_it() -> None:
    """`24:00` is midnight; from midnight to it nothing is left out; `from` = `to` is a day long."""
    last, first = "2026-11-23T23:59:59.999+01:00", "2026-11-24T00:00:00+01:00"
    evening = rule(**{"from": "23:00", "to": "24:00", "days": ["mon"]})
    assert [open_at(each, evening) for each in (last, first)] == [True, False]
    day = rule(**{"from": "00:00", "to": "24:00", "days": ["mon"]})
    assert [open_at(each, day) for each in (last, first)] == [True, False]
    around = rule(**{"from": "12:00", "to": "12:00", "days": ["mon"]})
    assert [open_at(each, around) for each in (last, first, "2026-11-24T12:00:00+01:00")] == [
        True,
        True,
        False,
    ]


def test_one_of_several_is_enough() -> None:
    """And where none is, the first by its id is named."""
    morning, evening = rule(id="a", to="12:00"), rule(id="b", **{"from": "13:00"})
    opened = [
        open_at(f"2026-11-23T{time}+01:00", morning, evening) for time in ("09:00:00", "12:30:00", "14:00:00")
    ]
    assert opened == [True, False, True]


class Lost:
    """A zone whose rules are gone."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize("now", [10**18, -(10**18)])
def test_a_time_that_cannot_be_told_denies(now: int) -> None:
    """Beyond what a calendar holds it is not inside: the rule failed, and that denies."""
    rules = policy(roles=ROLES, tools=TOOLS, hours=[rule(**{"from": "00:00", "to": "24:00"})])
    found = decide(call(now=now, last=-(10**19)), rules)
    assert isinstance(found, Deny)
    assert found.reason is Reason.RULE_FAILED


@pytest.mark.parametrize(
    "name",
    ["", "/", "Europe", "europe/berlin", "Europe/berlin ", "../Europe/Berlin", "Europe/../UTC",
     "Europe/./Berlin", "/etc/localtime", "../../../../../../../../etc/localtime", "zone.tab", "__init__.py",
     "UTC\x00", "Mars/Phobos"],
)  # fmt: skip
def test_no_name_reaches_another_file(name: str) -> None:
    """A zone comes from the package of zones and nowhere else; what is none is said before anything loads."""
    with pytest.raises(ValueError, match="no time zone"):
        zone(name)
    with pytest.raises(GuardError):
        policy(roles=ROLES, tools=TOOLS, hours=[rule(zone=name)])


@pytest.mark.parametrize(
    "wrong",
    [{"from": "8:00"}, {"from": "24:00"}, {"to": "24:01"}, {"to": "25:00"}, {"days": []},
     {"days": ["mon", "mon"]}, {"days": ["Mon"]}, {"from": 800}],
)  # fmt: skip
def test_no_other_spelling_of_hours_loads(wrong: dict[str, Any]) -> None:
    """A rule that could be read in two ways is no rule."""
    with pytest.raises(GuardError):
        policy(roles=ROLES, tools=TOOLS, hours=[rule(**wrong)])

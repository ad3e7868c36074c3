"""Budgets, what runs at once, hours, sizes: on the way of real calls, on either store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from guard.config.home import open_home
from guard.lineage.entry import Kind
from guard.lineage.postgres import schema
from guard.lineage.postgres.address import Address
from tests.proxy.asked import about
from tests.proxy.features import BYS, ERAS, Estates, Party, servers, until
from tests.proxy.raw_http import RawHttp
from tests.proxy.scene import LEGACY, MODERN
from tests.proxy.test_limited import another

ALL_AT_ONCE: Final = 64
WHERE: Final = pytest.mark.parametrize("where", ["sqlite", "postgresql"])
WAYS: Final = pytest.mark.parametrize(
    ("version", "by", "where"),
    [
        (MODERN, "stdio", "sqlite"),
        (MODERN, "http", "postgresql"),
        (LEGACY, "http", "sqlite"),
        (LEGACY, "stdio", "postgresql"),
    ],
    ids=[
        "modern-stdio-sqlite",
        "modern-http-postgresql",
        "handshake-http-sqlite",
        "handshake-stdio-postgresql",
    ],
)
"""Each era, transport and store with each other."""
BUDGET: Final[Mapping[str, Any]] = {
    "id": "money",
    "tools": ["echo"],
    "per": "principal",
    "sum": 50_00,
    "of": "/amount",
    "digits": 2,
    "currency": {"at": "/currency", "is": "EUR"},
    "window": "1d",
}
ONCE: Final[Mapping[str, Any]] = {
    "id": "few",
    "tools": ["do"],
    "per": "principal",
    "at_once": 3,
    "window": "10m",
}


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path, where: str) -> Path:
    """A folder whose home is on that store."""
    folder = tmp_path / "estate"
    if where == "postgresql":
        address = Address(request.getfixturevalue("database"))
        schema.upgrade(address)
        (folder / "home").mkdir(parents=True, mode=0o700)
        open_home(folder / "home").store(address=address).close()  # which the home remembers
    return folder


def said(answer: Mapping[str, Any]) -> str:
    """What became of a call: "allow", or why not."""
    refused = "error" in answer or answer["result"].get("isError")
    return str(about(answer)["reason"]) if refused else "allow"


def pay(amount: Any, currency: Any = "EUR") -> dict[str, Any]:
    return {"name": "echo", "arguments": {"amount": amount, "currency": currency}}


async def many(party: Party, every: list[dict[str, Any]]) -> list[str]:
    """All of these calls at once; what became of each."""
    tasks = [party.start("tools/call", params)[1] for params in every]
    return [said(answer) for answer in await asyncio.gather(*tasks)]


def spent(estate: Estates) -> float:
    """What reached the server, in all."""
    return sum(float(message["params"]["arguments"]["amount"]) for message in estate.received())


# -- budgets ---------------------------------------------------------------------------------------


@WAYS
async def test_64_at_once_cannot_overspend(home: Path, version: str, by: str) -> None:
    """64 calls of 7.30 against 50: six fit, and not one more, whatever order they come in."""
    estate = Estates(home, *servers(version, "stdio"), policy={"limits": [{**BUDGET, "sum": 50}]})
    async with estate.speaking(version, by) as party:
        found = Counter(await many(party, [pay("7.30")] * ALL_AT_ONCE))
        assert found == {"allow": 6, "limit-reached": ALL_AT_ONCE - 6}
        assert said(await party.ask("tools/call", pay("6.21"))) == "limit-reached"
        assert said(await party.ask("tools/call", pay("6.20"))) == "allow"
        assert said(await party.ask("tools/call", pay("0.01"))) == "limit-reached"
        assert said(await party.ask("tools/call", pay(0))) == "allow"
    assert round(spent(estate), 2) == 50.0
    denied = [entry["decision"]["rule"] for entry in estate.denials()]
    assert denied == ["money"] * (ALL_AT_ONCE - 6 + 2)


@WHERE
async def test_two_processes_share_a_budget(home: Path) -> None:
    """Each knows nothing of the other but the store: 50 in all."""
    estate = Estates(home, *servers(MODERN, "stdio"), policy={"limits": [{**BUDGET, "sum": 50}]})
    key = estate.key()
    with another(estate, "one") as first, another(estate, "two") as second:
        clients = [RawHttp(port, version=MODERN, key=key) for port in (first, second)]
        calls = [
            client.request("tools/call", pay("7.30")) for client in clients for _ in range(ALL_AT_ONCE // 2)
        ]
        found = Counter(said(answer.message()) for answer in await asyncio.gather(*calls))
    assert found == {"allow": 6, "limit-reached": ALL_AT_ONCE - 6}
    assert round(spent(estate), 2) == 43.8


AMOUNTS: Final[list[Any]] = [
    None, True, "1e3", "-1", -1, "+5", " 5", "5 ", "5,00", "0x10", "\u0665", "1_000", "NaN", "Infinity", "",
    [5], {"v": 5}, "1.0000000001", "5\u20ac",
]  # fmt: skip


@ERAS
async def test_an_amount_that_nobody_can_read_is_denied(tmp_path: Path, version: str) -> None:
    """No form of a number slips past what is counted, nor another currency, nor none."""
    estate = Estates(tmp_path / "e", *servers(version, "stdio"), policy={"limits": [{**BUDGET, "sum": 50}]})
    bad = [pay(amount) for amount in AMOUNTS] + [pay(5, currency) for currency in ("USD", "eur", None, 1)]
    bad += [{"name": "echo", "arguments": {}}, {"name": "echo", "arguments": {"amount": 5}}]
    async with estate.speaking(version, "stdio") as party:
        for params in bad:
            assert said(await party.ask("tools/call", params)) == "amount-unreadable", params
        for huge in (10**15, 1e300, "999999999999999"):
            assert said(await party.ask("tools/call", pay(huge))) == "limit-reached", huge
        assert said(await party.ask("tools/call", pay("50.00"))) == "allow"
    assert len(estate.received()) == 1


@WHERE
async def test_a_crash_keeps_what_was_taken(home: Path) -> None:
    """Guard is killed while the server works on 45 of 50: after the restart there is room for 5."""
    limit = {**BUDGET, "tools": ["do"], "sum": 50}
    estate = Estates(home, *servers(MODERN, "stdio"), policy={"limits": [limit]})

    key = estate.key()

    def do(amount: int, *acts: Mapping[str, Any]) -> dict[str, Any]:
        return {"name": "do", "arguments": {"acts": acts, "amount": amount, "currency": "EUR"}}

    with another(estate, "one", kill=True) as port:
        client = RawHttp(port, version=MODERN, key=key)
        call = asyncio.ensure_future(client.request("tools/call", do(45, {"sleep": 30})))
        await until(estate.received)
    with pytest.raises((EOFError, ConnectionError)):
        await call
    with another(estate, "two") as port:
        client = RawHttp(port, version=MODERN, key=key)
        answers = [await client.request("tools/call", do(amount)) for amount in (6, 5)]
        assert [said(answer.message()) for answer in answers] == ["limit-reached", "allow"]
    assert [entry["kind"] for entry in estate.entries(Kind.UNKNOWN)] == ["unknown"]


# -- at once ---------------------------------------------------------------------------------------


@WAYS
async def test_of_64_at_once_three_run(home: Path, version: str, by: str) -> None:
    """The others are denied; each that has ended makes room for one."""
    estate = Estates(home, *servers(version, "stdio"), policy={"limits": [ONCE]})
    go = home / "go"
    wait = {"name": "do", "arguments": {"acts": [{"appears": str(go)}, {"answer": {"content": []}}]}}
    async with estate.speaking(version, by) as party:
        tasks = [party.start("tools/call", wait)[1] for _ in range(ALL_AT_ONCE)]
        await until(lambda: sum(task.done() for task in tasks) == ALL_AT_ONCE - 3)
        assert {said(task.result()) for task in tasks if task.done()} == {"limit-reached"}
        await until(lambda: len(estate.received()) == 3)
        go.touch()
        assert [said(await task) for task in tasks].count("allow") == 3
        for _ in range(7):  # one after the other there is always room
            assert said(await party.ask("tools/call", wait)) == "allow"
    assert len(estate.received()) == 10


@ERAS
async def test_who_does_not_know_keeps_the_place(tmp_path: Path, version: str) -> None:
    """A call whose ending nobody knows may still run: it counts until its window has passed."""
    limit = {**ONCE, "at_once": 1}
    estate = Estates(tmp_path / "e", *servers(version, "stdio"), policy={"limits": [limit]})
    async with estate.speaking(version, "http") as party:
        id_, task = party.start("tools/call", {"name": "do", "arguments": {"acts": [{"sleep": 5}]}})
        await until(estate.received)
        party.cancel(id_)
        await until(lambda: estate.entries(Kind.UNKNOWN))
        assert said(await party.do({"answer": {"content": []}})) == "limit-reached"
        task.cancel()
    assert len(estate.received()) == 1


# -- hours -----------------------------------------------------------------------------------------


def stretch(begin: int, end: int, *, east: int = 0) -> dict[str, str]:
    """From so many hours before or after now to so many, on the clocks of a zone so far east of Greenwich."""
    now = datetime.now(UTC) + timedelta(hours=east)
    zone = f"Etc/GMT{-east:+d}" if east else "UTC"
    hour = [f"{now + timedelta(hours=each):%H:%M}" for each in (begin, end)]
    return {"from": hour[0], "to": hour[1], "zone": zone}


@ERAS
@BYS
@pytest.mark.parametrize(
    ("hours", "open_"),
    [
        ([stretch(-2, 2)], True),
        ([stretch(2, 5)], False),
        ([stretch(-5, -2)], False),
        ([stretch(2, 5), stretch(-2, 2)], True),
        ([stretch(-2, 2, east=9)], True),
        ([{**stretch(-2, 2, east=9), "zone": "UTC"}], False),
    ],
    ids=["now", "later", "before", "one-of-two", "elsewhere", "wrong-zone"],
)
async def test_a_call_outside_its_hours_is_denied(
    tmp_path: Path,
    version: str,
    by: str,
    hours: list[dict[str, str]],
    open_: bool,  # noqa: FBT001
) -> None:
    """By the clocks of the zone that the rule names; tools that no hours name are open."""
    rules = [{"id": f"desk-{place}", "tools": ["echo"], **each} for place, each in enumerate(hours)]
    estate = Estates(tmp_path / "e", *servers(version, "stdio"), policy={"hours": rules})
    async with estate.speaking(version, by) as party:
        found = said(await party.ask("tools/call", {"name": "echo", "arguments": {}}))
        assert found == ("allow" if open_ else "outside-hours")
        assert said(await party.do({"answer": {"content": []}})) == "allow"
    assert len(estate.received()) == 1 + open_


# -- sizes -----------------------------------------------------------------------------------------


@ERAS
@BYS
async def test_a_result_that_is_too_large_is_not_shown(tmp_path: Path, version: str, by: str) -> None:
    """The client hears that it ran, and nothing of it; the entry keeps its digest."""
    limits = [{"id": "size", "tools": ["do"], "result_bytes": 1000}]
    estate = Estates(tmp_path / "e", *servers(version, "stdio"), policy={"limits": limits})
    async with estate.speaking(version, by) as party:
        assert said(await party.do({"answer": {"content": [{"type": "text", "text": "x" * 500}]}})) == "allow"
        answer = await party.do({"answer": {"content": [{"type": "text", "text": "secret" * 500}]}})
        told = about(answer)
        assert (told["decision"], told["reason"]) == ("allow", "result-too-large")
        assert (told["outcome"], told["retryable"]) == ("executed", False)
        assert "secretsecret" not in str(answer)
        wrong = await party.do({"error": [-32000, "secret" * 500]})
        assert about(wrong)["reason"] == "result-too-large"
        assert "secretsecret" not in str(wrong)
    small, large, failed = estate.written(Kind.RETURNED)
    assert "withheld" not in small
    assert large["withheld"] == failed["withheld"] == "result-too-large"
    assert len(large["result"]["sha256"]) == 43
    assert [call[-1] for call in estate.endings()] == ["returned"] * 3

"""Refusals before anybody is identified: bounded by address, counted, and never in the record."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.proxy import refusals
from guard.proxy.refusals import MAX_ADDRESSES, Refusals

MINUTE = 60.0
GAPS = st.lists(st.sampled_from([0.0, 0.001, 0.5, 1.0, 7.0, 59.9, 61.0]), min_size=1, max_size=120)


@given(per_minute=st.integers(1, 20), gaps=GAPS)
def test_no_window_holds_more_full_answers_than_the_bucket(per_minute: int, gaps: list[float]) -> None:
    """Between any two moments: at most one bucket, and what flowed into it meanwhile."""
    bucket = Refusals(per_minute, Counter())
    now, full = 0.0, []
    for gap in gaps:
        now += gap
        if bucket.refuse("no-credential", "192.0.2.1", now) == 0:
            full.append(now)
    for first, start in enumerate(full):
        for last, end in enumerate(full[first:], first):
            assert last - first + 1 <= per_minute + (end - start) * per_minute / MINUTE + 1e-6


@given(per_minute=st.integers(1, 200), tries=st.integers(0, 50))
def test_whoever_waits_as_told_gets_a_full_answer(per_minute: int, tries: int) -> None:
    """The seconds in the answer are enough, however often was asked before; and never fewer than one."""
    bucket = Refusals(per_minute, Counter())
    wait = [bucket.refuse("no-credential", "192.0.2.1", 0.0) for _ in range(per_minute + tries + 1)][-1]
    assert wait >= 1
    assert bucket.refuse("no-credential", "192.0.2.1", float(wait)) == 0


@given(addresses=st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]), max_size=40))
def test_every_refusal_is_counted_once_as_what_it_was(addresses: list[str]) -> None:
    """Held up or not; how many were held up is counted beside."""
    counts: Counter[str] = Counter()
    bucket = Refusals(3, counts)
    waits = [bucket.refuse("invalid-key", address, 0.0) for address in addresses]
    assert counts["invalid-key"] == len(addresses)
    assert counts["rate-limited"] == sum(wait > 0 for wait in waits)


def test_one_address_does_not_use_up_the_share_of_another() -> None:
    """Each has its own bucket."""
    bucket = Refusals(1, Counter())
    assert [bucket.refuse("x", "192.0.2.1", 0.0) > 0 for _ in range(3)] == [False, True, True]
    assert bucket.refuse("x", "192.0.2.2", 0.0) == 0


def test_addresses_are_bounded_and_the_quietest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood from many addresses grows nothing; whoever came back lately is still remembered."""
    monkeypatch.setattr(refusals, "MAX_ADDRESSES", 8)
    bucket = Refusals(1, Counter())
    bucket.refuse("x", "192.0.2.1", 0.0)
    for number in range(7):
        bucket.refuse("x", f"198.51.100.{number}", 0.0)
    assert bucket.refuse("x", "192.0.2.1", 0.0) > 0  # all eight are remembered, this one is now the latest
    for number in range(100, 107):
        bucket.refuse("x", f"198.51.100.{number}", 0.0)
    assert len(bucket._buckets) == 8
    assert bucket.refuse("x", "192.0.2.1", 0.0) > 0
    assert bucket.refuse("x", "198.51.100.0", 0.0) == 0  # forgotten, so as good as new


def test_a_flood_of_addresses_stays_within_the_bound() -> None:
    """With the real bound."""
    bucket = Refusals(60, Counter())
    for number in range(MAX_ADDRESSES + 500):
        bucket.refuse("x", str(IPv6Address(number << 64)), 0.0)
    assert len(bucket._buckets) == MAX_ADDRESSES


@given(
    site=st.integers(1 << 32, 2**64 - 1), hosts=st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=8)
)
def test_all_addresses_of_one_ipv6_site_share_a_bucket(site: int, hosts: list[int]) -> None:
    """Whoever has one address of a /64 has all of them, however they are written."""
    bucket = Refusals(1, Counter())
    found = [IPv6Address(site << 64 | host) for host in hosts]
    texts = [text for address in found for text in (str(address), address.exploded)]
    assert [bucket.refuse("x", text, 0.0) > 0 for text in texts] == [False] + [True] * (len(texts) - 1)
    other = str(IPv6Address((site ^ 1) << 64 | hosts[0]))
    assert bucket.refuse("x", other, 0.0) == 0


def test_ipv4_in_ipv6_is_one_address_and_not_one_site() -> None:
    """On a socket for both families every IPv4 caller would else share one bucket."""
    bucket = Refusals(1, Counter())
    assert bucket.refuse("x", "::ffff:192.0.2.1", 0.0) == 0
    assert bucket.refuse("x", "::ffff:192.0.2.2", 0.0) == 0
    assert bucket.refuse("x", "::ffff:192.0.2.1", 0.0) > 0


@pytest.mark.parametrize("address", ["", "unix", "testclient", "fe80::1%eth0"])
def test_an_address_that_is_none_has_a_bucket_too(address: str) -> None:
    """What cannot be read is held to the same bound."""
    bucket = Refusals(1, Counter())
    assert [bucket.refuse("x", address, 0.0) > 0 for _ in range(2)] == [False, True]


def test_a_lower_bound_holds_at_once() -> None:
    """A reload that lowers the share takes what was left above it."""
    bucket = Refusals(60, Counter())
    bucket.refuse("x", "192.0.2.1", 0.0)
    bucket.per_minute = 2
    assert [bucket.refuse("x", "192.0.2.1", 0.0) > 0 for _ in range(3)] == [False, False, True]

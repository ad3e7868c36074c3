"""Attacks on one replay store that verifiers with different skews share."""

from __future__ import annotations

from pathlib import Path

import pytest

from guard.artifact.replay import MemoryReplay, ReplayStore, SqliteReplay
from guard.artifact.verify import Fault
from tests.artifact.artifacts import NOW, fault_of, issue, verifier


@pytest.fixture(params=["memory", "file"])
def replay(request: pytest.FixtureRequest, tmp_path: Path) -> ReplayStore:
    return MemoryReplay() if request.param == "memory" else SqliteReplay(tmp_path / "replay.db")


@pytest.mark.parametrize("strict", [0, 10, 29])
def test_an_artifact_is_not_replayed_at_a_verifier_with_a_larger_skew(
    replay: ReplayStore, strict: int
) -> None:
    """Used at the strict one, it is not forgotten while the lax one would still take it."""
    token, end = issue().token, issue().expires
    assert fault_of(token, by=verifier(replay=replay, skew=strict), now=NOW) is None
    lax = verifier(replay=replay, skew=30)
    for now in range(end, end + 30):
        assert fault_of(token, by=lax, now=now) is Fault.REPLAYED
    assert fault_of(token, by=lax, now=end + 30) is Fault.EXPIRED

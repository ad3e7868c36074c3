"""The protocol's conformance suite says the same behind Guard as in front of it, but for what is known."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
import conformance as script

SUITE, PROTOCOL = "0.2.0-alpha.12", "2026-07-28"
CORE = frozenset(
    {
        "tools-list/tools-list",
        "tools-call-simple-text/tools-call-simple-text",
        "tools-call-mixed-content/tools-call-mixed-content",
        "tools-call-error/tools-call-error",
        "tools-call-with-progress/tools-call-with-progress",
        "http-header-validation/sep-2243-server-accepts-whitespace-header-value",
    }
)
"""Checks that nothing but a working server passes."""


@pytest.mark.node
@pytest.mark.slow
def test_behind_guard_nothing_is_lost_but_what_is_known() -> None:
    """Every check that succeeds at the server succeeds behind Guard, unless KNOWN names it."""
    try:
        script.installed()
    except script.Unavailable as reason:
        pytest.skip(str(reason))
    found = script.compare(SUITE, PROTOCOL)
    assert found.failed == []
    assert script.succeeded(found.direct) >= script.SUITES[SUITE][PROTOCOL]
    assert script.unexpected(SUITE, found.lost) == []
    assert CORE.isdisjoint(found.hollow)
    assert {(name, True) for name in CORE} <= found.through.keys()


def test_a_check_is_lost_if_it_fails_is_absent_or_succeeds_less_often() -> None:
    """What replaces a success by anything else is seen; what fails at the server anyway is no loss."""
    direct = Counter({("s/same", True): 2, ("s/fails", True): 1, ("s/absent", True): 1, ("s/fewer", True): 3})
    through = Counter({("s/same", True): 2, ("s/fails", False): 1, ("s/fewer", True): 2, ("s/new", False): 1})
    also = Counter({("s/both", True): 1, ("s/bad", False): 1})
    found = script.Compared(direct + also, through + also + Counter({("s/both", False): 1}))
    assert found.lost == ["s/absent", "s/both", "s/fails", "s/fewer"]
    assert found.failed == ["s/bad"]


def test_what_succeeds_where_nobody_answers_is_named_hollow() -> None:
    """A check that a dead port passes too proves nothing by itself."""
    direct = Counter({("s/real", True): 1, ("s/hollow", True): 1, ("s/partly", True): 2})
    nobody = Counter({("s/real", False): 1, ("s/hollow", True): 1, ("s/partly", True): 1})
    assert script.Compared(direct, direct, nobody).hollow == ["s/hollow"]


def test_what_is_known_of_one_version_is_not_known_of_another(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry holds for the version of the suite that it names, and must go once it is not lost there."""
    one = script.known("a feature", "a reason", "a/check", suite="0.1.16")
    monkeypatch.setattr(script, "KNOWN", (one, script.known("another", "for both", "b/check c/one,two")))
    everything = {name for each in script.KNOWN for name in each.names}
    assert script.unexpected("0.1.16", one.names) == []
    assert script.unexpected(SUITE, one.names) == sorted(one.names)
    assert script.report({"0.1.16": everything, SUITE: everything - one.names}, whole=True)
    assert not script.report({"0.1.16": everything - one.names, SUITE: set()}, whole=True)
    assert not script.report({"0.1.16": everything | {"a/new-one"}, SUITE: set()}, whole=True)
    assert "LOST: 0.1.16 a/new-one" in capsys.readouterr().out

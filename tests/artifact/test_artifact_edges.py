"""The artifact at its edges: methods beyond tools, the ends of time, and what a replay store keeps."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from artifacts import (
    JTI,
    KEY,
    KEYS,
    NOW,
    PERMIT,
    POLICY,
    SEED,
    fault_of,
    issue,
    issuer,
    opened,
    verifier,
    verify,
)
from artifacts import call as bound

from guard.artifact.grant import MAX_NAMES, Grant
from guard.artifact.replay import MemoryReplay, ReplayStore, SqliteReplay
from guard.artifact.verify import ArtifactRefused, Fault
from guard.core.canonical import sha256
from guard.core.errors import Reason, Refused
from guard.core.keys import SigningKey
from guard.core.model import args_sha256

# -- methods beyond tools --------------------------------------------------------------------------------


def permit(method: str, params: dict[str, Any], name: str) -> Grant:
    """What Guard issues for a request of that method about that name."""
    call = bound(params, method=method) if "name" in params else bound({"name": "", **params}, method=method)
    call = replace(call, params=params, tool=replace(call.tool, name=name))
    return issuer().issue(call, PERMIT, POLICY, now=NOW, jti=JTI)


@pytest.mark.parametrize(
    ("method", "params", "name", "changed", "fault"),
    [
        ("tools/call", {"name": "t"}, "t", {"more": 1}, None),
        ("prompts/get", {"name": "t"}, "t", {"more": 1}, None),
        ("resources/read", {"uri": "memo:a"}, "memo:a", {"more": 1}, None),
        ("resources/read", {"uri": "memo:a"}, "memo:a", {"uri": "memo:b"}, Fault.TOOL),
        ("prompts/get", {"name": "t"}, "t", {"arguments": {}}, Fault.ARGUMENTS),
        ("tasks/cancel", {"taskId": "x"}, "tasks/cancel", {"taskId": "y"}, Fault.ARGUMENTS),
        ("tasks/cancel", {"taskId": "x"}, "tasks/cancel", {"more": 1}, Fault.ARGUMENTS),
        ("tasks/cancel", {"taskId": "x"}, "tasks/cancel", {"_meta": {"a": 1}}, None),
    ],
)
def test_what_is_digested_of_a_request_depends_on_its_method(
    method: str, params: dict[str, Any], name: str, changed: dict[str, Any], fault: Fault | None
) -> None:
    """Of a further method every member counts but `_meta`; of the others what the page lists."""
    grant = permit(method, params, name)
    assert grant.args_sha256 == opened(grant.token)[1]["tctx"]["args_sha256"] == args_sha256(params, method)
    assert fault_of(grant.token, method=method, params=params) is None
    assert fault_of(grant.token, method=method, params={**params, **changed}) is fault


def test_a_member_that_a_tool_call_does_not_have_is_not_digested_when_it_is_issued() -> None:
    """Issuer and verifier take the same members, else what Guard permits is refused."""
    grant = permit("tools/call", {"name": "t", "more": 1}, "t")
    assert grant.args_sha256 == args_sha256({"name": "t"})
    assert fault_of(grant.token, params={"name": "t", "more": 1}) is None


# -- what is issued, and refused -------------------------------------------------------------------------


def test_a_grant_is_named_by_its_bytes_and_ends_with_its_key() -> None:
    """Whichever of lifetime and key ends first."""
    for end, expires in ((NOW + 5, NOW + 5), (NOW + 60, NOW + 60), (NOW + 99, NOW + 60)):
        signer = issuer(SigningKey.load(SEED, end))
        grant = signer.issue(bound(), PERMIT, POLICY, now=NOW, jti=JTI)
        assert (grant.sha256, grant.expires) == (sha256(grant.token), expires)
        assert opened(grant.token)[1]["exp"] == expires
        assert signer.usable(end - 1)
        assert not signer.usable(end)
    assert issuer().usable(2**60)


@pytest.mark.parametrize(
    ("key", "allow", "reason"),
    [
        (KEY, None, Reason.ISSUE_FAILED),
        (SigningKey.load(SEED, NOW), PERMIT, Reason.ARTIFACT_KEY_UNAVAILABLE),
    ],
)
def test_what_is_not_issued_is_denied_for_that(key: SigningKey, allow: Any, reason: Reason) -> None:
    """One reason each, as the record will say it."""
    with pytest.raises(Refused) as refused:
        issuer(key).issue(bound(), allow, POLICY, now=NOW, jti=JTI)
    assert refused.value.reason is reason


def test_the_faults_are_called_the_same_in_every_release() -> None:
    """Servers and vectors know them by these names, in the order in which they are looked for."""
    names = (
        *("missing", "too-large", "malformed", "typ", "alg", "kid", "signature", "issuer", "audience"),
        *("lifetime", "not-yet-valid", "expired", "tool", "arguments", "definition", "observed"),
        *("revoked", "replayed"),
    )
    assert tuple(fault.value for fault in Fault) == names


def test_neither_a_grant_nor_a_verified_one_can_be_changed_or_added_to() -> None:
    """What is recorded is what is sent, and what was checked is what is run."""
    grant = issue()
    for made in (grant, verify(grant.token)):
        assert not hasattr(made, "__dict__")
        with pytest.raises(FrozenInstanceError):
            made.token = b"another"  # type: ignore[misc]


def test_an_issuer_remembers_no_more_names_than_it_says() -> None:
    """However many principals there are."""
    assert issuer()._pairwise.cache_info().maxsize == MAX_NAMES == 8192


# -- the ends of time ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "fault"),
    [
        (NOW - 8, Fault.NOT_YET_VALID),
        (NOW - 7.001, Fault.NOT_YET_VALID),
        (NOW - 7, None),
        (NOW + 59, None),
        (NOW + 60, None),
        (NOW + 66.999, None),
        (NOW + 67, Fault.EXPIRED),
    ],
)
def test_the_skew_opens_both_ends_and_no_further(now: float, fault: Fault | None) -> None:
    """Its first moment is inside, its last is not."""
    assert fault_of(issue().token, by=verifier(skew=7), now=now) is fault


# -- what a request carries ------------------------------------------------------------------------------


@pytest.mark.parametrize("meta", [None, 1, "text", ["dev.guard-mcp/authorization"], True])
def test_a_meta_that_is_no_object_carries_nothing(meta: Any) -> None:
    """Refused as missing, and nothing else is raised."""
    with pytest.raises(ArtifactRefused) as refused:
        verifier().admit("tools/call", {"name": "t", "_meta": meta}, now=NOW)
    assert refused.value.fault is Fault.MISSING


def test_a_revocation_list_is_asked_by_key_and_by_name() -> None:
    """A list that knows one of two artifacts, or one of two keys, stops just that."""
    for kid, jti, refused in ((KEY.public.kid, JTI, True), ("x", JTI, False), (KEY.public.kid, "x", False)):
        by = verifier(keys=KEYS, revoked=lambda *asked, known=(kid, jti): asked == known)
        assert (fault_of(issue().token, by=by) is Fault.REVOKED) is refused


# -- what a replay store keeps ---------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ReplayStore:
    """Both keep the same law."""
    return MemoryReplay() if request.param == "memory" else SqliteReplay(tmp_path / "replay.db")


def test_a_use_is_kept_up_to_and_in_the_second_that_it_is_kept_until(store: ReplayStore) -> None:
    """And may be made again in the next."""
    assert store.insert(("v", "i", "j"), until=5, now=0)
    assert not store.insert(("v", "i", "j"), until=9, now=4)
    assert not store.insert(("v", "i", "j"), until=9, now=5)
    assert store.insert(("v", "i", "j"), until=9, now=6)


def test_a_use_is_of_one_verifier_one_issuer_and_one_name(store: ReplayStore) -> None:
    """Each part of the key counts; what ends first is forgotten alone."""
    keys = [("v", "i", "j"), ("w", "i", "j"), ("v", "k", "j"), ("v", "i", "l"), ("i", "v", "j")]
    assert all(store.insert(key, until=10 - place, now=0) for place, key in enumerate(keys))
    assert [store.insert(key, until=20, now=8) for key in keys] == [False, False, False, True, True]


def test_a_use_in_a_file_is_durable_and_waits_for_others(tmp_path: Path) -> None:
    """It outlives its store; a writer waits five seconds for another, and then says no by raising."""
    file = tmp_path / "replay.db"
    assert SqliteReplay(file).insert(("v", "i", "j"), until=5, now=0)
    again = SqliteReplay(file)
    assert not again.insert(("v", "i", "j"), until=5, now=0)
    with closing(again._connect()) as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert db.execute("PRAGMA busy_timeout").fetchone() == (5000,)
        assert db.isolation_level is None
        assert db.execute("SELECT verifier, iss, jti, until FROM used").fetchall() == [("v", "i", "j", 5)]
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO used VALUES ('v', 'i', 'k', NULL)")


def test_the_file_has_the_same_table_in_every_release(tmp_path: Path) -> None:
    """Servers of one machine share it, whichever Guard each has; by the key alone, without row ids."""
    SqliteReplay(tmp_path / "replay.db")
    with closing(sqlite3.connect(tmp_path / "replay.db")) as db:
        rows = db.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    columns = "verifier TEXT, iss TEXT, jti TEXT, until INTEGER NOT NULL, PRIMARY KEY (verifier, iss, jti)"
    assert rows == [("table", "used", f"CREATE TABLE used ({columns}) WITHOUT ROWID")]


def test_where_a_file_cannot_be_a_store_nothing_is_remembered_as_unused(tmp_path: Path) -> None:
    """It raises: an exception is a no."""
    with pytest.raises(sqlite3.Error):
        SqliteReplay(tmp_path)
    store = SqliteReplay(tmp_path / "replay.db")
    (tmp_path / "replay.db").write_bytes(b"no database" * 100)
    with pytest.raises(sqlite3.Error):
        store.insert(("v", "i", "j"), until=5, now=0)

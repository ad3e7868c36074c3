"""Seals: a closed conversation stays closed, and chain, counter and seal show what was taken out of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from guard.cli.main import main
from guard.config.home import open_home
from guard.core.model import Conversation
from guard.lineage.audit import Report, audit
from guard.lineage.checkpoint import Checkpoint, parse_vkey, sign
from guard.lineage.entry import Kind, parse
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import CONTAINMENT, Conflict, Moved, Seal, Transaction
from tests.lineage.lineages import (
    HOUSE,
    KEY,
    NOW,
    ORIGIN,
    TENANT,
    changed,
    checked,
    copied,
    ended,
    granted,
    leaves,
    open_store,
    person,
    place,
    recorded,
    transaction,
)
from tests.lineage.naive_tree import tree_hash
from tests.lineage.test_audit import _renumbered


def seal(conversation: str, total: int, given: str = "talk") -> Transaction:
    return transaction(Kind.SEALED, "", Seal(conversation, total), where=place(given), total=total)


def talk(store: SqliteStore, given: str = "talk", calls: int = 3) -> str:
    """A conversation of some calls; the log's own id of it."""
    for n in range(calls):
        call = f"{given}-{n}"
        (one,) = recorded(store, granted(call, where=place(given)))
        recorded(store, ended(call, where=place(given)))
    return one.conversation


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return open_store(tmp_path / "guard.db")


def whats(report: Report) -> list[str]:
    return [finding.what for finding in report.findings]


# -- closing ---------------------------------------------------------------------------------------


def test_nothing_follows_a_seal(store: SqliteStore, tmp_path: Path) -> None:
    """No grant, no denial, no second seal: by the writer that closed it, by another, and after a restart."""
    closed = talk(store)
    recorded(store, seal(closed, 7))
    late = [
        granted("late"),
        transaction(Kind.DENIED, "late"),
        seal(closed, 8),
        ended("talk-0", Kind.UNKNOWN),
    ]
    refused = Conflict(f"the conversation {closed} is sealed")
    assert store.apply(late) == [refused] * 4
    with closing(open_store(tmp_path / "guard.db")) as other:
        assert other.apply(late) == [refused] * 4
    store.close()
    with closing(open_store(tmp_path / "guard.db")) as again:
        assert again.apply(late) == [refused] * 4
        assert [row.sealed for row in again.conversations()] == [NOW]
    report = checked(tmp_path / "guard.db")
    assert report.findings == []
    assert (report.entries, report.sealed) == (7, 1)


def test_what_comes_after_a_seal_in_one_batch_is_refused(store: SqliteStore) -> None:
    """Group commit does not open a door: the order inside a batch counts."""
    closed = talk(store)
    outcomes = store.apply([seal(closed, 7), granted("late"), granted("else", where=place("another"))])
    assert isinstance(outcomes[1], Conflict)
    assert [type(outcome).__name__ for outcome in outcomes] == ["Recorded", "Conflict", "Recorded"]


def test_a_conversation_with_an_open_grant_is_not_closed(store: SqliteStore) -> None:
    """Each grant's ending must find its place; one that ends in the same batch does."""
    closed = talk(store)
    recorded(store, granted("open"))
    (refused,) = store.apply([seal(closed, 8)])
    assert isinstance(refused, Conflict)
    assert "no ending yet" in refused.what
    outcomes = store.apply([granted("new"), seal(closed, 9), ended("new"), ended("open"), seal(closed, 11)])
    assert [isinstance(outcome, Conflict) for outcome in outcomes] == [False, True, False, False, False]


@pytest.mark.parametrize("total", [0, 6, 8, -1])
def test_a_seal_with_another_total_is_refused(store: SqliteStore, total: int) -> None:
    """What a seal says is what stands: entries that came in between are counted again."""
    (refused,) = store.apply([seal(talk(store), total)])
    assert isinstance(refused, Conflict)
    assert "6 entries by now" in refused.what


def test_only_a_conversation_of_its_own_is_closed(store: SqliteStore) -> None:
    """Not the house's, not one that is not there, not another than the entry goes to."""
    closed = talk(store)
    other = talk(store, "other")
    house = transaction(Kind.SEALED, "", Seal(closed, 1), where=HOUSE)
    absent = transaction(Kind.SEALED, "", Seal("nobody", 1), where=place("absent"))
    for wrong in (house, absent, seal(other, 7), seal(closed, 7, given="other")):
        (refused,) = store.apply([wrong])
        assert isinstance(refused, Conflict)
    assert len(store.conversations()) == 2


def test_a_grant_that_was_decided_before_the_seal_is_decided_anew(store: SqliteStore) -> None:
    """Step 6 compares: who looked before the seal sees that something moved, and then what."""
    closed = talk(store)
    before = store.snapshot(person(), Conversation("talk", "meta"), ("s", "t"), own_only=False)
    assert before.contained == frozenset()
    recorded(store, seal(closed, 7))
    expects = {CONTAINMENT: before.versions.get(CONTAINMENT, 0)}
    (late,) = store.apply([granted("late", expects=expects)])
    assert late == Moved(CONTAINMENT)
    after = store.snapshot(person(), Conversation("talk", "meta"), ("s", "t"), own_only=False)
    assert after.contained == {"sealed"}
    for who, talk_ in ((person(), "another"), (person("bob"), "talk"), (person(tenant="t2"), "talk")):
        found = store.snapshot(who, Conversation(talk_, "meta"), ("s", "t"), own_only=True)
        assert found.contained == frozenset()


# -- what was taken out ----------------------------------------------------------------------------


@pytest.fixture
def kept(store: SqliteStore, tmp_path: Path) -> tuple[Path, str, str]:
    """A copy of a store with an open and a closed conversation, and their ids."""
    first = talk(store, "open")
    closed = talk(store, "talk", calls=4)
    talk(store, "more", calls=2)
    recorded(store, seal(closed, 9))
    store.close()
    path = copied(tmp_path / "guard.db", tmp_path / "copy.db")
    assert checked(path).findings == []
    return path, first, closed


def _signed_anew(path: Path, kept: list[bytes]) -> None:
    """What the holder of the key could do: number, hang and sign what is left."""
    changed(path, "DROP INDEX chain")
    frontier = _renumbered(path, kept)
    note = sign(Checkpoint(ORIGIN, frontier.size, frontier.root()), KEY)
    changed(path, ("UPDATE heads SET checkpoint = ?", (note,)))


def test_a_gap_is_proved(kept: tuple[Path, str, str]) -> None:
    """An entry out of the middle, all else made to fit and signed: the chain lacks it."""
    path, _, closed = kept
    every = leaves(path)
    gone = next(
        n for n, leaf in enumerate(every) if parse(leaf).conversation == closed and parse(leaf).seq == 3
    )
    _signed_anew(path, every[:gone] + every[gone + 1 :])
    report = checked(path)
    assert any(f.conversation == closed and "a gap" in f.what for f in report.findings)
    assert any(f.conversation == closed and "chain is broken" in f.what for f in report.findings)


def test_a_cut_tail_is_proved_by_the_seal(kept: tuple[Path, str, str]) -> None:
    """The last entries gone, counters and signature made to fit: the seal is missing."""
    path, _, closed = kept
    left = [leaf for leaf in leaves(path) if parse(leaf).conversation != closed or parse(leaf).seq < 6]
    _signed_anew(path, left)
    assert [(f.conversation, f.what) for f in checked(path).findings] == [
        (closed, "it is closed, and its seal is missing")
    ]


def test_a_cut_tail_is_proved_by_the_counter(kept: tuple[Path, str, str]) -> None:
    """The last entries of an open conversation: the conversation was counted."""
    path, first, _ = kept
    with closing(sqlite3.connect(path)) as db:
        counted = db.execute("SELECT entries, head FROM conversations WHERE id = ?", (first,)).fetchone()
    left = [leaf for leaf in leaves(path) if parse(leaf).conversation != first or parse(leaf).seq < 4]
    _signed_anew(path, left)
    changed(path, ("UPDATE conversations SET entries = ?, head = ? WHERE id = ?", (*counted, first)))
    assert [(f.conversation, f.what) for f in checked(path).findings] == [
        (first, "6 entries were recorded, 4 stand here")
    ]


def test_a_missing_conversation_is_proved(kept: tuple[Path, str, str]) -> None:
    """All entries of one gone: the counter says how many there were; with the row gone too, the tree does."""
    path, first, _ = kept
    rows = leaves(path)
    left = [leaf for leaf in rows if parse(leaf).conversation != first]
    changed(path, ("DELETE FROM entries WHERE conversation = ?", (first,)))
    report = checked(path)
    assert "the entries 0 to 5 are missing" in whats(report)
    assert (None, first, "6 entries were recorded, 0 stand here") in {
        (f.entry, f.conversation, f.what) for f in report.findings
    }
    _renumbered(path, left)
    changed(path, ("DELETE FROM conversations WHERE id = ?", (first,)))
    assert whats(checked(path)) == [f"the checkpoint signs {len(rows)} entries, {len(left)} stand here"]


def test_a_reopened_conversation_is_found(kept: tuple[Path, str, str]) -> None:
    """Who takes the mark back, so that the conversation goes on, is seen by the seal that stands."""
    path, _, closed = kept
    changed(path, ("UPDATE conversations SET sealed = 0 WHERE id = ?", (closed,)))
    assert [(f.conversation, f.what) for f in checked(path).findings] == [
        (closed, "it has a seal and is open")
    ]
    with closing(open_store(path)) as again:
        recorded(again, transaction(Kind.DENIED, "late", where=place("talk")))
    report = checked(path)
    assert (report.entries - 1, "an entry after the seal of its conversation") in {
        (f.entry, f.what) for f in report.findings
    }


def test_a_conversation_that_was_closed_by_hand_is_found(kept: tuple[Path, str, str]) -> None:
    """The mark alone closes nothing in the record."""
    path, first, _ = kept
    changed(path, ("UPDATE conversations SET sealed = 5 WHERE id = ?", (first,)))
    assert [(f.conversation, f.what) for f in checked(path).findings] == [
        (first, "it is closed, and its seal is missing")
    ]


def test_a_seal_that_counts_wrong_is_found(store: SqliteStore, tmp_path: Path) -> None:
    """What the entry says is compared with what stands, whoever signed it."""
    closed = talk(store)
    wrong = transaction(Kind.SEALED, "", Seal(closed, 7), total=9)
    recorded(store, wrong)
    store.close()
    assert whats(checked(tmp_path / "guard.db")) == ["the seal counts 9 entries and is number 7"]


def test_an_erased_seal_still_counts(store: SqliteStore, tmp_path: Path) -> None:
    """The leaf's own `seq` says how many there were, and the tail cannot go."""
    closed = talk(store)
    recorded(store, seal(closed, 7))
    store.close()
    changed(tmp_path / "guard.db", "DELETE FROM payloads WHERE idx = 6")
    report = checked(tmp_path / "guard.db")
    assert (report.findings, report.erased, report.sealed) == ([], 1, 1)


# -- the command -----------------------------------------------------------------------------------


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def test_the_command_closes_with_the_total(tmp_path: Path) -> None:
    """It says the total; a proof of the seal that was kept shows what a cut record lost."""
    home = open_home(tmp_path / "home")
    with closing(home.store()) as store:
        closed = talk(store)
        house = next(row.id for row in store.conversations() if row.issuer == "guard")
    code, output = run("lineage", "seal", closed, "--home", home.path)
    assert (code, output.splitlines()[0]) == (0, f"sealed: {closed} with 7 entries")
    index = len(leaves(home.path / "guard.db")) - 1
    proof = tmp_path / "seal.tlog-proof"
    proof.write_text(run("lineage", "proof", str(index), "--home", home.path)[1])
    for refused in (closed, "nobody", house):
        code, output = run("lineage", "seal", refused, "--home", home.path)
        assert code == 2, output
    assert "SEALED" in run("lineage", "list", "--home", home.path)[1]
    assert "sealed: 1 conversations" in run("lineage", "verify", "--home", home.path)[1]
    cut = copied(home.path / "guard.db", tmp_path / "cut.db")
    left = leaves(cut)[:-1]
    frontier = _renumbered(cut, left)
    note = sign(Checkpoint(home.origin, frontier.size, tree_hash(left)), home.checkpoint_key)
    changed(cut, ("UPDATE heads SET checkpoint = ?", (note,)), "UPDATE conversations SET sealed = 0")
    assert audit(cut, [parse_vkey(home.vkey)]).findings == []  # the key's holder can lie, once
    code, output = run("verify", cut, "--checkpoint", proof, "--home", home.path)
    assert code == 1
    assert f"a kept checkpoint signs {index + 1} entries, {index} stand here" in output


def test_tenants_do_not_share_a_seal(store: SqliteStore) -> None:
    """One tenant's closed conversation closes nobody else's of the same name."""
    recorded(store, seal(talk(store), 7))
    recorded(store, granted("other", where=place("talk", tenant="other")))
    assert TENANT != "other"

"""The audit: whatever is changed in a store's file is found, and where it is an entry's, named."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from guard.cli.main import main
from guard.config.home import open_home
from guard.core.canonical import b64
from guard.lineage.audit import Report, audit
from guard.lineage.checkpoint import Checkpoint, VerifierKey, parse_vkey, sign
from guard.lineage.database import PAGE_BYTES, StoreError
from guard.lineage.entry import Kind, draft, parse
from guard.lineage.entry import leaf as leaf_of
from guard.lineage.merkle import Frontier
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import Contain, SavePins, SavePolicy
from tests.lineage.lineages import (
    KEY,
    ORIGIN,
    OTHER_KEY,
    VKEY,
    changed,
    checked,
    copied,
    ended,
    granted,
    house,
    leaves,
    open_store,
    place,
    recorded,
    transaction,
)
from tests.lineage.naive_tree import tree_hash

CALLS = 24
OPEN = {f"call-{n}" for n in (20, 23)}
DENIED = 6


@dataclass(repr=False)
class Original:
    """A store of some sixty entries.

    Attributes:
        path: its file; nobody changes it.
        checkpoints: what was signed, by tree size.
        leaves: every leaf.
    """

    path: Path
    checkpoints: dict[int, str]
    leaves: list[bytes]

    def copy(self, target: Path) -> Path:
        return Path(shutil.copyfile(self.path, target))


def fill(store: SqliteStore) -> dict[int, str]:
    """The life of a small house; what was signed on the way."""
    recorded(store, house(Kind.POLICY, SavePolicy("p", 1, "one")))
    recorded(store, house(Kind.PIN, SavePins("server", (("echo", "sha", b'{"name":"echo"}'),))))
    signed = {}
    for n in range(CALLS):
        where = place(f"c{n % 3}", "alice" if n % 2 else "bob")
        call = f"call-{n}"
        (one,) = recorded(store, granted(call, where=where, tool="echo", arguments={"text": f"text {n}"}))
        if call not in OPEN:
            recorded(store, ended(call, where=where, result={"sha256": "x" * 43, "is_error": False}))
        if n % 4 == 0:
            recorded(store, transaction(Kind.DENIED, f"denied-{n}", where=where))
        note = store.checkpoint()
        signed[int(note.split("\n")[1])] = note
    recorded(store, house(Kind.CONTAINED, Contain("conversation", one.conversation)))
    return signed


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    folder = tmp_path_factory.mktemp("audit")
    with closing(open_store(folder / "store.db")) as store:
        signed = fill(store)
    path = copied(folder / "store.db", folder / "guard.db")
    return Original(path, signed, leaves(path))


@pytest.fixture
def copy(original: Original, tmp_path: Path) -> Path:
    return original.copy(tmp_path / "copy.db")


def named(report: Report) -> set[int | None]:
    return {finding.entry for finding in report.findings}


# -- what stands -----------------------------------------------------------------------------------


def test_an_untouched_copy_is_sound(original: Original, copy: Path) -> None:
    """Nothing is wrong, everything is counted, and the root is the one that the RFC defines."""
    report = checked(copy)
    assert report.findings == []
    assert report.sound
    assert len(original.leaves) == report.entries == report.size == CALLS * 2 - len(OPEN) + DENIED + 3 == 55
    assert (report.granted, report.ended, report.denied) == (CALLS, CALLS - len(OPEN), DENIED)
    assert set(report.open) == OPEN
    assert len(report.chains) == 7
    assert sum(report.chains.values()) == report.entries
    assert report.erased == 0
    assert report.root == b64(tree_hash(original.leaves))


def test_an_empty_store_is_sound(tmp_path: Path) -> None:
    """The checkpoint of nothing is signed as well."""
    open_store(tmp_path / "db").close()
    report = checked(tmp_path / "db")
    assert report.findings == []
    assert (report.entries, report.size, report.root) == (0, 0, b64(tree_hash([])))


def test_another_logs_key_verifies_nothing(copy: Path) -> None:
    """Soundness is what the holder of one key signed for, under one name."""
    for wrong in (
        VerifierKey.of(ORIGIN, OTHER_KEY.public),
        VerifierKey.of("guard.example/other", KEY.public),
    ):
        report = audit(copy, [wrong])
        assert not report.sound
        assert "does not verify" in report.findings[-1].what
        assert report.size is None
    assert audit(copy, []).size is None


def test_erased_disclosures_are_counted_and_nothing_else(original: Original, copy: Path) -> None:
    """Every proof still stands when what people said is gone."""
    assert changed(copy, "DELETE FROM payloads WHERE idx % 2 = 0") == 28
    report = checked(copy)
    assert report.findings == []
    assert report.erased == 28
    assert leaves(copy) == original.leaves


# -- one byte --------------------------------------------------------------------------------------

PER_ENTRY = ["entries.leaf", "entries.hash", "entries.conversation", "entries.seq", "payloads.disclosures"]
OTHERS = [
    "nodes.hash",
    "heads.size",
    "heads.peaks",
    "heads.at",
    "heads.origin",
    "heads.checkpoint",
    "conversations.id",
    "conversations.entries",
    "conversations.head",
    "entries.idx",
    "nodes.idx",
    "nodes.level",
]


NUMBER = st.integers(0, 10**6)


def flipped(value: Any, at: int, difference: int) -> Any:
    """The value with one byte of it changed; it stays of its type."""
    if isinstance(value, int):
        return value ^ difference
    data = bytearray(value.encode() if isinstance(value, str) else value)
    place_ = at % len(data)
    if isinstance(value, str):
        data[place_] ^= difference % 8 or 1
        return data.decode("ascii", "replace") if ORIGIN in value or value.isascii() else data.decode()
    data[place_] ^= difference
    return bytes(data)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(PER_ENTRY + OTHERS), st.tuples(NUMBER, NUMBER, st.integers(1, 255)))
@example("entries.leaf", (54, 0, 1))
def test_a_changed_byte_is_found(
    original: Original, tmp_path: Path, where: str, which: tuple[int, int, int]
) -> None:
    """Any byte of what the lineage is made of; where it is an entry's, that entry is named."""
    row, at, difference = which
    copy = original.copy(tmp_path / "copy.db")
    table, _, column = where.partition(".")
    with closing(sqlite3.connect(copy)) as db:
        found = db.execute(f"SELECT {column}, * FROM {table}").fetchall()  # noqa: S608
        value, *key = found[row % len(found)]
        keys = [info[1] for info in db.execute(f"PRAGMA table_info({table})")]
        condition = " AND ".join(f"{name} IS ?" for name in keys)
        wrong = flipped(value, at, difference)
        assert wrong != value
        try:
            with db:
                done = db.execute(f"UPDATE {table} SET {column} = ? WHERE {condition}", (wrong, *key))  # noqa: S608
        except sqlite3.IntegrityError:
            return  # another row stands there: SQLite refuses it, in Guard's hands or anybody's
        assert done.rowcount == 1
    report = checked(copy)
    assert not report.sound
    if where in PER_ENTRY:
        assert key[keys.index("idx")] in named(report)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.integers(1, 255), st.sampled_from(["byte", "page"]))
@example(1243, 128, "byte")
def test_a_damaged_file_is_never_sound_and_never_a_crash(
    original: Original, tmp_path: Path, where: int, difference: int, what: str
) -> None:
    """A byte or a page of the file itself: found, or refused as damaged, or it was nobody's byte."""
    copy = original.copy(tmp_path / "copy.db")
    data = bytearray(copy.read_bytes())
    at = where % len(data)
    if what == "page":
        page = slice(at - at % PAGE_BYTES, at - at % PAGE_BYTES + PAGE_BYTES)
        data[page] = bytes(byte ^ difference for byte in data[page])
    else:
        data[at] ^= difference
    copy.write_bytes(data)
    try:
        report = checked(copy)
    except StoreError:
        return
    finally:
        for left in tmp_path.glob("copy.db-*"):
            left.unlink()
    if report.sound:
        assert leaves(copy) == original.leaves
        assert report.erased == 0 or what == "byte"


TYPES: list[Any] = [None, 0, -1, 10**12, 1.5, "text", b"", b"bytes"]


@pytest.mark.parametrize("where", PER_ENTRY + OTHERS)
@pytest.mark.parametrize("value", TYPES, ids=repr)
def test_a_value_of_another_type_is_found(copy: Path, where: str, value: Any) -> None:
    """SQLite lets any type stand anywhere; the audit says so and does not break."""
    table, _, column = where.partition(".")
    condition = {"heads": "log = 0", "conversations": "rowid = 1"}.get(table, "idx = 3")
    try:
        done = changed(copy, (f"UPDATE {table} SET {column} = ? WHERE {condition}", (value,)))  # noqa: S608
    except sqlite3.IntegrityError:
        return
    assert done >= 1
    assert not checked(copy).sound


# -- what somebody with the file could want ----------------------------------------------------------


def _renumbered(path: Path, kept: list[bytes]) -> Frontier:
    """Write the log anew from leaves, as consistently as can be done without the key."""
    frontier, rows, nodes = Frontier.empty(), [], []
    for index, leaf in enumerate(kept):
        found = parse(leaf)
        rows.append((0, index, found.conversation, found.seq, tree_hash([leaf]), leaf))
        frontier, made = frontier.append(tree_hash([leaf]))
        nodes += [(0, *node) for node in made]
    with closing(sqlite3.connect(path)) as db, db:
        places = "SELECT e.conversation, e.seq, p.disclosures FROM entries e JOIN payloads p USING (log, idx)"
        payloads = {(conversation, seq): found for conversation, seq, found in db.execute(places)}
        for table in ("entries", "payloads", "nodes"):
            db.execute(f"DELETE FROM {table}")  # noqa: S608
        db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", rows)
        db.executemany("INSERT INTO nodes VALUES (?, ?, ?, ?)", nodes)
        beside = [(row[1], payloads[row[2], row[3]]) for row in rows]
        db.executemany("INSERT INTO payloads VALUES (0, ?, ?)", beside)
        heads = {found.conversation: (found.seq, leaf) for leaf in kept for found in [parse(leaf)]}
        for conversation, (seq, leaf) in heads.items():
            db.execute(
                "UPDATE conversations SET entries = ?, head = ? WHERE id = ?",
                (seq + 1, tree_hash([leaf]), conversation),
            )
        db.execute("UPDATE heads SET size = ?, peaks = ?", (frontier.size, frontier.packed()))
        db.execute("UPDATE heads SET at = ?", (max(parse(leaf).at for leaf in kept),))
    return frontier


def test_a_deleted_entry_is_found(copy: Path) -> None:
    """A row that is gone is a gap, at its place."""
    changed(copy, "DELETE FROM entries WHERE idx = 20", "DELETE FROM payloads WHERE idx = 20")
    report = checked(copy)
    assert any("20 to 20 are missing" in finding.what for finding in report.findings)
    assert any("a gap" in finding.what for finding in report.findings)


def test_an_entry_deleted_without_a_trace_is_found(original: Original, copy: Path) -> None:
    """Numbering, tree and head made to fit: the conversation's chain still lacks it."""
    _renumbered(copy, original.leaves[:20] + original.leaves[21:])
    report = checked(copy)
    conversation = parse(original.leaves[20]).conversation
    assert any("a gap" in found.what and found.conversation == conversation for found in report.findings)
    assert any("the checkpoint signs 55" in found.what for found in report.findings)


@pytest.mark.parametrize("head", ["left", "made to fit"])
@pytest.mark.parametrize("gone", [1, 2, 7, 54])
def test_a_deleted_tail_is_found(original: Original, copy: Path, gone: int, head: str) -> None:
    """What was signed for must be there, even if everything else was made to fit."""
    kept = original.leaves[: len(original.leaves) - gone]
    if head == "made to fit":
        _renumbered(copy, kept)
    else:
        for table in ("entries", "payloads"):
            changed(copy, (f"DELETE FROM {table} WHERE idx >= ?", (len(kept),)))  # noqa: S608
    report = checked(copy)
    assert f"the checkpoint signs 55 entries, {len(kept)} stand here" in {f.what for f in report.findings}


@pytest.mark.parametrize("gone", [5, 20, 40])
def test_an_older_genuine_checkpoint_is_found(original: Original, copy: Path, gone: int) -> None:
    """A checkpoint that the key did sign, once, does not cover what came later."""
    size = max(size for size in original.checkpoints if size <= len(original.leaves) - gone)
    changed(copy, ("UPDATE heads SET checkpoint = ?", (original.checkpoints[size],)))
    assert any(f"signs {size} entries, 55 stand" in finding.what for finding in checked(copy).findings)
    with pytest.raises(StoreError):
        open_store(copy)


def test_a_whole_older_state_needs_a_witness(original: Original, copy: Path) -> None:
    """The limit of one file: set back as a whole it is sound; whoever kept a newer checkpoint sees it."""
    size = max(original.checkpoints)
    _renumbered(copy, original.leaves[:size])
    changed(copy, ("UPDATE heads SET checkpoint = ?", (original.checkpoints[size],)))
    report = checked(copy)
    assert report.size == size < len(original.leaves)
    assert report.sound


def test_two_swapped_entries_are_found(original: Original, copy: Path) -> None:
    """Both are named, for the place where they stand is in the tree."""
    with closing(sqlite3.connect(copy)) as db, db:
        rows = dict(db.execute("SELECT idx, leaf FROM entries WHERE idx IN (10, 30)").fetchall())
        db.execute("UPDATE entries SET leaf = ? WHERE idx = 10", (rows[30],))
        db.execute("UPDATE entries SET leaf = ? WHERE idx = 30", (rows[10],))
    assert {10, 30} <= named(checked(copy))
    other = original.copy(copy.with_name("other.db"))
    swapped = list(original.leaves)
    swapped[10], swapped[30] = swapped[30], swapped[10]
    changed(other, "DROP INDEX chain")
    _renumbered(other, swapped)
    assert not checked(other).sound


def _ending_of(original: Original, call: str) -> int:
    found = [parse(leaf) for leaf in original.leaves]
    return next(n for n, leaf in enumerate(found) if leaf.call == call and leaf.kind is Kind.RETURNED)


def test_a_removed_ending_is_found(original: Original, copy: Path) -> None:
    """Nobody turns a call that returned into one of which nobody knows."""
    at = _ending_of(original, "call-7")
    _renumbered(copy, original.leaves[:at] + original.leaves[at + 1 :])
    report = checked(copy)
    assert not report.sound
    assert "call-7" in report.open


def test_a_second_ending_is_found(original: Original, copy: Path) -> None:
    """A forged ending at the end of its chain, everything made to fit: it is named, and not signed."""
    found = parse(original.leaves[_ending_of(original, "call-7")])
    in_chain = [parse(leaf) for leaf in original.leaves]
    last = [n for n, leaf in enumerate(in_chain) if leaf.conversation == found.conversation][-1]
    value = json.loads(original.leaves[_ending_of(original, "call-7")])
    value |= {
        "seq": in_chain[last].seq + 1,
        "prev": b64(tree_hash([original.leaves[last]])),
        "at": in_chain[-1].at,
    }
    forged = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
    parse(forged)
    with closing(sqlite3.connect(copy)) as db, db:
        at = _ending_of(original, "call-7")
        disclosures = db.execute("SELECT disclosures FROM payloads WHERE idx = ?", (at,)).fetchone()[0]
        db.execute(
            "INSERT INTO entries VALUES (0, 55, ?, ?, ?, ?)",
            (found.conversation, value["seq"], tree_hash([forged]), forged),
        )
        db.execute("INSERT INTO payloads VALUES (0, 55, ?)", (disclosures,))
    _renumbered(copy, [*original.leaves, forged])
    report = checked(copy)
    assert [f.what for f in report.findings if f.entry == 55] == [
        "an ending without its grant, or a second one"
    ]
    assert any("signs 55 entries, 56 stand" in finding.what for finding in report.findings)


def _signed_over(path: Path, kept: list[bytes]) -> list[str]:
    """What is found if even the key's holder signs a log of these leaves."""
    changed(path, "DROP INDEX chain")
    frontier = _renumbered(path, kept)
    note = sign(Checkpoint(ORIGIN, frontier.size, frontier.root()), KEY)
    changed(path, ("UPDATE heads SET checkpoint = ?", (note,)))
    return [finding.what for finding in checked(path).findings]


@pytest.mark.parametrize(("old", "new"), [(b'"contained"', b'"released"'), (b'"call":""', b'"call":"x"')])
def test_a_rewritten_leaf_is_another_tree(original: Original, copy: Path, old: bytes, new: bytes) -> None:
    """The newest leaf rewritten, and everything that follows from it: only the signature is in the way."""
    forged = original.leaves[-1].replace(old, new)
    assert forged != original.leaves[-1]
    _renumbered(copy, [*original.leaves[:-1], forged])
    assert [finding.what for finding in checked(copy).findings] == ["the checkpoint signs another tree"]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (b'"at":17', b'"at":16', "the time runs backwards"),
        (b'"kind":"contained"', b'"kind":"unknown"', "an ending without its grant, or a second one"),
        (b'"kind":"contained"', b'"kind":"granted"', "a grant under the id of an open one"),
        (b'"prev":"', b'"prev":"A', "the chain is broken: `prev` is not the entry before"),
    ],
)
def test_not_even_the_keys_holder_writes_nonsense(
    original: Original, copy: Path, old: bytes, new: bytes, what: str
) -> None:
    """What no Guard writes is found under a genuine signature too."""
    forged = original.leaves[-1].replace(old, new)
    if new.endswith(b'"granted"'):
        forged = forged.replace(b'"call":""', b'"call":"call-20"')
    assert forged != original.leaves[-1]
    assert _signed_over(copy, [*original.leaves[:-1], forged]) == [what]


def test_not_even_the_keys_holder_takes_out_an_entry(original: Original, copy: Path) -> None:
    """Who signs a new tree over fewer entries still breaks the chain of the conversation."""
    found = _signed_over(copy, original.leaves[:20] + original.leaves[21:])
    assert any("a gap" in what for what in found)
    assert any("the chain is broken" in what for what in found)
    assert not any("checkpoint" in what for what in found)


def test_a_conversation_that_is_not_listed_is_found(copy: Path) -> None:
    """A conversation cannot be hidden, so that its next entry would begin a new chain."""
    hidden = parse(leaves(copy)[10]).conversation
    assert changed(copy, ("DELETE FROM conversations WHERE id = ?", (hidden,))) == 1
    found = [(finding.conversation, finding.what) for finding in checked(copy).findings]
    assert found == [(hidden, "the conversation is not listed")]


def test_a_disclosure_of_another_entry_is_found(copy: Path) -> None:
    """What stands beside a leaf is that leaf's."""
    changed(
        copy,
        "UPDATE payloads SET disclosures = (SELECT disclosures FROM payloads WHERE idx = 9) WHERE idx = 8",
    )
    assert named(checked(copy)) == {8}


@pytest.mark.parametrize("blob", [b"[]", b"{}", b"1", b"null", b'["a"]', b"[1]", b"\xff", b"", b"[" * 5000])
def test_what_opens_nothing_is_found(copy: Path, blob: bytes) -> None:
    """A payload that was emptied is not one that was erased."""
    changed(copy, ("UPDATE payloads SET disclosures = ? WHERE idx = 5", (blob,)))
    assert named(checked(copy)) == {5}


def test_a_wrong_leaf_is_one_finding(copy: Path) -> None:
    """One changed byte does not make everything after it wrong: the reader sees where it is."""
    changed(
        copy, "UPDATE entries SET leaf = CAST(replace(leaf, 'returned', 'unknown') AS BLOB) WHERE idx = 6"
    )
    kinds = [finding.entry for finding in checked(copy).findings]
    assert set(kinds) == {6}


def test_random_damage_to_many_rows_is_found(original: Original, copy: Path) -> None:
    """Each of many wrong entries is named, not only the first."""
    chosen = range(3, 55, 5)
    for index in chosen:
        changed(copy, ("UPDATE entries SET leaf = leaf || x'20' WHERE idx = ?", (index,)))
    assert named(checked(copy)) >= set(chosen)


# -- the commands ----------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    opened = open_home(tmp_path / "home")
    with closing(opened.store()) as store:
        fill(store)
    return opened.path


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def test_lineage_verify_names_the_entry(home: Path) -> None:
    """Exit code 0 and a plain sentence; after one changed byte exit code 1 and the entry."""
    code, output = run("lineage", "verify", "--home", home)
    assert (code, output.splitlines()[-1]) == (0, "everything stands as it was recorded")
    changed(home / "guard.db", "UPDATE entries SET leaf = leaf || x'00' WHERE idx = 17")
    code, output = run("lineage", "verify", "--home", home)
    assert code == 1
    assert "WRONG entry 17" in output
    assert output.splitlines()[-1] == "the record was changed"
    code, output = run("lineage", "verify", "--home", home, "--json")
    assert code == 1
    assert json.loads(output)["sound"] is False
    assert 17 in {finding["entry"] for finding in json.loads(output)["findings"]}


def test_verify_needs_no_secret(home: Path, tmp_path: Path) -> None:
    """A stranger with a copy and the public key learns the same; with another key, nothing stands."""
    copy = copied(home / "guard.db", tmp_path / "copy.db")
    key = open_home(home).vkey
    shutil.rmtree(home / "keys")
    elsewhere = tmp_path / "elsewhere"
    assert run("verify", copy, "--vkey", key, "--home", elsewhere)[0] == 0
    assert not elsewhere.exists()
    changed(copy, "UPDATE entries SET leaf = leaf || x'00' WHERE idx = 17")
    code, output = run("verify", copy, "--vkey", key, "--home", elsewhere)
    assert code == 1
    assert "WRONG entry 17" in output
    assert run("verify", copy, "--vkey", VKEY, "--home", elsewhere)[0] == 1


def test_a_running_guard_does_not_disturb_an_audit(home: Path) -> None:
    """The picture is of one moment, however much is written meanwhile."""
    script = (
        "import sys, time; from pathlib import Path; from contextlib import closing;"
        "from guard.config.home import open_home; from tests.lineage.lineages import granted, recorded;"
        "store = open_home(Path(sys.argv[1])).store(); print('writing', flush=True);"
        "[recorded(store, granted(f'x{n}')) for n in range(100000)]"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        vkeys = [parse_vkey(open_home(home).vkey)]
        sizes = []
        while len(sizes) < 5 or sizes[-1] < sizes[0] + 50:
            report = audit(home / "guard.db", vkeys)
            assert report.findings == []
            sizes.append(report.entries)
    finally:
        writer.kill()
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
    assert sizes == sorted(sizes)


# -- the page for outsiders ------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "lineage.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _page() -> tuple[dict[str, str], list[str]]:
    found = BLOCK.findall(PAGE.read_text("utf-8"))
    files = {name: text for kind, name, text in found if kind == "text"}
    return files, [text for kind, _, text in found if kind == "python"]


def _run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    assert "guard." not in program.replace("guard.db", "")
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_leaf_on_the_page_is_one(tmp_path: Path) -> None:
    """The page's example is what Guard writes for its fields, and its program opens it."""
    files, (opens, _) = _page()
    fields = {
        "tenant": "default",
        "principal": ["launch", "ada"],
        "tool": "git_status",
        "arguments": {"repo_path": "/src"},
    }
    made = draft(Kind.GRANTED, "pZ3Jw0m1uQvTx8bY6kRfAg", fields, bytes(range(64)))
    data = files["leaf.json"].rstrip("\n").encode()
    found = parse(data)
    assert leaf_of(made, conversation=found.conversation, seq=4, prev=found.prev, at=found.at) == data
    assert json.loads(files["disclosures.json"]) == list(made.disclosures)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = _run(opens, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())
    (tmp_path / "leaf.json").write_text(files["leaf.json"].replace('"Izta', '"IztA'))
    assert _run(opens, tmp_path).returncode == 1


def test_an_outsider_computes_the_root(original: Original, tmp_path: Path) -> None:
    """The page's twenty lines find the signed root in a copy of the file, and not in a changed one."""
    _, (_, computes) = _page()
    assert len(computes.splitlines()) <= 25
    copy = original.copy(tmp_path / "guard.db")
    done = _run(computes, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{ORIGIN}: 55 entries, root ")
    changed(copy, "UPDATE entries SET leaf = leaf || x'20' WHERE idx = 40")
    assert _run(computes, tmp_path).returncode == 1


def test_the_page_names_every_kind() -> None:
    """No entry says something that the page does not explain."""
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    named = set(re.findall(r"`([\w-]+)`", " ".join(row.split("|")[1] for row in rows)))
    assert {kind.value for kind in Kind} <= named

"""Copies and how they come back: whole, checked, over nothing, and never unnoticed if they are old."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from guard.cli.main import main
from guard.config.home import Home, open_home
from guard.lineage.audit import audit
from guard.lineage.checkpoint import Checkpoint, open_checkpoint, parse_vkey, sign
from guard.lineage.database import StoreError
from guard.lineage.entry import Kind
from guard.lineage.merkle import Frontier
from guard.lineage.ranges import RANGE
from guard.lineage.snapshots import copy
from tests.lineage.lineages import (
    ORIGIN,
    OTHER_KEY,
    VKEY,
    changed,
    dump,
    ended,
    granted,
    leaves,
    open_store,
    recorded,
    transaction,
)
from tests.lineage.naive_tree import tree_hash


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def calls(home: Home, first: int, count: int) -> None:
    with closing(home.store()) as store:
        for n in range(first, first + count):
            recorded(store, granted(f"call-{n}"), ended(f"call-{n}"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = open_home(tmp_path / "home")
    calls(made, 0, 5)
    return made


def new_home(home: Home, path: Path) -> Home:
    """A home with the same keys and no store, as an operator makes one."""
    path.mkdir(mode=0o700)
    shutil.copytree(home.path / "keys", path / "keys")
    return open_home(path, make=False)


# -- the copy --------------------------------------------------------------------------------------


def test_a_snapshot_is_the_store(home: Home, tmp_path: Path) -> None:
    """Every row of every table, in one file that nobody else can read."""
    target = tmp_path / "copy.db"
    code, output = run("lineage", "snapshot", target, "--home", home.path, "--json")
    assert code == 0
    assert json.loads(output)["size"] == 11
    assert dump(target) == dump(home.path / "guard.db")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if "copy" in path.name] == ["copy.db"]
    assert run("verify", target, "--home", home.path)[0] == 0


@pytest.mark.parametrize("stands", ["file", "folder", "link", "wal"])
def test_nothing_is_overwritten(home: Home, tmp_path: Path, stands: str) -> None:
    """Not a file, not a folder, not what a dangling link names, not a database whose log is left."""
    target = tmp_path / "copy.db"
    match stands:
        case "file":
            target.write_text("mine")
        case "folder":
            target.mkdir()
        case "link":
            target.symlink_to(tmp_path / "nowhere")
        case _:
            (tmp_path / "copy.db-wal").write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    code, output = run("lineage", "snapshot", target, "--home", home.path)
    assert code == 2
    assert "nothing is overwritten" in output or stands == "folder"  # which is no file at all
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    if stands == "file":
        assert target.read_text() == "mine"


def test_a_snapshot_that_cannot_be_written_leaves_nothing(home: Home, tmp_path: Path) -> None:
    """No half of a copy under any name."""
    with pytest.raises(StoreError):
        copy(home.path / "guard.db", tmp_path / "no" / "such" / "copy.db")
    with pytest.raises(StoreError, match="there is no store"):
        copy(tmp_path / "nothing.db", tmp_path / "copy.db")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_snapshot_while_guard_writes_is_one_moment(home: Home, tmp_path: Path) -> None:
    """However much is written meanwhile: each copy is sound, and each begins with the one before."""
    script = (
        "import sys; from pathlib import Path;"
        "from guard.config.home import open_home; from tests.lineage.lineages import *;"
        "store = open_home(Path(sys.argv[1])).store(); print('writing', flush=True);"
        "[recorded(store, granted(f'x{n}'), ended(f'x{n}')) for n in range(100000)]"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(home.path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    vkeys = [parse_vkey(home.vkey)]
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        kept: list[Checkpoint] = []
        for n in range(5):
            target = tmp_path / f"copy-{n}.db"
            copy(home.path / "guard.db", target)
            report = audit(target, vkeys, kept=kept)
            assert report.findings == []
            with closing(open_store(target, key=home.checkpoint_key, origin=home.origin)) as store:
                kept.append(open_checkpoint(store.checkpoint(), vkeys))
            assert kept[-1].size == report.entries
            time.sleep(0.05)
    finally:
        writer.kill()
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
    sizes = [checkpoint.size for checkpoint in kept]
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]


# -- coming back -----------------------------------------------------------------------------------


def test_a_restored_store_goes_on(home: Home, tmp_path: Path) -> None:
    """With the keys beside it, Guard grows the same log from where the copy ends."""
    assert run("lineage", "snapshot", tmp_path / "copy.db", "--home", home.path)[0] == 0
    fresh = new_home(home, tmp_path / "fresh")
    code, output = run("lineage", "restore", tmp_path / "copy.db", "--home", fresh.path)
    assert (code, "11 entries" in output) == (0, True)
    assert stat.S_IMODE((fresh.path / "guard.db").stat().st_mode) == 0o600
    calls(fresh, 100, 2)
    assert leaves(fresh.path / "guard.db")[:11] == leaves(home.path / "guard.db")
    assert run("lineage", "verify", "--home", fresh.path)[0] == 0


def test_a_restore_overwrites_no_store(home: Home, tmp_path: Path) -> None:
    """Not even an older or an empty one: what stands is moved away by a person."""
    run("lineage", "snapshot", tmp_path / "copy.db", "--home", home.path)
    before = dump(home.path / "guard.db")
    code, output = run("lineage", "restore", tmp_path / "copy.db", "--home", home.path)
    assert code == 2
    assert "nothing is overwritten" in output
    assert dump(home.path / "guard.db") == before


def test_a_changed_copy_is_not_restored(home: Home, tmp_path: Path) -> None:
    """Exit code 1, the entry is named, and there is still no store."""
    run("lineage", "snapshot", tmp_path / "copy.db", "--home", home.path)
    changed(tmp_path / "copy.db", "UPDATE entries SET leaf = leaf || x'00' WHERE idx = 4")
    fresh = new_home(home, tmp_path / "fresh")
    code, output = run("lineage", "restore", tmp_path / "copy.db", "--home", fresh.path)
    assert code == 1
    assert "WRONG entry 4" in output
    assert not (fresh.path / "guard.db").exists()
    elsewhere = open_home(tmp_path / "elsewhere")  # other keys: nothing of it is theirs
    assert run("lineage", "restore", tmp_path / "copy.db", "--home", elsewhere.path)[0] == 1
    assert not (elsewhere.path / "guard.db").exists()


def test_a_restored_old_backup_is_caught_by_a_kept_checkpoint(home: Home, tmp_path: Path) -> None:
    """Sound in itself, and still sound once it has grown: only what was kept elsewhere tells."""
    run("lineage", "snapshot", tmp_path / "old.db", "--home", home.path)
    calls(home, 5, 3)
    kept = tmp_path / "kept.checkpoint"
    kept.write_text(run("lineage", "checkpoint", "--home", home.path)[1])
    proof = tmp_path / "kept.tlog-proof"
    proof.write_text(run("lineage", "proof", "12", "--home", home.path)[1])
    run("lineage", "snapshot", tmp_path / "new.db", "--home", home.path)
    fresh = new_home(home, tmp_path / "fresh")
    for elsewhere in (kept, proof):
        arguments = ("lineage", "restore", tmp_path / "old.db", "--checkpoint", elsewhere)
        code, output = run(*arguments, "--home", fresh.path)
        assert code == 1
        assert "a kept checkpoint signs 17 entries, 11 stand here" in output
        assert not (fresh.path / "guard.db").exists()
    assert run("lineage", "restore", tmp_path / "old.db", "--home", fresh.path)[0] == 0
    assert run("lineage", "verify", "--home", fresh.path)[0] == 0
    calls(fresh, 50, 10)  # it grows past the old size: a fork, each half of it sound
    assert run("lineage", "verify", "--home", fresh.path)[0] == 0
    code, output = run("lineage", "verify", "--home", fresh.path, "--checkpoint", kept)
    assert code == 1
    assert "the first 17 entries are not those that a kept checkpoint signs" in output
    newest = new_home(home, tmp_path / "newest")
    arguments = ("lineage", "restore", tmp_path / "new.db", "--checkpoint", kept, "--home", newest.path)
    assert run(*arguments)[0] == 0
    assert (
        run("lineage", "verify", "--home", newest.path, "--checkpoint", kept, "--checkpoint", proof)[0] == 0
    )


def test_a_checkpoint_of_another_log_is_none(home: Home, tmp_path: Path) -> None:
    """What is compared must be the log's own word: other keys, other text, nothing at all."""
    foreign = tmp_path / "foreign"
    foreign.write_text(sign(Checkpoint(home.origin, 0, tree_hash([])), OTHER_KEY))
    garbage = tmp_path / "garbage"
    garbage.write_text("garbage")
    for wrong in (foreign, garbage, tmp_path / "absent"):
        code, _ = run("lineage", "verify", "--home", home.path, "--checkpoint", wrong)
        assert code == 2


@pytest.mark.parametrize("cores", [1, 2])
def test_every_kept_checkpoint_of_a_long_log_is_found_again(tmp_path: Path, cores: int) -> None:
    """At every size, within a range and at its edges: the right root passes, any other does not."""
    path = tmp_path / "guard.db"
    size = 2 * RANGE + 77
    with closing(open_store(path)) as store:
        for start in range(0, size, 512):
            many = range(start, min(start + 512, size))
            recorded(store, *(transaction(Kind.DENIED, f"d{n}") for n in many))
    frontier, roots = Frontier.empty(), {0: tree_hash([])}
    for number, leaf in enumerate(leaves(path), 1):
        frontier, _ = frontier.append(tree_hash([leaf]))
        roots[number] = frontier.root()
    sizes = [0, 1, 2, RANGE - 1, RANGE, RANGE + 1, 2 * RANGE, 2 * RANGE + 1, size - 1, size]
    vkeys = [VKEY]
    kept = [Checkpoint(ORIGIN, at, roots[at]) for at in sizes]
    assert audit(path, vkeys, kept=kept, cores=cores).findings == []
    wrong = [Checkpoint(ORIGIN, at, roots[at + 1]) for at in sizes[1:-1]]
    found = [finding.what for finding in audit(path, vkeys, kept=wrong, cores=cores).findings]
    assert found == [
        f"the first {at} entries are not those that a kept checkpoint signs" for at in sizes[1:-1]
    ]


def test_the_effects_of_a_copy_are_there(home: Home, tmp_path: Path) -> None:
    """Keys and their revocations come back with the log: nobody gains by a restore of the same moment."""
    assert run("key", "new", "--principal", "p", "--role", "r", "--home", home.path)[0] == 0
    run("lineage", "snapshot", tmp_path / "copy.db", "--home", home.path)
    fresh = new_home(home, tmp_path / "fresh")
    run("lineage", "restore", tmp_path / "copy.db", "--home", fresh.path)
    with closing(fresh.store()) as one, closing(home.store()) as other:
        assert one.api_keys() == other.api_keys() != []

"""`guard lineage` on a home whose store is shared: the same commands, the same answers."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from guard.cli.main import main
from guard.config.home import Home, open_home
from guard.lineage.audit import audit
from guard.lineage.checkpoint import parse_vkey
from guard.lineage.postgres import schema
from guard.lineage.postgres.connection import Address
from tests.lineage.lineages import checked, ended, granted, place, today
from tests.postgres import Databases


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.output


@pytest.fixture
def home(database: str, tmp_path: Path) -> Home:
    """A home that was used with a shared store; no replica runs."""
    made, address = open_home(tmp_path / "home"), Address(database)
    schema.upgrade(address)
    with closing(made.store(address=address)) as store:
        for n in range(5):
            store.apply([granted(f"call-{n}", now=today()), ended(f"call-{n}", now=today())])
    return made


def test_a_shared_record_is_shown_proved_closed_and_verified(home: Home, tmp_path: Path) -> None:
    """What no replica moved yet is given its place by the command that needs it."""
    code, output = run("lineage", "list", "--home", home.path, "--json")
    assert code == 0
    (talk,) = [row["id"] for row in json.loads(output) if row["conversation"] == "talk"]
    code, output = run("lineage", "show", talk, "--home", home.path, "--json")
    assert (code, len(json.loads(output))) == (0, 10)
    code, output = run("lineage", "seal", talk, "--home", home.path, "--json")
    assert (code, json.loads(output)) == (0, {"sealed": talk, "total": 11, "entry": 11})
    proof = tmp_path / "seal.tlog-proof"
    proof.write_text(run("lineage", "proof", "11", "--home", home.path)[1])
    assert run("verify", proof, "--home", home.path)[0] == 0
    assert run("lineage", "verify", talk, "--home", home.path, "--checkpoint", proof)[0] == 0
    with closing(home.store()) as store:
        (late,) = store.apply([granted("late", where=place("talk"), now=today())])
        assert type(late).__name__ == "Conflict"
    code, output = run("lineage", "verify", "--home", home.path, "--json")
    assert code == 0
    assert json.loads(output)["sealed"] == 1


def test_a_shared_record_that_was_changed_is_found(home: Home) -> None:
    """Whoever owns the database takes the traps off and changes a byte: exit code 1, and which entry."""
    assert run("lineage", "proof", "0", "--home", home.path)[0] == 0
    address = home.source().address  # type: ignore[attr-defined]
    with closing(address.connect(patience=30)) as db:
        db.execute("ALTER TABLE guard.entries DISABLE TRIGGER ALL")
        db.execute("UPDATE guard.entries SET leaf = leaf || ' ' WHERE idx = 6")
    code, output = run("lineage", "verify", "--home", home.path)
    assert code == 1
    assert "WRONG entry 6" in output


def test_a_shared_store_is_backed_up_and_comes_back(home: Home, tmp_path: Path, postgres: Databases) -> None:
    """Into another database, into a file; over nothing; and an old one is caught by what was kept."""
    assert run("lineage", "proof", "0", "--home", home.path)[0] == 0
    assert run("lineage", "snapshot", tmp_path / "old.db", "--home", home.path)[0] == 0
    with closing(home.store()) as store:
        store.apply([granted("more", now=today()), ended("more", now=today())])
    run("lineage", "proof", "0", "--home", home.path)
    kept = tmp_path / "kept"
    kept.write_text(run("lineage", "checkpoint", "--home", home.path)[1])
    code, output = run("lineage", "snapshot", tmp_path / "new.db", "--home", home.path)
    assert (code, "checkpoint: 13 entries" in output) == (0, True)
    assert audit(tmp_path / "new.db", [parse_vkey(home.vkey)]).findings == []
    code, output = run("lineage", "restore", tmp_path / "new.db", "--home", home.path)
    assert (code, "nothing is overwritten" in output) == (2, True)
    with postgres.fresh() as url:
        schema.upgrade(Address(url))
        other = _with_keys(home, tmp_path / "other")
        (other / "store.json").write_text(json.dumps({"url": url}))
        (other / "store.json").chmod(0o600)
        old = ("lineage", "restore", tmp_path / "old.db", "--home", other, "--checkpoint", kept)
        assert run(*old)[0] == 1
        new = ("lineage", "restore", tmp_path / "new.db", "--home", other, "--checkpoint", kept)
        assert run(*new)[0] == 0
        code, output = run("lineage", "verify", "--home", other, "--checkpoint", kept)
        assert (code, "13 entries" in output) == (0, True)
    one = _with_keys(home, tmp_path / "one")
    assert run("lineage", "restore", tmp_path / "new.db", "--home", one)[0] == 0
    assert (one / "guard.db").exists()
    assert run("lineage", "verify", "--home", one, "--checkpoint", kept)[0] == 0
    assert checked(one / "guard.db").entries == 13


def _with_keys(home: Home, path: Path) -> Path:
    path.mkdir(mode=0o700)
    shutil.copytree(home.path / "keys", path / "keys")
    return path

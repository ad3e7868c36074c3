"""What the operator lets through beside MCP, and the durability that is none."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from guard.config.home import open_home
from guard.config.loaded import load
from guard.config.settings import Settings, load_settings
from guard.core.errors import GuardError
from guard.core.model import SUBJECTS
from guard.proxy import features, server, wire
from guard.proxy.asker import ASKED, SAID, TASK_METHODS
from tests.proxy.estate import Estate, Server
from tests.proxy.scene import PATIENCE

GUARD = Path(sys.executable).parent / "guard"
CONFIG = "guard: 1\npolicy: policy.yaml\nservers:\n  one: {command: [one], %s}\n"


def found(folder: Path, more: str) -> Settings:
    path = folder / "guard.yaml"
    path.write_text(CONFIG % more)
    return load_settings(path)


KNOWN = sorted({*server._METHODS, *features.METHODS, *SUBJECTS, *ASKED, *SAID, "notifications/cancelled"})


@pytest.mark.parametrize("method", [*KNOWN, "notifications/anything", "rpc.discover", "", "a b", "a\\u0000b"])
def test_no_method_that_guard_knows_is_let_through(tmp_path: Path, method: str) -> None:
    """A method that is answered or judged in a way of its own is not judged in another one too."""
    with pytest.raises(GuardError) as refused:
        found(tmp_path, f'methods: ["{method}"]')
    assert "guard.yaml:4" in str(refused.value)


@pytest.mark.parametrize("method", [*sorted(TASK_METHODS), "acme/do", "toolsmith/call", "skills/list"])
def test_a_method_that_guard_does_not_know_may_be_let_through(tmp_path: Path, method: str) -> None:
    """To the server that names it, and to no other by default."""
    assert found(tmp_path, f'methods: ["{method}"]').servers["one"].methods == [method]
    assert found(tmp_path, "shared: true").servers["one"].methods == []


@pytest.mark.parametrize(
    "key",
    [
        "dev.guard-mcp/authorization",
        "dev.guard-mcp/anything",
        "io.modelcontextprotocol/protocolVersion",
        "io.modelcontextprotocol/anything",
        "progressToken",
        *wire.TRACE_KEYS,
        "",
        "a b",
        "/a",
        "a/",
    ],
)
def test_no_key_that_guard_looks_after_is_passed_on(tmp_path: Path, key: str) -> None:
    """What Guard reads or sets itself is never what a client said."""
    with pytest.raises(GuardError) as refused:
        found(tmp_path, f'meta: ["{key}"]')
    assert "guard.yaml:4" in str(refused.value)


@pytest.mark.parametrize("key", ["com.example/tenant", "locale", "com.example/a.b_c"])
def test_another_key_may_be_passed_on(tmp_path: Path, key: str) -> None:
    """To the server that names it, and to no other by default."""
    assert found(tmp_path, f'meta: ["{key}"]').servers["one"].meta == [key]
    assert found(tmp_path, "shared: true").servers["one"].meta == []


async def test_what_is_let_through_reaches_the_connection(tmp_path: Path) -> None:
    """Each server has what its own entry names, and nothing of another's."""
    named = Server("one", settings={"methods": ["acme/do"], "meta": ["com.example/tenant"]})
    estate = Estate(tmp_path / "e", named, Server("two"))
    async with estate.guarded() as serving:
        about = {name: each.about for name, each in serving.house.generation.servers.items()}
    assert (about["one"].methods, about["one"].meta) == ({"acme/do"}, {"com.example/tenant"})
    assert (about["two"].methods, about["two"].meta) == (frozenset(), frozenset())


def test_a_log_that_a_power_cut_shortens_is_not_served(tmp_path: Path) -> None:
    """`durability: normal` is refused with a remedy, by looking as by serving; a benchmark says so."""
    estate = Estate(tmp_path / "e")
    estate.write_config(durability="normal")
    for more in (["--check"], []):
        words = [str(GUARD), "serve", *more, str(estate.config)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 2
        assert "durability: `normal` loses what was recorded last" in done.stderr
        assert "next: write `queued` or `strict`" in done.stderr
    assert not (estate.home / "guard.db").exists()
    assert load(estate.config, bench=True).settings.durability == "normal"


@pytest.mark.parametrize(("lax", "synchronous"), [(False, 2), (True, 1)])
def test_the_store_waits_for_the_disk_unless_told_otherwise(
    tmp_path: Path, *, lax: bool, synchronous: int
) -> None:
    """FULL is 2, NORMAL is 1 (SQLite, PRAGMA synchronous)."""
    store = open_home(tmp_path / "home").store(lax=lax)
    try:
        db: sqlite3.Connection = store._db
        assert db.execute("PRAGMA synchronous").fetchone() == (synchronous,)
    finally:
        store.close()


async def test_no_reload_makes_the_log_lax(tmp_path: Path) -> None:
    """A configuration that asks for it is not taken; the old one holds."""
    estate = Estate(tmp_path / "e")
    async with estate.guarded() as serving:
        estate.write_config(durability="normal")
        before = serving.house.generation
        assert not await serving.reload()
        assert serving.house.generation is before


def test_one_client_at_the_pipes_has_one_worker(tmp_path: Path) -> None:
    """Several are refused, and the operator is told what to leave out."""
    estate = Estate(tmp_path / "e", listen="stdio", identity={"role": "caller"})
    estate.write_config()
    words = [str(GUARD), "serve", "--workers", "2", str(estate.config)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--workers: one client at the pipes has one worker" in done.stderr

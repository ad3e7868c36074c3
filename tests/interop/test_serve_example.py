"""The example of many servers, as its page says: its configuration, its commands, its clients."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from guard.config.settings import load_settings
from tests.docs.pages import blocks
from tests.interop.clients import Opens, Place, fast, sdk
from tests.interop.served import BIN, EXAMPLE, Served, free_port

READER = {
    "git__git_status", "git__git_log", "git__git_show",
    "git__git_diff", "git__git_diff_staged", "git__git_diff_unstaged",
    "time__get_current_time", "time__convert_time",
    "notes__list_notes", "notes__read_note", "notes__add_note",
}  # fmt: skip
CLIENTS = {
    "sdk 2026-07-28": sdk("2026-07-28"),
    "sdk legacy": sdk("legacy"),
    "fastmcp auto": fast("auto"),
}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The example as it stands, but for the port, and a reader's key. In the end its record stands."""
    served = Served(tmp_path_factory.mktemp("example"))
    config = served.config(listen="127.0.0.1:0")
    served.guard("pin", "--yes", "--config", config)
    with served.running(config):
        yield served
    served.settled()


@pytest.mark.parametrize("opens", CLIENTS.values(), ids=CLIENTS)
async def test_the_example_serves_three_servers_at_one_url(example: Served, opens: Opens) -> None:
    """A reader of either era sees three servers in one list, reads the history, and adds no note."""
    place = Place(example.key("rita", "reader"), example.url, [], {})
    async with opens(place) as agent:
        assert set(await agent.tools()) == READER
        log = await agent.call("git__git_log", {"repo_path": ".", "max_count": 1})
        assert (log.error, log.decision) == (False, None)
        assert "Start the notes" in log.text
        denied = await agent.call("notes__add_note", {"title": "mine", "text": "Bread and tea"})
        assert denied.error
        assert denied.decision is not None
        assert denied.decision["reason"] == "missing-scope"


def test_the_configuration_loads_as_it_stands() -> None:
    """The file in the repository, unchanged: three servers, the port that the page names."""
    settings = load_settings(EXAMPLE / "guard.yaml")
    assert [*settings.servers] == ["git", "time", "notes"]
    assert (settings.host, settings.port) == ("127.0.0.1", 8640)


def test_the_page_shows_a_server_behind_a_url_that_loads(tmp_path: Path) -> None:
    """The configuration in the page's block is one that Guard takes."""
    (text,) = blocks(EXAMPLE / "README.md", "yaml")
    (tmp_path / "guard.yaml").write_text(text)
    assert load_settings(tmp_path / "guard.yaml").servers["notes"].url == "http://127.0.0.1:8650/mcp"


def test_the_commands_by_hand_do_what_the_page_says(tmp_path: Path) -> None:
    """Copied into a shell: a note goes from writer to reader, two calls are denied, the record stands."""
    served = Served(tmp_path)
    port = free_port()
    path = served.example / "guard.yaml"
    path.write_text(path.read_text().replace("8640", str(port)))
    assert yaml.safe_load(path.read_text())["listen"] == f"127.0.0.1:{port}"
    script = "\n".join(blocks(EXAMPLE / "README.md", "sh")).replace("8640", str(port))
    script = script.replace("$PWD/.venv/bin", str(BIN))
    done = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=script, cwd=tmp_path, env=served.environment | {"COLUMNS": "400"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Wrote tuesday." in done.stdout
    assert "Bread and tea" in done.stdout
    said = done.stdout + done.stderr
    for reason in ("missing-scope", "protected"):
        assert said.count(f"reason: {reason};") == 1, said
    assert "2 granted, 2 ended, 2 denied" in done.stdout
    assert "everything stands as it was recorded" in done.stdout

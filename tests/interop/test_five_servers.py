"""Five real tool servers behind one `guard serve`, used by three clients that others wrote."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.interop.clients import Agent, Answer, NotListed, Opens, fast, inspector, sdk, sdk_client
from tests.interop.conftest import Five
from tests.interop.node import Node

pytestmark = pytest.mark.node
READER = {
    "git__git_status", "git__git_log", "git__git_show",
    "git__git_diff", "git__git_diff_staged", "git__git_diff_unstaged",
    "time__get_current_time", "time__convert_time",
    "notes__list_notes", "notes__read_note", "notes__add_note",
    "files__read_text_file", "files__list_directory",
    "everything__echo", "everything__get-sum", "everything__trigger-long-running-operation",
}  # fmt: skip
WRITER = READER | {"git__git_commit", "notes__delete_all_notes", "files__write_file"}
NOON = {"source_timezone": "Etc/UTC", "time": "12:00", "target_timezone": "Asia/Kolkata"}
CLIENTS = ["sdk 2026-07-28", "sdk legacy", "sdk auto", "fastmcp auto", "fastmcp legacy", "inspector"]


@pytest.fixture(params=CLIENTS)
def opens(request: pytest.FixtureRequest, node: Node) -> Opens:
    name, _, mode = request.param.partition(" ")
    return {"sdk": sdk, "fastmcp": fast}[name](mode) if mode else inspector(node)


def denied(answer: Answer) -> tuple[str, str]:
    """The reason and the rule of a denial; the text names the reason too."""
    assert answer.error
    assert answer.decision is not None
    assert answer.decision["decision"] == "deny"
    assert f"reason: {answer.decision['reason']}" in answer.text
    return answer.decision["reason"], answer.decision["rule"]


async def reads(five: Five, agent: Agent) -> None:
    """What a reader does: every server answers once, and two calls are denied."""
    listed, log, noon, notes, file, added, no_note = await asyncio.gather(
        agent.tools(),
        agent.call("git__git_log", {"repo_path": ".", "max_count": 1}),
        agent.call("time__convert_time", NOON),
        agent.call("notes__list_notes", {}),
        agent.call("files__read_text_file", {"path": str(five.files / "hello.txt")}),
        agent.call("everything__get-sum", {"a": 2, "b": 3}),
        agent.call("notes__add_note", {"title": "mine", "text": "Bread and tea"}),
    )
    assert len(listed) == len(set(listed))
    assert set(listed) == READER
    permitted = (log, noon, notes, file, added)
    assert [(each.error, each.decision) for each in permitted] == [(False, None)] * len(permitted)
    assert "Start the notes" in log.text
    assert "17:30" in noon.text
    assert "mine" not in notes.structured["result"]
    assert file.text == "hello from a file"
    assert "5" in added.text
    assert denied(no_note) == ("missing-scope", "adding-writes")
    unseen = agent.call("files__write_file", {"path": str(five.files / "mine.txt"), "content": "Bread"})
    if agent.looks_up:
        with pytest.raises(NotListed):
            await unseen
    else:
        assert denied(await unseen)[0] == "unknown-tool"
    assert not (five.files / "mine.txt").exists()


async def writes(agent: Agent) -> None:
    """What a writer does: it sees more, it may do more, and still not everything."""
    title = f"note-{os.urandom(8).hex()}"
    listed, written, none = await asyncio.gather(
        agent.tools(),
        agent.call("notes__add_note", {"title": title, "text": "Bread and tea"}),
        agent.call("notes__delete_all_notes", {}),
    )
    assert set(listed) == WRITER
    assert (written.error, written.text) == (False, f"Wrote {title}.")
    assert denied(none) == ("protected", "notes-are-kept")
    assert title in (await agent.call("notes__list_notes", {})).structured["result"]


@pytest.mark.parametrize("over", ["http", "stdio"])
async def test_a_client_sees_and_does_what_its_role_may(
    five: Five, opens: Opens, over: str, request: pytest.FixtureRequest
) -> None:
    """Whatever the client, its era and its way: one list of five servers, calls that run, reasons."""

    async def as_reader() -> None:
        async with opens(five.place(over, "reader")) as agent:
            await reads(five, agent)

    async def as_writer() -> None:
        async with opens(five.place(over, "writer")) as agent:
            await writes(agent)

    if over == "stdio" and request.node.callspec.params["opens"] == "inspector":
        await as_reader()  # it starts five servers for each request: that is enough of them
    else:
        await asyncio.gather(as_reader(), as_writer())


@pytest.mark.parametrize(
    ("over", "mode"),
    [
        ("http", "2026-07-28"),
        ("http", "legacy"),
        ("http", "auto"),
        ("stdio", "2026-07-28"),
        ("stdio", "legacy"),
    ],
)
async def test_progress_comes_from_behind_a_url(five: Five, mode: str, over: str) -> None:
    """Each step that a handshake-era server over HTTP reports reaches a client of either era, in order."""
    steps: list[tuple[float, float | None]] = []

    async def seen(done: float, total: float | None, message: str | None) -> None:
        steps.append((done, total))

    async with sdk_client(five.place(over, "reader"), mode) as client:
        result = await client.call_tool(
            "everything__trigger-long-running-operation",
            {"duration": 0.3, "steps": 3},
            progress_callback=seen,
        )
    assert not result.is_error, result
    assert steps == [(1, 3), (2, 3), (3, 3)]

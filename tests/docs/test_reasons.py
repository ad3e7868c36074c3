"""Each reason has its page, and no page is without its reason."""

from __future__ import annotations

import json

import pytest

from guard.core.errors import Reason
from guard.core.model import DECISION_META, Deny
from guard.proxy.answers import denial
from guard.proxy.wire import Request
from tests.docs.pages import ROOT, blocks, headings, links, prose

FOLDER = ROOT / "docs" / "reasons"
WANTED = ["What it means", "Who sees it", "Example", "What to do next"]


class Handshake:
    """A server of the handshake era."""

    info: dict[str, object] = {}  # noqa: RUF012 - as the protocol has it
    modern = False


def test_every_page_has_its_reason() -> None:
    """Beside the index there is one page for each reason, and no other."""
    written = {path.stem for path in FOLDER.glob("*.md")} - {"README"}
    assert written == {reason.value for reason in Reason}


@pytest.mark.parametrize("reason", Reason)
def test_a_page_says_four_things(reason: Reason) -> None:
    """What it means, who sees it, an example, what to do next: all there, in order, none empty."""
    page = FOLDER / f"{reason}.md"
    assert headings(page, 1) == [reason.value]
    assert headings(page, 2) == WANTED
    parts = page.read_text(encoding="utf-8").split("\n## ")[1:]
    assert all(part.partition("\n")[2].strip() for part in parts)


def test_the_index_links_each_page_once_in_its_tables() -> None:
    """docs/reasons/README.md has a row for each reason."""
    rows = [line for line in prose(FOLDER / "README.md").splitlines() if line.startswith("| [")]
    listed = [line.removeprefix("| [").partition("]")[0] for line in rows]
    assert sorted(listed) == sorted(reason.value for reason in Reason)
    assert {f"{reason}.md" for reason in Reason} <= {path for path, _ in links(FOLDER / "README.md")}


@pytest.mark.parametrize("reason", Reason)
def test_an_example_is_what_a_client_is_told(reason: Reason) -> None:
    """A denial that a page shows is the one that `answers.denial` makes of what stands in it."""
    shown = [json.loads(text) for text in blocks(FOLDER / f"{reason}.md", "json")]
    decisions = [value[DECISION_META] for value in shown if DECISION_META in value]
    for found in decisions:
        if found["decision"] == "deny":
            deny = Deny(reason, found["rule"], found["pointer"])
            line = denial(Request(1, "tools/call"), found["decision_id"], deny, server=Handshake())
            assert json.loads(line)["result"]["_meta"][DECISION_META] == found


@pytest.mark.parametrize("reason", [Reason.DEFAULT_DENY, Reason.TOOL_NOT_VISIBLE, Reason.UNKNOWN_TOOL])
def test_the_three_that_are_told_as_one_say_so(reason: Reason) -> None:
    """The pages of the reasons that a client cannot tell apart name `unknown-tool`."""
    line = denial(Request(1, "tools/call"), "id", Deny(reason, "rule"), server=Handshake())
    assert json.loads(line)["result"]["_meta"][DECISION_META]["reason"] == "unknown-tool"
    assert "unknown-tool" in prose(FOLDER / f"{reason}.md")

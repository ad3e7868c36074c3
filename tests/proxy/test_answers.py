"""What a denied client sees: a fixed text for people, and the decision for programs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from guard.core.errors import Reason
from guard.core.model import Deny
from guard.lineage.entry import Kind
from guard.proxy import answers, eras, wire
from guard.proxy.endings import Failed, Returned, Unknown
from guard.proxy.wire import Request
from tests.proxy.scene import LEGACY, MODERN, Scene, decision


class Server:
    """As much of a server as an answer needs."""

    info = {"name": "behind", "version": "1"}  # noqa: RUF012 - never changed
    modern = True


TEXT = re.compile(
    r"Denied by Guard \(reason: [a-z-]+(; field: [^;]+)?; decision: [A-Za-z0-9_-]+\)\. Nothing was sent\. "
    r"(Ask whoever operates Guard\.|The operator accepts the tool with: guard pin .*)"
)


IN_A_RESULT = {*Reason} - {Reason.STATE_INVALID}


@pytest.mark.parametrize("method", ["tools/call", "resources/read", "prompts/get", "x/y"])
def test_a_denial_of_what_is_no_tool_is_an_error(method: str) -> None:
    """And so is that of a state which must not be taken: outside the codes that JSON-RPC and MCP keep."""
    message = Request(1, method, {"name": "t"}, modern=True)
    found = json.loads(answers.denial(message, "D", Deny(Reason.STATE_INVALID), server=Server()))["error"]
    assert found["code"] == wire.DENIED
    assert not -32768 <= found["code"] <= -32000
    assert TEXT.fullmatch(found["message"])
    assert found["data"]["dev.guard-mcp/decision"]["reason"] == "state-invalid"


def denied(deny: Deny, *, modern: bool = True) -> dict[str, Any]:
    message = Request(1, "tools/call", {"name": "t"}, modern=modern)
    line = answers.denial(message, "D", deny, server=Server(), pin_command="guard pin -- server")
    found = json.loads(line)["result"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("reason", sorted(IN_A_RESULT))
@pytest.mark.parametrize("modern", [True, False])
def test_every_denial_has_one_form(reason: Reason, modern: bool) -> None:  # noqa: FBT001
    """`isError`, one text after the template, the decision in `_meta`, nothing in `structuredContent`."""
    found = denied(Deny(reason, "a-rule", "/arguments/a"), modern=modern)
    assert found.keys() == {"content", "isError", "_meta"} | ({"resultType"} if modern else set())
    assert found["isError"] is True
    assert [each.keys() for each in found["content"]] == [{"type", "text"}]
    assert TEXT.fullmatch(found["content"][0]["text"])
    about = found["_meta"]["dev.guard-mcp/decision"]
    assert about.keys() == {"decision", "reason", "rule", "pointer", "decision_id", "retryable"}
    assert (about["decision"], about["decision_id"]) == ("deny", "D")
    assert (found["_meta"].get(eras.SERVER_INFO) is not None) == modern
    assert found.get("resultType") == ("complete" if modern else None)


def test_what_may_not_be_seen_is_answered_as_what_is_not_there() -> None:
    """Unlisted, invisible and unknown: one answer, without rule or field."""
    alike = [
        denied(Deny(reason, "a-rule", "/arguments/a"))
        for reason in (Reason.DEFAULT_DENY, Reason.TOOL_NOT_VISIBLE, Reason.UNKNOWN_TOOL)
    ]
    assert alike[0] == alike[1] == alike[2]
    assert alike[0]["_meta"]["dev.guard-mcp/decision"]["rule"] == ""
    assert alike[0]["_meta"]["dev.guard-mcp/decision"]["pointer"] == ""


def test_only_what_may_pass_by_itself_is_retryable() -> None:
    """A client that is told to retry is told the truth."""
    told = {
        reason
        for reason in IN_A_RESULT
        if denied(Deny(reason))["_meta"]["dev.guard-mcp/decision"]["retryable"]
    }
    assert told == {
        Reason.CONTENDED,
        Reason.CLOCK_BEHIND,
        Reason.CLOCK_AHEAD,
        Reason.LIMIT_REACHED,
        Reason.APPROVAL_REQUIRED,
        Reason.UPSTREAM_UNAVAILABLE,
        Reason.OVERLOADED,
    }


@pytest.mark.parametrize("char", ["\x1b[31m", "\u202e", "\u200b", "\n", "\x00", "\x9b", "\U000e0041"])
def test_the_field_is_escaped(char: str) -> None:
    """The caller's own text cannot steer the reader's terminal or its model's eye."""
    found = denied(Deny(Reason.INTENT_UNMATCHED, "rule", f"/arguments/{char}"))
    assert char not in found["content"][0]["text"]
    assert char not in found["_meta"]["dev.guard-mcp/decision"]["pointer"]


@pytest.mark.parametrize("ending", [Unknown(Reason.TIMED_OUT), Unknown(Reason.UNEXPECTED, executed=True)])
def test_an_error_after_dispatch_is_never_to_be_retried(ending: Unknown) -> None:
    """It says what is known of the outcome, under the decision's id."""
    message = Request(1, "tools/call", {"name": "t"}, modern=True)
    found = json.loads(answers.ending(message, "D", ending, server=Server(), seal=str))["result"]
    assert found["isError"] is True
    assert found["_meta"]["dev.guard-mcp/decision"] == {
        "decision": "allow",
        "reason": ending.reason,
        "outcome": "executed" if ending.executed else "unknown",
        "retryable": False,
        "decision_id": "D",
    }
    assert "Do not repeat it" in found["content"][0]["text"]


def test_a_call_that_was_never_sent_is_told_as_a_denial() -> None:
    """Failed means that nothing happened."""
    message = Request(1, "tools/call", {"name": "t"}, modern=True)
    line = answers.ending(message, "D", Failed(Reason.UPSTREAM_UNAVAILABLE), server=Server(), seal=str)
    about = json.loads(line)["result"]["_meta"]["dev.guard-mcp/decision"]
    assert (about["decision"], about["retryable"]) == ("deny", True)


def test_a_result_is_put_in_as_it_is() -> None:
    """The answer's own bytes."""
    message = Request("id", "tools/call", {"name": "t"}, modern=True)
    line = answers.ending(message, "D", Returned(b'{"a":1.10}'), server=Server(), seal=str)
    assert line == b'{"jsonrpc":"2.0","id":"id","result":{"a":1.10}}\n'


# -- end to end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [MODERN, LEGACY])
async def test_unlisted_invisible_and_unknown_tools_cannot_be_told_apart(
    tmp_path: Path, version: str
) -> None:
    """The lines are byte-equal but for the decision's id; the lineage holds the real reason."""
    scene = Scene(tmp_path / "scene")
    scene.pin()
    scene.show([each for each in scene.tools if each["name"] != "unlisted"])
    names = ["hidden", "unlisted", "no such tool", "HIDDEN", "ech*", "git_push", "echo\\"]
    async with scene.guarded(version) as client:
        lines = []
        for name in names:
            params = {"name": name, "arguments": {"n": 13, "text": "x"}}
            found = await client.ask("tools/call", params)
            line = client.raw[-1].replace(decision(found)["decision_id"].encode(), b"DECISION")
            lines.append(line.replace(f'"id":{found["id"]}'.encode(), b'"id":0'))
    assert len(set(lines)) == 1
    assert scene.received() == []
    recorded = [entry["fields"]["decision"]["reason"] for entry in scene.entries(Kind.DENIED)]
    assert recorded[:3] == ["tool-not-visible", "default-deny", "default-deny"]


async def test_a_denial_tells_nothing_of_what_would_be_permitted(tmp_path: Path) -> None:
    """No permitted value, no text of the caller's, no scope, no other rule."""
    scene = Scene(tmp_path / "scene")
    scene.pin()
    intent = {
        "id": "only-this",
        "tools": ["echo"],
        "schema": {"properties": {"text": {"const": "open sesame"}}},
    }
    scene.write_policy(intents=[intent])
    async with scene.guarded() as client:
        found = await client.call(text="let me in \x1b[31m")
    about = decision(found)
    assert (about["reason"], about["rule"], about["pointer"]) == (
        "intent-unmatched",
        "only-this",
        "/arguments/text",
    )
    for secret in ("sesame", "let me in", "\x1b", "use", "never-thirteen"):
        assert secret not in found["result"]["content"][0]["text"]
        assert secret not in json.dumps(about)


async def test_every_decision_id_leads_to_its_entries(tmp_path: Path) -> None:
    """What the client is told to quote is what the operator finds."""
    scene = Scene(tmp_path / "scene")
    scene.pin()
    async with scene.guarded() as client:
        told = [decision(await client.call(n=13))["decision_id"] for _ in range(3)]
        await client.call(text="x")
    assert [entry["call"] for entry in scene.entries(Kind.DENIED)] == told
    assert len(set(told)) == 3
    (sent,) = scene.received()
    assert sent["params"]["_meta"]["dev.guard-mcp/authorization"]

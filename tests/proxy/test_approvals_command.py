"""`guard approvals`: who answers by the command, and what it shows."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from guard.cli.approvals import approvals
from guard.config.policies import load_policy
from guard.core.canonical import write
from guard.lineage.entry import Kind
from guard.lineage.log import entry
from guard.lineage.store import Place, Recorded, SaveQuestion, Transaction
from guard.proxy.house import policy_record
from tests.proxy.asked import DO, do, estate, park, questions
from tests.proxy.features import Estates
from tests.proxy.scene import MODERN
from tests.proxy.wards import GUARD

ESC = "\x1b[2J\u202e\nstate    granted"


@pytest.fixture
async def asked(tmp_path: Path) -> Estates:
    """A home with one open question, of `someone`, whose arguments are out for the terminal."""
    found = estate(tmp_path, MODERN, "stdio", "reviewer")
    key = found.key()
    async with found.guarded() as serving, found.party(MODERN, key) as party:
        park(serving, 0.0)
        await party.ask("tools/call", do({"answer": {"content": []}, "evil": ESC}))
    return found


def run(
    found: Estates, *words: str, key: str | None = None, group: str = "approvals"
) -> tuple[int, str, str]:
    """The command, in a process of its own; exit code, standard output, standard error."""
    variables = {name: value for name, value in os.environ.items() if name != "GUARD_API_KEY"}
    if key is not None:
        variables["GUARD_API_KEY"] = key
    done = subprocess.run(
        [str(GUARD), group, *words, "--home", str(found.home)],
        capture_output=True,
        check=False,
        env=variables,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def policy(found: Estates) -> tuple[str, str]:
    return "--policy", str(found.folder / "policy.json")


async def test_what_waits_is_listed_and_shown_escaped(asked: Estates) -> None:
    """No argument of the call draws a line of its own on the reviewer's terminal."""
    id_ = questions(asked)[0].question.id
    code, out, _ = run(asked, "list")
    assert (code, len(out.splitlines())) == (0, 1)
    assert id_ in out
    assert "api-key/someone" in out
    code, out, _ = run(asked, "show", id_)
    assert code == 0
    assert not {"\x1b", "\u202e"} & set(out)
    assert [line for line in out.splitlines() if line.startswith("state")] == ["state    open"]
    code, out, _ = run(asked, "show", id_, "--json")
    assert json.loads(out)["call"]["params"]["arguments"]["acts"][0]["evil"] == ESC
    assert "\x1b" not in out


async def test_a_reviewer_answers_with_their_key(asked: Estates, tmp_path: Path) -> None:
    """From the environment or a file; by configuration or policy; once."""
    id_, reviewer = questions(asked)[0].question.id, asked.key("rita", "reviewer")
    file = tmp_path / "key"
    file.write_text(f"{reviewer}\n")
    words = ["deny", id_, "--config", str(asked.config), "--key-file", str(file)]
    assert run(asked, *words)[:2] == (0, f"denied {id_}\n")
    code, _, said = run(asked, "grant", id_, *policy(asked), key=reviewer)
    assert code == 2
    assert "answered already" in said
    (entry,) = asked.written(Kind.ANSWERED)
    assert (entry["answer"], entry["approver"], entry["word"]) == ("no", ["api-key", "rita"], "reviewer")
    assert run(asked, "list")[1] == "none\n"
    assert "denied" in run(asked, "list", "--all")[1]
    assert "denied by api-key/rita (reviewer)" in run(asked, "show", id_)[1]


async def test_the_home_alone_approves_nothing(asked: Estates) -> None:
    """Whoever can read Guard's folder, as an agent of the same user might, still needs a reviewer's key."""
    id_ = questions(asked)[0].question.id
    for key in (None, "", "guard_x", asked.key(), asked.key("other"), asked.key("boss", "powerful")):
        code, out, said = run(asked, "grant", id_, *policy(asked), key=key)
        assert (code, out) == (2, ""), said
        assert "next:" in said
    revoked = asked.key("rita", "reviewer")
    asked.revoke(revoked)
    assert run(asked, "grant", id_, *policy(asked), key=revoked)[0] == 2
    assert run(asked, "grant", id_, key=asked.key("ron", "reviewer"))[0] == 2  # by which policy?
    assert questions(asked)[0].state == "open"
    assert asked.written(Kind.ANSWERED) == []


async def test_nobody_approves_a_call_of_their_own(asked: Estates) -> None:
    """Self-approval by the command: another key of the same name does not help."""
    again = asked.key("someone", "reviewer")
    code, _, said = run(asked, "grant", questions(asked)[0].question.id, *policy(asked), key=again)
    assert code == 2
    assert "of their own" in said
    assert questions(asked)[0].state == "open"


async def test_nobody_becomes_a_reviewer_by_a_policy_of_their_own(asked: Estates, tmp_path: Path) -> None:
    """Only the very policy in force says who may approve: no copy with another role, id or version."""
    id_, key = questions(asked)[0].question.id, asked.key("other")
    roles = {**asked.policy["roles"], "caller": {"scopes": ["use"], "may_approve": True}}
    for changed in ({}, {"id": "mine"}, {"version": 2}, {"version": 1}):
        forged = tmp_path / "forged.json"
        forged.write_bytes(write({**asked.policy, "roles": roles, **changed}))
        code, _, said = run(asked, "grant", id_, "--policy", str(forged), key=key)
        assert code == 2
        assert "not the one in force" in said
    assert questions(asked)[0].state == "open"


async def test_who_may_approve_under_one_layer_only_approves_nothing(asked: Estates, tmp_path: Path) -> None:
    """`--policy` names every layer, the highest first; in each the role must be a reviewer's."""
    id_, reviewer = questions(asked)[0].question.id, asked.key("rita", "reviewer")
    none, team = dict(asked.policy["roles"]), tmp_path / "team.json"
    for may, version in ((False, 1), (True, 2)):
        roles = {**none, "reviewer": {"scopes": ["use"], "may_approve": may}}
        team.write_bytes(write({**asked.policy, "id": "team", "version": version, "roles": roles}))
        layers = [*policy(asked), "--policy", str(team)]
        code, _, said = run(asked, "grant", id_, *layers, key=reviewer)
        assert (code, "not the one in force" in said) == (2, True)
        with asked.store() as store:
            assert isinstance(store.apply([policy_record(load_policy(team), "default", 0)])[0], Recorded)
        assert (run(asked, "grant", id_, *layers, key=reviewer)[0] == 0) is may
    assert questions(asked)[0].state == "granted"


async def test_another_tenants_reviewer_finds_no_question(asked: Estates) -> None:
    """Not even whether there is one."""
    stranger = asked.key("rita", "reviewer", "elsewhere")
    with asked.store() as store:
        found = load_policy(asked.folder / "policy.json")
        assert isinstance(store.apply([policy_record(found, "elsewhere", 0)])[0], Recorded)
    id_ = questions(asked)[0].question.id
    said = [run(asked, "grant", one, *policy(asked), key=stranger) for one in (id_, "A" * 22)]
    assert said[0] == said[1]
    assert "there is no such question" in said[0][2]
    assert run(asked, "show", id_, "--tenant", "elsewhere")[0] == 2


async def test_the_record_shows_who_asked_and_who_approved(asked: Estates) -> None:
    """`guard lineage show` tells the question, and of the call that ran who approved it."""
    reviewer, key = asked.key("rita", "reviewer"), asked.key()
    id_ = questions(asked)[0].question.id
    assert run(asked, "grant", id_, *policy(asked), key=reviewer)[0] == 0
    async with asked.guarded(), asked.party(MODERN, key) as party:
        await party.ask("tools/call", do({"answer": {"content": []}, "evil": ESC}))
    with asked.store() as store:
        rows = [row for row in store.conversations() if row.issuer]
    shown = ""
    for row in rows:
        code, out, _ = run(asked, "show", row.id, group="lineage")
        assert code == 0
        shown += out
    assert "a reviewer must approve: person" in shown
    assert f"approved by api-key/rita (reviewer), question {id_}" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("id_", ["-" + "h" * 21, "--" + "a" * 20, "-" * 22])
async def test_an_id_that_begins_with_a_hyphen_is_an_id(asked: Estates, id_: str) -> None:
    """One in sixty-four does."""
    now, row = 2**42, questions(asked)[0]
    copy = SaveQuestion(id_, "api-key", "other", "d" * 43, ("r",), "reviewer", now, row.question.shown)
    with asked.store() as store:
        made = Transaction(Place("default"), entry(Kind.ASKED, id_, {}), row.asked, effects=(copy,))
        assert isinstance(store.apply([made])[0], Recorded)
    result = CliRunner().invoke(approvals, ["show", id_, "--home", str(asked.home)])
    assert (result.exit_code, result.output.splitlines()[0]) == (0, f"question {id_}")
    found = asked.key("rita", "reviewer")
    assert run(asked, "grant", *policy(asked), id_, key=found)[1] == f"granted {id_}\n"


async def test_after_the_command_the_call_runs(asked: Estates, tmp_path: Path) -> None:
    """Another process answered, while no Guard ran."""
    id_, reviewer, key = questions(asked)[0].question.id, asked.key("rita", "reviewer"), asked.key()
    assert run(asked, "grant", id_, *policy(asked), key=reviewer)[0] == 0
    params: dict[str, Any] = do({"answer": {"content": []}, "evil": ESC})
    async with asked.guarded() as serving, asked.party(MODERN, key) as party:
        park(serving, 0.0)
        assert "isError" in (await party.ask("tools/call", DO))["result"]
        assert "isError" not in (await party.ask("tools/call", params))["result"]
    assert len(asked.received()) == 1

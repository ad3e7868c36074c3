"""`/approvals`: who may review over HTTP, what they see, and what nobody else finds out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from guard.lineage.entry import Kind
from tests.proxy.asked import DO, answer, asking, do, estate, grant, park, question, questions, reason
from tests.proxy.features import Estates, Party, servers
from tests.proxy.raw_http import Answer
from tests.proxy.scene import MODERN
from tests.proxy.wards import contain, someone

YES = {"approve": True}


@asynccontextmanager
async def waiting(tmp_path: Path) -> AsyncIterator[tuple[Estates, Party, str]]:
    """A Guard with one open question of `someone`, who is there as well; and its id."""
    found = estate(tmp_path, MODERN, "stdio", "reviewer")
    key = found.key()
    async with found.guarded() as serving, found.party(MODERN, key) as party:
        park(serving, 0.0)
        await party.ask("tools/call", DO)
        yield found, party, questions(found)[0].question.id


async def listed(found: Estates, key: str | None, path: str = "/approvals", **headers: Any) -> Answer:
    return await found.client(key=key).send("GET", path=path, headers=headers)


def untouched(found: Estates) -> None:
    """Nobody answered anything."""
    assert [row.state for row in questions(found)] == ["open"]
    assert found.written(Kind.ANSWERED) == []


async def test_a_reviewer_sees_exactly_what_would_be_sent(tmp_path: Path) -> None:
    """Who asks, what is called, every argument, the rules, the digest, until when; no cache keeps it."""
    async with waiting(tmp_path) as (found, _, id_):
        reviewer = found.key("rita", "reviewer")
        answered = await listed(found, reviewer)
        assert answered.status == 200
        assert answered.headers["cache-control"] == "no-store"
        (shown,) = answered.json()["questions"]
        assert shown == (await listed(found, reviewer, f"/approvals/{id_}")).json()
        assert (shown["id"], shown["state"], shown["rules"]) == (id_, "open", ["person"])
        assert shown["principal"] == ["api-key", "someone"]
        assert shown["call"]["params"] == DO
        assert (shown["call"]["server"], shown["call"]["name"]) == ("one", "do")
        assert shown["digest"] == questions(found)[0].question.digest
        await grant(found, reviewer, id_)
        assert (await listed(found, reviewer)).json() == {"questions": []}


async def test_nobody_unauthenticated_reads_or_answers(tmp_path: Path) -> None:
    """Without a key, with a wrong one, with one that was revoked: 401, and nothing of what there is."""
    async with waiting(tmp_path) as (found, _, id_):
        revoked = found.key("rita", "reviewer")
        found.revoke(revoked)
        for key in (None, "guard_x", revoked):
            for path in ("/approvals", f"/approvals/{id_}"):
                assert (await listed(found, key, path)).status == 401
            found_answer = await answer(found, key, id_, YES)
            assert found_answer.status == 401
            assert b"someone" not in found_answer.body
        untouched(found)


async def test_to_whoever_is_no_reviewer_there_is_nothing(tmp_path: Path) -> None:
    """The caller itself, and anybody else whose role may not approve: as a path that does not exist."""
    async with waiting(tmp_path) as (found, _, id_):
        nowhere = (await found.client(key=found.key()).send("GET", path="/nowhere")).body
        for key in (
            found.key(),
            found.key("other"),
            found.key("boss", "powerful"),
            found.key("x", "no-such"),
        ):
            for path in ("/approvals", f"/approvals/{id_}", "/approvals/none"):
                refused = await listed(found, key, path)
                assert (refused.status, refused.body) == (404, nowhere)
            refused = await answer(found, key, id_, YES)
            assert (refused.status, refused.body) == (404, nowhere)
        untouched(found)


async def test_nobody_approves_a_call_of_their_own(tmp_path: Path) -> None:
    """Self-approval: not with another key of the same name either, whatever role that key has."""
    async with waiting(tmp_path) as (found, _, id_):
        again = found.key("someone", "reviewer")
        assert (await listed(found, again)).json() == {"questions": []}
        assert (await listed(found, again, f"/approvals/{id_}")).status == 404
        assert (await answer(found, again, id_, YES)).status == 409
        untouched(found)


async def test_a_reviewer_sees_no_other_tenant(tmp_path: Path) -> None:
    """Another tenant's question is none, under whatever name its reviewer has."""
    async with waiting(tmp_path) as (found, _, id_):
        for name in ("rita", "someone"):
            stranger = found.key(name, "reviewer", "elsewhere")
            assert (await listed(found, stranger)).json() == {"questions": []}
            assert (await listed(found, stranger, f"/approvals/{id_}")).status == 404
            assert (await answer(found, stranger, id_, YES)).status == 404
        untouched(found)


async def test_an_answer_is_given_once(tmp_path: Path) -> None:
    """Neither repeated nor changed, by whomever; nor given to what was never asked."""
    async with waiting(tmp_path) as (found, party, id_):
        one, two = found.key("rita", "reviewer"), found.key("ron", "reviewer")
        assert (await answer(found, one, "A" * 22, YES)).status == 404
        await grant(found, one, id_)
        for key in (one, two):
            for value in (True, False):
                assert (await answer(found, key, id_, {"approve": value})).status == 409
        assert "isError" not in (await party.ask("tools/call", DO))["result"]
        assert (await answer(found, two, id_, YES)).status == 409
    assert len(found.written(Kind.ANSWERED)) == 1


BODIES: list[bytes] = [
    b"",
    b"{}",
    b"true",
    b"null",
    b"[true]",
    b'{"approve":1}',
    b'{"approve":"true"}',
    b'{"approve":null}',
    b'{"approve":true,"approve":true}',
    b'{"approve":true,"id":"x"}',
    b'{"Approve":true}',
    b'{"approve":true} {}',
    b"approve=true",
]


async def test_a_body_that_is_no_answer_answers_nothing(tmp_path: Path) -> None:
    """One member, a boolean, read strictly."""
    async with waiting(tmp_path) as (found, _, id_):
        reviewer = found.key("rita", "reviewer")
        for body in BODIES:
            assert (await answer(found, reviewer, id_, body)).status == 400, body
        untouched(found)


async def test_a_page_in_a_browser_answers_nothing(tmp_path: Path) -> None:
    """Forged requests: another origin, another host, a form that needs no preflight."""
    async with waiting(tmp_path) as (found, _, id_):
        reviewer = found.key("rita", "reviewer")
        bad: list[tuple[dict[str, str], int]] = [
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Host": "evil.example"}, 421),
            ({"Content-Type": "text/plain"}, 415),
            ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ]
        for headers, status in bad:
            assert (await answer(found, reviewer, id_, YES, **headers)).status == status, headers
        assert (await listed(found, reviewer, Origin="https://evil.example")).status == 403
        untouched(found)


@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_but_a_post_answers(tmp_path: Path, verb: str) -> None:
    """A link or a prefetch approves nothing, nor does a query."""
    async with waiting(tmp_path) as (found, _, id_):
        client = found.client(key=found.key("rita", "reviewer"))
        answered = await client.send(verb, path=f"/approvals/{id_}?approve=true")
        assert answered.status in ({200} if verb == "GET" else {405, 501})
        assert (await client.post(b'{"approve":true}', path="/approvals")).status == 405
        untouched(found)


async def test_a_contained_reviewer_answers_nothing(tmp_path: Path) -> None:
    """As no call of theirs would run."""
    async with waiting(tmp_path) as (found, _, id_):
        reviewer = found.key("rita", "reviewer")
        contain(found, "principal", someone("rita"))
        assert (await answer(found, reviewer, id_, YES)).status == 403
        assert (await listed(found, reviewer)).status == 403
        untouched(found)


async def test_whom_the_launch_names_reviews_nothing(tmp_path: Path) -> None:
    """Without API keys everybody who reaches Guard is one caller: nobody has a credential to approve with."""
    found = Estates(tmp_path / "e", *servers(MODERN, "stdio"), policy=asking("reviewer"))
    identity = {"role": "reviewer", "principal": "rita"}
    async with found.guarded(identity=identity):
        assert (await listed(found, None)).status == 404
        assert (await answer(found, None, "A" * 22, YES)).status == 404


async def test_many_answers_at_once_are_one(tmp_path: Path) -> None:
    """Two reviewers who disagree: one of them was first, and that counts."""
    async with waiting(tmp_path) as (found, party, id_):
        keys = [found.key(f"r{n}", "reviewer") for n in range(8)]
        said = [n % 2 == 0 for n in range(8)]
        answers = await asyncio.gather(
            *(answer(found, key, id_, {"approve": yes}) for key, yes in zip(keys, said, strict=True))
        )
        (first,) = [n for n, one in enumerate(answers) if one.status == 200]
        assert {one.status for one in answers} == {200, 409}
        denied = (await party.ask("tools/call", DO))["result"].get("isError", False)
        assert denied is not said[first]
    assert len(found.written(Kind.ANSWERED)) == 1


async def test_an_answer_to_a_question_that_was_asked_anew_is_refused(tmp_path: Path) -> None:
    """It would have no effect: the reviewer is told which one stands."""
    async with waiting(tmp_path) as (found, party, id_):
        reviewer = found.key("rita", "reviewer")
        found.write_policy(version=2, asks=[{"id": "other", "tools": ["do"]}])
        assert found.serving is not None
        assert await found.serving.reload()
        park(found.serving, 0.0)
        assert reason(await party.ask("tools/call", DO)) == "approval-required"
        newer = (await question(found, 2)).question.id
        assert [one["id"] for one in (await listed(found, reviewer)).json()["questions"]] == [newer]
        refused = await answer(found, reviewer, id_, YES)
        assert refused.status == 409
        assert newer in json.dumps(refused.json())


async def test_params_too_large_to_keep_are_told_as_that(tmp_path: Path) -> None:
    """The reviewer gets the digest and no part that could be taken for the whole."""
    async with waiting(tmp_path) as (found, party, _):
        reviewer = found.key("rita", "reviewer")
        await party.ask("tools/call", do({"answer": {"content": []}, "x": "y" * 70_000}))
        shown = (await listed(found, reviewer)).json()["questions"][-1]
        assert shown["call"]["params"] is None
        assert shown["call"]["args_sha256"]

"""The small print of origins: each sentence of the page, held to."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from memories import EVERYTHING, PAGE, SALT, memory, origin, page, user

from guard.core.model import Appearance
from guard.policy.origins import judge, leaves, shapes, values
from guard.policy.origins.results import answered

EMAIL, OTHER = "dora@example.net", "eve@evil.example"
CRM, WEB = "tool:crm/get", "tool:web/read"


def part(*found: tuple[str, str]) -> judge.Part:
    appearances = tuple(Appearance(source, trust) for source, trust in found)
    return judge.Part(appearances, leaves.least(*(trust for _, trust in found)) if found else "unseen")


@pytest.mark.parametrize(
    ("found", "accept", "accepted"),
    [
        ([(CRM, "trusted")], "trusted", True),
        ([(CRM, "trusted")], "mixed", True),
        ([(CRM, "trusted")], CRM, True),
        ([(CRM, "trusted")], "user policy unseen", False),
        ([(CRM, "trusted")], WEB, False),
        ([(CRM, "trusted"), ("user", "trusted")], "user", True),
        ([(CRM, "mixed")], "mixed", True),
        ([(CRM, "mixed")], CRM, True),
        ([(CRM, "mixed")], "trusted user unseen", False),
        ([(CRM, "mixed"), ("user", "trusted")], "user", False),
        ([(CRM, "mixed"), ("user", "trusted")], "user mixed", True),
        ([(CRM, "mixed"), (WEB, "mixed")], CRM, False),
        ([(CRM, "mixed"), (WEB, "mixed")], f"{CRM} {WEB}", True),
        ([(WEB, "untrusted")], "trusted mixed unseen user policy", False),
        ([(WEB, "untrusted")], WEB, True),
        ([(WEB, "untrusted"), (CRM, "mixed")], WEB, False),
        ([(WEB, "untrusted"), (CRM, "mixed")], f"{WEB} mixed", True),
        ([(WEB, "untrusted"), (CRM, "trusted")], WEB, True),
        ([(WEB, "untrusted"), (CRM, "trusted")], f"{CRM} trusted", False),
        ([], "unseen", True),
        ([], "trusted mixed user policy", False),
    ],
)
def test_the_table_of_what_is_accepted(found: list[tuple[str, str]], accept: str, *, accepted: bool) -> None:
    """Row by row."""
    assert part(*found).accepted_by(frozenset(accept.split())) is accepted


def test_of_what_is_no_tool_fields_begin_at_the_result() -> None:
    """A prompt's messages, a resource's contents."""
    raw = json.dumps({"messages": [{"content": {"text": EMAIL}}], "description": OTHER}).encode()
    told = answered(raw, "mixed", {"/messages/*/content": "trusted"}, tool=False).as_glimpses(PAGE, SALT)
    assert origin(EMAIL, told).trust == "trusted"
    assert origin(OTHER, told).trust == "mixed"
    assert [found.source for one in origin(EMAIL, told).parts for found in one.appearances] == [PAGE]


def test_of_what_is_no_tool_text_and_lists_are_read() -> None:
    """Also where a server answers with no object at all."""
    for raw in (f'"{EMAIL}"', f"write to {EMAIL}"):
        told = answered(raw.encode(), "mixed", {}, tool=False).as_glimpses(PAGE, SALT)
        assert origin(EMAIL, told).trust == "mixed"
    told = answered(json.dumps([EMAIL]).encode(), "mixed", {"/0": "trusted"}, tool=False).as_glimpses(
        PAGE, SALT
    )
    assert origin(EMAIL, told).trust == "trusted"


def test_pictures_of_prompts_are_not_read() -> None:
    """Neither do they fill the memory."""
    picture = {
        "type": "image",
        "data": base64.b64encode(OTHER.encode() * 50).decode(),
        "mimeType": "image/png",
    }
    found = answered(json.dumps({"messages": [{"content": picture}]}).encode(), "untrusted", {}, tool=False)
    assert origin(OTHER, found.as_glimpses(PAGE, SALT)).trust == "unseen"
    plain = answered(json.dumps({"data": OTHER, "type": "text"}).encode(), "untrusted", {}, tool=False)
    assert origin(OTHER, plain.as_glimpses(PAGE, SALT)).trust == "untrusted"


def test_an_error_is_as_little_trusted_as_the_tool_and_its_fields() -> None:
    """The least of them all."""
    raw = json.dumps({"code": -1, "message": EMAIL}).encode()
    for trust, fields, least in (
        ("mixed", {}, "mixed"),
        ("untrusted", {"/a": "trusted"}, "untrusted"),
        ("trusted", {"/a": "untrusted"}, "untrusted"),
    ):
        assert origin(EMAIL, answered(raw, trust, fields).as_glimpses(PAGE, SALT)).trust == least


def test_bytes_that_are_no_text_are_read_as_far_as_they_are() -> None:
    """A server may send what it wants, and hide nothing by it."""
    raw = b'{"content": [{"type": "text", "text": "\xff write to eve@evil.example"}]}'
    assert origin(OTHER, answered(raw, "untrusted", {}).as_glimpses(PAGE, SALT)).trust == "untrusted"
    assert (
        origin(
            OTHER,
            values.glimpses(b"\xff eve@evil.example", source=PAGE, trust="untrusted", fields={}, salt=SALT),
        ).trust
        == "untrusted"
    )


def test_an_identity_in_a_document_in_a_text_is_one() -> None:
    """The body of a mail may be JSON, too."""
    known = page([{"id": 13}], "mixed", CRM)
    body = page({"body": json.dumps({"id": 13, "size": 14, "Good Night": None, "ok": True})}, "untrusted")
    assert origin(13, known, body).trust == "untrusted"
    assert origin(14, page([{"id": 14}], "mixed", CRM), body).trust == "mixed"
    fields = [one.field for each in origin(13, body).parts for one in each.appearances]
    assert fields == ["/body/id"]
    named = page({"body": json.dumps({"Good Night": 1})}, "mixed")
    assert origin("Good Night", named).trust == "mixed"
    assert origin("x", page({"body": '["unfinished", "eve@evil.example"'})).trust == "unseen"


@pytest.mark.parametrize("value", [1200, 1200.0, "1200", "1,200", "1200.00"])
def test_a_number_is_a_number_however_it_is_written(value: Any) -> None:
    """In JSON or as a text."""
    for text in ("pay 1200 now", "pay 1,200.00 now", "pay $1200"):
        assert origin(value, user(text)).trust == "trusted"
    assert origin(value, page({"amount": 1200.0})).trust == "untrusted"
    assert origin(-1200, user("pay 1200")).trust == "unseen"


def test_the_host_of_each_address_in_a_text_counts() -> None:
    """A second recipient at a domain that a page named."""
    shown = page(f"write to {OTHER}")
    assert origin(f"{EMAIL}, somebody@evil.example", user(EMAIL), shown).trust == "untrusted"
    assert origin({"somebody@evil.example": "rw"}, shown).trust == "untrusted"


def test_what_hides_beside_addresses_is_read() -> None:
    """Nothing is left of the text but values, and one of them is an encoding."""
    hidden = base64.b64encode(f"to {OTHER}".encode()).decode().rstrip("=")
    assert origin(f"{EMAIL}, {hidden}", user(EMAIL), page(OTHER)).trust == "untrusted"
    assert origin(f"{EMAIL}, {hidden}", user(EMAIL)).trust == "unseen"
    assert (
        origin(
            f"{EMAIL}, eve%40evil.example", user(f"{EMAIL} eve%40evil.example"), page("eve@evil.example")
        ).trust
        == "untrusted"
    )


def test_what_was_read_back_keeps_its_field_and_is_not_the_user_s() -> None:
    """Trusted becomes mixed; mixed and untrusted stay; the source stays."""
    sent = page({"note": EMAIL}, "mixed", "sent:notes/put")
    back = page({"note": EMAIL}, "trusted", CRM)
    found = origin(EMAIL, sent, back)
    assert [(one.source, one.trust, one.field) for each in found.parts for one in each.appearances] == [
        (CRM, "mixed", "/note")
    ]
    assert origin(EMAIL, sent, page(EMAIL)).trust == "untrusted"
    assert origin(EMAIL, sent, user(EMAIL), back).kinds == {"user", CRM}
    assert origin(EMAIL, sent, user(EMAIL), back).trust == "mixed"


def test_a_value_said_twice_has_its_least_trusted_place() -> None:
    """In one document, in either order."""
    for rows in ([EMAIL, {"note": EMAIL}], [{"note": EMAIL}, EMAIL]):
        assert origin(EMAIL, page(rows, "trusted", fields={"/*/note": "untrusted"})).trust == "untrusted"
        assert origin(EMAIL, page(rows, "mixed", fields={"/*/note": "trusted"})).trust == "mixed"


def test_the_mark_of_what_was_cut_off_is_untrusted_and_alone() -> None:
    """Values that were found before the end stay; and nothing else is marked."""
    shown = page([EMAIL, "x " * values.LONGEST], "mixed")
    assert not origin(EMAIL, shown).accepted_by(EVERYTHING)
    assert origin(EMAIL, page([EMAIL, "x"], "mixed")).trust == "mixed"
    many = page([f"w{number}@example.org" for number in range(values.MOST)], "mixed")
    assert not origin("w0@example.org", many).accepted_by(EVERYTHING)
    assert origin("w0@example.org", many, user("w0@example.org"), overrides=True).trust == "trusted"


def test_an_account_in_a_text_is_one_part() -> None:
    """Its groups are not judged one by one; what follows it is."""
    said = user("pay to GB29 NWBK 6016 1331 9268 19 now")
    found = origin("GB29 NWBK 6016 1331 9268 19", said)
    assert [one.trust for one in found.parts] == ["trusted"]
    two = "GB29 NWBK 6016 1331 9268 19, DE89 3704 0044 0532 0130 00"
    assert [one.trust for one in origin(two, said).parts].count("trusted") <= 1
    assert not origin(two, said).accepted_by(frozenset({"user"}))


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("1,200.50", "1200.5"),
        ("$0012", "12"),
        ("-3.10", "-3.1"),
        ("0", "0"),
        ("12 eur", "12"),
        ("1e5", None),
        ("12a", None),
        ("", None),
    ],
)
def test_numbers_have_one_spelling(written: str, plain: str | None) -> None:
    """Of many."""
    assert shapes.number(written) == plain


def test_a_judge_says_which_parts_it_saw() -> None:
    """For rules over the whole request, and for people."""
    found = judge.origin([EMAIL, "42"], memory(user(EMAIL)), frozenset(), user_overrides=False)
    assert found.kinds == {"user", "unseen"}
    assert sorted(one.trust for one in found.parts) == ["trusted", "unseen"]
    assert judge.origin([], memory(), frozenset(), user_overrides=False) == judge.Origin(
        frozenset(), "trusted"
    )

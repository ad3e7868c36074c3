"""What a result shows, and how far each part of it is trusted."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from memories import PAGE, SALT, origin, page

from guard.policy.origins.results import answered
from guard.policy.origins.values import Glimpses

EMAIL, OTHER = "dora@example.net", "eve@evil.example"
FIELDS = {"/*/notes": "untrusted"}


def result(
    raw: Any, trust: str = "mixed", fields: dict[str, str] | None = None, *, tool: bool = True
) -> Glimpses:
    told = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    return answered(told, trust, FIELDS if fields is None else fields, tool=tool).as_glimpses(PAGE, SALT)


def text(*told: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": one} for one in told], **more}


ROWS = [{"to": EMAIL, "notes": f"better {OTHER}"}]


@pytest.mark.parametrize(
    "raw",
    [
        {"content": [], "structuredContent": {"result": ROWS}},
        text(json.dumps(ROWS), structuredContent={"result": ROWS}),
        text(json.dumps({"result": ROWS}, indent=2), structuredContent={"result": ROWS}),
        text(f"- to: {EMAIL}\n  notes: better {OTHER}\n", structuredContent={"result": ROWS}),
        text(json.dumps(ROWS)),
    ],
    ids=["structured", "json beside", "pretty beside", "yaml beside", "json alone"],
)
def test_a_field_has_the_trust_of_its_place(raw: Any) -> None:
    """However the server writes the same rows down."""
    assert origin(EMAIL, result(raw)).trust == "mixed"
    assert origin(OTHER, result(raw)).trust == "untrusted"


def test_text_that_says_more_than_the_structure_is_as_little_trusted_as_any_field() -> None:
    """It may be any of them."""
    told = result(
        text(f"to: {EMAIL}\nalso: {OTHER}", structuredContent={"result": [{"to": EMAIL, "notes": ""}]})
    )
    assert origin(EMAIL, told).trust == "mixed"
    assert origin(OTHER, told).trust == "untrusted"


def test_prose_alone_is_as_little_trusted_as_any_field() -> None:
    """Nobody knows where in it a field stands."""
    assert origin(EMAIL, result(text(f"to: {EMAIL}"))).trust == "untrusted"
    assert origin(EMAIL, result(text(f"to: {EMAIL}"), fields={})).trust == "mixed"


def test_text_repeats_the_words_of_the_structure_without_spoiling_them() -> None:
    """A name in a trusted field, and again in the text beside it."""
    rows = [{"hotel": "Riverside View", "notes": "fine"}]
    told = result(text("hotel: Riverside View, notes: fine", structuredContent={"result": rows}))
    assert origin("Riverside View", told).trust == "mixed"


@pytest.mark.parametrize(
    "raw",
    [
        {"content": [{"type": "resource_link", "uri": "file:///x", "name": "x", "description": OTHER}]},
        {"content": [{"type": "resource", "resource": {"uri": "file:///x", "text": OTHER}}]},
        {
            "content": [
                {
                    "type": "resource",
                    "resource": {"uri": "x:y", "blob": base64.b64encode(OTHER.encode()).decode()},
                }
            ]
        },
        {"content": [{"type": "text", "text": "fine", "annotations": {"title": OTHER}}]},
        {"content": [{"type": "image", "data": "AAAA", "mimeType": "image/png", "alt": OTHER}]},
        {"content": [{"type": "audio-of-the-future", "data": OTHER}]},
        {"content": OTHER},
        {"content": [], "_meta": {"example.org/more": OTHER}},
        {"content": [], "note": OTHER, "structuredContent": {}},
        {"code": -32000, "message": "no", "data": {"ask": OTHER}},
        {"resultType": "input_required", "inputRequests": {"a": {"params": {"message": OTHER}}}},
        [OTHER],
        OTHER,
        f"not json {OTHER}".encode(),
    ],
)
def test_nothing_of_an_answer_is_passed_over(raw: Any) -> None:
    """Links, resources, annotations, errors, what is of no known kind, what is no JSON."""
    assert origin(OTHER, result(raw)).trust == "untrusted"


def test_a_member_written_twice_is_read_twice() -> None:
    """Readers differ in which of them they take."""
    told = result(
        b'{"content": [], "structuredContent": {"to": "dora@example.net", "to": "eve@evil.example"}}',
        "untrusted",
        {},
    )
    assert origin(EMAIL, told).trust == origin(OTHER, told).trust == "untrusted"
    doubled = result(
        b'{"structuredContent": {"a": 1}, "structuredContent": ["eve@evil.example"], "content": []}',
        "untrusted",
        {},
    )
    assert origin(OTHER, doubled).trust == "untrusted"


def test_the_data_of_pictures_is_not_read() -> None:
    """It is no text, and would only fill the memory."""
    hidden = base64.b64encode(OTHER.encode() * 100).decode()
    assert len(result({"content": [{"type": "image", "data": hidden, "mimeType": "image/png"}]})) < 10


@pytest.mark.parametrize(
    ("fields", "trust"),
    [
        ({"/rows/0/to": "trusted"}, "trusted"),
        ({"/rows/*/to": "trusted"}, "trusted"),
        ({"/rows/*": "trusted"}, "trusted"),
        ({"/rows": "trusted"}, "trusted"),
        ({"/rows": "trusted", "/rows/*/to": "untrusted"}, "untrusted"),
        ({"/rows": "untrusted", "/rows/*/to": "trusted"}, "trusted"),
        ({"/rows/*/to": "trusted", "/rows/0/to": "untrusted"}, "untrusted"),
        ({"/row": "trusted"}, "mixed"),
        ({"/rows/1/to": "trusted"}, "mixed"),
        ({"/*/*/*/*": "trusted"}, "mixed"),
        ({"": "untrusted"}, "untrusted"),
    ],
)
def test_the_deepest_field_on_the_way_counts(fields: dict[str, str], trust: str) -> None:
    """And of several as deep the least trusted."""
    assert origin(EMAIL, page({"rows": [{"to": EMAIL}]}, "mixed", fields=fields)).trust == trust


def test_names_of_fields_are_escaped_as_pointers_are() -> None:
    """RFC 6901: `~` and `/` in a name."""
    told = page({"a/b": {"c~d": EMAIL}}, "mixed", fields={"/a~1b/c~0d": "trusted"})
    assert origin(EMAIL, told).trust == "trusted"


def test_a_name_of_a_member_is_a_value_of_the_object() -> None:
    """Some servers make addresses names."""
    assert (
        origin(EMAIL, page({"shared": {EMAIL: "rw"}}, "mixed", fields={"/shared": "trusted"})).trust
        == "trusted"
    )


def test_a_document_in_a_text_in_a_document_is_read() -> None:
    """JSON in a string has the trust of the string."""
    told = page({"body": json.dumps({"to": [EMAIL, 463820]})}, "mixed", fields={"/body": "untrusted"})
    assert origin(EMAIL, told).trust == origin(463820, told).trust == "untrusted"

"""Entries: commitments that only their disclosures open, in leaves that have one encoding."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from guard.core.canonical import canonical
from guard.lineage.entry import (
    GENESIS,
    SALT_BYTES,
    Draft,
    Kind,
    Leaf,
    commitment,
    disclose,
    draft,
    leaf,
    opened,
    parse,
)
from guard.lineage.log import entry

PLACE: dict[str, Any] = {"conversation": "00" * 12, "seq": 0, "prev": GENESIS, "at": 1_700_000_000_000}
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
EMPTY = Draft(Kind.GRANTED, "decision-id", (), ())
FIELDS = st.dictionaries(st.text("abcdefghij", min_size=1), VALUE, max_size=6)


def _leaf(of: Draft) -> tuple[bytes, Leaf]:
    data = leaf(of, **PLACE)
    return data, parse(data)


@given(FIELDS)
def test_what_is_committed_is_what_is_opened(fields: dict[str, Any]) -> None:
    """The disclosures open exactly the fields that were given, but for those that are None."""
    made = entry(Kind.GRANTED, "decision-id", fields)
    found = opened(_leaf(made)[1], made.disclosures)
    assert found == {name: value for name, value in fields.items() if value is not None}


@given(FIELDS, st.data())
def test_a_commitment_opens_only_with_its_disclosure(fields: dict[str, Any], data: st.DataObject) -> None:
    """A disclosure with one changed character, or of another entry, opens nothing."""
    made, other = entry(Kind.GRANTED, "decision-id", fields), entry(Kind.GRANTED, "decision-id", fields)
    assume(made.disclosures)
    one = data.draw(st.sampled_from(made.disclosures))
    at = data.draw(st.integers(0, len(one) - 1))
    forged = one[:at] + data.draw(st.sampled_from("AZaz09-_".replace(one[at], ""))) + one[at + 1 :]
    for wrong in (forged, *other.disclosures):
        with pytest.raises(ValueError, match="does not commit"):
            opened(_leaf(made)[1], [wrong])


def test_the_same_field_twice_is_refused() -> None:
    """Nobody chooses between two values of one name."""
    first, second = entry(Kind.GRANTED, "", {"tool": "a"}), entry(Kind.GRANTED, "", {"tool": "b"})
    both = Draft(
        Kind.GRANTED,
        "",
        tuple(sorted(first.digests + second.digests)),
        first.disclosures + second.disclosures,
    )
    with pytest.raises(ValueError, match="twice"):
        opened(_leaf(both)[1], both.disclosures)


@pytest.mark.parametrize("beside", [1, None, "text", {"a": 1}, [1], [None], [["a"]]], ids=json.dumps)
def test_what_is_no_list_of_disclosures_opens_nothing(beside: Any) -> None:
    """Whatever stands beside a leaf is refused with a ValueError, never with a crash."""
    made = entry(Kind.GRANTED, "", {"tool": "a"})
    with pytest.raises(ValueError, match="disclosure"):
        opened(_leaf(made)[1], beside)


@given(st.binary() | VALUE.map(orjson.dumps))
def test_what_is_no_disclosure_is_refused(data: bytes) -> None:
    """A disclosure is [salt, name, value] and nothing else."""
    try:
        value = orjson.loads(data)
    except ValueError:
        value = None
    assume(not (isinstance(value, list) and len(value) == 3 and all(isinstance(x, str) for x in value[:2])))
    with pytest.raises(ValueError, match="not a disclosure"):
        disclose(base64.urlsafe_b64encode(data).rstrip(b"=").decode())


# -- RFC 9901, once more and by other means -----------------------------------------------------


def independently_opened(data: bytes, disclosures: list[str]) -> dict[str, Any]:
    """RFC 9901 section 7.1 for a flat object, with the standard library only."""
    payload = json.loads(data)
    assert payload["_sd_alg"] == "sha-256"
    assert payload["_sd"] == sorted(payload["_sd"]), (
        "the order of the digests must not say the order of the fields"
    )
    found = {}
    for disclosure in disclosures:
        digest = hashlib.sha256(disclosure.encode("ascii")).digest()
        assert base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=") in payload["_sd"]
        salt, name, value = json.loads(base64.urlsafe_b64decode(disclosure + "=" * (-len(disclosure) % 4)))
        assert len(base64.urlsafe_b64decode(salt + "==")) * 8 >= 128
        assert name not in {"_sd", "..."}
        assert name not in payload
        found[name] = value
    assert len(payload["_sd"]) == len(disclosures)
    return found


@given(FIELDS)
def test_disclosures_are_those_of_rfc_9901(fields: dict[str, Any]) -> None:
    """Another implementation, written from the RFC, opens what Guard commits to."""
    made = entry(Kind.DENIED, "decision-id", {f"the_{name}": value for name, value in fields.items()})
    found = independently_opened(_leaf(made)[0], list(made.disclosures))
    assert found == {f"the_{name}": value for name, value in fields.items() if value is not None}


@given(FIELDS, st.binary(min_size=6 * SALT_BYTES, max_size=6 * SALT_BYTES))
def test_a_draft_is_the_one_made_field_by_field(fields: dict[str, Any], salts: bytes) -> None:
    """Written in one go or one after the other: the same disclosures in the same order, the same digests."""
    disclosures = []
    for index, (name, value) in enumerate((k, v) for k, v in fields.items() if v is not None):
        salt = base64.urlsafe_b64encode(salts[SALT_BYTES * index : SALT_BYTES * (index + 1)]).rstrip(b"=")
        written = orjson.dumps([salt.decode(), name, value])
        disclosures.append(base64.urlsafe_b64encode(written).rstrip(b"=").decode())
    digests = tuple(sorted(map(commitment, disclosures)))
    assert draft(Kind.GRANTED, "id", fields, salts) == Draft(Kind.GRANTED, "id", digests, tuple(disclosures))


@given(FIELDS, TEXT, TEXT, st.integers(0, 2**53 - 1))
def test_a_leaf_is_canonical(fields: dict[str, Any], call: str, conversation: str, seq: int) -> None:
    """Its bytes are those that the canonical writer gives for the same members."""
    data = leaf(entry(Kind.DENIED, call, fields), conversation=conversation, seq=seq, prev="p", at=seq)
    assert canonical(orjson.loads(data)) == data


def test_the_examples_of_rfc_9901() -> None:
    """The disclosures and digests that the RFC's section 4.2 prints come out as they stand there."""
    text = "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0"
    assert commitment(text) == "X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0"
    assert disclose(text) == ("family_name", "Möbius")


# -- what a leaf says, and what not --------------------------------------------------------------


@given(st.lists(TEXT.filter(lambda text: len(text) >= 3), min_size=4, max_size=4))
@example(["geheim", "Zoë\n", "mandant", "write_file"])
def test_a_leaf_holds_nothing_in_clear(secrets: list[str]) -> None:
    """Argument values, names, tenants and tools stand in no leaf, in no encoding of theirs."""
    value, subject, tenant, tool = secrets
    fields = {
        "tenant": tenant,
        "principal": ["launch", subject],
        "tool": tool,
        "arguments": {"text": value, value: 1},
    }
    data, empty = leaf(entry(Kind.GRANTED, "decision-id", fields), **PLACE), leaf(EMPTY, **PLACE)
    shown = json.dumps(json.loads(data) | {"_sd": []})  # digests are nobody's text
    assume(not any(text in json.dumps(json.loads(empty)) for text in secrets))
    for text in secrets:
        encodings = (
            text,
            json.dumps(text)[1:-1],
            base64.b64encode(text.encode()).decode(),
            base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
            text.encode().hex(),
        )
        assert not any(each in shown for each in encodings)
    assert shown == json.dumps(json.loads(empty)), "nothing but the digests depends on the fields"
    assert all(len(digest) == 43 for digest in json.loads(data)["_sd"])


@given(st.dictionaries(st.text("abc", min_size=1), VALUE.filter(lambda value: value is not None), max_size=4))
def test_a_leaf_is_as_long_as_its_number_of_fields_makes_it(fields: dict[str, Any]) -> None:
    """Not even the length of a value can be seen."""
    one = leaf(entry(Kind.GRANTED, "decision-id", fields), **PLACE)
    other = leaf(entry(Kind.GRANTED, "decision-id", dict.fromkeys(fields, 1)), **PLACE)
    assert len(one) == len(other)


def test_equal_values_have_different_commitments() -> None:
    """Salts are fresh: who sees two leaves cannot tell that they say the same."""
    fields = {"tool": "echo", "server": "echo"}
    made = [entry(Kind.GRANTED, "", fields) for _ in range(100)]
    assert len({digest for each in made for digest in each.digests}) == 200
    salts = {orjson.loads(base64.urlsafe_b64decode(d + "=="))[0] for each in made for d in each.disclosures}
    assert len(salts) == 200


def test_each_field_needs_its_own_salt() -> None:
    """Too few random bytes are refused, not stretched."""
    fields = {"a": 1, "b": None, "c": 2}
    draft(Kind.GRANTED, "", fields, os.urandom(2 * SALT_BYTES))
    with pytest.raises(ValueError, match="own salt"):
        draft(Kind.GRANTED, "", fields, os.urandom(2 * SALT_BYTES - 1))


@given(FIELDS, st.integers(min_value=0))
def test_erasing_a_disclosure_changes_no_leaf(fields: dict[str, Any], which: int) -> None:
    """What is left opens as before, and the leaf's bytes do not depend on what stands beside it."""
    made = entry(Kind.GRANTED, "decision-id", fields)
    assume(made.disclosures)
    kept = list(made.disclosures)
    name, _ = disclose(kept.pop(which % len(kept)))
    data, found = _leaf(made)
    assert leaf(Draft(made.kind, made.call, made.digests, tuple(kept)), **PLACE) == data
    assert opened(found, kept) == {
        key: value for key, value in fields.items() if value is not None and key != name
    }


# -- one encoding --------------------------------------------------------------------------------


NUMBER = st.integers(0, 2**53 - 1)


@given(FIELDS, st.builds(Leaf, st.sampled_from(Kind), TEXT, TEXT, NUMBER, TEXT, NUMBER, st.none()))
def test_a_leaf_reads_as_it_was_written(fields: dict[str, Any], of: Leaf) -> None:
    """Every part comes back, and written again it is the same bytes."""
    made = entry(of.kind, of.call, fields)
    data = leaf(made, conversation=of.conversation, seq=of.seq, prev=of.prev, at=of.at)
    found = parse(data)
    assert found == replace(of, digests=frozenset(made.digests))
    assert _again(found) == data


def _again(found: Leaf) -> bytes:
    made = Draft(found.kind, found.call, tuple(sorted(found.digests)), ())
    return leaf(made, conversation=found.conversation, seq=found.seq, prev=found.prev, at=found.at)


SAMPLE = leaf(draft(Kind.GRANTED, "decision-id", {"a": 1, "b": 2}, bytes(range(32))), **PLACE)
DIGESTS = json.loads(SAMPLE)["_sd"]


@given(st.integers(0, len(SAMPLE) - 1), st.integers(1, 255))
@settings(max_examples=400)
def test_a_leaf_has_one_encoding(at: int, difference: int) -> None:
    """Whatever is read as a leaf comes out, written again, as the bytes that went in."""
    data = bytearray(SAMPLE)
    data[at] ^= difference
    try:
        found = parse(bytes(data))
    except ValueError:
        return
    assert _again(found) == bytes(data)


@pytest.mark.parametrize(
    "changed",
    [
        {"v": True},
        {"v": 2},
        {"v": "1"},
        {"seq": -1},
        {"seq": True},
        {"seq": 1.5},
        {"at": None},
        {"call": 1},
        {"kind": "Granted"},
        {"kind": "maybe"},
        {"_sd_alg": "sha-512"},
        {"_sd": DIGESTS[::-1]},
        {"_sd": [DIGESTS[0], *DIGESTS]},
        {"_sd": [1]},
        {"_sd": {}},
        {"extra": 1},
    ],
    ids=json.dumps,
)
def test_another_spelling_is_no_leaf(changed: dict[str, Any]) -> None:
    """Other members, types, versions or orders are refused."""
    value = json.loads(SAMPLE) | changed
    with pytest.raises(ValueError, match=r"leaf|Kind"):
        parse(canonical(value))


@pytest.mark.parametrize("name", sorted(json.loads(SAMPLE)))
def test_a_leaf_lacks_no_member(name: str) -> None:
    """None of the nine members can be left out."""
    value = json.loads(SAMPLE)
    del value[name]
    with pytest.raises(ValueError, match="not a leaf"):
        parse(canonical(value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b" " + SAMPLE,
        SAMPLE + b"\n",
        SAMPLE.replace(b",", b", ", 1),
        SAMPLE[:-1] + b',"v":1}',
        b"\xff",
        SAMPLE[:20],
        json.dumps(dict(reversed(json.loads(SAMPLE).items()))).encode(),
    ],
)
def test_other_bytes_are_no_leaf(data: bytes) -> None:
    """Space, order, duplicates and cuts are refused, each with a ValueError."""
    with pytest.raises(ValueError, match="not a leaf"):
        parse(data)

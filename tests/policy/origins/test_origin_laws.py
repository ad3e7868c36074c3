"""What holds of origins whatever is said, and in whatever order."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from memories import EVERYTHING, RANK, SALT, VALUES, asked, memory, origin, page, user

from guard.core.model import Appearance, Seen
from guard.policy.origins import forms, judge, leaves, values, words

WORDS = [*VALUES.values(), "yes", "42", "general", "Dora", "x@evil.example", "http://evil.example/a"]
texts = st.lists(st.sampled_from([*WORDS, "and", "send it to", ",", "\n"]), max_size=6).map(" ".join)
arguments = st.one_of(
    st.sampled_from(WORDS),
    texts,
    st.lists(st.sampled_from(WORDS), max_size=3),
    st.integers(-10_000, 10_000),
    st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(WORDS), max_size=2),
    st.text(max_size=30),
)
accepts = st.frozensets(st.sampled_from([*sorted(EVERYTHING), "tool:a/read", "tool:b/read"]), min_size=1)
said = st.one_of(
    texts.map(user),
    st.tuples(texts, st.sampled_from(leaves.TRUST), st.sampled_from(["tool:a/read", "tool:b/read"])).map(
        lambda one: page([one[0]], one[1], one[2])
    ),
)


@given(arguments, st.lists(said, max_size=3), texts, st.booleans())
def test_an_untrusted_appearance_never_raises_trust(
    value: Any,
    before: list[values.Glimpses],
    text: str,
    overrides: bool,  # noqa: FBT001
) -> None:
    """Whatever a page says, what is judged afterwards is no more trusted."""
    less = origin(value, *before, page(text), overrides=overrides)
    assert RANK[less.trust] <= RANK[origin(value, *before, overrides=overrides).trust]


@given(arguments, st.lists(said, max_size=3), texts, accepts, st.booleans())
def test_a_page_that_the_rule_does_not_name_never_makes_more_accepted(
    value: Any,
    before: list[values.Glimpses],
    text: str,
    accept: frozenset[str],
    overrides: bool,  # noqa: FBT001
) -> None:
    """An attacker who may say anything gains nothing by it."""
    more = origin(value, *before, page(text), overrides=overrides)
    if more.accepted_by(accept):
        assert origin(value, *before, overrides=overrides).accepted_by(accept)


@given(
    st.lists(
        st.builds(
            Appearance, st.sampled_from(["user", "tool:a/read", "tool:b/read"]), st.sampled_from(leaves.TRUST)
        ),
        min_size=1,
        max_size=4,
    ),
    st.builds(
        Appearance, st.sampled_from(["tool:a/read", "tool:b/read"]), st.sampled_from(["mixed", "untrusted"])
    ),
    accepts,
)
def test_another_doubtful_appearance_never_makes_more_accepted(
    known: list[Appearance], more: Appearance, accept: frozenset[str]
) -> None:
    """Of a value that was seen: each further source below "trusted" must be accepted as well."""

    def part(found: list[Appearance]) -> judge.Part:
        return judge.Part(tuple(found), leaves.least(*(one.trust for one in found)))

    if part([*known, more]).accepted_by(accept):
        assert all(
            one.source in accept or (one.trust == "mixed" and "mixed" in accept)
            for one in [*known, more]
            if one.trust != "trusted"
        )


@given(arguments, st.lists(said, max_size=3), accepts)
def test_a_memory_that_is_not_whole_accepts_no_more(
    value: Any, before: list[values.Glimpses], accept: frozenset[str]
) -> None:
    """What is missing can only have said no."""
    if origin(value, *before, whole=False).accepted_by(accept):
        assert origin(value, *before).accepted_by(accept)


@given(arguments, st.lists(said, max_size=3), st.booleans())
def test_the_candidates_are_all_that_is_asked_for(
    value: Any,
    before: list[values.Glimpses],
    overrides: bool,  # noqa: FBT001
) -> None:
    """What a store hands out for them is judged as the whole memory would be."""
    everything = memory(*before)
    assert judge.origin(value, asked(value, everything), frozenset(), overrides) == judge.origin(
        value, everything, frozenset(), overrides
    )


@given(arguments, st.lists(said, max_size=3))
def test_wider_acceptance_accepts_no_less(value: Any, before: list[values.Glimpses]) -> None:
    """Every word added to `accept` only adds."""
    found = origin(value, *before)
    for accept in (frozenset({"user"}), frozenset({"mixed"}), frozenset({"unseen", "trusted"})):
        assert not found.accepted_by(accept) or found.accepted_by(accept | EVERYTHING)


@given(st.text(), st.text())
def test_any_text_can_be_said_and_judged(text: str, value: str) -> None:
    """Nothing that is no Unicode, half a character, or nothing at all breaks it."""
    origin(value, page(text), user(text))
    origin(json.loads(json.dumps([value, {"\ud800": value}])), page([text, "\ud800"]))


@given(st.binary())
def test_any_bytes_can_be_said(raw: bytes) -> None:
    """A server may send what it wants."""
    values.glimpses(raw, source="tool:a/b", trust="untrusted", fields={"/a": "trusted"}, salt=SALT)


def test_what_is_too_long_to_be_read_makes_the_memory_not_whole() -> None:
    """What was cut off may have been the page's address."""
    shown = page("x " * values.LONGEST)
    assert not origin("dora@example.net", user("dora@example.net"), shown).accepted_by(EVERYTHING)
    assert origin("dora@example.net", user("dora@example.net"), shown, overrides=True).accepted_by(EVERYTHING)


def test_an_argument_too_long_to_be_judged_is_accepted_by_nothing() -> None:
    """Neither one text without end nor a list without end."""
    assert not origin("word " * judge.LONGEST).accepted_by(EVERYTHING)
    assert not origin(["word"] * (judge.MOST + 1)).accepted_by(EVERYTHING)
    assert origin(["word"] * judge.MOST).accepted_by(EVERYTHING)


def test_fingerprints_say_nothing_without_the_salt() -> None:
    """Another salt, another fingerprint; and each is 16 bytes."""
    one = values.glimpses(b'"dora@example.net"', source="tool:a/b", trust="mixed", fields={}, salt=b"1" * 32)
    two = values.glimpses(b'"dora@example.net"', source="tool:a/b", trust="mixed", fields={}, salt=b"2" * 32)
    assert not {key for key, _ in one} & {key for key, _ in two}
    assert {len(key) for key, _ in (*one, *two)} == {16}


def test_a_seen_value_without_salt_is_not_found() -> None:
    """A memory that names no salt knows nothing."""
    empty = Seen({key: (one,) for key, one in user("dora@example.net")}, salt=b"")
    assert judge.origin("dora@example.net", empty, frozenset(), False).trust == "unseen"  # noqa: FBT003


def test_decoding_ends() -> None:
    """An encoding inside an encoding, deeper than anybody reads."""
    assert len(list(forms.unwrapped("%25" * 100))) <= forms.MOST_ENCODED
    assert words.LONGEST_PHRASE == 8

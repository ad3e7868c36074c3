"""API keys: what they are worth to whoever has one, most of one, or the store."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.core.canonical import sha256
from guard.core.errors import Reason, Refused
from guard.core.model import Principal
from guard.identity import api_keys
from guard.identity.api_keys import (
    ENTROPY_BYTES,
    KEY_CHARS,
    ApiKeyRecord,
    BadRecord,
    authenticate,
    mint,
    parse,
)

NOW = 1_800_000_000
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
entropies = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)


def _mint(entropy: bytes = bytes(range(ENTROPY_BYTES)), **changes: Any) -> tuple[str, ApiKeyRecord]:
    asked: dict[str, Any] = {"tenant": "acme", "principal": "ada", "role": "reader", "created": NOW - 100}
    return mint(entropy, **{**asked, **changes})


TEXT, RECORD = _mint()


def _store(*records: ApiKeyRecord) -> Callable[[str], ApiKeyRecord | None]:
    return {record.key_id: record for record in records}.get


def _reason(text: str | None, *records: ApiKeyRecord, now: int = NOW) -> Reason:
    with pytest.raises(Refused) as caught:
        authenticate(text, _store(*records), now)
    return caught.value.reason


def test_a_key_stands_for_the_principal_of_its_record() -> None:
    """Tenant, subject, role and scopes come from the record; issuer and credential say how it was known."""
    text, record = _mint(scopes=frozenset({"files:read"}), expires=NOW + 1)
    assert authenticate(text, _store(record), NOW) == Principal(
        tenant="acme",
        issuer="api-key",
        subject="ada",
        role="reader",
        scopes=frozenset({"files:read"}),
        credential=record.key_id,
    )


@given(entropies)
@settings(deadline=None)
def test_every_minted_key_is_taken(entropy: bytes) -> None:
    """Whatever the random bytes, the key is well-formed, matches the published pattern, and authenticates."""
    text, record = _mint(entropy)
    assert len(text) == KEY_CHARS
    assert re.fullmatch(r"guard_[a-z2-7]{16}_[a-z2-7]{39}", text)
    assert parse(text).key_id == record.key_id == text.split("_")[1]
    assert authenticate(text, _store(record), NOW).credential == record.key_id


@given(entropies, st.integers(0, KEY_CHARS - 1), st.characters())
@settings(deadline=None)
def test_a_key_with_one_changed_character_is_refused(entropy: bytes, at: int, char: str) -> None:
    """Any other character at any place ends in INVALID_KEY, told by the checksum without a look-up."""
    text, _ = _mint(entropy)
    changed = text[:at] + char + text[at + 1 :]
    if changed == text:
        return
    with pytest.raises(Refused) as caught:
        authenticate(changed, _must_not_be_asked, NOW)
    assert caught.value.reason is Reason.INVALID_KEY


def _must_not_be_asked(key_id: str) -> ApiKeyRecord | None:
    raise AssertionError(f"the store was asked about {key_id}")


def test_every_single_typing_error_is_told_from_an_unknown_key() -> None:
    """All 62 places times all other characters of the alphabet, upper case, and lookalike digits."""
    for at, right in enumerate(TEXT):
        for wrong in {*ALPHABET, *string.ascii_uppercase, *"0189_- \n"} - {right}:
            with pytest.raises(Refused) as caught:
                authenticate(TEXT[:at] + wrong + TEXT[at + 1 :], _must_not_be_asked, NOW)
            assert caught.value.reason is Reason.INVALID_KEY


@given(st.integers(0, KEY_CHARS - 2))
def test_two_swapped_neighbours_are_told_from_an_unknown_key(at: int) -> None:
    """The commonest typing error after a wrong character."""
    swapped = TEXT[:at] + TEXT[at + 1] + TEXT[at] + TEXT[at + 2 :]
    if swapped != TEXT:
        with pytest.raises(Refused):
            parse(swapped)


NOT_KEYS = {
    "cut off": TEXT[:-1],
    "one character more": TEXT + "a",
    "newline at the end": TEXT + "\n",
    "newline instead of the last character": TEXT[:-1] + "\n",
    "space around": f" {TEXT} ",
    "upper case": TEXT.upper(),
    "quoted": f'"{TEXT}"',
    "bearer": f"Bearer {TEXT}",
    "without its prefix": TEXT.removeprefix("guard_"),
    "another prefix": TEXT.replace("guard", "gaurd"),
    "fullwidth letters": TEXT.replace("g", "\uff47", 1),
    "cyrillic lookalike": TEXT.replace("a", "\u0430", 1),
    "zero-width space inside": TEXT[:10] + "\u200b" + TEXT[11:],
    "zero byte": TEXT[:-1] + "\x00",
    "lone surrogate": TEXT[:-1] + "\ud800",
    "only the prefix": "guard_",
    "62 other characters": "x" * KEY_CHARS,
    "a space": " ",
    "a megabyte": "a" * 1_000_000,
}


@pytest.mark.parametrize("text", NOT_KEYS.values(), ids=NOT_KEYS)
def test_what_is_not_a_key_is_refused_without_a_lookup(text: str) -> None:
    """No other spelling of a key is that key, and the store never sees it."""
    with pytest.raises(Refused) as caught:
        authenticate(text, _must_not_be_asked, NOW)
    assert caught.value.reason is Reason.INVALID_KEY


@pytest.mark.parametrize("text", [None, ""])
def test_no_key_is_no_credential(text: str | None) -> None:
    """Nothing given is its own reason."""
    assert _reason(text, RECORD) is Reason.NO_CREDENTIAL


def test_an_unknown_key_and_a_wrong_secret_are_one_answer() -> None:
    """Whoever tries ids learns nothing: reason, words, place and remedy are the same."""
    wrong, _ = _mint(bytes(range(10)) + bytes(20))
    unknown, _ = _mint(bytes(ENTROPY_BYTES))
    assert parse(wrong).key_id == RECORD.key_id != parse(unknown).key_id
    answers = set()
    for text in (wrong, unknown):
        with pytest.raises(Refused) as caught:
            authenticate(text, _store(RECORD), NOW)
        answers.add((caught.value.reason, str(caught.value), caught.value.pointer))
    assert len(answers) == 1


def test_an_unknown_key_costs_what_a_known_one_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One hash, one look-up and one constant-time comparison of equal lengths, id known or not."""
    work: list[tuple[str, Any]] = []

    def compare(kept: bytes, presented: bytes) -> bool:
        work.append(("compare", (len(kept), len(presented))))
        return kept == presented

    def hashed(data: bytes) -> str:
        work.append(("hash", len(data)))
        return sha256(data)

    def lookup(key_id: str) -> ApiKeyRecord | None:
        work.append(("lookup", len(key_id)))
        return _store(RECORD)(key_id)

    monkeypatch.setattr(api_keys, "compare_digest", compare)
    monkeypatch.setattr(api_keys, "sha256", hashed)
    traces = []
    for entropy in (bytes(range(ENTROPY_BYTES)), bytes(range(10)) + bytes(20), bytes(ENTROPY_BYTES)):
        text, _ = _mint(entropy)
        work.clear()
        with suppress(Refused):
            authenticate(text, lookup, NOW)
        traces.append(tuple(work))
    assert traces[0] == traces[1] == traces[2]
    assert [step for step, _ in traces[0]] == ["hash", "lookup", "compare"]


def test_a_revoked_key_is_refused_at_once_whatever_the_clock_says() -> None:
    """A clock that was set back, or a revocation dated ahead, does not bring a key back."""
    for revoked_at in (0, NOW - 1, NOW, NOW + 1000):
        assert _reason(TEXT, replace(RECORD, revoked_at=revoked_at)) is Reason.REVOKED_KEY


@given(st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40))
@settings(deadline=None)
def test_a_key_is_refused_from_its_last_second_on(expires: int, now: int) -> None:
    """Before `expires` it is taken, at `expires` and after it is not."""
    record = replace(RECORD, expires=expires)
    if now < expires:
        assert authenticate(TEXT, _store(record), now).subject == "ada"
    else:
        assert _reason(TEXT, record, now=now) is Reason.EXPIRED_KEY


def test_revocation_is_said_before_expiry() -> None:
    """A key that is both is called revoked: its owner should know."""
    assert _reason(TEXT, replace(RECORD, revoked_at=NOW - 5, expires=NOW - 50)) is Reason.REVOKED_KEY


@pytest.mark.parametrize("changes", [{"revoked_at": NOW}, {"expires": NOW}])
def test_only_the_holder_learns_that_a_key_ended(changes: dict[str, int]) -> None:
    """With a wrong secret a revoked or expired key answers as an unknown one."""
    wrong, _ = _mint(bytes(range(10)) + bytes(20))
    assert _reason(wrong, replace(RECORD, **changes)) is Reason.INVALID_KEY


def test_a_hash_moved_to_another_record_opens_nothing() -> None:
    """Who can write one record's hash into another cannot use the first key as the second."""
    other_text, other = _mint(bytes(reversed(range(ENTROPY_BYTES))), role="admin")
    swapped = replace(other, secret_sha256=RECORD.secret_sha256)
    assert _reason(TEXT, swapped) is Reason.INVALID_KEY
    assert _reason(other_text, swapped) is Reason.INVALID_KEY
    with pytest.raises(Refused):
        authenticate(TEXT, lambda _: swapped if swapped.key_id == RECORD.key_id else other, NOW)


@pytest.mark.parametrize("kept", ["", "x", "\u00e9" * 43, "A" * 43])
def test_a_damaged_hash_opens_nothing(kept: str) -> None:
    """A record whose hash was emptied, cut or overwritten refuses every key."""
    assert _reason(TEXT, replace(RECORD, secret_sha256=kept)) is Reason.INVALID_KEY


def test_the_record_holds_no_secret() -> None:
    """From all that is kept, the secret part cannot be read, and the hash is of the whole key."""
    secret = TEXT.split("_")[2]
    assert secret[:32] not in str(vars_of(RECORD))
    assert RECORD.secret_sha256 == sha256(TEXT.encode())


def vars_of(record: ApiKeyRecord) -> dict[str, Any]:
    """Every field of the record, also those that repr leaves out."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def test_neither_secret_nor_hash_is_ever_shown() -> None:
    """The repr of a record and of a presented key has neither; both have the public id."""
    for value in (RECORD, parse(TEXT)):
        shown = repr(value) + str(value)
        assert RECORD.key_id in shown
        assert TEXT.split("_")[2] not in shown
        assert RECORD.secret_sha256 not in shown


@given(
    st.one_of(
        st.text("QWXZ0189", min_size=8),
        st.integers(0, KEY_CHARS - 1).map(lambda at: TEXT[:at] + "9" + TEXT[at + 1 :]),
    )
)
@settings(deadline=None)
def test_a_refusal_never_echoes_what_was_given(text: str) -> None:
    """A key with a typing error is still most of a key: no word of it is in the message or its cause."""
    with pytest.raises(Refused) as caught:
        authenticate(text, _store(RECORD), NOW)
    error: BaseException | None = caught.value
    while error is not None:
        shown = f"{error} {error!r} {error.args}"
        assert all(text[at : at + 8] not in shown for at in range(len(text) - 7))
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("length", [0, 16, ENTROPY_BYTES - 1, ENTROPY_BYTES + 1])
def test_a_key_is_not_made_of_too_little_randomness(length: int) -> None:
    """Exactly 240 bits: 80 for the id, 160 for the secret."""
    with pytest.raises(BadRecord):
        _mint(bytes(length))


@pytest.mark.parametrize("field", ["tenant", "principal", "role"])
@pytest.mark.parametrize("name", ["", " ", "ada ", "ada\n", "\x1b[31mada", "a\u202eda", "ad\u200ba"])
def test_a_name_that_hides_something_gets_no_key(field: str, name: str) -> None:
    """Names are printed and compared by people: blank ends and hidden characters are refused."""
    with pytest.raises(BadRecord) as caught:
        _mint(**{field: name})
    assert caught.value.where == field


@pytest.mark.parametrize("expires", [NOW - 100, NOW - 101, 0])
def test_a_key_that_never_lived_is_not_minted(expires: int) -> None:
    """An end at or before the beginning is a mistake of whoever asked."""
    with pytest.raises(BadRecord):
        _mint(expires=expires)


def test_an_empty_set_of_scopes_is_not_the_absence_of_one() -> None:
    """None narrows nothing; an empty set narrows to nothing."""
    text, record = _mint(scopes=frozenset())
    assert authenticate(text, _store(record), NOW).scopes == frozenset()
    assert authenticate(TEXT, _store(RECORD), NOW).scopes is None


def test_the_module_has_no_clock_and_no_randomness() -> None:
    """Keys, records and time are arguments: nothing of the world is imported."""
    assert not {"os", "time", "secrets", "random", "datetime", "uuid", "open"} & set(vars(api_keys))

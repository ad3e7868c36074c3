"""What a server or the user said, as fingerprints of every value in it.

Bounded: at most MOST values and LONGEST characters. What goes beyond is not forgotten in silence: the mark
OVERFLOW goes with it, and a judge that finds the mark takes the memory as not whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from guard.core.model import Appearance
from guard.policy.origins import identities, words
from guard.policy.origins.fingerprints import keyed
from guard.policy.origins.forms import clean, unwrapped
from guard.policy.origins.leaves import TRUST, Leaf, leaves
from guard.policy.origins.shapes import Key, number, shown

Glimpses = tuple[tuple[bytes, Appearance], ...]
"""Fingerprints, each with where it was seen."""

MOST: Final = 10_000  # values of one text
LONGEST: Final = 524_288  # characters of one text, encoded pieces included
DEPTH: Final = 3  # encodings inside encodings
OVERFLOW: Final[Key] = ("overflow", "")
MOST_RUNS: Final = 4_000  # runs of words of what the user said
USER: Final = "user"

_ANYTHING: Final = re.compile(r"\w")
_WEAK_DIGITS: Final = 4


def glimpses(
    text_or_json: bytes, *, source: str, trust: str, fields: Mapping[str, str], salt: bytes
) -> Glimpses:
    """Every value that was said, as fingerprint and appearance; of several appearances the least trusted.

    Args:
        text_or_json: UTF-8; a JSON document where it parses as one, else prose.
        source: "tool:SERVER/NAME" and the like.
        trust: "trusted", "mixed" or "untrusted": of what no field says otherwise.
        fields: RFC 6901 pointers, `*` for any one segment, to the trust of what lies there: of several
            on the way to a value the deepest counts.
        salt: the key of the fingerprints.
    """
    found = Found()
    found.take_all(leaves(text_or_json.decode("utf-8", "replace"), trust, fields))
    return found.as_glimpses(source, salt)


def spoken(text: str, salt: bytes) -> Glimpses:
    """Every value of the user's own words: also each run of a few words."""
    found = Found()
    here = Leaf("", text, "trusted", whole=False)
    found.take(here)
    plain = clean(text[:LONGEST])
    found.add(here, (("text", run) for run in words.runs(plain, MOST_RUNS)))
    found.add(here, (("quoted", run) for run in words.quoted(plain)))
    found.add(here, (("quoted", run) for run in identities.pointed(plain.casefold())))
    found.add(here, (("quoted", run) for run in words.cued(plain.casefold(), strictly=True)))
    return found.as_glimpses(USER, salt)


class Found:
    """The values that were found so far, each with the least trusted leaf that shows it.

    Args:
        prose: whether words and their neighbours count where they are untrusted; else only what shows by
            its shape or stands for itself.
    """

    def __init__(self, *, prose: bool = True) -> None:
        self._prose = prose
        self._places: dict[Key, Leaf] = {}
        self._taken: set[tuple[str, str, bool, bool]] = set()
        self._characters = 0
        self.is_full = False

    def take_all(self, leaves: Iterable[Leaf]) -> None:
        """Take in every value of these leaves."""
        for leaf in leaves:
            if self.is_full:
                return
            self.take(leaf)

    def add(self, leaf: Leaf, keys: Iterable[Key]) -> None:
        """Take in these keys, as shown by this leaf."""
        places = self._places
        for key in keys:
            known = places.get(key)
            if known is None:
                if len(places) >= MOST:
                    self.is_full = True
                    return
                places[key] = leaf
            elif TRUST.index(leaf.trust) < TRUST.index(known.trust):
                places[key] = leaf

    def take(self, leaf: Leaf) -> None:
        """Take in every value of one leaf, its encodings undone."""
        if not isinstance(leaf.value, str):
            self.add(leaf, _of_number(leaf))
            return
        again = (leaf.value, leaf.trust, *identities.standing(leaf))
        if again in self._taken:
            return
        self._taken.add(again)
        layer = [leaf.value]
        for _ in range(DEPTH + 1):
            further: list[str] = []
            for said in layer:
                room = LONGEST - self._characters
                if len(said) > room:
                    self.is_full = True
                self._characters += len(said)
                self.add(leaf, _of_text(clean(said[:room]), leaf, prose=self._prose))
                if self.is_full:
                    return
                further.extend(unwrapped(said))
            layer = further

    def merge(self, other: Found, but: AbstractSet[Key]) -> None:
        """Take in what another found; `but` is left out."""
        for key, leaf in other._places.items():
            if key not in but:
                self.add(leaf, (key,))
        self.is_full |= other.is_full

    @property
    def keys(self) -> AbstractSet[Key]:
        """What was found so far."""
        return self._places.keys()

    def as_glimpses(self, source: str, salt: bytes) -> Glimpses:
        """What was found, as fingerprints, each with where it was seen."""
        fingerprint = keyed(salt)
        where: dict[tuple[str, str], Appearance] = {}
        listed = []
        for key, leaf in self._places.items():
            place = (leaf.trust, leaf.at)
            if place not in where:
                where[place] = Appearance(source, leaf.trust, leaf.at)
            listed.append((fingerprint(*key), where[place]))
        if self.is_full:
            listed.append((fingerprint(*OVERFLOW), Appearance(source, "untrusted")))
        return tuple(listed)


def _of_number(leaf: Leaf) -> Iterator[Key]:
    plain = number(_spelled(leaf.value))
    if plain is None:
        return
    identity = identities.is_identity(leaf)
    if sum(map(str.isdigit, plain)) >= _WEAK_DIGITS or leaf.trust != "untrusted" or identity:
        yield "number", plain
    if identity:
        yield "identity", plain


def _spelled(value: object) -> str:
    """A JSON number as digits; a float without a fraction as the integer that it is."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:.16g}"
    return str(value)


def _of_text(text: str, leaf: Leaf, *, prose: bool) -> Iterator[Key]:
    """Every key of one clean text."""
    if not _ANYTHING.search(text):
        return
    small = text.casefold()
    whole = words.phrase(text)
    yield "text", whole
    plain = number(small.strip()) if leaf.whole else None
    if plain is not None:
        yield "number", plain
    if identities.is_identity(leaf) or identities.is_name(leaf, text, whole):
        yield "identity", plain or whole
    yield from shown(small)
    yield from _numbers(small)
    if prose and leaf.trust == "untrusted":
        told = words.content(small)
        for word in words.telling(told):
            yield "text", word
        for pair in words.pairs(told):
            yield "pair", pair
    else:
        for standing in words.standing(text):
            if standing:
                yield "text", standing
        for item in identities.listed(text):
            yield "identity", item


def _numbers(small: str) -> Iterator[Key]:
    """Numbers in prose: those with more than a few digits, and short ones that are a number of something."""
    for cued in words.cued(small):
        yield "number", cued
    for written in words.numbers(small):
        plain = number(written)
        if plain is not None and sum(map(str.isdigit, plain)) >= _WEAK_DIGITS:
            yield "number", plain

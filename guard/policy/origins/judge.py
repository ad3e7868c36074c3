"""Where one argument's values came from, and whether a rule accepts that.

A value is judged part by part: each leaf; in a leaf each address, URL and account that shows in it; and what
is left. Each part has the appearances of its own forms. Where it was never seen itself, the parts that say
where it leads (a host, a file's name) can make it untrusted, and cannot make it trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from guard.core.model import Appearance, Seen
from guard.policy.origins import words
from guard.policy.origins.fingerprints import keyed
from guard.policy.origins.forms import clean, unwrapped, wrapped
from guard.policy.origins.shapes import Key, Shape, number, shapes
from guard.policy.origins.values import OVERFLOW

RANK: Final = {"untrusted": 0, "unseen": 1, "mixed": 2, "trusted": 3}
MOST: Final = 2_000  # parts of one argument
LONGEST: Final = 65_536  # characters of one leaf
DEPTH: Final = 3  # encodings inside encodings
MOST_HIDDEN: Final = 64  # encoded texts of one layer that are looked into
LONGEST_HIDDEN: Final = 200  # characters of a text that is looked for as encoded elsewhere
_SHORTEST_HIDDEN: Final = 3
_SAFE_SHORT: Final = 2  # ways to hide a text that make a short one longer
_WEAK_DIGITS: Final = 4
_FEW: Final = 2  # common words together are common
_AROUND: Final = " \t\r\n<>()\"',;:.!"
_UNIT: Final = re.compile(r"[^0-9.,+-]")
_NOT_CODE: Final = re.compile(r"[\W_]+")
SENT: Final = "sent:"
"""How a source begins that is a call of Guard's own client: what it sent, and to which tool."""
_UNKNOWN: Final = Appearance("unknown", "untrusted")
_UNSEEN: Final = Appearance("unseen", "untrusted")
"""Beside what a value leads to or is in disguise, where it was not seen itself: no source said it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a value, and where that came from.

    Attributes:
        appearances: the least trusted ones count; () for what was never seen.
        trust: "trusted", "mixed", "unseen" or "untrusted".
    """

    appearances: tuple[Appearance, ...]
    trust: str

    def accepted_by(self, accept: frozenset[str]) -> bool:
        """Whether the rule accepts where it came from.

        Below "trusted" every appearance must be accepted, so that another one never helps. What no source
        names is accepted as `unseen` only; an untrusted one only by the name of its very source.
        """
        match self.trust:
            case "trusted":
                return any(one.source in accept for one in self.appearances) or bool(
                    accept & {"trusted", "mixed"}
                )
            case "unseen":
                return "unseen" in accept
        return all(
            one.source in accept or (one.trust == "mixed" and "mixed" in accept)
            for one in self.appearances
            if one.trust != "trusted"
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from.

    Attributes:
        kinds: "user", "policy", "unseen", "tool:SERVER/NAME" and other sources: those of all parts.
        trust: the least of all parts: "trusted", "mixed", "unseen" or "untrusted".
        parts: each part of its own.
    """

    kinds: frozenset[str]
    trust: str
    parts: tuple[Part, ...] = ()

    def accepted_by(self, accept: frozenset[str]) -> bool:
        """Whether every part comes from where the rule accepts it."""
        return all(part.accepted_by(accept) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked about one part.

    Attributes:
        exact: keys of the part itself; () where nothing but `leading` and `phrases` is asked.
        quoted: keys that count as itself where the value is weak: the user pointed at it, or it stands by
            itself where a tool says which thing it means.
        leading: keys of what it leads to, has in it, or hides: where it was never seen itself they can make
            it untrusted.
        disguised: keys of the value itself in disguise: they can make it untrusted.
        phrases: of each way to read it, the neighbours among its words: seen together they are the phrase.
        weak: short or common: meeting it twice may be chance.
    """

    exact: tuple[Key, ...]
    quoted: tuple[Key, ...] = ()
    leading: tuple[Key, ...] = ()
    disguised: tuple[Key, ...] = ()
    phrases: tuple[tuple[Key, ...], ...] = ()
    weak: bool = False

    @property
    def keys(self) -> Iterator[Key]:
        yield from self.exact
        yield from self.quoted
        yield from self.leading
        yield from self.disguised
        for phrase in self.phrases:
            yield from phrase


@dataclass(frozen=True, slots=True)
class _Hidden:
    """What is encoded in a leaf: keys, and phrases."""

    keys: tuple[Key, ...] = ()
    disguised: tuple[Key, ...] = ()
    phrases: tuple[tuple[Key, ...], ...] = ()


def candidates(value: Any, salt: bytes) -> tuple[bytes, ...]:
    """Every fingerprint that judging this value may ask for."""
    fingerprint = keyed(salt)
    keys = {key for asked in _parts(value) for key in asked.keys}
    return (fingerprint(*OVERFLOW), *(fingerprint(*key) for key in keys))


def origin(value: Any, seen: Seen, constants: frozenset[str], user_overrides: bool) -> Origin:  # noqa: FBT001
    """Where a value came from.

    Args:
        value: any JSON value: each leaf is judged.
        seen: what the memory knows of `candidates(value, seen.salt)`.
        constants: what the operator wrote down for this rule: no appearance makes that less.
        user_overrides: whether the user's word beats an untrusted appearance.
    """
    fingerprint = keyed(seen.salt)
    whole = seen.whole and not seen.values.get(fingerprint(*OVERFLOW))

    def appearances(keys: tuple[Key, ...]) -> list[Appearance]:
        return [one for key in keys for one in seen.values.get(fingerprint(*key), ())]

    known = frozenset(key for constant in constants for asked in _leaf(constant) for key in asked.exact)
    judged = []
    for asked in _parts(value):
        if not known.isdisjoint(asked.exact):
            judged.append(Part((Appearance("policy", "trusted"),), "trusted"))
            continue
        found = _gathered(asked, appearances, user_overrides=user_overrides)
        if not asked.exact and not found:
            continue
        if OVERFLOW in asked.exact:
            found.append(_UNKNOWN)
        if not whole and not (user_overrides and any(one.source == "user" for one in found)):
            found.append(_UNKNOWN)
        label = min((one.trust for one in found), key=RANK.__getitem__, default="unseen")
        judged.append(Part(tuple(dict.fromkeys(found)), label))
    kinds = {one.source for part in judged for one in part.appearances}
    kinds.update("unseen" for part in judged if part.trust == "unseen")
    least = min((part.trust for part in judged), key=RANK.__getitem__, default="trusted")
    return Origin(frozenset(kinds), least, tuple(judged))


def _gathered(asked: _Asked, appearances: Any, *, user_overrides: bool) -> list[Appearance]:
    """The appearances that count for one part."""
    found = _read_back(appearances(asked.exact))
    if asked.weak:
        meant = _read_back(appearances(asked.quoted))
        found = meant + [one for one in found if one.trust == "untrusted"]
    itself = bool(found) or not asked.exact
    found += [one for one in appearances(asked.disguised) if one.trust == "untrusted"]
    for phrase in asked.phrases:
        told = [[one for one in appearances((pair,)) if one.trust == "untrusted"] for pair in phrase]
        if all(told):
            found += [one for each in told for one in each]
            itself = True
    if user_overrides and any(one.source == "user" for one in found):
        return [one for one in found if one.trust != "untrusted" and one.source == "user"]
    gained = any(one.trust != "untrusted" for one in found)
    if not gained:
        found += [one for one in appearances(asked.leading) if one.trust == "untrusted"]
    return found if itself or not found else [*found, _UNSEEN]


def _read_back(found: list[Appearance]) -> list[Appearance]:
    """What was sent and comes back from a tool is mixed at best; to have been sent is no origin by itself."""
    others = [one for one in found if not one.source.startswith(SENT)]
    if len(others) == len(found):
        return found
    return [
        Appearance(one.source, "mixed", one.field) if one.trust == "trusted" and one.source != "user" else one
        for one in others
    ]


def _parts(value: Any) -> Iterator[_Asked]:
    """What is asked about a value: the parts of each leaf, and the addresses in names of members."""
    waiting, told = [value], 0
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            waiting.extend(node.values())
            for name in node:
                for group in _clusters(shapes(clean(name).casefold())):
                    yield _Asked(group.exact, leading=group.parts)
        elif isinstance(node, (list, tuple)):
            waiting.extend(node)
        elif node is not None and not isinstance(node, bool):
            for asked in _leaf(node):
                told += 1
                if told > MOST:
                    yield _Asked((OVERFLOW,))
                    return
                yield asked


def _leaf(leaf: str | float) -> Iterator[_Asked]:
    """What is asked about one leaf."""
    if not isinstance(leaf, str):
        leaf = str(int(leaf)) if isinstance(leaf, float) and leaf.is_integer() else str(leaf)
    if len(leaf) > LONGEST:
        yield _Asked((OVERFLOW,))
    text = clean(leaf[:LONGEST])
    small = text.casefold().strip()
    groups = list(_clusters(shapes(small)))
    hidden = _hidden(leaf[:LONGEST], small)
    if (plain := number(small)) and not _UNIT.search(small):
        yield _number(plain, words.value(text), groups, hidden)
        return
    rest = _rest(text.strip(), groups) if groups and len(text.strip()) == len(small) else text
    if len(groups) == 1 and not rest.strip(_AROUND):
        whole = groups[0]
        exact = (("text", words.value(text)), *whole.exact)
        yield _Asked(exact, (), (*whole.parts, *hidden.keys), hidden.disguised, hidden.phrases)
        return
    for group in groups:
        yield _Asked(group.exact, leading=group.parts)
    if groups and not rest.strip(_AROUND):
        yield _Asked((), (), hidden.keys, hidden.disguised, hidden.phrases)
    else:
        yield _phrase(rest, hidden, len(text.split()))


def _number(plain: str, normal: str, groups: list[Shape], hidden: _Hidden) -> _Asked:
    codes = tuple(key for group in groups for key in group.exact)
    weak = sum(map(str.isdigit, plain)) < _WEAK_DIGITS
    quoted = (("quoted", plain), ("quoted", normal), ("identity", plain))
    return _Asked(
        (("number", plain), ("text", normal), *codes),
        quoted,
        hidden.keys,
        hidden.disguised,
        hidden.phrases,
        weak,
    )


def _phrase(text: str, hidden: _Hidden, length: int) -> _Asked:
    normal = words.value(text)
    exact: tuple[Key, ...] = (("text", normal),)
    if length > words.LONGEST_PHRASE:
        return _Asked(exact, (), hidden.keys, hidden.disguised, hidden.phrases)
    told = words.content(text.casefold())
    weak = words.is_weak(normal) or (len(told) <= _FEW and all(map(words.is_weak, told)))
    single, pairs = _words(told)
    phrases = (pairs, *hidden.phrases) if pairs else hidden.phrases
    return _Asked(
        exact,
        (("quoted", normal), ("identity", normal)),
        (*single, *hidden.keys),
        hidden.disguised,
        phrases,
        weak,
    )


def _words(told: list[str]) -> tuple[tuple[Key, ...], tuple[Key, ...]]:
    """How words are found again in untrusted prose: one by itself, more by their neighbours."""
    if len(told) == 1:
        return tuple(("text", word) for word in words.telling(told)), ()
    return (), tuple(("pair", pair) for pair in words.pairs(told))


def _clusters(found: Iterator[Shape]) -> Iterator[Shape]:
    """Values that lie over each other, as one: the longest is the value, the others are in it."""
    together: list[Shape] = []
    end = -1
    for shape in sorted(found, key=lambda one: (one.start, -one.end)):
        if together and shape.start >= end:
            yield _cluster(together, end)
            together = []
        together.append(shape)
        end = shape.end if len(together) == 1 else max(end, shape.end)
    if together:
        yield _cluster(together, end)


def _cluster(together: list[Shape], end: int) -> Shape:
    start = together[0].start
    most = max(shape.end - shape.start for shape in together)
    exact = [key for shape in together if shape.end - shape.start == most for key in shape.exact]
    parts = [key for shape in together for key in (*shape.parts, *shape.exact)]
    return Shape(start, end, tuple(dict.fromkeys(exact)), tuple(dict.fromkeys(parts)))


def _hidden(leaf: str, small: str) -> _Hidden:
    """What is encoded in a leaf; and the leaf as it may be encoded elsewhere."""
    keys: list[Key] = []
    disguised: list[Key] = []
    phrases: list[tuple[Key, ...]] = []
    layer = [leaf]
    for _ in range(DEPTH):
        layer = [said for text in layer for said in unwrapped(text)][:MOST_HIDDEN]
        for said in layer:
            plain = clean(said)
            keys.append(("text", words.phrase(plain)))
            for shape in shapes(plain.casefold()):
                keys.extend((*shape.exact, *shape.parts))
            single, pairs = (
                _words(words.content(plain.casefold())) if len(plain) <= LONGEST_HIDDEN else ((), ())
            )
            keys.extend(single)
            if pairs:
                phrases.append(pairs)
    if plain := words.phrase(small):
        disguised.append(("text", plain))
    if len(small) <= LONGEST_HIDDEN:
        for text in {leaf.strip(), small}:
            for said in islice(wrapped(text), None if len(small) >= _SHORTEST_HIDDEN else _SAFE_SHORT):
                disguised.append(("text", words.phrase(said)))
                disguised.append(("loose", _NOT_CODE.sub("", said.casefold())))
    return _Hidden(tuple(dict.fromkeys(keys))[:MOST], tuple(dict.fromkeys(disguised)), tuple(phrases))


def _rest(text: str, groups: list[Shape]) -> str:
    """What is left of a text without the values in it."""
    rest, at = "", 0
    for group in groups:
        rest += text[at : group.start] + " "
        at = max(at, group.end)
    return rest + text[at:]

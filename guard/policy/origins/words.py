"""Values that show by nothing but their words: names, titles, phrases.

Of untrusted prose every uncommon word and every pair of neighbours is kept, little words left out: so a
phrase is found again wherever it stood. Of other prose only what stands for itself gains: a line, what is
between commas, colons or quotes, a run of words in capitals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from guard.policy.origins.common import COMMON, STOP
from guard.policy.origins.forms import folded

_WORD: Final = re.compile(r"[^\W_]+(?:['\u2019_.+&-][^\W_]+)*")
_SEGMENTS: Final = re.compile(r"[\n\r\t,;|\"`<>()\[\]{}]+|: | - |'(?= |$)|(?<= )'")
_NAME: Final = re.compile(
    r"[^\W\d_a-z][\w'\u2019&.-]{0,40}"
    r"(?: (?:(?:of|the|and|de|la|le|du|von|van|der|&) )?[^\W_a-z][\w'\u2019&.-]{0,40}){0,5}"
)
_QUOTED: Final = re.compile(
    r"(?<!\w)(['\"`])([^'\"`\n]{1,120}?)\1(?!\w)"
    r"|[\u201c\u2018\u00ab]([^\u201d\u2019\u00bb\n]{1,120})[\u201d\u2019\u00bb]"
    r"|(?<!\S)[#@]([\w-]{1,60})"
)
_NUMBER: Final = re.compile(
    r"(?<![\w.,])(?:[0-9][0-9,]{2,40}(?:\.[0-9]{1,16})?|[0-9]{1,32}\.[0-9]{1,16})(?![\w,])"
)
_SHORT: Final = re.compile(r"(?<![\w.,])[0-9]{1,3}(?![\w]|[.,:/-]\w)")
_SPELLED: Final = re.compile(r"[\"'`]([0-9] {1,2}[0-9](?: {1,2}[0-9])?)[\"'`]")
_NUMBERED: Final = r"(?:ids?|num|nr|numbers?|no\.)"
_MARK: Final = r"(?:\.? ?[:=] ?|[. ]{0,2})[\"'`(#]?$"
_POINTED: Final = re.compile(rf"(?<![^\W_]){_NUMBERED}_?(?: (?:is|of|has|the)){{0,2}}{_MARK}")
_CUE: Final = re.compile(
    r"(?:(?<![^\W_])(?:item|file|event|e?mail|message|transaction|payment|ticket|order|user|account|record|row"
    r"|issue|task|entry|case|invoice|booking|page|line|code)s?_?(?: (?:with|is|of|has|the|id|nr|number)){0,3}"
    rf"{_MARK})|[#\"'`]$|{_POINTED.pattern}"
)
_CUE_LENGTH: Final = 32  # characters before a short number that may say that it is one of something
_AROUND: Final = " \t\r\n.,;:!?\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb()[]{}<>*"
_FRONT: Final = " \t\r\n,;:!?\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb()[]{}<>*#@"
_HARMLESS: Final = " \t\r\n.,:!\"'\u201c\u201d\u2018\u2019"
_HARMLESS_FRONT: Final = " \t\r\n\"'\u201c\u201d\u2018\u2019#@"
_SHORTEST: Final = 3  # letters of a word that says something
LONGEST_PHRASE: Final = 8  # words; beyond that it is free text


def phrase(text: str) -> str:
    """The normal form of a whole value: without case, spacing, and the signs around it."""
    return folded(text.rstrip(_AROUND).lstrip(_FRONT))


def value(text: str) -> str:
    """The normal form of an argument: as `phrase`, but signs that may mean something to a tool stay."""
    return folded(text.rstrip(_HARMLESS).lstrip(_HARMLESS_FRONT))


def is_weak(normal: str) -> bool:
    """Whether a normal form is so short or common that meeting it twice may be chance."""
    return len(normal) < _SHORTEST or normal in COMMON or (len(normal) == _SHORTEST and normal.isdigit())


def content(text: str) -> list[str]:
    """The words of a clean text in small letters, without the little ones."""
    return [word for word in _WORD.findall(text) if word not in STOP]


def pairs(words: list[str]) -> Iterator[str]:
    """Neighbours among words."""
    for first, second in pairwise(words):
        yield f"{first} {second}"


def telling(words: list[str]) -> Iterator[str]:
    """Those words that are not common."""
    for word in set(words):
        if word not in COMMON and len(word) >= _SHORTEST:
            yield folded(word)


def standing(text: str) -> Iterator[str]:
    """Phrases of a clean text that stand for themselves, in normal form."""
    for segment in _SEGMENTS.split(text):
        if segment and segment.count(" ") < LONGEST_PHRASE:
            yield phrase(segment)
    for name in _NAME.finditer(text):
        yield phrase(name.group())


def numbers(text: str) -> Iterator[str]:
    """Numbers in a text that have more than a few digits, as they are written."""
    for found in _NUMBER.finditer(text):
        yield found.group()


def quoted(text: str) -> Iterator[str]:
    """What is put in quotes, or after `#` or `@`, in normal form: it is meant and not met by chance."""
    for found in _QUOTED.finditer(text):
        if normal := phrase(found.group(2) or found.group(3) or found.group(4)):
            yield normal


def cued(text: str, *, strictly: bool = False) -> Iterator[str]:
    """Short numbers of a text in small letters that are said to be the number of something.

    Args:
        text: clean.
        strictly: only those that are called an id or a number.
    """
    cue = _POINTED if strictly else _CUE
    if not strictly:
        for found in _SPELLED.finditer(text):
            yield found.group(1).replace(" ", "").lstrip("0") or "0"
    for found in _SHORT.finditer(text):
        if cue.search(text[max(0, found.start() - _CUE_LENGTH) : found.start()]):
            yield found.group().lstrip("0") or "0"


def runs(text: str, most: int) -> Iterator[str]:
    """Every run of up to LONGEST_PHRASE words, in normal form; the longer ones left out beyond `most`."""
    words = text.split()
    longest = max(1, min(LONGEST_PHRASE, most // max(1, len(words))))
    for start in range(len(words)):
        for end in range(start + 1, min(start + longest, len(words)) + 1):
            run = " ".join(words[start:end])
            if normal := phrase(run):
                yield normal
            if (exact := value(run)) != normal:
                yield exact

"""Which thing is meant: short and common values that are no chance, because somebody points at them.

A tool does by giving the value by itself, in a field for ids or names or as an element of a list. The user
does by saying it beside what it names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from guard.policy.origins.common import ANSWERS, STOP
from guard.policy.origins.forms import folded
from guard.policy.origins.leaves import Leaf
from guard.policy.origins.words import LONGEST_PHRASE, phrase

LONGEST: Final = 64  # characters of an identity or name

_SHORTEST: Final = 3  # letters of a name
_IDENTITY: Final = re.compile(
    r"(?:(?:^|[_/-])(?:id|ID|no|nr|num|number|code|account|key|ref|uid)s?_?"
    r"|[a-z](?:I[dD]|No|Nr|Num|Number|Code|Account|Key|Ref|Uid)s?)(?:/[0-9]+)?$"
)
_NAMING: Final = re.compile(
    r"/[0-9]+$|(?:^|[_/-])(?:account|author|branch|channel|city|company|file|filename|folder|from|group|handle"
    r"|hotel|label|login|member|name|owner|participant|person|project|recipient|repo|restaurant|room|sender"
    r"|slug|team|title|to|user|username)s?_?$"
)
_THING: Final = (
    r"(?:account|board|branch|calendar|category|channel|city|company|database|event|file|folder|group|hotel"
    r"|label|list|page|person|project|repo|repository|restaurant|room|table|team|user)s?"
)
_POINTED: Final = re.compile(
    rf"(?<![^\W_]){_THING}(?: (?:called|named))? ([^\W_][\w-]*)(?:, ([^\W_][\w-]*))?"
    r"(?:,? (?:and|or) ([^\W_][\w-]*))?"
    rf"|(?<![\w-])([^\W_][\w-]*)(?= {_THING}(?![\w-]))"
    r"|(?<![^\W_])(?:into|onto) ([^\W_][\w-]*)(?=[.,;!?]|$| and )"
)


def is_identity(leaf: Leaf) -> bool:
    """Whether a leaf says which thing is meant: by itself in a field for ids."""
    short = not isinstance(leaf.value, str) or len(leaf.value) <= LONGEST
    return leaf.whole and short and bool(_IDENTITY.search(leaf.at))


def is_name(leaf: Leaf, text: str, normal: str) -> bool:
    """Whether a leaf names something: by itself in a list or a field for names.

    So does the name of a member with a space or a capital, as no schema has it.

    Args:
        leaf: the leaf.
        text: what it says, clean.
        normal: the normal form of that.
    """
    if not leaf.whole or len(text) > LONGEST or not can_name(normal):
        return False
    if leaf.name:
        return " " in text or text[:1].isupper()
    return bool(_NAMING.search(leaf.at))


def standing(leaf: Leaf) -> tuple[bool, bool]:
    """What of a leaf's place may make a difference for its values."""
    return is_identity(leaf), leaf.name or bool(_NAMING.search(leaf.at))


def can_name(normal: str) -> bool:
    """Whether a value that stands by itself can name something: it is a word, and no mere answer."""
    return len(normal) >= _SHORTEST and normal not in ANSWERS and not normal.isdigit()


def pointed(text: str) -> Iterator[str]:
    """Words of a text in small letters that stand beside what they name: `the channel general`."""
    for found in _POINTED.finditer(text):
        for word in found.groups():
            if word and word not in STOP and can_name(word):
                yield folded(word)


def listed(text: str) -> Iterator[str]:
    """Lines of a text that is a list of short ones, and what is between commas behind a colon."""
    lines = [line for line in text.splitlines() if line.strip()]
    items = [item for line in lines for item in line.rpartition(": ")[2].split(", ")]
    if len(items) > 1 and all(item.count(" ") < LONGEST_PHRASE for item in items):
        yield from filter(can_name, map(phrase, items))

"""`shellCommand`: one command of plain words, and which.

The value is what a POSIX shell (POSIX.1-2017, XCU 2) runs as one simple command without expanding
anything: words of harmless characters, or quoted. Everything that could make the shell do more than split
words is not understood, so the words are those that `shlex` finds, and those that the shell passes on.
Not for `cmd.exe` or PowerShell: they split otherwise.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from guard.policy.boundaries import paths
from guard.policy.boundaries.verdict import Judge, Keyword, Misstated, NotUnderstood, text

LONGEST: Final = 8192  # characters
_PLAIN: Final = r"[A-Za-z0-9_./:,@%+=-]"
_PIECE: Final = rf"(?:{_PLAIN}|'[^']*'|\"[^\"$`\\!]*\")"
_LINE: Final = re.compile(rf" *{_PIECE}+(?: +{_PIECE}+)* *")
_OPERANDS: Final = {
    "description": "words that are no options: `false` for none, `true` for any, or folders they lie in",
    "oneOf": [
        {"type": "boolean"},
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["pathWithin"],
            "properties": {"pathWithin": paths.SHAPE},
        },
    ],
}
SHAPE: Final[dict[str, Any]] = {
    "description": "the value is one of these commands, without anything that a shell would expand",
    "type": "object",
    "additionalProperties": False,
    "required": ["commands"],
    "properties": {
        "commands": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1000,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["words"],
                "properties": {
                    "words": {
                        "description": "the words that it begins with: the program and its subcommands",
                        "type": "array",
                        "items": {"type": "string", "minLength": 1, "maxLength": 256},
                        "minItems": 1,
                        "maxItems": 8,
                    },
                    "options": {
                        "description": "options, each exactly, or up to and with its `=`",
                        "type": "array",
                        "items": {"type": "string", "pattern": "^-[^ ]*$", "maxLength": 256},
                        "maxItems": 256,
                    },
                    "operands": _OPERANDS,
                },
            },
        }
    },
}


@dataclass(frozen=True, slots=True)
class Command:
    """One command that is permitted.

    Attributes:
        words: what it begins with.
        options: options, each exactly.
        valued: options with a value, up to their `=`.
        operands: whether other words may follow; or a judge of them.
    """

    words: tuple[str, ...]
    options: frozenset[str]
    valued: tuple[str, ...]
    operands: bool | Judge

    def covers(self, words: Sequence[str]) -> bool:
        """Whether these words are this command. Raises NotUnderstood."""
        if tuple(words[: len(self.words)]) != self.words:
            return False
        rest = words[len(self.words) :]
        end = rest.index("--") if "--" in rest else len(rest)
        return all(map(self._permits, rest[:end])) and all(map(self._takes, rest[end + 1 :]))

    def _permits(self, word: str) -> bool:
        """Whether this word may stand before the end of the options."""
        if word.startswith("-"):
            return word in self.options or word.startswith(self.valued)
        return self._takes(word)

    def _takes(self, word: str) -> bool:
        """Whether this word may be an operand."""
        if isinstance(self.operands, bool):
            return self.operands and not word.startswith("-")
        return self.operands(word)


def split(value: str) -> list[str]:
    """The words of a command. Raises NotUnderstood."""
    if not _LINE.fullmatch(value) or not value.isprintable():
        raise NotUnderstood
    words = shlex.split(value)
    unquoted = value.lstrip().partition(" ")[0]
    if not words[0] or "=" in unquoted or unquoted != words[0]:  # an assignment, or a name that hides
        raise NotUnderstood
    return words


def judge(stated: Any) -> Judge:
    """A judge of commands. Raises Misstated."""
    commands = [_command(one, f"/commands/{index}") for index, one in enumerate(stated["commands"])]

    def within(value: Any) -> bool:
        words = split(text(value, LONGEST))
        return any(command.covers(words) for command in commands)

    return within


def _command(stated: Any, at: str) -> Command:
    words = tuple(stated["words"])
    if words[0].startswith("-") or "=" in words[0]:
        raise Misstated("the first word is no program", f"{at}/words/0", "write the program's name")
    options = stated.get("options", [])
    operands = stated.get("operands", False)
    if not isinstance(operands, bool):
        operands = _within(operands["pathWithin"], f"{at}/operands/pathWithin")
    return Command(
        words,
        frozenset(options),
        tuple(option for option in options if option.endswith("=")),
        operands,
    )


def _within(stated: Any, at: str) -> Judge:
    try:
        return paths.judge(stated)
    except Misstated as misstated:
        raise Misstated(misstated.what, f"{at}{misstated.pointer}", misstated.remedy) from None


KEYWORD: Final = Keyword("shellCommand", SHAPE, judge)

"""What can go wrong, in one closed list, and how it is said.

Every message has three parts: what failed, where (a field, rule or line), and what to do
next on a line of its own.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """Why a call was denied or ended without a result. Closed; one page each in docs/reasons/."""

    # identity (step 2)
    NO_CREDENTIAL = "no-credential"
    INVALID_KEY = "invalid-key"
    EXPIRED_KEY = "expired-key"
    REVOKED_KEY = "revoked-key"
    UNAUTHORIZED_ROLE = "unauthorized-role"
    # the call itself (step 3)
    ARGUMENTS_NOT_IJSON = "arguments-not-ijson"
    UNKNOWN_TOOL = "unknown-tool"
    STATE_INVALID = "state-invalid"
    UNKNOWN_METHOD = "unknown-method"
    UNKNOWN_RESOURCE = "unknown-resource"
    UNKNOWN_PROMPT = "unknown-prompt"
    TOOL_NOT_VISIBLE = "tool-not-visible"
    TOOL_UNPINNED = "tool-unpinned"
    TOOL_CHANGED = "tool-changed"
    # policy (step 4)
    PROTECTED = "protected"
    MISSING_SCOPE = "missing-scope"
    INTENT_UNMATCHED = "intent-unmatched"
    DEFAULT_DENY = "default-deny"
    RULE_FAILED = "rule-failed"
    LIMIT_REACHED = "limit-reached"
    OUTSIDE_INTENT = "outside-intent"
    OUTSIDE_HOURS = "outside-hours"
    AMOUNT_UNREADABLE = "amount-unreadable"
    REQUIRED_FIRST = "required-first"
    FORBIDDEN_AFTER = "forbidden-after"
    ORIGIN_REFUSED = "origin-refused"
    APPROVAL_REQUIRED = "approval-required"
    APPROVAL_REFUSED = "approval-refused"
    # runtime conditions (step 4, again inside step 6)
    POLICY_EXPIRED = "policy-expired"
    POLICY_SUPERSEDED = "policy-superseded"
    ARTIFACT_KEY_UNAVAILABLE = "artifact-key-unavailable"
    STORE_UNAVAILABLE = "store-unavailable"
    CLOCK_BEHIND = "clock-behind"
    CLOCK_AHEAD = "clock-ahead"
    CONVERSATION_CONTAINED = "conversation-contained"
    CONVERSATION_SEALED = "conversation-sealed"
    PRINCIPAL_CONTAINED = "principal-contained"
    TOOL_CONTAINED = "tool-contained"
    # the way to the server (steps 5 to 8)
    UNKNOWN_OBLIGATION = "unknown-obligation"
    ISSUE_FAILED = "issue-failed"
    CONTENDED = "contended"
    OVERLOADED = "overloaded"
    ARTIFACT_MISSING = "artifact-missing"
    ARTIFACT_INVALID = "artifact-invalid"
    INTEGRITY = "integrity"
    UPSTREAM_UNAVAILABLE = "upstream-unavailable"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed-out"
    RESULT_TOO_LARGE = "result-too-large"
    UNEXPECTED = "unexpected"


class GuardError(Exception):
    """Something failed, said so that the reader can act on it.

    Args:
        what: what failed, one sentence without a full stop.
        where: the field, rule, file or line, or "" when there is none.
        remedy: what to do next, or "" when nothing can be done.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  next: {self.remedy}" if self.remedy else head


class Refused(GuardError):
    """A step of the life of a call said no.

    Args:
        reason: the closed id.
        pointer: RFC 6901 JSON pointer to the field that is at fault, or "".
    """

    def __init__(
        self, reason: Reason, what: str = "", *, pointer: str = "", where: str = "", remedy: str = ""
    ) -> None:
        super().__init__(what or str(reason), where=where, remedy=remedy)
        self.reason = reason
        self.pointer = pointer


_BLANK_LETTERS: Final = frozenset({0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, 0x16FE4})
_VARIATION_SELECTORS: Final = frozenset(
    {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
)


def printable(text: str) -> str:
    """Escape whatever could steer a terminal or hide text: controls, ANSI, bidi, zero-width.

    Everything that is neither printable ASCII nor an ordinary letter, digit, mark or
    punctuation becomes a backslash escape.
    """
    return "".join(c if c.isprintable() and not _hides(c) else _escape(c) for c in text)


def _hides(char: str) -> bool:
    point = ord(char)
    # str.isprintable already refuses categories Cc, Cf, Cs, Co, Cn, Zl, Zp and Zs but the space.
    # Hangul fillers, the braille blank, the grapheme joiner and variation selectors draw nothing, though
    # letters, symbols and marks.
    return point in _BLANK_LETTERS or point in _VARIATION_SELECTORS


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")

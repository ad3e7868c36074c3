"""Points in time and spans as the documents write them: RFC 3339 or `60s` in, milliseconds out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[-+][0-9]{2}:[0-9]{2})", re.ASCII
)
_SPAN: Final = re.compile(r"([1-9][0-9]{0,6})([smhd])", re.ASCII)
_UNITS: Final[Mapping[str, int]] = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MAX_SPAN: Final = 31 * _UNITS["d"]
"""The longest span, milliseconds: what was taken inside it is kept so long."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds(text: str) -> int:
    """UNIX milliseconds of an RFC 3339 section 5.6 date-time with its offset; parts of one are cut off.

    Raises:
        ValueError: another form, no offset, or a date that does not exist.
    """
    if not _RFC_3339.fullmatch(text):
        raise ValueError("not an RFC 3339 date-time with an offset, such as 2027-01-01T00:00:00Z")
    since = datetime.fromisoformat(text) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def span(text: str) -> int:
    """Milliseconds of a whole number of seconds, minutes, hours or days: `90s`, `15m`, `24h`, `31d`.

    Raises:
        ValueError: another form, or not between 1s and 31d.
    """
    found = _SPAN.fullmatch(text)
    if not found or (length := int(found[1]) * _UNITS[found[2]]) > MAX_SPAN:
        raise ValueError("not a time from 1s to 31d, such as 90s, 15m, 24h or 7d")
    return length

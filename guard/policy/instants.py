"""Points in time as the documents write them: RFC 3339 in, UNIX milliseconds out."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[-+][0-9]{2}:[0-9]{2})", re.ASCII
)
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

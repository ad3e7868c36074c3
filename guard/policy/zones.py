"""The rules of time zones, from the `tzdata` package and nowhere else: the same on every machine."""

from __future__ import annotations

from importlib import resources
from io import BytesIO
from typing import Final
from zoneinfo import ZoneInfo

_MAGIC: Final = b"TZif"
"""What every file of a time zone begins with (RFC 9636, section 3.1)."""


def zone(name: str) -> ZoneInfo:
    """An IANA time zone, read once.

    Raises:
        ValueError: there is none of that name.
    """
    parts = name.split("/")
    place = resources.files("tzdata.zoneinfo").joinpath(*parts)
    data = place.read_bytes() if all(part.strip(".") for part in parts) and place.is_file() else b""
    if not data.startswith(_MAGIC):
        raise ValueError(f"no time zone is called `{name}`, such as Europe/Berlin or UTC")
    return ZoneInfo.from_file(BytesIO(data), key=name)

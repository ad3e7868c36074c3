"""The rules of time zones, from the `tzdata` package and nowhere else: the same on every machine."""

from __future__ import annotations

from importlib import resources
from io import BytesIO
from zoneinfo import ZoneInfo


def zone(name: str) -> ZoneInfo:
    """An IANA time zone, read once.

    Raises:
        ValueError: there is none of that name.
    """
    parts = name.split("/")
    place = resources.files("tzdata.zoneinfo").joinpath(*parts)
    if not all(parts) or not place.is_file():
        raise ValueError(f"no time zone is called `{name}`, such as Europe/Berlin or UTC")
    return ZoneInfo.from_file(BytesIO(place.read_bytes()), key=name)

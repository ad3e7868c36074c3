"""What is made to hurt takes no more work than what is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from memories import page

from guard.policy.origins import shapes, values

LARGE = 1 << 20
HOSTILE = {
    "letters": "a" * LARGE,
    "ats": "@" * LARGE,
    "a@": "a@" * (LARGE // 2),
    "dots": "a." * (LARGE // 2),
    "digits": "1" * LARGE,
    "digits apart": "1 " * (LARGE // 2),
    "accounts": "ab12" * (LARGE // 4),
    "accounts apart": "ab12 " * (LARGE // 5),
    "spelled": "a " * (LARGE // 2),
    "spelled by hyphens": "a-" * (LARGE // 2),
    "slashes": "/" * LARGE,
    "schemes": "http://" * (LARGE // 7),
    "ipv6": "http://[::" * (LARGE // 10),
    "percent": "%25" * (LARGE // 3),
    "entities": "&amp;" * (LARGE // 5),
    "escapes": "\\u005c" * (LARGE // 6),
    "base64": "QUFB" * (LARGE // 4),
    "base64 apart": "QUFBQUFB " * (LARGE // 9),
    "hexadecimal": "61" * (LARGE // 2),
    "names": "Ab " * (LARGE // 3),
    "quotes": "'" * LARGE,
    "quoted": "'a' " * (LARGE // 4),
    "lines": "a1\n" * (LARGE // 3),
    "brackets": "[" * LARGE,
    "ids": "id 1 " * (LARGE // 5),
    "words": " ".join(f"w{number}" for number in range(LARGE // 8)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_megabyte_made_to_hurt_takes_bounded_work(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: values, characters that are looked at, and pieces."""
    counts = {"characters": 0, "keys": 0}
    cleaned, told = values.clean, shapes.shown

    def counted(text: str) -> str:
        counts["characters"] += len(text)
        return cleaned(text)

    def shaped(text: str) -> Iterator[shapes.Key]:
        for one in told(text):
            counts["keys"] += 1
            yield one

    monkeypatch.setattr(values, "clean", counted)
    monkeypatch.setattr(values, "shown", shaped)
    found = page(HOSTILE[kind])
    assert len(found) <= values.MOST + 1
    assert counts["characters"] <= values.LONGEST
    assert counts["keys"] <= 4 * values.LONGEST

r"""What a pattern may not say, because engines read it differently.

`\d` is ten digits for ECMA-262 and several hundred for Python; `\w`, `\s`, `\b` and their opposites
follow. `\p`, `\c` and `\a` are taken by some engines only. The official suite shows it
(optional/ecmascript-regex). A rule must mean one thing for its author, for an editor and for Guard.
"""

from __future__ import annotations

from typing import Final

DISPUTED: Final = frozenset("dDwWsSbBpPca")
REMEDY: Final = "write the characters out, as in `[0-9]` or `[A-Za-z0-9_]`"


def disputed(pattern: str) -> str:
    """The first escape in a pattern that engines read differently, "" when there is none."""
    escaped = False
    for char in pattern:
        if escaped and char in DISPUTED:
            return f"\\{char}"
        escaped = char == "\\" and not escaped
    return ""

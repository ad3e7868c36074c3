"""What a decision obliges this enforcement point to do. One that is not known here denies the call."""

from __future__ import annotations

import re
from typing import Final

from guard.core.errors import Reason
from guard.core.model import Allow
from guard.proxy.endings import Ending, Returned, Unknown

OBSERVED: Final = "observed"
"""Mark artifact and entry as observed."""
_RESULT: Final = re.compile(r"result-bytes:(0|[1-9][0-9]{0,9})", re.ASCII)


def is_known(obligation: str) -> bool:
    """Whether it can be met here."""
    return obligation == OBSERVED or _RESULT.fullmatch(obligation) is not None


def most_bytes(allow: Allow | None) -> int | None:
    """How large a result may be that the client is shown; None where that is not bounded."""
    if allow is None:
        return None
    found = [_RESULT.fullmatch(obligation) for obligation in allow.obligations]
    return min((int(size[1]) for size in found if size is not None), default=None)


def is_withheld(ending: Ending, allow: Allow | None) -> bool:
    """Whether a result is larger than the client may be shown."""
    most = most_bytes(allow)
    return most is not None and isinstance(ending, Returned) and len(ending.raw) > most


def shown(ending: Ending, allow: Allow | None) -> Ending:
    """What the client is told of an ending: nothing of a result that is too large."""
    return Unknown(Reason.RESULT_TOO_LARGE, executed=True) if is_withheld(ending, allow) else ending

"""Refusals at the door. Before anybody is identified they are answered more and more curtly; never entries.

Nobody unauthenticated may fill the record. A valid key is never held up by the wrong ones that came
from the same address.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Any, Final

from guard.core.errors import Reason
from guard.proxy import wire

MAX_ADDRESSES: Final = 4096
"""Addresses that are remembered; of more, the one that was quiet longest is forgotten."""
_SITE_BITS: Final = 64
_MINUTE: Final = 60.0


Headers = Sequence[tuple[str, str]]


class Turned(Exception):
    """A request that is turned away at the door, before any message of it is answered.

    Attributes:
        status: of the HTTP answer.
        message: what is wrong, one sentence.
        code: of the JSON-RPC error in the body.
        data: more for programs.
        id: of the JSON-RPC request, None where it is not known.
        headers: of the HTTP answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: int = wire.INVALID_REQUEST,
        data: Any = None,
        id_: wire.Id | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.data = data
        self.id = id_
        self.headers = headers


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Refusals:
    """A bucket of refusals for each address, filled up again over a minute.

    Args:
        per_minute: refusals that one address gets a full answer for in a minute.
        counts: what is counted, by what was refused.
    """

    def __init__(self, per_minute: int, counts: Counter[str]) -> None:
        self.per_minute = per_minute
        self._counts = counts
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def refuse(self, what: str, address: str, now: float) -> int:
        """Count one refusal.

        Args:
            what: what it is counted as.
            address: where it came from, as text.
            now: seconds of a clock that only goes forward.

        Returns: seconds to wait where the address has had its share, 0 where it has not.
        """
        self._counts[what] += 1
        key = _site(address)
        bucket = self._buckets.pop(key, None) or _Bucket(float(self.per_minute), now)
        rate = self.per_minute / _MINUTE
        bucket.left = min(float(self.per_minute), bucket.left + (now - bucket.at) * rate)
        bucket.at = now
        self._buckets[key] = bucket
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        if bucket.left < 1:
            self._counts["rate-limited"] += 1
            return max(1, ceil((1 - bucket.left) / rate))
        bucket.left -= 1
        return 0


def _site(address: str) -> str:
    """Of IPv6 the /64: whoever has one address there has all of them."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(int(found) >> (128 - _SITE_BITS))
    return str(found)


def unavailable() -> Turned:
    """Nobody can be asked who it is: no attempt of the client's, and worth another one."""
    data = {"reason": Reason.STORE_UNAVAILABLE, "retryable": True}
    text, headers = "the store cannot be asked now", [("retry-after", "1")]
    return Turned(503, text, code=wire.INTERNAL_ERROR, data=data, headers=headers)


def nothing_here() -> Turned:
    """There is nothing at that path, or nothing for that caller."""
    return Turned(404, "there is nothing here: the MCP endpoint is /mcp")


def challenge(reason: Reason, *, given: bool, wait: int) -> Turned:
    """RFC 6750 section 3: no error where no credential was given. Which one it was is not told."""
    data = {"reason": Reason.NO_CREDENTIAL if not given else reason}
    if wait:
        headers = [("retry-after", str(wait))]
        return Turned(429, "too many refusals", code=wire.NOT_AUTHENTICATED, data=data, headers=headers)
    headers = [("www-authenticate", bearer("invalid_token" if given else ""))]
    return Turned(401, "not authenticated", code=wire.NOT_AUTHENTICATED, data=data, headers=headers)


def bearer(error: str) -> str:
    """The challenge of a 401: what is asked for, and what was wrong with what came."""
    return 'Bearer realm="guard"' + (f', error="{error}"' if error else "")

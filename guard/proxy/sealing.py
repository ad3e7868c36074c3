"""What a server hands out to get back, sealed to whom it was handed out: `requestState`.

A server is told to treat the state of a multi round-trip request as the attacker's; few will. Sealed,
it comes back only from the principal that got it, for the server, method and params that it came from
(MCP 2026-07-28, Multi Round-Trip Requests, server requirements 4 and 5).
"""

from __future__ import annotations

import hmac

from guard.core.canonical import b64, canonical, unb64
from guard.core.errors import Reason, Refused
from guard.core.model import Call

_TAG_BYTES = 32


class Seal:
    """Seals and opens, in any process that has the secret.

    Args:
        secret: 32 bytes or more, never shown.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"guard-mcp request state", "sha256")

    def seal(self, state: str, call: Call) -> str:
        """The state as the client gets it: readable as before by nobody who could not read it before."""
        data = state.encode("utf-8", "surrogatepass")
        return b64(self._tag(data, call) + data)

    def open(self, sealed: str, call: Call) -> str:
        """The state as the server gave it.

        Raises:
            Refused: STATE_INVALID; it was not handed out for this call by this Guard.
        """
        try:
            found = unb64(sealed)
        except ValueError:
            found = b""
        tag, data = found[:_TAG_BYTES], found[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(data, call)):
            raise Refused(
                Reason.STATE_INVALID, "the requestState is not this call's", pointer="/requestState"
            )
        return data.decode("utf-8", "surrogatepass")

    def _tag(self, data: bytes, call: Call) -> bytes:
        asked = {name: call.params[name] for name in ("name", "uri", "arguments") if name in call.params}
        about = canonical([*call.principal.key, call.tool.server, call.method, asked])
        return hmac.digest(self._key, len(about).to_bytes(8, "big") + about + data, "sha256")

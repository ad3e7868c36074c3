"""What a server or Guard itself hands out to get back, sealed to whom it was handed out: `requestState`.

A server is told to treat the state of a multi round-trip request as the attacker's; few will. Sealed,
it comes back only from the principal that got it, for the server, method and params that it came from
(MCP 2026-07-28, Multi Round-Trip Requests, server requirements 4 and 5).

Guard's own state, where a person must approve, has a key of its own and a mark that no sealed state of a
server can have. It carries what the client had for the server, so that the two round trips nest.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from guard.core.canonical import NotIJson, NotJson, b64, canonical, read, unb64, write
from guard.core.errors import Reason, Refused
from guard.core.model import Call, Principal

_TAG_BYTES: Final = 32
_OWN: Final = "guard."
"""How Guard's own state begins: the dot is in no base64url."""


@dataclass(frozen=True, slots=True)
class Round:
    """Guard's own round trip: it asked, and this comes back with the answer.

    Attributes:
        question: id of the question.
        digest: what the question is about.
        until: UNIX milliseconds from which on it is void.
        members: `inputResponses` and `requestState` that the client had for the server, as they came.
    """

    question: str
    digest: str
    until: int
    members: Mapping[str, Any]


class Seal:
    """Seals and opens, in any process that has the secret.

    Args:
        secret: 32 bytes or more, never shown.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"guard-mcp request state", "sha256")
        self._own_key = hmac.digest(secret, b"guard-mcp approval state", "sha256")

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

    def is_own(self, state: Any) -> bool:
        """Whether this claims to be Guard's own state, and no server's."""
        return isinstance(state, str) and state.startswith(_OWN)

    def wrap(self, around: Round, principal: Principal, method: str, params: Mapping[str, Any]) -> str:
        """Guard's own state, for a request of this principal with these params as the client wrote them."""
        data = write(
            {
                "question": around.question,
                "digest": around.digest,
                "until": around.until,
                "members": dict(around.members),
            }
        )
        return _OWN + b64(self._own_tag(data, principal, method, params) + data)

    def unwrap(self, state: str, principal: Principal, method: str, params: Mapping[str, Any]) -> Round:
        """What Guard's own state says.

        Raises:
            Refused: STATE_INVALID; this Guard did not hand it out for this request of this principal.
        """
        try:
            found = unb64(state.removeprefix(_OWN))
            tag, data = found[:_TAG_BYTES], found[_TAG_BYTES:]
            if not hmac.compare_digest(tag, self._own_tag(data, principal, method, params)):
                raise ValueError("another tag")  # noqa: TRY301 - as what cannot be read
            about = read(data)
        except (ValueError, NotJson, NotIJson):
            raise Refused(
                Reason.STATE_INVALID, "the requestState is not this call's", pointer="/requestState"
            ) from None
        return Round(about["question"], about["digest"], about["until"], about["members"])

    def _own_tag(self, data: bytes, principal: Principal, method: str, params: Mapping[str, Any]) -> bytes:
        about = canonical([*principal.key, method, _asked(params)])
        return hmac.digest(self._own_key, len(about).to_bytes(8, "big") + about + data, "sha256")

    def _tag(self, data: bytes, call: Call) -> bytes:
        about = canonical([*call.principal.key, call.tool.server, call.method, _asked(call.params)])
        return hmac.digest(self._key, len(about).to_bytes(8, "big") + about + data, "sha256")


def _asked(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in ("name", "uri", "arguments") if name in params}

"""Guard's own round trip inside a request (2026-07-28): its state and the client's answer, in and out."""

from __future__ import annotations

from typing import Any, Final

from guard.core.errors import Reason, Refused
from guard.core.model import OWN_META_PREFIX, SUBJECTS, Principal
from guard.proxy import questions, wire
from guard.proxy.sealing import Round, Seal

NAME: Final = f"{OWN_META_PREFIX}approval"
"""Under which Guard asks, and is answered. No server's result may hold such a name."""
MEMBERS: Final = ("inputResponses", "requestState")
"""What a client adds where it answers."""


def around(seal: Seal, message: wire.Request, principal: Principal) -> Round | None:
    """Guard's own round trip that a request ends; None where it ends none.

    Raises:
        Refused: STATE_INVALID; a state that is not this request's, or an answer to Guard without one.
    """
    params = message.params
    if not ("requestState" in params or "inputResponses" in params):
        return None
    if message.method not in SUBJECTS or message.fault is not None:
        return None
    state = params.get("requestState")
    if not (isinstance(state, str) and seal.is_own(state)):
        if any(name.startswith(OWN_META_PREFIX) for name in params.get("inputResponses", ())):
            raise Refused(
                Reason.STATE_INVALID, "an answer to Guard without its state", pointer="/inputResponses"
            )
        return None
    return seal.unwrap(state, principal, message.method, params)


def answer_in(message: wire.Request) -> bool | None:
    """What the client says to Guard's question; None where it says nothing that is an answer."""
    return questions.said(message.params.get("inputResponses", {}).get(NAME))


def upstream(message: wire.Request, found: Round) -> dict[str, Any]:
    """The params as the client had them for the server: Guard's state and answer out, the wrapped ones in."""
    params = {name: value for name, value in message.params.items() if name not in MEMBERS}
    own = message.params.get("inputResponses", {})
    others = {name: value for name, value in own.items() if not name.startswith(OWN_META_PREFIX)}
    kept = found.members.get("inputResponses")
    if kept is not None or others:
        params["inputResponses"] = {**(kept or {}), **others}
    if "requestState" in found.members:
        params["requestState"] = found.members["requestState"]
    return params

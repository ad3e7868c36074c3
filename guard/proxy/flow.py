"""The life of a call, and nothing else. docs/life-of-a-call.md tells it in words.

The world is asked through one interface, so that a test can hand in a world that writes down
what it is asked and breaks at any step, before or after the step took effect.
"""

from __future__ import annotations

from typing import Final

from guard.artifact.verify import ArtifactRefused, Fault, VerifiedGrant
from guard.core.errors import Reason, Refused
from guard.core.model import Allow, Ask, Call, Deny
from guard.proxy.endings import Ending, Failed, Returned, Unknown
from guard.proxy.steps import APPROVED, World
from guard.proxy.wire import Malformed, Request

TRIES: Final = 3
"""How often a call is decided anew when the versions under its decision moved (step 6)."""
QUESTIONS: Final = 3
"""How often people may be asked about one call, one after the other."""


async def authorize(message: Request, world: World) -> bytes | None:
    """Steps 2 to 10: the one way of whatever reads or acts.

    Returns: the line for the client, None where it called the request off.

    Raises:
        Refused: the caller is not identified; nothing is recorded.
        Malformed: it is no call at all; nothing is recorded.
    """
    principal = world.identify(message)
    call: Call | None = None
    granted = False
    try:
        tries = questions = 0
        while tries < TRIES:
            call = await world.bind(message, principal)
            decision = world.decide(call)
            if isinstance(decision, Ask) and questions < QUESTIONS:
                answer = await world.ask(message, principal, call, decision)
                if answer is not APPROVED:
                    return answer
                principal = world.identify(message)  # a person takes time
                questions += 1
                continue
            if not isinstance(decision, Allow):
                deny = decision if isinstance(decision, Deny) else Deny(Reason.APPROVAL_REQUIRED)
                return await world.refuse(message, principal, call, deny)
            tries += 1
            grant = world.issue(call, decision)
            granted = True  # from here on an entry may stand, whatever `record` says
            stands = await world.record(call, decision, grant)
            granted = stands is True  # as nothing else permits
            if granted:
                break
            principal = world.identify(message)  # what moved may be a revocation
        else:
            moved = stands if isinstance(stands, Deny) else Deny(Reason.CONTENDED)
            return await world.refuse(message, principal, call, moved)
        verified = world.verify(grant, call)
        if type(verified) is not VerifiedGrant:
            raise Refused(Reason.ARTIFACT_MISSING)  # noqa: TRY301 - as any step that says no
    except Malformed:
        raise  # its own headers contradict it: it was no call
    except Exception as error:  # noqa: BLE001 - surprise denies
        reason, integrity = _why(error)
        if call is None or not granted:
            return await world.refuse(message, principal, call, reason)
        return await _finish(message, call, Failed(reason.reason, integrity=integrity), world)
    try:
        ending = await world.dispatch(verified, message, call)
    except Exception:  # noqa: BLE001 - it may have been sent, and nobody knows
        ending = Unknown(Reason.UNEXPECTED)
    return await _finish(message, call, ending, world)


async def _finish(message: Request, call: Call, ending: Ending, world: World) -> bytes | None:
    try:
        await world.end(call, ending)
    except Exception:  # noqa: BLE001 - what cannot be recorded is not shown
        if not isinstance(ending, Failed):
            ending = Unknown(Reason.STORE_UNAVAILABLE, executed=isinstance(ending, Returned))
    return world.reply(message, call, ending)


def _why(error: Exception) -> tuple[Deny, bool]:
    """What a step's failure is called, and whether integrity was hurt."""
    if isinstance(error, ArtifactRefused):
        tampered = error.fault in {Fault.TOOL, Fault.ARGUMENTS, Fault.DEFINITION}
        timely = error.fault not in {Fault.EXPIRED, Fault.NOT_YET_VALID}  # a clock hurts no integrity
        return Deny(Reason.INTEGRITY if tampered else Reason.ARTIFACT_INVALID), timely
    if isinstance(error, Refused):
        return Deny(error.reason, pointer=error.pointer), error.reason is Reason.ARTIFACT_MISSING
    return Deny(Reason.UNEXPECTED), False

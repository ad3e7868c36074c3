"""What a call asks of the world on its way: the steps as `flow` calls them, not how they are done."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, Protocol

from guard.artifact.grant import Grant
from guard.artifact.verify import VerifiedGrant
from guard.core.model import Allow, Ask, Call, Decision, Deny, Principal
from guard.proxy.endings import Ending
from guard.proxy.wire import Request


class Approved(Enum):
    """What `World.ask` says, and nothing else, where a person approved."""

    YES = "approved"


APPROVED: Final = Approved.YES


class World(Protocol):
    """Everything that a call asks for on its way. Any method may raise; a raise never permits."""

    def identify(self, message: Request) -> Principal: ...  # noqa: D102 - the steps, named in flow
    async def bind(self, message: Request, principal: Principal) -> Call: ...  # noqa: D102
    def decide(self, call: Call) -> Decision: ...  # noqa: D102
    async def ask(
        self, message: Request, principal: Principal, call: Call, ask: Ask
    ) -> Literal[Approved.YES] | bytes | None:
        """APPROVED once a person did: it is decided afresh. Else what the client is told, if anything."""
        ...

    def issue(self, call: Call, allow: Allow) -> Grant: ...  # noqa: D102
    async def record(self, call: Call, allow: Allow, grant: Grant) -> Literal[True] | Deny:
        """True if it stands; else something moved, and this is said if it keeps moving."""
        ...

    def verify(self, grant: Grant, call: Call) -> VerifiedGrant: ...  # noqa: D102
    async def dispatch(  # noqa: D102
        self, verified: VerifiedGrant, message: Request, call: Call
    ) -> Ending: ...
    async def end(self, call: Call, ending: Ending) -> None: ...  # noqa: D102
    def reply(self, message: Request, call: Call, ending: Ending) -> bytes | None: ...  # noqa: D102
    async def refuse(  # noqa: D102
        self, message: Request, principal: Principal, call: Call | None, deny: Deny
    ) -> bytes | None: ...

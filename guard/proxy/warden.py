"""Who looks after what outlives the moment in which it was authorized: streams, subscriptions, calls.

A grant is checked when it is given. What it began lasts: an answer that is still to come, a stream, a
subscription, a question that waits at a client, a server's process. Several times a second the warden asks
the store whether anything moved (`Store.versions`), whoever moved it: this process, another one on the
same file, another replica. If so, or where an end has come (a key's, a policy's), each of these is
authorized again, as its principal stands now; what may be no more is closed. A call pays nothing for it.

Where the store cannot be asked, nobody knows what was revoked: after a short while everything is closed.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from guard.core.errors import Reason, Refused, printable
from guard.core.model import Call, Conversation, Facts, Principal
from guard.identity.api_keys import ISSUER
from guard.policy.conditions import RUNTIME
from guard.policy.decide import visible

if TYPE_CHECKING:
    from guard.proxy.house import House
    from guard.proxy.links import Link

LOOK_SECONDS: Final = 0.25
"""How often the store is asked: what another process revoked is seen by then."""
GRACE_SECONDS: Final = 0.5
"""How long a newer policy may stand in the store before this Guard has it too: a reload reaches all workers
within that time, and nothing is closed that the new policy permits."""
BLIND_SECONDS: Final = 1.0
"""How long the store may not answer before everything is closed."""
NOBODY: Final = frozenset({Reason.NO_CREDENTIAL, Reason.INVALID_KEY, Reason.EXPIRED_KEY, Reason.REVOKED_KEY})
"""Why a credential is none: for good."""
PASSING: Final = frozenset({Reason.STORE_UNAVAILABLE, Reason.POLICY_SUPERSEDED, Reason.POLICY_EXPIRED})
"""What says nothing about the principal: its tool servers may be kept."""
_ANYWHERE: Final = Conversation("", "inferred")
_NOTHING: Final = ("", "")
_NONE: Final[frozenset[str]] = frozenset()


class Asking(Protocol):
    """The world of one client, as far as the warden asks it."""

    def identify(self) -> Principal:
        """Who it is now. Raises Refused."""
        ...

    @property
    def home(self) -> Conversation:
        """Where its calls belong that name no conversation."""
        ...


class Ward(Protocol):
    """One client's session, or one request that has none: what the warden looks after.

    Attributes:
        owner: the principal that it belongs to; None where that is whoever the launch says.
        barred: why nothing of it may go on, None where it may.
    """

    owner: tuple[str, str, str] | None
    barred: Reason | None

    @property
    def asking(self) -> Asking:
        """Its world."""
        ...

    def bar(self, reason: Reason) -> None:
        """End everything; with a reason of NOBODY, for good."""
        ...

    def free(self) -> None:
        """What barred it stands no longer."""
        ...

    def review(self, judge: Callable[[Call], Reason | None]) -> None:
        """End each call under way, and let go of each subscription, that may be no more."""
        ...


class Warden:
    """Looks after every ward of one Guard. It belongs to one event loop.

    Args:
        house: whose.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._new: set[Ward] = set()
        self._known: set[Ward] = set()
        self._seen: dict[str, Mapping[str, int]] = {}
        self._generation: object = None
        self._due = inf  # UNIX milliseconds
        self._again = False
        self._blind: float | None = None
        self._superseded: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    # -- who is looked after -----------------------------------------------------------------------

    def enter(self, ward: Ward) -> None:
        """Look after it from now on. It was authorized a moment ago."""
        self._new.add(ward)
        if self._timer is None:
            self._generation = self._house.generation
            self._later()

    def leave(self, ward: Ward) -> None:
        """It has ended."""
        self._new.discard(ward)
        self._known.discard(ward)

    def admit(self, asking: Asking) -> None:
        """Whether something that lasts may begin.

        Raises:
            Refused: it may not; the reason says why.
        """
        if self._blind is not None:
            self.moved()  # perhaps it says again what stands
        if self._blind is not None:
            raise Refused(Reason.STORE_UNAVAILABLE, "the store cannot be asked")
        if (reason := self._objection(asking.identify(), asking.home)) is not None:
            raise Refused(reason)

    def moved(self) -> None:
        """Something that authorizations rest on moved in this very process: look at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._again = True
            self._look()

    def close(self) -> None:
        """Look no more: everything has ended, or is about to."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- looking -----------------------------------------------------------------------------------

    def _later(self) -> None:
        if not self._closed:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Look once. Nothing is awaited: no byte passes between what is judged and what is closed."""
        try:
            if self._has_moved():
                self._review()
            else:
                self._meet()
            self._blind = None
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody knows what was revoked
            self._unseen(error)
        if self._new or self._known or any(one.links for one in self._house.generation.servers.values()):
            self._later()
        else:
            self._timer, self._blind, self._seen, self._due = None, None, {}, inf

    def _has_moved(self) -> bool:
        """Whether anything has, since the last time that all was well; or an end has come."""
        store = self._house.log.store
        if any(store.versions(tenant) != seen for tenant, seen in self._seen.items()):
            return True
        moved = self._again or self._blind is not None or self._generation is not self._house.generation
        return moved or self._house.clock() >= self._due or not self._tenants() <= self._seen.keys()

    def _tenants(self) -> set[str]:
        """Whose servers run."""
        servers = self._house.generation.servers.values()
        return {link.tenant for server in servers for link in server.links if link.users}

    def _review(self) -> None:
        """Authorize everything again. What is read is no older than the versions that are remembered."""
        store, self._again, self._due = self._house.log.store, False, inf
        try:
            self._seen = {tenant: store.versions(tenant) for tenant in {*self._seen, *self._tenants()}}
            self._generation = self._house.generation
            for ward in [*self._known, *self._new]:
                self._authorize(ward)
            for server in self._house.generation.servers.values():
                server.let_go(self._is_over)
        except BaseException:
            self._again = True
            raise
        self._known |= self._new
        self._new.clear()

    def _authorize(self, ward: Ward) -> None:
        """Authorize one ward again, and all that is under way in it."""
        self._settle(ward, *self._judged(ward))

    def _settle(self, ward: Ward, principal: Principal | None, reason: Reason | None) -> None:
        """Let it go on, or end it."""
        if reason is None and principal is not None:
            if ward.barred is not None:
                _surely(ward.free)
            judge = self._judge_of(principal)
            _surely(lambda: ward.review(judge))
        elif reason is not None and reason is not ward.barred:
            _surely(lambda: ward.bar(reason))

    def _meet(self) -> None:
        """Take in who came since the last look.

        Where the versions were known by then, and have not moved, what they began was authorized as things
        stand: a list that a contained caller asks for is answered.
        """
        known = {*self._seen}
        for ward in [*self._new]:
            principal, reason = self._judged(ward)
            if principal is None or principal.tenant not in known:
                self._settle(ward, principal, reason)
            else:
                ward.barred = reason
            if ward in self._new:
                self._new.discard(ward)
                self._known.add(ward)

    def _unseen(self, error: Exception) -> None:
        """The store did not answer: wait a little, then close everything."""
        now = asyncio.get_running_loop().time()
        if self._blind is None:
            self._blind = now
            print(f"guard: what stands cannot be read: {printable(str(error))}", file=sys.stderr)  # noqa: T201
        elif now - self._blind >= BLIND_SECONDS:
            for ward in [*self._known, *self._new]:
                if ward.barred is None:
                    _surely(lambda ward=ward: ward.bar(Reason.STORE_UNAVAILABLE))  # type: ignore[misc]

    # -- judging: any of these may raise whatever the store raises ---------------------------------

    def _judged(self, ward: Ward) -> tuple[Principal | None, Reason | None]:
        """Who it is now, None for nobody; and why nothing of it may go on, None where it may."""
        try:
            principal = ward.asking.identify()
            if principal.tenant not in self._seen:
                self._seen[principal.tenant] = self._house.log.store.versions(principal.tenant)
                principal = ward.asking.identify()  # what moved before the versions were read is seen here
        except Refused as refusal:
            if refusal.reason not in NOBODY:
                raise
            return None, refusal.reason
        if ward.owner is not None and principal.key != ward.owner:
            return None, Reason.INVALID_KEY  # the same credential means somebody else by now
        self._note_end(principal)
        return principal, self._objection(principal, ward.asking.home)

    def _judge_of(self, principal: Principal) -> Callable[[Call], Reason | None]:
        """What judges the calls of a principal that were granted.

        They were decided by the policy that held then, and keep that; what they are about must still be in
        sight, with every scope that it needs.
        """
        policy = self._house.generation.policy

        def judge(call: Call) -> Reason | None:
            tool = call.tool
            if call.principal.key != principal.key:
                return Reason.INVALID_KEY
            if (
                reason := self._objection(principal, call.conversation, (tool.server, tool.name))
            ) is not None:
                return reason
            if not visible(principal, tool.server, tool.name, frozenset(), policy, kind=tool.kind):
                return Reason.TOOL_NOT_VISIBLE
            for layer in policy.layers:
                held = layer.held(principal)
                if held is None or not held.covers(layer.needs(tool)):
                    return Reason.MISSING_SCOPE
            return None

        return judge

    def _objection(
        self, principal: Principal, conversation: Conversation, tool: tuple[str, str] = _NOTHING
    ) -> Reason | None:
        """Why a principal may have nothing there now, None where it may.

        As in step 4, but for what only a new call needs: a log that can be written, a signing key, a clock.
        """
        policy = self._house.generation.policy
        own_only = policy.may_assert_conversations(principal.role)
        snapshot = self._house.log.store.snapshot(principal, conversation, tool, own_only=own_only)
        facts = Facts(now=self._house.clock(), contained=snapshot.contained, versions=snapshot.versions)
        found = [reason for layer in policy.layers for reason, stands in RUNTIME if stands(facts, layer)]
        if Reason.POLICY_SUPERSEDED not in found:
            self._superseded.pop(principal.tenant, None)
        elif self._is_young(principal.tenant):
            found.remove(Reason.POLICY_SUPERSEDED)
        if found:
            return found[0]
        if not policy.role_exists(principal.role):
            return Reason.UNAUTHORIZED_ROLE
        return Reason.TOOL_CONTAINED if "tool" in snapshot.contained else None

    def _is_young(self, tenant: str) -> bool:
        """Whether the newer policy came so lately that this Guard may be about to have it, too."""
        now = asyncio.get_running_loop().time()
        since = self._superseded.setdefault(tenant, now)
        young = not self._house.steady or now - since < GRACE_SECONDS
        self._again |= young
        return young

    def _note_end(self, principal: Principal) -> None:
        """When to look again though nothing moves: where a key or the policy ends."""
        policy, now = self._house.generation.policy, self._house.clock()
        ends = [
            end
            for one in policy.layers
            for end in (one.expires, one.observe_until if one.observing else None)
        ]
        if principal.issuer == ISSUER:
            record = self._house.log.store.api_key(principal.credential)
            ends.append(record.expires * 1000 if record is not None and record.expires else None)
        self._due = min([self._due, *(end for end in ends if end is not None and end > now)])

    def _is_over(self, link: Link) -> bool:
        """Whether nobody who used a link may use it any more; and nobody is being served on it."""
        if link.asker is not None or not link.users:
            return False
        link.users = {key: user for key, user in link.users.items() if self._stands(user)} or link.users
        over = not any(map(self._stands, link.users.values()))
        self._again |= over and not link.idle  # what was under way on it is about to end
        return over and link.idle

    def _stands(self, user: Principal) -> bool:
        """Whether a principal may have servers of its own, by the credential that it used."""
        if user.issuer == ISSUER:
            record = self._house.log.store.api_key(user.credential)
            if record is None or record.revoked_at is not None:
                return False
            if record.expires is not None and self._house.clock() >= record.expires * 1000:
                return False
            self._note_end(user)
        reason = self._objection(user, _ANYWHERE)
        return reason is None or reason in PASSING


def _surely(act: Callable[[], object]) -> None:
    """Whatever breaks in one session must not keep another one open."""
    try:
        act()
    except Exception:  # noqa: BLE001
        traceback.print_exc(file=sys.stderr)

"""What happens when a decision asks: a person approves this very call, or it does not run.

A question is recorded before anybody is asked. Where the rules take the word of the requester's own client
and that client can be asked, it is: in 2026-07-28 by an answer that asks for input, in the handshake era by
`elicitation/create`. Else the call is parked for a while, for a reviewer to answer; after that it is denied,
and the same call made again finds the answer. Nothing here permits: after a yes the call is bound and
decided afresh, and finds the approval among its facts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary, WeakValueDictionary

from guard.core.canonical import write
from guard.core.errors import Reason, Refused
from guard.core.model import DECISION_META, Ask, Call, Deny, Principal, args_sha256
from guard.lineage.entry import Kind
from guard.lineage.log import entry
from guard.lineage.store import Place, QuestionRow, Recorded, SaveQuestion, Transaction
from guard.proxy import approvals, eras, questions, rounds, wire
from guard.proxy.asker import Asker
from guard.proxy.callbacks import ANSWER_SECONDS, Asked
from guard.proxy.house import House
from guard.proxy.listing import served_by
from guard.proxy.sealing import Round
from guard.proxy.steps import APPROVED, Approved

LOOK_SECONDS: Final = 0.25
"""How often a parked call looks whether somebody answered, in whichever replica."""
MANY: Final = 32
"""Of so many parked calls each looks that often; more look more seldom: each look asks the store."""
MAX_OPEN: Final = 64
"""Questions that one principal may have open; more are refused, so that no reviewer is flooded."""
_ELICIT: Final = "elicitation/create"
_MODES_SINCE: Final = "2025-11-25"
_locks: WeakKeyDictionary[House, WeakValueDictionary[tuple[str, ...], asyncio.Lock]] = WeakKeyDictionary()
_parked: Counter[int] = Counter()
"""How many calls are parked, by the house that they are parked in."""


class Client(Protocol):
    """The world of one client, as far as asking needs it."""

    asker: Asker | None

    async def refuse(
        self,
        message: wire.Request,
        principal: Principal,
        call: Call | None,
        deny: Deny,
        *,
        hint: str = "",
        more: Mapping[str, Any] | None = None,
    ) -> bytes | None:
        """Record the attempt and say no."""
        ...


@dataclass(frozen=True, slots=True)
class _Wait:
    """One call that waits.

    Attributes:
        message: as it came.
        principal: who wants it.
        call: as it was bound.
        ask: what the policy asks.
        digest: what it is about.
    """

    message: wire.Request
    principal: Principal
    call: Call
    ask: Ask
    digest: str


class Asking:
    """Asks for the calls of one client.

    Args:
        house: what all clients share.
        client: its world.
    """

    def __init__(self, house: House, client: Client) -> None:
        self._house = house
        self._client = client

    # -- Guard's own round trip ------------------------------------------------------------------

    async def returned(self, message: wire.Request, principal: Principal) -> wire.Request:
        """A request without Guard's own round trip in it: the client's answer is recorded, once.

        Returns: the very request, where there is nothing of Guard's in it.

        Raises:
            Refused: STATE_INVALID; a state that is not this request's, is used up or void, or an answer to
                Guard without one.
        """
        around = rounds.around(self._house.seal, message, principal)
        if around is None:
            return message
        row = self._house.log.store.question(principal.tenant, around.question)
        now = self._house.clock()
        if (
            row is None
            or row.state == "used"
            or now >= around.until
            or (row.question.issuer, row.question.subject) != principal.key[1:]
            or (row.question.digest, row.question.approver) != (around.digest, questions.CLIENT)
        ):
            raise Refused(
                Reason.STATE_INVALID, "the requestState was used, or is void", pointer="/requestState"
            )
        answer = rounds.answer_in(message)
        if row.state == "open" and answer is not None:
            await self._record(row, principal, yes=answer)
        return replace(message, params=rounds.upstream(message, around))

    async def _record(self, row: QuestionRow, principal: Principal, *, yes: bool) -> None:
        """Record what the requester's own client said. Whoever was quicker counts."""
        now = self._house.clock()
        made = approvals.recorded(row, principal, yes=yes, word=questions.CLIENT, now=now)
        await self._house.log.commit(made)

    # -- asking ----------------------------------------------------------------------------------

    async def ask(
        self, message: wire.Request, principal: Principal, call: Call, ask: Ask
    ) -> Approved | bytes | None:
        """Have a person asked.

        Returns: APPROVED where the call may be bound and decided afresh; else the line for the client, None
            where it called the request off.

        Raises:
            Refused: it may not go on, or nobody can be asked.
        """
        wait = _Wait(message, principal, call, ask, questions.digest_of(call))
        row = await self._question(wait)
        if (said := self._said(row, wait)) is not None:
            return APPROVED if said else await self._refused(wait, row)
        if ask.approver != questions.CLIENT:
            return await self._park(wait, row)
        if message.flight.rounds and questions.can_fill_in(message.meta.get(eras.CLIENT_CAPABILITIES)):
            return await self._ask_for_input(wait, row)
        asker = self._client.asker
        if asker is not None and not message.modern and questions.can_fill_in(asker.capabilities):
            return await self._elicit(wait, row, asker)
        return await self._park(wait, row)

    def _said(self, row: QuestionRow, wait: _Wait) -> bool | None:
        """What a person said to this very call; None where nobody has said yes to all that asks, or no."""
        if row.state != "granted":
            return False if row.state == "denied" else None
        store, policy, now = self._house.log.store, self._house.generation.policy, self._house.clock()
        whole = questions.is_on(row.question, wait.ask)
        return True if whole and questions.standing(store, policy, wait.call, now) is not None else None

    def _stands(self, wait: _Wait) -> QuestionRow | None:
        """The newest question on this very call."""
        who, store = wait.call.principal, self._house.log.store
        return store.approval(who.tenant, who.issuer, who.subject, wait.digest, self._house.clock())

    async def _question(self, wait: _Wait) -> QuestionRow:
        """The question of a call: one that stands, else a new one, recorded."""
        locks = _locks.setdefault(self._house, WeakValueDictionary())
        lock = locks.setdefault(wait.call.principal.key, asyncio.Lock())
        async with lock:  # of many calls alike one asks, and all are counted; other replicas find the newest
            row = self._stands(wait)
            if row is not None and (
                (row.state == "open" and questions.is_on(row.question, wait.ask))
                or self._said(row, wait) is not None
            ):
                return row
            await self._save(wait.call, wait.ask)
            row = self._stands(wait)
        if row is None:
            raise Refused(Reason.STORE_UNAVAILABLE, "the question is not there")
        return row

    async def _save(self, call: Call, ask: Ask) -> None:
        """Record a question. Raises Refused."""
        now, who = self._house.clock(), call.principal
        store = self._house.log.store
        if store.open_questions(who.tenant, who.issuer, who.subject, now) >= MAX_OPEN:
            raise Refused(Reason.OVERLOADED, "too many calls of this caller wait for an answer")
        asked = questions.question(call, ask, now + ask.window)
        outcome = await self._house.log.commit(_asked(call, ask, asked, now))
        if not isinstance(outcome, Recorded):
            raise Refused(Reason.CONTENDED, "the question could not be recorded")

    async def _refused(self, wait: _Wait, row: QuestionRow) -> bytes | None:
        """A person said no."""
        asked = row.question
        until = questions.told_time(asked.until)
        return await self._client.refuse(
            wait.message,
            wait.principal,
            wait.call,
            Deny(Reason.APPROVAL_REFUSED, asked.rules[0], _pointer(wait.ask)),
            hint=f"A person refused exactly this call (question {asked.id}). That holds until {until}.",
            more={"question": asked.id, "rules": list(asked.rules), "until": until},
        )

    async def _unanswered(self, wait: _Wait, row: QuestionRow) -> bytes | None:
        """Nobody has answered yet."""
        asked = row.question
        until = questions.told_time(asked.until)
        return await self._client.refuse(
            wait.message,
            wait.principal,
            wait.call,
            Deny(Reason.APPROVAL_REQUIRED, asked.rules[0], _pointer(wait.ask)),
            hint=f"A person must approve exactly this call: question {asked.id}, which a reviewer answers "
            f"(`guard approvals`). Then make the same call again, before {until}.",
            more={"question": asked.id, "rules": list(asked.rules), "until": until},
        )

    # -- 2026-07-28: an answer that asks for input ---------------------------------------------------

    async def _ask_for_input(self, wait: _Wait, row: QuestionRow) -> bytes | None:
        """The client's next request has the answer in it."""
        message, principal = wait.message, wait.principal
        around = rounds.around(self._house.seal, message, principal)
        if around is not None and around.question == row.question.id:
            return await self._unanswered(wait, row)  # it came back without an answer
        params = message.params if around is None else rounds.upstream(message, around)
        members = {name: params[name] for name in rounds.MEMBERS if name in params}
        asked = row.question
        state = self._house.seal.wrap(
            Round(asked.id, asked.digest, asked.until, members), principal, message.method, params
        )
        form = questions.elicitation(asked, wait.call, wait.ask)
        about = {"decision": "ask", "question": asked.id, "until": questions.told_time(asked.until)}
        value = {
            "resultType": "input_required",
            "inputRequests": {rounds.NAME: {"method": _ELICIT, "params": form}},
            "requestState": state,
            "_meta": {eras.SERVER_INFO: served_by(self._house), DECISION_META: about},
        }
        self._house.decisions[Reason.APPROVAL_REQUIRED] += 1
        return None if message.flight.cancelled else wire.result(message.id, value)

    # -- the handshake era: a request to the client --------------------------------------------------

    async def _elicit(self, wait: _Wait, row: QuestionRow, asker: Asker) -> Approved | bytes | None:
        """The client is asked, and the call waits for what it says."""
        heard: asyncio.Future[tuple[Any, bool]] = asyncio.get_running_loop().create_future()

        def answer(value: Any, is_error: bool, /) -> None:  # noqa: FBT001 - as JSON-RPC has it
            if not heard.done():
                heard.set_result((value, is_error))

        params = questions.elicitation(row.question, wait.call, wait.ask, mode=asker.version >= _MODES_SINCE)
        question = Asked(answer)
        asker.asked(_ELICIT, write(params), question, lambda *_: None, wait.message.flight)
        try:
            return await self._park(wait, row, heard)
        finally:
            if not heard.done() and question.call_off is not None:
                question.call_off({})

    # -- parking -------------------------------------------------------------------------------------

    async def _park(
        self, wait: _Wait, row: QuestionRow, heard: asyncio.Future[tuple[Any, bool]] | None = None
    ) -> Approved | bytes | None:
        """Wait for an answer: the client's own if it was asked, or a reviewer's, given to any replica."""
        loop, flight = asyncio.get_running_loop(), wait.message.flight
        end = loop.time() + (self._house.generation.park if heard is None else ANSWER_SECONDS)
        flight.call = wait.call  # the warden judges it as a call that is under way
        house = id(self._house)
        _parked[house] += 1
        try:
            while True:
                if flight.barred is not None or flight.cancelled:
                    raise Refused(flight.barred or Reason.CANCELLED)
                stands = self._stands(wait)
                if stands is None:  # its time is over
                    return await self._unanswered(wait, row)
                row = stands
                if (said := self._said(row, wait)) is not None:
                    return APPROVED if said else await self._refused(wait, row)
                if heard is not None and heard.done():
                    value, is_error = heard.result()
                    answer = None if is_error else questions.said(value)
                    if answer is not None and row.state == "open":
                        await self._record(row, wait.principal, yes=answer)
                        continue
                    if not is_error:  # dismissed
                        return await self._unanswered(wait, row)
                    heard, end = None, loop.time() + self._house.generation.park  # it cannot be asked
                left = end - loop.time()
                if left <= 0:
                    return await self._unanswered(wait, row)
                pause = LOOK_SECONDS * max(1, _parked[house] // MANY)
                await self._look_again(wait, min(left, pause), heard)
        finally:
            flight.call = None
            _parked[house] -= 1
            if not _parked[house]:
                del _parked[house]

    async def _look_again(
        self, wait: _Wait, seconds: float, heard: asyncio.Future[tuple[Any, bool]] | None
    ) -> None:
        """Wait a little. Raises Refused: the call is authorized no longer."""
        flight = wait.message.flight
        flight.parked = asyncio.current_task()
        try:
            if heard is None:
                await asyncio.sleep(seconds)
            else:
                await asyncio.wait({heard}, timeout=seconds)
        except asyncio.CancelledError:
            if not flight.was_barred():
                raise
            raise Refused(flight.barred or Reason.CANCELLED) from None
        finally:
            flight.parked = None


def _pointer(ask: Ask) -> str:
    return ask.pointers[0] if ask.pointers else ""


def _asked(call: Call, ask: Ask, asked: SaveQuestion, now: int) -> Transaction:
    """The entry of a question, with its effect. `now` is UNIX milliseconds."""
    who = call.principal
    fields = {
        "tenant": who.tenant,
        "principal": [who.issuer, who.subject],
        "role": who.role,
        "credential": who.credential,
        "conversation": {"id": call.conversation.id, "source": call.conversation.source},
        "server": call.tool.server,
        "tool": call.tool.name,
        "method": None if call.method == wire.CALL else call.method,
        "arguments": call.arguments,
        "args_sha256": args_sha256(call.params, call.method),
        "decision": {"rules": ask.rules, "approver": ask.approver, "pointers": ask.pointers},
        "question": asked.id,
        "digest": asked.digest,
        "until": asked.until,
    }
    place = Place(who.tenant, who, call.conversation)
    return Transaction(place, entry(Kind.ASKED, call.id, fields), now, effects=(asked,))

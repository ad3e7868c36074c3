"""`/approvals`: where reviewers see over HTTP what waits for them, and answer it.

The same rules as `guard approvals`, in `guard/proxy/approvals.py`. Whoever is no reviewer finds nothing here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import orjson

from guard.core.canonical import NotIJson, NotJson, read
from guard.core.errors import Reason, Refused
from guard.core.model import Principal
from guard.lineage.store import Moved, Recorded
from guard.proxy import approvals, wire
from guard.proxy.approvals import Unanswerable
from guard.proxy.exchange import JSON, Exchange
from guard.proxy.house import House
from guard.proxy.refusals import Turned, nothing_here, unavailable

PATH: Final = "/approvals"
_FRESH: Final = [("cache-control", "no-store")]
_READS: Final = frozenset({"GET", "HEAD"})

Body = Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]
"""Reads the request's body within bounds, and uses it."""


def is_meant(path: str) -> bool:
    """Whether a path is one of these."""
    return path == PATH or path.startswith(f"{PATH}/")


async def review(house: House, exchange: Exchange, identify: Callable[[], Principal], body: Body) -> None:
    """Answer a reviewer's request. Raises Turned."""
    reviewer = _reviewer(house, identify)
    id_ = exchange.path.removeprefix(PATH).removeprefix("/")
    if exchange.method in _READS and not id_:
        rows = approvals.open_to(house.log.store, reviewer, house.clock())
        _show(exchange, {"questions": [approvals.shown(row) for row in rows]})
    elif exchange.method in _READS:
        row = house.log.store.question(reviewer.tenant, id_)
        if row is None or row.question.subject == reviewer.subject:
            raise Turned(404, "there is no such question")
        _show(exchange, approvals.shown(row))
    elif exchange.method == "POST" and id_:

        async def use(data: bytes) -> None:
            yes = _said(data)
            _reviewer(house, identify)  # a body takes time
            await _answer(house, exchange, identify, id_, yes=yes)

        await body(use)
    else:
        allow = [("allow", "GET, HEAD, POST" if id_ else "GET, HEAD")]
        raise Turned(405, "a question is read with GET and answered with POST", headers=allow)


def _show(exchange: Exchange, value: object) -> None:
    exchange.respond(200, orjson.dumps(value), JSON, _FRESH)


def _reviewer(house: House, identify: Callable[[], Principal]) -> Principal:
    """Who reviews. Raises Turned: to anybody else there is nothing here."""
    try:
        who = identify()
        reason = approvals.objection(house.log.store, house.generation.policy, who, house.clock())
    except Refused as refusal:
        if refusal.reason is Reason.STORE_UNAVAILABLE:
            raise unavailable() from None
        raise Turned(401, "not authenticated", code=wire.NOT_AUTHENTICATED) from None
    if not house.generation.policy.may_approve(who.role) or reason is Reason.NO_CREDENTIAL:
        raise nothing_here()
    if reason is not None:
        raise Turned(403, "this is not permitted now", code=wire.DENIED, data={"reason": reason})
    return who


def _said(data: bytes) -> bool:
    """A body is {"approve": true} or {"approve": false}, and nothing else. Raises Turned."""
    try:
        value = read(data)
    except (NotJson, NotIJson):
        value = None
    if not isinstance(value, dict) or value.keys() != {"approve"} or not isinstance(value["approve"], bool):
        raise Turned(400, 'the body is not {"approve": true} or {"approve": false}')
    return value["approve"]


async def _answer(
    house: House, exchange: Exchange, identify: Callable[[], Principal], id_: str, *, yes: bool
) -> None:
    store, policy = house.log.store, house.generation.policy
    try:
        made = approvals.answer(store, policy, identify, id_, yes=yes, now=house.clock())
        outcome = await house.log.commit(made)
    except Unanswerable as why:
        raise Turned(409 if why.known else 404, why.what) from None
    except Refused:
        raise unavailable() from None
    if isinstance(outcome, Moved):
        raise Turned(409, "who may approve has just changed: ask again")
    if not isinstance(outcome, Recorded):
        raise Turned(409, "it is answered already, or its time is over")
    _show(exchange, {"id": id_, "state": "granted" if yes else "denied"})

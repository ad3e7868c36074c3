"""Several workers behind one address: a request of a session goes to the worker that holds the session.

A request of 2026-07-28 stands alone, and whichever worker got it answers it. A handshake-era session
lives in one worker. Its id ends in that worker's number, which is no secret, and a request of it that
reached another worker is handed on over a Unix domain socket. It opens nothing: the owner checks all of
it again, and for whoever did not begin the session it does not exist.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from guard.core.canonical import b64, canonical
from guard.core.model import Conversation, Principal
from guard.proxy import wire
from guard.proxy.connection import Connection
from guard.proxy.exchange import JSON, Exchange
from guard.proxy.http import PATH, SESSION, Front
from guard.proxy.lines import MAX_MESSAGE
from guard.proxy.listener import BACKLOG, Listener, doors
from guard.proxy.peer import Bounds, Peer, Shared
from guard.proxy.refusals import Turned
from guard.proxy.response import Broken, Response
from guard.proxy.sessions import Sessions
from guard.proxy.sse import CONTENT_TYPE

FROM: Final = "guard-relayed-from"
"""Tells the owner of a session where the client is. Whatever a client says in it is dropped."""
CONNECT_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 3.0
MAX_HEAD: Final = 64 * 1024
MAX_ANSWER: Final = 2 * MAX_MESSAGE
_OF_A_WORKER: Final = re.compile(r"[A-Za-z0-9_-]{22}\.([0-9]{1,4})")
_FRAMING: Final = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Header fields of one connection only (RFC 9110 section 7.6.1), and of one message's framing."""
_ANSWERED: Final = ("accept-encoding", "allow", "cache-control", "retry-after", "www-authenticate", SESSION)
_END_OF_EVENT: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Post:
    """One worker's place among the others.

    Attributes:
        number: its own, from 0.
        count: how many there are.
        folder: where each has its socket; nobody else may enter it.
        secret: 32 bytes that all of them have in common, made at the start.
    """

    number: int
    count: int
    folder: Path
    secret: bytes = field(repr=False)

    def socket(self, number: int) -> Path:
        """Where a worker takes what is handed on to it."""
        return self.folder / f"{number}.sock"

    def owner(self, session: str) -> int | None:
        """The other worker that a session's id names; None for none."""
        found = _OF_A_WORKER.fullmatch(session)
        number = self.number if found is None else int(found[1])
        return number if number != self.number and number < self.count else None


class WorkerSessions(Sessions):
    """The sessions of one worker; and conversations without an id, which all workers have in common.

    What a conversation did must count wherever its next call lands. So a principal's calls without an id
    are one conversation for as long as Guard runs: no worker knows how long all of them were quiet.

    Args:
        most: as `Sessions`, of this worker.
        idle_seconds: as `Sessions`.
        post: the worker's place.
    """

    def __init__(self, most: int, idle_seconds: float, post: Post) -> None:
        super().__init__(most, idle_seconds)
        self.suffix = f".{post.number}"
        self._secret = post.secret

    def inferred(self, principal: Principal) -> Conversation:
        """The conversation of a principal's calls that name none."""
        mark = hmac.digest(self._secret, canonical([*principal.key]), sha256)
        return Conversation(b64(mark[:16]), "inferred")


class Relay:
    """The application of one worker among several.

    Args:
        front: answers what is this worker's own.
        post: the worker's place.
    """

    def __init__(self, front: Front, post: Post) -> None:
        self._front = front
        self._post = post
        self._idle: dict[int, deque[Connection]] = {}

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request of a client."""
        owner = self._post.owner(exchange.fields.get(SESSION, ""))
        if owner is None or exchange.path != PATH or exchange.method not in {"POST", "GET", "DELETE"}:
            await self._front(exchange)
            return
        try:
            exchange.check_fields()
            await self._admit(exchange, owner)
        except Turned as turned:
            exchange.turn_away(turned)

    async def handed_on(self, exchange: Exchange) -> None:
        """Answer one request that another worker handed on."""
        exchange.client = exchange.fields.get(FROM, "")
        await self._front(exchange)

    async def _admit(self, exchange: Exchange, owner: int) -> None:
        """Whoever is not known has no byte of a body read here either."""
        front = self._front
        front.check_place(exchange.fields)
        caller = front.identify(exchange)
        if exchange.method == "POST":
            await front.body(exchange, caller, lambda body: self._hand_on(exchange, owner, body))
        else:
            await self._hand_on(exchange, owner, b"")

    async def _hand_on(self, exchange: Exchange, owner: int, body: bytes) -> None:
        connection = await self._connection(owner)
        exchange.watch(None, lambda: connection.fail("the client left"))
        try:
            response = await connection.exchange(_message(exchange, body), head_only=False)
        except Broken:
            raise _lost() from None
        try:
            await _answer(exchange, response)
        except Broken:
            raise _lost() from None
        finally:
            response.close()

    # -- connections to the other workers ----------------------------------------------------------

    async def _connection(self, owner: int) -> Connection:
        """A connection to a worker. Raises Turned: it is not there."""
        loop = asyncio.get_running_loop()
        idle = self._idle.setdefault(owner, deque())
        while idle:
            found = idle.pop()
            if found.reusable(loop.time() - IDLE_SECONDS):
                return found
            found.abort()

        def freed(connection: Connection) -> None:
            if not connection.closed:
                idle.append(connection)

        made = _Connection(max_head=MAX_HEAD, on_free=freed, on_lost=lambda _: None)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.create_unix_connection(lambda: made, str(self._post.socket(owner)))
        except (OSError, TimeoutError):
            made.abort()
            message = "the worker that held this session is not there: begin with `initialize`"
            raise Turned(503, message, headers=[("retry-after", "1")]) from None
        return made

    def close(self) -> None:
        """Let go of every connection."""
        for idle in self._idle.values():
            while idle:
                idle.pop().abort()


class _Connection(Connection):
    """A connection whose transport may be any loop's."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = self._transport = transport  # type: ignore[assignment]
        self._readable.register(transport.get_extra_info("socket").fileno())


def _message(exchange: Exchange, body: bytes) -> bytes:
    """The request as it came, in a framing of its own."""
    fields: Mapping[str, str] = exchange.fields
    lines = [f"{exchange.method} {PATH} HTTP/1.1\r\n"]
    lines += [f"{name}: {fields[name]}\r\n" for name in fields if name not in _FRAMING and name != FROM]
    lines.append(f"{FROM}: {exchange.client}\r\n")
    lines.append(f"content-length: {len(body)}\r\n\r\n" if exchange.method == "POST" else "\r\n")
    return "".join(lines).encode("latin-1") + body


async def _answer(exchange: Exchange, response: Response) -> None:
    """Hand the answer back as it comes. Raises Broken."""
    kind = response.headers.get("content-type", "")
    if kind != CONTENT_TYPE:
        body = await response.read(MAX_ANSWER)
        more = [(name, response.headers[name]) for name in _ANSWERED if name in response.headers]
        exchange.respond(response.status, body, JSON if kind == JSON else kind, more)
        return
    held = bytearray()
    exchange.send(b"")
    async for piece in response:
        held += piece
        # Whole events only: one may be left out for a reader that is too slow, half of one may not.
        end = held.rfind(_END_OF_EVENT)
        if end >= 0:
            end += len(_END_OF_EVENT)
            exchange.send(bytes(held[:end]))
            del held[:end]
    exchange.end(bytes(held))


def _lost() -> Turned:
    message = "the worker that holds this session ended: what became of the request is not known"
    return Turned(502, message, code=wire.LOST)


async def take_over(relay: Relay, path: Path, bounds: Bounds) -> Listener:
    """Take what the other workers hand on. Raises OSError."""
    loop = asyncio.get_running_loop()
    shared = Shared(relay.handed_on, bounds, loop)
    path.unlink(missing_ok=True)  # of a worker that is dead: nobody else has this number  # noqa: ASYNC240
    first = await loop.create_unix_server(lambda: Peer(shared), str(path), backlog=BACKLOG)
    return Listener(
        await doors(
            first, lambda sock: loop.create_unix_server(lambda: Peer(shared), sock=sock, backlog=BACKLOG)
        ),
        shared,
    )

"""Steps 2 and 3 of one client's calls: who asks, what exactly would be sent, and the facts around it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from guard.artifact.verify import ArtifactRefused
from guard.core.canonical import b64, sha256
from guard.core.errors import Reason, Refused
from guard.core.model import (
    CONVERSATION_META,
    SUBJECTS,
    Call,
    Conversation,
    Facts,
    Parent,
    Pin,
    Principal,
    Tool,
    subject,
)
from guard.lineage.store import (
    Place,
    Recorded,
    Transaction,
)
from guard.policy.decide import visible
from guard.policy.origins.values import Glimpses
from guard.policy.origins.values import spoken as spoken_of
from guard.proxy import facts, wire
from guard.proxy.asker import Asker
from guard.proxy.asking import Asking
from guard.proxy.bound import (
    Bound,
    Trail,
    check_mirrored,
    params_for,
    server_named,
)
from guard.proxy.house import Generation, House
from guard.proxy.links import Link, ToolServer
from guard.proxy.remembering import memory_of, user_said
from guard.proxy.shelves import Shelves

ID_BYTES: Final = 16
MAX_REBINDS: Final = 10


def random_id() -> str:
    """128 random bits, base64url."""
    return b64(os.urandom(ID_BYTES))


def _tool(
    message: wire.Request, server: str, name: str, link: Link | None, versions: Mapping[str, int]
) -> Tool:
    """What a request is about, as it is pinned; absent where nobody is to be asked. Raises Malformed."""
    kind = subject(message.method, message.params)[0]
    if kind != "tool":
        return Tool(server, name, pin=Pin.MATCHES if link else Pin.ABSENT, kind=kind)
    if link is None:
        return Tool(server, name)
    link.catalog.at(versions)
    if message.flight.headers is not None and message.modern:
        check_mirrored(message, link.catalog.mirroring(name), message.flight.headers)
    return link.catalog.tool(name)


class Binding:
    """One client, as far as its calls are bound.

    Args:
        house: what all clients share.
        identify: makes a Principal of the credential that came with the launch or the request;
            raises Refused. Nothing in a message has a say.
        conversation: where calls belong that name no conversation.
        seen: who it was a moment ago, where the transport had to ask already.

    Attributes:
        asker: the client itself, once it shook hands; None for 2026-07-28, which has no sessions.
        asking: has people asked about its calls.
    """

    asking: Asking

    def __init__(
        self,
        house: House,
        identify: Callable[[], Principal],
        conversation: Conversation,
        seen: Principal | None = None,
    ) -> None:
        self.house = house
        self.conversation = conversation
        self.asker: Asker | None = None
        self._identify = identify
        self._seen = seen
        self._issuer = house.issuer
        self._log = house.log
        self._clock = house.clock

    # -- 2, 3 ----------------------------------------------------------------------------------

    @property
    def home(self) -> Conversation:
        """Where its calls belong that name no conversation."""
        configured = self.house.generation.conversation
        if self.conversation.source == "inferred" and configured is not None:
            return Conversation(configured, "launch")
        return self.conversation

    def identify(self, message: wire.Request | None = None) -> Principal:
        """Who asks. Nothing in the message has a say."""
        if message is not None and (seen := self._seen) is not None:
            self._seen = None  # good for the first step of one call: `bind` asks again. A list asks now
            return seen
        return self._identify()

    async def bind(self, message: wire.Request, principal: Principal) -> Call:
        """The message as it would be sent, and the facts around it."""
        message = await self.asking.returned(message, principal)
        spoken = await self._hear(message, principal) if message.user_message else ()
        for _ in range(MAX_REBINDS):
            before = self.house.generation
            try:
                server, name, link = await self._find(before, message, principal)
            except Refused:
                if self.house.generation is before:
                    raise
                continue  # its server went with the old configuration
            generation = await self.house.settled()
            # From here to the snapshot nothing is awaited: what it reads belongs to this generation.
            if generation is not before:
                continue
            conversation = self._conversation(message)
            about = server.about.name if server else ""
            snapshot = self._log.store.snapshot(
                principal,
                conversation,
                (about, name),
                own_only=generation.policy.may_assert_conversations(principal.role),
            )
            if facts.versions(generation.policy).keys() <= snapshot.versions.keys():
                break
            await self.house.adopt(principal.tenant, generation.policy)
        else:
            raise Refused(Reason.CONTENDED, "the configuration changes faster than calls can be bound")
        again = self.identify(message)  # after the versions were read, or step 6 sees no move
        if again is not principal and again != principal:
            raise Refused(Reason.UNEXPECTED, "the credential changed its meaning")
        tool = _tool(message, about, name, link, snapshot.versions)
        now = self._clock()
        at = max(now, snapshot.last)
        world = Facts(
            now=now,
            last=snapshot.last,
            artifact_key=self._issuer.usable(now // 1000),
            store_writable=self._log.failure is None,
            contained=snapshot.contained,
            versions=snapshot.versions,
        )
        call = Bound(
            id=random_id(),
            principal=principal,
            tool=tool,
            audience=server.about.audience if server else "",
            method=message.method,
            params=params_for(message, name),
            conversation=conversation,
            facts=world,
            fault=message.fault,
            traceparent=message.traceparent,
            parent=self._parent(message, generation, now),
            intents=generation.intents | message.intents,
            user_message=sha256(message.user_message.encode()) if spoken else "",
            generation=generation,
            server=server,
            upstream=link.upstream if link else None,
            trail=Trail(flight=message.flight),
        )
        if "requestState" in call.params and call.method in SUBJECTS:  # any other method's is its own
            state = self.house.seal.open(call.params["requestState"], call)
            call = replace(call, params={**call.params, "requestState": state})
        if link is None:
            return call
        store, policy, salt = self._log.store, generation.policy, self.house.salt
        told = facts.told(store, policy, call, at=at, salt=salt, spoken=spoken)
        return call if told is world else replace(call, facts=told)

    async def _hear(self, message: wire.Request, principal: Principal) -> Glimpses:
        """The user's own words, remembered before anything is decided on them; () where nobody may say them.

        Raises:
            Refused: they cannot be remembered.
        """
        policy, text = self.house.generation.policy, message.user_message
        if not facts.user_may_speak(policy, principal):
            return ()
        memory = memory_of(policy, principal, self._conversation(message), self.house.salt)
        if memory is None:
            return ()
        now = self._clock()
        told = memory.text(b"\0" + text.encode(), now)  # as nothing begins that a server says
        if told not in self.house.heard and (keep := user_said(memory, text)) is not None:
            made = Transaction(Place(principal.tenant), None, now, effects=(keep,))
            if not isinstance(await self._log.commit(made), Recorded):
                raise Refused(Reason.STORE_UNAVAILABLE, "the user's words could not be remembered")
            self.house.note_heard(told)
        return spoken_of(text, self.house.salt)

    async def _find(
        self, generation: Generation, message: wire.Request, principal: Principal
    ) -> tuple[ToolServer | None, str, Link | None]:
        """The server, its own name for what is asked, and a running link; None where it is not to be asked.

        Nobody starts or waits for a server by naming what is out of their sight.
        """
        kind, exposed = subject(message.method, message.params)
        flight = message.flight
        flight.parked = asyncio.current_task()  # a server's start may take long
        try:
            if kind == "resource":
                server, name = await Shelves(generation, principal, self.asker).owner(exposed), exposed
            else:
                server, name = server_named(generation, kind, exposed)
            if server is None or not visible(
                principal, server.about.name, name, frozenset(), generation.policy, kind=kind
            ):
                return server, name, None
            link = server.link(principal, self.asker)
            await (link.fresh() if kind == "tool" else link.ready())
        except asyncio.CancelledError:
            if not flight.was_barred():
                raise
            raise Refused(flight.barred or Reason.CANCELLED) from None
        finally:
            flight.parked = None
        return server, name, link

    def _conversation(self, message: wire.Request) -> Conversation:
        if CONVERSATION_META in message.meta:
            return Conversation(message.meta[CONVERSATION_META], "meta")
        return self.home

    def _parent(self, message: wire.Request, generation: Generation, now: int) -> Parent | None:
        """An artifact that came along: noted, believed only from a trusted issuer, never passed on."""
        token = message.artifact
        if token is None or message.flight.parent is not None:
            return message.flight.parent
        digest = sha256(token.encode("utf-8", "replace"))
        for verifier in generation.parents:
            try:
                verified = verifier.verify(
                    token.encode("ascii", "replace"), message.method, message.params, now=now / 1000
                )
            except ArtifactRefused:
                continue
            message.flight.parent = Parent("verified", digest, verified.claims["txn"], verified.depth)
            return message.flight.parent
        return Parent("claimed", digest)

    def attempt(self, message: wire.Request, principal: Principal) -> Call:
        """What is known of a call that could not be bound."""
        generation = self.house.generation
        kind, exposed = subject(message.method, message.params)
        server, name = server_named(generation, kind, exposed)
        return Bound(
            id=random_id(),
            principal=principal,
            tool=Tool(server.about.name if server else "", name, kind=kind),
            audience=server.about.audience if server else "",
            method=message.method,
            params=params_for(message, name),
            conversation=self._conversation(message),
            facts=Facts(now=self._clock()),
            fault=message.fault,
            generation=generation,
            server=server,
        )

"""What one Guard is while it runs, and the generation of its configuration that holds now.

A generation never changes. A reload puts a whole new one in its place at one moment; a call takes
the newest one when it is bound and keeps it to its end, so no call sees half of a reload.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from guard.artifact.grant import Issuer
from guard.artifact.verify import Verifier
from guard.core.errors import GuardError
from guard.core.model import Principal
from guard.lineage.entry import Kind
from guard.lineage.log import Log, entry
from guard.lineage.store import Conflict, Place, Recorded, SavePolicy, Transaction
from guard.policy.globs import fits
from guard.policy.rules import Policy
from guard.proxy.links import ToolServer
from guard.proxy.sealing import Seal
from guard.proxy.warden import Warden

MAX_HEARD: Final = 4096
"""How many texts are known to be remembered; any other is remembered again."""
JOINT: Final = "__"
"""Between the server's name and the tool's, where there is more than one server."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Everything that one configuration and one policy make.

    Attributes:
        policy: what decides.
        servers: the tool servers by name, in the order of the configuration.
        conversation: the configured conversation id, None for none.
        strict: whether a result waits until its ending is durable.
        parents: verifiers of artifacts that clients present, one for each trusted issuer.
        intents: what the launch or the configuration declares for every call.
        park: seconds that a call waits for a reviewer before it is denied.
    """

    policy: Policy
    servers: Mapping[str, ToolServer]
    conversation: str | None = None
    strict: bool = False
    parents: Sequence[Verifier] = field(default=(), repr=False)
    intents: frozenset[str] = frozenset()
    park: float = 60.0

    @property
    def only(self) -> ToolServer | None:
        """The one server, None where there are more."""
        return next(iter(self.servers.values())) if len(self.servers) == 1 else None

    def find(self, name: str) -> tuple[ToolServer, str] | None:
        """The server that a client's name for a tool means, and the server's own name for the tool.

        A server's name holds no JOINT and does not end in `_`, so the first JOINT is the one.
        """
        if self.only is not None:
            return self.only, name
        server, joint, tool = name.partition(JOINT)
        found = self.servers.get(server)
        return (found, tool) if found is not None and joint and tool else None

    def may_show(self, principal: Principal, server: str, kind: str) -> bool:
        """Whether the policy could show the principal anything of this kind at this server."""
        return all(_may_show(layer, principal, server, kind) for layer in self.policy.layers)

    def exposed(self, server: str, tool: str) -> str:
        """The client's name for a server's tool."""
        return tool if self.only is not None else f"{server}{JOINT}{tool}"


def _may_show(layer: Policy, principal: Principal, server: str, kind: str) -> bool:
    held = layer.held(principal)
    if held is None:
        return False
    return layer.observing or any(
        pattern.kind == kind and fits(pattern.server, server) and held.covers(rule.scopes)
        for rule in layer.tools
        for pattern in rule.tools
    )


class Watcher(Protocol):
    """Whoever must hear that the visible tools may have changed."""

    def tools_changed(self) -> None:
        """They may have."""
        ...


class House:
    """What outlives a reload.

    Args:
        issuer: signs artifacts.
        log: where entries go.
        instance: who owes the endings.
        clock: UNIX milliseconds.
        generation: the first one.
        seal: seals what servers hand out to get back.
        salt: keys the fingerprints of what was seen: the same in every replica, and not in the store.

    Attributes:
        decisions: how many calls were decided since the start, by reason; "allow" for the permitted.
        refusals: how many messages were refused before anybody was identified or anything judged.
        warden: looks after what outlives its authorization.
        heard: the newest texts that are remembered, of users and servers: see `Memory.text`.
    """

    def __init__(
        self,
        *,
        issuer: Issuer,
        log: Log,
        instance: str,
        clock: Callable[[], int],
        generation: Generation,
        seal: Seal,
        salt: bytes = b"",
    ) -> None:
        self.issuer = issuer
        self.seal = seal
        self.salt = salt
        self.heard: dict[tuple[str, str], None] = {}
        self.log = log
        self.instance = instance
        self.clock = clock
        self.generation = generation
        self.decisions: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.started = clock()
        self._watchers: set[Watcher] = set()
        self._changed = False
        self._settled = asyncio.Event()
        self._settled.set()
        self.warden = Warden(self)

    def watch(self, watcher: Watcher) -> None:
        """Tell it when tools may have changed."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Tell it no more."""
        self._watchers.discard(watcher)

    def tools_changed(self) -> None:
        """The tools of some server may have changed: told once a turn of the loop, however often said."""
        if not self._changed:
            self._changed = True
            asyncio.get_running_loop().call_soon(self._tell_of_change)

    def _tell_of_change(self) -> None:
        self._changed = False
        for watcher in [*self._watchers]:
            watcher.tools_changed()

    def note_heard(self, text: tuple[str, str]) -> None:
        """Know that a text is remembered; the oldest is not known any more where there is no room."""
        while len(self.heard) >= MAX_HEARD:
            del self.heard[next(iter(self.heard))]
        self.heard[text] = None

    @property
    def steady(self) -> bool:
        """Whether no reload is half done."""
        return self._settled.is_set()

    async def settled(self) -> Generation:
        """The generation that holds, once no reload is half done.

        Whoever reads the store right after this, without awaiting anything between, reads it beside
        the generation that belongs to it.
        """
        await self._settled.wait()
        return self.generation

    async def adopt(self, tenant: str, policy: Policy) -> None:
        """Record the policy for a tenant that the store does not know it of. Raises Refused."""
        for layer in policy.layers:
            await self.log.commit(policy_record(layer, tenant, self.clock()))

    async def replace(self, generation: Generation, records: Sequence[Transaction]) -> None:
        """Record what the new generation brings, then let it hold.

        Calls that were bound before find, in step 6, that the policy moved, and are decided anew.

        Raises:
            Refused: it could not be recorded; the old generation holds.
            GuardError: the store has a newer policy, or another of the same version; the old holds.
        """
        self._settled.clear()
        try:
            for record in records:
                outcome = await self.log.commit(record)
                if not isinstance(outcome, Recorded):
                    what = outcome.what if isinstance(outcome, Conflict) else "the store moved meanwhile"
                    raise GuardError(what, remedy="raise `version` in the policy: it only grows")
            self.generation = generation
        finally:
            self._settled.set()
        self.warden.moved()
        self._tell_of_change()


def policy_record(policy: Policy, tenant: str, now: int) -> Transaction:
    """What is recorded of a policy that was loaded.

    Args:
        policy: the policy.
        tenant: whose.
        now: UNIX milliseconds.
    """
    ref = policy.ref
    fields = {"id": ref.id, "version": ref.version, "sha256": ref.sha256, "mode": policy.mode}
    effect = SavePolicy(ref.id, ref.version, ref.sha256)
    return Transaction(Place(tenant), entry(Kind.POLICY, "", fields), now, effects=(effect,))

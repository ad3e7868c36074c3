"""The parts that every Guard is made of, whatever serves them, and how they are put together."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, cast

from guard.config.home import DEFAULT_TENANT, Home
from guard.config.sharing import Shared
from guard.config.stores import RenewableLease, Replicated
from guard.core.errors import printable
from guard.core.model import Pin, Tool
from guard.lineage.abandoned import Lease, Tending, close_abandoned
from guard.lineage.lease import Lease as FileLease
from guard.lineage.log import IN_PLACE, Log
from guard.lineage.store import Store
from guard.policy.findings import nearest
from guard.policy.rules import Policy
from guard.proxy.about import About, Make
from guard.proxy.catalog import Catalog


def begin(store: Store, home: Home, *, shared: bool = False) -> tuple[Lease, Log]:
    """Take the lease, end what a dead process left open, and start the log's writer.

    Args:
        store: where it writes.
        home: where the leases are.
        shared: whether other workers write to the store all the time.
    """
    if isinstance(store, Replicated):
        return _begin_replica(store, home)
    lease = FileLease(home.path / "run")
    close_abandoned(store, lease)
    written = cast("Store", Shared(store)) if shared else store  # it is the store in all that it does not say
    return lease, Log(written, on_failure=_log_failed, in_place=IN_PLACE)


def _begin_replica(store: Replicated, home: Home) -> tuple[Lease, Log]:
    """As `begin`, with a store that comes back by itself when it was away."""
    lease = store.lease()
    keys, own = store.keys(home.pairwise_secret), home.artifact_key.public.jwk()

    tending = Tending(store, lease)

    def tend() -> None:
        keys.say(own)
        tending()

    try:
        close_abandoned(store, lease)
        keys.say(own)
        store.serve(lease.instance, _sequencer_failed)
    except BaseException:
        lease.release()
        raise
    mend = partial(_mend, store, lease)
    return lease, Log(store, on_failure=_store_away, mend=mend, on_mended=_store_back, tend=tend)


def _mend(store: Store, lease: RenewableLease) -> None:
    """What was being written when the store went away is settled: under a new name, with nothing open."""
    lease.renew()
    close_abandoned(store, lease, "store-unavailable", lease.was_mine)  # others may be about to come back


def about(
    name: str,
    make: Make,
    *,
    audience: str,
    home: Home,
    store: Store,
    pin_command: Callable[[str], str],
    shared: bool = False,
    idle_seconds: float | None = None,
    most: int = 64,
    let_go: Callable[[], Awaitable[None]] | None = None,
    methods: Iterable[str] = (),
    meta: Iterable[str] = (),
) -> About:
    """What there is to know of a tool server, with its verifier and its pins."""
    return About(
        name=name,
        audience=audience,
        make=make,
        verifier=home.gate_verifier(audience),
        pins=lambda tenant: store.pins(tenant, name),
        pin_command=pin_command,
        shared=shared,
        idle_seconds=idle_seconds,
        most=most,
        let_go=let_go,
        methods=frozenset(methods),
        meta=frozenset(meta),
    )


def definitions(store: Store, tenant: str, servers: Iterable[str]) -> Mapping[tuple[str, str], Any]:
    """Every pinned definition of these servers, by (server, name)."""
    found: dict[tuple[str, str], Any] = {}
    for server in servers:
        catalog = Catalog(server, read_pins=partial(store.pins, tenant, server))
        catalog.at(store.versions(tenant))
        found |= catalog.definitions()
    return found


def tenants(store: Store) -> list[str]:
    """Every tenant that has an API key, and the default one."""
    return list(dict.fromkeys([DEFAULT_TENANT, *(record.tenant for record in store.api_keys())]))


def warn_of_role(policy: Policy, role: str) -> None:
    """Tell the operator of a role that the policy does not have."""
    if not policy.role_exists(role):
        what = f"the policy has no role {printable(role)}, every call will be denied"
        say(what, nearest(role, policy.roles))


def tell_of(tools: Sequence[Tool], pin_command: str) -> None:
    """Name the tools that will be refused for want of a pin."""
    for pin, state in ((Pin.UNPINNED, "not pinned"), (Pin.CHANGED, "not as they were pinned")):
        names = ", ".join(printable(tool.name) for tool in tools if tool.pin is pin)
        if names:
            say(f"these tools are {state} and will be refused: {names}", pin_command)


def _log_failed(error: BaseException) -> None:
    what = f"the lineage cannot be written, every call is denied: {printable(str(error))}"
    say(what, "mend the disk or the file, then start Guard again")


def _store_away(error: BaseException) -> None:
    what = f"the lineage cannot be written, every call is denied: {printable(str(error))}"
    say(what, "make the database reachable again; Guard goes on by itself then")


def _store_back() -> None:
    say("the lineage can be written again")


def _sequencer_failed(error: BaseException) -> None:
    say(f"entries wait outside the log, and none is signed: {printable(str(error))}")


COLLECT: Final = (20_000, 20, 50)
"""How many objects more make the collector look (the `gc` module's thresholds): a call makes some hundred."""


def settle() -> None:
    """What was loaded stays, and what calls leave is in no circles: the garbage collector may come seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)


def say(what: str, remedy: str = "") -> None:
    """Tell the operator, on standard error."""
    hint = f"\n  next: {remedy}" if remedy else ""
    print(f"guard: {what}{hint}", file=sys.stderr, flush=True)  # noqa: T201 - stdout is the client's

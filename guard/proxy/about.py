"""What the operator says of one tool server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from guard.artifact.verify import Verifier
from guard.lineage.store import PinRow
from guard.proxy.upstream import Upstream


class Make(Protocol):
    """Makes an upstream that is not started yet."""

    def __call__(self, *, on_list_changed: Callable[[], None], on_gone: Callable[[], None]) -> Upstream:
        """Given whom to tell."""
        ...


@dataclass(frozen=True, slots=True)
class About:
    """What the operator says of one tool server.

    Attributes:
        name: the operator's id of it.
        audience: the `aud` of its artifacts.
        make: how it is reached or started.
        verifier: the gate's own check of its artifacts.
        pins: reads its pins, given a tenant.
        pin_command: the words that accept its tools, given a tenant.
        shared: whether all principals of a tenant speak over one link.
        idle_seconds: how long an unused link is kept; None for ever.
        most: links that may be up at once.
        let_go: what else is let go of with the server; None for nothing.
        methods: of JSON-RPC, that are let through to it beside those of MCP.
        meta: keys of `_meta` that are let through to it.
    """

    name: str
    audience: str
    make: Make = field(repr=False)
    verifier: Verifier = field(repr=False)
    pins: Callable[[str], list[PinRow]] = field(repr=False)
    pin_command: Callable[[str], str] = field(repr=False)
    shared: bool = False
    idle_seconds: float | None = None
    most: int = 64
    let_go: Callable[[], Awaitable[None]] | None = field(default=None, repr=False)
    methods: frozenset[str] = frozenset()
    meta: frozenset[str] = frozenset()
